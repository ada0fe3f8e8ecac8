"""ResNet-50 trunk (He et al., CVPR 2016) with the state-dict keys of torchvision's ``resnet50``."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

_EXPANSION = 4
_LAYERS = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions with a shortcut; the 3x3 one carries the stride."""

    def __init__(self, in_channels: int, planes: int, stride: int, has_downsample: bool) -> None:
        super().__init__()
        out_channels = planes * _EXPANSION
        self.conv1 = nn.Conv2d(in_channels, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = (
            nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
            )
            if has_downsample
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        return self.relu(self.bn3(self.conv3(x)) + shortcut)


def _stage(in_channels: int, planes: int, blocks: int, stride: int) -> nn.Sequential:
    first = Bottleneck(in_channels, planes, stride, has_downsample=True)
    rest = [Bottleneck(planes * _EXPANSION, planes, 1, has_downsample=False) for _ in range(blocks - 1)]
    return nn.Sequential(first, *rest)


def add_resnet50(module: nn.Module) -> None:
    """Give ``module`` the layers of ResNet-50 under torchvision's names, with He initialisation."""
    module.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
    module.bn1 = nn.BatchNorm2d(64)
    module.relu = nn.ReLU(inplace=True)
    module.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
    module.layer1 = _stage(64, 64, blocks=3, stride=1)
    module.layer2 = _stage(256, 128, blocks=4, stride=2)
    module.layer3 = _stage(512, 256, blocks=6, stride=2)
    module.layer4 = _stage(1024, 512, blocks=3, stride=2)
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            size = layer.kernel_size[0] * layer.kernel_size[1] * layer.out_channels
            nn.init.normal_(layer.weight, 0, math.sqrt(2 / size))


def resnet50_features(module: Any, images: Tensor) -> Tensor:
    """Features (n, 2048) float32 of images (n, 3, H, W) by the layers that :func:`add_resnet50` gave."""
    x = module.maxpool(module.relu(module.bn1(module.conv1(images))))
    x = module.layer4(module.layer3(module.layer2(module.layer1(x))))
    return x.mean(dim=(2, 3), dtype=torch.float32)


class FoldedResNet50(nn.Module):
    """A copy of a module's trunk for inference: images (n, 3, H, W) -> features (n, 2048) float32.

    Each BatchNorm, as in evaluation mode, is folded into the convolution before it, which changes results by
    rounding only (about 3e-7 of their size). Weights are in channels-last order, which processors prefer.

    Args:
        module: has the layers of :func:`add_resnet50`; it is left as it is.
        dtype: of weights and activations. bfloat16 is several times faster where the processor knows it, with
            errors of about 0.4 % of the largest feature.
    """

    def __init__(self, module: nn.Module, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        for name in _LAYERS:
            setattr(self, name, copy.deepcopy(getattr(module, name)))
        self.eval()
        _fold(self, "conv1", "bn1")
        for block in [layer for layer in self.modules() if isinstance(layer, Bottleneck)]:
            for number in (1, 2, 3):
                _fold(block, f"conv{number}", f"bn{number}")
            if block.downsample is not None:
                _fold(block.downsample, "0", "1")
        self.dtype = dtype
        self.requires_grad_(False).to(dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, images: Tensor) -> Tensor:
        return resnet50_features(self, images.to(self.dtype))


def _fold(parent: nn.Module, convolution: str, norm: str) -> None:
    folded = fuse_conv_bn_eval(getattr(parent, convolution), getattr(parent, norm))
    setattr(parent, convolution, folded)
    setattr(parent, norm, nn.Identity())

"""ResNet-50 trunk (He et al., CVPR 2016) with the state-dict keys of torchvision's ``resnet50``."""

from __future__ import annotations

import math
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

_EXPANSION = 4


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
        result: Tensor = self.relu(self.bn3(self.conv3(x)) + shortcut)
        return result


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


def resnet50_features(module: Any, images: Float[Tensor, "n 3 height width"]) -> Float[Tensor, "n 2048"]:
    """Features of images by the layers that :func:`add_resnet50` gave ``module``."""
    x: Tensor = module.maxpool(module.relu(module.bn1(module.conv1(images))))
    x = module.layer4(module.layer3(module.layer2(module.layer1(x))))
    return x.mean(dim=(2, 3))

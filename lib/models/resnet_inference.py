"""ResNet-50 for inference: BatchNorm folded, channels last, and on CPUs one oneDNN call per convolution.

Folding changes results by rounding only (about 2e-7 of their size). The oneDNN calls, which ``torch.compile``
also generates, add bias and shortcut and apply ReLU while a convolution's output is still in the cache; what
they save is memory traffic.
"""

from __future__ import annotations

import copy
import logging
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from .resnet import Bottleneck

log = logging.getLogger(__name__)

_CPU_IMAGES = 8
"""Images that go through the network at once on a CPU: their activations stay in the cache."""


class InferenceResNet50(nn.Module):
    """A copy of a module's trunk for inference: images (n, 3, H, W) -> features (n, 2048) float32.

    Args:
        module: has the layers of :func:`lib.models.resnet.add_resnet50`; it is left as it is.
        dtype: of weights and activations. bfloat16 is faster where the processor knows it, with features
            about 0.3 % off (relative norm).
        device: to run on, for good.
    """

    def __init__(
        self, module: Any, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
    ) -> None:
        super().__init__()
        self.dtype, self.device = dtype, torch.device(device)
        self.maxpool = copy.deepcopy(module.maxpool)
        self.conv1 = _Convolution(module.conv1, module.bn1)
        stages = (module.layer1, module.layer2, module.layer3, module.layer4)
        self.blocks = nn.Sequential(*(_Block(block) for stage in stages for block in stage))
        self.requires_grad_(False).to(self.device, dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if self.device.type == "cpu" and _has_onednn(dtype):
            for layer in self.modules():
                if isinstance(layer, _Convolution):
                    layer.fused = True

    def forward(self, images: Tensor) -> Tensor:
        x = images.to(self.device, self.dtype)
        parts = torch.split(x, _CPU_IMAGES) if self.device.type == "cpu" else (x,)
        return torch.cat([self._features(part) for part in parts])

    def _features(self, x: Tensor) -> Tensor:
        features: Tensor = self.blocks(self.maxpool(self.conv1(x)))
        return features.mean(dim=(2, 3), dtype=torch.float32)


class _Block(nn.Module):
    shortcut: nn.Module | None

    def __init__(self, block: Bottleneck) -> None:
        super().__init__()
        self.conv1 = _Convolution(block.conv1, block.bn1)
        self.conv2 = _Convolution(block.conv2, block.bn2)
        self.conv3 = _Convolution(block.conv3, block.bn3)
        downsample = block.downsample
        self.shortcut = None if downsample is None else _Convolution(downsample[0], downsample[1], relu=False)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.shortcut is None else self.shortcut(x)
        result: Tensor = self.conv3(self.conv2(self.conv1(x)), shortcut)
        return result


class _Convolution(nn.Module):
    """A convolution with its BatchNorm, then the addition of a shortcut, if one is given, and ReLU."""

    def __init__(self, convolution: Any, norm: Any, relu: bool = True) -> None:
        super().__init__()
        self.layer = fuse_conv_bn_eval(copy.deepcopy(convolution).eval(), copy.deepcopy(norm).eval())
        self.relu = relu
        self.fused = False  # by oneDNN
        self._packed: Tensor | None = None

    def forward(self, x: Tensor, shortcut: Tensor | None = None) -> Tensor:
        """``shortcut`` is overwritten by the result."""
        if self.fused:
            return self._fused(x, shortcut)
        y = self.layer(x) if shortcut is None else shortcut.add_(self.layer(x))
        return y.relu_() if self.relu else y

    def _fused(self, x: Tensor, shortcut: Tensor | None) -> Tensor:
        ops, layer = torch.ops.mkldnn, self.layer
        layout = (layer.padding, layer.stride, layer.dilation, layer.groups)
        if self._packed is None:  # the best order of weights depends on the input's size
            self._packed = ops._reorder_convolution_weight(layer.weight, *layout, x.shape)
        arguments = (x, self._packed, layer.bias, *layout)
        if shortcut is None:
            y: Tensor = ops._convolution_pointwise(*arguments, "relu" if self.relu else "none", [], "")
            return y
        ops._convolution_pointwise_.binary(shortcut, *arguments, "add", 1.0, "relu", [], "")
        return shortcut


def _has_onednn(dtype: torch.dtype) -> bool:
    """Whether oneDNN's fused convolutions work here; they are no public part of torch."""
    probe = _Convolution(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).to(dtype)
    x = torch.zeros(1, 3, 8, 8, dtype=dtype)
    try:
        with torch.inference_mode():
            probe.fused = True
            probe(x, probe(x))
    except (AttributeError, RuntimeError, TypeError) as error:
        log.info("oneDNN's fused convolutions are not available (%s)", str(error).splitlines()[0])
        return False
    return True

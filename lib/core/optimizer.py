"""Optimisers by name."""

from __future__ import annotations

from torch import nn
from torch.optim import SGD, Adam, Optimizer

from lib.utils.errors import UserError


def build_optimizer(
    kind: str, parameters: list[nn.Parameter], *, lr: float, weight_decay: float, momentum: float
) -> Optimizer:
    """Adam, or SGD with momentum, for parameters that are all on one device.

    Raises:
        UserError: ``kind`` is neither.
    """
    if kind.lower() == "adam":
        fused = parameters[0].device.type in ("cpu", "cuda")
        return Adam(parameters, lr=lr, weight_decay=weight_decay, fused=fused)
    if kind.lower() == "sgd":
        return SGD(parameters, lr=lr, momentum=momentum, weight_decay=weight_decay)
    raise UserError(f"optimiser {kind!r} (TRAIN.GEN_OPTIM, TRAIN.MOT_DISCR.OPTIM): use Adam or SGD")

"""Optimisers by name."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.optim import SGD, Adam, Optimizer

from ..utils.errors import UserError


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


def restore_optimizer(optimizer: Optimizer, state: dict[str, Any], source: str, setting: str) -> None:
    """Load a stored state: what was learned, and the learning rate. Other settings stay the optimiser's own.

    Args:
        source, setting: where it comes from and what ``optimizer`` was made from, named in errors.

    Raises:
        UserError: it belongs to the other kind of optimiser, or to another number of parameters.
    """
    kinds = [
        [("betas" in group, len(group["params"])) for group in some["param_groups"]]
        for some in (state, optimizer.state_dict())
    ]
    if kinds[0] != kinds[1]:
        raise UserError(
            f"{source}: its optimiser state does not fit {setting}: go on with the settings that it was "
            "trained with"
        )
    own = [{k: v for k, v in group.items() if k not in ("params", "lr")} for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, settings in zip(optimizer.param_groups, own):
        group.update(settings)

"""The learning rate over a training run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau
from yacs.config import CfgNode

from ..utils.errors import UserError


def build_schedule(optimizer: Optimizer, train: CfgNode) -> LearningRate:
    """The learning rate over a whole training run, as the section TRAIN of a configuration says.

    Raises:
        UserError: TRAIN.LR_SCHEDULE is unknown.
    """
    total = train.NUM_ITERS_PER_EPOCH * (train.END_EPOCH - train.START_EPOCH)
    return LearningRate(
        optimizer, train.LR_SCHEDULE, patience=train.LR_PATIENCE, warmup=train.WARMUP_ITERS, total=total
    )


class LearningRate:
    """Sets an optimiser's learning rate.

    Args:
        kind: ``plateau`` divides it by 10 when the performance has not improved for more than ``patience``
            epochs; ``cosine`` lets it fall to zero at iteration ``total``.
        warmup: iterations over which it rises linearly at first.

    Raises:
        UserError: another kind.
    """

    def __init__(self, optimizer: Optimizer, kind: str, *, patience: int, warmup: int, total: int) -> None:
        if kind not in ("plateau", "cosine"):
            raise UserError(f"TRAIN.LR_SCHEDULE is {kind!r}: use plateau or cosine")
        self._optimizer, self._warmup, self._total = optimizer, warmup, total
        self._base = optimizer.param_groups[0]["lr"]
        self._plateau = ReduceLROnPlateau(optimizer, patience=patience) if kind == "plateau" else None

    @property
    def value(self) -> float:
        return float(self._optimizer.param_groups[0]["lr"])

    def before_iteration(self, iteration: int) -> None:
        """Set the rate for an iteration, counted from 0 over the whole run."""
        if iteration < self._warmup:
            self._set(self._base * (iteration + 1) / self._warmup)
        elif self._plateau is None:
            done = min(1.0, (iteration - self._warmup) / max(1, self._total - self._warmup))
            self._set(self._base * 0.5 * (1 + math.cos(math.pi * done)))

    def after_epoch(self, performance: float) -> None:
        """Take note of an epoch's performance, lower is better."""
        if self._plateau is not None:
            self._plateau.step(performance)

    def state_dict(self) -> dict[str, Any]:
        plateau = self._plateau.state_dict() if self._plateau is not None else {}
        return {**plateau, "base": self._base}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a stored state, after the optimiser has got its own back. The settings stay: a base rate
        that has changed since scales the rate that is in use."""
        base = state.get("base", self._base)
        if base != self._base:
            self._set(self._base * (self.value / base if base else 1.0))
        learned = {key: value for key, value in state.items() if key not in ("base", "patience")}
        if self._plateau is not None and learned:
            self._plateau.load_state_dict(learned)

    def _set(self, value: float) -> None:
        for group in self._optimizer.param_groups:
            group["lr"] = value

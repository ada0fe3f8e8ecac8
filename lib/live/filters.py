"""Filters that know the past alone."""

from __future__ import annotations

import math
from collections import deque

import numpy as np
import torch
from jaxtyping import Float

from ..utils.geometry import rot6d_to_rotmat, rotmat_to_rot6d

_FAR = 4  # widths of a Gaussian, beyond which values do not count
_NARROWEST = 0.1  # values; of a narrower one all weights but the last are 0, even in float64


class Trend:
    """The end of a straight line through the last values, later ones counting more.

    It calms noise and yet does not lag behind what moves evenly, as means do.

    Args:
        width: values, of the Gaussian by whose half they are weighted.
    """

    def __init__(self, width: float) -> None:
        self._width = max(width, _NARROWEST)
        self._recent: deque[np.ndarray] = deque(maxlen=1 + math.ceil(_FAR * self._width))

    def __call__(self, value: np.ndarray) -> np.ndarray:
        """The next value, of any shape, evenly later than the one before."""
        self._recent.append(value)
        ago = np.arange(len(self._recent))[::-1]
        weight = np.exp(-((ago / self._width) ** 2) / 2)
        total, first, second = (float((weight * ago**power).sum()) for power in range(3))
        if len(ago) > 1:  # the value at 0 of the least squares line
            weight = weight * (second - first * ago) / (total * second - first**2) * total
        return np.tensordot(weight / total, np.stack(self._recent), 1)


class RunningMean:
    """The mean of all values so far, and from ``memory`` values (at least one) on an exponential one."""

    def __init__(self, memory: int) -> None:
        self._memory, self._count, self._mean = max(1, memory), 0, np.zeros(())

    def __call__(self, value: np.ndarray | np.floating) -> np.ndarray:
        self._count = min(self._count + 1, self._memory)
        self._mean = self._mean + (value - self._mean) / self._count
        return self._mean


class RotationTrend:
    """:class:`Trend` of rotations: the rotation next to the line's end, by its first two columns."""

    def __init__(self, width: float) -> None:
        self._trend = Trend(width)

    def __call__(self, rotmat: Float[np.ndarray, "*batch 3 3"]) -> Float[np.ndarray, "*batch 3 3"]:
        """The next rotations, float32; the same of them."""
        six = self._trend(rotmat_to_rot6d(torch.from_numpy(rotmat)).numpy())
        return rot6d_to_rotmat(torch.from_numpy(six.astype(np.float32))).view(rotmat.shape).numpy()

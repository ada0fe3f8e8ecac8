"""Filters that know the past alone."""

from __future__ import annotations

import math
from collections import deque

import numpy as np
import torch

from ..utils.geometry import rot6d_to_rotmat, rotmat_to_rot6d

_FAR = 4  # widths of a Gaussian, beyond which values do not count
_NARROWEST = 0.1  # values; of a narrower one all weights but the last are 0, even in float64


class OneEuro:
    """The one-euro filter (Casiez et al., CHI 2012): an exponential mean that follows the faster, the faster
    the signal moves.

    Args:
        rest: Hz, cutoff while nothing moves. slope: how much the cutoff grows with the speed, per unit.
        speed: Hz, cutoff of the speed itself.
    """

    def __init__(self, rest: float, slope: float, speed: float = 1.0) -> None:
        self._rest, self._slope, self._speed_cutoff = rest, slope, speed
        self._value: np.ndarray | None = None
        self._speed: np.ndarray = np.zeros(())

    def __call__(self, value: np.ndarray, seconds: float) -> np.ndarray:
        """The next value, of any shape, ``seconds`` after the one before."""
        if self._value is None:
            self._value, self._speed = value, np.zeros_like(value)
            return value
        speed = (value - self._value) / seconds
        self._speed = self._speed + _share(self._speed_cutoff, seconds) * (speed - self._speed)
        cutoff = self._rest + self._slope * np.abs(self._speed)
        self._value = self._value + _share(cutoff, seconds) * (value - self._value)
        return self._value


def _share(cutoff: np.ndarray | float, seconds: float) -> np.ndarray | float:
    """Weight of a new value in an exponential mean of that cutoff in Hz."""
    turn = 2 * math.pi * seconds * cutoff
    return turn / (turn + 1)


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

    def __call__(self, rotmat: np.ndarray) -> np.ndarray:
        """(*, 3, 3) float32, the same."""
        six = self._trend(rotmat_to_rot6d(torch.from_numpy(rotmat)).numpy())
        return rot6d_to_rotmat(torch.from_numpy(six.astype(np.float32))).view(rotmat.shape).numpy()

"""Filters that know the past alone."""

from __future__ import annotations

import math

import numpy as np


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


class RunningMean:
    """The mean of all values so far, and from ``memory`` values on an exponential one."""

    def __init__(self, memory: int) -> None:
        self._memory, self._count, self._mean = memory, 0, np.zeros(())

    def __call__(self, value: np.ndarray | np.floating) -> np.ndarray:
        self._count = min(self._count + 1, self._memory)
        self._mean = self._mean + (value - self._mean) / self._count
        return self._mean

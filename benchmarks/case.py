"""What a benchmark is, and how two ways of doing the same work are timed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Case:
    """Two ways to do the same work.

    Attributes:
        name, unit: what is counted per second.
        count: pieces of work that ``fast`` does.
        naive: the plain way, see :mod:`benchmarks.naive`.
        fast: the project's way.
        naive_count: pieces that ``naive`` does, if they are not ``count``.
    """

    name: str
    unit: str
    count: int
    naive: Callable[[], object]
    fast: Callable[[], object]
    naive_count: int | None = None


@dataclass(frozen=True)
class Result:
    """Median rates per second of a case, and all of them by round."""

    name: str
    unit: str
    naive: float
    fast: float
    naive_rounds: list[float]
    fast_rounds: list[float]

    @property
    def ratio(self) -> float:
        return self.fast / self.naive


def rate(work: Callable[[], object], count: int) -> float:
    """Pieces per second of one call; what is queued on a GPU is waited for."""
    synchronize()
    start = time.perf_counter()
    work()
    synchronize()
    return count / (time.perf_counter() - start)


def synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def measure(case: Case, rounds: int) -> Result:
    """Time both ways in turns, so that a busy moment of the machine hits both, after a turn not counted."""
    naive, fast = [], []
    for number in range(rounds + 1):
        pair = rate(case.naive, case.naive_count or case.count), rate(case.fast, case.count)
        if number:
            naive.append(pair[0])
            fast.append(pair[1])
    medians = statistics.median(naive), statistics.median(fast)
    return Result(case.name, case.unit, *medians, naive, fast)

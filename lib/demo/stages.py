"""The stages of a reconstruction: how long each takes and how far it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

Progress = Callable[[str, int, int | None], object]
"""Called with a stage, how much of it is done, and how much there is in all (None if that is unknown)."""


class Stages:
    """Times named stages and reports on them.

    Args:
        progress: called while stages go on; None for silence.

    Attributes:
        seconds: per stage, in the order in which the stages were first entered.
    """

    def __init__(self, progress: Progress | None = None) -> None:
        self.seconds: dict[str, float] = {}
        self._progress = progress

    @contextmanager
    def timing(self, stage: str) -> Iterator[None]:
        """A stage that is only timed."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start

    @contextmanager
    def __call__(self, stage: str, total: int | None) -> Iterator[Callable[[int], object]]:
        """A stage that goes on step by step; gives a function that is called with how much more is done."""
        with self.timing(stage), self._reporting(stage, total) as update:
            yield update

    @contextmanager
    def _reporting(self, stage: str, total: int | None) -> Iterator[Callable[[int], object]]:
        done = 0

        def update(n: int) -> None:
            nonlocal done
            done += n
            if self._progress is not None:
                self._progress(stage, done, total)

        yield update


class Bars(Stages):
    """Stages that show a progress bar each."""

    @contextmanager
    def _reporting(self, stage: str, total: int | None) -> Iterator[Callable[[int], object]]:
        with tqdm(total=total, desc=f"{stage:<10}", unit="frame") as bar:
            yield bar.update

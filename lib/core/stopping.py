"""SIGTERM and Ctrl-C during training: the step that runs is finished and saved before the process ends."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any


class StopSignals:
    """While entered, the first SIGTERM or SIGINT is only noted in :attr:`number`; a second one acts at once.

    A signal that whoever started the process ignores (``nohup`` does) stays ignored.
    """

    def __init__(self) -> None:
        self.number = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        for number in (signal.SIGTERM, signal.SIGINT):
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        while self._before:
            signal.signal(*self._before.popitem())

    def end(self) -> None:
        """End the process as the noted signal would have done; SIGTERM if another process noted it."""
        signal.raise_signal(self.number or signal.SIGTERM)

    def _note(self, number: int, _: FrameType | None) -> None:
        if self.number:
            self.__exit__()
            signal.raise_signal(number)
        self.number = number

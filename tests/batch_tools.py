"""A worker for the tests of schedules: quick to start, and it dies when it is told to."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from lib.utils.errors import UserError


@dataclass(frozen=True)
class Errand:
    """``deaths``: attempts that end the process; ``fault``: an error to raise; ``waits`` for a file."""

    name: str
    deaths: int = 0
    fault: str = ""
    waits: bool = False


class Errands:
    """Runs errands. Each attempt leaves its process id as a line of a file in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._loaded = folder, False

    def load(self) -> None:
        if (self._folder / "unusable").exists():
            raise UserError("no weights")
        self._loaded = True

    def run(self, errand: Errand) -> str:
        assert self._loaded
        with (self._folder / errand.name).open("a") as file:
            file.write(f"{os.getpid()}\n")
        if len(attempts(self._folder, errand.name)) <= errand.deaths:
            os.kill(os.getpid(), signal.SIGKILL)
        if errand.fault:
            raise {"UserError": UserError, "ValueError": ValueError}[errand.fault]("a fault")
        while errand.waits and not (self._folder / "go").exists():
            time.sleep(0.01)
        return errand.name.upper()


def attempts(folder: Path, name: str) -> list[int]:
    """Process ids of the attempts at an errand so far."""
    path = folder / name
    return [int(line) for line in path.read_text().split()] if path.exists() else []

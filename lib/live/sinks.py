"""Where the bodies of a stream go. A further sink is one class and one line in :data:`SINKS`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from ..utils.errors import UserError
from ..utils.files import check_writable
from ..utils.registry import Registry
from .engine import LiveBody
from .preview import Preview
from .sink import Sink
from .vmc import Vmc

_DIGITS = 5


class JsonLines(Sink):
    """One JSON object per frame and person, a line each; docs/live.md describes it."""

    metavar = "FILE"
    text = "write one JSON object per frame and person, a line each; - is standard output"

    def __init__(self, target: str) -> None:
        if target != "-":
            check_writable(target, "--jsonl")
            path = Path(target)
            if path.is_dir():
                raise UserError(f"--jsonl {target}: is a folder; expected the name of a file, or -")
            there = path.exists()
            try:
                path.open("ab").close()
            except OSError as error:
                raise UserError(
                    f"--jsonl {target}: cannot be written ({error.strerror}); expected the name of a file "
                    "in a folder that is there, or -"
                ) from error
            if not there:
                path.unlink()
        self._target = target
        self._file: TextIO = sys.stdout

    def begin(self, delay: int) -> None:
        if self._target != "-":  # not before there is something to write: the file may be an older one
            self._file = Path(self._target).open("w", encoding="utf-8")  # noqa: SIM115 - close() does

    def bodies(self, bodies: Sequence[LiveBody]) -> None:
        for body in bodies:
            self._file.write(json.dumps(as_json(body), separators=(",", ":")) + "\n")
        if bodies:
            self._file.flush()

    def close(self) -> None:
        if self._file is not sys.stdout:
            self._file.close()


def as_json(body: LiveBody) -> dict[str, Any]:
    """A body as numbers and lists."""
    arrays = {
        "poses": body.poses,
        "trans": body.transl,
        "betas": body.betas,
        "joints": body.joints,
        "joints2d": body.pixels,
        "camera": body.camera,
    }
    return {
        "frame": body.frame,
        "time": round(body.time, _DIGITS),
        "person": body.person_id,
        "seen": body.captured is not None,
        **{name: np.round(value.astype(np.float64), _DIGITS).tolist() for name, value in arrays.items()},
    }


SINKS: Registry[type[Sink]] = Registry("output")
"""By the names of their options."""
SINKS.update(jsonl=JsonLines, vmc=Vmc, preview=Preview)

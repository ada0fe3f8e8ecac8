"""What became of each film: JSON lines in the output folder, from which a killed run goes on."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..utils.errors import UserError
from ..utils.files import check_writable, only_process

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Record:
    """One film, done or failed.

    Attributes:
        film: its name inside the corpus.
        status: ``done`` or ``failed``.
        size, mtime_ns: of the film's file when the work on it began.
        options: digest of everything that decides about the results, see
            :func:`lib.batch.worker.options_digest`.
        folder: of the results, inside the output folder.
        reason: why it failed.
        frames, people, person_frames: how many; ``duration``: of the film, s.
        seconds: of work, per stage; ``cpu``: of all CPUs together, which other programs disturb less.
        files: bytes of each file written, by its name in ``folder``.
        warnings: what was said about it.
        attempts: how often it was tried.
        host, finished: the machine's name, and when, s since 1970.
        corpus: which the film is of, see :func:`lib.demo.result_folder.place_mark`; '' in records of old.
    """

    film: str
    status: str
    size: int
    mtime_ns: int
    options: str
    folder: str
    reason: str = ""
    frames: int = 0
    people: int = 0
    person_frames: int = 0
    duration: float = 0.0
    cpu: float = 0.0
    seconds: dict[str, float] = field(default_factory=dict)
    files: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    attempts: int = 1
    host: str = ""
    finished: float = 0.0
    corpus: str = ""


def read_records(folder: str | Path) -> dict[str, Record]:
    """The newest record of each film in the manifests of an output folder, by the film's name.

    A last line that a killed run left unfinished, and lines of other programs, are left out with a warning.
    """
    records: dict[str, Record] = {}
    for path in sorted(Path(folder).glob("manifest*.jsonl")):
        with path.open(encoding="utf-8", errors="replace") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    record = _record(json.loads(line))
                except (ValueError, TypeError, RecursionError):
                    log.warning("%s, line %d is no record of a film and is left out", path, number)
                    continue
                before = records.get(record.film)
                if before is None or before.finished <= record.finished:
                    records[record.film] = record
    return records


def _record(values: dict[str, Any]) -> Record:
    record = Record(**values)
    for name, default in asdict(Record("", "", 0, 0, "", "")).items():
        value = getattr(record, name)
        if not isinstance(value, (int, float) if isinstance(default, float) else type(default)):
            raise TypeError(name)
    return record


@contextmanager
def open_manifest(folder: str | Path, part: str = "") -> Iterator[Manifest]:
    """The manifest that this process alone writes: ``manifest{part}.jsonl`` in ``folder``.

    Raises:
        UserError: another process writes it, or it cannot be written.
    """
    folder = Path(folder)
    check_writable(folder, "--output_folder")
    with only_process(folder / f".manifest{part}") as alone:
        if not alone:
            raise UserError(
                f"another run works for {folder / f'manifest{part}.jsonl'}; wait for it, or share the films "
                "out with --shard"
            )
        with Manifest(folder / f"manifest{part}.jsonl") as manifest:
            yield manifest


class Manifest:
    """Appends records to a file. Each is on the disk when :meth:`append` returns; without any there is no
    file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> Manifest:
        try:
            self._file = self.path.open("ab+", buffering=0)
        except OSError as error:
            raise UserError(f"cannot write {self.path} ({error.strerror}): choose another place") from error
        if self._file.tell() and not self._ends_with_a_line():  # a killed run's last one is half there
            self._file.write(b"\n")
        return self

    def _ends_with_a_line(self) -> bool:
        self._file.seek(-1, os.SEEK_END)
        return self._file.read() == b"\n"

    def append(self, record: Record) -> None:
        self._file.write(json.dumps(asdict(record)).encode() + b"\n")
        os.fsync(self._file.fileno())

    def __exit__(self, *_: object) -> None:
        empty = not self._file.tell()
        self._file.close()
        if empty:
            self.path.unlink(missing_ok=True)

"""What one worker does: load the networks once, then one film after the other."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import platform
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from .. import __version__
from ..demo.engine import Engine, load_engine
from ..demo.models import find_checkpoint
from ..demo.options import DemoOptions, open_source
from ..demo.recover import recover
from ..demo.results import write_results
from ..demo.stages import Stages
from ..utils.errors import UserError
from ..utils.files import only_process, sha256
from ..utils.paths import located
from ..utils.reading import existing

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_OF_NO_RESULT = (
    "vid_file",
    "img_dir",
    "output_folder",
    "display",
    "tracks",
    "device",
    "base_data",
    "open_dir",
)


@dataclass(frozen=True)
class Job:
    """A film, the folder of its results, and the files in it that earlier results left there."""

    film: Path
    folder: Path
    earlier: Sequence[str] = ()


class Worker:
    """Reconstructs films with networks that are loaded once."""

    def __init__(self, options: DemoOptions, threads: int) -> None:
        """``options``: for all films, with paths that hold on every machine; ``threads``: of the CPU."""
        self._options, self._threads = options, threads
        self._engine: Engine | None = None

    def load(self) -> None:
        """Load the networks. UserError if a file is missing or unusable."""
        torch.set_num_threads(self._threads)
        self._engine = load_engine(self._options)

    def run(self, job: Job) -> dict[str, Any]:
        """Reconstruct a film.

        Returns:
            fields of a :class:`lib.batch.manifest.Record` with the status ``done``, ``failed`` if something
            is wrong with the film, or ``busy`` if another run works on it.

        Raises:
            UserError: the disk is full, which is no fault of the film.
        """
        assert self._engine is not None, "load() comes first"
        options, stages = replace(self._options, vid_file=str(job.film)), Stages()
        begun = time.process_time()
        result: dict[str, Any] = {"status": "done", "host": platform.node(), "seconds": stages.seconds}
        with _warnings() as result["warnings"], only_process(job.folder) as alone:
            if not alone:
                return result | {"status": "busy"}
            try:
                with stages.timing("opening"):
                    source = open_source(options)
                scene, tracks = recover(source, options, self._engine, stages)
                written = write_results(
                    job.folder, source, scene, tracks, options, self._engine.models, stages
                )
            except UserError as error:
                if isinstance(error.__cause__, OSError) and error.__cause__.errno in _DISK_FULL:
                    raise
                return result | {"status": "failed", "reason": str(error)}
            files = {path.name: _size(path) for path in written}
            for path in list(job.folder.iterdir()):
                if path.name in job.earlier and path.name not in files:
                    _remove(path)
        return result | {
            "cpu": time.process_time() - begun,
            "frames": scene.n_frames,
            "duration": scene.n_frames / scene.fps,
            "people": len(scene.people),
            "person_frames": sum(map(len, scene.people)),
            "files": files,
        }


class _Collector(logging.Handler):
    """Keeps the messages of warnings, and of worse."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


@contextmanager
def _warnings() -> Iterator[list[str]]:
    """Collects what is logged as a warning, or worse, while the block runs."""
    handler = _Collector()
    logging.getLogger().addHandler(handler)
    try:
        yield handler.messages
    finally:
        logging.getLogger().removeHandler(handler)


def _size(path: Path) -> int:
    return sum(map(_size, path.iterdir())) if path.is_dir() else path.stat().st_size


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def on_any_machine(options: DemoOptions) -> DemoOptions:
    """The options with absolute paths, for processes that run elsewhere."""

    def absolute(path: str) -> str:
        return os.path.abspath(located(path)) if path else ""  # noqa: PTH100 - links stay as they are

    return replace(
        options,
        model=absolute(options.model),
        cfg=absolute(options.cfg),
        plugin=tuple(map(absolute, options.plugin)),
        base_data=absolute(options.base_data),
        open_dir=absolute(options.open_dir),
    )


def options_digest(options: DemoOptions) -> str:
    """Tells apart options that give different results, and the checkpoints, plugins and versions behind them.
    Where the work is done does not count.

    Raises:
        UserError: there is no checkpoint, or no such configuration.
    """
    values = {name: value for name, value in asdict(options).items() if name not in _OF_NO_RESULT}
    checkpoint = find_checkpoint(options.model, options.base_data, options.open_dir)
    values["model"] = sha256(existing(checkpoint, "checkpoint"))
    values["cfg"] = sha256(existing(options.cfg, "configuration")) if options.cfg else ""
    values["plugin"] = [sha256(existing(plugin, "plugin")) for plugin in options.plugin]
    text = json.dumps([__version__, values], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]

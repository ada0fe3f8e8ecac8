"""The folder that the results of a film go to."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain, count
from pathlib import Path

from ..motion.scene_file import scene_mark
from ..utils.files import only_process
from ..video.frames import FrameSource
from ..video.video_file import VideoFile

SCENE = "tcmr_output.npz"
"""The scene in the folder, which says what film the results are of."""
LONGEST_NAME = 200
"""Bytes: 255 is the most that file systems take, and names of files are made of this one."""


def result_folder(output_folder: str | Path, source: FrameSource) -> Path:
    """Where the results of an input go: ``{output_folder}/{name}``, name being that of the video without its
    suffix, or of the image folder. Where the results of another input lie there, the name gets the suffix or
    a number on top; the same input finds its own folder again.
    """
    return next(_possible_folders(output_folder, source))


@contextmanager
def own_folder(output_folder: str | Path, source: FrameSource) -> Iterator[Path]:
    """The first possible folder in which no other run is writing, held while the block runs."""
    for folder in _possible_folders(output_folder, source):
        with only_process(folder) as alone:
            if alone and _made_from(folder) in ("", place_mark(source.path)):  # none finished there meanwhile
                yield folder
                return


def _possible_folders(output_folder: str | Path, source: FrameSource) -> Iterator[Path]:
    stem = printable_name(source.name).encode()[:LONGEST_NAME].decode(errors="ignore") or "images"
    suffix = printable_name(source.path.suffix[1:]) if isinstance(source, VideoFile) else ""
    names = chain([stem], [f"{stem}_{suffix}"] if suffix else [], (f"{stem}_{i}" for i in count(2)))
    folders = (Path(output_folder) / name for name in names)
    return (folder for folder in folders if _made_from(folder) in ("", place_mark(source.path)))


def printable_name(name: str) -> str:
    """``name`` without characters that steer a terminal."""
    return "".join(character if character.isprintable() else "_" for character in name)


def place_mark(path: Path) -> str:
    """Tells inputs apart in their results, without naming folders of the user's in a file that is shared."""
    return hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:16]


def _made_from(folder: Path) -> str:
    """The mark of the input whose results lie in a folder, '' if there are none."""
    return scene_mark(folder / SCENE)

"""Read raw datasets: folders, MATLAB and JSON files. What does not fit is one line for the user."""

from __future__ import annotations

import json
import logging
import mmap
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ..utils.errors import UserError, shown
from ..utils.reading import need_file, need_folder
from .matfile import read_matfile

log = logging.getLogger(__name__)

_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
# What Python makes of values that are not what a dataset's format says.
_SURPRISES = (
    ArithmeticError, AttributeError, EOFError, LookupError, RecursionError, TypeError, ValueError, cv2.error,
)  # fmt: skip


@contextmanager
def interpreting(source: str | Path, expected: str) -> Iterator[None]:
    """Whatever goes wrong with the values of ``source`` becomes a UserError that says what was expected."""
    try:
        yield
    except _SURPRISES as error:
        raise UserError(
            f"{source} is not as expected ({type(error).__name__}: {shown(error)}); expected {expected}"
        ) from error


def find(folder: Path, pattern: str, what: str) -> list[Path]:
    """The sorted entries of ``folder`` that match; a UserError if there are none."""
    found = sorted(need_folder(folder, what).glob(pattern))
    if not found:
        raise UserError(f"{folder} holds no {pattern}: expected {what} there (docs/data.md shows the layout)")
    return found


def warn_missing(folder: Path, expected: Iterable[str], found: Iterable[str]) -> None:
    """Warn that a database will lack some of the entries that the full dataset has in ``folder``."""
    if missing := sorted(set(expected) - set(found)):
        log.warning("%s lacks %s: the database will, too", folder, ", ".join(missing))


def list_images(folder: Path) -> list[Path]:
    """The sorted images of a folder; a UserError if there are none."""
    images = sorted(
        path
        for path in need_folder(folder, "extracted frames").iterdir()
        if path.suffix.lower() in _IMAGE_SUFFIXES
    )
    if not images:
        raise UserError(f"{folder} holds no .jpg or .png: extract the frames of the video into it")
    return images


def common_length(images: Sequence[Path], annotated: int, what: str) -> int:
    """Frames that have both an image and an annotation; warns when the two counts differ."""
    if len(images) != annotated:
        log.warning(
            "%s: %d images in %s but %d annotated frames; the first %d of both are used",
            what,
            len(images),
            images[0].parent,
            annotated,
            min(len(images), annotated),
        )
    return min(len(images), annotated)


def read_mat(path: Path, fields: Iterable[str]) -> dict[str, np.ndarray]:
    """Fields of a MATLAB file of version 5 to 7. UserError if it is missing, damaged, or lacks one."""
    need_file(path, "a MATLAB file")
    fields = list(fields)
    try:
        content = read_matfile(path, fields)
    except _SURPRISES as error:
        raise UserError(f"{path} is no readable MATLAB file ({error}): get it again") from error
    if missing := [field for field in fields if field not in content]:
        raise UserError(f"{path} lacks {', '.join(missing)}: it is not the annotation file of this dataset")
    return content


def read_json(path: Path, object_hook: Callable[[dict[str, Any]], Any] | None = None) -> Any:
    """A JSON file's content, of finite numbers. UserError if it is missing or damaged."""
    with need_file(path, "a JSON file").open("rb") as source:
        try:
            # Mapped, since files of several hundred MB would otherwise be held as bytes and as text.
            with mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ) as content:
                text = str(content, "utf-8")
            return json.loads(text, object_hook=object_hook, parse_constant=_no_number)
        except _SURPRISES as error:
            raise UserError(f"{path} is no readable JSON file ({error}): get it again") from error


def _no_number(name: str) -> float:
    raise ValueError(f"it holds {name} instead of a number")

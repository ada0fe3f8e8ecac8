"""Read raw datasets: folders, images, MATLAB and JSON files. What does not fit is one line for the user."""

from __future__ import annotations

import io
import json
import logging
import mmap
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from ..utils.errors import UserError, fault, shown
from .matfile import read_matfile

log = logging.getLogger(__name__)

_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
_MOST_PIXELS = 100_000_000  # of an image; cameras have less
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # larger ones are refused here
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


def need_folder(path: Path, what: str) -> Path:
    """``path`` if it is a folder, else a UserError that says what was expected there."""
    if not path.is_dir():
        raise UserError(f"folder {path} {fault(path)}: expected {what} there (docs/data.md shows the layout)")
    return path


def need_file(path: Path, what: str) -> Path:
    """``path`` if it is a file, else a UserError that says what was expected there."""
    if not path.is_file():
        raise UserError(f"file {path} {fault(path)}: expected {what} there (docs/data.md shows the layout)")
    return path


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


# OpenCV refuses IMREAD_REDUCED_COLOR_* beside IMREAD_COLOR_RGB; these are the same without the colour order.
_REDUCED = {
    1: 0,
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8,
}


def decode_image(data: bytes, source: str | Path, reduction: int = 1) -> np.ndarray:
    """Encoded image -> (H, W, 3) uint8 RGB. UserError if it is damaged; ``source`` is named there.

    ``reduction`` 2, 4 or 8 gives a JPEG at that fraction of its size (rounded up), which it decodes to
    directly and faster; pixel x lies at (x + 0.5) / reduction - 0.5 there.
    """
    flags = cv2.IMREAD_COLOR_RGB | _REDUCED[reduction]
    try:
        check_image_size(data, source)
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except (cv2.error, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        image = None
    # A JPEG that was cut off decodes without an error, to an image that is grey from some row on.
    if image is None or (data.startswith(_JPEG_START) and data.rfind(_JPEG_END) < 0):
        raise UserError(f"image {source} is damaged or no image: extract or download it again")
    return image


def check_image_size(data: bytes, source: str | Path) -> None:
    """UserError if the header claims far more pixels than any camera has. Raises what PIL does on damage."""
    with Image.open(io.BytesIO(data)) as image:
        width, height = image.size
    if width * height > _MOST_PIXELS:
        raise UserError(
            f"image {source} is {width} x {height} pixels; expected at most {_MOST_PIXELS:,} in all"
        )


def read_image(path: Path, reduction: int = 1) -> np.ndarray:
    """An image file as (H, W, 3) uint8 RGB, see :func:`decode_image`. UserError if missing or damaged."""
    return decode_image(need_file(path, "an image").read_bytes(), path, reduction)


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

"""Reading image files. What is damaged or far too large is one line for the user."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from .errors import UserError
from .reading import need_file

_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
_MOST_PIXELS = 100_000_000  # of an image; cameras have less
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # larger ones are refused here
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

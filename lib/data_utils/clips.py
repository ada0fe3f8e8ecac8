"""Videos of raw datasets as clips: database rows, one per frame and person, and the crops with them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..utils.crops import crop_image
from ..utils.geometry import CROP_SIZE
from ..utils.images import read_image

_JPEG_SUFFIXES = (".jpg", ".jpeg")
Rows = dict[str, np.ndarray]


@dataclass(frozen=True)
class Clip:
    """Rows of one video, and its crops.

    Attributes:
        rows: database fields with equal first dimension, without ``features``.
        crop: row number -> (224, 224, 3) uint8 RGB, called from threads; None in a database without features.
    """

    rows: Rows
    crop: Callable[[int], np.ndarray] | None = None

    def __post_init__(self) -> None:
        lengths = {key: len(values) for key, values in self.rows.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"fields differ in length: {lengths}")

    def __len__(self) -> int:
        return len(next(iter(self.rows.values()), ()))


@dataclass(frozen=True)
class Video:
    """A unit of work: ``name`` is unique in its database, ``load`` reads the raw data."""

    name: str
    load: Callable[[], Clip]


def image_clip(rows: Rows, scale: float, reduced_jpeg: bool = False) -> Clip:
    """A clip whose crops are ``scale`` times ``bbox`` of the files ``img_name``.

    ``reduced_jpeg``: decode JPEGs at 1/2, 1/4 or 1/8 of their size where the crop is no larger than that.
    """

    def crop(row: int) -> np.ndarray:
        path = Path(rows["img_name"][row])
        bbox = np.asarray(rows["bbox"][row], np.float64)
        reduction = _reduction(bbox, scale) if reduced_jpeg and path.suffix.lower() in _JPEG_SUFFIXES else 1
        image = read_image(path, reduction)
        if reduction > 1:
            bbox = np.concatenate([(bbox[:2] + 0.5) / reduction - 0.5, bbox[2:] / reduction])
        return crop_image(image, bbox, scale)

    return Clip(rows, crop)


def _reduction(bbox: np.ndarray, scale: float) -> int:
    """The largest of 8, 4, 2, 1 at which the crop still has a pixel of its own for each pixel."""
    pixels = bbox[2:].min() * scale / CROP_SIZE
    return next((factor for factor in (8, 4, 2) if factor <= pixels), 1)

"""Where in a frame people are looked for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np

from ..landmarks.blazepose import Detection, Landmarks
from ..landmarks.features import landmark_boxes

# The detector sees people from about a third of its square's side on, surely; from a fifth, often.
TILE_SHARES = (2, 4)  # sides of the squares looked through, as parts of the frame's longer side
MIN_TILE = 224  # px
NEIGHBOURHOOD = 2.0  # side of the square about a known person in which others are looked for, in box sides


class Detector(Protocol):
    """Finds persons in an RGB image; one that is ``short_sighted`` has to be shown small people close up."""

    short_sighted: bool

    def detect(self, rgb: np.ndarray) -> list[Detection]:
        """See :meth:`lib.landmarks.blazepose.PersonDetector.detect`."""
        ...


Square = tuple[int, int, int]  # left, top, side in px


def tiles(width: int, height: int) -> list[Square]:
    """Overlapping squares ``(left, top, side)`` px that cover a frame, coarse ones first: half a side on is
    the next."""
    squares = []
    for share in TILE_SHARES:
        side = max(width, height) // share
        if side < MIN_TILE:
            break
        squares += [(x, y, side) for y in _starts(height, side) for x in _starts(width, side)]
    return squares


def _starts(length: int, side: int) -> list[int]:
    if length <= side:
        return [0]
    count = int(np.ceil((length - side) / (side / 2))) + 1
    return [round(x) for x in np.linspace(0, length - side, count)]


class Rota:
    """Squares to look at, some at a time, everyone in turn."""

    def __init__(self) -> None:
        self._turn = 0

    def next(self, squares: list[Square], count: int) -> list[Square]:
        count = min(count, len(squares))
        self._turn += count
        return [squares[(self._turn - k) % len(squares)] for k in range(count)]


def neighbourhood(person: Landmarks) -> Square:
    """The square about a known person in which others are looked for."""
    cx, cy, side, _ = (float(v) for v in landmark_boxes(person.xy))
    half = NEIGHBOURHOOD * side / 2
    return int(cx - half), int(cy - half), int(2 * half)


def detections_in(detector: Detector, frame: np.ndarray, square: Square) -> Iterator[Detection]:
    """What a detector finds in a square of a frame, which may reach beyond it."""
    left, top, side = square
    x, y = max(left, 0), max(top, 0)
    part = frame[y : max(top + side, 0), x : max(left + side, 0)]
    if min(part.shape[:2]) < 2:
        return
    for found in detector.detect(part):
        offset = np.array([x, y])
        yield Detection(
            found.score, found.box + np.tile(offset, 2), found.centre + offset, found.scale_point + offset
        )

"""A camera that moves is told from one that stands, whoever walks before it."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import pytest

from lib.demo.camera_watch import CameraWatch
from lib.demo.track import Track

SIZE = (360, 640)
LENGTH = 60


def wall(seed: int = 1) -> np.ndarray:
    """(H, W, 3) uint8 full of corners."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 255, (SIZE[0] // 8, SIZE[1] // 4, 3), np.uint8)
    return cv2.resize(small, None, fx=8, fy=8, interpolation=cv2.INTER_CUBIC)


def person(frame: int) -> tuple[int, int]:
    """The left upper corner of somebody of 120x240 px who walks to the right."""
    return 60 + 6 * frame, 90


def film(
    shift: float = 0.0, shake: float = 0.0, turn: float = 0.0, *, size: int = 240
) -> Iterator[np.ndarray]:
    """Somebody walks before a wall; the camera goes ``shift`` px a frame, trembles, turns (degrees)."""
    rng, background, coat = np.random.default_rng(2), wall(), wall(5)[:size, : size // 2]
    for frame in range(LENGTH):
        middle = SIZE[1] / 2, SIZE[0] / 2
        change = cv2.getRotationMatrix2D(middle, turn * frame, 1.0)
        change[:, 2] += rng.normal(0, shake, 2) - [shift * frame, 0]
        image = cv2.warpAffine(background, change, SIZE[::-1], borderMode=cv2.BORDER_REFLECT)
        x, y = person(frame)
        piece = image[y : y + size, x : x + size // 2]
        piece[:] = coat[: piece.shape[0], : piece.shape[1]]
        yield image


def tracks() -> list[Track]:
    boxes = np.array([[x + 60, y + 120, 240, 240] for x, y in map(person, range(LENGTH))], np.float32)
    nothing = np.zeros((LENGTH, 33, 3), np.float32)
    return [Track(1, np.arange(LENGTH), boxes, nothing[..., :2], nothing[..., 0], nothing)]


def moves(frames: Iterator[np.ndarray], people: list[Track]) -> bool:
    watch = CameraWatch(30.0)
    assert sum(1 for _ in watch.watching(frames)) == LENGTH
    return watch.camera_moves(people)


@pytest.mark.parametrize(
    ("change", "expected"),
    [({}, False), ({"shake": 0.7}, False), ({"shift": 1.0}, True), ({"turn": 0.2}, True)],
)
def test_standing_and_moving_cameras(change: dict[str, float], expected: bool) -> None:
    assert moves(film(**change), tracks()) is expected


def test_nothing_is_told_where_nothing_is_seen() -> None:
    blank = (np.full((*SIZE, 3), 90, np.uint8) for _ in range(LENGTH))
    assert not moves(blank, tracks())


def test_a_cut_is_no_motion() -> None:
    def cut() -> Iterator[np.ndarray]:
        for frame in range(LENGTH):
            yield wall(1 if frame < LENGTH // 2 else 9)[:, : SIZE[1]]

    assert not moves(cut(), [])


def test_noise_of_hours_does_not_add_up() -> None:
    """Each step of a film of a still wall has errors of its own; 40 minutes of them are no wandering."""
    rng, watch = np.random.default_rng(3), CameraWatch(4.0)
    image = cv2.resize(wall(), (320, 180))

    def frames() -> Iterator[np.ndarray]:
        for _ in range(200):
            yield np.clip(image + rng.normal(0, 6, image.shape), 0, 255).astype(np.uint8)

    assert sum(1 for _ in watch.watching(frames())) == 200
    watch._pairs *= 48  # the same 50 s again and again
    assert not watch.camera_moves([])

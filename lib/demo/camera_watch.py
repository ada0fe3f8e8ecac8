"""Whether the camera of a film moves, told from how the background does."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import cv2
import numpy as np
from scipy.ndimage import maximum_filter1d, minimum_filter1d

from ..models.extractors import PersonTrack

PER_SECOND = 4
"""Frames in a second that are compared."""
TRAVEL = 0.03
"""Of the longer side: from there on, a background that has wandered so far means a camera that moves."""
_SIDE = 320  # px of the longer side of the images that are compared
_POINTS, _FEWEST = 80, 12
_AGREE = 0.5  # share of points that must move as one
_TOLERANCE = 1.0  # px of the small images
_WINDOW = 300  # seconds within which the background wanders
_MARGIN = 1.3  # of people's boxes, inside which nothing is background


class CameraWatch:
    """Follows points of the image from frame to frame while others iterate over the film."""

    def __init__(self, fps: float) -> None:
        self._every = max(1, round(fps / PER_SECOND))
        self._pairs: list[tuple[int, np.ndarray]] = []  # frame number, (2, n, 2) float32 in longer sides
        self._before: np.ndarray | None = None
        self._side = 1.0

    def watching(self, frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """The frames, RGB (H, W, 3) uint8, as they come."""
        for number, frame in enumerate(frames):
            if number % self._every == 0:
                self._look(number, frame)
            yield frame

    def camera_moves(self, tracks: Sequence[PersonTrack]) -> bool:
        """Whether the background wanders. What is inside of people's boxes is no background; where too little
        of it can be followed, and where it does not move as one, as at a cut, nothing is told."""
        boxes: dict[int, list[np.ndarray]] = {}
        for track in tracks:
            rows = np.flatnonzero(np.isin(track.frame_ids, [number for number, _ in self._pairs]))
            for row in rows:
                boxes.setdefault(int(track.frame_ids[row]), []).append(track.bboxes[row] / self._side)
        steps = []
        for number, (start, end) in self._pairs:
            free = np.ones(len(start), bool)
            for box in boxes.get(number, []):
                inside = np.abs(start - box[:2]) < _MARGIN * box[2:] / 2
                free &= ~(inside.all(1) | (np.abs(end - box[:2]) < _MARGIN * box[2:] / 2).all(1))
            if free.sum() < _FEWEST:
                continue
            found, agreed = cv2.estimateAffinePartial2D(
                start[free], end[free], ransacReprojThreshold=_TOLERANCE / _SIDE
            )
            if found is None or agreed.mean() < _AGREE:
                continue
            middle = np.array([0.5, 0.3])
            # Shift of the middle, and of a point half a side away by turn and by growth.
            steps.append(
                [*(found[:, :2] @ middle + found[:, 2] - middle), found[1, 0] / 2, (found[0, 0] - 1) / 2]
            )
        if not steps:
            return False
        path = np.concatenate([np.zeros((1, 4)), np.cumsum(steps, 0)])
        # Errors of single steps add up, too.
        window = {"size": _WINDOW * PER_SECOND + 1, "axis": 0, "mode": "nearest"}
        return bool((maximum_filter1d(path, **window) - minimum_filter1d(path, **window)).max() > TRAVEL)

    def _look(self, number: int, frame: np.ndarray) -> None:
        self._side = float(max(frame.shape[:2]))
        size = [max(1, round(length * _SIDE / self._side)) for length in frame.shape[1::-1]]
        small = cv2.cvtColor(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
        before, self._before = self._before, small
        if before is None:
            return
        start = cv2.goodFeaturesToTrack(before, _POINTS, 0.01, 10)
        if start is None:
            return
        end, found, _ = cv2.calcOpticalFlowPyrLK(before, small, start, np.zeros_like(start))
        back, again, _ = cv2.calcOpticalFlowPyrLK(small, before, end, np.zeros_like(start))
        good = (found[:, 0] > 0) & (again[:, 0] > 0) & (np.abs(back - start).max((1, 2)) < _TOLERANCE)
        pair = np.stack([start[good, 0], end[good, 0]]) / _SIDE
        self._pairs.append((number, pair.astype(np.float32)))

"""Cuts of a film: where one shot ends and another begins."""

from __future__ import annotations

import cv2
import numpy as np

CUT = 0.5  # correlation of small images of two frames below which they are of different shots
_SIZE = (32, 18)
_FLAT = 2.0  # grey levels of deviation below which an image shows nothing


class CutWatch:
    """Compares each frame with the one before."""

    def __init__(self) -> None:
        self._small: np.ndarray | None = None

    def __call__(self, frame: np.ndarray) -> bool:
        """Whether the next frame, RGB uint8 (H, W, 3), begins another shot."""
        small = cv2.resize(frame, _SIZE, interpolation=cv2.INTER_AREA).astype(np.float32)
        small -= small.mean(axis=(0, 1))
        before, self._small = self._small, small
        if before is None:
            return False
        deviations = float(before.std()), float(small.std())
        if min(deviations) < _FLAT:
            return False  # fades are no cuts, and nobody is in sight of a black screen
        return float((before * small).mean()) < CUT * deviations[0] * deviations[1]

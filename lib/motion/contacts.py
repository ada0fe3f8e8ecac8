"""When heels and toes touch the floor."""

from __future__ import annotations

import numpy as np

from lib.motion.feet import runs
from lib.utils.smoothing import gaussian

# Of the speed of a sole's point as the camera sees it; what goes along the line of sight counts less,
# because it is known less well.
_SMOOTH = 0.04  # seconds, width of the Gaussian over the path
_ALONG = 0.3
_START, _END = 0.4, 0.45  # m/s below which a contact can begin, and above which it ends
_LOW, _HIGH = 0.1, 0.14  # metres above the floor, likewise


def find_contacts(points: np.ndarray, heights: np.ndarray, fps: float) -> np.ndarray:
    """Contacts by hysteresis: some frame must be slow and low, its neighbours may be a little less so.

    Args:
        points: (T, K, 3) metres in the camera's frame.
        heights: (T, K) metres above the floor.

    Returns:
        (T, K) bool.
    """
    if len(points) < 2:
        return heights < _LOW
    paths = gaussian(points, _SMOOTH * fps)
    velocity = np.gradient(paths, axis=0) * fps
    sight = points / np.linalg.norm(points, axis=-1, keepdims=True).clip(1e-6)
    along = (velocity * sight).sum(-1, keepdims=True)
    speed = np.linalg.norm(velocity - (1 - _ALONG) * along * sight, axis=-1)
    sure = (speed < _START) & (heights < _LOW)
    possible = (speed < _END) & (heights < _HIGH)
    contacts = np.zeros(heights.shape, bool)
    for column in range(heights.shape[1]):
        for start, stop in runs(possible[:, column]):
            contacts[start:stop, column] = sure[start:stop, column].any()
    return contacts

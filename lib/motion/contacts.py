"""When heels and toes touch the floor."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

from ..utils.smoothing import gaussian
from .feet import runs

_SMOOTH = 0.025  # seconds, width of the Gaussian over the path
_START, _END = 0.4, 0.45  # m/s below which a contact can begin, and above which it ends
_STEP = 0.2  # metres from its middle that a foot which stands seems to move
_LOW, _HIGH = 0.1, 0.14  # metres above the floor, likewise


def find_contacts(
    points: Float[np.ndarray, "t k 3"], heights: Float[np.ndarray, "t k"], fps: float, along: float = 1.0
) -> Bool[np.ndarray, "t k"]:
    """Contacts by hysteresis: some frame must be slow and low, its neighbours may be a little less so.

    Args:
        points: metres in the camera's frame.
        heights: metres above the floor.
        along: how much speed along the line of sight counts, where it is known less well.
    """
    if len(points) < 2:
        return heights < _LOW
    paths = gaussian(points, _SMOOTH * fps)
    velocity = np.gradient(paths, axis=0) * fps
    sight = points / np.linalg.norm(points, axis=-1, keepdims=True).clip(1e-6)
    away = (velocity * sight).sum(-1, keepdims=True) * sight
    speed = np.linalg.norm(velocity - (1 - along) * away, axis=-1)
    sure = (speed < _START) & (heights < _LOW)
    possible = (speed < _END) & (heights < _HIGH)
    contacts = np.zeros(heights.shape, bool)
    for column in range(heights.shape[1]):
        for start, stop in runs(possible[:, column]):
            contacts[start:stop, column] = sure[start:stop, column].any()
        _part(contacts[:, column], paths[:, column], speed[:, column])
    return contacts


def _part(
    contact: Bool[np.ndarray, " t"], path: Float[np.ndarray, "t 3"], speed: Float[np.ndarray, " t"]
) -> None:
    """Take out of each contact the fastest frames until what remains stays in one place: two steps,
    seen from behind, can look like one."""
    stack = runs(contact)
    while stack:
        start, stop = stack.pop()
        piece = path[start:stop]
        if np.linalg.norm(piece - piece.mean(0), axis=1).max() > _STEP:
            fastest = start + int(speed[start:stop].argmax())
            contact[fastest] = False
            stack += [(a, b) for a, b in ((start, fastest), (fastest + 1, stop)) if a < b]

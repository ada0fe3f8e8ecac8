"""Undo front-back flips of landmark tracks: the network takes a back for a front for some frames.

Nobody turns round between two frames. Each frame therefore has two readings, as seen and flipped back (names
of the sides exchanged, depth reversed), and the sequence of readings that moves least is found by dynamic
programming.
"""

from __future__ import annotations

import numpy as np

from lib.utils.landmark_features import LANDMARK_FLIP, LIMB_LANDMARKS

FLIP_COST = 0.004  # metres per frame read as flipped: of two consistent readings the more frequent one wins
FAR = 0.5  # metres: a landmark that moves farther counts as this far


def flip_back(xy: np.ndarray, visibility: np.ndarray, world: np.ndarray) -> tuple[np.ndarray, ...]:
    """The other reading of landmarks (..., 33, 2), (..., 33), (..., 33, 3)."""
    return (
        xy[..., LANDMARK_FLIP, :],
        visibility[..., LANDMARK_FLIP],
        world[..., LANDMARK_FLIP, :] * np.array([1, 1, -1], np.float32),
    )


def find_flips(world: np.ndarray) -> np.ndarray:
    """(T, 33, 3) metric landmarks of consecutive frames -> (T,) bool, frames better read as flipped."""
    hips = world[:, 23:25].mean(1, keepdims=True)
    other = flip_back(world[..., :2], world[..., 0], world - hips)[2]
    readings = np.stack([world - hips, other])[:, :, LIMB_LANDMARKS]  # (2, T, 12, 3)
    cost = np.array([0.0, FLIP_COST])
    came_from = np.zeros((len(world), 2), int)
    for t in range(1, len(world)):
        step = np.linalg.norm(readings[:, None, t - 1] - readings[None, :, t], axis=-1)
        total = cost[:, None] + np.minimum(step, FAR).mean(-1)  # from reading i to reading j
        came_from[t] = total.argmin(0)
        cost = total.min(0) + np.array([0.0, FLIP_COST])
    reading = int(cost.argmin())
    flipped = np.zeros(len(world), bool)
    for t in range(len(world) - 1, -1, -1):
        flipped[t] = reading == 1
        reading = int(came_from[t, reading])
    return flipped


def repair_flips(
    xy: np.ndarray, visibility: np.ndarray, world: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Landmarks (T, 33, 2), (T, 33), (T, 33, 3) of one person's consecutive frames, flips undone."""
    flipped = find_flips(world)
    repaired = []
    for given, other in zip((xy, visibility, world), flip_back(xy, visibility, world)):
        repaired.append(np.where(flipped.reshape(-1, *[1] * (given.ndim - 1)), other, given))
    return repaired[0], repaired[1], repaired[2]

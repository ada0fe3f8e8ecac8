"""33 body landmarks of a frame -> the vector the per-frame landmark network reads.

Landmarks are in BlazePose order; "world" landmarks are metric, in camera axes (x right, y down, z away).
"""

from __future__ import annotations

import numpy as np

from lib.utils.crops import transform_keypoints

VECTOR_SIZE = 303

LEFT_SHOULDER, RIGHT_SHOULDER, LEFT_HIP, RIGHT_HIP = 11, 12, 23, 24
LANDMARK_FLIP = [0, 4, 5, 6, 1, 2, 3, 8, 7, 10, 9] + [i for k in range(11, 33, 2) for i in (k + 1, k)]
# The landmarks that are limb joints, and the joints of the 49 (spin order) that they show.
LIMB_LANDMARKS = [28, 26, 24, 23, 25, 27, 16, 14, 12, 11, 13, 15]
LIMB_JOINTS = list(range(25, 37))


def landmark_boxes(xy: np.ndarray) -> np.ndarray:
    """Tight square boxes of landmarks: (..., 33, 2) pixels -> (..., 4) cx, cy, side, side in pixels."""
    low, high = xy.min(-2), xy.max(-2)
    side = np.maximum((high - low).max(-1, keepdims=True), 1.0)
    return np.concatenate([(low + high) / 2, side, side], -1).astype(np.float32)


def _normalise(v: np.ndarray) -> np.ndarray:
    return v / np.maximum(np.linalg.norm(v, axis=-1, keepdims=True), 1e-6)


def torso_frame(world: np.ndarray) -> np.ndarray:
    """Rotation of the torso, columns = left, up, front axes: (..., 33, 3) -> (..., 3, 3)."""
    hips = world[..., LEFT_HIP, :] - world[..., RIGHT_HIP, :]
    shoulders = world[..., LEFT_SHOULDER, :] - world[..., RIGHT_SHOULDER, :]
    middle_hip = (world[..., LEFT_HIP, :] + world[..., RIGHT_HIP, :]) / 2
    middle_shoulder = (world[..., LEFT_SHOULDER, :] + world[..., RIGHT_SHOULDER, :]) / 2
    up = _normalise(middle_shoulder - middle_hip)
    left = hips + 0.5 * shoulders
    left = _normalise(left - (left * up).sum(-1, keepdims=True) * up)
    return np.stack([left, up, np.cross(left, up)], -1)


def landmark_vector(
    xy: np.ndarray, visibility: np.ndarray, world: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Landmarks -> network input and boxes.

    Args:
        xy: (..., 33, 2) pixels.
        visibility: (..., 33) in [0, 1].
        world: (..., 33, 3) metres, camera axes; any origin (the middle of the hips is subtracted).

    Returns:
        vectors (..., 303) float32: 2D in the 1.2x box (66), visibility (33), world landmarks (99), torso
        rotation as the first two matrix columns (6), world landmarks in the torso's frame (99); and the
        unscaled boxes (..., 4) cx, cy, side, side in pixels.
    """
    boxes = landmark_boxes(xy)
    crop = transform_keypoints(xy, boxes)
    centred = world - (world[..., LEFT_HIP : LEFT_HIP + 1, :] + world[..., RIGHT_HIP : RIGHT_HIP + 1, :]) / 2
    frame = torso_frame(centred)
    local = centred @ frame
    batch = xy.shape[:-2]
    parts = [
        crop.reshape(*batch, 66),
        2 * visibility - 1,
        2 * centred.reshape(*batch, 99),
        frame[..., :2].reshape(*batch, 6),
        2 * local.reshape(*batch, 99),
    ]
    return np.concatenate(parts, -1).astype(np.float32), boxes

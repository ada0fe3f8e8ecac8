"""33 body landmarks of a frame -> the vector the per-frame landmark network reads.

Landmarks are in BlazePose order; "world" landmarks are metric, in camera axes (x right, y down, z away).
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from ..utils.crops import CROP_SCALE

VECTOR_SIZE = 303

LEFT_SHOULDER, RIGHT_SHOULDER, LEFT_HIP, RIGHT_HIP = 11, 12, 23, 24
LANDMARK_FLIP = [0, 4, 5, 6, 1, 2, 3, 8, 7, 10, 9] + [i for k in range(11, 33, 2) for i in (k + 1, k)]
# The landmarks that are limb joints, and the joints of the 49 (spin order) that they show.
LIMB_LANDMARKS = [28, 26, 24, 23, 25, 27, 16, 14, 12, 11, 13, 15]
LIMB_JOINTS = list(range(25, 37))


def landmark_boxes(xy: Float[np.ndarray, "*batch j 2"]) -> Float[np.ndarray, "*batch 4"]:
    """Tight square boxes of landmarks in pixels: cx, cy, side, side."""
    return box_tensor(torch.from_numpy(np.ascontiguousarray(xy))).numpy().astype(np.float32)


def box_tensor(xy: Float[Tensor, "*batch j 2"]) -> Float[Tensor, "*batch 4"]:
    """:func:`landmark_boxes` of tensors."""
    low, high = xy.amin(-2), xy.amax(-2)
    side = (high - low).amax(-1, keepdim=True).clamp(min=1.0)
    return torch.cat([(low + high) / 2, side, side], -1)


def to_crop(xy: Float[Tensor, "*batch j 2"], boxes: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch j 2"]:
    """Pixels -> [-1, 1] of the crop, x1.2, of boxes cx, cy, w, h."""
    return (xy - boxes[..., None, :2]) / (boxes[..., None, 2:] * (CROP_SCALE / 2))


def torso_frame(world: Float[Tensor, "*batch 33 3"]) -> Float[Tensor, "*batch 3 3"]:
    """Rotation of the torso, columns = left, up, front axes."""
    hips = world[..., LEFT_HIP, :] - world[..., RIGHT_HIP, :]
    shoulders = world[..., LEFT_SHOULDER, :] - world[..., RIGHT_SHOULDER, :]
    middle_hip = (world[..., LEFT_HIP, :] + world[..., RIGHT_HIP, :]) / 2
    middle_shoulder = (world[..., LEFT_SHOULDER, :] + world[..., RIGHT_SHOULDER, :]) / 2
    up = functional.normalize(middle_shoulder - middle_hip, dim=-1, eps=1e-6)
    left = hips + 0.5 * shoulders
    left = functional.normalize(left - (left * up).sum(-1, keepdim=True) * up, dim=-1, eps=1e-6)
    return torch.stack([left, up, torch.linalg.cross(left, up)], -1)


def landmark_vector(
    xy: Float[Tensor, "*batch 33 2"],
    visibility: Float[Tensor, "*batch 33"],
    world: Float[Tensor, "*batch 33 3"],
) -> tuple[Float[Tensor, "*batch 303"], Float[Tensor, "*batch 4"]]:
    """Landmarks -> network input and boxes.

    Args:
        xy: pixels.
        visibility: in [0, 1].
        world: metres, camera axes; any origin (the middle of the hips is subtracted).

    Returns:
        float32 vectors: 2D in the 1.2x box (66), visibility (33), world landmarks (99), torso
        rotation as the first two matrix columns (6), world landmarks in the torso's frame (99); and the
        unscaled boxes cx, cy, side, side in pixels.
    """
    boxes = box_tensor(xy)
    centred = world - (world[..., LEFT_HIP : LEFT_HIP + 1, :] + world[..., RIGHT_HIP : RIGHT_HIP + 1, :]) / 2
    frame = torso_frame(centred)
    local = centred @ frame
    parts = [
        to_crop(xy, boxes).flatten(-2),
        2 * visibility - 1,
        2 * centred.flatten(-2),
        frame[..., :2].flatten(-2),
        2 * local.flatten(-2),
    ]
    return torch.cat(parts, -1).float(), boxes.float()


def landmark_arrays(
    xy: Float[np.ndarray, "*batch 33 2"],
    visibility: Float[np.ndarray, "*batch 33"],
    world: Float[np.ndarray, "*batch 33 3"],
) -> tuple[Float[Tensor, "*batch 303"], Float[np.ndarray, "*batch 4"]]:
    """:func:`landmark_vector` of NumPy landmarks: vectors as a tensor, boxes as an array."""
    seen = (torch.from_numpy(np.ascontiguousarray(part)) for part in (xy, visibility, world))
    vectors, boxes = landmark_vector(*seen)
    return vectors, boxes.numpy()

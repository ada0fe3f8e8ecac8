"""Rotations and cameras as pure functions.

Quaternions are (w, x, y, z). Axis-angle vectors are
in radians. All functions are differentiable and keep finite gradients at the identity.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

FOCAL_LENGTH = 5000.0
CROP_SIZE = 224

_TINY_SQUARE = 1e-20


def default_focal(width: int, height: int) -> float:
    """Focal length in px of a camera of which nothing is known: 1.2 longer sides (45 degrees along it)."""
    return 1.2 * max(width, height)


def turn_to_ray(ray: Float[np.ndarray, " 3"]) -> Float[np.ndarray, "3 3"]:
    """The smallest rotation that takes the optical axis (0, 0, 1) to a viewing ray (x, y, 1)."""
    x, y, z = ray / np.linalg.norm(ray)
    # Rodrigues' formula about the axis (-y, x, 0), whose length is the sine.
    return np.array(
        [
            [1 - x * x / (1 + z), -x * y / (1 + z), x],
            [-x * y / (1 + z), 1 - y * y / (1 + z), y],
            [-x, -y, z],
        ]
    )


def rot6d_to_rotmat(x: Float[Tensor, "*batch 6"]) -> Float[Tensor, "*batch 3 3"]:
    """Six numbers to rotation matrices by Gram-Schmidt (Zhou et al., CVPR 2019).

    The six numbers are a 3x2 matrix in row-major order, so its two columns are interleaved.
    """
    columns = x.reshape(*x.shape[:-1], 3, 2)
    a1, a2 = columns[..., 0], columns[..., 1]
    b1 = functional.normalize(a1, dim=-1, eps=1e-6)
    b2 = functional.normalize(a2 - (b1 * a2).sum(-1, keepdim=True) * b1, dim=-1, eps=1e-6)
    b3 = torch.linalg.cross(b1, b2, dim=-1)
    return torch.stack((b1, b2, b3), dim=-1)


def rotmat_to_rot6d(rotmat: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 6"]:
    """Rotation matrices to six numbers; inverse of :func:`rot6d_to_rotmat`."""
    return rotmat[..., :2].reshape(*rotmat.shape[:-2], 6)


def rotmat_to_quat(rotmat: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 4"]:
    """Rotation matrices to unit quaternions, by a well-conditioned formula of four.

    The sign of the quaternion is that of the chosen formula; w may be negative.
    """
    r00, r01, r02 = rotmat[..., 0, :].unbind(-1)
    r10, r11, r12 = rotmat[..., 1, :].unbind(-1)
    r20, r21, r22 = rotmat[..., 2, :].unbind(-1)
    x, y, z = r21 - r12, r02 - r20, r10 - r01
    xy, xz, yz = r10 + r01, r02 + r20, r21 + r12
    t_x, t_y = 1 + r00 - r11 - r22, 1 - r00 + r11 - r22
    t_z, t_w = 1 - r00 - r11 + r22, 1 + r00 + r11 + r22

    low = (r22 < 1e-6).unsqueeze(-1)
    by_x = (r00 > r11).unsqueeze(-1)
    by_z = (r00 < -r11).unsqueeze(-1)
    quat = torch.where(
        low,
        torch.where(by_x, torch.stack((x, t_x, xy, xz), -1), torch.stack((y, xy, t_y, yz), -1)),
        torch.where(by_z, torch.stack((z, xz, yz, t_z), -1), torch.stack((t_w, x, y, z), -1)),
    )
    t = torch.where(
        low[..., 0],
        torch.where(by_x[..., 0], t_x, t_y),
        torch.where(by_z[..., 0], t_z, t_w),
    ).unsqueeze(-1)
    return quat * 0.5 / torch.sqrt(t)


def quat_to_rotmat(quat: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 3 3"]:
    """Quaternions, normalised here, to rotation matrices."""
    w, x, y, z = (quat / quat.norm(dim=-1, keepdim=True)).unbind(-1)
    rows = (
        w * w + x * x - y * y - z * z,
        2 * (x * y - w * z),
        2 * (w * y + x * z),
        2 * (w * z + x * y),
        w * w - x * x + y * y - z * z,
        2 * (y * z - w * x),
        2 * (x * z - w * y),
        2 * (w * x + y * z),
        w * w - x * x - y * y + z * z,
    )
    return torch.stack(rows, dim=-1).reshape(*quat.shape[:-1], 3, 3)


def quat_to_axis_angle(quat: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 3"]:
    """Unit quaternions to axis-angle with an angle of at most pi."""
    w, vector = quat[..., :1], quat[..., 1:]
    square = (vector * vector).sum(-1, keepdim=True)
    # At a zero rotation the limit is taken without dividing, which keeps the gradient finite.
    tiny = square < _TINY_SQUARE
    sine = torch.sqrt(torch.where(tiny, torch.ones_like(square), square))
    sign = torch.where(w < 0, -torch.ones_like(w), torch.ones_like(w))
    angle = 2 * torch.atan2(sign * sine, sign * w)
    return vector * torch.where(tiny, 2 * sign, angle / sine)


def rotmat_to_axis_angle(rotmat: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 3"]:
    """Rotation matrices to axis-angle; values that are not a number become 0.

    Near an angle of pi the sign of the axis is decided by rounding: compare such results as matrices.
    """
    return torch.nan_to_num(quat_to_axis_angle(rotmat_to_quat(rotmat)), nan=0.0)


def axis_angle_to_quat(axis_angle: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 4"]:
    """Axis-angle to unit quaternions."""
    angle = (axis_angle + 1e-8).norm(dim=-1, keepdim=True)
    half = 0.5 * angle
    return torch.cat((half.cos(), half.sin() * axis_angle / angle), dim=-1)


def axis_angle_to_rotmat(axis_angle: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """Axis-angle to rotation matrices, through quaternions."""
    return quat_to_rotmat(axis_angle_to_quat(axis_angle))


def quat_multiply(
    left: Float[Tensor, "*#batch 4"], right: Float[Tensor, "*#batch 4"]
) -> Float[Tensor, "... 4"]:
    """Products of quaternions: the rotation ``right`` first, then ``left``."""
    w, x, y, z = left.unbind(-1)
    a, b, c, d = right.unbind(-1)
    rows = (
        w * a - x * b - y * c - z * d,
        w * b + x * a + y * d - z * c,
        w * c - x * d + y * a + z * b,
        w * d + x * c - y * b + z * a,
    )
    return torch.stack(rows, dim=-1)


def project(joints: Float[Tensor, "n j 3"], cam: Float[Tensor, "n 3"]) -> Float[Tensor, "n j 2"]:
    """Project joints in metres by a weak-perspective crop camera (s, tx, ty).

    Returns crop coordinates: [-1, 1] over the crop, origin at its centre, x right, y down. The
    camera stands so far away (focal length 5000 px, 224 px crop) that this is nearly s * (joint + t).
    """
    scale, tx, ty = cam.unbind(-1)
    translation = torch.stack((tx, ty, 2 * FOCAL_LENGTH / (CROP_SIZE * scale + 1e-9)), dim=-1)
    moved = joints + translation[:, None]
    return FOCAL_LENGTH * moved[..., :2] / moved[..., 2:] / (CROP_SIZE / 2)


def crop_cam_to_image_cam(
    cam: Float[np.ndarray, "n 3"], bbox: Float[np.ndarray, "n 4"], width: int, height: int
) -> Float[np.ndarray, "n 4"]:
    """Crop cameras to full-image cameras (sx, sy, tx, ty).

    Args:
        cam: (s, tx, ty) in the crop.
        bbox: (cx, cy, w, h) in pixels of the box that was cropped (already scaled).
        width, height: image size in pixels.

    A point (X, Y) in metres lands at (sx * (X + tx), sy * (Y + ty)) in [-1, 1] over the whole image, y down.
    """
    cx, cy, side = bbox[:, 0], bbox[:, 1], bbox[:, 2]
    sx, sy = cam[:, 0] * side / width, cam[:, 0] * side / height
    tx = (cx - width / 2) / (width / 2) / sx + cam[:, 1]
    ty = (cy - height / 2) / (height / 2) / sy + cam[:, 2]
    return np.stack((sx, sy, tx, ty), axis=-1)

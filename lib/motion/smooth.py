"""Smoothing of a motion over time, without delay, and each group of limbs by its own measure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float

from ..models.smpl import SMPL
from ..utils.errors import UserError
from ..utils.geometry import rot6d_to_rotmat, rotmat_to_rot6d
from ..utils.smoothing import gaussian, slerp_filter
from .camera import Camera
from .meshes import Meshes
from .motion import Motion, Placed

GROUPS = {
    "torso": (0, 3, 6, 9, 12, 13, 14, 15),
    "legs": (1, 2, 4, 5, 7, 8, 10, 11),
    "arms": (16, 17, 18, 19, 20, 21, 22, 23),
}
"""Joints of each group; the torso's measure is the translation's, too."""
_LONGEST = 10.0  # seconds


@dataclass(frozen=True)
class Smoothing:
    """Seconds per group of limbs, the width (standard deviation) of a Gaussian; or the weight of each new
    frame in the paper's recursive slerp filter, which delays."""

    seconds: Mapping[str, float]
    slerp: float | None = None

    @property
    def changes(self) -> bool:
        return self.slerp is not None or any(self.seconds.values())


UNSMOOTHED = Smoothing(dict.fromkeys(GROUPS, 0.0))


def parse_smoothing(text: str) -> Smoothing:
    """``0.1`` for everything, ``torso=0.15,legs=0.1,arms=0.05`` (what is not named stays), or ``slerp=0.3``.

    Raises:
        UserError: anything else.
    """
    wrong = UserError(
        f"--smooth {text}: expected seconds from 0 to {_LONGEST:.0f}, or some of torso=S,legs=S,arms=S, or "
        "slerp=W with 0 < W <= 1"
    )
    seconds = dict.fromkeys(GROUPS, 0.0)
    for part in text.split(","):
        name, equals, value = part.strip().rpartition("=")
        try:
            number = float(value)
        except ValueError:
            raise wrong from None
        if equals and name == "slerp" and 0 < number <= 1 and "," not in text:
            return Smoothing(seconds, number)
        chosen = [name] if equals else list(GROUPS)
        if not (math.isfinite(number) and 0 <= number <= _LONGEST) or not set(chosen) <= set(GROUPS):
            raise wrong
        if not equals and "," in text:
            raise wrong
        seconds |= dict.fromkeys(chosen, number)
    return Smoothing(seconds)


def smooth_rotations(
    rotmat: Float[np.ndarray, "t *batch 3 3"], sigma: float
) -> Float[np.ndarray, "t *batch 3 3"]:
    """Rotations averaged over time by a Gaussian of ``sigma`` frames: the rotation next to the
    average matrix, by its first two columns. 0 changes nothing."""
    if sigma <= 0:
        return rotmat
    mean = torch.from_numpy(gaussian(rotmat, sigma).astype(np.float32))
    return rot6d_to_rotmat(rotmat_to_rot6d(mean)).view(mean.shape).numpy()


def smooth_placed(placed: Placed, smoothing: Smoothing, fps: float) -> Placed:
    """Rotations and translation smoothed; the camera's and the world's alike."""
    if smoothing.slerp is not None:
        return replace(placed, rotmat=slerp_filter(placed.rotmat, smoothing.slerp).astype(np.float32))
    rotmat = placed.rotmat.copy()
    for group, joints in GROUPS.items():
        rotmat[:, joints] = smooth_rotations(placed.rotmat[:, joints], smoothing.seconds[group] * fps)
    transl = gaussian(placed.transl, smoothing.seconds["torso"] * fps).astype(np.float32)
    return Placed(rotmat, transl)


def smooth_motion(motion: Motion, smoothing: Smoothing, smpl: SMPL, camera: Camera, fps: float) -> Motion:
    """The motion as the camera sees it, smoothed; the world is to be made from it anew."""
    if not smoothing.changes:
        return motion
    placed = smooth_placed(motion.camera, smoothing, fps)
    joints = Meshes(smpl, placed, motion.betas).joints()
    return replace(
        motion,
        camera=placed,
        world=placed,
        joints3d=joints - placed.transl[:, None],
        joints2d=camera.project(joints).astype(np.float32),
    )

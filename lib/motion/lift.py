"""From what networks say frame by frame to a motion: one shape, a camera in metres, a size that is calm."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float, Int

from ..models.body import BodyData
from ..models.smpl import SMPL
from ..utils.smoothing import gaussian
from .camera import Camera, solve_camera, weak_to_perspective
from .fit import Fitted
from .height import height_of, with_height
from .meshes import Meshes
from .motion import Motion, Placed

_SIZE_SMOOTH = 0.15  # seconds, width of the Gaussian over the distance
_BOX_SMOOTH = 0.1


def lift(
    smpl: SMPL,
    theta: Float[np.ndarray, "t 85"],
    rotmat: Float[np.ndarray, "t 24 3 3"],
    joints2d: Float[np.ndarray, "t 49 2"],
    boxes: Float[np.ndarray, "t 4"],
    camera: Camera,
    fps: float,
) -> Fitted:
    """Per-frame predictions of consecutive frames as a track with one shape, seen in perspective.

    The shape is the median of the frames'. The distance follows from where the joints should be seen,
    smoothed over time, so that size does not breathe; the joints then decide the rest of the translation.

    Args:
        smpl: the body.
        theta: crop camera, pose, betas; rotmat: the pose's rotations.
        joints2d: px, where the crop camera sees the joints.
        boxes: cx, cy, w, h px, as they were cropped.
        camera: of the video.
    """
    betas = np.median(theta[:, 75:], 0).astype(np.float32)
    joints = _joints(smpl, rotmat, betas)
    guess = weak_to_perspective(theta[:, :3], boxes, camera.focal, camera.width, camera.height)
    depth = _place(joints, joints2d, guess, camera)[0][:, 2].clip(0.5)
    calm = np.exp(gaussian(np.log(depth), _SIZE_SMOOTH * fps))
    transl, seen = _place(joints, joints2d, guess, camera, calm)
    return Fitted(rotmat, betas, transl, joints, seen, (0.0, 0.0), camera.focal)


def resize(smpl: SMPL, body: BodyData, motion: Motion, height: float, camera: Camera) -> Motion:
    """The motion of a person of known height in metres, seen where it was seen: as much farther away as the
    person is taller. Not yet in a world.

    Args:
        smpl, body: the same body.
    """
    betas, placed = with_height(body, motion.betas, height), motion.camera
    joints = _joints(smpl, placed.rotmat, betas)
    guess = placed.transl * (height / height_of(body, motion.betas))
    transl, seen = _place(joints, motion.joints2d, guess, camera)
    placed = Placed(placed.rotmat, transl)
    return replace(motion, betas=betas, camera=placed, world=placed, joints3d=joints, joints2d=seen)


def _joints(
    smpl: SMPL, rotmat: Float[np.ndarray, "t 24 3 3"], betas: Float[np.ndarray, " 10"]
) -> Float[np.ndarray, "t 49 3"]:
    """Metres, without translation."""
    return Meshes(smpl, Placed(rotmat, np.zeros((len(rotmat), 3), np.float32)), betas).joints()


def _place(
    joints: Float[np.ndarray, "t 49 3"],
    joints2d: Float[np.ndarray, "t 49 2"],
    guess: Float[np.ndarray, "t 3"],
    camera: Camera,
    depth: Float[np.ndarray, " t"] | None = None,
) -> tuple[Float[np.ndarray, "t 3"], Float[np.ndarray, "t 49 2"]]:
    """Translations that bring joints to pixels, at distances where they are given, and the pixels that they
    are seen at then."""
    rays = (joints2d - np.array([camera.width, camera.height]) / 2) / camera.focal
    points, seen, start = (torch.from_numpy(v.astype(np.float32)) for v in (joints, rays, guess))
    known = None if depth is None else torch.from_numpy(depth.astype(np.float32))[:, None]
    transl = solve_camera(points, seen, torch.ones(points.shape[:-1]), start, depth=known).numpy()
    return transl, camera.project(joints + transl[:, None]).astype(np.float32)


def make_motion(
    person_id: int,
    frames: Int[np.ndarray, " t"],
    track: Fitted,
    boxes: Float[np.ndarray, "t 4"],
    attention: Float[np.ndarray, "t 3"] | None,
    fps: float,
) -> Motion:
    """The motion of a fitted or lifted track, not yet in a world.

    Args:
        boxes: px, as they were cropped. attention: TCMR's, or None.
    """
    placed = Placed(track.rotmat.astype(np.float32), track.transl.astype(np.float32))
    return Motion(
        person_id=person_id,
        frames=np.asarray(frames),
        betas=track.betas,
        camera=placed,
        world=placed,
        contacts=np.zeros((len(frames), 4), bool),
        boxes=gaussian(boxes, _BOX_SMOOTH * fps).astype(np.float32),
        joints3d=track.joints3d,
        joints2d=track.joints2d,
        attention=np.zeros((len(frames), 3), np.float32) if attention is None else attention,
        fps=fps,
    )

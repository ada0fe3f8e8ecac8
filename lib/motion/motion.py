"""What a video came to: the motion of each person, and the scene that they share.

Axes, in metres. Camera: x right, y down, z away. World: y up, right-handed, floor at y = 0. Body: SMPL's rest
pose, a T-pose with y up, facing +z, the person's left at +x; its pelvis is not at the origin.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from ..models.body import BodyData
from ..utils.geometry import rotmat_to_axis_angle
from .camera import Camera

FEET = ("left heel", "left toe", "right heel", "right toe")
"""The columns of contacts."""


@dataclass(frozen=True, eq=False)
class Placed:
    """Poses of t frames in one frame of reference, the camera's or the world's.

    A vertex lies at ``skinned vertex + transl``: the root rotation turns about the pelvis.

    Attributes:
        rotmat: float32, each joint's rotation against its parent's, the root's against the frame of
            reference.
        transl: float32 metres.
    """

    rotmat: Float[np.ndarray, "t 24 3 3"]
    transl: Float[np.ndarray, "t 3"]

    def __post_init__(self) -> None:
        n = len(self.rotmat)
        _check("rotmat", self.rotmat, (n, 24, 3, 3))
        _check("transl", self.transl, (n, 3))

    @property
    def poses(self) -> Float[np.ndarray, "t 72"]:
        """float32, ``rotmat`` as axis-angle vectors, radians: what SMPL takes."""
        return rotmat_to_axis_angle(torch.from_numpy(self.rotmat)).flatten(1).numpy()

    @property
    def trans(self) -> Float[np.ndarray, "t 3"]:
        """``transl`` by the name that motion files use."""
        return self.transl

    def moved(
        self,
        rotation: Float[np.ndarray, "*#t 3 3"],
        offset: Float[np.ndarray, "*#t 3"],
        pelvis: Float[np.ndarray, " 3"],
    ) -> Placed:
        """The whole body moved rigidly: ``x -> rotation x + offset``.

        Args:
            rotation, offset: one, or one per frame; metres.
            pelvis: joint 0 of the rest pose, which the root turns about.
        """
        rotmat = self.rotmat.copy()
        rotmat[:, 0] = rotation @ self.rotmat[:, 0]
        transl = ((pelvis + self.transl)[:, None] @ np.swapaxes(rotation, -1, -2))[:, 0] - pelvis + offset
        return Placed(rotmat, transl.astype(np.float32))


@dataclass(frozen=True, eq=False)
class Motion:
    """One person over t consecutive frames; numbers are float32.

    Attributes:
        person_id: from 1.
        frames: numbers of the video's frames, from 0, without gaps.
        betas: one shape for the whole track.
        camera: as the camera sees the person.
        world: as the person moves on the floor; the feet may be locked here.
        contacts: which of :data:`FEET` rest on the floor.
        boxes: cx, cy, w, h px, smoothed, 1.2 times as large as the person.
        joints3d: metres, camera axes, without ``camera.transl``.
        joints2d: px, ``joints3d + camera.transl`` seen by the camera.
        attention: the weights of past, current and future in TCMR's fusion; zeros where the temporal encoder
            has none.
        fps: frames per second.
    """

    person_id: int
    frames: Int[np.ndarray, " t"]
    betas: Float[np.ndarray, " 10"]
    camera: Placed
    world: Placed
    contacts: Bool[np.ndarray, "t 4"]
    boxes: Float[np.ndarray, "t 4"]
    joints3d: Float[np.ndarray, "t 49 3"]
    joints2d: Float[np.ndarray, "t 49 2"]
    attention: Float[np.ndarray, "t 3"]
    fps: float

    def __post_init__(self) -> None:
        n = len(self.frames)
        _check("frames", self.frames, (n,))
        if n == 0 or not np.array_equal(self.frames, self.frames[0] + np.arange(n)):
            raise ValueError("frames: expected consecutive numbers of one frame or more")
        for name in ("camera", "world"):
            _check(f"{name}.rotmat", getattr(self, name).rotmat, (n, 24, 3, 3))
        shapes = {"betas": (10,), "contacts": (n, 4), "boxes": (n, 4), "attention": (n, 3)}
        for name, shape in (shapes | {"joints3d": (n, 49, 3), "joints2d": (n, 49, 2)}).items():
            _check(name, getattr(self, name), shape)

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def frame_ids(self) -> Int[np.ndarray, " t"]:
        """``frames`` by the name that tracks have for them."""
        return self.frames

    @property
    def poses(self) -> Float[np.ndarray, "t 72"]:
        """As the camera sees the person, see :attr:`Placed.poses`; the world's: ``world.poses``."""
        return self.camera.poses

    @property
    def trans(self) -> Float[np.ndarray, "t 3"]:
        """As the camera sees the person, metres; the world's: ``world.trans``."""
        return self.camera.trans

    def row(self, frame: int) -> int | None:
        """Where a frame of the video is in the arrays; None if the person is not in it."""
        row = frame - int(self.frames[0])
        return row if 0 <= row < len(self.frames) else None


@dataclass(frozen=True, eq=False)
class Scene:
    """Everybody in a video.

    Attributes:
        name: of the video.
        people: one motion per person.
        camera: that of the video.
        fps: frames per second of all motions.
        n_frames: of the video.
        body: ``smpl`` or ``open``, which the shapes belong to; gender: that of the official body.
        world_rotation, world_offset: a point x of the camera's frame is
            ``world_rotation x + world_offset`` in the world.
        camera_moves: whether the camera moves; then each world path is only the person's own, told from the
            feet, and people do not stand where they stand to each other.
        feet_locked: whether feet in contact were made to stand still in ``world``.
    """

    name: str
    people: tuple[Motion, ...]
    camera: Camera
    fps: float
    n_frames: int
    body: str
    gender: str
    world_rotation: Float[np.ndarray, "3 3"]
    world_offset: Float[np.ndarray, " 3"]
    camera_moves: bool = False
    feet_locked: bool = False

    def __post_init__(self) -> None:
        _check("world_rotation", self.world_rotation, (3, 3))
        _check("world_offset", self.world_offset, (3,))
        if not 1e-3 < self.fps < 1e5:
            raise ValueError(f"fps is {self.fps}, expected 0.001 to 100000")
        if self.n_frames < 1:
            raise ValueError(f"n_frames is {self.n_frames}, expected 1 or more")
        for motion in self.people:
            if motion.fps != self.fps:
                raise ValueError(
                    f"person {motion.person_id} moves at {motion.fps} frames per second, not {self.fps}"
                )
            if motion.frames[0] < 0 or motion.frames[-1] >= self.n_frames:
                raise ValueError(
                    f"person {motion.person_id} is in frames that a video of {self.n_frames} lacks"
                )


def rest_vertices(body: BodyData, betas: Float[np.ndarray, " 10"]) -> Float[np.ndarray, "v 3"]:
    """The skin of the rest pose of a shape, metres."""
    vertices: np.ndarray = body.v_template + body.shapedirs @ betas
    return vertices


def rest_joints(body: BodyData, betas: Float[np.ndarray, " 10"]) -> Float[np.ndarray, "24 3"]:
    """The joints of the rest pose of a shape, metres, float32."""
    joints: np.ndarray = body.J_regressor @ rest_vertices(body, betas)
    return joints.astype(np.float32)


def joint_chain(
    rotmat: Float[np.ndarray, "*batch 24 3 3"],
    rest: Float[np.ndarray, "24 3"],
    parents: Int[np.ndarray, " 24"],
) -> tuple[Float[np.ndarray, "*batch 24 3 3"], Float[np.ndarray, "*batch 24 3"]]:
    """Forward kinematics.

    Args:
        rotmat: local rotations.
        rest: joints of the rest pose, see :func:`rest_joints`.
        parents: kinematic tree, -1 at the root.

    Returns:
        rotations and positions against the frame of reference, before any
        translation: joint 0 stays where it is in the rest pose.
    """
    rotations, positions = rotmat.copy(), np.broadcast_to(rest, (*rotmat.shape[:-2], 3)).copy()
    for joint, parent in enumerate(parents.tolist()):
        if parent >= 0:
            rotations[..., joint, :, :] = rotations[..., parent, :, :] @ rotmat[..., joint, :, :]
            bone = rotations[..., parent, :, :] @ (rest[joint] - rest[parent])
            positions[..., joint, :] = positions[..., parent, :] + bone
    return rotations, positions


def _check(name: str, values: np.ndarray, shape: tuple[int, ...]) -> None:
    if values.shape != shape:
        raise ValueError(f"{name} has shape {values.shape}, expected {shape}")
    if not np.isfinite(values).all():
        raise ValueError(f"{name} holds values that are not finite")

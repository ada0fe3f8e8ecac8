"""Scenes whose truth is known, for the tests of the world."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from lib.models.body import BodyData
from lib.motion.camera import Camera
from lib.motion.feet import Skeleton
from lib.motion.motion import Motion, Placed, Scene
from lib.open_data.walks import procedural_walk

CAMERA = Camera(1920, 1080, 1800.0)
EYE = np.array([0.4, 1.4, 7.5])
"""Where the camera stands in the true world; it looks along -z."""


def camera_turn(pitch: float, roll: float) -> np.ndarray:
    """(3, 3) from the world's axes to those of a camera that looks ``pitch`` degrees down."""
    held = Rotation.from_euler("XZ", [-pitch, roll], degrees=True)
    return np.diag([1.0, -1.0, -1.0]) @ held.inv().as_matrix()


def walk(body: BodyData, seed: int, length: int = 120, fps: float = 30.0) -> tuple[Placed, np.ndarray]:
    """A walk about the origin of the true world, and the shape (10,) that walks."""
    rng = np.random.default_rng(seed)
    betas = np.clip(rng.standard_normal(10), -1.5, 1.5).astype(np.float32)
    skeleton = Skeleton.of(body, betas)
    placed = procedural_walk(skeleton, rng, length, fps)
    middle = (placed.transl + skeleton.rest[0]).mean(0) * [1, 0, 1]
    return Placed(placed.rotmat, (placed.transl - middle).astype(np.float32)), betas


def make_motion(person_id: int, placed: Placed, betas: np.ndarray, fps: float = 30.0) -> Motion:
    n = len(placed.transl)
    return Motion(
        person_id=person_id,
        frames=np.arange(n),
        betas=betas,
        camera=placed,
        world=placed,
        contacts=np.zeros((n, 4), bool),
        boxes=np.ones((n, 4), np.float32),
        joints3d=np.zeros((n, 49, 3), np.float32),
        joints2d=np.zeros((n, 49, 2), np.float32),
        attention=np.zeros((n, 3), np.float32),
        fps=fps,
    )


def scene_of(
    people: list[tuple[Placed, np.ndarray]],
    body: BodyData,
    turn: np.ndarray,
    *,
    fps: float = 30.0,
    moves=False,
) -> Scene:
    """What a camera at :data:`EYE` would know exactly of people in the true world, not yet in a world."""
    motions = []
    for number, (placed, betas) in enumerate(people, start=1):
        pelvis = Skeleton.of(body, betas).rest[0]
        motions.append(make_motion(number, placed.moved(turn, -turn @ EYE, pelvis), betas, fps))
    return Scene(
        name="walk",
        people=tuple(motions),
        camera=CAMERA,
        fps=fps,
        n_frames=max(map(len, motions)),
        body=body.kind,
        gender=body.gender,
        world_rotation=np.eye(3),
        world_offset=np.zeros(3),
        camera_moves=moves,
    )


def angle(a: np.ndarray, b: np.ndarray) -> float:
    """Degrees between unit vectors."""
    return float(np.degrees(np.arccos(np.clip(a @ b, -1, 1))))

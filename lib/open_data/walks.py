"""People who walk as people do, made from nothing: every foot that is on the floor stands still."""

from __future__ import annotations

import numpy as np
import torch
from scipy.interpolate import PchipInterpolator
from scipy.spatial.transform import Rotation

from ..models.body import BodyData
from ..motion.feet import LEGS, Skeleton, reach
from ..motion.motion import Placed, joint_chain
from .motions import Motion

_STANCE = 0.62  # of a stride, for which a foot is on the floor
# Pitch in degrees, heel up, over the share of a stance: a foot lands on the heel and leaves by the toe.
_PITCH = PchipInterpolator([0, 0.15, 0.6, 1], [-18, 0, 0, 42])
_LIFT = 0.09  # metres, of a foot in the air
_APART = 0.08  # metres, of a foot from the middle line
_ARMS = {16: -1.15, 17: 1.15}  # rad, about z


def walking_motions(body: BodyData, count: int, seed: int, length: int = 240) -> list[Motion]:
    """Procedural walks of the mean body as clips."""
    rng, skeleton = np.random.default_rng(seed), Skeleton.of(body, np.zeros(10))
    motions = []
    for number in range(count):
        placed = procedural_walk(skeleton, rng, length)
        rotmat, trans = torch.from_numpy(placed.rotmat), torch.from_numpy(placed.transl)
        name = f"walk_{seed}_{number:03d}"
        motions.append(Motion(name, name, rotmat, trans, "procedural walk"))
    return motions


def procedural_walk(skeleton: Skeleton, rng: np.random.Generator, length: int, fps: float = 30.0) -> Placed:
    """A walk of ``length`` frames at some pace along some curve, in a world with y up and the floor at 0."""
    stride = rng.uniform(0.95, 1.3)  # seconds from step to step of the same foot
    legs = float(np.linalg.norm(np.diff(skeleton.rest[[1, 4, 7]], axis=0), axis=1).sum())
    speed = rng.uniform(0.5, 0.95) * 1.45 * legs / stride
    time = np.arange(length) / fps
    turn, start = rng.uniform(-0.5, 0.5) * rng.integers(0, 2), rng.uniform(0, 2 * np.pi)
    fine = np.arange(-2 * fps, length + 2 * fps) / fps
    heading = start + turn * fine + 0.1 * np.sin(rng.uniform(0.5, 2) * fine + rng.uniform(0, 6))
    ways = [np.cumsum(function(heading)) * speed / fps for function in (np.sin, np.cos)]

    def path(moment: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        where = np.stack([np.interp(moment, fine, way) for way in ways], -1)
        return where, np.interp(moment, fine, heading)

    phase = rng.uniform(0, 1)
    rotmat = np.tile(np.eye(3), (length, 24, 1, 1))
    place, yaw = path(time)
    swing = 2 * np.pi * (time / stride + phase)
    sway = 0.08 * np.sin(swing)
    rotmat[:, 0] = Rotation.from_euler("YX", np.stack([yaw + sway, np.full(length, 0.03)], 1)).as_matrix()
    rotmat[:, 9] = Rotation.from_euler("Y", -2 * sway[:, None]).as_matrix()
    for (shoulder, down), side in zip(_ARMS.items(), (1, -1)):
        angles = np.stack([np.full(length, down), -side * 0.4 * np.sin(swing)], 1)
        rotmat[:, shoulder] = Rotation.from_euler("ZY", angles).as_matrix()
    pelvis = np.stack([place[:, 0], np.zeros(length), place[:, 1]], 1)
    hips = skeleton.rest[0, 1] - skeleton.rest[7, 1] - skeleton.soles[0, 1]
    pelvis[:, 1] = hips - 0.055 * legs + 0.018 * np.cos(2 * swing)
    placed = Placed(rotmat.astype(np.float32), (pelvis - skeleton.rest[0]).astype(np.float32))
    rotations, positions = joint_chain(placed.rotmat.astype(np.float64), skeleton.rest, skeleton.parents)
    positions += placed.transl[:, None]
    for number, (hip, knee, ankle, toe) in enumerate(LEGS):
        # Both sides' feet do the same, half a stride apart.
        count = np.floor(time / stride + phase + 0.5 * number)
        share = time / stride + phase + 0.5 * number - count
        soles = (
            skeleton.soles[2 * number],
            skeleton.soles[2 * number + 1] + skeleton.rest[toe] - skeleton.rest[ankle],
        )
        stands = []
        for step in (count, count + 1):
            middle = (step - phase - 0.5 * number + _STANCE / 2) * stride
            where, facing = path(middle)
            apart = _APART * (1 if number == 0 else -1)
            where = where + apart * np.stack([np.cos(facing), -np.sin(facing)], -1)
            stands.append((where, facing))
        (here, facing), (there, later) = stands
        air = ((share - _STANCE) / (1 - _STANCE)).clip(0, 1)
        pitch = np.where(share < _STANCE, _PITCH(share / _STANCE), 42 - (42 + 18) * air**1.5)
        goes = air**2 * (3 - 2 * air)
        at, towards = here + goes[:, None] * (there - here), facing + goes * (later - facing)
        foot = Rotation.from_euler("YX", np.stack([towards, np.radians(pitch)], 1))
        level = Rotation.from_euler("Y", towards[:, None])
        # The foot turns about its heel while the toe is up, about its toe while the heel is.
        pivot = np.where((pitch > 0)[:, None], soles[1], soles[0])
        stand = np.stack([at[:, 0], np.full(length, -soles[0][1]), at[:, 1]], 1)
        target = stand + level.apply(pivot) - foot.apply(pivot)
        target[:, 1] += _LIFT * np.sin(np.pi * air) ** 2
        thigh, shin = reach(positions[:, [hip, knee, ankle]], rotations[:, hip], target)
        upper, lower = thigh @ rotations[:, hip], shin @ rotations[:, knee]
        placed.rotmat[:, hip] = np.swapaxes(rotations[:, 0], -1, -2) @ upper
        placed.rotmat[:, knee] = np.swapaxes(upper, -1, -2) @ lower
        placed.rotmat[:, ankle] = np.swapaxes(lower, -1, -2) @ foot.as_matrix()
    return placed

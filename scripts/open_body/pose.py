"""Pose directions: what linear blend skinning lacks."""

from __future__ import annotations

import logging

import numpy as np
from scipy.sparse import csr_matrix
from scipy.spatial.transform import Rotation

from .rotations import frame
from .shape import neighbour_average
from .skeleton import INDEX, JOINTS, MIRROR, PARENTS, SWAP, Array

log = logging.getLogger(__name__)

POSE_SAMPLES = 900
MUSH_PASSES = 5  # smoothing in the target of the pose directions
SUPPORT_PASSES = 4  # how far pose directions reach beyond the vertices that two joints share


def bone_transforms(rotations: Array, joints: Array) -> Array:
    """Transforms (24, 4, 4) from the rest pose to the pose of relative rotations (24, 3, 3)."""
    world = np.zeros((len(joints), 4, 4))
    for j, parent in enumerate(PARENTS):
        local = np.eye(4)
        local[:3, :3] = rotations[j]
        local[:3, 3] = joints[j] - (joints[parent] if parent >= 0 else 0)
        world[j] = world[parent] @ local if parent >= 0 else local
    world[:, :3, 3] -= np.einsum("jik,jk->ji", world[:, :3, :3], joints)
    return world


def dual_quaternion_skinning(bones: Array, weights: Array, verts: Array) -> Array:
    """Skin verts (V, 3) without loss of volume (Kavan et al. 2008)."""
    real = Rotation.from_matrix(bones[:, :3, :3]).as_quat()[:, [3, 0, 1, 2]]
    for j, parent in enumerate(PARENTS):
        if parent >= 0 and real[j] @ real[parent] < 0:
            real[j] *= -1
    shift = bones[:, :3, 3]
    dual = np.empty_like(real)
    dual[:, 0] = -0.5 * (shift * real[:, 1:]).sum(1)
    dual[:, 1:] = 0.5 * (real[:, :1] * shift + np.cross(shift, real[:, 1:]))
    r, d = weights @ real, weights @ dual
    norm = np.linalg.norm(r, axis=1, keepdims=True)
    r, d = r / norm, d / norm
    rw, rv, dw, dv = r[:, :1], r[:, 1:], d[:, :1], d[:, 1:]
    move = 2 * (rw * dv - dw * rv + np.cross(rv, dv))
    return verts + 2 * np.cross(rv, np.cross(rv, verts) + rw * verts) + move


class DeltaMush:
    """Smooth a posed mesh and put back the detail of the rest mesh (Mancewicz et al. 2014)."""

    def __init__(self, rest: Array, faces: Array, average: csr_matrix, passes: int):
        self.faces, self.average, self.passes = faces, average, passes
        self.tangent_to = np.array([average.indices[start] for start in average.indptr[:-1]])
        smooth = self._smooth(rest)
        self.detail = np.einsum("vji,vj->vi", self._frames(smooth), rest - smooth)

    def __call__(self, posed: Array) -> Array:
        smooth = self._smooth(posed)
        return smooth + np.einsum("vij,vj->vi", self._frames(smooth), self.detail)

    def _smooth(self, verts: Array) -> Array:
        for _ in range(self.passes):
            verts = 0.5 * (verts + self.average @ verts)
        return verts

    def _frames(self, verts: Array) -> Array:
        corners = verts[self.faces]
        face_normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        corner_normal = np.repeat(face_normal, 3, axis=0)
        normal = [np.bincount(self.faces.ravel(), corner_normal[:, c], len(verts)) for c in range(3)]
        return frame(np.stack(normal, 1), verts[self.tangent_to] - verts)


def sample_poses(rng: np.random.Generator, n: int) -> Array:
    """Axis-angle poses (n, 24, 3) that cover everyday motion, with many raised and lowered arms."""
    pose = rng.normal(size=(n, len(JOINTS), 3)) * 0.45
    hinges = (("knee.L", 0, 1.3), ("knee.R", 0, 1.3), ("elbow.L", 1, -1.3), ("elbow.R", 1, 1.3))
    for name, axis, size in hinges:
        pose[:, INDEX[name]] *= 0.3
        pose[:, INDEX[name], axis] += np.abs(rng.normal(size=n)) * size
    for name in ("hip.L", "hip.R"):
        pose[:, INDEX[name], 0] -= np.abs(rng.normal(size=n)) * 0.6
    for name, sign in (("shoulder.L", 1.0), ("shoulder.R", -1.0)):
        pose[:, INDEX[name]] *= 0.6
        pose[:, INDEX[name], 2] += sign * rng.uniform(-1.4, 1.4, n)
        pose[:, INDEX[name], 1] -= sign * rng.uniform(-0.3, 1.3, n)
    for name in ("collar.L", "collar.R"):
        pose[:, INDEX[name]] *= 0.5
    pose[:, 0] = 0
    return pose


def pose_directions(mean: Array, joints: Array, weights: Array, faces: Array, mirror: Array) -> Array:
    """Fit symmetric pose directions (V, 3, 207) that pull linear blend skinning towards a better deformation.

    The better deformation is dual quaternion skinning followed by delta mush. Each vertex answers only to the
    joints that bend its neighbourhood, by ridge regression on their rotation matrices minus identity.
    """
    average = neighbour_average(faces, len(mean))
    mush = DeltaMush(mean, faces, average, MUSH_PASSES)
    poses = sample_poses(np.random.default_rng(1), POSE_SAMPLES)
    features = np.empty((POSE_SAMPLES, len(JOINTS) - 1, 9))
    wanted = np.empty((POSE_SAMPLES, len(mean), 3), np.float32)
    for i, pose in enumerate(poses):
        rotations = Rotation.from_rotvec(pose).as_matrix()
        features[i] = (rotations[1:] - np.eye(3)).reshape(-1, 9)
        bones = bone_transforms(rotations, joints)
        blended = np.tensordot(weights, bones, (1, 0))
        linear, move = blended[:, :3, :3], blended[:, :3, 3]
        target = mush(dual_quaternion_skinning(bones, weights, mean))
        posed = np.einsum("vij,vj->vi", linear, mean) + move
        # back to the rest pose, damped where blending flattens the mesh
        gram = np.einsum("vki,vkj->vij", linear, linear) + 0.05 * np.eye(3)
        pull = np.einsum("vji,vj->vi", linear, 0.8 * (target - posed))
        wanted[i] = np.linalg.solve(gram, pull[..., None])[..., 0]

    near = weights
    for _ in range(SUPPORT_PASSES):
        near = 0.5 * (near + average @ near)
    # how much a vertex takes part in the bending at each joint
    bend = np.minimum(near[:, 1:], near[:, PARENTS[1:]])
    bend = 0.5 * (bend + bend[mirror][:, SWAP[1:] - 1])
    moving = bend > 0.02
    directions = np.zeros((len(mean), 3, len(JOINTS) - 1, 9))
    left_over = 0.0
    held_out = POSE_SAMPLES // 8
    for pattern in np.unique(moving, axis=0):
        members = np.flatnonzero((moving == pattern).all(1))
        x = features[:, pattern].reshape(POSE_SAMPLES, -1)
        y = wanted[:, members].reshape(POSE_SAMPLES, -1)
        if pattern.any():
            train, answer = x[held_out:], y[held_out:]
            coefficients = np.linalg.solve(train.T @ train + 2 * np.eye(x.shape[1]), train.T @ answer)
            fitted = coefficients.reshape(-1, 9, len(members), 3).transpose(2, 3, 0, 1)
            directions[np.ix_(members, np.arange(3), np.flatnonzero(pattern), np.arange(9))] = fitted
            left_over += ((y[:held_out] - x[:held_out] @ coefficients) ** 2).sum()
        else:
            left_over += (y[:held_out] ** 2).sum()
    log.info("pose directions explain %.0f%% of the correction in unseen poses",
             100 * (1 - left_over / (wanted[:held_out] ** 2).sum()))  # fmt: skip
    directions *= np.clip((bend - 0.02) / 0.06, 0, 1)[:, None, :, None]  # no crease where the support ends
    sign = MIRROR[:, None, None] * np.outer(MIRROR, MIRROR).reshape(9)
    mirrored = directions[mirror][:, :, SWAP[1:] - 1] * sign
    return (0.5 * (directions + mirrored)).reshape(len(mean), 3, -1)

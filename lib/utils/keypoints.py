"""Keypoint conventions: joint names, edges, and conversion between conventions by name.

Two conventions are linked by equal joint names only. ``spin`` (49 joints) is the common superset: 0-24
OpenPose BODY_25, 25-38 the 14 LSP joints (the ``common`` list), 39-48 pelvis, thorax, H36M joints and face.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


JOINT_NAMES: dict[str, list[str]] = {
    "mpii3d_test": _names(
        """
        headtop, neck, rshoulder, relbow, rwrist, lshoulder, lelbow, lwrist, rhip, rknee, rankle, lhip,
        lknee, lankle, hip, Spine (H36M), Head (H36M)
        """
    ),
    "mpii3d": _names(
        """
        spine3, spine4, spine2, Spine (H36M), hip, neck, Head (H36M), headtop, left_clavicle, lshoulder,
        lelbow, lwrist, left_hand, right_clavicle, rshoulder, relbow, rwrist, right_hand, lhip, lknee,
        lankle, left_foot, left_toe, rhip, rknee, rankle, right_foot, right_toe
        """
    ),
    "insta": _names(
        """
        OP RHeel, OP RKnee, OP RHip, OP LHip, OP LKnee, OP LHeel, OP RWrist, OP RElbow, OP RShoulder,
        OP LShoulder, OP LElbow, OP LWrist, OP Neck, headtop, OP Nose, OP LEye, OP REye, OP LEar, OP REar,
        OP LBigToe, OP RBigToe, OP LSmallToe, OP RSmallToe, OP LAnkle, OP RAnkle
        """
    ),
    "staf": _names(
        """
        OP Nose, OP Neck, OP RShoulder, OP RElbow, OP RWrist, OP LShoulder, OP LElbow, OP LWrist, OP MidHip,
        OP RHip, OP RKnee, OP RAnkle, OP LHip, OP LKnee, OP LAnkle, OP REye, OP LEye, OP REar, OP LEar,
        Neck (LSP), Top of Head (LSP)
        """
    ),
    "spin": _names(
        """
        OP Nose, OP Neck, OP RShoulder, OP RElbow, OP RWrist, OP LShoulder, OP LElbow, OP LWrist, OP MidHip,
        OP RHip, OP RKnee, OP RAnkle, OP LHip, OP LKnee, OP LAnkle, OP REye, OP LEye, OP REar, OP LEar,
        OP LBigToe, OP LSmallToe, OP LHeel, OP RBigToe, OP RSmallToe, OP RHeel, rankle, rknee, rhip, lhip,
        lknee, lankle, rwrist, relbow, rshoulder, lshoulder, lelbow, lwrist, neck, headtop, hip, thorax,
        Spine (H36M), Jaw (H36M), Head (H36M), nose, leye, reye, lear, rear
        """
    ),
    "h36m": _names(
        """
        hip, lhip, lknee, lankle, rhip, rknee, rankle, Spine (H36M), neck, Head (H36M), headtop, lshoulder,
        lelbow, lwrist, rshoulder, relbow, rwrist
        """
    ),
    "posetrack": _names(
        """
        nose, neck, headtop, lear, rear, lshoulder, rshoulder, lelbow, relbow, lwrist, rwrist, lhip, rhip,
        lknee, rknee, lankle, rankle
        """
    ),
    "pennaction": _names(
        """
        headtop, lshoulder, rshoulder, lelbow, relbow, lwrist, rwrist, lhip, rhip, lknee, rknee, lankle,
        rankle
        """
    ),
    "common": _names(
        """
        rankle, rknee, rhip, lhip, lknee, lankle, rwrist, relbow, rshoulder, lshoulder, lelbow, lwrist,
        neck, headtop
        """
    ),
    "coco": _names(
        """
        nose, leye, reye, lear, rear, lshoulder, rshoulder, lelbow, relbow, lwrist, rwrist, lhip, rhip,
        lknee, rknee, lankle, rankle
        """
    ),
    "mpii": _names(
        """
        rankle, rknee, rhip, lhip, lknee, lankle, hip, thorax, neck, headtop, rwrist, relbow, rshoulder,
        lshoulder, lelbow, lwrist
        """
    ),
    "aich": _names(
        """
        rshoulder, relbow, rwrist, lshoulder, lelbow, lwrist, rhip, rknee, rankle, lhip, lknee, lankle,
        headtop, neck
        """
    ),
    "3dpw": _names(
        """
        nose, thorax, rshoulder, relbow, rwrist, lshoulder, lelbow, lwrist, rhip, rknee, rankle, lhip,
        lknee, lankle
        """
    ),
    "smplcoco": _names(
        """
        rankle, rknee, rhip, lhip, lknee, lankle, rwrist, relbow, rshoulder, lshoulder, lelbow, lwrist,
        neck, headtop, nose, leye, reye, lear, rear
        """
    ),
    "smpl": _names(
        """
        hips, leftUpLeg, rightUpLeg, spine, leftLeg, rightLeg, spine1, leftFoot, rightFoot, spine2,
        leftToeBase, rightToeBase, neck, leftShoulder, rightShoulder, head, leftArm, rightArm, leftForeArm,
        rightForeArm, leftHand, rightHand, leftHandIndex1, rightHandIndex1
        """
    ),
    "posetrack_original": _names(
        """
        nose, head_bottom, head_top, left_ear, right_ear, left_shoulder, right_shoulder, left_elbow,
        right_elbow, left_wrist, right_wrist, left_hip, right_hip, left_knee, right_knee, left_ankle,
        right_ankle
        """
    ),
}
"""Ordered joint names of each convention. ``posetrack_original`` are the raw names in ``posetrack`` order."""

COCO_SKELETON = [
    (15, 13), (13, 11), (16, 14), (14, 12), (11, 12), (5, 11), (6, 12), (5, 6), (5, 7), (6, 8),
    (7, 9), (8, 10), (1, 2), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6),
]  # fmt: skip
"""Edges of ``coco``, as indices into its joint list."""

H36M_TO_J14 = [6, 5, 4, 1, 2, 3, 16, 15, 14, 11, 12, 13, 8, 10]
"""The 14 rows of the H36M regressor that evaluation looks at, in the order of ``common``."""

SMPL49_MAP = [
    24, 12, 17, 19, 21, 16, 18, 20, 0, 2, 5, 8, 1, 4, 7, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34,
    8, 5, 45, 46, 4, 7, 21, 19, 17, 16, 18, 20, 47, 48,
    49, 50, 51, 52, 53, 24, 26, 25, 28, 27,
]  # fmt: skip
"""Where ``spin``'s joints lie in the pool of 24 SMPL joints, 21 picked vertices and 9 regressed joints."""


def _flip_permutation(names: Sequence[str]) -> list[int]:
    """For each joint the index of its mirror image; a joint without left and right is its own."""
    mirrored = {}
    for name in names:
        twin = name.replace("left", "right", 1)
        if twin != name and twin in names:
            mirrored[name], mirrored[twin] = twin, name
    return [names.index(mirrored.get(name, name)) for name in names]


SMPL_FLIP = _flip_permutation(JOINT_NAMES["smpl"])
"""``joints[..., SMPL_FLIP, :]`` swaps left and right of the 24 SMPL joints."""


def convert_kps(joints: np.ndarray, src: str, dst: str) -> np.ndarray:
    """Reorder joints (n, len(src), 3) into convention ``dst``: a new float64 array (n, len(dst), 3).

    Joints are matched by name. Those that ``src`` lacks are zero: confidence 0 in 2D, the origin in 3D.
    """
    names = JOINT_NAMES[src]
    if joints.shape[1:] != (len(names), 3):
        raise ValueError(f"{src} joints have shape (n, {len(names)}, 3), got {joints.shape}")
    converted = np.zeros((len(joints), len(JOINT_NAMES[dst]), 3))
    for position, name in enumerate(JOINT_NAMES[dst]):
        if name in names:
            converted[:, position] = joints[:, names.index(name)]
    return converted


def get_perm_idxs(src: str, dst: str) -> list[int]:
    """Indices in ``src`` of the ``dst`` joints, in ``dst`` order; joints absent from ``src`` are dropped."""
    names = JOINT_NAMES[src]
    return [names.index(name) for name in JOINT_NAMES[dst] if name in names]

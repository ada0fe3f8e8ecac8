"""SMPL's 24 joints in terms of anny's bones, and the bodies that are built."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
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

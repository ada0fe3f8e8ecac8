"""Keypoint tables and conversions against the original's."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from lib.utils import keypoints
from lib.utils.keypoints import JOINT_NAMES, convert_kps, get_perm_idxs
from tests.golden_tools import GOLDEN


def _golden(name: str) -> Any:
    return json.loads((GOLDEN / "kps" / f"{name}.json").read_text())


def test_tables_equal_the_original() -> None:
    for name, joints in _golden("joint_names").items():
        assert JOINT_NAMES[name] == joints, name
    assert [list(edge) for edge in keypoints.COCO_SKELETON] == _golden("skeletons")["coco"]


def test_every_conversion_equals_the_original() -> None:
    golden = _golden("permutations")
    for pair, sources in golden["convert_kps"].items():
        src, dst = pair.split("->")
        joints = np.random.default_rng(0).random((2, len(JOINT_NAMES[src]), 3)).astype(np.float32)
        kept = joints.copy()
        converted = convert_kps(joints, src, dst)
        assert converted.dtype == np.float64 and not np.shares_memory(converted, joints)
        expected = np.stack([joints[:, s] if s >= 0 else np.zeros((2, 3)) for s in sources], axis=1)
        np.testing.assert_array_equal(converted, expected, err_msg=pair)
        np.testing.assert_array_equal(joints, kept)
    for pair, expected in golden["get_perm_idxs"].items():
        assert get_perm_idxs(*pair.split("->")) == expected, pair


def test_convert_rejects_a_wrong_joint_count() -> None:
    with pytest.raises(ValueError, match="17"):
        convert_kps(np.zeros((1, 14, 3)), "h36m", "spin")


def test_subsets_agree_with_each_other() -> None:
    assert JOINT_NAMES["spin"][25:39] == JOINT_NAMES["common"]
    assert [JOINT_NAMES["h36m"][i] for i in keypoints.H36M_TO_J14] == JOINT_NAMES["common"]
    assert len(keypoints.SMPL49_MAP) == len(JOINT_NAMES["spin"]) == 49


def test_flip_swaps_left_and_right_and_nothing_else() -> None:
    flip, names = keypoints.SMPL_FLIP, JOINT_NAMES["smpl"]
    assert [flip[i] for i in flip] == list(range(24))
    middle = [names[i] for i, j in enumerate(flip) if i == j]
    assert middle == ["hips", "spine", "spine1", "spine2", "neck", "head"]

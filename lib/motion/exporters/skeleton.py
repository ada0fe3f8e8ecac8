"""What the formats with a skeleton share."""

from __future__ import annotations

from ...utils.keypoints import JOINT_NAMES

BONES = [name[0].upper() + name[1:] for name in JOINT_NAMES["smpl"]]
"""The 24 joints by the names that animation programs map to their own skeletons: Hips, LeftUpLeg, ..."""

"""``person_<id>.npz``: one person in the layout of AMASS, with SMPL-H's joints and with SMPL's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ...models.body import BodyData
from ...utils.files import atomic_write
from ..motion import Motion, Scene, rest_joints

Z_UP = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
"""The world's axes to AMASS's: z up."""
_BODY_JOINTS = 22  # SMPL and SMPL-H share these; joints 22 and 23 are SMPL's hands, but fingers of SMPL-H
_SMPLH_JOINTS = 52
_BETAS = 16


def export(scene: Scene, body: BodyData, folder: Path) -> list[Path]:
    """Write one file per person. Lengths are metres, angles axis-angle in radians, z is up.

    ``poses`` (T, 156) is SMPL-H's, without movement of the fingers; ``poses_smpl`` (T, 72) is SMPL's.
    """
    written = []
    for motion in scene.people:
        written.append(folder / f"person_{motion.person_id}.npz")
        with atomic_write(written[-1]) as temporary:
            np.savez_compressed(temporary, **_fields(scene, motion, body))
    return written


def _fields(scene: Scene, motion: Motion, body: BodyData) -> dict[str, Any]:
    placed = motion.world.moved(Z_UP, np.zeros(3), rest_joints(body, motion.betas)[0])
    smpl = placed.poses
    poses = np.zeros((len(motion), 3 * _SMPLH_JOINTS), np.float32)
    poses[:, : 3 * _BODY_JOINTS] = smpl[:, : 3 * _BODY_JOINTS]
    betas = np.zeros(_BETAS, np.float32)
    betas[: len(motion.betas)] = motion.betas
    return {
        "poses": poses,
        "root_orient": poses[:, :3],
        "pose_body": poses[:, 3 : 3 * _BODY_JOINTS],
        "poses_smpl": smpl,
        "trans": placed.transl,
        "betas": betas,
        "gender": np.array(scene.gender),
        "mocap_framerate": np.array(scene.fps),
        "mocap_frame_rate": np.array(scene.fps),
        "mocap_time_length": np.array(len(motion) / scene.fps),
        "surface_model_type": np.array("smplh"),
        "body": np.array(scene.body),
        "frames": motion.frames,
        "contacts": motion.contacts,
    }

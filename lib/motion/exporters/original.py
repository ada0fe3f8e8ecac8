"""``tcmr_output.pkl``: the results under the original's keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ...models.body import BodyData
from ...models.smpl import SMPL
from ...utils.files import dump_joblib
from ...utils.geometry import crop_cam_to_image_cam
from ..camera import perspective_to_weak
from ..meshes import Meshes
from ..motion import Motion, Placed, Scene


def export(scene: Scene, body: BodyData, folder: Path) -> list[Path]:
    """Write the original's ``{person id: {key: array}}`` as a joblib pickle of plain containers and arrays.

    For n frames: pred_cam (n, 3), orig_cam (n, 4), verts (n, 6890, 3) metres without translation, pose
    (n, 72) axis-angle, betas (n, 10), joints3d (n, 49, 3) metres, joints2d None, joints2d_img_coord
    (n, 49, 2) px, bboxes (n, 4) px, frame_ids (n,). New: trans (n, 3) metres, fps, image_size, focal_length,
    body: a vertex p is seen at p + trans; pred_cam and orig_cam are the nearest weak perspective.
    """
    path, smpl = folder / "tcmr_output.pkl", SMPL(body)
    dump_joblib({motion.person_id: _result(motion, scene, smpl) for motion in scene.people}, path)
    return [path]


def _result(motion: Motion, scene: Scene, smpl: SMPL) -> dict[str, Any]:
    camera, placed = scene.camera, motion.camera
    size = camera.width, camera.height
    weak = perspective_to_weak(placed.transl, motion.boxes, camera.focal, *size)
    still = Placed(placed.rotmat, np.zeros_like(placed.transl))
    return {
        "pred_cam": weak,
        "orig_cam": crop_cam_to_image_cam(weak, motion.boxes, *size),
        "verts": Meshes(smpl, still, motion.betas).all(),
        "pose": placed.poses,
        "betas": np.tile(motion.betas, (len(motion), 1)),
        "joints3d": motion.joints3d,
        "joints2d": None,
        "joints2d_img_coord": motion.joints2d,
        "bboxes": motion.boxes,
        "frame_ids": motion.frames,
        "trans": placed.transl,
        "fps": scene.fps,
        "image_size": np.array(size),
        "focal_length": camera.focal,
        "body": scene.body,
    }

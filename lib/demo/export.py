"""Results on disk: ``tcmr_output.pkl`` and one .obj per person and frame."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lib.models.smpl import SMPL
from lib.motion.camera import perspective_to_weak
from lib.motion.meshes import Meshes
from lib.motion.motion import Motion, Placed, Scene
from lib.utils.files import dump_joblib, temporary_beside
from lib.utils.geometry import crop_cam_to_image_cam, rotmat_to_axis_angle


def save_results(scene: Scene, smpl: SMPL, path: str | Path) -> None:
    """Write the original's ``{person id: {key: array}}`` as a joblib pickle of plain containers and arrays.

    For n frames: pred_cam (n, 3), orig_cam (n, 4), verts (n, 6890, 3) metres without translation, pose
    (n, 72) axis-angle, betas (n, 10), joints3d (n, 49, 3) metres, joints2d None, joints2d_img_coord
    (n, 49, 2) px, bboxes (n, 4) px, frame_ids (n,). New: trans (n, 3) metres, fps, image_size, focal_length,
    body: a vertex p is seen at p + trans; pred_cam and orig_cam are the nearest weak perspective.
    """
    dump_joblib({motion.person_id: _result(motion, scene, smpl) for motion in scene.people}, path)


def _result(motion: Motion, scene: Scene, smpl: SMPL) -> dict[str, Any]:
    camera, placed = scene.camera, motion.camera
    size = camera.width, camera.height
    weak = perspective_to_weak(placed.transl, motion.boxes, camera.focal, *size)
    still = Placed(placed.rotmat, np.zeros_like(placed.transl))
    return {
        "pred_cam": weak,
        "orig_cam": crop_cam_to_image_cam(weak, motion.boxes, *size),
        "verts": Meshes(smpl, still, motion.betas).all(),
        "pose": rotmat_to_axis_angle(torch.from_numpy(placed.rotmat)).flatten(1).numpy(),
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


class ObjWriter:
    """Writes meshes as ``{folder}/{person:04d}/{frame:06d}.obj``.

    A context manager: the folder appears, in place of an earlier one, when the block ends without an error.
    """

    def __init__(self, folder: str | Path, faces: np.ndarray) -> None:
        """``faces`` (F, 3) vertex numbers from 0; .obj counts from 1."""
        self.folder = Path(folder)
        self._temporary = temporary_beside(self.folder)
        self._faces = _rows("f", "%d", np.asarray(faces, np.int64) + 1)

    def __enter__(self) -> ObjWriter:
        self._temporary.mkdir(parents=True)
        return self

    def write(self, person: int, frame: int, verts: np.ndarray) -> None:
        """Write vertices (V, 3) in metres, in the world."""
        path = self._temporary / f"{person:04d}" / f"{frame:06d}.obj"
        path.parent.mkdir(exist_ok=True)
        path.write_text(_rows("v", "%.6f", verts) + self._faces)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                shutil.rmtree(self.folder, ignore_errors=True)
                self._temporary.rename(self.folder)
        finally:
            shutil.rmtree(self._temporary, ignore_errors=True)


def _rows(letter: str, number: str, values: np.ndarray) -> str:
    """One line ``letter a b c`` per row of ``values`` (n, 3)."""
    line = f"{letter} {number} {number} {number}\n"
    return (line * len(values)) % tuple(values.ravel().tolist())

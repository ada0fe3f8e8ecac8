"""``scene.json``: COCO's 17 keypoints of everybody in every frame, in the image and in space."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from ...models.body import BodyData
from ...models.smpl import SMPL
from ...utils.files import atomic_write
from ...utils.keypoints import COCO_SKELETON, JOINT_NAMES, get_perm_idxs
from ..camera import Camera
from ..meshes import Meshes
from ..motion import Motion, Scene

_JOINTS = get_perm_idxs("spin", "coco")
_SIDES = {"l": "left_", "r": "right_"}
KEYPOINTS = [name if name == "nose" else _SIDES[name[0]] + name[1:] for name in JOINT_NAMES["coco"]]
_PX, _M = 2, 4  # decimals


def export(scene: Scene, body: BodyData, folder: Path) -> list[Path]:
    """Write one file. ``keypoints`` are pixels with v = 2 in the image and 1 outside of it;
    ``keypoints_3d`` are metres in the world, ``keypoints_3d_camera`` in the camera's axes."""
    path, smpl = folder / "scene.json", SMPL(body)
    annotations = [row for motion in scene.people for row in _annotations(motion, scene.camera, smpl)]
    content = {
        "info": {
            "description": scene.name,
            "fps": scene.fps,
            "body": scene.body,
            "feet_locked": scene.feet_locked,
            "camera_moves": scene.camera_moves,
        },
        "camera": _camera(scene),
        "categories": [
            {
                "id": 1,
                "name": "person",
                "supercategory": "person",
                "keypoints": KEYPOINTS,
                "skeleton": [[a + 1, b + 1] for a, b in COCO_SKELETON],
            }
        ],
        "images": [
            {
                "id": frame,
                "file_name": f"{frame:06d}.jpg",
                "frame": frame,
                "time": round(frame / scene.fps, 6),
                "width": scene.camera.width,
                "height": scene.camera.height,
            }
            for frame in range(scene.n_frames)
        ],
        "annotations": [{"id": number, **row} for number, row in enumerate(annotations, start=1)],
    }
    with atomic_write(path) as temporary, temporary.open("w") as sink:
        json.dump(content, sink, allow_nan=False, separators=(",", ":"))
    return [path]


def _camera(scene: Scene) -> dict[str, Any]:
    return {
        "K": scene.camera.K.tolist(),
        "focal_source": scene.camera.source,
        "world_rotation": np.asarray(scene.world_rotation, float).tolist(),
        "world_offset": np.asarray(scene.world_offset, float).tolist(),
    }


def _annotations(motion: Motion, camera: Camera, smpl: SMPL) -> list[dict[str, Any]]:
    pixels = motion.joints2d[:, _JOINTS].astype(float).round(_PX)
    inside = ((pixels >= 0) & (pixels < [camera.width, camera.height])).all(-1, keepdims=True)
    keypoints = np.concatenate([pixels, np.where(inside, 2, 1)], axis=-1)
    world = Meshes(smpl, motion.world, motion.betas).joints()[:, _JOINTS]
    seen = (motion.joints3d + motion.camera.transl[:, None])[:, _JOINTS]
    boxes = motion.boxes.astype(float).round(_PX)
    return [
        {
            "image_id": int(frame),
            "category_id": 1,
            "person_id": motion.person_id,
            "iscrowd": 0,
            "bbox": [cx - w / 2, cy - h / 2, w, h],
            "area": w * h,
            "num_keypoints": len(_JOINTS),
            "keypoints": _numbers(keypoints[row].ravel()),
            "keypoints_3d": world[row].astype(float).round(_M).tolist(),
            "keypoints_3d_camera": seen[row].astype(float).round(_M).tolist(),
        }
        for row, (frame, (cx, cy, w, h)) in enumerate(zip(motion.frames.tolist(), boxes.tolist()))
    ]


def _numbers(values: np.ndarray) -> list[float]:
    """Without ``.0`` where a number is whole, as COCO's own files have it."""
    return [int(value) if value == int(value) else value for value in values.tolist()]

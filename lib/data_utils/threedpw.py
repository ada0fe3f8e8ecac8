"""3DPW (virtualhumans.mpi-inf.mpg.de/3DPW) -> 3dpw_train_db.pt, 3dpw_val_db.pt, 3dpw_test_db.pt.

Reads ``sequenceFiles/{train,validation,test}/{sequence}.pkl`` and ``imageFiles/{sequence}/image_{frame}.jpg``
(five digits, from 0). Needs the official SMPL files.

Differs from the original: boxes are aligned with their frames when a person appears late; 3D joints are in
camera coordinates together with their translation (the original left the translation in world coordinates,
which the evaluation's root alignment hides); crops are 1.2 x box (original: --scale 1.3); the ``gender`` is
stored; sequences are in sorted order.

As in the original, because published numbers depend on it: joints come from the neutral body (--gendered:
from the person's own), and frames with fewer than 7 visible joints are left out (--all-frames keeps them).
"""

from __future__ import annotations

if __name__ == "__main__":  # first, so that Ctrl-C while the rest is imported is one line, too
    from ..utils.errors import leave_on_signals

    leave_on_signals()

import argparse
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..models.body import BodyData, load_body
from ..models.smpl import SMPL
from ..utils.errors import UserError, run_command
from ..utils.files import load_pickle
from ..utils.geometry import axis_angle_to_rotmat, rotmat_to_axis_angle
from ..utils.keypoints import JOINT_NAMES
from .boxes import get_smooth_bbox_params, params_to_bboxes
from .clips import Clip, Rows, Video, image_clip
from .command import Job, make_parser
from .features import CropExtractor
from .raw import find

SETS = {"train": "train", "val": "validation", "test": "test"}
VISIBLE = 0.3  # confidence from which a joint counts as seen
MIN_JOINTS = 7
_TO_COMMON = [10, 9, 8, 11, 12, 13, 4, 3, 2, 5, 6, 7]  # raw keypoints that are `common` joints 0-11
_GENDERS = {"m": "male", "f": "female"}
_BATCH = 256
FPS = 30


def main(argv: Sequence[str] | None = None, extractor: CropExtractor | None = None) -> None:
    """The command line; see the module's text."""
    parser = make_parser(__doc__, "data/3dpw", sets=list(SETS), scale=1.2, box_factor=1.1)
    parser.add_argument("--all-frames", action="store_true", help="keep frames with few visible joints")
    parser.add_argument("--gendered", action="store_true", help="joints of the male or female body")
    job = Job(parser, argv, extractor)
    args = job.args
    for name in args.set:
        path = job.database("3dpw", name, "all" * args.all_frames, "gendered" * args.gendered)
        folder = args.dir / "sequenceFiles" / SETS[name]
        files = find(folder, "*.pkl", "3DPW's sequence files")
        videos = [Video(file.stem, partial(_clip, file, name, args)) for file in files]
        job.build(path, videos, fps=FPS, all_frames=args.all_frames, gendered=args.gendered)


def _clip(file: Path, split: str, args: argparse.Namespace) -> Clip:
    raw = load_pickle(file, "3DPW sequence")
    people = [_person(file, raw, p, split, args) for p in range(len(_field(raw, "poses", file)))]
    if not people:
        raise UserError(f"{file} holds no person: it is no sequence file of 3DPW, download it again")
    rows = {key: np.concatenate([person[key] for person in people]) for key in people[0]}
    return image_clip(rows, args.scale, args.reduced_jpeg)


def _person(file: Path, raw: dict[str, Any], person: int, split: str, args: argparse.Namespace) -> Rows:
    """Rows of one person, between the first and the last frame where it is seen."""
    camera = np.asarray(_field(raw, "cam_poses", file), np.float64)
    pose = _array(raw, "poses", person, (-1, 72), file)
    count = len(pose)
    trans = _array(raw, "trans", person, (count, 3), file)
    keypoints = _array(raw, "poses2d", person, (count, 3, 18), file).transpose(0, 2, 1)
    betas = _array(raw, "betas", person, (-1,), file)[:10]
    valid = np.asarray(_of_person(raw, "campose_valid", person, file))
    gender = str(_of_person(raw, "genders", person, file))
    if camera.shape != (count, 4, 4) or valid.shape != (count,) or gender not in _GENDERS:
        raise UserError(
            f"{file}: person {person} has {count} poses, but cam_poses {camera.shape}, campose_valid "
            f"{valid.shape} and gender {gender!r}; expected ({count}, 4, 4), ({count},) and m or f"
        )

    params, start, end = get_smooth_bbox_params(keypoints, VISIBLE)
    joints2d = _common_joints(keypoints)
    seen = (joints2d[..., 2] > VISIBLE).sum(1) >= MIN_JOINTS
    kept = np.arange(start, end)
    if not args.all_frames:
        kept = kept[seen[start:end]]

    body = _body(args.base_data, _GENDERS[gender] if args.gendered else "neutral")
    rotmat = axis_angle_to_rotmat(torch.from_numpy(pose[kept]).view(-1, 24, 3))
    joints = _joints(body, betas, rotmat, regressed=split != "train") + trans[kept, None]
    rotation, translation = camera[kept, :3, :3], camera[kept, None, :3, 3]
    pose = pose[kept]
    pose[:, :3] = rotmat_to_axis_angle(torch.from_numpy(rotation) @ rotmat[:, 0]).numpy()
    images = [str(file.parents[2] / "imageFiles" / file.stem / f"image_{i:05d}.jpg") for i in kept]
    return {
        "vid_name": np.full(len(kept), f"{file.stem}_{person}"),
        "frame_id": kept,
        "img_name": np.array(images, str),
        "joints3D": (joints @ rotation.transpose(0, 2, 1) + translation).astype(np.float32),
        "joints2D": joints2d[kept],
        "shape": np.tile(betas, (len(kept), 1)).astype(np.float32),
        "pose": pose.astype(np.float32),
        "gender": np.full(len(kept), gender),
        "bbox": params_to_bboxes(params, args.box_factor)[kept - start],
        "valid": valid[kept],
    }


def _field(raw: dict[str, Any], name: str, file: Path) -> Any:
    if name not in raw:
        raise UserError(f"{file} has no field {name}: it is no sequence file of 3DPW, download it again")
    return raw[name]


def _of_person(raw: dict[str, Any], name: str, person: int, file: Path) -> Any:
    people = _field(raw, name, file)
    if len(people) <= person:
        raise UserError(f"{file}: {name} has no person {person}: download it again")
    return people[person]


def _array(raw: dict[str, Any], name: str, person: int, shape: tuple[int, ...], file: Path) -> np.ndarray:
    array = np.asarray(_of_person(raw, name, person, file), np.float64)
    if array.ndim != len(shape) or any(want not in (-1, have) for want, have in zip(shape, array.shape)):
        raise UserError(
            f"{file}: {name} of person {person} has shape {array.shape}, expected {shape} (-1: any)"
        )
    return array


def _common_joints(keypoints: np.ndarray) -> np.ndarray:
    """Raw keypoints (n, 18, 3) -> ``common`` (n, 14, 3), confidence 0 or 1; neck and headtop are unknown."""
    joints = np.zeros((len(keypoints), len(JOINT_NAMES["common"]), 3))
    joints[:, :12] = keypoints[:, _TO_COMMON]
    joints[..., 2] = joints[..., 2] > VISIBLE
    return joints


@cache
def _body(base_data: Path, gender: str) -> BodyData:
    body = load_body(base_data, gender)
    if body.kind != "smpl":
        raise UserError(
            f"{base_data}/SMPL_{gender.upper()}.pkl does not exist: 3DPW's poses need the official SMPL files"
            " (data/README.md says where they come from)"
        )
    return body


@cache
def _smpl(body: BodyData) -> tuple[SMPL, torch.Tensor]:
    return SMPL(body), torch.from_numpy(body.J_regressor_h36m)


@torch.inference_mode()
def _joints(body: BodyData, betas: np.ndarray, rotmat: torch.Tensor, regressed: bool) -> np.ndarray:
    """(n, 49, 3) joints, or the 14 of the H36M regressor; float64 metres."""
    smpl, regressor = _smpl(body)
    shape = torch.from_numpy(betas).float()[None]
    parts = [
        smpl.joints(shape.expand(len(part), -1), part, regressor if regressed else None)
        for part in rotmat.float().split(_BATCH)
    ]
    joints = torch.cat(parts) if parts else torch.zeros(0, 14 if regressed else 49, 3)
    return joints.double().numpy()


if __name__ == "__main__":
    run_command(main)

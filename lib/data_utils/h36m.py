"""Human3.6M (vision.imar.ro/human3.6m) -> h36m_{train,val,test}[_front][_25fps][_tight][_nosmpl]_db.pt.

Reads ``images/s_{SS}_act_{AA}_subact_{BB}_ca_{CC}/*.jpg`` (the n-th image is frame n) and, in
``annotations``, ``Human36M_subject{S}_camera.json``, ``..._joint_3d.json`` and ``..._SMPL_NeuralAnnot.json``.
``train`` are subjects 1, 5, 6, 7, 8; ``val`` and ``test`` are both subjects 9 and 11.

Differs from the original: SMPL parameters are read (the original had that code commented out and stored
zeros: --no-smpl); videos are named after their folder, whatever --dir is; absent joints are zero.

SMPL parameters lie under the frame, in world coordinates (NeuralAnnot's files), or under the frame and
camera, in camera coordinates (the original's files): both are understood.
"""

from __future__ import annotations

if __name__ == "__main__":  # first, so that Ctrl-C while the rest is imported is one line, too
    from ..utils.errors import leave_on_signals

    leave_on_signals()

import argparse
import re
from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..utils.errors import UserError, fault, run_command
from ..utils.geometry import axis_angle_to_rotmat, rotmat_to_axis_angle
from ..utils.keypoints import JOINT_NAMES, convert_kps
from .boxes import get_smooth_bbox_params, params_to_bboxes
from .clips import Clip, Video, image_clip
from .command import Job, make_parser
from .features import CropExtractor
from .raw import common_length, find, list_images, read_json, warn_missing

SUBJECTS = {"train": (1, 5, 6, 7, 8), "val": (9, 11), "test": (9, 11)}
FRONT_CAMERA = 4
TIGHT = {"scale": 1.0, "box_factor": 0.9}
NATIVE_FPS = 50
ROOT = JOINT_NAMES["spin"].index("hip")
MM = 1000.0
_FROM_RAW = [0, 4, 5, 6, 1, 2, 3, *range(7, 17)]  # raw joints have the right leg first
_FOLDER = re.compile(r"s_(\d+)_act_(\d+)_subact_(\d+)_ca_(\d+)")


def main(argv: Sequence[str] | None = None, extractor: CropExtractor | None = None) -> None:
    """The command line; see the module's text."""
    parser = make_parser(__doc__, "data/h36m", sets=list(SUBJECTS), scale=1.2, box_factor=1.1)
    parser.set_defaults(set=["train", "test"])  # val would be the same frames as test
    parser.add_argument("--front", action="store_true", help=f"camera {FRONT_CAMERA} only")
    parser.add_argument("--tight", action="store_true", help="box factor 0.9 and crop scale 1.0")
    parser.add_argument(
        "--fps", type=int, choices=(25, 50), default=25, help="frames per second (%(default)s)"
    )
    parser.add_argument("--no-smpl", action="store_true", help="store zeros for pose and shape")
    if parser.parse_known_args(argv)[0].tight:
        parser.set_defaults(**TIGHT)
    job = Job(parser, argv, extractor)
    args = job.args
    fps = "25fps" * (args.fps == 25)
    for name in args.set:
        path = job.database(
            "h36m", name, "front" * args.front, fps, "tight" * args.tight, "nosmpl" * args.no_smpl
        )
        folders = find(args.dir / "images", "s_*_act_*_subact_*_ca_*", "Human3.6M's extracted frames")
        videos = [
            Video(folder.name, partial(_clip, folder, args))
            for folder in folders
            if _numbers(folder)[0] in SUBJECTS[name]
            and (not args.front or _numbers(folder)[3] == FRONT_CAMERA)
        ]
        if not videos:
            raise UserError(
                f"{args.dir / 'images'} holds no folder for {name}: expected the frames of subjects "
                f"{SUBJECTS[name]}, like s_{SUBJECTS[name][0]:02d}_act_02_subact_01_ca_04"
            )
        subjects = {folder.name[:4] for folder in folders}
        warn_missing(args.dir / "images", [f"s_{s:02d}" for s in SUBJECTS[name]], subjects)
        job.build(path, videos, fps=args.fps, no_smpl=args.no_smpl)


def _numbers(folder: Path) -> tuple[int, ...]:
    """Subject, action, sub-action and camera of an image folder."""
    match = _FOLDER.fullmatch(folder.name)
    return tuple(map(int, match.groups())) if match else (0, 0, 0, 0)


def _clip(folder: Path, args: argparse.Namespace) -> Clip:
    subject, action, subaction, camera = _numbers(folder)
    annotations = folder.parents[1] / "annotations"
    rotation, translation, focal, centre = _camera(annotations, subject, camera)
    images = list_images(folder)
    world = _entry(_joints(annotations, subject), (action, subaction), f"{folder.name}: no 3D joints")
    count = common_length(images, len(world), folder.name)
    joints = world[:count, _FROM_RAW] @ rotation.T + translation
    pixels = joints[..., :2] / joints[..., 2:] * focal + centre
    joints2d = convert_kps(np.concatenate([pixels, np.ones_like(pixels[..., :1])], axis=2), "h36m", "spin")
    joints3d = convert_kps(joints / MM, "h36m", "spin")
    present = [joint in JOINT_NAMES["h36m"] for joint in JOINT_NAMES["spin"]]
    joints3d[:, present] -= joints3d[:, ROOT : ROOT + 1]

    params, start, end = get_smooth_bbox_params(joints2d)
    kept = np.arange(start, end, NATIVE_FPS // args.fps)
    smpl = np.zeros((count, 82))
    if not args.no_smpl:
        smpl = _smpl(annotations, subject, (action, subaction, camera), rotation, count)
    rows = {
        "vid_name": np.full(len(kept), folder.name),
        "frame_id": kept,
        "img_name": np.array([str(images[i]) for i in kept], str),
        "joints3D": joints3d[kept].astype(np.float32),
        "joints2D": joints2d[kept].astype(np.float32),
        "pose": smpl[kept, :72].astype(np.float32),
        "shape": smpl[kept, 72:].astype(np.float32),
        "bbox": params_to_bboxes(params, args.box_factor)[kept - start],
    }
    return image_clip(rows, args.scale, args.reduced_jpeg)


def _entry(table: dict[Any, Any], keys: tuple[int, ...], problem: str) -> Any:
    for key in keys:
        if not isinstance(table, dict) or str(key) not in table:
            raise UserError(
                f"{problem} (key {key} of {'/'.join(map(str, keys))} is missing in the annotations)"
            )
        table = table[str(key)]
    return table


def _camera(annotations: Path, subject: int, camera: int) -> tuple[np.ndarray, ...]:
    """World to camera: rotation (3, 3), translation (3,) mm; focal length (2,) and centre (2,) in pixels."""
    path = annotations / f"Human36M_subject{subject}_camera.json"
    entry = _entry(read_json(path), (camera,), f"{path}: no such camera")
    try:
        return tuple(
            np.array(entry[key], np.float64).reshape(shape)
            for key, shape in (("R", (3, 3)), ("t", (3,)), ("f", (2,)), ("c", (2,)))
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise UserError(
            f"{path}: camera {camera} has no R (3x3), t (3), f (2) and c (2): {error!r}"
        ) from error


@lru_cache(maxsize=1)
def _joints(annotations: Path, subject: int) -> dict[str, Any]:
    """Action -> sub-action -> (n, 17, 3) millimetres in the world."""
    path = annotations / f"Human36M_subject{subject}_joint_3d.json"

    def frames_to_array(table: dict[str, Any]) -> Any:
        # Arrays while the file is parsed: lists of Python numbers would take ten times the memory.
        if not all(isinstance(joints, list) for joints in table.values()):
            return table
        if missing := [str(frame) for frame in range(len(table)) if str(frame) not in table]:
            raise ValueError(f"frame {missing[0]!r} is missing; frames are numbered from 0")
        array = np.array([table[str(frame)] for frame in range(len(table))], np.float64)
        if array.shape[1:] != (17, 3):
            raise ValueError(f"joints have shape {array.shape[1:]}, expected (17, 3)")
        return array

    actions: dict[str, Any] = read_json(path, frames_to_array)
    return actions


def _smpl(
    annotations: Path, subject: int, keys: tuple[int, int, int], rotation: np.ndarray, count: int
) -> np.ndarray:
    """(count, 82) pose in the camera frame, and shape; zeros where a frame has none."""
    path = annotations / f"Human36M_subject{subject}_SMPL_NeuralAnnot.json"
    action, subaction, camera = keys
    table = _entry(_smpl_table(path), (action, subaction), f"{path}: no parameters")
    values = np.zeros((count, 82))
    for frame in range(count):
        entry = table.get(str(frame))
        if isinstance(entry, np.ndarray):
            values[frame] = entry
        elif entry is not None:
            values[frame] = entry.get(str(camera), 0)
    in_world = np.array([isinstance(table.get(str(frame)), np.ndarray) for frame in range(count)])
    if in_world.any():
        turned = torch.from_numpy(rotation) @ axis_angle_to_rotmat(torch.from_numpy(values[in_world, :3]))
        values[in_world, :3] = rotmat_to_axis_angle(turned).numpy()
    return values


@lru_cache(maxsize=1)
def _smpl_table(path: Path) -> dict[str, Any]:
    """The file's nested dicts, with each ``{"pose": 72, "shape": 10}`` as one (82,) float32 array."""
    if not path.is_file():
        raise UserError(
            f"file {path} {fault(path)}: get NeuralAnnot's SMPL parameters of Human3.6M, or pass --no-smpl"
        )

    def parameters_to_array(table: dict[str, Any]) -> Any:
        if "pose" not in table or "shape" not in table:
            return table
        array = np.concatenate([np.ravel(table["pose"]), np.ravel(table["shape"])]).astype(np.float32)
        if array.shape != (82,):
            raise ValueError(f"pose and shape have {len(array)} numbers, expected 72 + 10")
        return array

    actions: dict[str, Any] = read_json(path, parameters_to_array)
    return actions


if __name__ == "__main__":
    run_command(main)

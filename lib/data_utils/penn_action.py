"""PennAction (dreamdragon.github.io/PennAction) -> pennaction_train_scale12_db.pt.

Reads ``labels/{NNNN}.mat`` and ``frames/{NNNN}/*.jpg``; all videos go into one file.

Differs from the original: a frame without any joint takes the boxes of its neighbours; videos are named by
their number, whatever --dir is. --box-factor 1.1 is VIBE's box.
"""

from __future__ import annotations

if __name__ == "__main__":  # first, so that Ctrl-C while the rest is imported is one line, too
    from ..utils.errors import leave_on_signals

    leave_on_signals()

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from ..utils.errors import UserError, run_command
from ..utils.keypoints import JOINT_NAMES, convert_kps
from .boxes import get_bbox_from_kp2d
from .clips import Clip, Video, image_clip
from .command import Job, make_parser, number_label
from .features import CropExtractor
from .raw import common_length, find, list_images, read_mat


def main(argv: Sequence[str] | None = None, extractor: CropExtractor | None = None) -> None:
    """The command line; see the module's text."""
    job = Job(make_parser(__doc__, "data/penn_action", scale=1.2, box_factor=1.0), argv, extractor)
    labels = find(job.args.dir / "labels", "*.mat", "PennAction's labels")
    videos = [Video(label.stem, partial(_clip, label, job.args)) for label in labels]
    job.build(job.database("pennaction", "train", f"scale{number_label(job.args.scale)}"), videos)


def _clip(label: Path, args: argparse.Namespace) -> Clip:
    content = read_mat(label, ["x", "y", "visibility"])
    joints = np.stack([np.asarray(content[key], np.float64) for key in ("x", "y", "visibility")], axis=-1)
    if joints.ndim != 3 or joints.shape[1] != len(JOINT_NAMES["pennaction"]):
        raise UserError(f"{label}: x has shape {joints.shape[:-1]}, expected (frames, 13)")
    images = list_images(label.parents[1] / "frames" / label.stem)
    count = common_length(images, len(joints), label.stem)
    images, joints = images[:count], joints[:count]
    rows = {
        "vid_name": np.full(count, label.stem),
        "img_name": np.array([str(path) for path in images], str),
        "joints2D": convert_kps(joints, "pennaction", "common"),
        "bbox": _boxes(label, joints, args.box_factor),
    }
    return image_clip(rows, args.scale, args.reduced_jpeg)


def _boxes(label: Path, joints: np.ndarray, factor: float) -> np.ndarray:
    """(n, 4) boxes around the joints with two non-zero coordinates."""
    usable = (joints[..., :2] != 0).all(axis=2)
    known = np.flatnonzero(usable.any(axis=1))
    if not len(known):
        raise UserError(f"{label}: no frame has a joint; get the file again")
    boxes = np.stack([get_bbox_from_kp2d(joints[frame][usable[frame]], factor) for frame in known])
    return np.stack([np.interp(np.arange(len(joints)), known, column) for column in boxes.T], axis=1)


if __name__ == "__main__":
    run_command(main)

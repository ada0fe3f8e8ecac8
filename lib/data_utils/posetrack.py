"""PoseTrack 2018 (posetrack.net) -> posetrack_train_db.pt.

Reads ``posetrack_data/annotations/train/*.json``; the images lie where their ``file_name`` says, relative to
--dir.

Differs from the original: a track that is missing in some labelled frames is split there (--join-gaps: taken
as contiguous, as in the original); the exclusion of ``021133_mpii_train.json`` works; crops are 1.2 x box
(original: --scale 1.3); videos are named after their file, whatever --dir is.
"""

from __future__ import annotations

if __name__ == "__main__":  # first, so that Ctrl-C while the rest is imported is one line, too
    from ..utils.errors import leave_on_signals

    leave_on_signals()

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..utils.errors import UserError, run_command
from ..utils.keypoints import JOINT_NAMES, convert_kps
from .clips import Clip, Rows, Video, image_clip
from .command import Job, make_parser
from .features import CropExtractor
from .raw import find, read_json

EXCLUDED = ("021133_mpii_train.json",)
MIN_FRAMES = 8


def main(argv: Sequence[str] | None = None, extractor: CropExtractor | None = None) -> None:
    """The command line; see the module's text."""
    parser = make_parser(__doc__, "data/posetrack", scale=1.2, box_factor=0.8)
    parser.add_argument("--join-gaps", action="store_true", help="take tracks with gaps as contiguous")
    job = Job(parser, argv, extractor)
    folder = job.args.dir / "posetrack_data" / "annotations" / "train"
    files = [file for file in find(folder, "*.json", "PoseTrack's annotations") if file.name not in EXCLUDED]
    videos = [Video(file.stem, partial(_clip, file, job.args)) for file in files]
    job.build(job.database("posetrack", "train"), videos, join_gaps=job.args.join_gaps)


def _clip(file: Path, args: argparse.Namespace) -> Clip:
    content = read_json(file)
    try:
        names = content["categories"][0]["keypoints"]
        order = [names.index(name) for name in JOINT_NAMES["posetrack_original"]]
        labelled = [image for image in content["images"] if image["is_labeled"]]
        frames = {image["frame_id"]: k for k, image in enumerate(labelled)}
        tracks: dict[int, list[dict[str, Any]]] = {}
        for annotation in content["annotations"]:
            if annotation["image_id"] in frames and any(annotation["keypoints"]):
                tracks.setdefault(annotation["track_id"], []).append(annotation)
        images = [str(args.dir / image["file_name"]) for image in labelled]
        parts: list[Rows] = []
        for track in sorted(tracks):
            parts += _track(f"{file.stem}_{track}", tracks[track], frames, images, order, args)
    except (AttributeError, KeyError, IndexError, TypeError, ValueError, OverflowError) as error:
        raise UserError(
            f"{file} is no annotation file of PoseTrack 2018 ({error!r}): expected images, annotations and"
            " categories with 17 keypoints"
        ) from error
    if not parts:
        return Clip({})
    return image_clip(
        {key: np.concatenate([part[key] for part in parts]) for key in parts[0]},
        args.scale,
        args.reduced_jpeg,
    )


def _track(
    name: str,
    annotations: list[dict[str, Any]],
    frames: dict[int, int],
    images: Sequence[str],
    order: Sequence[int],
    args: argparse.Namespace,
) -> list[Rows]:
    """Rows of the usable runs of one person."""
    if len(annotations) < MIN_FRAMES:
        return []
    annotations = [a for a in annotations if a.get("bbox") and a["bbox"][2] > 0 and a["bbox"][3] > 0]
    annotations.sort(key=lambda a: frames[a["image_id"]])
    places = np.array([frames[annotation["image_id"]] for annotation in annotations], int)
    gaps = np.diff(places) != 1
    breaks = np.flatnonzero(gaps & (not args.join_gaps)) + 1
    runs = [run for run in np.split(np.arange(len(places)), breaks) if len(run) >= MIN_FRAMES]
    rows = []
    for number, run in enumerate(runs):
        chosen = [annotations[k] for k in run]
        joints = np.array([a["keypoints"] for a in chosen], np.float64).reshape(len(run), 17, 3)[:, order]
        joints[..., 2] = (joints[..., :2] != 0).any(axis=2)
        left, top, width, height = np.array([a["bbox"] for a in chosen], np.float64).T
        side = np.maximum(width, height) * args.box_factor
        rows.append(
            {
                "vid_name": np.full(len(run), f"{name}_seg{number}" if number else name),
                "img_name": np.array([images[places[k]] for k in run], str),
                "joints2D": convert_kps(joints, "posetrack", "spin"),
                "bbox": np.stack([left + width / 2, top + height / 2, side, side], axis=1),
            }
        )
    return rows


if __name__ == "__main__":
    run_command(main)

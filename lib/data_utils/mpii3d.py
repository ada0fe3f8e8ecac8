"""MPI-INF-3DHP (gvv.mpi-inf.mpg.de/3dhp-dataset) -> mpii3d_train_scale12_db.pt, mpii3d_val_scale12_db.pt.

``train`` reads ``S{1-8}/Seq{1,2}/annot.mat`` and the frames ``S*/Seq*/video_{camera}/*.jpg`` (or, as SPIN
extracts them, ``S*/Seq*/imageFrames/video_{camera}/*.jpg``) of the eight standard cameras; ``val`` is the
official test set, ``mpi_inf_3dhp_test_set/TS{1-6}/annot_data.mat`` and ``imageSequence/img_{frame:06d}.jpg``.

Differs from the original: the crop scale is what the file name says (the original cropped the training frames
with 1.0 into a file called ``scale12``); segments are numbered per camera; absent joints are zero.

As in the original, because published numbers depend on it: a frame with a joint outside of the image is left
out, and the frames after it form a new segment. --keep-outside keeps them, in files called ``..._all_db.pt``
with a field ``inside``. Frames whose ``valid_i`` is 0 are always kept.
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

import h5py
import numpy as np

from ..utils.errors import UserError, run_command
from ..utils.hdf5 import check_data_set, h5_errors
from ..utils.images import read_image
from ..utils.keypoints import JOINT_NAMES, convert_kps
from ..utils.reading import need_file, need_folder
from .boxes import get_bbox_from_kp2d
from .clips import Clip, Rows, Video, image_clip
from .command import Job, make_parser, number_label
from .features import CropExtractor
from .raw import (
    common_length,
    find,
    list_images,
    read_mat,
    warn_missing,
)

CAMERAS = (0, 1, 2, 4, 5, 6, 7, 8)
IMAGE_SIZE = (2048, 2048)  # of the training set
ROOT = JOINT_NAMES["spin"].index("hip")
MM = 1000.0


def main(argv: Sequence[str] | None = None, extractor: CropExtractor | None = None) -> None:
    """The command line; see the module's text."""
    parser = make_parser(__doc__, "data/mpi_inf_3dhp", sets=["train", "val"], scale=1.2, box_factor=1.1)
    parser.add_argument(
        "--keep-outside", action="store_true", help="keep frames with joints outside of the image"
    )
    job = Job(parser, argv, extractor)
    args = job.args
    for name in args.set:
        path = job.database("mpii3d", name, f"scale{number_label(args.scale)}", "all" * args.keep_outside)
        videos = (_train_videos if name == "train" else _test_videos)(args)
        job.build(path, videos, keep_outside=args.keep_outside)


def _train_videos(args: argparse.Namespace) -> list[Video]:
    folders = [
        folder
        for folder in find(args.dir, "S*/Seq*", "S1/Seq1 ... S8/Seq2 of MPI-INF-3DHP")
        if re.fullmatch(r"S\d/Seq\d", folder.relative_to(args.dir).as_posix())
    ]
    expected = [f"S{subject}/Seq{seq}" for subject in range(1, 9) for seq in (1, 2)]
    warn_missing(args.dir, expected, [folder.relative_to(args.dir).as_posix() for folder in folders])
    videos = []
    for folder in folders:
        need_file(folder / "annot.mat", "the sequence's annotations")
        for camera in CAMERAS:
            _frames(folder, camera)
            name = f"subj{folder.parent.name[1:]}_seq{folder.name[3:]}_vid{camera}"
            videos.append(Video(name, partial(_train_clip, name, folder, camera, args)))
    return videos


def _train_clip(name: str, folder: Path, camera: int, args: argparse.Namespace) -> Clip:
    annotations = _read_annotations(folder / "annot.mat")
    joints2d, joints3d = (_camera_joints(annotations, key, camera, folder) for key in ("annot2", "annot3"))
    if len(joints2d) != len(joints3d):
        raise UserError(
            f"{folder / 'annot.mat'}: camera {camera} has {len(joints2d)} frames in annot2 but"
            f" {len(joints3d)} in annot3: get it again"
        )
    images = list_images(_frames(folder, camera))
    return _clip(name, images, joints2d, joints3d, "mpii3d", IMAGE_SIZE, args)


def _frames(folder: Path, camera: int) -> Path:
    """The folder of a camera's frames: as docs/data.md shows it, or as SPIN extracts them.

    Raises:
        UserError: there is none; where the video is there, how to extract it.
    """
    name = f"video_{camera}"
    places = [folder / name, *(folder / parent / name for parent in ("imageFrames", "imageSequence"))]
    for place in places:
        if place.is_dir():
            return place
    videos = [folder / "imageSequence" / f"{name}.avi", folder / f"{name}.avi"]
    if video := next((path for path in videos if path.is_file()), None):
        raise UserError(
            f"{video} has not been extracted: make {places[0]} and run"
            f" `ffmpeg -i {video} -qscale:v 1 {places[0]}/%06d.jpg`"
        )
    return need_folder(places[0], f"the extracted frames of camera {camera}")


@lru_cache(maxsize=1)  # one file holds all cameras
def _read_annotations(path: Path) -> dict[str, np.ndarray]:
    return read_mat(path, ["annot2", "annot3"])


def _camera_joints(annotations: dict[str, np.ndarray], key: str, camera: int, folder: Path) -> np.ndarray:
    """(n, 28, 2) pixels of ``annot2`` or (n, 28, 3) millimetres of ``annot3``."""
    dims = int(key[-1])
    cells = annotations[key].ravel()
    if annotations[key].dtype != object or camera >= len(cells) or cells[camera].shape[1:] != (28 * dims,):
        raise UserError(
            f"{folder / 'annot.mat'}: {key} holds no (frames, {28 * dims}) of camera {camera}: it is not the"
            " annotation file of MPI-INF-3DHP's training set"
        )
    return np.asarray(cells[camera], np.float64).reshape(-1, 28, dims)


def _test_videos(args: argparse.Namespace) -> list[Video]:
    folders = find(args.dir / "mpi_inf_3dhp_test_set", "TS[0-9]", "TS1 ... TS6 of MPI-INF-3DHP's test set")
    warn_missing(folders[0].parent, [f"TS{k}" for k in range(1, 7)], [folder.name for folder in folders])
    return [Video(f"subj{f.name[2:]}", partial(_test_clip, f"subj{f.name[2:]}", f, args)) for f in folders]


def _test_clip(name: str, folder: Path, args: argparse.Namespace) -> Clip:
    path = need_file(folder / "annot_data.mat", "the sequence's annotations")
    fields = {"annot2": (1, 17, 2), "univ_annot3": (1, 17, 3), "valid_frame": (1,)}
    what = f"annotation file {path}"
    with h5_errors(what), h5py.File(path, "r") as file:
        if missing := [key for key in fields if not isinstance(file.get(key, getlink=True), h5py.HardLink)]:
            raise UserError(
                f"{path} is no annotation file of MPI-INF-3DHP's test set: no {', '.join(missing)}"
            )
        for key in fields:
            check_data_set(file, key, what)
        arrays = {key: file[key][:] for key in fields}
    for key, shape in fields.items():
        if arrays[key].shape[1:] != shape:
            raise UserError(
                f"{path}: {key} has shape {arrays[key].shape}, expected (n, {', '.join(map(str, shape))})"
            )
    count = len(arrays["annot2"])
    if not count or {len(values) for values in arrays.values()} != {count}:
        lengths = ", ".join(f"{key} {len(values)}" for key, values in arrays.items())
        raise UserError(f"{path} has no equal number of frames in each field ({lengths}): get it again")
    images = [folder / "imageSequence" / f"img_{i:06d}.jpg" for i in range(1, count + 1)]
    height, width = read_image(images[0]).shape[:2]
    return _clip(
        name,
        images,
        np.asarray(arrays["annot2"], np.float64)[:, 0],
        np.asarray(arrays["univ_annot3"], np.float64)[:, 0],
        "mpii3d_test",
        (width, height),
        args,
        {"valid_i": arrays["valid_frame"]},
    )


def _clip(
    name: str,
    images: Sequence[Path],
    joints2d: np.ndarray,
    joints3d: np.ndarray,
    convention: str,
    image_size: tuple[int, int],
    args: argparse.Namespace,
    more: Rows | None = None,
) -> Clip:
    """Rows of one camera. joints2d (n, J, 2) pixels, joints3d (n, J, 3) millimetres, of ``convention``."""
    count = common_length(images, len(joints2d), name)
    images = images[:count]
    joints2d = np.concatenate([joints2d[:count], np.ones_like(joints2d[:count, :, :1])], axis=2)
    joints2d = convert_kps(joints2d, convention, "spin")
    present = [joint in JOINT_NAMES[convention] for joint in JOINT_NAMES["spin"]]
    joints3d = convert_kps(joints3d[:count] / MM, convention, "spin")
    joints3d[:, present] -= joints3d[:, ROOT : ROOT + 1]
    xy = joints2d[:, present, :2]
    inside = np.asarray(((xy >= 0) & (xy < image_size)).all(axis=(1, 2)))
    kept = np.ones(count, bool) if args.keep_outside else inside
    segments = _segments(kept)
    rows = {
        "vid_name": np.array([f"{name}_seg{segment}" for segment in segments], str),
        "frame_id": np.array([path.stem for path, keep in zip(images, kept) if keep], str),
        "img_name": np.array([str(path) for path, keep in zip(images, kept) if keep], str),
        "joints3D": joints3d[kept],
        "joints2D": joints2d[kept],
        "bbox": get_bbox_from_kp2d(xy[kept], args.box_factor),
    }
    rows |= {key: values[kept] for key, values in (more or {}).items()}
    if args.keep_outside:
        rows["inside"] = inside
    return image_clip(rows, args.scale, args.reduced_jpeg)


def _segments(kept: np.ndarray) -> np.ndarray:
    """Number of the run that each kept frame lies in: (n,) bool -> (kept.sum(),) int."""
    starts = kept & ~np.concatenate([[False], kept[:-1]])
    runs: np.ndarray = np.cumsum(starts)[kept] - 1
    return runs


if __name__ == "__main__":
    run_command(main)

"""InstaVariety (the tfrecords of Human Dynamics, Kanazawa et al. 2019) -> insta_train_db.h5.

Reads ``train/*.tfrecord``: one clip per record, 224 x 224 JPEG frames with 25 2D joints. They are used as
they are, so there is no crop scale. TensorFlow is not needed.

Differs from the original: any number of tfrecord files; clips are named after the file, whatever --dir is;
clips without face or toe points have confidence 0 there.
"""

from __future__ import annotations

if __name__ == "__main__":  # first, so that Ctrl-C while the rest is imported is one line, too
    from ..utils.errors import leave_on_signals

    leave_on_signals()

from collections.abc import Sequence
from functools import partial

import numpy as np

from ..utils.errors import UserError, run_command
from ..utils.geometry import CROP_SIZE
from ..utils.images import decode_image
from .clips import Clip, Video
from .command import Job, make_parser
from .features import CropExtractor
from .raw import find
from .tfrecord import Record, list_records

_FACE_POINTS, _TOE_POINTS = 5, 6


def main(argv: Sequence[str] | None = None, extractor: CropExtractor | None = None) -> None:
    """The command line; see the module's text."""
    job = Job(make_parser(__doc__, "data/insta_variety"), argv, extractor)
    files = find(job.args.dir / "train", "*.tfrecord", "InstaVariety's tfrecord files")
    videos = [Video(_name(record), partial(_clip, record)) for file in files for record in list_records(file)]
    job.build(job.database("insta", "train", suffix=".h5"), videos)


def _name(record: Record) -> str:
    return f"{record.path.name}-{record.index}"


def _clip(record: Record) -> Clip:
    content = record.read()
    try:
        images = content["image/encoded"]
        count = int(content["meta/N"][0])
        xy = content["image/xys"].reshape(count, 2, 14)
        joints = np.concatenate([xy, content["image/visibilities"].reshape(count, 1, 14)], axis=1)
        parts = [joints]
        for key, points in (("image/face_pts", _FACE_POINTS), ("image/toe_pts", _TOE_POINTS)):
            values = content.get(key, np.zeros(0))
            parts.append(values.reshape(count, 3, points) if len(values) else np.zeros((count, 3, points)))
    except (KeyError, IndexError, ValueError, TypeError, AttributeError, OverflowError) as error:
        raise UserError(
            f"{record.path}: record {record.index} is no clip of InstaVariety ({error!r}): expected meta/N"
            " frames with image/encoded, image/xys and image/visibilities of 14 joints"
        ) from error
    if len(images) != count:
        raise UserError(
            f"{record.path}: record {record.index} has {len(images)} images, expected meta/N = {count}"
        )
    joints = np.concatenate(parts, axis=2, dtype=np.float64).transpose(0, 2, 1)
    if "image/phis" in content:  # then points lie in [-1, 1]
        joints[..., :2] = (joints[..., :2] + 1) / 2 * CROP_SIZE

    def crop(row: int) -> np.ndarray:
        image = decode_image(images[row], f"{row} of record {record.index} of {record.path}")
        if image.shape != (CROP_SIZE, CROP_SIZE, 3):
            raise UserError(
                f"{record.path}: images of record {record.index} are {image.shape[1]} x {image.shape[0]},"
                f" expected {CROP_SIZE} x {CROP_SIZE}"
            )
        return image

    rows = {
        "vid_name": np.full(count, _name(record).encode()),
        "frame_id": np.arange(count),
        "joints2D": joints,
    }
    return Clip(rows, crop)


if __name__ == "__main__":
    run_command(main)

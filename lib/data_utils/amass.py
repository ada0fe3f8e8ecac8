"""AMASS (amass.is.tue.mpg.de) -> amass_db.pt: poses for a motion prior, no images and no features.

Reads ``{dataset}/{subject}/{action}.npz`` (SMPL+H). Shapes files and clips under 60 frames are skipped.

Differs from the original: clips are thinned to about 25 frames per second (--fps 0: left at their own rate).
"""

from __future__ import annotations

if __name__ == "__main__":  # first, so that Ctrl-C while the rest is imported is one line, too
    from lib.utils.errors import leave_on_signals

    leave_on_signals()

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from lib.data_utils.preprocess import Clip, Job, Video, make_parser
from lib.data_utils.raw import warn_missing
from lib.utils.errors import UserError, run_command
from lib.utils.files import load_arrays

DATASETS = (
    "ACCAD",
    "BioMotionLab_NTroje",
    "CMU",
    "EKUT",
    "Eyes_Japan_Dataset",
    "HumanEva",
    "KIT",
    "MPI_HDM05",
    "MPI_Limits",
    "MPI_mosh",
    "SFU",
    "SSM_synced",
    "TCD_handMocap",
    "TotalCapture",
    "Transitions_mocap",
)
MIN_FRAMES = 60
_FIELDS = ("poses", "betas", "mocap_framerate")
_SMPL_FROM_SMPLH = [*range(23), 37]  # the right hand's joint stands after the left hand's fingers


def main(argv: Sequence[str] | None = None) -> None:
    """The command line; see the module's text."""
    parser = make_parser(__doc__, "data/amass", features=False)
    parser.add_argument("--fps", type=int, default=25, help="frames per second, 0: as recorded (%(default)s)")
    job = Job(parser, argv, None)
    args = job.args
    if args.fps < 0:
        raise UserError(f"--fps {args.fps}: expected a positive number, or 0 for the recorded rate")
    videos = [
        Video(
            "_".join(file.relative_to(args.dir).with_suffix("").parts),
            partial(_clip, file, args.fps),
        )
        for dataset in DATASETS
        for file in sorted((args.dir / dataset).glob("*/*.npz"))
        if not file.name.endswith("shape.npz")
    ]
    if not videos:
        raise UserError(
            f"{args.dir} holds no {{dataset}}/{{subject}}/{{action}}.npz of {', '.join(DATASETS)}"
        )
    warn_missing(args.dir, DATASETS, [path.name for path in args.dir.iterdir()])
    job.build(job.database("amass"), videos, thinned=args.fps)


def _clip(file: Path, fps: int) -> Clip:
    try:
        poses, betas, rate = load_arrays(file, "SMPL+H motion", _FIELDS).values()
        step = max(1, int(rate // fps)) if fps else 1
        kept_fps = float(rate) / step
        pose = poses.reshape(len(poses), 52, 3)[:, _SMPL_FROM_SMPLH].reshape(len(poses), 72)
        shape = np.broadcast_to(betas[:10], (len(poses), 10))
    except (TypeError, ValueError) as error:
        raise UserError(
            f"{file} is no SMPL+H motion of AMASS ({error}): expected poses (n, 156), betas, mocap_framerate"
        ) from error
    if len(poses) < MIN_FRAMES:
        return Clip({})
    theta = np.concatenate([pose, shape], axis=1)[::step]
    name = "_".join([*file.parts[-3:-1], file.stem])
    return Clip({"theta": theta, "vid_name": np.full(len(theta), name), "fps": np.full(len(theta), kept_fps)})


if __name__ == "__main__":
    run_command(main)

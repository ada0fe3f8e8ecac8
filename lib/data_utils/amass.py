"""AMASS (amass.is.tue.mpg.de) -> amass_db.pt: poses for a motion prior, no images and no features.

Reads ``{dataset}/{subject}/{action}.npz`` (SMPL+H) under the folder names of every release. Files of shapes
and clips under 60 frames are skipped; folders of datasets that the original does not use are named.

Differs from the original: clips are thinned to about 25 frames per second (--fps 0: left at their own rate).
"""

from __future__ import annotations

if __name__ == "__main__":  # first, so that Ctrl-C while the rest is imported is one line, too
    from ..utils.errors import leave_on_signals

    leave_on_signals()

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from ..open_data.motion_files import NOT_MOTIONS, RATES, SMPL_JOINTS
from ..utils.errors import UserError, run_command
from ..utils.files import load_arrays
from .clips import Clip, Video
from .command import Job, make_parser
from .raw import warn_missing

DATASETS = {  # names of the folders in releases since 2020: those of 2019, and of the original's list
    "ACCAD": "ACCAD",
    "BMLrub": "BioMotionLab_NTroje",
    "CMU": "CMU",
    "EKUT": "EKUT",
    "EyesJapanDataset": "Eyes_Japan_Dataset",
    "HumanEva": "HumanEva",
    "KIT": "KIT",
    "HDM05": "MPI_HDM05",
    "PosePrior": "MPI_Limits",
    "MoSh": "MPI_mosh",
    "SFU": "SFU",
    "SSM": "SSM_synced",
    "TCDHands": "TCD_handMocap",
    "TotalCapture": "TotalCapture",
    "Transitions": "Transitions_mocap",
}
MIN_FRAMES = 60
_RATES = RATES[:2]
_SMPLX_NUMBERS = 165

log = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> None:
    """The command line; see the module's text."""
    parser = make_parser(__doc__, "data/amass", features=False)
    parser.add_argument("--fps", type=int, default=25, help="frames per second, 0: as recorded (%(default)s)")
    job = Job(parser, argv, None)
    args = job.args
    if args.fps < 0:
        raise UserError(f"--fps {args.fps}: expected a positive number, or 0 for the recorded rate")
    names = {*DATASETS, *DATASETS.values()}
    folders = sorted(path for path in args.dir.iterdir() if path.is_dir())
    videos = [
        Video("_".join(file.relative_to(args.dir).with_suffix("").parts), partial(_clip, file, args.fps))
        for folder in folders
        if folder.name in names
        for file in sorted(folder.glob("*/*.npz"))
        if not file.name.endswith(NOT_MOTIONS)
    ]
    ignored = [folder.name for folder in folders if folder.name not in names]
    if not videos:
        found = f"; it holds {', '.join(ignored)}" if ignored else ""
        raise UserError(
            f"{args.dir} holds no {{dataset}}/{{subject}}/{{action}}.npz of {', '.join(DATASETS)}{found}"
        )
    if ignored:
        log.warning("%s: ignored, as they are not in the original's list: %s", args.dir, ", ".join(ignored))
    there = {folder.name for folder in folders}
    warn_missing(args.dir, DATASETS, [new for new, old in DATASETS.items() if there & {new, old}])
    job.build(job.database("amass"), videos, thinned=args.fps)


def _clip(file: Path, fps: int) -> Clip:
    content = load_arrays(file, "SMPL+H motion", ("poses", "betas"), optional=_RATES)
    rates = [content[name] for name in _RATES if name in content]
    if not rates:
        raise UserError(f"SMPL+H motion {file} lacks {' or '.join(_RATES)}; get the file again")
    poses, betas = content["poses"], content["betas"]
    if poses.ndim == 2 and poses.shape[1] == _SMPLX_NUMBERS:
        raise UserError(f"{file} is a motion of SMPL-X: download the SMPL+H files of AMASS instead")
    try:
        rate = float(rates[0])
        if not 0 < rate < 1e6:
            raise ValueError(f"{rate} frames per second")
        step = max(1, int(rate // fps)) if fps else 1
        kept_fps = float(rate) / step
        pose = poses.reshape(len(poses), 52, 3)[:, SMPL_JOINTS[52]].reshape(len(poses), 72)
        shape = np.broadcast_to(betas[:10], (len(poses), 10))
    except (TypeError, ValueError) as error:
        raise UserError(
            f"{file} is no SMPL+H motion of AMASS ({error}): expected poses (n, 156), betas, {_RATES[0]}"
        ) from error
    if len(poses) < MIN_FRAMES:
        return Clip({})
    theta = np.concatenate([pose, shape], axis=1)[::step]
    name = "_".join([*file.parts[-3:-1], file.stem])
    return Clip({"theta": theta, "vid_name": np.full(len(theta), name), "fps": np.full(len(theta), kept_fps)})


if __name__ == "__main__":
    run_command(main)

"""Motion files of any kind -> rotations of SMPL's 24 joints; who moves in them, and what is done.

Kinds: ``.npz`` with ``poses`` (T, 72), ``trans`` (T, 3) metres with y up and ``fps``; AMASS ``.npz`` of SMPL,
SMPL-H or SMPL-X, with z up and ``mocap_framerate``; ``.bvh``. All are read as they are, at their own rate.
"""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..models.body import OPEN_DATA, load_body
from ..motion.motion import rest_joints
from ..utils.errors import UserError, shown
from ..utils.files import load_arrays
from ..utils.geometry import axis_angle_to_rotmat
from ..utils.reading import readable
from .bvh import read_bvh

RATES = ("mocap_framerate", "mocap_frame_rate", "frame_rate")
"""Names of the frame rate in AMASS: of releases since 2019, since 2021, and of other tools."""
NOT_MOTIONS = ("shape.npz", "stagei.npz")
"""How files of AMASS that hold shapes alone end."""
SMPL_JOINTS = {24: [*range(24)], 52: [*range(23), 37], 55: [*range(22), 25, 40]}
"""Joints of SMPL, SMPL-H and SMPL-X that are SMPL's; its hands are the first joints of the index fingers."""
UNKNOWN_PERFORMER = ""
_BODY_NUMBERS = 63
_Y_UP = torch.tensor([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])  # from AMASS's axes
INDEX = "index.csv"
# Clips that are known by other names, and whose poses are those of this CMU subject.
_RECOGNISED = {"dmgnn_train_jumping_2": "49", "dmgnn_test_jumping_1": "49"}


class Recording(NamedTuple):
    """Poses, trans in metres with y up, frames per second."""

    rotmat: Float[Tensor, "t 24 3 3"]
    trans: Float[Tensor, "t 3"]
    fps: float


def motion_files(folder: str | Path) -> list[Path]:
    """All below ``folder``, sorted."""
    found = (p for p in Path(folder).rglob("*") if p.suffix.lower() in (".npz", ".bvh"))
    return sorted(p for p in found if not p.name.endswith(NOT_MOTIONS))


def read_motion(path: Path) -> Recording:
    """One file, as recorded.

    Raises:
        UserError: missing arrays, wrong shapes, numbers that are not finite, an impossible frame rate.
    """
    if path.suffix.lower() == ".bvh":
        turns, places, rate = read_bvh(path)
        return Recording(torch.from_numpy(turns), torch.from_numpy(places), rate)
    what = "motion file"
    data = load_arrays(path, what, ("trans",), optional=("poses", "root_orient", "pose_body", "fps", *RATES))
    rates = [data[name] for name in ("fps", *RATES) if name in data]
    if not rates:
        raise UserError(f"{path}: a motion file without fps (or {' or '.join(RATES[:2])}); get it again")
    try:
        poses, trans = _axis_angles(data), torch.from_numpy(data["trans"].astype(np.float32))
        fps = float(rates[0])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: not a motion file ({error}); see data/README.md") from error
    if trans.shape != (len(poses), 3) or not 1 <= fps <= 10_000:
        raise UserError(
            f"{path}: {len(poses)} poses, trans {tuple(trans.shape)}, fps {fps}; expected trans (T, 3) and 1 "
            "to 10000 fps"
        )
    if not (torch.isfinite(poses).all() and torch.isfinite(trans).all()):
        raise UserError(f"{path}: poses or trans hold NaN or infinite numbers")
    rotmat = axis_angle_to_rotmat(poses)
    if "fps" not in data:
        pelvis = torch.from_numpy(rest_joints(load_body(OPEN_DATA), np.zeros(10)))[0]
        rotmat[:, 0] = _Y_UP @ rotmat[:, 0]
        trans = (pelvis + trans) @ _Y_UP.T - pelvis
    return Recording(rotmat, trans, fps)


def _axis_angles(data: dict[str, np.ndarray]) -> Float[Tensor, "t 24 3"]:
    """Poses of any layout; ValueError, KeyError or TypeError where it is none."""
    if "poses" in data:
        poses = data["poses"].astype(np.float32)
        joints = SMPL_JOINTS.get(poses.shape[-1] // 3) if poses.ndim == 2 else None
        if joints is None or poses.shape[1] % 3:
            raise ValueError(f"poses {poses.shape}, expected (T, 72), (T, 156) or (T, 165)")
        return torch.from_numpy(poses).view(len(poses), -1, 3)[:, joints]
    root, body = data["root_orient"].astype(np.float32), data["pose_body"].astype(np.float32)
    if root.shape != (len(root), 3) or body.shape != (len(root), _BODY_NUMBERS):
        raise ValueError(f"root_orient {root.shape}, pose_body {body.shape}, expected (T, 3) and (T, 63)")
    poses = np.concatenate([root, body, np.zeros((len(root), 6), np.float32)], axis=1)
    return torch.from_numpy(poses).view(-1, 24, 3)


def performer_of(path: Path) -> str:
    """Who moves in a file, by its ``path`` below the folder of motions; "" where that does not tell.

    ``cmu_14_03.npz``, ``14_03.bvh`` and AMASS's ``CMU/14/14_03_poses.npz`` are CMU's number ``14``; other
    files in ``DATASET/SUBJECT/`` are ``DATASET/SUBJECT``; ``…subject5….bvh`` is ``subject5``.
    """
    if path.stem in _RECOGNISED:
        return _RECOGNISED[path.stem]
    folders = path.parts[:-1]
    cmu = any("cmu" in folder.lower() for folder in folders)
    match = re.fullmatch(r"([a-z]+_)?0*(\d+)_\d+(_poses|_stageii)?", path.stem)
    if match and (cmu or len(folders) < 2):
        return match[2]
    if match := re.search(r"subject_?(\d+)", path.stem, re.IGNORECASE):
        return f"subject{int(match[1])}"
    return "/".join(folders[-2:]) if len(folders) >= 2 else UNKNOWN_PERFORMER


class Entry(NamedTuple):
    """What an index tells of a file; empty where it does not."""

    performer: str = ""
    description: str = ""
    split: str = ""


def read_indices(folder: str | Path) -> dict[Path, Entry]:
    """What every ``index.csv`` below ``folder`` tells of the files beside it.

    Columns: ``file``, and any of ``performer`` (or ``subject``), ``description`` and ``split``.

    Raises:
        UserError: one cannot be read or lacks ``file``.
    """
    entries = {}
    for path in sorted(Path(folder).rglob(INDEX)):
        with readable(path, "index of motions"), path.open(encoding="utf-8-sig", newline="") as source:
            reader = csv.DictReader(source)
            if "file" not in (reader.fieldnames or ()):
                raise UserError(f"{path} lacks the column file; data/README.md says what an index holds")
            for row in reader:
                who = (row.get("performer") or row.get("subject") or "").strip()
                who = str(int(who)) if who.isdecimal() else who
                split = (row.get("split") or "").strip()
                if split not in ("", "train", "val", "test"):
                    raise UserError(f"{path}: split {shown(split)!r}, expected train, val, test or nothing")
                entry = Entry(who, (row.get("description") or "").strip(), split)
                entries[path.parent / (row["file"] or "")] = entry
    return entries

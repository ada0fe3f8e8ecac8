"""Videos of the open benchmark with their truth, and what a method says of one."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float

from ...landmarks.features import LIMB_JOINTS
from ...landmarks.flips import repair_flips
from ...models.predict import TRAINING_FPS, window_step
from ...motion.motion import Placed
from ...open_data.simulate import IMAGE_SIZE
from ...utils.errors import UserError
from ...utils.files import load_joblib
from ...utils.geometry import axis_angle_to_rotmat


class Posed(NamedTuple):
    """Bodies of n frames."""

    rotmat: Float[np.ndarray, "n 24 3 3"]  # root in camera axes
    betas: Float[np.ndarray, "n 10"]


@dataclass(frozen=True, eq=False)
class Video:
    """One video of a database of n frames: what is seen, and the truth."""

    name: str
    motion: str  # which it is a piece or a view of
    observed: Float[np.ndarray, "n 33 6"]  # landmarks as they came: px, visibility, metres
    landmarks: tuple[np.ndarray, np.ndarray, np.ndarray]  # repaired: (n, 33, 2) px, (n, 33), (n, 33, 3) m
    joints: Float[np.ndarray, "n 12 3"]  # metres, camera axes
    pixels: Float[np.ndarray, "n 12 2"]
    side: Float[np.ndarray, " n"]  # px, of the person's box
    fps: float
    image_size: tuple[int, int]  # width, height in px
    body: Posed | None = None  # where it is known
    world: Placed | None = None  # the same in a world with y up

    @property
    def step(self) -> int:
        """Frames from one to the next about 1/30 s later."""
        return window_step(self.fps)


@dataclass(frozen=True, eq=False)
class Estimate:
    """What a method says of a video of n frames."""

    joints: Float[np.ndarray, "n 12 3"]  # metres, camera axes, any origin
    pixels: Float[np.ndarray, "n 12 2"]  # where the image shows them
    body: Posed | None = None
    attention: Float[np.ndarray, "n 3"] | None = None  # past, current, future


# Of names: make_open_db.py's of pieces of a motion, make_pose2sim_db.py's of views of a recording.
_PIECE, _VIEW = re.compile(r"_\d{5}$"), re.compile(r"(pose2sim(?:_multi)?)_.*")


def read_videos(path: Path) -> list[Video]:
    """The videos of a database that keeps its landmarks.

    Raises:
        UserError: it is missing, or holds no landmarks.
    """
    data = load_joblib(path)
    if "landmarks" not in data:
        raise UserError(
            f"{path}: has no landmarks; make it with scripts/make_open_db.py or make_pose2sim_db.py"
        )
    names = np.asarray(data["vid_name"])
    edges = np.flatnonzero(np.r_[True, names[1:] != names[:-1], True])
    size = tuple(int(data.get(key, IMAGE_SIZE)) for key in ("image_width", "image_height"))
    videos = []
    for start, end in itertools.pairwise(edges):
        rows = {
            key: np.asarray(v[start:end]) for key, v in data.items() if np.ndim(v) and len(v) == len(names)
        }
        seen = rows["landmarks"]
        truth: dict[str, Any] = {}
        if rows["pose"].any():
            truth["body"] = Posed(_rotations(rows["pose"]), rows["shape"])
            if "world_orient" in rows:
                turned = truth["body"].rotmat.copy()
                turned[:, 0] = _rotations(rows["world_orient"])[:, 0]
                truth["world"] = Placed(turned, rows["world_trans"])
        name = str(names[start])
        video = Video(
            name=name,
            motion=_VIEW.sub(r"\1", _PIECE.sub("", name)),
            observed=seen,
            landmarks=repair_flips(seen[..., :2], seen[..., 2], seen[..., 3:]),
            joints=rows["joints3D"][:, LIMB_JOINTS],
            pixels=rows["joints2D"][:, LIMB_JOINTS, :2],
            side=rows["bbox"][:, 2],
            fps=float(data.get("fps", TRAINING_FPS)),
            image_size=(size[0], size[1]),
            **truth,
        )
        videos.append(video)
    return videos


def _rotations(pose: np.ndarray) -> np.ndarray:
    """Axis-angle (n, 3 K) -> (n, K, 3, 3)."""
    return axis_angle_to_rotmat(torch.from_numpy(pose.astype(np.float32)).view(len(pose), -1, 3)).numpy()

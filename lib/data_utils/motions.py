"""Motion clips in SMPL's 24-joint convention: read from a folder, generated, split by performer, sampled.

A motion file is an ``.npz`` with ``poses`` (T, 72) axis-angle radians, ``trans`` (T, 3) metres (y up) and
``fps``. The performer is the number in names like ``cmu_14_03.npz``; other names have no known performer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from lib.utils.errors import UserError
from lib.utils.files import load_arrays
from lib.utils.geometry import axis_angle_to_rotmat
from lib.utils.keypoints import SMPL_FLIP

FPS = 30.0
UPPER_BODY = list(range(12, 24))
UNKNOWN_PERFORMER = ""
# CMU subjects: playground, dance, martial arts; walking, acrobatics and running.
TEST_PERFORMERS = ("1", "94", "135")
VAL_PERFORMERS = ("26", "32", "127")
TRIM_T_POSE = 20


@dataclass(frozen=True)
class Motion:
    """One clip at 30 fps: rotmat (T, 24, 3, 3), trans (T, 3) metres with y up."""

    name: str
    performer: str
    rotmat: torch.Tensor
    trans: torch.Tensor


def load_motions(folder: str | Path) -> list[Motion]:
    """Read every motion file below ``folder``, resampled to 30 fps.

    Raises:
        UserError: no file there, or one with missing arrays, wrong shapes or non-finite numbers.
    """
    files = sorted(Path(folder).rglob("*.npz"))
    if not files:
        raise UserError(f"{folder}: no motion files (*.npz with poses, trans, fps) found; see data/README.md")
    return [_load_motion(path, _performer(path.stem)) for path in files]


def _performer(name: str) -> str:
    match = re.fullmatch(r"[a-z]+_0*(\d+)_\d+", name)
    return match[1] if match else UNKNOWN_PERFORMER


def _load_motion(path: Path, performer: str) -> Motion:
    data = load_arrays(path, "motion file", ("poses", "trans", "fps"))
    try:
        poses, trans = data["poses"].astype(np.float32), data["trans"].astype(np.float32)
        fps = float(data["fps"])
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}: not a motion file (npz with poses, trans, fps): {error}") from error
    if poses.shape[1:] != (72,) or trans.shape != (len(poses), 3) or not 1 <= fps <= 10_000:
        raise UserError(
            f"{path}: poses {poses.shape}, trans {trans.shape}, fps {fps}; expected (T,72), (T,3) and 1"
            " to 10000 fps"
        )
    if not (np.isfinite(poses).all() and np.isfinite(trans).all()):
        raise UserError(f"{path}: poses or trans hold NaN or infinite numbers")
    if path.stem.startswith("keijiro_"):  # these begin and end in a T-pose
        poses, trans = poses[TRIM_T_POSE:-TRIM_T_POSE], trans[TRIM_T_POSE:-TRIM_T_POSE]
    if len(poses) - 1 <= fps / FPS:
        raise UserError(f"{path}: too short, expected at least two frames at {FPS:.0f} fps")
    rotmat = axis_angle_to_rotmat(torch.from_numpy(poses).view(-1, 24, 3))
    moved = torch.from_numpy(trans)
    if fps != FPS:
        rotmat, moved = resample(rotmat, moved, np.arange(0, len(poses) - 1, fps / FPS))
    return Motion(path.stem, performer, rotmat, moved)


def resample(
    rotmat: torch.Tensor, trans: torch.Tensor, times: np.ndarray
) -> tuple[torch.Tensor, torch.Tensor]:
    """Values at fractional frame ``times`` (K,): linear blend of neighbours, projected back to rotations."""
    left = np.clip(times.astype(int), 0, len(rotmat) - 2)
    weight = torch.as_tensor(times - left, dtype=torch.float32)
    blend = torch.lerp(rotmat[left], rotmat[left + 1], weight[:, None, None, None])
    return orthonormalise(blend), torch.lerp(trans[left], trans[left + 1], weight[:, None])


def orthonormalise(matrix: torch.Tensor) -> torch.Tensor:
    """Nearest-by-Gram-Schmidt rotations of (..., 3, 3) matrices (first two columns are kept)."""
    first = torch.nn.functional.normalize(matrix[..., 0], dim=-1)
    second = matrix[..., 1] - (first * matrix[..., 1]).sum(-1, keepdim=True) * first
    second = torch.nn.functional.normalize(second, dim=-1)
    return torch.stack([first, second, torch.linalg.cross(first, second)], -1)


def mirror(rotmat: torch.Tensor, trans: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The motion seen in a mirror: left and right swapped."""
    sign = torch.tensor([-1.0, 1.0, 1.0])
    return (rotmat * sign[:, None] * sign)[..., SMPL_FLIP, :, :], trans * sign


def open_motions(folder: str | Path) -> dict[str, list[Motion]]:
    """The ``train``, ``val`` and ``test`` motions of the open weights, split by performer.

    Clips of unknown performers train; the held-out performers were chosen so that those clips cannot be
    theirs. Without a folder: procedural motions.
    """
    if not folder:
        return {
            "train": procedural_motions(160, seed=1),
            "val": procedural_motions(6, seed=2),
            "test": procedural_motions(6, seed=3),
        }
    split: dict[str, list[Motion]] = {"train": [], "val": [], "test": []}
    for motion in load_motions(folder):
        number = motion.performer
        split["test" if number in TEST_PERFORMERS else "val" if number in VAL_PERFORMERS else "train"].append(
            motion
        )
    return split


class MotionSampler:
    """Draws augmented clips: balanced over performers and clips, warped in time, reversed, mirrored, with
    upper and lower bodies recombined and small constant joint offsets."""

    def __init__(self, motions: list[Motion], rng: np.random.Generator) -> None:
        if not motions:
            raise UserError("no motions to sample from: this split is empty; change the held-out performers")
        self.motions, self.rng = motions, rng
        frames = np.array([min(len(m.rotmat), 600) for m in motions], float) ** 0.75
        total = {p: frames[[m.performer == p for m in motions]].sum() for p in {m.performer for m in motions}}
        weight = frames / np.array([total[m.performer] for m in motions]) ** 0.5
        self.weight = weight / weight.sum()

    def _clip(self, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        motion = self.motions[self.rng.choice(len(self.motions), p=self.weight)]
        speed = 0.02 if self.rng.random() < 0.04 else np.exp(self.rng.uniform(np.log(0.4), np.log(1.6)))
        speed = min(speed, (len(motion.rotmat) - 1.01) / max(length - 1, 1))
        start = self.rng.uniform(0, len(motion.rotmat) - 1 - speed * (length - 1))
        times = start + speed * np.arange(length)
        if self.rng.random() < 0.3:
            times = times[::-1].copy()
        rotmat, trans = resample(motion.rotmat, motion.trans, times)
        return mirror(rotmat, trans) if self.rng.random() < 0.5 else (rotmat, trans)

    def sample(self, clips: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        """``clips`` clips of ``length`` frames: rotmat (B, T, 24, 3, 3), trans (B, T, 3)."""
        drawn = [self._clip(length) for _ in range(clips)]
        rotmat, trans = torch.stack([r for r, _ in drawn]), torch.stack([t for _, t in drawn])
        mixed = clips // 3
        other = torch.stack([self._clip(length)[0] for _ in range(mixed)]) if mixed else rotmat[:0]
        rotmat[:mixed, :, UPPER_BODY] = other[:, :, UPPER_BODY]
        spread = torch.as_tensor(self.rng.random((clips, 1, 1, 1)), dtype=torch.float32)
        offset = torch.as_tensor(self.rng.normal(0, 0.1, (clips, 1, 24, 3)), dtype=torch.float32) * spread
        offset[:, :, 0] = 0
        return axis_angle_to_rotmat(offset) @ rotmat, trans


def procedural_motions(count: int, seed: int, length: int = 240) -> list[Motion]:
    """Motions without any captured data: gaits, squats, arm gestures, turns and smooth random poses.

    They let every command run where no motion capture is at hand; they are no substitute for it.
    """
    rng = np.random.default_rng(seed)
    return [_procedural_motion(f"procedural_{seed}_{i:03d}", rng, length) for i in range(count)]


def _smooth_noise(rng: np.random.Generator, length: int, size: int, period: float) -> np.ndarray:
    """(length, size) sums of a few slow sinusoids, unit variance."""
    time = np.arange(length)[:, None]
    total = np.zeros((length, size))
    for _ in range(4):
        phase, rate = rng.uniform(0, 2 * np.pi, size), rng.uniform(0.4, 1.6, size) / period
        total += np.sin(2 * np.pi * rate * time + phase)
    return total / np.sqrt(2)


def _procedural_motion(name: str, rng: np.random.Generator, length: int) -> Motion:
    pose, trans = np.zeros((length, 24, 3)), np.zeros((length, 3))
    phase = 2 * np.pi * np.arange(length) * rng.uniform(0.5, 1.6) / FPS + rng.uniform(0, 6)
    swing = rng.uniform(0.15, 0.75) * (rng.random() < 0.7)
    squat = rng.uniform(0.2, 1.1) * (0.5 - 0.5 * np.cos(phase)) * (rng.random() < 0.35)
    for leg, side in ((1, 1), (2, -1)):
        pose[:, leg, 0] = -side * swing * np.sin(phase) - 1.1 * squat
        pose[:, leg + 3, 0] = np.maximum(0, swing * (1 + side * np.cos(phase))) + 2.0 * squat
        pose[:, leg + 6, 0] = -0.9 * squat
    rest, raise_ = rng.uniform(0.7, 1.3), rng.uniform(0, 2.2, 2) * (rng.random(2) < 0.5)
    for arm, side, up in ((16, 1, raise_[0]), (17, -1, raise_[1])):
        pose[:, arm, 2] = -side * (rest - up * (0.5 - 0.5 * np.cos(0.5 * phase)))
        pose[:, arm, 1] = swing * np.sin(phase)
        pose[:, arm + 2, 1] = -side * (0.3 + rng.uniform(0, 1.2) * (0.5 + 0.5 * np.sin(phase)))
    scale = np.full((24, 3), 0.08)
    scale[[16, 17, 18, 19]] = rng.uniform(0.1, 0.45)
    scale[[1, 2]] = rng.uniform(0.05, 0.2)
    scale[0] = 0.05
    pose += _smooth_noise(rng, length, 72, 45).reshape(length, 24, 3) * scale
    pose[:, [4, 5], 0] = np.maximum(pose[:, [4, 5], 0], 0)
    heading = rng.uniform(0, 2 * np.pi) + _smooth_noise(rng, length, 1, 90)[:, 0] * rng.uniform(0, 0.8)
    rotmat = axis_angle_to_rotmat(torch.as_tensor(pose, dtype=torch.float32))
    turn = np.zeros((length, 3))
    turn[:, 1] = heading
    rotmat[:, 0] = axis_angle_to_rotmat(torch.as_tensor(turn, dtype=torch.float32)) @ rotmat[:, 0]
    speed = 1.2 * swing / FPS
    trans[:, 0], trans[:, 2] = np.cumsum(np.sin(heading)) * speed, np.cumsum(np.cos(heading)) * speed
    trans[:, 1] = 1.1 - 0.45 * squat
    return Motion(
        name, f"procedural{name.rsplit('_', 1)[1]}", rotmat, torch.as_tensor(trans, dtype=torch.float32)
    )

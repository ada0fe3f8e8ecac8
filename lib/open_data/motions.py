"""Motion clips in SMPL's 24-joint convention: read from a folder, generated, split by performer, sampled.

:mod:`lib.open_data.motion_files` reads files; a folder may mix all kinds.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from ..utils.errors import UserError, shown
from ..utils.files import load_checkpoint
from ..utils.geometry import (
    axis_angle_to_quat,
    axis_angle_to_rotmat,
    quat_multiply,
    quat_to_axis_angle,
    quat_to_rotmat,
    rotmat_to_axis_angle,
    rotmat_to_quat,
)
from ..utils.joint_limits import HINGES, flexion_axes
from ..utils.keypoints import SMPL_FLIP
from .draws import Draws
from .motion_files import UNKNOWN_PERFORMER, Entry, motion_files, performer_of, read_indices, read_motion

FPS = 30.0
UPPER_BODY = list(range(12, 24))
_LIMBS = ([1, 4, 7, 10], [2, 5, 8, 11], [3, 6, 9], [12, 15], [13, 16, 18, 20, 22], [14, 17, 19, 21, 23])
# Standard deviations (rad) of large constant turns of the 24 joints.
_WIDE = [0.0, 0.5, 0.5, 0.2, 0.5, 0.5, 0.15, 0.25, 0.25, 0.15, 0.1, 0.1]
_WIDE += [0.15, 0.15, 0.15, 0.25, 0.6, 0.6, 0.5, 0.5, 0.3, 0.3, 0.0, 0.0]
TEST_PERFORMERS = ("1", "94", "135")
"""CMU subjects of every split: playground, dance, martial arts."""
VAL_PERFORMERS = {"1": ("26", "32", "127"), "2": ("3", "26", "32", "49", "118", "127")}
"""CMU subjects for validation, by the split's name. 1 is that of the shipped weights: walking, and one who
runs, jumps and rolls. 2 has uneven ground (3), dance, acrobatics, exercise (49) and jumps (118), too, of
performers that the shipped weights were trained on."""
SHIPPED_SPLIT, NEWEST_SPLIT = "1", "2"
_HASHED = {"test": 0.1, "val": 0.2}  # of performers who are not CMU's: up to which share of hashes
TRIM_T_POSE = 20


@dataclass(frozen=True)
class Motion:
    """One clip at 30 fps: poses, trans in metres with y up; what is done, if it is known; the split that an
    index assigns it to, or ""."""

    name: str
    performer: str
    rotmat: Float[Tensor, "t 24 3 3"]
    trans: Float[Tensor, "t 3"]
    description: str = ""
    assigned: str = ""


def load_motions(folder: str | Path) -> list[Motion]:
    """Read every motion file below ``folder``, resampled to 30 fps.

    Raises:
        UserError: no file there, or one that :func:`~lib.open_data.motion_files.read_motion` refuses or that
            is shorter than two frames.
    """
    files = motion_files(folder)
    if not files:
        raise UserError(f"{folder}: no motion files (*.npz, *.bvh) found; see data/README.md")
    index = read_indices(folder)
    return [
        _load_motion(path, index.get(path, Entry()), Path(folder))
        for path in tqdm(files, desc="motions", unit="file", delay=2)
    ]


def _load_motion(path: Path, told: Entry, folder: Path) -> Motion:
    rotmat, trans, fps = read_motion(path)
    if path.stem.startswith("keijiro_"):  # these begin and end in a T-pose
        rotmat, trans = rotmat[TRIM_T_POSE:-TRIM_T_POSE], trans[TRIM_T_POSE:-TRIM_T_POSE]
    if len(rotmat) - 1 <= fps / FPS:
        raise UserError(f"{path}: too short, expected at least two frames at {FPS:.0f} fps")
    if fps != FPS:
        rotmat, trans = resample(rotmat, trans, np.arange(0, len(rotmat) - 1, fps / FPS))
    performer = told.performer or performer_of(path.relative_to(folder))
    return Motion(path.stem, performer, rotmat, trans, told.description, told.split)


def resample(
    rotmat: Float[Tensor, "t 24 3 3"], trans: Float[Tensor, "t 3"], times: Float[np.ndarray, " k"]
) -> tuple[Float[Tensor, "k 24 3 3"], Float[Tensor, "k 3"]]:
    """Values at fractional frame ``times``: neighbours joined by the shortest turn (slerp), a line."""
    left = np.clip(times.astype(int), 0, len(rotmat) - 2)
    weight = torch.as_tensor(times - left, dtype=torch.float32)
    turn = rotmat_to_axis_angle(rotmat[left].mT @ rotmat[left + 1])
    between = rotmat[left] @ axis_angle_to_rotmat(weight[:, None, None] * turn)
    return between, torch.lerp(trans[left], trans[left + 1], weight[:, None])


def split_of(motion: Motion, split: str = SHIPPED_SPLIT) -> str:
    """``train``, ``val`` or ``test``.

    What an index says counts first. CMU's subjects are listed; unknown performers train; all others go where
    a hash of their name says, so that more motions never move anybody.
    """
    who = motion.performer
    if motion.assigned:
        return motion.assigned
    if who in TEST_PERFORMERS:
        return "test"
    if who in VAL_PERFORMERS[split]:
        return "val"
    if who == UNKNOWN_PERFORMER or who.isdecimal():
        return "train"
    share = int.from_bytes(hashlib.sha256(who.encode()).digest()[:4], "big") / 2**32
    return next((name for name, up_to in _HASHED.items() if share < up_to), "train")


def trained_split(network: str | Path) -> str:
    """The name of the split whose ``train`` performers a landmark network learned from.

    What is built on a network has to hold out the same performers. Networks that do not tell have the shipped
    one's.
    """
    split = load_checkpoint(network).get("split", SHIPPED_SPLIT)
    if split not in VAL_PERFORMERS:
        raise UserError(f"{network}: split {shown(split)!r}, expected one of {', '.join(VAL_PERFORMERS)}")
    return str(split)


def open_motions(folder: str | Path, split: str = SHIPPED_SPLIT) -> dict[str, list[Motion]]:
    """The ``train``, ``val`` and ``test`` motions of a named split by performer, see :func:`split_of`.

    Without a folder: procedural motions.

    Raises:
        UserError: as :func:`load_motions`, and where an index assigns a performer to two splits.
    """
    if not folder:
        return {
            "train": procedural_motions(160, seed=1),
            "val": procedural_motions(6, seed=2),
            "test": procedural_motions(6, seed=3),
        }
    motions: dict[str, list[Motion]] = {"train": [], "val": [], "test": []}
    where: dict[str, str] = {}
    for motion in load_motions(folder):
        own = split_of(motion, split)
        if motion.performer and where.setdefault(motion.performer, own) != own:
            raise UserError(
                f"{folder}: performer {shown(motion.performer)} is in {own} and in {where[motion.performer]} "
                "by index.csv; give each one split"
            )
        motions[own].append(motion)
    return motions


@dataclass(frozen=True)
class Augmentation:
    """How far clips are changed: shares of clips unless a unit is given.

    ``mixed``: upper body of another clip; ``limbs``: each limb, by chance, of another clip; ``offset``: rad,
    standard deviation of small constant joint turns; ``wide``: large ones, to :data:`_WIDE`; ``seated``:
    hips and knees bent far, as on a chair, on the floor, crawling; ``tilted``: the whole body turned over, up
    to upside down; ``shape``, ``wide_shape``: standard deviation of betas, ordinary and of a fifth of the
    clips.
    """

    mixed: float = 1 / 3
    limbs: float = 0.2
    offset: float = 0.1
    wide: float = 0.3
    seated: float = 0.08
    tilted: float = 0.15
    shape: float = 1.0
    wide_shape: float = 2.0


USUAL = Augmentation()
UNCHANGED = Augmentation(mixed=0, limbs=0, offset=0, wide=0, seated=0, tilted=0, shape=0.8, wide_shape=0.8)
"""Clips as they were recorded, only warped in time, reversed and mirrored."""


class MotionSampler(Draws):
    """Draws augmented clips of motions, all on one device.

    Clips are balanced over performers, warped in time, reversed and mirrored; bodies are recombined from
    several clips, and turned and bent into poses that nobody recorded, within the limits of knees and elbows.

    Args:
        motions: what clips are drawn from.
        generator: of all random numbers; its device is the sampler's.
    """

    def __init__(
        self,
        motions: list[Motion],
        generator: torch.Generator,
        augmentation: Augmentation = USUAL,
    ) -> None:
        if not motions:
            raise UserError("no motions to sample from: this split is empty; change the held-out performers")
        super().__init__(generator)
        self.augmentation, device = augmentation, self.device
        lengths = torch.tensor([len(m.rotmat) for m in motions])
        self._lengths = lengths.to(device)
        self._starts = (lengths.cumsum(0) - lengths).to(device)
        self._quat = torch.cat([_continuous(rotmat_to_quat(m.rotmat)) for m in motions]).to(device)
        self._trans = torch.cat([m.trans for m in motions]).to(device)
        frames = lengths.clamp(max=600).double() ** 0.75
        performers = sorted({m.performer for m in motions})
        who = torch.tensor([performers.index(m.performer) for m in motions])
        total = torch.zeros(len(performers), dtype=torch.double).index_add_(0, who, frames)
        self._weight = (frames / total[who] ** 0.5).float().to(device)
        self._mirrored = torch.tensor(SMPL_FLIP, device=device)
        self._limit_axes = flexion_axes(self._trans)

    def sample(self, clips: int, length: int) -> tuple[Float[Tensor, "n t 24 3 3"], Float[Tensor, "n t 3"]]:
        """``clips`` clips of ``length`` frames: rotmat, trans."""
        quat, trans = self._clips(clips, length)
        quat = self._bend(self._recombine(quat))
        quat, trans = self._tilt(quat, trans)
        return quat_to_rotmat(quat), trans

    def shapes(self, clips: int) -> Float[Tensor, "n 10"]:
        """Shapes to go with clips."""
        chosen = self.augmentation
        spread = torch.where(self._chance(0.2, clips), chosen.wide_shape, chosen.shape)
        return (self._normal(clips, 10) * spread[:, None]).clamp(-4, 4)

    def _clips(self, clips: int, length: int) -> tuple[Float[Tensor, "n t 24 4"], Float[Tensor, "n t 3"]]:
        chosen = torch.multinomial(self._weight, clips, replacement=True, generator=self.generator)
        last = (self._lengths[chosen] - 1).float()
        speed = torch.exp(self._uniform(float(np.log(0.4)), float(np.log(1.6)), clips))
        speed = torch.where(self._chance(0.04, clips), 0.02, speed)
        speed = torch.minimum(speed, (last - 0.01) / max(length - 1, 1))
        start = self._uniform(0, 1, clips) * (last - speed * (length - 1))
        frame = torch.arange(length, device=self.device)
        backwards = self._chance(0.3, clips)[:, None]
        times = start[:, None] + speed[:, None] * torch.where(backwards, length - 1 - frame, frame)
        times = torch.minimum(times.clamp(min=0), last[:, None])
        left = torch.minimum(times.floor(), last[:, None] - 1)
        rows, weight = self._starts[chosen, None] + left.long(), (times - left)[..., None]
        trans = torch.lerp(self._trans[rows], self._trans[rows + 1], weight)
        quat = torch.lerp(self._quat[rows], self._quat[rows + 1], weight[..., None])
        swap = self._chance(0.5, clips)[:, None, None]
        mirrored = quat[:, :, self._mirrored] * quat.new_tensor([1.0, 1.0, -1.0, -1.0])
        return (
            torch.where(swap[..., None], mirrored, quat),
            torch.where(swap, trans * trans.new_tensor([-1.0, 1.0, 1.0]), trans),
        )

    def _recombine(self, quat: Float[Tensor, "n t 24 4"]) -> Float[Tensor, "n t 24 4"]:
        """Upper bodies, or single limbs, from other clips of the batch."""
        clips = len(quat)
        result = quat.clone()
        upper = self._chance(self.augmentation.mixed, clips)
        loose = self._chance(self.augmentation.limbs, clips)
        for number, limb in enumerate(_LIMBS, start=1):
            taken = loose & self._chance(0.5, clips)
            if limb[0] in UPPER_BODY:
                taken |= upper & ~loose
            # The same donor for a whole upper body, another one for each loose limb.
            donor = torch.where(loose, number, 1)
            other = (torch.arange(clips, device=self.device) + donor) % clips
            rows = taken.nonzero()[:, 0]
            index = torch.tensor(limb, device=self.device)
            result[rows[:, None], :, index] = quat[other[rows][:, None], :, index]
        return result

    def _bend(self, quat: Float[Tensor, "n t 24 4"]) -> Float[Tensor, "n t 24 4"]:
        """Constant turns of the joints of a clip, then knees and elbows back within their limits."""
        clips, chosen = len(quat), self.augmentation
        spread = chosen.offset * self._uniform(0, 1, clips, 1, 1)
        wide = torch.tensor(_WIDE, device=self.device)[:, None] * self._uniform(0.2, 1, clips, 1, 1)
        spread = torch.where(self._chance(chosen.wide, clips)[:, None, None], wide, spread)
        offset = self._normal(clips, 24, 3) * spread
        seated = self._chance(chosen.seated, clips)[:, None]
        both = self._uniform(0, 1, clips, 1) + 0.25 * self._normal(clips, 2)
        offset[:, 1:3, 0] -= seated * 2.0 * both.clamp(0, 1.2)
        offset[:, 4:6, 0] += seated * 2.0 * (self._uniform(0, 1, clips, 1) + 0.25 * self._normal(clips, 2))
        offset[:, 0] = 0
        turned = quat_multiply(axis_angle_to_quat(offset)[:, None], quat)
        axis_angle = quat_to_axis_angle(turned[:, :, HINGES])
        flexion = (axis_angle * self._limit_axes).sum(-1, keepdim=True)
        axis_angle = axis_angle + (flexion.clamp(-0.15, 2.6) - flexion) * self._limit_axes
        turned[:, :, HINGES] = axis_angle_to_quat(axis_angle)
        return turned

    def _tilt(
        self, quat: Float[Tensor, "n t 24 4"], trans: Float[Tensor, "n t 3"]
    ) -> tuple[Float[Tensor, "n t 24 4"], Float[Tensor, "n t 3"]]:
        """Some bodies lie, hang or stand on their heads."""
        clips = len(quat)
        axis = self._normal(clips, 3)
        axis[:, 1] = 0
        axis = torch.nn.functional.normalize(axis, dim=-1)
        angle = self._uniform(0, float(np.pi), clips) * self._chance(self.augmentation.tilted, clips)
        turn = axis_angle_to_quat(axis * angle[:, None])[:, None]
        quat[:, :, 0] = quat_multiply(turn, quat[:, :, 0])
        return quat, (quat_to_rotmat(turn) @ trans[..., None])[..., 0]


def _continuous(quat: Float[Tensor, "t j 4"]) -> Float[Tensor, "t j 4"]:
    """Quaternions of one motion with the signs that make neighbours alike."""
    turned = (quat[1:] * quat[:-1]).sum(-1, keepdim=True).sign()
    turned = torch.where(turned == 0, torch.ones_like(turned), turned)
    return torch.cat((quat[:1], quat[1:] * turned.cumprod(0)))


def procedural_motions(count: int, seed: int, length: int = 240) -> list[Motion]:
    """Motions without any captured data: gaits, squats, arm gestures, turns and smooth random poses.

    They let every command run where no motion capture is at hand; they are no substitute for it.
    """
    rng = np.random.default_rng(seed)
    return [_procedural_motion(f"procedural_{seed}_{i:03d}", rng, length) for i in range(count)]


def _smooth_noise(
    rng: np.random.Generator, length: int, size: int, period: float
) -> Float[np.ndarray, "{length} {size}"]:
    """Sums of a few slow sinusoids, unit variance."""
    time = np.arange(length)[:, None]
    total = np.zeros((length, size))
    for _ in range(4):
        phase, rate = rng.uniform(0, 2 * np.pi, size), rng.uniform(0.4, 1.6, size) / period
        total += np.sin(2 * np.pi * rate * time + phase)
    return total / math.sqrt(2)


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

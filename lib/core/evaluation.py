"""Errors of videos, and their means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Shaped

from ..utils import metrics
from .evaluation_set import EvalSequence
from .protocol import ROOT_JOINTS, Protocol

MM = 1000.0
METRICS = ("mpjpe", "mpjpe_pa", "accel_err", "accel", "mpvpe", "mpvpe_root_aligned")


@dataclass(frozen=True)
class Bodies:
    """What it takes to draw the predictions of one video. n frames."""

    theta: Float[np.ndarray, "n 85"]  # camera, pose, shape
    rotmat: Float[np.ndarray, "n 24 3 3"]  # smoothed if that was asked for
    images: Shaped[np.ndarray, " n"]
    boxes: Float[np.ndarray, "n 4"]  # cx, cy, w, h in pixels, unscaled


@dataclass(frozen=True)
class SequenceErrors:
    """Errors of one video: one value per counted frame (m) or counted inner frame (m / frame^2)."""

    name: str
    pred: Float[np.ndarray, "n j 3"]  # about the root, every frame
    target: Float[np.ndarray, "n j 3"]
    counted: Bool[np.ndarray, " n"]
    mpjpe: np.ndarray
    mpjpe_pa: np.ndarray
    accel: np.ndarray
    accel_err: np.ndarray
    mpvpe: np.ndarray | None
    mpvpe_root_aligned: np.ndarray | None  # each mesh about the middle of its own hips
    left_out: int  # frames marked invalid: removed, or not counted
    bodies: Bodies | None = None


@dataclass(frozen=True)
class Evaluation:
    """All videos that were measured, and those that were not, with the number of frames and the reason."""

    sequences: list[SequenceErrors]
    skipped: list[tuple[str, int, str]]
    protocol: Protocol
    accel_across_videos: bool = False

    def summary(self) -> dict[str, float]:
        """Means over all frames: those of :data:`METRICS` that were measured, in mm and mm / frame^2."""
        values = _joined(self.sequences)
        if self.accel_across_videos:
            pred = np.concatenate([s.pred for s in self.sequences])
            target = np.concatenate([s.target for s in self.sequences])
            values |= {"accel_err": metrics.accel_error(pred, target), "accel": metrics.accel(pred)}
        return {key: mean_mm(value) for key, value in values.items()}

    def with_accel_across_videos(self) -> Evaluation:
        """The same with the accelerations of all videos joined into one, as the original validates."""
        return replace(self, accel_across_videos=True)

    @property
    def num_poses(self) -> int:
        """Frames counted."""
        return sum(len(s.mpjpe) for s in self.sequences)


def _joined(sequences: Sequence[SequenceErrors]) -> dict[str, np.ndarray]:
    """Those of :data:`METRICS` that were measured, of all sequences one after the other."""
    present = [key for key in METRICS if all(getattr(s, key) is not None for s in sequences)]
    return {key: np.concatenate([getattr(s, key) for s in sequences]) for key in present}


def mean_errors(sequences: Sequence[SequenceErrors]) -> dict[str, float]:
    """Means over all frames of :data:`METRICS`, in mm and mm / frame^2."""
    return {key: mean_mm(value) for key, value in _joined(sequences).items()}


def mean_mm(values: np.ndarray) -> float:
    """Mean in mm of lengths in metres that are not NaN; NaN for none."""
    values = values[~np.isnan(values)]
    return float(values.mean() * MM) if len(values) else float("nan")


def compare(
    sequence: EvalSequence,
    joints: Float[np.ndarray, "n j 3"],
    true_joints: Float[np.ndarray, "n j 3"],
    convention: str,
) -> SequenceErrors:
    """Errors of joints in metres, of a convention of :data:`ROOT_JOINTS`: about the root, frame by
    frame, where the sequence's frames count. Without vertices."""
    root, counted = ROOT_JOINTS[convention], sequence.counted

    def centred(points: np.ndarray) -> np.ndarray:
        points = np.asarray(points, np.float64)
        about: np.ndarray = points - points[:, root].mean(axis=1, keepdims=True)
        return about

    pred, target = centred(joints), centred(true_joints)
    return SequenceErrors(
        sequence.name,
        pred,
        target,
        counted,
        mpjpe=metrics.mpjpe(pred[counted], target[counted]),
        mpjpe_pa=metrics.pa_mpjpe(pred[counted], target[counted]),
        accel=metrics.accel(pred)[counted[1:-1]],
        accel_err=metrics.accel_error(pred, target)[counted[1:-1]],
        mpvpe=None,
        mpvpe_root_aligned=None,
        left_out=sequence.removed + int((~counted).sum()),
    )

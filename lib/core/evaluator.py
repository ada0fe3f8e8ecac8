"""Measure a model on a database: the protocol of ``evaluate.py`` and of the validation during training."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from tqdm import tqdm
from yacs.config import CfgNode

from lib.dataset.database import open_database
from lib.dataset.datasets import DatasetSpec, check_shape, database_path
from lib.dataset.windows import VIBE_MULTIPLE
from lib.models.body import BodyData
from lib.models.predict import predict_sequence
from lib.models.smpl import SMPL
from lib.models.tcmr import TCMR
from lib.utils import metrics
from lib.utils.errors import UserError
from lib.utils.keypoints import JOINT_NAMES, convert_kps
from lib.utils.smoothing import slerp_filter

ROOT_JOINTS = {"common": [2, 3], "mpii3d_test": [14]}  # their mean is the root that joints are compared about
MM = 1000.0
_CHUNK = 128  # frames whose vertices are computed at once


@dataclass(frozen=True)
class EvalSequence:
    """One video to measure. n frames in time order."""

    name: str
    features: np.ndarray  # (n, F)
    joints: np.ndarray  # (n, J, 3) metres, in the dataset's evaluation convention
    counted: np.ndarray  # (n,) bool: frames whose errors count
    pose: np.ndarray | None  # (n, 72) axis-angle
    shape: np.ndarray | None  # (n, 10)
    removed: int  # frames of the video that are marked invalid and not among the n


@dataclass(frozen=True)
class SequenceErrors:
    """Errors of one video: one value per counted frame (m) or counted inner frame (m / frame^2)."""

    name: str
    pred: np.ndarray  # (n, J, 3) about the root, every frame
    target: np.ndarray  # (n, J, 3)
    mpjpe: np.ndarray
    mpjpe_pa: np.ndarray
    accel: np.ndarray
    accel_err: np.ndarray
    mpvpe: np.ndarray | None
    left_out: int  # frames marked invalid: removed, or not counted


@dataclass(frozen=True)
class Evaluation:
    """All videos that were measured, and those that were not, with the number of frames and the reason."""

    sequences: list[SequenceErrors]
    skipped: list[tuple[str, int, str]]
    accel_across_videos: bool = False

    def summary(self) -> dict[str, float]:
        """Means over all frames: ``mpjpe, mpjpe_pa, accel_err, accel[, mpvpe]`` in mm and mm / frame^2."""
        values = {key: _pool(self.sequences, key) for key in ("mpjpe", "mpjpe_pa", "accel_err", "accel")}
        if self.accel_across_videos:
            pred = np.concatenate([s.pred for s in self.sequences])
            target = np.concatenate([s.target for s in self.sequences])
            values |= {"accel_err": metrics.accel_error(pred, target), "accel": metrics.accel(pred)}
        if all(s.mpvpe is not None for s in self.sequences):
            values["mpvpe"] = _pool(self.sequences, "mpvpe")
        return {key: mean_mm(value) for key, value in values.items()}

    def with_accel_across_videos(self) -> Evaluation:
        """The same with the accelerations of all videos joined into one, as the original validates."""
        return replace(self, accel_across_videos=True)

    @property
    def num_poses(self) -> int:
        """Frames counted."""
        return sum(len(s.mpjpe) for s in self.sequences)


def mean_mm(values: np.ndarray) -> float:
    """Mean of lengths in metres, in mm; NaN for none."""
    return float(values.mean() * MM) if len(values) else float("nan")


def _pool(sequences: list[SequenceErrors], key: str) -> np.ndarray:
    return np.concatenate([getattr(s, key) for s in sequences])


class EvaluationSet:
    """The videos of a database split, sorted by name.

    Frames marked invalid in ``valid`` are removed, and the rest is taken as contiguous; ``valid_i`` only says
    which frames count. In validation (``validation=True``) the COMPAT keys can restore what the original does
    there: videos cut to multiples of 16 frames, invalid frames kept, targets rounded to half precision.

    Args:
        name_part: only videos whose name contains it.

    Raises:
        UserError: the dataset cannot be evaluated, its database is missing or does not fit, or no video
            matches.
    """

    def __init__(
        self, spec: DatasetSpec, split: str, cfg: CfgNode, *, name_part: str = "", validation: bool = False
    ) -> None:
        if not spec.eval_joints:
            raise UserError(
                f"dataset {spec.name} has no 3D to evaluate: use ThreeDPW, MPII3D, Human36M or Open"
            )
        self.spec, self.path = spec, database_path(spec, split, cfg)
        fields = ["vid_name", "features", "joints3D"] + (["pose", "shape"] if spec.eval_mesh else [])
        self._database = open_database(self.path, fields, optional=["valid", "valid_i"])
        check_shape(self.path, self._database, "features", (cfg.MODEL.FEATURE_SIZE,))
        self._as_original = validation and cfg.COMPAT.VALIDATION
        self._float16 = validation and cfg.COMPAT.FLOAT16_TARGETS
        names = np.asarray(self._database["vid_name"])
        self.names = [str(name) for name in np.unique(names) if name_part in str(name)]
        if not self.names:
            raise UserError(f"no sequence of {self.path} has {name_part!r} in its name")
        order = np.argsort(names, kind="stable")
        self._rows = {str(names[rows[0]]): rows for rows in _runs(names, order)}

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[EvalSequence]:
        return (self._load(name) for name in self.names)

    def _load(self, name: str) -> EvalSequence:
        database, rows = self._database, self._rows[name]
        total = len(rows)
        if self._as_original:
            rows = rows[: len(rows) // VIBE_MULTIPLE * VIBE_MULTIPLE]
        elif "valid" in database:
            rows = rows[np.asarray(database["valid"])[rows].astype(bool)]
        counted = np.ones(len(rows), bool)
        if "valid_i" in database:
            counted = np.asarray(database["valid_i"]).reshape(len(database["vid_name"]), -1)[rows, 0] != 0
        pose, shape = (
            (self._target(database[key][rows]) if self.spec.eval_mesh else None) for key in ("pose", "shape")
        )
        removed = 0 if self._as_original else total - len(rows)
        return EvalSequence(
            name, database["features"][rows], self._joints(rows), counted, pose, shape, removed
        )

    def _joints(self, rows: np.ndarray) -> np.ndarray:
        joints, convention = self._database["joints3D"][rows], self.spec.eval_joints
        if joints.shape[1] == len(JOINT_NAMES["spin"]):
            joints = convert_kps(joints, "spin", convention)
        elif joints.shape[1] != len(JOINT_NAMES[convention]):
            raise UserError(
                f"database {self.path}: joints3D has {joints.shape[1]} joints, "
                f"expected 49 or the {len(JOINT_NAMES[convention])} of {convention}"
            )
        return self._target(joints)

    def _target(self, values: np.ndarray) -> np.ndarray:
        return values.astype(np.float16).astype(np.float32) if self._float16 else values


def _runs(names: np.ndarray, order: np.ndarray) -> list[np.ndarray]:
    ordered = names[order]
    return np.split(order, np.flatnonzero(ordered[1:] != ordered[:-1]) + 1)


def evaluate(
    model: TCMR,
    data: EvaluationSet,
    body: BodyData,
    *,
    static_borders: bool = True,
    smooth: bool = False,
    progress: bool = False,
) -> Evaluation:
    """Predict every video and compare it with its ground truth, frame by frame.

    Args:
        model: in evaluation mode, on the device to use.
        static_borders: the published protocol, which needs videos of at least the window length; False
            repeats the border frames and takes any length.
        smooth: filter the predicted rotations over time (:func:`slerp_filter`, weight 0.3).

    Raises:
        UserError: no video can be evaluated.
    """
    regressor = None
    if data.spec.eval_regressor:
        regressor = torch.from_numpy(body.J_regressor_h36m).to(next(model.parameters()).device)
    sequences, skipped = [], []
    shortest = model.seqlen if static_borders else 1
    for sequence in tqdm(data, total=len(data), desc="evaluating", disable=None if progress else True):
        frames = len(sequence.features)
        if frames < shortest:
            reason = f"{frames} valid frames, fewer than {shortest}"
            skipped.append((sequence.name, frames + sequence.removed, reason))
        elif not sequence.counted.any():
            skipped.append((sequence.name, frames + sequence.removed, "no frame is marked valid"))
        else:
            sequences.append(_measure(model, sequence, data.spec, regressor, static_borders, smooth))
    if not sequences:
        reasons = "; ".join(f"{name} ({frames} frames): {reason}" for name, frames, reason in skipped[:3])
        raise UserError(f"no sequence of {data.path} can be evaluated: {reasons}")
    return Evaluation(sequences, skipped)


def _measure(
    model: TCMR,
    sequence: EvalSequence,
    spec: DatasetSpec,
    regressor: torch.Tensor | None,
    static_borders: bool,
    smooth: bool,
) -> SequenceErrors:
    smpl = model.regressor.smpl
    output = predict_sequence(
        model,
        sequence.features,
        J_regressor=regressor,
        return_verts=spec.eval_mesh and not smooth,
        borders="static" if static_borders else "edge",
    )
    joints, verts = output["kp_3d"], output.get("verts")
    if smooth:
        rotmats = slerp_filter(output["rotmat"]).astype(np.float32)
        joints, verts = _pose_body(smpl, output["theta"][:, 75:], rotmats, regressor, spec.eval_mesh)
    if not spec.eval_regressor:
        joints = convert_kps(joints, "spin", spec.eval_joints)
    pred, target = _centre(joints, spec), _centre(sequence.joints, spec)
    counted, inner = sequence.counted, sequence.counted[1:-1]
    mpvpe = None
    if verts is not None:
        assert sequence.pose is not None and sequence.shape is not None
        mpvpe = _vertex_error(smpl, verts[counted], sequence.pose[counted], sequence.shape[counted])
    return SequenceErrors(
        sequence.name,
        pred,
        target,
        mpjpe=metrics.mpjpe(pred[counted], target[counted]),
        mpjpe_pa=metrics.pa_mpjpe(pred[counted], target[counted]),
        accel=metrics.accel(pred)[inner],
        accel_err=metrics.accel_error(pred, target)[inner],
        mpvpe=mpvpe,
        left_out=sequence.removed + int((~counted).sum()),
    )


def _centre(joints: np.ndarray, spec: DatasetSpec) -> np.ndarray:
    joints = np.asarray(joints, np.float64)
    return joints - joints[:, ROOT_JOINTS[spec.eval_joints]].mean(axis=1, keepdims=True)


@torch.inference_mode()
def _pose_body(
    smpl: SMPL, betas: np.ndarray, rotmats: np.ndarray, regressor: torch.Tensor | None, with_verts: bool
) -> tuple[np.ndarray, np.ndarray | None]:
    """Joints (n, 49 | 14, 3) and vertices (n, V, 3) of given shapes (n, 10) and rotations (n, 24, 3, 3)."""
    joints, verts = [], []
    for betas_part, rotmat in _chunks(smpl, betas, rotmats):
        joints.append(smpl.joints(betas_part, rotmat, regressor).cpu().numpy())
        if with_verts:
            output = smpl(betas_part, rotmat[:, 1:], rotmat[:, :1], pose2rot=False)
            verts.append(output.vertices.cpu().numpy())
    return np.concatenate(joints), np.concatenate(verts) if with_verts else None


@torch.inference_mode()
def _vertex_error(smpl: SMPL, verts: np.ndarray, pose: np.ndarray, shape: np.ndarray) -> np.ndarray:
    errors, done = [], 0
    for pose_part, shape_part in _chunks(smpl, pose, shape):
        target = smpl(betas=shape_part, global_orient=pose_part[:, :3], body_pose=pose_part[:, 3:]).vertices
        errors.append(metrics.vertex_error(verts[done : done + len(target)], target.cpu().numpy()))
        done += len(target)
    return np.concatenate(errors)


def _chunks(smpl: SMPL, *arrays: np.ndarray) -> Iterator[list[torch.Tensor]]:
    device = smpl.v_template.device
    for start in range(0, len(arrays[0]), _CHUNK):
        parts = [np.asarray(array[start : start + _CHUNK], np.float32) for array in arrays]
        yield [torch.from_numpy(part).to(device) for part in parts]

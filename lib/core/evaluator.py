"""Measure a model on a database: the protocol of ``evaluate.py`` and of the validation during training."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from tqdm import tqdm
from yacs.config import CfgNode

from ..dataset.database import H5Rows, blocks, open_database
from ..dataset.datasets import DATASETS, DatasetSpec, FrameRate, check_shape, database_path
from ..dataset.windows import VIBE_MULTIPLE
from ..landmarks.flips import repair_flips
from ..models.body import BodyData
from ..models.landmark_body import LandmarkBody
from ..models.precision import Precision
from ..models.predict import TRAINING_FPS, iter_predictions, window_step
from ..models.smpl import SMPL
from ..models.tcmr import TCMR, Borders
from ..motion.fit import fit_track
from ..open_data.simulate import IMAGE_SIZE
from ..utils import metrics
from ..utils.errors import UserError
from ..utils.geometry import rotmat_to_axis_angle
from ..utils.keypoints import H36M_TO_J14, JOINT_NAMES, convert_kps
from ..utils.smoothing import slerp_filter
from .protocol import ROOT_JOINTS, Protocol

MM = 1000.0
GENDERS = {"m": "male", "f": "female", "male": "male", "female": "female"}  # as databases write them
_CHUNK = 128  # frames whose vertices are computed at once


@dataclass(frozen=True)
class EvalSequence:
    """One video to measure. n frames in time order."""

    name: str
    features: np.ndarray  # (n, F)
    joints: np.ndarray  # (n, J, 3) metres, in the dataset's evaluation convention; NaN if unseen
    counted: np.ndarray  # (n,) bool: frames whose errors count
    pose: np.ndarray | None  # (n, 72) axis-angle
    shape: np.ndarray | None  # (n, 10)
    removed: int  # frames of the video that are marked invalid and not among the n
    genders: np.ndarray  # (n,) str: body of the ground truth, neutral, male or female
    images: np.ndarray | None = None  # (n,) str: image files
    boxes: np.ndarray | None = None  # (n, 4) cx, cy, w, h in pixels, unscaled
    landmarks: np.ndarray | None = None  # (n, 33, 6) x, y in pixels, visibility, metric x, y, z

    def reason_to_skip(self, shortest: int) -> str:
        """Why it cannot be measured, given the fewest frames that can be predicted; '' if it can."""
        if len(self.features) < shortest:
            return f"{len(self.features)} valid frames, fewer than {shortest}"
        return "" if self.counted.any() else "no frame is marked valid"


@dataclass(frozen=True)
class Bodies:
    """What it takes to draw the predictions of one video. n frames."""

    theta: np.ndarray  # (n, 85) camera, pose, shape
    rotmat: np.ndarray  # (n, 24, 3, 3), smoothed if that was asked for
    images: np.ndarray  # (n,) str
    boxes: np.ndarray  # (n, 4) cx, cy, w, h in pixels, unscaled


@dataclass(frozen=True)
class SequenceErrors:
    """Errors of one video: one value per counted frame (m) or counted inner frame (m / frame^2)."""

    name: str
    pred: np.ndarray  # (n, J, 3) about the root, every frame
    target: np.ndarray  # (n, J, 3)
    counted: np.ndarray  # (n,) bool
    mpjpe: np.ndarray
    mpjpe_pa: np.ndarray
    accel: np.ndarray
    accel_err: np.ndarray
    mpvpe: np.ndarray | None
    mpvpe_root_aligned: np.ndarray | None  # each mesh about the middle of its own hips
    left_out: int  # frames marked invalid: removed, or not counted
    bodies: Bodies | None = None


METRICS = ("mpjpe", "mpjpe_pa", "accel_err", "accel", "mpvpe", "mpvpe_root_aligned")


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


class EvaluationSet:
    """The videos of a database split, sorted by name.

    Frames marked invalid in ``valid`` are removed, and the rest is taken as contiguous; ``valid_i`` only says
    which frames count. Frames of which not the root, or less than three joints, were seen do not count
    either. In validation (``validation=True``) the COMPAT keys can restore what the original does there:
    videos cut to multiples of 16 frames, invalid frames kept, targets rounded to half precision.

    Args:
        name_part: only videos whose name contains it.
        gendered: read every frame's gender, for ground truth from the male and the female body.
        images: read image names and boxes too, for drawing.
        landmarks: read landmarks and boxes too, for the fit.
        features: False leaves them out, for predictions that were made elsewhere.

    Raises:
        UserError: the dataset cannot be evaluated, or not so, its database is missing or does not fit, or no
            video matches.
    """

    def __init__(
        self,
        spec: DatasetSpec,
        split: str,
        cfg: CfgNode,
        *,
        name_part: str = "",
        validation: bool = False,
        gendered: bool = False,
        images: bool = False,
        landmarks: bool = False,
        features: bool = True,
    ) -> None:
        if not spec.eval_joints:
            raise UserError(
                f"dataset {spec.name} has no 3D to evaluate: use one of "
                + ", ".join(other.name for other in DATASETS.values() if other.eval_joints)
            )
        if gendered and not spec.gendered:
            known = ", ".join(other.key for other in DATASETS.values() if other.gendered)
            raise UserError(
                f"gendered ground truth is a benchmark of {known}, not of {spec.key}: leave it out"
            )
        self.spec, self.split, self.cfg, self.name_part = spec, split, cfg, name_part
        self.gendered, self._images, self._landmarks = gendered, images, landmarks
        self.path = database_path(spec, split, cfg)
        fields = ["vid_name", "joints3D"] + (["pose", "shape"] if spec.eval_mesh else [])
        fields += ["features"] if features else []
        fields += ["img_name"] if images else []
        fields += ["bbox"] if images or landmarks else []
        fields += ["landmarks"] if landmarks else []
        optional = ["valid", "valid_i", "gender", "fps", "fingerprint", "image_width", "image_height"]
        self._database = open_database(self.path, fields, optional)
        if features:
            check_shape(self.path, self._database, "features", (cfg.MODEL.FEATURE_SIZE,))
        if gendered and "gender" not in self._database:
            options = f"--set {split.removesuffix('_all')}" + " --all-frames" * split.endswith("_all")
            raise UserError(
                f"database {self.path} has no field `gender`, which gendered ground truth needs (the "
                f"official databases lack it): make one with `python -m lib.data_utils.threedpw {options}`, "
                "or leave out --gender gendered"
            )
        # zeros are no pose, as in training
        self.has_mesh = spec.eval_mesh and any(pose.any() for _, pose in blocks(self._database["pose"]))
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

    def check(self, static_borders: bool) -> None:
        """Whether a model with windows of DATASET.SEQLEN can be measured on a sequence at all.

        Raises:
            UserError: every sequence would be skipped.
        """
        shortest, reasons = self.shortest(self.cfg.DATASET.SEQLEN, static_borders), []
        for sequence in self:
            reason = sequence.reason_to_skip(shortest)
            if not reason:
                return
            reasons.append((sequence.name, len(sequence.features) + sequence.removed, reason))
        raise self.nothing_left(reasons)

    @staticmethod
    def shortest(seqlen: int, static_borders: bool) -> int:
        """The fewest frames that can be predicted."""
        return seqlen if static_borders else 1

    def nothing_left(self, skipped: list[tuple[str, int, str]]) -> UserError:
        """The error where every sequence was skipped: names, frames and reasons."""
        reasons = "; ".join(f"{name} ({frames} frames): {reason}" for name, frames, reason in skipped[:3])
        return UserError(f"no sequence of {self.path} can be evaluated: {reasons}")

    @property
    def fingerprint(self) -> str:
        """Of the extractor that made the features, '' if unknown."""
        return self._database.fingerprint

    @property
    def image_size(self) -> tuple[int, int]:
        """Width and height, px; of a database that does not say, those of simulated images."""
        width, height = (self._database.get(f"image_{side}", IMAGE_SIZE) for side in ("width", "height"))
        return int(width), int(height)

    @property
    def frame_rate(self) -> FrameRate:
        """The database's own ``fps`` if it has one, else what is known of the dataset."""
        if "fps" not in self._database:
            return self.spec.frame_rate
        rates = np.unique(np.asarray(self._database["fps"], np.float64))
        if len(rates) == 1 and 0 < rates[0] < np.inf:
            return FrameRate(float(rates[0]), "the database's fps")
        return FrameRate(None, "the database's fps is not one positive number")

    def rows(self, name: str) -> np.ndarray:
        """The rows of a video in the database, in time order, valid or not."""
        return self._rows[name]

    def kept(self, name: str) -> np.ndarray:
        """Which of :meth:`rows` are in the sequence, bool."""
        rows = self._rows[name]
        if self._as_original:
            return np.arange(len(rows)) < len(rows) // VIBE_MULTIPLE * VIBE_MULTIPLE
        if "valid" in self._database:
            return np.asarray(self._database["valid"]).reshape(-1)[rows].astype(bool)
        return np.ones(len(rows), bool)

    def _load(self, name: str) -> EvalSequence:
        database, rows = self._database, self._rows[name]
        total = len(rows)
        rows = rows[self.kept(name)]
        counted = np.ones(len(rows), bool)
        if "valid_i" in database:
            counted = np.asarray(database["valid_i"]).reshape(len(database["vid_name"]), -1)[rows, 0] != 0
        pose, shape = (
            (self._target(database[key][rows]) if self.has_mesh else None) for key in ("pose", "shape")
        )
        joints = self._joints(rows)
        seen = ~np.isnan(joints[..., 0])
        root = ROOT_JOINTS[self.spec.eval_joints]
        counted &= seen[:, root].all(axis=1) & (seen.sum(axis=1) >= 3)
        return EvalSequence(
            name,
            _take(database["features"], rows) if "features" in database else np.zeros((len(rows), 0)),
            joints,
            counted,
            pose,
            shape,
            removed=0 if self._as_original else total - len(rows),
            genders=self._genders(rows),
            images=database["img_name"][rows] if self._images else None,
            boxes=np.asarray(database["bbox"][rows], np.float64) if "bbox" in database else None,
            landmarks=np.asarray(database["landmarks"][rows]) if self._landmarks else None,
        )

    def _genders(self, rows: np.ndarray) -> np.ndarray:
        if not self.gendered:
            return np.full(len(rows), "neutral")
        stored = self._database["gender"][rows].astype(str)
        unknown = sorted(set(stored.tolist()) - set(GENDERS))
        if unknown:
            raise UserError(f"database {self.path}: gender is {unknown[0]!r}, expected m, f, male or female")
        return np.array([GENDERS[gender] for gender in stored.tolist()], str)

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


def _take(values: np.ndarray | H5Rows, rows: np.ndarray) -> np.ndarray:
    """``values[rows]``; of a memory-mapped file, consecutive rows stay in the file."""
    if isinstance(values, np.ndarray) and len(rows) and (np.diff(rows) == 1).all():
        return values[rows[0] : rows[-1] + 1]
    return values[rows]


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
    fit: bool = False,
    gendered_bodies: tuple[BodyData, BodyData] | None = None,
    root_align_verts: bool = False,
    precision: Precision = "fp32",
    progress: bool = False,
) -> Evaluation:
    """Predict every video and compare it with its ground truth, frame by frame.

    Args:
        model: in evaluation mode, on the device to use.
        body: the neutral body that the model was built with.
        static_borders: the published protocol, which needs videos of at least the window length; False
            repeats the border frames, takes any length, and steps over frames of videos at high frame rates.
        smooth: filter the predicted rotations over time (:func:`slerp_filter`, weight 0.3).
        fit: move the bodies onto the landmarks of a set with ``landmarks=True`` (:func:`fit_track`).
        gendered_bodies: male and female, for a set with ``gendered=True``: they give the true vertices and,
            by the Human3.6M regressor, the true joints.
        root_align_verts: measure vertices about each mesh's own root, too.
        precision: of the prediction, see :class:`lib.models.inference.PreparedTCMR`.

    Raises:
        UserError: no video can be evaluated, or the device lacks the precision.
    """
    meter = _Meter(
        model, data, body, static_borders, smooth, fit, gendered_bodies, root_align_verts, precision
    )
    sequences, skipped = [], []
    shortest = data.shortest(model.seqlen, static_borders)
    for sequence in tqdm(data, total=len(data), desc="evaluating", disable=None if progress else True):
        if reason := sequence.reason_to_skip(shortest):
            skipped.append((sequence.name, len(sequence.features) + sequence.removed, reason))
        else:
            sequences.append(meter.measure(sequence))
    if not sequences:
        raise data.nothing_left(skipped)
    seen = [(~np.isnan(s.target[s.counted, :, 0])).any(axis=0) for s in sequences]
    protocol = replace(meter.protocol, joints_seen=int(np.any(seen, axis=0).sum()))
    return Evaluation(sequences, skipped, protocol)


def compare(
    sequence: EvalSequence, joints: np.ndarray, true_joints: np.ndarray, convention: str
) -> SequenceErrors:
    """Errors of joints (n, J, 3) metres, of a convention of :data:`ROOT_JOINTS`: about the root, frame by
    frame, where the sequence's frames count. Without vertices."""
    root, counted = ROOT_JOINTS[convention], sequence.counted

    def centred(points: np.ndarray) -> np.ndarray:
        points = np.asarray(points, np.float64)
        return points - points[:, root].mean(axis=1, keepdims=True)

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


class _Meter:
    """Measures one video after the other."""

    def __init__(
        self,
        model: TCMR,
        data: EvaluationSet,
        body: BodyData,
        static_borders: bool,
        smooth: bool,
        fit: bool,
        gendered_bodies: tuple[BodyData, BodyData] | None,
        root_align_verts: bool,
        precision: Precision,
    ) -> None:
        if data.gendered != (gendered_bodies is not None):
            raise ValueError("gendered bodies belong to a gendered set")
        if root_align_verts and not data.has_mesh:
            raise UserError(f"--root_align_verts: {data.spec.key} has no vertices to compare; leave it out")
        self.model = model.prepare(precision)
        self.spec, self.has_mesh, self.smooth = data.spec, data.has_mesh, smooth
        self.image_size = data.image_size
        self.root_align_verts = root_align_verts
        self.borders: Borders = "static" if static_borders else "edge"
        fps = data.frame_rate.fps
        self.step = 1 if fps is None else window_step(fps, self.borders)
        self.smpl: SMPL = model.regressor.smpl
        device = self.smpl.v_template.device
        self.fit_body = LandmarkBody(body).to(device) if fit else None
        self.regressor = torch.from_numpy(body.J_regressor_h36m).to(device)
        self.joint_regressor = self.regressor if data.spec.eval_regressor else None
        self.truths = {"neutral": self.smpl}
        if gendered_bodies is not None:
            self.truths = {truth.gender: SMPL(truth).to(device) for truth in gendered_bodies}
        spec, key = data.spec, f"{data.spec.key}_{data.split}"
        self.protocol = Protocol(
            title=data.cfg.TITLE,
            dataset=spec.key,
            split=data.split,
            database=str(data.path),
            own_database=key in data.cfg.DATASET.FILES,
            part=data.name_part,
            body=body.kind,
            ground_truth="gendered" if data.gendered else "neutral",
            joints=spec.eval_joints,
            joint_count=len(JOINT_NAMES[spec.eval_joints]),
            joints_seen=len(JOINT_NAMES[spec.eval_joints]),
            seqlen=model.seqlen,
            borders=self.borders,
            step=self.step,
            precision=precision,
            smoothed=smooth,
            fitted=fit,
            root_aligned_verts=root_align_verts,
            frames=spec.frames,
            frame_rate=data.frame_rate,
        )

    def measure(self, sequence: EvalSequence) -> SequenceErrors:
        """Predict and compare; at least one frame counts."""
        parts: dict[str, list[np.ndarray]] = defaultdict(list)
        for frames, output in self._predictions(sequence):
            for name in ("kp_3d", "theta", "rotmat"):
                parts[name].append(output[name].cpu().numpy())
            if self.has_mesh:
                for name, values in self._compare_verts(output["verts"], sequence, frames).items():
                    parts[name].append(values)
        whole = {name: np.concatenate(values) for name, values in parts.items()}
        counted = sequence.counted
        joints = whole["kp_3d"]
        if not self.spec.eval_regressor:
            joints = convert_kps(joints, "spin", self.spec.eval_joints)
        true_joints = sequence.joints if "neutral" in self.truths else whole["true_joints"]
        mpvpe, aligned = (
            whole[name][counted] if name in whole else None for name in ("mpvpe", "mpvpe_root_aligned")
        )
        if (bad := np.flatnonzero(~np.isfinite(joints).all(axis=(1, 2)))).size:
            raise UserError(
                f"{sequence.name}: what is predicted for frame {bad[0]} (counted from 0) is no number; try "
                "MODEL.PRECISION fp32 or another checkpoint"
            )
        bodies = None
        if sequence.images is not None and sequence.boxes is not None:
            bodies = Bodies(whole["theta"], whole["rotmat"], sequence.images, sequence.boxes)
        errors = compare(sequence, joints, true_joints, self.spec.eval_joints)
        return replace(errors, mpvpe=mpvpe, mpvpe_root_aligned=aligned, bodies=bodies)

    def _predictions(self, sequence: EvalSequence) -> Iterator[tuple[slice, dict[str, torch.Tensor]]]:
        """Frames and what is predicted for them; all meshes of a long video would not fit in memory."""
        later = self.smooth or self.fit_body is not None
        parts = iter_predictions(
            self.model,
            sequence.features,
            J_regressor=self.joint_regressor,
            return_verts=self.has_mesh and not later,
            borders=self.borders,
            step=self.step,
        )
        if not later:
            yield from parts
            return
        outputs = [output for _, output in parts]
        theta = torch.cat([output["theta"] for output in outputs])
        rotmats = torch.cat([output["rotmat"] for output in outputs]).cpu().numpy()
        if self.fit_body is not None:
            theta, rotmats = self._fitted(sequence, theta, rotmats)
        if self.smooth:
            rotmats = slerp_filter(rotmats)
        for start in range(0, len(theta), _CHUNK):
            frames = slice(start, start + _CHUNK)
            yield frames, self._pose(theta[frames], self._tensor(rotmats[frames]))

    def _fitted(
        self, sequence: EvalSequence, theta: torch.Tensor, rotmats: np.ndarray
    ) -> tuple[torch.Tensor, np.ndarray]:
        """theta (n, 85) and rotations (n, 24, 3, 3) after the fit, unchanged where landmarks are no use."""
        assert self.fit_body is not None and sequence.landmarks is not None and sequence.boxes is not None
        seen = sequence.landmarks
        fitted = fit_track(
            self.fit_body,
            rotmats,
            theta.cpu().numpy(),
            sequence.boxes,
            repair_flips(seen[..., :2], seen[..., 2], seen[..., 3:]),
            width=self.image_size[0],
            height=self.image_size[1],
            fps=self.protocol.frame_rate.fps or TRAINING_FPS,
        )
        if fitted is None:
            return theta, rotmats
        pose = rotmat_to_axis_angle(self._tensor(fitted.rotmat)).flatten(1)
        betas = self._tensor(fitted.betas).expand(len(theta), -1)
        return torch.cat([theta[:, :3], pose, betas], 1), fitted.rotmat

    @torch.inference_mode()
    def _pose(self, theta: torch.Tensor, rotmat: torch.Tensor) -> dict[str, torch.Tensor]:
        """Joints, and vertices if they are compared, of the shapes in ``theta`` with other rotations."""
        betas = theta[:, 75:]
        output = {"theta": theta, "rotmat": rotmat}
        output["kp_3d"] = self.smpl.joints(betas, rotmat, self.joint_regressor)
        if self.has_mesh:
            output["verts"] = self.smpl(betas, rotmat[:, 1:], rotmat[:, :1], pose2rot=False).vertices
        return output

    @torch.inference_mode()
    def _compare_verts(
        self, pred: torch.Tensor, sequence: EvalSequence, frames: slice
    ) -> dict[str, np.ndarray]:
        """The J14 joints (n, 14, 3) of the true meshes, and the vertex errors (n,): as they are, and with
        every mesh about the middle of its own hips."""
        assert sequence.pose is not None and sequence.shape is not None
        j14 = self.regressor[H36M_TO_J14]
        pose, shape = (self._tensor(array[frames]) for array in (sequence.pose, sequence.shape))
        genders = sequence.genders[frames]
        target = torch.empty_like(pred)
        for gender, smpl in self.truths.items():
            rows = torch.from_numpy(np.flatnonzero(genders == gender)).to(target.device)
            target[rows] = smpl(
                betas=shape[rows], global_orient=pose[rows, :3], body_pose=pose[rows, 3:]
            ).vertices
        true_joints = j14 @ target
        values = {"true_joints": true_joints.cpu().numpy(), "mpvpe": _vertex_error(pred, target)}
        if self.root_align_verts:
            hips = ROOT_JOINTS["common"]
            pred = pred - (j14[hips] @ pred).mean(dim=1, keepdim=True)
            target = target - true_joints[:, hips].mean(dim=1, keepdim=True)
            values["mpvpe_root_aligned"] = _vertex_error(pred, target)
        return values

    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.asarray(array, np.float32)).to(self.smpl.v_template.device)


def _vertex_error(pred: torch.Tensor, target: torch.Tensor) -> np.ndarray:
    return metrics.vertex_error(pred.cpu().numpy(), target.cpu().numpy())

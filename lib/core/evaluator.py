"""Measure a model on a database: the protocol of ``evaluate.py`` and of the validation during training."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from tqdm import tqdm

from ..landmarks.flips import repair_flips
from ..models.body import BodyData
from ..models.inference import PreparedTCMR
from ..models.landmark_body import LandmarkBody
from ..models.precision import Precision
from ..models.predict import TRAINING_FPS, iter_predictions, window_step
from ..models.smpl import SMPL
from ..models.tcmr import TCMR, Borders
from ..motion.fit import fit_track
from ..utils import metrics
from ..utils.errors import UserError
from ..utils.geometry import rotmat_to_axis_angle
from ..utils.keypoints import H36M_TO_J14, JOINT_NAMES, convert_kps
from ..utils.smoothing import slerp_filter
from .evaluation import Bodies, Evaluation, SequenceErrors, compare
from .evaluation_set import EvalSequence, EvaluationSet
from .protocol import ROOT_JOINTS, Protocol

_CHUNK = 128  # frames whose vertices are computed at once


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
        self.model = PreparedTCMR(model, precision)
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

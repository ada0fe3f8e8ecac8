"""Training losses of TCMR."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn
from yacs.config import CfgNode

from ..utils.geometry import axis_angle_to_rotmat
from ..utils.registry import Registry

# The 14 LSP joints of the 49, and the two hips among those 14, whose middle is the root.
_LSP = slice(25, 39)
_HIPS = slice(2, 4)

_INTEGRATED = -1  # of a model's outputs the last predicts


def lsgan_generator_loss(fake: Float[Tensor, "n 1"], count: int | None = None) -> Float[Tensor, ""]:
    """Least-squares GAN: how far the discriminator's outputs for predictions are from 1.

    ``count`` is the number of outputs to average over, where these are one process's part of more.
    """
    return ((fake - 1) ** 2).sum() / (count or len(fake))


def lsgan_discriminator_loss(
    real: Float[Tensor, "n 1"], fake: Float[Tensor, "m 1"], count: int | None = None
) -> tuple[Float[Tensor, ""], Float[Tensor, ""], Float[Tensor, ""]]:
    """Least-squares GAN: losses of the discriminator on real data, on predictions, and their sum."""
    on_real = ((real - 1) ** 2).sum() / (count or len(real))
    on_fake = (fake**2).sum() / (count or len(fake))
    return on_real, on_fake, on_real + on_fake


def expand_targets(batch: Mapping[str, Tensor], outputs: int = 3) -> dict[str, Tensor]:
    """Targets (N, R, …) of runs of windows as :class:`TCMRLoss` takes them, (N * R, M, …): the M outputs of a
    model share one target; copies nothing."""
    targets = {key: values.flatten(0, 1) for key, values in batch.items() if key != "features"}
    return {key: values[:, None].expand(-1, outputs, *values.shape[1:]) for key, values in targets.items()}


def count_rows(
    target_2d: Mapping[str, Tensor] | None, target_3d: Mapping[str, Tensor] | None
) -> Float[Tensor, " 3"]:
    """What the losses average over: numbers of all rows, of those with 3D, of those with SMPL."""
    present = [target for target in (target_2d, target_3d) if target is not None]
    kp_2d = present[0]["kp_2d"]
    counts = kp_2d.new_zeros(3)
    counts[0] = sum(target["kp_2d"].shape[:2].numel() for target in present)
    if target_3d is not None:
        counts[1], counts[2] = target_3d["w_3d"].bool().sum(), target_3d["w_smpl"].bool().sum()
    return counts


@dataclass
class Compared:
    """Predictions of N2 + N3 windows, the 2D-only samples first, beside their targets: what a loss term sees.

    Where it is a part of a batch (of one process, or of TRAIN.ACCUMULATE), terms are this part's share: what
    is summed over its rows is divided by the number of rows of the whole batch, so that the parts' terms and
    gradients add up.

    Attributes:
        pred: the output of a model in training mode: ``kp_2d`` (N, M, 49, 2), ``kp_3d`` (N, M, 49, 3),
            ``theta`` (N, M, 85) and, if present, ``rotmat`` (N, M, 24, 3, 3). M: past, future and integrated
            of TCMR; the last is what predicts.
        target_2d: ``kp_2d`` (N2, M, 49, 3) with confidences, or None without 2D-only data.
        target_3d: ``kp_2d``, ``kp_3d`` (N3, M, 49, 3), NaN where unseen, ``theta`` (N3, M, 85), ``w_3d`` and
            ``w_smpl`` (N3, M), or None without 3D data.
        counts: the sum of :func:`count_rows` over all parts.
        run_length: R, neighbouring windows that follow each other among the N.
        pairs: the sum of :func:`velocity_counts` over all parts.
    """

    pred: Mapping[str, Tensor]
    target_2d: Mapping[str, Tensor] | None
    target_3d: Mapping[str, Tensor] | None
    counts: Tensor
    run_length: int = 1
    pairs: Tensor | None = None

    @cached_property
    def pred_3d(self) -> dict[str, Tensor]:
        """``pred`` of the rows that ``target_3d`` has."""
        count = 0 if self.target_3d is None else len(self.target_3d["theta"])
        return {name: value[len(value) - count :] for name, value in self.pred.items()}

    @cached_property
    def velocities(self) -> dict[str, Tensor]:
        """:func:`velocity_terms`."""
        runs_2d, runs_3d = (
            target and {k: torch.unflatten(v[:, 0], 0, (-1, self.run_length)) for k, v in target.items()}
            for target in (self.target_2d, self.target_3d)
        )
        return velocity_terms(self.pred, runs_2d, runs_3d, self.pairs)

    def mean_square(
        self, error: Float[Tensor, "n m *rest"], weight: Literal["w_3d", "w_smpl"]
    ) -> Float[Tensor, ""]:
        """Mean of squared errors over the rows of the whole batch that have 3D, or SMPL."""
        assert self.target_3d is not None
        return _mean_square(error, self.target_3d[weight], self.counts[1 if weight == "w_3d" else 2])


LossTerm = Callable[[Compared], Tensor | None]
LOSS_TERMS: Registry[LossTerm] = Registry("loss term", "LOSS.EXTRA")
"""By the name it is logged under: a term without its weight, None where there is nothing to compare."""


@LOSS_TERMS.register("loss_kp_2d")
def _kp_2d(part: Compared) -> Tensor:
    targets = [target["kp_2d"] for target in (part.target_2d, part.target_3d) if target is not None]
    return _keypoint_2d_loss(part.pred["kp_2d"], torch.cat(targets), part.counts[0])


@LOSS_TERMS.register("loss_kp_3d")
def _kp_3d(part: Compared) -> Tensor | None:
    if part.target_3d is None:
        return None
    return part.mean_square(_keypoint_3d_error(part.pred_3d["kp_3d"], part.target_3d["kp_3d"]), "w_3d")


@LOSS_TERMS.register("loss_shape")
def _shape(part: Compared) -> Tensor | None:
    if part.target_3d is None:
        return None
    return part.mean_square(part.pred_3d["theta"][..., 75:] - part.target_3d["theta"][..., 75:], "w_smpl")


@LOSS_TERMS.register("loss_pose")
def _pose(part: Compared) -> Tensor | None:
    if part.target_3d is None:
        return None
    pred = part.pred_3d
    rotmat = pred["rotmat"] if "rotmat" in pred else _rotmat(pred["theta"])
    return part.mean_square(rotmat - _rotmat(part.target_3d["theta"]), "w_smpl")


LOSS_TERMS.add("velocity_2d", lambda part: part.velocities["velocity_2d"])
LOSS_TERMS.add("velocity_3d", lambda part: part.velocities.get("velocity_3d"))
LOSS_TERMS.add("velocity_pose", lambda part: part.velocities.get("velocity_pose"))


def other_weights(loss: CfgNode) -> dict[str, float]:
    """Weights of the terms beside the original's four that a configuration's LOSS asks for."""
    weights = {"velocity_2d": loss.KP_2D_W, "velocity_3d": loss.KP_3D_W, "velocity_pose": loss.POSE_W}
    velocity = loss.VELOCITY_W
    return {**({name: velocity * w for name, w in weights.items()} if velocity > 0 else {}), **loss.EXTRA}


class TCMRLoss(nn.Module):
    """Weighted sum of loss terms over all outputs of a model: past, future and integrated of TCMR.

    Args:
        e_loss_weight: weight of the 2D joints.
        e_3d_loss_weight: weight of the 3D joints.
        e_pose_loss_weight: weight of the rotation matrices.
        e_shape_loss_weight: weight of the betas.
        others: weights of other terms, by their names in :data:`LOSS_TERMS`.

    Raises:
        UserError: there is no term of such a name.
    """

    def __init__(
        self,
        e_loss_weight: float = 60.0,
        e_3d_loss_weight: float = 30.0,
        e_pose_loss_weight: float = 1.0,
        e_shape_loss_weight: float = 0.001,
        others: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        weights = {
            "loss_kp_2d": e_loss_weight,
            "loss_kp_3d": e_3d_loss_weight,
            "loss_shape": e_shape_loss_weight,
            "loss_pose": e_pose_loss_weight,
            **(others or {}),
        }
        self.terms = {name: (weight, LOSS_TERMS[name]) for name, weight in weights.items()}

    def forward(
        self,
        preds: Mapping[str, Tensor] | Sequence[Mapping[str, Tensor]],
        target_2d: Mapping[str, Tensor] | None,
        target_3d: Mapping[str, Tensor] | None,
        counts: Float[Tensor, " 3"] | None = None,
        run_length: int = 1,
        pairs: Float[Tensor, " 3"] | None = None,
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Compare predictions with their targets.

        Args:
            preds: see :class:`Compared`; the last entry of a list.
            target_2d, target_3d, run_length: see there.
            counts, pairs: see there; None where this is a whole batch.

        Returns:
            the total, and its weighted terms ``loss_kp_2d``, ``loss_kp_3d``, ``loss_shape``, ``loss_pose``
            and others. Without 3D data there is the first only; terms without a valid row are 0.
        """
        pred = preds if isinstance(preds, Mapping) else preds[-1]
        counts = count_rows(target_2d, target_3d) if counts is None else counts
        part = Compared(pred, target_2d, target_3d, counts, run_length, pairs)
        values = {name: (weight, term(part)) for name, (weight, term) in self.terms.items()}
        terms = {name: weight * value for name, (weight, value) in values.items() if value is not None}
        return torch.stack(list(terms.values())).sum(), terms


def velocity_counts(
    target_2d: Mapping[str, Tensor] | None, target_3d: Mapping[str, Tensor] | None
) -> Float[Tensor, " 3"]:
    """What :func:`velocity_terms` averages over: numbers of all pairs of neighbouring frames, of those
    with 3D in both, of those with SMPL in both."""
    present = [target for target in (target_2d, target_3d) if target is not None]
    counts = present[0]["kp_2d"].new_zeros(3)
    counts[0] = sum(target["kp_2d"][:, 1:].shape[:2].numel() for target in present)
    if target_3d is not None:
        counts[1], counts[2] = (_in_both(target_3d[key]).sum() for key in ("w_3d", "w_smpl"))
    return counts


def velocity_terms(
    pred: Mapping[str, Tensor],
    target_2d: Mapping[str, Tensor] | None,
    target_3d: Mapping[str, Tensor] | None,
    counts: Float[Tensor, " 3"] | None = None,
) -> dict[str, Tensor]:
    """How the last outputs (of TCMR, the integrated ones) of N2 + N3 runs of R windows change from frame to
    frame, compared with their targets: means of squared differences.

    Args:
        pred: the output of :meth:`TCMR.forward_runs`, the 2D-only runs first: ``kp_2d`` (N * R, M, 49, 2),
            ``kp_3d`` (N * R, M, 49, 3), ``rotmat`` (N * R, M, 24, 3, 3).
        target_2d: ``kp_2d`` (N2, R, 49, 3) with confidences, or None.
        target_3d: ``kp_2d``, ``kp_3d`` (N3, R, 49, 3), ``theta`` (N3, R, 85), ``w_3d`` and ``w_smpl``
            (N3, R), or None.
        counts: the sum of :func:`velocity_counts` over all parts of a batch of which this is one.

    Returns:
        ``velocity_2d`` of the joints' (49, 2), weighted by the smaller confidence of the two frames;
        ``velocity_3d`` of the 14 LSP joints (14, 3) about the hips, and ``velocity_pose`` of the rotation
        matrices (24, 3, 3). Where both frames' weights are not above 0 a pair does not count; terms without
        targets are absent.
    """
    present = [target for target in (target_2d, target_3d) if target is not None]
    kp_2d = torch.cat([target["kp_2d"] for target in present])
    integrated = {
        name: torch.unflatten(pred[name][:, _INTEGRATED], 0, kp_2d.shape[:2])
        for name in ("kp_2d", "kp_3d", "rotmat")
    }
    pairs, pairs_3d, pairs_smpl = velocity_counts(target_2d, target_3d) if counts is None else counts
    confidence = torch.minimum(kp_2d[:, 1:, :, 2:], kp_2d[:, :-1, :, 2:])
    change = confidence * (integrated["kp_2d"] - kp_2d[..., :2]).diff(dim=1) ** 2
    terms = {"velocity_2d": _row_mean(change.flatten(0, 1), pairs)}
    if target_3d is not None:
        pred_3d = {name: value[-len(target_3d["theta"]) :] for name, value in integrated.items()}
        change = _keypoint_3d_error(pred_3d["kp_3d"].diff(dim=1), target_3d["kp_3d"].diff(dim=1))
        terms["velocity_3d"] = _mean_square(change, _in_both(target_3d["w_3d"]), pairs_3d)
        change = (pred_3d["rotmat"] - _rotmat(target_3d["theta"])).diff(dim=1)
        terms["velocity_pose"] = _mean_square(change, _in_both(target_3d["w_smpl"]), pairs_smpl)
    return terms


def _in_both(weights: Float[Tensor, "n t"]) -> Bool[Tensor, "n t-1"]:
    """Whether weights are above 0 in a frame and in the next."""
    return (weights[:, 1:] > 0) & (weights[:, :-1] > 0)


def _mean_square(
    error: Float[Tensor, "n m *rest"], weights: Shaped[Tensor, "n m"], rows: Float[Tensor, ""]
) -> Float[Tensor, ""]:
    """Mean of squared errors over the ``rows`` of the n * m whose weights are not 0.

    Rows are weighted rather than chosen: to choose, a GPU has to tell the CPU how many there are.
    """
    weights = weights.bool().reshape(*weights.shape, *[1] * (error.dim() - 2))
    return _row_mean((weights * error**2).flatten(0, 1), rows)


def _row_mean(values: Float[Tensor, " n *rest"], rows: Float[Tensor, ""]) -> Float[Tensor, ""]:
    """Sum of values divided by the size of ``rows`` such rows; 0 without rows."""
    return values.sum() / (rows.clamp(min=1) * values.shape[1:].numel())


def _keypoint_2d_loss(
    pred: Float[Tensor, "n m 49 2"], target: Float[Tensor, "n m 49 3"], rows: Float[Tensor, ""]
) -> Float[Tensor, ""]:
    """Confidence-weighted squared error of joints.

    The mean counts unseen joints too, as published weights assume.
    """
    return _row_mean((target[..., 2:] * (pred - target[..., :2]) ** 2).flatten(0, 1), rows)


def _keypoint_3d_error(
    pred: Float[Tensor, "*batch 49 3"], target: Float[Tensor, "*batch 49 3"]
) -> Float[Tensor, "*batch 14 3"]:
    """Errors of the LSP joints about the middle of the hips; 0 where the target is NaN, unseen."""
    target = _about_hips(target)
    return (_about_hips(pred) - target).masked_fill(target.isnan(), 0)


def _rotmat(theta: Float[Tensor, "*batch 85"]) -> Float[Tensor, "*batch 24 3 3"]:
    """Rotation matrices of theta."""
    return axis_angle_to_rotmat(torch.unflatten(theta[..., 3:75], -1, (24, 3)))


def _about_hips(joints: Float[Tensor, "*batch 49 3"]) -> Float[Tensor, "*batch 14 3"]:
    """The LSP joints of the 49, about the middle of the hips."""
    joints = joints[..., _LSP, :]
    return joints - joints[..., _HIPS, :].mean(dim=-2, keepdim=True)

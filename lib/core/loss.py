"""Training losses of TCMR."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ..utils.geometry import axis_angle_to_rotmat

# The 14 LSP joints of the 49, and the two hips among those 14, whose middle is the root.
_LSP = slice(25, 39)
_HIPS = slice(2, 4)

OUTPUTS = 3  # past, future and integrated prediction share one target
_INTEGRATED = 2


def lsgan_generator_loss(fake: Tensor, count: int | None = None) -> Tensor:
    """Least-squares GAN: how far the discriminator's outputs (N, 1) for predictions are from 1.

    ``count`` is the number of outputs to average over, where these N are one process's part of more.
    """
    return ((fake - 1) ** 2).sum() / (count or len(fake))


def lsgan_discriminator_loss(
    real: Tensor, fake: Tensor, count: int | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Least-squares GAN: losses of the discriminator on real data, on predictions, and their sum."""
    on_real = ((real - 1) ** 2).sum() / (count or len(real))
    on_fake = (fake**2).sum() / (count or len(fake))
    return on_real, on_fake, on_real + on_fake


def expand_targets(batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Targets (N, R, …) of runs of windows as :class:`TCMRLoss` takes them, (N * R, 3, …); copies nothing."""
    targets = {key: values.flatten(0, 1) for key, values in batch.items() if key != "features"}
    return {key: values[:, None].expand(-1, OUTPUTS, *values.shape[1:]) for key, values in targets.items()}


def count_rows(target_2d: Mapping[str, Tensor] | None, target_3d: Mapping[str, Tensor] | None) -> Tensor:
    """What the losses average over: numbers (3,) of all rows, of those with 3D, of those with SMPL."""
    present = [target for target in (target_2d, target_3d) if target is not None]
    kp_2d = present[0]["kp_2d"]
    counts = kp_2d.new_zeros(3)
    counts[0] = sum(target["kp_2d"].shape[:2].numel() for target in present)
    if target_3d is not None:
        counts[1], counts[2] = target_3d["w_3d"].bool().sum(), target_3d["w_smpl"].bool().sum()
    return counts


class TCMRLoss(nn.Module):
    """Weighted sum of the 2D, 3D, pose and shape losses over past, future and integrated predictions.

    Args:
        e_loss_weight: weight of the 2D joints.
        e_3d_loss_weight: weight of the 3D joints.
        e_pose_loss_weight: weight of the rotation matrices.
        e_shape_loss_weight: weight of the betas.
    """

    def __init__(
        self,
        e_loss_weight: float = 60.0,
        e_3d_loss_weight: float = 30.0,
        e_pose_loss_weight: float = 1.0,
        e_shape_loss_weight: float = 0.001,
    ) -> None:
        super().__init__()
        self.e_loss_weight = e_loss_weight
        self.e_3d_loss_weight = e_3d_loss_weight
        self.e_pose_loss_weight = e_pose_loss_weight
        self.e_shape_loss_weight = e_shape_loss_weight

    def forward(
        self,
        preds: Mapping[str, Tensor] | Sequence[Mapping[str, Tensor]],
        target_2d: Mapping[str, Tensor] | None,
        target_3d: Mapping[str, Tensor] | None,
        counts: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Compare predictions of N2 + N3 windows, the 2D-only samples first, with their targets.

        Args:
            preds: the output of TCMR in training mode (the last entry of a list): ``kp_2d`` (N, 3, 49, 2),
                ``kp_3d`` (N, 3, 49, 3), ``theta`` (N, 3, 85) and, if present, ``rotmat`` (N, 3, 24, 3, 3).
            target_2d: ``kp_2d`` (N2, 3, 49, 3) with confidences, or None without 2D-only data.
            target_3d: ``kp_2d``, ``kp_3d`` (N3, 3, 49, 3), ``theta`` (N3, 3, 85), ``w_3d`` and ``w_smpl``
                (N3, 3), or None without 3D data.
            counts: where this is one process's part of a batch, the sum of :func:`count_rows` over all
                parts. The terms are then this part's share: they and their gradients add up to the whole's.

        Returns:
            the total, and its weighted terms ``loss_kp_2d``, ``loss_kp_3d``, ``loss_shape``, ``loss_pose``.
            Without 3D data there is the first only; terms without a valid row are 0.
        """
        pred = preds if isinstance(preds, Mapping) else preds[-1]
        rows, rows_3d, rows_smpl = count_rows(target_2d, target_3d) if counts is None else counts
        targets = [target["kp_2d"] for target in (target_2d, target_3d) if target is not None]
        terms = {
            "loss_kp_2d": self.e_loss_weight * _keypoint_2d_loss(pred["kp_2d"], torch.cat(targets), rows)
        }
        if target_3d is not None:
            first = len(pred["theta"]) - len(target_3d["theta"])
            pred_3d = {name: value[first:] for name, value in pred.items()}
            error = _keypoint_3d_error(pred_3d["kp_3d"], target_3d["kp_3d"])
            terms["loss_kp_3d"] = self.e_3d_loss_weight * _mean_square(error, target_3d["w_3d"], rows_3d)
            terms.update(self._smpl_terms(pred_3d, target_3d, rows_smpl))
        return torch.stack(list(terms.values())).sum(), terms

    def _smpl_terms(
        self, pred: Mapping[str, Tensor], target: Mapping[str, Tensor], rows: Tensor
    ) -> dict[str, Tensor]:
        theta, true_theta, has_smpl = pred["theta"], target["theta"], target["w_smpl"]
        rotmat = pred["rotmat"] if "rotmat" in pred else _rotmat(theta)
        shape = _mean_square(theta[..., 75:] - true_theta[..., 75:], has_smpl, rows)
        pose = _mean_square(rotmat - _rotmat(true_theta), has_smpl, rows)
        return {"loss_shape": self.e_shape_loss_weight * shape, "loss_pose": self.e_pose_loss_weight * pose}


def velocity_counts(target_2d: Mapping[str, Tensor] | None, target_3d: Mapping[str, Tensor] | None) -> Tensor:
    """What :func:`velocity_terms` averages over: numbers (3,) of all pairs of neighbouring frames, of those
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
    counts: Tensor | None = None,
) -> dict[str, Tensor]:
    """How the integrated predictions of N2 + N3 runs of R windows change from frame to frame, compared with
    their targets: means of squared differences.

    Args:
        pred: the output of :meth:`TCMR.forward_runs`, the 2D-only runs first: ``kp_2d`` (N * R, 3, 49, 2),
            ``kp_3d`` (N * R, 3, 49, 3), ``rotmat`` (N * R, 3, 24, 3, 3).
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
        name: pred[name][:, _INTEGRATED].unflatten(0, kp_2d.shape[:2])
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


def _in_both(weights: Tensor) -> Tensor:
    """Whether weights (N, R) are above 0 in a frame and in the next: (N, R - 1)."""
    return (weights[:, 1:] > 0) & (weights[:, :-1] > 0)


def _mean_square(error: Tensor, weights: Tensor, rows: Tensor) -> Tensor:
    """Mean of squared errors (N, M, …) over the ``rows`` of the N * M whose weights (N, M) are not 0.

    Rows are weighted rather than chosen: to choose, a GPU has to tell the CPU how many there are.
    """
    weights = weights.bool().reshape(*weights.shape, *[1] * (error.dim() - 2))
    return _row_mean((weights * error**2).flatten(0, 1), rows)


def _row_mean(values: Tensor, rows: Tensor) -> Tensor:
    """Sum of values (n, ...) divided by the size of ``rows`` such rows; 0 without rows."""
    return values.sum() / (rows.clamp(min=1) * values.shape[1:].numel())


def _keypoint_2d_loss(pred: Tensor, target: Tensor, rows: Tensor) -> Tensor:
    """Confidence-weighted squared error of joints (N, 3, 49, 2), of which N * 3 are the rows.

    The mean counts unseen joints too, as published weights assume.
    """
    return _row_mean((target[..., 2:] * (pred - target[..., :2]) ** 2).flatten(0, 1), rows)


def _keypoint_3d_error(pred: Tensor, target: Tensor) -> Tensor:
    """Errors (*, 14, 3) of the LSP joints about the middle of the hips; 0 where the target is NaN, unseen."""
    target = _about_hips(target)
    return (_about_hips(pred) - target).masked_fill(target.isnan(), 0)


def _rotmat(theta: Tensor) -> Tensor:
    """Rotation matrices (*, 24, 3, 3) of theta (*, 85)."""
    return axis_angle_to_rotmat(theta[..., 3:75].unflatten(-1, (24, 3)))


def _about_hips(joints: Tensor) -> Tensor:
    """The LSP joints (*, 14, 3) of the 49 (*, 49, 3), about the middle of the hips."""
    joints = joints[..., _LSP, :]
    return joints - joints[..., _HIPS, :].mean(dim=-2, keepdim=True)

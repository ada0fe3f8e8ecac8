"""Training losses of TCMR."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from lib.utils.geometry import axis_angle_to_rotmat

# The 14 LSP joints of the 49, and the two hips among those 14, whose middle is the root.
_LSP = slice(25, 39)
_HIPS = slice(2, 4)


def lsgan_generator_loss(fake: Tensor) -> Tensor:
    """Least-squares GAN: how far the discriminator's outputs (N, 1) for predictions are from 1."""
    return ((fake - 1) ** 2).sum() / len(fake)


def lsgan_discriminator_loss(real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Least-squares GAN: losses of the discriminator on real data, on predictions, and their sum."""
    on_real = ((real - 1) ** 2).sum() / len(real)
    on_fake = (fake**2).sum() / len(fake)
    return on_real, on_fake, on_real + on_fake


class TCMRLoss(nn.Module):
    """Weighted sum of the 2D, 3D, pose and shape losses over past, future and integrated predictions.

    Args:
        e_loss_weight: weight of the 2D joints.
        e_3d_loss_weight: weight of the 3D joints.
        e_pose_loss_weight: weight of the rotation matrices.
        e_shape_loss_weight: weight of the betas.
        d_motion_loss_weight: weight of :meth:`adversarial`, which the standard training does not use.
    """

    def __init__(
        self,
        e_loss_weight: float = 60.0,
        e_3d_loss_weight: float = 30.0,
        e_pose_loss_weight: float = 1.0,
        e_shape_loss_weight: float = 0.001,
        d_motion_loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.e_loss_weight = e_loss_weight
        self.e_3d_loss_weight = e_3d_loss_weight
        self.e_pose_loss_weight = e_pose_loss_weight
        self.e_shape_loss_weight = e_shape_loss_weight
        self.d_motion_loss_weight = d_motion_loss_weight

    def forward(
        self,
        preds: Mapping[str, Tensor] | Sequence[Mapping[str, Tensor]],
        target_2d: Mapping[str, Tensor] | None,
        target_3d: Mapping[str, Tensor] | None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Compare predictions of N2 + N3 windows, the 2D-only samples first, with their targets.

        Args:
            preds: the output of TCMR in training mode (the last entry of a list): ``kp_2d`` (N, 3, 49, 2),
                ``kp_3d`` (N, 3, 49, 3), ``theta`` (N, 3, 85) and, if present, ``rotmat`` (N, 3, 24, 3, 3).
            target_2d: ``kp_2d`` (N2, 3, 49, 3) with confidences, or None without 2D-only data.
            target_3d: ``kp_2d``, ``kp_3d`` (N3, 3, 49, 3), ``theta`` (N3, 3, 85), ``w_3d`` and ``w_smpl``
                (N3, 3), or None without 3D data.

        Returns:
            the total, and its weighted terms ``loss_kp_2d``, ``loss_kp_3d``, ``loss_shape``, ``loss_pose``.
            Terms without targets are absent, but ``loss_kp_3d`` is 0 where 3D samples have no valid row.
        """
        pred = preds if isinstance(preds, Mapping) else preds[-1]
        targets = [target["kp_2d"] for target in (target_2d, target_3d) if target is not None]
        terms = {"loss_kp_2d": self.e_loss_weight * _keypoint_2d_loss(pred["kp_2d"], torch.cat(targets))}
        if target_3d is not None:
            first = len(pred["theta"]) - len(target_3d["theta"])
            terms.update(self._terms_3d({name: value[first:] for name, value in pred.items()}, target_3d))
        return torch.stack(list(terms.values())).sum(), terms

    def adversarial(self, fake: Tensor, real: Tensor) -> dict[str, Tensor]:
        """Motion discriminator terms from its outputs (N, 1) for predicted and for real motion.

        ``e_m_disc_loss`` is for the generator; ``d_m_disc_real``, ``d_m_disc_fake`` and their sum
        ``d_m_disc_loss`` are for the discriminator, on detached predictions.
        """
        on_real, on_fake, total = lsgan_discriminator_loss(real, fake.detach())
        weight = self.d_motion_loss_weight
        return {
            "e_m_disc_loss": weight * lsgan_generator_loss(fake),
            "d_m_disc_real": weight * on_real,
            "d_m_disc_fake": weight * on_fake,
            "d_m_disc_loss": weight * total,
        }

    def _terms_3d(self, pred: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> dict[str, Tensor]:
        has_3d = target["w_3d"].bool()
        terms = {
            "loss_kp_3d": self.e_3d_loss_weight
            * _keypoint_3d_loss(pred["kp_3d"][has_3d], target["kp_3d"][has_3d])
        }
        has_smpl = target["w_smpl"].bool()
        if has_smpl.any():
            theta, true_theta = pred["theta"][has_smpl], target["theta"][has_smpl]
            if "rotmat" in pred:
                rotmat = pred["rotmat"][has_smpl]
            else:
                rotmat = axis_angle_to_rotmat(theta[:, 3:75].reshape(-1, 24, 3))
            true_rotmat = axis_angle_to_rotmat(true_theta[:, 3:75].reshape(-1, 24, 3))
            terms["loss_shape"] = self.e_shape_loss_weight * functional.mse_loss(
                theta[:, 75:], true_theta[:, 75:]
            )
            terms["loss_pose"] = self.e_pose_loss_weight * functional.mse_loss(rotmat, true_rotmat)
        return terms


def _keypoint_2d_loss(pred: Tensor, target: Tensor) -> Tensor:
    """Confidence-weighted squared error; the mean counts unseen joints too, as published weights assume."""
    return (target[..., 2:] * (pred - target[..., :2]) ** 2).mean()


def _keypoint_3d_loss(pred: Tensor, target: Tensor) -> Tensor:
    """Squared error of the LSP joints (n, 14, 3) around the middle of the hips; 0 without rows."""
    if not len(pred):
        return pred.new_zeros(())
    pred, target = pred[:, _LSP], target[:, _LSP]
    pred = pred - pred[:, _HIPS].mean(dim=1, keepdim=True)
    target = target - target[:, _HIPS].mean(dim=1, keepdim=True)
    return functional.mse_loss(pred, target)

"""A model's weights arranged for predicting sequences: the same numbers up to rounding, in less time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .precision import Precision, check_precision
from .regressor import CAM_SIZE, POSE_SIZE, SHAPE_SIZE

if TYPE_CHECKING:
    from .tcmr import TCMR

_STATE = (POSE_SIZE, SHAPE_SIZE, CAM_SIZE)


class PreparedTCMR:
    """Copies of a model's weights for many predictions without gradient: the regressor is one affine map, and
    the encoder does with it what it can (:meth:`TemporalEncoder.prepare`).

    Args:
        model: on its device; later changes of its weights are not seen.
        precision: of the products in the encoder: ``fp32`` (exact; the model's own precision), ``bf16``,
            ``tf32`` (CUDA) or ``fp16`` (CUDA).
        rows: windows predicted at once, about.

    Raises:
        UserError: the device does not compute in that precision.
    """

    def __init__(self, model: TCMR, precision: Precision = "fp32", rows: int = 256) -> None:
        check_precision(precision, model.regressor.init_cam.device)
        self.model = model
        with torch.no_grad():
            self._states = model.encoder.prepare(*model.regressor.as_affine(), precision, rows)

    def predict_windows(
        self, frames: Tensor, windows: Tensor, J_regressor: Tensor | None = None, return_verts: bool = True
    ) -> dict[str, Tensor]:
        """See :meth:`TCMR.predict_windows`."""
        state, scores = self._states(frames, windows)
        pose, shape, cam = state.split(_STATE, dim=1)
        output = self.model.regressor.body_of(pose, shape, cam, J_regressor, return_verts)
        return output if scores is None else {**output, "scores": scores}

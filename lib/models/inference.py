"""A model's weights arranged for predicting sequences: the same numbers up to rounding, in less time."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .precision import Precision, check_precision
from .regressor import STATE, STATE_SIZE
from .tcmr import TCMR


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
        check_precision(precision, model.device)
        self.model = model
        self._carry: Tensor | None = None
        with torch.no_grad():
            if model.starts_from_feature:
                matrix, self._carry, offset = model.regressor.as_affine_of_start()
            else:
                matrix, offset = model.regressor.as_affine()
            self._states = model.encoder.prepare(matrix, offset, precision, rows)

    def predict_windows(
        self,
        frames: Float[Tensor, "u f"],
        windows: Int[Tensor, "n t"],
        J_regressor: Float[Tensor, "17 v"] | None = None,
        return_verts: bool = True,
    ) -> dict[str, Tensor]:
        """See :meth:`TCMR.predict_windows`."""
        state, scores = self._states(frames, windows)
        if self._carry is not None:
            state = state + self.model.middle(frames, windows)[:, :STATE_SIZE] @ self._carry.T
        pose, shape, cam = torch.split(state, STATE, dim=1)
        output = self.model.regressor.body_of(pose, shape, cam, J_regressor, return_verts)
        return output if scores is None else {**output, "scores": scores}

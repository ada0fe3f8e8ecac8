"""A TCMR's weights arranged for predicting sequences: the same numbers up to rounding, in less time."""

from __future__ import annotations

import torch
from torch import Tensor

from .precision import Precision, check_precision, tf32
from .recurrence import PreparedProduct, Product
from .regressor import STATE, STATE_SIZE
from .tcmr import TCMR

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class PreparedTCMR:
    """Copies of a model's weights for many predictions without gradient.

    * GRU weights lie in the order in which the CPU multiplies, and in the precision asked for. GRU states,
      gates and all that follows the GRUs stay in float32.
    * Between the GRUs and the body only the attention's softmax is not linear. So the branches' linear layers
      are multiplied with the attention's first layer on one hand and with the whole iterative regressor on
      the other: 1.7 million multiply-adds per frame instead of 20.6 (at the published size).

    Args:
        model: on its device; later changes of its weights are not seen.
        precision: of the products in the GRUs: ``fp32`` (exact; the model's own precision), ``bf16``,
            ``tf32`` (CUDA) or ``fp16`` (CUDA).
        rows: windows predicted at once, about.

    Raises:
        UserError: the device does not compute in that precision.
    """

    def __init__(self, model: TCMR, precision: Precision = "fp32", rows: int = 256) -> None:
        check_precision(precision, model.regressor.init_cam.device)
        self.model, self.precision = model, precision
        dtype = _DTYPES.get(precision, model.regressor.init_cam.dtype)
        encoder = model.encoder
        with torch.no_grad():
            self._layers = encoder.prepared_layers(dtype, rows)
            regressor = model.regressor
            matrix, self._offset = regressor.as_affine()
            self._carry: Tensor | None = None
            if model.starts_from_feature:  # rather than from the mean, which the offset holds
                self._carry = regressor.carry()
                mean = torch.cat((regressor.init_pose, regressor.init_shape, regressor.init_cam), dim=1)[0]
                self._offset = self._offset - self._carry @ mean
            attention = encoder.attention.fc
            followers = torch.cat((attention.weight, matrix))
            self._attention_size = len(attention.weight)
            offsets = torch.cat((attention.bias, torch.zeros_like(self._offset)))
            self._branches = []
            for linear in (encoder.linear_bef, encoder.linear_cur, encoder.linear_aft):
                composed = Product(followers @ linear.weight, followers @ linear.bias + offsets)
                self._branches.append(PreparedProduct(composed, composed.weight.dtype, rows))

    def predict_windows(
        self, frames: Tensor, windows: Tensor, J_regressor: Tensor | None = None, return_verts: bool = True
    ) -> dict[str, Tensor]:
        """See :meth:`TCMR.predict_windows`."""
        with tf32(self.precision == "tf32"):
            states = self.model.encoder.window_states(frames, windows, self._layers)
        branches = [product(state.relu()) for product, state in zip(self._branches, states)]
        parts = torch.stack(branches, dim=1)  # (N, 3, attention + 157)
        attention, regressed = parts.split((self._attention_size, STATE_SIZE), dim=2)
        scores = self.model.encoder.attention.attention(attention.flatten(1)).softmax(dim=-1)
        state = torch.einsum("nb,nbs->ns", scores, regressed) + self._offset
        if self._carry is not None:
            middle = windows[:, self.model.encoder.mid_frame]
            state = state + frames[middle, :STATE_SIZE] @ self._carry.T
        pose, shape, cam = state.split(STATE, dim=1)
        return {**self.model.regressor.body_of(pose, shape, cam, J_regressor, return_verts), "scores": scores}

"""The temporal encoder of VIBE (Kocabas, Athanasiou, Black: CVPR 2020, section 3.1)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .temporal import ENCODERS, TemporalEncoder, gru_sizes


@ENCODERS.register("vibe")
class VIBEEncoder(TemporalEncoder):
    """A GRU that reads from the past on, a linear layer, and what that adds to the static feature.

    VIBE takes a feature of every frame of a sequence; here it is that of a window's middle frame, which sees
    the frames up to it.
    """

    def __init__(
        self, n_layers: int = 2, seq_len: int = 16, hidden_size: int = 1024, feature_size: int = 2048
    ) -> None:
        super().__init__(n_layers, seq_len, hidden_size, feature_size)
        self.seen = seq_len // 2 + 1
        self.gru = nn.GRU(feature_size, hidden_size, n_layers)
        self.linear = nn.Linear(hidden_size, feature_size)

    def forward(
        self, x: Float[Tensor, "n t f"], is_train: bool = False
    ) -> tuple[Float[Tensor, "n *m f"], None]:
        with torch.autocast(x.device.type, enabled=False):  # cuDNN would compute in float16
            seen = x[:, : self.seen].transpose(0, 1).to(self.linear.weight.dtype)
            state = self.gru(seen)[0][-1]
        feature = self.linear(state.relu()) + seen[-1]
        return (feature[:, None] if is_train else feature), None

    @classmethod
    def sizes(cls, weights: Mapping[str, Tensor]) -> dict[str, int]:
        return gru_sizes(weights, "gru")

"""What temporal encoders are compared with: an encoder that sees one frame."""

from __future__ import annotations

from collections.abc import Mapping

from jaxtyping import Float
from torch import Tensor, nn

from .temporal import ENCODERS, TemporalEncoder
from .weights import matrix_of


@ENCODERS.register("per_frame")
class PerFrameEncoder(TemporalEncoder):
    """Two layers of the middle frame's feature, and what they add to it. With MODEL.FEATURE_SMOOTH 0 nothing
    reaches it from other frames."""

    def __init__(self, n_layers: int, seq_len: int, hidden_size: int, feature_size: int) -> None:
        super().__init__(n_layers, seq_len, hidden_size, feature_size)
        self.middle = seq_len // 2
        self.change = nn.Sequential(
            nn.Linear(feature_size, hidden_size), nn.ReLU(), nn.Linear(hidden_size, feature_size)
        )

    def forward(
        self, x: Float[Tensor, "n t f"], is_train: bool = False
    ) -> tuple[Float[Tensor, "n *m f"], None]:
        feature = x[:, self.middle] + self.change(x[:, self.middle])
        return (feature[:, None] if is_train else feature), None

    @classmethod
    def sizes(cls, weights: Mapping[str, Tensor]) -> dict[str, int]:
        hidden, size = matrix_of(weights, "change.0.weight").shape
        return {"MODEL.TGRU.HIDDEN_SIZE": hidden, "MODEL.FEATURE_SIZE": size}

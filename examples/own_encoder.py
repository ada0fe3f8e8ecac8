"""A temporal encoder of your own, here a convolution over the window that corrects the middle feature.

python scripts/make_open_db.py
python train.py --plugin examples/own_encoder.py --cfg configs/open.yaml \
    --opts MODEL.TEMPORAL_TYPE convolution
"""

from tcmr.models.temporal import ENCODERS, TemporalEncoder
from torch import Tensor, nn


@ENCODERS.register("convolution")
class Convolution(TemporalEncoder):
    def __init__(self, n_layers: int, seq_len: int, hidden_size: int, feature_size: int) -> None:
        super().__init__(n_layers, seq_len, hidden_size, feature_size)
        self.middle = seq_len // 2
        self.over_time = nn.Conv1d(feature_size, hidden_size, seq_len)
        self.linear = nn.Linear(hidden_size, feature_size)

    def forward(self, x: Tensor, is_train: bool = False) -> tuple[Tensor, None]:
        hidden = self.over_time(x.transpose(1, 2))[..., 0].relu()
        feature = x[:, self.middle] + self.linear(hidden)
        return (feature[:, None] if is_train else feature), None  # one output, no attention

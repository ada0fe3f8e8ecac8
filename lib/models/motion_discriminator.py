"""Motion discriminator of VIBE (Kocabas et al., CVPR 2020). TCMR trains it where LOSS.D_MOTION_LOSS_W > 0."""

from __future__ import annotations

import itertools
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn


class _SelfAttention(nn.Module):
    """Weighted mean over time of (N, T, A) by weights that a small network gives each step."""

    def __init__(self, attention_size: int, layers: int, dropout: float) -> None:
        super().__init__()
        sizes = [attention_size] * layers + [1]
        steps: list[nn.Module] = []
        for size_in, size_out in itertools.pairwise(sizes):
            linear = nn.Linear(size_in, size_out)
            nn.init.uniform_(linear.weight, -0.1, 0.1)
            nn.init.constant_(linear.bias, 0.01)
            steps += [linear, nn.Tanh(), nn.Dropout(dropout)]
        self.attention = nn.Sequential(*steps)

    def forward(self, x: Tensor) -> Tensor:
        weights: Tensor = self.attention(x).softmax(dim=1)
        return (weights * x).sum(dim=1)


class MotionDiscriminator(nn.Module):
    """Score of how real a sequence of body poses looks.

    Args:
        rnn_size, num_layers: GRU hidden size and layers.
        input_size: numbers per frame (69 for axis-angle body pose).
        output_size: numbers per sequence.
        feature_pool: ``attention``, ``concat`` (mean and maximum over time), or ``last``.
        attention_size, attention_layers, attention_dropout: only for ``attention``, where the size must be
            ``rnn_size``.
    """

    def __init__(
        self,
        rnn_size: int,
        input_size: int,
        num_layers: int,
        output_size: int = 2,
        feature_pool: Literal["attention", "concat", "last"] | str = "concat",
        attention_size: int = 1024,
        attention_layers: int = 1,
        attention_dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.feature_pool = feature_pool
        self.gru = nn.GRU(input_size, rnn_size, num_layers)
        if feature_pool == "attention":
            self.attention = _SelfAttention(attention_size, attention_layers, attention_dropout)
        self.fc = nn.Linear(2 * rnn_size if feature_pool == "concat" else rnn_size, output_size)

    def forward(self, sequence: Float[Tensor, "n t f"]) -> Float[Tensor, "n output_size"]:
        """Score sequences."""
        states = self.gru(sequence.transpose(0, 1))[0].transpose(0, 1)
        if self.feature_pool == "attention":
            pooled = self.attention(states)
        elif self.feature_pool == "concat":
            states = states.relu()
            pooled = torch.cat((states.mean(dim=1), states.amax(dim=1)), dim=1)
        else:
            pooled = states[:, -1]
        scores: Tensor = self.fc(pooled)
        return scores

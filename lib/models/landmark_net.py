"""The per-frame network of the open features: what SPIN's ResNet-50 is for images, this is for landmarks."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import nn

from ..landmarks.features import VECTOR_SIZE


class LandmarkNet(nn.Module):
    """Residual MLP from a landmark vector to a static feature.

    The iterative regressor that follows is affine, so every non-linearity of the per-frame estimate is here.
    Inputs are standardised with the statistics of the training data and clipped, so that a wild landmark
    cannot throw the network far out of what it has seen.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self, input_size: int = VECTOR_SIZE, width: int = 768, feature_size: int = 256, blocks: int = 3
    ) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(input_size))
        self.register_buffer("std", torch.ones(input_size))
        self.first = nn.Linear(input_size, width)
        self.blocks = nn.ModuleList(nn.Linear(width, width) for _ in range(blocks))
        self.last = nn.Linear(width, feature_size)

    def forward(self, vectors: Float[torch.Tensor, "*batch v"]) -> Float[torch.Tensor, "*batch f"]:
        """Static features of landmark vectors."""
        hidden = torch.relu(self.first(((vectors - self.mean) / self.std).clamp(-5, 5)))
        for block in self.blocks:
            hidden = hidden + torch.relu(block(hidden))
        feature: torch.Tensor = self.last(hidden)
        return feature

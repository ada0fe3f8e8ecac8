"""Random numbers on a generator's device."""

from __future__ import annotations

import torch
from torch import Tensor


class Draws:
    """What draws all its random numbers from ``generator``, on its device."""

    def __init__(self, generator: torch.Generator) -> None:
        self.generator, self.device = generator, generator.device

    def _uniform(self, low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(*shape, generator=self.generator, device=self.device)

    def _normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator, device=self.device)

    def _chance(self, share: float, *shape: int) -> Tensor:
        return torch.rand(*shape, generator=self.generator, device=self.device) < share

"""Random numbers on a generator's device."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..utils.geometry import axis_angle_to_rotmat


class Draws:
    """What draws all its random numbers from ``generator``, on its device."""

    def __init__(self, generator: torch.Generator) -> None:
        self.generator, self.device = generator, generator.device

    def _uniform(self, low: float, high: float, *shape: int) -> Float[Tensor, ...]:
        return low + (high - low) * torch.rand(*shape, generator=self.generator, device=self.device)

    def _normal(self, *shape: int) -> Float[Tensor, ...]:
        return torch.randn(*shape, generator=self.generator, device=self.device)

    def _chance(self, share: float, *shape: int) -> Bool[Tensor, ...]:
        return torch.rand(*shape, generator=self.generator, device=self.device) < share

    def _vector(self, *values: float) -> Tensor:
        return torch.tensor(values, device=self.device)

    def _slow(
        self, frames: float, clips: int, length: int, *shape: int
    ) -> Float[Tensor, "{clips} {length} ..."]:
        """Ornstein-Uhlenbeck noise of unit variance."""
        keep = math.exp(-1 / frames)
        time = torch.arange(length, device=self.device)
        mix = torch.where(time[:, None] >= time, keep ** (time[:, None] - time).abs().float(), 0.0)
        mix[:, 1:] *= (1 - keep**2) ** 0.5  # the first state has the stationary variance
        return (mix @ self._normal(clips, length, math.prod(shape))).view(clips, length, *shape)

    def _intervals(
        self, clips: int, length: int, rate: float, longest: int, *shape: int
    ) -> Bool[Tensor, "{clips} {length} ..."]:
        """Intervals of 1..longest frames that start at ``rate`` per frame."""
        starts = self._chance(rate, clips, length + longest, *shape)
        duration = self._uniform(1, longest + 1, clips, length + longest, *shape).long()
        time = torch.arange(length + longest, device=self.device).view(-1, *[1] * len(shape))
        until = torch.where(starts, time + duration, 0).cummax(1)[0]
        return (until > time)[:, longest:]

    def _held(self, refreshed: Bool[Tensor, "n t"]) -> Int[Tensor, "n t"]:
        """Indices of the last ``refreshed`` frame up to each; the first one counts."""
        time = torch.arange(refreshed.shape[1], device=self.device)
        return torch.where(refreshed, time, 0).cummax(1)[0]

    def _camera(self, clips: int) -> Float[Tensor, "{clips} 3 3"]:
        """World (y up) -> camera rotations: any heading, mostly level, seldom tilted."""
        angles = torch.zeros(3, clips, 3, device=self.device)
        angles[0, :, 1] = self._uniform(-math.pi, math.pi, clips)
        pitch, roll = 0.1 + 0.15 * self._normal(clips), 0.06 * self._normal(clips)
        tilted = self._chance(0.3, 2, clips)
        angles[1, :, 0] = torch.where(tilted[0], self._uniform(-0.35, 0.95, clips), pitch)
        angles[2, :, 2] = torch.where(tilted[1], self._uniform(-0.5, 0.5, clips), roll)
        yaw, pitch, roll = axis_angle_to_rotmat(angles).unbind()
        return self._vector(1.0, -1.0, -1.0).diag() @ roll @ pitch @ yaw

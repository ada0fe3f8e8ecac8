"""Noise models and clips for the tests of simulated landmarks."""

from __future__ import annotations

from dataclasses import fields

import torch

from lib.models.body import BodyData
from lib.open_data.motions import UNCHANGED, MotionSampler, procedural_motions
from lib.open_data.simulate import NoiseModel, Simulation, Simulator

_ZERO = {f.name: (0.0,) * 3 if isinstance(f.default, tuple) else 0.0 for f in fields(NoiseModel)}
SILENT = NoiseModel(
    **_ZERO
    | {"slow_frames": 8.0, "slope_mean": 1.0, "clean": 1.0, "flip_off": 1.0}
    | {"quality": 0.45, "tails": 0.4, "cut_alike": False}
)
"""No error of any kind."""


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def upright_clips(count: int, length: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """rotmat (B, T, 24, 3, 3), trans (B, T, 3) of people who walk, squat and wave."""
    motions = procedural_motions(6, seed=1)
    return MotionSampler(motions, generator(seed), UNCHANGED).sample(count, length)


def simulate(
    body: BodyData, clips: tuple[torch.Tensor, torch.Tensor], noise: NoiseModel, seed: int = 0
) -> Simulation:
    betas = torch.randn(len(clips[0]), 10, generator=generator(9))
    return Simulator(body, noise, generator(seed))(*clips, betas)

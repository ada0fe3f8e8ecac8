"""Endless simulated training data: motions, bodies, cameras and landmarks, made on the device that trains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lib.data_utils.motions import Augmentation, Motion, MotionSampler
from lib.data_utils.simulate import NoiseModel, Simulator
from lib.models.body import BodyData
from lib.utils.landmark_features import landmark_vector, to_crop
from lib.utils.landmark_flips import undo_flips


@dataclass(frozen=True)
class Clips:
    """Simulated clips of B x T frames, as networks read them, and the truth."""

    vectors: Tensor  # (B, T, 303)
    rotmat: Tensor  # (B, T, 24, 3, 3), global rotation in the camera frame
    betas: Tensor  # (B, T, 10)
    joints3d: Tensor  # (B, T, 49, 3) metres
    kp_2d: Tensor  # (B, T, 49, 2), [-1, 1] of the crop


class SimulatedClips:
    """Draws clips; the clips of a step depend on ``seed`` and that step alone, so training can go on anywhere.

    Args:
        motions: what bodies do.
        noises: error models of the landmarks; equal parts of the clips get each.
        repair: undo front-back flips, as is done with real landmarks before the network sees them.
    """

    def __init__(
        self,
        motions: list[Motion],
        body: BodyData,
        noises: Sequence[NoiseModel],
        device: torch.device,
        *,
        seed: int,
        augmentation: Augmentation = Augmentation(),  # noqa: B008 - frozen
        repair: bool = False,
    ) -> None:
        self.seed, self.repair = seed, repair
        self._generator = torch.Generator(device)
        self._sampler = MotionSampler(motions, self._generator, augmentation)
        self._simulators = [Simulator(body, noise, self._generator) for noise in noises]

    @torch.no_grad()
    def __call__(self, step: int, clips: int, length: int) -> Clips:
        """The ``clips`` clips of ``length`` frames of one step."""
        self._generator.manual_seed((self.seed << 32) + step)
        rotmat, trans = self._sampler.sample(clips, length)
        betas = self._sampler.shapes(clips)
        parts = [
            simulator(*part)
            for simulator, part in zip(
                self._simulators,
                zip(*(values.tensor_split(len(self._simulators)) for values in (rotmat, trans, betas))),
            )
        ]

        def joined(name: str) -> Tensor:
            return torch.cat([getattr(part, name) for part in parts])

        seen = joined("xy"), joined("visibility"), joined("world")
        vectors, boxes = landmark_vector(*(undo_flips(*seen) if self.repair else seen))
        return Clips(
            vectors=vectors,
            rotmat=joined("rotmat"),
            betas=joined("betas"),
            joints3d=joined("joints3d"),
            kp_2d=to_crop(joined("joints2d"), boxes),
        )

"""Endless simulated training data: motions, bodies, cameras and landmarks, made on the device that trains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from yacs.config import CfgNode

from ..landmarks.features import landmark_vector, to_crop
from ..landmarks.flips import undo_flips
from ..models.body import BodyData
from ..models.extractors import load_landmark_net
from ..models.landmark_body import LandmarkBody
from ..utils.errors import UserError
from ..utils.geometry import project, rotmat_to_axis_angle
from ..utils.pose_features import POSE_FEATURE_SIZE, pose_features
from ..utils.smoothing import gaussian_kernel
from .draws import Draws
from .motions import Augmentation, Motion, MotionSampler, open_motions, trained_split
from .pose_noise import MIXED, PoseEstimator, PoseNoise
from .simulate import NOISE_V1, NOISE_V2, NoiseModel, Simulator

SIMULATED = "Simulated"
"""In TRAIN.DATASETS_3D: make the data while training."""
_MARGIN = 6  # frames around a clip that the means over time at its ends see
_FAR_OUTSIDE = 3.0  # of the crop, in half sides: 2D joints beyond teach nothing


@dataclass(frozen=True)
class Clips:
    """Simulated clips of B x T frames, as networks read them, and the truth."""

    vectors: Tensor  # (B, T, 303) landmark vectors, or (B, T, 301) pose features
    rotmat: Tensor  # (B, T, 24, 3, 3), global rotation in the camera frame
    betas: Tensor  # (B, T, 10)
    joints3d: Tensor  # (B, T, 49, 3) metres
    kp_2d: Tensor  # (B, T, 49, 2), [-1, 1] of the crop


class SimulatedClips:
    """Draws clips; those of a step depend on ``seed`` and that step alone, so training can go on anywhere.

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
        # Of larger numbers the CPU's generator takes the lower 32 bits alone.
        self._generator.manual_seed((2_654_435_761 * self.seed + step) % 2**32)
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


class SimulatedEstimates(Draws):
    """Draws clips of per-frame pose estimates, as :class:`SimulatedClips` does of landmarks.

    Args:
        motions: what bodies do.
        noise: error model of the estimates.
    """

    def __init__(
        self,
        motions: list[Motion],
        body: BodyData,
        noise: PoseNoise,
        device: torch.device,
        *,
        seed: int,
        augmentation: Augmentation = Augmentation(),  # noqa: B008 - frozen
    ) -> None:
        super().__init__(torch.Generator(device))
        self.seed = seed
        self._sampler = MotionSampler(motions, self.generator, augmentation)
        self._estimator = PoseEstimator(noise, self.generator)
        self._body = LandmarkBody(body).to(device)

    @torch.no_grad()
    def __call__(self, step: int, clips: int, length: int) -> Clips:
        """The ``clips`` clips of ``length`` frames of one step."""
        self.generator.manual_seed((2_654_435_761 * self.seed + step) % 2**32)
        rotmat, _ = self._sampler.sample(clips, length + 2 * _MARGIN)
        betas = self._sampler.shapes(clips)
        rotmat[:, :, 0] = self._camera(clips)[:, None] @ rotmat[:, :, 0]
        return estimated_clips(self._estimator, self._body, rotmat, betas, _MARGIN)


def estimated_clips(
    estimator: PoseEstimator, body: LandmarkBody, rotmat: Tensor, betas: Tensor, margin: int = 0
) -> Clips:
    """What a per-frame network says of poses rotmat (B, T, 24, 3, 3), root in the camera's frame, of people
    of shape betas (B, 10): clips without ``margin`` frames at either end."""
    seen = estimator(rotmat, betas)
    inner = slice(margin, rotmat.shape[1] - margin)
    truth = rotmat[:, inner]
    shape = betas[:, None].expand(*truth.shape[:2], 10)
    joints = body(truth.flatten(0, 1), shape.flatten(0, 1))[0]
    return Clips(
        vectors=pose_features(seen.rotmat, seen.betas, seen.cam, margin=margin),
        rotmat=truth,
        betas=shape,
        joints3d=joints.unflatten(0, truth.shape[:2]),
        kp_2d=project(joints, seen.true_cam[:, inner].flatten(0, 1)).unflatten(0, truth.shape[:2]),
    )


class SimulatedStream:
    """Endless training batches of simulated runs, laid out as by :class:`lib.dataset.training.WindowDataset`.

    ``position`` counts the batches; a stream that starts there goes on with what would have come next.

    Args:
        cfg: DATASET.MOTIONS, DATASET.SEQLEN, TRAIN.RUN_LENGTH, MODEL.FEATURE_SMOOTH and MODEL.EXTRACTOR:
        landmarks
            go through the landmark network in TRAIN.PRETRAINED_REGRESSOR, ``poses`` are features as they are.
        batch_size: runs of all processes together.

    Raises:
        UserError: motions or the network cannot be read, or features have another size than expected.
    """

    def __init__(
        self,
        cfg: CfgNode,
        body: BodyData,
        device: torch.device,
        batch_size: int,
        *,
        seed: int,
        start: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.batch_size, self.position = batch_size, start
        self._runs = batch_size // world + (rank < batch_size % world)
        self._rank, self._world = rank, world
        self._run_length, self._seqlen = cfg.TRAIN.RUN_LENGTH, cfg.DATASET.SEQLEN
        kernel = gaussian_kernel(cfg.MODEL.FEATURE_SMOOTH)
        self._kernel = torch.from_numpy(kernel).float().to(device)
        self._net: nn.Module = nn.Identity()
        self._clips: SimulatedClips | SimulatedEstimates
        if cfg.MODEL.EXTRACTOR == "poses":
            size, origin = POSE_FEATURE_SIZE, "MODEL.EXTRACTOR poses"
            motions = open_motions(cfg.DATASET.MOTIONS)["train"]
            self._clips = SimulatedEstimates(motions, body, MIXED, device, seed=seed)
        else:
            net = load_landmark_net(cfg.TRAIN.PRETRAINED_REGRESSOR).to(device)
            size, origin, self._net = net.last.out_features, cfg.TRAIN.PRETRAINED_REGRESSOR, net
            split = trained_split(cfg.TRAIN.PRETRAINED_REGRESSOR)
            motions = open_motions(cfg.DATASET.MOTIONS, split)["train"]
            self._clips = SimulatedClips(motions, body, (NOISE_V1, NOISE_V2), device, seed=seed, repair=True)
        if size != cfg.MODEL.FEATURE_SIZE:
            raise UserError(
                f"{origin} gives {size} numbers per frame, MODEL.FEATURE_SIZE is {cfg.MODEL.FEATURE_SIZE}: "
                "set it to that"
            )

    @torch.no_grad()
    def __next__(self) -> dict[str, Tensor]:
        margin = len(self._kernel) // 2
        length = self._seqlen + self._run_length - 1
        step = self.position * self._world + self._rank
        clips = self._clips(step, self._runs, length + 2 * margin)
        features = self._net(clips.vectors.flatten(0, 1)).unflatten(0, clips.vectors.shape[:2])
        features = features.unfold(1, len(self._kernel), 1) @ self._kernel
        first = margin + self._seqlen // 2
        seen = slice(first, first + self._run_length)
        kp_2d = clips.kp_2d[:, seen]
        inside = (kp_2d.abs() < _FAR_OUTSIDE).all(-1, keepdim=True).to(kp_2d.dtype)
        pose = rotmat_to_axis_angle(clips.rotmat[:, seen]).flatten(2)
        betas = clips.betas[:, seen]
        ones = torch.ones_like(betas[..., 0])
        camera = betas.new_tensor([1.0, 0.0, 0.0]).expand(*betas.shape[:2], 3)
        self.position += 1
        return {
            "features": features,
            "kp_2d": torch.cat([kp_2d, inside], -1),
            "kp_3d": clips.joints3d[:, seen],
            "theta": torch.cat([camera, pose, betas], -1),
            "w_3d": ones,
            "w_smpl": ones,
        }

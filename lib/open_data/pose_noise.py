"""Motion -> what a per-frame network would estimate of it: SMPL poses with errors.

Joints jitter, drift and are wrong for good; single frames are plainly wrong, sides are swapped, front is
taken for back, an occluded limb is guessed, frames are missing. Everything is computed in pose space, on the
device of the random generator. The magnitudes are set by hand, not measured on an estimator.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..utils.geometry import axis_angle_to_rotmat, rot6d_to_rotmat, rotmat_to_rot6d
from ..utils.keypoints import SMPL_FLIP
from ..utils.pose_features import PEAK, bridge
from .draws import Draws
from .motions import Motion

LIMBS = ([1, 4, 7, 10], [2, 5, 8, 11], [16, 18, 20, 22], [17, 19, 21, 23])  # legs, arms
_SIDES = (LIMBS[0] + LIMBS[1], LIMBS[2] + LIMBS[3])
# How far each of the 24 joints errs, in the unit of the noise model.
_SPREAD = [0.0, 1.0, 1.0, 0.5, 1.2, 1.2, 0.4, 1.4, 1.4, 0.4, 1.0, 1.0]
_SPREAD += [0.6, 0.5, 0.5, 0.8, 1.2, 1.2, 1.4, 1.4, 1.5, 1.5, 1.0, 1.0]


@dataclass(frozen=True)
class PoseNoise:
    """Standard deviations of the errors about each axis, rad unless said otherwise; rates are per frame.

    "white" changes every frame, "slow" drifts with one of the time constants ``slow_frames``, "bias" stays
    for a clip. ``body``: of the joints, ``turn``: of the whole body about the camera's axes x (pitch),
    y (yaw), z (roll). ``tail``: share of joints and frames that jitter four times as much. Of the ``share``
    of the clips each, ``wrong``: one to three frames are of another pose; ``swapped``: arms or legs of the
    other side, up to 5 frames; ``turned``: front taken for back, up to 5; ``hidden``: a limb is wrong
    or frozen, up to 30 frames; ``lost``: up to 6 frames missing, interpolated. ``shape``: of betas;
    ``scale``: of the logarithm of the camera's scale; ``shift``: metres of its offset. Every kind varies from
    clip to clip by a factor of about ``vary``, all of them together between ``clean`` and 1, less the more.
    """

    white_body: float = 0.03
    slow_body: float = 0.10
    bias_body: float = 0.065
    white_turn: tuple[float, float, float] = (0.03, 0.035, 0.015)
    slow_turn: tuple[float, float, float] = (0.07, 0.08, 0.03)
    bias_turn: tuple[float, float, float] = (0.08, 0.06, 0.02)
    tail: float = 0.04
    slow_frames: tuple[float, ...] = (6.0, 20.0)
    wrong: float = 0.03
    swapped: float = 0.02
    turned: float = 0.02
    hidden: float = 0.01
    lost: float = 0.03
    share: float = 0.2
    shape: float = 0.5
    scale: float = 0.025
    shift: float = 0.015
    vary: float = 0.4
    clean: float = 0.2


_NONE: dict[str, Any] = dict.fromkeys(("white_body", "slow_body", "bias_body", "tail"), 0.0)
_NONE |= dict.fromkeys(("white_turn", "slow_turn", "bias_turn"), (0.0, 0.0, 0.0))
_NONE |= dict.fromkeys(
    ("wrong", "swapped", "turned", "hidden", "lost", "vary", "shape", "scale", "shift"), 0.0
)
SILENT = PoseNoise(**_NONE | {"clean": 1.0, "share": 1.0})
"""No error of any kind."""
MIXED = PoseNoise()
"""What the open weights are trained with."""
_CALM = replace(SILENT, white_body=0.01, slow_body=0.03, bias_body=0.02, shape=0.3, scale=0.01, shift=0.01)
KINDS = {
    "jitter": replace(
        _CALM, white_body=0.04, white_turn=(0.03, 0.04, 0.02), tail=0.04, scale=0.025, shift=0.015
    ),
    "drift": replace(_CALM, slow_body=0.09, bias_body=0.06, slow_turn=(0.08, 0.08, 0.03)),
    "wrong frames": replace(_CALM, wrong=0.02, swapped=0.01, turned=0.01),
    "occlusion": replace(_CALM, hidden=0.012),
    "gaps": replace(_CALM, white_body=0.03, lost=0.06),
    "good estimator": replace(MIXED, clean=1.0, vary=0.0, white_body=0.012, slow_body=0.045, bias_body=0.04),
    "bad estimator": replace(MIXED, clean=1.0, vary=0.0),
    "mixed": MIXED,
}
"""Errors of one kind each, little else, and mixtures: what methods are measured on."""


@dataclass(frozen=True)
class Estimates:
    """Per-frame estimates of n clips of t frames."""

    rotmat: Float[Tensor, "n t 24 3 3"]  # root in the camera's frame
    betas: Float[Tensor, "n t 10"]
    cam: Float[Tensor, "n t 3"]  # crop camera
    true_cam: Float[Tensor, "n t 3"]


class PoseEstimator(Draws):
    """Turns clips of motion, root in the camera's frame, into per-frame estimates."""

    def __init__(self, noise: PoseNoise, generator: torch.Generator) -> None:
        super().__init__(generator)
        self.noise = noise
        self._spread = torch.tensor(_SPREAD, device=self.device)[:, None]
        self._flip = torch.tensor(SMPL_FLIP, device=self.device)
        self._mirror = torch.tensor([-1.0, 1.0, 1.0], device=self.device).diag()

    @torch.no_grad()
    def __call__(self, rotmat: Float[Tensor, "n t 24 3 3"], betas: Float[Tensor, "n 10"]) -> Estimates:
        """Estimates of the poses ``rotmat`` of people of shape ``betas``."""
        noise, (clips, length) = self.noise, rotmat.shape[:2]
        level = 1 / self._uniform(1.0, 1 / noise.clean, clips, 1, 1, 1)  # errors squared weigh alike

        def vary() -> Tensor:
            return level * torch.exp(noise.vary * self._normal(clips, 1, 1, 1))

        lasting = noise.bias_body * vary() * self._normal(clips, 1, 24, 3)
        lasting = lasting + noise.slow_body * vary() * self._drift(clips, length, 24, 3)
        seen = rotmat @ axis_angle_to_rotmat(self._spread * lasting)
        seen = self._hide(seen)
        turn = self._vector(*noise.bias_turn) * vary() * self._normal(clips, 1, 1, 3)
        turn = turn + self._vector(*noise.slow_turn) * vary() * self._drift(clips, length, 1, 3)
        turn = turn + self._vector(*noise.white_turn) * vary() * self._tailed(clips, length, 1, 3)
        seen[:, :, :1] = axis_angle_to_rotmat(turn) @ seen[:, :, :1]
        seen = self._confuse(seen)
        white = noise.white_body * vary() * self._spread * self._tailed(clips, length, 24, 3)
        wrong = self._some(self._intervals(clips, length, noise.wrong, 3))[..., None, None]
        white = white + wrong * 0.45 * self._normal(clips, length, 24, 3)
        seen = seen @ axis_angle_to_rotmat(white)

        size = level[..., 0] * noise.shape
        shape = betas[:, None] + size * (self._normal(clips, 1, 10) + 0.5 * self._normal(clips, length, 10))
        spread = self._vector(noise.scale, noise.shift, noise.shift)
        true_cam = 0.4 * spread * self._drift(clips, length, 3)  # the box follows the person with a lag
        cam = true_cam + spread * (vary() * self._tailed(clips, length, 1, 3))[:, :, 0]
        lost = self._some(self._intervals(clips, length, noise.lost, 6))
        pose, shape, cam = (bridge(values, ~lost) for values in (rotmat_to_rot6d(seen), shape, cam))
        return Estimates(rot6d_to_rotmat(pose).view(seen.shape), shape, _camera(cam), _camera(true_cam))

    def _some(self, wrong: Bool[Tensor, "n t ..."]) -> Bool[Tensor, "n t ..."]:
        """What happens in a share of the clips only."""
        return wrong & self._chance(self.noise.share, len(wrong), *[1] * (wrong.dim() - 1))

    def _drift(self, clips: int, length: int, *shape: int) -> Float[Tensor, "{clips} {length} ..."]:
        """Slow noise of unit variance; each clip has one of the time constants."""
        kinds = torch.stack([self._slow(frames, clips, length, *shape) for frames in self.noise.slow_frames])
        chosen = torch.randint(len(kinds), (clips,), generator=self.generator, device=self.device)
        return kinds[chosen, torch.arange(clips, device=self.device)]

    def _tailed(
        self, clips: int, length: int, joints: int, axes: int
    ) -> Float[Tensor, "{clips} {length} {joints} {axes}"]:
        """White noise with heavy tails."""
        heavy = 1 + 3.0 * self._chance(self.noise.tail, clips, length, joints, 1)
        return heavy * self._normal(clips, length, joints, axes)

    def _hide(self, seen: Float[Tensor, "n t 24 3 3"]) -> Float[Tensor, "n t 24 3 3"]:
        """Limbs that are occluded for a while: turned by a constant angle, or frozen."""
        clips, length = seen.shape[:2]
        for limb in LIMBS:
            hidden = self._some(self._intervals(clips, length, self.noise.hidden, 30))
            offset = 0.35 * self._normal(clips, 1, len(limb), 3)
            guessed = seen[:, :, limb] @ axis_angle_to_rotmat(offset)
            rows = torch.arange(clips, device=self.device)[:, None]
            frozen = seen[rows, self._held(~hidden)][:, :, limb]
            guess = torch.where(self._chance(0.5, clips, 1, 1, 1, 1), guessed, frozen)
            seen[:, :, limb] = torch.where(hidden[..., None, None, None], guess, seen[:, :, limb])
        return seen

    def _confuse(self, seen: Float[Tensor, "n t 24 3 3"]) -> Float[Tensor, "n t 24 3 3"]:
        """Arms or legs of the other side; front taken for back, which leaves the silhouette as it is."""
        clips, length = seen.shape[:2]
        mirrored = self._mirror @ seen[:, :, self._flip] @ self._mirror
        for joints in _SIDES:
            swapped = self._some(self._intervals(clips, length, self.noise.swapped, 5))[..., None, None, None]
            seen[:, :, joints] = torch.where(swapped, mirrored[:, :, joints], seen[:, :, joints])
        about = seen[:, :, :1] @ seen.new_tensor([-1.0, 1.0, -1.0]).diag()
        turned = self._some(self._intervals(clips, length, self.noise.turned, 5))[..., None, None, None]
        return torch.where(turned, torch.cat([about, mirrored[:, :, 1:]], 2), seen)


def pieces(
    motions: list[Motion], generator: torch.Generator, longest: int = 160, shortest: int = 24
) -> Iterator[tuple[str, Float[Tensor, "1 t 24 3 3"], Float[Tensor, "1 10"]]]:
    """Held-out motions as they are, cut into pieces, each seen by a camera of its own: name, rotmat with the
    root in the camera's frame, betas."""
    draws = Draws(generator)
    for motion in motions:
        for start in range(0, len(motion.rotmat) - shortest + 1, longest):
            rotmat = motion.rotmat[None, start : start + longest].clone()
            rotmat[:, :, 0] = draws._camera(1) @ rotmat[:, :, 0]
            betas = (0.8 * draws._normal(1, 10)).clamp(-2, 2)
            if rotmat.shape[1] >= shortest:
                yield f"{motion.name}_{start:05d}", rotmat, betas


def _camera(errors: Float[Tensor, "n t 3"]) -> Float[Tensor, "n t 3"]:
    """Crop cameras of errors of the logarithm of scale, and of offset."""
    return torch.cat([PEAK * errors[..., :1].exp(), errors[..., 1:]], -1)

"""What a fitted track should be: the terms of the energy, and Gauss and Newton's matrix of them.

``b`` blocks of ``t`` frames are handled at once; blocks know nothing of each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from ..models.landmark_body import LandmarkBody
from ..utils.geometry import axis_angle_to_rotmat
from ..utils.joint_limits import HINGES, flexion_sine
from .camera import NEAREST, solve_camera

# Joints that are fitted: not hands and toes, about which landmarks say too little.
FITTED = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21]
TURNS = 3 * len(FITTED)
HIPS = slice(23, 25)
# Landmarks whose acceleration is bounded: limb joints, nose, heels, toes.
_MOVING = [0, 11, 12, 13, 14, 15, 16, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32]
# How firmly TCMR's rotation of a joint is kept, relative to the large joints of the limbs.
STIFF = [1.0, 1, 1, 2, 1, 1, 2, 1, 1, 2, 2, 2, 2, 2, 1, 1, 1, 1, 3, 3]
_LOOSE = 0.1  # rad that knees and elbows may bend backwards
_CAMERA = 0.5  # of TCMR's camera: per relative change of the distance, squared
TURN_PRIOR = [1.0, 0.4, 2.0]  # metric landmarks are turned about the vertical more than about others


@dataclass(frozen=True)
class FitOptions:
    """Weights of the energy, per frame at 30 fps; the defaults are the best on the validation performers.

    Args:
        pixels: 2D errors, per (1 % of the person's box)^2; ``pixel_scale``: where they stop to grow, boxes.
        metres: errors of the metric landmarks, per (10 cm)^2, depth weighted by ``depth``; ``metre_scale``:
            where they stop to grow, in metres.
        pose, root: turns of the joints and of the whole body away from TCMR, per rad^2.
        motion: accelerations, per (10 m/s^2)^2, growing slowly beyond ``calm`` m/s^2.
        travel: acceleration of the whole body along the optical axis, per (10 m/s^2)^2.
        shape: betas away from TCMR's, per track and second.
        turn, size: of the metric landmarks as a whole, constant in a track: per rad^2 and per logarithm^2.
        hinge: knees and elbows that bend backwards, per rad^2.
        iterations: of Gauss and Newton's method.
        smooth: seconds, width of the Gaussian that TCMR's rotations get before they are the prior.
    """

    pixels: float = 0.02
    pixel_scale: float = 0.04
    metres: float = 0.1
    metre_scale: float = 0.12
    depth: float = 0.5
    pose: float = 0.4
    root: float = 5.0
    motion: float = 0.025
    calm: float = 15.0
    travel: float = 0.002
    shape: float = 0.02
    turn: float = 3.0
    size: float = 10.0
    hinge: float = 20.0
    iterations: int = 4
    smooth: float = 0.03


DEFAULTS = FitOptions()


class Observed(NamedTuple):
    """What is fitted to."""

    rotmat: Float[Tensor, "b t 24 3 3"]  # prior
    rays: Float[Tensor, "b t 33 2"]  # viewing rays of the landmarks
    unit: Float[Tensor, "b t 1 1"]  # 1 % of the person's box, as rays
    world: Float[Tensor, "b t 33 3"]  # metric landmarks about the hips
    weights: Float[Tensor, "b t 33"]
    guess: Float[Tensor, "b t 3"]  # translation of the hips


class Shared(NamedTuple):
    """What is constant in a track."""

    betas: Float[Tensor, " 10"]
    turn: Float[Tensor, " 3"]  # axis-angle that takes the body's frame to the metric landmarks'
    size: Float[Tensor, " 1"]  # logarithm


class Errors(NamedTuple):
    """Of a state, in the units of :class:`FitOptions`."""

    rotmat: Float[Tensor, "b t 24 3 3"]
    placed: Float[Tensor, "b t 33 3"]  # landmarks in the camera's frame
    pixels: Float[Tensor, "b t 33 2"]
    metres: Float[Tensor, "b t 33 3"]
    moves: Float[Tensor, "b inner 17 3"]  # accelerations of landmarks, but in the first and the last frame
    travel: Float[Tensor, "b inner"]  # acceleration along the optical axis


class System(NamedTuple):
    """Blocks of a banded matrix, see :func:`lib.motion.gauss_newton.solve_banded`, and the weighted slopes of
    errors in it."""

    same: Float[Tensor, "b t 63 63"]
    following: Float[Tensor, "b t-1 63 63"]
    second: Float[Tensor, "b inner 63 63"]
    pixels: Float[Tensor, "b t 66 63"]
    metres: Float[Tensor, "b t 99 60"]
    pixel_weights: Float[Tensor, "b t 33 1"]
    metre_weights: Float[Tensor, "b t 33 3"]


class Energy:
    """The energy of a state ``x``: turns of 20 joints away from the prior and a translation.

    A sum over frames in units of 1/30 s, for each block.
    """

    def __init__(
        self,
        body: LandmarkBody,
        seen: Observed,
        prior_betas: Float[Tensor, " 10"],
        fps: float,
        options: FitOptions,
    ) -> None:
        self.body, self.seen, self.options, self.fps = body, seen, options, fps
        self.prior_betas, like = prior_betas, seen.rays
        stiff = like.new_tensor(STIFF) * options.pose
        stiff[0] = options.root
        self._stiff = stiff.repeat_interleave(3)
        self.axes = 10 * like.new_tensor([1.0, 1.0, options.depth])
        self._across = like.new_tensor([1.0, 1.0, 0.0])  # accelerations along the optical axis are apart
        self._rate = 0.1 * fps**2  # second difference in metres -> 10 m/s^2

    def start(self, shared: Shared) -> Float[Tensor, "b t 63"]:
        """The state that is TCMR's poses where the landmarks are."""
        blocks, length = self.seen.rays.shape[:2]
        turns = self.seen.rays.new_zeros(blocks, length, TURNS)
        landmarks = self.pose(turns, shared)[2]
        weights = self.seen.weights / (100 * self.seen.unit[..., 0]) ** 2
        return ahead(
            torch.cat([turns, solve_camera(landmarks, self.seen.rays, weights, self.seen.guess)], -1)
        )

    def pose(
        self, turns: Float[Tensor, "b t 60"], shared: Shared
    ) -> tuple[
        Float[Tensor, "b t 24 3 3"],
        Float[Tensor, "b t 49 3"],
        Float[Tensor, "b t 33 3"],
        Float[Tensor, "b t 3"],
    ]:
        """Rotations, joints, landmarks about the middle of the hips, and that."""
        rotmat = self.seen.rotmat.clone()
        rotmat[:, :, FITTED] = (
            axis_angle_to_rotmat(turns.view(*turns.shape[:-1], -1, 3)) @ self.seen.rotmat[:, :, FITTED]
        )
        joints, landmarks = self.body(rotmat.flatten(0, 1), shared.betas[None])
        joints, landmarks = (values.view(*turns.shape[:2], -1, 3) for values in (joints, landmarks))
        hips = landmarks[:, :, HIPS].mean(2)
        return rotmat, joints, landmarks - hips[:, :, None], hips

    def errors(self, x: Float[Tensor, "b t 63"], shared: Shared) -> Errors:
        """How far a state is from what is seen, and how it moves."""
        rotmat, _, landmarks, _ = self.pose(x[..., :TURNS], shared)
        transl = x[..., TURNS:]
        placed = landmarks + transl[:, :, None]
        rays = placed[..., :2] / placed[..., 2:].clamp(min=NEAREST)
        expected = (self.seen.world @ axis_angle_to_rotmat(shared.turn)) * torch.exp(shared.size)
        moving = landmarks[:, :, _MOVING] + (transl * self._across)[:, :, None]
        return Errors(
            rotmat=rotmat,
            placed=placed,
            pixels=(rays - self.seen.rays) / self.seen.unit,
            metres=(landmarks - expected) * self.axes,
            moves=self._rate * _second_difference(moving),
            travel=self._rate * _second_difference(transl[..., 2]),
        )

    def terms(
        self, x: Float[Tensor, "b t 63"], shared: Shared, errors: Errors | None = None
    ) -> dict[str, Float[Tensor, " b"]]:
        """The weighted terms. ``errors``: those of the state, where they are known."""
        found, chosen, weights = errors or self.errors(x, shared), self.options, self.seen.weights
        pixels, metres = found.pixels.square().sum(-1), found.metres.square().sum(-1)
        away = (x[..., TURNS:] - self.seen.guess) / self.seen.guess[..., 2:]
        moves = found.moves.square().sum(-1)
        terms = {
            "pixels": chosen.pixels * weights * pixels / (1 + pixels / self._pixel_end),
            "metres": chosen.metres * weights * metres / (1 + metres / self._metre_end),
            "pose": self._stiff * x[..., :TURNS].square(),
            "hinge": chosen.hinge * _backwards(found.rotmat).square(),
            "camera": _CAMERA * away.square(),
            "motion": chosen.motion * self._calm * torch.log1p(moves / self._calm),
            "travel": chosen.travel * found.travel.square(),
        }
        summed = {name: value.flatten(1).sum(1) * (30 / self.fps) for name, value in terms.items()}
        constant = chosen.turn * (shared.turn.square() * shared.turn.new_tensor(TURN_PRIOR)).sum()
        constant = constant + chosen.size * shared.size.square().sum()
        constant = constant + chosen.shape * (shared.betas - self.prior_betas).square().sum()
        return summed | {"constant": (constant * x.shape[1] * 30 / self.fps).expand(len(x))}

    def __call__(
        self, x: Float[Tensor, "b t 63"], shared: Shared, errors: Errors | None = None
    ) -> Float[Tensor, " b"]:
        """The sum of :meth:`terms`."""
        return torch.stack(list(self.terms(x, shared, errors).values())).sum(0)

    @property
    def _pixel_end(self) -> float:
        return (100 * self.options.pixel_scale) ** 2

    @property
    def _metre_end(self) -> float:
        return (10 * self.options.metre_scale) ** 2

    @property
    def _calm(self) -> float:
        return (0.1 * self.options.calm) ** 2

    def linearise(self, x: Float[Tensor, "b t 63"], shared: Shared, errors: Errors | None = None) -> System:
        """Gauss and Newton's matrix at a state, with the robust terms as weights (half the Hessian, in the
        unit of the energy). ``errors``: those of the state, where they are known."""
        chosen, found = self.options, errors or self.errors(x, shared)
        slopes = self._slopes(x, shared, found)

        square = found.pixels.square().sum(-1)
        weight = (chosen.pixels * self.seen.weights).sqrt() / (1 + square / self._pixel_end)
        depth = found.placed[..., 2:, None].clamp(min=NEAREST)
        rays = found.placed[..., :2, None] / depth
        pixels = (slopes[..., :2, :] - rays * slopes[..., 2:, :]) / (depth * self.seen.unit[..., None])
        pixels = (weight[..., None, None] * pixels).flatten(2, 3)
        same = pixels.mT @ pixels

        square = found.metres.square().sum(-1)
        weight_metres = (chosen.metres * self.seen.weights).sqrt() / (1 + square / self._metre_end)
        metres = (weight_metres[..., None, None] * self.axes[:, None] * slopes[..., :TURNS]).flatten(2, 3)
        same[..., :TURNS, :TURNS] += metres.mT @ metres
        same.diagonal(0, -2, -1).add_(self._stiffness(found.rotmat))

        blocks, length = x.shape[:2]
        following = x.new_zeros(blocks, max(length - 1, 0), *same.shape[2:])
        second = x.new_zeros(blocks, max(length - 2, 0), *same.shape[2:])
        if length > 2:
            self._add_motion(slopes, found.moves, same, following, second)
        unit = 30 / self.fps
        return System(
            same * unit, following * unit, second * unit, pixels * unit**0.5, metres * unit**0.5,
            weight[..., None] * unit**0.5, weight_metres[..., None] * self.axes * unit**0.5,
        )  # fmt: skip

    def _slopes(
        self, x: Float[Tensor, "b t 63"], shared: Shared, found: Errors
    ) -> Float[Tensor, "b t 33 3 63"]:
        """How the landmarks, about the hips and moved, follow the state."""
        blocks, length = x.shape[:2]
        slopes = self.body.jacobian(found.rotmat.flatten(0, 1), shared.betas[None])[..., FITTED, :]
        turns = _turn_slopes(x[..., :TURNS].reshape(-1, len(FITTED), 3))
        slopes = torch.einsum("nlcji,njik->nlcjk", slopes, turns)
        slopes = slopes.reshape(blocks, length, 33, 3, TURNS)
        slopes = slopes - slopes[:, :, HIPS].mean(2, keepdim=True)
        return torch.cat([slopes, torch.eye(3).to(x).expand(blocks, length, 33, 3, 3)], -1)

    def _stiffness(self, rotmat: Float[Tensor, "b t 24 3 3"]) -> Float[Tensor, "b t 63"]:
        """The diagonal that the priors and joints bent backwards give."""
        hinge = self.options.hinge * (_backwards(rotmat) > 0)
        bent = rotmat.new_zeros(*rotmat.shape[:2], TURNS)
        for number, joint in enumerate(HINGES):
            place = 3 * FITTED.index(joint)
            bent[..., place : place + 3] = hinge[..., number, None]
        trust = _CAMERA / self.seen.guess[..., 2:].square().expand(-1, -1, 3)
        return torch.cat([self._stiff + bent, trust], -1)

    def _add_motion(
        self,
        slopes: Float[Tensor, "b t 33 3 63"],
        moves: Float[Tensor, "b t-2 17 3"],
        same: Float[Tensor, "b t 63 63"],
        following: Float[Tensor, "b t-1 63 63"],
        second: Float[Tensor, "b t-2 63 63"],
    ) -> None:
        """Add what the accelerations give to the blocks of the matrix."""
        chosen, length = self.options, slopes.shape[1]
        across = slopes[:, :, _MOVING] * self._rate
        across[..., 2, -1] = 0
        across = across.flatten(2, 3)
        firm = chosen.motion / (1 + moves.square().sum(-1) / self._calm)
        firm = pad(firm.repeat_interleave(3, -1), (0, 0, 1, 1))[..., None]  # (b, t, 51, 1)
        around = pad(firm[:, 1:] + firm[:, :-1], (0, 0, 0, 0, 1, 1))
        axis = slopes.new_full((1, length, 1, 1), chosen.travel * self._rate**2)
        axis[:, 0] = axis[:, -1] = 0
        around_axis = pad((axis[:, 1:] + axis[:, :-1]), (0, 0, 0, 0, 1, 1))
        for target, weights, along, lag in (
            # The squares of -2 and of two ones; -2 times 1, twice; 1 times 1.
            (
                same,
                around[:, 1:] + around[:, :-1] + 2 * firm,
                around_axis[:, 1:] + around_axis[:, :-1] + 2 * axis,
                0,
            ),
            (following, -2 * around[:, 1:-1], -2 * around_axis[:, 1:-1], 1),
            (second, firm[:, 1:-1], axis[:, 1:-1], 2),
        ):
            target += across[:, : length - lag].mT @ (weights * across[:, lag:])
            target[..., -1, -1] += along[..., 0, 0]


def ahead(x: Float[Tensor, "b t 63"]) -> Float[Tensor, "b t 63"]:
    """States whose bodies are before the camera, not in it or behind it."""
    return torch.cat([x[..., :-1], x[..., -1:].clamp(min=2 * NEAREST)], -1)


def _second_difference(values: Tensor) -> Tensor:
    return values[:, 2:] - 2 * values[:, 1:-1] + values[:, :-2]


def _turn_slopes(turns: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """J of axis-angles: adding d to one turns what it turned by J d (the left Jacobian of
    SO(3))."""
    x, y, z = turns.unbind(-1)
    nothing = torch.zeros_like(x)
    cross = torch.stack([nothing, -z, y, z, nothing, -x, -y, x, nothing], -1).view(*turns.shape, 3)
    square = turns.square().sum(-1)[..., None, None].clamp(min=1e-8)
    angle = square.sqrt()
    first, second = (1 - angle.cos()) / square, (angle - angle.sin()) / (square * angle)
    return torch.eye(3).to(turns) + first * cross + second * (cross @ cross)


def _backwards(rotmat: Float[Tensor, "*batch 24 3 3"]) -> Float[Tensor, "*batch 4"]:
    """How far knees and elbows bend backwards, beyond what bodies can."""
    return torch.clamp(-flexion_sine(rotmat) - _LOOSE, min=0)

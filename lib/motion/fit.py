"""Fit pose, shape and camera of a whole track to its 33 landmarks, starting from what TCMR says.

The counterpart of VIBE's temporal SMPLify for BlazePose landmarks. Only the fit knows the whole track, the
pixels and the perspective; only TCMR knows what poses people take. So the energy stays close to TCMR in
everything that the landmarks leave open.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from ..models.landmark_body import LandmarkBody
from ..utils.crops import CROP_SCALE
from ..utils.geometry import axis_angle_to_rotmat, default_focal, rot6d_to_rotmat, rotmat_to_rot6d
from ..utils.joint_limits import HINGES, flexion_sine
from ..utils.smoothing import gaussian
from .camera import NEAREST, see, weak_to_perspective
from .gauss_newton import solve_banded

# Joints that are fitted: not hands and toes, about which landmarks say too little.
_FITTED = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21]
_TURNS = 3 * len(_FITTED)
_HIPS = slice(23, 25)
# How far a landmark can be trusted to be a point of the body: the face and the hands' are rough.
_TRUST = [0.25] * 11 + [1.0] * 6 + [0.3] * 6 + [1.0] * 6 + [0.6] * 4
# Landmarks whose acceleration is bounded: limb joints, nose, heels, toes.
_MOVING = [0, 11, 12, 13, 14, 15, 16, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32]
# How firmly TCMR's rotation of a joint is kept, relative to the large joints of the limbs.
_STIFF = [1.0, 1, 1, 2, 1, 1, 2, 1, 1, 2, 2, 2, 2, 2, 1, 1, 1, 1, 3, 3]
_LOOSE = 0.1  # rad that knees and elbows may bend backwards
_CAMERA = 0.5  # of TCMR's camera: per relative change of the distance, squared
_TURN_PRIOR = [1.0, 0.4, 2.0]  # metric landmarks are turned about the vertical more than about others


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


class Fitted(NamedTuple):
    """A fitted track of T frames, NumPy float32."""

    rotmat: np.ndarray  # (T, 24, 3, 3), the root's in camera axes
    betas: np.ndarray  # (10,)
    transl: np.ndarray  # (T, 3) metres: a vertex of the posed body is seen at vertex + transl
    joints3d: np.ndarray  # (T, 49, 3) metres, without transl
    joints2d: np.ndarray  # (T, 49, 2) pixels
    energy: tuple[float, float]  # at the start and at the end
    focal: float  # pixels; the camera looks through the image's middle


def solve_camera(
    points: Tensor,
    rays: Tensor,
    weights: Tensor,
    guess: Tensor,
    *,
    trust: float = 0.01,
    depth: Tensor | None = None,
) -> Tensor:
    """Translations (*, 3) that bring points (*, L, 3) onto rays (*, L, 2) x / z, y / z, in closed form.

    Minimises the weighted (*, L) squares of ``x + t_x - u (z + t_z)`` and the same of y, which are linear in
    t, and ``trust`` times the squared distance from ``guess`` (*, 3), which decides where nothing is seen.
    With ``depth`` (*, 1), t_z is that.
    """
    rhs = rays * points[..., 2:] - points[..., :2]  # (*, L, 2)
    wu, wr = (weights[..., None] * rays).sum(-2), (weights[..., None] * rhs).sum(-2)
    # Normal equations [[a I, -wu], [-wu', c]] t = [b, d], by elimination.
    a = (weights.sum(-1) + trust)[..., None]
    b = wr + trust * guess[..., :2]
    c = (weights * rays.square().sum(-1)).sum(-1, keepdim=True) + trust
    d = trust * guess[..., 2:] - (weights[..., None] * rays * rhs).sum((-1, -2))[..., None]
    if depth is None:
        depth = (d + (wu * b).sum(-1, keepdim=True) / a) / (c - wu.square().sum(-1, keepdim=True) / a)
    return torch.cat([(b + wu * depth) / a, depth], -1)


class _Observed(NamedTuple):
    """What is fitted to, B blocks of T frames."""

    rotmat: Tensor  # (B, T, 24, 3, 3) prior
    rays: Tensor  # (B, T, 33, 2) viewing rays of the landmarks
    unit: Tensor  # (B, T, 1, 1): 1 % of the person's box, as rays
    world: Tensor  # (B, T, 33, 3) metric landmarks about the hips
    weights: Tensor  # (B, T, 33)
    guess: Tensor  # (B, T, 3) translation of the hips


class _Shared(NamedTuple):
    """What is constant in a track."""

    betas: Tensor  # (10,)
    turn: Tensor  # (3,) axis-angle that takes the body's frame to the metric landmarks'
    size: Tensor  # (1,) logarithm


class _Errors(NamedTuple):
    """Of a state, in the units of :class:`FitOptions`."""

    rotmat: Tensor  # (B, T, 24, 3, 3)
    placed: Tensor  # (B, T, 33, 3) landmarks in the camera's frame
    pixels: Tensor  # (B, T, 33, 2)
    metres: Tensor  # (B, T, 33, 3)
    moves: Tensor  # (B, T - 2, 17, 3) accelerations of landmarks
    travel: Tensor  # (B, T - 2) acceleration along the optical axis


class Energy:
    """The energy of a state ``x`` (B, T, 63): turns of 20 joints away from the prior and a translation.

    A sum over frames in units of 1/30 s, for each of the B blocks.
    """

    def __init__(
        self, body: LandmarkBody, seen: _Observed, prior_betas: Tensor, fps: float, options: FitOptions
    ) -> None:
        self.body, self.seen, self.options, self.fps = body, seen, options, fps
        self.prior_betas, like = prior_betas, seen.rays
        stiff = like.new_tensor(_STIFF) * options.pose
        stiff[0] = options.root
        self._stiff = stiff.repeat_interleave(3)
        self._axes = 10 * like.new_tensor([1.0, 1.0, options.depth])
        self._across = like.new_tensor([1.0, 1.0, 0.0])  # accelerations along the optical axis are apart
        self._rate = 0.1 * fps**2  # second difference in metres -> 10 m/s^2

    def start(self, shared: _Shared) -> Tensor:
        """The state that is TCMR's poses where the landmarks are."""
        blocks, length = self.seen.rays.shape[:2]
        turns = self.seen.rays.new_zeros(blocks, length, _TURNS)
        landmarks = self.pose(turns, shared)[2]
        weights = self.seen.weights / (100 * self.seen.unit[..., 0]) ** 2
        return _ahead(
            torch.cat([turns, solve_camera(landmarks, self.seen.rays, weights, self.seen.guess)], -1)
        )

    def pose(self, turns: Tensor, shared: _Shared) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """rotmat (B, T, 24, 3, 3), joints (B, T, 49, 3), landmarks (B, T, 33, 3) about the hips (B, T, 3)."""
        rotmat = self.seen.rotmat.clone()
        rotmat[:, :, _FITTED] = (
            axis_angle_to_rotmat(turns.unflatten(-1, (-1, 3))) @ self.seen.rotmat[:, :, _FITTED]
        )
        joints, landmarks = self.body(rotmat.flatten(0, 1), shared.betas[None])
        joints, landmarks = (values.unflatten(0, rotmat.shape[:2]) for values in (joints, landmarks))
        hips = landmarks[:, :, _HIPS].mean(2)
        return rotmat, joints, landmarks - hips[:, :, None], hips

    def errors(self, x: Tensor, shared: _Shared) -> _Errors:
        rotmat, _, landmarks, _ = self.pose(x[..., :_TURNS], shared)
        transl = x[..., _TURNS:]
        placed = landmarks + transl[:, :, None]
        rays = placed[..., :2] / placed[..., 2:].clamp(min=NEAREST)
        expected = (self.seen.world @ axis_angle_to_rotmat(shared.turn)) * torch.exp(shared.size)
        moving = landmarks[:, :, _MOVING] + (transl * self._across)[:, :, None]
        return _Errors(
            rotmat=rotmat,
            placed=placed,
            pixels=(rays - self.seen.rays) / self.seen.unit,
            metres=(landmarks - expected) * self._axes,
            moves=self._rate * _second_difference(moving),
            travel=self._rate * _second_difference(transl[..., 2]),
        )

    def terms(self, x: Tensor, shared: _Shared, errors: _Errors | None = None) -> dict[str, Tensor]:
        """The weighted terms (B,). ``errors``: those of the state, where they are known."""
        found, chosen, weights = errors or self.errors(x, shared), self.options, self.seen.weights
        pixels, metres = found.pixels.square().sum(-1), found.metres.square().sum(-1)
        away = (x[..., _TURNS:] - self.seen.guess) / self.seen.guess[..., 2:]
        moves = found.moves.square().sum(-1)
        terms = {
            "pixels": chosen.pixels * weights * pixels / (1 + pixels / self._pixel_end),
            "metres": chosen.metres * weights * metres / (1 + metres / self._metre_end),
            "pose": self._stiff * x[..., :_TURNS].square(),
            "hinge": chosen.hinge * _backwards(found.rotmat).square(),
            "camera": _CAMERA * away.square(),
            "motion": chosen.motion * self._calm * torch.log1p(moves / self._calm),
            "travel": chosen.travel * found.travel.square(),
        }
        summed = {name: value.flatten(1).sum(1) * (30 / self.fps) for name, value in terms.items()}
        constant = chosen.turn * (shared.turn.square() * shared.turn.new_tensor(_TURN_PRIOR)).sum()
        constant = constant + chosen.size * shared.size.square().sum()
        constant = constant + chosen.shape * (shared.betas - self.prior_betas).square().sum()
        return summed | {"constant": (constant * x.shape[1] * 30 / self.fps).expand(len(x))}

    def __call__(self, x: Tensor, shared: _Shared, errors: _Errors | None = None) -> Tensor:
        """(B,)"""
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

    def linearise(self, x: Tensor, shared: _Shared, errors: _Errors | None = None) -> _System:
        """Gauss and Newton's matrix at a state, with the robust terms as weights (half the Hessian, in the
        unit of the energy). ``errors``: those of the state, where they are known."""
        chosen, found = self.options, errors or self.errors(x, shared)
        blocks, length = x.shape[:2]
        slopes = self.body.jacobian(found.rotmat.flatten(0, 1), shared.betas[None])[..., _FITTED, :]
        turns = _turn_slopes(x[..., :_TURNS].unflatten(-1, (-1, 3)).flatten(0, 1))
        slopes = torch.einsum("nlcji,njik->nlcjk", slopes, turns)
        slopes = slopes.flatten(3).unflatten(0, (blocks, length))  # (B, T, 33, 3, 60)
        slopes = slopes - slopes[:, :, _HIPS].mean(2, keepdim=True)
        slopes = torch.cat([slopes, torch.eye(3).to(x).expand(blocks, length, 33, 3, 3)], -1)

        square = found.pixels.square().sum(-1)
        weight = (chosen.pixels * self.seen.weights).sqrt() / (1 + square / self._pixel_end)
        depth = found.placed[..., 2:, None].clamp(min=NEAREST)
        rays = found.placed[..., :2, None] / depth
        pixels = (slopes[..., :2, :] - rays * slopes[..., 2:, :]) / (depth * self.seen.unit[..., None])
        pixels = (weight[..., None, None] * pixels).flatten(2, 3)
        same = pixels.mT @ pixels

        square = found.metres.square().sum(-1)
        weight_metres = (chosen.metres * self.seen.weights).sqrt() / (1 + square / self._metre_end)
        metres = (weight_metres[..., None, None] * self._axes[:, None] * slopes[..., :_TURNS]).flatten(2, 3)
        same[..., :_TURNS, :_TURNS] += metres.mT @ metres
        trust = _CAMERA / self.seen.guess[..., 2:].square().expand(-1, -1, 3)
        hinge = chosen.hinge * (_backwards(found.rotmat) > 0)
        bent = x.new_zeros(blocks, length, _TURNS)
        for number, joint in enumerate(HINGES):
            place = 3 * _FITTED.index(joint)
            bent[..., place : place + 3] = hinge[..., number, None]
        same.diagonal(0, -2, -1).add_(torch.cat([self._stiff + bent, trust], -1))

        following = x.new_zeros(blocks, max(length - 1, 0), *same.shape[2:])
        second = x.new_zeros(blocks, max(length - 2, 0), *same.shape[2:])
        if length > 2:
            across = slopes[:, :, _MOVING] * self._rate
            across[..., 2, -1] = 0
            across = across.flatten(2, 3)
            firm = chosen.motion / (1 + found.moves.square().sum(-1) / self._calm)
            firm = pad(firm.repeat_interleave(3, -1), (0, 0, 1, 1))[..., None]  # (B, T, 51, 1)
            around = pad(firm[:, 1:] + firm[:, :-1], (0, 0, 0, 0, 1, 1))
            axis = x.new_full((1, length, 1, 1), chosen.travel * self._rate**2)
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
        unit = 30 / self.fps
        return _System(
            same * unit, following * unit, second * unit, pixels * unit**0.5, metres * unit**0.5,
            weight[..., None] * unit**0.5, weight_metres[..., None] * self._axes * unit**0.5,
        )  # fmt: skip


class _System(NamedTuple):
    """Blocks of a banded matrix, see :func:`solve_banded`, and the weighted slopes of errors in it."""

    same: Tensor
    following: Tensor
    second: Tensor
    pixels: Tensor  # (B, T, 66, 63)
    metres: Tensor  # (B, T, 99, 60)
    pixel_weights: Tensor  # (B, T, 33, 1)
    metre_weights: Tensor  # (B, T, 33, 3)


def _ahead(x: Tensor) -> Tensor:
    """States whose bodies are before the camera, not in it or behind it."""
    return torch.cat([x[..., :-1], x[..., -1:].clamp(min=2 * NEAREST)], -1)


def _second_difference(values: Tensor) -> Tensor:
    return values[:, 2:] - 2 * values[:, 1:-1] + values[:, :-2]


def _turn_slopes(turns: Tensor) -> Tensor:
    """(*, 3, 3) J of axis-angles (*, 3): adding d to one turns what it turned by J d (the left Jacobian of
    SO(3))."""
    x, y, z = turns.unbind(-1)
    nothing = torch.zeros_like(x)
    cross = torch.stack([nothing, -z, y, z, nothing, -x, -y, x, nothing], -1).unflatten(-1, (3, 3))
    square = turns.square().sum(-1)[..., None, None].clamp(min=1e-8)
    angle = square.sqrt()
    first, second = (1 - angle.cos()) / square, (angle - angle.sin()) / (square * angle)
    return torch.eye(3).to(turns) + first * cross + second * (cross @ cross)


def _backwards(rotmat: Tensor) -> Tensor:
    """(*, 4): how far knees and elbows bend backwards, beyond what bodies can."""
    return (-flexion_sine(rotmat) - _LOOSE).clamp(min=0)


def minimise(energy: Energy, x: Tensor, shared: _Shared, iterations: int) -> Tensor:
    """Levenberg and Marquardt's method; no block's energy ever grows. Returns the state."""
    damping = x.new_full((len(x),), 1e-2)
    for _ in range(iterations):
        x = x.detach().requires_grad_()
        with torch.enable_grad():
            errors = energy.errors(x, shared)
            value = energy(x, shared, errors)
            (slope,) = torch.autograd.grad(value.sum(), x)
        with torch.no_grad():
            system = energy.linearise(x, shared, errors)
            same = system.same.clone()
            same.diagonal(0, -2, -1).mul_(1 + damping[:, None, None])
            step = solve_banded(same, system.following, system.second, 0.5 * slope[..., None])[..., 0]
            tried = _ahead(x - step)
            better = energy(tried, shared) < value
            x = torch.where(better[:, None, None], tried, x)
            damping = torch.where(better, damping * 0.2, damping * 10).clamp(1e-5, 1e5)
    return x.detach()


def fit_constants(energy: Energy, x: Tensor, shared: _Shared, iterations: int) -> _Shared:
    """Shape, and turn and size of the metric landmarks, together with the state of some stretches of a track.

    The constants meet every frame: they are eliminated from the banded system (Schur complement). How errors
    follow the constants comes from finite differences.
    """
    damping = 1e-2
    packed = torch.cat(shared)
    for _ in range(iterations):
        x = x.detach().requires_grad_()
        packed = packed.detach().requires_grad_()
        with torch.enable_grad():
            errors = energy.errors(x, _unpack(packed))
            value = energy(x, _unpack(packed), errors).sum()
            slope, slope_constants = torch.autograd.grad(value, (x, packed))
        with torch.no_grad():
            system = energy.linearise(x, _unpack(packed), errors)
            cross, own = _constant_blocks(energy, system, x, packed)
            same = system.same.clone()
            same.diagonal(0, -2, -1).mul_(1 + damping)
            own.diagonal().mul_(1 + damping)
            right = torch.cat([0.5 * slope[..., None], cross], -1)
            solved = solve_banded(same, system.following, system.second, right)
            complement = own - torch.einsum("btik,btil->kl", cross, solved[..., 1:])
            rest = 0.5 * slope_constants - torch.einsum("btik,bti->k", cross, solved[..., 0])
            change = torch.linalg.solve(complement, rest)
            tried = _ahead(x - (solved[..., 0] - solved[..., 1:] @ change))
            if energy(tried, _unpack(packed - change)).sum() < value:
                x, packed, damping = tried, packed - change, damping * 0.2
            else:
                damping *= 10
    return _unpack(packed.detach())


def _unpack(packed: Tensor) -> _Shared:
    return _Shared(*packed.split([10, 3, 1]))


def _constant_blocks(
    energy: Energy, system: _System, x: Tensor, packed: Tensor, change: float = 1e-2
) -> tuple[Tensor, Tensor]:
    """The rows (B, T, 63, 14) and the block (14, 14) of the constants in the Gauss-Newton matrix."""

    def weighted(values: Tensor) -> Tensor:
        found = energy.errors(x, _unpack(values))
        pixels = (system.pixel_weights * found.pixels).flatten(2)
        metres = (system.metre_weights * found.metres / energy._axes).flatten(2)
        return torch.cat([pixels, metres], -1)

    still = weighted(packed)
    moved = packed + change * torch.eye(len(packed)).to(packed)
    slopes = torch.stack([(weighted(values) - still) / change for values in moved], -1)  # (B, T, 165, 14)
    pixels, metres = slopes.split([system.pixels.shape[2], system.metres.shape[2]], 2)
    cross = system.pixels.mT @ pixels
    cross[:, :, :_TURNS] += system.metres.mT @ metres
    chosen = energy.options
    turn = [chosen.turn * share for share in _TURN_PRIOR]
    prior = packed.new_tensor([*[chosen.shape] * 10, *turn, chosen.size])
    frames = x.shape[0] * x.shape[1] * 30 / energy.fps
    own = torch.einsum("btrk,btrl->kl", slopes, slopes) + torch.diag(prior * frames)
    return cross, own


BLOCK, OVERLAP = 160, 32
"""Frames at 30 fps of the blocks that are fitted at once, and that neighbouring blocks share."""
_CHUNK, _CHUNKS = 30, 3  # frames at 30 fps, and number, of the pieces that give the constants of a track
_AT_ONCE = 512  # frames in memory on a CPU
MIN_VISIBILITY = 0.3
MIN_LANDMARKS = 8
"""A frame can be used if that many landmarks are seen, and a track if a third of its frames can."""


def usable_frames(visibility: np.ndarray) -> np.ndarray:
    """(T, 33) -> (T,) bool: frames with enough landmarks for a fit."""
    return (visibility > MIN_VISIBILITY).sum(1) >= MIN_LANDMARKS


def block_starts(frames: int, length: int, overlap: int) -> np.ndarray:
    """First frames of blocks of ``length`` frames that cover a track and share ``overlap`` frames or more."""
    count = 1 if length >= frames else 1 + -(-(frames - length) // (length - overlap))
    return np.linspace(0, frames - length, count).round().astype(int)


def seam_weights(starts: np.ndarray, length: int, frames: int) -> np.ndarray:
    """(blocks, length): how much of each frame comes from each block; over the middle half of what two blocks
    share, one fades into the next. Weights of a frame sum to 1."""
    place = np.arange(length)
    weights = np.ones((len(starts), length), np.float32)
    for k, (start, following) in enumerate(itertools.pairwise(starts)):
        shared = start + length - following
        fade = ((place[:shared] + 0.5) / shared * 2 - 0.5).clip(0, 1)
        weights[k + 1, :shared] *= fade
        weights[k, length - shared :] *= 1 - fade
    total = np.zeros(frames, np.float32)  # more than 1 where three short blocks meet
    for start, weight in zip(starts, weights):
        total[start : start + length] += weight
    return weights / np.stack([total[start : start + length] for start in starts])


class _Track:
    """A track's arrays, and the energy of any of its stretches."""

    def __init__(
        self,
        body: LandmarkBody,
        rotmat: np.ndarray,
        betas: np.ndarray,
        guess: np.ndarray,
        side: np.ndarray,
        landmarks: tuple[np.ndarray, np.ndarray, np.ndarray],
        usable: np.ndarray,
        lens: tuple[float, float, float],
        fps: float,
        options: FitOptions,
    ) -> None:
        focal, cx, cy = lens
        xy, visibility, world = landmarks
        self.body, self.fps, self.options = body, fps, options
        self.device = body.joint_template.device
        self.rotmat = np.asarray(rotmat, np.float32)
        if options.smooth:
            blurred = torch.from_numpy(gaussian(self.rotmat, options.smooth * fps))
            self.rotmat = rot6d_to_rotmat(rotmat_to_rot6d(blurred)).numpy()
        self.rays = ((xy - np.array([cx, cy])) / focal).astype(np.float32)
        self.unit = (0.01 * side / focal).astype(np.float32)[:, None, None]
        self.world = world - world[:, _HIPS].mean(1, keepdims=True)
        self.weights = np.where(usable[:, None], np.array(_TRUST, np.float32) * visibility**2, 0)
        self.rays[~usable], self.unit[~usable], self.world[~usable] = 0, 0.01, 0
        self.guess = np.asarray(guess, np.float32)
        prior = torch.from_numpy(np.median(betas, 0).astype(np.float32)).to(self.device)
        self.shared = _Shared(prior, torch.zeros(3, device=self.device), torch.zeros(1, device=self.device))

    @torch.no_grad()
    def energy(self, starts: np.ndarray, length: int) -> Energy:
        """Of blocks of ``length`` frames that begin at ``starts``."""
        rows = np.asarray(starts)[:, None] + np.arange(length)
        parts = (self.rotmat, self.rays, self.unit, self.world, self.weights, self.guess)
        seen = _Observed(*(torch.from_numpy(part[rows]).to(self.device) for part in parts))
        energy = Energy(self.body, seen, self.shared.betas, self.fps, self.options)
        hips = energy.pose(torch.zeros(*rows.shape, _TURNS, device=self.device), self.shared)[3]
        energy.seen = seen._replace(guess=seen.guess + hips)
        return energy

    @torch.no_grad()
    def place(
        self,
        states: np.ndarray,
        shared: _Shared,
        energy: tuple[float, float],
        lens: tuple[float, float, float],
    ) -> Fitted:
        """The bodies of states (T, 63)."""
        parts: list[list[np.ndarray]] = []
        for start in range(0, len(states), _AT_ONCE):
            x = torch.from_numpy(states[None, start : start + _AT_ONCE]).to(self.device)
            block = self.energy(np.array([start]), x.shape[1])
            posed, points, _, hips = block.pose(x[..., :_TURNS], shared)
            parts.append([v[0].cpu().numpy() for v in (posed, points, x[..., _TURNS:] - hips)])
        rotmat, joints, transl = (np.concatenate(values) for values in zip(*parts))
        focal, cx, cy = lens
        joints2d = see(joints, transl[:, None], focal, (2 * cx, 2 * cy)).astype(np.float32)
        return Fitted(rotmat, shared.betas.cpu().numpy(), transl, joints, joints2d, energy, focal)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Many products of small matrices: several threads mostly wait for each other, by spinning."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@_one_thread()
def fit_track(
    body: LandmarkBody,
    rotmat: np.ndarray,
    theta: np.ndarray,
    boxes: np.ndarray,
    landmarks: tuple[np.ndarray, np.ndarray, np.ndarray],
    *,
    width: int,
    height: int,
    fps: float,
    focal: float | None = None,
    options: FitOptions = FitOptions(),
    progress: Callable[[int], object] | None = None,
) -> Fitted | None:
    """Fit one person's track of T consecutive frames.

    Args:
        body: on the device to use, of the body model that TCMR was trained with.
        rotmat, theta: TCMR's (T, 24, 3, 3) and (T, 85): crop camera, pose, betas.
        boxes: (T, 4) cx, cy, w, h px, unscaled, that the crop camera refers to.
        landmarks: xy (T, 33, 2) px, visibility (T, 33), world (T, 33, 3) m, flips undone.
        width, height: of the image, px.
        fps: frames per second; smoothness is in seconds.
        focal: px; by default :func:`default_focal`.
        progress: called with the number of frames just finished.

    Returns:
        the fitted track, or None where the landmarks are of no use. Memory does not grow with T beyond the
        arrays given and returned: long tracks are fitted in blocks that overlap.
    """
    frames = len(rotmat)
    lens = focal or default_focal(width, height), width / 2, height / 2
    xy, visibility, world = (np.asarray(part, np.float32) for part in landmarks)
    finite = np.isfinite(np.concatenate([xy, visibility[..., None], world], -1)).all((1, 2))
    usable = finite & usable_frames(visibility)
    if 3 * usable.sum() < frames:
        return None
    scaled = np.concatenate([boxes[:, :2], CROP_SCALE * boxes[:, 2:]], 1)
    guess = weak_to_perspective(theta[:, :3], scaled, lens[0], width, height)
    seen = xy, visibility, world
    track = _Track(body, rotmat, theta[:, 75:], guess, boxes[:, 2], seen, usable, lens, fps, options)

    def count(at_30_fps: int) -> int:
        return min(frames, max(3, round(at_30_fps * fps / 30)))

    chunk = count(_CHUNK)
    starts = np.linspace(0, frames - chunk, min(_CHUNKS, 1 + frames // (2 * chunk))).round().astype(int)
    energy = track.energy(starts, chunk)
    shared = fit_constants(energy, energy.start(track.shared), track.shared, options.iterations)

    length, done, first, last = count(BLOCK), 0, 0.0, 0.0
    starts = block_starts(frames, length, count(OVERLAP))
    weights = seam_weights(starts, length, frames)
    states = np.zeros((frames, _TURNS + 3), np.float32)
    together = max(1, _AT_ONCE // length) if track.device.type == "cpu" else 64
    for group in range(0, len(starts), together):
        chosen = starts[group : group + together]
        energy = track.energy(chosen, length)
        begin = energy.start(shared)
        x = minimise(energy, begin, shared, options.iterations)
        with torch.no_grad():
            first += float(energy(energy.start(track.shared), track.shared).sum())
            last += float(energy(x, shared).sum())
        for start, weight, block in zip(chosen, weights[group:], x.cpu().numpy()):
            states[start : start + length] += weight[:, None] * block
        if progress is not None:
            reached = int(chosen[-1]) + length
            progress(reached - done)
            done = reached
    return track.place(states, shared, (first, last), lens) if last <= first else None


_WINDOW = 6  # frames that a stream is fitted by


class StreamingFit:
    """The fit of a stream: each frame when it comes.

    One step of Gauss and Newton's method moves it and the few frames before it, beginning where these were
    before. The constants of a track are not fitted: the shape is given.

    Args:
        body, width, height, fps, focal, options: see :func:`fit_track`; TCMR's rotations are not smoothed.
    """

    def __init__(
        self,
        body: LandmarkBody,
        *,
        width: int,
        height: int,
        fps: float,
        focal: float,
        options: FitOptions = FitOptions(),
    ) -> None:
        self._body, self._fps, self._options = body, fps, replace(options, smooth=0)
        self._lens = focal, width / 2, height / 2
        self._seen: deque[tuple[np.ndarray, ...]] = deque(maxlen=_WINDOW)
        self._states = np.zeros((0, _TURNS + 3), np.float32)

    def __call__(
        self,
        rotmat: np.ndarray,
        guess: np.ndarray,
        betas: np.ndarray,
        side: float,
        landmarks: tuple[np.ndarray, np.ndarray, np.ndarray],
    ) -> tuple[np.ndarray, np.ndarray]:
        """Fit the next frame.

        Args:
            rotmat: TCMR's (24, 3, 3). guess: (3,) translation, metres. betas: (10,).
            side: of the person's box, px.
            landmarks: xy (33, 2) px, visibility (33,), world (33, 3) m, flips undone.

        Returns:
            rotations (24, 3, 3) and translation (3,), metres, float32.
        """
        self._seen.append((rotmat, guess, np.array(side, np.float32), *landmarks))
        rotmats, guesses, sides, xy, visibility, world = (np.stack(values) for values in zip(*self._seen))
        track = _Track(
            self._body,
            rotmats,
            betas[None],
            guesses,
            sides,
            (xy, visibility, world),
            usable_frames(visibility),
            self._lens,
            self._fps,
            self._options,
        )
        energy, shared = track.energy(np.array([0]), len(self._seen)), track.shared
        x = energy.start(shared)
        before = self._states[len(self._states) + 1 - len(self._seen) :]
        if len(before):
            x[0, :-1] = torch.from_numpy(before).to(x)
            x[0, -1, :_TURNS] = x[0, -2, :_TURNS]
        self._states = minimise(energy, x, shared, iterations=1)[0].cpu().numpy()
        fitted = track.place(self._states, shared, (0.0, 0.0), self._lens)
        return fitted.rotmat[-1], fitted.transl[-1]

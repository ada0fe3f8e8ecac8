"""The minimum of the energy of a track: Levenberg and Marquardt's method."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from .fit_energy import TURN_PRIOR, TURNS, Energy, Shared, System, ahead
from .gauss_newton import solve_banded


def minimise(
    energy: Energy, x: Float[Tensor, "b t 63"], shared: Shared, iterations: int
) -> Float[Tensor, "b t 63"]:
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
            tried = ahead(x - step)
            better = energy(tried, shared) < value
            x = torch.where(better[:, None, None], tried, x)
            damping = torch.where(better, damping * 0.2, damping * 10).clamp(1e-5, 1e5)
    return x.detach()


def fit_constants(energy: Energy, x: Float[Tensor, "b t 63"], shared: Shared, iterations: int) -> Shared:
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
            tried = ahead(x - (solved[..., 0] - solved[..., 1:] @ change))
            if energy(tried, _unpack(packed - change)).sum() < value:
                x, packed, damping = tried, packed - change, damping * 0.2
            else:
                damping *= 10
    return _unpack(packed.detach())


def _unpack(packed: Float[Tensor, " 14"]) -> Shared:
    return Shared(*torch.split(packed, [10, 3, 1]))


def _constant_blocks(
    energy: Energy,
    system: System,
    x: Float[Tensor, "b t 63"],
    packed: Float[Tensor, " 14"],
    change: float = 1e-2,
) -> tuple[Float[Tensor, "b t 63 14"], Float[Tensor, "14 14"]]:
    """The rows and the block of the constants in the Gauss-Newton matrix."""

    def weighted(values: Float[Tensor, " 14"]) -> Float[Tensor, "b t 165"]:
        found = energy.errors(x, _unpack(values))
        pixels = (system.pixel_weights * found.pixels).flatten(2)
        metres = (system.metre_weights * found.metres / energy.axes).flatten(2)
        return torch.cat([pixels, metres], -1)

    still = weighted(packed)
    moved = packed + change * torch.eye(len(packed)).to(packed)
    slopes = torch.stack([(weighted(values) - still) / change for values in moved], -1)  # (b, t, 165, 14)
    pixels, metres = torch.split(slopes, [system.pixels.shape[2], system.metres.shape[2]], 2)
    cross = system.pixels.mT @ pixels
    cross[:, :, :TURNS] += system.metres.mT @ metres
    chosen = energy.options
    turn = [chosen.turn * share for share in TURN_PRIOR]
    prior = packed.new_tensor([*[chosen.shape] * 10, *turn, chosen.size])
    frames = x.shape[0] * x.shape[1] * 30 / energy.fps
    own = torch.einsum("btrk,btrl->kl", slopes, slopes) + torch.diag(prior * frames)
    return cross, own

"""Undo front-back flips of landmark tracks: the network takes a back for a front for some frames.

Nobody turns round between two frames. Each frame therefore has two readings, as seen and flipped back (names
of the sides exchanged, depth reversed), and the sequence of readings that moves least is found by dynamic
programming.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from .features import LANDMARK_FLIP, LIMB_LANDMARKS

FLIP_COST = 0.004  # metres per frame read as flipped: of two consistent readings the more frequent one wins
FAR = 0.5  # metres: a landmark that moves farther counts as this far


def flip_back(
    xy: Float[Tensor, "*batch 33 2"],
    visibility: Float[Tensor, "*batch 33"],
    world: Float[Tensor, "*batch 33 3"],
) -> tuple[Float[Tensor, "*batch 33 2"], Float[Tensor, "*batch 33"], Float[Tensor, "*batch 33 3"]]:
    """The other reading of landmarks."""
    return (
        xy[..., LANDMARK_FLIP, :],
        visibility[..., LANDMARK_FLIP],
        world[..., LANDMARK_FLIP, :] * world.new_tensor([1.0, 1.0, -1.0]),
    )


def find_flips(world: Float[Tensor, "*batch t 33 3"]) -> Bool[Tensor, "*batch t"]:
    """Which of the metric landmarks of consecutive frames are better read as flipped."""
    *clips, length, _, _ = world.shape
    readings = _readings(world.reshape(-1, *world.shape[-3:]))  # (2, N, T, 12, 3)
    step = _steps(readings[:, None, :, :-1], readings[None, :, :, 1:])
    own = world.new_tensor([[0.0], [FLIP_COST]])
    cost, came_from = own.expand(2, readings.shape[1]), []
    for t in range(length - 1):
        total = cost[:, None] + step[..., t]  # (from, to, N)
        best, source = total.min(0)
        cost = best + own
        came_from.append(source)
    reading = cost.argmin(0)
    flipped = [reading]
    for source in reversed(came_from):
        reading = source.gather(0, reading[None])[0]
        flipped.append(reading)
    return torch.stack(flipped[::-1], 1).bool().view(*clips, length)


def _readings(world: Tensor) -> Tensor:
    """Limb landmarks (2, ..., 12, 3) about the hips of metric landmarks (..., 33, 3), as seen and flipped."""
    world = world - world[..., 23:25, :].mean(-2, keepdim=True)
    other = flip_back(world[..., :2], world[..., 0], world)[2]
    return torch.stack([world, other])[..., LIMB_LANDMARKS, :]


def _steps(before: Tensor, after: Tensor) -> Tensor:
    """What limb landmarks (..., 12, 3) move on average, metres."""
    moved: Tensor = (before - after).norm(dim=-1)
    return moved.clamp(max=FAR).mean(-1)


class StreamingFlips:
    """:func:`find_flips` of a stream: each frame is judged by those before it alone.

    The two best costs, of the past that ends as seen and of the one that ends flipped, hold all that the
    past says; so a frame is judged as :func:`find_flips` would judge the last one of the frames so far.
    """

    def __init__(self) -> None:
        self._before: Tensor | None = None
        self._cost = torch.zeros(2)

    def __call__(self, world: Float[np.ndarray, "33 3"]) -> bool:
        """Whether the metric landmarks of the next frame are better read as flipped."""
        readings = _readings(torch.from_numpy(np.ascontiguousarray(world, np.float32)))
        if self._before is not None:
            step = _steps(self._before[:, None], readings[None])
            self._cost = (self._cost[:, None] + step).amin(0)
        self._cost = self._cost + torch.tensor([0.0, FLIP_COST])
        self._cost = self._cost - self._cost.min()  # so that it does not grow
        self._before = readings
        return bool(self._cost.argmin())


def undo_flips(
    xy: Float[Tensor, "*batch t 33 2"],
    visibility: Float[Tensor, "*batch t 33"],
    world: Float[Tensor, "*batch t 33 3"],
) -> tuple[Float[Tensor, "*batch t 33 2"], Float[Tensor, "*batch t 33"], Float[Tensor, "*batch t 33 3"]]:
    """Landmarks of consecutive frames, flips undone."""
    flipped = find_flips(world)[..., None]
    xy2, visibility2, world2 = flip_back(xy, visibility, world)
    return (
        torch.where(flipped[..., None], xy2, xy),
        torch.where(flipped, visibility2, visibility),
        torch.where(flipped[..., None], world2, world),
    )


def repair_flips(
    xy: Float[np.ndarray, "t 33 2"], visibility: Float[np.ndarray, "t 33"], world: Float[np.ndarray, "t 33 3"]
) -> tuple[Float[np.ndarray, "t 33 2"], Float[np.ndarray, "t 33"], Float[np.ndarray, "t 33 3"]]:
    """:func:`undo_flips` of one person's NumPy landmarks."""
    seen = [torch.from_numpy(np.ascontiguousarray(part)) for part in (xy, visibility, world)]
    repaired = [part.numpy() for part in undo_flips(*seen)]
    return repaired[0], repaired[1], repaired[2]

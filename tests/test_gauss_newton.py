"""The banded solver against a dense one."""

from __future__ import annotations

import pytest
import torch

from lib.motion.gauss_newton import solve_banded
from tests.simulation_tools import generator

pytestmark = pytest.mark.usefixtures("one_thread")


def banded(
    batch: int, frames: int, size: int, seed: int
) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """A random positive definite (batch, frames·size, frames·size) matrix in whose band alone there are
    numbers, and its blocks."""
    random = generator(seed)
    dense = 0.1 * torch.eye(frames * size, dtype=torch.double).expand(batch, -1, -1)
    for first in range(-2, frames):  # terms that join up to three frames
        rows = torch.zeros(batch, size, frames * size, dtype=torch.double)
        columns = slice(max(first, 0) * size, min(first + 3, frames) * size)
        rows[..., columns] = torch.randn(rows[..., columns].shape, generator=random, dtype=torch.double)
        dense = dense + rows.mT @ rows
    blocks = dense.unflatten(2, (frames, size)).unflatten(1, (frames, size)).transpose(2, 3)

    def diagonal(lag: int) -> torch.Tensor:
        chosen = [blocks[:, t, t + lag] for t in range(frames - lag)]
        return torch.stack(chosen, 1) if chosen else dense.new_zeros(batch, 0, size, size)

    return dense, (diagonal(0), diagonal(1), diagonal(2))


@pytest.mark.parametrize("frames", range(1, 10))
def test_solves_what_a_dense_solver_solves(frames: int) -> None:
    dense, blocks = banded(batch=3, frames=frames, size=4, seed=frames)
    right = torch.randn(3, frames, 4, 2, generator=generator(0), dtype=torch.double)
    expected = torch.linalg.solve(dense, right.flatten(1, 2)).view_as(right)
    torch.testing.assert_close(solve_banded(*blocks, right), expected, atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize("frame", [0, 3, 4])
def test_a_matrix_that_is_not_positive_definite_is_refused(frame: int) -> None:
    _, (same, following, second) = banded(batch=2, frames=5, size=3, seed=1)
    same[1, frame, 0, 0] = -1
    with pytest.raises(torch.linalg.LinAlgError):
        solve_banded(same, following, second, torch.ones(2, 5, 3, 1, dtype=torch.double))

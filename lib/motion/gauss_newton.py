"""Least squares over a sequence whose terms join at most three neighbouring frames."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def solve_banded(
    same: Float[Tensor, "b t d d"],
    following: Float[Tensor, "b t-1 d d"],
    second: Float[Tensor, "b inner d d"],
    right: Float[Tensor, "b t d k"],
) -> Float[Tensor, "b t d k"]:
    """Solve the symmetric positive definite system of b sequences of t frames with d unknowns each.

    Args:
        same: the blocks of a frame with itself.
        following: of a frame (rows) with the next (columns).
        second: of a frame with the one after the next, of t - 2 frames (none where t is 1).
        right: k right sides.

    Returns:
        k solutions, by Cholesky factorisation of pairs of frames, which only their neighbours meet.

    Raises:
        torch.linalg.LinAlgError: the matrix is not positive definite.
    """
    batch, frames, size, columns = right.shape
    if frames % 2:  # a last frame that stands alone
        alone = torch.eye(size).to(same).expand(batch, 1, size, size)
        nothing = torch.zeros_like(alone)
        same, right = torch.cat([same, alone], 1), torch.cat([right, torch.zeros_like(right[:, :1])], 1)
        following = torch.cat([following, nothing], 1)
        second = torch.cat([second, nothing], 1) if frames > 1 else second
    pairs = right.shape[1] // 2
    diagonal = right.new_empty(batch, pairs, 2 * size, 2 * size)
    diagonal[..., :size, :size], diagonal[..., size:, size:] = same[:, ::2], same[:, 1::2]
    diagonal[..., :size, size:], diagonal[..., size:, :size] = following[:, ::2], following[:, ::2].mT
    upper = right.new_zeros(batch, pairs - 1, 2 * size, 2 * size)  # of a pair with the next one
    if pairs > 1:
        upper[..., :size, :size], upper[..., size:, size:] = second[:, ::2], second[:, 1::2]
        upper[..., size:, :size] = following[:, 1::2][:, : pairs - 1]
    value = right.view(batch, pairs, 2 * size, columns)

    factors: list[Tensor] = []
    links: list[Tensor] = []
    forward: list[Tensor] = []
    for k in range(pairs):
        block, known = diagonal[:, k], value[:, k]
        if k:
            block = block - links[-1].mT @ links[-1]
            known = known - links[-1].mT @ forward[-1]
        factor = torch.linalg.cholesky(block)
        factors.append(factor)
        if k < pairs - 1:
            both = torch.linalg.solve_triangular(factor, torch.cat([upper[:, k], known], 2), upper=False)
            links.append(both[..., : 2 * size])
            forward.append(both[..., 2 * size :])
        else:
            forward.append(torch.linalg.solve_triangular(factor, known, upper=False))
    result = [torch.linalg.solve_triangular(factors[-1].mT, forward[-1], upper=True)]
    for k in reversed(range(pairs - 1)):
        known = forward[k] - links[k] @ result[-1]
        result.append(torch.linalg.solve_triangular(factors[k].mT, known, upper=True))
    return torch.stack(result[::-1], 1).view(batch, 2 * pairs, size, columns)[:, :frames]

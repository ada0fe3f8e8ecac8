"""Hinge joints of the SMPL body: knees and elbows bend one way."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

HINGES = [4, 5, 18, 19]  # left knee, right knee, left elbow, right elbow
_AXES = [[1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, -0.9, 0.43], [0.0, 0.9, -0.43]]  # of flexion


def flexion_sine(rotmat: Float[Tensor, "*batch 24 3 3"]) -> Float[Tensor, "*batch 4"]:
    """Sine of the turn about the flexion axis of the four hinges.

    Negative where a knee or an elbow bends backwards.
    """
    hinge = rotmat[..., HINGES, :, :]
    twist = torch.stack(
        [
            hinge[..., 2, 1] - hinge[..., 1, 2],
            hinge[..., 0, 2] - hinge[..., 2, 0],
            hinge[..., 1, 0] - hinge[..., 0, 1],
        ],
        -1,
    )
    return 0.5 * (twist * twist.new_tensor(_AXES)).sum(-1)


def flexion_axes(like: Tensor) -> Float[Tensor, "4 3"]:
    """The flexion axes of :data:`HINGES`, in the rest pose of the joint."""
    return like.new_tensor(_AXES)

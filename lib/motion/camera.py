"""A camera with a focal length: from the crop cameras that networks speak of to metres and back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

NEAREST = 0.3  # metres: nothing is projected from nearer


@dataclass(frozen=True)
class Camera:
    """Looks through the middle of an image. Camera axes: x right, y down, z away, metres.

    Attributes:
        width, height: of the image, px.
        focal: focal length, px.
        source: where the focal length comes from: ``given``, ``metadata`` or ``default``.
    """

    width: int
    height: int
    focal: float
    source: str = "given"

    @property
    def K(self) -> Float[np.ndarray, "3 3"]:
        """The intrinsic matrix."""
        return np.array([[self.focal, 0, self.width / 2], [0, self.focal, self.height / 2], [0, 0, 1]])

    def project(self, points: Float[np.ndarray, "*batch 3"]) -> Float[np.ndarray, "*batch 2"]:
        """Points in metres -> pixels."""
        return see(points, np.zeros(3, np.float32), self.focal, (self.width, self.height))


def weak_to_perspective(
    cam: Float[np.ndarray, "n 3"], boxes: Float[np.ndarray, "n 4"], focal: float, width: int, height: int
) -> Float[np.ndarray, "n 3"]:
    """Crop cameras s, tx, ty -> translations in metres: a vertex is seen at vertex + translation by a
    perspective camera that looks through the image's middle.

    ``boxes`` cx, cy, w, h px, scaled as they were cropped; ``focal``, ``width``, ``height`` px.
    """
    z = 2 * focal / (cam[:, 0] * boxes[:, 2]).clip(1e-3)
    middle = (boxes[:, :2] - np.array([width, height]) / 2) * (z / focal)[:, None]
    return np.concatenate([cam[:, 1:] + middle, z[:, None]], 1).astype(np.float32)


def perspective_to_weak(
    transl: Float[np.ndarray, "n 3"], boxes: Float[np.ndarray, "n 4"], focal: float, width: int, height: int
) -> Float[np.ndarray, "n 3"]:
    """Inverse of :func:`weak_to_perspective`: metres -> s, tx, ty."""
    z = transl[:, 2:]
    middle = (boxes[:, :2] - np.array([width, height]) / 2) * (z / focal)
    return np.concatenate([2 * focal / (z * boxes[:, 2:3]), transl[:, :2] - middle], 1).astype(np.float32)


def see(
    points: Float[np.ndarray, "*batch 3"],
    transl: Float[np.ndarray, "*#batch 3"],
    focal: float,
    size: tuple[float, float],
) -> Float[np.ndarray, "*batch 2"]:
    """Points in metres -> pixels of a perspective camera that sees them moved by ``transl`` and looks through
    the middle of an image of ``size`` width, height px."""
    placed = points + transl
    pixels: np.ndarray = focal * placed[..., :2] / placed[..., 2:].clip(NEAREST) + np.array(size) / 2
    return pixels


def solve_camera(
    points: Float[Tensor, "*batch n 3"],
    rays: Float[Tensor, "*batch n 2"],
    weights: Float[Tensor, "*batch n"],
    guess: Float[Tensor, "*batch 3"],
    *,
    trust: float = 0.01,
    depth: Float[Tensor, "*batch 1"] | None = None,
) -> Float[Tensor, "*batch 3"]:
    """Translations that bring points onto rays x / z, y / z, in closed form.

    Minimises the weighted squares of ``x + t_x - u (z + t_z)`` and the same of y, which are linear in t, and
    ``trust`` times the squared distance from ``guess``, which decides where nothing is seen. With ``depth``,
    t_z is that.
    """
    rhs = rays * points[..., 2:] - points[..., :2]  # (*, n, 2)
    wu, wr = (weights[..., None] * rays).sum(-2), (weights[..., None] * rhs).sum(-2)
    # Normal equations [[a I, -wu], [-wu', c]] t = [b, d], by elimination.
    a = (weights.sum(-1) + trust)[..., None]
    b = wr + trust * guess[..., :2]
    c = (weights * rays.square().sum(-1)).sum(-1, keepdim=True) + trust
    d = trust * guess[..., 2:] - (weights[..., None] * rays * rhs).sum((-1, -2))[..., None]
    if depth is None:
        depth = (d + (wu * b).sum(-1, keepdim=True) / a) / (c - wu.square().sum(-1, keepdim=True) / a)
    return torch.cat([(b + wu * depth) / a, depth], -1)

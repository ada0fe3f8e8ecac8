"""A camera with a focal length: from the crop cameras that networks speak of to metres and back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

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
    def K(self) -> np.ndarray:
        """(3, 3) intrinsic matrix."""
        return np.array([[self.focal, 0, self.width / 2], [0, self.focal, self.height / 2], [0, 0, 1]])

    def project(self, points: np.ndarray) -> np.ndarray:
        """Points (*, 3) metres -> pixels (*, 2)."""
        return see(points, np.zeros(3, np.float32), self.focal, (self.width, self.height))


def weak_to_perspective(
    cam: np.ndarray, boxes: np.ndarray, focal: float, width: int, height: int
) -> np.ndarray:
    """Crop cameras (T, 3) s, tx, ty -> translations (T, 3) m: a vertex is seen at vertex + translation by a
    perspective camera that looks through the image's middle.

    ``boxes`` (T, 4) cx, cy, w, h px, scaled as they were cropped; ``focal``, ``width``, ``height`` px.
    """
    z = 2 * focal / (cam[:, 0] * boxes[:, 2]).clip(1e-3)
    middle = (boxes[:, :2] - np.array([width, height]) / 2) * (z / focal)[:, None]
    return np.concatenate([cam[:, 1:] + middle, z[:, None]], 1).astype(np.float32)


def perspective_to_weak(
    transl: np.ndarray, boxes: np.ndarray, focal: float, width: int, height: int
) -> np.ndarray:
    """Inverse of :func:`weak_to_perspective`: (T, 3) metres -> (T, 3) s, tx, ty."""
    z = transl[:, 2:]
    middle = (boxes[:, :2] - np.array([width, height]) / 2) * (z / focal)
    return np.concatenate([2 * focal / (z * boxes[:, 2:3]), transl[:, :2] - middle], 1).astype(np.float32)


def see(points: np.ndarray, transl: np.ndarray, focal: float, size: tuple[float, float]) -> np.ndarray:
    """Points (*, 3) m -> pixels (*, 2) of a perspective camera that sees them moved by ``transl`` (*, 3) and
    looks through the middle of an image of ``size`` width, height px."""
    placed = points + transl
    return focal * placed[..., :2] / placed[..., 2:].clip(NEAREST) + np.array(size) / 2

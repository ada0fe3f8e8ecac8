"""Rotations between directions and frames."""

from __future__ import annotations

import numpy as np

from .skeleton import Array


def swing(start: Array, end: Array) -> Array:
    """Shortest rotations (S, 3, 3) that turn the directions start (S, 3) into end (3,)."""
    a = start / np.linalg.norm(start, axis=-1, keepdims=True)
    b = np.broadcast_to(end / np.linalg.norm(end), a.shape)
    x, y, z = np.moveaxis(np.cross(a, b), -1, 0)
    o = np.zeros_like(x)
    k = np.stack([np.stack([o, -z, y], -1), np.stack([z, o, -x], -1), np.stack([-y, x, o], -1)], -2)
    return np.eye(3) + k + k @ k / (1 + (a * b).sum(-1))[..., None, None]


def frame(x: Array, normal: Array) -> Array:
    """Right-handed frames (S, 3, 3): first column along x, second column as near to normal as possible."""
    x = x / np.linalg.norm(x, axis=-1, keepdims=True)
    z = np.cross(x, normal)
    z /= np.linalg.norm(z, axis=-1, keepdims=True)
    return np.stack([x, np.cross(z, x), z], -1)


def turn(rotation: Array, direction: Array) -> Array:
    return np.einsum("nij,nj->ni", rotation, direction)

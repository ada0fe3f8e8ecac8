"""How tall a person is: from a shape, and the shape of a given height."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from ..models.body import BodyData
from .motion import rest_vertices

SHORTEST, TALLEST = 0.5, 2.6
"""Metres that a person's height may be."""
_STIFF = 1e-4
"""Square metres: the mean squared error of vertices that a change of the betas by 1 is worth."""


def height_of(body: BodyData, betas: Float[np.ndarray, " 10"]) -> float:
    """Metres from the soles to the top of the head of a shape in the rest pose."""
    return float(np.ptp(rest_vertices(body, betas)[:, 1]))


def with_height(body: BodyData, betas: Float[np.ndarray, " 10"], height: float) -> Float[np.ndarray, " 10"]:
    """The shape of that height, in metres, that is most like ``betas`` grown as a whole."""
    betas = np.asarray(betas, np.float64)
    basis = body.shapedirs.reshape(-1, 10).astype(np.float64)
    gram = basis.T @ basis / len(body.v_template) + _STIFF * np.eye(10)
    for _ in range(3):  # the top and the bottom may become other vertices
        verts = rest_vertices(body, betas)
        now = np.ptp(verts[:, 1])
        grown = (height / now - 1) * (verts - verts.mean(0))
        change = np.linalg.solve(gram, basis.T @ grown.reshape(-1) / len(verts))
        top, bottom = verts[:, 1].argmax(), verts[:, 1].argmin()
        slope = body.shapedirs[top, 1] - body.shapedirs[bottom, 1]
        lacking = height - now - slope @ change
        stiff = np.linalg.solve(gram, slope)
        betas = betas + change + stiff * lacking / (slope @ stiff)
    return betas.astype(np.float32)

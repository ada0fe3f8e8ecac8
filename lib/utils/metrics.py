"""Errors of predicted joints and vertices, per frame, in the unit of the input (metres), computed in float64.

Acceleration is the second difference over frames: unit per frame squared. A joint that
is NaN in the target was not seen and is left out of its frame's error, which is NaN if no joint is left.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

_VERTEX_CHUNK = 256  # frames of vertices held in float64 at a time


def mpjpe(pred: Float[np.ndarray, "n j 3"], target: Float[np.ndarray, "n j 3"]) -> Float[np.ndarray, " n"]:
    """Mean distance of corresponding joints."""
    return _mean_of_seen(_distance(pred, target))


def pa_mpjpe(pred: Float[np.ndarray, "n j 3"], target: Float[np.ndarray, "n j 3"]) -> Float[np.ndarray, " n"]:
    """MPJPE after :func:`similarity_align` of each frame."""
    return mpjpe(similarity_align(pred, target), target)


def similarity_align(
    source: Float[np.ndarray, "n j 3"], target: Float[np.ndarray, "n j 3"]
) -> Float[np.ndarray, "n j 3"]:
    """Each pose of ``source`` moved by the scale, rotation and translation that fit ``target`` best.

    Orthogonal Procrustes with scale and without reflection (Gower 1975). Joints that are NaN in
    ``target`` are moved with the others.
    """
    source, target = np.asarray(source, np.float64), np.asarray(target, np.float64)
    seen = ~np.isnan(target).any(axis=2, keepdims=True)
    count = seen.sum(axis=1, keepdims=True).clip(1)
    source_mean, target_mean = (
        np.where(seen, joints, 0).sum(axis=1, keepdims=True) / count for joints in (source, target)
    )
    whole = source - source_mean
    x, y = np.where(seen, whole, 0), np.where(seen, target - target_mean, 0)
    covariance = np.swapaxes(x, 1, 2) @ y
    u, _, vt = np.linalg.svd(covariance)
    flip = np.ones((len(x), 1, 3))
    flip[:, 0, 2] = np.sign(np.linalg.det(u @ vt))
    rotation = (np.swapaxes(vt, 1, 2) * flip) @ np.swapaxes(u, 1, 2)
    size = np.maximum((x**2).sum(axis=(1, 2)), np.finfo(np.float64).tiny)
    scale = np.trace(rotation @ covariance, axis1=1, axis2=2) / size
    moved: np.ndarray = scale[:, None, None] * (whole @ np.swapaxes(rotation, 1, 2)) + target_mean
    return moved


def accel(joints: Float[np.ndarray, "n j 3"]) -> Float[np.ndarray, " inner"]:
    """Mean length of the joints' acceleration at the inner frames."""
    return _mean_of_seen(np.linalg.norm(_second_difference(joints), axis=-1))


def accel_error(
    pred: Float[np.ndarray, "n j 3"], target: Float[np.ndarray, "n j 3"]
) -> Float[np.ndarray, " inner"]:
    """Mean distance of corresponding accelerations at the inner frames."""
    return _mean_of_seen(_distance(_second_difference(pred), _second_difference(target)))


def vertex_error(
    pred: Float[np.ndarray, "n v 3"], target: Float[np.ndarray, "n v 3"]
) -> Float[np.ndarray, " n"]:
    """Mean distance of corresponding vertices, without alignment."""
    chunks = [slice(i, i + _VERTEX_CHUNK) for i in range(0, len(pred), _VERTEX_CHUNK)]
    return np.concatenate([np.zeros(0), *(_distance(pred[c], target[c]).mean(axis=1) for c in chunks)])


def _mean_of_seen(values: np.ndarray) -> np.ndarray:
    """Means (n,) of values (n, J) that are not NaN."""
    seen = ~np.isnan(values)
    if seen.all():
        means: np.ndarray = values.mean(axis=1)
    else:
        count = seen.sum(axis=1)
        means = np.where(seen, values, 0).sum(axis=1) / np.where(count, count, np.nan)
    return means


def _distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    difference = np.subtract(a, b, dtype=np.float64)
    distance: np.ndarray = np.sqrt(np.einsum("...c,...c->...", difference, difference))
    return distance


def _second_difference(joints: np.ndarray) -> np.ndarray:
    joints = np.asarray(joints, np.float64)
    change: np.ndarray = joints[:-2] - 2 * joints[1:-1] + joints[2:]
    return change

"""Mean body, shape directions, joint regressor and skinning weights."""

from __future__ import annotations

import numpy as np
from scipy.optimize import nnls
from scipy.sparse import csr_matrix, identity
from scipy.sparse.linalg import spsolve

from .skeleton import INDEX, JOINTS, PARENTS, SWAP, Array, Bodies

N_BETAS = 10
WEIGHT_PASSES = 12  # smoothing of the skinning weights, full within a third of the radius around a shoulder
SHOULDER_RADIUS = 0.22
# Where the chest is smoothed: ellipses about |x|, y, in front of z, and their half axes; metres.
CHEST = np.array([0.095, 0.108, 0.06])
CHEST_SIZE = np.array([0.095, 0.09])
KEEPERS = 150  # vertices around a joint that keep it in place where the chest took part in it


def shape_space(verts: Array) -> tuple[Array, Array]:
    """Mean (V, 3) and the first principal directions (V, 3, 10), scaled so that betas have unit variance."""
    mean = verts.mean(0)
    _, scale, basis = np.linalg.svd((verts - mean).reshape(len(verts), -1), full_matrices=False)
    scale = scale[:N_BETAS] / np.sqrt(len(verts) - 1)
    directions = (basis[:N_BETAS] * scale[:, None]).reshape(N_BETAS, -1, 3).transpose(1, 2, 0)
    top, bottom = mean[:, 1].argmax(), mean[:, 1].argmin()
    if directions[top, 1, 0] < directions[bottom, 1, 0]:
        directions[..., 0] *= -1  # beta 0 > 0 is taller
    return mean, directions


def joint_regressor(bodies: Bodies, rng: np.random.Generator) -> Array:
    """Sparse symmetric regressor (24, V), rows sum to 1: non-negative least squares over nearby vertices."""
    mean, mean_joints = bodies.verts.mean(0), bodies.joints.mean(0)
    regressor = np.zeros((len(JOINTS), len(mean)))
    for j in range(len(JOINTS)):
        skinned = (bodies.weights[:, [j, max(PARENTS[j], 0)]] > 0.02).any(1)
        near = np.flatnonzero(skinned)
        near = near[np.argsort(np.linalg.norm(mean[near] - mean_joints[j], axis=1))[:900]]
        chosen = rng.choice(len(bodies.verts), 80, replace=False)
        fit = bodies.verts[chosen][:, near].transpose(0, 2, 1).reshape(-1, len(near))
        # a heavy row asks for sum 1, a light ridge for a unique answer
        left = np.concatenate([fit, np.full((1, len(near)), 50.0), 1e-2 * np.eye(len(near))])
        right = np.concatenate([bodies.joints[chosen, j].reshape(-1), [50.0], np.zeros(len(near))])
        row, _ = nnls(left, right, maxiter=20000)
        row[row < 1e-4] = 0
        regressor[j, near] = row / row.sum()
    return 0.5 * (regressor + regressor[SWAP][:, bodies.mirror])


def neighbour_average(faces: Array, n: int) -> csr_matrix:
    """Sparse (V, V) matrix that averages the direct neighbours of every vertex."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    both = np.unique(np.concatenate([edges, edges[:, ::-1]]), axis=0)
    degree = np.bincount(both[:, 0], minlength=n)
    return csr_matrix((1.0 / degree[both[:, 0]], (both[:, 0], both[:, 1])), shape=(n, n))


def smooth_shoulder_weights(weights: Array, mean: Array, joints: Array, average: csr_matrix) -> Array:
    """Laplacian passes over the skinning weights (V, 24) near both shoulders, fading out with distance."""
    shoulders = joints[[INDEX["shoulder.L"], INDEX["shoulder.R"]]]
    distance = np.linalg.norm(mean[:, None] - shoulders, axis=-1).min(1)
    blend = np.clip(1.5 - 1.5 * distance / SHOULDER_RADIUS, 0, 1)[:, None]
    for _ in range(WEIGHT_PASSES):
        weights = weights + blend * 0.5 * (average @ weights - weights)
    return weights


def quantise_weights(weights: Array) -> Array:
    """Round weights (V, J) to multiples of 1/2048: float16 holds them exactly, rows sum to exactly 1."""
    steps = np.where(weights < 0.004, 0, weights)
    steps = steps / steps.sum(1, keepdims=True) * 2048
    whole = np.floor(steps)
    missing = (2048 - whole.sum(1)).round().astype(int)
    rank = np.argsort(np.argsort(-(steps - whole), axis=1, kind="stable"), axis=1, kind="stable")
    return (whole + (rank < missing[:, None])) / 2048


def flatten_chest(mean: Array, average: csr_matrix) -> tuple[Array, Array]:
    """The mean body with a chest that bends as little as it can between its borders (biharmonic), and the
    numbers of the vertices that moved. The shape directions stay: they say how people differ from it."""
    x, y, z = mean.T
    away = (np.stack([np.abs(x), y], 1) - CHEST[:2]) / CHEST_SIZE
    chest = np.flatnonzero(((away**2).sum(1) < 1) & (z > CHEST[2]))
    bend = (identity(len(mean)) - average).tocsc()
    matrix = bend[:, chest]
    flat = mean.copy()
    flat[chest] -= spsolve((matrix.T @ matrix).tocsc(), matrix.T @ (bend @ mean))
    return flat, chest


def keep_joints(regressor: Array, before: Array, after: Array, directions: Array, moved: Array) -> Array:
    """The regressor (24, V) that gives the joints that it gave before some vertices moved, for every shape,
    by the least change of other vertices' weights around each joint."""
    kept, shapes = regressor.copy(), directions.reshape(len(before), -1)
    old, new = (np.column_stack([verts, shapes, np.ones(len(verts))]) for verts in (before, after))
    for row in np.flatnonzero(regressor[:, moved].any(1)):
        kept[row, moved] = 0
        distance = np.linalg.norm(after - regressor[row] @ before, axis=1)
        distance[moved] = np.inf
        chosen = np.union1d(np.flatnonzero(kept[row]), np.argsort(distance)[:KEEPERS])
        lacking = regressor[row] @ old - kept[row] @ new
        kept[row, chosen] += np.linalg.lstsq(new[chosen].T, lacking, rcond=None)[0]
    return kept

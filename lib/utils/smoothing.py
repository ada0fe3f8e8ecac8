"""Smoothing of motions over time."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter1d

_EPS = 4 * np.finfo(np.float64).eps


def slerp_filter(rotmats: np.ndarray, ratio: float = 0.3) -> np.ndarray:
    """Recursive smoothing of rotations: frame t becomes slerp(smoothed frame t - 1, frame t, ratio).

    ``ratio`` is the weight of the new frame: 1 changes nothing, 0 keeps the first frame.
    (T, J, 3, 3) rotation matrices -> (T, J, 3, 3) float64.
    """
    smooth = _nearest_quaternions(np.asarray(rotmats, np.float64))
    for t in range(1, len(smooth)):
        smooth[t] = _slerp(smooth[t - 1], smooth[t], ratio)
    return _to_rotmat(smooth)


def one_euro(
    values: np.ndarray, min_cutoff: float = 1.0, beta: float = 0.1, d_cutoff: float = 1.0, fps: float = 30.0
) -> np.ndarray:
    """The 1€ filter (Casiez et al., CHI 2012) of values (T, ...) -> (T, ...) float64: a causal low-pass whose
    cut-off, Hz, is ``min_cutoff + beta * speed``, so that it lags less where a value changes fast."""
    smooth = np.array(values, np.float64)
    speed = np.zeros_like(smooth[0])

    def weight(cutoff: float | np.ndarray) -> float | np.ndarray:
        return 1 / (1 + fps / (2 * np.pi * cutoff))

    for t in range(1, len(smooth)):
        change = (smooth[t] - smooth[t - 1]) * fps
        speed = speed + weight(d_cutoff) * (change - speed)
        smooth[t] = smooth[t - 1] + weight(min_cutoff + beta * np.abs(speed)) * (smooth[t] - smooth[t - 1])
    return smooth


def gaussian(joints: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian smoothing over frames, ends repeated: (T, ...) -> (T, ...). 0 changes nothing."""
    return gaussian_filter1d(joints, sigma, axis=0, mode="nearest") if sigma > 0 else np.asarray(joints)


def gaussian_kernel(sigma: float) -> np.ndarray:
    """The weights (2 k + 1,) of :func:`gaussian`."""
    impulse = np.zeros(2 * int(4 * sigma + 0.5) + 1)
    impulse[len(impulse) // 2] = 1
    return gaussian(impulse, sigma)


def _nearest_quaternions(rotmats: np.ndarray) -> np.ndarray:
    """Unit quaternions wxyz, w >= 0, of the nearest rotations (Bar-Itzhack 2000): (*, 3, 3) -> (*, 4)."""
    m = np.moveaxis(rotmats, (-2, -1), (0, 1))
    k = np.zeros((*rotmats.shape[:-2], 4, 4))
    k[..., 0, 0] = m[0, 0] - m[1, 1] - m[2, 2]
    k[..., 1, 0] = m[0, 1] + m[1, 0]
    k[..., 1, 1] = m[1, 1] - m[0, 0] - m[2, 2]
    k[..., 2, 0] = m[0, 2] + m[2, 0]
    k[..., 2, 1] = m[1, 2] + m[2, 1]
    k[..., 2, 2] = m[2, 2] - m[0, 0] - m[1, 1]
    k[..., 3, 0] = m[2, 1] - m[1, 2]
    k[..., 3, 1] = m[0, 2] - m[2, 0]
    k[..., 3, 2] = m[1, 0] - m[0, 1]
    k[..., 3, 3] = m[0, 0] + m[1, 1] + m[2, 2]
    largest = np.linalg.eigh(k)[1][..., -1]  # eigh reads the lower triangle, eigenvalues ascend
    quaternion = largest[..., [3, 0, 1, 2]]
    return np.where(quaternion[..., :1] < 0, -quaternion, quaternion)


def _slerp(start: np.ndarray, end: np.ndarray, ratio: float) -> np.ndarray:
    """Shortest-path interpolation of unit quaternions: (n, 4) twice -> (n, 4)."""
    dot = np.sum(start * end, axis=-1, keepdims=True)
    end = np.where(dot < 0, -end, end)
    dot = np.abs(dot)
    angle = np.arccos(np.minimum(dot, 1))
    same = dot > 1 - _EPS  # rounding may lift it above 1
    sine = np.where(same, 1, np.sin(angle))
    mixed = (np.sin((1 - ratio) * angle) * start + np.sin(ratio * angle) * end) / sine
    return np.where(same, start, mixed / np.linalg.norm(np.where(same, 1, mixed), axis=-1, keepdims=True))


def _to_rotmat(quaternion: np.ndarray) -> np.ndarray:
    w, x, y, z = np.moveaxis(quaternion / np.linalg.norm(quaternion, axis=-1, keepdims=True), -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return np.moveaxis(np.array(rows), (0, 1), (-2, -1))

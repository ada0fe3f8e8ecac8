"""Smoothing of motions over time."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float, Shaped
from scipy.ndimage import gaussian_filter1d

_EPS = 4 * np.finfo(np.float64).eps


def slerp_filter(rotmats: Float[np.ndarray, "t j 3 3"], ratio: float = 0.3) -> Float[np.ndarray, "t j 3 3"]:
    """Recursive smoothing of rotations: frame t becomes slerp(smoothed frame t - 1, frame t, ratio).

    ``ratio`` is the weight of the new frame: 1 changes nothing, 0 keeps the first frame.
    The result is float64.
    """
    smooth = _nearest_quaternions(np.asarray(rotmats, np.float64))
    for t in range(1, len(smooth)):
        smooth[t] = _slerp(smooth[t - 1], smooth[t], ratio)
    return _to_rotmat(smooth)


class OneEuro:
    """The one-euro filter (Casiez et al., CHI 2012): an exponential mean that follows the faster, the faster
    the signal moves.

    Args:
        rest: Hz, cutoff while nothing moves. slope: how much the cutoff grows with the speed, per unit.
        speed: Hz, cutoff of the speed itself.
    """

    def __init__(self, rest: float, slope: float, speed: float = 1.0) -> None:
        self._rest, self._slope, self._speed_cutoff = rest, slope, speed
        self._value: np.ndarray | None = None
        self._speed: np.ndarray = np.zeros(())

    def __call__(self, value: np.ndarray, seconds: float) -> np.ndarray:
        """The next value, of any shape, ``seconds`` after the one before."""
        if self._value is None:
            self._value, self._speed = value, np.zeros_like(value)
            return value
        speed = (value - self._value) / seconds
        self._speed = self._speed + _share(self._speed_cutoff, seconds) * (speed - self._speed)
        cutoff = self._rest + self._slope * np.abs(self._speed)
        self._value = self._value + _share(cutoff, seconds) * (value - self._value)
        return self._value


def _share(cutoff: np.ndarray | float, seconds: float) -> np.ndarray | float:
    """Weight of a new value in an exponential mean of that cutoff in Hz."""
    turn = 2 * math.pi * seconds * cutoff
    return turn / (turn + 1)


def one_euro(
    values: Shaped[np.ndarray, " t *dims"],
    min_cutoff: float = 1.0,
    beta: float = 0.1,
    d_cutoff: float = 1.0,
    fps: float = 30.0,
) -> Float[np.ndarray, " t *dims"]:
    """:class:`OneEuro` of values at ``fps``, as float64."""
    step = OneEuro(min_cutoff, beta, d_cutoff)
    values = np.asarray(values, np.float64)
    return np.concatenate([step(values[t : t + 1], 1 / fps) for t in range(len(values))])


def gaussian(joints: Float[np.ndarray, " t *dims"], sigma: float) -> Float[np.ndarray, " t *dims"]:
    """Gaussian smoothing over frames, ends repeated. 0 changes nothing."""
    return gaussian_filter1d(joints, sigma, axis=0, mode="nearest") if sigma > 0 else np.asarray(joints)


def gaussian_kernel(sigma: float) -> Float[np.ndarray, " weights"]:
    """The weights, an odd number, of :func:`gaussian`."""
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

"""Square person boxes ``(cx, cy, w, h)`` in pixels from 2D keypoints."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Shaped
from scipy.ndimage import gaussian_filter1d
from scipy.signal import medfilt

REFERENCE_SIZE = 150.0
"""A person's size is kept as ``q = 150 / size``, so that smoothing acts on the zoom and not on the size."""
_MIN_SIZE = 0.5


def get_bbox_from_kp2d(
    kp_2d: Shaped[np.ndarray, "*batch j d"], factor: float = 1.1
) -> Float[np.ndarray, "*batch 4"]:
    """Tight square box around keypoints.

    Args:
        kp_2d: x, y in pixels; columns after the second are ignored.
        factor: the side is ``factor`` times the larger of width and height.

    Returns:
        float64 ``cx, cy, side, side`` in pixels.
    """
    xy = np.asarray(kp_2d, np.float64)[..., :2]
    low, high = xy.min(axis=-2), xy.max(axis=-2)
    side = factor * (high - low).max(axis=-1, keepdims=True)
    return np.concatenate([(low + high) / 2, side, side], axis=-1)


def get_bbox_params(
    kp: Shaped[np.ndarray, "j 3"] | None, vis_thresh: float = 0.3
) -> Float[np.ndarray, " 3"] | None:
    """Centre and zoom of one person in one frame.

    Args:
        kp: x, y in pixels and confidence, or None where nobody was found.
        vis_thresh: joints with a confidence above it count.

    Returns:
        ``cx, cy, q`` with q = 150 / diagonal of the joints' rectangle, or None where it is undefined
        (no joint, or a diagonal under half a pixel).
    """
    if kp is None:
        return None
    xy = np.asarray(kp, np.float64)
    xy = xy[xy[:, 2] > vis_thresh, :2]
    if not len(xy):
        return None
    low, high = xy.min(axis=0), xy.max(axis=0)
    size = float(np.linalg.norm(high - low))
    if size < _MIN_SIZE:
        return None
    return np.append((low + high) / 2, REFERENCE_SIZE / size)


def get_all_bbox_params(
    kps: Sequence[np.ndarray | None] | np.ndarray, vis_thresh: float = 0.3
) -> tuple[np.ndarray, int, int]:
    """Centre and zoom for every frame between the first and the last one that shows the person.

    Args:
        kps: T entries (J, 3) as in :func:`get_bbox_params`.
        vis_thresh: see there.

    Returns:
        ``(params (end - start, 3), start, end)``; gaps inside are interpolated linearly. When no frame shows
        the person, an empty array (0, 3) and 0, 0.
    """
    found = [(t, p) for t, kp in enumerate(kps) if (p := get_bbox_params(kp, vis_thresh)) is not None]
    if not found:
        return np.zeros((0, 3)), 0, 0
    times = np.array([t for t, _ in found])
    known = np.stack([p for _, p in found])
    start, end = int(times[0]), int(times[-1]) + 1
    frames = np.arange(start, end)
    return np.stack([np.interp(frames, times, column) for column in known.T], axis=1), start, end


def smooth_bbox_params(
    params: Shaped[np.ndarray, "t 3"], kernel_size: int = 11, sigma: float = 8.0
) -> Float[np.ndarray, "t 3"]:
    """Median filter (zero padded), then Gaussian filter (reflected ends), along time.

    Args:
        params: ``cx, cy, q``.
        kernel_size: of the median filter, frames, odd; at most 2T - 1 are used.
        sigma: of the Gaussian, frames.

    The result is float64.
    """
    if not len(params):
        return np.zeros((0, 3))
    # A window with more padding than frames would have the median 0: a zoom of 0 is a box without end.
    kernel_size = min(kernel_size, 2 * len(params) - 1)
    # medfilt pads with zeros by itself; a kernel longer than the signal only makes it warn, so pad here.
    half = kernel_size // 2
    padded = np.pad(np.asarray(params, np.float64), ((half, half), (0, 0)))
    median = np.stack([medfilt(column, kernel_size) for column in padded.T], axis=1)[half : -half or None]
    smooth: np.ndarray = gaussian_filter1d(median, sigma, axis=0)
    return smooth


def get_smooth_bbox_params(
    kps: Sequence[np.ndarray | None] | np.ndarray,
    vis_thresh: float = 0.3,
    kernel_size: int = 11,
    sigma: float = 8.0,
) -> tuple[np.ndarray, int, int]:
    """Smoothed centre and zoom per frame of ``[start, end)``.

    Returns:
        ``(params (end - start, 3), start, end)``: one row per frame, aligned with everything else sliced to
        ``[start, end)``. (The original put ``start`` zero rows in front, which shifted its boxes.)
    """
    params, start, end = get_all_bbox_params(kps, vis_thresh)
    return smooth_bbox_params(params, kernel_size, sigma), start, end


def params_to_bboxes(params: Shaped[np.ndarray, "t 3"], factor: float = 1.0) -> Float[np.ndarray, "t 4"]:
    """Centre and zoom -> ``cx, cy, side, side`` with side = factor * 150 / q, pixels."""
    params = np.asarray(params, np.float64)
    side = factor * REFERENCE_SIZE / params[:, 2:3]
    return np.concatenate([params[:, :2], side, side], axis=1)


def scale_bboxes(bboxes: Shaped[np.ndarray, "*batch 4"], scale: float) -> Float[np.ndarray, "*batch 4"]:
    """Copy of boxes with width and height multiplied by ``scale``, centres kept; float64."""
    scaled = np.array(bboxes, np.float64)
    scaled[..., 2:] *= scale
    return scaled

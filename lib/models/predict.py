"""One prediction per frame of a whole sequence: the only way from static features to meshes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from ..utils.errors import UserError
from ..utils.smoothing import gaussian
from .inference import PreparedTCMR
from .precision import Precision
from .tcmr import TCMR, Borders

TRAINING_FPS = 30.0


def window_step(fps: float, borders: Borders = "edge") -> int:
    """Frames from one frame of a window to the next, so that a window spans the time it was trained on.

    The published protocol (``static`` borders) steps over none.
    """
    return 1 if borders == "static" else max(1, round(fps / TRAINING_FPS))


def window_indices(
    n_frames: int, seqlen: int, borders: Borders = "static", step: int = 1
) -> Int[np.ndarray, "n t"]:
    """Frames that each frame is predicted from; the frame itself is at ``seqlen // 2``.

    ``static`` is the published protocol: a frame whose window would leave the sequence sees only itself,
    repeated. ``edge`` repeats the first or last frame instead, takes any length, and can look at every
    ``step``-th frame only (video of a higher frame rate than the training data).

    Raises:
        UserError: ``static`` with fewer frames than a window, or with a step.
    """
    centre = np.arange(n_frames)[:, None]
    windows = centre + step * (np.arange(seqlen) - seqlen // 2)
    if borders == "edge":
        return windows.clip(0, n_frames - 1)
    if borders != "static":
        raise ValueError(f"borders is {borders!r}, expected 'static' or 'edge'")
    if step != 1:
        raise UserError(f"step is {step}; static borders are defined for step 1, use edge borders")
    if n_frames < seqlen:
        raise UserError(
            f"the sequence has {n_frames} frames, static borders (COMPAT.STATIC_BORDERS) need at least"
            f" {seqlen}; use a longer sequence or edge borders"
        )
    inside = (windows[:, :1] >= 0) & (windows[:, -1:] < n_frames)
    return np.where(inside, windows, centre)


def predict_sequence(
    model: TCMR | PreparedTCMR,
    features: np.ndarray | Tensor,
    *,
    J_regressor: np.ndarray | Tensor | None = None,
    return_verts: bool = True,
    borders: Borders | None = None,
    step: int = 1,
    precision: Precision = "fp32",
    batch_size: int | None = None,
    progress: Callable[[int], object] | None = None,
) -> dict[str, np.ndarray]:
    """Predict every frame of one person's sequence.

    Args:
        model: runs on its own device, as in evaluation mode. For many sequences, prepare it once.
        features: static features (T, F) of consecutive frames.
        J_regressor: (17, 6890), for the 14 evaluation joints instead of 49.
        return_verts: False leaves out ``verts`` and is faster.
        borders, step: which frames a prediction sees, see :func:`window_indices`. By default the borders are
            the model's own. Features are smoothed by a Gaussian of the model's ``feature_smooth`` steps, and
            with a step of at least half a step.
        precision: see :class:`PreparedTCMR`; a prepared model has its own.
        batch_size: frames predicted at once; bounds the memory, does not change results. By default 256 on a
            CPU, 1024 elsewhere.
        progress: called with the number of frames just finished, like ``tqdm.update``.

    Returns:
        float32 arrays over T frames: ``theta`` (T, 85), ``verts`` (T, 6890, 3) in metres, ``kp_2d`` (T, J, 2)
        in [-1, 1] of the crop, ``kp_3d`` (T, J, 3) in metres, ``rotmat`` (T, 24, 3, 3), and
        ``scores`` (T, 3) of past, current and future if the encoder has attention.

    Raises:
        UserError: wrong feature size, values that are not finite, a sequence too short for ``borders``, or a
            precision that the device lacks.
    """
    outputs: dict[str, np.ndarray] = {}
    for part, batch in iter_predictions(
        model,
        features,
        J_regressor=J_regressor,
        return_verts=return_verts,
        borders=borders,
        step=step,
        precision=precision,
        batch_size=batch_size,
    ):
        for name, value in batch.items():
            if name not in outputs:
                outputs[name] = np.empty((len(features), *value.shape[1:]), np.float32)
            outputs[name][part] = value.cpu().numpy()
        if progress is not None:
            progress(part.stop - part.start)
    return outputs


def iter_predictions(
    model: TCMR | PreparedTCMR,
    features: np.ndarray | Tensor,
    *,
    J_regressor: np.ndarray | Tensor | None = None,
    return_verts: bool = True,
    borders: Borders | None = None,
    step: int = 1,
    precision: Precision = "fp32",
    batch_size: int | None = None,
) -> Iterator[tuple[slice, dict[str, Tensor]]]:
    """:func:`predict_sequence` part by part, so that a sequence of any length needs little memory.

    Yields:
        frames, and the outputs of these frames as tensors on the model's device.
    """
    if isinstance(features, Tensor):
        features = features.detach().cpu().numpy()
    network = model if isinstance(model, TCMR) else model.model
    check_features(features, network.feature_size)
    features = gaussian(features, smoothing_width(network.feature_smooth, step))
    windows = window_indices(len(features), network.seqlen, borders or network.borders, step)
    device = network.device
    if J_regressor is not None:
        J_regressor = torch.as_tensor(J_regressor).to(device, network.dtype)
    size = batch_size or (256 if device.type == "cpu" else 1024)
    rows = min(size, len(features))
    fast = PreparedTCMR(model, precision, rows) if isinstance(model, TCMR) else model
    for start in range(0, len(features), size):
        chosen = windows[start : start + size]
        used, local = np.unique(chosen, return_inverse=True)
        frames = torch.from_numpy(features[used]).to(device, network.dtype)
        indices = torch.from_numpy(local.reshape(chosen.shape)).to(device)
        with torch.inference_mode():
            batch = fast.predict_windows(frames, indices, J_regressor, return_verts)
        yield slice(start, start + len(chosen)), batch


def smoothing_width(feature_smooth: float, step: int) -> float:
    """Frames, width of the Gaussian over features of a model's ``feature_smooth``."""
    # With a step, windows of neighbouring frames share no frame: without a low-pass they would disagree.
    return max(step * feature_smooth, step / 2 if step > 1 else 0)


def check_features(features: np.ndarray, feature_size: int, first: int = 0) -> None:
    """UserError if features are not (T, feature_size) finite numbers. first: number of their first frame."""
    if features.dtype.kind not in "fiu":
        raise UserError(f"features are of type {features.dtype}, expected numbers")
    if features.ndim != 2 or features.shape[1] != feature_size or not len(features):
        raise UserError(
            f"features have shape {features.shape}, expected (frames, {feature_size}); features and"
            " model must come from the same extractor (MODEL.EXTRACTOR, MODEL.FEATURE_SIZE)"
        )
    blocks = (features[start : start + 1024] for start in range(0, len(features), 1024))
    bad = np.flatnonzero(~np.concatenate([np.isfinite(block).all(axis=1) for block in blocks]))
    if len(bad):
        raise UserError(
            f"the features of frame {first + bad[0]} (counted from 0; {len(bad)} frames in all) are not"
            " finite; extract the features again"
        )

"""One prediction per frame of a stream of static features, in bounded memory."""

from __future__ import annotations

from collections import deque

import numpy as np
import torch
from torch import Tensor

from ..utils.errors import UserError
from ..utils.smoothing import gaussian, gaussian_kernel
from .inference import PreparedTCMR
from .precision import Precision
from .predict import check_features, smoothing_width
from .tcmr import TCMR, Borders


class StreamingPredictor:
    """The streaming twin of :func:`lib.models.predict.predict_sequence`.

    With a delay of d frames, frame t is predicted when frame t + d has come, and the prediction is, bit by
    bit, what ``predict_sequence(model, features[: t + d + 1], batch_size=1)`` says of frame t. So with the
    model's full delay, which reaches as far ahead as it ever looks, it is the prediction of the whole
    sequence; with less, the last frame is repeated in place of what is not known yet.

    Args:
        model: runs on its own device, as in evaluation mode.
        delay: d. None, or more than the full delay: that.
        step, borders, precision, return_verts: see :func:`predict_sequence`. ``static`` borders need the
            full delay; by default a smaller one has ``edge`` borders.

    Attributes:
        full_delay: frames ahead that predictions depend on: ``step`` times the half window (7 frames of 16),
            and the radius of the Gaussian if features are smoothed.
        delay: d.

    Raises:
        UserError: static borders with less than the full delay, or a precision that the device lacks.
    """

    def __init__(
        self,
        model: TCMR | PreparedTCMR,
        delay: int | None = None,
        *,
        step: int = 1,
        borders: Borders | None = None,
        precision: Precision = "fp32",
        return_verts: bool = True,
    ) -> None:
        self._model = PreparedTCMR(model, precision, 1) if isinstance(model, TCMR) else model
        network = self._model.model
        self._device, self._dtype, self._size = network.device, network.dtype, network.feature_size
        self._verts = return_verts
        self._sigma = smoothing_width(network.feature_smooth, step)
        radius = len(gaussian_kernel(self._sigma)) // 2
        self._offsets = step * (np.arange(network.seqlen) - network.seqlen // 2)
        self.full_delay = int(self._offsets[-1]) + radius
        if delay is not None and delay < 0:
            raise UserError(f"delay is {delay}, expected 0 frames or more")
        self.delay = self.full_delay if delay is None else min(int(delay), self.full_delay)
        whole = self.delay == self.full_delay
        self._borders = borders or (network.borders if whole else "edge")
        if self._borders == "static" and (not whole or step != 1):
            raise UserError(
                f"static borders with a delay of {self.delay} frames and step {step}: they are defined for "
                f"step 1 and the full delay of {self.full_delay} frames; use edge borders"
            )
        self._past = radius - int(self._offsets[0])
        self._recent: deque[np.ndarray] = deque(maxlen=self._past + 1 + self.delay)
        self._came = self._given = 0

    def push(self, feature: np.ndarray | Tensor) -> dict[str, np.ndarray] | None:
        """Add the next frame's feature (F,).

        Returns:
            the prediction of the frame ``delay`` frames before it, None if there is no such frame. Arrays as
            of :func:`predict_sequence`, without the first axis: ``theta`` (85,), ``kp_3d`` (J, 3), ...

        Raises:
            UserError: wrong feature size, or values that are not finite.
        """
        if isinstance(feature, Tensor):
            feature = feature.detach().cpu().numpy()
        check_features(feature[None], self._size, self._came)
        self._recent.append(np.array(feature))
        self._came += 1
        return self._predict() if self._came - self._given > self.delay else None

    def finish(self) -> list[dict[str, np.ndarray]]:
        """The predictions that are left, at the end of the sequence. What is pushed next begins another."""
        rest = [self._predict() for _ in range(self._came - self._given)]
        self._recent.clear()
        self._came = self._given = 0
        return rest

    def _predict(self) -> dict[str, np.ndarray]:
        start = max(0, self._given - self._past)
        rows = list(self._recent)[start - self._came :]
        features = gaussian(np.stack(rows), self._sigma)
        window = self._given + self._offsets
        if self._borders == "static" and (window[0] < 0 or window[-1] >= self._came):
            window = np.full_like(window, self._given)
        used, local = np.unique(window.clip(0, self._came - 1), return_inverse=True)
        frames = torch.from_numpy(features[used - start]).to(self._device, self._dtype)
        indices = torch.from_numpy(local.reshape(1, -1)).to(self._device)
        with torch.inference_mode():
            batch = self._model.predict_windows(frames, indices, None, self._verts)
        self._given += 1
        return {name: value[0].float().cpu().numpy() for name, value in batch.items()}

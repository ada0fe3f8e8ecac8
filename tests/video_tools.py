"""Small films of every kind, encoded here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np


def encode(
    path: Path,
    images: Sequence[np.ndarray],
    *,
    fps: int | Fraction = 30,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    options: dict[str, str] | None = None,
    times: Sequence[int | Fraction] | None = None,
    aspect: Fraction | None = None,
    setup: Callable[[av.VideoStream], object] | None = None,
    time_base: Fraction = Fraction(1, 90000),
) -> Path:
    """Write RGB images (H, W, 3) uint8 as a film; ``times`` in seconds, ``aspect`` of a pixel."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(fps), options=options or {})
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = pix_fmt
        stream.codec_context.time_base = stream.time_base = time_base
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        if setup:
            setup(stream)
        for i, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame.pts = round((times[i] if times else Fraction(i) / Fraction(fps)) / time_base)
            frame.time_base = time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def quarters(width: int = 64, height: int = 48) -> np.ndarray:
    """Red, green, blue and grey quarters: no rotation or mirror image of it is the same."""
    image = np.zeros((height, width, 3), np.uint8)
    image[: height // 2, : width // 2] = 210, 40, 40
    image[: height // 2, width // 2 :] = 40, 190, 60
    image[height // 2 :, : width // 2] = 40, 60, 210
    image[height // 2 :, width // 2 :] = 128
    return image

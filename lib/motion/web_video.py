"""A small copy of a video for a page: VP9 in WebM, which browsers play without further codecs."""

from __future__ import annotations

import io
from collections.abc import Callable
from fractions import Fraction

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace

from ..utils.errors import UserError
from ..utils.prefetch import prefetch
from ..video.frames import FRAMES_AHEAD, FrameSource
from ..video.writer import BT709

_LONGEST_SIDE = 960  # px
_BIT_RATE, _MOST_BYTES = 1_500_000, 60_000_000
_KEY_FRAMES = 15
"""Frames from one key frame to the next: a player that looks for a frame decodes no more than these."""
_SPEED = {"deadline": "realtime", "cpu-used": "6", "row-mt": "1", "crf": "33", "lag-in-frames": "0"}


def encode_webm(
    source: FrameSource, fps: float, n_frames: int, progress: Callable[[int], object] = lambda n: None
) -> bytes:
    """All frames of a source at equal distances, frame i at i / ``fps`` seconds, at most 960 px long.

    Raises:
        UserError: the source has not ``n_frames`` frames.
    """
    file = io.BytesIO()
    rate = Fraction(fps).limit_denominator(60000)
    width, height = _even_size(source.info.width, source.info.height)
    count = 0
    with av.open(file, "w", format="webm") as container, prefetch(source, FRAMES_AHEAD) as images:
        stream = container.add_stream("libvpx-vp9", rate=rate, options=_SPEED)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.time_base = 1 / rate
        context = stream.codec_context
        context.time_base = 1 / rate
        context.gop_size = _KEY_FRAMES
        context.bit_rate = round(min(_BIT_RATE, 8 * _MOST_BYTES * fps / n_frames))
        context.colorspace = context.color_primaries = context.color_trc = BT709
        context.color_range = ColorRange.MPEG.value
        for count, image in enumerate(images, start=1):
            if count > n_frames:
                break
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24").reformat(
                width, height, "yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
            )
            frame.pts, frame.time_base = count - 1, 1 / rate
            container.mux(stream.encode(frame))
            progress(1)
        container.mux(stream.encode(None))
    if count != n_frames:
        found = f"more than {n_frames}" if count > n_frames else count
        raise UserError(
            f"{source.path} has {found} frames, but the motions are of a video of {n_frames}; give the video "
            "that they were made from"
        )
    return file.getvalue()


def _even_size(width: int, height: int) -> tuple[int, int]:
    scale = min(1.0, _LONGEST_SIDE / max(width, height))
    return max(2, 2 * round(scale * width / 2)), max(2, 2 * round(scale * height / 2))

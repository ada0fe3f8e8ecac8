"""Writing a video that browsers play."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import cv2
import numpy as np
from av.video.reformatter import ColorRange, Colorspace

from ..utils.files import atomic_write

_TIME_BASE = Fraction(1, 90000)
BT709 = 1  # H.273 code of the primaries, transfer and matrix that players assume for HD video


class VideoWriter:
    """Writes an H.264 video (yuv420p, BT.709, index in front) that browsers play.

    A context manager: the file appears under its name when the block ends without an error. Odd sizes are
    padded to even ones by repeating the last row or column, because H.264 in yuv420p has no odd sizes.
    """

    def __init__(self, path: str | Path, fps: Fraction) -> None:
        self.path = Path(path)
        self.fps = Fraction(fps).limit_denominator(60000)
        self._atomic = atomic_write(self.path)
        self._container: av.container.OutputContainer | None = None
        self._stream: av.VideoStream | None = None
        self._size = (0, 0)

    def __enter__(self) -> VideoWriter:
        self._container = av.open(
            f"file:{self._atomic.__enter__()}", "w", format="mp4", options={"movflags": "+faststart"}
        )
        return self

    def write(self, image: np.ndarray, time: Fraction) -> None:
        """Append a frame (H, W, 3) uint8 RGB that is shown from ``time`` seconds on; times must increase."""
        assert self._container is not None, "VideoWriter must be used in a with block"
        height, width = image.shape[:2]
        if self._stream is None:
            self._size = (width, height)
            self._stream = self._open_stream(width + width % 2, height + height % 2)
        if (width, height) != self._size:
            raise ValueError(f"frame of {width}x{height} in a video of {self._size[0]}x{self._size[1]}")
        if width % 2 or height % 2:
            image = cv2.copyMakeBorder(image, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24").reformat(
            format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
        )
        frame.pts = round(time / _TIME_BASE)
        frame.time_base = _TIME_BASE
        self._container.mux(self._stream.encode(frame))

    def _open_stream(self, width: int, height: int) -> av.VideoStream:
        assert self._container is not None
        # No B-frames: with them the container understates the length of a video of variable frame rate.
        options = {"preset": "veryfast", "crf": "20", "bf": "0"}
        stream = self._container.add_stream("libx264", rate=self.fps, options=options)
        stream.width, stream.height = width, height
        stream.pix_fmt = "yuv420p"
        stream.time_base = _TIME_BASE
        context = stream.codec_context
        context.time_base = _TIME_BASE
        context.colorspace = context.color_primaries = context.color_trc = BT709
        context.color_range = ColorRange.MPEG.value
        return stream

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._container is not None
        try:
            if self._stream is not None and error is None:
                self._container.mux(self._stream.encode(None))
            self._container.close()
        except BaseException as closing:
            if error is None:
                self._atomic.__exit__(type(closing), closing, closing.__traceback__)
                raise
        self._atomic.__exit__(kind, error, trace)

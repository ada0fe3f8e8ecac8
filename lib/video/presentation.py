"""What a player shows of a decoded frame: upright, not mirrored, whole, square pixels, a screen's colours.

Everything here is said by the film itself: display matrix, pixel aspect, interlacing flags, transfer curve.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import av
import cv2
import numpy as np
from av.filter import Graph
from av.video.reformatter import ColorPrimaries, ColorTrc

_HDR = (ColorTrc.SMPTE2084, ColorTrc.ARIB_STD_B67)  # PQ and HLG
_LARGEST_ASPECT = 10  # of a pixel; beyond that it is no statement but damage


def orientation(frame: av.VideoFrame) -> tuple[bool, bool, bool]:
    """Whether to exchange rows and columns, and then to turn rows and columns round, by the display matrix.

    Rotations by other angles than quarter turns count as the nearest of those.
    """
    try:
        side_data: Any = frame.side_data
        if "DISPLAYMATRIX" not in side_data:
            return False, False, False
        # x' = a x + c y, y' = b x + d y
        a, b, _, c, d = (float(v) for v in np.frombuffer(side_data["DISPLAYMATRIX"], np.int32)[:5])
    except ValueError:  # PyAV does not know all side data, not a photo's EXIF, but the rotation
        angle = np.radians(-frame.rotation)
        a, b, c, d = np.cos(angle), np.sin(angle), -np.sin(angle), np.cos(angle)
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return False, d < 0, a < 0
    return True, b < 0, c < 0


def square_pixels(width: int, height: int, aspect: Fraction | None) -> tuple[int, int]:
    """Width and height with square pixels, for pixels ``aspect`` times as wide as high: neither shrinks."""
    if not aspect or not 1 / _LARGEST_ASPECT <= aspect <= _LARGEST_ASPECT:
        return width, height
    return (round(width * aspect), height) if aspect > 1 else (width, round(height / aspect))


def shown_size(frame: av.VideoFrame, aspect: Fraction | None) -> tuple[int, int]:
    """Width and height, in square pixels, that a player gives the frame."""
    size = square_pixels(frame.width, frame.height, aspect)
    return size[::-1] if orientation(frame)[0] else size


def present(frame: av.VideoFrame, aspect: Fraction | None, size: tuple[int, int]) -> np.ndarray:
    """The picture (H, W, 3) uint8 RGB, fitted into ``size`` (W, H): a film keeps the size it began with.

    ``aspect``: width over height of a pixel. Where the proportions differ, black bars fill the rest.
    """
    transposed, turn_rows, turn_columns = orientation(frame)
    width, height = shown_size(frame, aspect)
    scale = min(Fraction(size[0], width), Fraction(size[1], height))
    fitted = max(1, round(width * scale)), max(1, round(height * scale))
    image = _rgb(frame, *(fitted[::-1] if transposed else fitted))
    if transposed:
        image = image.swapaxes(0, 1)
    image = image[:: -1 if turn_rows else 1, :: -1 if turn_columns else 1]
    if fitted != size:
        left, top = (size[0] - fitted[0]) // 2, (size[1] - fitted[1]) // 2
        right, bottom = size[0] - fitted[0] - left, size[1] - fitted[1] - top
        return cv2.copyMakeBorder(np.ascontiguousarray(image), top, bottom, left, right, cv2.BORDER_CONSTANT)
    return np.ascontiguousarray(image)


def _rgb(frame: av.VideoFrame, width: int, height: int) -> np.ndarray:
    if frame.color_trc in _HDR:
        frame = frame.reformat(
            width=width,
            height=height,
            format="rgb24",
            dst_color_trc=ColorTrc.BT709,
            dst_color_primaries=ColorPrimaries.BT709,
        )
    return frame.to_ndarray(format="rgb24", width=width, height=height)


class Deinterlacer:
    """Gives whole pictures of one moment, one per frame, from the first interlaced frame of a film on.

    The moment is that of the upper field, whether or not it is said to be the first: films often say it
    wrongly, and one field or the other only shifts the film by half a frame. Frames that are not marked as
    interlaced pass unchanged. Frames come out in order, some of them later.
    """

    def __init__(self) -> None:
        self._graph: Graph | None = None
        self._format: tuple[int, int, str] | None = None

    def __call__(self, frame: av.VideoFrame) -> list[av.VideoFrame]:
        """The frames that are ready. ``frame`` must have a time stamp; they keep theirs."""
        ready = []
        if self._graph is not None and self._format != _format(frame):
            ready += self.flush()
        if self._graph is None:
            if not frame.interlaced_frame:
                return [*ready, frame]
            self._graph, self._format = _bwdif(frame), _format(frame)
        self._graph.vpush(frame)
        return ready + self._pull()

    def flush(self) -> list[av.VideoFrame]:
        """The frames that are left; another film may follow."""
        if self._graph is None:
            return []
        self._graph.vpush(None)
        left = self._pull()
        self._graph = None
        return left

    def _pull(self) -> list[av.VideoFrame]:
        assert self._graph is not None
        frames = []
        while True:
            try:
                frames.append(self._graph.vpull())
            except (av.BlockingIOError, av.EOFError):
                return frames


def _format(frame: av.VideoFrame) -> tuple[int, int, str]:
    return frame.width, frame.height, frame.format.name


def _bwdif(frame: av.VideoFrame) -> Graph:
    graph = Graph()
    source = graph.add(
        "buffer",
        f"video_size={frame.width}x{frame.height}:pix_fmt={frame.format.name}:time_base={frame.time_base}:"
        f"colorspace={frame.colorspace}:range={frame.color_range}",
    )
    filter_ = graph.add("bwdif", "mode=send_frame:parity=tff:deint=interlaced")
    graph.link_nodes(source, filter_, graph.add("buffersink"))
    graph.configure()
    return graph

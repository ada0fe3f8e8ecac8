"""Video in and out: frames are streamed, so a video of any length fits in memory.

Images are (H, W, 3) uint8 RGB everywhere in the demo.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import cv2
import numpy as np
from av.video.reformatter import ColorRange, Colorspace

from lib.utils.errors import UserError
from lib.utils.files import atomic_write

log = logging.getLogger(__name__)

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
IMAGE_FPS = Fraction(30)
"""Frame rate of image folders, which carry none."""
_TIME_BASE = Fraction(1, 90000)
_BT709 = 1  # H.273 code of the primaries, transfer and matrix that players assume for HD video


@dataclass(frozen=True)
class VideoInfo:
    """Size in pixels (after rotation), average frame rate in 1/s, and number of frames (None if unknown)."""

    width: int
    height: int
    fps: Fraction
    frames: int | None


class FrameSource(ABC):
    """Frames that can be iterated over as often as needed; each time they are decoded afresh."""

    name: str
    info: VideoInfo

    @abstractmethod
    def timed(self) -> Iterator[tuple[Fraction, np.ndarray]]:
        """Time in seconds since the first frame, strictly increasing, and the frame."""

    def __iter__(self) -> Iterator[np.ndarray]:
        return (frame for _, frame in self.timed())


class VideoFile(FrameSource):
    """A video file, in display orientation, with the exact time of every frame (also at a variable rate)."""

    def __init__(self, path: str | Path) -> None:
        """Raises UserError if the file is missing, is no video or holds no frame."""
        self.path = Path(path)
        self.name = self.path.stem
        if not self.path.is_file():
            raise UserError(f"{self.path}: no such video file; give an existing one with --vid_file")
        with self._open() as container:
            stream = container.streams.video[0]
            try:
                first = next(container.decode(stream), None)
            except av.FFmpegError as error:
                raise UserError(f"{self.path}: its first frame cannot be decoded ({error})") from error
            if first is None:
                raise UserError(f"{self.path}: the video holds no frames")
            # guessed_rate and base_rate are wrong for variable frame rates; the average is right for both.
            rate = stream.average_rate or stream.guessed_rate or IMAGE_FPS
            self._stored_size = first.width, first.height
            width, height = self._stored_size[::-1] if first.rotation % 180 else self._stored_size
            self.info = VideoInfo(width, height, Fraction(rate), stream.frames or None)

    def _open(self) -> av.container.InputContainer:
        try:
            container = av.open(str(self.path))
        except (av.FFmpegError, OSError) as error:
            raise UserError(f"{self.path}: cannot be opened as a video ({error}); give another") from error
        if not container.streams.video:
            container.close()
            raise UserError(f"{self.path}: holds no video stream; expected a video file")
        return container

    def timed(self) -> Iterator[tuple[Fraction, np.ndarray]]:
        width, height = self._stored_size
        start: Fraction | None = None
        previous: Fraction | None = None
        with self._open() as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            frames = container.decode(stream)
            count = 0
            while True:
                try:
                    frame = next(frames, None)
                except av.FFmpegError as error:
                    log.warning("%s: damaged after %d frames, used up to there (%s)", self.path, count, error)
                    return
                if frame is None:
                    return
                count += 1
                time = None if frame.pts is None or not frame.time_base else frame.pts * frame.time_base
                if time is None or (previous is not None and time <= previous):
                    time = Fraction(0) if previous is None else previous + 1 / self.info.fps
                previous = time
                start = time if start is None else start
                image: np.ndarray = frame.to_ndarray(format="rgb24", width=width, height=height)
                if frame.rotation % 360:
                    image = np.ascontiguousarray(np.rot90(image, frame.rotation // 90))
                yield time - start, image


class ImageFolder(FrameSource):
    """The .png, .jpg and .jpeg files of a folder, sorted by name, as a video of 30 frames per second."""

    def __init__(self, path: str | Path) -> None:
        """Raises UserError if the folder is missing or holds no image."""
        self.path = Path(path)
        self.name = self.path.resolve().name
        if not self.path.is_dir():
            raise UserError(f"{self.path}: no such folder; give a folder of images with --img_dir")
        self.files = sorted(p for p in self.path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
        if not self.files:
            raise UserError(f"{self.path}: holds no images; expected {', '.join(IMAGE_SUFFIXES)} files")
        height, width = self._read(self.files[0]).shape[:2]
        self.info = VideoInfo(width, height, IMAGE_FPS, len(self.files))

    def _read(self, path: Path) -> np.ndarray:
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if image is None:
            raise UserError(f"{path}: cannot be read as an image; repair or remove it")
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)

    def timed(self) -> Iterator[tuple[Fraction, np.ndarray]]:
        for i, path in enumerate(self.files):
            image = self._read(path)
            if image.shape[:2] != (self.info.height, self.info.width):
                raise UserError(
                    f"{path}: {image.shape[1]}x{image.shape[0]} pixels, but {self.files[0].name} has "
                    f"{self.info.width}x{self.info.height}; expected images of one size"
                )
            yield i / IMAGE_FPS, image


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
            str(self._atomic.__enter__()), "w", format="mp4", options={"movflags": "+faststart"}
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
        context.colorspace = context.color_primaries = context.color_trc = _BT709
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

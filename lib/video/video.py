"""Video in and out: frames are streamed, so a video of any length fits in memory.

Images are (H, W, 3) uint8 RGB everywhere in the demo.
"""

from __future__ import annotations

import logging
import re
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice, pairwise
from pathlib import Path
from types import MappingProxyType, TracebackType

import av
import cv2
import numpy as np
from av.format import Flags
from av.stream import Disposition
from av.video.reformatter import ColorRange, Colorspace

from ..utils.errors import UserError
from ..utils.files import atomic_write
from ..utils.images import read_image
from .presentation import Deinterlacer, present, shown_size

log = logging.getLogger(__name__)

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
IMAGE_FPS = Fraction(30)
"""Frame rate of image folders, which carry none."""
MAX_BACK = 1
"""Seconds that a clock may go back and still be the same clock with disorder in its stamps."""
MAX_GAP = {True: 10, False: 600}
"""Seconds from frame to frame that may be true, by whether the container's clock may jump (as in FFmpeg)."""
RATE_PACKETS, MIN_DISTINCT, PLAUSIBLE = 64, 0.75, (1, 300)
ORDER_FRAMES = 8
"""Frames at the beginning that show whether their time stamps are in order."""
MAX_FAILURES = 100
"""Failures to read on, one after the other, that end a film."""
SAME_PLACE, MAX_PLACES = Fraction(1, 4), 5
"""Losses less than so many seconds apart are told as one, and so many places are told."""
_STILLS = Disposition.attached_pic | Disposition.still_image | Disposition.timed_thumbnails
_TIME_BASE = Fraction(1, 90000)
_BT709 = 1  # H.273 code of the primaries, transfer and matrix that players assume for HD video


_Decoded = tuple[av.VideoFrame, Fraction | None, Fraction | None]
"""A frame, width over height of its pixels, and its time stamp in seconds."""


@dataclass(frozen=True)
class VideoInfo:
    """Size in pixels (after rotation), average frame rate in 1/s, and number of frames (None if unknown)."""

    width: int
    height: int
    fps: Fraction
    frames: int | None


class FrameSource(ABC):
    """Frames that can be iterated over as often as needed; each time they are decoded afresh."""

    path: Path
    name: str
    info: VideoInfo
    damage: str = ""
    """What the first pass could not read, for the user; '' if nothing."""
    tags: Mapping[str, str] = MappingProxyType({})
    """What a video file says of itself."""

    @abstractmethod
    def timed(self) -> Iterator[tuple[Fraction, np.ndarray]]:
        """Time in seconds since the first frame, strictly increasing, and the frame."""

    def __iter__(self) -> Iterator[np.ndarray]:
        return (frame for _, frame in self.timed())


class VideoFile(FrameSource):
    """A video file as a player shows it, with the exact time of every frame (also at a variable rate).

    Packets that cannot be decoded cost their own frames; the first whole pass warns which seconds are lost.
    """

    def __init__(self, path: str | Path, fps: Fraction | None = None) -> None:
        """``fps`` takes the place of the file's time stamps: frames at equal distances.

        Raises UserError if the file is missing, is no video or holds no frame.
        """
        self.path = Path(path)
        self.name = self.path.stem
        self._damaged = self._by_dts = False
        if self.path.is_dir():
            raise UserError(f"{self.path}: is a folder; give a folder of images with --img_dir")
        if not self.path.is_file():
            raise UserError(f"{self.path}: no such video file; give an existing one with --vid_file")
        with self._open() as (container, stream):
            rate, regular = _clock_of(container, stream)
            self._max_gap = MAX_GAP[bool(Flags(container.format.flags) & Flags.ts_discont)]
            count = stream.frames or None
            self.tags = {**container.metadata, **stream.metadata}
        if not (fps or regular):
            log.warning("%s: its time stamps are of no use, taken as %.4g frames per second", path, rate)
        self._evenly = fps is not None or not regular
        # Before the first frame is decoded, some containers do not say the shape of a pixel.
        frames = self._frames(warn=False)
        first = list(islice(frames, ORDER_FRAMES))
        frames.close()
        if not first:
            raise UserError(f"{self.path}: no frame of it can be decoded; repair it or give another")
        # Containers without presentation times: those that FFmpeg makes up can be out of order.
        presented, decoded = ([f.pts for f, *_ in first], [f.dts for f, *_ in first])
        self._by_dts = not _increase(presented) and _increase(decoded)
        frame, aspect, _ = first[0]
        width, height = shown_size(frame, aspect)
        self.info = VideoInfo(width, height, Fraction(fps or rate), count)

    @contextmanager
    def _open(self) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
        try:
            # As a file, whatever its name, and never from the network; old tags are not all UTF-8.
            container = av.open(
                f"file:{self.path}", metadata_errors="replace", options={"protocol_whitelist": "file"}
            )
        except (av.FFmpegError, OSError) as error:
            reason = error.strerror or error
            raise UserError(f"{self.path}: cannot be opened as a video ({reason}); give another") from error
        with container:
            stream = _best_stream(container)
            if stream is None:
                raise UserError(f"{self.path}: holds no video stream; expected a video file")
            yield container, stream

    def timed(self) -> Iterator[tuple[Fraction, np.ndarray]]:
        """See :meth:`FrameSource.timed`."""
        size = self.info.width, self.info.height
        deinterlace = Deinterlacer()
        waiting: dict[int, tuple[Fraction, Fraction | None]] = {}
        clock = Clock(self.info.fps, self._max_gap)

        def pictures(frames: list[av.VideoFrame]) -> Iterator[tuple[Fraction, np.ndarray]]:
            for frame in frames:
                assert frame.pts is not None
                assert frame.time_base is not None
                time, aspect = waiting.pop(round(frame.pts * frame.time_base))
                yield time, present(frame, aspect, size)

        for index, (frame, aspect, stamp) in enumerate(self._frames()):
            time = index / self.info.fps if self._evenly else clock(stamp)
            # The stamp becomes a number by which the frame is known again behind the deinterlacer.
            frame.pts, frame.time_base = index, Fraction(1)
            waiting[index] = time, aspect
            yield from pictures(deinterlace(frame))
        yield from pictures(deinterlace.flush())

    def _frames(self, warn: bool = True) -> Generator[_Decoded, None, None]:
        given = 0
        if not self._damaged:
            try:
                for entry in self._decode("AUTO", None):
                    yield entry
                    given += 1
                return
            except av.FFmpegError:
                self._damaged = True
        # Threads that decode several frames at once lose good ones beside a bad one: once more without.
        damage = Damage()
        yield from islice(self._decode("SLICE", damage), given, None)
        if warn and not self.damage:
            self.damage = str(damage)
            log.warning("%s: %s", self.path, damage)

    def _decode(self, threads: str, damage: Damage | None) -> Iterator[_Decoded]:
        """Without ``damage`` the first error is raised, else errors are noted there and skipped."""
        with self._open() as (container, stream):
            stream.thread_type = threads
            coded = stream.codec_context.sample_aspect_ratio
            for packet in _packets(container, stream, damage):
                if damage is not None:
                    damage.expect(packet)
                try:
                    frames = stream.decode(packet)
                except av.FFmpegError as error:
                    if damage is None:
                        raise
                    damage.add(error, packet)
                    continue
                for frame in frames:
                    # What the container says holds, until the coded film says something new.
                    now = stream.codec_context.sample_aspect_ratio
                    aspect = stream.sample_aspect_ratio if now == coded else now
                    ticks = frame.dts if self._by_dts else frame.pts
                    stamp = None if ticks is None or not frame.time_base else ticks * frame.time_base
                    if damage is not None and frame.pts is not None and frame.time_base:
                        damage.came(frame.pts * frame.time_base)
                    yield frame, aspect, stamp


class Clock:
    """Time stamps -> times since the first frame that strictly increase; jumps of the clock are taken out.

    Missing stamps, and stamps that do not increase, count as one frame on.
    """

    def __init__(self, fps: Fraction, max_gap: int) -> None:
        """``max_gap``: seconds from frame to frame that may be true."""
        self._step = 1 / fps
        self._max_gap = max_gap
        self._offset: Fraction | None = None
        self._previous = -self._step

    def __call__(self, stamp: Fraction | None) -> Fraction:
        next_time = self._previous + self._step
        if stamp is None:
            time = next_time
        else:
            if self._offset is None or not -MAX_BACK < stamp + self._offset - next_time < self._max_gap:
                self._offset = next_time - stamp
            time = stamp + self._offset
            if time <= self._previous:
                time = next_time
        self._previous = time
        return time


class Damage:
    """Which packets gave no frame, and when it would have been shown.

    That are those that cannot be decoded and those that cannot be used without them.
    """

    def __init__(self) -> None:
        self._start: Fraction | None = None
        self._times: set[Fraction] = set()
        self._unknown = 0
        self._reason = ""

    def expect(self, packet: av.Packet) -> None:
        """A packet was read whose frame is to come."""
        if packet.size and packet.pts is not None and packet.time_base and not packet.is_discard:
            self._times.add(packet.pts * packet.time_base)

    def came(self, stamp: Fraction) -> None:
        """The frame of that time came."""
        self._start = stamp if self._start is None else self._start
        self._times.discard(stamp)

    def add(self, error: av.FFmpegError, packet: av.Packet | None = None) -> None:
        """Note an error; without a packet, one could not even be read."""
        self._reason = self._reason or str(error)
        self._unknown += packet is None or packet.pts is None

    def __str__(self) -> str:
        start = self._start or Fraction(0)
        stretches: list[list[Fraction]] = []
        for time in sorted(max(time - start, Fraction(0)) for time in self._times):
            if stretches and time - stretches[-1][-1] < SAME_PLACE:
                stretches[-1].append(time)
            else:
                stretches.append([time])
        places = [
            f"{len(times)} at {float(times[0]):.2f} s"
            if len(times) == 1
            else f"{len(times)} from {float(times[0]):.2f} to {float(times[-1]):.2f} s"
            for times in stretches[:MAX_PLACES]
        ]
        if more := len(stretches) - len(places):
            places.append(f"{more} more places")
        if self._unknown:
            places.append(f"{self._unknown} at unknown times")
        return f"damaged, frames lost: {', '.join(places)} ({self._reason})"


def _increase(ticks: list[int | None]) -> bool:
    return all(a is not None and b is not None and a < b for a, b in pairwise(ticks))


def _best_stream(container: av.container.InputContainer) -> av.VideoStream | None:
    """The film: no cover or other still beside it."""
    films = [s for s in container.streams.video if not s.disposition & _STILLS and s.codec_context]
    best = container.streams.best("video")
    if best not in films or best.frames == 1:
        films.sort(key=lambda s: ((s.duration or 0) * (s.time_base or 0), s.frames), reverse=True)
        best = next(iter(films), None)
    return best


def _packets(
    container: av.container.InputContainer, stream: av.VideoStream, damage: Damage | None
) -> Iterator[av.Packet]:
    """All packets; with ``damage``, reading goes on behind what cannot be read."""
    failures = 0
    while failures < MAX_FAILURES:
        try:
            for packet in container.demux(stream):
                failures = 0
                yield packet
            return
        except av.FFmpegError as error:
            if damage is None:
                raise
            if not failures:
                damage.add(error)
            failures += 1


def _clock_of(container: av.container.InputContainer, stream: av.VideoStream) -> tuple[Fraction, bool]:
    """Average frame rate, and whether the time stamps are of any use; reads the first packets."""
    stamps = []
    with suppress(av.FFmpegError):
        for packet in islice(container.demux(stream), RATE_PACKETS):
            if packet.size:
                stamps.append(packet.dts if packet.pts is None else packet.pts)
    unit = stream.time_base or Fraction(0)
    times = sorted({stamp * unit for stamp in stamps if stamp is not None})
    # guessed_rate and base_rate are wrong for variable frame rates; the average is right for both.
    stated = [rate for rate in (stream.average_rate, stream.guessed_rate) if rate]
    steps = sorted(b - a for a, b in pairwise(times))
    typical = 1 / steps[len(steps) // 2] if steps else IMAGE_FPS
    if len(stamps) > 1 and len(times) < MIN_DISTINCT * len(stamps):
        if 2 * len(times) >= len(stamps):  # a clock that ticks once for two frames
            stated = [typical * len(stamps) / len(times), *stated]
        return Fraction(next((r for r in stated if PLAUSIBLE[0] <= r <= PLAUSIBLE[1]), IMAGE_FPS)), False
    rate = stated[0] if stated else typical
    # Some containers state the resolution of their clock for a rate.
    return Fraction(rate if not steps or typical / 3 < rate < 3 * typical else typical), True


class ImageFolder(FrameSource):
    """The .png, .jpg and .jpeg files of a folder as a video; numbers in their names count as numbers."""

    def __init__(self, path: str | Path, fps: Fraction | None = None) -> None:
        """Raises UserError if the folder is missing or holds no image."""
        self.path = Path(path)
        self.name = self.path.resolve().name
        if self.path.is_file():
            raise UserError(f"{self.path}: is a file; give a video or a single image with --vid_file")
        if not self.path.is_dir():
            raise UserError(f"{self.path}: no such folder; give a folder of images with --img_dir")
        self.files = sorted(
            (
                p
                for p in self.path.iterdir()
                if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".") and p.is_file()
            ),
            key=lambda p: natural_key(p.name),
        )
        if not self.files:
            raise UserError(f"{self.path}: holds no images; expected {', '.join(IMAGE_SUFFIXES)} files")
        height, width = read_image(self.files[0]).shape[:2]
        self.info = VideoInfo(width, height, fps or IMAGE_FPS, len(self.files))

    def timed(self) -> Iterator[tuple[Fraction, np.ndarray]]:
        for i, path in enumerate(self.files):
            image = read_image(path)
            if image.shape[:2] != (self.info.height, self.info.width):
                raise UserError(
                    f"{path}: {image.shape[1]}x{image.shape[0]} pixels, but {self.files[0].name} has "
                    f"{self.info.width}x{self.info.height}; expected images of one size"
                )
            yield i / self.info.fps, image


class FrameList(FrameSource):
    """Images in memory as a video: (T, H, W, 3) uint8 RGB, or a sequence of (H, W, 3)."""

    def __init__(self, frames: Sequence[np.ndarray] | np.ndarray, fps: Fraction | None = None) -> None:
        """``fps``: 30 unless given. Raises UserError if they are no images of one shape."""
        self.path, self.name, self._frames = Path(), "frames", frames
        if not len(frames):
            raise UserError("there are no frames: expected RGB images (T, H, W, 3) uint8")
        for i, frame in enumerate(frames):
            image = np.asarray(frame)
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
                raise UserError(
                    f"frame {i} is {image.dtype} of shape {image.shape}; expected RGB images (H, W, 3) uint8"
                )
            if image.shape != np.asarray(frames[0]).shape:
                raise UserError(f"frame {i} has shape {image.shape}, frame 0 {np.asarray(frames[0]).shape}")
        height, width = np.asarray(frames[0]).shape[:2]
        self.info = VideoInfo(width, height, fps or IMAGE_FPS, len(frames))

    def timed(self) -> Iterator[tuple[Fraction, np.ndarray]]:
        return ((i / self.info.fps, np.ascontiguousarray(frame)) for i, frame in enumerate(self._frames))


def natural_key(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """Key to sort names by, so that 2.png comes before 10.png."""
    parts = re.split(r"([0-9]+)", name.casefold())
    return [(1, int(part), "") if i % 2 else (0, 0, part) for i, part in enumerate(parts)], name


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

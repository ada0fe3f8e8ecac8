"""Pictures as they come: from a camera, an address or a file, of which only the newest one waits."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from threading import Condition, Thread
from types import TracebackType
from urllib.parse import urlsplit

import av
import cv2
import numpy as np

from ..utils.errors import UserError, shown
from ..video.clock import MAX_GAP, Clock
from ..video.presentation import present, shown_size
from ..video.video_file import VideoFile

PROTOCOLS = ("http", "https", "rtmp", "rtmps", "rtsp", "rtsps", "rtp", "srt", "tcp", "udp")
_BELOW = ("tcp", "tls", "udp", "rtp", "httpproxy", "crypto")  # what these are carried by
_PATIENCE = 10.0  # seconds that an address has for its first and for its next packet
_FPS = 30.0  # of a source that does not say
_PLAUSIBLE = 1.0, 300.0
_OTHERS = "the number of a camera (0 is the first), a file or an address"
_WAKE = 0.2  # seconds after which a thread that waits looks whether it is still wanted


@dataclass(frozen=True, eq=False)
class Frame:
    """A picture (H, W, 3) uint8 RGB, its number, its time in seconds since the first one, and when it was
    there, in seconds of :func:`time.perf_counter`. Pictures that are dropped count; and of what is live so do
    those that did not come: numbers go with the time."""

    number: int
    time: float
    image: np.ndarray
    captured: float


@dataclass(frozen=True)
class Source:
    """What pictures come from.

    Attributes:
        name: for messages, without passwords.
        fps: frames per second, of a source that does not say 30.
        pictures: opens it and gives time in seconds and picture (H, W, 3) uint8 RGB; raises UserError if it
            cannot.
        live: whether pictures come when they want to.
    """

    name: str
    fps: float
    pictures: Callable[[], Iterator[tuple[float, np.ndarray]]]
    live: bool


@contextmanager
def open_source(name: str, fps: float | None = None) -> Iterator[Source]:
    """The camera of a number (``0``), the stream of an address (``rtsp://…``), or a video file.

    fps: in place of what the source says.

    Raises:
        UserError: there is none.
    """
    if name.isdecimal():
        if len(name) > 2:  # OpenCV takes hundreds for names of drivers
            raise UserError(f"camera {shown(name)}: there is none; expected {_OTHERS}")
        opened = _camera(int(name), fps)
    elif "://" in name:
        opened = _address(name, fps)
    else:
        opened = _file(name, fps)
    with opened as source:
        yield source


@contextmanager
def _file(name: str, fps: float | None) -> Iterator[Source]:
    if not Path(name).is_file():
        why = "is a folder" if name and Path(name).is_dir() else "there is no such video"
        raise UserError(f"{name or '(nothing)'}: {why}; expected {_OTHERS}")
    video = VideoFile(name)
    rate = fps or float(video.info.fps)

    def pictures() -> Iterator[tuple[float, np.ndarray]]:
        for number, (moment, image) in enumerate(video.timed()):
            yield number / fps if fps else float(moment), image

    yield Source(video.path.name, rate, pictures, live=False)


@contextmanager
def _camera(number: int, fps: float | None) -> Iterator[Source]:
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # our line says it
    camera = cv2.VideoCapture(number)
    camera.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # pictures, where the driver lets us choose
    try:
        if not camera.isOpened():
            raise UserError(f"camera {number}: there is none, or another program has it; expected {_OTHERS}")
        if fps:
            camera.set(cv2.CAP_PROP_FPS, fps)
        rate = fps or _plausible(camera.get(cv2.CAP_PROP_FPS))

        def pictures() -> Iterator[tuple[float, np.ndarray]]:
            start = time.perf_counter()
            while True:
                there, image = camera.read()
                if not there:
                    return
                yield time.perf_counter() - start, cv2.cvtColor(image, cv2.COLOR_BGR2RGB)

        yield Source(f"camera {number}", rate, pictures, live=True)
    finally:
        camera.release()


@contextmanager
def _address(name: str, fps: float | None) -> Iterator[Source]:
    try:
        parts = urlsplit(name)
    except ValueError as error:
        told = shown(name.rpartition("@")[2])
        raise UserError(f"{told}: is no address ({error}); expected one as rtsp://host/stream") from error
    told = shown(parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl())
    if parts.scheme.lower() not in PROTOCOLS:
        raise UserError(f"{told}: cannot be streamed; expected an address with {', '.join(PROTOCOLS)}")
    try:
        container = av.open(
            name, timeout=_PATIENCE, options={"protocol_whitelist": ",".join(PROTOCOLS + _BELOW)}
        )
    except (av.FFmpegError, OSError) as error:
        reason = error.strerror or type(error).__name__
        raise UserError(
            f"{told}: cannot be opened ({reason}); is the sender on, and the address right?"
        ) from None
    with container:
        if not container.streams.video:
            raise UserError(f"{told}: holds no video; give the address of one")
        stream = container.streams.video[0]
        stream.thread_type = "SLICE"  # threads that decode several frames at once hold them back
        rate = fps or _plausible(float(stream.average_rate or stream.guessed_rate or 0))

        def pictures() -> Iterator[tuple[float, np.ndarray]]:
            clock, size = Clock(Fraction(rate).limit_denominator(1000), MAX_GAP[True]), None
            try:
                for frame in container.decode(stream):
                    aspect = stream.sample_aspect_ratio
                    size = size or shown_size(frame, aspect)
                    ticks, unit = frame.pts, frame.time_base
                    moment = clock(None if ticks is None or not unit else ticks * unit)
                    yield float(moment), present(frame, aspect, size)
            except (av.FFmpegError, OSError) as error:
                reason = error.strerror or type(error).__name__
                raise UserError(f"{told}: the stream broke off ({reason})") from None

        yield Source(told, rate, pictures, live=True)


def _plausible(fps: float) -> float:
    return fps if _PLAUSIBLE[0] <= fps <= _PLAUSIBLE[1] else _FPS


class Capture:
    """Takes pictures in a thread of its own, while its block runs; iterating gives them.

    Only the newest picture waits: one that comes while another waits takes its place, and the other is
    dropped. Without ``drop`` the source waits instead, so that every picture is used and results do not
    depend on how fast the machine is.

    Args:
        source: see :func:`open_source`. A file is played at its own speed, as a camera would show it, unless
            nothing is dropped.

    Attributes:
        captured, dropped: pictures so far.
    """

    def __init__(self, source: Source, *, drop: bool = True) -> None:
        self._source, self._drop = source, drop
        self._changed = Condition()
        self._waiting: Frame | None = None
        self._over = self._wanted = False
        self._number = -1
        self._error: BaseException | None = None
        self._thread = Thread(target=self._run, name="capture", daemon=True)
        self.captured = self.dropped = 0

    def __enter__(self) -> Capture:
        self._wanted = True
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._wanted = False
            self._changed.notify_all()
        self._thread.join(_PATIENCE + 1)  # what it reads from has an end by then

    def __iter__(self) -> Iterator[Frame]:
        """Frames until the source ends; what its thread raised is raised here."""
        while True:
            with self._changed:
                while self._waiting is None and not self._over:
                    self._changed.wait(_WAKE)
                frame, self._waiting = self._waiting, None
                self._changed.notify_all()
            if frame is None:
                if self._error is not None:
                    raise self._error
                return
            yield frame

    def _run(self) -> None:
        try:
            start = time.perf_counter()
            for moment, image in self._source.pictures():
                if self._drop and not self._source.live:
                    self._sleep_until(start + moment)
                if not self._put(moment, image):
                    return
        except BaseException as error:
            self._error = error
        finally:
            with self._changed:
                self._over = True
                self._changed.notify_all()

    def _sleep_until(self, moment: float) -> None:
        with self._changed:
            while self._wanted and (left := moment - time.perf_counter()) > 0:
                self._changed.wait(left)

    def _put(self, moment: float, image: np.ndarray) -> bool:
        """Whether more is wanted."""
        number = self.captured
        if self._source.live:
            number = max(self._number + 1, round(moment * self._source.fps))
        self._number = number
        frame = Frame(number, moment, image, time.perf_counter())
        with self._changed:
            while not self._drop and self._waiting is not None and self._wanted:
                self._changed.wait(_WAKE)
            self.captured += 1
            self.dropped += self._waiting is not None
            self._waiting = frame
            self._changed.notify_all()
            return self._wanted

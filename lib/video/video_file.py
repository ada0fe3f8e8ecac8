"""A video file as a player shows it, frame by frame."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import islice, pairwise
from pathlib import Path

import av
import numpy as np
from av.format import Flags
from av.stream import Disposition

from ..utils.errors import UserError
from .clock import MAX_GAP, Clock, rate_of
from .damage import Damage, packets
from .frames import FrameSource, VideoInfo
from .presentation import Deinterlacer, present, shown_size

log = logging.getLogger(__name__)
ORDER_FRAMES = 8
"""Frames at the beginning that show whether their time stamps are in order."""
_STILLS = Disposition.attached_pic | Disposition.still_image | Disposition.timed_thumbnails


_Decoded = tuple[av.VideoFrame, Fraction | None, Fraction | None]
"""A frame, width over height of its pixels, and its time stamp in seconds."""


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
            rate, regular = rate_of(container, stream)
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
            for packet in packets(container, stream, damage):
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

"""The times of frames, whatever the time stamps of a video file are worth."""

from __future__ import annotations

from contextlib import suppress
from fractions import Fraction
from itertools import islice, pairwise

import av

from .frames import IMAGE_FPS

MAX_BACK = 1
"""Seconds that a clock may go back and still be the same clock with disorder in its stamps."""
MAX_GAP = {True: 10, False: 600}
"""Seconds from frame to frame that may be true, by whether the container's clock may jump (as in FFmpeg)."""
RATE_PACKETS, MIN_DISTINCT, PLAUSIBLE = 64, 0.75, (1, 300)


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


def rate_of(container: av.container.InputContainer, stream: av.VideoStream) -> tuple[Fraction, bool]:
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

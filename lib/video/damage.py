"""What is lost of a damaged video file."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING

import av

if TYPE_CHECKING:  # it is generic for type checkers alone
    Packet = av.Packet[av.VideoStream]
else:
    Packet = av.Packet

MAX_FAILURES = 100
"""Failures to read on, one after the other, that end a film."""
SAME_PLACE, MAX_PLACES = Fraction(1, 4), 5
"""Losses less than so many seconds apart are told as one, and so many places are told."""


class Damage:
    """Which packets gave no frame, and when it would have been shown.

    That are those that cannot be decoded and those that cannot be used without them.
    """

    def __init__(self) -> None:
        self._start: Fraction | None = None
        self._times: set[Fraction] = set()
        self._unknown = 0
        self._reason = ""

    def expect(self, packet: Packet) -> None:
        """A packet was read whose frame is to come."""
        if packet.size and packet.pts is not None and packet.time_base and not packet.is_discard:
            self._times.add(packet.pts * packet.time_base)

    def came(self, stamp: Fraction) -> None:
        """The frame of that time came."""
        self._start = stamp if self._start is None else self._start
        self._times.discard(stamp)

    def add(self, error: av.FFmpegError, packet: Packet | None = None) -> None:
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


def packets(
    container: av.container.InputContainer, stream: av.VideoStream, damage: Damage | None
) -> Iterator[Packet]:
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

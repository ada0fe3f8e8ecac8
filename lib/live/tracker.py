"""Following people in a stream: nothing is read backwards, and every frame takes about as long."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..demo.likeness import circle_radius, largest_shift
from ..demo.looking import Detector, Square, detections_in, neighbourhood, tiles
from ..demo.tracking import Followed, Tracker, is_no_person
from ..landmarks.blazepose import Detection, LandmarkNetwork, Landmarks

# Looks are spread over the frames, each of one run of the detector.
LOOKS_PER_SECOND = 10
WHOLE_FRAME_EVERY = 3  # looks
MUCH_LARGER = 1.5
CUT_SIDE = 128  # px of the shorter side that suffice to see a cut


class LiveTracker(Tracker):
    """Follows people in a stream: from frame to frame as :func:`lib.demo.tracking.track_people` does, but
    nothing is read backwards, no picture is kept, and of everybody only the last frames are.

    A look is one run of the detector, on the whole frame or on one square of it, so that no frame takes much
    longer than the others.

    Args:
        fps: frames per second of the stream, also of those that are left out.
        largest: follow one person, until they are lost or somebody half as large again is there.
    """

    def __init__(
        self, detector: Detector, network: LandmarkNetwork, fps: float = 30.0, *, largest: bool = False
    ) -> None:
        super().__init__(detector, network, fps)
        self._fps, self._largest = fps, largest
        self._look_every = max(1, round(fps / LOOKS_PER_SECOND))
        self._before: int | None = None
        self._next_look = self._looks = 0
        self._numbers: dict[Followed, int] = {}
        self._found = 0

    def follow(self, frame_id: int, frame: np.ndarray) -> dict[int, Landmarks]:
        """The landmarks of everybody seen in a frame, by their numbers, which count from 1.

        frame_id: increases; frames may be left out. Who only looks like a person has no number yet.
        """
        if self._before is not None:
            self._max_shift = largest_shift((frame_id - self._before) / self._fps)
        self._before = frame_id
        stride = max(1, min(frame.shape[:2]) // CUT_SIDE)
        if self._is_cut(frame[::stride, ::stride]):
            self._live, self._lost = [], []
            self._next_look = frame_id
        self._follow(frame_id, frame)
        if frame_id >= self._next_look or self._lost or not self._live:
            self._look_for_others(frame_id, frame, self._next_squares(frame))
            self._next_look = frame_id + self._look_every
            if self._largest and self._live:
                self._live = [max(self._live, key=lambda person: circle_radius(person.latest))]
        self._forget(frame_id)
        for person in self._live:
            if person not in self._numbers and not is_no_person(person):
                self._found += 1
                self._numbers[person] = self._found
        return {self._numbers[p]: p.latest for p in self._live if p in self._numbers}

    @property
    def known(self) -> set[int]:
        """The numbers of those who are followed, or who were lost so short a time ago that they may be found
        again."""
        return set(self._numbers.values())

    def _next_squares(self, frame: np.ndarray) -> list[Square]:
        self._looks += 1
        if not self._detector.short_sighted or self._looks % WHOLE_FRAME_EVERY == 1:
            return []
        squares = tiles(frame.shape[1], frame.shape[0])
        return self._tiles.next(squares + [neighbourhood(person.latest) for person in self._live], 1)

    def _detections(self, frame: np.ndarray, squares: list[Square]) -> Iterator[Detection]:
        found = [*self._detector.detect(frame)] if not squares else []
        for square in squares:
            found += detections_in(self._detector, frame, square)
        yield from [detection for detection in found if self._is_wanted(detection)]

    def _is_wanted(self, detection: Detection) -> bool:
        """Whether it is worth a closer look: of the largest person alone, who was lost or is much larger."""
        size = np.linalg.norm(detection.scale_point - detection.centre)
        known = [(p, circle_radius(p.latest)) for p in self._live + self._lost if self._largest]
        return all(
            size > MUCH_LARGER * radius
            or (p in self._lost and np.linalg.norm(detection.centre - p.latest.next_centre) < radius)
            for p, radius in known
        )

    def _follow_back(self, person: Followed) -> None:
        person.doubtful_since = None

    def _forget(self, frame_id: int) -> None:
        self.everyone = [p for p in self.everyone if p in self._live or p in self._lost]
        self._numbers = {p: number for p, number in self._numbers.items() if p in self.everyone}
        for person in self.everyone:
            since = person.doubtful_since
            if since is not None and frame_id - since >= self._settle:
                person.doubtful_since = None
            del person.frame_ids[: -self._settle - 1], person.landmarks[: -self._settle - 1]

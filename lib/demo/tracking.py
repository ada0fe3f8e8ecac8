"""Follow every person of a video: detector now and then, landmark network on each person in each frame."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from lib.data_utils.blazepose import (
    LandmarkNetwork,
    Landmarks,
    PersonDetector,
    intersection_over_union,
)
from lib.utils.landmark_features import LANDMARK_FLIP, landmark_boxes

MIN_PRESENCE = 0.5  # score to go on following somebody
START_PRESENCE = 0.8  # score to begin: what is no person rarely looks so much like one
MAX_SHIFT = 0.5  # of the hips from one frame to the next, in radii of the body's circle
MAX_GROWTH = 1.5  # of that circle
SAME_OVERLAP = 0.7  # IoU of two landmark boxes that can only be one person
SAME_DISTANCE = 0.1  # or: median distance of their landmarks, in sides of the larger box, …
SAME_DISTANCE_OVERLAP = 0.4  # … where the boxes overlap by this at least
REUNION_SHIFT = 0.5  # how far a lost person may have gone, in box sides
REUNION_GROWTH = 1.5
PAINT_MARGIN = 0.05  # about a known person's landmarks, in their extent
MIN_SEEN = 0.75  # share of a track's frames that were seen, not interpolated


@dataclass
class Track:
    """One person over consecutive frames.

    ``frame_ids`` (n,) int, 0-based, without gaps; ``bboxes`` (n, 4) float32 cx, cy, side, side px, the tight
    square about the landmarks (x1.0); ``xy`` (n, 33, 2) px; ``visibility`` (n, 33) in [0, 1], 0 in frames
    that were interpolated; ``world`` (n, 33, 3) m as in ``blazepose.Landmarks``; all float32.
    """

    person_id: int
    frame_ids: np.ndarray
    bboxes: np.ndarray
    xy: np.ndarray
    visibility: np.ndarray
    world: np.ndarray


def track_people(
    frames: Iterable[np.ndarray],
    detector: PersonDetector,
    network: LandmarkNetwork,
    *,
    min_frames: int = 25,
    detect_every: int = 10,
    max_gap: int = 10,
) -> list[Track]:
    """Tracks of all persons that are seen in at least ``min_frames`` frames, numbered from 1.

    frames: RGB uint8 images (H, W, 3), taken one at a time, so that a video of any length streams through.
    The detector runs every ``detect_every`` frames, and in each frame while nobody is followed or somebody
    was just lost; the network runs once per person and frame. Somebody found again after at most ``max_gap``
    missing frames goes on in the same track and the missing frames are interpolated; after more they are a
    new track. Tracks with more than a quarter of interpolated frames are dropped: they follow no person.
    """
    tracker = _Tracker(detector, network, detect_every, max_gap)
    for frame_id, frame in enumerate(frames):
        tracker.step(frame_id, frame)
    kept = [p for p in tracker.everyone if len(p.frame_ids) >= max(min_frames, MIN_SEEN * p.duration)]
    return [_track(i, person) for i, person in enumerate(kept, 1)]


def same_person(a: Landmarks, b: Landmarks) -> bool:
    """Whether two landmark sets of one frame lie on the same person: their boxes overlap a lot, or somewhat
    and most landmarks agree, be it with left and right exchanged (which the network sometimes does)."""
    corners = np.stack([[points.min(axis=0), points.max(axis=0)] for points in (a.xy, b.xy)])
    overlap = intersection_over_union(corners[0], corners[1:])[0]
    if overlap > SAME_OVERLAP or overlap < SAME_DISTANCE_OVERLAP:
        return bool(overlap > SAME_OVERLAP)
    side = np.ptp(corners, axis=1).max()
    orders = (slice(None), LANDMARK_FLIP)
    distance = min(np.median(np.linalg.norm(a.xy - b.xy[order], axis=1)) for order in orders)
    return bool(distance < SAME_DISTANCE * side)


@dataclass
class _Person:
    frame_ids: list[int]
    landmarks: list[Landmarks]

    @property
    def latest(self) -> Landmarks:
        return self.landmarks[-1]

    @property
    def duration(self) -> int:
        return self.frame_ids[-1] - self.frame_ids[0] + 1

    def add(self, frame_id: int, landmarks: Landmarks) -> None:
        self.frame_ids.append(frame_id)
        self.landmarks.append(landmarks)


class _Tracker:
    """The state between frames: who is followed (oldest first), and who was lost a moment ago."""

    def __init__(self, detector: PersonDetector, network: LandmarkNetwork, detect_every: int, max_gap: int):
        self._detector, self._network = detector, network
        self._detect_every, self._max_gap = detect_every, max_gap
        self._live: list[_Person] = []
        self._lost: list[_Person] = []
        self.everyone: list[_Person] = []

    def step(self, frame_id: int, frame: np.ndarray) -> None:
        followed: list[_Person] = []
        for person in self._live:
            before = person.latest
            found = self._network(frame, before.next_centre, before.next_scale_point)
            if self._is_new(found, followed) and _moves_like_a_person(before, found):
                person.add(frame_id, found)
                followed.append(person)
            else:
                self._lost.append(person)
        self._live = followed
        self._lost = [p for p in self._lost if frame_id - p.frame_ids[-1] <= self._max_gap + 1]
        if self._lost or not self._live or frame_id % self._detect_every == 0:
            self._look_for_others(frame_id, frame)

    def _look_for_others(self, frame_id: int, frame: np.ndarray) -> None:
        """Detect until nobody new turns up. Known people are painted over: beside them the detector hardly
        sees others, and what the network finds without them is somebody else."""
        unknown = frame
        while True:
            for person in self._live:
                unknown = _painted_over(unknown, person.latest)
            known = len(self._live)
            for detection in self._detector.detect(unknown):
                first = self._network(unknown, detection.centre, detection.scale_point)
                if not self._is_new(first, self._live):
                    continue
                # The detector's circle is rough: look again in the one that the landmarks give.
                found = self._network(unknown, first.next_centre, first.next_scale_point)
                if found.score < START_PRESENCE or not self._is_new(found, self._live):
                    continue
                missed = [p for p in self._lost if _is_reunion(p.latest, found)]
                if missed:
                    person = missed[0]
                    self._lost.remove(person)
                else:
                    person = _Person([], [])
                    self.everyone.append(person)
                person.add(frame_id, found)
                self._live.append(person)
            if len(self._live) == known:
                break
        # Whoever was lost for a while is older than the persons found meanwhile.
        self._live.sort(key=lambda person: person.frame_ids[0])

    @staticmethod
    def _is_new(found: Landmarks, persons: list[_Person]) -> bool:
        return found.score >= MIN_PRESENCE and not any(same_person(p.latest, found) for p in persons)


def _radius(person: Landmarks) -> float:
    return float(np.linalg.norm(person.next_scale_point - person.next_centre))


def _moves_like_a_person(before: Landmarks, now: Landmarks) -> bool:
    old, new = _radius(before), _radius(now)
    shift = np.linalg.norm(now.next_centre - before.next_centre)
    return bool(shift < MAX_SHIFT * old and 1 / MAX_GROWTH < new / max(old, 1e-6) < MAX_GROWTH)


def _painted_over(frame: np.ndarray, person: Landmarks) -> np.ndarray:
    """A copy of the frame with a grey box over a person."""
    margin = PAINT_MARGIN * np.ptp(person.xy, axis=0)
    left, top = np.maximum(person.xy.min(axis=0) - margin, 0).astype(int)
    right, bottom = np.maximum(person.xy.max(axis=0) + margin, 0).astype(int)
    painted = frame.copy()
    painted[top:bottom, left:right] = 128
    return painted


def _is_reunion(before: Landmarks, now: Landmarks) -> bool:
    old, new = landmark_boxes(before.xy), landmark_boxes(now.xy)
    near = np.linalg.norm(new[:2] - old[:2]) < REUNION_SHIFT * max(old[2], new[2])
    return bool(near and 1 / REUNION_GROWTH < new[2] / old[2] < REUNION_GROWTH)


def _track(person_id: int, person: _Person) -> Track:
    seen = np.array(person.frame_ids)
    frame_ids = np.arange(seen[0], seen[-1] + 1)
    xy = _fill(frame_ids, seen, np.stack([found.xy for found in person.landmarks]))
    visibility = np.zeros((len(frame_ids), xy.shape[1]), np.float32)
    visibility[seen - seen[0]] = [found.visibility for found in person.landmarks]
    return Track(
        person_id=person_id,
        frame_ids=frame_ids,
        bboxes=landmark_boxes(xy),
        xy=xy,
        visibility=visibility,
        world=_fill(frame_ids, seen, np.stack([found.world for found in person.landmarks])),
    )


def _fill(frame_ids: np.ndarray, seen: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Linear interpolation along the first axis: values at the frames ``seen`` -> at all ``frame_ids``."""
    columns = [np.interp(frame_ids, seen, column) for column in values.reshape(len(seen), -1).T]
    return np.stack(columns, axis=1).reshape(len(frame_ids), *values.shape[1:]).astype(np.float32)

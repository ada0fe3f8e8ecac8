"""Follow every person of a video: detector now and then, landmark network on each person in each frame."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Protocol

import cv2
import numpy as np

from ..landmarks.blazepose import (
    Detection,
    LandmarkNetwork,
    Landmarks,
    intersection_over_union,
)
from ..landmarks.features import LANDMARK_FLIP, landmark_boxes
from ..landmarks.flips import repair_flips

MIN_PRESENCE = 0.5  # score to go on following somebody
START_PRESENCE = 0.8  # score to begin: what is no person rarely looks so much like one
MAX_SHIFT = 0.5  # of the hips within REFERENCE_STEP or one frame, in radii of the body's circle, …
MAX_LONG_SHIFT = 1.0  # … and at most, at low frame rates
MAX_GROWTH = 1.5  # of that circle
REFERENCE_STEP = 1 / 30
SAME_OVERLAP = 0.7  # IoU of two landmark boxes that can only be one person
SAME_DISTANCE = 0.1  # or: median distance of their landmarks, in sides of the larger box, …
SAME_DISTANCE_OVERLAP = 0.4  # … where the boxes overlap by this at least
SAME_BEGINNING = 0.2  # IoU of the first boxes of two tracks that soon are one
KNOWN_DISTANCE = 0.2  # between the centres of a detection's and a known person's circle, in its radii, …
KNOWN_GROWTH = 1.3  # … and their sizes: not worth a closer look
REUNION_SHIFT = 0.5  # how far a lost person may have gone, in box sides
REUNION_GROWTH = 1.5
JOIN_GROWTH = 2.0  # the same, where reading backwards led to the lost person
SURE_PRESENCE, SURE_VISIBILITY = 0.96, 0.8  # means over a track; what has less of both is no person
MIN_SEEN = 0.75  # share of a track's frames that were seen, not interpolated

# Seconds.
MIN_SECONDS = 0.3
DETECT_EVERY = 1 / 3
MAX_GAP = 1 / 3
SEARCH_EVERY = 1 / 30  # while nobody is followed or somebody was just lost
SETTLED = 2 / 3  # after which a person's circle surely fits; from there the beginning is read backwards
REMEMBERED = 2.0  # how long frames are kept for that, …
REMEMBERED_BYTES = 400_000_000  # … and at most

DISAGREEMENT = 0.1  # between two readings of a frame: median distance of landmarks in box sides
CUT = 0.5  # correlation of small images of two frames below which they are of different shots
_CUT_SIZE = (32, 18)
_FLAT = 2.0  # grey levels of deviation below which an image shows nothing

# The detector sees people from about a third of its square's side on, surely; from a fifth, often.
TILE_SHARES = (2, 4)  # sides of the squares looked through, as parts of the frame's longer side
MIN_TILE = 224  # px
TILES_PER_LOOK = 4
NEIGHBOURHOOD = 2.0  # side of the square about a known person in which others are looked for, in box sides
NEIGHBOURHOODS_PER_LOOK = 2

# Live: looks are spread over the frames, each of one run of the detector.
LOOKS_PER_SECOND = 10
WHOLE_FRAME_EVERY = 3  # looks
MUCH_LARGER = 1.5
CUT_SIDE = 128  # px of the shorter side that suffice to see a cut


class Detector(Protocol):
    """Finds persons in an RGB image; one that is ``short_sighted`` has to be shown small people close up."""

    short_sighted: bool

    def detect(self, rgb: np.ndarray) -> list[Detection]:
        """See :meth:`lib.landmarks.blazepose.PersonDetector.detect`."""
        ...


@dataclass
class Track:
    """One person over consecutive frames.

    ``frame_ids`` (n,) int, 0-based, without gaps; ``bboxes`` (n, 4) float32 cx, cy, side, side px, the tight
    square about the landmarks (x1.0); ``xy`` (n, 33, 2) px; ``visibility`` (n, 33) in [0, 1], 0 in frames
    that were interpolated; ``world`` (n, 33, 3) m about the hips, in the camera's axes; all float32.
    """

    person_id: int
    frame_ids: np.ndarray
    bboxes: np.ndarray
    xy: np.ndarray
    visibility: np.ndarray
    world: np.ndarray


def track_people(
    frames: Iterable[np.ndarray],
    detector: Detector,
    network: LandmarkNetwork,
    *,
    fps: float = 30.0,
    min_seconds: float = MIN_SECONDS,
) -> list[Track]:
    """Tracks of all persons that are seen for ``min_seconds``, numbered from 1 in the order of discovery.

    frames: RGB uint8 images (H, W, 3), taken one at a time, so that a video of any length streams through;
    ``fps`` of them are a second. Of a video shorter than ``min_seconds`` the whole counts.

    The detector runs every third of a second, and every 1/30 s while nobody is followed or somebody was just
    lost; the network runs once per person and frame. Small people are looked for in parts of the frame, a
    few at a time, and others in a square about everybody known. Whoever was found is also followed back to
    where they came into sight, as far as frames are remembered (two seconds, or 400 MB of them). Somebody
    found again within a third of a second goes on in the same track and what is missing is interpolated;
    after more they are a new track. Tracks with more than a quarter of interpolated frames are dropped: they
    follow no person. Cuts to another shot end all tracks.
    """
    tracker = _Tracker(detector, network, fps)
    frame_id = -1
    for frame_id, frame in enumerate(frames):
        tracker.step(frame_id, frame)
    tracker.finish()
    shortest = min(np.ceil(min_seconds * fps - 1e-6), frame_id + 1)
    kept = [p for p in tracker.everyone if len(p.frame_ids) >= max(shortest, MIN_SEEN * p.duration)]
    real = [p for p in kept if not _is_no_person(p)]
    return [make_track(i, p.frame_ids, p.landmarks) for i, p in enumerate(real, 1)]


def _is_no_person(person: _Person) -> bool:
    """Whether a track follows something that only looks like a person: all the time the network is not sure
    of it and sees no more than parts of it."""
    score = np.mean([found.score for found in person.landmarks])
    visibility = np.mean([found.visibility for found in person.landmarks])
    return bool(score < SURE_PRESENCE and visibility < SURE_VISIBILITY)


def same_person(a: Landmarks, b: Landmarks) -> bool:
    """Whether two landmark sets of one frame lie on the same person: their boxes overlap a lot, or somewhat
    and most landmarks agree, be it with left and right exchanged (which the network sometimes does)."""
    overlap = _overlap(a, b)
    if overlap > SAME_OVERLAP or overlap < SAME_DISTANCE_OVERLAP:
        return overlap > SAME_OVERLAP
    side = max(np.ptp(points, axis=0).max() for points in (a.xy, b.xy))
    orders = (slice(None), LANDMARK_FLIP)
    distance = min(np.median(np.linalg.norm(a.xy - b.xy[order], axis=1)) for order in orders)
    return bool(distance < SAME_DISTANCE * side)


_Square = tuple[int, int, int]  # left, top, side in px


def tiles(width: int, height: int) -> list[_Square]:
    """Overlapping squares ``(left, top, side)`` px that cover a frame, coarse ones first: half a side on is
    the next."""
    squares = []
    for share in TILE_SHARES:
        side = max(width, height) // share
        if side < MIN_TILE:
            break
        squares += [(x, y, side) for y in _starts(height, side) for x in _starts(width, side)]
    return squares


def _starts(length: int, side: int) -> list[int]:
    if length <= side:
        return [0]
    count = int(np.ceil((length - side) / (side / 2))) + 1
    return [round(x) for x in np.linspace(0, length - side, count)]


@dataclass(eq=False)
class _Person:
    """``doubtful_since``: first frame of those that were not read backwards yet, None when there is none."""

    frame_ids: list[int] = field(default_factory=list)
    landmarks: list[Landmarks] = field(default_factory=list)
    doubtful_since: int | None = None

    @property
    def latest(self) -> Landmarks:
        return self.landmarks[-1]

    @property
    def duration(self) -> int:
        return self.frame_ids[-1] - self.frame_ids[0] + 1

    def find(self, frame_id: int, landmarks: Landmarks) -> None:
        """Begin, or go on after a gap."""
        self.add(frame_id, landmarks)
        if self.doubtful_since is None:
            self.doubtful_since = frame_id

    def add(self, frame_id: int, landmarks: Landmarks) -> None:
        self.frame_ids.append(frame_id)
        self.landmarks.append(landmarks)

    def at(self, frame_id: int) -> Landmarks | None:
        """The landmarks of a frame not long ago, if the person was seen in it."""
        for i in range(len(self.frame_ids) - 1, -1, -1):
            if self.frame_ids[i] <= frame_id:
                return self.landmarks[i] if self.frame_ids[i] == frame_id else None
        return None


class _Rota:
    """Squares to look at, some at a time, everyone in turn."""

    def __init__(self) -> None:
        self._turn = 0

    def next(self, squares: list[_Square], count: int) -> list[_Square]:
        count = min(count, len(squares))
        self._turn += count
        return [squares[(self._turn - k) % len(squares)] for k in range(count)]


class _Tracker:
    """The state between frames: who is followed (oldest first), and who was lost a moment ago."""

    def __init__(self, detector: Detector, network: LandmarkNetwork, fps: float) -> None:
        self._detector, self._network = detector, network
        self._detect_every, self._max_gap, self._search_every, self._settle = (
            max(1, round(seconds * fps)) for seconds in (DETECT_EVERY, MAX_GAP, SEARCH_EVERY, SETTLED)
        )
        self._max_shift = _largest_shift(1 / fps)
        self._remember = max(2, round(REMEMBERED * fps))
        self._recent: deque[tuple[int, np.ndarray]] = deque()
        self._live: list[_Person] = []
        self._lost: list[_Person] = []
        self.everyone: list[_Person] = []
        self._small: np.ndarray | None = None
        self._tiles, self._known = _Rota(), _Rota()
        self._shot = 0  # first frame of it

    def step(self, frame_id: int, frame: np.ndarray) -> None:
        if self._is_cut(frame):
            self.finish()
            self._shot = frame_id
        self._recent.append((frame_id, frame))
        memory = max(2, min(self._remember, REMEMBERED_BYTES // max(frame.nbytes, 1)))
        while len(self._recent) > memory:
            self._recent.popleft()
        self._follow(frame_id, frame)
        since = frame_id - self._shot
        squares = tiles(frame.shape[1], frame.shape[0]) if self._detector.short_sighted else []
        regular = since % self._detect_every == 0
        if regular or ((self._lost or not self._live) and since % self._search_every == 0):
            count = len(squares) if since == 0 else TILES_PER_LOOK if regular else 1
            self._look_for_others(frame_id, frame, self._tiles.next(squares, count))
            # Whoever was lost for a while is older than the persons found meanwhile.
            self._live.sort(key=lambda person: person.frame_ids[0])
        # After half of what is remembered at the latest, so that as much is left for the time before.
        patience = min(self._settle, memory // 2)
        for person in self._live:
            if person.doubtful_since is not None and frame_id - person.doubtful_since >= patience:
                self._follow_back(person)

    def finish(self) -> None:
        """The film or a shot ends: nobody is followed any more."""
        for person in self._live:
            if person.doubtful_since is not None:
                self._follow_back(person)
        self._live, self._lost = [], []
        self._recent.clear()

    def _is_cut(self, frame: np.ndarray) -> bool:
        small = cv2.resize(frame, _CUT_SIZE, interpolation=cv2.INTER_AREA).astype(np.float32)
        small -= small.mean(axis=(0, 1))
        before, self._small = self._small, small
        if before is None:
            return False
        deviations = float(before.std()), float(small.std())
        if min(deviations) < _FLAT:
            return False  # fades are no cuts, and nobody is in sight of a black screen
        return float((before * small).mean()) < CUT * deviations[0] * deviations[1]

    def _follow(self, frame_id: int, frame: np.ndarray) -> None:
        followed: list[_Person] = []
        for person in self._live:
            before = person.latest
            found = self._network(frame, before.next_centre, before.next_scale_point)
            if self._is_new(found, (p.latest for p in followed)) and self._moves_like_a_person(before, found):
                person.add(frame_id, found)
                followed.append(person)
            elif self._was_a_second_look(person, found, followed):
                self.everyone.remove(person)
            else:
                self._lost.append(person)
                if person.doubtful_since is not None:
                    self._follow_back(person)
        self._live = followed
        longest = self._max_gap + self._search_every
        self._lost = [p for p in self._lost if frame_id - p.frame_ids[-1] <= longest]

    def _was_a_second_look(self, person: _Person, found: Landmarks, others: list[_Person]) -> bool:
        """Whether a new track that has just met an older one began upon that person, too."""
        start = person.doubtful_since
        if start is None or start != person.frame_ids[0] or found.score < MIN_PRESENCE:
            return False
        begun = (p.at(start) for p in others if same_person(p.latest, found))
        return any(
            there is not None and _overlap(there, person.landmarks[0]) > SAME_BEGINNING for there in begun
        )

    def _look_for_others(self, frame_id: int, frame: np.ndarray, squares: list[_Square]) -> None:
        for detection in self._detections(frame, squares):
            if self._is_known(detection):
                continue
            first = self._network(frame, detection.centre, detection.scale_point)
            if not self._is_new(first, (p.latest for p in self._live)):
                continue
            # The detector's circle is rough: look again in the one that the landmarks give.
            found = self._network(frame, first.next_centre, first.next_scale_point)
            if found.score < START_PRESENCE or not self._is_new(found, (p.latest for p in self._live)):
                continue
            missed = [p for p in self._lost if _is_reunion(p.latest, found)]
            if missed:
                person = missed[0]
                self._lost.remove(person)
            else:
                person = _Person()
                self.everyone.append(person)
            person.find(frame_id, found)
            self._live.append(person)

    def _detections(self, frame: np.ndarray, squares: list[_Square]) -> Iterator[Detection]:
        """Of the whole frame and, by a short-sighted detector, of parts of it: those given and those
        about people: everybody lost, some of those known, everybody found meanwhile."""
        yield from self._detector.detect(frame)
        if not self._detector.short_sighted:
            return
        known = len(self._live)
        chosen = self._known.next([_neighbourhood(p) for p in self._live], NEIGHBOURHOODS_PER_LOOK)
        for square in [*squares, *(_neighbourhood(p) for p in self._lost), *chosen]:
            yield from self._detections_in(frame, *square)
        while known < len(self._live):
            yield from self._detections_in(frame, *_neighbourhood(self._live[known]))
            known += 1

    def _detections_in(self, frame: np.ndarray, left: int, top: int, side: int) -> Iterator[Detection]:
        x, y = max(left, 0), max(top, 0)
        part = frame[y : max(top + side, 0), x : max(left + side, 0)]
        if min(part.shape[:2]) < 2:
            return
        for found in self._detector.detect(part):
            offset = np.array([x, y])
            yield Detection(
                found.score, found.box + np.tile(offset, 2), found.centre + offset, found.scale_point + offset
            )

    def _is_known(self, detection: Detection) -> bool:
        """Whether it surely is somebody who is followed already."""
        radius = float(np.linalg.norm(detection.scale_point - detection.centre))
        for person in self._live:
            known = _radius(person.latest)
            near = np.linalg.norm(detection.centre - person.latest.next_centre) < KNOWN_DISTANCE * known
            if near and 1 / KNOWN_GROWTH < radius / max(known, 1e-6) < KNOWN_GROWTH:
                return True
        return False

    def _follow_back(self, person: _Person) -> None:
        """Read a person backwards, from where they are surely seen to where they were found, and beyond it.

        Where the two readings differ, the one with less motion is right: a circle that does not fit slides
        until it does.
        """
        assert person.doubtful_since is not None
        last = before = person.frame_ids[-1], person.latest
        sure = [i for i in person.frame_ids if i < person.doubtful_since]
        person.doubtful_since = None
        back = dict([last])
        absorbed: list[_Person] = []
        for frame_id, frame in reversed(self._recent):
            if frame_id >= last[0] or (sure and frame_id <= sure[-1]):
                continue
            found = self._network(frame, before[1].next_centre, before[1].next_scale_point)
            same = [
                p
                for p in self.everyone
                if p is not person and (there := p.at(frame_id)) is not None and same_person(there, found)
            ]
            # A track that ended here, on this person, was this person's: both had been found.
            absorbed += [p for p in same if p not in self._live and p.frame_ids[-1] == frame_id]
            if found.score < MIN_PRESENCE or not self._moves_like_a_person(before[1], found):
                break
            if any(p not in absorbed for p in same):
                break
            before = frame_id, found
            back[frame_id] = found
        seen = {i: found for i, found in zip(person.frame_ids, person.landmarks) if i >= min(back)}
        apart = [i for i in seen if _distance(seen[i], back[i]) > DISAGREEMENT]
        kept = dict(zip(person.frame_ids, person.landmarks))
        if apart:
            doubtful = [i for i in seen if i <= min(j for j in seen if j > apart[-1])]
            if _motion(seen, doubtful) <= _motion(back, doubtful):
                return
            # Nor is anything right that led to the wrong reading, or that followed from it.
            kept = {i: kept[i] for i in sure}
        for other in absorbed:
            kept |= {i: found for i, found in zip(other.frame_ids, other.landmarks) if i < min(back)}
            self.everyone.remove(other)
            self._lost = [lost for lost in self._lost if lost is not other]
        person.frame_ids = sorted(kept.keys() | back.keys())
        person.landmarks = [kept[i] if i in kept else back[i] for i in person.frame_ids]
        self._join(person)

    def _join(self, person: _Person) -> None:
        """Put somebody lost a moment before a person begins, at the same place, in front of them."""
        for other in self.everyone:
            last = other.frame_ids[-1]
            if (
                other in self._live
                or last < self._shot
                or not 0 < person.frame_ids[0] - last <= self._max_gap
            ):
                continue
            if _is_reunion(other.latest, person.landmarks[0], JOIN_GROWTH):
                self.everyone.remove(person)
                self.everyone[self.everyone.index(other)] = person
                self._lost = [lost for lost in self._lost if lost is not other]
                person.frame_ids = other.frame_ids + person.frame_ids
                person.landmarks = other.landmarks + person.landmarks
                return

    @staticmethod
    def _is_new(found: Landmarks, others: Iterable[Landmarks | None]) -> bool:
        return found.score >= MIN_PRESENCE and not any(
            o is not None and same_person(o, found) for o in others
        )

    def _moves_like_a_person(self, before: Landmarks, now: Landmarks) -> bool:
        old, new = _radius(before), _radius(now)
        shift = np.linalg.norm(now.next_centre - before.next_centre)
        slow = shift < self._max_shift * old
        return bool(slow and 1 / MAX_GROWTH < new / max(old, 1e-6) < MAX_GROWTH)


class LiveTracker(_Tracker):
    """Follows people in a stream: from frame to frame as :func:`track_people` does, but nothing is read
    backwards, no picture is kept, and of everybody only the last frames are.

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
        self._numbers: dict[_Person, int] = {}
        self._found = 0

    def follow(self, frame_id: int, frame: np.ndarray) -> dict[int, Landmarks]:
        """The landmarks of everybody seen in a frame, by their numbers, which count from 1.

        frame_id: increases; frames may be left out. Who only looks like a person has no number yet.
        """
        if self._before is not None:
            self._max_shift = _largest_shift((frame_id - self._before) / self._fps)
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
                self._live = [max(self._live, key=lambda person: _radius(person.latest))]
        self._forget(frame_id)
        for person in self._live:
            if person not in self._numbers and not _is_no_person(person):
                self._found += 1
                self._numbers[person] = self._found
        return {self._numbers[p]: p.latest for p in self._live if p in self._numbers}

    @property
    def known(self) -> set[int]:
        """The numbers of those who are followed, or who were lost so short a time ago that they may be found
        again."""
        return set(self._numbers.values())

    def _next_squares(self, frame: np.ndarray) -> list[_Square]:
        self._looks += 1
        if not self._detector.short_sighted or self._looks % WHOLE_FRAME_EVERY == 1:
            return []
        squares = tiles(frame.shape[1], frame.shape[0])
        return self._tiles.next(squares + [_neighbourhood(person) for person in self._live], 1)

    def _detections(self, frame: np.ndarray, squares: list[_Square]) -> Iterator[Detection]:
        found = [*self._detector.detect(frame)] if not squares else []
        for square in squares:
            found += self._detections_in(frame, *square)
        yield from [detection for detection in found if self._is_wanted(detection)]

    def _is_wanted(self, detection: Detection) -> bool:
        """Whether it is worth a closer look: of the largest person alone, who was lost or is much larger."""
        size = np.linalg.norm(detection.scale_point - detection.centre)
        known = [(p, _radius(p.latest)) for p in self._live + self._lost if self._largest]
        return all(
            size > MUCH_LARGER * radius
            or (p in self._lost and np.linalg.norm(detection.centre - p.latest.next_centre) < radius)
            for p, radius in known
        )

    def _follow_back(self, person: _Person) -> None:
        person.doubtful_since = None

    def _forget(self, frame_id: int) -> None:
        self.everyone = [p for p in self.everyone if p in self._live or p in self._lost]
        self._numbers = {p: number for p, number in self._numbers.items() if p in self.everyone}
        for person in self.everyone:
            since = person.doubtful_since
            if since is not None and frame_id - since >= self._settle:
                person.doubtful_since = None
            del person.frame_ids[: -self._settle - 1], person.landmarks[: -self._settle - 1]


def _largest_shift(seconds: float) -> float:
    """How far a person's hips may go between two frames, in radii of the body's circle."""
    return MAX_SHIFT * min(max(1.0, seconds / REFERENCE_STEP), MAX_LONG_SHIFT / MAX_SHIFT)


def _neighbourhood(person: _Person) -> _Square:
    cx, cy, side, _ = (float(v) for v in landmark_boxes(person.latest.xy))
    half = NEIGHBOURHOOD * side / 2
    return int(cx - half), int(cy - half), int(2 * half)


def _radius(person: Landmarks) -> float:
    return float(np.linalg.norm(person.next_scale_point - person.next_centre))


def _overlap(a: Landmarks, b: Landmarks) -> float:
    """IoU of the boxes about two persons' landmarks."""
    corners = np.stack([[points.min(axis=0), points.max(axis=0)] for points in (a.xy, b.xy)])
    return float(intersection_over_union(corners[0], corners[1:])[0])


def _distance(a: Landmarks, b: Landmarks) -> float:
    """Median distance of landmarks in box sides."""
    return float(np.median(np.linalg.norm(a.xy - b.xy, axis=1)) / landmark_boxes(b.xy)[2])


def _motion(readings: dict[int, Landmarks], frame_ids: list[int]) -> float:
    """Sum over the frames of what all landmarks move, in box sides."""
    return sum(
        float(
            np.linalg.norm(readings[a].xy - readings[b].xy, axis=1).mean() / landmark_boxes(readings[b].xy)[2]
        )
        for a, b in pairwise(frame_ids)
    )


def _is_reunion(before: Landmarks, now: Landmarks, growth: float = REUNION_GROWTH) -> bool:
    old, new = landmark_boxes(before.xy), landmark_boxes(now.xy)
    near = np.linalg.norm(new[:2] - old[:2]) < REUNION_SHIFT * max(old[2], new[2])
    return bool(near and 1 / growth < new[2] / old[2] < growth)


def make_track(person_id: int, seen: Sequence[int], landmarks: Sequence[Landmarks]) -> Track:
    """A track of the landmarks of the frames ``seen``, in order; what is missing between is interpolated.

    Front-back flips, mirrorings along the viewing ray, are undone before the metric landmarks are turned
    from the ray's axes to the camera's.
    """
    ids = np.array(seen)
    frame_ids = np.arange(ids[0], ids[-1] + 1)
    xy = _fill(frame_ids, ids, np.stack([found.xy for found in landmarks]))
    world = _fill(frame_ids, ids, np.stack([found.world for found in landmarks]))
    axes = _fill(frame_ids, ids, np.stack([found.axes for found in landmarks]))
    visibility = np.zeros((len(frame_ids), xy.shape[1]), np.float32)
    visibility[ids - ids[0]] = [found.visibility for found in landmarks]
    xy, visibility, world = repair_flips(xy, visibility, world)
    return Track(
        person_id=person_id,
        frame_ids=frame_ids,
        bboxes=landmark_boxes(xy),
        xy=xy,
        visibility=visibility,
        world=world @ axes.transpose(0, 2, 1),
    )


def _fill(frame_ids: np.ndarray, seen: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Linear interpolation along the first axis: values at the frames ``seen`` -> at all ``frame_ids``."""
    columns = [np.interp(frame_ids, seen, column) for column in values.reshape(len(seen), -1).T]
    return np.stack(columns, axis=1).reshape(len(frame_ids), *values.shape[1:]).astype(np.float32)

"""Follow every person of a video: detector now and then, landmark network on each person in each frame."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from ..landmarks.blazepose import Detection, LandmarkNetwork, Landmarks
from .cuts import CutWatch
from .likeness import (
    JOIN_GROWTH,
    MAX_GROWTH,
    box_overlap,
    circle_radius,
    is_reunion,
    landmark_distance,
    landmark_motion,
    largest_shift,
    same_person,
)
from .looking import Detector, Rota, Square, detections_in, neighbourhood, tiles
from .track import MAX_GAP, Track, make_track

MIN_PRESENCE = 0.5  # score to go on following somebody
START_PRESENCE = 0.8  # score to begin: what is no person rarely looks so much like one
SAME_BEGINNING = 0.2  # IoU of the first boxes of two tracks that soon are one
KNOWN_DISTANCE = 0.2  # between the centres of a detection's and a known person's circle, in its radii, …
KNOWN_GROWTH = 1.3  # … and their sizes: not worth a closer look
SURE_PRESENCE, SURE_VISIBILITY = 0.96, 0.8  # means over a track; what has less of both is no person
MIN_SEEN = 0.75  # share of a track's frames that were seen, not interpolated

# Seconds.
MIN_SECONDS = 0.3
DETECT_EVERY = 1 / 3
SEARCH_EVERY = 1 / 30  # while nobody is followed or somebody was just lost
SETTLED = 2 / 3  # after which a person's circle surely fits; from there the beginning is read backwards
REMEMBERED = 2.0  # how long frames are kept for that, …
REMEMBERED_BYTES = 400_000_000  # … and at most

DISAGREEMENT = 0.1  # between two readings of a frame: median distance of landmarks in box sides
TILES_PER_LOOK = 4
NEIGHBOURHOODS_PER_LOOK = 2


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
    tracker = Tracker(detector, network, fps)
    frame_id = -1
    for frame_id, frame in enumerate(frames):
        tracker.step(frame_id, frame)
    tracker.finish()
    shortest = min(np.ceil(min_seconds * fps - 1e-6), frame_id + 1)
    kept = [p for p in tracker.everyone if len(p.frame_ids) >= max(shortest, MIN_SEEN * p.duration)]
    real = [p for p in kept if not is_no_person(p)]
    return [make_track(i, p.frame_ids, p.landmarks) for i, p in enumerate(real, 1)]


def is_no_person(person: Followed) -> bool:
    """Whether a track follows something that only looks like a person: all the time the network is not sure
    of it and sees no more than parts of it."""
    score = np.mean([found.score for found in person.landmarks])
    visibility = np.mean([found.visibility for found in person.landmarks])
    return bool(score < SURE_PRESENCE and visibility < SURE_VISIBILITY)


@dataclass(eq=False)
class Followed:
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


class Tracker:
    """The state between frames: who is followed (oldest first), and who was lost a moment ago."""

    def __init__(self, detector: Detector, network: LandmarkNetwork, fps: float) -> None:
        self._detector, self._network = detector, network
        self._detect_every, self._max_gap, self._search_every, self._settle = (
            max(1, round(seconds * fps)) for seconds in (DETECT_EVERY, MAX_GAP, SEARCH_EVERY, SETTLED)
        )
        self._max_shift = largest_shift(1 / fps)
        self._remember = max(2, round(REMEMBERED * fps))
        self._recent: deque[tuple[int, np.ndarray]] = deque()
        self._live: list[Followed] = []
        self._lost: list[Followed] = []
        self.everyone: list[Followed] = []
        self._is_cut = CutWatch()
        self._tiles, self._known = Rota(), Rota()
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

    def _follow(self, frame_id: int, frame: np.ndarray) -> None:
        followed: list[Followed] = []
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

    def _was_a_second_look(self, person: Followed, found: Landmarks, others: list[Followed]) -> bool:
        """Whether a new track that has just met an older one began upon that person, too."""
        start = person.doubtful_since
        if start is None or start != person.frame_ids[0] or found.score < MIN_PRESENCE:
            return False
        begun = (p.at(start) for p in others if same_person(p.latest, found))
        return any(
            there is not None and box_overlap(there, person.landmarks[0]) > SAME_BEGINNING for there in begun
        )

    def _look_for_others(self, frame_id: int, frame: np.ndarray, squares: list[Square]) -> None:
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
            missed = [p for p in self._lost if is_reunion(p.latest, found)]
            if missed:
                person = missed[0]
                self._lost.remove(person)
            else:
                person = Followed()
                self.everyone.append(person)
            person.find(frame_id, found)
            self._live.append(person)

    def _detections(self, frame: np.ndarray, squares: list[Square]) -> Iterator[Detection]:
        """Of the whole frame and, by a short-sighted detector, of parts of it: those given and those
        about people: everybody lost, some of those known, everybody found meanwhile."""
        yield from self._detector.detect(frame)
        if not self._detector.short_sighted:
            return
        known = len(self._live)
        chosen = self._known.next([neighbourhood(p.latest) for p in self._live], NEIGHBOURHOODS_PER_LOOK)
        for square in [*squares, *(neighbourhood(p.latest) for p in self._lost), *chosen]:
            yield from detections_in(self._detector, frame, square)
        while known < len(self._live):
            yield from detections_in(self._detector, frame, neighbourhood(self._live[known].latest))
            known += 1

    def _is_known(self, detection: Detection) -> bool:
        """Whether it surely is somebody who is followed already."""
        radius = float(np.linalg.norm(detection.scale_point - detection.centre))
        for person in self._live:
            known = circle_radius(person.latest)
            near = np.linalg.norm(detection.centre - person.latest.next_centre) < KNOWN_DISTANCE * known
            if near and 1 / KNOWN_GROWTH < radius / max(known, 1e-6) < KNOWN_GROWTH:
                return True
        return False

    def _follow_back(self, person: Followed) -> None:
        """Read a person backwards, from where they are surely seen to where they were found, and beyond it.

        Where the two readings differ, the one with less motion is right: a circle that does not fit slides
        until it does.
        """
        assert person.doubtful_since is not None
        last = before = person.frame_ids[-1], person.latest
        sure = [i for i in person.frame_ids if i < person.doubtful_since]
        person.doubtful_since = None
        back = dict([last])
        absorbed: list[Followed] = []
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
        apart = [i for i in seen if landmark_distance(seen[i], back[i]) > DISAGREEMENT]
        kept = dict(zip(person.frame_ids, person.landmarks))
        if apart:
            doubtful = [i for i in seen if i <= min(j for j in seen if j > apart[-1])]
            if landmark_motion(seen, doubtful) <= landmark_motion(back, doubtful):
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

    def _join(self, person: Followed) -> None:
        """Put somebody lost a moment before a person begins, at the same place, in front of them."""
        for other in self.everyone:
            last = other.frame_ids[-1]
            if (
                other in self._live
                or last < self._shot
                or not 0 < person.frame_ids[0] - last <= self._max_gap
            ):
                continue
            if is_reunion(other.latest, person.landmarks[0], JOIN_GROWTH):
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
        old, new = circle_radius(before), circle_radius(now)
        shift = np.linalg.norm(now.next_centre - before.next_centre)
        slow = shift < self._max_shift * old
        return bool(slow and 1 / MAX_GROWTH < new / max(old, 1e-6) < MAX_GROWTH)

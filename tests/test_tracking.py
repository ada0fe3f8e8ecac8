"""Tracking on synthetic scenes: a "network" that knows where everybody is stands in for the real one."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
import pytest

from lib.demo.likeness import same_person
from lib.demo.looking import tiles
from lib.demo.track import Track
from lib.demo.tracking import track_people
from lib.landmarks.blazepose import Detection, LandmarkNetwork, Landmarks, PersonDetector
from lib.landmarks.features import LANDMARK_FLIP, landmark_boxes
from lib.utils.pinned import asset_path
from lib.video.video_file import VideoFile

SHAPE = np.random.default_rng(0).uniform(
    [-0.3, -1], [0.3, 1], (33, 2)
)  # of everybody, in radii about the hips


UNITS = np.array([6, 2])  # px per grey level in the channels for column and row
PLACES = np.zeros((400, 1300, 3), np.uint8)
PLACES[..., 1], PLACES[..., 2] = np.meshgrid(np.arange(1300) // 6, np.arange(400) // 2)


def landmarks(centre: np.ndarray, radius: float = 100.0, score: float = 1.0) -> Landmarks:
    centre = np.asarray(centre, float)
    return Landmarks(
        xy=(centre + radius * SHAPE).astype(np.float32),
        z=np.zeros(33),
        visibility=np.full(33, 0.9),
        score=score,
        world=np.concatenate([SHAPE, centre[:1].repeat(33)[:, None]], axis=1).astype(np.float32),
        next_centre=centre,
        next_scale_point=centre - np.array([0, radius]),
    )


@dataclass
class Scene:
    """People who walk at ``speed`` px per frame; each is there in the frames that ``present`` says.

    The detector finds everybody whose place is in the picture that it is shown and ``sharp`` enough for it:
    as wide as a person's radius at most ``sight`` times. The network finds whoever is nearest to the centre
    of its circle. Every pixel carries the frame's number, its column and its row.
    """

    starts: list[tuple[float, float]]
    speed: float = 4.0
    present: Callable[[int, int], bool] = lambda person, frame: True
    sight: float = 1000.0
    radius: float = 100.0
    short_sighted: bool = False
    detections: int = field(default=0, init=False)
    looks: int = field(default=0, init=False)

    def frames(self, count: int):
        for frame in range(count):
            picture = PLACES.copy()
            picture[..., 0] = frame
            yield picture

    def position(self, person: int, frame: int) -> np.ndarray:
        x, y = self.starts[person]
        return np.array([x + self.speed * frame, y])

    def _present(self, frame: int) -> list[int]:
        return [p for p in range(len(self.starts)) if self.present(p, frame)]

    def detect(self, picture: np.ndarray) -> list[Detection]:
        self.detections += 1
        if max(picture.shape) > self.sight * self.radius:
            return []
        frame, found = int(picture[0, 0, 0]), []
        for person in self._present(frame):
            centre = self.position(person, frame) + 5
            at = centre - picture[0, 0, 1:] * UNITS
            if (at > 0).all() and (at < picture.shape[1::-1]).all():
                found.append(Detection(0.9, np.zeros(4), at, at - np.array([0, 1.1 * self.radius])))
        return found

    def __call__(self, frame: np.ndarray, centre: np.ndarray, scale_point: np.ndarray) -> Landmarks:
        self.looks += 1
        number = int(frame[0, 0, 0])
        places = [self.position(person, number) for person in self._present(number)]
        near = [p for p in places if np.linalg.norm(p - centre) < 0.6 * self.radius]
        if not near:
            return landmarks(centre, self.radius, score=0.1)
        return landmarks(min(near, key=lambda p: float(np.linalg.norm(p - centre))), self.radius)

    def track(self, count: int, **options) -> list[Track]:
        return track_people(self.frames(count), self, self, **options)  # type: ignore[arg-type]


def spans(tracks: list[Track]) -> list[tuple[int, int]]:
    return [(int(track.frame_ids[0]), int(track.frame_ids[-1])) for track in tracks]


def test_two_people_are_followed_from_end_to_end() -> None:
    scene = Scene([(200, 300), (600, 320)])
    tracks = scene.track(60)
    assert [track.person_id for track in tracks] == [1, 2]
    for person, track in enumerate(tracks):
        np.testing.assert_array_equal(track.frame_ids, np.arange(60))
        centres = np.stack([scene.position(person, frame) for frame in range(60)])
        np.testing.assert_allclose(track.xy, centres[:, None] + 100 * SHAPE, atol=1e-3)
        np.testing.assert_allclose(track.bboxes, landmark_boxes(track.xy), atol=1e-3)
        assert track.bboxes.shape == (60, 4) and track.world.shape == (60, 33, 3)
        assert {a.dtype for a in (track.bboxes, track.xy, track.visibility, track.world)} == {
            np.dtype("float32")
        }


def test_work_is_little() -> None:
    """The detector runs now and then, the network once per person and frame, twice where a track begins, and
    once more for every frame of the beginning that is read backwards."""
    scene = Scene([(200, 300), (600, 320)])
    scene.track(60)
    assert scene.detections == 6
    assert scene.looks == 2 * 60 + 2 + 2 * 20


@pytest.mark.parametrize(
    ("fps", "length", "kept"), [(30, 8, 0), (30, 9, 1), (240, 71, 0), (240, 72, 1), (10, 3, 1)]
)
def test_short_tracks_are_dropped(fps: float, length: int, kept: int) -> None:
    """0.3 s, whatever the frame rate."""
    scene = Scene([(200, 300)], speed=1, present=lambda person, frame: frame < length)
    assert len(scene.track(100, fps=fps)) == kept


def test_the_shortest_time_can_be_set() -> None:
    scene = Scene([(200, 300)], present=lambda person, frame: frame < 29)
    assert len(scene.track(80, min_seconds=1)) == 0
    assert len(scene.track(80, min_seconds=0.9)) == 1


@pytest.mark.parametrize("length", [1, 2, 5])
def test_of_a_short_film_the_whole_counts(length: int) -> None:
    assert spans(Scene([(200, 300)]).track(length)) == [(0, length - 1)]
    assert not Scene([(200, 300)], present=lambda person, frame: frame > 0).track(length)[:0]


@pytest.mark.parametrize("late", [45, 70])
def test_gaps_are_filled(late: int) -> None:
    """Nobody is seen for 7 frames: interpolated, whether the track was still young or old."""
    scene = Scene([(200, 300)], present=lambda person, frame: not late - 7 <= frame < late)
    (track,) = scene.track(100)
    np.testing.assert_array_equal(track.frame_ids, np.arange(100))
    np.testing.assert_allclose(track.xy[:, 0, 0], 200 + 4 * np.arange(100) + 100 * SHAPE[0, 0], atol=1e-2)
    np.testing.assert_allclose(track.world[:, 0, 2], 200 + 4 * np.arange(100), atol=1e-2)
    np.testing.assert_array_equal(
        np.flatnonzero(track.visibility.max(axis=1) == 0), np.arange(late - 7, late)
    )


@pytest.mark.parametrize(
    ("fps", "gap", "bridged"),
    [(30, 10, True), (30, 11, False), (120, 40, True), (120, 44, False), (12, 4, True)],
)
def test_long_gaps_split(fps: float, gap: int, bridged: bool) -> None:
    """A third of a second, whatever the frame rate."""
    speed = 30 / fps
    scene = Scene([(200, 300)], speed, present=lambda person, frame: not 100 <= frame < 100 + gap)
    tracks = scene.track(256, fps=fps, min_seconds=0.2)
    assert spans(tracks) == ([(0, 255)] if bridged else [(0, 99), (100 + gap, 255)])
    assert [t.person_id for t in tracks] == list(range(1, len(tracks) + 1))


def test_slow_films_of_fast_people() -> None:
    """At 5 frames per second somebody who runs moves nearly their own length in a frame."""
    tracks = Scene([(100, 300)], speed=55).track(20, fps=5)
    assert spans(tracks) == [(0, 19)]


def test_somebody_else_does_not_continue_a_lost_track() -> None:
    scene = Scene([(200, 300), (800, 300)], present=lambda person, frame: (frame < 40) == (person == 0))
    assert spans(scene.track(80)) == [(0, 39), (40, 79)]


@pytest.mark.parametrize("arrival", [33, 47])
def test_late_comers_are_followed_back_to_their_first_frame(arrival: int) -> None:
    scene = Scene([(200, 300), (800, 300)], present=lambda person, frame: person == 0 or frame >= arrival)
    assert spans(scene.track(100)) == [(0, 99), (arrival, 99)]


def test_late_comers_who_leave_early() -> None:
    scene = Scene([(200, 300), (800, 300)], present=lambda person, frame: person == 0 or 35 <= frame < 50)
    assert spans(scene.track(100)) == [(0, 99), (35, 49)]


def test_following_back_ends_where_memory_does() -> None:
    """Somebody whom the detector sees late; two seconds of frames are remembered."""
    scene = Scene([(200, 300), (800, 300)], speed=1)
    detect = scene.detect

    def late(picture: np.ndarray) -> list[Detection]:
        found = detect(picture)
        return found[:1] if picture[0, 0, 0] < 145 else found

    scene.detect = late  # type: ignore[method-assign]
    assert spans(scene.track(200)) == [(0, 199), (150 + 20 - 59, 199)]


def test_a_wrong_beginning_is_replaced() -> None:
    """A circle that does not fit at first gives landmarks that slide into place over 12 frames."""
    scene = Scene([(200, 300)], speed=1)
    wrong = 0.0

    def network(frame: np.ndarray, centre: np.ndarray, scale_point: np.ndarray) -> Landmarks:
        """Tells the truth but for an error that it is led into, which fades from look to look."""
        nonlocal wrong
        found = scene(frame, np.asarray(centre) - [0, wrong], scale_point)
        wrong = 0.8 * wrong if wrong > 2 else 0.0
        found.xy[:] += np.float32([0, wrong]) * np.linspace(1, 2, 33, dtype=np.float32)[:, None]
        return found

    def detect(picture: np.ndarray) -> list[Detection]:
        nonlocal wrong
        if picture[0, 0, 0] == 0:
            wrong = 60.0
        return Scene.detect(scene, picture)

    scene.detect = detect  # type: ignore[method-assign]
    (track,) = track_people(scene.frames(60), scene, network)  # type: ignore[arg-type]
    np.testing.assert_array_equal(track.frame_ids, np.arange(60))
    truth = np.stack([scene.position(0, frame) for frame in range(60)])[:, None] + 100 * SHAPE
    np.testing.assert_allclose(track.xy, truth, atol=1e-3)


@pytest.mark.parametrize("wrong_first", [True, False])
def test_somebody_found_twice_is_one(wrong_first: bool) -> None:
    """A look that is led astray slides onto the person within 12 frames; a second look was right at once."""
    scene = Scene([(400, 200)], speed=1)
    errors = {frame: max(0.0, 110 - 9 * frame) for frame in range(60)}

    def network(frame: np.ndarray, centre: np.ndarray, scale_point: np.ndarray) -> Landmarks:
        number = int(frame[0, 0, 0])
        truth = scene.position(0, number)
        if centre[1] > truth[1] + 45 or (centre[1] > truth[1] + 12 and 0 < number < 12):
            return landmarks(truth + np.array([0, errors[number]]))
        return landmarks(truth)

    def detect(picture: np.ndarray) -> list[Detection]:
        number = int(picture[0, 0, 0])
        at = scene.position(0, number)
        places = [at, at + np.array([0, errors[number]])] if number == 0 else [at]
        return [
            Detection(0.9, np.zeros(4), p, p - [0, 110]) for p in (places[::-1] if wrong_first else places)
        ]

    scene.detect = detect  # type: ignore[method-assign]
    (track,) = track_people(scene.frames(60), scene, network)  # type: ignore[arg-type]
    np.testing.assert_array_equal(track.frame_ids, np.arange(60))
    truth = np.stack([scene.position(0, frame) for frame in range(60)])[:, None] + 100 * SHAPE
    np.testing.assert_allclose(track.xy, truth, atol=1e-3)


def test_a_true_beginning_is_kept() -> None:
    """Read backwards, the network errs below frame 12: that reading moves more and is not taken."""
    scene = Scene([(200, 300)], speed=1)
    last = -1

    def network(frame: np.ndarray, centre: np.ndarray, scale_point: np.ndarray) -> Landmarks:
        nonlocal last
        number = int(frame[0, 0, 0])
        found = scene(frame, centre, scale_point)
        if number < last and number < 12:
            found.xy[:] += np.float32([6 * (12 - number), 0])
        last = number
        return found

    (track,) = track_people(scene.frames(60), scene, network)  # type: ignore[arg-type]
    truth = np.stack([scene.position(0, frame) for frame in range(60)])[:, None] + 100 * SHAPE
    np.testing.assert_allclose(track.xy, truth, atol=1e-3)


def test_who_comes_as_another_goes_is_another() -> None:
    """One frame shows both, side by side."""
    scene = Scene(
        [(200, 300), (275, 300)], 0, present=lambda person, frame: frame < 51 if person == 0 else frame >= 50
    )
    assert spans(scene.track(100)) == [(0, 50), (50, 99)]


def test_who_is_found_again_further_on_is_the_same() -> None:
    """Reading backwards leads to the frame after the one in which somebody was lost."""
    scene = Scene([(200, 300)])

    def network(frame: np.ndarray, centre: np.ndarray, scale_point: np.ndarray) -> Landmarks:
        found = scene(frame, centre, scale_point)
        return landmarks(centre, score=0.1) if frame[0, 0, 0] == 50 and last[0] < 50 else found

    def detect(picture: np.ndarray) -> list[Detection]:
        return [] if 50 <= picture[0, 0, 0] < 75 else Scene.detect(scene, picture)

    last = [0]

    def frames():
        for frame in Scene.frames(scene, 120):
            yield frame
            last[0] = int(frame[0, 0, 0])

    scene.detect = detect  # type: ignore[method-assign]
    assert spans(track_people(frames(), scene, network)) == [(0, 119)]  # type: ignore[arg-type]


# --------------------------------------------------------------------------------
# Small and near people


@pytest.mark.parametrize(
    ("width", "height"), [(2000, 1125), (1768, 994), (640, 360), (500, 2000), (300, 200)]
)
def test_tiles_hold_small_people(width: int, height: int) -> None:
    """Somebody a twentieth of the frame in size is whole in a square at most five times as large, wherever
    they are, unless the square would be smaller than the detector's input."""
    squares = tiles(width, height)
    for x, y, side in squares:
        assert x == 0 or x + side <= width
        assert y == 0 or y + side <= height
    smallest = max(max(width, height) // 4, 224)
    size = smallest / 5
    if max(width, height) < 448:
        assert squares == []
        return
    holding = min(side for *_, side in squares)
    assert holding <= 2 * smallest
    rng = np.random.default_rng(0)
    for x, y in rng.uniform([0, 0], [width - size, height - size], (200, 2)):
        assert any(
            left <= x and x + size <= left + side and top <= y and y + size <= top + side
            for left, top, side in squares
            if side == holding
        )


def test_small_people_are_found() -> None:
    """30 px tall in 1300 px, for a detector that needs a tenth; beginnings are filled in."""
    scene = Scene([(300, 200), (1000, 150)], speed=0.5, radius=40.0, sight=10.0, short_sighted=True)
    assert spans(scene.track(60)) == [(0, 59), (0, 59)]
    assert spans(Scene([(300, 200)], 0.5, radius=40.0, sight=10.0).track(60)) == []


def test_small_late_comers_are_found_in_time() -> None:
    present = lambda person, frame: person == 0 or frame >= 35  # noqa: E731
    scene = Scene([(300, 200), (900, 150)], 0.5, present, 10.0, 40.0, short_sighted=True)
    assert spans(scene.track(150)) == [(0, 149), (35, 149)]


@pytest.mark.parametrize("apart", [40, 70])
def test_people_beside_each_other_are_all_found(apart: int) -> None:
    """Only in a close look are they told apart; nobody is hidden for looking for others."""
    starts = [(500.0 + k * apart, 200.0) for k in range(4)]
    scene = Scene(starts, speed=0, radius=40.0, sight=8.5, short_sighted=True)

    def detect(picture: np.ndarray) -> list[Detection]:
        found = Scene.detect(scene, picture)
        return found if max(picture.shape) < 5 * 40 else found[:1]

    scene.detect = detect  # type: ignore[method-assign]
    tracks = scene.track(30)
    assert spans(tracks) == [(0, 29)] * 4
    middles = [float(track.xy[:, 0, 0].mean() - 40 * SHAPE[0, 0]) for track in tracks]
    np.testing.assert_allclose(sorted(middles), [x for x, _ in starts], atol=0.1)


def test_who_was_found_leads_to_their_neighbours() -> None:
    """At once: one image shows six people in a row, of whom the detector sees one from afar."""
    scene = Scene([(400.0 + 50 * k, 200.0) for k in range(6)], speed=0, radius=40.0, short_sighted=True)

    def detect(picture: np.ndarray) -> list[Detection]:
        found = Scene.detect(scene, picture)
        return found if max(picture.shape) < 5 * 40 else found[:1] if picture.shape[1] == 1300 else []

    scene.detect = detect  # type: ignore[method-assign]
    assert spans(scene.track(1)) == [(0, 0)] * 6


# --------------------------------------------------------------------------------
# Cuts


def textured(seed: int) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 255, (9, 16, 3)).astype(np.uint8)
    return cv2.resize(coarse, (1300, 400), interpolation=cv2.INTER_CUBIC)


def shots(*parts: tuple[np.ndarray, int]):
    """Frames of several shots, numbered in the corner for the scene."""
    number = 0
    for picture, count in parts:
        for _ in range(count):
            frame = picture.copy()
            frame[0, 0, 0] = number
            number += 1
            yield frame


class Standing(Scene):
    """Somebody at a place, whatever the picture shows."""

    def detect(self, picture: np.ndarray) -> list[Detection]:
        self.detections += 1
        at = self.position(0, 0)
        return [Detection(0.9, np.zeros(4), at, at - np.array([0, 110]))]


def test_cuts_end_tracks() -> None:
    a = textured(0)
    frames = shots((a, 40), (a[:, ::-1], 30), (textured(1), 30))
    scene = Standing([(500, 200)], speed=0)
    tracks = track_people(frames, scene, scene)  # type: ignore[arg-type]
    assert spans(tracks) == [(0, 39), (40, 69), (70, 99)]


def test_what_is_no_cut() -> None:
    """Light that changes, a camera that turns, a picture out of focus, black, fades."""
    wide = cv2.resize(textured(0), (2600, 400))
    dim = (textured(0) * 0.5).astype(np.uint8)
    blurred = cv2.GaussianBlur(textured(0), (0, 0), 30)
    panned = [(wide[:, 12 * i : 12 * i + 1300], 1) for i in range(40)]
    dark = (
        np.random.default_rng(0).integers(0, 5, (20, 18, 32, 3)).astype(np.uint8)
    )  # noise of a black screen
    grains = [cv2.resize(noise, (1300, 400), interpolation=cv2.INTER_NEAREST) for noise in dark]
    faded = [((panned[-1][0] * (1 - i / 15)).astype(np.uint8), 1) for i in range(16)]
    for parts in (
        [(textured(0), 30), (dim, 30), (np.minimum(textured(0).astype(int) + 60, 255).astype(np.uint8), 30)],
        [(textured(0), 30), (blurred, 30), (textured(0), 30)],
        [*panned, *faded, (np.zeros_like(dim), 30)],
        [(textured(0), 30), *[(grain, 1) for grain in grains], (textured(0), 30)],
    ):
        scene = Standing([(500, 200)], speed=0)
        assert len(track_people(shots(*parts), scene, scene)) == 1  # type: ignore[arg-type]


def test_two_tracks_that_meet_on_one_person_become_one() -> None:
    """The second person vanishes behind the first, and their circle catches the first."""
    scene = Scene([(200, 300), (245, 300)], speed=1, present=lambda person, frame: person == 0 or frame < 30)
    assert spans(scene.track(90)) == [(0, 89), (0, 29)]


def test_jump_ends_the_track() -> None:
    """A network that suddenly finds something far away has lost its person."""
    scene = Scene([(200, 300)], speed=0, present=lambda person, frame: frame < 40)

    def network(frame: np.ndarray, centre: np.ndarray, scale_point: np.ndarray) -> Landmarks:
        if frame[0, 0, 0] >= 40:
            return landmarks(centre + np.array([80, 0]))
        return scene(frame, centre, scale_point)

    (track,) = track_people(scene.frames(80), scene, network)  # type: ignore[arg-type]
    assert track.frame_ids[-1] == 39


def test_frames_are_taken_one_at_a_time() -> None:
    scene, taken = Scene([(200, 300)]), []

    def frames():
        for frame in scene.frames(40):
            taken.append(scene.looks)
            yield frame

    track_people(frames(), scene, scene)  # type: ignore[arg-type]
    assert all(
        b > a for a, b in itertools.pairwise(taken)
    )  # each was worked on before the next was asked for


def test_empty_video() -> None:
    assert Scene([]).track(0) == []
    assert Scene([]).track(50) == []


def test_who_was_just_lost_is_looked_for_at_once() -> None:
    """The second person is out of sight in frame 42, and leaves before the detector's regular turn."""
    scene = Scene([(200, 300), (800, 300)], present=lambda person, frame: person == 0 or frame < 48)

    def network(frame: np.ndarray, centre: np.ndarray, scale_point: np.ndarray) -> Landmarks:
        hidden = frame[0, 0, 0] == 42 and centre[0] > 600
        return landmarks(centre, score=0.1) if hidden else scene(frame, centre, scale_point)

    scene.detect = lambda picture: [] if picture[0, 0, 0] == 42 else Scene.detect(scene, picture)  # type: ignore[method-assign]
    tracks = track_people(scene.frames(80), scene, network)  # type: ignore[arg-type]
    assert spans(tracks) == [(0, 79), (0, 47)]


@pytest.mark.parametrize(("first", "later", "kept"), [(0.75, 0.75, 0), (0.85, 0.55, 1), (0.85, 0.45, 0)])
def test_it_takes_more_to_begin_than_to_go_on(first: float, later: float, kept: int) -> None:
    """How sure the network must be of a person; a track of one frame is too short."""
    scene = Scene([(200, 300)])

    def network(frame: np.ndarray, centre: np.ndarray, scale_point: np.ndarray) -> Landmarks:
        found = scene(frame, centre, scale_point)
        return replace(found, score=min(found.score, first if frame[0, 0, 0] == 0 else later))

    assert len(track_people(scene.frames(60), scene, network)) == kept  # type: ignore[arg-type]


@pytest.mark.parametrize(("seen", "kept"), [(8, 1), (6, 0)])
def test_a_track_of_gaps_follows_nobody(seen: int, kept: int) -> None:
    """Of every 10 frames as many are seen, the rest would be interpolated."""
    scene = Scene([(200, 300)], speed=1, present=lambda person, frame: frame % 10 < seen)
    assert len(scene.track(200)) == kept


def test_who_was_lost_for_a_while_is_older_than_who_was_found_meanwhile() -> None:
    """The younger vanishes beside the older, whose track goes on."""
    younger, older = (245.0, 300.0), (200.0, 300.0)
    scene = Scene(
        [older, younger],
        speed=1,
        present=lambda person, frame: not 40 <= frame < 46 if person == 0 else 38 <= frame < 90,
    )
    scene.starts[1] = (800.0, 300.0)
    position = scene.position

    def converging(person: int, frame: int) -> np.ndarray:
        """From frame 50 to 85 the younger comes near."""
        share = np.clip((frame - 50) / 35, 0, 1) if person == 1 else 0.0
        return position(person, frame) - np.array([555 * share, 0])

    scene.position = converging  # type: ignore[method-assign]
    assert spans(scene.track(140)) == [(0, 139), (38, 89)]


def test_same_person() -> None:
    a, other = landmarks(np.array([200, 200])), landmarks(np.array([330, 200]))
    near = landmarks(np.array([205, 203]))
    turned = landmarks(np.array([205, 203]))
    turned.xy[:] = turned.xy[LANDMARK_FLIP]
    assert same_person(a, a) and same_person(a, near) and same_person(a, turned)
    assert not same_person(a, other)
    assert same_person(near, a) and not same_person(other, a)
    # Boxes that overlap by about a half: one person if the landmarks agree, left and right exchanged or not.
    beside = landmarks(np.array([214, 200]))
    assert same_person(a, beside)
    beside.xy[:] = beside.xy[LANDMARK_FLIP]
    assert same_person(a, beside)
    beside.xy[:] = np.roll(beside.xy, 7, axis=0)
    assert not same_person(a, beside)


def test_sample_video() -> None:
    """Real networks: a man on a roof and a woman who walks by below are two tracks without gaps."""
    detector = PersonDetector(asset_path("person_detector"))
    network = LandmarkNetwork(asset_path("landmarks_full"))
    frames = itertools.islice(VideoFile(asset_path("demo_video")), 40, 90)
    man, woman = track_people(frames, detector, network)
    for track in (man, woman):
        assert len(track.frame_ids) >= 25
        assert track.visibility.max(axis=1).min() > 0.9  # nothing was interpolated
    assert (man.xy[:, 0, 1] < 300).all()
    assert (woman.xy[:, 0, 1] > 400).all()
    assert woman.bboxes[-1, 0] < woman.bboxes[0, 0] - 50  # she walks to the left

"""Tracking on synthetic scenes: a "network" that knows where everybody is stands in for the real one."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest

from lib.data_utils.blazepose import Detection, LandmarkNetwork, Landmarks, PersonDetector
from lib.data_utils.open_assets import asset_path
from lib.demo.tracking import Track, same_person, track_people
from lib.demo.video import VideoFile
from lib.utils.landmark_features import LANDMARK_FLIP, landmark_boxes

SHAPE = np.random.default_rng(0).uniform(
    [-0.3, -1], [0.3, 1], (33, 2)
)  # of everybody, in radii about the hips


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

    The detector finds everybody present and not painted over; the network finds whoever is nearest to the
    centre of its circle.
    """

    starts: list[tuple[float, float]]
    speed: float = 4.0
    present: Callable[[int, int], bool] = lambda person, frame: True
    detections: int = field(default=0, init=False)
    looks: int = field(default=0, init=False)

    def frames(self, count: int):
        for frame in range(count):
            image = np.zeros((400, 1300, 3), np.uint8)
            image[0, 0] = frame
            yield image

    def position(self, person: int, frame: int) -> np.ndarray:
        x, y = self.starts[person]
        return np.array([x + self.speed * frame, y])

    def _present(self, frame: np.ndarray) -> list[int]:
        return [p for p in range(len(self.starts)) if self.present(p, int(frame[0, 0, 0]))]

    def detect(self, frame: np.ndarray) -> list[Detection]:
        self.detections += 1
        found = []
        for person in self._present(frame):
            centre = self.position(person, int(frame[0, 0, 0])) + 5
            if frame[int(centre[1]), int(centre[0])].any():
                continue  # painted over
            found.append(Detection(0.9, np.zeros(4), centre, centre - np.array([0, 110])))
        return found

    def __call__(self, frame: np.ndarray, centre: np.ndarray, scale_point: np.ndarray) -> Landmarks:
        self.looks += 1
        places = [self.position(person, int(frame[0, 0, 0])) for person in self._present(frame)]
        near = [p for p in places if np.linalg.norm(p - centre) < 60]
        if not near:
            return landmarks(centre, score=0.1)
        return landmarks(min(near, key=lambda p: float(np.linalg.norm(p - centre))))

    def track(self, count: int, **options) -> list[Track]:
        return track_people(self.frames(count), self, self, **options)  # type: ignore[arg-type]


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
    """The detector runs now and then, the network once per person and frame (twice where a track begins)."""
    scene = Scene([(200, 300), (600, 320)])
    scene.track(60, detect_every=10)
    assert scene.detections == 6 + 1  # once more when somebody new was found
    assert scene.looks == 2 * 60 + 2


@pytest.mark.parametrize(("length", "kept"), [(24, 0), (25, 1)])
def test_short_tracks_are_dropped(length: int, kept: int) -> None:
    scene = Scene([(200, 300)], present=lambda person, frame: frame < length)
    assert len(scene.track(80)) == kept


def test_short_gap_is_interpolated() -> None:
    scene = Scene([(200, 300)], present=lambda person, frame: not 40 <= frame < 47)
    (track,) = scene.track(80)
    np.testing.assert_array_equal(track.frame_ids, np.arange(80))
    np.testing.assert_allclose(track.xy[:, 0, 0], 200 + 4 * np.arange(80) + 100 * SHAPE[0, 0], atol=1e-2)
    np.testing.assert_allclose(track.world[:, 0, 2], 200 + 4 * np.arange(80), atol=1e-2)
    np.testing.assert_array_equal(np.flatnonzero(track.visibility.max(axis=1) == 0), np.arange(40, 47))


@pytest.mark.parametrize(("gap", "expected"), [(10, [(0, 79)]), (11, [(0, 29), (41, 79)])])
def test_long_gap_splits(gap: int, expected: list[tuple[int, int]]) -> None:
    scene = Scene([(200, 300)], present=lambda person, frame: not 30 <= frame < 30 + gap)
    tracks = scene.track(80, max_gap=10)
    assert [(t.frame_ids[0], t.frame_ids[-1]) for t in tracks] == expected
    assert [t.person_id for t in tracks] == list(range(1, len(expected) + 1))


def test_somebody_else_does_not_continue_a_lost_track() -> None:
    scene = Scene([(200, 300), (800, 300)], present=lambda person, frame: (frame < 40) == (person == 0))
    tracks = scene.track(80)
    assert [(t.frame_ids[0], t.frame_ids[-1]) for t in tracks] == [(0, 39), (40, 79)]


def test_late_comer_is_found_at_the_next_detection() -> None:
    scene = Scene([(200, 300), (800, 300)], present=lambda person, frame: person == 0 or frame >= 33)
    tracks = scene.track(80, detect_every=10)
    assert [int(t.frame_ids[0]) for t in tracks] == [0, 40]


def test_two_tracks_that_meet_on_one_person_become_one() -> None:
    """The second person vanishes behind the first, and their circle catches the first."""
    scene = Scene([(200, 300), (245, 300)], speed=1, present=lambda person, frame: person == 0 or frame < 30)
    tracks = scene.track(90)
    assert [(t.person_id, t.frame_ids[0], t.frame_ids[-1]) for t in tracks] == [(1, 0, 89), (2, 0, 29)]


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


def test_same_person() -> None:
    a, other = landmarks(np.array([200, 200])), landmarks(np.array([330, 200]))
    near = landmarks(np.array([205, 203]))
    turned = landmarks(np.array([205, 203]))
    turned.xy[:] = turned.xy[LANDMARK_FLIP]
    assert same_person(a, a) and same_person(a, near) and same_person(a, turned)
    assert not same_person(a, other)
    assert same_person(near, a) and not same_person(other, a)


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

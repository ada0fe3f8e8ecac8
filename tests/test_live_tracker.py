"""Following people in a stream, on the scenes that the tracker of whole films is tested on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lib.landmarks.blazepose import Detection, Landmarks
from lib.live.tracker import LiveTracker
from tests.test_tracking import Scene, landmarks


def follow(scene: Scene, numbers: range, **options: Any) -> list[dict[int, Landmarks]]:
    tracker = LiveTracker(scene, scene, **options)  # type: ignore[arg-type]
    frames = dict(enumerate(scene.frames(numbers.stop)))
    return [tracker.follow(number, frames[number]) for number in numbers]


@pytest.mark.parametrize("every", [1, 3])
def test_everybody_keeps_a_number(every: int) -> None:
    scene = Scene([(200, 300), (600, 320)])
    for number, found in zip(range(0, 60, every), follow(scene, range(0, 60, every))):
        assert set(found) == {1, 2}
        for person, one in found.items():
            np.testing.assert_allclose(one.next_centre, scene.position(person - 1, number), atol=1e-6)


def test_work_is_even() -> None:
    """One look per frame at most, three times as rare as frames while everybody is in sight."""
    scene = Scene([(200, 300), (600, 320)], short_sighted=True)
    follow(scene, range(60))
    assert scene.detections <= 22


def test_late_comers_are_found() -> None:
    scene = Scene([(200, 300), (800, 300)], present=lambda person, frame: person == 0 or frame >= 30)
    found = follow(scene, range(60))
    assert [len(one) for one in found[:30]] == [1] * 30
    assert set(found[40]) == {1, 2}


def test_the_largest_stays_it() -> None:
    """Until somebody comes who is much larger; nobody else costs a look by the network."""

    class Sizes(Scene):
        sizes = (100.0, 80.0, 130.0, 170.0)

        def detect(self, picture: np.ndarray) -> list[Detection]:
            at = [(self.position(p, 0), self.sizes[p]) for p in self._present(int(picture[0, 0, 0]))]
            return [Detection(0.9, np.zeros(4), x, x - np.array([0, size])) for x, size in at]

        def __call__(self, frame: np.ndarray, centre: np.ndarray, scale_point: np.ndarray) -> Landmarks:
            self.looks += 1
            near = min(
                self._present(int(frame[0, 0, 0])),
                key=lambda p: float(np.linalg.norm(self.position(p, 0) - centre)),
            )
            return landmarks(self.position(near, 0), self.sizes[near])

    scene = Sizes(
        [(200, 200), (500, 200), (800, 200), (1100, 200)],
        speed=0,
        present=lambda person, frame: frame >= (0, 0, 20, 40)[person],
    )
    found = follow(scene, range(60), largest=True)
    assert [set(one) for one in found] == [{1}] * 42 + [{2}] * 18  # looks are three frames apart
    np.testing.assert_array_equal(found[39][1].next_centre, [200, 200])
    np.testing.assert_array_equal(found[59][2].next_centre, [1100, 200])
    assert scene.looks == 60 - 1 + 4 + 2


def test_nothing_grows() -> None:
    """Over thousands of frames in which somebody comes and goes."""
    scene = Scene([(150, 150), (450, 150)], speed=0, present=lambda p, frame: p == 0 or frame % 90 < 30)
    tracker = LiveTracker(scene, scene)  # type: ignore[arg-type]
    picture = next(scene.frames(1))[:300, :600].copy()
    numbers = set()
    for number in range(2000):
        picture[..., 0] = number % 90
        numbers |= set(tracker.follow(number, picture))
        assert len(tracker.known) <= 2 and len(tracker.everyone) <= 3
        assert all(len(p.landmarks) == len(p.frame_ids) <= 30 for p in tracker.everyone)
    assert len(numbers) == 1 + 2000 // 90 + 1

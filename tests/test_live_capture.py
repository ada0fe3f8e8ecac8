"""Pictures of a source as they come: which are dropped, which wait, and how it ends."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from lib.live.capture import Capture, Source
from lib.utils.errors import UserError


def source(count: int | None, live: bool = True, error: Exception | None = None) -> Source:
    """One that is a list of numbers."""

    def pictures() -> Iterator[tuple[float, np.ndarray]]:
        for number in itertools.count() if count is None else range(count):
            yield number / 1000, np.full((2, 2, 3), number % 251, np.uint8)
        if error:
            raise error

    return Source("numbers", 1000.0, pictures, live)


def test_only_the_newest_waits() -> None:
    with Capture(source(500, live=False)) as capture:
        seen = []
        for frame in capture:
            seen.append(frame.number)
            assert (frame.image == frame.number % 251).all()
            time.sleep(0.01)
    assert capture.captured == 500
    assert capture.dropped == 500 - len(seen) > 0
    assert seen == sorted(set(seen)) and seen[-1] == 499


def test_a_file_is_played_at_its_own_speed() -> None:
    start = time.perf_counter()
    with Capture(source(200, live=False)) as capture:
        captured = [(frame.time, frame.captured - start) for frame in capture]
    assert all(now >= moment for moment, now in captured)


def test_without_dropping_all_come() -> None:
    with Capture(source(300, live=False), drop=False) as capture:
        assert [frame.number for frame in capture] == list(range(300))
    assert (capture.captured, capture.dropped) == (300, 0)


def test_what_a_camera_left_out_is_left_out_of_the_numbers() -> None:
    """It says 30 pictures a second, and gives 15, then 60."""
    times = [0, 2 / 30, 4 / 30, 6.1 / 30, 6.6 / 30, 7.1 / 30, 7.6 / 30, 20 / 30]
    picture = np.zeros((2, 2, 3), np.uint8)
    camera = Source("camera", 30.0, lambda: ((t, picture) for t in times), live=True)
    with Capture(camera, drop=False) as capture:
        assert [frame.number for frame in capture] == [0, 2, 4, 6, 7, 8, 9, 20]


@pytest.mark.parametrize("drop", [True, False])
def test_leaving_stops_an_endless_source(drop: bool) -> None:
    with Capture(source(None), drop=drop) as capture:
        next(iter(capture))
    assert not any(thread.name == "capture" for thread in threading.enumerate())


def test_errors_come_after_the_pictures_before_them() -> None:
    with (
        Capture(source(3, error=UserError("broke off")), drop=False) as capture,
        pytest.raises(UserError, match="broke off"),
    ):
        assert [next(iter(capture)).number for _ in range(3)] == [0, 1, 2]
        next(iter(capture))

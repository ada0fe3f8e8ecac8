"""Windows against the original's lists and the rules they must keep."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.dataset.windows import (
    original_windows,
    split_into_chunks,
    training_windows,
    video_spans,
    window_frames,
)
from tests.golden_tools import GOLDEN

CASES = json.loads((GOLDEN / "chunks" / "split_into_chunks.json").read_text())


def names(*videos: tuple[str, int]) -> np.ndarray:
    return np.repeat([name for name, _ in videos], [length for _, length in videos])


def test_chunks_equal_original() -> None:
    compared = 0
    for case in CASES:
        if case["error"]:  # the original fails on videos shorter than 16 frames; here they are just not cut
            continue
        options = (case["seqlen"], case["stride"], case["is_train"], case["match_vibe"])
        assert split_into_chunks(names(*case["videos"]), *options).tolist() == case["result"], case
        compared += 1
    assert compared > 190


def test_original_windows_show_the_frames_of_their_chunks() -> None:
    videos = names(("a", 40), ("b", 10), ("c", 17))
    for overlap, stride in ((True, 1), (False, 16)):
        frames = window_frames(original_windows(videos, 16, overlap), 16)
        assert frames[:, [0, -1]].tolist() == split_into_chunks(videos, 16, stride).tolist()
        assert (np.diff(frames) == 1).all()


def test_a_name_that_returns_is_a_new_video() -> None:
    assert video_spans(names(("a", 2), ("b", 1), ("a", 3))).tolist() == [[0, 1], [2, 2], [3, 5]]
    assert video_spans(np.array([])).shape == (0, 2)


def test_no_frames_give_no_windows() -> None:
    for overlap in (True, False):
        windows = training_windows(np.array([]), 16, overlap)
        assert windows.shape == (0, 3)
        assert window_frames(windows, 16).shape == (0, 16)
    assert split_into_chunks(names(("a", 5)), 16, 1).shape == (0, 2)


lengths = st.lists(st.integers(1, 50), min_size=1, max_size=6)


@given(lengths, st.integers(1, 20))
def test_every_frame_is_the_target_of_one_window(lengths: list[int], seqlen: int) -> None:
    videos = names(*((f"v{i}", length) for i, length in enumerate(lengths)))
    windows = training_windows(videos, seqlen, overlap=True)
    frames = window_frames(windows, seqlen)
    assert windows[:, 0].tolist() == list(range(len(videos)))
    assert frames[:, seqlen // 2].tolist() == list(range(len(videos)))
    assert (videos[frames] == videos[windows[:, :1]]).all()
    assert np.isin(np.diff(frames), (0, 1)).all()


@given(lengths, st.integers(1, 20))
def test_windows_side_by_side_lose_no_frame(lengths: list[int], seqlen: int) -> None:
    videos = names(*((f"v{i}", length) for i, length in enumerate(lengths)))
    windows = training_windows(videos, seqlen, overlap=False)
    frames = window_frames(windows, seqlen)
    assert (frames[:, seqlen // 2] == windows[:, 0]).all()
    assert (videos[frames] == videos[windows[:, :1]]).all()
    assert len(windows) == sum(-(-length // seqlen) for length in lengths)
    if min(lengths) >= seqlen:
        assert set(frames.flat) == set(range(len(videos)))
        assert (np.diff(frames) == 1).all() or seqlen == 1


@pytest.mark.parametrize(("length", "target"), [(1, 0), (2, 1), (15, 7)])
def test_a_short_video_is_repeated_at_its_ends(length: int, target: int) -> None:
    frames = window_frames(training_windows(names(("a", length)), 16, overlap=False), 16)
    assert frames.tolist() == [[min(max(target + k - 8, 0), length - 1) for k in range(16)]]

"""Front-back flips of landmark tracks are found and undone, and nothing else is touched."""

from dataclasses import fields

import numpy as np
import pytest
import torch

from lib.data_utils.motions import MotionSampler, procedural_motions
from lib.data_utils.simulate import NoiseModel, Simulator
from lib.models.body import OPEN_DATA, load_body
from lib.utils.landmark_flips import find_flips, flip_back, repair_flips

SILENT = NoiseModel(**{f.name: 0.0 for f in fields(NoiseModel)} | {"slow_frames": 8.0, "flip_off": 1.0})


@pytest.fixture(scope="module")
def tracks() -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Clean landmark tracks of 60 frames."""
    clips = MotionSampler(procedural_motions(6, seed=1), np.random.default_rng(3)).sample(8, 60)
    seen = Simulator(load_body(OPEN_DATA), SILENT, torch.Generator().manual_seed(0))(
        *clips, torch.zeros(8, 10)
    )
    return [tuple(part.numpy() for part in clip) for clip in zip(seen.xy, seen.visibility, seen.world)]


def flip_frames(track: tuple[np.ndarray, ...], frames: list[int]) -> tuple[np.ndarray, ...]:
    changed = [part.copy() for part in track]
    for part, other in zip(changed, flip_back(*track)):
        part[frames] = other[frames]
    return tuple(changed)


def test_flipping_twice_is_the_identity(tracks) -> None:
    for given, twice in zip(tracks[0], flip_back(*flip_back(*tracks[0]))):
        np.testing.assert_array_equal(given, twice)


def test_clean_tracks_stay_as_they_are(tracks) -> None:
    for track in tracks:
        assert not find_flips(track[2]).any()


@pytest.mark.parametrize("frames", [[20], [0], [59], [10, 12, 13, 30], list(range(25, 50)), list(range(20))])
def test_flipped_minorities_are_undone(tracks, frames: list[int]) -> None:
    for track in tracks:
        bad = flip_frames(track, frames)
        assert np.flatnonzero(find_flips(bad[2])).tolist() == sorted(frames)
        for repaired, original in zip(repair_flips(*bad), track):
            np.testing.assert_allclose(repaired, original, atol=1e-6)


def test_a_person_who_really_turns_round_is_left_alone() -> None:
    angle = np.linspace(0, np.pi, 30)
    body = np.random.default_rng(0).normal(0, 0.3, (33, 3))
    turn = np.stack(
        [np.stack([np.cos(angle), 0 * angle, np.sin(angle)], -1), np.tile([0.0, 1, 0], (30, 1)),
         np.stack([-np.sin(angle), 0 * angle, np.cos(angle)], -1)], 1
    )  # fmt: skip
    assert not find_flips(np.einsum("tij,lj->tli", turn, body)).any()


def test_one_frame_is_left_alone(tracks) -> None:
    assert not find_flips(tracks[0][2][:1]).any()

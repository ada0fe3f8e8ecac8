"""Front-back flips of landmark tracks are found and undone, and nothing else is touched."""

import numpy as np
import pytest
import torch

from lib.landmarks.flips import find_flips, flip_back, repair_flips, undo_flips
from tests.simulation_tools import SILENT, simulate, upright_clips


@pytest.fixture(scope="module")
def tracks(open_body) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Clean landmark tracks of 60 frames."""
    seen = simulate(open_body, upright_clips(8, 60, seed=3), SILENT)
    return list(zip(seen.xy, seen.visibility, seen.world))


def flip_frames(track: tuple[torch.Tensor, ...], frames: list[int]) -> tuple[torch.Tensor, ...]:
    changed = [part.clone() for part in track]
    for part, other in zip(changed, flip_back(*track)):
        part[frames] = other[frames]
    return tuple(changed)


def test_flipping_twice_is_the_identity(tracks) -> None:
    for given, twice in zip(tracks[0], flip_back(*flip_back(*tracks[0]))):
        torch.testing.assert_close(given, twice, atol=0, rtol=0)


def test_clean_tracks_stay_as_they_are(tracks) -> None:
    for track in tracks:
        assert not find_flips(track[2]).any()


@pytest.mark.parametrize("frames", [[20], [0], [59], [10, 12, 13, 30], list(range(25, 50)), list(range(20))])
def test_flipped_minorities_are_undone(tracks, frames: list[int]) -> None:
    for track in tracks:
        bad = flip_frames(track, frames)
        assert np.flatnonzero(find_flips(bad[2])).tolist() == sorted(frames)
        for repaired, original in zip(repair_flips(*(part.numpy() for part in bad)), track):
            np.testing.assert_allclose(repaired, original.numpy(), atol=1e-6)


def test_a_person_who_really_turns_round_is_left_alone() -> None:
    angle = np.linspace(0, np.pi, 30)
    body = np.random.default_rng(0).normal(0, 0.3, (33, 3))
    turn = np.stack(
        [np.stack([np.cos(angle), 0 * angle, np.sin(angle)], -1), np.tile([0.0, 1, 0], (30, 1)),
         np.stack([-np.sin(angle), 0 * angle, np.cos(angle)], -1)], 1
    )  # fmt: skip
    assert not find_flips(torch.from_numpy(np.einsum("tij,lj->tli", turn, body))).any()


def test_clips_in_a_batch_do_not_meet(tracks) -> None:
    bad = [flip_frames(track, [5 + k]) for k, track in enumerate(tracks)]
    batch = [torch.stack(parts).unflatten(0, (2, 4)) for parts in zip(*bad)]
    for together, parts in zip(undo_flips(*batch), zip(*(undo_flips(*track) for track in bad))):
        torch.testing.assert_close(together, torch.stack(parts).unflatten(0, (2, 4)), atol=0, rtol=0)


def test_one_frame_is_left_alone(tracks) -> None:
    assert not find_flips(tracks[0][2][:1]).any()

"""The landmark simulator: exact where it must be, and noisy in the measured way."""

from dataclasses import replace

import pytest
import torch

from lib.landmarks.features import LANDMARK_FLIP, LIMB_JOINTS, LIMB_LANDMARKS, landmark_boxes
from lib.open_data.simulate import NOISE_V1, NoiseModel
from tests.simulation_tools import SILENT, simulate, upright_clips

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def clips():
    return upright_clips(24, 16)


def test_without_noise_the_landmarks_are_the_truth(open_body, clips) -> None:
    seen = simulate(open_body, clips, SILENT)
    torch.testing.assert_close(seen.world, seen.true_world, atol=1e-5, rtol=0)
    # the image shows the limb joints where the landmarks are
    torch.testing.assert_close(
        seen.xy[:, :, LIMB_LANDMARKS[4:]], seen.joints2d[:, :, LIMB_JOINTS[4:]], atol=0.05, rtol=0
    )


def test_people_stand_upright_in_the_image(open_body, clips) -> None:
    seen = simulate(open_body, clips, SILENT)
    head, feet = seen.xy[:, :, 0, 1], seen.xy[:, :, [27, 28], 1].mean(-1)
    assert ((head < feet).float().mean()) > 0.9
    assert (landmark_boxes(seen.xy.numpy())[..., 2] > 20).all()


def test_depth_is_worse_than_lateral_and_jitter_as_measured(open_body, clips) -> None:
    steady = replace(NOISE_V1, flip_stretch=0, swap=0, yaw_rate=0, freeze=0, clean=1.0)
    seen = simulate(open_body, clips, steady)
    error = (seen.world - seen.true_world)[:, :, LIMB_LANDMARKS]
    lateral, depth = error[..., :2].square().mean().sqrt(), error[..., 2].square().mean().sqrt()
    assert 0.02 < lateral < 0.06
    assert 1.8 < depth / lateral < 4
    jitter = torch.diff(error, n=2, dim=1).norm(dim=-1).mean()
    assert 0.015 < jitter < 0.08


def test_flips_swap_names_and_turn_depth_round(open_body, clips) -> None:
    always = replace(SILENT, flip_clips=1.0, flip_stretch=1.0, flip_on=1.0, flip_off=0.0)
    seen = simulate(open_body, clips, always)
    clean = simulate(open_body, clips, SILENT)
    turned = clean.true_world[:, :, LANDMARK_FLIP] * torch.tensor([1.0, 1.0, -1.0])
    full = ((seen.world - turned).abs().amax((-1, -2)) < 1e-4).float().mean()
    assert 0.3 < full < 0.9  # the rest is caught half-way
    assert not torch.allclose(seen.xy, clean.xy)


def test_same_seed_same_simulation(open_body, clips) -> None:
    first, second, other = (simulate(open_body, clips, NoiseModel(), seed) for seed in (4, 4, 5))
    assert torch.equal(first.world, second.world)
    assert torch.equal(first.xy, second.xy)
    assert not torch.equal(first.world, other.world)
    assert ((first.visibility >= 0) & (first.visibility <= 1)).all()

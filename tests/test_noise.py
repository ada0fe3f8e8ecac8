"""What each number of the noise model does, alone on landmarks without an error; and what all do together."""

from __future__ import annotations

import math
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from lib.landmarks.features import LANDMARK_FLIP
from lib.landmarks.flips import find_flips
from lib.open_data.motions import procedural_motions
from lib.open_data.simulate import LIMBS, NOISE_V1, NOISE_V2, NOISE_V3, Simulation, Simulator
from lib.utils.geometry import axis_angle_to_rotmat, quat_to_axis_angle, rotmat_to_quat
from scripts import measure_noise
from tests.simulation_tools import SILENT, generator, simulate

pytestmark = pytest.mark.usefixtures("one_thread")
CLIPS, LENGTH = 600, 24
QUALITY = math.exp(0.45**2)  # root mean square of the levels of clips, exp(0.45 N)
SHOULDERS, ELBOWS, KNEES, HANDS = [11, 12], [13, 14], [25, 26], [15, 16]
T_POSE = {  # x right, y down, z away, metres about the hips; everybody faces the camera, limbs are oblique
    0: (0, -0.6, -0.1), 11: (0.18, -0.45, 0), 12: (-0.18, -0.45, 0), 13: (0.4, -0.45, -0.15),
    14: (-0.4, -0.45, -0.15), 15: (0.6, -0.45, -0.35), 16: (-0.6, -0.45, -0.35), 23: (0.1, 0, 0),
    24: (-0.1, 0, 0), 25: (0.12, 0.38, -0.2), 26: (-0.12, 0.38, -0.2), 27: (0.12, 0.75, 0.05),
    28: (-0.12, 0.75, 0.05), 29: (0.12, 0.8, 0.1), 30: (-0.12, 0.8, 0.1), 31: (0.12, 0.8, -0.1),
    32: (-0.12, 0.8, -0.1),
}  # fmt: skip


def truth() -> torch.Tensor:
    """(33, 3)"""
    world = torch.zeros(33, 3)
    world[:11] = torch.tensor(T_POSE[0]) + 0.03 * torch.randn(11, 3, generator=generator(0))
    for landmark, place in T_POSE.items():
        world[landmark] = torch.tensor(place)
    for side in (0, 1):
        world[[17 + side, 19 + side, 21 + side]] = world[15 + side] + torch.tensor([0.0, 0.0, -0.1])
    return world


class Still(Simulator):
    """A simulator of one body that never moves: only the errors differ from clip to clip."""

    def observe(self, length: int = LENGTH, clips: int = CLIPS) -> Simulation:
        world = truth().expand(clips, length, 33, 3).clone()
        xy = 500 + 300 * world[..., :2]
        nothing = torch.zeros(0)
        return Simulation(nothing, nothing, nothing, xy, *self._observe(xy.clone(), world), world)


@pytest.fixture(scope="module")
def observe(open_body):
    still = Still(open_body, SILENT, generator(0))

    def seen(length: int = LENGTH, clips: int = CLIPS, **changes: object) -> Simulation:
        still.generator.manual_seed(1)
        still.noise = replace(SILENT, **changes)  # type: ignore[arg-type]
        return still.observe(length, clips)

    return seen


def errors_2d(seen: Simulation) -> torch.Tensor:
    """(B, T, 33, 2) in shares of the box side."""
    side = (seen.joints2d.amax(2) - seen.joints2d.amin(2)).amax(-1)
    return (seen.xy - seen.joints2d) / side[..., None, None]


def rms(values: torch.Tensor) -> float:
    return float(values.square().mean().sqrt())


def test_silence(observe) -> None:
    seen = observe()
    torch.testing.assert_close(seen.world, seen.true_world, atol=1e-6, rtol=0)
    torch.testing.assert_close(seen.xy, seen.joints2d, atol=1e-3, rtol=0)
    assert seen.visibility.min() >= 0.97


def test_white_noise_of_the_image_is_new_in_each_frame(observe) -> None:
    error = errors_2d(observe(white_2d=0.01))[:, :, ELBOWS + KNEES]
    assert rms(error) == pytest.approx(0.01 * QUALITY, rel=0.06)
    assert float((error[:, 1:] * error[:, :-1]).mean()) == pytest.approx(0, abs=0.03 * rms(error) ** 2)


@pytest.mark.parametrize("frames", [4.0, 14.0])
def test_slow_noise_forgets_in_its_time(observe, frames: float) -> None:
    error = errors_2d(observe(slow_2d=0.01, slow_frames=frames))[:, :, ELBOWS + KNEES]
    assert rms(error) == pytest.approx(0.01 * QUALITY, rel=0.06)
    assert rms(error[:, 0]) == pytest.approx(rms(error[:, -1]), rel=0.1)  # stationary from the start
    for lag in (1, 5, 10):
        ratio = float((error[:, lag:] * error[:, :-lag]).mean() / error.square().mean())
        assert ratio == pytest.approx(math.exp(-lag / frames), abs=0.05)


def test_slow_noise_has_the_spectrum_of_a_decay(observe) -> None:
    """The periodogram that correlations of exp(-lag / 8) lead to in 24 frames."""
    error = errors_2d(observe(slow_2d=0.01))[:, :, ELBOWS + KNEES]
    found = torch.fft.rfft(error, dim=1).abs().square().mean((0, 2, 3)) / LENGTH
    lags, waves = np.arange(-LENGTH + 1, LENGTH), np.arange(LENGTH // 2 + 1)
    weights = (1 - np.abs(lags) / LENGTH) * np.exp(-np.abs(lags) / 8)
    expected = np.cos(2 * np.pi * waves[:, None] * lags / LENGTH) @ weights * (0.01 * QUALITY) ** 2
    np.testing.assert_allclose(found.numpy(), expected, rtol=0.15)


def test_bias_stays_for_a_clip(observe) -> None:
    error = errors_2d(observe(bias_2d=0.01))[:, :, ELBOWS + KNEES]
    torch.testing.assert_close(error, error[:, :1].expand_as(error), atol=1e-5, rtol=0)
    assert rms(error) == pytest.approx(0.01 * QUALITY, rel=0.08)
    assert abs(float((error[..., 0] * error[..., 1]).mean())) < 0.1 * rms(error) ** 2


@pytest.mark.parametrize("kind", ["white", "slow", "bias"])
def test_metric_errors_and_their_depth(observe, kind: str) -> None:
    seen = observe(**{f"{kind}_3d": 0.02, f"depth_{kind}": 3.0})
    error = (seen.world - seen.true_world)[:, :, SHOULDERS]
    # Shoulders and hips have 0.8 of the error; the hips' mean is subtracted.
    expected = 0.02 * QUALITY * 0.8 * 1.5**0.5
    assert rms(error[..., :2]) == pytest.approx(expected, rel=0.07)
    assert rms(error[..., 2]) == pytest.approx(3 * expected, rel=0.07)
    change = rms(torch.diff(error, dim=1)) / rms(error)
    changes = {"white": 2**0.5, "slow": (2 - 2 * math.exp(-1 / 8)) ** 0.5, "bias": 0.0}
    assert change == pytest.approx(changes[kind], abs=0.03)
    # Lasting errors add up along a limb, white ones do not and share the hips' alone.
    elbow = (seen.world - seen.true_world)[:, :, ELBOWS]
    wrist = (seen.world - seen.true_world)[:, :, HANDS]
    together = float((elbow * wrist).mean() / (elbow.square().mean() * wrist.square().mean()) ** 0.5)
    assert together == pytest.approx(0.21 if kind == "white" else 0.57, abs=0.07)


def turns(seen: Simulation) -> torch.Tensor:
    """(B, T, 3) axis-angles in degrees of the best rotations (Kabsch)."""
    u, _, v = torch.linalg.svd(seen.world.mT @ seen.true_world)
    fix = torch.ones(*u.shape[:-1])
    fix[..., 2] = torch.linalg.det(u @ v)
    return quat_to_axis_angle(rotmat_to_quat(u * fix[..., None, :] @ v)) * 180 / math.pi


def test_the_whole_body_is_turned(observe) -> None:
    bias = turns(observe(turn_bias=(8.0, 5.0, 2.0), length=4))
    torch.testing.assert_close(bias[:, 0], bias[:, 3], atol=0.05, rtol=0)
    for axis, expected in enumerate((8.0, 5.0, 2.0)):
        assert rms(bias[..., axis]) == pytest.approx(expected, rel=0.09)
    slow = turns(observe(turn_slow=(8.0, 5.0, 2.0)))
    for axis, expected in enumerate((8.0, 5.0, 2.0)):
        assert rms(slow[..., axis]) == pytest.approx(expected, rel=0.09)
    ratio = float((slow[:, 5:] * slow[:, :-5]).mean() / slow.square().mean())
    assert ratio == pytest.approx(math.exp(-5 / 15), abs=0.06)


def test_the_whole_body_is_turned_the_same_way_on_average(observe) -> None:
    mean = turns(observe(turn_mean=(-6.0, 2.0, 1.0), length=2, clips=4))
    torch.testing.assert_close(mean, torch.tensor([-6.0, 2.0, 1.0]).expand_as(mean), atol=1e-2, rtol=0)


def test_the_size_is_wrong_for_a_clip(observe) -> None:
    seen = observe(scale=0.1, length=3)
    size = (seen.world.norm(dim=-1) / seen.true_world.norm(dim=-1).clamp(min=1e-6))[:, :, 15].log()
    torch.testing.assert_close(size[:, 0], size[:, 2])
    assert float(size.std()) == pytest.approx(0.1, rel=0.1)


def slopes(seen: Simulation) -> torch.Tensor:
    """(B, T, 6) depth of both shins, forearms and upper arms over the true ones."""
    ends, starts = [27, 28, 15, 16, 13, 14], [25, 26, 13, 14, 11, 12]
    depth, true = ((w[:, :, ends] - w[:, :, starts])[..., 2] for w in (seen.world, seen.true_world))
    return depth / true


def test_depth_of_bones(observe) -> None:
    torch.testing.assert_close(slopes(observe(slope_mean=0.7)), torch.full((CLIPS, LENGTH, 6), 0.7))
    seen = observe(slope_mean=0.7)
    thigh = (seen.world - seen.true_world)[:, :, KNEES, 2] / seen.true_world[:, :, KNEES, 2]
    torch.testing.assert_close(thigh, torch.full_like(thigh, -0.15))  # half as wrong
    torch.testing.assert_close(seen.world[..., :2], seen.true_world[..., :2])
    tail = math.exp(0.4**2)  # root mean square of exp(0.4 N)
    bias = slopes(observe(slope_bias=0.1)) - 1
    torch.testing.assert_close(bias, bias[:, :1].expand_as(bias), atol=1e-4, rtol=0)
    assert rms(bias) == pytest.approx(0.1 * tail, rel=0.1)
    assert rms(slopes(observe(slope_bias=0.1, tails=0.0)) - 1) == pytest.approx(0.1, rel=0.1)
    slow = slopes(observe(slope_slow=0.1)) - 1
    assert rms(slow) == pytest.approx(0.1 * tail, rel=0.1)
    ratio = float((slow[:, 4:] * slow[:, :-4]).mean() / slow.square().mean())
    assert ratio == pytest.approx(math.exp(-4 / 8), abs=0.06)


def test_shins_lean_in_depth(observe) -> None:
    seen = observe(shin_bias=0.1, length=3)
    error = seen.world - seen.true_world
    torch.testing.assert_close(error[:, 0], error[:, 2])
    for ankle in (27, 28):
        assert rms(error[:, 0, ankle, 2]) == pytest.approx(0.1, rel=0.08)
        feet = error[:, 0, [ankle + 2, ankle + 4], 2]
        torch.testing.assert_close(feet, error[:, 0, [ankle], 2].expand_as(feet))
    assert abs(np.corrcoef(error[:, 0, 27, 2], error[:, 0, 28, 2])[0, 1]) < 0.15
    assert error[:, :, :27].abs().max() < 1e-6 and error[..., :2].abs().max() < 1e-6


def test_limbs_whose_depth_is_wrong_for_a_while(observe) -> None:
    slope = slopes(observe(deep=1.0, length=60))
    wrong = (slope - 1).abs() > 1e-3
    assert slope.max() < 1 + 1e-3 and slope.min() > -1.01
    assert (wrong[..., 2:4] == wrong[..., 4:6]).all()  # both bones of an arm
    assert not (wrong[..., 2] == wrong[..., 3]).all()  # but not both arms
    # Stretches start 1/30 of the frames and last 23 frames on average: a frame is right if none of the last
    # 45 started one that reaches it.
    right = math.prod(1 - 1 / 30 * (45 - k) / 45 for k in range(45))
    assert float(wrong.float().mean()) == pytest.approx(1 - right, abs=0.05)
    rare = (slopes(observe(deep=0.1, length=60)) - 1).abs() > 1e-3
    assert 0.03 < rare.float().mean() < 0.11


@pytest.mark.parametrize("quality", [0.45, 0.2])
def test_clips_differ_in_quality(observe, quality: float) -> None:
    steady, any_quality = (
        errors_2d(observe(white_2d=0.01, clean=clean, quality=quality))[:, :, ELBOWS]
        .square()
        .mean((1, 2, 3))
        .sqrt()
        for clean in (1.0, 0.2)
    )
    assert float(steady.log().std()) == pytest.approx(quality, abs=0.06)
    shares = torch.rand(100_000, generator=generator(0)) * 0.8 + 0.2
    spread = math.hypot(quality, float(shares.log().std()))
    assert float(any_quality.log().std()) == pytest.approx(spread, abs=0.06)


def test_definition_moves_landmarks_along_bones(open_body) -> None:
    world = truth().expand(CLIPS, 2, 33, 3).clone()
    simulator = Simulator(open_body, replace(SILENT, definition=0.1), generator(0))
    offset = simulator._definition(world)
    torch.testing.assert_close(offset[:, 0], offset[:, 1])
    moved = world + offset
    for end, start in ((27, 25), (15, 13), (25, 23)):
        bone, other = (w[:, 0, end] - w[:, 0, start] for w in (moved, world))
        ratio = bone.norm(dim=-1) / other.norm(dim=-1)
        assert torch.nn.functional.cosine_similarity(bone, other).min() > 0.9999
        assert float(ratio.std()) == pytest.approx(0.1, rel=0.1)
        mirrored = (moved[:, 0, end + 1] - moved[:, 0, start + 1]).norm(dim=-1) / other.norm(dim=-1)
        torch.testing.assert_close(mirrored, ratio, atol=1e-3, rtol=0)
    trunk = world[0, 0, SHOULDERS].mean(0) - world[0, 0, [23, 24]].mean(0)
    for left in (11, 23):  # hips and shoulders are wider by twice the share, and move along the trunk
        width = (moved[:, 0, left] - moved[:, 0, left + 1]).norm(dim=-1)
        true = (world[:, 0, left] - world[:, 0, left + 1]).norm(dim=-1)
        assert float((width / true).std()) == pytest.approx(0.2, rel=0.1)
        along = offset[:, 0, [left, left + 1]].mean(1) @ trunk / trunk.square().sum()
        assert float(along.std()) == pytest.approx(0.1, rel=0.1)


def test_the_shipped_weights_were_trained_with_these_numbers() -> None:
    """To change one is to measure and train anew."""
    lateral = {"white_2d": 0.0035, "slow_2d": 0.009, "bias_2d": 0.006, "slow_frames": 14.0}
    lateral |= {"white_3d": 0.005, "slow_3d": 0.021, "bias_3d": 0.026, "definition": 0.05, "scale": 0.04}
    depth = {"depth_white": 2.3, "depth_slow": 2.6, "depth_bias": 2.8, "deep": 0.04}
    depth |= {"slope_mean": 0.82, "slope_bias": 0.15, "slope_slow": 0.2}
    turns = {"turn_bias": (7.0, 6.0, 2.0), "turn_slow": (4.0, 4.5, 1.5), "yaw_rate": 0.008}
    rates = {"clean": 0.2, "drop": 0.3, "faint": 1.0, "swap": 0.06, "freeze": 0.01, "cut": 0.1}
    flips = {"flip_clips": 0.5, "flip_stretch": 0.008, "flip_on": 0.22, "flip_off": 0.4}
    rates |= {
        "quality": 0.45,
        "tails": 0.4,
        "shin_bias": 0.0,
        "turn_mean": (0.0, 0.0, 0.0),
        "cut_alike": False,
    }
    assert asdict(NOISE_V2) == lateral | depth | turns | rates | flips
    lateral |= {"bias_2d": 0.010, "white_3d": 0.004, "slow_3d": 0.0125, "bias_3d": 0.0135}
    lateral |= {"slow_frames": 8.0, "scale": 0.05}
    depth = {"depth_white": 2.5, "depth_slow": 3.1, "depth_bias": 3.1, "deep": 0.0}
    depth |= {"slope_mean": 1.0, "slope_bias": 0.0, "slope_slow": 0.0}
    turns |= {"turn_bias": (6.5, 5.0, 2.0), "turn_slow": (2.6, 2.0, 0.8)}
    rates |= {"faint": 0.0, "cut": 0.0}
    flips |= {"flip_clips": 1.0, "flip_stretch": 0.006}
    assert asdict(NOISE_V1) == lateral | depth | turns | rates | flips


def test_some_parts_of_the_body_are_found_better(observe) -> None:
    error = errors_2d(observe(white_2d=0.01)) / (0.01 * QUALITY)
    parts = {0.6: range(11), 0.8: (11, 12, 23, 24), 1.0: (13, 14, 25, 26), 1.2: (15, 16, 27, 28)}
    parts[1.4] = (17, 18, 19, 20, 21, 22, 29, 30, 31, 32)
    for level, landmarks in parts.items():
        for landmark in landmarks:
            assert rms(error[:, :, landmark]) == pytest.approx(level, rel=0.1), landmark


def test_what_the_trunk_hides_is_worse_and_seen_less(open_body) -> None:
    """Behind its middle by more than 8 cm, and within 16 cm beside and 32 cm above and below, mostly."""
    still = Still(open_body, replace(SILENT, white_2d=0.01), generator(0))
    world = truth().expand(CLIPS, 2, 33, 3).clone()
    trunk = world[0, 0, [11, 12, 23, 24]].mean(0)
    places = {15: (0, 0, 0.1), 17: (0.13, 0.28, 0.2), 19: (-0.13, -0.28, 0.1)}
    in_sight = {16: (0, 0, 0.06), 18: (0.19, 0, 0.2), 20: (0, 0.38, 0.2), 22: (-0.19, -0.38, 0.2)}
    for landmark, place in (places | in_sight).items():
        world[:, :, landmark] = trunk + torch.tensor(place)
    xy = 500 + 300 * world[..., :2]
    seen, visibility, _ = still._observe(xy.clone(), world.clone())
    for landmark in in_sight:
        assert visibility[:, :, landmark].min() >= 0.97
    for landmark in places:
        value, error = visibility[:, 0, landmark], (seen - xy)[:, :, landmark]
        hidden = value < 0.97
        assert (hidden == (visibility[:, 1, landmark] < 0.97)).all()
        assert float(hidden.float().mean()) == pytest.approx(0.8, abs=0.05)
        assert float(value[hidden].mean()) == pytest.approx(0.5, abs=0.05)
        assert 0.09 < value.min() < 0.15 and 0.8 < value[hidden].max() < 0.91
        assert rms(error[hidden]) / rms(error[~hidden]) == pytest.approx(1.8, rel=0.25)


def test_views_are_from_all_sides_and_mostly_level(open_body) -> None:
    """Angles in rad; pitch and roll are wide by themselves, in 0.3 of the clips."""
    views = Simulator(open_body, SILENT, generator(0))._camera(40_000)
    up, ahead = views[:, :, 1], views[:, 2]  # world's up in the camera, camera's view in the world
    heading = torch.atan2(ahead[:, 0], ahead[:, 2])
    found = {
        "heading": heading, "pitch": torch.asin(-up[:, 2]), "roll": torch.atan2(-up[:, 0], -up[:, 1]),
    }  # fmt: skip
    rng, n = np.random.default_rng(0), 40_000

    def mixed(ordinary: np.ndarray, wide: np.ndarray) -> np.ndarray:
        return np.where(rng.random(n) < 0.3, wide, ordinary)

    expected = {
        "heading": rng.uniform(-np.pi, np.pi, n),
        "pitch": mixed(rng.normal(0.1, 0.15, n), rng.uniform(-0.35, 0.95, n)),
        "roll": mixed(rng.normal(0, 0.06, n), rng.uniform(-0.5, 0.5, n)),
    }
    quantiles = np.linspace(0.02, 0.98, 13)
    for name, values in found.items():
        ours, theirs = np.quantile(values, quantiles), np.quantile(expected[name], quantiles)
        np.testing.assert_allclose(ours, theirs, atol=0.02 + 0.02 * np.ptp(theirs), err_msg=name)
    torch.testing.assert_close(torch.linalg.det(views), torch.ones(n))


def test_people_stand_at_all_distances_about_the_middle(open_body) -> None:
    """Their places, solved for from where their joints are in the image."""
    still = axis_angle_to_rotmat(torch.zeros(500, 1, 24, 3))
    seen = simulate(open_body, (still, torch.zeros(500, 1, 3)), SILENT)
    joints = (seen.joints3d - seen.joints3d[:, :, 39:40])[:, 0].double()
    x, y = ((seen.joints2d[:, 0].double() - 500) / 1000).unbind(-1)
    one, none = torch.ones_like(x), torch.zeros_like(x)
    # (X + cx) / (Z + d) = x is linear in d, cx and cy.
    left = torch.cat([torch.stack([x, -one, none], -1), torch.stack([y, none, -one], -1)], dim=1)
    right = torch.cat([joints[..., k] - image * joints[..., 2] for k, image in enumerate((x, y))], dim=1)
    distance, cx, cy = torch.linalg.lstsq(left, right[..., None]).solution[..., 0].unbind(-1)
    log = distance.log()
    assert distance.min() > 2.29 and distance.max() < 14.01
    assert float(log.mean()) == pytest.approx((math.log(2.3) + math.log(14)) / 2, abs=0.07)
    assert float(log.std()) == pytest.approx(math.log(14 / 2.3) / 12**0.5, rel=0.08)
    assert float((cx / distance).std()) == pytest.approx(0.1, rel=0.1)
    assert float((cy / distance).std()) == pytest.approx(0.08, rel=0.1)
    assert abs(float((cx / distance).mean())) < 0.015 and abs(float((cy / distance).mean())) < 0.012


def test_dropped_limbs_are_worse_and_seen_less(observe) -> None:
    seen = observe(drop=3.0, white_2d=0.01, faint=0.0)
    error = errors_2d(seen)
    shares = torch.zeros(LENGTH)
    for limb in LIMBS.values():
        hidden = (seen.visibility[:, :, limb] < 0.9).all(-1)
        shares += hidden.float().mean(0) / len(LIMBS)
        # Levels of 1.5 to 5, so that a dropped limb is about 3.4 times as wrong.
        ratio = rms(error[:, :, limb][hidden]) / rms(error[:, :, limb][~hidden])
        assert 2.5 < ratio < 4.2
    # Begins uniformly over 1.5 lengths, the first half before the clip, and lasts from 2 frames to a length.
    rng = np.random.default_rng(0)
    begin = rng.uniform(-LENGTH / 2, LENGTH, 50_000)
    time, end = np.arange(LENGTH)[:, None], begin + rng.uniform(2, LENGTH, 50_000)
    np.testing.assert_allclose(shares, ((begin <= time) & (time < end)).mean(axis=1), atol=0.03)
    rarely = observe(drop=0.3)
    share = ((rarely.visibility[:, :, LIMBS["left arm"]] < 0.9).all(-1)).float().mean()
    assert 0.02 < share < 0.06


def test_visibility_goes_down_with_the_error_of_a_dropped_limb(observe) -> None:
    arm = [13, 15, 17, 19, 21]

    def correlation(faint: float) -> float:
        seen = observe(drop=3.0, white_2d=0.01, faint=faint)
        hidden = (seen.visibility[:, :, arm] < 0.9).all(-1)
        size, visible = errors_2d(seen)[:, :, arm].abs().mean((-1, -2))[hidden], seen.visibility[:, :, 13]
        return float(np.corrcoef(size.log().numpy(), visible[hidden].log().numpy())[0, 1])

    assert abs(correlation(0.0)) < 0.1
    assert correlation(8.0) < -0.3


def test_swapped_limbs(observe) -> None:
    seen = observe(swap=0.8, length=40)
    other = seen.true_world[:, :, LANDMARK_FLIP]
    for limb in ("arm", "leg"):
        both = LIMBS[f"left {limb}"] + LIMBS[f"right {limb}"]
        away = (seen.world - seen.true_world)[:, :, both].abs().amax((2, 3))
        swapped = (seen.world - other)[:, :, both].abs().amax((2, 3)) < 1e-5
        assert ((away < 1e-5) ^ swapped).all()
        moved = (seen.xy - seen.joints2d)[:, :, both].abs().amax((2, 3)) > 1e-2
        assert (moved == swapped).all()  # in the image, too
        right = math.prod(
            1 - 0.05 * (6 - k) / 6 for k in range(6)
        )  # 1 to 6 frames, from 0.05 of the frames on
        assert float(swapped.float().mean()) == pytest.approx(1 - right, abs=0.02)
    assert (seen.world[:, :, :11] == seen.world[:, :1, :11]).all()


def test_flips_befall_a_share_of_clips(observe) -> None:
    seen = observe(flip_clips=0.4, flip_stretch=1.0, flip_on=0.3, flip_off=0.1, length=60)
    other = seen.true_world[:, :, LANDMARK_FLIP] * torch.tensor([1.0, 1.0, -1.0])
    away, whole = ((seen.world - w).abs().amax((2, 3)) for w in (seen.true_world, other))
    touched = away > 1e-4
    ever = touched.any(1)
    assert float(ever.float().mean()) == pytest.approx(0.4, abs=0.06)
    assert float(touched[ever].float().mean()) == pytest.approx(0.75, abs=0.05)  # 0.3 / (0.3 + 0.1)
    assert float((whole < 1e-4)[touched].float().mean()) == pytest.approx(0.5, abs=0.05)  # else half-way
    on, off = touched[ever][:, :-1], touched[ever][:, 1:]
    assert float((~off)[on].float().mean()) == pytest.approx(0.1, abs=0.02)
    assert float(off[~on].float().mean()) == pytest.approx(0.3, abs=0.03)
    assert find_flips(seen.world)[~ever].sum() == 0


def test_flips_come_in_stretches(observe) -> None:
    seen = observe(flip_clips=1.0, flip_stretch=0.01, flip_on=1.0, flip_off=0.0, length=100)
    flipped = (seen.world - seen.true_world).abs().amax((2, 3)) > 1e-4
    right = math.prod(1 - 0.01 * (40 - k) / 40 for k in range(40))  # of up to 40 frames
    assert float(flipped.float().mean()) == pytest.approx(1 - right, abs=0.03)


def test_yaw_jumps(observe) -> None:
    seen = observe(flip_clips=1.0, yaw_rate=0.05, length=40)
    turn = turns(seen)
    jumped = turn.norm(dim=-1) > 0.5
    right = math.prod(1 - 0.05 * (5 - k) / 5 for k in range(5))
    assert float(jumped.float().mean()) == pytest.approx(1 - right, abs=0.012)
    yaw = turn[jumped]
    assert yaw[:, [0, 2]].abs().max() < 0.5
    assert float(yaw[:, 1].abs().median()) == pytest.approx(0.674 * 0.9 * 180 / math.pi, rel=0.08)
    torch.testing.assert_close(seen.xy, seen.joints2d)


def test_frozen_frames_repeat_the_one_before(observe) -> None:
    seen = observe(freeze=0.3, white_3d=0.01, white_2d=0.01)
    frozen = (seen.world[:, 1:] == seen.world[:, :-1]).all(-1).all(-1)
    assert float(frozen.float().mean()) == pytest.approx(0.3, abs=0.03)
    assert (frozen == (seen.xy[:, 1:] == seen.xy[:, :-1]).all(-1).all(-1)).all()


def test_people_are_cut_off_by_the_border(observe) -> None:
    seen = observe(cut=0.5, white_2d=0.01)
    hidden = seen.visibility < 0.65
    cut = hidden.any(-1).any(-1)
    assert 0.35 < float(cut.float().mean()) < 0.52  # some borders meet no landmark
    assert (hidden == hidden[:, :1]).all()  # nobody moves here
    shown, outside = seen.joints2d[cut], hidden[cut]
    assert 0.05 < float(outside.float().mean()) < 0.6
    # From below: whatever is hidden is lower than whatever is not.
    low = torch.where(outside, -torch.inf, shown[..., 1]).amax((1, 2))
    high = torch.where(outside, shown[..., 1], torch.inf).amin(-1).amin(-1)
    assert 0.6 < float((low <= high).float().mean()) < 0.95
    y = shown[low <= high][..., 1]
    assert y[outside[low <= high]].min() > (y.amin() + y.amax()) / 2  # half of the person at most
    # Else from either side: whatever is hidden lies beyond.
    from_sides = []
    for x in (shown[..., 0], -shown[..., 0]):
        first = torch.where(outside, x, torch.inf).amin((1, 2))
        from_sides.append((low > high) & (first >= torch.where(outside, -torch.inf, x).amax((1, 2))))
    assert from_sides[0].sum() > 10 and from_sides[1].sum() > 10
    assert (from_sides[0] ^ from_sides[1] == (low > high)).all()
    assert rms(errors_2d(seen)[hidden]) / rms(errors_2d(seen)[~hidden]) > 2


def test_both_sides_of_the_image_cut_off_up_to_half(observe) -> None:
    """In v3; before, the left border cut off 50 to 80 % of the person or nothing."""
    for alike in (True, False):
        seen = observe(cut=1.0, cut_alike=alike, clips=1500, length=2)
        hidden, x = (seen.visibility < 0.65)[:, 0], seen.joints2d[:, 0, :, 0]
        low, high = x.amin(1), x.amax(1)
        shares = {}
        for side, depth in (("left", x - low[:, None]), ("right", high[:, None] - x)):
            depth = depth / (high - low)[:, None]
            # How deep a border reaches lies between the last landmark beyond and the first one within.
            beyond = torch.where(hidden, depth, -torch.inf).amax(1)
            within = torch.where(hidden, torch.inf, depth).amin(1)
            shares[side] = beyond[(beyond > 0) & (beyond < within)]
        assert len(shares["right"]) == pytest.approx(1500 / 8, rel=0.25)
        assert shares["right"].max() < 0.5 and shares["right"].min() < 0.2
        if alike:
            assert len(shares["left"]) == pytest.approx(len(shares["right"]), rel=0.25)
            assert shares["left"].max() < 0.5 and shares["left"].min() < 0.2
        else:
            assert shares["left"].min() > 0.4 and shares["left"].max() > 0.6


def test_together_they_look_like_the_measured_ones() -> None:
    """Within about a third (or wide bounds) of the table in the docs, which has other motions."""
    clips = measure_noise.simulated_clips(procedural_motions(40, seed=1), NOISE_V2, 60, seed=1)
    found = measure_noise.statistics(clips)
    measured = {
        ("2D", "all", "q50"): (0.8, 1.2), ("2D", "all", "q90"): (1.8, 2.6),
        ("raw", "all", "depth", "rms"): (121, 146), ("raw", "all", "lateral", "rms"): (40, 46),
        ("aligned", "all", "depth", "q50"): (52, 53), ("turn", "pitch", "bias"): (6.9, 9.1),
        ("turn", "yaw", "bias"): (6.5, 6.8), ("wrong depth", "share"): (0.1, 0.14),
        ("visibility", "mean"): (0.92, 0.95), ("bones", "shin", "depth slope"): (0.88, 1.3),
        ("bones", "forearm", "depth slope"): (0.55, 0.65),
        ("raw", "all", "depth", "autocorrelation 1"): (0.79, 0.89),
    }  # fmt: skip
    for path, (low, high) in measured.items():
        value = found
        for key in path:
            value = value[key]
        assert 0.55 * low < value < 1.8 * high, (path, value)
    assert found["raw"]["all"]["depth / lateral"] > 1.5
    assert found["before the repair"]["frames flipped"] < 0.15


def test_v3_is_as_wrong_as_measured_at_every_quantile() -> None:
    """Medians to tails of both networks on the calibration clip, by people in full view, as that one is."""
    in_view = replace(NOISE_V3, drop=0.0, cut=0.0)
    found = measure_noise.statistics(
        measure_noise.simulated_clips(procedural_motions(40, seed=1), in_view, 60, seed=1)
    )
    measured = {  # quantiles 50, 75, 90, 95 of the full and of the heavy network
        ("2D", "all"): ((1.2, 1.8, 2.7, 3.6), (0.91, 1.4, 1.9, 2.3)),
        ("aligned", "all", "lateral"): ((21, 38, 59, 73), (23, 38, 55, 67)),
        ("aligned", "all", "depth"): ((53, 89, 133, 166), (52, 92, 131, 158)),
        ("aligned", "wrists, ankles", "depth"): ((76, 130, 187, 214), (63, 112, 170, 206)),
        ("raw", "wrists, ankles", "depth"): ((114, 186, 284, 359), (119, 177, 234, 275)),
    }
    for path, networks in measured.items():
        value = found
        for key in path:
            value = value[key]
        for q, pair in zip(("q50", "q75", "q90", "q95"), zip(*networks)):
            assert 0.8 * min(pair) < value[q] < 1.25 * max(pair), (path, q, value[q])
    wrong = found["wrong depth"]
    shares = {"thigh": (0.02, 0.1), "shin": (0.11, 0.22), "upper arm": (0.07, 0.2), "forearm": (0.12, 0.28)}
    for bone, (low, high) in shares.items():
        assert low < wrong[bone] < high, (bone, wrong[bone])
    assert -7 < found["turn"]["pitch"]["mean"] < -1.5
    # Heavy tails: a fifth of wrists and ankles beyond 200 mm, whole bodies turned by more than 30 degrees.
    assert found["raw"]["wrists, ankles"]["depth"]["far"] == pytest.approx(0.2, abs=0.07)
    assert 0.005 < found["turn"]["yaw"]["far"] < 0.06
    power = {"0 to 1 Hz": 0.54, "1 to 3 Hz": 0.29, "3 to 7 Hz": 0.09, "7 to 15 Hz": 0.08}
    for band, share in power.items():
        assert found["aligned"]["all"]["depth"][band] == pytest.approx(share, abs=0.17)
    assert found["visibility"]["mean"] == pytest.approx(0.93, abs=0.03)
    assert found["before the repair"]["frames flipped"] < 0.06

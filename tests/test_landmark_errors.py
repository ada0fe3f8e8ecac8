"""Statistics of landmark errors, on errors that are made here and known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from lib.landmarks.features import LANDMARK_FLIP, LIMB_LANDMARKS, landmark_boxes
from lib.open_data import landmark_errors
from lib.open_data.landmark_errors import Clip, Errors, errors_of, parts, similarity, turn_angles, white_rms
from lib.open_data.motions import procedural_motions
from lib.open_data.simulate import NoiseModel
from scripts import measure_noise

FRAMES = 60


@pytest.fixture
def clip() -> Clip:
    """Landmarks without an error, of somebody who sways."""
    rng = np.random.default_rng(0)
    body = rng.uniform(-0.5, 0.5, (33, 3))
    body[[23, 24]] = [[0.1, 0, 0], [-0.1, 0, 0]]
    world = body + 0.05 * np.sin(np.arange(FRAMES) / 9)[:, None, None] * rng.uniform(-1, 1, (33, 3))
    xy = 400 + 300 * world[..., :2]
    seen = (xy.astype(np.float32), np.ones((FRAMES, 33), np.float32), world.astype(np.float32))
    return Clip(*seen, xy[:, LIMB_LANDMARKS], world[:, LIMB_LANDMARKS] + [1.0, 2.0, 5.0])


def changed(clip: Clip, **arrays: np.ndarray) -> Clip:
    return Clip(**(vars(clip) | arrays))


def test_no_error(clip: Clip) -> None:
    (errors,) = errors_of(clip)
    for name in ("image", "raw", "aligned", "turn"):
        assert np.abs(getattr(errors, name)).max() < 1e-4, name
    np.testing.assert_allclose(errors.scale, 1, atol=1e-5)
    statistics = landmark_errors.error_statistics([errors])
    assert statistics["wrong depth"]["share"] == 0
    assert statistics["bones"]["forearm"]["depth slope"] == pytest.approx(1, abs=1e-3)
    assert statistics["visibility"]["mean"] == 1


def test_turn_and_scale(clip: Clip) -> None:
    angles = np.array([12.0, -7.0, 3.0])
    rotation = Rotation.from_euler("YXZ", angles, degrees=True).as_matrix()
    turned = 0.9 * clip.true_world @ rotation.T + [0.3, 0.0, -1.0]
    found, scale = similarity(clip.true_world, turned)
    np.testing.assert_allclose(found, np.broadcast_to(rotation, found.shape), atol=1e-9)
    np.testing.assert_allclose(scale, 0.9)
    np.testing.assert_allclose(turn_angles(found), np.broadcast_to(angles, (FRAMES, 3)), atol=1e-6)
    moved = changed(clip, world=(0.9 * clip.world @ rotation.T).astype(np.float32))
    (errors,) = errors_of(moved)
    assert np.abs(errors.aligned).max() < 1e-5 < 1e-2 < np.abs(errors.raw).max()
    np.testing.assert_allclose(errors.turn.mean(0), angles, atol=1e-3)


def test_image_errors_are_shares_of_the_box(clip: Clip) -> None:
    side = landmark_boxes(clip.xy)[:, 2]
    moved = changed(clip, true_xy=clip.true_xy - 0.02 * side[:, None, None] * np.array([0.6, 0.8]))
    (errors,) = errors_of(moved)
    found = landmark_errors.image_errors([errors], list(range(12)))
    assert found["q25"] == pytest.approx(2, abs=1e-3)
    assert found["q99"] == pytest.approx(2, abs=1e-3)
    assert found["white"] < 1e-3 and found["slow"] < 1e-3
    assert found["bias"] == pytest.approx(2 / 2**0.5, abs=1e-3)  # of one coordinate


def test_60_fps_is_taken_apart(clip: Clip) -> None:
    fast = changed(clip, step=2)
    even, odd = errors_of(fast)
    assert len(even.scale) == len(odd.scale) == FRAMES // 2
    np.testing.assert_array_equal(odd.visibility, np.ones((FRAMES // 2, 12)))
    np.testing.assert_allclose(odd.true_bones, next(errors_of(clip)).true_bones[1::2])


def test_parts_of_known_noise() -> None:
    rng = np.random.default_rng(1)
    keep, clips = np.exp(-1 / 10), []
    for _ in range(60):
        slow = [rng.normal(0, 1, 50)]
        for _ in range(199):
            slow.append(keep * slow[-1] + (1 - keep**2) ** 0.5 * rng.normal(0, 1, 50))
        clips.append(3 * rng.normal(0, 1, 50) + np.stack(slow) + 0.5 * rng.normal(0, 1, (200, 50)))
    found = parts(clips)
    assert found["bias"] == pytest.approx(3.0, rel=0.05)
    # The second differences of the slow part count as white, too: 2·(3 − 4a + a²)/6 of its variance.
    white = (0.25 + (3 - 4 * keep + keep**2) / 3) ** 0.5
    assert found["white"] == pytest.approx(white, rel=0.03)
    assert found["autocorrelation 5"] == pytest.approx(keep**5 / 1.25, abs=0.07)
    assert found["autocorrelation 1"] > found["autocorrelation 5"] > found["autocorrelation 15"] > 0
    assert white_rms([np.outer(np.arange(9.0), [1, -2])]) < 1e-12  # a steady drift isn't white


def test_wrong_depth(clip: Clip) -> None:
    """The right forearm (elbow 14, wrist 16) points at the camera in ten frames, in truth away from it,
    and is twice as deep in five more."""
    truth, seen = clip.true_world.copy(), clip.world.copy()
    elbow, wrist = LIMB_LANDMARKS.index(14), LIMB_LANDMARKS.index(16)
    along = np.array([0.05, 0.0, 0.25])
    truth[:, wrist] = truth[:, elbow] + along
    seen[:, 16] = seen[:, 14] + along
    seen[20:30, 16] = seen[20:30, 14] + along * [1, 1, -1]
    seen[40:45, 16] = seen[40:45, 14] + along * [1, 1, 2]
    (errors,) = errors_of(changed(clip, world=seen.astype(np.float32), true_world=truth))
    found = landmark_errors.wrong_depths([errors])
    assert found["forearm"] == pytest.approx(15 / FRAMES / 2)  # of the two forearms
    assert found["thigh"] == 0
    assert found["frames in a row"]["q50"] == 7.5
    assert found["seen / true depth"]["q1"] < -0.5 < 0.9 < found["seen / true depth"]["q50"] < 1.1


def test_depth_and_lateral(clip: Clip) -> None:
    rng = np.random.default_rng(2)
    noise = rng.normal(0, [0.01, 0.01, 0.03], (FRAMES, 33, 3))
    noise[:, [23, 24]] = 0
    noisy = changed(clip, world=(clip.world + noise).astype(np.float32))
    found = landmark_errors.world_errors(
        list(errors_of(noisy)), landmark_errors.GROUPS["wrists, ankles"], "raw"
    )
    assert found["lateral"]["white"] == pytest.approx(10, rel=0.1)
    assert found["depth"]["rms"] == pytest.approx(30, rel=0.1)
    assert found["depth / lateral"] == pytest.approx(3, rel=0.15)


def test_visibility_by_error() -> None:
    image = np.zeros((10, 12, 2))
    image[:, :3, 0] = 0.05
    visibility = np.ones((10, 12))
    visibility[:, :3] = 0.2
    shape = {"raw": 3, "aligned": 3, "bones": 3, "true_bones": 3}
    rest = {name: np.zeros((10, 12, size)) for name, size in shape.items()}
    errors = Errors(image=image, visibility=visibility, turn=np.zeros((10, 3)), scale=np.ones(10), **rest)
    found = landmark_errors.visibilities([errors])
    assert found["mean"] == pytest.approx(0.8)
    assert found["by 2D error, %"]["4 to 8"] == pytest.approx({"share": 0.25, "mean visibility": 0.2})
    assert found["of"]["0 to 0.5"]["mean 2D error, %"] == pytest.approx(5)
    assert found["of"]["0.99 to 1.001"]["mean 2D error, %"] == 0
    assert "2 to 4" not in found["by 2D error, %"]


@pytest.mark.parametrize("step", [1, 2])
def test_jumps_before_the_repair(clip: Clip, step: int) -> None:
    world = clip.world.copy()
    world[30:33] = world[30:33][:, LANDMARK_FLIP] * [1, 1, -1]
    found = measure_noise.jumps([changed(clip, world=world, step=step)])
    seconds = FRAMES / (30 * step)
    assert found["flips / s"] == pytest.approx(1 / seconds)
    assert found["frames flipped"] == pytest.approx(3 / FRAMES)
    assert found["yaw jumps / s"] == pytest.approx(2 / seconds)


def quiet() -> NoiseModel:
    """No errors, but landmarks that are not the model's joints."""
    numbers = {name: 0.0 for name, value in vars(NoiseModel()).items() if isinstance(value, float)}
    tuples = {name: (0.0,) * 3 for name, value in vars(NoiseModel()).items() if isinstance(value, tuple)}
    kept = {"definition": 0.05, "slow_frames": 8.0, "slope_mean": 1.0, "flip_on": 0.2, "flip_off": 0.4}
    return NoiseModel(**(numbers | tuples | kept))


def test_simulation_without_noise_has_no_error() -> None:
    torch.manual_seed(0)
    clips = measure_noise.simulated_clips(procedural_motions(4, seed=1), quiet(), 3, 1)
    found = measure_noise.statistics(clips)
    assert found["clips"] == 3 and found["frames"] == 3 * measure_noise.LENGTH
    assert found["2D"]["all"]["q99"] < 0.01
    assert found["raw"]["all"]["depth"]["rms"] < 0.1
    assert found["before the repair"]["frames flipped"] == 0


def test_table_holds_the_numbers(clip: Clip) -> None:
    statistics = measure_noise.statistics([clip])
    statistics["turn"]["yaw"] |= {"q99": 41.4, "far": 0.25, "mean": -1.25}
    table = measure_noise.markdown({"a": statistics, "b": statistics | {"turn": {}}})
    lines = table.splitlines()
    assert lines[0] == "| | a | b |"
    assert all(line.count("|") == 4 for line in lines)
    yaw = next(k for k, line in enumerate(lines) if "**Yaw**" in line)
    assert lines[yaw].endswith(" / 41 | - / - / - / - / - |")
    assert lines[yaw + 1] == "| … share over 30 degrees / mean | 0.25 / -1.2 | - / - |"
    assert not any("-" in line.split("|")[2].split() for line in lines[2:] if "3D error" not in line)


def test_spectrum() -> None:
    """Waves of 2 and 10 Hz, the faster one with a third of the power; and noise of all frequencies alike."""
    time = np.arange(90)[:, None] / 30
    waves = 3**0.5 * np.sin(2 * np.pi * 2 * time) + np.cos(2 * np.pi * 10 * time)
    found = landmark_errors.spectrum([waves, waves[:60]])
    assert list(found) == ["0 to 1 Hz", "1 to 3 Hz", "3 to 7 Hz", "7 to 15 Hz"]
    assert list(found.values()) == pytest.approx([0, 0.75, 0, 0.25], abs=1e-6)
    rng = np.random.default_rng(0)
    found = landmark_errors.spectrum([rng.normal(0, 1, (900, 40))])
    assert list(found.values()) == pytest.approx([1 / 15, 2 / 15, 4 / 15, 8 / 15], abs=0.01)

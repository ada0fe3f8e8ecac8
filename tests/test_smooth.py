"""Smoothing of motions: independent averages, no delay, and each group by its own measure."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from lib.models.smpl import SMPL
from lib.motion.camera import Camera
from lib.motion.motion import Motion, Placed
from lib.motion.smooth import GROUPS, parse_smoothing, smooth_motion, smooth_placed, smooth_rotations
from lib.utils.errors import UserError
from lib.utils.smoothing import slerp_filter

T, FPS = 60, 30.0


def shaky(seed: int = 0, size: float = 0.1) -> Placed:
    random = np.random.default_rng(seed)
    turns = random.normal(0, 0.5, (1, 24, 3)) + random.normal(0, size, (T, 24, 3))
    rotmat = Rotation.from_rotvec(turns.reshape(-1, 3)).as_matrix().reshape(T, 24, 3, 3)
    return Placed(rotmat.astype(np.float32), random.normal(0, 0.1, (T, 3)).astype(np.float32))


def test_every_joint_is_in_one_group() -> None:
    assert sorted(joint for group in GROUPS.values() for joint in group) == list(range(24))


@pytest.mark.parametrize(
    ("text", "torso", "legs", "arms"),
    [
        ("0", 0, 0, 0),
        ("0.1", 0.1, 0.1, 0.1),
        ("legs=0.2", 0, 0.2, 0),
        ("torso=0.15, arms=.05", 0.15, 0, 0.05),
    ],
)
def test_what_can_be_asked_for(text: str, torso: float, legs: float, arms: float) -> None:
    found = parse_smoothing(text)
    assert dict(found.seconds) == {"torso": torso, "legs": legs, "arms": arms}
    assert found.changes == any((torso, legs, arms))


@pytest.mark.parametrize(
    "text",
    [
        *("", "x", "-1", "nan", "inf", "hands=1", "torso", "0.1,legs=0.2", "slerp=2", "slerp=0"),
        "torso=1,slerp=1",
    ],
)
def test_anything_else_is_one_line(text: str) -> None:
    with pytest.raises(UserError, match=r"--smooth .*expected seconds"):
        parse_smoothing(text)


def test_each_group_is_smoothed_by_its_own_measure() -> None:
    before = shaky()
    after = smooth_placed(before, parse_smoothing("legs=0.1,arms=0.3"), FPS)
    np.testing.assert_array_equal(after.transl, before.transl)
    torso = list(GROUPS["torso"])
    np.testing.assert_array_equal(after.rotmat[:, torso], before.rotmat[:, torso])

    def shake(values: np.ndarray) -> float:
        return float(np.abs(np.diff(values, 2, axis=0)).mean())

    legs, arms = list(GROUPS["legs"]), list(GROUPS["arms"])
    assert shake(after.rotmat[:, legs]) < 0.1 * shake(before.rotmat[:, legs])
    assert shake(after.rotmat[:, arms]) < 0.2 * shake(after.rotmat[:, legs])
    moved = smooth_placed(before, parse_smoothing("torso=0.1"), FPS)
    assert shake(moved.transl) < 0.1 * shake(before.transl)


def test_small_turns_are_averaged_as_rotations_are() -> None:
    """Against SciPy's mean of rotations, weighted by the Gaussian, in the middle of a track."""
    placed, sigma = shaky(1, 0.05), 2.0
    smooth = smooth_rotations(placed.rotmat, sigma)
    frames = np.arange(T) - 30
    weights = np.exp(-0.5 * (frames / sigma) ** 2) * (np.abs(frames) <= 8)
    for joint in (0, 5, 23):
        mean = Rotation.from_matrix(placed.rotmat[:, joint]).mean(weights)
        assert (mean.inv() * Rotation.from_matrix(smooth[30, joint])).magnitude() < 2e-3
    identity = np.broadcast_to(np.eye(3), smooth.shape)
    np.testing.assert_allclose(smooth @ np.swapaxes(smooth, -1, -2), identity, atol=1e-5)


def test_nothing_is_delayed() -> None:
    """Smoothing a motion that runs backwards is the smoothed motion, backwards."""
    before, how = shaky(2), parse_smoothing("0.1")
    backwards = smooth_placed(Placed(before.rotmat[::-1].copy(), before.transl[::-1].copy()), how, FPS)
    forth = smooth_placed(before, how, FPS)
    np.testing.assert_allclose(backwards.rotmat[::-1], forth.rotmat, atol=1e-5)
    np.testing.assert_allclose(backwards.transl[::-1], forth.transl, atol=1e-6)


def test_the_papers_filter_is_an_option() -> None:
    before = shaky(3)
    after = smooth_placed(before, parse_smoothing("slerp=0.3"), FPS)
    np.testing.assert_allclose(after.rotmat, slerp_filter(before.rotmat, 0.3), atol=1e-6)
    np.testing.assert_array_equal(after.transl, before.transl)


def test_joints_follow(open_body) -> None:
    placed, camera = shaky(4), Camera(640, 480, 700.0)
    placed = Placed(placed.rotmat, placed.transl + np.array([0, 0, 4], np.float32))
    zeros = np.zeros((T, 49, 3), np.float32)
    motion = Motion(
        person_id=1,
        frames=np.arange(T),
        betas=np.zeros(10, np.float32),
        camera=placed,
        world=placed,
        contacts=np.zeros((T, 4), bool),
        boxes=np.zeros((T, 4), np.float32),
        joints3d=zeros,
        joints2d=zeros[..., :2],
        attention=zeros[:, 0],
        fps=FPS,
    )
    smpl = SMPL(open_body)
    assert smooth_motion(motion, parse_smoothing("0"), smpl, camera, FPS) is motion
    smooth = smooth_motion(motion, parse_smoothing("0.2"), smpl, camera, FPS)
    expected = camera.project(smooth.joints3d + smooth.camera.transl[:, None])
    np.testing.assert_allclose(smooth.joints2d, expected, atol=1e-2)
    pelvis = smooth.joints3d[:, 39] + smooth.camera.transl
    assert np.abs(np.diff(pelvis, 2, axis=0)).max() < 0.01
    assert np.abs(smooth.joints3d).max() > 0.5

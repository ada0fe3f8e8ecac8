"""Feet that are locked stand still, and little else changes."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from lib.models.body import OPEN_DATA, BodyData, load_body
from lib.models.smpl import SMPL
from lib.motion.contacts import find_contacts
from lib.motion.feet import MAX_SHIFT, Skeleton, lock_feet, reach, runs
from lib.motion.meshes import Meshes
from lib.motion.motion import Placed
from tests.motion_tools import walk


@pytest.fixture(scope="module")
def body() -> BodyData:
    return load_body("", open_dir=OPEN_DATA)


def disturbed(placed: Placed, seed: int, size: float = 0.02) -> Placed:
    """The same with slow errors of the root, metres, and of the legs."""
    rng = np.random.default_rng(seed)
    time = np.arange(len(placed.transl))[:, None]
    slow = size * np.sin(time / rng.uniform(5, 15, 3) + rng.uniform(0, 6, 3))
    rotmat = placed.rotmat.copy()
    for joint in (1, 2, 4, 5, 7, 8):
        turn = 0.04 * np.sin(time / rng.uniform(5, 15, 3) + rng.uniform(0, 6, 3))
        rotmat[:, joint] = Rotation.from_rotvec(turn).as_matrix() @ rotmat[:, joint]
    return Placed(rotmat, (placed.transl + slow).astype(np.float32))


def test_locked_feet_neither_slide_nor_sink(body: BodyData) -> None:
    placed, betas = walk(body, 1)
    skeleton = Skeleton.of(body, betas)
    true = skeleton.feet(placed)
    contacts = (np.linalg.norm(np.gradient(true, axis=0), axis=-1) * 30 < 0.3) & (true[..., 1] < 0.04)
    noisy = disturbed(placed, 1)
    locked, kept = lock_feet(noisy, skeleton, contacts, 30.0)
    assert kept.sum() > 0.98 * contacts.sum()
    feet, before = skeleton.feet(locked), skeleton.feet(noisy)
    both = kept[1:] & kept[:-1]
    slide = np.linalg.norm(np.diff(feet, axis=0), axis=-1)[both]
    assert np.linalg.norm(np.diff(before, axis=0), axis=-1)[both].mean() > 3e-3
    assert slide.mean() < 3e-4
    assert np.percentile(slide, 99) < 3e-3
    assert np.abs(feet[..., 1][kept]).max() < 1e-3
    assert feet[..., 1].min() > -0.01
    joints, joints_before = skeleton.chain(locked)[1], skeleton.chain(noisy)[1]
    assert np.linalg.norm(joints - joints_before, axis=-1).max() < MAX_SHIFT
    # Smooth: no joint is accelerated much more than by the errors themselves.
    shake, shake_before = (np.linalg.norm(np.diff(v, 2, axis=0), axis=-1) for v in (joints, joints_before))
    assert shake.max() < 2 * shake_before.max()
    assert np.allclose(np.linalg.det(locked.rotmat), 1, atol=1e-4)
    unchanged = [j for j in range(24) if j not in (1, 2, 4, 5, 7, 8)]
    assert np.array_equal(locked.rotmat[:, unchanged], noisy.rotmat[:, unchanged])


def test_without_contact_nothing_changes(body: BodyData) -> None:
    placed, betas = walk(body, 1, length=10)
    locked, kept = lock_feet(placed, Skeleton.of(body, betas), np.zeros((10, 4), bool), 30.0)
    assert locked is placed
    assert not kept.any()


def test_contacts_that_ask_for_too_much_are_taken_back(body: BodyData) -> None:
    """A foot that is said to stand all the time, while its owner walks away."""
    placed, betas = walk(body, 1)
    skeleton = Skeleton.of(body, betas)
    locked, kept = lock_feet(
        placed, skeleton, np.tile([True, False, False, False], (len(placed.transl), 1)), 30.0
    )
    assert not kept.all()
    change = np.linalg.norm(skeleton.feet(locked) - skeleton.feet(placed), axis=-1)
    assert change.max() < 2 * MAX_SHIFT


def test_soles_are_where_the_mesh_ends(body: BodyData) -> None:
    placed = Placed(np.tile(np.eye(3, dtype=np.float32), (1, 24, 1, 1)), np.zeros((1, 3), np.float32))
    betas = np.array([1, -1, 0.5, 0, 0, 0, 0, 0, 0, 0], np.float32)
    verts = Meshes(SMPL(body), placed, betas).all()[0]
    feet = Skeleton.of(body, betas).feet(placed)[0]
    assert feet[:, 1] == pytest.approx(verts[:, 1].min(), abs=2e-3)
    assert feet[0, 0] == pytest.approx(-feet[2, 0], abs=2e-3)  # left and right
    assert (feet[[1, 3], 2] > feet[[0, 2], 2] + 0.15).all()  # toes are before heels


def test_reach_keeps_bones_and_meets_the_target() -> None:
    rng = np.random.default_rng(3)
    hip, knee, ankle = np.zeros((50, 3)), np.zeros((50, 3)), np.zeros((50, 3))
    knee[:] = [0.02, -0.4, 0.05]
    ankle[:] = [0.03, -0.82, 0.0]
    target = ankle + rng.normal(0, 0.02, (50, 3)) + [0, 0.1, 0]
    thigh, shin = reach(np.stack([hip, knee, ankle], 1), np.tile(np.eye(3), (50, 1, 1)), target)
    found_knee = (thigh @ (knee - hip)[..., None])[..., 0]
    found = found_knee + (shin @ (ankle - knee)[..., None])[..., 0]
    assert np.abs(found - target).max() < 1e-6
    assert (found_knee[:, 2] > 0).all()  # the knee still bends forwards


def test_contacts_of_a_walk_by_hysteresis(body: BodyData) -> None:
    placed, betas = walk(body, 2)
    feet = Skeleton.of(body, betas).feet(placed) + np.array([0, 0, 7])
    contacts = find_contacts(feet, feet[..., 1], 30.0)
    assert 0.3 < contacts.mean() < 0.7
    assert all(4 <= len(runs(side)) <= 10 for side in contacts.T)
    assert not find_contacts(feet, feet[..., 1] + 0.5, 30.0).any()
    assert np.array_equal(find_contacts(feet[:1], feet[:1, :, 1], 30.0), feet[:1, :, 1] < 0.1)


def test_runs() -> None:
    assert runs(np.array([True, True, False, True])) == [(0, 2), (3, 4)]
    assert runs(np.zeros(3, bool)) == []

"""The measuring rods of scripts/measure_world.py, and the films that it measures on."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from lib.models.body import OPEN_DATA, BodyData, load_body
from lib.models.smpl import SMPL
from lib.motion.feet import Skeleton
from lib.motion.meshes import Meshes
from lib.open_data.simulate import FOCAL, IMAGE_SIZE, Simulator
from scripts.measure_world import after_alignment, contacts_of, view
from tests.motion_tools import walk
from tests.simulation_tools import SILENT, generator


@pytest.fixture(scope="module")
def body() -> BodyData:
    return load_body("", open_dir=OPEN_DATA)


def test_alignment_takes_out_where_and_how_a_path_lies_but_not_its_form() -> None:
    rng = np.random.default_rng(1)
    path = np.cumsum(rng.normal(0, 0.1, (50, 3)), 0)
    turned = Rotation.from_euler("xyz", [1, 2, 3]).apply(path) + np.array([4, 5, 6])
    assert after_alignment(turned, path, scaled=False) < 1e-9
    assert after_alignment(1.3 * turned, path, scaled=True) < 1e-9
    spread = np.linalg.norm(path - path.mean(0), axis=1).mean()
    assert after_alignment(1.3 * turned, path, scaled=False) == pytest.approx(0.3 * spread)
    assert after_alignment(path * [-1, 1, 1], path, scaled=True) > 0.01  # a mirror image is another path


def test_feet_of_procedural_walks_stand_in_turn(body: BodyData) -> None:
    for seed in range(4):
        placed, betas = walk(body, seed, length=150)
        feet = Skeleton.of(body, betas).feet(placed)
        contacts = contacts_of(feet, 30, 0.3, 0.04)
        assert (contacts.mean(0) > 0.3).all()
        assert (contacts.mean(0) < 0.7).all()
        assert contacts.any(1).mean() > 0.95  # nobody flies
        both = contacts[1:] & contacts[:-1]
        assert np.linalg.norm(np.diff(feet, axis=0), axis=-1)[both].mean() < 5e-4
        assert feet[..., 1].min() > -1e-3
        left, right = contacts[:, :2].any(1), contacts[:, 2:].any(1)
        assert 0.05 < (left & right).mean() < 0.5  # a walk, not a run and not a shuffle


def test_a_given_view_shows_bodies_where_they_are(body: BodyData) -> None:
    """The simulator's joints are those of the mesh, taken through the camera by hand."""
    placed, betas = walk(body, 2, length=5)
    turn, eye = view(placed.transl + Skeleton.of(body, betas).rest[0], np.random.default_rng(3))
    assert np.allclose(turn @ turn.T, np.eye(3))
    assert np.linalg.det(turn) == pytest.approx(1)

    def one(values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.asarray(values, np.float32))[None]

    simulator = Simulator(body, SILENT, generator(1))
    seen = simulator(one(placed.rotmat), one(placed.transl), one(betas), view=(one(turn), one(eye)))
    joints = (Meshes(SMPL(body), placed, betas).joints() - eye) @ turn.T
    assert (joints[..., 2] > 2).all()
    expected = IMAGE_SIZE / 2 + FOCAL * joints[..., :2] / joints[..., 2:]
    assert np.abs(seen.joints2d[0].numpy() - expected).max() < 0.05
    assert ((expected > 0) & (expected < IMAGE_SIZE)).all()

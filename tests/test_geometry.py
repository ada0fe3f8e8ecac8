"""Rotations and cameras against the original's outputs, and by their defining properties."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from lib.utils import geometry
from tests.golden_tools import load_golden


@pytest.fixture(scope="module")
def golden() -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(value) for name, value in load_golden("geometry/geometry").items()}


@pytest.mark.parametrize(
    ("function", "argument", "result"),
    [
        (geometry.axis_angle_to_rotmat, "axis_angle", "batch_rodrigues"),
        (geometry.rotmat_to_quat, "rotmat", "rotmat_to_quaternion"),
        (geometry.rotmat_to_axis_angle, "rotmat", "rotmat_to_axis_angle"),
        (geometry.rotmat_to_axis_angle, "rotmat_bad", "rotmat_bad_to_axis_angle"),
        (geometry.quat_to_rotmat, "quat", "quat2mat"),
        (geometry.quat_to_axis_angle, "quat", "quat_to_axis_angle"),
        (geometry.rot6d_to_rotmat, "rot6d", "rot6d_to_rotmat"),
    ],
)
def test_rotations_equal_the_original(golden: dict, function, argument: str, result: str) -> None:
    torch.testing.assert_close(function(golden[argument]), golden[result], atol=1e-6, rtol=0)


def test_axis_angle_gradient_equals_the_original_and_is_finite_at_identity(golden: dict) -> None:
    rotmat = golden["rotmat"].clone().requires_grad_()
    (geometry.rotmat_to_axis_angle(rotmat) * torch.tensor([1.0, 2.0, 3.0])).sum().backward()
    expected = golden["rotmat_to_axis_angle_grad"]
    finite = ~expected.isnan().flatten(1).any(dim=1)
    assert 0 < (~finite).sum() < 5
    torch.testing.assert_close(rotmat.grad[finite], expected[finite], rtol=1e-4, atol=1e-4)
    # At the identity the derivative of the rotation vector is the skew-symmetric part.
    skew = torch.tensor([[0.0, -3.0, 2.0], [3.0, 0.0, -1.0], [-2.0, 1.0, 0.0]]) / 2
    torch.testing.assert_close(rotmat.grad[~finite], skew.expand((~finite).sum(), 3, 3), atol=1e-6, rtol=0)


def test_axis_angle_to_rotmat_gradient_is_finite_everywhere(golden: dict) -> None:
    axis_angle = golden["axis_angle"].clone().requires_grad_()
    geometry.axis_angle_to_rotmat(axis_angle).square().sum().backward()
    assert axis_angle.grad.isfinite().all()


def test_round_trips_and_batch_dimensions() -> None:
    torch.manual_seed(0)
    vector = (
        torch.nn.functional.normalize(torch.randn(4, 5, 3), dim=-1) * torch.rand(4, 5, 1) * (math.pi - 0.05)
    )
    rotmat = geometry.axis_angle_to_rotmat(vector)
    assert rotmat.shape == (4, 5, 3, 3)
    torch.testing.assert_close(rotmat @ rotmat.mT, torch.eye(3).expand(4, 5, 3, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(geometry.rotmat_to_axis_angle(rotmat), vector, atol=1e-4, rtol=0)
    torch.testing.assert_close(geometry.rot6d_to_rotmat(geometry.rotmat_to_rot6d(rotmat)), rotmat)
    torch.testing.assert_close(geometry.quat_to_rotmat(geometry.rotmat_to_quat(rotmat)), rotmat)
    assert geometry.rotmat_to_axis_angle(rotmat[0, 0]).shape == (3,)


@given(st.integers(1, 5), st.integers(0, 10_000))
def test_rotations_are_those_of_scipy(n: int, seed: int) -> None:
    first, second = (Rotation.random(n, rng=seed + k) for k in range(2))

    def tensor(values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(values))

    def quat(rotation: Rotation) -> torch.Tensor:
        return tensor(rotation.as_quat(scalar_first=True))

    def assert_is(found: torch.Tensor, expected: Rotation) -> None:
        np.testing.assert_allclose(found.numpy(), expected.as_matrix(), atol=1e-6)

    rotmat = tensor(first.as_matrix())
    assert_is(geometry.axis_angle_to_rotmat(tensor(first.as_rotvec())), first)
    assert_is(geometry.quat_to_rotmat(3 * quat(first)), first)
    assert_is(geometry.quat_to_rotmat(geometry.rotmat_to_quat(rotmat)), first)
    assert_is(geometry.axis_angle_to_rotmat(geometry.rotmat_to_axis_angle(rotmat)), first)
    assert_is(geometry.rot6d_to_rotmat(geometry.rotmat_to_rot6d(rotmat)), first)
    assert_is(geometry.quat_to_rotmat(geometry.quat_multiply(quat(first), quat(second))), first * second)
    assert geometry.rotmat_to_axis_angle(rotmat).norm(dim=-1).max() <= math.pi + 1e-6


@given(st.floats(-3, 3), st.floats(-3, 3), st.floats(0.1, 3))
def test_the_turn_to_a_ray_is_the_smallest(x: float, y: float, size: float) -> None:
    turn = geometry.turn_to_ray(size * np.array([x, y, 1.0]))
    ray = np.array([x, y, 1.0]) / np.linalg.norm([x, y, 1.0])
    np.testing.assert_allclose(turn @ [0, 0, 1], ray, atol=1e-12)
    assert Rotation.from_matrix(turn).magnitude() == pytest.approx(np.arccos(ray[2]), abs=1e-6)


def test_rot6d_columns_are_interleaved() -> None:
    six = torch.tensor([1.0, 2.0, 0.0, 3.0, 0.0, 0.0])
    torch.testing.assert_close(geometry.rot6d_to_rotmat(six), torch.eye(3))


def test_projection_equals_the_original(golden: dict) -> None:
    projected = geometry.project(golden["points"], golden["cam"])
    torch.testing.assert_close(projected, golden["projection"], rtol=1e-5, atol=1e-6)


def test_projection_is_the_perspective_camera_it_stands_for(golden: dict) -> None:
    points, cam = golden["points"], golden["cam"]
    depth = 2 * 5000 / (224 * cam[:, 0])
    moved = points + torch.stack((cam[:, 1], cam[:, 2], depth), dim=1)[:, None]
    pixels = 5000 * moved[..., :2] / moved[..., 2:]
    torch.testing.assert_close(geometry.project(points, cam), pixels / 112, rtol=1e-5, atol=1e-6)


def test_image_camera_equals_the_original_and_hits_the_same_pixels(golden: dict) -> None:
    cam, bbox = golden["cam"].numpy(), golden["oc_bbox"].numpy()
    width, height = int(golden["oc_width"]), int(golden["oc_height"])
    image_cam = geometry.crop_cam_to_image_cam(cam, bbox, width, height)
    np.testing.assert_allclose(image_cam, golden["oc_orig_cam"].numpy(), rtol=1e-6)
    # A point of the body seen through the crop and through the whole image.
    point = np.array([0.3, -0.5])
    in_crop = cam[:, :1] * (point + cam[:, 1:])
    pixels = bbox[:, :2] + in_crop * bbox[:, 2:3] / 2
    in_image = image_cam[:, :2] * (point + image_cam[:, 2:])
    np.testing.assert_allclose((in_image + 1) / 2 * [width, height], pixels, rtol=1e-6)


def test_image_camera_of_a_crop_that_is_the_whole_image() -> None:
    cam = np.array([[0.9, 0.1, -0.2]])
    image_cam = geometry.crop_cam_to_image_cam(cam, np.array([[50.0, 50.0, 100.0, 100.0]]), 100, 100)
    np.testing.assert_allclose(image_cam, [[0.9, 0.9, 0.1, -0.2]])

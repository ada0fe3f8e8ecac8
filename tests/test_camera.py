"""The perspective camera and the crop cameras, point by point."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.motion.camera import NEAREST, Camera, perspective_to_weak, see, weak_to_perspective

WIDTH, HEIGHT, FOCAL = 640, 360, 700.0
seeds = st.integers(0, 10_000)


def pixel(point: np.ndarray, focal: float, width: float, height: float) -> list[float]:
    """Of a point in camera axes: similar triangles, one coordinate after the other."""
    x, y, z = point
    return [width / 2 + focal * x / z, height / 2 + focal * y / z]


def some_boxes(rng: np.random.Generator, n: int) -> np.ndarray:
    centre, side = rng.uniform([0, 0], [WIDTH, HEIGHT], (n, 2)), rng.uniform(40, 500, (n, 1))
    return np.concatenate([centre, side, side], axis=1)


@given(n=st.integers(1, 8), seed=seeds)
def test_points_are_seen_by_similar_triangles(n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    points = rng.uniform([-3, -2, 1], [3, 2, 9], (n, 3))
    camera = Camera(WIDTH, HEIGHT, FOCAL)
    expected = [pixel(point, FOCAL, WIDTH, HEIGHT) for point in points]
    np.testing.assert_allclose(camera.project(points), expected, rtol=1e-6)
    homogeneous = points @ camera.K.T
    np.testing.assert_allclose(homogeneous[:, :2] / homogeneous[:, 2:], expected, rtol=1e-6)
    moved = see(points[:, None] - [[0.5, 1, 2]], np.array([0.5, 1, 2]), FOCAL, (WIDTH, HEIGHT))
    np.testing.assert_allclose(moved[:, 0], expected, rtol=1e-6)


def test_nothing_is_projected_from_nearer_than_a_hand() -> None:
    camera = Camera(WIDTH, HEIGHT, FOCAL)
    behind = camera.project(np.array([[0.1, 0.2, -5.0], [0.1, 0.2, 0.0], [0.1, 0.2, NEAREST]]))
    np.testing.assert_allclose(behind, [pixel(np.array([0.1, 0.2, 0.3]), FOCAL, WIDTH, HEIGHT)] * 3)


@given(n=st.integers(1, 8), seed=seeds)
def test_a_crop_camera_and_its_perspective_show_the_same_pixels(n: int, seed: int) -> None:
    """A point at the depth of the body's origin, where weak perspective is exact."""
    rng = np.random.default_rng(seed)
    cam, boxes = rng.uniform([0.4, -0.5, -0.5], [1.4, 0.5, 0.5], (n, 3)), some_boxes(rng, n)
    transl = weak_to_perspective(cam, boxes, FOCAL, WIDTH, HEIGHT)
    assert transl.dtype == np.float32
    for (s, tx, ty), (cx, cy, side, _), t in zip(cam, boxes, transl.astype(float)):
        x, y = rng.normal(0, 0.5, 2)
        in_crop = np.array([s * (x + tx), s * (y + ty)])  # [-1, 1] over the box
        expected = np.array([cx, cy]) + in_crop * side / 2
        seen = pixel(t + np.array([x, y, 0]), FOCAL, WIDTH, HEIGHT)
        np.testing.assert_allclose(seen, expected, atol=0.01)


@given(n=st.integers(1, 8), seed=seeds)
def test_there_and_back(n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    cam, boxes = rng.uniform([0.4, -0.5, -0.5], [1.4, 0.5, 0.5], (n, 3)), some_boxes(rng, n)
    transl = weak_to_perspective(cam, boxes, FOCAL, WIDTH, HEIGHT)
    np.testing.assert_allclose(perspective_to_weak(transl, boxes, FOCAL, WIDTH, HEIGHT), cam, atol=1e-4)


@pytest.mark.parametrize("scale", [0.0, -1.0])
def test_a_crop_camera_without_size_is_far_away(scale: float) -> None:
    cam, boxes = np.array([[scale, 0, 0]]), np.array([[320.0, 180, 100, 100]])
    (transl,) = weak_to_perspective(cam, boxes, FOCAL, WIDTH, HEIGHT)
    np.testing.assert_allclose(transl, [0, 0, 2 * FOCAL / 1e-3], rtol=1e-6)

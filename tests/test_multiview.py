"""Triangulation with synthetic cameras, where the truth is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lib.open_data.multiview import (
    Camera,
    associate,
    centre_cameras,
    project,
    read_qualisys,
    to_camera,
    triangulate,
    undistort,
)
from lib.utils.errors import UserError


def ring(n: int = 4, distance: float = 4.0) -> list[Camera]:
    """Cameras around the origin, a little above it, looking at it (world z up)."""
    cameras = []
    for k in range(n):
        angle = 2 * np.pi * k / n + 0.3
        position = distance * np.array([np.cos(angle), np.sin(angle), 0.3])
        forward = -position / np.linalg.norm(position)
        right = np.cross(forward, [0, 0, 1])
        right /= np.linalg.norm(right)
        R = np.stack([right, np.cross(forward, right), forward])
        K = np.array([[1600.0, 0, 530 + k], [0, 1610, 950 - k], [0, 0, 1]])
        distortion = np.array([-0.05, 0.13, 1e-3, -5e-4, 0.0])
        cameras.append(Camera(f"cam{k}", K, distortion, R, -R @ position, 1080, 1920))
    return cameras


@pytest.fixture
def points() -> np.ndarray:
    return np.random.default_rng(0).uniform(-0.7, 0.7, (20, 12, 3))


def views(points: np.ndarray, cameras: list[Camera]) -> np.ndarray:
    return np.stack([project(points, camera) for camera in cameras])


def test_projection_is_the_textbook_formula(points: np.ndarray) -> None:
    camera = replace(ring()[1], distortion=np.zeros(5))
    local = np.einsum("ij,tkj->tki", camera.R, points) + camera.t
    expected = local @ camera.K.T
    np.testing.assert_allclose(project(points, camera), expected[..., :2] / expected[..., 2:], atol=1e-9)
    np.testing.assert_allclose(to_camera(points, camera), local, atol=1e-12)


def test_undistort_inverts_project(points: np.ndarray) -> None:
    for camera in ring():
        local = to_camera(points, camera)
        np.testing.assert_allclose(
            undistort(project(points, camera), camera), local[..., :2] / local[..., 2:], atol=1e-5
        )


def test_exact_recovery(points: np.ndarray) -> None:
    cameras = ring()
    found, errors = triangulate(views(points, cameras), np.ones((4, 20, 12)), cameras)
    np.testing.assert_allclose(found, points, atol=1e-4)
    assert errors.shape == (4, 20, 12)
    assert errors.max() < 1e-4


def test_one_wrong_view_hardly_matters(points: np.ndarray) -> None:
    cameras = ring()
    rng = np.random.default_rng(1)
    pixels = views(points, cameras) + rng.normal(0, 2, (4, 20, 12, 2))
    clean, _ = triangulate(pixels, np.ones((4, 20, 12)), cameras)
    broken = pixels.copy()
    wrong = rng.integers(0, 4, (20, 12))
    offset = rng.uniform(150, 400, (20, 12, 1)) * np.array([1.0, -0.5])
    np.put_along_axis(
        broken, wrong[None, ..., None], np.take_along_axis(pixels, wrong[None, ..., None], 0) + offset, 0
    )
    found, errors = triangulate(broken, np.ones((4, 20, 12)), cameras)
    assert np.linalg.norm(clean - points, axis=-1).mean() < 0.006
    assert np.linalg.norm(found - points, axis=-1).mean() < 0.012
    assert (errors.argmax(axis=0) == wrong).mean() > 0.98


def test_weights_zero_hide_views(points: np.ndarray) -> None:
    cameras = ring()
    pixels = views(points, cameras)
    pixels[2] = 0
    weights = np.ones((4, 20, 12))
    weights[2] = 0
    weights[:3, 0, 0] = 0  # one point is left with a single view
    found, errors = triangulate(pixels, weights, cameras)
    assert np.isnan(found[0, 0]).all() and np.isnan(errors[:, 0, 0]).all()
    found[0, 0] = points[0, 0]
    np.testing.assert_allclose(found, points, atol=1e-4)


def test_shifted_image_is_corrected(points: np.ndarray) -> None:
    true = ring()
    assumed = list(true)
    assumed[1] = replace(true[1], K=true[1].K + np.array([[0, 0, 25.0], [0, 0, -15], [0, 0, 0]]))
    pixels, weights = views(points, true), np.ones((4, 20, 12))
    before = triangulate(pixels, weights, assumed)[1]
    corrected = centre_cameras(pixels, weights, assumed)
    after = triangulate(pixels, weights, corrected)[1]
    assert np.median(after) < 0.3 * np.median(before)
    assert np.linalg.norm((corrected[1].K - true[1].K)[:2, 2]) < 15


def crowd(people: int = 3, frames: int = 30) -> np.ndarray:
    """(people, frames, 12, 3) m: bodies 0.8 m apart that move."""
    rng = np.random.default_rng(3)
    body = rng.uniform(-0.3, 0.3, (people, 1, 12, 3)) * [1, 1, 3]
    places = 0.8 * np.array([[0, 0, 0], [1, 0.4, 0], [-0.5, 0.9, 0], [0.3, -1, 0]])[:people, None, None]
    return (
        body
        + places
        + 0.2 * np.sin(np.arange(frames) / 5)[:, None, None] * rng.normal(0, 1, (people, 1, 1, 3))
    )


def tracks_of(bodies: np.ndarray, seen: list[tuple[int, int]], cameras: list[Camera]) -> np.ndarray:
    """Images (K, T, 12, 2) of (person, camera) pairs, with the errors of a landmark network."""
    rng = np.random.default_rng(4)
    pixels = np.stack([project(bodies[person], cameras[camera]) for person, camera in seen])
    return pixels + rng.normal(0, 6, pixels.shape)


def people_in(groups: list[list[int]], seen: list[tuple[int, int]]) -> list[set[int]]:
    return [{seen[i][0] for i in group} for group in groups]


def test_people_are_told_apart() -> None:
    cameras, bodies = ring(), crowd()
    seen = [
        (person, camera) for camera in range(4) for person in np.random.default_rng(camera).permutation(3)
    ]
    pixels = tracks_of(bodies, seen, cameras)
    groups = associate(pixels, np.ones(pixels.shape[:-1]), [camera for _, camera in seen], cameras)
    assert sorted(i for group in groups for i in group) == list(range(12))
    assert all(len(group) == 4 for group in groups)
    assert all(len(people) == 1 for people in people_in(groups, seen))
    assert [group[0] for group in groups] == [0, 1, 2]  # in the order of the first tracks


def test_people_missing_in_views_and_frames() -> None:
    """Person 0 is in all views (a track broken in two), 1 in two, 2 in one; the tracker swaps for a while."""
    cameras, bodies = ring(), crowd()
    seen = [(1, 0), (0, 0), (0, 1), (0, 1), (2, 1), (0, 2), (1, 2), (0, 3)]
    pixels = tracks_of(bodies, seen, cameras)
    weights = np.ones(pixels.shape[:-1])
    weights[2, 14:], weights[3, :17] = 0, 0
    weights[0, :9] = 0
    pixels[weights == 0] = 0
    pixels[5, :8], pixels[6, :8] = pixels[6, :8].copy(), pixels[5, :8].copy()
    groups = associate(pixels, weights, [camera for _, camera in seen], cameras)
    assert groups == [[0, 6], [1, 2, 3, 5, 7], [4]]


def test_one_track_per_camera_and_frame() -> None:
    """Two tracks of a camera on the same person stay apart, whichever is nearer takes the others."""
    cameras, bodies = ring(), crowd(1)
    seen = [(0, 0), (0, 0), (0, 1), (0, 2)]
    pixels = tracks_of(bodies, seen, cameras)
    pixels[0] += 15
    groups = associate(pixels, np.ones(pixels.shape[:-1]), [camera for _, camera in seen], cameras)
    assert groups == [[0], [1, 2, 3]]


def test_tracks_that_never_meet_stay_apart() -> None:
    cameras, bodies = ring(), crowd(1)
    pixels = tracks_of(bodies, [(0, 0), (0, 1)], cameras)
    weights = np.ones(pixels.shape[:-1])
    weights[0, :15], weights[1, 15:] = 0, 0
    assert associate(pixels, weights, [0, 1], cameras) == [[0], [1]]


CALIBRATION = """<?xml version='1.0' encoding='ASCII'?>
<calibration><cameras><camera serial="left">
<fov_video bottom="1919" left="0" right="1087" top="0"/>
<transform r11="0" r12="1" r13="0" r21="0" r22="0" r23="1" r31="1" r32="0" r33="0"
 x="3000" y="-500" z="1200"/>
<intrinsic centerPointU="34816" centerPointV="61440" focalLengthU="102400" focalLengthV="102464"
 radialDistortion1="-0.05" radialDistortion2="0.14" radialDistortion3="0.01" tangentalDistortion1="0.001"
 tangentalDistortion2="0.002"/></camera></cameras></calibration>"""


def test_qualisys_calibration(tmp_path: Path) -> None:
    path = tmp_path / "Calib.qca.txt"
    path.write_text(CALIBRATION)
    (camera,) = read_qualisys(path)
    assert (camera.name, camera.width, camera.height) == ("left", 1088, 1920)
    np.testing.assert_array_equal(camera.K, [[1600, 0, 544], [0, 1601, 960], [0, 0, 1]])
    np.testing.assert_array_equal(camera.distortion, [-0.05, 0.14, 0.001, 0.002, 0.01])
    # It stands at x = 3 and looks along -x (world z up): what is in front of it lies in the image's middle.
    np.testing.assert_allclose(to_camera(np.array([3.0, -0.5, 1.2]), camera), 0, atol=1e-12)
    np.testing.assert_allclose(to_camera(np.array([1.0, -0.5, 1.2]), camera), [0, 0, 2], atol=1e-12)
    np.testing.assert_allclose(to_camera(np.array([1.0, -0.5, 1.3]), camera)[1], -0.1, atol=1e-12)  # up is -y
    assert np.linalg.det(camera.R) == pytest.approx(1)


@pytest.mark.parametrize(
    "text",
    ["not xml", "<calibration/>", CALIBRATION.replace('r11="0"', ""), CALIBRATION.replace("intrinsic", "x")],
)
def test_broken_calibration(tmp_path: Path, text: str) -> None:
    path = tmp_path / "Calib.qca.txt"
    with pytest.raises(UserError, match="no such"):
        read_qualisys(path)
    path.write_text(text)
    with pytest.raises(UserError, match=r"Calib\.qca\.txt"):
        read_qualisys(path)

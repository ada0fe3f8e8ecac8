"""Detector and landmark network on a frame of the sample video, judged by symmetries of the problem."""

from __future__ import annotations

import itertools
from pathlib import Path

import cv2
import numpy as np
import pytest

from lib.landmarks import blazepose
from lib.landmarks.blazepose import (
    LandmarkNetwork,
    Landmarks,
    PersonDetector,
    anchor_centres,
    intersection_over_union,
    refine_from_heatmaps,
    region_of_interest,
    weighted_nms,
)
from lib.landmarks.features import LANDMARK_FLIP
from lib.utils.errors import UserError
from lib.utils.pinned import asset_path
from lib.video.video_file import VideoFile

BODY = np.arange(11, 29)
NOSE, ANKLES = 0, [27, 28]


@pytest.fixture(scope="module")
def frame() -> np.ndarray:
    """A frame with a walking woman in the open; others are above and to the left of what is shown."""
    image = next(itertools.islice(VideoFile(asset_path("demo_video")), 100, None))
    return np.ascontiguousarray(image[350:, 700:])


@pytest.fixture(scope="module")
def detector() -> PersonDetector:
    return PersonDetector(asset_path("person_detector"))


@pytest.fixture(scope="module")
def network() -> LandmarkNetwork:
    return LandmarkNetwork(asset_path("landmarks_full"))


def locate(image: np.ndarray, detector: PersonDetector, network: LandmarkNetwork) -> Landmarks:
    """Landmarks of the surest person, settled in their own circle."""
    found = detector.detect(image)[0]
    result = network(image, found.centre, found.scale_point)
    for _ in range(3):
        result = network(image, result.next_centre, result.next_scale_point)
    return result


@pytest.fixture(scope="module")
def plain(frame: np.ndarray, detector: PersonDetector, network: LandmarkNetwork) -> Landmarks:
    return locate(frame, detector, network)


def height(landmarks: Landmarks) -> float:
    return float(np.ptp(landmarks.xy[:, 1]))


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """Mean distance of body landmarks."""
    return float(np.linalg.norm(a[BODY] - b[BODY], axis=-1).mean())


def test_person_is_found(frame: np.ndarray, plain: Landmarks) -> None:
    assert plain.score > 0.9
    assert plain.xy.shape == (33, 2) and plain.world.shape == (33, 3) and plain.visibility.shape == (33,)
    assert (plain.xy > 0).all() and (plain.xy < frame.shape[1::-1]).all()
    assert plain.xy[NOSE, 1] < plain.xy[BODY, 1].min()
    assert (plain.visibility > 0).all() and plain.visibility.mean() > 0.7
    # A grown-up, standing: nose to ankles, along the image's y axis, hips in the middle.
    assert 1.1 < (plain.world[ANKLES, 1] - plain.world[NOSE, 1]).mean() < 1.7
    assert np.abs(plain.world[[23, 24]].mean(axis=0)).max() < 0.05


def test_no_person_in_noise(detector: PersonDetector) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (300, 500, 3), dtype=np.uint8)
    assert detector.detect(noise) == []
    assert detector.detect(np.zeros((400, 200, 3), np.uint8)) == []
    assert detector.detect(np.zeros((3, 2000, 3), np.uint8)) == []


@pytest.mark.parametrize("shift", [(60, 0), (-90, 30), (17, -41)])
def test_translation(
    frame: np.ndarray, plain: Landmarks, detector: PersonDetector, network: LandmarkNetwork, shift
) -> None:
    moved = cv2.warpAffine(frame, np.array([[1.0, 0, shift[0]], [0, 1, shift[1]]]), frame.shape[1::-1])
    found = locate(moved, detector, network)
    assert distance(found.xy - np.float32(shift), plain.xy) < 0.02 * height(plain)
    assert distance(found.world, plain.world) < 0.05


@pytest.mark.parametrize("scale", [0.6, 1.5])
def test_scale(
    frame: np.ndarray, plain: Landmarks, detector: PersonDetector, network: LandmarkNetwork, scale: float
) -> None:
    resized = cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    found = locate(resized, detector, network)
    assert distance(found.xy / scale, plain.xy) < 0.02 * height(plain)
    assert distance(found.world, plain.world) < 0.06


@pytest.mark.parametrize("angle", [-30, 20])
def test_rotation_of_the_image_rotates_the_landmarks(
    frame: np.ndarray, plain: Landmarks, network: LandmarkNetwork, angle: float
) -> None:
    turn = cv2.getRotationMatrix2D(plain.next_centre.tolist(), angle, 1.0)
    rotated = cv2.warpAffine(frame, turn, frame.shape[1::-1])
    found = network(rotated, plain.next_centre, turn[:, :2] @ plain.next_scale_point + turn[:, 2])
    assert distance(found.xy, plain.xy @ turn[:, :2].T + turn[:, 2]) < 0.03 * height(plain)
    expected = plain.world.copy()
    expected[:, :2] = expected[:, :2] @ turn[:, :2].T
    assert distance(found.world, expected) < 0.06


def test_mirror_image(
    frame: np.ndarray, plain: Landmarks, detector: PersonDetector, network: LandmarkNetwork
) -> None:
    found = locate(np.ascontiguousarray(frame[:, ::-1]), detector, network)
    mirrored = found.xy[LANDMARK_FLIP] * [-1, 1] + [frame.shape[1] - 1, 0]
    assert distance(mirrored, plain.xy) < 0.04 * height(plain)
    assert distance(found.world[LANDMARK_FLIP] * [-1, 1, 1], plain.world) < 0.12


def test_world_and_image_agree(plain: Landmarks) -> None:
    """World landmarks lie along the camera's axes: without depth they are the image, but for a scale."""
    image = plain.xy[BODY] - plain.xy[BODY].mean(axis=0)
    world = plain.world[BODY, :2] - plain.world[BODY, :2].mean(axis=0)
    scale = (image * world).sum() / (world**2).sum()
    assert scale > 0
    assert np.linalg.norm(image - scale * world, axis=1).mean() < 0.06 * height(plain)


def test_following_reaches_a_fixed_point(
    frame: np.ndarray, plain: Landmarks, network: LandmarkNetwork
) -> None:
    again = network(frame, plain.next_centre, plain.next_scale_point)
    assert distance(again.xy, plain.xy) < 0.01 * height(plain)


def test_heavy_network_agrees(frame: np.ndarray, plain: Landmarks) -> None:
    try:
        path = asset_path("landmarks_heavy")
    except UserError:
        pytest.skip("the larger network is optional")
    heavy = LandmarkNetwork(path)(frame, plain.next_centre, plain.next_scale_point)
    assert heavy.score > 0.9
    assert distance(heavy.xy, plain.xy) < 0.05 * height(plain)


class Blank:
    """In place of a network: keeps what it is shown, and finds nothing."""

    def __init__(self, path: str, threads: int, shapes: dict[str, tuple[int, ...]]) -> None:
        self._outputs = {name: np.full(shape, -100, np.float32) for name, shape in shapes.items()}

    def __call__(self, image: np.ndarray) -> dict[str, np.ndarray]:
        self.seen = image
        return self._outputs


@pytest.mark.parametrize(("height", "width"), [(100, 400), (400, 100)])
def test_what_lies_beside_the_picture_is_black(
    monkeypatch: pytest.MonkeyPatch, height: int, width: int
) -> None:
    """As both networks were trained; black is -1 for the detector and 0 for the landmarks."""
    monkeypatch.setattr(blazepose, "_Network", Blank)
    white = np.full((height, width, 3), 255, np.uint8)
    detector = PersonDetector("")
    assert detector.detect(white) == []
    picture, beside = detector._network.seen[112], detector._network.seen[:, 112]
    if width < height:
        picture, beside = beside, picture
    np.testing.assert_allclose(picture, 1, atol=1e-6)
    np.testing.assert_array_equal(beside[:84], -1)
    np.testing.assert_allclose(beside[84:140], 1, atol=1e-6)
    np.testing.assert_array_equal(beside[140:], -1)

    network = LandmarkNetwork("")
    network(white, np.array([0.0, 0.0]), np.array([0.0, -40.0]))
    crop = network._network.seen
    np.testing.assert_array_equal(crop[:120], 0)
    np.testing.assert_array_equal(crop[:, :120], 0)
    np.testing.assert_allclose(crop[140:160, 140:160], 1)


def test_region_of_interest() -> None:
    upright, rotation, side = region_of_interest(np.array([100.0, 200]), np.array([100.0, 120]))
    np.testing.assert_allclose(rotation, np.eye(2), atol=1e-12)
    assert side == pytest.approx(200)  # 1.25 times the circle's diameter
    np.testing.assert_allclose(upright @ [100, 200, 1], [128, 128], atol=1e-9)
    np.testing.assert_allclose(upright @ [0, 100, 1], [0, 0], atol=1e-9)
    rng = np.random.default_rng(0)
    for _ in range(20):
        centre, rim = rng.uniform(0, 1000, (2, 2))
        to_crop, _rotation, side = region_of_interest(centre, rim)
        up = to_crop @ [*rim, 1]
        np.testing.assert_allclose(up, [128, 128 - 128 / 1.25], atol=1e-6)  # the rim is always above


def test_heatmap_refinement() -> None:
    rows, columns = np.mgrid[:64, :64]
    peak = 8 - 2 * ((rows - 30.4) ** 2 + (columns - 20.7) ** 2)
    flat = np.full((64, 64), -6.0)
    logits = np.stack([peak, flat, peak, peak], axis=-1)
    start = np.array([[21.4, 31.2], [10.0, 10.0], [50.0, 50.0], [-3.0, 70.0]]) / 64
    refined = refine_from_heatmaps(start, logits)
    np.testing.assert_allclose(refined[0] * 64, [20.7, 30.4], atol=0.1)
    np.testing.assert_array_equal(refined[1:], start[1:])  # unsure, far from the peak, outside the crop


def test_anchors() -> None:
    anchors = anchor_centres()
    assert anchors.shape == (2254, 2)
    np.testing.assert_allclose(anchors[:4], np.array([[4, 4], [4, 4], [12, 4], [12, 4]]) / 224, rtol=1e-6)
    np.testing.assert_allclose(anchors[-1], [208 / 224, 208 / 224], atol=1e-6)


def test_weighted_nms() -> None:
    rows = np.array([[[0, 0], [10, 10]], [[1, 0], [11, 10]], [[50, 50], [60, 60]]], float)
    merged = weighted_nms(rows, np.array([0.6, 0.9, 0.7]), 0.3)
    assert [score for score, _ in merged] == [0.9, 0.7]
    np.testing.assert_allclose(merged[0][1], (0.6 * rows[0] + 0.9 * rows[1]) / 1.5)
    np.testing.assert_allclose(merged[1][1], rows[2])
    assert weighted_nms(np.zeros((0, 6, 2)), np.zeros(0), 0.3) == []


def test_intersection_over_union() -> None:
    boxes = np.array([[[0, 0], [2, 2]], [[1, 1], [3, 3]], [[5, 5], [6, 6]]], float)
    np.testing.assert_allclose(intersection_over_union(boxes[0], boxes), [1, 1 / 7, 0])


def test_bad_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"lib\.open_data\.assets"):
        LandmarkNetwork(tmp_path / "absent.tflite")
    broken = tmp_path / "broken.tflite"
    broken.write_bytes(b"no network" * 100)
    with pytest.raises(UserError, match=r"broken\.tflite"):
        PersonDetector(broken)
    with pytest.raises(UserError, match="another network"):
        LandmarkNetwork(asset_path("person_detector"))

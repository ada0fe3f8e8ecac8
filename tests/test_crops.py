"""Crops and crop coordinates against golden values."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from lib.utils.crops import (
    crop_image,
    crop_matrix,
    crop_to_image,
    normalise_crop,
    transform_keypoints,
)
from tests.golden_tools import GOLDEN, load_golden

# Other OpenCV versions round warpAffine differently: at most 5 grey levels.
SAME_OPENCV = cv2.__version__.startswith("5.")


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return cv2.cvtColor(cv2.imread(str(GOLDEN / "bbox" / "image.png")), cv2.COLOR_BGR2RGB)


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    return load_golden("bbox/crops")


def assert_pixels(actual, expected):
    difference = np.abs(actual.astype(int) - expected.astype(int))
    assert difference.max() <= (0 if SAME_OPENCV else 5)
    assert difference.mean() < 0.05


def test_crops(image, golden):
    crops = np.stack([crop_image(image, box, 1.2) for box in golden["boxes"]])
    assert_pixels(crops[golden["crop_index"]], golden["crop_uint8"])
    assert_pixels(crops[:, 100:104], golden["crop_rows"])
    sums = crops.astype(np.int64).sum((1, 2))
    tolerance = 0 if SAME_OPENCV else 0.05 * 224 * 224
    assert np.abs(sums - golden["crop_sums"]).max() <= tolerance


def test_normalised_crops(image, golden):
    crops = normalise_crop(np.stack([crop_image(image, box, 1.2) for box in golden["boxes"]])).numpy()
    assert crops.shape == (7, 3, 224, 224)
    np.testing.assert_allclose(crops[:, :, 100:104], golden["crop_tensor_rows"], atol=1e-6)
    np.testing.assert_allclose(crops.sum((2, 3), dtype=np.float64), golden["crop_tensor_sums"], atol=0.1)


def test_single_crop(image, golden):
    crop = normalise_crop(crop_image(image, golden["boxes"][1], 1.3)).numpy()
    assert crop.shape == (1, 3, 224, 224)
    np.testing.assert_allclose(crop[0, :, 100:104], golden["single_crop_s13_rows"], atol=1e-6)


def test_crop_matrix():
    data = load_golden("bbox/keypoints")
    for params, expected in zip(data["affine_params"], data["affine"]):
        if not params[7] and not params[8]:  # rotation and the inverse map exist in the original, unused
            np.testing.assert_allclose(crop_matrix(params[:4], params[6]), expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("kind", ["float32", "float64"])
def test_keypoints_in_crop_coordinates(kind):
    data = load_golden("bbox/keypoints")
    kp, expected, bbox = data[f"tk_in_{kind}"], data[f"norm_{kind}"], data["tk_args"][:4]
    before = kp.copy()
    out = transform_keypoints(kp, bbox, 1.2)
    assert out.dtype == kp.dtype
    np.testing.assert_allclose(out, expected, atol=2e-6)
    np.testing.assert_array_equal(kp, before)
    np.testing.assert_allclose(crop_to_image(out, bbox, 1.2), before, atol=1e-3)


def test_keypoints_of_many_boxes_keep_their_confidence(golden):
    kp = np.broadcast_to(golden["kp_in"], (7, 21, 3))
    out = transform_keypoints(kp, golden["boxes"], 1.2)
    np.testing.assert_array_equal(out[..., 2], kp[..., 2])
    np.testing.assert_allclose((out[..., :2] + 1) * 112, golden["kp_out"][..., :2], rtol=1e-6, atol=2e-4)


def test_centre_and_edge_of_the_box():
    bbox = np.array([300.0, 220.0, 100.0, 100.0])
    points = np.array([[300.0, 220.0], [360.0, 220.0], [300.0, 160.0]])
    np.testing.assert_allclose(transform_keypoints(points, bbox), [[0, 0], [1, 0], [0, -1]], atol=1e-12)


def test_crop_follows_the_keypoints(image):
    """A bright dot lands in the crop where transform_keypoints says."""
    canvas = np.zeros_like(image)
    canvas[100:103, 200:203] = 255
    bbox = np.array([190.0, 110.0, 60.0, 60.0])
    crop = crop_image(canvas, bbox).sum(2).astype(float)
    ys, xs = np.mgrid[:224, :224]
    found = np.array([(xs * crop).sum(), (ys * crop).sum()]) / crop.sum()
    expected = (transform_keypoints(np.array([[201.0, 101.0]]), bbox)[0] + 1) * 112
    np.testing.assert_allclose(found, expected, atol=0.1)

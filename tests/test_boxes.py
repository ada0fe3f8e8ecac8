"""Boxes from keypoints against golden values and hand-made cases."""

from __future__ import annotations

import numpy as np
import pytest

from lib.data_utils.boxes import (
    get_all_bbox_params,
    get_bbox_from_kp2d,
    get_smooth_bbox_params,
    params_to_bboxes,
    scale_bboxes,
    smooth_bbox_params,
)
from tests.golden_tools import load_golden

CASES = ("gap_start", "gap_all_kinds", "short7", "one_visible_frame")


@pytest.fixture(scope="module")
def smooth() -> dict[str, np.ndarray]:
    return load_golden("bbox/smooth_bbox")


@pytest.fixture(scope="module")
def keypoints() -> dict[str, np.ndarray]:
    return load_golden("bbox/keypoints")


def test_tight_box(keypoints):
    np.testing.assert_allclose(get_bbox_from_kp2d(keypoints["kp_2"]), keypoints["bbox_2"], rtol=1e-9)
    np.testing.assert_allclose(get_bbox_from_kp2d(keypoints["kp_3"]), keypoints["bbox_3"].T, rtol=1e-9)


@pytest.mark.parametrize("case", CASES)
def test_params_and_interpolated_gaps(smooth, case):
    params, start, end = get_all_bbox_params(smooth[f"{case}_kps"], 0.3)
    np.testing.assert_array_equal([start, end], smooth[f"{case}_all_vt0.3_range"])
    np.testing.assert_allclose(params, smooth[f"{case}_all_vt0.3"], rtol=1e-9)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("sigma", [3, 8])
@pytest.mark.parametrize("case", [case for case in CASES if case != "one_visible_frame"])
def test_smoothed_params(smooth, case, sigma):
    params, start, end = get_smooth_bbox_params(smooth[f"{case}_kps"], 0.3, sigma=sigma)
    np.testing.assert_array_equal([start, end], smooth[f"{case}_smooth_vt0.3_s{sigma}_range"])
    # The reference's rows before `start` are zeros that only shift its boxes.
    expected = smooth[f"{case}_smooth_vt0.3_s{sigma}"][start:]
    np.testing.assert_allclose(params, expected, rtol=1e-9)


@pytest.mark.parametrize("kernel, sigma", [(11, 8), (11, 3), (5, 1), (3, 20)])
def test_filters(smooth, kernel, sigma):
    result = smooth_bbox_params(smooth["sbp_in"], kernel, sigma)
    np.testing.assert_allclose(result, smooth[f"sbp_k{kernel}_s{sigma}"], rtol=1e-9)


def test_missing_and_tiny_people(smooth):
    kps = [None if t in smooth["none_idx"] else kp for t, kp in enumerate(smooth["none_kps"])]
    params, start, end = get_all_bbox_params(kps)
    np.testing.assert_array_equal([start, end], smooth["none_range"])
    np.testing.assert_allclose(params, smooth["none_all"], rtol=1e-9)

    params, start, end = get_all_bbox_params(smooth["tiny_kps"])
    np.testing.assert_array_equal([start, end], smooth["tiny_range"])
    np.testing.assert_allclose(params, smooth["tiny_all"], rtol=1e-9)


def test_nobody_visible_gives_an_empty_range():
    params, start, end = get_smooth_bbox_params(np.zeros((5, 21, 3)))
    assert params.shape == (0, 3)
    assert (start, end) == (0, 0)


def test_one_box_per_frame_between_first_and_last(smooth):
    kps = np.random.default_rng(0).uniform(10, 200, (30, 18, 3))
    kps[..., 2] = 1
    kps[:3, :, 2] = 0
    kps[-1, :, 2] = 0
    params, start, end = get_smooth_bbox_params(kps)
    assert (start, end, len(params)) == (3, 29, 26)


def test_box_sides():
    boxes = params_to_bboxes(np.array([[10.0, 20.0, 0.75]]), factor=1.1)
    np.testing.assert_allclose(boxes, [[10, 20, 220, 220]])
    original = np.array([[10.0, 20.0, 30.0, 30.0]])
    np.testing.assert_allclose(scale_bboxes(original, 1.2), [[10, 20, 36, 36]])
    np.testing.assert_array_equal(original, [[10, 20, 30, 30]])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("frames", [1, 2, 5, 6])
def test_a_person_seen_shortly_has_boxes_about_them(frames):
    """The original's median filter sees mostly padding there, and gives zooms of 0: infinite boxes."""
    params = np.tile([320.0, 240.0, 0.5], (frames, 1))
    np.testing.assert_allclose(smooth_bbox_params(params), params)
    np.testing.assert_allclose(params_to_bboxes(smooth_bbox_params(params)), [[320, 240, 300, 300]] * frames)

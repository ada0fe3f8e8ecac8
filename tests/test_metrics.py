"""Metrics and smoothing against the original's numbers, naive versions and their own invariances."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from lib.utils import metrics
from lib.utils.smoothing import gaussian, slerp_filter
from tests.golden_tools import load_golden


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    return load_golden("metrics/metrics")


def root_centred(joints: np.ndarray) -> np.ndarray:
    return joints - joints[:, 2:4].mean(axis=1, keepdims=True)


def test_equal_original(golden: dict[str, np.ndarray]) -> None:
    pred, gt = golden["pred"], golden["gt"]
    centred = root_centred(pred), root_centred(gt)
    np.testing.assert_allclose(metrics.mpjpe(*centred), golden["compute_errors_mpjpe"], atol=1e-6)
    np.testing.assert_allclose(metrics.pa_mpjpe(pred, gt), golden["compute_errors_pa"], atol=2e-6)
    np.testing.assert_allclose(metrics.accel(gt), golden["accel_gt"], atol=1e-6)
    np.testing.assert_allclose(metrics.accel_error(pred, gt), golden["error_accel"], atol=1e-6)
    error = metrics.vertex_error(golden["ev_pred"], golden["ev_target"])
    np.testing.assert_allclose(error, golden["error_verts_direct"], atol=1e-6)


def test_similarity_align_equals_original(golden: dict[str, np.ndarray]) -> None:
    # noisy, exact, mirrored, planar, unrelated, point-mirrored, identical, huge and ill-conditioned poses
    aligned = metrics.similarity_align(golden["S1"], golden["S2"])
    np.testing.assert_allclose(aligned, golden["similarity_numpy_float64"], rtol=1e-7, atol=1e-9)


def test_similarity_is_undone_but_a_mirror_is_not(golden: dict[str, np.ndarray]) -> None:
    gt = golden["gt"].astype(np.float64)
    turns = Rotation.random(len(gt), rng=np.random.default_rng(0)).as_matrix()
    moved = 1.7 * gt @ turns.transpose(0, 2, 1) + [1.0, -2.0, 3.0]
    assert metrics.pa_mpjpe(moved, gt).max() < 1e-12
    assert metrics.mpjpe(moved, gt).min() > 1
    assert metrics.pa_mpjpe(gt * [-1, 1, 1], gt).min() > 0.01


def test_degenerate_poses_stay_finite() -> None:
    point, pose = np.zeros((2, 14, 3)), np.random.default_rng(0).normal(size=(2, 14, 3))
    assert np.isfinite(metrics.pa_mpjpe(point, pose)).all()
    assert metrics.accel_error(pose, pose).shape == metrics.accel(pose[:1]).shape == (0,)
    assert metrics.vertex_error(point[:0], point[:0]).shape == (0,)


def test_vertex_error_does_not_depend_on_chunks() -> None:
    pred, target = np.random.default_rng(0).normal(size=(2, 600, 5, 3))
    naive = [np.mean([np.linalg.norm(a - b) for a, b in zip(p, t)]) for p, t in zip(pred, target)]
    np.testing.assert_allclose(metrics.vertex_error(pred, target), naive)


@pytest.mark.parametrize("ratio", [0.3, 0.7])
def test_slerp_filter_equals_original(ratio: float) -> None:
    golden = load_golden("metrics/slerp_filter")
    smooth = slerp_filter(golden["rotmat"], ratio)
    np.testing.assert_allclose(smooth, golden[f"smooth_ratio{ratio}"], atol=1e-7)


def test_slerp_filter_limits_and_decay() -> None:
    rotmats = load_golden("metrics/slerp_filter")["rotmat"]
    np.testing.assert_allclose(slerp_filter(rotmats, 1.0), rotmats, atol=1e-6)
    np.testing.assert_allclose(slerp_filter(rotmats, 0.0), rotmats[:1].repeat(len(rotmats), 0), atol=1e-6)

    step = Rotation.from_rotvec([[0, 0, 0]] + [[0, 0.8, 0]] * 6).as_matrix()[:, None]
    left = 0.8 - Rotation.from_matrix(slerp_filter(step, 0.3)[:, 0]).magnitude()
    np.testing.assert_allclose(left[1:], 0.8 * 0.7 ** np.arange(1, 7), atol=1e-12)


def test_gaussian_keeps_lines_and_reduces_noise() -> None:
    line = np.linspace(0, 1, 60)[:, None, None] * np.ones((1, 14, 3))
    np.testing.assert_allclose(gaussian(line, 2.0)[10:-10], line[10:-10], atol=1e-9)
    noisy = line + np.random.default_rng(0).normal(size=line.shape)
    assert metrics.accel(gaussian(noisy, 2.0)).mean() < 0.1 * metrics.accel(noisy).mean()
    assert gaussian(noisy, 0) is noisy


def test_unseen_joints_are_left_out() -> None:
    """As if each pose had only the joints that were seen."""
    rng = np.random.default_rng(0)
    pred, target = rng.normal(size=(2, 12, 14, 3))
    unseen = rng.random((12, 14)) < 0.3
    unseen[:, :4] = False
    target[unseen] = np.nan
    for n in range(12):
        seen = ~unseen[n]
        part = pred[n : n + 1, seen], target[n : n + 1, seen]
        np.testing.assert_allclose(metrics.mpjpe(pred, target)[n], metrics.mpjpe(*part)[0])
        np.testing.assert_allclose(metrics.pa_mpjpe(pred, target)[n], metrics.pa_mpjpe(*part)[0])
        aligned = metrics.similarity_align(pred, target)[n, seen]
        np.testing.assert_allclose(aligned, metrics.similarity_align(*part)[0])
    for n in range(10):
        seen = ~unseen[n : n + 3].any(axis=0)
        part = pred[n : n + 3, seen], target[n : n + 3, seen]
        np.testing.assert_allclose(metrics.accel_error(pred, target)[n], metrics.accel_error(*part)[0])
        np.testing.assert_allclose(metrics.accel(target)[n], metrics.accel(part[1])[0])
    target[5] = np.nan
    with np.errstate(all="raise"):  # and numpy has nothing to warn of
        for metric in (metrics.mpjpe, metrics.pa_mpjpe):
            assert np.flatnonzero(np.isnan(metric(pred, target))).tolist() == [5]
    assert np.flatnonzero(np.isnan(metrics.accel_error(pred, target))).tolist() == [3, 4, 5]

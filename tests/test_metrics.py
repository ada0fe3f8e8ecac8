"""Metrics and smoothing against the original's numbers, naive versions and their own invariances."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
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


seeds = st.integers(0, 10_000)
shapes = st.sampled_from(["points", "plane", "line", "point", "mirrored", "same"])


def poses(shape: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two poses (14, 3), the first of a kind that leaves the alignment less to hold on to."""
    rng = np.random.default_rng(seed)
    pred, target = rng.normal(size=(2, 14, 3))
    if shape == "mirrored":
        pred = target * [-1, 1, 1] + rng.normal(0, 0.01, (14, 3))
    elif shape == "same":
        pred = target.copy()
    elif shape != "points":
        pred = pred @ np.diag({"plane": [1, 1, 0], "line": [1, 0, 0], "point": [0, 0, 0]}[shape])
        pred = pred @ Rotation.random(rng=rng).as_matrix() + rng.normal(size=3)
    return pred, target


def turned(pose: np.ndarray, seed: int, size: float = 1.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return size * pose @ Rotation.random(rng=rng).as_matrix().T + rng.normal(size=3)


def squared(pose: np.ndarray, target: np.ndarray) -> float:
    return float(((pose - target) ** 2).sum())


@given(shapes, seeds)
def test_alignment_is_kabschs_and_the_best_there_is(shape: str, seed: int) -> None:
    """The rotation of SciPy's Kabsch and the scale of least squares; no similarity nearby fits better."""
    pred, target = poses(shape, seed)
    (aligned,) = metrics.similarity_align(pred[None], target[None])
    x, y = pred - pred.mean(0), target - target.mean(0)
    moved = Rotation.align_vectors(y, x)[0].apply(x) if np.abs(x).max() > 1e-9 else x
    size = (moved * y).sum() / max((moved**2).sum(), 1e-300)
    assert squared(aligned, target) == pytest.approx(squared(size * moved, y), abs=1e-9)
    if shape in ("points", "mirrored", "same"):  # else the rotation is not the only best one
        np.testing.assert_allclose(aligned, size * moved + target.mean(0), atol=1e-7)
    rng = np.random.default_rng(seed)
    for vector, scale, offset in zip(*(rng.normal(0, 0.03, (6, k)) for k in (3, 1, 3))):
        near = Rotation.from_rotvec(vector).apply(aligned - target.mean(0)) * (1 + scale) + target.mean(0)
        assert squared(near + offset, target) >= squared(aligned, target) - 1e-9


@given(shapes, seeds, st.floats(0.1, 10))
def test_the_error_sees_no_similarity_of_the_prediction(shape: str, seed: int, size: float) -> None:
    """Nor a rotation or a translation of the truth; its scale is the error's."""
    pred, target = poses(shape, seed)
    (error,) = metrics.pa_mpjpe(pred[None], target[None])
    if shape in ("points", "mirrored", "same"):
        moved, other = turned(pred, seed + 1, size)[None], turned(target, seed + 2, size)[None]
        np.testing.assert_allclose(metrics.pa_mpjpe(moved, target[None]), error, atol=1e-7)
        np.testing.assert_allclose(metrics.pa_mpjpe(pred[None], other), size * error, atol=1e-6)
    assert np.isfinite(error)
    exact = turned(target, seed, size)[None]
    np.testing.assert_allclose(metrics.pa_mpjpe(exact, target[None]), 0, atol=1e-9)
    assert metrics.pa_mpjpe(target[None] * [-1, 1, 1], target[None])[0] > 0.01  # a mirror is no rotation


def test_a_prediction_in_one_point_lies_in_the_middle() -> None:
    point, pose = np.ones((2, 14, 3)), np.random.default_rng(0).normal(size=(2, 14, 3))
    middle = np.broadcast_to(pose.mean(1, keepdims=True), pose.shape)
    np.testing.assert_allclose(metrics.similarity_align(point, pose), middle, atol=1e-12)
    np.testing.assert_allclose(metrics.similarity_align(pose, point), point, atol=1e-12)


def test_too_few_frames_give_no_errors() -> None:
    pose = np.random.default_rng(0).normal(size=(2, 14, 3))
    assert metrics.accel_error(pose, pose).shape == metrics.accel(pose[:1]).shape == (0,)
    assert metrics.vertex_error(pose[:0], pose[:0]).shape == (0,)


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

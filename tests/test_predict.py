"""Sequence prediction against the network run on every window written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter1d

from lib.models.body import BodyData
from lib.models.predict import predict_sequence, window_indices
from lib.models.tcmr import TCMR
from lib.utils.errors import UserError
from tests.golden_tools import fill_by_recipe

_FEATURES = 24


@pytest.fixture(scope="module", params=[1, 2])
def model(request: pytest.FixtureRequest, open_body: BodyData) -> TCMR:
    model = TCMR(16, request.param, 16, _FEATURES, regressor_hidden_size=32, body=open_body)
    fill_by_recipe(model)
    return model.double().eval()


def _sequence(length: int) -> np.ndarray:
    return np.random.default_rng(length).standard_normal((length, _FEATURES)).astype(np.float32)


def _explicit(
    model: TCMR, features: np.ndarray, windows: list[list[int]], **options
) -> dict[str, np.ndarray]:
    """Every window written out and put through the network's plain forward."""
    with torch.no_grad():
        output = model(torch.from_numpy(features[np.array(windows)]).double(), **options)[0][0]
    return {name: value.numpy() for name, value in output.items()}


def _static_windows(length: int) -> list[list[int]]:
    """The protocol in words: frames 8 … n-8 see a real window, the others see themselves 16 times."""
    return [list(range(t - 8, t + 8)) if 8 <= t <= length - 8 else [t] * 16 for t in range(length)]


def _edge_windows(length: int, step: int) -> list[list[int]]:
    return [[min(max(t + step * (k - 8), 0), length - 1) for k in range(16)] for t in range(length)]


def _assert_same(result: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert result.keys() == expected.keys()
    for name, value in expected.items():
        assert result[name].dtype == np.float32
        np.testing.assert_allclose(result[name], value, rtol=1e-6, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("length", [16, 17, 40])
def test_static_borders_are_the_published_protocol(model: TCMR, length: int) -> None:
    features = _sequence(length)
    verts = length == 17
    expected = _explicit(model, features, _static_windows(length), return_verts=verts)
    for batch_size in (7, 64):
        _assert_same(predict_sequence(model, features, return_verts=verts, batch_size=batch_size), expected)


@pytest.mark.parametrize(
    ("length", "step"), [(1, 1), (5, 1), (15, 1), (16, 1), (40, 1), (5, 2), (40, 2), (40, 3)]
)
def test_edge_borders_repeat_the_ends(model: TCMR, length: int, step: int) -> None:
    features = _sequence(length)
    smooth = gaussian_filter1d(features, step / 2, axis=0, mode="nearest") if step > 1 else features
    expected = _explicit(model, smooth, _edge_windows(length, step), return_verts=False)
    result = predict_sequence(model, features, return_verts=False, borders="edge", step=step, batch_size=16)
    _assert_same(result, expected)


def test_borders_are_the_models_own_unless_told_otherwise(open_body: BodyData) -> None:
    model = TCMR(16, 1, 8, _FEATURES, regressor_hidden_size=8, body=open_body, borders="edge").eval()
    fill_by_recipe(model)
    features = _sequence(20)
    edge = predict_sequence(model, features, return_verts=False, borders="edge")
    static = predict_sequence(model, features, return_verts=False, borders="static")
    assert not np.allclose(edge["kp_3d"], static["kp_3d"])
    _assert_same(predict_sequence(model, features, return_verts=False), edge)
    model.borders = "static"
    _assert_same(predict_sequence(model, features, return_verts=False), static)


def test_regressor_joints_without_vertices(model: TCMR, open_body: BodyData) -> None:
    features = _sequence(20)
    regressor = torch.from_numpy(open_body.J_regressor_h36m).double()
    expected = _explicit(model, features, _static_windows(20), J_regressor=regressor)
    _assert_same(predict_sequence(model, features, J_regressor=open_body.J_regressor_h36m), expected)
    del expected["verts"]
    _assert_same(predict_sequence(model, features, J_regressor=regressor, return_verts=False), expected)
    assert expected["kp_3d"].shape == (20, 14, 3)


@given(st.integers(1, 40), st.integers(1, 20), st.integers(1, 3))
def test_window_indices_are_those_written_out(length: int, seqlen: int, step: int) -> None:
    edge, static = [], []
    for t in range(length):
        window = [t + step * (k - seqlen // 2) for k in range(seqlen)]
        edge.append([min(max(frame, 0), length - 1) for frame in window])
        whole = all(0 <= frame < length for frame in window)
        static.append(window if whole else [t] * seqlen)
    assert window_indices(length, seqlen, "edge", step).tolist() == edge
    if length >= seqlen and step == 1:
        assert window_indices(length, seqlen).tolist() == static


def test_accepts_tensors_float64_and_read_only_arrays(model: TCMR, tmp_path) -> None:
    features = _sequence(18)
    expected = predict_sequence(model, features, return_verts=False)
    np.save(tmp_path / "features.npy", features)
    mapped = np.load(tmp_path / "features.npy", mmap_mode="r")
    for same in (torch.from_numpy(features), features.astype(np.float64), mapped):
        _assert_same(predict_sequence(model, same, return_verts=False), expected)


def test_progress_counts_every_frame_and_the_mode_is_restored(model: TCMR) -> None:
    counts: list[int] = []
    model.train()
    try:
        trained = predict_sequence(
            model, _sequence(40), return_verts=False, batch_size=16, progress=counts.append
        )
        assert model.training
    finally:
        model.eval()
    assert sum(counts) == 40 and len(counts) == 3
    _assert_same(trained, predict_sequence(model, _sequence(40), return_verts=False))


def test_mistakes_are_named(model: TCMR) -> None:
    with pytest.raises(UserError, match=r"15 frames.*at least 16.*edge"):
        predict_sequence(model, _sequence(15))
    with pytest.raises(UserError, match="step is 2"):
        predict_sequence(model, _sequence(40), step=2)
    with pytest.raises(UserError, match=r"shape \(20, 23\), expected \(frames, 24\)"):
        predict_sequence(model, _sequence(20)[:, :-1])
    with pytest.raises(UserError, match=r"shape \(0, 24\)"):
        predict_sequence(model, _sequence(20)[:0], borders="edge")
    broken = _sequence(20)
    broken[7, 3], broken[9, 0] = np.nan, np.inf
    with pytest.raises(UserError, match=r"frame 7 .*2 frames"):
        predict_sequence(model, broken)
    with pytest.raises(ValueError, match="borders"):
        predict_sequence(model, _sequence(20), borders="mirror")  # type: ignore[arg-type]

"""The streaming predictor, and how flips are judged in a stream, against their counterparts on sequences."""

from __future__ import annotations

import tracemalloc
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.landmarks.features import LANDMARK_FLIP
from lib.landmarks.flips import StreamingFlips, find_flips
from lib.models.body import BodyData
from lib.models.predict import predict_sequence
from lib.models.stream import StreamingPredictor
from lib.models.tcmr import TCMR
from lib.utils.errors import UserError
from tests.golden_tools import fill_by_recipe

FEATURES = 12
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def models(open_body: BodyData) -> dict[float, TCMR]:
    """By their FEATURE_SMOOTH."""
    made = {}
    for smooth in (0.0, 1.2):
        model = TCMR(16, 1, 8, FEATURES, regressor_hidden_size=16, body=open_body, feature_smooth=smooth)
        fill_by_recipe(model)
        made[smooth] = model.eval()
    return made


def sequence(length: int) -> np.ndarray:
    return np.random.default_rng(length).standard_normal((length, FEATURES)).astype(np.float32)


def streamed(predictor: StreamingPredictor, features: np.ndarray) -> list[dict[str, np.ndarray]]:
    given = [predictor.push(feature) for feature in features]
    assert [out is None for out in given] == [t < predictor.delay for t in range(len(features))]
    return [out for out in given if out is not None] + predictor.finish()


def assert_identical(streamed: list[dict[str, np.ndarray]], expected: dict[str, np.ndarray]) -> None:
    for name, values in expected.items():
        assert len(streamed) == len(values)
        for one, value in zip(streamed, values):
            assert one[name].dtype == np.float32
            np.testing.assert_array_equal(one[name], value, err_msg=name)


@settings(max_examples=6)
@given(
    length=st.integers(1, 40),
    step=st.integers(1, 3),
    smooth=st.sampled_from([0.0, 1.2]),
    seed=st.integers(0, 99),
)
def test_the_full_delay_is_the_sequence_bit_by_bit(
    models: dict[float, TCMR], length: int, step: int, smooth: float, seed: int
) -> None:
    features = sequence(length) + np.float32(seed)
    options: dict[str, Any] = {"step": step, "borders": "edge", "return_verts": False}
    outputs = streamed(StreamingPredictor(models[smooth], **options), features)
    assert_identical(outputs, predict_sequence(models[smooth], features, batch_size=1, **options))
    for name, values in predict_sequence(models[smooth], features, **options).items():
        np.testing.assert_allclose(np.stack([out[name] for out in outputs]), values, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("smooth", "step", "frames"), [(0.0, 1, 7), (1.2, 1, 12), (0.0, 2, 18), (1.2, 2, 24)]
)
def test_the_full_delay_is_as_far_as_the_model_looks(
    models: dict[float, TCMR], smooth: float, step: int, frames: int
) -> None:
    """A change of one feature is seen so many frames before it, and no earlier."""
    predictor = StreamingPredictor(models[smooth], step=step, borders="edge")
    assert predictor.delay == predictor.full_delay == frames
    assert StreamingPredictor(models[smooth], 999, step=step, borders="edge").delay == frames
    features = sequence(60)
    before = predict_sequence(models[smooth], features, step=step, borders="edge", return_verts=False)
    features[45] += 100
    after = predict_sequence(models[smooth], features, step=step, borders="edge", return_verts=False)
    changed = np.abs(after["theta"] - before["theta"]).max(1) > 0
    assert np.flatnonzero(changed)[0] == 45 - frames


@settings(max_examples=6)
@given(
    length=st.integers(1, 30),
    step=st.integers(1, 2),
    smooth=st.sampled_from([0.0, 1.2]),
    delay=st.sampled_from([0, 0, 3, 7]),
)
def test_less_delay_is_the_sequence_that_ends_there(
    models: dict[float, TCMR], length: int, step: int, smooth: float, delay: int
) -> None:
    features = sequence(length)
    options: dict[str, Any] = {"step": step, "borders": "edge", "return_verts": False}
    outputs = streamed(StreamingPredictor(models[smooth], delay, **options), features)
    for t in {0, length // 2, length - 1}:
        known = features[: t + delay + 1]
        expected = predict_sequence(models[smooth], known, batch_size=1, **options)
        assert_identical(outputs[t : t + 1], {name: values[t : t + 1] for name, values in expected.items()})


@pytest.mark.parametrize("length", [16, 17, 30])
def test_static_borders(models: dict[float, TCMR], length: int) -> None:
    features = sequence(length)
    outputs = streamed(StreamingPredictor(models[0.0], borders="static", return_verts=False), features)
    expected = predict_sequence(models[0.0], features, batch_size=1, borders="static", return_verts=False)
    assert_identical(outputs, expected)
    assert_identical(
        streamed(StreamingPredictor(models[0.0], return_verts=False), features), expected
    )  # the model's own
    for options in ({"delay": 3}, {"step": 2}):
        with pytest.raises(UserError, match="static borders"):
            StreamingPredictor(models[0.0], borders="static", **options)  # type: ignore[arg-type]


def test_one_sequence_after_another_and_vertices(models: dict[float, TCMR]) -> None:
    predictor = StreamingPredictor(models[1.2], borders="edge")
    for length in (3, 20):
        expected = predict_sequence(models[1.2], sequence(length), batch_size=1, borders="edge")
        assert "verts" in expected
        assert_identical(streamed(predictor, sequence(length)), expected)
    assert predictor.finish() == []


def test_wrong_features_are_refused(models: dict[float, TCMR]) -> None:
    predictor = StreamingPredictor(models[0.0])
    predictor.push(torch.zeros(FEATURES))
    with pytest.raises(UserError, match=r"\(1, 7\).*12"):
        predictor.push(np.zeros(7))
    with pytest.raises(UserError, match="frame 1 "):
        predictor.push(np.full(FEATURES, np.nan))


def test_memory_does_not_grow() -> None:
    """40 MB of features come by, and no more of them are kept than the window needs."""

    class Mean:
        """A network that takes no time."""

        model = SimpleNamespace(
            device=torch.device("cpu"),
            dtype=torch.float32,
            feature_size=50_000,
            seqlen=16,
            borders="edge",
            feature_smooth=0,
        )

        def predict_windows(self, frames: torch.Tensor, windows: torch.Tensor, *_: Any) -> dict:
            return {"theta": frames[windows].mean(1)}

    predictor = StreamingPredictor(Mean())  # type: ignore[arg-type]
    tracemalloc.start()
    for _ in range(200):
        predictor.push(np.zeros(50_000, np.float32))
    assert tracemalloc.get_traced_memory()[0] < 20 * 200_000
    tracemalloc.stop()


@settings(max_examples=20)
@given(st.integers(1, 25), st.integers(0, 10_000))
def test_flips_are_judged_as_if_the_sequence_ended_there(length: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    world = 0.3 * rng.standard_normal((33, 3)) + 0.01 * rng.standard_normal((length, 33, 3)).cumsum(0)
    flipped = np.cumsum(rng.random(length) < 0.2) % 2 == 1
    world[flipped] = world[flipped][:, LANDMARK_FLIP] * [1, 1, -1]
    world = world.astype(np.float32)
    judge = StreamingFlips()
    said = [judge(frame) for frame in world]
    for t in range(length):
        if 2 * flipped[: t + 1].sum() != t + 1:  # else both are as likely, up to rounding
            assert said[t] == bool(find_flips(torch.from_numpy(world[: t + 1]))[-1])

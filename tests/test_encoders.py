"""Temporal encoders by name: what each sees and claims. What all share: tests/test_conformance.py."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from lib.core.build import build_model, check_claims
from lib.core.config import get_cfg_defaults
from lib.models.body import BodyData
from lib.models.encoder import PoseForecast
from lib.models.tcmr import TCMR
from lib.models.temporal import ENCODERS
from lib.utils.errors import UserError
from tests.trainer_tools import logged, make_databases, tiny_config, train

T, F, MIDDLE = 7, 6, 3
OUTPUTS = {"tcmr": 3, "vibe": 1, "current": 1, "past_future": 3, "per_frame": 1}
SIGHT = {  # frames that the prediction sees
    "tcmr": range(T),
    "vibe": range(MIDDLE + 1),
    "current": range(T),
    "past_future": [t for t in range(T) if t != MIDDLE],
    "per_frame": [MIDDLE],
}
names = pytest.mark.parametrize("name", OUTPUTS)


def make(name: str, body: BodyData, layers: int = 2) -> TCMR:
    torch.manual_seed(0)
    return TCMR(T, layers, 5, F, 8, 0.0, body, encoder=name).double().eval()


def test_all_encoders_are_tried() -> None:
    assert set(ENCODERS) == {*OUTPUTS, "gru"}
    assert ENCODERS["gru"] is ENCODERS["tcmr"] is PoseForecast
    assert get_cfg_defaults().MODEL.TEMPORAL_TYPE == "gru"  # as in the original's files


@names
def test_what_is_seen(name: str, open_body: BodyData) -> None:
    encoder = make(name, open_body).encoder
    x = torch.randn(2, T, F, dtype=torch.float64, requires_grad=True)
    feature, scores = encoder(x)
    assert feature.shape == (2, F)
    (gradient,) = torch.autograd.grad(feature.square().sum(), x)
    assert [t for t in range(T) if gradient[:, t].any()] == list(SIGHT[name])
    every, same_scores = encoder(x, is_train=True)
    assert every.shape == (2, OUTPUTS[name], F) and encoder.outputs == OUTPUTS[name]
    torch.testing.assert_close(every[:, -1], feature)
    torch.testing.assert_close(same_scores, scores)
    if name in ("vibe", "current", "per_frame"):
        assert scores is None
    else:
        torch.testing.assert_close(scores.sum(dim=1), torch.ones(2, dtype=torch.float64))
        assert (name == "past_future") == (not scores[:, 1].any())


def test_vibe_adds_to_the_middle_frames_feature(open_body: BodyData) -> None:
    encoder = make("vibe", open_body).encoder
    x = torch.randn(3, T, F, dtype=torch.float64)
    state = encoder.gru(x.transpose(0, 1))[0].transpose(0, 1)[:, MIDDLE]
    torch.testing.assert_close(encoder(x)[0], x[:, MIDDLE] + encoder.linear(state.clamp(min=0)))


@names
def test_a_file_that_claims_other_sizes_is_refused(name: str, open_body: BodyData) -> None:
    weights = make(name, open_body).state_dict()
    cfg = get_cfg_defaults()
    cfg.MODEL.TEMPORAL_TYPE, cfg.MODEL.FEATURE_SIZE, cfg.DATASET.SEQLEN = name, F, T
    cfg.MODEL.TGRU.HIDDEN_SIZE, cfg.MODEL.TGRU.NUM_LAYERS, cfg.MODEL.REGRESSOR.HIDDEN_SIZE = 5, 2, 8
    check_claims(cfg, weights, "x")
    claims = {"TGRU.NUM_LAYERS": 10**6, "TGRU.HIDDEN_SIZE": 16_000, "FEATURE_SIZE": 10**6}
    if name == "per_frame":  # which has no such layers
        del claims["TGRU.NUM_LAYERS"]
    for key, value in claims.items():
        wrong = cfg.clone()
        wrong.merge_from_list([f"MODEL.{key}", value])
        with pytest.raises(UserError, match=rf"{re.escape(key)} is {value}, its weights have [256];"):
            check_claims(wrong, weights, "x")
    for odd in ({}, {key: torch.tensor(1.0) for key in weights}, dict.fromkeys(weights, "x")):
        with pytest.raises(UserError, match="its weights have 0;"):
            check_claims(cfg, odd, "x")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vibe", "past_future"])
def test_training_runs(name: str, open_body: BodyData, tmp_path: Path, one_thread: None) -> None:
    make_databases(tmp_path, open_body)
    opts = ["MODEL.TEMPORAL_TYPE", name, "TRAIN.RUN_LENGTH", "2", "LOSS.VELOCITY_W", "1.0"]
    trainer = train(tiny_config(tmp_path, tmp_path / "out", *opts, "TRAIN.GEN_LR", "0.01"), open_body)
    losses = [event.value for event in logged(trainer.folder).Scalars("train_loss/loss")]
    assert np.mean(losses[-5:]) < np.mean(losses[:5])


def test_unknown_encoders(open_body: BodyData) -> None:
    cfg = get_cfg_defaults()
    cfg.MODEL.TEMPORAL_TYPE = "vibes"
    with pytest.raises(UserError, match=r"MODEL\.TEMPORAL_TYPE: .* 'vibes'.*did you mean vibe\?"):
        build_model(cfg, open_body)
    with pytest.raises(UserError, match="no temporal encoder"):
        check_claims(cfg, {}, "x")

"""Checkpoints across the two code bases: the original's load here, ours load there, and none can run code."""

from __future__ import annotations

import collections
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lib.core.build import build_model, load_model
from lib.core.config import load_config
from lib.core.trainer import Trainer
from lib.demo.models import load_models
from lib.models.body import BodyData
from lib.models.hmr import load_hmr
from lib.models.tcmr import TCMR
from lib.utils.errors import UserError
from tests.golden_tools import GOLDEN, load_golden
from tests.trainer_tools import CONFIGS, CPU

REPOSITORY = Path(__file__).resolve().parents[1]
SHAPES = json.loads((GOLDEN / "state_dicts.json").read_text())
INTEGERS = ("faces_tensor", "parents", "extra_joints_idxs")
BODY_PARAMETERS = ("betas", "global_orient", "body_pose")  # listed by the original's optimiser, never trained


def skeleton(shapes: dict[str, list[int]]) -> nn.Module:
    """Nested modules with exactly these entries in their state dict, all zero."""
    root = nn.Module()
    for key, shape in shapes.items():
        *path, name = key.split(".")
        module = root
        for part in path:
            if not hasattr(module, part):
                module.add_module(part, nn.Module())
            module = module.get_submodule(part)
        dtype = torch.int64 if name in INTEGERS else torch.float32
        module.register_buffer(name, torch.zeros(shape, dtype=dtype))
    return root


def config(*opts: str):
    return load_config(
        CONFIGS / "repr_table4_3dpw_model.yaml",
        [
            *("PATHS.PREPROCESSED", str(GOLDEN / "data"), "MODEL.TGRU.HIDDEN_SIZE", "64"),
            *("TRAIN.PRETRAINED_REGRESSOR", "''", "NUM_WORKERS", "0", *opts),
        ],
    )


@pytest.fixture(scope="module")
def released(model: TCMR) -> dict[str, Any]:
    """What the original's training writes: seven entries, the optimiser's over 59 parameters."""
    trained = [p for name, p in model.named_parameters() if ".smpl." not in name]
    moments = {
        i: {
            "step": torch.tensor(40.0),
            "exp_avg": torch.full_like(p, 0.5),
            "exp_avg_sq": torch.ones_like(p),
        }
        for i, p in enumerate(trained)
    }
    group = {
        "lr": 5e-6,
        "betas": (0.9, 0.999),
        "eps": 1e-8,
        "weight_decay": 0.0,
        "amsgrad": False,
        "params": list(range(len(trained) + len(BODY_PARAMETERS))),
    }
    discriminator = {"gru.weight_ih_l0": torch.zeros(3, 69)}
    return {
        "epoch": 28,
        "gen_state_dict": collections.OrderedDict(model.state_dict()),
        "performance": np.float64(52.7),
        "gen_optimizer": {"state": moments, "param_groups": [group]},
        "disc_motion_state_dict": collections.OrderedDict(discriminator),
        "disc_motion_optimizer": {"state": {}, "param_groups": [{**group, "params": [0]}]},
    }


@pytest.fixture(scope="module")
def released_file(released: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("released") / "tcmr_table4_3dpw_test.pth.tar"
    torch.save(released, path)
    return path


# --------------------------------------------------------------------------------
# The original's files here


def test_a_released_checkpoint_predicts_what_it_did(released_file: Path, smpl_body: BodyData) -> None:
    model, _ = load_model(released_file, config(), smpl_body)
    golden = load_golden("tcmr/forward_h64_l2")
    x = torch.from_numpy(golden["input_x16"].astype(np.float32)) / 16
    with torch.no_grad():
        (output,), _ = model(x, return_verts=False)
    for name in ("theta", "kp_2d", "kp_3d", "rotmat", "scores"):
        np.testing.assert_allclose(output[name].numpy(), golden[f"eval_{name}"], atol=1e-5, err_msg=name)
    with pytest.raises(UserError, match="holds no configuration"):
        load_model(released_file, None, smpl_body)


def test_training_goes_on_from_a_released_checkpoint(
    released: dict[str, Any], released_file: Path, smpl_body: BodyData
) -> None:
    cfg = config("TRAIN.RESUME", str(released_file))
    trainer = Trainer(cfg, build_model(cfg, smpl_body), smpl_body, CPU)
    assert trainer.place.epoch == 29  # the epoch after the stored one, not that one again
    assert trainer.place.best == pytest.approx(52.7)
    assert trainer.learner.optimizer.param_groups[0]["lr"] == 5e-6
    assert len(trainer.learner.optimizer.param_groups[0]["params"]) == 56
    state = trainer.learner.optimizer.state_dict()["state"]
    assert state.keys() == released["gen_optimizer"]["state"].keys()
    assert all(torch.equal(s["exp_avg"], torch.full_like(s["exp_avg"], 0.5)) for s in state.values())


@pytest.mark.slow
def test_missing_and_unexpected_entries_are_named(
    released: dict[str, Any], tmp_path: Path, smpl_body: BodyData
) -> None:
    weights = dict(released["gen_state_dict"])
    del weights["regressor.deccam.bias"]
    weights["encoder.gru_new.bias"] = torch.zeros(2)
    torch.save({**released, "gen_state_dict": weights}, tmp_path / "odd.pth.tar")
    message = r"odd\.pth\.tar.*missing regressor\.deccam\.bias; unexpected encoder\.gru_new\.bias"
    with pytest.raises(UserError, match=message):
        load_model(tmp_path / "odd.pth.tar", config(), smpl_body)
    with pytest.raises(UserError, match=r"gru_cur\.weight_ih_l0 has shape \(192, 2048\), expected .* more$"):
        torch.save(released, tmp_path / "whole.pth.tar")
        load_model(tmp_path / "whole.pth.tar", config("MODEL.TGRU.HIDDEN_SIZE", "32"), smpl_body)


@pytest.mark.parametrize(
    ("change", "opts", "message"),
    [
        ({"gen_optimizer": None}, [], r"lacks gen_optimizer: give a checkpoint\.pth\.tar"),
        ({"gen_state_dict": None, "performance": None}, [], "lacks gen_state_dict, performance"),
        ({}, ["TRAIN.GEN_OPTIM", "SGD"], "optimiser state does not fit TRAIN.GEN_OPTIM SGD"),
        (
            {"gen_optimizer": {"state": {}, "param_groups": [{"betas": (0.9, 0.999), "params": [0]}]}},
            *([], "optimiser state does not fit"),
        ),
        ({}, ["TRAIN.END_EPOCH", "29"], "has finished 29 epochs, and TRAIN.END_EPOCH is 29"),
    ],
)
def test_a_checkpoint_that_training_cannot_go_on_from(
    released: dict[str, Any],
    tmp_path: Path,
    smpl_body: BodyData,
    change: dict[str, Any],
    opts: list[str],
    message: str,
) -> None:
    content = {key: value for key, value in {**released, **change}.items() if value is not None}
    torch.save(content, tmp_path / "x.pth.tar")
    cfg = config("TRAIN.RESUME", str(tmp_path / "x.pth.tar"), *opts)
    with pytest.raises(UserError, match=rf"x\.pth\.tar.*{message}"):
        Trainer(cfg, build_model(cfg, smpl_body), smpl_body, CPU)


class Evil:
    """Unpickling creates a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_checkpoint_cannot_run_code(
    released: dict[str, Any], tmp_path: Path, smpl_body: BodyData, legacy: bool
) -> None:
    path, target = tmp_path / "evil.pth.tar", tmp_path / "hacked"
    content = {"epoch": 1, "performance": Evil(target), "model": {}, "gen_state_dict": {}}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    cfg = config("TRAIN.RESUME", str(path))
    ways = (
        lambda: load_model(path, config(), smpl_body),
        lambda: load_models(path, base_data=tmp_path),
        lambda: load_hmr(path, smpl_body),
        lambda: TCMR(16, 1, 8, body=smpl_body, pretrained=path),
        lambda: Trainer(cfg, build_model(cfg, smpl_body), smpl_body, CPU),
    )
    for way in ways:
        with pytest.raises(UserError, match=r"evil\.pth\.tar"):
            way()
        assert not target.exists()
    torch.load(path, weights_only=False)  # the file would have done it
    assert target.exists()


# --------------------------------------------------------------------------------
# Ours in the original


@pytest.mark.slow
def test_our_weights_are_exactly_the_originals_entries(smpl_body: BodyData) -> None:
    """The original evaluates with ``strict=True``: every entry there, none more, every shape right."""
    shapes = SHAPES["tcmr_h1024_l2"]
    assert len(shapes) == 71
    ours = TCMR(16, 2, 1024, body=smpl_body).state_dict()
    other = skeleton(shapes)
    other.load_state_dict(ours, strict=True)
    for key, value in other.state_dict().items():
        assert value.dtype == ours[key].dtype, key
        assert torch.equal(value, ours[key]), key
    for wrong in ({k: v for k, v in shapes.items() if k != "regressor.smpl.betas"}, {**shapes, "a.b": [1]}):
        with pytest.raises(RuntimeError, match="Error"):
            skeleton(wrong).load_state_dict(ours, strict=True)


@pytest.mark.slow
def test_our_file_opens_without_our_code(released_file: Path, smpl_body: BodyData, tmp_path: Path) -> None:
    """Plain PyTorch reads what training writes, also with ``weights_only``, with nothing to import."""
    cfg = config("TRAIN.RESUME", str(released_file), "TRAIN.NUM_ITERS_PER_EPOCH", "1")
    trainer = Trainer(cfg, build_model(cfg, smpl_body), smpl_body, CPU)
    trainer.start_logging(tmp_path)
    trainer.place.epoch, trainer.place.performance = 30, 60.5
    trainer.save()  # not as the best: one file of 100 MB is enough
    assert trainer.writer is not None
    trainer.writer.close()
    code = (
        "import sys, torch; c = torch.load(sys.argv[1], weights_only=True); w = c['gen_state_dict'];"
        "assert not [m for m in sys.modules if m.split('.')[0] in ('lib', 'yacs')];"
        "print(c['epoch'], type(c['performance']).__name__, len(w), 'disc_motion_optimizer' in c)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "checkpoint.pth.tar")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.stdout.split() == ["29", "float", "71", "False"], done.stderr
    written = torch.load(tmp_path / "checkpoint.pth.tar", weights_only=True)
    skeleton(SHAPES["tcmr_h64_l2"]).load_state_dict(written["gen_state_dict"], strict=True)
    (tmp_path / "checkpoint.pth.tar").unlink()

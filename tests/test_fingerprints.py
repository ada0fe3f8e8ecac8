"""Features, and weights that were trained on them, belong to one extractor; files tell which."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from torch import nn

from lib.commands import evaluate as evaluate_command
from lib.core.benchmark.methods import Methods
from lib.core.build import build_model
from lib.core.config import dump_yaml
from lib.core.trainer import Trainer
from lib.dataset.database import open_database
from lib.models.body import BodyData
from lib.models.extractors import LandmarkExtractor, check_fingerprints, fingerprint
from lib.models.landmark_net import LandmarkNet
from lib.utils.errors import UserError
from lib.utils.files import dump_joblib, load_checkpoint, load_joblib
from scripts import export_checkpoint
from tests.trainer_tools import CPU, FEATURES, make_databases, tiny_config, train

pytestmark = pytest.mark.usefixtures("one_thread")
OURS, OTHER = "0123456789abcdef", "fedcba9876543210"


def network() -> LandmarkNet:
    torch.manual_seed(0)
    return LandmarkNet(width=16, feature_size=FEATURES, blocks=1)


def test_a_fingerprint_depends_on_the_extractors_numbers_alone() -> None:
    net = network()
    net.load_state_dict({name: weight.half().float() for name, weight in net.state_dict().items()})
    value = fingerprint(net.state_dict())
    assert len(value) == 16 and int(value, 16) >= 0
    assert LandmarkExtractor(net).fingerprint == value
    stored = {f"extractor.{name}": weight.half() for name, weight in net.state_dict().items()}
    assert fingerprint({**stored, "fc1.weight": torch.ones(3, 3)}) == value  # the regressor does not matter
    for name in net.state_dict():
        changed = {**net.state_dict(), name: net.state_dict()[name].clone()}
        changed[name].view(-1)[-1] += 0.5
        assert fingerprint(changed) != value, name
    assert fingerprint({"fc1.weight": torch.ones(3, 3)}) == fingerprint({}) == ""


def test_the_fingerprint_of_spin_is_its_backbones() -> None:
    trunk = nn.Sequential()
    trunk.conv1, trunk.bn1, trunk.fc1 = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(2, 2)
    weights = trunk.state_dict()
    value = fingerprint(weights)
    assert value
    old = {name: weight for name, weight in weights.items() if not name.endswith("num_batches_tracked")}
    assert fingerprint({**old, "fc1.weight": torch.zeros(2, 2)}) == value
    assert fingerprint({**old, "bn1.running_var": torch.full((4,), 2.0)}) != value


def test_files_that_do_not_say_are_accepted() -> None:
    assert check_fingerprints({"a": OURS, "b": "", "c": OURS}) == OURS
    assert check_fingerprints({"a": "", "b": ""}) == check_fingerprints({}) == ""
    with pytest.raises(UserError, match=rf"a belongs to the extractor {OURS}, c to {OTHER}.*docs/data\.md"):
        check_fingerprints({"a": OURS, "b": "", "c": OTHER})


@pytest.fixture
def databases(open_body: BodyData, tmp_path: Path) -> Path:
    """Training and validation databases of one extractor."""
    folder = tmp_path / "databases"
    make_databases(folder, open_body)
    for split in ("train", "val"):
        sign(folder / f"open_{split}_db.pt", OURS)
    return folder


def sign(path: Path, value: str) -> None:
    database = {key: np.array(values) for key, values in load_joblib(path).items()}
    dump_joblib({**database, "fingerprint": np.array(value)}, path)


@pytest.mark.parametrize("suffix", [".pt", ".h5"])
def test_databases_tell_theirs(tmp_path: Path, suffix: str) -> None:
    fields = {"vid_name": np.array(["a"] * 3), "features": np.zeros((3, 4))}
    for content, expected in ((fields, ""), ({**fields, "fingerprint": np.array(OURS)}, OURS)):
        path = tmp_path / f"db_{bool(expected)}{suffix}"
        if suffix == ".pt":
            dump_joblib(content, path)
        else:
            with h5py.File(path, "w") as file:
                file["features"] = content["features"]
                if expected:
                    file["fingerprint"] = expected
        assert open_database(path, ["features"], optional=["fingerprint"]).fingerprint == expected


def test_training_passes_it_on_and_refuses_others(
    databases: Path, open_body: BodyData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(*opts: str) -> Trainer:
        cfg = tiny_config(databases, tmp_path / "runs", "TRAIN.END_EPOCH", "2", *opts)
        return Trainer(cfg, build_model(cfg, open_body), open_body, CPU)

    first = train(tiny_config(databases, tmp_path / "runs", "TRAIN.END_EPOCH", "1"), open_body)
    checkpoint = first.folder / "checkpoint.pth.tar"
    assert load_checkpoint(checkpoint)["fingerprint"] == OURS
    argv = ["export_checkpoint.py", str(checkpoint), str(tmp_path / "small.pth.tar")]
    monkeypatch.setattr(sys, "argv", argv)
    export_checkpoint.main()
    assert load_checkpoint(tmp_path / "small.pth.tar")["fingerprint"] == OURS
    assert start("TRAIN.RESUME", str(checkpoint)).fingerprint == OURS

    net = network()
    weights = {f"extractor.{name}": weight for name, weight in net.state_dict().items()}
    regressor = {n: w for n, w in first.model.regressor.state_dict().items() if not n.startswith("smpl.")}
    torch.save({"model": {**regressor, **weights}, "body": "open"}, tmp_path / "net.pth.tar")
    with pytest.raises(UserError, match=rf"open_train_db\.pt belongs .* {OURS}, .*net\.pth\.tar to "):
        start("TRAIN.PRETRAINED_REGRESSOR", str(tmp_path / "net.pth.tar"))
    sign(databases / "open_val_db.pt", OTHER)
    with pytest.raises(UserError, match=rf"open_train_db\.pt belongs .*open_val_db\.pt to {OTHER}"):
        start()
    sign(databases / "open_train_db.pt", OTHER)
    assert start().fingerprint == OTHER
    with pytest.raises(UserError, match=r"open_train_db\.pt belongs .*checkpoint\.pth\.tar to "):
        start("TRAIN.RESUME", str(checkpoint))


def test_measuring_refuses_features_of_another_extractor(
    databases: Path, open_body: BodyData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    cfg = tiny_config(databases, tmp_path / "runs", "TRAIN.END_EPOCH", "1")
    run = train(cfg, open_body).folder
    (tmp_path / "c.yaml").write_text(dump_yaml(cfg))
    shutil.copy(databases / "open_val_db.pt", databases / "open_test_db.pt")
    argv = ["evaluate.py", "--dataset", "open", "--cfg", str(tmp_path / "c.yaml"), "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", [*argv, "--checkpoint", str(run)])
    evaluate_command.main()
    assert "PA-MPJPE" in capsys.readouterr().out
    sign(databases / "open_test_db.pt", OTHER)
    with pytest.raises(UserError, match=rf"model_best\.pth\.tar belongs .*open_test_db\.pt to {OTHER}"):
        evaluate_command.main()

    net = network()
    weights = {f"extractor.{name}": weight for name, weight in net.state_dict().items()}
    model = load_checkpoint(run / "model_best.pth.tar")["gen_state_dict"]
    regressor = {n.removeprefix("regressor."): w for n, w in model.items() if n.startswith("regressor.")}
    torch.save({"model": {**regressor, **weights}, "body": "open"}, tmp_path / "net.pth.tar")
    with pytest.raises(UserError, match=rf"net\.pth\.tar belongs .*model_best\.pth\.tar to {OURS}"):
        Methods(tmp_path / "net.pth.tar", {"TCMR": [run / "model_best.pth.tar"]}, open_body)

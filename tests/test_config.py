"""Configuration files, overrides and devices."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
import yaml

from lib.core.config import (
    dump_yaml,
    from_dict,
    get_cfg_defaults,
    load_config,
    merge_opts,
    parse_args,
    to_dict,
)
from lib.utils.devices import choose_device
from lib.utils.errors import UserError

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
WEIGHTS = "data/pretrained_models/tcmr_"
THREE, TWO = ["ThreeDPW", "MPII3D", "Human36M"], ["MPII3D", "Human36M"]
SHIPPED = {  # 2D sets, 3D sets, validation, overlap, epochs, checkpoint
    "config": (["Insta"], THREE, "ThreeDPW", True, 30, ""),
    "repr_table4_3dpw_model": (["Insta"], THREE, "ThreeDPW", True, 30, "table4_3dpw"),
    "repr_table4_h36m_mpii3d_model": (
        ["Insta", "PoseTrack"], THREE, "ThreeDPW", True, 45, "table4_mpii3dd_h36m",
    ),
    "repr_table6_3dpw_model": (["Insta", "PoseTrack"], TWO, "ThreeDPW", False, 45, "table6_3dpw"),
    "repr_table6_mpii3d_model": (["Insta", "PoseTrack"], TWO, "ThreeDPW", False, 30, "table6_mpii3d"),
    "repr_table6_h36m_model": (["Insta"], TWO, "Human36M", False, 45, "table6_h36m"),
}  # fmt: skip


def leaves(node: dict, prefix: str = "") -> list[str]:
    found = []
    for key, value in node.items():
        found += leaves(value, f"{prefix}{key}.") if isinstance(value, dict) and value else [prefix + key]
    return found


def test_schema_holds_the_original_keys() -> None:
    cfg = get_cfg_defaults()
    added = {
        "MODEL.EXTRACTOR", "MODEL.FEATURE_SIZE", "MODEL.REGRESSOR.HIDDEN_SIZE", "MODEL.REGRESSOR.DROPOUT",
        "TRAIN.LR_SCHEDULE", "TRAIN.WARMUP_ITERS", "TRAIN.GRAD_CLIP", "DATASET.FILES", "PATHS.BASE_DATA",
        "PATHS.PREPROCESSED", "PATHS.OPEN", "COMPAT.STATIC_BORDERS", "COMPAT.TRAIN_WINDOWS",
        "COMPAT.FLOAT16_TARGETS", "COMPAT.VALIDATION", "TRAIN.MOT_DISCR.SEQUENCES",
        "TRAIN.PRECISION", "TRAIN.COMPILE", "TRAIN.ACCUMULATE", "MODEL.PRECISION",
        "TRAIN.RUN_LENGTH", "LOSS.VELOCITY_W", "TRAIN.SAVE_EVERY", "MODEL.FEATURE_SMOOTH", "DATASET.MOTIONS",
            "LOSS.EXTRA", "MODEL.START_FROM_FEATURE",
    }  # fmt: skip
    keys = set(leaves(to_dict(cfg)))
    assert added <= keys
    assert len(keys - added) == 51
    assert (cfg.DATASET.SEQLEN, cfg.MODEL.TGRU.HIDDEN_SIZE, cfg.TRAIN.MOT_DISCR.LR) == (20, 2048, 1e-2)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_configurations(name: str) -> None:
    sets_2d, sets_3d, validation, overlap, epochs, weights = SHIPPED[name]
    cfg = load_config(CONFIGS / f"{name}.yaml")
    assert ("default" if name == "config" else name) == cfg.TITLE
    assert (sets_2d, sets_3d) == (cfg.TRAIN.DATASETS_2D, cfg.TRAIN.DATASETS_3D)
    assert (validation, overlap, epochs) == (cfg.TRAIN.DATASET_EVAL, cfg.TRAIN.OVERLAP, cfg.TRAIN.END_EPOCH)
    assert (f"{WEIGHTS}{weights}_test.pth.tar" if weights else "") == cfg.TRAIN.PRETRAINED
    assert cfg.TRAIN.PRETRAINED_REGRESSOR == "data/base_data/spin_model_checkpoint.pth.tar"
    assert (cfg.TRAIN.GEN_LR, cfg.TRAIN.GEN_WD, cfg.TRAIN.GEN_OPTIM) == (5e-5, 0.0, "Adam")
    assert (cfg.TRAIN.BATCH_SIZE, cfg.TRAIN.DATA_2D_RATIO, cfg.TRAIN.NUM_ITERS_PER_EPOCH) == (32, 0.6, 500)
    loss = cfg.LOSS
    assert (loss.KP_2D_W, loss.KP_3D_W, loss.SHAPE_W, loss.POSE_W) == (300.0, 300.0, 0.06, 60.0)
    assert (cfg.MODEL.TGRU.NUM_LAYERS, cfg.MODEL.TGRU.HIDDEN_SIZE, cfg.DATASET.SEQLEN) == (2, 1024, 16)
    assert (cfg.SEED_VALUE, cfg.OUTPUT_DIR, cfg.EXP_NAME) == (1, "experiments", "tcmr")
    discriminator = cfg.TRAIN.MOT_DISCR
    assert (discriminator.FEATURE_POOL, discriminator.NUM_LAYERS) == ("attention", 2)
    assert (discriminator.ATT.LAYERS, discriminator.ATT.SIZE, discriminator.ATT.DROPOUT) == (3, 1024, 0.2)


def test_open_configuration_loads() -> None:
    cfg = load_config(CONFIGS / "open.yaml")
    assert (cfg.MODEL.EXTRACTOR, cfg.TRAIN.DATASETS_3D, cfg.TRAIN.DATASET_EVAL) == (
        "landmarks",
        ["Simulated"],
        "Open",
    )


def test_dump_reads_back(tmp_path: Path) -> None:
    cfg = load_config(CONFIGS / "config.yaml", ["TRAIN.GEN_LR", "5e-5", "DATASET.FILES.open_test", "mine.pt"])
    (tmp_path / "config.yaml").write_text(dump_yaml(cfg))
    assert load_config(tmp_path / "config.yaml") == cfg
    assert yaml.safe_load(dump_yaml(cfg)) == to_dict(cfg)
    assert cfg.DATASET.FILES.open_test == "mine.pt"


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["TRAIN.LERNING_RATE", "1"], "TRAIN.LERNING_RATE"),
        (["TRAIN.BATCH_SIZE", "many"], "TRAIN.BATCH_SIZE"),
        (["TRAIN.BATCH_SIZE"], "pairs"),
        (["TRAIN.BATCH_SIZE.X", "1"], r"TRAIN\.BATCH_SIZE\.X"),
        (["TRAIN.BATCH_SIZE", "0"], "TRAIN.BATCH_SIZE is 0 .* at least 1"),
        (["NUM_WORKERS", "-1"], "NUM_WORKERS is -1 .* at least 0"),
        (["MODEL.REGRESSOR.DROPOUT", "1.5"], "DROPOUT is 1.5 .* 0 to 1"),
        (["TRAIN.GEN_LR", "None"], "TRAIN.GEN_LR is None"),
        (["DATASET.SEQLEN", "2"], "DATASET.SEQLEN is 2 .* at least 3"),
        (["DATASET.FILES.3dwp_test", "my.pt"], r"DATASET\.FILES\.3dwp_test .* did you mean 3dpw_test"),
        (["DATASET.FILES.mine", "my.pt"], r"DATASET\.FILES\.mine .* expected one of 3dpw_test, "),
    ],
)
def test_wrong_overrides_are_refused(opts: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_config(CONFIGS / "config.yaml", opts)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("TRAIN: {BATCHSIZE: 3}", "TRAIN.BATCHSIZE"),
        ("TRAIN: {GEN_LR: 1}", "GEN_LR"),
        ("TRAIN: [", "line 1"),
        ("just words", "bad.yaml"),
        ("1: 2", "bad.yaml"),
        ("TRAIN: {BATCH_SIZE: null}", "TRAIN.BATCH_SIZE is None"),
        ("DATASET: {FILES: {3dpw_val: 5}}", "DATASET.FILES.3dpw_val is 5"),
    ],
)
def test_wrong_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        load_config(tmp_path / "bad.yaml")
    with pytest.raises(UserError, match="does not exist"):
        load_config(tmp_path / "none.yaml")


def test_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    argv = ["--cfg", str(CONFIGS / "config.yaml"), "--gpu", "3", "--opts", "TRAIN.BATCH_SIZE", "4"]
    args, cfg = parse_args("test", argv=argv)
    assert (args.device, cfg.TRAIN.BATCH_SIZE, os.environ["CUDA_VISIBLE_DEVICES"]) == ("auto", 4, "3")
    parse_args("test", argv=argv[:2])
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "3"


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_device_falls_back_only_if_it_was_not_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    assert choose_device("auto", "cuda").type == "cpu"
    assert len(caplog.messages) == 1
    assert choose_device("cpu", "cuda").type == "cpu"
    with pytest.raises(UserError, match="--device cuda"):
        choose_device("cuda", "cpu")
    with pytest.raises(UserError, match="unknown"):
        choose_device("auto", "gpu")


def test_stored_configuration_comes_back_and_gets_new_keys() -> None:
    cfg = get_cfg_defaults()
    cfg.MODEL.FEATURE_SIZE = 256
    cfg.DATASET.FILES.open_train = "mine.pt"
    stored = to_dict(cfg)
    assert from_dict(stored) == cfg
    del stored["MODEL"]["PRECISION"]
    assert from_dict(stored).MODEL.PRECISION == get_cfg_defaults().MODEL.PRECISION
    stored["MODEL"]["NEW"] = 1
    with pytest.raises(UserError, match="NEW"):
        from_dict(stored)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("5: 6", r"it has the key 5, expected a name"),
        ("TRAIN: {null: 6}", r"it has the key None, expected a name"),
        ("LOSS: {KP_2D_W: .inf}", r"LOSS\.KP_2D_W is inf in .*: expected a finite number"),
        ("TRAIN: {GEN_LR: .nan}", r"TRAIN\.GEN_LR is nan in .*: expected a finite number"),
        ("TRAIN: [1]", r"TRAIN is \[1\] \(list\), expected a value of type yacs"),
        ("TITLE: {a: 1}", r"TITLE is a: 1 \(yacs\.config\.CfgNode\), expected a value of type str"),
    ],
)
def test_odd_files_are_one_short_line(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        load_config(file)
    assert len(str(caught.value)) < 200 + len(str(file))


def test_a_folder_is_called_a_folder(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").mkdir()
    with pytest.raises(UserError, match=r"c\.yaml is a folder"):
        load_config(tmp_path / "c.yaml")


@pytest.mark.parametrize("value", ["0", "1000000", "-5"])
@pytest.mark.parametrize("key", ["MODEL.TGRU.HIDDEN_SIZE", "MODEL.TGRU.NUM_LAYERS", "DATASET.SEQLEN"])
def test_no_network_of_impossible_size(key: str, value: str) -> None:
    """Also where the configuration is a checkpoint's and only --opts says so, as in the demo."""
    with pytest.raises(UserError, match=rf"{key} is {value} in --opts: expected at (least|most) "):
        merge_opts(get_cfg_defaults(), [key, value])

"""The original's configuration and its first training step."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from yacs.config import CfgNode

from lib.core.build import build_model
from lib.core.config import get_cfg_defaults, load_config
from lib.core.seeding import seed_everything
from lib.core.trainer import Trainer
from lib.models.body import BodyData
from tests.golden_tools import fill_by_recipe, load_golden
from tests.original_tools import AS_ORIGINAL, T4_3DPW, config
from tests.trainer_tools import CONFIGS

pytestmark = pytest.mark.usefixtures("one_thread")


# Every key of the original's schema with its default.
SCHEMA = """
TITLE='default' OUTPUT_DIR='results' EXP_NAME='default' DEVICE='cuda' DEBUG=True LOGDIR='' NUM_WORKERS=8
DEBUG_FREQ=1000 SEED_VALUE=-1 render=False CUDNN.BENCHMARK=True CUDNN.DETERMINISTIC=False CUDNN.ENABLED=True
TRAIN.DATASETS_2D=['Insta'] TRAIN.DATASETS_3D=['MPII3D'] TRAIN.DATASET_EVAL='ThreeDPW' TRAIN.BATCH_SIZE=32
TRAIN.OVERLAP=True TRAIN.DATA_2D_RATIO=0.5 TRAIN.START_EPOCH=0 TRAIN.END_EPOCH=5 TRAIN.PRETRAINED_REGRESSOR=''
TRAIN.PRETRAINED='' TRAIN.RESUME='' TRAIN.NUM_ITERS_PER_EPOCH=1000 TRAIN.LR_PATIENCE=5 TRAIN.GEN_OPTIM='Adam'
TRAIN.GEN_LR=1e-4 TRAIN.GEN_WD=1e-4 TRAIN.GEN_MOMENTUM=0.9 TRAIN.MOT_DISCR.OPTIM='SGD' TRAIN.MOT_DISCR.LR=1e-2
TRAIN.MOT_DISCR.WD=1e-4 TRAIN.MOT_DISCR.MOMENTUM=0.9 TRAIN.MOT_DISCR.UPDATE_STEPS=1
TRAIN.MOT_DISCR.FEATURE_POOL='concat' TRAIN.MOT_DISCR.HIDDEN_SIZE=1024 TRAIN.MOT_DISCR.NUM_LAYERS=1
TRAIN.MOT_DISCR.ATT.SIZE=1024 TRAIN.MOT_DISCR.ATT.LAYERS=1 TRAIN.MOT_DISCR.ATT.DROPOUT=0.1 DATASET.SEQLEN=20
DATASET.OVERLAP=0.5 LOSS.KP_2D_W=60.0 LOSS.KP_3D_W=30.0 LOSS.SHAPE_W=0.001 LOSS.POSE_W=1.0
LOSS.D_MOTION_LOSS_W=1.0 MODEL.TEMPORAL_TYPE='gru' MODEL.TGRU.NUM_LAYERS=1 MODEL.TGRU.HIDDEN_SIZE=2048
"""


# What all six shipped files say, or leave at the default.
SHIPPED = """
DEBUG=False DEBUG_FREQ=5 LOGDIR='' DEVICE='cuda' EXP_NAME='tcmr' OUTPUT_DIR='experiments' NUM_WORKERS=16
SEED_VALUE=1 DATASET.SEQLEN=16 LOSS.KP_2D_W=300.0 LOSS.KP_3D_W=300.0 LOSS.SHAPE_W=0.06 LOSS.POSE_W=60.0
LOSS.D_MOTION_LOSS_W=0.0 TRAIN.NUM_ITERS_PER_EPOCH=500 CUDNN.BENCHMARK=True CUDNN.DETERMINISTIC=False
CUDNN.ENABLED=True TRAIN.GEN_LR=0.00005 TRAIN.GEN_WD=0.0 TRAIN.GEN_OPTIM='Adam' TRAIN.GEN_MOMENTUM=0.9
TRAIN.MOT_DISCR.OPTIM='Adam' TRAIN.MOT_DISCR.LR=0.0001 TRAIN.MOT_DISCR.WD=0.0001
TRAIN.MOT_DISCR.MOMENTUM=0.9 TRAIN.MOT_DISCR.UPDATE_STEPS=1 TRAIN.MOT_DISCR.HIDDEN_SIZE=1024
TRAIN.MOT_DISCR.NUM_LAYERS=2 TRAIN.MOT_DISCR.FEATURE_POOL='attention' TRAIN.MOT_DISCR.ATT.LAYERS=3
TRAIN.MOT_DISCR.ATT.SIZE=1024 TRAIN.MOT_DISCR.ATT.DROPOUT=0.2 MODEL.TEMPORAL_TYPE='gru'
MODEL.TGRU.NUM_LAYERS=2 MODEL.TGRU.HIDDEN_SIZE=1024 TRAIN.BATCH_SIZE=32 TRAIN.DATA_2D_RATIO=0.6
TRAIN.START_EPOCH=0 TRAIN.LR_PATIENCE=5 TRAIN.RESUME='' DATASET.OVERLAP=0.5
TRAIN.PRETRAINED_REGRESSOR='data/base_data/spin_model_checkpoint.pth.tar'
"""


def assert_holds(cfg: CfgNode, table: str) -> int:
    entries = [entry.split("=") for entry in table.split()]
    for key, text in entries:
        value: Any = cfg
        for part in key.split("."):
            value = value[part]
        expected = CfgNode._decode_cfg_value(text)
        assert value == expected and type(value) is type(expected), f"{key}: {value!r}, not {text}"
    return len(entries)


def test_defaults_are_the_originals() -> None:
    assert assert_holds(get_cfg_defaults(), SCHEMA) == 51


@pytest.mark.parametrize("file", ["config", *sorted(path.stem for path in CONFIGS.glob("repr_*.yaml"))])
def test_shipped_files_are_the_originals(file: str) -> None:
    assert_holds(load_config(CONFIGS / f"{file}.yaml"), SHIPPED)


def test_a_seed_gives_the_same_weights_again(open_body: BodyData) -> None:
    cfg = config(
        T4_3DPW, "TRAIN.PRETRAINED_REGRESSOR", "''", "MODEL.TGRU.HIDDEN_SIZE", "4", "MODEL.FEATURE_SIZE", "6"
    )
    states = []
    for seed in (1, 1, 2):
        seed_everything(seed)
        states.append(build_model(cfg, open_body).state_dict())
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())
    assert not torch.equal(states[0]["encoder.linear_cur.weight"], states[2]["encoder.linear_cur.weight"])


def test_first_gradients_equal_the_original(smpl_body: BodyData) -> None:
    """Of every weight, for the mixed batch of the original's first step."""
    no_dropout = ("TRAIN.PRETRAINED_REGRESSOR", "''", "MODEL.REGRESSOR.DROPOUT", "0.0", "NUM_WORKERS", "0")
    cfg = config(T4_3DPW, *AS_ORIGINAL, *no_dropout)
    model = build_model(cfg, smpl_body)
    fill_by_recipe(model)
    trainer = Trainer(cfg, model.train(), smpl_body, torch.device("cpu"))
    sets = trainer.datasets["3d"]
    first = np.cumsum([0] + [len(part) for part in sets.datasets])
    indices = load_golden("train/batches")
    number, place = indices["index_3d"][0].T
    two, three = trainer.datasets["2d"], sets.__getitems__(first[number] + place)
    trainer.train_step({"2d": two.__getitems__(indices["index_2d"][0]), "3d": three})
    golden = load_golden("train/first_gradients")
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert sorted(gradients) == golden["names"].tolist()
    for name, norm, head in zip(golden["names"].tolist(), golden["norm"], golden["head"]):
        gradient = gradients[name].flatten()
        assert gradient.double().norm().item() == pytest.approx(norm, rel=1e-3), name
        head = head[np.isfinite(head)]
        np.testing.assert_allclose(gradient[: len(head)].numpy(), head, rtol=1e-3, atol=1e-6, err_msg=name)

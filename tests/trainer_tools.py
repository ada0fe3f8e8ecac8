"""Tiny databases, configurations and runs for the tests of training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from yacs.config import CfgNode

from lib.core.build import build_model
from lib.core.config import load_config
from lib.core.run_folder import create_run_folder
from lib.core.seeding import seed_everything
from lib.core.trainer import Trainer
from lib.models.body import BodyData
from lib.models.smpl import SMPL
from lib.utils.files import dump_joblib

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
CPU = torch.device("cpu")
FEATURES = 8


def make_open_database(path: Path, body: BodyData, lengths: list[int], seed: int) -> None:
    """Random motions whose features are a fixed function of the pose."""
    random, n = np.random.default_rng(seed), sum(lengths)
    pose = random.normal(0, 0.2, (n, 72)).astype(np.float32)
    pose[:, 0] += np.pi
    shape = random.normal(0, 1, (n, 10)).astype(np.float32)
    with torch.no_grad():
        output = SMPL(body)(*(torch.from_numpy(a) for a in (shape, pose[:, 3:], pose[:, :3])))
    joints = output.joints.numpy()
    joints2d = np.concatenate([joints[..., :2] * 150 + 300, np.ones((n, 49, 1))], -1)
    dump_joblib(
        {
            "vid_name": np.repeat([f"v{i}" for i in range(len(lengths))], lengths),
            "joints3D": joints,
            "joints2D": joints2d.astype(np.float32),
            "shape": shape,
            "pose": pose,
            "bbox": np.tile(np.float32([300, 300, 250, 250]), (n, 1)),
            "features": np.tanh(pose[:, 3 : 3 + FEATURES] * 3),
        },
        path,
    )


def make_motion_database(path: Path, lengths: list[int], seed: int) -> None:
    """Smooth random motions in the layout of AMASS."""
    random, n = np.random.default_rng(seed), sum(lengths)
    theta = np.cumsum(random.normal(0, 0.02, (n, 82)), axis=0)
    names = np.repeat([f"m{i}" for i in range(len(lengths))], lengths)
    dump_joblib({"vid_name": names, "theta": theta}, path)


def make_databases(folder: Path, body: BodyData) -> None:
    """Training, validation and 2D databases of short videos, and real motions."""
    make_open_database(folder / "open_train_db.pt", body, [30, 9, 25], 0)
    make_open_database(folder / "open_val_db.pt", body, [20, 5], 1)
    make_open_database(folder / "posetrack.pt", body, [17, 12], 2)
    make_motion_database(folder / "amass_db.pt", [20, 13], 3)


def tiny_config(databases: Path, output: Path, *opts: str) -> CfgNode:
    return load_config(
        CONFIGS / "open.yaml",
        [
            *("PATHS.PREPROCESSED", str(databases), "OUTPUT_DIR", str(output), "DATASET.SEQLEN", "6"),
            *("TRAIN.PRETRAINED_REGRESSOR", "''", "MODEL.FEATURE_SIZE", str(FEATURES)),
            *("MODEL.TGRU.HIDDEN_SIZE", "6", "MODEL.REGRESSOR.HIDDEN_SIZE", "12", "TRAIN.BATCH_SIZE", "8"),
            *("TRAIN.NUM_ITERS_PER_EPOCH", "7", "TRAIN.END_EPOCH", "3", "TRAIN.WARMUP_ITERS", "4"),
            *("TRAIN.DATASETS_3D", "['Open']", "TRAIN.RUN_LENGTH", "1", "LOSS.VELOCITY_W", "0.0"),
            *("MODEL.FEATURE_SMOOTH", "0.0"),
            *("TRAIN.DATASETS_2D", "['PoseTrack']", "DATASET.FILES.posetrack_train", "posetrack.pt"),
            *("DATASET.FILES.posetrack_train", str(databases / "posetrack.pt"), "NUM_WORKERS", "0", *opts),
        ],
    )


def adversarial(*opts: str) -> list[str]:
    """Overrides that add a tiny motion discriminator without random numbers."""
    return [
        *("LOSS.D_MOTION_LOSS_W", "2.0", "TRAIN.MOT_DISCR.SEQUENCES", "3", "TRAIN.MOT_DISCR.OPTIM", "Adam"),
        *("TRAIN.MOT_DISCR.HIDDEN_SIZE", "16", "TRAIN.MOT_DISCR.LR", "0.002", *opts),
    ]


def train(cfg: CfgNode, body: BodyData) -> Trainer:
    seed_everything(cfg.SEED_VALUE)
    model = build_model(cfg, body)
    trainer = Trainer(cfg, model, body, CPU)
    trainer.run(create_run_folder(cfg))
    return trainer


def logged(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder)).Reload()

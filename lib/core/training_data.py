"""What a run trains on: databases or simulated data, as endless batches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from yacs.config import CfgNode

from ..dataset.database import Database
from ..dataset.loaders import BatchStream
from ..dataset.training import ConcatWindows, WindowDataset, training_set
from ..models.body import BodyData
from ..models.extractors import check_fingerprints, fingerprint
from ..models.weights import per_frame_weights
from ..open_data.simulated import SIMULATED, SimulatedStream
from ..utils.errors import UserError
from ..utils.files import load_checkpoint
from . import distributed
from .build import fingerprint_of
from .evaluation_set import EvaluationSet


def uses_simulation(cfg: CfgNode) -> bool:
    """Whether to train on data that is simulated while training.

    Raises:
        UserError: beside databases, or with a motion discriminator, which needs some.
    """
    named = [*cfg.TRAIN.DATASETS_2D, *cfg.TRAIN.DATASETS_3D]
    if SIMULATED not in named:
        return False
    if list(cfg.TRAIN.DATASETS_3D) != [SIMULATED] or cfg.TRAIN.DATASETS_2D:
        raise UserError(
            f"{SIMULATED} is trained on alone: TRAIN.DATASETS_3D is {list(cfg.TRAIN.DATASETS_3D)} and "
            f"TRAIN.DATASETS_2D {list(cfg.TRAIN.DATASETS_2D)}, expected [{SIMULATED}] and []"
        )
    if cfg.LOSS.D_MOTION_LOSS_W > 0:
        raise UserError(f"LOSS.D_MOTION_LOSS_W needs videos in a database, not {SIMULATED}: set it to 0.0")
    return True


def open_datasets(cfg: CfgNode) -> dict[str, ConcatWindows]:
    """The training sets ``2d`` and ``3d``, of which either may be absent.

    Raises:
        UserError: both are, or one does not fit.
    """
    if uses_simulation(cfg):
        return {}
    if cfg.MODEL.FEATURE_SMOOTH > 0:
        raise UserError(
            f"MODEL.FEATURE_SMOOTH is {cfg.MODEL.FEATURE_SMOOTH}, which training on databases cannot do: "
            f"set it to 0.0, or TRAIN.DATASETS_3D to [{SIMULATED}]"
        )
    sets = {
        "2d": training_set(cfg.TRAIN.DATASETS_2D, cfg, with_3d=False),
        "3d": training_set(cfg.TRAIN.DATASETS_3D, cfg, with_3d=True),
    }
    present = {kind: dataset for kind, dataset in sets.items() if dataset is not None}
    if not present:
        raise UserError("TRAIN.DATASETS_2D and TRAIN.DATASETS_3D are both empty: name a dataset in one")
    return present


def open_streams(
    cfg: CfgNode,
    datasets: Mapping[str, ConcatWindows],
    body: BodyData,
    device: torch.device,
    seed: int,
    positions: Mapping[str, int],
) -> dict[str, BatchStream | SimulatedStream]:
    """The endless batches of the 2D and the 3D sets that are there, or of simulated data.

    A stream gives what a batch of :class:`WindowDataset` holds, ``batch_size`` runs at a time, and its
    ``position`` is stored in checkpoints, from where ``positions`` come.

    Raises:
        UserError: a batch has fewer runs than there are processes.
    """
    train, simulated = cfg.TRAIN, uses_simulation(cfg)
    windows = dict.fromkeys(["3d"] if simulated else datasets, train.BATCH_SIZE)
    if len(windows) == 2:
        windows["2d"] = int(train.BATCH_SIZE * train.DATA_2D_RATIO)
        windows["3d"] = train.BATCH_SIZE - windows["2d"]
    sizes = {kind: count // train.RUN_LENGTH for kind, count in windows.items()}
    world = distributed.world()
    if min(sizes.values()) < world:
        raise UserError(
            f"TRAIN.BATCH_SIZE {train.BATCH_SIZE} with TRAIN.DATA_2D_RATIO {train.DATA_2D_RATIO} and "
            f"TRAIN.RUN_LENGTH {train.RUN_LENGTH} gives batches of {sizes}: each must be at least "
            f"{world}, the number of processes, or one list of datasets empty"
        )
    if simulated:
        stream = SimulatedStream(
            cfg,
            body,
            device,
            sizes["3d"],
            seed=seed,
            start=positions.get("3d", 0),
            rank=distributed.rank(),
            world=world,
        )
        return {"3d": stream}
    streams: dict[str, BatchStream | SimulatedStream] = {}
    for number, (kind, dataset) in enumerate(datasets.items()):
        streams[kind] = BatchStream(
            dataset,
            sizes[kind],
            seed=2 * seed + number,
            start=positions.get(kind, 0),
            workers=cfg.NUM_WORKERS,
            pin_memory=device.type == "cuda",
            rank=distributed.rank(),
            world=world,
        )
    return streams


def common_fingerprint(
    cfg: CfgNode,
    datasets: Mapping[str, ConcatWindows],
    validation_set: EvaluationSet,
    resumed: Mapping[str, Any],
) -> str:
    """The fingerprint of the extractor that all features of this run come from, '' if no file tells it.

    Raises:
        UserError: features of different extractors meet.
    """
    parts = [part for windows in datasets.values() for part in windows.datasets]
    databases = [part.database for part in parts if isinstance(part, WindowDataset)]
    found = {str(data.path): data.fingerprint for data in databases if isinstance(data, Database)}
    found[str(validation_set.path)] = validation_set.fingerprint
    if start := cfg.TRAIN.PRETRAINED_REGRESSOR:
        found[start] = fingerprint(per_frame_weights(load_checkpoint(start), start))
    found[cfg.TRAIN.RESUME] = fingerprint_of(resumed)
    return check_fingerprints(found)

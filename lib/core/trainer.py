"""Training: the loop, its logs, and checkpoints from which it goes on exactly."""

from __future__ import annotations

import logging
import math
import random
import shutil
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim import SGD, Adam, Optimizer
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm
from yacs.config import CfgNode

from lib.core.config import dump_yaml, to_dict
from lib.core.evaluator import EvaluationSet, evaluate
from lib.core.loss import TCMRLoss
from lib.core.schedule import LearningRate
from lib.dataset.datasets import Batch, ConcatWindows, get_spec, training_set
from lib.dataset.loaders import BatchStream
from lib.models.body import BodyData
from lib.models.tcmr import TCMR
from lib.utils.errors import UserError
from lib.utils.files import atomic_write, load_checkpoint, save_checkpoint

logger = logging.getLogger(__name__)

CHECKPOINT, BEST_CHECKPOINT, BEST_VALUE = "checkpoint.pth.tar", "model_best.pth.tar", "best.txt"
_POSTFIX_STEPS = 20  # iterations between updates of the progress bar
_VALIDATION_TAGS = {  # TensorBoard tags of the original
    "mpjpe": "mpjpe",
    "mpjpe_pa": "pa-mpjpe",
    "accel": "accel",
    "mpvpe": "pve",
    "accel_err": "accel_err",
}


class Trainer:
    """Trains a TCMR as ``cfg`` says and leaves logs and checkpoints in a run folder.

    With TRAIN.RESUME it goes on after the stored epoch with the stored weights, optimiser, learning rate,
    random numbers and place in the data; on a CPU every number is what an uninterrupted run would have given.

    Args:
        cfg: the configuration.
        model: the model to train, fresh from :func:`lib.models.build.build_model`.
        body: the body model it was built with.
        device: where to train.
        folder: the run folder.

    Raises:
        UserError: a database or the checkpoint is missing or does not fit, or a key's value is impossible.
    """

    def __init__(self, cfg: CfgNode, model: TCMR, body: BodyData, device: torch.device, folder: Path) -> None:
        if cfg.LOSS.D_MOTION_LOSS_W > 0:
            raise UserError(
                f"LOSS.D_MOTION_LOSS_W is {cfg.LOSS.D_MOTION_LOSS_W}, but there is no motion discriminator "
                "training yet: set it to 0.0, as every published configuration does"
            )
        self.cfg, self.body, self.device, self.folder = cfg, body, device, folder
        self.model = model.to(device)
        self.loss = TCMRLoss(
            e_loss_weight=cfg.LOSS.KP_2D_W,
            e_3d_loss_weight=cfg.LOSS.KP_3D_W,
            e_pose_loss_weight=cfg.LOSS.POSE_W,
            e_shape_loss_weight=cfg.LOSS.SHAPE_W,
        )
        self.parameters = [p for p in model.parameters() if p.requires_grad]  # not the body model's
        self.optimizer = build_optimizer(cfg, self.parameters, device)
        self.learning_rate = LearningRate(
            self.optimizer,
            cfg.TRAIN.LR_SCHEDULE,
            patience=cfg.TRAIN.LR_PATIENCE,
            warmup=cfg.TRAIN.WARMUP_ITERS,
            total=cfg.TRAIN.NUM_ITERS_PER_EPOCH * (cfg.TRAIN.END_EPOCH - cfg.TRAIN.START_EPOCH),
        )
        self.validation_set = EvaluationSet(get_spec(cfg.TRAIN.DATASET_EVAL), "val", cfg, validation=True)
        self.epoch, self.step, self.best = cfg.TRAIN.START_EPOCH, 0, math.inf
        self.seed = cfg.SEED_VALUE if cfg.SEED_VALUE >= 0 else torch.seed() % 2**31
        resumed = self._load(Path(cfg.TRAIN.RESUME)) if cfg.TRAIN.RESUME else {}
        self.datasets = open_datasets(cfg)
        self.streams = self._open_streams(resumed.get("loaders", {}))
        if "rng" in resumed:
            set_rng_state(resumed["rng"])

    def run(self) -> None:
        """Train to END_EPOCH; every epoch is validated and saved.

        Raises:
            UserError: the loss is no longer a finite number.
        """
        self.start_logging()
        try:
            for epoch in range(self.epoch, self.cfg.TRAIN.END_EPOCH):
                self._train_epoch(epoch)
                performance = self.validate(epoch)
                self.learning_rate.after_epoch(performance)
                self.writer.add_scalar("lr/gen_lr", self.learning_rate.value, epoch)
                self._save(epoch, performance)
        finally:
            self.writer.close()

    def start_logging(self) -> None:
        """Open the TensorBoard log."""
        self.writer = SummaryWriter(str(self.folder))
        self.writer.add_text("config", f"```\n{dump_yaml(self.cfg)}```", 0)

    # ---------------------------------------------------------------------------- one epoch

    def _train_epoch(self, epoch: int) -> None:
        self.model.train()
        sums: dict[str, float] = defaultdict(float)
        counts: dict[str, int] = defaultdict(int)
        started, loading = time.perf_counter(), 0.0
        iterations = self.cfg.TRAIN.NUM_ITERS_PER_EPOCH
        with tqdm(total=iterations, desc=f"epoch {epoch + 1}", disable=None) as bar:
            for iteration in range(iterations):
                fetching = time.perf_counter()
                batches = {kind: next(stream) for kind, stream in self.streams.items()}
                loading += time.perf_counter() - fetching
                terms = self.train_step(batches)
                for tag, value in terms.items():
                    self.writer.add_scalar(f"train_loss/{tag}", value, self.step)
                    sums[tag] += value
                    counts[tag] += 1
                self.step += 1
                if iteration % _POSTFIX_STEPS == _POSTFIX_STEPS - 1 or iteration == iterations - 1:
                    bar.update(iteration + 1 - bar.n)
                    bar.set_postfix({tag: f"{sums[tag] / counts[tag]:.3g}" for tag in sums}, refresh=False)
        seconds = time.perf_counter() - started
        samples = iterations * sum(stream.batch_size for stream in self.streams.values())
        self.writer.add_scalar("throughput/samples_per_second", samples / seconds, epoch)
        self.writer.add_scalar("throughput/loading_share", loading / seconds, epoch)
        means = ", ".join(f"{tag} {sums[tag] / counts[tag]:.4f}" for tag in sums)
        logger.info(
            "Epoch %d: %s; lr %.3g; %.1f samples/s, %.0f%% loading",
            epoch + 1, means, self.learning_rate.value, samples / seconds, 100 * loading / seconds,
        )  # fmt: skip

    def train_step(self, batches: dict[str, Batch]) -> dict[str, float]:
        """One update of the weights; the weighted loss terms and their sum ``loss``."""
        self.learning_rate.before_iteration(self.step)
        batches = {
            kind: {key: values.to(self.device, non_blocking=True) for key, values in batch.items()}
            for kind, batch in batches.items()
        }
        features = torch.cat([batch["features"] for batch in batches.values()])  # 2D samples come first
        predictions, _ = self.model(features, is_train=True, return_verts=False)
        loss, terms = self.loss(predictions, batches.get("2d"), batches.get("3d"))
        names = [*terms, "loss"]
        values = dict(zip(names, torch.stack([*terms.values(), loss]).detach().tolist()))
        if not math.isfinite(values["loss"]):
            raise UserError(
                f"the loss is {values['loss']} at step {self.step} (terms: {values}): training ends. Look at "
                "the database's values, lower TRAIN.GEN_LR or set TRAIN.GRAD_CLIP; TRAIN.RESUME goes on "
                f"from the last epoch saved in {self.folder}"
            )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self.cfg.TRAIN.GRAD_CLIP > 0:
            nn.utils.clip_grad_norm_(self.parameters, self.cfg.TRAIN.GRAD_CLIP)
        self.optimizer.step()
        return values

    def validate(self, epoch: int) -> float:
        """Measure the model on the validation split, log it, and return the PA-MPJPE in mm."""
        self.model.eval()
        compat = self.cfg.COMPAT
        evaluation = evaluate(
            self.model, self.validation_set, self.body, static_borders=compat.STATIC_BORDERS, progress=True
        )
        if compat.VALIDATION:
            evaluation = evaluation.with_accel_across_videos()
        errors = evaluation.summary()
        present = {key: tag for key, tag in _VALIDATION_TAGS.items() if key in errors}
        for key, tag in present.items():
            self.writer.add_scalar(f"error/{tag}", errors[key], epoch)
        text = " ".join(f"{tag.upper()}: {errors[key]:.4f}," for key, tag in present.items())
        logger.info("Epoch %d, %s", epoch, text)
        logger.info("Epoch %d performance: %.4f", epoch + 1, errors["mpjpe_pa"])
        return errors["mpjpe_pa"]

    # ---------------------------------------------------------------------------- data

    def _open_streams(self, positions: dict[str, int]) -> dict[str, BatchStream]:
        """The endless batches of the 2D and the 3D sets that are there."""
        train = self.cfg.TRAIN
        sizes = dict.fromkeys(self.datasets, train.BATCH_SIZE)
        if len(sizes) == 2:
            sizes["2d"] = int(train.BATCH_SIZE * train.DATA_2D_RATIO)
            sizes["3d"] = train.BATCH_SIZE - sizes["2d"]
        if min(sizes.values()) < 1:
            raise UserError(
                f"TRAIN.BATCH_SIZE {train.BATCH_SIZE} with TRAIN.DATA_2D_RATIO {train.DATA_2D_RATIO} gives "
                f"batches of {sizes}: both must be at least 1, or one list of datasets empty"
            )
        streams = {}
        for number, (kind, dataset) in enumerate(self.datasets.items()):
            logger.info("%s training windows: %d, %d per batch", kind.upper(), len(dataset), sizes[kind])
            streams[kind] = BatchStream(
                dataset,
                sizes[kind],
                seed=2 * self.seed + number,
                start=positions.get(kind, 0),
                workers=self.cfg.NUM_WORKERS,
                pin_memory=self.device.type == "cuda",
            )
        return streams

    # ---------------------------------------------------------------------------- checkpoints

    def _save(self, epoch: int, performance: float) -> None:
        improved = performance < self.best
        self.best = min(self.best, performance)
        checkpoint = {
            "epoch": epoch,
            "gen_state_dict": self.model.state_dict(),
            "performance": performance,
            "gen_optimizer": self.optimizer.state_dict(),
            "scheduler": self.learning_rate.state_dict(),
            "best": self.best,
            "step": self.step,
            "seed": self.seed,
            "loaders": {kind: stream.position for kind, stream in self.streams.items()},
            "rng": get_rng_state(),
            "config": to_dict(self.cfg),
            "body": self.body.kind,
        }
        save_checkpoint(checkpoint, self.folder / CHECKPOINT)
        if improved:
            logger.info("best performance so far, saved as %s", BEST_CHECKPOINT)
            save_checkpoint(checkpoint, self.folder / BEST_CHECKPOINT)
            with atomic_write(self.folder / BEST_VALUE) as temporary:
                temporary.write_text(f"{self.best}\n")

    def _load(self, path: Path) -> dict[str, Any]:
        """Restore all but the random numbers and the data, and return the checkpoint."""
        checkpoint = load_checkpoint(path)
        self.model.load_weights(checkpoint["gen_state_dict"], checkpoint.get("body"), source=path)
        self.epoch = checkpoint["epoch"] + 1
        self.best = float(checkpoint.get("best", checkpoint["performance"]))
        self.step = checkpoint.get("step", self.epoch * self.cfg.TRAIN.NUM_ITERS_PER_EPOCH)
        self.seed = checkpoint.get("seed", self.seed)
        self.optimizer.load_state_dict(_without_frozen(checkpoint["gen_optimizer"], len(self.parameters)))
        self.learning_rate.load_state_dict(checkpoint.get("scheduler", {}))
        for name in (BEST_CHECKPOINT, BEST_VALUE):
            if (path.parent / name).is_file():
                shutil.copy2(path.parent / name, self.folder / name)
        logger.info("resumed from %s: epoch %d comes next, best so far %.4f", path, self.epoch + 1, self.best)
        return checkpoint


def open_datasets(cfg: CfgNode) -> dict[str, ConcatWindows]:
    """The training sets ``2d`` and ``3d``, of which either may be absent.

    Raises:
        UserError: both are, or one does not fit.
    """
    sets = {
        "2d": training_set(cfg.TRAIN.DATASETS_2D, cfg, with_3d=False),
        "3d": training_set(cfg.TRAIN.DATASETS_3D, cfg, with_3d=True),
    }
    present = {kind: dataset for kind, dataset in sets.items() if dataset is not None}
    if not present:
        raise UserError("TRAIN.DATASETS_2D and TRAIN.DATASETS_3D are both empty: name a dataset in one")
    return present


def build_optimizer(cfg: CfgNode, parameters: list[nn.Parameter], device: torch.device) -> Optimizer:
    """The optimiser that TRAIN.GEN_OPTIM names.

    Raises:
        UserError: it is neither Adam nor SGD.
    """
    train, kind = cfg.TRAIN, cfg.TRAIN.GEN_OPTIM.lower()
    if kind == "adam":
        fused = device.type in ("cpu", "cuda")
        return Adam(parameters, lr=train.GEN_LR, weight_decay=train.GEN_WD, fused=fused)
    if kind == "sgd":
        return SGD(parameters, lr=train.GEN_LR, momentum=train.GEN_MOMENTUM, weight_decay=train.GEN_WD)
    raise UserError(f"TRAIN.GEN_OPTIM is {train.GEN_OPTIM!r}: use Adam or SGD")


def _without_frozen(state: dict[str, Any], count: int) -> dict[str, Any]:
    """An optimiser state without the body model's parameters, which the original lists last."""
    groups = [{**group, "params": group["params"][:count]} for group in state["param_groups"]]
    return {"state": state["state"], "param_groups": groups}


def seed_everything(seed: int) -> None:
    """Fix the random numbers of Python, NumPy and torch."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - the global generator, for whoever draws from it
    torch.manual_seed(seed)


def get_rng_state() -> dict[str, Any]:
    """The state of every random number generator, as plain values and tensors."""
    name, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002
    state = {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(np.asarray(keys, np.int64)), *rest),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def set_rng_state(state: dict[str, Any]) -> None:
    """Restore what :func:`get_rng_state` gave."""
    random.setstate(state["python"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if "cuda" in state and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])

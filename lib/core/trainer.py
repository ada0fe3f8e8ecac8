"""Training: the loop, its logs, and checkpoints from which it goes on exactly."""

from __future__ import annotations

import logging
import math
import shutil
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm
from yacs.config import CfgNode

from ..dataset.database import Database
from ..dataset.datasets import Batch, ConcatWindows, WindowDataset, get_spec, training_set
from ..dataset.loaders import BatchStream
from ..models.body import BodyData
from ..models.extractors import check_fingerprints, fingerprint
from ..models.precision import check_precision, tf32, use_tf32
from ..models.tcmr import TCMR
from ..models.weights import per_frame_weights
from ..open_data.simulated import SIMULATED, SimulatedStream
from ..utils.errors import UserError
from ..utils.files import atomic_write, load_checkpoint, save_checkpoint
from . import distributed
from .adversary import MotionAdversary
from .build import fingerprint_of
from .config import dump_yaml, to_dict
from .evaluation_set import EvaluationSet
from .evaluator import evaluate
from .loss import TCMRLoss, count_rows, expand_targets, other_weights, velocity_counts
from .optimizer import build_optimizer, restore_optimizer
from .run_folder import BEST_CHECKPOINT, BEST_VALUE, CHECKPOINT
from .schedule import build_schedule
from .seeding import get_rng_state, set_rng_state
from .stopping import StopSignals

logger = logging.getLogger(__name__)

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

    With TRAIN.RESUME it goes on after the stored iteration with the stored weights, optimiser, learning rate,
    random numbers and place in the data; on a CPU every number is what an uninterrupted run would have given.
    It saves every TRAIN.SAVE_EVERY seconds, after each epoch before it validates, and when SIGTERM or SIGINT
    arrives. In a process group (:mod:`lib.core.distributed`) each process computes its part of the same
    batches that one process would take, so a run may also go on with another number of processes.

    Args:
        cfg: the configuration.
        model: the model to train, fresh from :func:`lib.core.build.build_model`.
        body: the body model it was built with.
        device: where to train.

    Raises:
        UserError: a database or the checkpoint is missing or does not fit, or a key's value is impossible.
    """

    def __init__(self, cfg: CfgNode, model: TCMR, body: BodyData, device: torch.device) -> None:
        self.cfg, self.body, self.device = cfg, body, device
        self.folder: Path | None = None
        self.writer: SummaryWriter | None = None
        self.model = model.to(device)
        check_precision(cfg.TRAIN.PRECISION, device, ("fp32", "tf32", "bf16"))
        if cfg.TRAIN.ACCUMULATE < 1:
            raise UserError(f"TRAIN.ACCUMULATE is {cfg.TRAIN.ACCUMULATE}: expected at least 1")
        _check_runs(cfg)
        use_tf32(cfg.TRAIN.PRECISION in ("tf32", "bf16"))  # in bf16, of the GRUs, which autocast leaves out
        forward = self.model.forward_runs
        self.network = torch.compile(forward) if cfg.TRAIN.COMPILE else forward
        self.loss = TCMRLoss(
            e_loss_weight=cfg.LOSS.KP_2D_W,
            e_3d_loss_weight=cfg.LOSS.KP_3D_W,
            e_pose_loss_weight=cfg.LOSS.POSE_W,
            e_shape_loss_weight=cfg.LOSS.SHAPE_W,
            others=other_weights(cfg.LOSS),
        )
        self.parameters = [p for p in model.parameters() if p.requires_grad]  # not the body model's
        self.optimizer = build_optimizer(
            cfg.TRAIN.GEN_OPTIM,
            self.parameters,
            lr=cfg.TRAIN.GEN_LR,
            weight_decay=cfg.TRAIN.GEN_WD,
            momentum=cfg.TRAIN.GEN_MOMENTUM,
        )
        self.learning_rate = build_schedule(self.optimizer, cfg.TRAIN)
        self.validation_set = EvaluationSet(get_spec(cfg.TRAIN.DATASET_EVAL), "val", cfg, validation=True)
        self.validation_set.check(cfg.COMPAT.STATIC_BORDERS)
        self.epoch, self.iteration, self.step = cfg.TRAIN.START_EPOCH, 0, 0  # the iteration is the epoch's
        self.performance = self.best = math.inf
        self.signals, self.stopping = StopSignals(), False
        self.seconds = 0.0  # spent in training steps, with their data
        self._saved = time.monotonic()
        self.seed = cfg.SEED_VALUE if cfg.SEED_VALUE >= 0 else torch.seed() % 2**31
        resumed = self._load(Path(cfg.TRAIN.RESUME)) if cfg.TRAIN.RESUME else {}
        if self.epoch >= cfg.TRAIN.END_EPOCH:
            origin = f"TRAIN.RESUME {cfg.TRAIN.RESUME} has finished" if resumed else "TRAIN.START_EPOCH skips"
            raise UserError(
                f"{origin} {self.epoch} epochs, and TRAIN.END_EPOCH is {cfg.TRAIN.END_EPOCH}: nothing is "
                "left to train; raise TRAIN.END_EPOCH"
            )
        self.seed = distributed.from_main(self.seed)
        distributed.copy_from_main(self.model)
        self.datasets = open_datasets(cfg)
        self.fingerprint = self._check_fingerprints(resumed)
        self.streams = self._open_streams(resumed.get("loaders", {}))
        self.adversary = None
        if cfg.LOSS.D_MOTION_LOSS_W > 0:
            self.adversary = MotionAdversary(
                cfg, self.datasets, device, self.seed, resumed, source=cfg.TRAIN.RESUME
            )
        if "rng" in resumed:
            set_rng_state(resumed["rng"])

    def run(self, folder: Path | None) -> None:
        """Train to END_EPOCH; every epoch is saved, validated and saved again.

        SIGTERM or SIGINT while it trains: the step is finished and saved, and the process ends as that signal
        would have ended it.

        Args:
            folder: the run folder; None in the processes that write nothing.

        Raises:
            UserError: the loss is no longer a finite number.
        """
        self.start_logging(folder)
        try:
            while self.epoch < self.cfg.TRAIN.END_EPOCH and not self.stopping:
                with self.signals:
                    self._train_epoch()
                    self._save()
                self.stopping |= self.signals.number > 0
                if not self.stopping:
                    performance = self.validate(self.epoch) if distributed.is_main() else math.nan
                    self._finish_epoch(distributed.from_main(performance))
        finally:
            if self.writer is not None:
                self.writer.close()
        if self.stopping:
            if self.folder is not None:
                logger.info("stopped after step %d, saved as %s", self.step, self.folder / CHECKPOINT)
            self.signals.end()

    def start_logging(self, folder: Path | None) -> None:
        """Open the TensorBoard log in the run folder, tell what is trained on, and bring the best so far."""
        if folder is None:
            return
        self.folder = folder
        self.writer = SummaryWriter(str(folder))
        self.writer.add_text("config", f"```\n{dump_yaml(self.cfg)}```", 0)
        unit = "windows"
        if self.cfg.TRAIN.RUN_LENGTH > 1:
            unit = f"runs of {self.cfg.TRAIN.RUN_LENGTH} windows"
        for kind, stream in self.streams.items():
            count = len(self.datasets[kind]) if kind in self.datasets else "endless, simulated"
            logger.info("%s training %s: %s, %d per batch", kind.upper(), unit, count, stream.batch_size)
        if self.cfg.TRAIN.RESUME:
            resumed = Path(self.cfg.TRAIN.RESUME)
            for name in (BEST_CHECKPOINT, BEST_VALUE):
                if (resumed.parent / name).is_file():
                    with atomic_write(folder / name) as temporary:
                        shutil.copy2(resumed.parent / name, temporary)
            place = f"goes on after iteration {self.iteration}" if self.iteration else "comes next"
            logger.info(
                "resumed from %s: epoch %d %s, best so far %.4f, learning rate %.3g",
                resumed, self.epoch + 1, place, self.best, self.learning_rate.value,
            )  # fmt: skip

    def _log(self, tag: str, value: float, step: int) -> None:
        if self.writer is not None:
            self.writer.add_scalar(tag, value, step)

    # ---------------------------------------------------------------------------- one epoch

    def _train_epoch(self) -> None:
        """Train what is left of the epoch, or until a signal arrives."""
        self.model.train()
        sums: dict[str, float] = defaultdict(float)
        counts: dict[str, int] = defaultdict(int)
        started, loading = time.perf_counter(), 0.0
        first, iterations = self.iteration, self.cfg.TRAIN.NUM_ITERS_PER_EPOCH
        hidden = None if distributed.is_main() else True  # None: where there is no terminal
        bar = tqdm(total=iterations, initial=first, desc=f"epoch {self.epoch + 1}", disable=hidden)
        with bar:
            while self.iteration < iterations and not self.stopping:
                fetching = time.perf_counter()
                batches = {kind: next(stream) for kind, stream in self.streams.items()}
                loading += time.perf_counter() - fetching
                terms = self.train_step(batches)
                for tag, value in terms.items():
                    self._log(f"train_loss/{tag}", value, self.step)
                    sums[tag] += value
                    counts[tag] += 1
                self.step += 1
                self.iteration += 1
                self.seconds += time.perf_counter() - fetching
                if self.iteration % _POSTFIX_STEPS == 0 or self.iteration == iterations:
                    bar.update(self.iteration - bar.n)
                    bar.set_postfix({tag: f"{sums[tag] / counts[tag]:.3g}" for tag in sums}, refresh=False)
                if 0 < self.cfg.TRAIN.SAVE_EVERY < time.monotonic() - self._saved:
                    self._save()
        if self.iteration == first:
            return
        seconds = time.perf_counter() - started
        samples = (self.iteration - first) * sum(stream.batch_size for stream in self.streams.values())
        samples *= self.cfg.TRAIN.RUN_LENGTH
        self._log("throughput/samples_per_second", samples / seconds, self.epoch)
        self._log("throughput/loading_share", loading / seconds, self.epoch)
        means = ", ".join(f"{tag} {sums[tag] / counts[tag]:.4f}" for tag in sums)
        logger.info(
            "Epoch %d: %s; lr %.3g; %.1f samples/s, %.0f%% loading",
            self.epoch + 1, means, self.learning_rate.value, samples / seconds, 100 * loading / seconds,
        )  # fmt: skip

    def _finish_epoch(self, performance: float) -> None:
        """Take note of what validation measured, and save."""
        self.learning_rate.after_epoch(performance)
        self._log("lr/gen_lr", self.learning_rate.value, self.epoch)
        if self.adversary is not None:
            self.adversary.learning_rate.after_epoch(performance)
            self._log("lr/dis_lr", self.adversary.learning_rate.value, self.epoch)
        improved = performance < self.best
        self.performance, self.best = performance, min(self.best, performance)
        self.epoch, self.iteration = self.epoch + 1, 0
        self._save(improved)

    def train_step(self, batches: dict[str, Batch]) -> dict[str, float]:
        """One update of the weights from this process's part of a batch.

        Returns:
            the weighted loss terms of the whole batch, and ``loss``, the sum that the network minimises.

        Raises:
            UserError: the loss is not finite.
        """
        self.learning_rate.before_iteration(self.step)
        if distributed.rank() > 0:  # process 0 keeps the one series of numbers that checkpoints hold
            torch.manual_seed((self.seed * 1_000_003 + self.step * 1_009 + distributed.rank()) % 2**63)
        batches = {
            kind: {key: values.to(self.device, non_blocking=True) for key, values in batch.items()}
            for kind, batch in batches.items()
        }
        outputs, run_length = self.model.encoder.outputs, self.cfg.TRAIN.RUN_LENGTH
        rows = count_rows(*_pair({kind: expand_targets(batch, outputs) for kind, batch in batches.items()}))
        numbers = torch.stack([rows, velocity_counts(*_pair(batches))])
        counts, pairs = distributed.sum_over_processes(numbers)
        self.optimizer.zero_grad(set_to_none=True)
        sums: dict[str, torch.Tensor] = {}
        total = torch.zeros((), device=self.device)
        for part in _split(batches, self.cfg.TRAIN.ACCUMULATE):
            features = torch.cat([batch["features"] for batch in part.values()])  # 2D samples come first
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.cfg.TRAIN.PRECISION == "bf16"):
                predictions = self.network(features, run_length)
            targets = {kind: expand_targets(batch, outputs) for kind, batch in part.items()}
            loss, terms = self.loss(predictions, *_pair(targets), counts, run_length, pairs)
            loss.backward()
            total = total + loss.detach()
            for tag, value in terms.items():
                sums[tag] = sums.get(tag, 0.0) + value.detach()
        if self.adversary is not None:
            motions = self.adversary.predict(self.model)
            term = self.adversary.generator_term(motions)
            term.backward()
            sums["e_m_disc_loss"] = term.detach()
            total = total + term.detach()
        stop = total.new_full((), self.signals.number or distributed.orphaned())
        values = _to_numbers({**sums, "loss": total, "rows_smpl": counts[2], "stop": stop})
        self.stopping = values.pop("stop") > 0  # if one process stops, all do, after the same step
        if not values.pop("rows_smpl"):  # the original leaves these terms out
            values = {tag: value for tag, value in values.items() if tag not in ("loss_pose", "loss_shape")}
        if not math.isfinite(values["loss"]):
            raise self._diverged(f"the loss is {values['loss']} (terms: {values})")
        distributed.sum_gradients(self.parameters)
        if self.cfg.TRAIN.GRAD_CLIP > 0:
            nn.utils.clip_grad_norm_(self.parameters, self.cfg.TRAIN.GRAD_CLIP)
        self.optimizer.step()
        if self.adversary is not None and (terms := self.adversary.update(motions, self.step)):
            values.update(_to_numbers(terms))
        return values

    def _diverged(self, what: str) -> UserError:
        return UserError(
            f"{what} at step {self.step}: training ends. Look at the database's values, lower TRAIN.GEN_LR "
            f"or set TRAIN.GRAD_CLIP; TRAIN.RESUME goes on from the last {CHECKPOINT}"
        )

    def validate(self, epoch: int) -> float:
        """Measure the model on the validation split, log it, and return the PA-MPJPE in mm."""
        self.model.eval()
        compat = self.cfg.COMPAT
        with tf32(False):  # validation is the same measurement as evaluate.py
            evaluation = evaluate(
                self.model,
                self.validation_set,
                self.body,
                static_borders=compat.STATIC_BORDERS,
                progress=True,
            )
        if compat.VALIDATION:
            evaluation = evaluation.with_accel_across_videos()
        errors = evaluation.summary()
        present = {key: tag for key, tag in _VALIDATION_TAGS.items() if key in errors}
        for key, tag in present.items():
            self._log(f"error/{tag}", errors[key], epoch)
        text = " ".join(f"{tag.upper()}: {errors[key]:.4f}," for key, tag in present.items())
        logger.info("Epoch %d, %s", epoch, text)
        logger.info("Epoch %d performance: %.4f", epoch + 1, errors["mpjpe_pa"])
        return errors["mpjpe_pa"]

    # ---------------------------------------------------------------------------- data

    def _open_streams(self, positions: dict[str, int]) -> dict[str, BatchStream | SimulatedStream]:
        """The endless batches of the 2D and the 3D sets that are there, or of simulated data.

        A stream gives what a batch of :class:`WindowDataset` holds, ``batch_size`` runs at a time, and its
        ``position`` is stored in checkpoints.
        """
        train, simulated = self.cfg.TRAIN, uses_simulation(self.cfg)
        windows = dict.fromkeys(["3d"] if simulated else self.datasets, train.BATCH_SIZE)
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
                self.cfg,
                self.body,
                self.device,
                sizes["3d"],
                seed=self.seed,
                start=positions.get("3d", 0),
                rank=distributed.rank(),
                world=world,
            )
            return {"3d": stream}
        streams: dict[str, BatchStream | SimulatedStream] = {}
        for number, (kind, dataset) in enumerate(self.datasets.items()):
            streams[kind] = BatchStream(
                dataset,
                sizes[kind],
                seed=2 * self.seed + number,
                start=positions.get(kind, 0),
                workers=self.cfg.NUM_WORKERS,
                pin_memory=self.device.type == "cuda",
                rank=distributed.rank(),
                world=world,
            )
        return streams

    # ---------------------------------------------------------------------------- checkpoints

    def _save(self, best: bool = False) -> None:
        """Write the checkpoint, and before it, as it refers to it, the best model if this is the one.

        Raises:
            UserError: a weight is no longer a finite number; then nothing is written.
        """
        self._saved = time.monotonic()
        for name, weight in self.model.named_parameters():
            if not weight.isfinite().all():
                raise self._diverged(f"{name} holds numbers that are not finite")
        if self.folder is None:
            return
        adversary = self.adversary
        streams = {**self.streams, **(adversary.streams if adversary is not None else {})}
        checkpoint = {
            "epoch": self.epoch - 1,  # the last that was finished, from 0
            "iteration": self.iteration,  # of the next
            "gen_state_dict": self.model.state_dict(),
            "performance": self.performance,
            "gen_optimizer": self.optimizer.state_dict(),
            "scheduler": self.learning_rate.state_dict(),
            "best": self.best,
            "step": self.step,
            "seed": self.seed,
            "loaders": {kind: stream.position for kind, stream in streams.items()},
            "rng": get_rng_state(),
            "config": to_dict(self.cfg),
            "body": self.body.kind,
            "fingerprint": self.fingerprint,
            "training": {"seconds": self.seconds, "device": device_name(self.device)},
            **(adversary.state_dict() if adversary is not None else {}),
        }
        if best:
            logger.info("best performance so far, saved as %s", BEST_CHECKPOINT)
            save_checkpoint(checkpoint, self.folder / BEST_CHECKPOINT)
            with atomic_write(self.folder / BEST_VALUE) as temporary:
                temporary.write_text(f"{self.best}\n")
        save_checkpoint(checkpoint, self.folder / CHECKPOINT)

    def _check_fingerprints(self, resumed: Mapping[str, Any]) -> str:
        """The fingerprint of the extractor that all features of this run come from, '' if no file tells it.

        Raises:
            UserError: features of different extractors meet.
        """
        parts = [part for windows in self.datasets.values() for part in windows.datasets]
        databases = [part.database for part in parts if isinstance(part, WindowDataset)]
        found = {str(data.path): data.fingerprint for data in databases if isinstance(data, Database)}
        found[str(self.validation_set.path)] = self.validation_set.fingerprint
        if start := self.cfg.TRAIN.PRETRAINED_REGRESSOR:
            found[start] = fingerprint(per_frame_weights(load_checkpoint(start), start))
        found[self.cfg.TRAIN.RESUME] = fingerprint_of(resumed)
        return check_fingerprints(found)

    def _load(self, path: Path) -> dict[str, Any]:
        """Restore all but the random numbers and the data, and return the checkpoint."""
        checkpoint = load_checkpoint(path)
        needed = ("epoch", "gen_state_dict", "performance", "gen_optimizer")
        if missing := [key for key in needed if key not in checkpoint]:
            raise UserError(
                f"TRAIN.RESUME {path} lacks {', '.join(missing)}: give a {CHECKPOINT} that training wrote "
                "(from an exported one training cannot go on)"
            )
        self.epoch, self.iteration = checkpoint["epoch"] + 1, checkpoint.get("iteration", 0)
        self.model.load_weights(checkpoint["gen_state_dict"], checkpoint.get("body"), source=path)
        self.performance = float(checkpoint["performance"])
        self.best = float(checkpoint.get("best", self.performance))
        self.seconds = float(checkpoint.get("training", {}).get("seconds", 0.0))
        self.step = checkpoint.get("step", self.epoch * self.cfg.TRAIN.NUM_ITERS_PER_EPOCH + self.iteration)
        self.seed = checkpoint.get("seed", self.seed)
        stored = _without_frozen(checkpoint["gen_optimizer"], len(self.parameters))
        setting = f"TRAIN.GEN_OPTIM {self.cfg.TRAIN.GEN_OPTIM}"
        restore_optimizer(self.optimizer, stored, f"TRAIN.RESUME {path}", setting)
        self.learning_rate.load_state_dict(checkpoint.get("scheduler", {}))
        return checkpoint


def device_name(device: torch.device) -> str:
    """What trains: the GPU's name, or how many CPU threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {torch.get_num_threads()} threads"


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


def _check_runs(cfg: CfgNode) -> None:
    length = cfg.TRAIN.RUN_LENGTH
    if cfg.LOSS.VELOCITY_W > 0 and length == 1:
        raise UserError(
            f"LOSS.VELOCITY_W is {cfg.LOSS.VELOCITY_W} but TRAIN.RUN_LENGTH is 1: velocities need runs of at "
            "least 2 windows; raise TRAIN.RUN_LENGTH or set LOSS.VELOCITY_W to 0.0"
        )
    if length > 1 and (cfg.COMPAT.TRAIN_WINDOWS or not cfg.TRAIN.OVERLAP):
        raise UserError(
            f"TRAIN.RUN_LENGTH {length} needs a window for every frame: set TRAIN.OVERLAP to True and "
            "COMPAT.TRAIN_WINDOWS to False, or TRAIN.RUN_LENGTH to 1"
        )


def _pair(batches: dict[str, Batch]) -> tuple[Batch | None, Batch | None]:
    """What has only 2D, and what has 3D."""
    return batches.get("2d"), batches.get("3d")


def _split(batches: dict[str, Batch], parts: int) -> Iterator[dict[str, Batch]]:
    """Batches cut into about equal parts; a kind of data is absent from a part without rows of it."""
    for number in range(parts):
        part = {
            kind: {key: values.tensor_split(parts)[number] for key, values in batch.items()}
            for kind, batch in batches.items()
        }
        if present := {kind: batch for kind, batch in part.items() if len(batch["features"])}:
            yield present


def _to_numbers(terms: dict[str, torch.Tensor]) -> dict[str, float]:
    """Scalars of this process, summed over all processes: together, as each copy from a GPU waits for it."""
    summed = distributed.sum_over_processes(torch.stack(list(terms.values())).detach())
    return dict(zip(terms, summed.tolist()))


def _without_frozen(state: dict[str, Any], count: int) -> dict[str, Any]:
    """An optimiser state without the body model's parameters, which the original lists last."""
    groups = [{**group, "params": group["params"][:count]} for group in state["param_groups"]]
    return {"state": state["state"], "param_groups": groups}

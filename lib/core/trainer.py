"""Training: the loop, its logs, and checkpoints from which it goes on exactly."""

from __future__ import annotations

import logging
import math
import shutil
import time
from collections import defaultdict
from pathlib import Path

import torch
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm
from yacs.config import CfgNode

from ..dataset.datasets import get_spec
from ..dataset.training import Batch
from ..models.body import BodyData
from ..models.precision import tf32
from ..models.tcmr import TCMR
from ..utils.files import atomic_write
from . import distributed
from .adversary import MotionAdversary
from .config import dump_yaml, to_dict
from .evaluation_set import EvaluationSet
from .evaluator import evaluate
from .learner import Learner, check_settings
from .run_folder import BEST_CHECKPOINT, BEST_VALUE, CHECKPOINT
from .stopping import StopSignals
from .training_checkpoint import Resumed, write_checkpoint
from .training_data import common_fingerprint, open_datasets, open_streams

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
        check_settings(cfg, device)
        resumed = Resumed(cfg)
        self.cfg, self.body, self.device = cfg, body, device
        self.folder: Path | None = None
        self.writer: SummaryWriter | None = None
        self.signals, self.stopping = StopSignals(), False
        self._saved = time.monotonic()
        self.place = resumed.place()
        self.place.seed = seed = distributed.from_main(self.place.seed)
        self.model = model.to(device)
        resumed.restore_weights(model)
        distributed.copy_from_main(model)
        self.validation_set = EvaluationSet(get_spec(cfg.TRAIN.DATASET_EVAL), "val", cfg, validation=True)
        self.validation_set.check(cfg.COMPAT.STATIC_BORDERS)
        self.datasets = open_datasets(cfg)
        self.fingerprint = common_fingerprint(cfg, self.datasets, self.validation_set, resumed.content)
        self.streams = open_streams(cfg, self.datasets, body, device, seed, resumed.positions)
        adversary = None
        if cfg.LOSS.D_MOTION_LOSS_W > 0:
            adversary = MotionAdversary(
                cfg, self.datasets, device, seed, resumed.content, source=cfg.TRAIN.RESUME
            )
        self.learner = Learner(cfg, model, device, seed=seed, adversary=adversary)
        resumed.restore_optimizer(self.learner)
        resumed.restore_random_numbers()  # last: what is made above draws some

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
            while self.place.epoch < self.cfg.TRAIN.END_EPOCH and not self.stopping:
                with self.signals:
                    self._train_epoch()
                    self.save()
                self.stopping |= self.signals.number > 0
                if not self.stopping:
                    performance = self.validate(self.place.epoch) if distributed.is_main() else math.nan
                    self._finish_epoch(distributed.from_main(performance))
        finally:
            if self.writer is not None:
                self.writer.close()
        if self.stopping:
            if self.folder is not None:
                logger.info("stopped after step %d, saved as %s", self.place.step, self.folder / CHECKPOINT)
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
            resumed, place = Path(self.cfg.TRAIN.RESUME), self.place
            for name in (BEST_CHECKPOINT, BEST_VALUE):
                if (resumed.parent / name).is_file():
                    with atomic_write(folder / name) as temporary:
                        shutil.copy2(resumed.parent / name, temporary)
            where = f"goes on after iteration {place.iteration}" if place.iteration else "comes next"
            logger.info(
                "resumed from %s: epoch %d %s, best so far %.4f, learning rate %.3g",
                resumed, place.epoch + 1, where, place.best, self.learner.learning_rate.value,
            )  # fmt: skip

    def _log(self, tag: str, value: float, step: int) -> None:
        if self.writer is not None:
            self.writer.add_scalar(tag, value, step)

    def _train_epoch(self) -> None:
        """Train what is left of the epoch, or until a signal arrives."""
        place = self.place
        self.model.train()
        sums: dict[str, float] = defaultdict(float)
        counts: dict[str, int] = defaultdict(int)
        started, loading = time.perf_counter(), 0.0
        first, iterations = place.iteration, self.cfg.TRAIN.NUM_ITERS_PER_EPOCH
        hidden = None if distributed.is_main() else True  # None: where there is no terminal
        bar = tqdm(total=iterations, initial=first, desc=f"epoch {place.epoch + 1}", disable=hidden)
        with bar:
            while place.iteration < iterations and not self.stopping:
                fetching = time.perf_counter()
                batches = {kind: next(stream) for kind, stream in self.streams.items()}
                loading += time.perf_counter() - fetching
                terms = self.train_step(batches)
                for tag, value in terms.items():
                    self._log(f"train_loss/{tag}", value, place.step)
                    sums[tag] += value
                    counts[tag] += 1
                place.step += 1
                place.iteration += 1
                place.seconds += time.perf_counter() - fetching
                if place.iteration % _POSTFIX_STEPS == 0 or place.iteration == iterations:
                    bar.update(place.iteration - bar.n)
                    bar.set_postfix({tag: f"{sums[tag] / counts[tag]:.3g}" for tag in sums}, refresh=False)
                if 0 < self.cfg.TRAIN.SAVE_EVERY < time.monotonic() - self._saved:
                    self.save()
        if place.iteration == first:
            return
        seconds = time.perf_counter() - started
        samples = (place.iteration - first) * sum(stream.batch_size for stream in self.streams.values())
        samples *= self.cfg.TRAIN.RUN_LENGTH
        self._log("throughput/samples_per_second", samples / seconds, place.epoch)
        self._log("throughput/loading_share", loading / seconds, place.epoch)
        rate = self.learner.learning_rate.value
        means = ", ".join(f"{tag} {sums[tag] / counts[tag]:.4f}" for tag in sums)
        logger.info(
            "Epoch %d: %s; lr %.3g; %.1f samples/s, %.0f%% loading",
            place.epoch + 1, means, rate, samples / seconds, 100 * loading / seconds,
        )  # fmt: skip

    def _finish_epoch(self, performance: float) -> None:
        """Take note of what validation measured, and save."""
        place, learner = self.place, self.learner
        for tag, learns in (("lr/gen_lr", learner), ("lr/dis_lr", learner.adversary)):
            if learns is not None:
                learns.learning_rate.after_epoch(performance)
                self._log(tag, learns.learning_rate.value, place.epoch)
        improved = performance < place.best
        place.performance, place.best = performance, min(place.best, performance)
        place.epoch, place.iteration = place.epoch + 1, 0
        self.save(improved)

    def train_step(self, batches: dict[str, Batch]) -> dict[str, float]:
        """The next :meth:`Learner.step`, and its loss terms."""
        terms, self.stopping = self.learner.step(
            batches, self.place.step, lambda: self.signals.number > 0 or distributed.orphaned()
        )
        return terms

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

    def save(self, best: bool = False) -> None:
        """Write the checkpoint, with ``best`` as the best model, too.

        Raises:
            UserError: a weight is no longer a finite number; then nothing is written.
        """
        self._saved = time.monotonic()
        self.learner.check_weights(self.place.step)
        if self.folder is None:
            return
        adversary = self.learner.adversary
        streams = {**self.streams, **(adversary.streams if adversary is not None else {})}
        positions = {kind: stream.position for kind, stream in streams.items()}
        facts = {"config": to_dict(self.cfg), "body": self.body.kind, "fingerprint": self.fingerprint}
        write_checkpoint(self.folder, self.place, self.learner, positions, facts, best=best)

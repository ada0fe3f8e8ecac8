"""Training against a motion discriminator: predicted motion should look like captured motion."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from yacs.config import CfgNode

from ..dataset.datasets import find_database
from ..dataset.loaders import BatchStream
from ..dataset.sequences import RealMotions, video_sequences
from ..dataset.training import BatchDataset, ConcatWindows
from ..models.encoder import run_windows
from ..models.motion_discriminator import MotionDiscriminator
from ..models.tcmr import TCMR
from ..utils.errors import UserError
from . import distributed
from .loss import lsgan_discriminator_loss, lsgan_generator_loss
from .optimizer import build_optimizer, restore_optimizer
from .schedule import build_schedule

logger = logging.getLogger(__name__)

BODY_POSE = slice(6, 75)  # of theta: axis-angle of all joints but the root


class MotionAdversary:
    """The motion discriminator of VIBE, fitted to a network that predicts one frame per window.

    A motion is T = DATASET.SEQLEN consecutive body poses (T, 69). Real ones are windows of AMASS (database
    ``amass_train``). TCMR's training outputs are three guesses at the middle frame of single windows that
    have nothing to do with each other, so they are no motion. Predicted motions are therefore made apart from
    the batch: TRAIN.MOT_DISCR.SEQUENCES runs of T consecutive frames are drawn from the videos of
    TRAIN.DATASETS_3D (whose frame rate is known to be regular), and the integrated output, the one that
    counts when the network is used, is predicted for each frame from its own window. The windows of a run
    share 2 T - 1 feature vectors and much of the encoder's work, and the gradient goes through all of it.

    Every iteration the network's loss gains ``D_MOTION_LOSS_W * mean((D(predicted) - 1)^2)``. Every
    UPDATE_STEPS-th iteration the discriminator then learns from the same predictions and as many real
    motions: ``D_MOTION_LOSS_W * (mean((D(real) - 1)^2) + mean(D(predicted)^2))``. Its learning rate follows
    TRAIN.LR_SCHEDULE as the network's does.

    Args:
        cfg: the configuration.
        datasets: the training sets; the videos of ``3d`` are used.
        device: where to train.
        seed: decides the order of the data.
        state: a checkpoint to go on from, as :meth:`state_dict` filled it; one without a discriminator
            starts a fresh one.
        source: the checkpoint's name, for errors.

    Raises:
        UserError: data is missing or does not fit, or a key's value is impossible.
    """

    def __init__(
        self,
        cfg: CfgNode,
        datasets: Mapping[str, ConcatWindows],
        device: torch.device,
        seed: int,
        state: Mapping[str, Any],
        source: str | Path,
    ) -> None:
        settings = cfg.TRAIN.MOT_DISCR
        self.weight: float = cfg.LOSS.D_MOTION_LOSS_W
        self.sequences: int = settings.SEQUENCES
        self.update_steps, self.device = settings.UPDATE_STEPS, device
        _check(cfg)
        self.discriminator = _build_discriminator(settings).to(device)
        self.parameters = list(self.discriminator.parameters())
        self.optimizer = build_optimizer(
            settings.OPTIM,
            self.parameters,
            lr=settings.LR,
            weight_decay=settings.WD,
            momentum=settings.MOMENTUM,
        )
        self.learning_rate = build_schedule(self.optimizer, cfg.TRAIN)
        if "disc_motion_optimizer" in state:
            self._load_weights(state["disc_motion_state_dict"], source)
            setting = f"TRAIN.MOT_DISCR.OPTIM {settings.OPTIM}"
            restore_optimizer(self.optimizer, state["disc_motion_optimizer"], str(source), setting)
            self.learning_rate.load_state_dict(state.get("disc_motion_scheduler", {}))
        elif state:
            logger.info("%s holds no motion discriminator: training starts a fresh one", source)
        distributed.copy_from_main(self.discriminator)

        seqlen, positions = cfg.DATASET.SEQLEN, state.get("loaders", {})
        sources: dict[str, BatchDataset] = {
            "sequences": video_sequences(datasets["3d"], seqlen),
            "motions": RealMotions(_amass(cfg), seqlen),
        }
        self.streams = {
            kind: BatchStream(
                dataset,
                self.sequences,
                seed=2 * seed + number,
                start=positions.get(kind, 0),
                workers=cfg.NUM_WORKERS,
                pin_memory=device.type == "cuda",
                rank=distributed.rank(),
                world=distributed.world(),
            )
            for number, (kind, dataset) in enumerate(sources.items(), start=2)
        }

    def predict(self, model: TCMR) -> Float[Tensor, "n t 69"]:
        """Motions that ``model`` predicts for the next sequences, with their gradient."""
        features = self._next("sequences", "features")
        windows = run_windows(len(features), model.seqlen, model.seqlen, self.device)
        output = model.predict_windows(features.flatten(0, 1), windows, return_verts=False)
        return torch.unflatten(output["theta"][:, BODY_POSE], 0, (len(features), model.seqlen))

    def generator_term(self, motions: Float[Tensor, "n t 69"]) -> Float[Tensor, ""]:
        """What the network's loss gains for predicted motions; leaves the discriminator alone."""
        self.discriminator.train().requires_grad_(False)
        loss = lsgan_generator_loss(self.discriminator(motions), self.sequences)
        return self.weight * loss

    def update(self, motions: Float[Tensor, "n t 69"], step: int) -> dict[str, Tensor]:
        """Teach the discriminator, in iterations that are its turn, to tell ``motions`` from real ones.

        Returns:
            its loss terms, or nothing if it is not its turn.
        """
        self.learning_rate.before_iteration(step)
        if step % self.update_steps:
            return {}
        self.discriminator.train().requires_grad_(True)
        real_motions = self._next("motions", "theta")[..., BODY_POSE]
        real, fake = self.discriminator(torch.cat((real_motions, motions.detach()))).chunk(2)
        terms = [self.weight * term for term in lsgan_discriminator_loss(real, fake, self.sequences)]
        self.optimizer.zero_grad(set_to_none=True)
        terms[-1].backward()
        distributed.sum_gradients(self.parameters)
        self.optimizer.step()
        names = ("d_m_disc_real", "d_m_disc_fake", "d_m_disc_loss")
        return {name: term.detach() for name, term in zip(names, terms)}

    def state_dict(self) -> dict[str, Any]:
        """Its part of a checkpoint, under the original's names; places in the data are not among it."""
        return {
            "disc_motion_state_dict": self.discriminator.state_dict(),
            "disc_motion_optimizer": self.optimizer.state_dict(),
            "disc_motion_scheduler": self.learning_rate.state_dict(),
        }

    def _load_weights(self, weights: Mapping[str, Tensor], source: str | Path) -> None:
        try:
            self.discriminator.load_state_dict(weights)
        except RuntimeError as error:
            raise UserError(f"{source} does not fit the settings in TRAIN.MOT_DISCR: {error}") from error

    def _next(self, stream: str, key: str) -> Tensor:
        return next(self.streams[stream])[key].to(self.device, non_blocking=True)


def _check(cfg: CfgNode) -> None:
    settings = cfg.TRAIN.MOT_DISCR
    if not cfg.TRAIN.DATASETS_3D:
        raise UserError(
            "LOSS.D_MOTION_LOSS_W is above 0 but TRAIN.DATASETS_3D is empty: the motion discriminator needs "
            "3D videos; name a dataset there or set the weight to 0.0"
        )
    if distributed.world() > settings.SEQUENCES:
        raise UserError(
            f"TRAIN.MOT_DISCR.SEQUENCES is {settings.SEQUENCES}: expected at least 1 for each of the "
            f"{distributed.world()} process(es)"
        )
    if settings.UPDATE_STEPS < 1:
        raise UserError(f"TRAIN.MOT_DISCR.UPDATE_STEPS is {settings.UPDATE_STEPS}: expected at least 1")
    if settings.FEATURE_POOL not in ("concat", "attention", "last"):
        raise UserError(
            f"TRAIN.MOT_DISCR.FEATURE_POOL is {settings.FEATURE_POOL!r}: use concat, attention or last"
        )
    if settings.FEATURE_POOL == "attention" and settings.ATT.SIZE != settings.HIDDEN_SIZE:
        raise UserError(
            f"TRAIN.MOT_DISCR.ATT.SIZE is {settings.ATT.SIZE}: attention weighs the GRU's states, so it must "
            f"equal TRAIN.MOT_DISCR.HIDDEN_SIZE {settings.HIDDEN_SIZE}"
        )


def _amass(cfg: CfgNode) -> Path:
    path = find_database("amass_train", cfg)
    if not path.is_file():
        raise UserError(
            f"LOSS.D_MOTION_LOSS_W is {cfg.LOSS.D_MOTION_LOSS_W} (the default is 1.0) and "
            f"needs real motions, but database {path} does not exist: make it from AMASS (docs/data.md), or "
            "set LOSS.D_MOTION_LOSS_W to 0.0"
        )
    return path


def _build_discriminator(settings: CfgNode) -> MotionDiscriminator:
    return MotionDiscriminator(
        rnn_size=settings.HIDDEN_SIZE,
        input_size=BODY_POSE.stop - BODY_POSE.start,
        num_layers=settings.NUM_LAYERS,
        output_size=1,
        feature_pool=settings.FEATURE_POOL,
        attention_size=settings.ATT.SIZE,
        attention_layers=settings.ATT.LAYERS,
        attention_dropout=settings.ATT.DROPOUT,
    )

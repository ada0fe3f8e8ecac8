"""Where a training run is, and the checkpoint from which it goes on exactly."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from yacs.config import CfgNode

from ..models.tcmr import TCMR
from ..utils.errors import UserError
from ..utils.files import atomic_write, load_checkpoint, save_checkpoint
from .learner import Learner
from .optimizer import restore_optimizer
from .run_folder import BEST_CHECKPOINT, BEST_VALUE, CHECKPOINT
from .seeding import get_rng_state, set_rng_state

logger = logging.getLogger(__name__)


@dataclass
class Place:
    """Where a run is; all counted from 0."""

    seed: int
    epoch: int
    iteration: int = 0  # of the epoch, the next
    step: int = 0  # of the whole run, the next
    performance: float = math.inf  # PA-MPJPE in mm of the last validation
    best: float = math.inf
    seconds: float = 0.0  # spent in steps, with their data

    def state_dict(self) -> dict[str, Any]:
        """Its part of a checkpoint, all but the seconds."""
        return {
            "epoch": self.epoch - 1,  # the last that was finished
            "iteration": self.iteration,
            "step": self.step,
            "seed": self.seed,
            "performance": self.performance,
            "best": self.best,
        }


class Resumed:
    """The checkpoint that TRAIN.RESUME names; without one, nothing is restored.

    Attributes:
        content: what the file holds, {} without one.

    Raises:
        UserError: it cannot be read, or training did not write it.
    """

    def __init__(self, cfg: CfgNode) -> None:
        self.cfg, self.path = cfg, cfg.TRAIN.RESUME
        self.content: dict[str, Any] = load_checkpoint(self.path) if self.path else {}
        needed = ("epoch", "gen_state_dict", "performance", "gen_optimizer") if self.path else ()
        if missing := [key for key in needed if key not in self.content]:
            raise UserError(
                f"TRAIN.RESUME {self.path} lacks {', '.join(missing)}: give a {CHECKPOINT} that training "
                "wrote (from an exported one training cannot go on)"
            )

    def place(self) -> Place:
        """Where training goes on, or begins.

        Raises:
            UserError: after its end.
        """
        train, stored = self.cfg.TRAIN, self.content
        seed = self.cfg.SEED_VALUE if self.cfg.SEED_VALUE >= 0 else torch.seed() % 2**31
        place = Place(seed, train.START_EPOCH)
        if stored:
            epoch, iteration = stored["epoch"] + 1, stored.get("iteration", 0)
            performance = float(stored["performance"])
            place = Place(
                stored.get("seed", seed),
                epoch,
                iteration,
                stored.get("step", epoch * train.NUM_ITERS_PER_EPOCH + iteration),
                performance,
                float(stored.get("best", performance)),
                float(stored.get("training", {}).get("seconds", 0.0)),
            )
        if place.epoch >= train.END_EPOCH:
            origin = f"TRAIN.RESUME {self.path} has finished" if stored else "TRAIN.START_EPOCH skips"
            raise UserError(
                f"{origin} {place.epoch} epochs, and TRAIN.END_EPOCH is {train.END_EPOCH}: nothing is "
                "left to train; raise TRAIN.END_EPOCH"
            )
        return place

    @property
    def positions(self) -> dict[str, int]:
        """Samples drawn from each stream of data."""
        return dict(self.content.get("loaders", {}))

    def restore_weights(self, model: TCMR) -> None:
        if self.content:
            model.load_weights(self.content["gen_state_dict"], self.content.get("body"), source=self.path)

    def restore_optimizer(self, learner: Learner) -> None:
        """Give the network's optimiser and learning rate back what they had."""
        if self.content:
            stored = _without_frozen(self.content["gen_optimizer"], len(learner.parameters))
            setting = f"TRAIN.GEN_OPTIM {self.cfg.TRAIN.GEN_OPTIM}"
            restore_optimizer(learner.optimizer, stored, f"TRAIN.RESUME {self.path}", setting)
            learner.learning_rate.load_state_dict(self.content.get("scheduler", {}))

    def restore_random_numbers(self) -> None:
        if "rng" in self.content:
            set_rng_state(self.content["rng"])


def write_checkpoint(
    folder: Path,
    place: Place,
    learner: Learner,
    positions: Mapping[str, int],
    facts: Mapping[str, Any],
    *,
    best: bool = False,
) -> None:
    """Write the checkpoint, and before it, as it refers to it, the best model if this is the one.

    Args:
        positions: samples drawn from each stream of data.
        facts: what else the checkpoint tells.
    """
    checkpoint = {
        **place.state_dict(),
        **learner.state_dict(),
        "loaders": dict(positions),
        "rng": get_rng_state(),
        "training": {"seconds": place.seconds, "device": device_name(learner.device)},
        **facts,
    }
    if best:
        logger.info("best performance so far, saved as %s", BEST_CHECKPOINT)
        save_checkpoint(checkpoint, folder / BEST_CHECKPOINT)
        with atomic_write(folder / BEST_VALUE) as temporary:
            temporary.write_text(f"{place.best}\n")
    save_checkpoint(checkpoint, folder / CHECKPOINT)


def device_name(device: torch.device) -> str:
    """What trains: the GPU's name, or how many CPU threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {torch.get_num_threads()} threads"


def _without_frozen(state: dict[str, Any], count: int) -> dict[str, Any]:
    """An optimiser state without the body model's parameters, which the original lists last."""
    groups = [{**group, "params": group["params"][:count]} for group in state["param_groups"]]
    return {"state": state["state"], "param_groups": groups}

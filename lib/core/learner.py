"""One update of the weights: of the network, and of the motion discriminator beside it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from yacs.config import CfgNode

from ..dataset.training import Batch
from ..models.precision import check_precision, use_tf32
from ..models.tcmr import TCMR
from ..utils.errors import UserError
from . import distributed
from .adversary import MotionAdversary
from .loss import TCMRLoss, count_rows, expand_targets, other_weights, velocity_counts
from .optimizer import build_optimizer
from .run_folder import CHECKPOINT
from .schedule import build_schedule


def check_settings(cfg: CfgNode, device: torch.device) -> None:
    """Whether steps can be computed as the configuration says.

    Raises:
        UserError: a key's value is impossible.
    """
    check_precision(cfg.TRAIN.PRECISION, device, ("fp32", "tf32", "bf16"))
    if cfg.TRAIN.ACCUMULATE < 1:
        raise UserError(f"TRAIN.ACCUMULATE is {cfg.TRAIN.ACCUMULATE}: expected at least 1")
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


class Learner:
    """Updates a model's weights as ``cfg`` says.

    Args:
        model: on its device, with the weights that it starts from.
        seed: decides the random numbers of other processes than the first.
        adversary: the motion discriminator that learns beside it.

    Attributes:
        parameters: those that learn; the body model's do not.
        optimizer, learning_rate: the network's.
    """

    def __init__(
        self,
        cfg: CfgNode,
        model: TCMR,
        device: torch.device,
        *,
        seed: int,
        adversary: MotionAdversary | None = None,
    ) -> None:
        self.settings, self.model, self.device = cfg.TRAIN, model, device
        self.seed, self.adversary = seed, adversary
        use_tf32(cfg.TRAIN.PRECISION in ("tf32", "bf16"))  # in bf16, of the GRUs, which autocast leaves out
        self.network = torch.compile(model.forward_runs) if cfg.TRAIN.COMPILE else model.forward_runs
        self.loss = TCMRLoss(
            e_loss_weight=cfg.LOSS.KP_2D_W,
            e_3d_loss_weight=cfg.LOSS.KP_3D_W,
            e_pose_loss_weight=cfg.LOSS.POSE_W,
            e_shape_loss_weight=cfg.LOSS.SHAPE_W,
            others=other_weights(cfg.LOSS),
        )
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = build_optimizer(
            cfg.TRAIN.GEN_OPTIM,
            self.parameters,
            lr=cfg.TRAIN.GEN_LR,
            weight_decay=cfg.TRAIN.GEN_WD,
            momentum=cfg.TRAIN.GEN_MOMENTUM,
        )
        self.learning_rate = build_schedule(self.optimizer, cfg.TRAIN)

    def step(
        self, batches: dict[str, Batch], number: int, stop: Callable[[], bool]
    ) -> tuple[dict[str, float], bool]:
        """Update the weights from this process's part of a batch.

        Args:
            number: of the step in the whole run, from 0.
            stop: whether this process wants to stop after it; asked when the gradients are there.

        Returns:
            the weighted loss terms of the whole batch, and ``loss``, the sum that the network minimises; and
            whether a process wants to stop.

        Raises:
            UserError: the loss is not finite.
        """
        self.learning_rate.before_iteration(number)
        if distributed.rank() > 0:  # process 0 keeps the one series of numbers that checkpoints hold
            torch.manual_seed((self.seed * 1_000_003 + number * 1_009 + distributed.rank()) % 2**63)
        self.optimizer.zero_grad(set_to_none=True)
        total, sums, rows_smpl = self._add_gradients(
            {
                kind: {key: values.to(self.device, non_blocking=True) for key, values in batch.items()}
                for kind, batch in batches.items()
            }
        )
        if self.adversary is not None:
            motions = self.adversary.predict(self.model)
            term = self.adversary.generator_term(motions)
            term.backward()
            sums["e_m_disc_loss"] = term.detach()
            total = total + term.detach()
        values = _to_numbers(
            {**sums, "loss": total, "rows_smpl": rows_smpl, "stop": total.new_full((), stop())}
        )
        stopping = values.pop("stop") > 0  # if one process stops, all do, after the same step
        if not values.pop("rows_smpl"):  # the original leaves these terms out
            values = {tag: value for tag, value in values.items() if tag not in ("loss_pose", "loss_shape")}
        if not math.isfinite(values["loss"]):
            raise diverged(f"the loss is {values['loss']} (terms: {values})", number)
        distributed.sum_gradients(self.parameters)
        if self.settings.GRAD_CLIP > 0:
            nn.utils.clip_grad_norm_(self.parameters, self.settings.GRAD_CLIP)
        self.optimizer.step()
        if self.adversary is not None and (terms := self.adversary.update(motions, number)):
            values.update(_to_numbers(terms))
        return values, stopping

    def _add_gradients(
        self, batches: dict[str, Batch]
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor], Float[Tensor, ""]]:
        """Add the gradients of this process's part of a batch, TRAIN.ACCUMULATE parts one after the other.

        Returns:
            its loss, the loss's weighted terms, and how many rows of the whole batch have SMPL.
        """
        outputs, run_length = self.model.encoder.outputs, self.settings.RUN_LENGTH
        rows = count_rows(*_pair({kind: expand_targets(batch, outputs) for kind, batch in batches.items()}))
        numbers = torch.stack([rows, velocity_counts(*_pair(batches))])
        counts, pairs = distributed.sum_over_processes(numbers)
        sums: dict[str, Tensor] = {}
        total = torch.zeros((), device=self.device)
        for part in _split(batches, self.settings.ACCUMULATE):
            features = torch.cat([batch["features"] for batch in part.values()])  # 2D samples come first
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.PRECISION == "bf16"):
                predictions = self.network(features, run_length)
            targets = {kind: expand_targets(batch, outputs) for kind, batch in part.items()}
            loss, terms = self.loss(predictions, *_pair(targets), counts, run_length, pairs)
            loss.backward()
            total = total + loss.detach()
            for tag, value in terms.items():
                sums[tag] = sums.get(tag, 0.0) + value.detach()
        return total, sums, counts[2]

    def state_dict(self) -> dict[str, Any]:
        """Its part of a checkpoint, under the original's names."""
        return {
            "gen_state_dict": self.model.state_dict(),
            "gen_optimizer": self.optimizer.state_dict(),
            "scheduler": self.learning_rate.state_dict(),
            **(self.adversary.state_dict() if self.adversary is not None else {}),
        }

    def check_weights(self, step: int) -> None:
        """Whether the weights may be stored.

        Raises:
            UserError: one is no longer a finite number.
        """
        for name, weight in self.model.named_parameters():
            if not weight.isfinite().all():
                raise diverged(f"{name} holds numbers that are not finite", step)


def diverged(what: str, step: int) -> UserError:
    """The error where training has left the finite numbers."""
    return UserError(
        f"{what} at step {step}: training ends. Look at the database's values, lower TRAIN.GEN_LR "
        f"or set TRAIN.GRAD_CLIP; TRAIN.RESUME goes on from the last {CHECKPOINT}"
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


def _to_numbers(terms: dict[str, Tensor]) -> dict[str, float]:
    """Scalars of this process, summed over all processes: together, as each copy from a GPU waits for it."""
    summed = distributed.sum_over_processes(torch.stack(list(terms.values())).detach())
    return dict(zip(terms, summed.tolist()))

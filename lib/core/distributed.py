"""Several training processes, as torchrun starts them: each computes a part of every batch.

Gradients are summed explicitly, in one message after the backward pass. Each process divides its losses by
the row counts of the whole batch, so the sum is exactly the gradient of one process with that batch, however
unevenly the rows are spread. Averaging per-process means, as DistributedDataParallel does, would not be.
Without torchrun there is one process, and all functions here are free.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch import distributed as dist

from ..utils.errors import UserError, shown

Value = TypeVar("Value")

_TIMEOUT = timedelta(minutes=30)  # how long the others wait for process 0 to validate, or for one that hangs
_PARENT = os.getppid()


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else int(os.environ.get("RANK", "0"))


def world() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    """Whether this is the process that validates and writes logs and checkpoints."""
    return rank() == 0


def process_device(device: torch.device) -> torch.device:
    """The device of this process: of CUDA devices, each process of a machine takes its own.

    Raises:
        UserError: several processes would share a device, or cannot talk to each other on this kind.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or device.type == "cpu":
        return device
    if device.type != "cuda" or device.index is not None:
        raise UserError(
            f"several processes cannot train on {device}: use --device cuda (without number) or cpu"
        )
    local, present = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if local >= present:
        raise UserError(
            f"process {local} of this machine has no GPU of its own: torchrun --nproc_per_node {present}"
        )
    torch.cuda.set_device(local)
    return torch.device("cuda", local)


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Join the processes that torchrun started with this one; nothing if it started one, or none.

    A process that fails closes its connections, so that the others fail too, and torchrun ends them all.

    Raises:
        UserError: another process ended, or did not answer; in the functions below, too.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    with _together():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_TIMEOUT)
    try:
        yield
    except BaseException:
        if dist.get_backend() == "gloo":  # NCCL would wait for messages that never come
            dist.destroy_process_group()  # else its threads, alive at the exit, may abort the process
        raise
    dist.destroy_process_group()


@contextmanager
def _together() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        reason = shown(re.sub(r"^\[\S+\] ", "", str(error)).partition(". ")[0])  # without gloo's source line
        raise UserError(
            f"process {rank()}: another training process ended or does not answer ({reason}); look for what "
            "ended it, and go on from the last checkpoint with TRAIN.RESUME auto"
        ) from error


def orphaned() -> bool:
    """Whether torchrun started this process and is gone: nobody is left to end the others with it."""
    return "TORCHELASTIC_RUN_ID" in os.environ and os.getppid() != _PARENT


def sum_over_processes(values: Tensor) -> Tensor:
    """The sum of every process's ``values``, of the same shape everywhere."""
    if world() > 1:
        values = values.clone()
        with _together():
            dist.all_reduce(values)
    return values


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace every gradient by its sum over the processes."""
    if world() == 1:
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    total = torch.cat([gradient.flatten() for gradient in gradients])
    with _together():
        dist.all_reduce(total)
    for gradient, part in zip(gradients, torch.split(total, [gradient.numel() for gradient in gradients])):
        gradient.copy_(part.view_as(gradient))


def copy_from_main(module: nn.Module) -> None:
    """Give every process the weights of process 0."""
    if world() > 1:
        with _together():
            for parameter in module.parameters():
                dist.broadcast(parameter.detach(), 0)


def from_main(value: Value) -> Value:
    """The ``value`` of process 0, for whose coming the others wait."""
    values = [value]
    if world() > 1:
        with _together():
            dist.broadcast_object_list(values, 0)
    return values[0]

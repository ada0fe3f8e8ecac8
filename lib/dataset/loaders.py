"""Endless shuffled batches whose position is known, so that training can stop and go on exactly."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Sampler

from .training import Batch, BatchDataset


class EndlessBatches(Sampler[list[int]]):
    """Index batches drawn without replacement, pass after pass, all of the same size.

    The order of pass p depends on ``(seed, p)`` alone; a batch may reach into the next pass. With several
    processes each takes every ``world``-th index of the same batches.
    """

    def __init__(
        self, size: int, batch_size: int, seed: int, start: int = 0, rank: int = 0, world: int = 1
    ) -> None:
        self.size, self.batch_size, self.seed, self.start = size, batch_size, seed, start
        self.rank, self.world = rank, world
        self._pass, self._order = -1, torch.zeros(0, dtype=torch.long)

    def __iter__(self) -> Iterator[list[int]]:
        position = self.start
        while True:
            yield self._indices(position)[self.rank :: self.world]
            position += self.batch_size

    def _indices(self, position: int) -> list[int]:
        indices: list[int] = []
        while len(indices) < self.batch_size:
            number, first = divmod(position + len(indices), self.size)
            if number != self._pass:
                generator = torch.Generator().manual_seed((self.seed * 1_000_003 + number) % 2**63)
                self._pass, self._order = number, torch.randperm(self.size, generator=generator)
            indices += self._order[first : first + self.batch_size - len(indices)].tolist()
        return indices


class BatchStream:
    """Batches of a dataset, without end.

    Args:
        start: samples already drawn, as :attr:`position` told when training stopped.
        workers: processes that load ahead; 0 loads in this one.
        pin_memory: for a faster copy to a CUDA device.
    """

    def __init__(
        self,
        dataset: BatchDataset,
        batch_size: int,
        seed: int,
        start: int = 0,
        *,
        workers: int = 0,
        pin_memory: bool = False,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.position, self.batch_size = start, batch_size
        loader: DataLoader[Batch] = DataLoader(
            dataset,
            batch_sampler=EndlessBatches(len(dataset), batch_size, seed, start, rank, world),
            collate_fn=_identity,
            num_workers=workers,
            pin_memory=pin_memory,
            worker_init_fn=_leave_signals_to_the_main_process,
            # forked processes share the mapped databases; Python 3.14's default start would copy them
            multiprocessing_context="fork" if workers and sys.platform == "linux" else None,
            generator=torch.Generator(),  # so that starting workers does not draw from the global one
        )
        self._batches = iter(loader)

    def __next__(self) -> Batch:
        batch: Batch = next(self._batches)
        self.position += self.batch_size
        return batch


def _leave_signals_to_the_main_process(_: int) -> None:
    """It decides what Ctrl-C and SIGTERM mean, which often reach all processes; the workers end with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _identity(batch: Any) -> Any:
    return batch

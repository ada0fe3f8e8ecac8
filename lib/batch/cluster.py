"""Workers that are actors of a Ray cluster."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

import ray

from ..utils.errors import UserError


@contextmanager
def connected(address: str, cpus: int) -> Iterator[dict[str, float]]:
    """Be connected to the cluster at ``address``, or to one on this machine alone if that is ''; gives how
    many ``CPU`` and ``GPU`` there are.

    Args:
        cpus: how many CPUs a cluster on this machine may use.

    Raises:
        UserError: there is no cluster.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(
            address=address or "local",
            num_cpus=None if address else cpus,
            include_dashboard=None if address else False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except (ConnectionError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"--address {address}: {reason}; expected a cluster that `ray start` began"
        ) from error
    finally:
        signal.signal(signal.SIGTERM, handler)  # Ray's own ends with another status
    resources: Callable[[], dict[str, float]] = ray.cluster_resources
    try:
        yield resources()
    finally:
        ray.shutdown()


class ActorWorker:
    """An object that lives in an actor."""

    def __init__(self, make: Callable[[], Any], cpus: float, gpus: float) -> None:
        """``make`` is called there; the actor waits until that many CPUs and GPUs are free."""
        self._actor: Any = ray.remote(num_cpus=cpus, num_gpus=gpus)(_Actor).remote(make)

    def submit(self, method: str, *args: Any) -> Future[Any]:
        """Call a method of the object."""
        result: Future[Any] = self._actor.call.remote(method, args).future()
        return result

    def stop(self) -> None:
        """End the actor, whatever it is doing."""
        ray.kill(self._actor)


class _Actor:
    def __init__(self, make: Callable[[], Any]) -> None:
        self._worker = make()

    def call(self, method: str, args: tuple[Any, ...]) -> Any:
        return getattr(self._worker, method)(*args)

"""Share jobs out among workers, and give those of a worker that died to another."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Generator, Hashable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any, Protocol, TypeVar

from ..utils.errors import UserError

J = TypeVar("J", bound=Hashable)


class Remote(Protocol):
    """An object elsewhere with the methods ``load()`` and ``run(job)``."""

    def submit(self, method: str, *args: Any) -> Future[Any]: ...

    def stop(self) -> None: ...


def work_through(
    jobs: Sequence[J], start: Callable[[int], Remote], workers: int, retries: int
) -> Generator[tuple[J, Any, int], None, None]:
    """Run all jobs, in the order in which they end.

    A worker gets its first job when it is loaded, so that a cluster with less room than was asked for works
    with what it has. A worker that dies, or whose method raises anything but UserError, is replaced; its job
    is tried again after all others.

    Args:
        start: number of a worker, from 0 -> a new one.
        workers: how many at a time.
        retries: how often a job may be tried again.

    Yields:
        job, what ``run`` gave, or the last error as text if every attempt failed, and the number of attempts.

    Raises:
        UserError: of a worker; or no worker can be loaded.
    """
    waiting, attempts, failures = deque(jobs), Counter[J](), 0
    at_work: dict[Future[Any], tuple[int, Remote, J | None]] = {}

    def begin(number: int) -> None:
        worker = start(number)
        at_work[worker.submit("load")] = number, worker, None

    def go_on(number: int, worker: Remote) -> None:
        if waiting:
            job = waiting.popleft()
            attempts[job] += 1
            at_work[worker.submit("run", job)] = number, worker, job
        else:
            worker.stop()

    try:
        for number in range(min(workers, len(jobs))):
            begin(number)
        while waiting or any(job is not None for _, _, job in at_work.values()):
            for future in wait(at_work, return_when=FIRST_COMPLETED).done:
                number, worker, job = at_work.pop(future)
                error = future.exception()
                if error is None:
                    failures = 0
                    go_on(number, worker)
                    if job is not None:
                        yield job, future.result(), attempts[job]
                    continue
                worker.stop()
                if isinstance(error, UserError):
                    raise error
                if job is None:
                    failures += 1
                    if failures > retries:
                        raise UserError(
                            f"workers cannot load the networks: {_reason(error)}; with fewer --workers each "
                            "has more memory"
                        )
                elif attempts[job] > retries:
                    yield job, _reason(error), attempts[job]
                else:
                    waiting.append(job)
                if waiting:
                    begin(number)
    finally:
        for _, worker, _ in at_work.values():
            worker.stop()


def _reason(error: BaseException) -> str:
    # Ray wraps what a method raised, and explains at length why an actor died.
    cause = getattr(error, "cause", None)
    text = f"{type(cause).__name__}: {cause}" if isinstance(cause, Exception) else str(error)
    return next(iter(text.splitlines()), "") or type(error).__name__

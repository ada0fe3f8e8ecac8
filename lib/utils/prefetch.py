"""Work ahead in threads: the next items are made while the present one is used.

Decoding, cropping, networks, drawing and encoding all run outside Python's global lock, so threads suffice
and nothing is copied between processes. Both functions keep the order of the items, hold a bounded number of
them, raise what a worker raised at the item where it happened, and leave no thread behind when their ``with``
block ends, be it by an error or Ctrl-C.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import repeat, takewhile
from typing import Any, TypeVar, cast

T = TypeVar("T")
R = TypeVar("R")


@contextmanager
def map_ahead(
    function: Callable[[T], R], items: Iterable[T], *, workers: int, ahead: int
) -> Iterator[Iterator[R]]:
    """Like ``map``, computed by threads.

    Args:
        function: called from ``workers`` threads.
        items: taken by the thread that takes the results.
        workers: number of threads.
        ahead: results that are ready or in work, at most, beside the one in use.
    """
    pool = ThreadPoolExecutor(workers)

    def results() -> Iterator[R]:
        waiting: deque[Future[R]] = deque()
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    try:
        yield results()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def prefetch(items: Iterable[T], ahead: int) -> Iterator[Iterator[T]]:
    """The same items, taken by one thread that is up to ``ahead`` items before the one in use."""
    source = iter(items)
    end = object()

    def take(_: None) -> Any:
        return next(source, end)

    with map_ahead(take, repeat(None), workers=1, ahead=ahead) as taken:
        yield cast("Iterator[T]", takewhile(lambda item: item is not end, taken))

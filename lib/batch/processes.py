"""Workers that are processes of this machine."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection
from typing import Any

from ..utils.errors import UserError

log = logging.getLogger(__name__)


class WorkerDied(Exception):
    """A worker's process ended in the middle of its work."""


class ProcessWorker:
    """An object that lives in a process of its own."""

    def __init__(self, make: Callable[[], Any]) -> None:
        """``make`` is called there; it travels there by pickle."""
        context = get_context("spawn")  # threads of torch and OpenCV do not survive a fork
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, make), daemon=True)
        self._process.start()
        theirs.close()
        self._thread = ThreadPoolExecutor(1)

    def submit(self, method: str, *args: Any) -> Future[Any]:
        """Call a method of the object. Errors but UserError come as RuntimeError; WorkerDied if the process
        ends."""
        return self._thread.submit(self._ask, method, args)

    def _ask(self, method: str, args: tuple[Any, ...]) -> Any:
        try:
            self._pipe.send((method, args))
            answer, error = self._pipe.recv()
        except (EOFError, OSError):
            self._process.join()
            code = self._process.exitcode or 0
            how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
            raise WorkerDied(f"the worker {how}") from None
        if error is not None:
            raise error
        return answer

    def stop(self) -> None:
        """End the process, whatever it is doing."""
        self._process.kill()
        self._thread.shutdown()


def _serve(pipe: Connection, make: Callable[[], Any]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends us
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    worker = make()
    while True:
        method, args = pipe.recv()
        answer: Any = None
        error: Exception | None = None
        try:
            answer = getattr(worker, method)(*args)
        except UserError as mistake:
            error = mistake
        except Exception as failure:
            log.exception("%s failed", method)
            error = RuntimeError(f"{type(failure).__name__}: {failure}")
        pipe.send((answer, error))


def _end_with_the_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)

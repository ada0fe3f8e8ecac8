"""One way to tell a user what went wrong: a single line, and exit status 2."""

from __future__ import annotations

import errno
import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

_SHOWN = 60  # characters of a name that comes from a file
_SIGNALS: dict[int, str] = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
_NO_MEMORY = re.compile("can't allocate memory|out of memory")  # in torch's words
_CLOSED_PIPE = 141  # what a shell reports of a process that SIGPIPE ended


class UserError(Exception):
    """A mistake the user can mend. The message names what, where, what was expected and what to do."""


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived. Whatever cleans up after Ctrl-C does it here, too."""


def printable(text: str) -> str:
    """``text`` without characters that steer a terminal: they become escapes, as in ``\\x1b``."""
    return "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in text)


def shown(name: Any) -> str:
    """A name from a file for use in a message: printable, in one line and not too long."""
    text = printable(" ".join(str(name).split()))
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def fault(path: Path) -> str:
    """What is wrong with a path at which there is not the file or folder that was wanted."""
    if path.is_dir():
        return "is a folder"
    if path.is_file():
        return "is a file"
    return "is neither file nor folder" if path.exists() else "does not exist"


def leave_on_signals() -> None:
    """From now until :func:`run_command`, Ctrl-C and SIGTERM end the process at once with one line.

    A command calls this before it imports the libraries, which take seconds and clean nothing up.
    """

    def leave(number: int, _: Any) -> None:
        os.write(2, f"{_SIGNALS[number]}\n".encode())
        os._exit(128 + number)

    for number in _SIGNALS:
        _handle(number, leave)


def _handle(number: int, handler: Any) -> Any:
    """Set a signal's handler, unless whoever started us ignores it (`nohup` and `&` do); the one before."""
    before = signal.getsignal(number)
    if before is not signal.SIG_IGN:
        signal.signal(number, handler)
    return before


def run_command(main: Callable[[], None]) -> None:
    """Run a command's ``main``. What the user or the system did wrong becomes one line on stderr.

    Exit status 2 after a :class:`UserError`, and where the system refuses a file or memory; 130 after Ctrl-C
    and 143 after SIGTERM.
    """
    process = os.getpid()

    def terminate(number: int, _: Any) -> None:
        if os.getpid() != process:  # a worker process dies as it would without us
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        raise Terminated

    handlers = {signal.SIGTERM: terminate, signal.SIGINT: signal.default_int_handler}
    before = {number: _handle(number, handler) for number, handler in handlers.items()}
    try:
        main()
    except UserError as error:
        _fail(_line(error))
    except BrokenPipeError:  # the reader of our output has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(_CLOSED_PIPE)
    except OSError as error:
        _fail(_system(error))
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not _NO_MEMORY.search(str(error)):
            raise
        _fail("there is not enough memory for this")
    except KeyboardInterrupt as error:
        number = signal.SIGTERM if isinstance(error, Terminated) else signal.SIGINT
        _say(_SIGNALS[number])
        sys.exit(128 + number)
    finally:
        for number, handler in before.items():
            _handle(number, handler)


def _line(error: UserError) -> str:
    # What a worker of torch's loader raises comes with the worker's traceback, and the message last.
    return str(error).rpartition(f"{UserError.__name__}: ")[2]


def _system(error: OSError) -> str:
    name = f"{error.filename}: " if error.filename is not None else ""
    advice = "; make room there" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
    return f"{name}{error.strerror or error}{advice}"


def _fail(message: str) -> None:
    _say(f"error: {' '.join(message.split())}")
    sys.exit(2)


def _say(line: str) -> None:
    sys.stderr.write(f"{printable(line)}\n")

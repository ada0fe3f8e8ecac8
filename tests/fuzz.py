"""Mutated files against every reader, guided by coverage: ``python -m tests.fuzz`` (``make fuzz``).

It starts from the files of :mod:`tests.hostile`. An input that reaches a line of the readers that none has
reached before becomes a start for others. Inputs that end in anything but a result or a UserError are kept.
"""

from __future__ import annotations

import argparse
import os
import pickle
import random
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from lib.utils.errors import UserError
from tests import hostile

_BATCH = 50
_SECONDS = 20  # of processor time, for a batch of small files that are traced
_LIBRARY = str(Path(__file__).parents[1] / "lib")
_INTERESTING = (0, 1, 2, 7, 8, 9, 10, 32, 40, 41, 46, 48, 57, 64, 98, 104, 113, 127, 128, 129, 147, 148, 255)


def mutate(data: bytes, others: list[bytes], rng: random.Random) -> bytes:
    """A few random changes: bytes, runs, cuts, repeats, and pieces of other files."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        place = rng.randrange(len(out) + 1)
        size = min(rng.choice((1, 2, 4, 8, 16, 64)), len(out) - place)
        match rng.randrange(8):
            case 0 if size:
                out[place] ^= 1 << rng.randrange(8)
            case 1 if size:
                out[place] = rng.choice(_INTERESTING)
            case 2:
                out[place : place + size] = rng.randbytes(size)
            case 3:
                del out[place : place + size]
            case 4:
                out[place:place] = out[place : place + size] * rng.choice((1, 2, 50))
            case 5:
                other = rng.choice(others)
                start = rng.randrange(len(other) + 1)
                out[place : place + size] = other[start : start + rng.choice((4, 16, 128))]
            case 6 if len(out) - place >= 4:
                number = rng.choice((0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 30, len(out)))
                out[place : place + 4] = number.to_bytes(4, rng.choice(("little", "big")))
            case 7 if rng.random() < 0.1:
                del out[place:]
    return bytes(out)


class Lines:
    """The lines of the project's readers that run inside the block."""

    def __init__(self) -> None:
        self.seen: set[tuple[str, int]] = set()

    def __enter__(self) -> Lines:
        sys.settrace(self._call)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def _call(self, frame: FrameType, *_: Any) -> Any:
        return self._line if frame.f_code.co_filename.startswith(_LIBRARY) else None

    def _line(self, frame: FrameType, *_: Any) -> Any:
        self.seen.add((frame.f_code.co_filename, frame.f_lineno))
        return self._line


def attempt(reader: str, path: Path, data: bytes) -> tuple[str, set[tuple[str, int]]]:
    """``refused``, ``accepted`` or the kind and place of another exception, and the lines that ran."""
    path.write_bytes(data)
    lines = Lines()
    try:
        with lines:
            hostile.READERS[reader](path)
    except UserError:
        return "refused", lines.seen
    except BaseException as error:
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        place = f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}" if trace else ""
        return f"{type(error).__name__} at {place}", lines.seen
    return "accepted", lines.seen


def run_batch(
    reader: str, suffix: str, inputs: list[bytes], folder: Path
) -> tuple[list[tuple[str, set]], str]:
    """Outcomes of the inputs in a forked process, and what ended it early, if anything did."""
    receive, send = os.pipe()
    process = os.fork()
    if not process:
        resource.setrlimit(resource.RLIMIT_CPU, (_SECONDS, _SECONDS + 1))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # decoders complain there
        with os.fdopen(send, "wb") as target:
            for data in inputs:
                pickle.dump(attempt(reader, folder / f"x{suffix}", data), target)
                target.flush()
        os._exit(0)
    os.close(send)
    outcomes = []
    with os.fdopen(receive, "rb") as source:
        while len(outcomes) < len(inputs):
            try:
                outcomes.append(pickle.load(source))
            except EOFError:
                break
    _, status, usage = os.wait4(process, 0)
    if os.WIFSIGNALED(status):
        return outcomes, f"signal {signal.Signals(os.WTERMSIG(status)).name}"
    grown = usage.ru_maxrss - resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return outcomes, f"{grown >> 10} MB" if grown << 10 > hostile.GROWTH else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5, help="how long (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the mutations (%(default)s)")
    parser.add_argument("--keep", type=Path, default=Path("output/fuzz"), help="folder of failing inputs")
    args = parser.parse_args()
    torch.set_num_threads(1)  # threads do not survive a fork
    rng = random.Random(args.seed)
    starts: dict[tuple[str, str], list[bytes]] = {}
    for case in (*hostile.good(), *hostile.corpus()):
        if len(case.content) < 20_000:
            starts.setdefault((case.reader, case.suffix), []).append(case.content)
    covered: dict[str, set[tuple[str, int]]] = {reader: set() for reader in hostile.READERS}
    counts: Counter[str] = Counter()
    failures: Counter[str] = Counter()
    ends = time.monotonic() + 60 * args.minutes
    with tempfile.TemporaryDirectory() as name:
        os.chdir(name)
        while time.monotonic() < ends:
            reader, suffix = rng.choice(list(starts))
            pool = starts[reader, suffix]
            inputs = [mutate(rng.choice(pool[-300:]), pool, rng) for _ in range(_BATCH)]
            outcomes, ended = run_batch(reader, suffix, inputs, Path(name))
            for data, (outcome, lines) in zip(inputs, outcomes):
                counts[outcome if outcome in hostile.HARMLESS else "failed"] += 1
                if outcome not in hostile.HARMLESS:
                    _keep(args.keep, f"{reader}: {outcome}", data, suffix, failures)
                if not lines <= covered[reader]:
                    covered[reader] |= lines
                    pool.append(data)
            if ended:
                counts["failed"] += 1
                last = inputs[min(len(outcomes), len(inputs) - 1)]
                _keep(args.keep, f"{reader}: {ended}", last, suffix, failures)
            if Path("EXECUTED").exists():
                sys.exit("a file was executed")
    total = sum(counts.values())
    reached = sum(map(len, covered.values()))
    print(f"{total} inputs, {len(starts)} readers and containers, {reached} lines: {dict(counts)}")
    for failure, count in failures.most_common():
        print(f"{count} x {failure}")
    sys.exit(bool(failures))


def _keep(folder: Path, failure: str, data: bytes, suffix: str, failures: Counter[str]) -> None:
    failures[failure] += 1
    if failures[failure] == 1:
        print(failure, flush=True)
        folder = Path(__file__).parents[1] / folder
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{len(failures)}{suffix}").write_bytes(data)


if __name__ == "__main__":
    main()

"""A whole corpus: what there is to do, workers that do it, and what became of it."""

from __future__ import annotations

import importlib.util
import logging
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from ..demo.networks import choose_network
from ..demo.options import DemoOptions, check_options
from ..demo.result_folder import SCENE, place_mark
from ..utils.errors import UserError, printable
from .films import Film, find_films
from .manifest import Manifest, Record, open_manifest, read_records
from .processes import ProcessWorker
from .schedule import Remote, work_through
from .worker import Job, Worker, on_any_machine, options_digest

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BatchOptions:
    """What ``tcmr batch`` can be asked for beside the options of the demo; its ``--help`` documents each."""

    shard: tuple[int, int] = (1, 1)
    retry_failed: bool = False
    engine: str = "auto"
    address: str = ""
    workers: int | None = None
    threads: int = 1
    gpus_per_worker: float | None = None
    retries: int = 2


@dataclass
class Plan:
    """The films of a run.

    Attributes:
        jobs: what is to be done, and of which film in which state.
        before: records of films that need nothing.
        reasons: how many films are to be done, and why.
    """

    jobs: dict[Job, tuple[Film, tuple[int, int]]]
    before: list[Record]
    reasons: Counter[str]


def plan(
    films: Sequence[Film], records: dict[str, Record], output: Path, digest: str, retry_failed: bool = False
) -> Plan:
    """What is to be done: films without a record, those that changed, and those done with other options. The
    largest come first, so that no worker is left alone with one in the end."""
    found = Plan({}, [], Counter())
    for film in films:
        state, record = film.state(), records.get(film.name)
        why = _why(record, state, output, digest, retry_failed)
        if not why:
            assert record is not None
            found.before.append(record)
            continue
        found.reasons[why] += 1
        job = Job(film.path, output / film.folder, tuple(record.files) if record else ())
        found.jobs[job] = film, state
    found.jobs = dict(sorted(found.jobs.items(), key=lambda item: -item[1][1][0]))
    return found


def _why(record: Record | None, state: tuple[int, int], output: Path, digest: str, retry_failed: bool) -> str:
    if record is None:
        return "new"
    if (record.size, record.mtime_ns) != state:
        return "of changed videos"
    if record.options != digest:
        return "with other options or weights than before"
    if record.status == "failed":
        return "that failed before" if retry_failed else ""
    return "" if (output / record.folder / SCENE).is_file() else "whose results are gone"


def run_batch(corpus: str | Path, options: DemoOptions, batch: BatchOptions) -> list[Record]:
    """Reconstruct everybody in all films of a folder or list (:func:`lib.batch.films.find_films`).

    Args:
        options: of the demo; those about its input are not looked at.

    Returns:
        the records of all films of the corpus, or of the shard, except those that another run works on.

    Raises:
        UserError: nothing can be done at all; whatever is wrong with single films is in the records.
    """
    check_options(options)
    options = on_any_machine(options)
    if options.detector == "auto":  # one network for all, whatever machines and threads they are done with
        options = replace(options, detector=choose_network("auto", options.open_dir))
    output = Path(options.output_folder).absolute()
    part, parts = batch.shard
    films = find_films(corpus, output)[part - 1 :: parts]
    digest = options_digest(options)
    with open_manifest(output, "" if parts == 1 else f"-{part}-of-{parts}") as manifest:
        records = read_records(output)
        home = place_mark(Path(corpus))
        if any(record.corpus not in ("", home) for record in records.values()):
            raise UserError(
                f"{output} holds the results of another folder or list than {corpus}, which films of one "
                "name would replace; give another --output_folder"
            )
        todo = plan(films, records, output, digest, batch.retry_failed)
        counts = [f"{count} {why}" for why, count in todo.reasons.items()]
        log.info(
            "%d videos, %d need nothing, to do: %s", len(films), len(todo.before), ", ".join(counts) or 0
        )
        return todo.before + (_work(todo, options, (home, digest), manifest, batch) if todo.jobs else [])


def _work(
    todo: Plan, options: DemoOptions, digests: tuple[str, str], manifest: Manifest, batch: BatchOptions
) -> list[Record]:
    records: list[Record] = []
    begun, frames, failed = time.monotonic(), 0, 0
    with (
        _workers(options, batch, len(todo.jobs)) as (start, workers),
        closing(work_through(list(todo.jobs), start, workers, batch.retries)) as results,
        logging_redirect_tqdm(),
        tqdm(total=len(todo.jobs), unit="video", smoothing=0) as bar,
    ):
        for job, result, attempts in results:
            bar.update()
            film, (size, mtime_ns) = todo.jobs[job]
            if isinstance(result, str):
                result = {"status": "failed", "reason": result}
            if "reason" in result:
                result["reason"] = result["reason"].replace(str(film.path), film.name)
            if result["status"] == "busy":
                log.warning("%s is left to another run that works on it", printable(film.name))
                continue
            record = Record(
                film=film.name,
                size=size,
                mtime_ns=mtime_ns,
                corpus=digests[0],
                options=digests[1],
                folder=film.folder,
                attempts=attempts,
                finished=time.time(),
                **result,
            )
            manifest.append(record)
            records.append(record)
            frames, failed = frames + record.frames, failed + (record.status == "failed")
            rate = frames / (time.monotonic() - begun)
            bar.set_postfix_str(f"{rate:.1f} frames/s, {failed} failed")
    return records


@contextmanager
def _workers(
    options: DemoOptions, batch: BatchOptions, most: int
) -> Iterator[tuple[Callable[[int], Remote], int]]:
    """Something that starts workers, and how many there should be."""
    threads, share, wanted = batch.threads, batch.gpus_per_worker, batch.workers
    there = importlib.util.find_spec("ray") is not None
    engine = batch.engine if batch.engine != "auto" else "ray" if there else "processes"
    if engine == "ray" and not there:
        raise UserError('--engine ray: Ray is not installed; `pip install "ray>=2.40,<3"` installs it')
    if batch.address and engine != "ray":
        raise UserError('--address needs Ray, with which --engine is ray; `pip install "ray>=2.40,<3"`')

    def how_many(cpus: int, gpus: int) -> tuple[int, float]:
        """Workers, and the GPUs of each, as parts that Ray can count."""
        if share:
            room = int(gpus / share)
            if not room:
                raise UserError(f"--gpus-per-worker {share:g}: there are {gpus} GPUs")
            return min(wanted or room, room, most), share
        workers = min(wanted or max(1, cpus // threads), most)
        cuda = options.device in ("auto", "cuda") and share is None
        return workers, min(1.0, int(gpus / workers * 1e4) / 1e4) if cuda else 0.0

    if engine == "ray":
        from .cluster import ActorWorker, connected

        with connected(batch.address, cpus=(wanted or 0) * threads or _cpus()) as resources:
            workers, gpus = how_many(int(resources.get("CPU", 0)), int(resources.get("GPU", 0)))
            log.info("workers: %d actors of Ray, %d threads and %g GPUs each", workers, threads, gpus)
            here = options if gpus or options.device != "auto" else replace(options, device="cpu")
            yield (
                lambda _: ActorWorker(partial(Worker, here, threads), threads, gpus),
                workers,
            )
        return
    devices = torch.cuda.device_count()
    workers, gpus = how_many(_cpus(), devices)
    log.info("workers: %d processes, %d threads and %g GPUs each", workers, threads, gpus)

    def start(number: int) -> ProcessWorker:
        device = options.device if options.device != "auto" else "cpu"
        if gpus:
            device = f"cuda:{int(number * gpus) % devices}"
        return ProcessWorker(partial(Worker, replace(options, device=device), threads))

    yield start, workers


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def report(records: Sequence[Record]) -> str:
    """What is done and what failed, by reason, as lines of text."""
    done = [record for record in records if record.status == "done"]
    failed = [record for record in records if record.status == "failed"]
    lines = [
        f"{len(done)} videos done: {sum(record.duration for record in done) / 3600:.3g} hours, "
        f"{sum(record.frames for record in done)} frames, {sum(record.people for record in done)} people"
    ]
    if failed:
        by_reason: dict[str, list[str]] = {}
        for record in failed:
            by_reason.setdefault(_kind(record), []).append(record.film)
        lines.append(f"{len(failed)} failed:")
        for kind, names in sorted(by_reason.items(), key=lambda item: -len(item[1])):
            lines.append(f"{len(names):7d}  {kind} ({names[0]}{', ...' if len(names) > 1 else ''})")
    return printable("\n".join(lines))


def _kind(record: Record) -> str:
    """The reason without advice, and without what is particular to one film: its name and numbers."""
    path, reason = Path(record.film), record.reason.replace(record.film, "...")
    for name in (path.name, path.stem):
        reason = f"...{reason[len(name) :]}" if reason.startswith(name) else reason
    return re.sub(r"\d+(\.\d+)?", "N", reason.split(";")[0])

"""Reconstruct everybody in all videos of a folder or list: ``tcmr batch DIR|LIST``."""

from __future__ import annotations

import argparse
import logging
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path

from ..batch.run import BatchOptions, report, run_batch
from ..demo.options import DemoOptions
from .demo import add_options, options_of


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; ``--help`` documents it."""
    defaults = BatchOptions()
    parser = argparse.ArgumentParser(
        description="Reconstruct everybody in all videos of a folder or list. The results of a video go to a "
        "folder of its path and name in the output folder, what became of it to manifest.jsonl there. The "
        "same command goes on where a run was stopped. Exit status: 0 if all are done, 1 if some failed."
    )
    parser.add_argument(
        "corpus", metavar="DIR|LIST", help="folder of videos, or a text file with one path per line"
    )
    which = parser.add_argument_group("which videos")
    which.add_argument(
        "--shard",
        type=_shard,
        default=defaults.shard,
        metavar="I/N",
        help="the I-th of N parts of the videos, from 1: for N runs that share one output folder",
    )
    which.add_argument(
        "--retry-failed", action="store_true", help="also those that failed before with the same options"
    )
    where = parser.add_argument_group("workers")
    where.add_argument(
        "--engine",
        default=defaults.engine,
        choices=["auto", "ray", "processes"],
        help="Ray, or processes of this machine; default: Ray if it is installed",
    )
    where.add_argument(
        "--address",
        default=os.environ.get("RAY_ADDRESS", ""),
        metavar="HOST:PORT",
        help="a running Ray cluster, or auto; default: $RAY_ADDRESS, else this machine alone",
    )
    where.add_argument(
        "--workers", type=_count, default=None, metavar="N", help="videos at a time; default: one per CPU"
    )
    where.add_argument(
        "--threads",
        type=_count,
        default=defaults.threads,
        metavar="N",
        help="CPU threads of a worker (%(default)s)",
    )
    where.add_argument(
        "--gpus-per-worker",
        type=_share,
        default=None,
        metavar="X",
        help="part of a GPU for each worker; default: all are shared out, none with --device cpu",
    )
    where.add_argument(
        "--retries",
        type=partial(_count, least=0),
        default=defaults.retries,
        metavar="N",
        help="times that a video is tried again after its worker died (%(default)s)",
    )
    add_options(parser, DemoOptions(render=False, output_folder="output/batch"))
    return parser.parse_args(argv)


def _shard(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
    part, parts = map(int, match.groups()) if match else (0, 0)
    if not 1 <= part <= parts:
        raise argparse.ArgumentTypeError(f"{text!r}: expected the part and the number of parts, as 3/100")
    return part, parts


def _count(text: str, least: int = 1) -> int:
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number, {least} or more")
    return int(text)


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a part of a GPU, between 0 and 1")
    return share


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    corpus = vars(args).pop("corpus")
    batch = BatchOptions(**{field.name: vars(args).pop(field.name) for field in fields(BatchOptions)})
    records = run_batch(corpus, DemoOptions(**options_of(args)), batch)
    print(report(records))
    print(f"every video: {Path(args.output_folder) / 'manifest*.jsonl'}")
    if any(record.status == "failed" for record in records):
        sys.exit(1)

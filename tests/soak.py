"""The same work again and again, with an eye on memory and handles: ``python -m tests.soak`` (``make soak``).

A round opens every good file and many hostile ones, makes a database from images, saves and loads a
checkpoint, and evaluates a small network. Memory, open files and threads must stay what they were early on.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import sys
import tempfile
import threading
import time
from pathlib import Path

import torch

from lib.core.config import load_config
from lib.core.evaluation_set import EvaluationSet
from lib.core.evaluator import evaluate
from lib.data_utils import penn_action
from lib.dataset.datasets import get_spec
from lib.models.body import load_body
from lib.models.tcmr import TCMR
from lib.utils.errors import UserError
from lib.utils.files import load_checkpoint, save_checkpoint
from tests import hostile
from tests.golden_tools import GOLDEN, write_base_data
from tests.raw_tools import FakeExtractor, write_penn

_WARM_UP = 5  # rounds in which caches fill
_MOST_GROWTH = 30  # MB
_HOSTILE = 7  # every such file, another one each round


class Rounds:
    """What a round works with, made once in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        write_base_data(folder / "base_data")
        write_penn(folder / "penn", [4, 6])
        self.body = load_body(folder / "base_data")
        self.model = TCMR(16, 1, 32, body=self.body).eval()
        opts = ["PATHS.PREPROCESSED", str(GOLDEN / "data"), "TRAIN.PRETRAINED_REGRESSOR", ""]
        self.cfg = load_config(Path(__file__).parents[1] / "configs/repr_table4_3dpw_model.yaml", opts)

    def run(self, number: int) -> None:
        """One round."""
        for case in (*hostile.good(), *hostile.corpus()[number % _HOSTILE :: _HOSTILE]):
            path = self.folder / f"file{case.suffix}"
            path.write_bytes(case.content)
            with contextlib.suppress(UserError):
                hostile.READERS[case.reader](path)
        out = self.folder / "out"
        penn_action.main(["--dir", str(self.folder / "penn"), "--out", str(out)], FakeExtractor())
        (out / "pennaction_train_scale12_db.pt").unlink()
        save_checkpoint({"gen_state_dict": self.model.state_dict(), "epoch": number}, out / "x.pth.tar")
        self.model.load_weights(load_checkpoint(out / "x.pth.tar")["gen_state_dict"], "smpl")
        data = EvaluationSet(get_spec("3dpw"), "test", self.cfg)
        evaluate(self.model, data, self.body, static_borders=True)


def usage() -> tuple[float, int, int]:
    """Resident memory in MB, open files, threads."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6, len(list(Path("/proc/self/fd").iterdir())), threading.active_count()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=15, help="how long (%(default)s)")
    args = parser.parse_args()
    logging.disable(logging.INFO)
    torch.set_num_threads(1)
    ends, number, first = time.monotonic() + 60 * args.minutes, 0, (0.0, 0, 0)
    with tempfile.TemporaryDirectory() as folder:
        rounds = Rounds(Path(folder))
        while number <= _WARM_UP or time.monotonic() < ends:
            rounds.run(number)
            now = usage()
            first = now if number == _WARM_UP else first
            print(f"round {number}: {now[0]:.0f} MB, {now[1]} files, {now[2]} threads", flush=True)
            number += 1
    grown, files, threads = (after - before for after, before in zip(now, first))
    print(f"{number} rounds: memory {grown:+.0f} MB, open files {files:+d}, threads {threads:+d}")
    sys.exit(grown > _MOST_GROWTH or (files, threads) != (0, 0))


if __name__ == "__main__":
    main()

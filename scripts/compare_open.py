"""The open benchmark: landmarks, networks and the fit side by side on the open databases.

    python scripts/compare_open.py --dataset open --dataset pose2sim_multi_heavy

Every row gets the same landmarks, front-back flips undone, and once more a Gaussian behind it, whose width
is the best of that row on ``open_val``. ``--checkpoint`` names rows: NAME=FILE, a run folder or a pattern;
several files of a name are seeds. See docs/open_benchmark.md. Writes tables (results.md, results.json) and
plots to ``--out``.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

if __name__ == "__main__":  # first, so that Ctrl-C while the rest is imported is one line, too
    from lib.utils.errors import leave_on_signals

    leave_on_signals()

from lib.core.benchmark.comparison import choose_widths, compare
from lib.core.benchmark.methods import TCMR, Methods
from lib.core.benchmark.plots import write_plots
from lib.core.benchmark.tables import markdown, summarise
from lib.core.run_folder import find_checkpoint
from lib.models.body import OPEN_DATA, load_body
from lib.utils.errors import UserError, run_command
from lib.utils.files import atomic_write
from lib.utils.options import positive_integer

SHIPPED = f"{TCMR}=data/open/tcmr_open.pth.tar"


def checkpoints_of(named: list[str]) -> dict[str, list[Path]]:
    """Files by the names of rows, of ``NAME=FILE``, ``NAME=FOLDER`` or ``NAME=PATTERN``.

    Raises:
        UserError: another form, or nothing is there.
    """
    found: dict[str, list[Path]] = {}
    for text in named:
        name, equals, path = text.partition("=")
        if not (name and equals and path) or " + " in name:
            raise UserError(f"--checkpoint {text}: expected NAME=FILE, and no ' + ' in the name")
        files = sorted(Path(path).parent.glob(Path(path).name))
        if not files:
            raise UserError(f"--checkpoint {text}: there is no such file or folder")
        found.setdefault(name, []).extend(map(find_checkpoint, files))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--dataset", action="append", required=True, help="open, pose2sim_heavy, pose2sim_multi_heavy, ..."
    )
    parser.add_argument("--preprocessed", type=Path, default=Path("data/preprocessed_data"))
    parser.add_argument("--extractor", type=Path, default=Path("data/open/landmark_net.pth.tar"))
    parser.add_argument("--checkpoint", action="append", metavar="NAME=FILE", help=f"default: {SHIPPED}")
    parser.add_argument("--threads", type=positive_integer, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, default=Path("output/benchmark"), help="folder (%(default)s)")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(args.threads)
    body = load_body(OPEN_DATA)
    methods = Methods(args.extractor, checkpoints_of(args.checkpoint or [SHIPPED]), body)
    widths, baseline = choose_widths(args.preprocessed / "open_val_db.pt", methods)
    results, texts = {}, []
    for dataset in args.dataset:
        found = compare(args.preprocessed / f"{dataset}_test_db.pt", methods, widths, body)
        results[dataset] = summarise(found, (TCMR, baseline), widths, methods.facts)
        counts = f"{len(found.motions)} motions in {found.videos} videos, {found.frames} frames in all"
        texts.append(f"## {dataset}: {counts}\n\n{markdown(results[dataset])}\n")
        print(f"\n{texts[-1]}")
        args.out.mkdir(parents=True, exist_ok=True)
        for path in write_plots(found, args.out, dataset):
            print(path)
    for name, text in (("results.json", json.dumps(results, indent=2)), ("results.md", "\n".join(texts))):
        with atomic_write(args.out / name) as temporary:
            temporary.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    run_command(main)

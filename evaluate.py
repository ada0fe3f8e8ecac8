"""Evaluate a checkpoint: ``python evaluate.py --dataset 3dpw --cfg configs/repr_table4_3dpw_model.yaml``."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from lib.core.config import choose_device, parse_args
from lib.core.evaluator import EvaluationSet, evaluate
from lib.core.report import table, write_json
from lib.core.run_folder import log_to_console
from lib.dataset.datasets import DATASETS, get_spec
from lib.models.body import load_body
from lib.models.build import load_model
from lib.utils.errors import UserError, run_command

logger = logging.getLogger(__name__)


def add_options(parser: argparse.ArgumentParser) -> None:
    keys = [spec.key for spec in DATASETS.values() if spec.eval_joints]
    parser.add_argument("--dataset", default="3dpw", choices=keys)
    parser.add_argument(
        "--split", default="test", help="which of the dataset's databases: test (default) or val"
    )
    parser.add_argument("--seq", default="", help="only sequences whose name contains this")
    parser.add_argument("--filter", action="store_true", help="smooth the predicted rotations over time")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers to this file too")


def main() -> None:
    args, cfg = parse_args(__doc__, add_options)
    log_to_console()
    if not cfg.TRAIN.PRETRAINED:
        raise UserError(f"no checkpoint to evaluate: set TRAIN.PRETRAINED in {args.cfg} or with --opts")
    device = choose_device(args.device, cfg.DEVICE)
    data = EvaluationSet(get_spec(args.dataset), args.split, cfg, name_part=args.seq)
    body = load_body(cfg.PATHS.BASE_DATA, open_dir=cfg.PATHS.OPEN)
    model, _ = load_model(cfg.TRAIN.PRETRAINED, cfg, body)
    logger.info("%s on %s with %s", cfg.TRAIN.PRETRAINED, data.path, device)
    evaluation = evaluate(
        model.to(device),
        data,
        body,
        static_borders=cfg.COMPAT.STATIC_BORDERS,
        smooth=args.filter,
        progress=True,
    )
    print(table(evaluation, cfg.TITLE, args.dataset))
    if args.json:
        write_json(evaluation, args.json)


if __name__ == "__main__":
    run_command(main)

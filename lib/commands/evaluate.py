"""Evaluate a checkpoint: ``evaluate.py --dataset 3dpw --cfg configs/repr_table4_3dpw_model.yaml``.

docs/evaluation.md explains the protocol and every option.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Sequence
from pathlib import Path

from yacs.config import CfgNode

from ..core import own_predictions
from ..core.build import body_of, fingerprint_of, model_from
from ..core.config import parse_args
from ..core.evaluation_set import EvaluationSet
from ..core.evaluator import evaluate
from ..core.plots import write_plots
from ..core.report import report, write_json, write_report
from ..core.run_folder import find_checkpoint, log_to_console
from ..dataset.datasets import DATASETS, database_path, get_spec
from ..demo.sequence_video import write_videos
from ..models.body import load_gendered_body
from ..models.extractors import check_fingerprints
from ..utils.devices import choose_device
from ..utils.errors import UserError
from ..utils.files import atomic_write, check_writable, load_checkpoint

logger = logging.getLogger(__name__)


def add_options(parser: argparse.ArgumentParser) -> None:
    keys = [spec.key for spec in DATASETS.values() if spec.eval_joints]
    parser.add_argument(
        "--checkpoint", metavar="PATH", help="a checkpoint or a run folder (default: TRAIN.PRETRAINED)"
    )
    parser.add_argument(
        "--predictions",
        type=Path,
        metavar="FILE",
        help="measure what another method predicted instead of a checkpoint: .npz, see docs/evaluation.md",
    )
    parser.add_argument(
        "--dataset", default="3dpw", metavar="NAME", help=f"{', '.join(keys)}, or a plugin's (%(default)s)"
    )
    parser.add_argument(
        "--split", default="test", choices=["test", "val"], help="which of the dataset's databases"
    )
    parser.add_argument("--seq", default="", help="only sequences whose name contains this")
    parser.add_argument("--filter", action="store_true", help="smooth the predicted rotations over time")
    parser.add_argument(
        "--fit", action="store_true", help="move the bodies onto the landmarks that the database holds"
    )
    parser.add_argument(
        "--gender",
        default="neutral",
        choices=["neutral", "gendered"],
        help="3dpw's ground truth: of the neutral body, as published, or of the person's own",
    )
    parser.add_argument(
        "--root_align_verts", action="store_true", help="measure vertices with aligned roots, too"
    )
    parser.add_argument("--plot", action="store_true", help="write plots of accelerations and errors")
    render = parser.add_mutually_exclusive_group()
    render.add_argument("--render", action="store_true", help="draw the meshes over the images")
    render.add_argument("--render_plain", action="store_true", help="draw the meshes on black")
    parser.add_argument("--frame", type=int, metavar="F", help="draw frames F to F + 240 (default 0)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers to this file")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the printed report to this file")


def main(argv: Sequence[str] | None = None) -> None:
    args, cfg = parse_args(__doc__, add_options, argv)
    log_to_console()
    if args.predictions is not None:
        measure_predictions(args, cfg)
        return
    given = args.checkpoint or cfg.TRAIN.PRETRAINED
    if not given:
        raise UserError(f"no checkpoint to evaluate: give --checkpoint or set TRAIN.PRETRAINED in {args.cfg}")
    source = find_checkpoint(given)
    drawing = args.render or args.render_plain
    if args.frame is not None and (args.frame < 0 or not drawing):
        raise UserError(f"--frame {args.frame}: expected a number from 0 on, with --render or --render_plain")
    check_outputs(args)
    device = choose_device(args.device, cfg.DEVICE)
    data = open_data(args, cfg, drawing)
    checkpoint = load_checkpoint(source)
    check_fingerprints({str(source): fingerprint_of(checkpoint), str(data.path): data.fingerprint})
    body = body_of(checkpoint, cfg)
    gendered_bodies = None
    if data.gendered:
        male, female = (load_gendered_body(cfg.PATHS.BASE_DATA, gender) for gender in ("male", "female"))
        gendered_bodies = male, female
    model, _ = model_from(checkpoint, source, cfg, body)
    logger.info("%s on %s with %s", source, data.path, device)
    evaluation = evaluate(
        model.to(device),
        data,
        body,
        static_borders=cfg.COMPAT.STATIC_BORDERS,
        smooth=args.filter,
        fit=args.fit,
        gendered_bodies=gendered_bodies,
        root_align_verts=args.root_align_verts,
        precision=cfg.MODEL.PRECISION,
        progress=True,
    )
    print(report(evaluation, str(source)))
    if args.json:
        write_json(evaluation, args.json, str(source))
    if args.markdown:
        write_report(evaluation, args.markdown, str(source))
    folder = Path("output") / f"{data.spec.key}_test_output"
    if args.plot:
        logger.info("%d plots in %s", len(write_plots(evaluation, folder / "plot")), folder / "plot")
    if drawing:
        videos = write_videos(
            evaluation.sequences,
            model.regressor.smpl,
            folder / "video",
            first_frame=args.frame or 0,
            plain=args.render_plain,
            fps=data.frame_rate.fps,
        )
        logger.info("videos: %s", ", ".join(map(str, videos)))


def check_outputs(args: argparse.Namespace) -> None:
    """UserError if ``--json`` or ``--markdown`` cannot be written."""
    for option, path in (("--json", args.json), ("--markdown", args.markdown)):
        if path is not None and path.is_dir():
            raise UserError(f"{option} {path} is a folder: expected the name of a file")
        if path is not None:
            check_writable(path, option)


def measure_predictions(args: argparse.Namespace, cfg: CfgNode) -> None:
    """``--predictions``: no network is loaded."""
    others = (
        "checkpoint",
        "filter",
        "fit",
        "root_align_verts",
        "plot",
        "render",
        "render_plain",
        "seq",
        "frame",
    )
    if unused := [f"--{name}" for name in others if getattr(args, name) not in (None, False, "")]:
        raise UserError(f"--predictions does not go with {', '.join(unused)}: leave out one or the other")
    if args.gender != "neutral":
        raise UserError("--predictions does not go with --gender: give their joints of the gendered bodies")
    check_outputs(args)
    spec = get_spec(args.dataset)
    result = own_predictions.evaluate(args.predictions, database_path(spec, args.split, cfg), spec.key)
    text = own_predictions.describe(result)
    print(text)
    if args.json:
        with atomic_write(args.json) as temporary:
            temporary.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    if args.markdown:
        with atomic_write(args.markdown) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")


def open_data(args: argparse.Namespace, cfg: CfgNode, drawing: bool) -> EvaluationSet:
    """The sequences to evaluate. For drawing 3DPW, all frames are wanted, and they are in another file."""
    spec, split = get_spec(args.dataset), args.split
    if drawing and spec.key == "3dpw":
        split = f"{split}_all"
        path = database_path(spec, split, cfg)
        if not path.is_file():
            raise UserError(
                f"database {path} does not exist: drawing 3DPW needs all frames; make it with "
                f"`python -m lib.data_utils.threedpw --set {args.split} --all-frames`, or name another file "
                f"in DATASET.FILES.3dpw_{split}"
            )
    gendered = args.gender == "gendered"
    return EvaluationSet(
        spec, split, cfg, name_part=args.seq, gendered=gendered, images=drawing, landmarks=args.fit
    )

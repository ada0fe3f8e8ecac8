"""Reconstruct the bodies of everybody in a video: ``python demo.py --vid_file my.mp4``."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from ..demo.drawing import VIEWS
from ..demo.networks import DETECTORS, HEAVY_THREADS
from ..demo.options import DemoOptions
from ..demo.pipeline import run_demo
from ..motion.exporters import EXPORTERS
from ..utils.plugins import add_plugin_option

OLD_DETECTORS = ("yolo", "maskrcnn")
IGNORED = {
    "tracker_batch_size": "frames are tracked one by one",
    "yolo_img_size": "the detector's size is fixed",
}


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; ``--help`` documents it."""
    parser = argparse.ArgumentParser(description="Reconstruct the bodies of everybody in a video.")
    source = parser.add_argument_group("input")
    source.add_argument("--vid_file", default="", help="input video; without any input, the sample video")
    source.add_argument(
        "--img_dir", default="", help="folder of images (.png .jpg .jpeg, in the order of their names)"
    )
    source.add_argument(
        "--tracks",
        default="",
        metavar="FILE",
        help="follow the people in these boxes: MOT text, lines of frame,person,left,top,width,height",
    )
    source.add_argument(
        "--poses",
        default="",
        metavar="FILE",
        help="SMPL estimates of another method, frame by frame, to be made consistent: .npz, docs/poses.md",
    )
    source.add_argument("--display", action="store_true", help="open the finished video in the web browser")
    add_options(parser, DemoOptions())
    return parser.parse_args(argv)


def add_options(parser: argparse.ArgumentParser, defaults: DemoOptions) -> None:
    """The options that fit any number of videos: all but the input."""
    source = parser.add_argument_group("reading and writing")
    source.add_argument(
        "--fps",
        type=_frame_rate,
        default=None,
        help="frames per second of the input, in place of its time stamps; image folders: 30 unless given",
    )
    source.add_argument(
        "--output_folder", default=defaults.output_folder, help="results go to a folder in it (%(default)s)"
    )
    source.add_argument(
        "--export",
        type=lambda text: text.split(","),
        action="extend",
        default=[],
        metavar="FORMATS",
        help=f"write the motion for other programs, too: any of {','.join(EXPORTERS)}; docs/exports.md",
    )
    for name in ("pkl", "obj"):
        source.add_argument(
            f"--save_{name}",
            action="append_const",
            dest="export",
            const=name,
            help=f"same as --export {name}",
        )
    source.add_argument(
        "--viewer",
        action="store_true",
        help="write viewer.html: the video beside the people in 3D, in one page for any browser",
    )

    people = parser.add_argument_group("people")
    people.add_argument(
        "--detector",
        default=defaults.detector,
        metavar="{" + ",".join(DETECTORS) + "}",
        help="landmark network: heavy, or full for speed; auto (default): heavy if it is there and at least "
        f"{HEAVY_THREADS} CPU threads may be used. torchvision: auto, and people are found by torchvision's "
        "Keypoint R-CNN. yolo and maskrcnn are accepted for compatibility and mean auto",
    )
    people.add_argument(
        "--min_seconds",
        type=float,
        default=defaults.min_seconds,
        help="people in sight for less are left out (%(default)s; a shorter film counts whole)",
    )
    people.add_argument(
        "--person",
        default=defaults.person,
        help="reconstruct only this one: a number, or largest (%(default)s)",
    )
    people.add_argument("--save_tracks", action="store_true", help="write tracks.txt, the boxes as MOT text")

    model = parser.add_argument_group("model")
    model.add_argument(
        "--model", default="", help="TCMR checkpoint; default: the official one, else the open one"
    )
    model.add_argument("--cfg", default="", help="configuration instead of the checkpoint's own")
    model.add_argument(
        "--opts", nargs="+", default=(), metavar="KEY VALUE", help="override keys of the configuration"
    )
    model.add_argument(
        "--base_data", default=defaults.base_data, help="folder of the official files (%(default)s)"
    )
    model.add_argument(
        "--open_dir", default=defaults.open_dir, help="folder of the open body and networks (%(default)s)"
    )
    model.add_argument(
        "--gender",
        default="neutral",
        choices=["neutral", "male", "female"],
        help="SMPL body for the meshes (%(default)s)",
    )
    model.add_argument(
        "--fit",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="move the bodies onto the landmarks of the track; default: with the open features, which are "
        "landmarks, too",
    )
    model.add_argument(
        "--smooth",
        default=defaults.smooth,
        metavar="SECONDS",
        help="width of the Gaussian over poses and paths, without delay; or torso=0.15,legs=0.1,arms=0.05 "
        "for groups of limbs, or slerp=0.3 for the paper's filter (%(default)s: the fit is smooth already)",
    )
    model.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (%(default)s)")
    model.add_argument(
        "--bf16",
        action="store_true",
        help="image features in bfloat16: faster, features change by about 0.3 %%",
    )
    model.add_argument("--gpu", default=None, help="value for CUDA_VISIBLE_DEVICES")

    world = parser.add_argument_group("camera and world")
    world.add_argument(
        "--focal",
        type=float,
        default=None,
        metavar="PX",
        help="focal length; default: from the file's metadata, else 1.2 times the longer side",
    )
    world.add_argument(
        "--height",
        default="",
        metavar="METRES",
        help="how tall the person is, which one camera cannot see; of several people: 1=1.75,2=1.62",
    )
    world.add_argument(
        "--up",
        default=defaults.up,
        choices=["floor", "camera"],
        help="gravity from the feet that rest on the floor, or from a camera that is level (%(default)s)",
    )
    world.add_argument(
        "--lock-feet",
        action=argparse.BooleanOptionalAction,
        default=defaults.lock_feet,
        help="feet on the floor stand still in the world; what is drawn into the film stays as it is "
        "(default: %(default)s)",
    )

    drawing = parser.add_argument_group("rendering")
    drawing.add_argument(
        "--render",
        action=argparse.BooleanOptionalAction,
        default=defaults.render,
        help="draw the people into a copy of the video (default: %(default)s)",
    )
    drawing.add_argument("--wireframe", action="store_true", help="draw the meshes' visible edges")
    drawing.add_argument(
        "--view",
        default="",
        choices=VIEWS,
        help="append a view: side, everybody turned where they stand; top, the world from above; follow, the "
        "world beside the person who is longest in sight",
    )
    drawing.add_argument(
        "--sideview", dest="view", action="store_const", const="side", help="same as --view side"
    )
    drawing.add_argument("--render_plain", action="store_true", help="black background, fixed camera")

    add_plugin_option(parser)
    old = parser.add_argument_group("accepted for compatibility, without effect")
    for name in IGNORED:
        old.add_argument(f"--{name}", type=int, default=None, help="ignored: " + IGNORED[name])


def _frame_rate(text: str) -> Fraction:
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of frames per second") from None


def options_of(args: argparse.Namespace) -> dict[str, Any]:
    """The fields of :class:`DemoOptions` on a parsed command line; warns of options without effect."""
    options = vars(args)
    options["export"], options["plugin"] = tuple(args.export), tuple(args.plugin)
    for name, reason in IGNORED.items():
        if options.pop(name) is not None:
            logging.warning("--%s has no effect: %s", name, reason)
    if args.detector in OLD_DETECTORS:
        logging.warning("--detector %s is not part of this project; using auto", args.detector)
        options["detector"] = "auto"
    gpu = options.pop("gpu")
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    return options


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    run_demo(DemoOptions(**options_of(args)))

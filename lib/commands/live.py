"""Bodies from a camera, a stream or a file as it plays: ``tcmr live 0``."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence

from ..demo.networks import DETECTORS
from ..live.engine import PEOPLE
from ..live.sinks import SINKS
from ..live.stream import LiveOptions, run_live
from ..utils.plugins import add_plugin_option, load_plugins


def parse_args(argv: Sequence[str] | None = None) -> LiveOptions:
    """The command line; ``--help`` documents it."""
    early = argparse.ArgumentParser(add_help=False)
    add_plugin_option(early)
    load_plugins(early.parse_known_args(argv)[0].plugin)  # which may bring outputs with options of their own
    defaults = LiveOptions("")
    parser = argparse.ArgumentParser(
        description="Bodies from a camera, a stream or a file as it plays, until it ends or Ctrl-C."
    )
    parser.add_argument("source", help="number of a camera (0), address (rtsp://…, http://…) or video file")
    sinks = parser.add_argument_group("where bodies go")
    for name, sink in SINKS.items():
        nargs = None if sink.default is None else "?"
        sinks.add_argument(f"--{name}", nargs=nargs, const=sink.default, metavar=sink.metavar, help=sink.text)
    parser.add_argument(
        "--delay",
        type=int,
        metavar="FRAMES",
        help="predict each frame when so many later ones have come; 0: at once, from the past alone. "
        "Default: as many as the model looks ahead, for the same poses as with the whole film",
    )
    parser.add_argument(
        "--person", choices=PEOPLE, default=defaults.person, help="whom to follow (%(default)s)"
    )
    parser.add_argument(
        "--fit",
        action="store_true",
        help="move the bodies onto the landmarks: more accurate, and as much work again as TCMR and more",
    )
    parser.add_argument(
        "--no-drop",
        dest="drop",
        action="store_false",
        help="of a file: use every frame, however long it takes, instead of playing it at its own speed",
    )
    parser.add_argument("--stats", action="store_true", help="tell rate and latency every few seconds")
    parser.add_argument("--fps", type=float, help="frames per second of the source, in place of what it says")
    parser.add_argument("--focal", type=float, metavar="PX", help="focal length (default: 1.2 longer sides)")
    parser.add_argument(
        "--detector",
        choices=[*DETECTORS],
        default=defaults.detector,
        help="as of the demo; heavy is more accurate than full and three times as slow (%(default)s)",
    )
    parser.add_argument(
        "--model", default="", help="TCMR checkpoint; default: the official one, else the open one"
    )
    parser.add_argument(
        "--base_data", default=defaults.base_data, help="folder of the official files (%(default)s)"
    )
    parser.add_argument(
        "--open_dir", default=defaults.open_dir, help="folder of the open body and networks (%(default)s)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (%(default)s)")
    add_plugin_option(parser)
    options = vars(parser.parse_args(argv))
    del options["plugin"]
    targets = {name: options.pop(name) for name in SINKS}
    given = {name: target for name, target in targets.items() if target is not None}
    return LiveOptions(**options, sinks=given)


def main(argv: Sequence[str] | None = None) -> None:
    options = parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    run_live(options)

"""What the demo can be asked for: the options, whether they make sense, and the film that they name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import get_args

import numpy as np

from ..models.body import BASE_DATA, OPEN_DATA
from ..motion.exporters import EXPORTERS
from ..motion.height import SHORTEST, TALLEST
from ..motion.smooth import parse_smoothing
from ..motion.world import Up
from ..utils.errors import UserError
from ..utils.plugins import load_plugins
from ..video.frames import FrameSource, ImageFolder
from ..video.video_file import VideoFile
from .drawing import View
from .networks import DETECTORS, find_asset
from .tracking import MIN_SECONDS

FASTEST = 1e5  # frames per second


@dataclass(frozen=True)
class DemoOptions:
    """What ``demo.py`` can be asked for; its ``--help`` documents each.

    ``vid_file`` and ``img_dir`` are '' for the sample video, ``model`` is '' for the official checkpoint if
    it is there, else the open one.
    """

    vid_file: str = ""
    img_dir: str = ""
    output_folder: str = "output/demo_output"
    model: str = ""
    base_data: str = BASE_DATA
    open_dir: str = OPEN_DATA
    gender: str = "neutral"
    detector: str = "auto"
    fps: Fraction | float | None = None
    min_seconds: float = MIN_SECONDS
    tracks: str = ""
    poses: str = ""
    save_tracks: bool = False
    person: str = "all"
    device: str = "auto"
    bf16: bool = False
    fit: bool | None = None
    smooth: str = "0"
    focal: float | None = None
    height: str = ""
    up: Up = "floor"
    lock_feet: bool = True
    cfg: str = ""
    opts: Sequence[str] = ()
    plugin: Sequence[str] = ()
    render: bool = True
    wireframe: bool = False
    view: View = ""
    render_plain: bool = False
    export: Sequence[str] = ()
    viewer: bool = False
    display: bool = False


def check_options(options: DemoOptions) -> None:
    """UserError if the value of an option makes no sense. Loads plugins, which may add values."""
    load_plugins(options.plugin)
    parse_smoothing(options.smooth)
    parse_heights(options.height)
    if options.vid_file and options.img_dir:
        raise UserError("both --vid_file and --img_dir are given; expected one of them")
    if options.poses and options.tracks:
        raise UserError("both --poses and --tracks are given; expected one of them: poses tell who is where")
    DETECTORS.find(options.detector)
    for name in options.export:
        EXPORTERS.find(name, "--export")
    drawn = ("display", "wireframe", "view", "render_plain")
    if not options.render and (given := [f"--{name}" for name in drawn if getattr(options, name)]):
        raise UserError(f"{', '.join(given)}: no video is drawn; expected --render with it")
    if options.up not in get_args(Up):
        raise UserError(f"--up {options.up}: expected {' or '.join(get_args(Up))}")
    if options.fps is not None and not 0 < options.fps < FASTEST:
        raise UserError(f"--fps {options.fps}: expected a number of frames per second")
    if not (np.isfinite(options.min_seconds) and options.min_seconds >= 0):
        raise UserError(f"--min_seconds {options.min_seconds}: expected a number of seconds, 0 or more")
    if options.focal is not None and not 0 < options.focal < 1e6:
        raise UserError(f"--focal {options.focal}: expected a focal length in pixels, between 0 and 1000000")
    if options.person not in ("all", "largest") and not options.person.isdecimal():
        raise UserError(f"--person {options.person}: expected a person's number, largest or all")


def parse_heights(text: str) -> dict[int | None, float]:
    """``--height``: metres of everybody (under None), or ``ID=METRES`` of some, with commas between."""
    heights: dict[int | None, float] = {}
    try:
        for part in text.split(",") if text else []:
            person, given, metres = part.rpartition("=")
            heights[int(person) if given else None] = float(metres)
    except ValueError:
        heights = {None: 0.0}
    if not all(SHORTEST <= metres <= TALLEST for metres in heights.values()):
        raise UserError(
            f"--height {text}: expected metres between {SHORTEST} and {TALLEST} for everybody, as 1.75, or "
            "for people by their numbers, as 1=1.75,2=1.62"
        )
    return heights


def heights_of(heights: Mapping[int | None, float], people: Sequence[int]) -> dict[int, float]:
    """Heights by person; UserError if one of them is of nobody."""
    for person in heights:
        if person is not None and person not in people:
            found = ", ".join(map(str, people))
            raise UserError(f"--height of person {person}: there is none; expected one of {found}")
    return {
        person: heights.get(person, heights.get(None, 0.0))
        for person in people
        if person in heights or None in heights
    }


def open_source(options: DemoOptions) -> FrameSource:
    """The video or image folder asked for, or the sample video; UserError if there is none."""
    fps = given_rate(options)
    if options.img_dir:
        return ImageFolder(options.img_dir, fps)
    if options.vid_file.startswith(("http://", "https://")):
        raise UserError(
            f"--vid_file {options.vid_file}: links are not fetched; download the video and give the file"
        )
    return VideoFile(options.vid_file or find_asset("demo_video", options.open_dir), fps)


def given_rate(options: DemoOptions) -> Fraction | None:
    """Frames per second in place of what the input says, None if the options do not ask for any."""
    return None if options.fps is None else Fraction(options.fps).limit_denominator(100_000)

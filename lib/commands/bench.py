"""How fast this machine is: the first frames of a film, recovered several times, stage by stage."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from statistics import median

import torch

from ..demo.engine import load_engine
from ..demo.networks import find_asset
from ..demo.options import DemoOptions
from ..demo.recover import recover
from ..demo.stages import Stages
from ..models.body import OPEN_DATA
from ..utils.errors import UserError, fault
from ..utils.files import atomic_write
from ..video.frames import FrameList
from ..video.video_file import VideoFile


def main(argv: Sequence[str] | None = None) -> None:
    """The command line; see the module's text."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vid_file", default="", help="default: the sample video")
    parser.add_argument("--frames", type=int, default=60, help="of its beginning (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="the median of so many (%(default)s)")
    parser.add_argument("--detector", default="auto", help="as of tcmr demo")
    parser.add_argument("--device", default="auto", help="as of tcmr demo")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers to this file")
    args = parser.parse_args(argv)
    if args.frames < 1 or args.rounds < 1:
        raise UserError("--frames and --rounds: expected 1 or more")
    if args.vid_file and not Path(args.vid_file).is_file():
        raise UserError(f"--vid_file {args.vid_file} {fault(Path(args.vid_file))}; expected a video file")
    film = VideoFile(args.vid_file or find_asset("demo_video", OPEN_DATA))
    frames = list(islice(film, args.frames))
    options = DemoOptions(detector=args.detector, device=args.device)
    engine, rounds = load_engine(options), []
    for _ in range(args.rounds):
        stages = Stages()
        scene, _tracks = recover(FrameList(frames, film.info.fps), options, engine, stages)
        rounds.append(stages.seconds)
    seconds = {stage: median(each[stage] for each in rounds) for stage in rounds[0]}
    seconds["total"] = median(sum(each.values()) for each in rounds)
    person_frames = sum(map(len, scene.people))
    width, height = film.info.width, film.info.height
    print(
        f"{len(frames)} frames of {width}x{height}, {person_frames} person-frames, "
        f"{torch.get_num_threads()} CPU threads, median of {args.rounds}"
    )
    for stage, value in seconds.items():
        print(f"{stage:<10}{1000 * value / len(frames):9.2f} ms/frame")
    print(f"{len(frames) / seconds['total']:.1f} frames/s")
    if args.json:
        numbers = {"frames": len(frames), "person_frames": person_frames, "seconds": seconds}
        with atomic_write(args.json) as temporary:
            temporary.write_text(json.dumps(numbers, indent=2) + "\n", encoding="utf-8")

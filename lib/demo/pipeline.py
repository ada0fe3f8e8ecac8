"""The demo from video to files: what ``tcmr demo`` runs."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from tqdm.contrib.logging import logging_redirect_tqdm

from ..motion.motion import Scene
from ..utils.colours import colour_name
from .display import show_video
from .engine import Engine, load_engine
from .options import DemoOptions, check_options, open_source
from .pose_files import read_poses
from .recover import recover
from .result_folder import own_folder, result_folder
from .results import check_places, write_results
from .stages import Bars, Stages
from .track_files import read_boxes

log = logging.getLogger(__name__)


def run_demo(options: DemoOptions, engine: Engine | None = None) -> list[Path]:
    """Run the whole demo and return the files written.

    They go to ``{output_folder}/{name}`` (:func:`lib.demo.result_folder.result_folder`):
    ``tcmr_{name}_output.mp4`` with the frame times of the input and ``tcmr_{name}_input.mp4`` (a copy if
    the input is an .mp4, else encoded) with ``render``, ``tcmr_output.npz``
    (:func:`lib.motion.scene_file.load_scene`), what ``export`` asks for
    (:data:`lib.motion.exporters.EXPORTERS`), ``tracks.txt`` with ``save_tracks``, ``viewer.html`` with
    ``viewer``. Each appears only when it is complete.

    Args:
        engine: networks loaded before by :func:`lib.demo.engine.load_engine` with the same options.

    Raises:
        UserError: the input, a checkpoint or an asset is missing or unusable, or nobody was found.
    """
    stages = Bars()
    check_options(options)
    boxes = read_boxes(options.tracks) if options.tracks else None
    estimates = read_poses(options.poses) if options.poses else None
    source = open_source(options)
    info = source.info
    check_places(result_folder(options.output_folder, source), options)
    log.info("%s: %dx%d, %.2f frames per second", source.name, info.width, info.height, float(info.fps))
    with stages.timing("loading"):
        engine = engine or load_engine(options)
    with logging_redirect_tqdm():
        scene, tracks = recover(source, options, engine, stages, boxes, estimates)
    with own_folder(options.output_folder, source) as folder:
        files = write_results(folder, source, scene, tracks, options, engine.models, stages)
    log.info("%s", summary(scene, stages, files, source.damage))
    if options.display:
        files.append(show_video(files[0]))
    return files


def summary(scene: Scene, stages: Stages, files: Sequence[Path], damage: str = "") -> str:
    """People, what is damaged, time per stage and files written, as lines of text."""
    people, n_frames = scene.people, scene.n_frames
    lines = ["", f"{len(people)} {'person' if len(people) == 1 else 'people'} in {n_frames} frames"]
    for index, motion in enumerate(people):
        first, last = motion.frames[[0, -1]]
        colour = colour_name(index)
        lines.append(f"  person {motion.person_id}: frames {first} to {last} ({len(motion)}), drawn {colour}")
    lines += [f"the film is {damage}"] if damage else []
    seconds = stages.seconds
    total = sum(seconds.values())
    lines += ["", f"{'stage':<12}{'seconds':>9}{'share':>8}{'ms/frame':>10}"]
    for stage, value in [*seconds.items(), ("total", total)]:
        per_frame = "" if stage == "loading" else f"{1000 * value / n_frames:10.1f}"
        lines.append(f"{stage:<12}{value:9.2f}{value / total:8.0%}{per_frame}")
    lines += ["", f"TCMR FPS (features and TCMR): {n_frames / (seconds['features'] + seconds['TCMR']):.2f}"]
    lines += [f"Total FPS (including model loading): {n_frames / total:.2f}", "", "written:"]
    return "\n".join([*lines, *(f"  {path}" for path in files)])

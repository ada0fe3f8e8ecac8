"""The files of a demo's results, and the video with the bodies drawn in."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path

import numpy as np

from ..motion.exporters import export_scene
from ..motion.motion import Scene
from ..motion.scene_file import save_scene
from ..motion.viewer import write_viewer
from ..utils.errors import UserError, fault
from ..utils.files import atomic_write, check_writable
from ..utils.prefetch import map_ahead, prefetch
from ..video.frames import FRAMES_AHEAD, FrameSource
from ..video.video_file import VideoFile
from ..video.writer import VideoWriter
from .drawing import Drawer, figures
from .models import Models
from .options import DemoOptions
from .recover import Person
from .render import Renderer
from .result_folder import SCENE, place_mark
from .stages import Stages
from .track_files import save_boxes

TRACKS, PAGE = "tracks.txt", "viewer.html"
_DRAWING_THREADS = 2


def check_places(folder: Path, options: DemoOptions) -> None:
    """Tell the user before the work, not after it, that results cannot be written; creates nothing."""
    check_writable(folder / "scene", "--output_folder")
    names = [f"tcmr_{folder.name}_{kind}.mp4" for kind in ("output", "input") if options.render]
    names += [SCENE, *([TRACKS] * options.save_tracks), *([PAGE] * options.viewer)]
    for name in names:
        if (folder / name).exists() and not (folder / name).is_file():
            raise UserError(f"{folder / name} {fault(folder / name)}, expected a file: move it away")


def write_results(
    folder: Path,
    source: FrameSource,
    scene: Scene,
    tracks: Sequence[Person],
    options: DemoOptions,
    models: Models,
    stages: Stages,
) -> list[Path]:
    """Write what the options ask for into ``folder``, see :func:`lib.demo.pipeline.run_demo`; the files
    written."""
    files: list[Path] = []
    if options.render:
        with stages("rendering", scene.n_frames) as update:
            files += write_videos(source, scene, models, folder, options, update)
    if options.save_tracks:
        files.append(folder / TRACKS)
        save_boxes(tracks, files[-1])
    with stages.timing("saving"):
        files.append(folder / SCENE)
        save_scene(scene, files[-1], place_mark(source.path))
        files += export_scene(scene, models.body, folder, options.export)
    if options.viewer:
        files.append(folder / PAGE)
        with stages("viewer", scene.n_frames) as update:
            write_viewer(scene, models.body, source, files[-1], update)
    return files


def write_videos(
    source: FrameSource,
    scene: Scene,
    models: Models,
    folder: Path,
    options: DemoOptions,
    progress: Callable[[int], object],
) -> list[Path]:
    """Draw all frames; returns the output video and the input video.

    Decoding, drawing and encoding run side by side.
    """
    output = folder / f"tcmr_{folder.name}_output.mp4"
    input_copy = folder / f"tcmr_{folder.name}_input.mp4"
    info = source.info
    people = figures(scene, models.tcmr.regressor.smpl, models.body, plain=options.render_plain)
    drawer = Drawer(
        scene,
        people,
        Renderer(models.body.faces, info.width, info.height, len(models.body.v_template)),
        view=options.view,
        wireframe=options.wireframe,
        plain=options.render_plain,
    )
    copied = isinstance(source, VideoFile) and source.path.suffix.lower() == ".mp4" and options.fps is None
    original = source.path if copied else None
    with ExitStack() as stack:
        writer = stack.enter_context(VideoWriter(output, info.fps))
        input_writer = None if original else stack.enter_context(VideoWriter(input_copy, info.fps))

        def draw(
            numbered: tuple[int, tuple[Fraction, np.ndarray]],
        ) -> tuple[Fraction, np.ndarray, np.ndarray]:
            frame_id, (moment, frame) = numbered
            return moment, frame, drawer(frame, frame_id)

        timed = stack.enter_context(prefetch(source.timed(), FRAMES_AHEAD))
        drawn = stack.enter_context(
            map_ahead(draw, enumerate(timed), workers=_DRAWING_THREADS, ahead=FRAMES_AHEAD)
        )
        for moment, frame, image in drawn:
            writer.write(image, moment)
            if input_writer is not None:
                input_writer.write(frame, moment)
            progress(1)
    if original:
        with atomic_write(input_copy) as temporary:
            shutil.copyfile(original, temporary)
    return [output, input_copy]

"""The demo from video to meshes: detect and follow people, features, TCMR, rendering, files."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, count
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from tqdm.contrib.logging import logging_redirect_tqdm
from yacs.config import CfgNode

from ..core.config import choose_device
from ..landmarks.blazepose import LandmarkNetwork
from ..models.body import BASE_DATA, OPEN_DATA
from ..models.extractors import PosesExtractor, PoseTrack
from ..motion.camera import Camera
from ..motion.exporters import EXPORTERS, export_scene
from ..motion.height import SHORTEST, TALLEST
from ..motion.motion import Scene
from ..motion.scene_file import save_scene, scene_mark
from ..motion.smooth import parse_smoothing
from ..motion.viewer import write_viewer
from ..motion.world import Up
from ..utils.colours import colour_name
from ..utils.errors import UserError, fault
from ..utils.files import atomic_write, only_process
from ..utils.plugins import load_plugins
from ..utils.prefetch import map_ahead, prefetch
from ..video.video import FrameSource, ImageFolder, VideoFile, VideoWriter
from .camera_watch import CameraWatch
from .display import show_video
from .drawing import Drawer, View, figures
from .focal import film_camera
from .models import Models, find_checkpoint, load_models
from .networks import DETECTORS, find_asset, landmark_network, person_detector
from .pose_files import PoseEstimates, pose_tracks, read_poses
from .reconstruct import reconstruct
from .render import Renderer
from .stages import Bars, Stages
from .track_files import Boxes, choose_people, read_boxes, save_boxes, track_boxes
from .tracking import MIN_SECONDS, Detector, Track, track_people

log = logging.getLogger(__name__)

SCENE, TRACKS, PAGE = "tcmr_output.npz", "tracks.txt", "viewer.html"
_LONGEST_NAME = 200  # bytes
_DRAWING_THREADS = 2
FASTEST = 1e5  # frames per second
_FRAMES_AHEAD = 4
"""Frames that a stage of a pass over the video (decoding, drawing, ...) may be ahead of the next stage."""


Person = Track | PoseTrack


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


@dataclass(frozen=True, eq=False)
class Engine:
    """All networks of the demo, to be loaded once for any number of films; ``detector`` is None where people
    are followed in given boxes only, ``landmarks``, too, where their poses are given."""

    models: Models
    landmarks: LandmarkNetwork | None
    detector: Detector | None


def load_engine(options: DemoOptions) -> Engine:
    """The networks that the options ask for.

    Raises:
        UserError: a checkpoint, an asset or a plugin is missing or unusable.
    """
    load_plugins(options.plugin)
    device = choose_device(options.device, "cuda" if torch.cuda.is_available() else "cpu")
    checkpoint = find_checkpoint(
        options.model, options.base_data, options.open_dir, poses=bool(options.poses)
    )
    known = options.tracks or options.poses
    engine = Engine(
        landmarks=None if options.poses else landmark_network(options.detector, options.open_dir),
        detector=None if known else person_detector(options.detector, options.open_dir, device),
        models=load_models(
            checkpoint,
            base_data=options.base_data,
            open_dir=options.open_dir,
            gender=options.gender,
            device=device,
            bf16=options.bf16,
            cfg_file=options.cfg,
            opts=options.opts,
        ),
    )
    models = engine.models
    check_features(models, options)
    log.info("model: %s (%s features, %s body)", checkpoint, models.extractor.name, models.body.kind)
    return engine


def run_demo(options: DemoOptions, engine: Engine | None = None) -> list[Path]:
    """Run the whole demo and return the files written.

    They go to ``{output_folder}/{name}`` (:func:`result_folder`): ``tcmr_{name}_output.mp4`` with the frame
    times of the input and ``tcmr_{name}_input.mp4`` (a copy if the input is an .mp4, else encoded) with
    ``render``, ``tcmr_output.npz`` (:func:`lib.motion.scene_file.load_scene`), what ``export`` asks for
    (:data:`lib.motion.exporters.EXPORTERS`), ``tracks.txt`` with ``save_tracks``, ``viewer.html`` with
    ``viewer``.
    Each appears only when it is complete.

    Args:
        engine: networks loaded before by :func:`load_engine` with the same options.

    Raises:
        UserError: the input, a checkpoint or an asset is missing or unusable, or nobody was found.
    """
    stages = Bars()
    check_options(options)
    boxes = read_boxes(options.tracks) if options.tracks else None
    estimates = read_poses(options.poses) if options.poses else None
    source = open_source(options)
    info = source.info
    _check_writable(result_folder(options.output_folder, source), options)
    log.info("%s: %dx%d, %.2f frames per second", source.name, info.width, info.height, float(info.fps))
    with stages.timing("loading"):
        engine = engine or load_engine(options)
    with logging_redirect_tqdm():
        scene, tracks = recover(source, options, engine, stages, boxes, estimates)
    with _own_folder(options, source) as folder:
        files = write_results(folder, source, scene, tracks, options, engine.models, stages)
    log.info("%s", summary(scene, stages, files, source.damage))
    if options.display:
        files.append(show_video(files[0]))
    return files


def recover(
    source: FrameSource,
    options: DemoOptions,
    engine: Engine,
    stages: Stages,
    boxes: Boxes | None = None,
    estimates: PoseEstimates | None = None,
) -> tuple[Scene, Sequence[Person]]:
    """Find and follow the people of a film and reconstruct them; writes nothing.

    Args:
        options: those about input, output and rendering are not looked at.
        boxes: where to find the people, see :func:`lib.demo.track_files.read_boxes`; None: everywhere.
        estimates: who is where, and in which pose, see :func:`lib.demo.pose_files.read_poses`.

    Returns:
        the scene, and the tracks that its people come from.

    Raises:
        UserError: the film cannot be read, or nobody was found.
    """
    told = None if estimates is None or estimates.focal is None else float(np.median(estimates.focal))
    camera, fps = film_camera(source, options.focal or told), float(source.info.fps)
    models = engine.models
    moments: list[Fraction] = []
    watch = CameraWatch(fps)
    with (
        stages("tracking", source.info.frames) as update,
        prefetch(source.timed(), _FRAMES_AHEAD) as timed,
    ):
        frames = watch.watching(_noting_times(timed, moments, update))
        tracks: Sequence[Person] = []
        if estimates is not None:
            n_frames = sum(1 for _ in frames)
            shown = measured_fps(moments, source.info.fps)
            tracks = estimated_tracks(estimates, models, camera, shown, n_frames)
        elif boxes is not None:
            assert engine.landmarks is not None
            tracks = track_boxes(frames, boxes, engine.landmarks.with_focal(camera.focal), fps=fps)
        else:
            assert engine.landmarks is not None and engine.detector is not None
            network = engine.landmarks.with_focal(camera.focal)
            tracks = track_people(frames, engine.detector, network, fps=fps, min_seconds=options.min_seconds)
    if not tracks:
        raise UserError(_nobody(source, len(moments), options))
    camera_moves = watch.camera_moves(tracks)  # before people are left out: nobody is background
    return reconstruct_people(
        tracks,
        source,
        options,
        models,
        stages,
        camera=camera,
        fps=measured_fps(moments, source.info.fps),
        n_frames=len(moments),
        name=source.name,
        camera_moves=camera_moves,
    )


def estimated_tracks(
    estimates: PoseEstimates, models: Models, camera: Camera, fps: float, n_frames: int
) -> list[PoseTrack]:
    """The people of ``--poses``. UserError if the film is shorter than the file says."""
    last = estimates.frame_ids.max()
    if last >= n_frames:
        raise UserError(
            f"--poses {estimates.path}: has frame {last}, counted from 0, but the film has {n_frames} "
            "frames; is it the film that the poses were estimated from?"
        )
    if estimates.body != models.body.kind:
        log.info(
            "shapes are the mean: %s has those of the %s body, meshes are the %s body",
            *(estimates.path, estimates.body, models.body.kind),
        )
    width, height, focal = camera.width, camera.height, camera.focal
    return pose_tracks(estimates, models.body, width=width, height=height, focal=focal, fps=fps)


def check_features(models: Models, options: DemoOptions) -> None:
    """UserError if the model reads estimates of poses and there are none, or the other way round."""
    name = models.extractor.name
    if (name == PosesExtractor.name) != bool(options.poses):
        what = "needs --poses FILE" if name == PosesExtractor.name else "cannot read --poses"
        raise UserError(
            f"--model {options.model} has {name} features, so that it {what}; choose another model"
        )
    if options.poses and options.fit:
        raise UserError("--fit moves bodies onto landmarks, and with --poses there are none: leave it out")


def reconstruct_people(
    tracks: Sequence[Person],
    frames: Iterable[np.ndarray],
    options: DemoOptions,
    models: Models,
    stages: Stages,
    *,
    camera: Camera,
    fps: float,
    n_frames: int,
    name: str = "",
    camera_moves: bool = False,
) -> tuple[Scene, list[Person]]:
    """The motions of those of ``tracks`` that the options ask for, and their tracks; for the rest see
    :func:`reconstruct`.

    Raises:
        UserError: there is no such person, or nobody is in sight for long enough.
    """
    chosen = _long_enough(choose_people(tracks, options.person), models.cfg)
    scene = reconstruct(
        models,
        frames,
        chosen,
        camera=camera,
        fps=fps,
        n_frames=n_frames,
        name=name,
        fit=options.fit,
        smoothing=parse_smoothing(options.smooth),
        heights=heights_of(parse_heights(options.height), [track.person_id for track in chosen]),
        up=options.up,
        lock_feet=options.lock_feet,
        camera_moves=camera_moves,
        stages=stages,
    )
    return scene, chosen


def write_results(
    folder: Path,
    source: FrameSource,
    scene: Scene,
    tracks: Sequence[Person],
    options: DemoOptions,
    models: Models,
    stages: Stages,
) -> list[Path]:
    """Write what the options ask for into ``folder``, see :func:`run_demo`; the files written."""
    files: list[Path] = []
    if options.render:
        with stages("rendering", scene.n_frames) as update:
            files += write_videos(source, scene, models, folder, options, update)
    if options.save_tracks:
        files.append(folder / TRACKS)
        save_boxes(tracks, files[-1])
    with stages.timing("saving"):
        files.append(folder / SCENE)
        save_scene(scene, files[-1], _mark(source))
        files += export_scene(scene, models.body, folder, options.export)
    if options.viewer:
        files.append(folder / PAGE)
        with stages("viewer", scene.n_frames) as update:
            write_viewer(scene, models.body, source, files[-1], update)
    return files


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


def result_folder(output_folder: str | Path, source: FrameSource) -> Path:
    """Where the results of an input go: ``{output_folder}/{name}``, name being that of the video without its
    suffix, or of the image folder. Where the results of another input lie there, the name gets the suffix or
    a number on top; the same input finds its own folder again.
    """
    return next(_possible_folders(output_folder, source))


@contextmanager
def _own_folder(options: DemoOptions, source: FrameSource) -> Iterator[Path]:
    """The first possible folder in which no other run is writing, held while the block runs."""
    for folder in _possible_folders(options.output_folder, source):
        with only_process(folder) as alone:
            if alone and _made_from(folder) in ("", _mark(source)):  # none finished there meanwhile
                yield folder
                return


def _possible_folders(output_folder: str | Path, source: FrameSource) -> Iterator[Path]:
    # 255 bytes is the most that file systems take, and names of files are made of this one.
    stem = printable_name(source.name).encode()[:_LONGEST_NAME].decode(errors="ignore") or "images"
    suffix = printable_name(source.path.suffix[1:]) if isinstance(source, VideoFile) else ""
    names = chain([stem], [f"{stem}_{suffix}"] if suffix else [], (f"{stem}_{i}" for i in count(2)))
    folders = (Path(output_folder) / name for name in names)
    return (folder for folder in folders if _made_from(folder) in ("", _mark(source)))


def printable_name(name: str) -> str:
    """``name`` without characters that steer a terminal."""
    return "".join(character if character.isprintable() else "_" for character in name)


def _mark(source: FrameSource) -> str:
    """Tells inputs apart in their results, without naming folders of the user's in a file that is shared."""
    return hashlib.sha256(os.fsencode(source.path.resolve())).hexdigest()[:16]


def _made_from(folder: Path) -> str:
    """The mark of the input whose results lie in a folder, '' if there are none."""
    return scene_mark(folder / SCENE)


def _nobody(source: FrameSource, n_frames: int, options: DemoOptions) -> str:
    seconds = n_frames / float(source.info.fps)
    if options.tracks:
        found = f"no person was seen in the boxes of {options.tracks}"
    else:
        found = f"nobody was found who is in sight for {min(options.min_seconds, seconds):.2g} s"
    damage = f"; the film is {source.damage}" if source.damage else ""
    return (
        f"{source.name} ({n_frames} frames, {seconds:.3g} s): {found}, so there is nothing to reconstruct; "
        "expected people with head and shoulders in sight, at least a twentieth as tall as the frame is long"
        f"{damage}"
    )


def _long_enough(tracks: Sequence[Person], cfg: CfgNode) -> list[Person]:
    """Tracks that the configured windows fit into. UserError if there is none."""
    needed = cfg.DATASET.SEQLEN if cfg.COMPAT.STATIC_BORDERS else 1
    kept = [track for track in tracks if len(track.frame_ids) >= needed]
    if not kept:
        raise UserError(
            f"nobody is in sight for {needed} frames, which this model's windows need; "
            "--opts COMPAT.STATIC_BORDERS False does with any number"
        )
    for track in tracks:
        if track not in kept:
            log.warning("person %d is left out: in sight for less than %d frames", track.person_id, needed)
    return kept


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


def measured_fps(moments: Sequence[Fraction], stated: Fraction) -> float:
    """Average frame rate of the decoded frames; containers state it wrongly when it varies."""
    return float((len(moments) - 1) / moments[-1]) if len(moments) > 1 else float(stated)


def _check_writable(folder: Path, options: DemoOptions) -> None:
    """Tell the user before the work, not after it, that results cannot be written; creates nothing."""
    parent = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise UserError(f"--output_folder: cannot write to {parent}; expected a folder that you may write to")
    names = [f"tcmr_{folder.name}_{kind}.mp4" for kind in ("output", "input") if options.render]
    names += [SCENE, *([TRACKS] * options.save_tracks), *([PAGE] * options.viewer)]
    for name in names:
        if (folder / name).exists() and not (folder / name).is_file():
            raise UserError(f"{folder / name} {fault(folder / name)}, expected a file: move it away")


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

        timed = stack.enter_context(prefetch(source.timed(), _FRAMES_AHEAD))
        drawn = stack.enter_context(
            map_ahead(draw, enumerate(timed), workers=_DRAWING_THREADS, ahead=_FRAMES_AHEAD)
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


def _noting_times(
    timed: Iterable[tuple[Fraction, np.ndarray]], moments: list[Fraction], progress: Callable[[int], object]
) -> Iterator[np.ndarray]:
    """The frames; their times are appended to ``moments``."""
    for moment, frame in timed:
        moments.append(moment)
        yield frame
        progress(1)

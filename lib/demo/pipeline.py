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

import numpy as np
import torch
from tqdm.contrib.logging import logging_redirect_tqdm
from yacs.config import CfgNode

from ..core.config import choose_device
from ..data_utils.pose_files import PoseEstimates, pose_tracks, read_poses
from ..models.body import BASE_DATA, OPEN_DATA
from ..models.extractors import LandmarkTrack, PosesExtractor, PoseTrack
from ..motion.camera import Camera
from ..motion.exporters import check_formats, export_scene
from ..motion.height import SHORTEST, TALLEST
from ..motion.motion import Scene
from ..motion.scene_file import save_scene
from ..motion.smooth import parse_smoothing
from ..motion.viewer import write_viewer
from ..motion.world import Up
from ..utils.colours import colour_name
from ..utils.errors import UserError, fault
from ..utils.files import atomic_write, only_process
from ..utils.prefetch import map_ahead, prefetch
from ..video.video import FrameSource, ImageFolder, VideoFile, VideoWriter, video_comment
from .camera_watch import CameraWatch
from .display import show_video
from .drawing import Drawer, View, figures
from .focal import film_camera
from .models import Models, find_checkpoint, load_models
from .networks import find_asset, landmark_network, person_detector
from .reconstruct import Stopwatch, progress_bar, reconstruct
from .render import Renderer
from .track_files import choose_people, read_boxes, save_boxes, track_boxes
from .tracking import MIN_SECONDS, track_people

log = logging.getLogger(__name__)

SCENE, TRACKS, PAGE = "tcmr_output.npz", "tracks.txt", "viewer.html"
_LONGEST_NAME = 200  # bytes
_DRAWING_THREADS = 2
_FRAMES_AHEAD = 4
"""Frames that a stage of a pass over the video (decoding, drawing, ...) may be ahead of the next stage."""


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
    wireframe: bool = False
    view: View = ""
    render_plain: bool = False
    export: Sequence[str] = ()
    viewer: bool = False
    display: bool = False


def run_demo(options: DemoOptions) -> list[Path]:
    """Run the whole demo and return the files written.

    They go to ``{output_folder}/{name}`` (:func:`result_folder`): ``tcmr_{name}_output.mp4`` with the frame
    times of the input, ``tcmr_{name}_input.mp4`` (a copy if the input is an .mp4, else encoded),
    ``tcmr_output.npz`` (:func:`lib.motion.scene_file.load_scene`), what ``export`` asks for
    (:data:`lib.motion.exporters.EXPORTERS`), ``tracks.txt`` with ``save_tracks``, ``viewer.html`` with
    ``viewer``.
    Each appears only when it is complete.

    Raises:
        UserError: the input, a checkpoint or an asset is missing or unusable, or nobody was found.
    """
    stopwatch = Stopwatch()
    check_options(options)
    boxes = read_boxes(options.tracks) if options.tracks else None
    estimates = read_poses(options.poses) if options.poses else None
    heights = parse_heights(options.height)
    source = open_source(options)
    info = source.info
    _check_writable(result_folder(options.output_folder, source), options)
    log.info("%s: %dx%d, %.2f frames per second", source.name, info.width, info.height, float(info.fps))
    told = None if estimates is None or estimates.focal is None else float(np.median(estimates.focal))
    camera = film_camera(source, options.focal or told)
    with stopwatch("loading"):
        device = choose_device(options.device, "cuda" if torch.cuda.is_available() else "cpu")
        network = detector = None
        if estimates is None:
            network = landmark_network(options.detector, options.open_dir, camera.focal)
        if estimates is None and boxes is None:
            detector = person_detector(options.detector, options.open_dir, device)
        checkpoint = find_checkpoint(
            options.model, options.base_data, options.open_dir, poses=estimates is not None
        )
        models = load_models(
            checkpoint,
            base_data=options.base_data,
            open_dir=options.open_dir,
            gender=options.gender,
            device=device,
            bf16=options.bf16,
            cfg_file=options.cfg,
            opts=options.opts,
        )
    check_features(models, options)
    log.info("model: %s (%s features, %s body)", checkpoint, models.extractor.name, models.body.kind)

    moments: list[Fraction] = []
    watch = CameraWatch(float(info.fps))
    with (
        stopwatch("tracking"),
        logging_redirect_tqdm(),
        progress_bar(info.frames, "tracking") as bar,
        prefetch(source.timed(), _FRAMES_AHEAD) as timed,
    ):
        frames, fps = watch.watching(_noting_times(timed, moments, bar.update)), float(info.fps)
        tracks: Sequence[LandmarkTrack | PoseTrack] = []
        if estimates is not None:
            for _ in frames:
                pass
        elif boxes:
            assert network is not None
            tracks = track_boxes(frames, boxes, network, fps=fps)
        else:
            assert network is not None and detector is not None
            tracks = track_people(frames, detector, network, fps=fps, min_seconds=options.min_seconds)
    n_frames = len(moments)
    if estimates is not None:
        tracks = estimated_tracks(estimates, models, camera, measured_fps(moments, info.fps), n_frames)
    if not tracks:
        raise UserError(_nobody(source, n_frames, options))
    camera_moves = watch.camera_moves(tracks)  # before people are left out: nobody is background
    tracks = _long_enough(choose_people(tracks, options.person), models.cfg)
    scene = reconstruct(
        models,
        source,
        tracks,
        camera=camera,
        fps=measured_fps(moments, info.fps),
        n_frames=n_frames,
        name=source.name,
        fit=options.fit,
        smoothing=parse_smoothing(options.smooth),
        heights=heights_of(heights, [track.person_id for track in tracks]),
        up=options.up,
        lock_feet=options.lock_feet,
        camera_moves=camera_moves,
        stopwatch=stopwatch,
    )
    files: list[Path] = []
    with _own_folder(options, source) as folder:
        with stopwatch("rendering"), progress_bar(n_frames, "rendering") as bar:
            files += write_videos(source, scene, models, folder, options, bar.update)
        if options.save_tracks:
            files.append(folder / TRACKS)
            save_boxes(tracks, files[-1])
        with stopwatch("saving"):
            files.append(folder / SCENE)
            save_scene(scene, files[-1])
            files += export_scene(scene, models.body, folder, options.export)
        if options.viewer:
            files.append(folder / PAGE)
            with stopwatch("viewer"), progress_bar(n_frames, "viewer") as bar:
                write_viewer(scene, models.body, source, files[-1], bar.update)
    log.info("%s", summary(scene, stopwatch, files, source.damage))
    if options.display:
        files.append(show_video(files[0]))
    return files


def estimated_tracks(
    estimates: PoseEstimates, models: Models, camera: Camera, fps: float, n_frames: int
) -> list[PoseTrack]:
    """The people of ``--poses``. UserError if the film is shorter than the file says."""
    if estimates.frame_ids.max() >= n_frames:
        raise UserError(
            f"--poses {estimates.path}: has frame {estimates.frame_ids.max()}, counted from 0, but the film "
            f"has {n_frames} frames; is it the film that the poses were estimated from?"
        )
    if estimates.body != models.body.kind:
        log.info(
            "shapes are the mean: --poses has the %s body's, meshes are the %s body",
            estimates.body,
            models.body.kind,
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


def check_options(options: DemoOptions) -> None:
    """UserError if the value of an option makes no sense."""
    parse_smoothing(options.smooth)
    if options.vid_file and options.img_dir:
        raise UserError("both --vid_file and --img_dir are given; expected one of them")
    if options.poses and options.tracks:
        raise UserError(
            "both --poses and --tracks are given; expected one of them: poses tell where people are"
        )
    check_formats(options.export, "--export")
    if options.fps is not None and not 0 < options.fps < 1e5:
        raise UserError(f"--fps {options.fps}: expected a number of frames per second")
    if not (np.isfinite(options.min_seconds) and options.min_seconds >= 0):
        raise UserError(f"--min_seconds {options.min_seconds}: expected a number of seconds, 0 or more")
    if options.focal is not None and not (np.isfinite(options.focal) and options.focal > 0):
        raise UserError(f"--focal {options.focal}: expected a focal length in pixels, more than 0")
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
    fps = None if options.fps is None else Fraction(options.fps).limit_denominator(100_000)
    if options.img_dir:
        return ImageFolder(options.img_dir, fps)
    if options.vid_file.startswith(("http://", "https://")):
        raise UserError(
            f"--vid_file {options.vid_file}: links are not fetched; download the video and give the file"
        )
    return VideoFile(options.vid_file or find_asset("demo_video", options.open_dir), fps)


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
    """Tells inputs apart in their results, without naming folders of the user's in a film that is shared."""
    return f"TCMR {hashlib.sha256(os.fsencode(source.path.resolve())).hexdigest()[:16]}"


def _made_from(folder: Path) -> str:
    """The mark of the input whose results lie in a folder, '' if there are none."""
    comment = video_comment(folder / f"tcmr_{folder.name}_output.mp4")
    return comment if comment.startswith("TCMR ") else ""


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


def _long_enough(
    tracks: Sequence[LandmarkTrack | PoseTrack], cfg: CfgNode
) -> list[LandmarkTrack | PoseTrack]:
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


def summary(scene: Scene, stopwatch: Stopwatch, files: Sequence[Path], damage: str = "") -> str:
    """People, what is damaged, time per stage and files written, as lines of text."""
    people, n_frames = scene.people, scene.n_frames
    lines = ["", f"{len(people)} {'person' if len(people) == 1 else 'people'} in {n_frames} frames"]
    for index, motion in enumerate(people):
        first, last = motion.frames[[0, -1]]
        colour = colour_name(index)
        lines.append(f"  person {motion.person_id}: frames {first} to {last} ({len(motion)}), drawn {colour}")
    lines += [f"the film is {damage}"] if damage else []
    seconds = stopwatch.seconds
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
    names = [f"tcmr_{folder.name}_{kind}.mp4" for kind in ("output", "input")]
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
        writer = stack.enter_context(VideoWriter(output, info.fps, _mark(source)))
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

"""From a film to a scene: find and follow its people, and reconstruct those who are asked for."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction

import numpy as np
from yacs.config import CfgNode

from ..models.extractors import PoseTrack
from ..motion.camera import Camera
from ..motion.motion import Scene
from ..motion.smooth import parse_smoothing
from ..utils.errors import UserError
from ..utils.prefetch import prefetch
from ..video.frames import FRAMES_AHEAD, FrameSource
from .camera_watch import CameraWatch
from .engine import Engine
from .focal import film_camera
from .models import Models
from .options import DemoOptions, heights_of, parse_heights
from .pose_files import PoseEstimates, pose_tracks
from .reconstruct import reconstruct
from .stages import Stages
from .track import Track
from .track_files import Boxes, choose_people, track_boxes
from .tracking import track_people

log = logging.getLogger(__name__)

Person = Track | PoseTrack


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
        prefetch(source.timed(), FRAMES_AHEAD) as timed,
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


def measured_fps(moments: Sequence[Fraction], stated: Fraction) -> float:
    """Average frame rate of the decoded frames; containers state it wrongly when it varies."""
    return float((len(moments) - 1) / moments[-1]) if len(moments) > 1 else float(stated)


def _noting_times(
    timed: Iterable[tuple[Fraction, np.ndarray]], moments: list[Fraction], progress: Callable[[int], object]
) -> Iterator[np.ndarray]:
    """The frames; their times are appended to ``moments``."""
    for moment, frame in timed:
        moments.append(moment)
        yield frame
        progress(1)


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

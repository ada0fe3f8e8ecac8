"""From tracked people to their motions: features, TCMR, the fit, the world."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from tqdm import tqdm
from yacs.config import CfgNode

from ..data_utils.boxes import scale_bboxes
from ..models.extractors import LandmarkExtractor, LandmarkTrack, PersonTrack, StaticFeatures
from ..models.landmark_body import LandmarkBody
from ..models.predict import Borders, predict_sequence, window_step
from ..motion.camera import Camera
from ..motion.fit import fit_track
from ..motion.lift import lift, make_motion, resize
from ..motion.motion import Scene
from ..motion.smooth import UNSMOOTHED, Smoothing, smooth_motion
from ..motion.world import Up, place_in_world
from ..utils.crops import CROP_SCALE, crop_to_image
from ..utils.landmark_flips import repair_flips
from .models import Models


@dataclass
class Stopwatch:
    """Seconds per named stage, in the order in which the stages were first timed."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start


def sequence_step(cfg: CfgNode, fps: float) -> int:
    """Frames from one frame of a window to the next, so that windows span the half second that TCMR was
    trained on, whatever the frame rate. The original protocol (COMPAT.STATIC_BORDERS) steps over none.
    """
    return window_step(fps, "static" if cfg.COMPAT.STATIC_BORDERS else "edge")


def reconstruct(
    models: Models,
    frames: Iterable[np.ndarray],
    tracks: Sequence[PersonTrack],
    *,
    camera: Camera,
    fps: float,
    n_frames: int,
    name: str = "",
    fit: bool | None = None,
    smoothing: Smoothing = UNSMOOTHED,
    heights: Mapping[int, float] | None = None,
    up: Up = "floor",
    lock_feet: bool = True,
    camera_moves: bool = False,
    stopwatch: Stopwatch | None = None,
) -> Scene:
    """The motions of tracked people.

    Args:
        models: see :func:`lib.demo.models.load_models`.
        frames: all RGB frames of the video; untouched if the extractor needs none.
        tracks: as long as the model's windows ask for.
        camera, fps, n_frames, name: of the video.
        fit: move the bodies onto the tracks' landmarks (:mod:`lib.motion.fit`); None: if the features are
            landmarks, too. Where landmarks are of no use, TCMR's own word stands.
        smoothing: of the motions; what is drawn and written alike.
        heights: metres, of persons by their numbers.
        up, lock_feet: see :func:`lib.motion.world.place_in_world`.
        camera_moves: see :class:`Scene`.
        stopwatch: gets the seconds of ``features``, ``TCMR``, ``fit`` and ``world``.

    Returns:
        a scene with one person per track, in order.
    """
    stopwatch = stopwatch or Stopwatch()
    total = sum(len(track.frame_ids) for track in tracks)
    with stopwatch("features"), progress_bar(total, "features") as bar:
        features = models.extractor(frames, tracks, bar.update)
    with stopwatch("TCMR"), progress_bar(total, "TCMR") as bar:
        predictions = [predict_track(models, static, fps, bar) for static in features]
    wanted = models.extractor.name == LandmarkExtractor.name if fit is None else fit
    smpl, body, people = models.tcmr.regressor.smpl, LandmarkBody(models.body), []
    with stopwatch("fit"), progress_bar(total, "fit") as bar:
        body = body.to(models.tcmr.regressor.init_cam.device)
        for track, static, output in zip(tracks, features, predictions):
            boxes = scale_bboxes(static.bboxes, CROP_SCALE)
            fitted = None
            if wanted and isinstance(track, LandmarkTrack):
                fitted = fit_track(
                    body,
                    output["rotmat"],
                    output["theta"],
                    static.bboxes,
                    repair_flips(track.xy, track.visibility, track.world),
                    width=camera.width,
                    height=camera.height,
                    fps=fps,
                    focal=camera.focal,
                    progress=bar.update,
                )
            if fitted is None:
                joints2d = crop_to_image(output["kp_2d"], static.bboxes)
                fitted = lift(smpl, output["theta"], output["rotmat"], joints2d, boxes, camera, fps)
            motion = make_motion(track.person_id, track.frame_ids, fitted, boxes, output["scores"], fps)
            if heights and track.person_id in heights:
                motion = resize(smpl, models.body, motion, heights[track.person_id], camera)
            people.append(smooth_motion(motion, smoothing, smpl, camera, fps))
    scene = Scene(
        name=name,
        people=tuple(people),
        camera=camera,
        fps=fps,
        n_frames=n_frames,
        body=models.body.kind,
        gender=models.body.gender,
        world_rotation=np.eye(3),
        world_offset=np.zeros(3),
        camera_moves=camera_moves,
    )
    with stopwatch("world"):
        return place_in_world(scene, models.body, up=up, lock=lock_feet)


def predict_track(models: Models, static: StaticFeatures, fps: float, bar: tqdm) -> dict[str, np.ndarray]:
    """What TCMR says of one track, see :func:`predict_sequence`; without vertices."""
    borders: Borders = "static" if models.cfg.COMPAT.STATIC_BORDERS else "edge"
    return predict_sequence(
        models.tcmr,
        static.values,
        return_verts=False,
        borders=borders,
        step=sequence_step(models.cfg, fps),
        precision=models.cfg.MODEL.PRECISION,
        progress=bar.update,
    )


def progress_bar(total: int | None, stage: str) -> tqdm:
    return tqdm(total=total, desc=f"{stage:<10}", unit="frame")

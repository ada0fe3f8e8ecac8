"""From tracked people to their motions: features, TCMR, the fit, the world."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from yacs.config import CfgNode

from ..data_utils.boxes import scale_bboxes
from ..landmarks.flips import repair_flips
from ..models.extractors import LandmarkTrack, PersonTrack, StaticFeatures
from ..models.landmark_body import LandmarkBody
from ..models.predict import predict_sequence, window_step
from ..models.tcmr import Borders
from ..motion.camera import Camera
from ..motion.fit import fit_track
from ..motion.lift import lift, make_motion, resize
from ..motion.motion import Scene
from ..motion.smooth import UNSMOOTHED, Smoothing, smooth_motion
from ..motion.world import Up, place_in_world
from ..utils.crops import CROP_SCALE, crop_to_image
from .models import Models
from .stages import Stages


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
    stages: Stages | None = None,
) -> Scene:
    """The motions of tracked people.

    Args:
        models: see :func:`lib.demo.models.load_models`.
        frames: all RGB frames of the video; untouched if the extractor needs none.
        tracks: as long as the model's windows ask for.
        camera, fps, n_frames, name: of the video.
        fit: move the bodies onto the tracks' landmarks (:mod:`lib.motion.fit`); None: if the extractor
            says so. Where landmarks are of no use, TCMR's own word stands.
        smoothing: of the motions; what is drawn and written alike.
        heights: metres, of persons by their numbers.
        up, lock_feet: see :func:`lib.motion.world.place_in_world`.
        camera_moves: see :class:`Scene`.
        stages: gets ``features``, ``TCMR``, ``fit`` and ``world``.

    Returns:
        a scene with one person per track, in order.
    """
    stages = stages or Stages()
    total = sum(len(track.frame_ids) for track in tracks)
    with stages("features", total) as update:
        features = models.extractor(frames, tracks, update)
    with stages("TCMR", total) as update:
        predictions = [predict_track(models, static, fps, update) for static in features]
    wanted = models.extractor.fits if fit is None else fit
    smpl, body, people = models.tcmr.regressor.smpl, LandmarkBody(models.body), []
    with stages("fit", total) as update:
        body = body.to(models.tcmr.device)
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
                    progress=update,
                )
            if fitted is None:
                joints2d = crop_to_image(output["kp_2d"], static.bboxes)
                fitted = lift(smpl, output["theta"], output["rotmat"], joints2d, boxes, camera, fps)
            motion = make_motion(track.person_id, track.frame_ids, fitted, boxes, output.get("scores"), fps)
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
    with stages.timing("world"):
        return place_in_world(scene, models.body, up=up, lock=lock_feet)


def predict_track(
    models: Models, static: StaticFeatures, fps: float, progress: Callable[[int], object] | None = None
) -> dict[str, np.ndarray]:
    """What TCMR says of one track, see :func:`predict_sequence`; without vertices."""
    borders: Borders = "static" if models.cfg.COMPAT.STATIC_BORDERS else "edge"
    return predict_sequence(
        models.tcmr,
        static.values,
        return_verts=False,
        borders=borders,
        step=sequence_step(models.cfg, fps),
        precision=models.cfg.MODEL.PRECISION,
        progress=progress,
    )

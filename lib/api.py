"""What ``import tcmr`` offers; the rest of the package is private to the project."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import cast

import numpy as np
import torch
from yacs.config import CfgNode

from .core.build import body_of, model_from
from .core.config import get_cfg_defaults
from .core.own_predictions import evaluate
from .dataset.database import Database, open_database, read_fields
from .demo.engine import Engine, load_engine
from .demo.models import find_checkpoint, official_config
from .demo.options import FASTEST, DemoOptions, check_options, given_rate, open_source
from .demo.pose_files import read_poses
from .demo.reconstruct import sequence_step
from .demo.recover import reconstruct_people
from .demo.recover import recover as recover_film
from .demo.stages import Progress, Stages
from .demo.track import Track
from .demo.track_files import read_boxes
from .demo.tracking import MIN_SECONDS
from .models.body import BASE_DATA, OPEN_DATA
from .models.predict import predict_sequence
from .models.stream import StreamingPredictor
from .models.tcmr import TCMR
from .motion.camera import Camera
from .motion.export import scene_body
from .motion.exporters import EXPORTERS, export_scene
from .motion.motion import Motion, Placed, Scene
from .motion.scene_file import load_scene, save_scene
from .motion.world import Up
from .utils.devices import choose_device
from .utils.errors import UserError, shown
from .utils.files import load_checkpoint
from .utils.geometry import default_focal
from .video.frames import IMAGE_FPS, FrameList, FrameSource

__all__ = [
    "Motion", "Placed", "Predictor", "Scene", "Track", "UserError",
    "evaluate", "export", "load", "load_scene", "read_database", "recover", "save_scene",
]  # fmt: skip


def recover(
    source: str | Path | np.ndarray | Sequence[np.ndarray] | Sequence[Track] | None = None,
    *,
    checkpoint: str | Path | None = None,
    device: str = "auto",
    fps: float | None = None,
    size: tuple[int, int] | None = None,
    tracks: str | Path | None = None,
    poses: str | Path | None = None,
    person: str | int = "all",
    min_seconds: float = MIN_SECONDS,
    detector: str = "auto",
    fit: bool | None = None,
    smooth: float | str = 0.0,
    focal: float | None = None,
    height: float | Mapping[int, float] | None = None,
    up: Up = "floor",
    lock_feet: bool = True,
    progress: Progress | None = None,
) -> Scene:
    """The motions of everybody in a video: what ``tcmr demo`` does, without drawing or writing anything.

    The networks stay loaded for the next call with the same ``checkpoint``, ``device`` and ``detector``.
    Calls from several threads wait for each other.

    Args:
        source: a video or an image file, a folder of images, RGB frames (T, H, W, 3) uint8, or tracks of
            people whose landmarks are known, for which no image is looked at. None: the sample video.
        checkpoint: default: the official one if it is there, else the open one.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        fps: frames per second in place of the file's time stamps; of frames, folders and tracks: 30.
        size: width and height of the video, px; for tracks only.
        tracks: a MOT file; people are followed in its boxes instead of being looked for.
        poses: an ``.npz`` of another method's SMPL estimates, frame by frame, to be made consistent
            (docs/poses.md); nobody is looked for.
        person: a person's number, ``largest`` or ``all``.
        min_seconds: people in sight for less are left out.
        detector: ``auto``, ``heavy``, ``full`` or ``torchvision``.
        fit: move the bodies onto the landmarks; None: if the features are landmarks, too.
        smooth: seconds, or what ``--smooth`` of the demo takes.
        focal: px; None: told by the file, or 1.2 times the longer side.
        height: metres, of everybody or by person.
        up, lock_feet: see :func:`lib.motion.world.place_in_world`.
        progress: called with a stage, how much of it is done, and how much there is.

    Returns:
        a scene; its ``people`` have ``poses`` (T, 72), ``trans`` (T, 3), ``betas`` (10,), ``fps``,
        ``frame_ids`` (T,) and more, see :class:`Motion`.

    Raises:
        UserError: the source cannot be read, nobody is in it, or a file or an option is of no use.
    """
    heights = ",".join(f"{k}={v}" for k, v in height.items()) if isinstance(height, Mapping) else height
    networks = DemoOptions(
        model=str(checkpoint or ""),
        device=device,
        detector=detector,
        tracks="given" if tracks else "",  # whatever they are, the networks are the same
        poses="given" if poses else "",
    )
    options = dataclasses.replace(
        networks,
        tracks=str(tracks or ""),
        poses=str(poses or ""),
        fps=None if fps is None else _number("fps", fps),
        person=str(person),
        min_seconds=_number("min_seconds", min_seconds),
        fit=fit,
        smooth=str(smooth),
        focal=None if focal is None else _number("focal", focal),
        height="" if heights is None else str(heights),
        up=up,
        lock_feet=lock_feet,
    )
    check_options(options)
    stages = Stages(progress)
    source = "" if source is None else source
    if isinstance(source, Sequence) and source and isinstance(source[0], Track):
        if tracks or poses:
            raise UserError("source is made of tracks already: leave out tracks and poses")
        film = None
    else:
        film = _open(cast("str | Path | Sequence[np.ndarray]", source), options)
    boxes = read_boxes(tracks) if tracks else None
    estimates = read_poses(poses) if poses else None
    with _ONE_AT_A_TIME:
        engine = _engine(networks)
        if film is None:
            return _recover_tracks(cast(Sequence[Track], source), size, options, engine, stages)
        return recover_film(film, options, engine, stages, boxes, estimates)[0]


def _open(source: str | Path | Sequence[np.ndarray], options: DemoOptions) -> FrameSource:
    if not isinstance(source, (str, Path, np.ndarray, list, tuple)):
        raise UserError(
            f"source is a {type(source).__name__}; expected a path, a list or array of RGB frames, or tracks"
        )
    if not isinstance(source, (str, Path)):
        return FrameList(source, given_rate(options))
    if str(source) and Path(source).is_dir():
        return open_source(dataclasses.replace(options, img_dir=str(source)))
    return open_source(dataclasses.replace(options, vid_file=str(source)))


def _recover_tracks(
    tracks: Sequence[Track],
    size: tuple[int, int] | None,
    options: DemoOptions,
    engine: Engine,
    stages: Stages,
) -> Scene:
    if size is None or len(size) != 2 or min(size) < 1:
        raise UserError("tracks without their video: give its width and height in pixels as size=(W, H)")
    for track in tracks:
        ids = np.asarray(track.frame_ids)
        if not len(ids) or ids[0] < 0 or (np.diff(ids) != 1).any():
            raise UserError(
                f"track of person {track.person_id}: expected numbers of consecutive frames, from 0 on"
            )
    if engine.models.extractor.needs_frames:
        raise UserError(
            f"the {engine.models.extractor.name} features of this checkpoint are of images: give the video"
        )
    camera = Camera(*size, options.focal or default_focal(*size))
    n_frames = 1 + max(int(track.frame_ids[-1]) for track in tracks)
    return reconstruct_people(
        tracks,
        (),
        options,
        engine.models,
        stages,
        camera=camera,
        fps=float(options.fps or IMAGE_FPS),
        n_frames=n_frames,
    )[0]


_ONE_AT_A_TIME = Lock()
"""The landmark networks have one set of buffers."""


@lru_cache(maxsize=1)
def _engine(options: DemoOptions) -> Engine:
    return load_engine(options)


def export(scene: Scene, folder: str | Path, formats: Sequence[str]) -> list[Path]:
    """Write a scene for other programs: any of npz, bvh, glb, json, trc, obj, pkl (docs/exports.md).

    Returns:
        the files written.

    Raises:
        UserError: an unknown format, or the scene's body is not installed.
    """
    formats = [formats] if isinstance(formats, str) else formats
    for name in formats:
        EXPORTERS.find(name, "formats")
    return export_scene(scene, scene_body(scene), Path(folder), formats)


@dataclass(frozen=True, eq=False)
class Predictor:
    """A temporal encoder with its weights, on its device.

    Attributes:
        model: the network, in evaluation mode.
        cfg: the configuration it was trained with.
        checkpoint: the file it comes from.
    """

    model: TCMR
    cfg: CfgNode
    checkpoint: Path

    @property
    def feature_size(self) -> int:
        """F, numbers per static feature."""
        return self.model.feature_size

    def predict(
        self, features: np.ndarray | torch.Tensor, *, fps: float = 30.0, vertices: bool = False
    ) -> dict[str, np.ndarray]:
        """Predict every frame of one person's sequence.

        Args:
            features: static features (T, F) of consecutive frames.
            fps: of these frames; of more than 30, windows take every other one, and so on.
            vertices: also the mesh.

        Returns:
            see :func:`lib.models.predict.predict_sequence`.

        Raises:
            UserError: see there.
        """
        return predict_sequence(
            self.model,
            features if isinstance(features, torch.Tensor) else np.asarray(features),
            return_verts=vertices,
            borders="static" if self.cfg.COMPAT.STATIC_BORDERS else "edge",
            step=self._step(fps),
            precision=self.cfg.MODEL.PRECISION,
        )

    def _step(self, fps: float) -> int:
        if not 0 < _number("fps", fps) < FASTEST:
            raise UserError(
                f"fps is {fps}: expected frames per second, more than 0 and less than {FASTEST:g}"
            )
        return sequence_step(self.cfg, fps)

    def stream(
        self, *, fps: float = 30.0, delay: int | None = None, vertices: bool = False
    ) -> StreamingPredictor:
        """The streaming twin of :meth:`predict`: ``push(feature)`` gives the prediction of the frame
        ``delay`` frames ago, or None; ``finish()`` the rest.

        Args:
            fps, vertices: see :meth:`predict`.
            delay: frames; None: as many as the model looks ahead, for the numbers of :meth:`predict`
                up to rounding; 0 knows
                the past and the present alone.

        Raises:
            UserError: the model's borders are defined for its full delay only.
        """
        return StreamingPredictor(
            self.model,
            delay,
            step=self._step(fps),
            borders="static" if self.cfg.COMPAT.STATIC_BORDERS and delay is None else None,
            precision=self.cfg.MODEL.PRECISION,
            return_verts=vertices,
        )


def load(checkpoint: str | Path | None = None, device: str = "auto") -> Predictor:
    """The temporal encoder of a checkpoint, for features that you have.

    Args:
        checkpoint: default: the official one if it is there, else the open one.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.

    Raises:
        UserError: the checkpoint is missing or does not fit, or there is no such device.
    """
    path = find_checkpoint(str(checkpoint or ""))
    content = load_checkpoint(path)
    defaults = get_cfg_defaults()
    for name, folder in (("BASE_DATA", BASE_DATA), ("OPEN", OPEN_DATA)):
        defaults.PATHS[name] = folder
    cfg = None if "config" in content else official_config()
    model, cfg = model_from(content, path, cfg, body_of(content, defaults))
    where = choose_device(device)
    return Predictor(model.to(where), cfg, path)


def read_database(path: str | Path, fields: Sequence[str] | None = None) -> Database:
    """A preprocessed database: field -> array; large arrays stay in the file until their rows are read.

    Args:
        path: joblib ``.pt`` or HDF5 ``.h5``.
        fields: those wanted; None: all.

    Raises:
        UserError: the file is missing, damaged or no database, or lacks a field.
    """
    if fields is not None:
        return open_database(path, [fields] if isinstance(fields, str) else fields)
    return open_database(path, (), read_fields(Path(path), numbers=False))


def _number(name: str, value: float) -> float:
    """A plain number; UserError if it is none."""
    try:
        return float(value)
    except (TypeError, ValueError):
        raise UserError(f"{name} is {shown(value)!r}: expected a number") from None

"""The demo from video to meshes: detect and follow people, features, TCMR, rendering, files."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache, partial
from itertools import chain, count
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm
from yacs.config import CfgNode

from lib.core.build import build_model, check_claims, fingerprint_of
from lib.core.config import choose_device, from_dict, get_cfg_defaults, load_config, merge_opts
from lib.data_utils.boxes import scale_bboxes
from lib.demo.export import ObjWriter, save_results
from lib.demo.networks import find_asset, landmark_network, person_detector
from lib.demo.render import Projection, Renderer, person_colour
from lib.demo.track_files import choose_people, read_boxes, save_boxes, track_boxes
from lib.demo.tracking import MIN_SECONDS, Track, track_people
from lib.demo.video import FrameSource, ImageFolder, VideoFile, VideoWriter, video_comment
from lib.demo.viewer import show_video
from lib.models.body import BASE_DATA, OPEN_DATA, BodyData, find_smpl, load_body, load_gendered_body
from lib.models.extractors import (
    Extractor,
    LandmarkExtractor,
    PersonTrack,
    StaticFeatures,
    check_fingerprints,
    get_extractor,
)
from lib.models.landmark_body import LandmarkBody
from lib.models.predict import Borders, predict_sequence, window_step
from lib.models.smpl import SMPL
from lib.models.tcmr import TCMR
from lib.motion.fit import Fitted, fit_track, perspective_to_weak, see
from lib.utils.crops import CROP_SCALE, crop_to_image
from lib.utils.errors import UserError, fault
from lib.utils.files import atomic_write, load_checkpoint, only_process
from lib.utils.geometry import crop_cam_to_image_cam, rotmat_to_axis_angle
from lib.utils.landmark_flips import repair_flips
from lib.utils.prefetch import map_ahead, prefetch

log = logging.getLogger(__name__)

OFFICIAL_CHECKPOINT = "tcmr_demo_model.pth.tar"
OPEN_CHECKPOINT = "tcmr_open.pth.tar"
RESULTS, MESHES, TRACKS = "tcmr_output.pkl", "meshes", "tracks.txt"
_LONGEST_NAME = 200  # bytes
_MESH_BLOCK = 32
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
    save_tracks: bool = False
    person: str = "all"
    device: str = "auto"
    bf16: bool = False
    fit: bool | None = None
    cfg: str = ""
    opts: Sequence[str] = ()
    wireframe: bool = False
    sideview: bool = False
    render_plain: bool = False
    save_pkl: bool = False
    save_obj: bool = False
    display: bool = False


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


class Meshes:
    """The vertices of one person's frames, posed in blocks when they are asked for, so that a long video does
    not fill the memory: 80 kB per frame and person. Threads may share it."""

    def __init__(self, smpl: SMPL, rotmat: np.ndarray, betas: np.ndarray) -> None:
        """``rotmat`` (n, 24, 3, 3), ``betas`` (n, 10)."""
        self._smpl = smpl
        self._rotmat, self._betas = rotmat, betas
        # Two blocks, because frames that are drawn at the same time may lie on both sides of a border.
        self._block = lru_cache(maxsize=2)(self._pose)
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._rotmat)

    def __getitem__(self, row: int) -> np.ndarray:
        """(V, 3) metres, camera axes."""
        start = row - row % _MESH_BLOCK
        with self._lock:
            return self._block(start)[row - start]

    def all(self) -> np.ndarray:
        """(n, V, 3)."""
        return np.concatenate([self._pose(start) for start in range(0, len(self), _MESH_BLOCK)])

    @torch.inference_mode()
    def _pose(self, start: int) -> np.ndarray:
        device = self._smpl.v_template.device
        rotmat, betas = (
            torch.from_numpy(values[start : start + _MESH_BLOCK]).to(device)
            for values in (self._rotmat, self._betas)
        )
        posed = self._smpl(betas=betas, body_pose=rotmat[:, 1:], global_orient=rotmat[:, :1], pose2rot=False)
        return posed.vertices.cpu().numpy()


@dataclass(frozen=True, eq=False)
class Person:
    """One person's reconstruction: ``result`` is what ``--save_pkl`` writes, without the vertices."""

    person_id: int
    result: dict[str, Any]
    meshes: Meshes
    cameras: Sequence[np.ndarray | Projection]  # n, what each frame's mesh is drawn with

    def full_result(self) -> dict[str, Any]:
        """``result`` with ``verts`` (n, 6890, 3), metres."""
        return {**self.result, "verts": self.meshes.all()}


@dataclass(frozen=True, eq=False)
class Models:
    """A TCMR with what it needs around it."""

    tcmr: TCMR
    cfg: CfgNode
    extractor: Extractor
    body: BodyData


def find_checkpoint(model: str, base_data: str | Path = BASE_DATA, open_dir: str | Path = OPEN_DATA) -> Path:
    """The checkpoint of ``--model``, or the official one if it and SMPL are there, else the open one.

    Raises UserError, telling how to get one, if there is none.
    """
    if model:
        return Path(model)
    official = Path(base_data) / OFFICIAL_CHECKPOINT
    if official.is_file() and find_smpl(base_data) is not None:
        return official
    open_checkpoint = Path(open_dir) / OPEN_CHECKPOINT
    if not open_checkpoint.is_file():
        raise UserError(
            f"no TCMR checkpoint: neither {official} with SMPL beside it nor {open_checkpoint} is there; see "
            "data/README.md for both, or give a checkpoint with --model"
        )
    return open_checkpoint


def official_config() -> CfgNode:
    """The architecture of the official demo checkpoint, which carries no configuration."""
    cfg = get_cfg_defaults()
    cfg.DATASET.SEQLEN = 16
    cfg.MODEL.TGRU.NUM_LAYERS = 2
    cfg.MODEL.TGRU.HIDDEN_SIZE = 1024
    return cfg


def load_models(
    checkpoint_path: str | Path,
    *,
    base_data: str | Path = BASE_DATA,
    open_dir: str | Path = OPEN_DATA,
    gender: str = "neutral",
    device: torch.device | str = "cpu",
    bf16: bool = False,
    cfg_file: str = "",
    opts: Sequence[str] = (),
) -> Models:
    """Everything that turns tracked people into meshes.

    The checkpoint says which body and which features it was trained with. ``gender`` only changes the body
    that meshes and joints are made with, ``bf16`` how SPIN's features are computed.
    ``cfg_file`` takes the place of the configuration in the checkpoint, ``opts`` overrides single keys.

    Raises:
        UserError: a file is missing or does not fit.
    """
    checkpoint = load_checkpoint(checkpoint_path)
    if "gen_state_dict" not in checkpoint:
        raise UserError(
            f"{checkpoint_path} is no TCMR checkpoint: it has no 'gen_state_dict'; choose another --model"
        )
    if cfg_file:
        cfg = load_config(cfg_file)
    else:
        cfg = from_dict(checkpoint["config"]) if "config" in checkpoint else official_config()
        check_claims(cfg, checkpoint["gen_state_dict"], checkpoint_path)
    merge_opts(cfg, opts)
    cfg.TRAIN.PRETRAINED_REGRESSOR = ""
    # The open body is taken even where SMPL is installed, if the checkpoint was trained with it.
    folder = open_dir if checkpoint.get("body") == "open" else base_data
    if folder == open_dir and (unused := find_smpl(base_data)) is not None:
        log.info("%s is not used: this checkpoint was trained with the open body", unused)
    body = load_body(folder, "neutral", open_dir)
    tcmr = build_model(cfg, body)
    tcmr.load_weights(checkpoint["gen_state_dict"], checkpoint.get("body"), checkpoint_path)
    extractor = get_extractor(
        cfg.MODEL.EXTRACTOR, body, base_data=base_data, open_dir=open_dir, device=device, bf16=bf16
    )
    check_fingerprints(
        {
            str(checkpoint_path): fingerprint_of(checkpoint),
            f"the {extractor.name} extractor": extractor.fingerprint,
        }
    )
    if bf16 and not extractor.needs_frames:
        log.warning("--bf16 has no effect: %s features need no large network", extractor.name)
    if gender != "neutral":
        if body.kind == "open":
            log.warning("--gender %s: the open body has one shape for all; it is used", gender)
        else:
            tcmr.regressor.smpl = SMPL(load_gendered_body(base_data, gender))
    return Models(tcmr.to(device).eval(), cfg, extractor, body)


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
    width: int,
    height: int,
    fps: float,
    plain_camera: bool = False,
    fit: bool | None = None,
    stopwatch: Stopwatch | None = None,
) -> list[Person]:
    """Bodies of tracked people.

    Args:
        models: see :func:`load_models`.
        frames: all RGB frames of the video; untouched if the extractor needs none.
        tracks: at least 16 frames each.
        width, height, fps: of the video.
        plain_camera: draw everybody with the crop camera (1, 0, 0); results keep the predicted one.
        fit: move the bodies onto the tracks' landmarks (:mod:`lib.motion.fit`); None: if the features are
            landmarks, too.
        stopwatch: gets the seconds of ``features``, ``TCMR`` and ``fit``.

    Returns:
        one person per track, in order. ``result`` holds, for n frames: pred_cam (n, 3), orig_cam (n, 4), pose
        (n, 72) axis-angle, betas (n, 10), joints3d (n, 49, 3) metres, joints2d None, joints2d_img_coord
        (n, 49, 2) px, bboxes (n, 4) cx, cy, w, h px after x1.2, frame_ids (n,). A fitted person has, too,
        transl (n, 3) and focal_length (n,): a perspective camera sees a vertex or joint p at p + transl;
        then pred_cam and orig_cam are its nearest weak perspective.
    """
    stopwatch = stopwatch or Stopwatch()
    total = sum(len(track.frame_ids) for track in tracks)
    with stopwatch("features"), _bar(total, "features") as bar:
        features = models.extractor(frames, tracks, bar.update)
    borders: Borders = "static" if models.cfg.COMPAT.STATIC_BORDERS else "edge"
    step = sequence_step(models.cfg, fps)
    predictions = []
    with stopwatch("TCMR"), _bar(total, "TCMR") as bar:
        for static in features:
            predictions.append(
                predict_sequence(
                    models.tcmr,
                    static.values,
                    return_verts=False,
                    borders=borders,
                    step=step,
                    precision=models.cfg.MODEL.PRECISION,
                    progress=bar.update,
                )
            )
    fitted: list[Fitted | None] = [None] * len(tracks)
    if models.extractor.name == LandmarkExtractor.name if fit is None else fit:
        with stopwatch("fit"), _bar(total, "fit") as bar:
            body = LandmarkBody(models.body).to(models.tcmr.regressor.init_cam.device)
            fitted = [
                fit_track(
                    body,
                    output["rotmat"],
                    output["theta"],
                    static.bboxes,
                    repair_flips(track.xy, track.visibility, track.world),
                    width=width,
                    height=height,
                    fps=fps,
                    progress=bar.update,
                )
                for track, static, output in zip(tracks, features, predictions)
            ]
    return [
        _person(models.tcmr.regressor.smpl, *parts, width, height, plain_camera)
        for parts in zip(tracks, features, predictions, fitted)
    ]


def _person(
    smpl: SMPL,
    track: PersonTrack,
    static: StaticFeatures,
    output: dict[str, np.ndarray],
    fitted: Fitted | None,
    width: int,
    height: int,
    plain_camera: bool,
) -> Person:
    theta, rotmat, joints3d = output["theta"], output["rotmat"], output["kp_3d"]
    bboxes = scale_bboxes(static.bboxes, CROP_SCALE)
    pred_cam, pose, betas = theta[:, :3].copy(), theta[:, 3:75].copy(), theta[:, 75:].copy()
    joints2d, extra = crop_to_image(output["kp_2d"], static.bboxes), {}
    if fitted is not None:
        rotmat, joints3d, joints2d = fitted.rotmat, fitted.joints3d, fitted.joints2d
        pose = rotmat_to_axis_angle(torch.from_numpy(rotmat)).flatten(1).numpy()
        betas = np.tile(fitted.betas, (len(rotmat), 1))
        pred_cam = perspective_to_weak(fitted.transl, bboxes, fitted.focal, width, height)
        extra = {"transl": fitted.transl, "focal_length": np.full(len(rotmat), fitted.focal, np.float32)}
    orig_cam = crop_cam_to_image_cam(pred_cam, bboxes, width, height)
    cameras: Sequence[np.ndarray | Projection] = list(orig_cam)
    if plain_camera:
        cameras = list(crop_cam_to_image_cam(np.tile([1.0, 0, 0], (len(theta), 1)), bboxes, width, height))
    elif fitted is not None:
        cameras = [
            partial(see, transl=transl, focal=fitted.focal, size=(width, height)) for transl in fitted.transl
        ]
    result = {
        "pred_cam": pred_cam,
        "orig_cam": orig_cam,
        "pose": pose,
        "betas": betas,
        "joints3d": joints3d,
        "joints2d": None,
        "joints2d_img_coord": joints2d,
        "bboxes": bboxes,
        "frame_ids": np.asarray(track.frame_ids),
        **extra,
    }
    return Person(track.person_id, result, Meshes(smpl, rotmat, betas), cameras)


def drawing_order(people: Sequence[Person], frame_id: int) -> list[tuple[int, int]]:
    """``(index into people, row)`` of everybody in a frame, far to near: by increasing sy of ``orig_cam``."""
    rows = []
    for index, person in enumerate(people):
        row = int(np.searchsorted(person.result["frame_ids"], frame_id))
        if row < len(person.result["frame_ids"]) and person.result["frame_ids"][row] == frame_id:
            rows.append((index, row))
    return sorted(rows, key=lambda entry: people[entry[0]].result["orig_cam"][entry[1], 1])


def draw_frame(
    renderer: Renderer,
    frame: np.ndarray,
    frame_id: int,
    people: Sequence[Person],
    *,
    wireframe: bool = False,
    sideview: bool = False,
    render_plain: bool = False,
) -> np.ndarray:
    """The frame (H, W, 3) with everybody drawn in, and with ``sideview`` a side view to its right."""
    image = np.zeros_like(frame) if render_plain else frame
    side = np.zeros_like(frame)
    for index, row in drawing_order(people, frame_id):
        person = people[index]
        verts, camera, colour = person.meshes[row], person.cameras[row], person_colour(index)
        image = renderer.render(image, verts, camera, colour, wireframe=wireframe)
        if sideview:
            side = renderer.render(side, verts, camera, colour, wireframe=wireframe, side_view=True)
    return np.concatenate([image, side], axis=1) if sideview else image


def run_demo(options: DemoOptions) -> list[Path]:
    """Run the whole demo and return the files written.

    They go to ``{output_folder}/{name}`` (:func:`result_folder`): ``tcmr_{name}_output.mp4`` with the frame
    times of the input, ``tcmr_{name}_input.mp4`` (a copy if the input is an .mp4, else encoded),
    ``tcmr_output.pkl`` with ``save_pkl``, ``meshes/`` with ``save_obj``, ``tracks.txt`` with ``save_tracks``.
    Each appears only when it is complete.

    Raises:
        UserError: the input, a checkpoint or an asset is missing or unusable, or nobody was found.
    """
    stopwatch = Stopwatch()
    check_options(options)
    boxes = read_boxes(options.tracks) if options.tracks else None
    source = open_source(options)
    info = source.info
    _check_writable(result_folder(options.output_folder, source), options)
    log.info("%s: %dx%d, %.2f frames per second", source.name, info.width, info.height, float(info.fps))
    with stopwatch("loading"):
        device = choose_device(options.device, "cuda" if torch.cuda.is_available() else "cpu")
        network = landmark_network(options.detector, options.open_dir)
        detector = None if boxes else person_detector(options.detector, options.open_dir, device)
        checkpoint = find_checkpoint(options.model, options.base_data, options.open_dir)
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
    log.info("model: %s (%s features, %s body)", checkpoint, models.extractor.name, models.body.kind)

    moments: list[Fraction] = []
    with (
        stopwatch("tracking"),
        logging_redirect_tqdm(),
        _bar(info.frames, "tracking") as bar,
        prefetch(source.timed(), _FRAMES_AHEAD) as timed,
    ):
        frames, fps = _noting_times(timed, moments, bar.update), float(info.fps)
        if boxes:
            tracks = track_boxes(frames, boxes, network, fps=fps)
        else:
            assert detector is not None
            tracks = track_people(frames, detector, network, fps=fps, min_seconds=options.min_seconds)
    n_frames = len(moments)
    if not tracks:
        raise UserError(_nobody(source, n_frames, options))
    tracks = _long_enough(choose_people(tracks, options.person), models.cfg)
    people = reconstruct(
        models,
        source,
        tracks,
        width=info.width,
        height=info.height,
        fps=measured_fps(moments, info.fps),
        plain_camera=options.render_plain,
        fit=options.fit,
        stopwatch=stopwatch,
    )
    files: list[Path] = []
    with _own_folder(options, source) as folder:
        with stopwatch("rendering"), _bar(n_frames, "rendering") as bar:
            files += write_videos(source, people, models, folder, options, bar.update)
        if options.save_tracks:
            files.append(folder / TRACKS)
            save_boxes(tracks, files[-1])
        if options.save_pkl:
            with stopwatch("saving"):
                files.append(folder / RESULTS)
                save_results({person.person_id: person.full_result() for person in people}, files[-1])
    log.info("%s", summary(people, n_frames, stopwatch, files, source.damage))
    if options.display:
        files.append(show_video(files[0]))
    return files


def check_options(options: DemoOptions) -> None:
    """UserError if the value of an option makes no sense."""
    if options.vid_file and options.img_dir:
        raise UserError("both --vid_file and --img_dir are given; expected one of them")
    if options.fps is not None and not 0 < options.fps < 1e5:
        raise UserError(f"--fps {options.fps}: expected a number of frames per second")
    if not (np.isfinite(options.min_seconds) and options.min_seconds >= 0):
        raise UserError(f"--min_seconds {options.min_seconds}: expected a number of seconds, 0 or more")
    if options.person not in ("all", "largest") and not options.person.isdecimal():
        raise UserError(f"--person {options.person}: expected a person's number, largest or all")


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


def _long_enough(tracks: list[Track], cfg: CfgNode) -> list[Track]:
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


def summary(
    people: Sequence[Person], n_frames: int, stopwatch: Stopwatch, files: Sequence[Path], damage: str = ""
) -> str:
    """People, what is damaged, time per stage and files written, as lines of text."""
    lines = ["", f"{len(people)} {'person' if len(people) == 1 else 'people'} in {n_frames} frames"]
    for person in people:
        ids = person.result["frame_ids"]
        lines.append(f"  person {person.person_id}: frames {ids[0]} to {ids[-1]} ({len(ids)})")
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
    videos = [f"tcmr_{folder.name}_{kind}.mp4" for kind in ("output", "input")]
    for name in (*videos, *([TRACKS] * options.save_tracks), *([RESULTS] * options.save_pkl)):
        if (folder / name).exists() and not (folder / name).is_file():
            raise UserError(f"{folder / name} {fault(folder / name)}, expected a file: move it away")
    meshes = folder / MESHES
    if options.save_obj and (meshes.is_symlink() or (meshes.exists() and not meshes.is_dir())):
        raise UserError(f"{meshes} is a link or no folder: move it away, as --save_obj makes a folder there")


def write_videos(
    source: FrameSource,
    people: Sequence[Person],
    models: Models,
    folder: Path,
    options: DemoOptions,
    progress: Callable[[int], object],
) -> list[Path]:
    """Draw all frames; returns the output video, the input video and, with ``save_obj``, the meshes.

    Decoding, drawing and encoding run side by side.
    """
    output = folder / f"tcmr_{folder.name}_output.mp4"
    input_copy = folder / f"tcmr_{folder.name}_input.mp4"
    info = source.info
    renderer = Renderer(models.body.faces, info.width, info.height, len(models.body.v_template))
    copied = isinstance(source, VideoFile) and source.path.suffix.lower() == ".mp4" and options.fps is None
    original = source.path if copied else None
    written = [output, input_copy]
    with ExitStack() as stack:
        writer = stack.enter_context(VideoWriter(output, info.fps, _mark(source)))
        input_writer = None if original else stack.enter_context(VideoWriter(input_copy, info.fps))
        objects = None
        if options.save_obj:
            objects = stack.enter_context(ObjWriter(folder / MESHES, models.body.faces))
            written.append(objects.folder)

        def draw(
            numbered: tuple[int, tuple[Fraction, np.ndarray]],
        ) -> tuple[Fraction, np.ndarray, np.ndarray]:
            frame_id, (moment, frame) = numbered
            image = draw_frame(
                renderer,
                frame,
                frame_id,
                people,
                wireframe=options.wireframe,
                sideview=options.sideview,
                render_plain=options.render_plain,
            )
            return moment, frame, image

        timed = stack.enter_context(prefetch(source.timed(), _FRAMES_AHEAD))
        drawn = stack.enter_context(
            map_ahead(draw, enumerate(timed), workers=_DRAWING_THREADS, ahead=_FRAMES_AHEAD)
        )
        for frame_id, (moment, frame, image) in enumerate(drawn):
            writer.write(image, moment)
            if input_writer is not None:
                input_writer.write(frame, moment)
            if objects is not None:
                for index, row in drawing_order(people, frame_id):
                    objects.write(people[index].person_id, frame_id, people[index].meshes[row])
            progress(1)
    if original:
        with atomic_write(input_copy) as temporary:
            shutil.copyfile(original, temporary)
    return written


def _bar(total: int | None, stage: str) -> tqdm:
    return tqdm(total=total, desc=f"{stage:<10}", unit="frame")


def _noting_times(
    timed: Iterable[tuple[Fraction, np.ndarray]], moments: list[Fraction], progress: Callable[[int], object]
) -> Iterator[np.ndarray]:
    """The frames; their times are appended to ``moments``."""
    for moment, frame in timed:
        moments.append(moment)
        yield frame
        progress(1)

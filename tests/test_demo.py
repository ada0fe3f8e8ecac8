"""The demo: numbers against the original's, files, drawing order, and what users do wrong."""

from __future__ import annotations

import dataclasses
import itertools
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import cv2
import numpy as np
import pytest
import torch

from lib.commands import demo as command
from lib.core.config import dump_yaml, get_cfg_defaults, to_dict
from lib.data_utils.boxes import scale_bboxes
from lib.demo import engine, recover, results
from lib.demo import models as demo_models
from lib.demo.drawing import VIEWS, Drawer, figures
from lib.demo.models import Models, find_checkpoint, load_models, official_config
from lib.demo.options import DemoOptions
from lib.demo.pipeline import run_demo
from lib.demo.reconstruct import predict_track, reconstruct, sequence_step
from lib.demo.recover import measured_fps
from lib.demo.render import Renderer
from lib.demo.tracking import Track, landmark_boxes
from lib.landmarks.features import landmark_arrays
from lib.landmarks.flips import repair_flips
from lib.models.body import load_body
from lib.models.extractors import (
    Extractor,
    LandmarkExtractor,
    SpinExtractor,
    StaticFeatures,
    get_extractor,
    load_landmark_net,
)
from lib.models.hmr import HMR
from lib.models.landmark_net import LandmarkNet
from lib.models.precision import cpu_has_bf16
from lib.models.smpl import SMPL
from lib.models.tcmr import TCMR
from lib.motion.camera import Camera
from lib.motion.exporters import EXPORTERS, export_scene
from lib.motion.lift import lift
from lib.motion.meshes import Meshes
from lib.motion.motion import Placed
from lib.motion.scene_file import load_scene
from lib.utils.colours import person_colour
from lib.utils.crops import crop_image, normalise_crop
from lib.utils.errors import UserError
from lib.utils.files import load_joblib, only_process, save_checkpoint
from lib.utils.geometry import crop_cam_to_image_cam
from lib.utils.paths import DOWNLOADS
from lib.video.video_file import VideoFile
from lib.video.writer import VideoWriter
from tests.golden_tools import GOLDEN, fill_by_recipe, load_golden
from tests.video_tools import encode

REPOSITORY = Path(__file__).resolve().parents[1]
W, H, N = 160, 120, 30


def make_track(
    person_id: int = 1, start: int = 0, n: int = N, size: float = 60.0, centre=(80.0, 60.0)
) -> Track:
    random = np.random.default_rng(person_id)
    xy = (random.uniform(-0.5, 0.5, (1, 33, 2)) * size + centre).astype(np.float32).repeat(n, 0)
    xy[..., 0] += np.arange(n, dtype=np.float32)[:, None]
    return Track(
        person_id=person_id,
        frame_ids=np.arange(start, start + n),
        bboxes=landmark_boxes(xy),
        xy=xy,
        visibility=np.ones((n, 33), np.float32),
        world=random.normal(0, 0.3, (n, 33, 3)).astype(np.float32),
    )


@pytest.fixture(scope="module")
def open_dir(tmp_path_factory, open_body) -> Path:
    """An open data folder with random weights, in the format of the real ones."""
    folder = tmp_path_factory.mktemp("open")
    (folder / "open_body.npz").symlink_to(open_body.path)
    torch.manual_seed(0)
    net = LandmarkNet(width=64, feature_size=32, blocks=2)
    weights = {f"extractor.{key}": value for key, value in net.state_dict().items()}
    save_checkpoint({"model": weights, "body": "open"}, folder / "landmark_net.pth.tar")
    cfg = get_cfg_defaults()
    cfg.DATASET.SEQLEN = 16
    cfg.MODEL.EXTRACTOR, cfg.MODEL.FEATURE_SIZE = "landmarks", 32
    cfg.MODEL.TGRU.NUM_LAYERS, cfg.MODEL.TGRU.HIDDEN_SIZE = 1, 16
    cfg.MODEL.REGRESSOR.HIDDEN_SIZE = 32
    cfg.COMPAT.STATIC_BORDERS = False
    tcmr = TCMR(16, 1, 16, 32, 32, 0.5, open_body)
    checkpoint = {"gen_state_dict": tcmr.state_dict(), "config": to_dict(cfg), "body": "open"}
    save_checkpoint(checkpoint, folder / "tcmr_open.pth.tar")
    return folder


@pytest.fixture(scope="module")
def open_models(open_dir) -> Models:
    return load_models(open_dir / "tcmr_open.pth.tar", open_dir=open_dir)


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("video") / "two people.mp4"
    with VideoWriter(path, Fraction(25)) as writer:
        for i in range(N + 5):
            writer.write(np.full((H, W, 3), 40 + 4 * i, np.uint8), Fraction(i, 25))
    return path


def no_networks(monkeypatch):
    monkeypatch.setattr(
        engine, "landmark_network", lambda *_: SimpleNamespace(with_focal=lambda focal: object())
    )
    monkeypatch.setattr(engine, "person_detector", lambda detector, open_dir, device: object())


@pytest.fixture
def tracked(monkeypatch):
    """Replace detection and tracking, which need downloaded networks, by two ready tracks."""
    tracks = [make_track(1), make_track(2, start=5, size=30.0, centre=(60.0, 50.0))]

    def track_people(frames, detector, network, *, fps, min_seconds):
        assert fps > 0
        assert min_seconds == 0.3
        assert sum(1 for _ in frames) >= N
        return tracks

    no_networks(monkeypatch)
    monkeypatch.setattr(recover, "track_people", track_people)
    return tracks


def files_in(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


# --------------------------------------------------------------------------------
# Numbers of the original


class GoldenTrack:
    def __init__(self, golden, rows=slice(None)):
        self.person_id = 1
        self.bboxes = golden["bboxes"][rows]
        self.frame_ids = np.arange(len(self.bboxes))
        self.xy = self.visibility = self.world = np.zeros(0)


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    return load_golden("demo/demo")


@pytest.fixture(scope="module")
def hmr(smpl_body) -> HMR:
    hmr = HMR(smpl_body).eval()
    fill_by_recipe(hmr)
    return hmr


@pytest.fixture(scope="module")
def spin(hmr) -> SpinExtractor:
    return SpinExtractor(hmr)


def read_rgb(path: Path) -> np.ndarray:
    return cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)


def test_crops_and_features_equal_the_original(golden, spin):
    """Two people in three frames; no frame is read after the last one in which anybody is."""
    rows = golden["rows"]
    frames = [read_rgb(GOLDEN / "demo" / "frames" / f"{row:06d}.png") for row in rows]
    crops = np.stack([crop_image(frame, box) for frame, box in zip(frames, golden["bboxes"][rows])])
    if cv2.__version__.startswith("5."):  # other versions round warpAffine differently
        np.testing.assert_array_equal(crops[:, 100:104], golden["crop_rows"])
        sums = normalise_crop(crops).numpy().sum((2, 3), dtype=np.float64)
        np.testing.assert_allclose(sums, golden["crop_sums"], atol=0.05)

    def read_once():
        yield from frames
        raise AssertionError("read on after everybody's last frame")

    people = [GoldenTrack(golden, rows[[0, 2]]), GoldenTrack(golden, rows[[1]])]
    people[0].frame_ids, people[1].frame_ids = np.array([0, 2]), np.array([1])
    done = []
    statics = spin(read_once(), people, done.append)
    for static, person, wanted in zip(statics, people, (rows[[0, 2]], rows[[1]])):
        np.testing.assert_allclose(static.values, golden["features"][wanted], rtol=1e-4, atol=5e-5)
        np.testing.assert_array_equal(static.bboxes, person.bboxes)
    assert sum(done) == 3


def test_features_of_spin_crops(spin):
    crops = np.stack([read_rgb(GOLDEN / "hmr" / f"img{i}.png") for i in range(2)])
    expected = load_golden("hmr/hmr_forward")["features"]
    np.testing.assert_allclose(spin.features(crops), expected, rtol=1e-4, atol=5e-5)


@pytest.mark.skipif(not cpu_has_bf16(), reason="this CPU has no bfloat16")
def test_features_in_bfloat16(hmr, spin):
    crops = np.stack([read_rgb(GOLDEN / "hmr" / f"img{i}.png") for i in range(2)])
    exact, rough = spin.features(crops), SpinExtractor(hmr, bf16=True).features(crops)
    assert rough.dtype == np.float32
    assert 1e-4 < np.linalg.norm(rough - exact) / np.linalg.norm(exact) < 0.02


def test_working_ahead_changes_no_feature(spin, monkeypatch):
    """Two people in 5 frames, batches of 3 crops: the last of frame 1 goes with the first of frame 2."""
    monkeypatch.setattr("lib.models.extractors._CROP_BATCH", 3)
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (5, H, W, 3), dtype=np.uint8)
    tracks = [make_track(1, n=4), make_track(2, start=1, n=4)]
    order = sorted((f, k) for k, track in enumerate(tracks) for f in track.frame_ids)
    crops = np.stack([crop_image(frames[f], tracks[k].bboxes[f - tracks[k].frame_ids[0]]) for f, k in order])
    expected = np.concatenate([spin.features(crops[i : i + 3]) for i in range(0, len(crops), 3)])
    threads = threading.active_count()
    statics = spin(frames, tracks)
    assert threading.active_count() == threads
    for k, static in enumerate(statics):
        rows = [i for i, (_, person) in enumerate(order) if person == k]
        np.testing.assert_array_equal(static.values, expected[rows])


class StoredFeatures(Extractor):
    """An extractor that returns what it was given."""

    name, feature_size, needs_frames = "spin", 2048, False

    def __init__(self, values, bboxes):
        self.static = StaticFeatures(values, bboxes)

    def __call__(self, frames, tracks, progress=None):
        return [self.static]


@pytest.fixture(scope="module")
def golden_tcmr(smpl_body) -> TCMR:
    tcmr = TCMR(16, 2, 64, body=smpl_body).eval()
    fill_by_recipe(tcmr)
    return tcmr


def rotations(pose: np.ndarray) -> np.ndarray:
    """(72,) axis-angle -> (24, 3, 3). Near a half turn the sign of an axis is rounding."""
    return np.stack([cv2.Rodrigues(turn.astype(np.float64))[0] for turn in pose.reshape(24, 3)])


@pytest.fixture(scope="module")
def golden_models(golden, golden_tcmr, smpl_body) -> Models:
    extractor = StoredFeatures(golden["features"], golden["bboxes"])
    return Models(golden_tcmr, official_config(), extractor, smpl_body)


@pytest.fixture(scope="module")
def golden_scene(golden, golden_models):
    width, height = golden["img_wh"].tolist()
    camera = Camera(width, height, 5000.0)
    return reconstruct(golden_models, [], [GoldenTrack(golden)], camera=camera, fps=30, n_frames=26)


def test_predictions_equal_the_original(golden, golden_models, smpl_body):
    width, height = golden["img_wh"].tolist()
    (static,) = golden_models.extractor([], [])
    output = predict_track(golden_models, static, 30)
    theta = output["theta"]
    np.testing.assert_allclose(theta[:, :3], golden["pred_cam"], atol=1e-5)
    np.testing.assert_allclose(theta[:, 75:], golden["betas"], atol=1e-5)
    np.testing.assert_allclose(output["kp_3d"], golden["joints3d"], atol=1e-5)
    boxes = scale_bboxes(static.bboxes, 1.2)
    np.testing.assert_allclose(boxes, golden["bboxes_out"], rtol=1e-12)
    np.testing.assert_allclose(
        crop_cam_to_image_cam(theta[:, :3], boxes, width, height), golden["orig_cam"], atol=1e-5
    )
    rows = golden["rows"]
    for row, expected in zip(rows, golden["rotmat"]):
        np.testing.assert_allclose(rotations(theta[row, 3:75]), expected, atol=1e-5)
    still = Placed(output["rotmat"], np.zeros((26, 3), np.float32))
    verts = Meshes(SMPL(smpl_body), still, theta[:, 75:]).all()
    np.testing.assert_allclose(verts[rows, :100], golden["verts"], atol=1e-5)


def test_a_lifted_track_keeps_poses_and_place_and_has_one_shape(golden, golden_scene):
    """Against the original's numbers: what one shape and a calm distance may change, and what not."""
    (motion,) = golden_scene.people
    for row, expected in zip(golden["rows"], golden["rotmat"]):
        np.testing.assert_allclose(motion.camera.rotmat[row], expected, atol=1e-5)
    np.testing.assert_allclose(motion.betas, np.median(golden["betas"], 0), atol=1e-5)
    sx, sy, tx, ty = golden["orig_cam"].T[..., None]
    x = (sx * (golden["joints3d"][..., 0] + tx) + 1) * 240 / 2
    y = (sy * (golden["joints3d"][..., 1] + ty) + 1) * 180 / 2
    off = np.linalg.norm(motion.joints2d - np.stack([x, y], -1), axis=-1)
    assert off.mean() < 0.04 * golden["bboxes_out"][:, 2].mean()


def test_the_size_of_a_lifted_track_does_not_breathe(golden_models, smpl_body):
    """Crop cameras that flicker by 5 % leave the person's size calm, and where the person is."""
    n, random, camera = 60, np.random.default_rng(0), Camera(640, 480, 800.0)
    theta = np.zeros((n, 85), np.float32)
    theta[:, 0] = 0.9 * (1 + 0.05 * random.normal(size=n))
    boxes = np.tile([300.0, 250.0, 200.0, 200.0], (n, 1))
    rotmat = np.tile(np.diag([1.0, -1, -1]).astype(np.float32), (n, 24, 1, 1))
    rotmat[:, 1:] = np.eye(3)
    joints = SMPL(smpl_body).joints(torch.zeros(1, 10), torch.from_numpy(rotmat[:1])).numpy()
    joints2d = boxes[:, None, :2] + 100 * theta[:, :1, None] * joints[..., :2]
    lifted = lift(SMPL(smpl_body), theta, rotmat, joints2d, boxes, camera, 30)
    size = 1 / lifted.transl[:, 2]
    assert np.abs(np.diff(theta[:, 0], 2)).mean() / 0.9 > 0.05
    assert np.abs(np.diff(size, 2)).mean() / size.mean() < 0.003
    assert np.abs(lifted.joints2d - joints2d).mean() < 4


def test_result_keys_and_shapes(golden_scene, golden_models, tmp_path):
    shapes = {
        "pred_cam": (26, 3),
        "orig_cam": (26, 4),
        "verts": (26, 6890, 3),
        "pose": (26, 72),
        "betas": (26, 10),
        "joints3d": (26, 49, 3),
        "joints2d_img_coord": (26, 49, 2),
        "bboxes": (26, 4),
        "frame_ids": (26,),
        "trans": (26, 3),
        "image_size": (2,),
    }
    export_scene(golden_scene, golden_models.body, tmp_path, ["pkl"])
    result = load_joblib(tmp_path / "tcmr_output.pkl")[1]
    assert result.pop("joints2d") is None
    told = {key: result.pop(key) for key in ("fps", "focal_length", "body")}
    assert told == {"fps": 30, "focal_length": 5000, "body": "smpl"}
    assert {key: value.shape for key, value in result.items()} == shapes
    # The weak camera is the perspective one's neighbour.
    sx, sy, tx, ty = result["orig_cam"].T[..., None]
    joints = result["joints3d"]
    x = (sx * (joints[..., 0] + tx) + 1) * 240 / 2
    y = (sy * (joints[..., 1] + ty) + 1) * 180 / 2
    np.testing.assert_allclose(np.stack([x, y], -1), result["joints2d_img_coord"], atol=1)


# --------------------------------------------------------------------------------
# Models and checkpoints


def test_official_architecture():
    cfg = official_config()
    tgru = cfg.MODEL.TGRU
    assert (cfg.DATASET.SEQLEN, tgru.NUM_LAYERS, tgru.HIDDEN_SIZE, cfg.MODEL.FEATURE_SIZE) == (
        16,
        2,
        1024,
        2048,
    )
    assert cfg.MODEL.EXTRACTOR == "spin"
    assert cfg.COMPAT.STATIC_BORDERS


def test_official_files(base_data, smpl_body, hmr, golden_tcmr, golden, tmp_path, monkeypatch):
    """Official names and layout, no configuration in the checkpoint (here of a smaller network)."""
    cfg = official_config()
    cfg.MODEL.TGRU.HIDDEN_SIZE = 64
    monkeypatch.setattr(demo_models, "official_config", lambda: cfg)
    for file in base_data.iterdir():
        (tmp_path / file.name).symlink_to(file)
    torch.save({"model": hmr.state_dict()}, tmp_path / "spin_model_checkpoint.pth.tar")
    checkpoint = {"epoch": 1, "gen_state_dict": golden_tcmr.state_dict(), "performance": np.float32(50)}
    torch.save(checkpoint, tmp_path / "tcmr_demo_model.pth.tar")

    found = find_checkpoint("", tmp_path, tmp_path)
    assert found == tmp_path / "tcmr_demo_model.pth.tar"
    models = load_models(found, base_data=tmp_path, gender="female")
    assert (models.extractor.name, models.body.kind) == ("spin", "smpl")
    extractor = StoredFeatures(golden["features"], golden["bboxes"])
    models = Models(models.tcmr, models.cfg, extractor, models.body)
    scene = reconstruct(
        models, [], [GoldenTrack(golden)], camera=Camera(240, 180, 300.0), fps=60, n_frames=26
    )
    # The gender changes the mesh and nothing else; the protocol has no steps, whatever the frame rate.
    (motion,) = scene.people
    np.testing.assert_allclose(motion.betas, np.median(golden["betas"], 0), atol=1e-5)
    assert scene.gender == "female"
    still = Placed(motion.camera.rotmat, np.zeros_like(motion.camera.transl))
    verts = Meshes(models.tcmr.regressor.smpl, still, golden["betas"])[0]
    assert np.abs(verts[:100] - golden["verts"][0]).max() > 0.01


def test_open_checkpoint_brings_its_body_and_features(open_models, open_body):
    assert open_models.extractor.name == "landmarks"
    assert open_models.body.kind == "open"
    np.testing.assert_array_equal(open_models.body.v_template, open_body.v_template)


def test_bf16_is_for_images(open_dir, caplog):
    load_models(open_dir / "tcmr_open.pth.tar", open_dir=open_dir, bf16=True)
    assert "--bf16 has no effect" in caplog.text


def test_open_checkpoint_beside_official_smpl(open_dir, base_data):
    assert (
        load_models(open_dir / "tcmr_open.pth.tar", base_data=base_data, open_dir=open_dir).body.kind
        == "open"
    )


def test_checkpoint_choice(tmp_path, open_dir):
    assert find_checkpoint("mine.pth.tar", tmp_path, open_dir) == Path("mine.pth.tar")
    (tmp_path / "tcmr_demo_model.pth.tar").touch()  # of no use without SMPL
    assert find_checkpoint("", tmp_path, open_dir) == open_dir / "tcmr_open.pth.tar"
    with pytest.raises(UserError, match="--model"):
        find_checkpoint("", tmp_path, tmp_path)


def test_wrong_checkpoints_are_user_errors(open_dir, open_body, tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        load_models(tmp_path / "missing.pth.tar", open_dir=open_dir)
    with pytest.raises(UserError, match="no TCMR checkpoint"):
        load_models(open_dir / "landmark_net.pth.tar", open_dir=open_dir)
    with pytest.raises(UserError, match="has no weights in an entry 'model'"):
        load_landmark_net(open_dir / "tcmr_open.pth.tar")
    save_checkpoint({"model": {"fc1.weight": torch.zeros(2, 2)}}, tmp_path / "spin.pth.tar")
    with pytest.raises(UserError, match="holds no landmark network"):
        load_landmark_net(tmp_path / "spin.pth.tar")
    with pytest.raises(UserError, match="spin_model_checkpoint"):
        get_extractor("spin", open_body, base_data=tmp_path)
    with pytest.raises(UserError, match="there is no extractor 'other'; expected any of spin, landmarks"):
        get_extractor("other", open_body)


def test_configuration_can_be_overridden(open_dir, tmp_path):
    checkpoint = open_dir / "tcmr_open.pth.tar"
    models = load_models(checkpoint, open_dir=open_dir, opts=["COMPAT.STATIC_BORDERS", "True"])
    assert models.cfg.COMPAT.STATIC_BORDERS
    assert not load_models(checkpoint, open_dir=open_dir).cfg.COMPAT.STATIC_BORDERS
    with pytest.raises(UserError, match="does not fit"):
        load_models(checkpoint, open_dir=open_dir, opts=["MODEL.TGRU.HIDDEN_SIZE", "48"])
    with pytest.raises(UserError, match=r"--opts NO\.KEY 1"):
        load_models(checkpoint, open_dir=open_dir, opts=["NO.KEY", "1"])
    (tmp_path / "mine.yaml").write_text(dump_yaml(models.cfg))
    again = load_models(checkpoint, open_dir=open_dir, cfg_file=str(tmp_path / "mine.yaml"))
    assert again.cfg == models.cfg


def test_landmark_features(open_dir):
    net = load_landmark_net(open_dir / "landmark_net.pth.tar")
    track = make_track()
    (static,) = LandmarkExtractor(net)([], [track])
    vectors, boxes = landmark_arrays(*repair_flips(track.xy, track.visibility, track.world))
    with torch.no_grad():
        np.testing.assert_allclose(static.values, net(vectors).numpy(), atol=1e-6)
    np.testing.assert_array_equal(static.bboxes, boxes)


def test_windows_span_the_same_time_at_high_frame_rates():
    cfg = official_config()
    assert sequence_step(cfg, 120.0) == 1
    cfg.COMPAT.STATIC_BORDERS = False
    assert [sequence_step(cfg, fps) for fps in (10.0, 29.97, 50.0, 60.0, 120.0)] == [1, 1, 2, 2, 4]


def test_frame_rate_is_measured():
    moments = [Fraction(0), Fraction(1, 60), Fraction(1, 30), Fraction(1, 10)]
    assert measured_fps(moments, Fraction(1000)) == pytest.approx(30)
    assert measured_fps(moments[:1], Fraction(25)) == 25


# --------------------------------------------------------------------------------
# Drawing


def scene_of(open_models, *tracks, fit=False, n_frames=N + 5):
    """By default where TCMR puts them: the tracks' landmarks are nobody's."""
    camera = Camera(W, H, 1.2 * W, "default")
    return reconstruct(open_models, [], tracks, camera=camera, fps=25, n_frames=n_frames, fit=fit)


def drawer(open_models, scene, **options) -> Drawer:
    smpl, body = open_models.tcmr.regressor.smpl, open_models.body
    people = figures(scene, smpl, body, plain=options.get("plain", False))
    return Drawer(scene, people, Renderer(body.faces, W, H), **options)


BLACK = np.zeros((H, W, 3), np.uint8)


@pytest.mark.parametrize("nearer_first", [True, False])
def test_nearer_person_covers_the_farther_one(open_models, nearer_first):
    tracks = [make_track(1), make_track(1, size=40.0)]
    scene = scene_of(open_models, *(tracks if nearer_first else tracks[::-1]))
    near, far = sorted(scene.people, key=lambda motion: motion.camera.transl[0, 2])
    assert near.camera.transl[0, 2] < 0.8 * far.camera.transl[0, 2]
    verts = Meshes(open_models.tcmr.regressor.smpl, near.camera, near.betas)[0]
    colour = person_colour(scene.people.index(near))
    alone = Renderer(open_models.body.faces, W, H).render(BLACK, [(verts, colour)], scene.camera.project)
    inside = cv2.erode(alone.max(axis=2), np.ones((3, 3))) > 0
    image = drawer(open_models, scene)(BLACK, 0)
    np.testing.assert_allclose(image[inside].astype(int), alone[inside], atol=1)
    assert (image.any(axis=2) & ~alone.any(axis=2)).any()  # the other one is there, too


@pytest.mark.parametrize("view", ["", "side", "top", "follow"])
def test_only_people_of_the_frame_are_drawn(open_models, view):
    draw = drawer(open_models, scene_of(open_models, make_track(1, start=3)), view=view)
    absent, first, gone = draw(BLACK, 2), draw(BLACK, 3), draw(BLACK, 3 + N)
    assert not absent[:, :W].any() and not gone[:, :W].any()
    assert first[:, :W].any()
    if view:
        assert (first[:, W:] != absent[:, W:]).mean() > 0.003


def test_a_view_is_appended_and_leaves_the_overlay_alone(open_models):
    scene = scene_of(open_models, make_track())
    grey = np.full((H, W, 3), 90, np.uint8)
    usual = drawer(open_models, scene)(grey, 0)
    for view in VIEWS:
        image = drawer(open_models, scene, view=view)(grey, 0)
        assert image.shape == (H, 2 * W, 3)
        np.testing.assert_array_equal(image[:, :W], usual)
        assert image[0, 0].tolist() == [90, 90, 90]
        assert image[0, W].max() < 80
        assert image[:, W:].any()


def test_plain_people_are_turned_where_they_are_drawn(open_models):
    scene = scene_of(open_models, make_track(centre=(40.0, 60.0)))
    image = drawer(open_models, scene, view="side", plain=True)(BLACK, 0)
    columns = [np.flatnonzero(half.any((0, 2))).mean() for half in (image[:, :W], image[:, W:])]
    assert columns[1] == pytest.approx(columns[0], abs=12)


def test_the_side_view_turns_people_where_they_stand(open_models):
    scene = scene_of(open_models, make_track(centre=(40.0, 60.0)))
    image = drawer(open_models, scene, view="side")(BLACK, 0)
    front, side = image[:, :W], image[:, W:]
    (motion,) = scene.people
    verts = Meshes(open_models.tcmr.regressor.smpl, motion.camera, motion.betas)[0]
    x, y, z = (verts - motion.camera.transl[0]).T  # what is farther away comes to the right
    turned = np.stack([z, y, -x], axis=1) + motion.camera.transl[0]
    expected = Renderer(open_models.body.faces, W, H).render(
        BLACK, [(turned, person_colour(0))], scene.camera.project
    )
    np.testing.assert_allclose(side.astype(int), expected, atol=2)
    assert (front != side).any()


def test_the_view_from_above_is_in_scale(open_models):
    """Two people two metres apart, and a metre of margin on either side, fill the picture's width."""
    scene = scene_of(open_models, make_track(1), make_track(2))
    upright = np.tile(np.eye(3, dtype=np.float32), (N, 24, 1, 1))
    motions = []
    for motion, x in zip(scene.people, (0, 2)):
        world = Placed(upright, np.tile(np.array([x, 1, 0], np.float32), (N, 1)))
        motions.append(dataclasses.replace(motion, world=world, betas=np.zeros(10, np.float32)))
    scene = dataclasses.replace(scene, people=tuple(motions))
    image = drawer(open_models, scene, view="top")(BLACK, 0)[:, W:]
    filled = np.flatnonzero((image.max(axis=2) > 110).any(0))
    groups = [group for group in np.split(filled, np.flatnonzero(np.diff(filled) > 1) + 1) if len(group) > 3]
    left, right = (group.mean() for group in groups)
    assert right - left == pytest.approx(2 * W / 4, abs=1.5)


def test_plain_rendering_leaves_the_result_alone(open_models):
    """(1, 0, 0): a metre is half a box, and the body's origin is in the box's middle."""
    scene = scene_of(open_models, make_track())
    image = drawer(open_models, scene, plain=True)(np.full((H, W, 3), 90, np.uint8), 0)
    assert image[0, 0].tolist() == [0, 0, 0]
    (figure,) = figures(scene, open_models.tcmr.regressor.smpl, open_models.body, plain=True)
    motion, camera = scene.people[0], scene.camera
    usual = Meshes(open_models.tcmr.regressor.smpl, motion.camera, motion.betas)
    origin = (figure.overlay[0] - usual[0])[0] + motion.camera.transl[0]
    np.testing.assert_allclose(camera.project(origin), motion.boxes[0, :2], atol=0.1)
    assert origin[2] == pytest.approx(2 * camera.focal / motion.boxes[0, 2], rel=1e-5)


# --------------------------------------------------------------------------------
# The fit


def test_a_fitted_person_is_seen_where_its_mesh_is_drawn(open_models):
    """Projecting the mesh and its joints with K gives the pixels that are told, and those that are drawn."""
    scene = scene_of(open_models, make_track(n=26), fit=None)
    (motion,) = scene.people
    placed = motion.joints3d + motion.camera.transl[:, None]
    ahead = placed[..., 2] > 0.3  # the landmarks are nobody's: parts may come too near
    seen = (placed @ scene.camera.K.T)[ahead]
    assert ahead.mean() > 0.9
    np.testing.assert_allclose(seen[:, :2] / seen[:, 2:], motion.joints2d[ahead], atol=0.02)
    meshes = Meshes(open_models.tcmr.regressor.smpl, motion.camera, motion.betas)
    np.testing.assert_allclose(meshes.joints(), placed, atol=1e-4)
    verts = meshes[0] @ scene.camera.K.T
    pixels = verts[:, :2] / verts[:, 2:]
    low, high = pixels.min(0).clip(0, [W - 1, H - 1]), pixels.max(0).clip(0, [W - 1, H - 1])
    ys, xs = np.nonzero(drawer(open_models, scene)(BLACK, 0).any(2))
    np.testing.assert_allclose([xs.min(), ys.min(), xs.max(), ys.max()], [*low, *high], atol=1)


def test_without_landmarks_everybody_stays_as_tcmr_says(open_models):
    """None of the arrays of a track whose landmarks are all hidden changes, whatever a neighbour's are."""
    hidden = make_track(2)
    hidden.visibility[:] = 0.1
    fitted, passed = scene_of(open_models, make_track(1, n=26), hidden, fit=None).people
    usual_fitted, usual = scene_of(open_models, make_track(1, n=26), hidden).people
    assert np.abs(fitted.camera.rotmat - usual_fitted.camera.rotmat).max() > 0.01
    for name in ("frames", "betas", "boxes", "joints3d", "joints2d", "attention"):
        np.testing.assert_array_equal(getattr(passed, name), getattr(usual, name), err_msg=name)
    np.testing.assert_array_equal(passed.camera.rotmat, usual.camera.rotmat)
    np.testing.assert_array_equal(passed.camera.transl, usual.camera.transl)


# --------------------------------------------------------------------------------
# The whole command


def test_all_files(video, open_dir, tmp_path, tracked):
    options = DemoOptions(
        vid_file=str(video),
        output_folder=str(tmp_path),
        open_dir=str(open_dir),
        base_data=str(tmp_path),
        device="cpu",
        export=list(EXPORTERS),
        viewer=True,
        view="side",
    )
    written = run_demo(options)
    folder = tmp_path / "two people"
    name = "tcmr_two people"
    meshes = [f"meshes/0001/{i:06d}.obj" for i in range(N)] + [
        f"meshes/0002/{i:06d}.obj" for i in range(5, 5 + N)
    ]
    files = {f"{name}_input.mp4", f"{name}_output.mp4", "tcmr_output.npz", "tcmr_output.pkl"}
    files |= {f"person_{i}.{kind}" for i in (1, 2) for kind in ("npz", "bvh", "trc")}
    files |= {"scene.glb", "scene.json", "viewer.html"}
    assert files_in(folder) == sorted([*meshes, *files])
    assert set(written) == {folder / n for n in files | {"meshes"}}

    output = VideoFile(folder / f"{name}_output.mp4")
    assert (output.info.width, output.info.height) == (2 * W, H)
    assert [t for t, _ in output.timed()] == [t for t, _ in VideoFile(video).timed()]
    assert (folder / f"{name}_input.mp4").read_bytes() == video.read_bytes()

    results = load_joblib(folder / "tcmr_output.pkl")
    assert sorted(results) == [1, 2]
    for track in tracked:
        result = results[track.person_id]
        assert result["verts"].shape == (N, 6890, 3)
        np.testing.assert_array_equal(result["frame_ids"], track.frame_ids)
        np.testing.assert_allclose(result["bboxes"][12:18, :2], track.bboxes[12:18, :2], rtol=1e-4)
        np.testing.assert_allclose(result["bboxes"][:, 2:], 1.2 * track.bboxes[:, 2:], rtol=1e-5)
        assert (result["fps"], result["body"], result["focal_length"]) == (25, "open", 1.2 * W)
    scene = load_scene(folder / "tcmr_output.npz")
    assert (scene.name, scene.n_frames, scene.camera.source) == ("two people", N + 5, "default")

    lines = (folder / "meshes/0002/000007.obj").read_text().splitlines()
    verts = np.array([line.split()[1:] for line in lines if line.startswith("v ")], float)
    faces = np.array([line.split()[1:] for line in lines if line.startswith("f ")], int)
    motion = scene.people[1]
    world = Meshes(SMPL(load_body(tmp_path, open_dir=open_dir)), motion.world, motion.betas)
    np.testing.assert_allclose(verts, world[2], atol=1e-5)
    assert faces.shape == (13776, 3)
    assert (faces.min(), faces.max()) == (1, 6890)


def test_only_videos_without_options(video, open_dir, tmp_path, tracked):
    run_demo(
        DemoOptions(vid_file=str(video), output_folder=str(tmp_path), open_dir=str(open_dir), base_data="")
    )
    names = ["tcmr_output.npz", "tcmr_two people_input.mp4", "tcmr_two people_output.mp4"]
    assert files_in(tmp_path / "two people") == names


def test_image_folder(open_dir, tmp_path, tracked, monkeypatch):
    images = tmp_path / "my images"
    images.mkdir()
    for i in range(N):
        cv2.imwrite(str(images / f"{i:03d}.png"), np.full((H, W + 1, 3), 128, np.uint8))
    tracked.pop()
    opened = []
    monkeypatch.setattr("lib.demo.display.webbrowser.open", lambda address: opened.append(address) or True)
    options = DemoOptions(
        img_dir=f"{images}/",
        output_folder=str(tmp_path / "out"),
        open_dir=str(open_dir),
        wireframe=True,
        display=True,
    )
    run_demo(options)
    names = ["tcmr_my images_input.mp4", "tcmr_my images_output.html", "tcmr_my images_output.mp4"]
    assert files_in(tmp_path / "out" / "my images") == sorted([*names, "tcmr_output.npz"])
    frames = list(VideoFile(tmp_path / "out" / "my images" / names[0]))
    assert len(frames) == N
    assert frames[0].shape == (H, W + 2, 3)
    assert opened == [(tmp_path / "out" / "my images" / names[1]).resolve().as_uri()]
    assert len(list(images.iterdir())) == N


def test_failure_while_rendering_leaves_nothing(video, open_dir, tmp_path, tracked, monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("disk full")

    monkeypatch.setattr(results.Drawer, "__call__", fail)
    options = DemoOptions(
        vid_file=str(video), output_folder=str(tmp_path / "out"), open_dir=str(open_dir), export=["obj"]
    )
    with pytest.raises(RuntimeError, match="disk full"):
        run_demo(options)
    assert files_in(tmp_path / "out") == []


def test_drawing_side_by_side_changes_no_frame(video, open_dir, tmp_path, tracked, monkeypatch):
    """What goes to the encoder is what drawing one frame after the other gives, bit by bit."""
    written, scenes = [], []
    write, take = VideoWriter.write, recover.reconstruct
    monkeypatch.setattr(VideoWriter, "write", lambda s, *a: written.append(a) or write(s, *a))
    monkeypatch.setattr(recover, "reconstruct", lambda *a, **k: scenes.append(take(*a, **k)) or scenes[0])
    threads = threading.active_count()
    run_demo(DemoOptions(vid_file=str(video), output_folder=str(tmp_path), open_dir=str(open_dir)))
    assert threading.active_count() == threads
    draw = drawer(load_models(open_dir / "tcmr_open.pth.tar", open_dir=open_dir), scenes[0])
    timed = list(VideoFile(video).timed())
    assert [moment for _, moment in written] == [moment for moment, _ in timed]
    for i, ((_, frame), (image, _)) in enumerate(zip(timed, written)):
        np.testing.assert_array_equal(image, draw(frame, i))


def test_meshes_may_be_shared_by_threads(open_models):
    (motion,) = scene_of(open_models, make_track(n=100), n_frames=100).people
    meshes = Meshes(open_models.tcmr.regressor.smpl, motion.camera, motion.betas)
    rows = np.random.default_rng(0).permutation(100)
    with ThreadPoolExecutor(4) as pool:
        verts = list(pool.map(meshes.__getitem__, rows.tolist()))
    np.testing.assert_array_equal(np.stack(verts), meshes.all()[rows])


def test_damaged_image_in_the_middle(open_dir, tmp_path, monkeypatch):
    """The decoding thread's error reaches the user as it is, from each pass over the frames."""
    for i in range(N):
        cv2.imwrite(str(tmp_path / f"{i:03d}.png"), np.full((H, W, 3), 128, np.uint8))
    (tmp_path / "020.png").write_text("not an image")
    no_networks(monkeypatch)
    monkeypatch.setattr(recover, "track_people", lambda frames, *a, **k: list(frames))
    options = DemoOptions(img_dir=str(tmp_path), output_folder=str(tmp_path / "out"), open_dir=str(open_dir))
    with pytest.raises(UserError, match=r"020\.png is damaged or no image"):
        run_demo(options)

    def before_the_damage(frames, *args, **kwargs):
        return [make_track(n=len(list(itertools.islice(frames, 20))))]

    monkeypatch.setattr(recover, "track_people", before_the_damage)
    threads = threading.active_count()
    with pytest.raises(UserError, match=r"020\.png is damaged or no image"):
        run_demo(options)
    assert threading.active_count() == threads
    assert not files_in(tmp_path / "out")


def test_ctrl_c_while_drawing_leaves_nothing(video, open_dir, tmp_path, tracked, monkeypatch):
    threads = threading.active_count()
    timer = threading.Timer(0, signal.raise_signal, [signal.SIGINT])

    def write(self, image, moment):
        if moment > 0 and timer.ident is None:
            timer.start()
        time.sleep(0.02)

    monkeypatch.setattr(VideoWriter, "write", write)
    options = DemoOptions(vid_file=str(video), output_folder=str(tmp_path / "out"), open_dir=str(open_dir))
    with pytest.raises(KeyboardInterrupt):
        run_demo(options)
    timer.join()
    assert threading.active_count() == threads
    assert not files_in(tmp_path / "out")


def test_nobody_found_is_a_user_error(video, open_dir, tmp_path, tracked):
    tracked.clear()
    options = DemoOptions(vid_file=str(video), output_folder=str(tmp_path / "out"), open_dir=str(open_dir))
    with pytest.raises(UserError, match=r"two people \(35 frames, 1.4 s\): nobody was found .* 0.3 s"):
        run_demo(options)
    assert not (tmp_path / "out").exists()


def test_wrong_inputs_are_user_errors(tmp_path):
    with pytest.raises(UserError, match="both"):
        run_demo(DemoOptions(vid_file="a.mp4", img_dir="b"))
    with pytest.raises(UserError, match="links are not fetched"):
        run_demo(DemoOptions(vid_file="https://www.youtube.com/watch?v=x"))
    with pytest.raises(UserError, match="no such folder"):
        run_demo(DemoOptions(img_dir=str(tmp_path / "x")))
    with pytest.raises(UserError, match="--fps -3"):
        run_demo(DemoOptions(vid_file="a.mp4", fps=-3))
    with pytest.raises(UserError, match=r"--focal 1e\+30: expected a focal length"):
        run_demo(DemoOptions(vid_file="a.mp4", focal=1e30))
    with pytest.raises(UserError, match="--export: there is no format 'fbx'"):
        run_demo(DemoOptions(vid_file="a.mp4", export=["npz", "fbx"]))
    with pytest.raises(UserError, match="--min_seconds nan"):
        run_demo(DemoOptions(vid_file="a.mp4", min_seconds=float("nan")))
    with pytest.raises(UserError, match="--person tallest"):
        run_demo(DemoOptions(vid_file="a.mp4", person="tallest"))
    with pytest.raises(UserError, match=r"--tracks .*x\.txt does not exist"):
        run_demo(DemoOptions(vid_file="a.mp4", tracks=str(tmp_path / "x.txt")))


def test_unwritable_output_is_told_before_the_work(video, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="--output_folder: cannot write"):
        run_demo(DemoOptions(vid_file=str(video), output_folder=str(tmp_path / "file" / "x")))


def test_command_line():
    args = command.parse_args(["--vid_file", "a.mp4", "--sideview", "--gender", "male"])
    assert (args.vid_file, args.view, args.gender, args.detector) == ("a.mp4", "side", "male", "auto")
    args = command.parse_args(["--save_obj", "--export", "npz,bvh", "--save_pkl", "--export", "glb"])
    assert args.export == ["obj", "npz", "bvh", "pkl", "glb"]
    assert [command.parse_args(given).fit for given in ([], ["--fit"], ["--no-fit"])] == [None, True, False]


def test_options_kept_for_compatibility_warn(monkeypatch, caplog):
    seen = []
    monkeypatch.setattr(command, "run_demo", seen.append)
    command.main(["--detector", "yolo", "--yolo_img_size", "416", "--tracker_batch_size", "12"])
    assert seen == [DemoOptions()]
    assert sum("has no effect" in message for message in caplog.messages) == 2
    assert any("yolo is not part" in message for message in caplog.messages)


def test_mistake_gives_one_line_and_status_2(tmp_path):
    run = subprocess.run(
        [sys.executable, "demo.py", "--vid_file", str(tmp_path / "no.mp4")],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 2
    assert len(run.stderr.strip().splitlines()) == 1
    assert "no.mp4: no such video file" in run.stderr


# --------------------------------------------------------------------------------
# Which film, which person, which folder


def small_film(path: Path, n: int = 3) -> Path:
    path.parent.mkdir(exist_ok=True, parents=True)
    return encode(path, [np.full((H, W, 3), 90, np.uint8)] * n, fps=25)


@pytest.fixture
def briefly(monkeypatch):
    """Two people in all frames of whatever film, the first of them the larger one."""

    def track_people(frames, *_, **__):
        n = sum(1 for _ in frames)
        return [make_track(1, n=n), make_track(2, n=n, size=30.0)]

    no_networks(monkeypatch)
    monkeypatch.setattr(recover, "track_people", track_people)


def test_equal_names_do_not_overwrite_each_other(open_dir, tmp_path, briefly):
    """Films a.mp4, a.mov and another a.mp4, and a folder a; a second run finds its own folder again."""
    inputs = [small_film(tmp_path / name) for name in ("x/a.mp4", "x/a.mov", "y/a.mp4")]
    out = tmp_path / "out"
    folders = []
    for path in [*inputs, *inputs[::-1]]:
        written = run_demo(DemoOptions(vid_file=str(path), output_folder=str(out), open_dir=str(open_dir)))
        folders.append(written[0].parent.name)
        assert written[0] == out / folders[-1] / f"tcmr_{folders[-1]}_output.mp4"
    assert folders[:3] == folders[:2:-1]
    assert folders[:2] == ["a", "a_mov"]
    assert len(set(folders)) == 3
    assert len(files_in(out)) == 9


def test_runs_at_the_same_time_do_not_share_a_folder(open_dir, tmp_path, briefly):
    film, other = small_film(tmp_path / "x/a.mp4"), small_film(tmp_path / "y/a.mp4")
    options = DemoOptions(vid_file=str(film), output_folder=str(tmp_path / "out"), open_dir=str(open_dir))
    with only_process(tmp_path / "out" / "a"):
        (written, *_) = run_demo(options)
        (written_too, *_) = run_demo(replace(options, vid_file=str(other)))
    assert (written.parent.name, written_too.parent.name) == ("a_mp4", "a_2")
    assert not (tmp_path / "out" / "a").exists()  # nothing was written there
    names = {"tcmr_a_mp4_input.mp4", "tcmr_output.npz", written.name}
    assert {path.name for path in written.parent.iterdir()} == names


@pytest.mark.parametrize("name", ["tcmr_a_output.mp4", "tcmr_output.npz", "tracks.txt"])
def test_what_lies_in_the_place_of_a_result_is_told_before_the_work(open_dir, tmp_path, name):
    film, place = small_film(tmp_path / "a.mp4"), tmp_path / "out" / "a" / name
    place.parent.mkdir(parents=True)
    place.mkdir()
    options = DemoOptions(vid_file=str(film), output_folder=str(tmp_path / "out"), save_tracks=True)
    with pytest.raises(UserError, match=rf"{name} is .*move it away"):
        run_demo(options)


def test_the_films_folder_is_not_told(open_dir, tmp_path, briefly):
    film = small_film(tmp_path / "secret" / "a.mp4")
    out = run_demo(DemoOptions(vid_file=str(film), output_folder=str(tmp_path), open_dir=str(open_dir)))
    assert b"secret" not in out[0].read_bytes()


@pytest.mark.parametrize("name", ["n" * 240, "ü" * 120, "a\x1b[31m\n", "a:b"])
def test_any_name_makes_a_folder(open_dir, tmp_path, briefly, name):
    film = small_film(tmp_path / "x" / "a.mp4").rename(tmp_path / "x" / f"{name}.mp4")
    written = run_demo(DemoOptions(vid_file=str(film), output_folder=str(tmp_path), open_dir=str(open_dir)))
    assert all(path.is_file() for path in written)
    assert all(path.name.isprintable() for path in written)


def test_one_person_of_several(open_dir, tmp_path, briefly):
    """Numbers stay what they are."""
    video = small_film(tmp_path / "a.mp4")
    for person, expected in (("2", [2]), ("largest", [1]), ("all", [1, 2])):
        run_demo(
            DemoOptions(
                vid_file=str(video),
                output_folder=str(tmp_path),
                open_dir=str(open_dir),
                export=["pkl"],
                person=person,
            )
        )
        assert sorted(load_joblib(tmp_path / "a" / "tcmr_output.pkl")) == expected
    with pytest.raises(UserError, match="--person 7: found were 1, 2"):
        run_demo(DemoOptions(vid_file=str(video), open_dir=str(open_dir), person="7"))


def test_told_frame_rate_is_the_films(open_dir, tmp_path, briefly, monkeypatch):
    rates = []
    take = recover.reconstruct
    monkeypatch.setattr(
        recover, "reconstruct", lambda *a, fps, **k: rates.append(fps) or take(*a, fps=fps, **k)
    )
    film = small_film(tmp_path / "a.mp4")
    written = run_demo(
        DemoOptions(vid_file=str(film), output_folder=str(tmp_path), open_dir=str(open_dir), fps=100)
    )
    assert rates == [pytest.approx(100)]
    for path in written[:2]:
        times = [float(time) for time, _ in VideoFile(path).timed()]
        np.testing.assert_allclose(times, np.arange(3) / 100, atol=1e-4)


def test_damage_is_told_in_the_summary_and_where_nobody_is(open_dir, tmp_path, briefly, caplog, monkeypatch):
    film = encode(
        tmp_path / "a.avi", [np.full((H, W, 3), 90, np.uint8)] * 6, codec="mjpeg", pix_fmt="yuvj420p"
    )
    with av.open(str(film)) as container:
        packet = next(itertools.islice(container.demux(video=0), 3, None))
        position, content = packet.pos, bytes(packet)
    data = film.read_bytes()
    at = data.index(content, position)
    film.write_bytes(data[:at] + bytes(len(content)) + data[at + len(content) :])
    options = DemoOptions(vid_file=str(film), output_folder=str(tmp_path), open_dir=str(open_dir))
    with caplog.at_level(logging.INFO):
        run_demo(options)
    (warning,) = (r.getMessage() for r in caplog.records if r.levelname == "WARNING")
    assert "1 at 0.10 s" in warning
    assert "the film is damaged, frames lost: 1 at 0.10 s" in caplog.records[-1].getMessage()
    monkeypatch.setattr(recover, "track_people", lambda frames, *_, **__: list(frames)[:0])
    with pytest.raises(UserError, match=r"nobody was found .* the film is damaged, frames lost"):
        run_demo(options)


def test_nothing_is_announced_that_nobody_asked_for(open_dir, base_data, tmp_path, briefly, caplog):
    video = small_film(tmp_path / "a.mp4")
    with caplog.at_level(logging.INFO):
        run_demo(DemoOptions(vid_file=str(video), output_folder=str(tmp_path), open_dir=str(open_dir)))
    assert "not present" not in caplog.text
    assert "SMPL" not in caplog.text
    options = DemoOptions(
        vid_file=str(video), output_folder=str(tmp_path), open_dir=str(open_dir), base_data=str(base_data)
    )
    with caplog.at_level(logging.INFO):
        run_demo(options)
    assert "SMPL_NEUTRAL.pkl is not used: this checkpoint was trained with the open body" in caplog.text


def test_people_too_short_for_official_windows(open_dir, tmp_path, monkeypatch, caplog):
    tracked = [make_track(1, n=16), make_track(2, n=12)]
    no_networks(monkeypatch)
    monkeypatch.setattr(recover, "track_people", lambda frames, *_, **__: list(frames) and tracked)
    video = small_film(tmp_path / "a.mp4", 16)
    options = {"vid_file": str(video), "output_folder": str(tmp_path), "open_dir": str(open_dir)}
    run_demo(DemoOptions(**options, opts=["COMPAT.STATIC_BORDERS", "True"], export=["pkl"]))
    assert "person 2 is left out: in sight for less than 16 frames" in caplog.text
    assert sorted(load_joblib(tmp_path / "a" / "tcmr_output.pkl")) == [1]
    tracked.pop(0)
    run_demo(DemoOptions(**options, export=["pkl"]))
    assert sorted(load_joblib(tmp_path / "a" / "tcmr_output.pkl")) == [2]
    with pytest.raises(UserError, match="nobody is in sight for 16 frames"):
        run_demo(DemoOptions(**options, opts=["COMPAT.STATIC_BORDERS", "True"]))


def test_one_image_is_a_result(open_dir, tmp_path, tracked, monkeypatch):
    monkeypatch.setattr(recover, "track_people", lambda frames, *a, **k: [make_track(1, n=len(list(frames)))])
    cv2.imwrite(str(tmp_path / "photo.jpg"), np.full((H, W, 3), 128, np.uint8))
    run_demo(
        DemoOptions(vid_file=str(tmp_path / "photo.jpg"), output_folder=str(tmp_path), open_dir=str(open_dir))
    )
    assert len(list(VideoFile(tmp_path / "photo" / "tcmr_photo_output.mp4"))) == 1


@pytest.mark.parametrize("relative", [True, False])
def test_from_any_folder(open_dir, tmp_path, relative):
    """Networks are found where --open_dir says, or where the project lies."""
    film = small_film(tmp_path / "a.mp4")
    chosen = os.path.relpath(open_dir, tmp_path) if relative else str(open_dir)
    run = subprocess.run(
        [sys.executable, str(REPOSITORY / "demo.py"), "--vid_file", film.name, "--open_dir", chosen],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "nobody was found" in run.stderr
    assert run.returncode == 2
    assert not any("TensorFlow" in line for line in run.stderr.splitlines())


@pytest.mark.skipif(not (DOWNLOADS / "demo.mp4").is_file(), reason="open assets are not fetched")
def test_real_video(open_dir, tmp_path, monkeypatch):
    """Detection and tracking included, on a second and a half of the sample video."""
    monkeypatch.chdir(REPOSITORY)
    source = VideoFile(DOWNLOADS / "demo.mp4")
    with VideoWriter(tmp_path / "clip.mp4", source.info.fps) as writer:
        for i, (moment, frame) in enumerate(source.timed()):
            if i == 45:
                break
            writer.write(cv2.resize(frame, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), moment)
    options = DemoOptions(
        vid_file=str(tmp_path / "clip.mp4"),
        output_folder=str(tmp_path),
        open_dir=str(open_dir),
        export=["pkl"],
    )
    run_demo(options)
    results = load_joblib(tmp_path / "clip" / "tcmr_output.pkl")
    bboxes = results[1]["bboxes"]
    assert (np.abs(bboxes[:, 0] - 315) < 40).all()  # the person on the roof
    others = [results[person] for person in results if person != 1]
    assert all((other["bboxes"][:, 0] > 700).all() for other in others)  # who comes from behind the tree
    assert sum(1 for _ in VideoFile(tmp_path / "clip" / "tcmr_clip_output.mp4")) == 45

"""The demo: numbers against the original's, files, drawing order, and what users do wrong."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import demo as command
from lib.core.config import get_cfg_defaults, to_dict
from lib.data_utils.open_assets import DOWNLOADS
from lib.demo import pipeline
from lib.demo.pipeline import (
    DemoOptions,
    Models,
    draw_frame,
    find_checkpoint,
    load_models,
    official_config,
    reconstruct,
    run_demo,
    sequence_step,
)
from lib.demo.render import Renderer
from lib.demo.tracking import Track, landmark_boxes
from lib.demo.video import VideoFile, VideoWriter
from lib.models.extractors import (
    LandmarkExtractor,
    SpinExtractor,
    StaticFeatures,
    get_extractor,
    load_landmark_net,
)
from lib.models.hmr import HMR
from lib.models.landmark_net import LandmarkNet
from lib.models.tcmr import TCMR
from lib.utils.crops import crop_image, normalise_crop
from lib.utils.errors import UserError
from lib.utils.files import load_joblib, save_checkpoint
from lib.utils.landmark_features import landmark_vector
from tests.golden_tools import GOLDEN, fill_by_recipe, load_golden

REPOSITORY = Path(__file__).resolve().parents[1]
W, H, N = 160, 120, 30


def make_track(person_id: int = 1, start: int = 0, n: int = N, size: float = 60.0, centre=(80.0, 60.0)) -> Track:
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
    cfg.MODEL.EXTRACTOR, cfg.MODEL.FEATURE_SIZE = "landmark", 32
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


@pytest.fixture
def tracked(monkeypatch):
    """Replace detection and tracking, which need downloaded networks, by two ready tracks."""
    tracks = [make_track(1), make_track(2, start=5, size=30.0, centre=(60.0, 50.0))]

    def track_people(frames, detector, network, *, min_frames):
        assert min_frames == 25
        assert sum(1 for _ in frames) >= N
        return tracks

    monkeypatch.setattr(pipeline, "_load_tracker", lambda detector: (None, None))
    monkeypatch.setattr(pipeline, "track_people", track_people)
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
def spin(smpl_body) -> SpinExtractor:
    hmr = HMR(smpl_body)
    fill_by_recipe(hmr)
    return SpinExtractor(hmr)


def read_rgb(path: Path) -> np.ndarray:
    return cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)


def test_crops_and_features_equal_the_original(golden, spin):
    rows = golden["rows"]
    frames = [read_rgb(GOLDEN / "demo" / "frames" / f"{row:06d}.png") for row in rows]
    crops = np.stack([crop_image(frame, box) for frame, box in zip(frames, golden["bboxes"][rows])])
    if cv2.__version__.startswith("5."):  # other versions round warpAffine differently
        np.testing.assert_array_equal(crops[:, 100:104], golden["crop_rows"])
        sums = normalise_crop(crops).numpy().sum((2, 3), dtype=np.float64)
        np.testing.assert_allclose(sums, golden["crop_sums"], atol=0.05)
    done = []
    (static,) = spin(iter([*frames, None]), [GoldenTrack(golden, rows)], done.append)
    np.testing.assert_allclose(static.values, golden["features"][rows], rtol=1e-4, atol=5e-5)
    np.testing.assert_array_equal(static.bboxes, golden["bboxes"][rows])
    assert sum(done) == len(rows)


def test_features_of_spin_crops(spin):
    crops = np.stack([read_rgb(GOLDEN / "hmr" / f"img{i}.png") for i in range(2)])
    expected = load_golden("hmr/hmr_forward")["features"]
    np.testing.assert_allclose(spin.features(crops), expected, rtol=1e-4, atol=5e-5)


@pytest.fixture(scope="module")
def golden_person(golden, smpl_body):
    tcmr = TCMR(16, 2, 64, body=smpl_body).eval()
    fill_by_recipe(tcmr)

    class StoredFeatures:
        name, feature_size, needs_frames = "spin", 2048, False

        def __call__(self, frames, tracks, progress=None):
            return [StaticFeatures(golden["features"], golden["bboxes"])]

    width, height = golden["img_wh"].tolist()
    models = Models(tcmr, official_config(), StoredFeatures(), smpl_body)
    (person,) = reconstruct(models, [], [GoldenTrack(golden)], width=width, height=height, fps=30)
    return person


def test_results_equal_the_original(golden, golden_person):
    result = golden_person.full_result()
    for key in ("pred_cam", "betas", "joints3d", "orig_cam"):
        np.testing.assert_allclose(result[key], golden[key], atol=1e-5, err_msg=key)
    np.testing.assert_allclose(result["bboxes"], golden["bboxes_out"], rtol=1e-12)
    rows = golden["rows"]
    np.testing.assert_allclose(result["verts"][rows, :100], golden["verts"], atol=1e-5)
    # Near a half turn the sign of an axis is rounding: compare rotations.
    for row, expected in zip(rows, golden["rotmat"]):
        rotmat = [cv2.Rodrigues(axis_angle.astype(np.float64))[0] for axis_angle in result["pose"][row].reshape(24, 3)]
        np.testing.assert_allclose(rotmat, expected, atol=1e-5)


def test_result_keys_and_shapes(golden_person):
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
    }
    result = golden_person.full_result()
    assert result.pop("joints2d") is None
    assert {key: value.shape for key, value in result.items()} == shapes


def test_image_camera_puts_joints_where_the_crop_has_them(golden_person):
    """Weak perspective in the image against the crop's far perspective: they differ by depth over distance."""
    result = golden_person.result
    sx, sy, tx, ty = result["orig_cam"].T[..., None]
    joints = result["joints3d"]
    x = (sx * (joints[..., 0] + tx) + 1) * 240 / 2
    y = (sy * (joints[..., 1] + ty) + 1) * 180 / 2
    np.testing.assert_allclose(np.stack([x, y], -1), result["joints2d_img_coord"], atol=2.5)


def test_whole_image_box_keeps_the_camera(golden, golden_person):
    width = 200
    box = np.array([[width / 2, width / 2, width / 1.2, width / 1.2]])

    class Features:
        name, feature_size, needs_frames = "spin", 2048, False

        def __call__(self, frames, tracks, progress=None):
            return [StaticFeatures(golden["features"], box.repeat(26, 0))]

    models = Models(golden_model(golden_person), official_config(), Features(), None)
    (person,) = reconstruct(models, [], [GoldenTrack(golden)], width=width, height=width, fps=30)
    s, tx, ty = person.result["pred_cam"].T
    np.testing.assert_allclose(person.result["orig_cam"], np.stack([s, s, tx, ty], 1), rtol=1e-6)


def golden_model(person) -> TCMR:
    """A model that shares the body of an earlier result."""
    tcmr = TCMR(16, 1, 16, body=load_golden_body(person))
    return tcmr.eval()


def load_golden_body(person):
    return person.meshes._smpl_body  # replaced below

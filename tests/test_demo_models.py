"""The demo's models: numbers against the original's, and which checkpoint, body and features are taken."""

from __future__ import annotations

import threading
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from lib.core.config import dump_yaml
from lib.data_utils.boxes import scale_bboxes
from lib.demo import models as demo_models
from lib.demo.models import Models, find_checkpoint, load_models, official_config
from lib.demo.reconstruct import predict_track, reconstruct, sequence_step
from lib.demo.recover import measured_fps
from lib.landmarks.features import landmark_arrays
from lib.landmarks.flips import repair_flips
from lib.models.extractors import (
    Extractor,
    LandmarkExtractor,
    SpinExtractor,
    StaticFeatures,
    get_extractor,
    load_landmark_net,
)
from lib.models.hmr import HMR
from lib.models.precision import cpu_has_bf16
from lib.models.smpl import SMPL
from lib.models.tcmr import TCMR
from lib.motion.camera import Camera
from lib.motion.exporters import export_scene
from lib.motion.lift import lift
from lib.motion.meshes import Meshes
from lib.motion.motion import Placed
from lib.utils.crops import crop_image, normalise_crop
from lib.utils.errors import UserError
from lib.utils.files import load_joblib, save_checkpoint
from lib.utils.geometry import crop_cam_to_image_cam
from tests.demo_tools import H, W, make_track
from tests.golden_tools import GOLDEN, fill_by_recipe, load_golden


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

"""Per-frame pose estimates of other methods: files, features, simulated errors, and through the demo."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from lib.core.build import load_model
from lib.core.config import load_config
from lib.demo.models import load_models
from lib.demo.options import DemoOptions
from lib.demo.pipeline import run_demo
from lib.demo.pose_files import PoseEstimates, pose_tracks, read_poses
from lib.models.body import OPEN_DATA, BodyData
from lib.models.extractors import PosesExtractor, PoseTrack, get_extractor
from lib.models.inference import PreparedTCMR
from lib.models.landmark_body import LandmarkBody
from lib.models.predict import predict_sequence
from lib.models.tcmr import TCMR
from lib.motion.scene_file import load_scene
from lib.open_data import simulated
from lib.open_data.motions import UNCHANGED, MotionSampler, procedural_motions
from lib.open_data.pose_noise import KINDS, MIXED, SILENT, PoseEstimator
from lib.open_data.simulated import SimulatedStream, estimated_clips
from lib.utils import metrics
from lib.utils import pose_features as pose_features_module
from lib.utils.crops import crop_to_image
from lib.utils.errors import UserError
from lib.utils.geometry import project, rot6d_to_rotmat, rotmat_to_axis_angle
from lib.utils.pose_features import POSE_FEATURE_SIZE, bridge, pose_features, robust_mean, track_features
from lib.utils.smoothing import gaussian, one_euro
from scripts import compare_poses
from tests.motion_tools import EYE, camera_turn, scene_of, walk
from tests.simulation_tools import generator
from tests.video_tools import encode

pytestmark = pytest.mark.usefixtures("one_thread")

CHECKPOINT = Path(OPEN_DATA) / "tcmr_poses.pth.tar"
WIDTH, HEIGHT, FOCAL = 192, 108, 180.0


def rotations(*shape: int, seed: int = 0, spread: float = 0.3) -> np.ndarray:
    """(*shape, 3, 3) float32, about the rest pose."""
    vectors = np.random.default_rng(seed).normal(0, spread, (int(np.prod(shape)), 3))
    return Rotation.from_rotvec(vectors).as_matrix().reshape(*shape, 3, 3).astype(np.float32)


def vectors(rotmat: np.ndarray) -> np.ndarray:
    """Axis-angle (*, 3)."""
    flat = Rotation.from_matrix(rotmat.reshape(-1, 3, 3)).as_rotvec()
    return flat.reshape(*rotmat.shape[:-2], 3).astype(np.float32)


def write(path: Path, **arrays) -> Path:
    np.savez(path, **arrays)
    return path


BOXES = np.tile(np.float32([90, 50, 60, 80]), (6, 1))


# --------------------------------------------------------------------------------
# Files


FORMS = {
    "rotmat": lambda r: {"rotmat": r},
    "axis-angle": lambda r: {"poses": vectors(r).reshape(6, 72)},
    "axis-angle by joints": lambda r: {"pose": vectors(r)},
    "root and body": lambda r: {
        "global_orient": vectors(r[:, 0]),
        "body_pose": vectors(r[:, 1:]).reshape(6, 69),
    },
    "matrices of root and body": lambda r: {"global_orient": r[:, :1], "body_pose": r[:, 1:]},
    "one matrix as root": lambda r: {"global_orient": r[:, 0], "body_pose": r[:, 1:]},
}


def whole_body(rotmat: np.ndarray, more: int) -> np.ndarray:
    """Axis-angle (6, 66 + 3 more) of the body and ``more`` joints of hands and face."""
    return vectors(np.concatenate([rotmat[:, :22], rotations(6, more, seed=5)], 1)).reshape(6, -1)


SHORT_FORMS = {
    "SMPL-X body": lambda r: {"poses": whole_body(r, 0)},
    "SMPL-H": lambda r: {"poses": whole_body(r, 30)},
    "SMPL-X": lambda r: {"poses": whole_body(r, 33)},
    "SMPL-X root and body": lambda r: {"root_orient": vectors(r[:, 0]), "pose_body": vectors(r[:, 1:22])},
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_pose(form: str, tmp_path: Path) -> None:
    truth = rotations(6, 24)
    read = read_poses(write(tmp_path / "p.npz", boxes=BOXES, **FORMS[form](truth)))
    np.testing.assert_allclose(read.rotmat, truth, atol=2e-6)
    assert read.frame_ids.tolist() == list(range(6))
    assert read.person_ids.tolist() == [1] * 6
    assert not read.betas.any()


@pytest.mark.parametrize("form", SHORT_FORMS)
def test_hands_at_rest_where_there_are_none(form: str, tmp_path: Path) -> None:
    truth = rotations(6, 24)
    read = read_poses(write(tmp_path / "p.npz", boxes=BOXES, **SHORT_FORMS[form](truth)))
    np.testing.assert_allclose(read.rotmat[:, :22], truth[:, :22], atol=2e-6)
    np.testing.assert_allclose(read.rotmat[:, 22:], np.tile(np.eye(3), (6, 2, 1, 1)))


@pytest.mark.parametrize(
    "betas", [np.arange(10.0), np.arange(10.0)[None], np.tile(np.arange(10.0), (6, 1)), np.arange(16.0)]
)
def test_betas(betas: np.ndarray, tmp_path: Path) -> None:
    path = write(tmp_path / "p.npz", boxes=BOXES, rotmat=rotations(6, 24), betas=betas)
    np.testing.assert_allclose(read_poses(path).betas, np.tile(np.arange(10.0), (6, 1)))


HOSTILE = {
    "no poses": ({"rotmat": None}, "holds no poses: expected rotmat"),
    "no place": ({"boxes": None}, "does not tell where people are: add boxes"),
    "no rotation": ({"rotmat": 2 * rotations(6, 24)}, "no rotation, first in row 0, joint 0"),
    "mirrored": ({"rotmat": -rotations(6, 24)}, "no rotation, first in row 0, joint 0"),
    "NaN": ({"rotmat": np.full((6, 24, 3, 3), np.nan)}, "rotmat holds NaN or infinite .* first in row 0"),
    "too large for float32": ({"boxes": np.full((6, 4), 1e300)}, "boxes holds NaN or infinite"),
    "23 joints": ({"rotmat": rotations(6, 23)}, r"has shape \(6, 23, 3, 3\), expected \(T, 24, 3, 3\)"),
    "degrees": ({"rotmat": None, "poses": np.full((6, 72), 90.0)}, "poses holds 90, expected at most 12.6"),
    "odd poses": ({"rotmat": None, "poses": np.zeros((6, 70))}, r"poses has shape \(6, 70\), expected axis"),
    "a number as poses": ({"rotmat": None, "poses": np.array(3.0)}, r"poses has shape \(\), expected axis"),
    "lengths": (
        {"rotmat": None, "global_orient": np.zeros((5, 3)), "body_pose": np.zeros((6, 69))},
        "body_pose has 6 rows, global_orient 5",
    ),
    "rows of boxes": ({"boxes": BOXES[:5]}, r"boxes has shape \(5, 4\), expected \(6, 4\)"),
    "empty boxes": ({"boxes": 0 * BOXES}, "boxes have no extent"),
    "cam": ({"cam": np.zeros((6, 3))}, "cam have a scale that is not above 0"),
    "behind": ({"transl": np.zeros((6, 3))}, "transl lie behind the camera"),
    "focal": ({"transl": np.ones((6, 3)), "focal": np.ones(4)}, r"focal has shape \(4,\), expected px"),
    "betas": ({"betas": np.zeros((5, 10))}, r"betas has shape \(5, 10\)"),
    "monstrous betas": ({"betas": np.full(10, 1e6)}, r"betas holds 1e\+06, expected at most 30"),
    "half frames": ({"frame_ids": np.arange(6) / 2}, "frame_ids holds numbers that are not whole"),
    "words as frames": ({"frame_ids": np.array(list("abcdef"))}, "expected numbers|whole numbers"),
    "twice": ({"frame_ids": np.array([0, 1, 2, 2, 3, 4])}, "person 1 is in frame 2 twice; tell people apart"),
    "body": ({"body": np.array("star")}, "body is 'star', expected smpl or open"),
    "nothing": ({"rotmat": np.zeros((0, 24, 3, 3)), "boxes": BOXES[:0]}, "rotmat holds nothing"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_wrong_files_are_one_line(case: str, tmp_path: Path) -> None:
    changes, message = HOSTILE[case]
    arrays = {"rotmat": rotations(6, 24), "boxes": BOXES} | changes
    path = write(tmp_path / "p.npz", **{k: v for k, v in arrays.items() if v is not None})
    with pytest.raises(UserError, match=message) as error:
        read_poses(path)
    assert "\n" not in str(error.value)
    assert "p.npz" in str(error.value)


def test_objects_and_garbage_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"p\.npz"):
        read_poses(write(tmp_path / "p.npz", rotmat=np.array([{}], dtype=object), boxes=BOXES))
    (tmp_path / "g.npz").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(UserError, match=r"g\.npz"):
        read_poses(tmp_path / "g.npz")
    with pytest.raises(UserError, match="does not exist"):
        read_poses(tmp_path / "absent.npz")


# --------------------------------------------------------------------------------
# Tracks


def tracks_of(path: Path, body: BodyData, fps: float = 30.0) -> list[PoseTrack]:
    return pose_tracks(read_poses(path), body, width=WIDTH, height=HEIGHT, focal=FOCAL, fps=fps)


def test_short_gaps_are_bridged_and_long_ones_split(open_body, tmp_path: Path) -> None:
    ids = np.array([3, 4, 7, 40, 41, 5, 6, 9])  # out of order, two people
    people = np.array([2, 2, 2, 2, 2, 9, 9, 9])
    truth, boxes = rotations(8, 24), np.tile(BOXES[:1], (8, 1))
    path = write(tmp_path / "p.npz", rotmat=truth, boxes=boxes, frame_ids=ids[::-1], track_id=people[::-1])
    tracks = tracks_of(path, open_body)
    found = [(t.person_id, t.frame_ids.tolist(), t.seen.tolist()) for t in tracks]
    assert found == [
        (2, [3, 4, 5, 6, 7], [True, True, False, False, True]),
        (10, [40, 41], [True, True]),
        (9, [5, 6, 7, 8, 9], [True, True, False, False, True]),
    ]
    known = truth[::-1]  # in the order of ids
    np.testing.assert_allclose(tracks[0].rotmat[[0, 1, 4]], known[:3], atol=1e-5)
    two_thirds = known[1] + (known[2] - known[1]) * 2 / 3
    off = np.abs(tracks[0].rotmat[3] - two_thirds).max((-1, -2))
    assert off.max() < 0.25  # a rotation near the mixture of the matrices
    np.testing.assert_allclose(np.linalg.det(tracks[0].rotmat), 1, atol=1e-5)
    assert tracks_of(path, open_body, fps=300.0)[0].frame_ids[-1] == 41  # 33 frames are a tenth of a second


def seen_at(track: PoseTrack, body: BodyData) -> np.ndarray:
    """(n, 49, 2) px of the estimated joints, by the crop cameras in the features."""
    static = PosesExtractor()([], [track])[0]
    state = torch.from_numpy(static.values[:, :157])
    joints = LandmarkBody(body)(torch.from_numpy(track.rotmat), state[:, 144:154])[0]
    return crop_to_image(project(joints, state[:, 154:]).numpy(), static.bboxes)


def test_every_camera_shows_the_joints_where_the_file_says(open_body, tmp_path: Path) -> None:
    n, rng = 12, np.random.default_rng(0)
    pose, steady = np.tile(rotations(1, 24), (n, 1, 1, 1)), np.linspace(0, 1, n)[:, None]
    pose[:, 0] = np.diag([1.0, -1.0, -1.0])
    joints = LandmarkBody(open_body)(torch.from_numpy(pose), torch.zeros(n, 10))[0].numpy()
    transl = np.float32([0.3, -0.2, 30.0]) + steady * np.float32([0.2, 0.1, 1.0])
    far = joints + transl[:, None]
    truth = 2000.0 * far[..., :2] / far[..., 2:] + [WIDTH / 2, HEIGHT / 2]
    by_place = write(tmp_path / "t.npz", rotmat=pose, transl=transl, focal_length=2000.0, body="open")
    # The same as crop cameras of boxes that jump about.
    side = rng.uniform(100, 200, n)
    centre = truth.mean(1) + rng.uniform(-20, 20, (n, 2))
    scale = 2000.0 / transl[:, 2]
    origin = scale[:, None] * transl[:, :2] + [WIDTH / 2, HEIGHT / 2]
    cam = np.concatenate([(2 * scale / side)[:, None], (origin - centre) / scale[:, None]], 1)
    boxes = np.concatenate([centre, side[:, None] * [0.4, 1.0]], 1)
    by_crop = write(tmp_path / "c.npz", rotmat=pose, pred_cam=cam, bbox=boxes, body="open")
    low, high = truth.min(1), truth.max(1)
    tight = np.concatenate([(low + high) / 2, 1.1 * (high - low)], 1)
    by_box = write(tmp_path / "b.npz", rotmat=pose, boxes=tight, body="open")
    for path, tolerance in ((by_place, 2.0), (by_crop, 2.0), (by_box, 4.0)):
        (track,) = tracks_of(path, open_body)
        off = np.linalg.norm(seen_at(track, open_body) - truth, axis=-1)
        assert off.max() < tolerance, path  # of a person 120 px tall


def test_shapes_of_another_body_become_the_mean(open_body, tmp_path: Path) -> None:
    arrays = {"rotmat": rotations(6, 24), "boxes": BOXES, "betas": np.ones(10)}
    (smpl,) = tracks_of(write(tmp_path / "s.npz", **arrays), open_body)
    (own,) = tracks_of(write(tmp_path / "o.npz", body="open", **arrays), open_body)
    assert not smpl.betas.any()
    assert (own.betas == 1).all()


# --------------------------------------------------------------------------------
# Features


def test_robust_mean_leaves_outliers_out_and_steady_values_alone() -> None:
    steady = torch.full((40, 2, 6), 0.4)
    torch.testing.assert_close(robust_mean(steady), steady)
    slope = torch.arange(40.0)[:, None, None] * torch.full((1, 2, 6), 0.01)
    torch.testing.assert_close(robust_mean(slope)[8:-8], slope[8:-8], atol=1e-5, rtol=0)
    for count in (1, 2, 3, 4):
        wrong = steady.clone()
        wrong[20 : 20 + count] = 3.0
        assert (robust_mean(wrong) - steady).abs().max() < 0.1
        assert np.abs(gaussian(wrong.numpy(), 2.0) - 0.4).max() > 0.4  # where a plain mean is far off


@settings(max_examples=30)
@given(
    st.lists(st.lists(st.floats(-5, 5), min_size=4, max_size=4), min_size=1, max_size=9).filter(
        lambda v: len(v) % 2
    )
)
def test_median_is_that_of_numpy(values: list[list[float]]) -> None:
    found = pose_features_module._median([torch.tensor(v, dtype=torch.float64) for v in values])
    np.testing.assert_array_equal(found.numpy(), np.median(values, axis=0))


def test_features_begin_with_a_state_of_the_regressor() -> None:
    rotmat = torch.from_numpy(rotations(1, 24)).expand(30, 24, 3, 3)
    betas, cam = torch.linspace(-1, 1, 10).expand(30, 10), torch.tensor([0.9, 0.1, -0.1]).expand(30, 3)
    features = pose_features(rotmat, betas, cam)
    assert features.shape == (30, POSE_FEATURE_SIZE)
    torch.testing.assert_close(rot6d_to_rotmat(features[:, :144].view(30, 24, 6)), rotmat, atol=1e-5, rtol=0)
    torch.testing.assert_close(features[:, 144:154], betas)
    torch.testing.assert_close(features[:, 154:157], cam)
    assert features[:, 157:].abs().max() < 1e-5  # nothing differs from its mean
    noisy = torch.from_numpy(rotations(30, 24, seed=1))
    noisy = pose_features(noisy, betas, cam)
    own = noisy[:, :144] + noisy[:, 157:] / 4
    torch.testing.assert_close(
        rot6d_to_rotmat(own.view(30, 24, 6)), torch.from_numpy(rotations(30, 24, seed=1)), atol=1e-5, rtol=0
    )


def test_features_of_parts_are_those_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    rotmat = torch.from_numpy(rotations(90, 24))
    betas, cam = torch.randn(90, 10, generator=generator(0)), torch.rand(90, 3, generator=generator(1))
    whole = pose_features(rotmat, betas, cam)
    monkeypatch.setattr("lib.utils.pose_features._BLOCK", 32)
    torch.testing.assert_close(track_features(rotmat, betas, cam, 30.0), whole)
    twice = track_features(*(v.repeat_interleave(2, 0) for v in (rotmat, betas, cam)), 60.0)
    assert twice.shape == (180, POSE_FEATURE_SIZE)
    one = track_features(rotmat[:1], betas[:1], cam[:1], 30.0)
    assert one.isfinite().all()


def test_bridge_is_linear_interpolation() -> None:
    rng = np.random.default_rng(0)
    seen, values = rng.random((3, 20)) < 0.5, rng.normal(size=(3, 20, 2))
    out = bridge(torch.from_numpy(values), torch.from_numpy(seen)).numpy()
    for clip in range(3):
        known = np.flatnonzero(seen[clip])
        for axis in range(2):
            truth = np.interp(np.arange(20), known, values[clip, known, axis])
            np.testing.assert_allclose(out[clip, :, axis], truth, atol=1e-6)


def test_one_euro_follows_its_paper() -> None:
    rng = np.random.default_rng(0)
    values, fps, cutoff, beta = rng.normal(size=12), 30.0, 1.2, 0.4
    smooth, speed, out = values[0], 0.0, [values[0]]

    def alpha(frequency: float) -> float:
        return 1 / (1 + (1 / (2 * np.pi * frequency)) * fps)

    for value in values[1:]:  # Casiez et al., algorithm 1, with the speed of the smoothed signal
        change = (value - smooth) * fps
        speed = alpha(1.0) * change + (1 - alpha(1.0)) * speed
        weight = alpha(cutoff + beta * abs(speed))
        smooth = weight * value + (1 - weight) * smooth
        out.append(smooth)
    np.testing.assert_allclose(one_euro(values, cutoff, beta, fps=fps), out)


# --------------------------------------------------------------------------------
# Simulated errors


@pytest.fixture(scope="module")
def clips() -> torch.Tensor:
    motions = procedural_motions(6, seed=1)
    return MotionSampler(motions, generator(0), UNCHANGED).sample(32, 60)[0]


def degrees(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """(B, T, 24) angles between rotations."""
    trace = torch.einsum("...ij,...ij", a, b)
    return torch.rad2deg(torch.acos(((trace - 1) / 2).clamp(-1, 1)))


def estimates(noise, clips: torch.Tensor, seed: int = 0):
    return PoseEstimator(noise, generator(seed))(clips, torch.zeros(len(clips), 10))


def test_without_errors_estimates_are_the_truth(clips) -> None:
    seen = estimates(SILENT, clips)
    torch.testing.assert_close(seen.rotmat, clips, atol=1e-5, rtol=0)
    assert not seen.betas.any()
    torch.testing.assert_close(seen.cam, seen.true_cam)


def test_white_noise_has_the_size_that_it_says(clips) -> None:
    seen = estimates(replace(SILENT, white_body=0.05), clips)
    error = degrees(seen.rotmat, clips)
    # The angle of three normal axes has rms sqrt(3) sigma; joint 1 errs by one unit, the root not at all.
    assert error[..., 1].square().mean().sqrt() == pytest.approx(np.degrees(0.05) * 3**0.5, rel=0.05)
    assert error[..., 0].max() < 0.1
    moved = (seen.rotmat[..., 1, :, :] @ clips[..., 1, :, :].mT)[:, :, 0, 1]
    assert (moved[:, 1:] * moved[:, :-1]).mean().abs() < 0.1 * moved.square().mean()


def test_drift_is_slow_and_bias_stays(clips) -> None:
    still = estimates(replace(SILENT, bias_body=0.1), clips).rotmat
    turned = clips.mT @ still  # in the joint's own axes
    assert (turned - turned[:, :1]).abs().max() < 1e-4
    slow = estimates(replace(SILENT, slow_body=0.1), clips).rotmat
    error = (clips.mT @ slow)[:, :, 1, 0, 1]
    assert 0.8 < (error[:, 1:] * error[:, :-1]).mean() / error.square().mean() < 1


def test_wrong_frames_swaps_turns_and_occlusions_pass(clips) -> None:
    sudden = {
        "wrong": (0.03, range(24)), "swapped": (0.03, range(24)), "turned": (0.03, range(24)),
        "hidden": (0.02, [1, 4, 7, 10, 2, 5, 8, 11, 16, 18, 20, 22, 17, 19, 21, 23]),
    }  # fmt: skip
    for name, (rate, joints) in sudden.items():
        error = degrees(estimates(replace(SILENT, **{name: rate}), clips).rotmat, clips)
        share = (error.amax(-1) > 3).float().mean()
        assert 0.005 < share < 0.8, name
        others = [j for j in range(24) if j not in joints]
        assert not others or error[..., others].max() < 0.5, name
    turned = estimates(replace(SILENT, turned=0.05), clips).rotmat
    root = degrees(turned, clips)[..., 0]
    assert set(root.round().unique().tolist()) <= {0.0, 180.0}
    facing = turned[..., 0, :, 2]
    back = root > 90
    assert torch.allclose(facing[back], -clips[..., 0, :, 2][back], atol=1e-4)


def test_lost_frames_lie_between_their_neighbours(clips) -> None:
    seen = estimates(replace(SILENT, lost=0.05), clips).rotmat
    error = degrees(seen, clips).amax(-1)
    assert 0.02 < (error > 0.2).float().mean() < 0.5
    assert error.max() < 60


def test_errors_vary_from_clip_to_clip_between_25_and_100_mm(open_body) -> None:
    rotmat = MotionSampler(procedural_motions(6, seed=1), generator(3), UNCHANGED).sample(96, 24)[0]
    body, seen = LandmarkBody(open_body), estimates(MIXED, rotmat)
    shape = torch.zeros(96 * 24, 10)
    truth, found = (body(r.flatten(0, 1), shape)[0][:, 25:39].numpy() for r in (rotmat, seen.rotmat))
    errors = 1000 * metrics.pa_mpjpe(found, truth).reshape(96, 24).mean(1)
    low, middle, high = np.percentile(errors, [10, 50, 95])
    assert low < 25 < middle < 60
    assert 60 < high < 160


def test_stream_gives_what_the_configuration_asks_for(open_body, monkeypatch: pytest.MonkeyPatch) -> None:
    motions = {"train": procedural_motions(3, seed=1, length=80)}
    monkeypatch.setattr(simulated, "open_motions", lambda folder: motions)
    cfg = load_config(Path(__file__).parents[1] / "configs" / "poses.yaml")
    device = torch.device("cpu")
    stream = SimulatedStream(cfg, open_body, device, 3, seed=1)
    first, second = next(stream), next(stream)
    frames = cfg.DATASET.SEQLEN + cfg.TRAIN.RUN_LENGTH - 1
    assert first["features"].shape == (3, frames, POSE_FEATURE_SIZE)
    assert first["kp_3d"].shape == (3, cfg.TRAIN.RUN_LENGTH, 49, 3)
    again = SimulatedStream(cfg, open_body, device, 3, seed=1, start=1)
    assert all(torch.equal(value, second[name]) for name, value in next(again).items())
    cfg.MODEL.FEATURE_SIZE = 300
    with pytest.raises(UserError, match=r"MODEL\.EXTRACTOR poses gives 301 numbers per frame"):
        SimulatedStream(cfg, open_body, device, 3, seed=1)


def test_targets_are_of_the_middle_frame(open_body, clips) -> None:
    """Of silent estimates the features hold the pose that the target asks for."""
    betas = torch.randn(32, 10, generator=generator(2))
    quiet = estimated_clips(PoseEstimator(SILENT, generator(0)), LandmarkBody(open_body), clips, betas, 8)
    pose = rot6d_to_rotmat(quiet.vectors[..., :144].unflatten(-1, (24, 6)))
    assert degrees(pose, quiet.rotmat).mean() < 3  # a mean over time of a motion
    joints = LandmarkBody(open_body)(quiet.rotmat.flatten(0, 1), quiet.betas.flatten(0, 1))[0]
    torch.testing.assert_close(quiet.joints3d.flatten(0, 1), joints)


# --------------------------------------------------------------------------------
# The network


def starting_model(body: BodyData) -> TCMR:
    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "feature_size": POSE_FEATURE_SIZE, "regressor_hidden_size": 12}
    return TCMR(6, 1, **sizes, regressor_dropout=0.0, body=body, starts_from_feature=True).eval()


def test_untrained_network_says_what_it_is_told(open_body) -> None:
    model = starting_model(open_body)
    windows = torch.from_numpy(rotations(5, 6, 24)), torch.randn(5, 6, 10), torch.rand(5, 6, 3) + 0.5
    features = pose_features(*windows)
    with torch.inference_mode():
        output = model(features)[0][0]
    told = features[:, 3, :157]
    torch.testing.assert_close(output["theta"][:, 75:], told[:, 144:154])
    torch.testing.assert_close(output["theta"][:, :3], told[:, 154:])
    pose = rot6d_to_rotmat(told[:, :144].view(5, 24, 6))
    torch.testing.assert_close(output["rotmat"], pose, atol=1e-5, rtol=0)


def test_every_path_starts_from_the_feature(open_body) -> None:
    """Of a network whose corrections are no longer 0: prepared, in shared windows, and in training."""
    model = starting_model(open_body)
    for decoder in (model.regressor.decpose, model.regressor.decshape, model.regressor.deccam):
        torch.nn.init.normal_(decoder.weight, std=0.05)
    frames = 0.3 * torch.randn(9, POSE_FEATURE_SIZE)
    windows = torch.arange(4)[:, None] + torch.arange(6)
    with torch.inference_mode():
        truth = model(frames[windows])[0][0]
        one_by_one = model.regressor(
            model.encoder(frames[windows])[0], *frames[3:7, :157].split((144, 10, 3), 1)
        )
        found = {
            "naive": one_by_one[0],
            "shared": model.predict_windows(frames, windows),
            "prepared": PreparedTCMR(model, "fp32", 4).predict_windows(frames, windows),
            "training": {k: v[:, 2] for k, v in model.forward_runs(frames[None], 4).items() if k != "scores"},
        }
    for name, output in found.items():
        for key in ("theta", "rotmat", "kp_3d"):
            torch.testing.assert_close(output[key], truth[key], atol=2e-5, rtol=1e-4, msg=f"{name} {key}")
    with pytest.raises(UserError, match=r"START_FROM_FEATURE needs 157"):
        TCMR(6, 1, 8, 32, 12, 0.0, open_body, starts_from_feature=True)


# --------------------------------------------------------------------------------
# The shipped network, and the demo


def test_shipped_network_is_calm_and_no_worse(open_body) -> None:
    """Accel error goes down to less than a third, PA-MPJPE does not go up."""
    model, cfg = load_model(CHECKPOINT, None, open_body)
    assert cfg.MODEL.EXTRACTOR == "poses"
    body = LandmarkBody(open_body)
    turn = torch.from_numpy(camera_turn(10, 0)).float()
    walks = [walk(open_body, seed)[0].rotmat for seed in range(4)]
    rotmat = torch.stack([torch.from_numpy(r) for r in walks])
    rotmat[:, :, 0] = turn @ rotmat[:, :, 0]

    def joints(poses: np.ndarray) -> np.ndarray:
        return body(torch.from_numpy(poses), torch.zeros(len(poses), 10))[0][:, 25:39].numpy()

    for kind in ("jitter", "mixed"):
        seen = estimates(KINDS[kind], rotmat, seed=1)
        features = pose_features(seen.rotmat, seen.betas, seen.cam).numpy()
        errors = []
        for found, values, truth in zip(seen.rotmat.numpy(), features, rotmat.numpy()):
            after = predict_sequence(model, values, return_verts=False)["rotmat"]
            true = joints(truth)
            for poses in (found, after):
                accel = metrics.accel_error(joints(poses), true).mean()
                errors.append([accel, metrics.pa_mpjpe(joints(poses), true).mean()])
        before, now = np.reshape(errors, (4, 2, 2)).mean(0)
        assert now[0] < before[0] / 3, kind
        assert now[1] <= before[1], kind


@pytest.fixture(scope="module")
def film(tmp_path_factory) -> Path:
    images = [np.full((HEIGHT, WIDTH, 3), 40 + 4 * i, np.uint8) for i in range(40)]
    return encode(tmp_path_factory.mktemp("film") / "walk.mp4", images)


@pytest.fixture(scope="module")
def noisy_walks(open_body, tmp_path_factory) -> tuple[Path, list]:
    """Two people who walk, as a file of noisy estimates with a gap, and what they did."""
    people = [walk(open_body, seed, 40) for seed in (0, 3)]
    scene = scene_of(people, open_body, camera_turn(8, 0))
    rng, arrays = np.random.default_rng(0), []
    for motion in scene.people:
        true = torch.from_numpy(motion.camera.rotmat)[None]
        seen = PoseEstimator(KINDS["jitter"], generator(motion.person_id))(true, torch.zeros(1, 10))
        rows = np.r_[0:15, 18:40]
        transl = motion.camera.transl + rng.normal(0, 0.02, (40, 3)) * [1, 1, 4]
        pose = rotmat_to_axis_angle(seen.rotmat[0]).flatten(1).numpy()
        arrays.append(
            {
                "poses": pose[rows], "transl": transl[rows], "frame_ids": rows,
                "betas": np.tile(motion.betas, (37, 1)), "person_ids": np.full(37, motion.person_id),
            }
        )  # fmt: skip
    joined = {key: np.concatenate([part[key] for part in arrays]) for key in arrays[0]}
    path = tmp_path_factory.mktemp("estimates") / "their.npz"
    return write(path, focal=FOCAL, body="open", **joined), list(scene.people)


def test_demo_from_a_file_of_poses(film, noisy_walks, open_body, tmp_path: Path, caplog) -> None:
    path, truth = noisy_walks
    options = DemoOptions(
        vid_file=str(film), poses=str(path), output_folder=str(tmp_path), save_tracks=True, device="cpu",
        export=("bvh",), base_data=str(tmp_path / "none"),
    )  # fmt: skip
    written = run_demo(options)
    assert {file.suffix for file in written} >= {".mp4", ".npz", ".bvh", ".txt"}
    scene = load_scene(tmp_path / "walk" / "tcmr_output.npz")
    assert scene.camera.focal == FOCAL
    assert [(motion.person_id, len(motion)) for motion in scene.people] == [(1, 40), (2, 40)]
    tracks = (tmp_path / "walk" / "tracks.txt").read_text().splitlines()
    assert len(tracks) == 2 * 37  # what was interpolated was not seen
    raw, body = read_poses(path), LandmarkBody(open_body)
    for motion, true in zip(scene.people, truth):
        assert np.abs(motion.betas - true.betas).max() < 0.6
        chosen = raw.person_ids == motion.person_id
        rows = raw.frame_ids[chosen]
        joints = [
            body(torch.from_numpy(np.ascontiguousarray(pose)), torch.from_numpy(true.betas)[None])[0].numpy()
            for pose in (true.camera.rotmat, motion.camera.rotmat)
        ]
        noisy = body(torch.from_numpy(raw.rotmat[chosen]), torch.from_numpy(true.betas)[None])[0].numpy()
        a, b, c = (j[:, 25:39] for j in (*joints, noisy))
        inner = slice(0, 15)
        before = metrics.accel_error(c[inner], a[rows[inner]]).mean()
        assert metrics.accel_error(b[inner], a[inner]).mean() < before / 3
        assert metrics.pa_mpjpe(b, a).mean() <= metrics.pa_mpjpe(c, a[rows]).mean()
        away = np.linalg.norm(motion.camera.transl - true.camera.transl, axis=1)
        assert away.mean() < 0.35  # about 8 m away
        assert motion.camera.transl[:, 2].mean() == pytest.approx(EYE[2], abs=1.5)


def test_wrong_uses_of_the_option_are_one_line(film, noisy_walks, tmp_path: Path) -> None:
    path, _ = noisy_walks
    arrays = dict(np.load(path))
    late = write(tmp_path / "late.npz", **arrays | {"frame_ids": arrays["frame_ids"] + 10})
    base = {"vid_file": str(film), "output_folder": str(tmp_path / "out"), "device": "cpu"}
    cases = {
        "has frame 49, counted from 0, but the film has 40 frames": {"poses": str(late)},
        "both --poses and --tracks": {"poses": str(path), "tracks": "x.txt"},
        "landmarks features, so that it cannot read --poses": {
            "poses": str(path), "model": str(Path(OPEN_DATA) / "tcmr_open.pth.tar"),
        },
        "with --poses there are none": {"poses": str(path), "fit": True},
        "does not exist": {"poses": str(tmp_path / "absent.npz")},
    }  # fmt: skip
    for message, changes in cases.items():
        with pytest.raises(UserError, match=message):
            run_demo(DemoOptions(**base | changes))
    assert not (tmp_path / "out").exists()


def test_comparison_measures_everybody_on_the_same_estimates(monkeypatch, tmp_path: Path, capsys) -> None:
    motions = procedural_motions(2, seed=2, length=60)
    monkeypatch.setattr(compare_poses, "open_motions", lambda folder: {"val": motions, "test": motions})
    filters = {name: (function, choices[-2:]) for name, (function, choices) in compare_poses.FILTERS.items()}
    monkeypatch.setattr(compare_poses, "FILTERS", filters)
    argv = ["compare_poses.py", "--kind", "jitter", "--threads", "1", "--json", str(tmp_path / "t.json")]
    monkeypatch.setattr("sys.argv", argv)
    compare_poses.main()
    table = json.loads((tmp_path / "t.json").read_text())["errors"]["jitter"]
    assert set(table) == {*filters, "estimates", "robust mean", "TCMR", "TCMR + Gaussian"}
    for name, row in table.items():
        for key in compare_poses.COLUMNS:
            assert row[f"{key}_more"] == pytest.approx(row[key] - table["TCMR"][key]), name
    assert table["Gaussian"]["accel_err"] < table["estimates"]["accel_err"] / 3
    printed = capsys.readouterr().out
    assert f"| TCMR | {table['TCMR']['mpjpe']:.1f} ±" in printed


def test_model_of_poses_fits_any_body(base_data, open_body) -> None:
    """Poses are SMPL's: where SMPL is installed, meshes are SMPL's, though training saw the open body."""
    models = load_models(CHECKPOINT, base_data=base_data)
    assert models.body.kind == "smpl"
    assert get_extractor("poses", open_body).fingerprint == PosesExtractor.fingerprint


def test_estimates_hold_what_the_docstring_says() -> None:
    assert set(PoseEstimates.__dataclass_fields__) >= {
        "frame_ids",
        "rotmat",
        "betas",
        "boxes",
        "cam",
        "transl",
    }

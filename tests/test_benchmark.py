"""The open benchmark's measures, statistics and choices."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from lib.core.benchmark import comparison
from lib.core.benchmark.comparison import best_width, choose_widths
from lib.core.benchmark.measures import BodyMeasures, measure
from lib.core.benchmark.methods import Methods
from lib.core.benchmark.tables import statistic
from lib.core.benchmark.videos import Estimate, Posed, Video, read_videos
from lib.landmarks.features import LIMB_JOINTS
from lib.models.body import BodyData
from lib.models.landmark_body import LandmarkBody
from lib.models.per_frame import PerFrameEncoder
from lib.models.smpl import SMPL
from lib.models.vibe import VIBEEncoder
from lib.motion.motion import Placed
from lib.open_data.walks import walking_motions
from lib.utils.errors import UserError
from lib.utils.files import dump_joblib
from scripts.compare_open import checkpoints_of


def video_of(joints: np.ndarray, fps: float = 30.0, **more) -> Video:
    n = len(joints)
    seen = np.zeros((n, 33, 6))
    return Video(
        "a", "a", seen, (seen[..., :2], seen[..., 2], seen[..., 3:]), joints, np.zeros((n, 12, 2)),
        np.ones(n), fps, (100, 100), **more,
    )  # fmt: skip


def still(rng: np.random.Generator, n: int) -> np.ndarray:
    return np.tile(rng.uniform(-0.5, 0.5, (1, 12, 3)), (n, 1, 1))


@pytest.mark.parametrize("fps", [30.0, 60.0])
def test_derivatives_are_per_second_at_any_frame_rate(fps: float) -> None:
    """Wrists that move by a t^2 / 2 and by b t^3 / 6 while all else stands still."""
    n, wrist = 48, LIMB_JOINTS.index(31)
    target = still(np.random.default_rng(0), n)
    time = np.arange(n) / fps
    for power, factor, size in ((2, 2, 3.0), (3, 6, 40.0)):
        joints = target.copy()
        joints[:, wrist, 0] += size * time**power / factor
        found = measure(Estimate(joints, np.zeros((n, 12, 2))), video_of(target, fps))
        if power == 2:
            np.testing.assert_allclose(found["accel_err_m_s2"], size / 12, rtol=1e-6)
            np.testing.assert_allclose(found["accel_err"], 1000 * size / 12 / 30**2, rtol=1e-6)
            np.testing.assert_allclose(found["jitter"], 0, atol=1e-6)
        else:
            np.testing.assert_allclose(found["jitter"], size / 12, rtol=1e-6)


def test_errors_are_about_the_hips() -> None:
    rng = np.random.default_rng(1)
    target = still(rng, 20)
    found = measure(Estimate(target + np.array([5.0, -2, 9]), np.ones((20, 12, 2))), video_of(target))
    assert found["mpjpe"].max() < 1e-6 and found["yaw_jumps"].sum() == 0
    np.testing.assert_allclose(found["overlay"], 100 * 2**0.5)
    apart = target + rng.normal(0, 0.05, target.shape)
    found = measure(Estimate(apart, np.zeros((20, 12, 2))), video_of(target))
    centred = [j - j[:, [2, 3]].mean(1, keepdims=True) for j in (apart, target)]  # the hips of the twelve
    naive = [[1000 * np.linalg.norm(a - b) for a, b in zip(*frame)] for frame in zip(*centred)]
    np.testing.assert_allclose(found["mpjpe"], np.mean(naive, axis=1))
    assert (found["mpjpe_pa"] < found["mpjpe"]).all()
    np.testing.assert_allclose(found["joints"].mean(1), found["mpjpe_pa"])


def seen_walk(body: BodyData, turn: np.ndarray) -> Video:
    (motion,) = walking_motions(body, 1, seed=1, length=60)
    rotmat = motion.rotmat.numpy().copy()
    rotmat[:, 0] = turn @ rotmat[:, 0]
    world = Placed(motion.rotmat.numpy(), motion.trans.numpy())
    posed = Posed(rotmat.astype(np.float32), np.zeros((60, 10), np.float32))
    return video_of(np.zeros((60, 12, 3)), body=posed, world=world)


def test_feet_are_measured_on_the_true_floor(open_body: BodyData) -> None:
    smpl, nothing = SMPL(open_body), np.zeros((60, 12, 3))
    found = {}
    rng = np.random.default_rng(0)
    bent = Rotation.from_rotvec(rng.normal(0, 0.1, (60, 3))).as_matrix().astype(np.float32)
    for number, turn in enumerate(Rotation.random(2, random_state=3).as_matrix().astype(np.float32)):
        video = seen_walk(open_body, turn)
        measures = BodyMeasures(video, open_body, smpl)
        assert 0.2 < measures.stands.mean() < 0.8  # people who walk put their feet down, and lift them
        assert video.body is not None

        def of(rotmat: np.ndarray, betas: np.ndarray, measures: BodyMeasures = measures) -> dict[str, float]:
            values = measures(Estimate(nothing, nothing[..., :2], Posed(rotmat, betas)))
            return {key: float(value.mean()) for key, value in values.items()}

        same = of(video.body.rotmat, video.body.betas)
        assert max(same.values()) < 0.1
        shaken = video.body.rotmat.copy()
        shaken[:, 1] = shaken[:, 1] @ bent
        taller = video.body.betas + np.eye(10, dtype=np.float32)[0]
        found[number] = of(shaken, video.body.betas), of(video.body.rotmat, taller)
        assert found[number][0]["slide"] > 20
    for one, other in zip(*found.values()):  # whatever the camera sees, the world is the same
        for key in ("slide", "floats", "sinks"):
            assert one[key] == pytest.approx(other[key], abs=0.1)
    longer = found[0][1]  # or shorter: all soles are on one side of the floor
    assert max(longer["floats"], longer["sinks"]) > 10 > min(longer["floats"], longer["sinks"])


def test_what_has_no_body_has_joints_only(open_body: BodyData) -> None:
    smpl, joints = SMPL(open_body), np.zeros((60, 12, 3))
    video = seen_walk(open_body, np.eye(3, dtype=np.float32))
    assert BodyMeasures(video, open_body, smpl)(Estimate(joints, joints[..., :2])) == {}
    own = Estimate(joints, joints[..., :2], video.body)
    assert list(BodyMeasures(replace(video, world=None), open_body, smpl)(own)) == ["mpvpe"]
    assert BodyMeasures(replace(video, body=None), open_body, smpl)(own) == {}


def totals(values: np.ndarray) -> np.ndarray:
    """(seeds, motions, frames) -> sums and counts."""
    return np.stack([values.sum(-1), np.full(values.shape[:-1], values.shape[-1])], -1)


def test_intervals_are_those_of_the_mean_over_motions() -> None:
    rng = np.random.default_rng(0)
    of_motions = rng.normal(50, 8, 200)
    values = of_motions[None, :, None] + rng.normal(0, 1, (1, 200, 40))
    found = statistic(totals(values))
    assert found["mean"] == pytest.approx(values.mean())
    half = 1.96 * values.mean(-1).std() / 200**0.5
    assert found["high"] - found["low"] == pytest.approx(2 * half, rel=0.1)
    assert "sd" not in found
    # motions differ far more than two methods on the same motion do: pairs tell what intervals do not
    difference = statistic(totals(values + 0.5 + rng.normal(0, 0.1, values.shape)), totals(values))
    assert difference["mean"] == pytest.approx(0.5, abs=0.02)
    assert difference["high"] - difference["low"] < 0.02
    assert statistic(totals(values), totals(values)) == {"mean": 0, "low": 0, "high": 0}
    long = np.array([[[300.0, 100], [10, 1]]])  # a motion of 100 frames at 3, one of a single frame at 10
    assert statistic(long)["mean"] == pytest.approx(310 / 101)


def test_seeds_are_averaged_and_their_spread_told() -> None:
    values = np.random.default_rng(0).normal(50, 8, (1, 30, 5)) + np.array([-1.0, 0, 4])[:, None, None]
    found = statistic(totals(values))
    assert found["mean"] == pytest.approx(values.mean())
    assert found["sd"] == pytest.approx(np.std([-1, 0, 4], ddof=1))


def test_the_grid_of_widths_goes_on_where_its_end_is_the_best() -> None:
    assert best_width(lambda width: (width - 1.0) ** 2)[0] == pytest.approx(1.0, rel=0.13)
    assert best_width(lambda width: width)[0] == 0
    assert best_width(lambda width: abs(width - 20))[0] == pytest.approx(20, rel=0.13)


def test_widths_are_the_best_of_each_row(monkeypatch: pytest.MonkeyPatch, open_body: BodyData) -> None:
    """Joints without an error want no smoothing, those that jitter some."""
    rng = np.random.default_rng(0)
    time = np.arange(120)[:, None, None]
    joints = rng.uniform(-0.5, 0.5, (1, 12, 3)) + 0.2 * np.sin(time / 8 + rng.uniform(0, 6, (1, 12, 3)))
    pixels, noise = np.zeros((120, 12, 2)), rng.normal(0, 0.03, joints.shape)
    rows = {
        "raw landmarks": [Estimate(joints + noise, pixels)],
        "per-frame network": [Estimate(joints + noise / 2, pixels)],
        "trained alike": [Estimate(joints + noise / 9, pixels)],
        "VIBE": [Estimate(joints, pixels)],
    }

    class Two(Methods):
        def __init__(self) -> None:
            encoders = {"trained alike": PerFrameEncoder(1, 4, 2, 3), "VIBE": VIBEEncoder(1, 4, 2, 3)}
            self.models = {name: [SimpleNamespace(encoder=e)] for name, e in encoders.items()}

        def __call__(self, video: Video) -> dict[str, list[Estimate]]:
            return rows

    methods, video = Two(), video_of(joints)
    monkeypatch.setattr(comparison, "read_videos", lambda path: [video])
    widths, baseline = choose_widths(Path("x"), methods)
    assert widths["VIBE"] == 0 and baseline == "trained alike + Gaussian"  # VIBE sees other frames
    cost = {}
    for width in (0.3, widths["raw landmarks"], 6.0):
        errors = measure(methods.smoothed(rows["raw landmarks"][0], width, 30.0), video)
        cost[width] = errors["mpjpe_pa"].mean() + errors["accel_err"].mean()
    assert min(cost, key=cost.__getitem__) == widths["raw landmarks"] > 0.3
    once, twice = (methods.smoothed(rows["raw landmarks"][0], *how) for how in ((2.0, 30.0), (1.0, 60.0)))
    np.testing.assert_allclose(once.joints, twice.joints)


def test_a_smoothed_body_stays_a_body(open_body: BodyData) -> None:
    methods = Methods.__new__(Methods)
    methods.bodies = LandmarkBody(open_body)
    rng = np.random.default_rng(0)
    turns = Rotation.from_rotvec(rng.normal(0, 0.4, (40 * 24, 3))).as_matrix().reshape(40, 24, 3, 3)
    posed = Posed(turns.astype(np.float32), rng.normal(0, 1, (40, 10)).astype(np.float32))
    found = methods.smoothed(Estimate(np.zeros((40, 12, 3)), np.zeros((40, 12, 2)), posed), 2.0, 30.0)
    assert found.body is not None
    unit = found.body.rotmat @ found.body.rotmat.swapaxes(-1, -2)
    np.testing.assert_allclose(unit, np.broadcast_to(np.eye(3), unit.shape), atol=1e-5)
    mesh = SMPL(open_body)
    rotmat, betas = map(torch.from_numpy, found.body)
    joints = mesh(betas, rotmat[:, 1:], rotmat[:, :1], pose2rot=False).joints[:, LIMB_JOINTS]
    np.testing.assert_allclose(found.joints, joints.numpy(), atol=1e-4)


def test_pieces_and_views_are_of_one_motion(tmp_path: Path) -> None:
    names = [
        "cmu_94_04_00000",
        "cmu_94_04_00160",
        "pose2sim_cam01",
        "pose2sim_cam02",
        "pose2sim_multi_cam01_2",
    ]
    rows = np.random.default_rng(0).uniform(1, 2, (5 * 3, 33, 6)).astype(np.float32)
    database = {
        "vid_name": np.repeat(names, 3), "landmarks": rows, "joints3D": rows[:, :1].repeat(49, 1)[..., :3],
        "joints2D": rows[:, :1].repeat(49, 1)[..., :3], "bbox": rows[:, 0, :4],
        "pose": np.zeros((15, 72), np.float32), "fps": np.array(60.0),
    }  # fmt: skip
    dump_joblib(database, tmp_path / "db.pt")
    videos = read_videos(tmp_path / "db.pt")
    assert [video.name for video in videos] == names
    motions = [video.motion for video in videos]
    assert motions == ["cmu_94_04", "cmu_94_04", "pose2sim", "pose2sim", "pose2sim_multi"]
    assert all(video.body is None and video.fps == 60 and video.step == 2 for video in videos)


def test_checkpoints_are_named_and_found(tmp_path: Path) -> None:
    for run in ("a_tcmr_1", "b_tcmr_2"):
        (tmp_path / run).mkdir()
        (tmp_path / run / "model_best.pth.tar").touch()
    (tmp_path / "vibe.pth.tar").touch()
    found = checkpoints_of([f"TCMR={tmp_path}/*_tcmr_?", f"VIBE-style={tmp_path}/vibe.pth.tar"])
    assert found["TCMR"] == [tmp_path / run / "model_best.pth.tar" for run in ("a_tcmr_1", "b_tcmr_2")]
    assert found["VIBE-style"] == [tmp_path / "vibe.pth.tar"]
    for wrong, said in (
        ("TCMR", "NAME=FILE"),
        ("a + fit=x", "NAME=FILE"),
        (f"a={tmp_path}/none*", "no such"),
    ):
        with pytest.raises(UserError, match=said):
            checkpoints_of([wrong])

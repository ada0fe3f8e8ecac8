"""The database of real views, made here from synthetic tracks that four known cameras would give."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from lib.demo.track import Track
from lib.landmarks.features import LIMB_JOINTS, LIMB_LANDMARKS, landmark_boxes
from lib.models.extractors import LandmarkExtractor
from lib.models.landmark_net import LandmarkNet
from lib.open_data.multiview import Camera, project, to_camera
from lib.utils.errors import UserError
from scripts import make_pose2sim_db as script
from tests.test_multiview import ring

FRAMES = 40


@pytest.fixture
def body() -> np.ndarray:
    """Landmarks (40, 33, 3) m in the world that move slowly."""
    rng = np.random.default_rng(0)
    sway = np.sin(np.arange(FRAMES) / 15)[:, None, None] * rng.uniform(-0.1, 0.1, (33, 3))
    return rng.uniform(-0.4, 0.4, (33, 3)) + sway


def track_of(body: np.ndarray, camera: Camera, frames: slice = slice(None), person_id: int = 1) -> Track:
    """What a camera sees of a body (T, 33, 3) in some of the T frames."""
    xy = project(body, camera)[frames].astype(np.float32)
    world = to_camera(body, camera)[frames].astype(np.float32)
    visibility = np.ones(xy.shape[:2], np.float32)
    return Track(person_id, np.arange(len(body))[frames], landmark_boxes(xy), xy, visibility, world)


def test_targets_are_the_limbs(body: np.ndarray) -> None:
    cameras = ring()
    (joints,), corrected = script.people_targets([[track_of(body, camera)] for camera in cameras], cameras)
    away = np.linalg.norm(joints - body[:, LIMB_LANDMARKS], axis=-1)
    assert away[5:-5].max() < 1e-3 and away.max() < 1e-2  # smoothing takes a little, most at the ends
    for before, after in zip(cameras, corrected):
        np.testing.assert_allclose(after.K, before.K, atol=0.1)


def test_targets_of_several_people(body: np.ndarray) -> None:
    """One seen by all, one by two cameras for 30 frames only, one by a single camera."""
    cameras = ring()
    second, third = body + np.array([0.9, 0.3, 0.1]), body + np.array([-0.3, 1.0, 0])
    views = [[track_of(body, camera)] for camera in cameras]
    views[0] = [track_of(second, cameras[0]), *views[0]]
    views[2].append(track_of(second, cameras[2], slice(10, None)))
    views[3].append(track_of(third, cameras[3]))
    people, _ = script.people_targets(views, cameras)
    assert len(people) == 2
    assert np.isfinite(people[0]).all()  # who is there most comes first
    assert np.isnan(people[1][:10]).all() and np.isfinite(people[1][10:]).all()
    for joints, true in zip(people, (body, second)):
        assert np.nanmedian(np.linalg.norm(joints - true[:, LIMB_LANDMARKS], axis=-1)) < 1e-2
    assert not script.same_person(people[0], people[1])
    assert script.same_person(people[1], people[1][:35] + 0.02)
    owners = [[script.owner_of(track, people, c) for track in views[i]] for i, c in enumerate(cameras)]
    assert owners == [[1, 0], [0], [0, 1], [0, None]]


def test_frames_where_the_views_disagree_have_no_targets(body: np.ndarray) -> None:
    cameras = ring()
    tracks = [track_of(np.concatenate([body, body]), camera) for camera in cameras]
    for camera, track in enumerate(tracks):
        track.xy[:30] += 200 * np.array([camera % 2, camera // 2], np.float32)
        track.visibility[30] = 0  # an interpolated frame
    (joints,), _ = script.people_targets([[track] for track in tracks], cameras)
    assert np.isnan(joints[:31]).all() and np.isfinite(joints[31:]).all()


def test_nobody_in_two_views(body: np.ndarray) -> None:
    cameras = ring()
    views = [[track_of(body + np.array([0, 0, 0.6 * i]), camera)] for i, camera in enumerate(cameras)]
    with pytest.raises(UserError, match="two views"):
        script.people_targets(views, cameras)


def test_long_runs() -> None:
    chosen = np.zeros(100, bool)
    chosen[3:27], chosen[30:55], chosen[70:100] = True, True, True
    assert list(script.long_runs(chosen)) == [slice(30, 55), slice(70, 100)]


def extractor() -> LandmarkExtractor:
    torch.manual_seed(0)
    return LandmarkExtractor(LandmarkNet())


def test_rows(body: np.ndarray) -> None:
    camera = ring()[1]
    track = track_of(body, camera)
    (rows,) = script.database_rows(track, body[:, LIMB_LANDMARKS], camera, extractor(), "pose2sim_cam1")
    assert {len(values) for values in rows.values()} == {FRAMES}
    assert set(rows["vid_name"]) == {"pose2sim_cam1"}
    np.testing.assert_allclose(
        rows["joints3D"][:, LIMB_JOINTS], to_camera(body[:, LIMB_LANDMARKS], camera), atol=1e-5
    )
    others = np.setdiff1d(np.arange(49), LIMB_JOINTS)
    assert np.isnan(rows["joints3D"][:, others]).all()
    assert not rows["joints2D"][:, others].any()
    np.testing.assert_allclose(rows["joints2D"][:, LIMB_JOINTS, :2], track.xy[:, LIMB_LANDMARKS], atol=1e-2)
    assert rows["features"].shape[0] == FRAMES and np.isfinite(rows["features"]).all()
    np.testing.assert_array_equal(rows["landmarks"][..., :2], track.xy)
    np.testing.assert_array_equal(rows["landmarks"][..., 3:], track.world)


def test_rows_of_a_late_track_with_a_hole(body: np.ndarray) -> None:
    """Frames of targets and track are told apart, and each stretch is a video of its own."""
    camera, body = ring()[1], np.concatenate([body, body])
    joints = body[:, LIMB_LANDMARKS].copy()
    joints[38:42] = np.nan
    track = track_of(body, camera, slice(5, None))
    first, second = script.database_rows(track, joints, camera, extractor(), "video")
    assert set(first["vid_name"]) == {"video"} and set(second["vid_name"]) == {"video_1"}
    np.testing.assert_array_equal(first["frame_id"], np.arange(5, 38))
    np.testing.assert_array_equal(second["frame_id"], np.arange(42, 80))
    np.testing.assert_array_equal(second["landmarks"][..., :2], track.xy[37:])
    np.testing.assert_allclose(second["joints3D"][:, LIMB_JOINTS], to_camera(joints[42:], camera), atol=1e-5)


def test_test_set_holds_nobody_of_the_calibration_set(
    body: np.ndarray, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cameras, woman = ring(), body + np.array([0.9, 0.3, 0.1])

    def track_views(folder: Path, cameras: list[Camera], network: str, threads: int) -> list[list[Track]]:
        multi = folder.name == "views_multi"
        return [[track_of(body, c), *([track_of(woman, c, person_id=2)] if multi else [])] for c in cameras]

    monkeypatch.setattr(script, "asset_path", lambda name: tmp_path / name)
    monkeypatch.setattr(script, "read_qualisys", lambda path: cameras)
    monkeypatch.setattr(script, "track_views", track_views)
    monkeypatch.setattr(script, "VideoFile", lambda path: _NoVideo())
    database = script.make_database("multi", "full", extractor(), 1)
    assert set(database["vid_name"]) == {f"pose2sim_multi_cam{i}_2" for i in range(4)}
    truth = np.concatenate([to_camera(woman[:, LIMB_LANDMARKS], camera) for camera in cameras])
    assert np.abs(database["joints3D"][:, LIMB_JOINTS] - truth).max() < 0.03
    assert database["fps"] == 60
    single = script.make_database("single", "full", extractor(), 1)
    assert set(single["vid_name"]) == {f"pose2sim_cam{i}" for i in range(4)}


def test_a_video_without_people(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(script, "asset_path", lambda name: tmp_path / name)
    monkeypatch.setattr(script, "PersonDetector", lambda *_: None)
    monkeypatch.setattr(script, "LandmarkNetwork", lambda *_: None)
    monkeypatch.setattr(script, "VideoFile", lambda path: _NoVideo())
    monkeypatch.setattr(script, "track_people", lambda *_, **__: [])
    with pytest.raises(UserError, match=r"cam0\.mp4: no person"):
        script.track_views(tmp_path, ring(), "full", 1)


class _NoVideo:
    def __init__(self) -> None:
        self.info = type("Info", (), {"frames": 0, "fps": 60, "width": 1080, "height": 1920})

    def __iter__(self):
        return iter(())

"""The database of real views, made here from synthetic tracks that four known cameras would give."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from lib.data_utils.multiview import Camera, project, to_camera
from lib.demo.tracking import Track
from lib.models.extractors import LandmarkExtractor
from lib.models.landmark_net import LandmarkNet
from lib.utils.errors import UserError
from lib.utils.landmark_features import LIMB_JOINTS, LIMB_LANDMARKS, landmark_boxes
from scripts import make_pose2sim_db as script
from tests.test_multiview import ring

FRAMES = 40


@pytest.fixture
def body() -> np.ndarray:
    """Landmarks (40, 33, 3) m in the world that move slowly."""
    rng = np.random.default_rng(0)
    sway = np.sin(np.arange(FRAMES) / 15)[:, None, None] * rng.uniform(-0.1, 0.1, (33, 3))
    return rng.uniform(-0.5, 0.5, (33, 3)) + sway


def tracks(body: np.ndarray, cameras: list[Camera], first: int = 0) -> list[Track]:
    found = []
    for camera in cameras:
        xy = project(body, camera).astype(np.float32)
        visibility = np.ones((FRAMES, 33), np.float32)
        world = to_camera(body, camera).astype(np.float32)
        ids = np.arange(first, first + FRAMES)
        found.append(Track(1, ids, landmark_boxes(xy), xy, visibility, world))
    return found


def test_targets_are_the_limbs(body: np.ndarray) -> None:
    cameras = ring()
    joints, corrected = script.limb_targets(tracks(body, cameras), cameras)
    away = np.linalg.norm(joints - body[:, LIMB_LANDMARKS], axis=-1)
    assert away[5:-5].max() < 1e-3 and away.max() < 1e-2  # smoothing takes a little, most at the ends
    for before, after in zip(cameras, corrected):
        np.testing.assert_allclose(after.K, before.K, atol=0.1)


def test_rows(body: np.ndarray) -> None:
    camera = ring()[1]
    (track,) = tracks(body, [camera])
    torch.manual_seed(0)
    rows = script.database_rows(track, body[:, LIMB_LANDMARKS], camera, LandmarkExtractor(LandmarkNet()))
    assert {len(values) for values in rows.values()} == {FRAMES}
    assert set(rows["vid_name"]) == {"pose2sim_cam1"}
    np.testing.assert_allclose(
        rows["joints3D"][:, LIMB_JOINTS], to_camera(body[:, LIMB_LANDMARKS], camera), atol=1e-5
    )
    others = np.setdiff1d(np.arange(49), LIMB_JOINTS)
    assert np.isnan(rows["joints3D"][:, others]).all()
    assert not rows["joints2D"][:, others].any()
    np.testing.assert_allclose(rows["joints2D"][:, LIMB_JOINTS, :2], track.xy[:, LIMB_LANDMARKS], atol=1e-2)
    assert rows["features"].shape == (FRAMES, 256) and np.isfinite(rows["features"]).all()
    np.testing.assert_array_equal(rows["landmarks"][..., :2], track.xy)
    np.testing.assert_array_equal(rows["landmarks"][..., 3:], track.world)


def test_views_must_show_the_same_frames(
    body: np.ndarray, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cameras = ring()
    found = [*tracks(body, cameras[:3]), *tracks(body, cameras[3:], first=1)]
    monkeypatch.setattr(script, "asset_path", lambda name: tmp_path / name)
    monkeypatch.setattr(script, "PersonDetector", lambda *_: None)
    monkeypatch.setattr(script, "LandmarkNetwork", lambda *_: None)
    monkeypatch.setattr(script, "VideoFile", lambda path: _NoVideo())
    monkeypatch.setattr(script, "track_people", lambda *_: [found.pop(0)])
    with pytest.raises(UserError, match="same frames"):
        script.track_views(tmp_path, cameras, "full", 1)
    monkeypatch.setattr(script, "track_people", lambda *_: [])
    with pytest.raises(UserError, match=r"cam0\.mp4: no person"):
        script.track_views(tmp_path, cameras, "full", 1)


class _NoVideo:
    def __init__(self) -> None:
        self.info = type("Info", (), {"frames": 0})

    def __iter__(self):
        return iter(())

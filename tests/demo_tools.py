"""What the tests of the demo share: tracks without networks, and small models with random weights."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lib.core.config import get_cfg_defaults, to_dict
from lib.demo import engine
from lib.demo.drawing import Drawer, figures
from lib.demo.models import Models
from lib.demo.reconstruct import reconstruct
from lib.demo.render import Renderer
from lib.demo.track import Track
from lib.landmarks.features import landmark_boxes
from lib.models.body import BodyData
from lib.models.landmark_net import LandmarkNet
from lib.models.tcmr import TCMR
from lib.motion.camera import Camera
from lib.motion.motion import Scene
from lib.utils.files import save_checkpoint

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


def no_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is loaded that has to be downloaded."""
    monkeypatch.setattr(
        engine, "landmark_network", lambda *_: SimpleNamespace(with_focal=lambda focal: object())
    )
    monkeypatch.setattr(engine, "person_detector", lambda detector, open_dir, device: object())


def files_in(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def scene_of(open_models: Models, *tracks, fit=False, n_frames=N + 5):
    """By default where TCMR puts them: the tracks' landmarks are nobody's."""
    camera = Camera(W, H, 1.2 * W, "default")
    return reconstruct(open_models, [], tracks, camera=camera, fps=25, n_frames=n_frames, fit=fit)


def drawer(open_models: Models, scene: Scene, **options) -> Drawer:
    smpl, body = open_models.tcmr.regressor.smpl, open_models.body
    people = figures(scene, smpl, body, plain=options.get("plain", False))
    return Drawer(scene, people, Renderer(body.faces, W, H), **options)


def write_open_dir(folder: Path, open_body: BodyData) -> None:
    """An open data folder with random weights, in the format of the real ones."""
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

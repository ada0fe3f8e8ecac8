"""Which networks the demo runs, and torchvision's detector behind the common interface."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from lib.demo import networks
from lib.demo.networks import landmark_network, person_detector
from lib.landmarks.keypoint_rcnn import KeypointRCNN, body_circle
from lib.utils.errors import UserError


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An --open_dir with files for networks; loading them gives their names. Nothing lies anywhere else."""
    (tmp_path / "downloads").mkdir()
    for name in ("pose_detection", "pose_landmark_full", "pose_landmark_heavy"):
        (tmp_path / "downloads" / f"{name}.tflite").touch()
    find = networks.asset_path
    monkeypatch.setattr(networks, "asset_path", lambda name, folder=tmp_path / "no": find(name, folder))
    monkeypatch.setattr(networks, "LandmarkNetwork", lambda path, threads: path.stem)
    monkeypatch.setattr(networks, "PersonDetector", lambda path, threads: path.stem)
    return tmp_path


@pytest.mark.parametrize(
    ("detector", "threads", "there", "chosen", "reason"),
    [
        ("auto", 2, True, "heavy", "2 CPU threads"),
        ("torchvision", 8, True, "heavy", "8 CPU threads"),
        ("auto", 1, True, "full", "heavy needs 2 CPU threads"),
        ("auto", 8, False, "full", "python -m lib.open_data.assets` fetches it"),
        ("full", 8, True, "full", "--detector full"),
        ("heavy", 1, True, "heavy", "--detector heavy"),
    ],
)
def test_choice_of_the_landmark_network(
    files, monkeypatch, caplog, detector, threads, there, chosen, reason
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    if not there:
        (files / "downloads" / "pose_landmark_heavy.tflite").unlink()
    with caplog.at_level(logging.INFO):
        assert landmark_network(detector, files) == f"pose_landmark_{chosen}"
    (message,) = caplog.messages
    assert f"the {chosen} network" in message
    assert reason in message


def test_missing_networks_name_the_cure(files) -> None:
    for file in (files / "downloads").iterdir():
        file.unlink()
    with pytest.raises(UserError, match=r"pose_landmark_heavy.*lib\.open_data\.assets --heavy`"):
        landmark_network("heavy", files)
    with pytest.raises(UserError, match=r"pose_detection.*lib\.open_data\.assets`"):
        person_detector("auto", files, torch.device("cpu"))


def test_advice_works_from_any_folder(files, tmp_path, monkeypatch) -> None:
    (files / "downloads" / "pose_detection.tflite").unlink()
    monkeypatch.chdir(tmp_path)
    root = Path(__file__).resolve().parents[1]
    with pytest.raises(UserError, match=rf"`cd '{root}' && python -m lib\.open_data\.assets`"):
        person_detector("auto", files, torch.device("cpu"))


STANDING = np.array(
    [[0, -70], *[[0, -72]] * 4, [-15, -50], [15, -50], *[[-20, -20]] * 4,
     [-10, 0], [10, 0], *[[0, 45]] * 2, [-8, 90], [8, 90]], float,
)  # fmt: skip


class Seer(torch.nn.Module):
    """Answers as torchvision's Keypoint R-CNN would: two people, a dog, a doubtful person."""

    def forward(self, images):
        (self.image,) = images
        keypoints = torch.zeros(4, 17, 3)
        for i, (x, y, scale) in enumerate([(60, 100, 1), (200, 120, 0.5), (10, 10, 1), (20, 20, 1)]):
            keypoints[i, :, :2] = torch.tensor(scale * STANDING + [x, y])
        return [
            {
                "boxes": torch.arange(16).reshape(4, 4).float(),
                "labels": torch.tensor([1, 1, 18, 1]),
                "scores": torch.tensor([0.8, 0.95, 0.99, 0.3]),
                "keypoints": keypoints,
            }
        ]


def test_torchvisions_people_become_detections() -> None:
    seer = Seer()
    detector = KeypointRCNN(network=seer)
    image = np.random.default_rng(0).integers(0, 255, (240, 320, 3), dtype=np.uint8)
    small, large = detector.detect(image)
    np.testing.assert_allclose(seer.image.permute(1, 2, 0).numpy() * 255, image, atol=1e-3)
    assert (small.score, large.score) == (pytest.approx(0.95), pytest.approx(0.8))
    np.testing.assert_allclose(small.centre, [200, 120], atol=1e-4)
    np.testing.assert_allclose(large.centre, [60, 100], atol=1e-4)
    np.testing.assert_array_equal(large.box, [0, 1, 2, 3])
    # The circle goes round feet and head, its rim point is above.
    reach = np.linalg.norm(STANDING, axis=1).max()
    np.testing.assert_allclose(large.scale_point - large.centre, [0, -1.1 * reach], atol=1e-3)
    np.testing.assert_allclose(small.scale_point - small.centre, [0, -0.55 * reach], atol=1e-3)
    assert not detector.short_sighted


@pytest.mark.parametrize("angle", [0.5, 2.0, 4.0])
def test_circle_turns_with_the_body(angle: float) -> None:
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    centre, rim = body_circle(STANDING)
    turned_centre, turned_rim = body_circle(STANDING @ turn.T + [5, 7])
    np.testing.assert_allclose(turned_rim - turned_centre, turn @ (rim - centre), atol=1e-9)


def test_circle_of_a_point_is_upright() -> None:
    centre, rim = body_circle(np.ones((17, 2)))
    np.testing.assert_allclose(rim - centre, [0, -1])


@pytest.mark.parametrize(
    ("works", "reason"), [(True, "no network.*checkpoints"), (False, "cannot be imported")]
)
def test_no_torchvision_or_no_weights_is_one_line(monkeypatch, works: bool, reason: str) -> None:
    def offline(**_):
        raise OSError("no network")

    models = ModuleType("torchvision.models")
    if works:
        models.detection = SimpleNamespace(keypointrcnn_resnet50_fpn=offline)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torchvision", ModuleType("torchvision"))
    monkeypatch.setitem(sys.modules, "torchvision.models", models)
    with pytest.raises(UserError, match=rf"--detector torchvision: .*{reason}"):
        KeypointRCNN()

"""Videos of evaluated sequences against projections done the naive way."""

from __future__ import annotations

import logging
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from lib.core.evaluation import Bodies, SequenceErrors
from lib.demo.sequence_video import frame_numbers, write_videos
from lib.models.body import BodyData
from lib.models.smpl import SMPL
from lib.utils.errors import UserError
from lib.video.video_file import VideoFile

WIDTH, HEIGHT = 203, 158  # not even, not when halved
HALF = (100, 78)
SHADES = 40  # the image of frame k has grey value k, up to here


def make_images(folder: Path, numbers: list[int]) -> np.ndarray:
    files = [folder / f"seq_1_{number:05d}.png" for number in numbers]
    for file, number in zip(files, numbers):
        cv2.imwrite(str(file), np.full((HEIGHT, WIDTH, 3), number % SHADES, np.uint8))
    return np.array([str(file) for file in files])


def make_sequence(images: np.ndarray, name: str = "a/b/seq_1") -> SequenceErrors:
    """Upright people whose camera and box change from frame to frame."""
    n = len(images)
    rng = np.random.default_rng(3)
    theta = np.zeros((n, 85), np.float32)
    theta[:, :3] = np.array([0.8, 0, 0]) + rng.uniform(-0.05, 0.05, (n, 3))
    theta[:, 75] = np.linspace(-2, 2, n)
    rotmat = np.tile(np.eye(3, dtype=np.float32), (n, 24, 1, 1))
    rotmat[:, 0] = np.diag([1, -1, -1])
    boxes = np.stack([np.linspace(80, 120, n), np.full(n, 80), *[np.linspace(90, 110, n)] * 2], axis=1)
    none = np.zeros((n, 14, 3))
    return SequenceErrors(
        name,
        pred=none,
        target=none,
        counted=np.ones(n, bool),
        mpjpe=none[:, 0, 0],
        mpjpe_pa=none[:, 0, 0],
        accel=none[2:, 0, 0],
        accel_err=none[2:, 0, 0],
        mpvpe=None,
        mpvpe_root_aligned=None,
        left_out=0,
        bodies=Bodies(theta, rotmat, images, boxes),
    )


@pytest.fixture(scope="module")
def smpl(open_body: BodyData) -> SMPL:
    return SMPL(open_body)


def naive_extent(smpl: SMPL, bodies: Bodies, row: int, camera: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Left, top, right and bottom of a body in the half-size image, by way of crop and image pixels."""
    verts = smpl(
        betas=torch.tensor(bodies.theta[row : row + 1, 75:]),
        body_pose=torch.zeros(1, 69),
        global_orient=torch.tensor([[np.pi, 0, 0]], dtype=torch.float32),
    ).vertices[0]
    scale, shift = camera[0], camera[1:]
    in_crop = scale * (verts[:, :2].numpy() + shift)  # [-1, 1] over the crop, which is 1.2 x box
    pixels = box[:2] + in_crop * 1.2 * box[2:] / 2
    pixels *= np.array(HALF) / [WIDTH, HEIGHT]
    return np.concatenate([pixels.min(axis=0), pixels.max(axis=0)])


def drawn_extent(frame: np.ndarray) -> np.ndarray:
    rows, columns = np.nonzero(frame.astype(int).max(axis=2) > SHADES + 25)
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])


@pytest.mark.parametrize("plain", [False, True])
def test_bodies_land_in_their_boxes(tmp_path: Path, smpl: SMPL, plain: bool) -> None:
    numbers = [10, 11, 12, 13, 251, 252, 253]
    sequence = make_sequence(make_images(tmp_path, numbers))
    bodies = sequence.bodies
    assert bodies is not None
    if plain:  # only the size of the first image drawn is needed
        for image in (bodies.images[0], *bodies.images[3:]):
            Path(image).unlink()
    files = write_videos([sequence], smpl, tmp_path / "video", first_frame=12, plain=plain, fps=25)
    assert [file.name for file in files] == [f"tcmr_seq_1{'_plain' * plain}_12.mp4"]
    video = VideoFile(files[0])
    assert (video.info.width, video.info.height, video.info.fps) == (*HALF, 25)
    frames, rows = list(video), [2, 3, 4, 5]  # 253 is more than 240 after 12
    assert len(frames) == len(rows)
    for frame, row in zip(frames, rows):
        camera, box = (
            (np.array([1.0, 0, 0]), bodies.boxes[2])
            if plain
            else (
                bodies.theta[row, :3],
                bodies.boxes[row],
            )
        )
        expected = naive_extent(smpl, bodies, row, camera, box)
        np.testing.assert_allclose(drawn_extent(frame), expected, atol=1.5)
        shade = 0 if plain else numbers[row] % SHADES
        assert abs(frame[0, 0].mean() - shade) < 3


def test_sequences_without_such_frames_are_left_out(
    tmp_path: Path, smpl: SMPL, caplog: pytest.LogCaptureFixture
) -> None:
    images = make_images(tmp_path, [3, 4])
    late = make_sequence(np.char.replace(images, "_0000", "_0900"), "late")
    with caplog.at_level(logging.WARNING):
        files = write_videos([late, make_sequence(images, "early")], smpl, tmp_path)
    assert [file.name for file in files] == ["tcmr_early_0.mp4"]
    assert "late has 9003 to 9004" in caplog.text
    with pytest.raises(UserError, match=r"--frame 7: .* early has 3 to 4"):
        write_videos([make_sequence(images, "early")], smpl, tmp_path, first_frame=7)


def test_unusable_images_are_named_before_a_file_is_left(tmp_path: Path, smpl: SMPL) -> None:
    sequence = make_sequence(make_images(tmp_path, [1, 2, 3]))
    third = tmp_path / "seq_1_00003.png"
    third.unlink()
    with pytest.raises(UserError, match=r"seq_1_00003.png does not exist"):
        write_videos([sequence], smpl, tmp_path / "video")
    third.write_bytes(b"no image")
    with pytest.raises(UserError, match=r"seq_1_00003.png"):
        write_videos([sequence], smpl, tmp_path / "video")
    cv2.imwrite(str(third), np.zeros((20, 30, 3), np.uint8))
    with pytest.raises(UserError, match=r"seq_1_00003.png is 30x20, expected 203x158"):
        write_videos([sequence], smpl, tmp_path / "video")
    assert not any((tmp_path / "video").iterdir())


def test_frame_numbers_end_file_names() -> None:
    names = ["data/3dpw/imageFiles/a_00_1/image_00012.jpg", "s_09_act_02_ca_01_000345.jpg", "img_000006.png"]
    assert frame_numbers(np.array(names)).tolist() == [12, 345, 6]
    with pytest.raises(UserError, match="open_3/simulated has no frame number"):
        frame_numbers(np.array(["open_3/simulated"]))

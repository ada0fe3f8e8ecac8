"""Video reading and writing: exact times, orientation, sizes, and what happens when something fails."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from lib.demo.video import ImageFolder, VideoFile, VideoWriter
from lib.utils.errors import UserError

COLOURS = [(200, 40, 40), (30, 200, 60), (40, 60, 220), (128, 128, 128), (250, 220, 30)]


def write_colours(path: Path, times: list[Fraction], fps: Fraction = Fraction(30)) -> None:
    with VideoWriter(path, fps) as writer:
        for time, colour in zip(times, COLOURS):
            writer.write(np.full((48, 64, 3), colour, np.uint8), time)


@pytest.mark.parametrize("fps", [Fraction(25), Fraction(30000, 1001)])
def test_constant_rate_round_trip(tmp_path, fps):
    times = [i / fps for i in range(5)]
    write_colours(tmp_path / "a.mp4", times, fps)
    video = VideoFile(tmp_path / "a.mp4")
    assert (video.name, video.info.width, video.info.height, video.info.frames) == ("a", 64, 48, 5)
    assert float(video.info.fps) == pytest.approx(float(fps), rel=1e-4)
    decoded = list(video.timed())
    np.testing.assert_allclose([float(t) for t, _ in decoded], [float(t) for t in times], atol=1e-4)
    for (_, frame), colour in zip(decoded, COLOURS):
        assert frame.dtype == np.uint8
        np.testing.assert_allclose(frame[24, 32], colour, atol=4)


def test_variable_rate_keeps_every_time(tmp_path):
    times = [Fraction(0), Fraction(1, 30), Fraction(1, 10), Fraction(2, 15), Fraction(1, 2)]
    write_colours(tmp_path / "a.mp4", times)
    video = VideoFile(tmp_path / "a.mp4")
    assert [round(t * 90000) for t, _ in video.timed()] == [round(t * 90000) for t in times]
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert container.duration / av.time_base >= 0.5  # players stop at the container's duration


def test_frames_can_be_read_again(tmp_path):
    write_colours(tmp_path / "a.mp4", [Fraction(i, 30) for i in range(5)])
    video = VideoFile(tmp_path / "a.mp4")
    assert [f.sum() for f in video] == [f.sum() for f in video]


def test_odd_sizes_are_padded_by_repeating_the_border(tmp_path):
    image = np.zeros((31, 45, 3), np.uint8)
    image[:, 40:] = 255
    with VideoWriter(tmp_path / "a.mp4", Fraction(30)) as writer:
        writer.write(image, Fraction(0))
    (frame,) = VideoFile(tmp_path / "a.mp4")
    assert frame.shape == (32, 46, 3)
    assert frame[31, 45].min() > 240
    assert frame[31, 5].max() < 15


def test_format_plays_in_browsers(tmp_path):
    write_colours(tmp_path / "a.mp4", [Fraction(i, 30) for i in range(5)])
    with av.open(str(tmp_path / "a.mp4")) as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.pix_fmt, context.colorspace) == ("h264", "yuv420p", 1)
    data = (tmp_path / "a.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


@pytest.mark.parametrize("quarter_turns", [1, 2, 3])
def test_rotation_of_the_container_is_honoured(tmp_path, quarter_turns):
    """A phone's video: pixels stored turned, and a matrix in the track header that turns them back."""
    upright = np.zeros((48, 64, 3), np.uint8)
    upright[:24, :32] = (220, 30, 30)
    upright[24:, 32:] = (30, 30, 220)
    with VideoWriter(tmp_path / "a.mp4", Fraction(30)) as writer:
        writer.write(np.rot90(upright, quarter_turns), Fraction(0))
    one = 1 << 16
    cos, sin = [(0, 1), (-1, 0), (0, -1)][quarter_turns - 1]
    matrix = struct.pack(">6i", cos * one, sin * one, 0, -sin * one, cos * one, 0)
    identity = struct.pack(">6i", one, 0, 0, 0, one, 0)
    data = (tmp_path / "a.mp4").read_bytes()
    at = data.index(identity, data.index(b"tkhd"))
    (tmp_path / "b.mp4").write_bytes(data[:at] + matrix + data[at + len(matrix) :])

    video = VideoFile(tmp_path / "b.mp4")
    (frame,) = video
    assert (video.info.width, video.info.height) == (64, 48)
    assert frame.shape == (48, 64, 3)
    np.testing.assert_allclose(frame[10, 10], (220, 30, 30), atol=12)
    np.testing.assert_allclose(frame[40, 50], (30, 30, 220), atol=12)


def test_failing_run_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError), VideoWriter(tmp_path / "a.mp4", Fraction(30)) as writer:
        writer.write(np.zeros((32, 32, 3), np.uint8), Fraction(0))
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_old_file_survives_a_failing_run(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"old")
    with pytest.raises(ValueError, match="48x32"), VideoWriter(tmp_path / "a.mp4", Fraction(30)) as writer:
        writer.write(np.zeros((32, 32, 3), np.uint8), Fraction(0))
        writer.write(np.zeros((32, 48, 3), np.uint8), Fraction(1))
    assert (tmp_path / "a.mp4").read_bytes() == b"old"


def test_unusable_videos_are_user_errors(tmp_path):
    with pytest.raises(UserError, match="no such video"):
        VideoFile(tmp_path / "missing.mp4")
    (tmp_path / "empty.mp4").write_bytes(b"")
    with pytest.raises(UserError, match="cannot be opened as a video"):
        VideoFile(tmp_path / "empty.mp4")
    (tmp_path / "text.mp4").write_text("not a video\n" * 1000)
    with pytest.raises(UserError, match=r"text\.mp4"):
        VideoFile(tmp_path / "text.mp4")
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(UserError, match="no video stream"):
        VideoFile(tmp_path / "sound.mp4")


def test_damaged_end_gives_the_frames_before_it(tmp_path, caplog):
    noise = np.random.default_rng(0).integers(0, 255, (30, 120, 160, 3), dtype=np.uint8)
    with VideoWriter(tmp_path / "a.mp4", Fraction(30)) as writer:
        for i, frame in enumerate(noise):
            writer.write(frame, Fraction(i, 30))
    data = (tmp_path / "a.mp4").read_bytes()
    (tmp_path / "b.mp4").write_bytes(data[: len(data) // 2])
    frames = list(VideoFile(tmp_path / "b.mp4"))
    assert 1 <= len(frames) < 30


def test_image_folder(tmp_path):
    for i, suffix in enumerate([".jpg", ".png", ".jpeg", ".PNG"]):
        cv2.imwrite(str(tmp_path / f"{i}{suffix}"), np.full((20, 30, 3), (10 * i, 0, 200), np.uint8))
    (tmp_path / "notes.txt").write_text("x")
    folder = ImageFolder(f"{tmp_path}/")
    assert folder.name == tmp_path.name
    assert (folder.info.width, folder.info.height, folder.info.frames, folder.info.fps) == (30, 20, 4, 30)
    frames = list(folder.timed())
    assert [t for t, _ in frames] == [Fraction(i, 30) for i in range(4)]
    np.testing.assert_allclose(frames[3][1][5, 5], (200, 0, 30), atol=2)


def test_unusable_folders_are_user_errors(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        ImageFolder(tmp_path / "missing")
    with pytest.raises(UserError, match="holds no images"):
        ImageFolder(tmp_path)
    (tmp_path / "0.png").write_text("not an image")
    with pytest.raises(UserError, match=r"0\.png is damaged or no image"):
        ImageFolder(tmp_path)
    cv2.imwrite(str(tmp_path / "0.png"), np.zeros((20, 30, 3), np.uint8))
    cv2.imwrite(str(tmp_path / "1.png"), np.zeros((22, 30, 3), np.uint8))
    with pytest.raises(UserError, match=r"1.png: 30x22 .* 0.png has 30x20"):
        list(ImageFolder(tmp_path))

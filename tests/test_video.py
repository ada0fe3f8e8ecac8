"""Video reading and writing: exact times, orientation, sizes, and what happens when something fails."""

from __future__ import annotations

import re
import struct
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from lib.utils.errors import UserError
from lib.video.frames import ImageFolder
from lib.video.video_file import VideoFile
from lib.video.writer import VideoWriter
from tests.video_tools import encode

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


# --------------------------------------------------------------------------------
# Damage


def numbered(n: int, width: int = 96, height: int = 64) -> list[np.ndarray]:
    """Images that tell their number by their grey value, with some texture."""
    texture = np.random.default_rng(0).integers(0, 24, (height, width, 3))
    return [(texture + 3 * i).astype(np.uint8) for i in range(n)]


def number_of(image: np.ndarray) -> int:
    return round((image.mean() - 11.5) / 3)


def overwrite_packets(path: Path, numbers: list[int], skip: int = 0) -> Path:
    """A copy with the content of some packets zeroed, behind their first ``skip`` bytes."""
    with av.open(str(path)) as container:
        packets = [(p.pos, bytes(p)) for p in container.demux(video=0) if p.size]
    data = bytearray(path.read_bytes())
    for number in numbers:
        position, content = packets[number]
        start = data.index(content, position)
        data[start + skip : start + len(content)] = bytes(len(content) - skip)
    broken = path.with_name(f"broken_{path.name}")
    broken.write_bytes(data)
    return broken


@pytest.mark.parametrize("bad", [[0], [20], [12, 25, 26], [49]])
def test_bad_packets_cost_their_frames_only(tmp_path, caplog, bad):
    film = encode(
        tmp_path / "a.avi", numbered(50), codec="mjpeg", pix_fmt="yuvj420p", time_base=Fraction(1, 30)
    )
    video = VideoFile(overwrite_packets(film, bad))
    kept = [i for i in range(50) if i not in bad]
    first = kept[0]
    for _ in range(2):  # passes agree, and only the first complains
        timed = list(video.timed())
        assert [number_of(image) for _, image in timed] == kept
        assert [time for time, _ in timed] == [Fraction(i - first, 30) for i in kept]
    (message,) = caplog.messages
    assert "broken_a.avi: damaged, frames lost: " in message
    for number in bad:
        assert f"{max(number - first, 0) / 30:.2f}" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("suffix", "bad", "lost"),
    [(".mp4", [12], 1), (".mkv", [20], 10), (".mp4", [12, 25, 33], 3)],
)
def test_bad_packets_of_films_that_predict(tmp_path, caplog, suffix, bad, lost):
    """A lost key frame costs what is predicted from it, up to the next; all others are there, at their times.
    The warning counts what is missing."""
    film = encode(tmp_path / f"a{suffix}", numbered(50), options={"g": "10", "bf": "2"})
    timed = list(VideoFile(overwrite_packets(film, bad, skip=5)).timed())
    assert 50 - lost <= len(timed) < 50
    wrong = [abs(time - Fraction(number_of(image), 30)) > Fraction(1, 10) for time, image in timed]
    assert sum(wrong) <= 4
    assert timed[-1][0] == pytest.approx(49 / 30, abs=1e-3)
    (message,) = caplog.messages
    counts = re.findall(r"(\d+) (?:at|from) \d", message)
    assert sum(map(int, counts)) == 50 - len(timed)


def test_a_film_without_a_frame_is_a_user_error(tmp_path):
    film = encode(
        tmp_path / "a.avi", numbered(5), codec="mjpeg", pix_fmt="yuvj420p", time_base=Fraction(1, 30)
    )
    with pytest.raises(UserError, match=r"broken_a\.avi: no frame of it can be decoded"):
        VideoFile(overwrite_packets(film, [0, 1, 2, 3, 4]))


@pytest.mark.parametrize("name", ["a:b.mp4", "50%03d.mp4", "-dash.mp4", "ü 'quoted'.mp4", "http:x.mp4"])
def test_any_name(tmp_path, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    encode(tmp_path / "plain.mp4", numbered(3)).rename(tmp_path / name)
    assert len(list(VideoFile(name))) == 3


def test_tags_that_are_not_utf8(tmp_path):
    with av.open(str(tmp_path / "a.avi"), "w") as container:
        container.metadata["title"] = "Muenchen"
        stream = container.add_stream("mjpeg", rate=30)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuvj420p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(numbered(1)[0], format="rgb24")))
        container.mux(stream.encode(None))
    data = (tmp_path / "a.avi").read_bytes()
    assert data.count(b"Muenchen") == 1
    (tmp_path / "b.avi").write_bytes(data.replace(b"Muenchen", b"M\xfcnchen "))
    assert len(list(VideoFile(tmp_path / "b.avi"))) == 1


# --------------------------------------------------------------------------------
# Time


def restamped(path: Path, source: Path, stamps: list[int | None]) -> Path:
    """A copy of a film without B-frames whose packets have other time stamps, in milliseconds."""
    with av.open(str(source)) as old, av.open(str(path), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        packets = [packet for packet in old.demux(video=0) if packet.size]
        for packet, stamp in zip(packets, stamps):
            packet.stream = stream
            packet.time_base = Fraction(1, 1000)
            packet.pts = packet.dts = stamp
            packet.duration = 0
            new.mux(packet)
    return path


@pytest.mark.parametrize(
    ("suffix", "jump"), [(".ts", 3600), (".ts", -3600), (".ts", 20), (".mkv", 3600), (".mp4", 3600)]
)
def test_jumps_of_the_clock_are_taken_out(tmp_path, suffix, jump):
    times = [Fraction(i, 30) + (jump if i >= 20 else 0) + 5000 for i in range(50)]
    options = {"bf": "0"}
    if jump < 0:  # two recordings, one behind the other
        parts = [
            encode(tmp_path / f"{k}.ts", numbered(50)[s], times=times[s], options=options).read_bytes()
            for k, s in enumerate((slice(0, 20), slice(20, 50)))
        ]
        (tmp_path / "a.ts").write_bytes(b"".join(parts))
    else:
        encode(tmp_path / f"a{suffix}", numbered(50), times=times, options=options)
    timed = list(VideoFile(tmp_path / f"a{suffix}").timed())
    assert len(timed) >= 48
    steps = np.diff([float(time) for time, _ in timed])
    np.testing.assert_allclose(steps, 1 / 30, atol=2e-3)


def test_a_pause_is_no_jump(tmp_path):
    times = [Fraction(i, 30) + (5 if i >= 20 else 0) for i in range(40)]
    for suffix in (".ts", ".mp4"):
        timed = VideoFile(encode(tmp_path / f"a{suffix}", numbered(40), times=times)).timed()
        np.testing.assert_allclose([float(t) for t, _ in timed], [float(t) for t in times], atol=2e-3)


@pytest.mark.parametrize("stamps", [[0] * 40, [200 * (i // 20) for i in range(40)]])
def test_time_stamps_of_no_use(tmp_path, caplog, stamps):
    source = encode(tmp_path / "a.mkv", numbered(40), fps=25, options={"bf": "0"})
    video = VideoFile(restamped(tmp_path / "b.mkv", source, stamps))
    assert "time stamps are of no use" in caplog.text
    assert 1 <= video.info.fps <= 300
    timed = list(video.timed())
    assert [time for time, _ in timed] == [i / video.info.fps for i in range(40)]


def test_pairs_of_equal_time_stamps(tmp_path):
    """A film at 60 frames per second whose clock ticks 30 times."""
    source = encode(tmp_path / "a.mkv", numbered(60), fps=60, options={"bf": "0"})
    stamps = [round(1000 * (i // 2) / 30) for i in range(60)]
    timed = list(VideoFile(restamped(tmp_path / "b.mkv", source, stamps)).timed())
    np.testing.assert_allclose([float(t) for t, _ in timed], np.arange(60) / 60, atol=0.02)


@pytest.mark.parametrize(("suffix", "codec"), [(".avi", "libx264"), (".avi", "mpeg4"), (".mkv", "libx264")])
def test_frames_that_are_stored_out_of_order(tmp_path, suffix, codec):
    """.avi knows no presentation times, and those made up for H.264 are wrong."""
    film = tmp_path / f"a{suffix}"
    encode(film, numbered(40), fps=25, codec=codec, options={"bf": "3"}, time_base=Fraction(1, 25))
    timed = list(VideoFile(film).timed())
    np.testing.assert_allclose([number_of(image) for _, image in timed], np.arange(40), atol=1)
    np.testing.assert_allclose([float(t) for t, _ in timed], np.arange(40) / 25, atol=2e-3)


def test_one_repeated_time_stamp_changes_one_time(tmp_path):
    source = encode(tmp_path / "a.mkv", numbered(40), fps=25, options={"bf": "0"})
    stamps = [40 * i for i in range(40)]
    stamps[10] = stamps[9]
    times = [float(t) for t, _ in VideoFile(restamped(tmp_path / "b.mkv", source, stamps)).timed()]
    assert (np.diff(times) > 0).all()
    np.testing.assert_allclose(times, np.arange(40) / 25, atol=1e-3)


@pytest.mark.parametrize("fps", [Fraction(240), Fraction(25, 2)])
def test_the_frame_rate_can_be_told(tmp_path, fps):
    film = encode(tmp_path / "a.mp4", numbered(10), fps=30)
    for source in (VideoFile(film, fps), ImageFolder(images_folder(tmp_path / "images", 10), fps)):
        assert source.info.fps == fps
        assert [time for time, _ in source.timed()] == [i / fps for i in range(10)]


# --------------------------------------------------------------------------------
# Folders of images


def images_folder(folder: Path, n: int, pattern: str = "{}.png") -> Path:
    folder.mkdir()
    for i, image in enumerate(numbered(n)):
        cv2.imwrite(str(folder / pattern.format(i)), image)
    return folder


@pytest.mark.parametrize("pattern", ["{}.png", "walk {}-left.jpeg", "b10_{:02d}.PNG", "Shot {} of 60.jpg"])
def test_images_are_in_natural_order(tmp_path, pattern):
    folder = ImageFolder(images_folder(tmp_path / "images", 60, pattern))
    assert [number_of(image) for image in folder] == list(range(60))


def test_what_is_no_image_of_the_film_is_ignored(tmp_path):
    folder = images_folder(tmp_path / "images", 3)
    (folder / "._0.png").write_bytes(b"left by another system")
    (folder / ".hidden.jpg").write_bytes(b"")
    (folder / "thumbs.png").mkdir()
    assert [file.name for file in ImageFolder(folder).files] == ["0.png", "1.png", "2.png"]


def test_an_image_that_was_cut_off_is_named(tmp_path):
    folder = images_folder(tmp_path / "images", 3, "{}.jpg")
    data = (folder / "1.jpg").read_bytes()
    (folder / "1.jpg").write_bytes(data[: len(data) * 2 // 3])
    with pytest.raises(UserError, match=r"1\.jpg is damaged"):
        list(ImageFolder(folder))


def test_folders_and_files_are_not_mixed_up(tmp_path):
    folder = images_folder(tmp_path / "images", 1)
    with pytest.raises(UserError, match=r"is a folder; .* --img_dir"):
        VideoFile(folder)
    with pytest.raises(UserError, match=r"is a file; .* --vid_file"):
        ImageFolder(folder / "0.png")

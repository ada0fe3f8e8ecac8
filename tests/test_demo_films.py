"""The demo: which film, which person, which folder."""

from __future__ import annotations

import itertools
import logging
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from lib.demo import recover
from lib.demo.options import DemoOptions
from lib.demo.pipeline import run_demo
from lib.utils.errors import UserError
from lib.utils.files import load_joblib, only_process
from lib.utils.paths import DOWNLOADS
from lib.video.video_file import VideoFile
from lib.video.writer import VideoWriter
from tests.demo_tools import REPOSITORY, H, W, files_in, make_track, no_networks
from tests.video_tools import encode


def small_film(path: Path, n: int = 3) -> Path:
    path.parent.mkdir(exist_ok=True, parents=True)
    return encode(path, [np.full((H, W, 3), 90, np.uint8)] * n, fps=25)


@pytest.fixture
def briefly(monkeypatch):
    """Two people in all frames of whatever film, the first of them the larger one."""

    def track_people(frames, *_, **__):
        n = sum(1 for _ in frames)
        return [make_track(1, n=n), make_track(2, n=n, size=30.0)]

    no_networks(monkeypatch)
    monkeypatch.setattr(recover, "track_people", track_people)


def test_equal_names_do_not_overwrite_each_other(open_dir, tmp_path, briefly):
    """Films a.mp4, a.mov and another a.mp4, and a folder a; a second run finds its own folder again."""
    inputs = [small_film(tmp_path / name) for name in ("x/a.mp4", "x/a.mov", "y/a.mp4")]
    out = tmp_path / "out"
    folders = []
    for path in [*inputs, *inputs[::-1]]:
        written = run_demo(DemoOptions(vid_file=str(path), output_folder=str(out), open_dir=str(open_dir)))
        folders.append(written[0].parent.name)
        assert written[0] == out / folders[-1] / f"tcmr_{folders[-1]}_output.mp4"
    assert folders[:3] == folders[:2:-1]
    assert folders[:2] == ["a", "a_mov"]
    assert len(set(folders)) == 3
    assert len(files_in(out)) == 9


def test_runs_at_the_same_time_do_not_share_a_folder(open_dir, tmp_path, briefly):
    film, other = small_film(tmp_path / "x/a.mp4"), small_film(tmp_path / "y/a.mp4")
    options = DemoOptions(vid_file=str(film), output_folder=str(tmp_path / "out"), open_dir=str(open_dir))
    with only_process(tmp_path / "out" / "a"):
        (written, *_) = run_demo(options)
        (written_too, *_) = run_demo(replace(options, vid_file=str(other)))
    assert (written.parent.name, written_too.parent.name) == ("a_mp4", "a_2")
    assert not (tmp_path / "out" / "a").exists()  # nothing was written there
    names = {"tcmr_a_mp4_input.mp4", "tcmr_output.npz", written.name}
    assert {path.name for path in written.parent.iterdir()} == names


@pytest.mark.parametrize("name", ["tcmr_a_output.mp4", "tcmr_output.npz", "tracks.txt"])
def test_what_lies_in_the_place_of_a_result_is_told_before_the_work(open_dir, tmp_path, name):
    film, place = small_film(tmp_path / "a.mp4"), tmp_path / "out" / "a" / name
    place.parent.mkdir(parents=True)
    place.mkdir()
    options = DemoOptions(vid_file=str(film), output_folder=str(tmp_path / "out"), save_tracks=True)
    with pytest.raises(UserError, match=rf"{name} is .*move it away"):
        run_demo(options)


def test_the_films_folder_is_not_told(open_dir, tmp_path, briefly):
    film = small_film(tmp_path / "secret" / "a.mp4")
    out = run_demo(DemoOptions(vid_file=str(film), output_folder=str(tmp_path), open_dir=str(open_dir)))
    assert b"secret" not in out[0].read_bytes()


@pytest.mark.parametrize("name", ["n" * 240, "ü" * 120, "a\x1b[31m\n", "a:b"])
def test_any_name_makes_a_folder(open_dir, tmp_path, briefly, name):
    film = small_film(tmp_path / "x" / "a.mp4").rename(tmp_path / "x" / f"{name}.mp4")
    written = run_demo(DemoOptions(vid_file=str(film), output_folder=str(tmp_path), open_dir=str(open_dir)))
    assert all(path.is_file() for path in written)
    assert all(path.name.isprintable() for path in written)


def test_one_person_of_several(open_dir, tmp_path, briefly):
    """Numbers stay what they are."""
    video = small_film(tmp_path / "a.mp4")
    for person, expected in (("2", [2]), ("largest", [1]), ("all", [1, 2])):
        run_demo(
            DemoOptions(
                vid_file=str(video),
                output_folder=str(tmp_path),
                open_dir=str(open_dir),
                export=["pkl"],
                person=person,
            )
        )
        assert sorted(load_joblib(tmp_path / "a" / "tcmr_output.pkl")) == expected
    with pytest.raises(UserError, match="--person 7: found were 1, 2"):
        run_demo(DemoOptions(vid_file=str(video), open_dir=str(open_dir), person="7"))


def test_told_frame_rate_is_the_films(open_dir, tmp_path, briefly, monkeypatch):
    rates = []
    take = recover.reconstruct
    monkeypatch.setattr(
        recover, "reconstruct", lambda *a, fps, **k: rates.append(fps) or take(*a, fps=fps, **k)
    )
    film = small_film(tmp_path / "a.mp4")
    written = run_demo(
        DemoOptions(vid_file=str(film), output_folder=str(tmp_path), open_dir=str(open_dir), fps=100)
    )
    assert rates == [pytest.approx(100)]
    for path in written[:2]:
        times = [float(time) for time, _ in VideoFile(path).timed()]
        np.testing.assert_allclose(times, np.arange(3) / 100, atol=1e-4)


def test_damage_is_told_in_the_summary_and_where_nobody_is(open_dir, tmp_path, briefly, caplog, monkeypatch):
    film = encode(
        tmp_path / "a.avi", [np.full((H, W, 3), 90, np.uint8)] * 6, codec="mjpeg", pix_fmt="yuvj420p"
    )
    with av.open(str(film)) as container:
        packet = next(itertools.islice(container.demux(video=0), 3, None))
        position, content = packet.pos, bytes(packet)
    data = film.read_bytes()
    at = data.index(content, position)
    film.write_bytes(data[:at] + bytes(len(content)) + data[at + len(content) :])
    options = DemoOptions(vid_file=str(film), output_folder=str(tmp_path), open_dir=str(open_dir))
    with caplog.at_level(logging.INFO):
        run_demo(options)
    (warning,) = (r.getMessage() for r in caplog.records if r.levelname == "WARNING")
    assert "1 at 0.10 s" in warning
    assert "the film is damaged, frames lost: 1 at 0.10 s" in caplog.records[-1].getMessage()
    monkeypatch.setattr(recover, "track_people", lambda frames, *_, **__: list(frames)[:0])
    with pytest.raises(UserError, match=r"nobody was found .* the film is damaged, frames lost"):
        run_demo(options)


def test_nothing_is_announced_that_nobody_asked_for(open_dir, base_data, tmp_path, briefly, caplog):
    video = small_film(tmp_path / "a.mp4")
    with caplog.at_level(logging.INFO):
        run_demo(DemoOptions(vid_file=str(video), output_folder=str(tmp_path), open_dir=str(open_dir)))
    assert "not present" not in caplog.text
    assert "SMPL" not in caplog.text
    options = DemoOptions(
        vid_file=str(video), output_folder=str(tmp_path), open_dir=str(open_dir), base_data=str(base_data)
    )
    with caplog.at_level(logging.INFO):
        run_demo(options)
    assert "SMPL_NEUTRAL.pkl is not used: this checkpoint was trained with the open body" in caplog.text


def test_people_too_short_for_official_windows(open_dir, tmp_path, monkeypatch, caplog):
    tracked = [make_track(1, n=16), make_track(2, n=12)]
    no_networks(monkeypatch)
    monkeypatch.setattr(recover, "track_people", lambda frames, *_, **__: list(frames) and tracked)
    video = small_film(tmp_path / "a.mp4", 16)
    options = {"vid_file": str(video), "output_folder": str(tmp_path), "open_dir": str(open_dir)}
    run_demo(DemoOptions(**options, opts=["COMPAT.STATIC_BORDERS", "True"], export=["pkl"]))
    assert "person 2 is left out: in sight for less than 16 frames" in caplog.text
    assert sorted(load_joblib(tmp_path / "a" / "tcmr_output.pkl")) == [1]
    tracked.pop(0)
    run_demo(DemoOptions(**options, export=["pkl"]))
    assert sorted(load_joblib(tmp_path / "a" / "tcmr_output.pkl")) == [2]
    with pytest.raises(UserError, match="nobody is in sight for 16 frames"):
        run_demo(DemoOptions(**options, opts=["COMPAT.STATIC_BORDERS", "True"]))


def test_one_image_is_a_result(open_dir, tmp_path, monkeypatch):
    no_networks(monkeypatch)
    monkeypatch.setattr(recover, "track_people", lambda frames, *a, **k: [make_track(1, n=len(list(frames)))])
    cv2.imwrite(str(tmp_path / "photo.jpg"), np.full((H, W, 3), 128, np.uint8))
    run_demo(
        DemoOptions(vid_file=str(tmp_path / "photo.jpg"), output_folder=str(tmp_path), open_dir=str(open_dir))
    )
    assert len(list(VideoFile(tmp_path / "photo" / "tcmr_photo_output.mp4"))) == 1


@pytest.mark.parametrize("relative", [True, False])
def test_from_any_folder(open_dir, tmp_path, relative):
    """Networks are found where --open_dir says, or where the project lies."""
    film = small_film(tmp_path / "a.mp4")
    chosen = os.path.relpath(open_dir, tmp_path) if relative else str(open_dir)
    run = subprocess.run(
        [sys.executable, str(REPOSITORY / "demo.py"), "--vid_file", film.name, "--open_dir", chosen],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "nobody was found" in run.stderr
    assert run.returncode == 2
    assert not any("TensorFlow" in line for line in run.stderr.splitlines())


@pytest.mark.skipif(not (DOWNLOADS / "demo.mp4").is_file(), reason="open assets are not fetched")
def test_real_video(open_dir, tmp_path, monkeypatch):
    """Detection and tracking included, on a second and a half of the sample video."""
    monkeypatch.chdir(REPOSITORY)
    source = VideoFile(DOWNLOADS / "demo.mp4")
    with VideoWriter(tmp_path / "clip.mp4", source.info.fps) as writer:
        for i, (moment, frame) in enumerate(source.timed()):
            if i == 45:
                break
            writer.write(cv2.resize(frame, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), moment)
    options = DemoOptions(
        vid_file=str(tmp_path / "clip.mp4"),
        output_folder=str(tmp_path),
        open_dir=str(open_dir),
        export=["pkl"],
    )
    run_demo(options)
    results = load_joblib(tmp_path / "clip" / "tcmr_output.pkl")
    bboxes = results[1]["bboxes"]
    assert (np.abs(bboxes[:, 0] - 315) < 40).all()  # the person on the roof
    others = [results[person] for person in results if person != 1]
    assert all((other["bboxes"][:, 0] > 700).all() for other in others)  # who comes from behind the tree
    assert sum(1 for _ in VideoFile(tmp_path / "clip" / "tcmr_clip_output.mp4")) == 45

"""The demo as a whole: files, damage and interruption, and what users do wrong."""

from __future__ import annotations

import itertools
import signal
import subprocess
import sys
import threading
import time
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from lib.commands import demo as command
from lib.demo import recover, results
from lib.demo.models import load_models
from lib.demo.options import DemoOptions
from lib.demo.pipeline import run_demo
from lib.models.body import load_body
from lib.models.smpl import SMPL
from lib.motion.exporters import EXPORTERS
from lib.motion.meshes import Meshes
from lib.motion.scene_file import load_scene
from lib.utils.errors import UserError
from lib.utils.files import load_joblib
from lib.video.video_file import VideoFile
from lib.video.writer import VideoWriter
from tests.demo_tools import REPOSITORY, H, N, W, drawer, files_in, make_track, no_networks


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("video") / "two people.mp4"
    with VideoWriter(path, Fraction(25)) as writer:
        for i in range(N + 5):
            writer.write(np.full((H, W, 3), 40 + 4 * i, np.uint8), Fraction(i, 25))
    return path


@pytest.fixture
def tracked(monkeypatch):
    """Replace detection and tracking, which need downloaded networks, by two ready tracks."""
    tracks = [make_track(1), make_track(2, start=5, size=30.0, centre=(60.0, 50.0))]

    def track_people(frames, detector, network, *, fps, min_seconds):
        assert fps > 0
        assert min_seconds == 0.3
        assert sum(1 for _ in frames) >= N
        return tracks

    no_networks(monkeypatch)
    monkeypatch.setattr(recover, "track_people", track_people)
    return tracks


def test_all_files(video, open_dir, tmp_path, tracked):
    options = DemoOptions(
        vid_file=str(video),
        output_folder=str(tmp_path),
        open_dir=str(open_dir),
        base_data=str(tmp_path),
        device="cpu",
        export=list(EXPORTERS),
        viewer=True,
        view="side",
    )
    written = run_demo(options)
    folder = tmp_path / "two people"
    name = "tcmr_two people"
    meshes = [f"meshes/0001/{i:06d}.obj" for i in range(N)] + [
        f"meshes/0002/{i:06d}.obj" for i in range(5, 5 + N)
    ]
    files = {f"{name}_input.mp4", f"{name}_output.mp4", "tcmr_output.npz", "tcmr_output.pkl"}
    files |= {f"person_{i}.{kind}" for i in (1, 2) for kind in ("npz", "bvh", "trc")}
    files |= {"scene.glb", "scene.json", "viewer.html"}
    assert files_in(folder) == sorted([*meshes, *files])
    assert set(written) == {folder / n for n in files | {"meshes"}}

    output = VideoFile(folder / f"{name}_output.mp4")
    assert (output.info.width, output.info.height) == (2 * W, H)
    assert [t for t, _ in output.timed()] == [t for t, _ in VideoFile(video).timed()]
    assert (folder / f"{name}_input.mp4").read_bytes() == video.read_bytes()

    results = load_joblib(folder / "tcmr_output.pkl")
    assert sorted(results) == [1, 2]
    for track in tracked:
        result = results[track.person_id]
        assert result["verts"].shape == (N, 6890, 3)
        np.testing.assert_array_equal(result["frame_ids"], track.frame_ids)
        np.testing.assert_allclose(result["bboxes"][12:18, :2], track.bboxes[12:18, :2], rtol=1e-4)
        np.testing.assert_allclose(result["bboxes"][:, 2:], 1.2 * track.bboxes[:, 2:], rtol=1e-5)
        assert (result["fps"], result["body"], result["focal_length"]) == (25, "open", 1.2 * W)
    scene = load_scene(folder / "tcmr_output.npz")
    assert (scene.name, scene.n_frames, scene.camera.source) == ("two people", N + 5, "default")

    lines = (folder / "meshes/0002/000007.obj").read_text().splitlines()
    verts = np.array([line.split()[1:] for line in lines if line.startswith("v ")], float)
    faces = np.array([line.split()[1:] for line in lines if line.startswith("f ")], int)
    motion = scene.people[1]
    world = Meshes(SMPL(load_body(tmp_path, open_dir=open_dir)), motion.world, motion.betas)
    np.testing.assert_allclose(verts, world[2], atol=1e-5)
    assert faces.shape == (13776, 3)
    assert (faces.min(), faces.max()) == (1, 6890)


def test_only_videos_without_options(video, open_dir, tmp_path, tracked):
    run_demo(
        DemoOptions(vid_file=str(video), output_folder=str(tmp_path), open_dir=str(open_dir), base_data="")
    )
    names = ["tcmr_output.npz", "tcmr_two people_input.mp4", "tcmr_two people_output.mp4"]
    assert files_in(tmp_path / "two people") == names


def test_image_folder(open_dir, tmp_path, tracked, monkeypatch):
    images = tmp_path / "my images"
    images.mkdir()
    for i in range(N):
        cv2.imwrite(str(images / f"{i:03d}.png"), np.full((H, W + 1, 3), 128, np.uint8))
    tracked.pop()
    opened = []
    monkeypatch.setattr("lib.demo.display.webbrowser.open", lambda address: opened.append(address) or True)
    options = DemoOptions(
        img_dir=f"{images}/",
        output_folder=str(tmp_path / "out"),
        open_dir=str(open_dir),
        wireframe=True,
        display=True,
    )
    run_demo(options)
    names = ["tcmr_my images_input.mp4", "tcmr_my images_output.html", "tcmr_my images_output.mp4"]
    assert files_in(tmp_path / "out" / "my images") == sorted([*names, "tcmr_output.npz"])
    frames = list(VideoFile(tmp_path / "out" / "my images" / names[0]))
    assert len(frames) == N
    assert frames[0].shape == (H, W + 2, 3)
    assert opened == [(tmp_path / "out" / "my images" / names[1]).resolve().as_uri()]
    assert len(list(images.iterdir())) == N


def test_failure_while_rendering_leaves_nothing(video, open_dir, tmp_path, tracked, monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("disk full")

    monkeypatch.setattr(results.Drawer, "__call__", fail)
    options = DemoOptions(
        vid_file=str(video), output_folder=str(tmp_path / "out"), open_dir=str(open_dir), export=["obj"]
    )
    with pytest.raises(RuntimeError, match="disk full"):
        run_demo(options)
    assert files_in(tmp_path / "out") == []


def test_drawing_side_by_side_changes_no_frame(video, open_dir, tmp_path, tracked, monkeypatch):
    """What goes to the encoder is what drawing one frame after the other gives, bit by bit."""
    written, scenes = [], []
    write, take = VideoWriter.write, recover.reconstruct
    monkeypatch.setattr(VideoWriter, "write", lambda s, *a: written.append(a) or write(s, *a))
    monkeypatch.setattr(recover, "reconstruct", lambda *a, **k: scenes.append(take(*a, **k)) or scenes[0])
    threads = threading.active_count()
    run_demo(DemoOptions(vid_file=str(video), output_folder=str(tmp_path), open_dir=str(open_dir)))
    assert threading.active_count() == threads
    draw = drawer(load_models(open_dir / "tcmr_open.pth.tar", open_dir=open_dir), scenes[0])
    timed = list(VideoFile(video).timed())
    assert [moment for _, moment in written] == [moment for moment, _ in timed]
    for i, ((_, frame), (image, _)) in enumerate(zip(timed, written)):
        np.testing.assert_array_equal(image, draw(frame, i))


def test_damaged_image_in_the_middle(open_dir, tmp_path, monkeypatch):
    """The decoding thread's error reaches the user as it is, from each pass over the frames."""
    for i in range(N):
        cv2.imwrite(str(tmp_path / f"{i:03d}.png"), np.full((H, W, 3), 128, np.uint8))
    (tmp_path / "020.png").write_text("not an image")
    no_networks(monkeypatch)
    monkeypatch.setattr(recover, "track_people", lambda frames, *a, **k: list(frames))
    options = DemoOptions(img_dir=str(tmp_path), output_folder=str(tmp_path / "out"), open_dir=str(open_dir))
    with pytest.raises(UserError, match=r"020\.png is damaged or no image"):
        run_demo(options)

    def before_the_damage(frames, *args, **kwargs):
        return [make_track(n=len(list(itertools.islice(frames, 20))))]

    monkeypatch.setattr(recover, "track_people", before_the_damage)
    threads = threading.active_count()
    with pytest.raises(UserError, match=r"020\.png is damaged or no image"):
        run_demo(options)
    assert threading.active_count() == threads
    assert not files_in(tmp_path / "out")


def test_ctrl_c_while_drawing_leaves_nothing(video, open_dir, tmp_path, tracked, monkeypatch):
    threads = threading.active_count()
    timer = threading.Timer(0, signal.raise_signal, [signal.SIGINT])

    def write(self, image, moment):
        if moment > 0 and timer.ident is None:
            timer.start()
        time.sleep(0.02)

    monkeypatch.setattr(VideoWriter, "write", write)
    options = DemoOptions(vid_file=str(video), output_folder=str(tmp_path / "out"), open_dir=str(open_dir))
    with pytest.raises(KeyboardInterrupt):
        run_demo(options)
    timer.join()
    assert threading.active_count() == threads
    assert not files_in(tmp_path / "out")


def test_nobody_found_is_a_user_error(video, open_dir, tmp_path, tracked):
    tracked.clear()
    options = DemoOptions(vid_file=str(video), output_folder=str(tmp_path / "out"), open_dir=str(open_dir))
    with pytest.raises(UserError, match=r"two people \(35 frames, 1.4 s\): nobody was found .* 0.3 s"):
        run_demo(options)
    assert not (tmp_path / "out").exists()


def test_wrong_inputs_are_user_errors(tmp_path):
    with pytest.raises(UserError, match="both"):
        run_demo(DemoOptions(vid_file="a.mp4", img_dir="b"))
    with pytest.raises(UserError, match="links are not fetched"):
        run_demo(DemoOptions(vid_file="https://www.youtube.com/watch?v=x"))
    with pytest.raises(UserError, match="no such folder"):
        run_demo(DemoOptions(img_dir=str(tmp_path / "x")))
    with pytest.raises(UserError, match="--fps -3"):
        run_demo(DemoOptions(vid_file="a.mp4", fps=-3))
    with pytest.raises(UserError, match=r"--focal 1e\+30: expected a focal length"):
        run_demo(DemoOptions(vid_file="a.mp4", focal=1e30))
    with pytest.raises(UserError, match="--export: there is no format 'fbx'"):
        run_demo(DemoOptions(vid_file="a.mp4", export=["npz", "fbx"]))
    with pytest.raises(UserError, match="--min_seconds nan"):
        run_demo(DemoOptions(vid_file="a.mp4", min_seconds=float("nan")))
    with pytest.raises(UserError, match="--person tallest"):
        run_demo(DemoOptions(vid_file="a.mp4", person="tallest"))
    with pytest.raises(UserError, match=r"--tracks .*x\.txt does not exist"):
        run_demo(DemoOptions(vid_file="a.mp4", tracks=str(tmp_path / "x.txt")))


def test_unwritable_output_is_told_before_the_work(video, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(
        UserError, match=f"--output_folder: cannot write to {tmp_path}/file; expected a place"
    ):
        run_demo(DemoOptions(vid_file=str(video), output_folder=str(tmp_path / "file" / "x")))


def test_command_line():
    args = command.parse_args(["--vid_file", "a.mp4", "--sideview", "--gender", "male"])
    assert (args.vid_file, args.view, args.gender, args.detector) == ("a.mp4", "side", "male", "auto")
    args = command.parse_args(["--save_obj", "--export", "npz,bvh", "--save_pkl", "--export", "glb"])
    assert args.export == ["obj", "npz", "bvh", "pkl", "glb"]
    assert [command.parse_args(given).fit for given in ([], ["--fit"], ["--no-fit"])] == [None, True, False]


def test_options_kept_for_compatibility_warn(monkeypatch, caplog):
    seen = []
    monkeypatch.setattr(command, "run_demo", seen.append)
    command.main(["--detector", "yolo", "--yolo_img_size", "416", "--tracker_batch_size", "12"])
    assert seen == [DemoOptions()]
    assert sum("has no effect" in message for message in caplog.messages) == 2
    assert any("yolo is not part" in message for message in caplog.messages)


def test_mistake_gives_one_line_and_status_2(tmp_path):
    run = subprocess.run(
        [sys.executable, "demo.py", "--vid_file", str(tmp_path / "no.mp4")],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 2
    assert len(run.stderr.strip().splitlines()) == 1
    assert "no.mp4: no such video file" in run.stderr

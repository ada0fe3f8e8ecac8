"""The live pipeline, with networks that know what is there, its sinks, and what it says to mistakes."""

from __future__ import annotations

import io
import itertools
import json
import socket
import struct
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pythonosc.osc_bundle import OscBundle
from scipy.spatial.transform import Rotation

from lib.commands.live import main, parse_args
from lib.demo.engine import Engine
from lib.demo.models import Models, load_models
from lib.demo.track import make_track
from lib.landmarks.blazepose import Detection, Landmarks
from lib.landmarks.features import landmark_boxes
from lib.live import stream
from lib.live.capture import Frame, Source, open_source
from lib.live.engine import LiveBody, LiveEngine
from lib.live.preview import Preview
from lib.live.sink import Sink
from lib.live.sinks import SINKS, JsonLines
from lib.live.stream import LiveOptions, run_live
from lib.live.tracker import LiveTracker
from lib.live.vmc import Vmc
from lib.models.predict import predict_sequence
from lib.motion.camera import Camera
from lib.motion.world import LEVEL
from lib.open_data.simulate import IMAGE_SIZE
from lib.utils.errors import Terminated, UserError
from tests.browser import ARGUMENTS, find_chromium
from tests.simulation_tools import SILENT, simulate, upright_clips
from tests.video_tools import encode

ROOT = Path(__file__).resolve().parents[1]
LENGTH = 48
CAMERA = Camera(int(IMAGE_SIZE), int(IMAGE_SIZE), 1000.0)
PICTURE = np.zeros((int(IMAGE_SIZE), int(IMAGE_SIZE), 3), np.uint8)
pytestmark = pytest.mark.usefixtures("one_thread")


class Film:
    """A simulated person, as detector and network at once: whoever asks is told what is there.

    The number of a frame is counted here: it is the one that ``frames`` gave last.
    """

    short_sighted = False

    def __init__(self, body: Any, flipped: tuple[int, ...] = ()) -> None:
        seen = simulate(body, upright_clips(1, LENGTH, seed=3), SILENT)
        self.seen = [part[0].numpy() for part in (seen.xy, seen.visibility, seen.world)]
        self.truth = seen.joints3d[0].numpy()
        self.there = set(range(LENGTH))
        self.now = 0

    def frames(self, numbers: range = range(LENGTH)) -> Iterator[Frame]:
        for number in numbers:
            self.now = number
            yield Frame(number, number / 30, PICTURE, time.perf_counter())

    def landmarks(self, number: int) -> Landmarks:
        xy, visibility, world = (part[number] for part in self.seen)
        cx, cy, side, _ = landmark_boxes(xy)
        centre = np.array([cx, cy])
        score = 0.99 if number in self.there else 0.1
        return Landmarks(
            xy, np.zeros(33), visibility, score, world, centre, centre - np.array([0, 0.6 * side])
        )

    def with_focal(self, focal: float) -> Film:
        return self

    def detect(self, picture: np.ndarray) -> list[Detection]:
        found = self.landmarks(self.now)
        if self.now not in self.there:
            return []
        return [Detection(0.9, np.zeros(4), found.next_centre, found.next_scale_point)]

    def __call__(self, picture: np.ndarray, centre: np.ndarray, scale_point: np.ndarray) -> Landmarks:
        return self.landmarks(self.now)


@pytest.fixture(scope="module")
def models() -> Models:
    folder = ROOT / "data" / "open"
    return load_models(folder / "tcmr_open.pth.tar", base_data=ROOT / "none", open_dir=folder)


@pytest.fixture(scope="module")
def film(models: Models) -> Film:
    return Film(models.body)


def run(
    models: Models, film: Film, numbers: range = range(LENGTH), **options: Any
) -> tuple[list[LiveBody], LiveEngine]:
    engine = LiveEngine(models, film, film, CAMERA, 30.0, **options)  # type: ignore[arg-type]
    bodies = [body for frame in film.frames(numbers) for body in engine(frame)]
    return bodies + engine.finish(), engine


@pytest.fixture(scope="module")
def bodies(models: Models, film: Film) -> list[LiveBody]:
    return run(models, film)[0]


def test_poses_are_those_of_the_whole_film(models: Models, film: Film, bodies: list[LiveBody]) -> None:
    """The full delay gives, frame by frame, what the demo's networks say of the whole track."""
    track = make_track(1, range(LENGTH), [film.landmarks(number) for number in range(LENGTH)])
    features = models.extractor([], [track])[0].values
    expected = predict_sequence(models.tcmr, features, return_verts=False)["rotmat"]
    assert [body.frame for body in bodies] == list(range(LENGTH))
    rotmat = np.stack([body.rotmat for body in bodies])
    np.testing.assert_allclose(LEVEL @ rotmat[:, 0], expected[:, 0], atol=2e-4)
    np.testing.assert_allclose(rotmat[:, 1:], expected[:, 1:], atol=2e-4)


def away(film: Film, body: LiveBody) -> float:
    """How far ankles, knees and wrists are from their landmarks, in sides of the person's box."""
    pairs = {7: 27, 8: 28, 4: 25, 5: 26, 20: 15, 21: 16}
    seen = film.seen[0][body.frame]
    apart = body.pixels[list(pairs)] - seen[list(pairs.values())]
    return float(np.linalg.norm(apart, axis=1).mean() / landmark_boxes(seen)[2])


def test_bodies_lie_where_they_are_seen(film: Film, bodies: list[LiveBody]) -> None:
    """Over the landmarks, also when looked at from the world by the level camera; and on the floor."""
    for body in bodies:
        assert away(film, body) < 0.06
        before_camera = (body.joints - body.camera) @ LEVEL
        np.testing.assert_allclose(CAMERA.project(before_camera), body.pixels, atol=0.05)
        assert -0.1 < body.joints[:, 1].min() < 0.3
        np.testing.assert_allclose(
            body.poses.reshape(24, 3), Rotation.from_matrix(body.rotmat).as_rotvec(), atol=1e-4
        )
    np.testing.assert_allclose(bodies[0].joints[0, [0, 2]], 0, atol=1e-5)


def test_the_fit_moves_bodies_onto_their_landmarks(
    models: Models, film: Film, bodies: list[LiveBody]
) -> None:
    fitted, _ = run(models, film, range(24), fit=True)
    assert [body.frame for body in fitted] == list(range(24))
    after, before = (np.mean([away(film, body) for body in found[6:24]]) for found in (fitted, bodies))
    assert after < 0.7 * before


def test_without_delay_bodies_come_with_their_pictures(models: Models, film: Film) -> None:
    engine = LiveEngine(models, film, film, CAMERA, 30.0, delay=0)  # type: ignore[arg-type]
    assert engine.delay == 0
    for frame in film.frames(range(10)):
        assert [body.frame for body in engine(frame)] == [frame.number]
    assert engine.finish() == []


def test_pictures_that_were_dropped_are_interpolated(
    models: Models, film: Film, bodies: list[LiveBody]
) -> None:
    found, _ = run(models, film, range(0, LENGTH, 3))
    assert [body.frame for body in found] == list(range(LENGTH - 2))
    assert [body.captured is not None for body in found] == [n % 3 == 0 for n in range(LENGTH - 2)]
    np.testing.assert_allclose([body.time for body in found], np.arange(LENGTH - 2) / 30)
    apart = [np.linalg.norm(a.joints - b.joints, axis=1).mean() for a, b in zip(found, bodies)]
    assert np.mean(apart) < 0.05


def test_who_is_lost_for_a_moment_is_the_same_person(models: Models) -> None:
    film = Film(models.body)
    film.there -= set(range(20, 25))
    found, _ = run(models, film)
    assert {body.person_id for body in found} == {1}
    assert [body.frame for body in found] == list(range(LENGTH))
    assert [body.frame for body in found if body.captured is None] == list(range(20, 25))


def test_who_is_lost_for_longer_is_somebody_else_and_nobody_is_no_error(models: Models) -> None:
    film = Film(models.body)
    film.there -= set(range(15, 30))
    found, _ = run(models, film)
    assert [(body.person_id, body.frame) for body in found] == [
        *((1, n) for n in range(15)), *((2, n) for n in range(30, LENGTH))
    ]  # fmt: skip
    film.there.clear()
    assert run(models, film)[0] == []


# --- sinks ---


@contextmanager
def listening() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(10)
        yield receiver


def received(receiver: socket.socket, datagrams: int) -> list[tuple[str, list[Any]]]:
    found = []
    for _ in range(datagrams):
        datagram = receiver.recv(65536)
        assert len(datagram) <= 1472  # one Ethernet frame
        found += [(part.address, part.params) for part in OscBundle(datagram)]
    return found


# The hierarchy of VRM's humanoid, from its specification.
VRM_PARENTS = {"Hips": None, "Spine": "Hips", "Chest": "Spine", "UpperChest": "Chest", "Neck": "UpperChest"}
VRM_PARENTS["Head"] = "Neck"
for side in ("Left", "Right"):
    VRM_PARENTS |= {f"{side}UpperLeg": "Hips", f"{side}Shoulder": "UpperChest"}
    for upper, lower in itertools.pairwise(("UpperLeg", "LowerLeg", "Foot", "Toes")):
        VRM_PARENTS[side + lower] = side + upper
    for upper, lower in itertools.pairwise(("Shoulder", "UpperArm", "LowerArm", "Hand")):
        VRM_PARENTS[side + lower] = side + upper
SMPL_ROWS = {"Hips": 0, "Head": 15, "Neck": 12, "UpperChest": 9, "LeftHand": 20, "RightHand": 21} | {
    "LeftFoot": 7, "RightFoot": 8, "LeftToes": 10, "RightToes": 11, "LeftLowerLeg": 4, "RightLowerArm": 19
}  # fmt: skip


def test_vmc_gives_an_avatar_the_same_joints(bodies: list[LiveBody]) -> None:
    """What arrives, put through the forward kinematics of a VRM avatar, is the body in Unity's axes: x, and
    with it the hand of the axes, is mirrored."""
    with listening() as receiver:
        sink = Vmc(f"127.0.0.1:{receiver.getsockname()[1]}")
        for body in (bodies[0], bodies[30]):
            sink.bodies([bodies[5], body])  # the newest counts
            messages = received(receiver, 2)
            assert messages[:3] == [
                ("/VMC/Ext/OK", [1]), ("/VMC/Ext/T", [pytest.approx(max(body.time, bodies[5].time))]),
                ("/VMC/Ext/Root/Pos", ["root", 0, 0, 0, 0, 0, 0, 1]),
            ]  # fmt: skip
            body = max(body, bodies[5], key=lambda one: one.frame)
            bones = {params[0]: params[1:] for address, params in messages[3:]}
            assert {address for address, _ in messages[3:]} == {"/VMC/Ext/Bone/Pos"}
            assert bones.keys() == VRM_PARENTS.keys() and len(messages) == 3 + len(bones)
            places: dict[str | None, np.ndarray] = {None: np.zeros(3)}
            turns: dict[str | None, np.ndarray] = {None: np.array([0, 0, 0, 1.0])}
            for name, parent in VRM_PARENTS.items():
                local, turn = np.array(bones[name][:3]), np.array(bones[name][3:])
                places[name] = places[parent] + turned(turns[parent], local)
                turns[name] = product(turns[parent], turn)
            for name, joint in SMPL_ROWS.items():
                np.testing.assert_allclose(places[name], body.joints[joint] * [-1, 1, 1], atol=1e-4)
        sink.close()


def turned(quaternion: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """xyzw; the formula of a quaternion's turn is the same in left-handed axes."""
    axis, w = quaternion[:3], quaternion[3]
    return vector + 2 * np.cross(axis, np.cross(axis, vector) + w * vector)


def product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    vector = a[3] * b[:3] + b[3] * a[:3] + np.cross(a[:3], b[:3])
    return np.array([*vector, a[3] * b[3] - a[:3] @ b[:3]])


def test_vmc_sends_the_first_person_only_and_nothing_for_nobody(bodies: list[LiveBody]) -> None:
    with listening() as receiver:
        sink = Vmc(f"localhost:{receiver.getsockname()[1]}")
        sink.bodies([])
        sink.bodies([replace(bodies[9], person_id=7), bodies[3]])
        assert received(receiver, 2)[1][1] == [pytest.approx(0.1)]
        receiver.settimeout(0.05)
        with pytest.raises(TimeoutError):
            receiver.recv(1000)
        sink.close()


def test_json_lines(bodies: list[LiveBody], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "bodies.jsonl"
    file.write_text("older")
    for target in (str(file), "-"):
        sink = JsonLines(target)
        if target != "-":
            assert file.read_text() == "older"
        sink.begin(0)
        sink.bodies(bodies[:3])
        sink.bodies([])
        assert (file.read_text() if target != "-" else capsys.readouterr().out).count("\n") == 3  # at once
        sink.bodies(bodies[3:])
        sink.close()
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert [row["frame"] for row in rows] == list(range(LENGTH))
    row, body = rows[20], bodies[20]
    assert (row["person"], row["seen"], row["time"]) == (1, True, pytest.approx(20 / 30, abs=1e-4))
    for name, values in {
        "poses": body.poses, "trans": body.transl, "betas": body.betas, "joints": body.joints,
        "joints2d": body.pixels, "camera": body.camera,
    }.items():  # fmt: skip
        np.testing.assert_allclose(row[name], values, atol=1e-5)
    assert (len(row["poses"]), len(row["trans"]), len(row["betas"])) == (72, 3, 10)


@pytest.fixture
def preview() -> Iterator[Preview]:
    sink = Preview("0")
    sink.begin(2)
    yield sink
    sink.close()


def play(preview: Preview, body: LiveBody, stop: threading.Event) -> None:
    """A stream with somebody who is always at the same place, and pictures before it."""
    for number in itertools.count():
        preview.picture(Frame(number, number / 30, PICTURE + np.uint8(40), 0.0))
        preview.bodies([replace(body, frame=number - 2)])
        if stop.wait(0.02):
            return


@contextmanager
def playing(preview: Preview, body: LiveBody) -> Iterator[None]:
    stop = threading.Event()
    player = threading.Thread(target=play, args=(preview, body, stop))
    player.start()
    try:
        yield
    finally:
        stop.set()
        player.join()


def assert_shows(picture: np.ndarray, body: LiveBody) -> None:
    """The skeleton's blue where the joints are, and the picture's grey away from them."""
    scale = picture.shape[1] / CAMERA.width
    for x, y in scale * body.pixels[[0, 4, 5, 15, 18]]:
        red, _, blue = picture[round(y), round(x)].astype(int)
        assert blue > 150 and blue > red + 60
    assert np.abs(picture[5, 5].astype(int) - 40).max() < 8


def test_preview_serves_pictures_to_this_machine_alone(preview: Preview, bodies: list[LiveBody]) -> None:
    with playing(preview, bodies[0]), urllib.request.urlopen(f"{preview.url}stream", timeout=10) as stream_:
        assert stream_.readline() == b"--picture\r\n"
        headers = {}
        while line := stream_.readline().strip():
            name, value = line.split(b": ")
            headers[name] = value
        picture = np.array(Image.open(io.BytesIO(stream_.read(int(headers[b"Content-Length"])))))
        assert_shows(picture, bodies[0])
        request = urllib.request.Request(preview.url, headers={"Host": "evil.example"})
        for wrong in (request, f"{preview.url}other"):
            with pytest.raises(urllib.error.HTTPError, match=r"40[34]"):
                urllib.request.urlopen(wrong, timeout=10)
    with pytest.raises(UserError, match=r"--preview \d+: port \d+ cannot be had"):
        Preview(preview.url.rstrip("/").rpartition(":")[2])


def test_a_viewer_that_goes_away_is_no_error(preview: Preview, capsys: pytest.CaptureFixture[str]) -> None:
    port = int(preview.url.rstrip("/").rpartition(":")[2])

    def serving() -> set[threading.Thread]:
        return {
            thread
            for thread in threading.enumerate()
            if "process_request" in thread.name and thread.is_alive()
        }

    before = serving()
    for said in (b"", b"GET / HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n" % port):
        with socket.create_connection(("127.0.0.1", port)) as viewer:
            viewer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # no goodbye
            viewer.sendall(said)
            while not (threads := serving() - before):
                time.sleep(0.01)
        for thread in threads:
            thread.join(10)
    assert capsys.readouterr().err == ""


@pytest.mark.skipif(not find_chromium(), reason="no Chromium is installed: `make test-viewer` installs one")
def test_preview_in_a_browser(preview: Preview, bodies: list[LiveBody]) -> None:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as started, playing(preview, bodies[0]):
        browser = started.chromium.launch(executable_path=find_chromium(), args=ARGUMENTS)
        page, wrong = browser.new_page(viewport={"width": 960, "height": 960}), []
        page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
        page.on(
            "request",
            lambda request: request.url.startswith((preview.url, "data:")) or wrong.append(request.url),
        )
        page.goto(preview.url, wait_until="commit")
        page.wait_for_selector("img", state="attached")
        page.evaluate(
            """new Promise((done) => {
                const look = () => document.images[0].naturalWidth ? done() : requestAnimationFrame(look);
                look();
            })"""
        )
        assert_shows(np.array(Image.open(io.BytesIO(page.screenshot())).convert("RGB")), bodies[0])
        browser.close()
    assert wrong == []


# --- the command ---


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return encode(tmp_path_factory.mktemp("clip") / "clip.mp4", [PICTURE] * LENGTH)


@pytest.fixture
def replayed(film: Film, models: Models, monkeypatch: pytest.MonkeyPatch) -> Film:
    """The command sees the simulated person, whatever the pictures show."""

    class Counting(LiveTracker):
        def follow(self, frame_id: int, frame: np.ndarray) -> dict[int, Landmarks]:
            film.now = frame_id
            return super().follow(frame_id, frame)

    monkeypatch.setattr(stream, "load_engine", lambda _: Engine(models, film, film))  # type: ignore[arg-type]
    monkeypatch.setattr("lib.live.engine.LiveTracker", Counting)
    return film


def test_a_file_without_dropping_gives_the_same_every_time(
    replayed: Film, clip: Path, tmp_path: Path, bodies: list[LiveBody]
) -> None:
    places = [str(tmp_path / name) for name in ("a", "b")]
    main([str(clip), "--no-drop", "--focal", "1000", "--jsonl", places[0], "--stats"])
    statistics = run_live(LiveOptions(str(clip), {"jsonl": places[1]}, drop=False, focal=1000))
    texts = [Path(place).read_text() for place in places]
    assert texts[0] == texts[1]
    rows = [json.loads(line) for line in texts[0].splitlines()]
    np.testing.assert_allclose([row["poses"] for row in rows], [body.poses for body in bodies], atol=1e-3)
    assert (statistics.captured, statistics.dropped, statistics.results) == (LENGTH, 0, LENGTH)
    assert 0 < statistics.latency[0] <= statistics.latency[1]
    assert f"{LENGTH} frames, 0 dropped" in str(statistics)


@pytest.mark.parametrize("fps", [0.04, 0.2])
def test_slow_sources(replayed: Film, clip: Path, fps: float) -> None:
    options = LiveOptions(str(clip), drop=False, fps=fps, focal=1000, delay=0)
    found = [*itertools.islice(stream.live(options), 6)]
    for body in found:
        assert np.isfinite(body.transl).all() and np.isfinite(body.rotmat).all()
        np.testing.assert_allclose(body.time, body.frame / fps, atol=1e-3)
    assert found[-1].frame == 5


def test_a_stream_over_http(replayed: Film, clip: Path) -> None:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(clip.parent))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with open_source(f"http://user:secret@127.0.0.1:{server.server_port}/clip.mp4") as source:
            assert source.live and source.fps == 30 and "secret" not in source.name
            assert [picture.shape for _, picture in source.pictures()] == [PICTURE.shape] * LENGTH
        server.shutdown()


class Recorder(Sink):
    """A sink that raises at a picture."""

    raises: BaseException | None = None
    metavar, text = "X", "x"

    def __init__(self, target: str) -> None:
        self.found: list[int] = []
        self.closed = False
        type(self).latest = self

    def picture(self, frame: Frame) -> None:
        if frame.number == 20 and self.raises:
            raise self.raises

    def bodies(self, bodies: Any) -> None:
        self.found += [body.frame for body in bodies]

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize(("interrupt", "ends"), [(KeyboardInterrupt(), True), (Terminated(), False)])
def test_ctrl_c_ends_it_with_the_statistics(
    replayed: Film,
    clip: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    interrupt: BaseException,
    ends: bool,
) -> None:
    monkeypatch.setitem(SINKS, "recorder", Recorder)
    monkeypatch.setattr(Recorder, "raises", interrupt)
    caplog.set_level("INFO")
    with nullcontext() if ends else pytest.raises(Terminated):
        run_live(LiveOptions(str(clip), {"recorder": ""}, drop=False))
    assert Recorder.latest.closed
    assert Recorder.latest.found == list(range(20 - 12))
    assert "dropped" in caplog.messages[-1]
    assert not any(thread.name == "capture" for thread in threading.enumerate())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["there/is/none.mp4"], "there/is/none.mp4: there is no such video"),
        ([""], "there is no such video"),
        (["FOLDER"], ": is a folder; expected the number of a camera .* a file or an address$"),
        (["77"], "camera 77: there is none"),
        (["9" * 30], "camera 9+: there is none"),
        (["http://me:secret@[::1"], r"^\[::1: is no address"),
        (["http://127.0.0.1:9/x"], "http://127.0.0.1:9/x: cannot be opened"),
        (["rtsp://me:secret@127.0.0.1:9/x"], "^rtsp://127.0.0.1:9/x: cannot be opened"),
        (["file:///etc/hosts"], "cannot be streamed"),
        (["concat://x"], "cannot be streamed"),
        (["CLIP", "--vmc", "nowhere"], "--vmc nowhere: expected HOST:PORT"),
        (["CLIP", "--vmc", "no.such.host.invalid:39539"], "there is no such host"),
        (["CLIP", "--vmc", "a..b:39539"], "there is no such host"),
        (["CLIP", "--jsonl", "FOLDER"], "is a folder"),
        (["CLIP", "--jsonl", "there/is/none.jsonl"], "--jsonl there/is/none.jsonl: cannot be written"),
        (["CLIP", "--preview", "x"], "expected the number of a port"),
        (["CLIP", "--delay", "-1"], "--delay -1"),
        (["CLIP", "--fps", "0"], "--fps 0"),
        (["CLIP", "--focal", "nan"], "--focal nan"),
    ],
)
def test_mistakes(clip: Path, arguments: list[str], says: str) -> None:
    places = {"CLIP": str(clip), "FOLDER": str(clip.parent)}
    with pytest.raises(UserError, match=says) as raised:
        main([places.get(argument, argument) for argument in arguments])
    assert "\n" not in str(raised.value) and "secret" not in str(raised.value)


def test_osc_is_asked_for_only_by_vmc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pythonosc.udp_client", None)
    with pytest.raises(UserError, match="pip install python-osc"):
        Vmc("127.0.0.1:39539")


def test_a_camera_that_does_not_wait_and_one_that_gives_nothing(
    replayed: Film, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def empty(*_: Any) -> Iterator[Source]:
        yield Source("camera 0", 30.0, lambda: iter(()), live=True)

    monkeypatch.setattr(stream, "open_source", empty)
    with pytest.raises(UserError, match="camera 0: gives no picture"):
        run_live(LiveOptions("0"))
    with pytest.raises(UserError, match="camera 0 does not wait"):
        run_live(LiveOptions("0", drop=False))


def test_options() -> None:
    options = parse_args(["0", "--preview", "--vmc", "a:1", "--person", "all"])
    assert options == LiveOptions("0", {"vmc": "a:1", "preview": "0"}, person="all")
    assert parse_args(["x"]) == LiveOptions("x")

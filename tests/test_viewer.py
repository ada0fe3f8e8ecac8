"""The viewer's page in a headless Chromium, against our own forward kinematics, renderer and video."""

from __future__ import annotations

import base64
import io
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pygltflib
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from lib.demo.render import Renderer
from lib.models.body import BodyData
from lib.models.smpl import SMPL
from lib.motion.camera import Camera
from lib.motion.exporters import gltf
from lib.motion.meshes import Meshes
from lib.motion.motion import Motion, Placed, Scene, joint_chain, rest_joints
from lib.motion.scene_file import save_scene
from lib.motion.viewer import main, write_viewer
from lib.utils.colours import person_colour
from lib.utils.errors import UserError
from lib.utils.files import sha256
from lib.video.video_file import VideoFile
from tests.video_tools import encode

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
from tests.browser import ARGUMENTS, find_chromium  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
N_FRAMES, WIDTH, HEIGHT, FPS = 40, 320, 180, 10
BITS = 6
"""Of the frame's number, drawn into the video as bright and dark columns."""
NAME = "</script><script>document.title='broken out'</script> {{video}} & <b>"

needs_browser = pytest.mark.skipif(
    not find_chromium(), reason="no Chromium is installed: `make test-viewer` installs one"
)


def person(person_id: int, start: int, n: int, x: float) -> Motion:
    """Somebody who turns and waves before the camera; also as the tilted world sees it."""
    rng = np.random.default_rng(person_id)
    time = np.linspace(0, 1, n)[:, None, None]
    axis_angle = 0.5 * rng.normal(size=(1, 24, 3)) * np.sin(3 * time + rng.uniform(0, 6, (1, 24, 1)))
    axis_angle[:, 0] = 0
    rotmat = Rotation.from_rotvec(axis_angle.reshape(-1, 3)).as_matrix().reshape(n, 24, 3, 3)
    turn = Rotation.from_euler("y", np.linspace(-1, 1, n)[:, None] * person_id).as_matrix()
    rotmat[:, 0] = np.diag([1.0, -1, -1]) @ turn
    transl = np.array([x, 0.1, 3.4]) + time[:, 0] * [0.6, 0, 0.5]
    camera = Placed(rotmat.astype(np.float32), transl.astype(np.float32))
    return Motion(
        person_id=person_id,
        frames=start + np.arange(n),
        betas=rng.normal(size=10).astype(np.float32),
        camera=camera,
        world=camera,
        contacts=np.repeat((np.arange(n) + 1) % 3 > 0, 4).reshape(n, 4),
        boxes=np.ones((n, 4), np.float32),
        joints3d=np.zeros((n, 49, 3), np.float32),
        joints2d=np.zeros((n, 49, 2), np.float32),
        attention=rng.dirichlet(np.ones(3), n).astype(np.float32),
        fps=FPS,
    )


@pytest.fixture(scope="module")
def scene(open_body: BodyData) -> Scene:
    rotation = Rotation.from_euler("xyz", [0.2, 0.6, 0.1]).as_matrix() @ np.diag([1.0, -1, -1])
    offset = np.array([0.5, 1.6, 3.0])
    people = [person(1, 0, N_FRAMES, -0.8), person(4, 10, 20, 0.7)]
    placed = [
        replace(motion, world=motion.camera.moved(rotation, offset, rest_joints(open_body, motion.betas)[0]))
        for motion in people
    ]
    return Scene(
        name=NAME,
        people=tuple(placed),
        camera=Camera(WIDTH, HEIGHT, 300.0),
        fps=FPS,
        n_frames=N_FRAMES,
        body="open",
        gender="neutral",
        world_rotation=rotation,
        world_offset=offset,
    )


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    columns = np.arange(WIDTH) * BITS // WIDTH
    images = []
    for frame in range(N_FRAMES):
        row = np.where((frame >> columns) & 1, 220, 30).astype(np.uint8)
        images.append(np.repeat(np.broadcast_to(row, (HEIGHT, WIDTH))[..., None], 3, axis=2))
    return encode(tmp_path_factory.mktemp("video") / "film.mp4", images, fps=FPS)


@pytest.fixture(scope="module")
def html(scene: Scene, open_body: BodyData, video: Path) -> Path:
    path = video.with_name("viewer.html")
    write_viewer(scene, open_body, VideoFile(video), path)
    return path


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=find_chromium(), args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def tab(chromium: Any, html: Path) -> tuple[Any, list[str]]:
    """A tab, and what went wrong in it: what its pages say on the console or ask of a network."""
    tab, wrong = chromium.new_page(), []
    tab.set_default_timeout(120_000)
    allowed = ("data:", "blob:null/", html.as_uri())
    tab.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    tab.on("pageerror", lambda error: wrong.append(str(error)))
    tab.on("dialog", lambda dialog: wrong.append(dialog.message))
    tab.on("request", lambda request: request.url.startswith(allowed) or wrong.append(request.url))
    return tab, wrong


@pytest.fixture
def page(tab: tuple[Any, list[str]], html: Path) -> Iterator[Any]:
    """The page, opened afresh from disk."""
    page, wrong = tab
    page.set_viewport_size({"width": 800, "height": 500})
    open_page(page, html)
    yield page
    assert wrong == []


def open_page(page: Any, html: Path) -> None:
    page.goto(html.as_uri())
    until(page, "window.tcmr")
    page.evaluate("tcmr.show(0)")


def until(page: Any, condition: str) -> None:
    """Wait for a condition. Not by ``wait_for_function``, whose eval the page's policy forbids."""
    page.evaluate(
        f"""new Promise((done, fail) => {{
            setTimeout(() => fail(new Error('waited in vain')), 120000);
            const look = () => {condition} ? done() : requestAnimationFrame(look);
            look();
        }})"""
    )


def picture_number(page: Any) -> int:
    """The frame number that is written into the picture that the video element shows."""
    return page.evaluate(
        """bits => {
            const video = document.getElementById('video'), canvas = document.createElement('canvas');
            [canvas.width, canvas.height] = [bits, 1];
            const draw = canvas.getContext('2d');
            const width = video.videoWidth / bits;
            for (let i = 0; i < bits; i++) {
                draw.drawImage(video, (i + 0.3) * width, 50, 0.4 * width, 80, i, 0, 1, 1);
            }
            return [...draw.getImageData(0, 0, bits, 1).data]
                .reduce((sum, value, i) => sum + (i % 4 == 0 && value > 125) * 2 ** (i / 4), 0);
        }""",
        BITS,
    )


def await_picture(page: Any, frame: int) -> None:
    """A browser may tell that it has moved a moment before its picture is the new one."""
    deadline = time.monotonic() + 20
    while picture_number(page) != frame and time.monotonic() < deadline:
        page.evaluate("new Promise(requestAnimationFrame)")
    assert picture_number(page) == frame


def canvas_image(page: Any) -> np.ndarray:
    """What the 3D scene shows, without the buttons that lie on it."""
    page.add_style_tag(content=".bar { display: none !important; } #stage { border-radius: 0 !important; }")
    page.evaluate("new Promise(requestAnimationFrame)")
    return np.array(Image.open(io.BytesIO(page.locator("#canvas").screenshot())).convert("RGB"))


def show_people_only(page: Any) -> None:
    for layer in ("floor", "contacts", "paths"):
        page.click(f"[data-layer={layer}]")


def to_canvas(page: Any, pixels: np.ndarray) -> np.ndarray:
    """Pixels of the video (*, 2) to pixels of the canvas, where it lies as large as fits, in the middle."""
    box = page.locator("#canvas").bounding_box()
    size = np.array([box["width"], box["height"]])
    scale = (size / (WIDTH, HEIGHT)).min()
    return (pixels - np.array([WIDTH, HEIGHT]) / 2) * scale + size / 2


@needs_browser
def test_scrubbing_shows_the_frame_asked_for(page: Any, scene: Scene, open_body: BodyData) -> None:
    """Out of order: the picture by the number in it, the joints by our forward kinematics and camera."""
    page.click("#video-view")
    for frame in (0, 39, 12, 13, 29, 28, 1):
        page.evaluate("frame => tcmr.show(frame)", frame)
        assert page.evaluate("tcmr.frame") == frame
        await_picture(page, frame)
        assert page.input_value("#frame") == str(frame)
        for index, motion in enumerate(scene.people):
            row = motion.row(frame)
            if row is None:
                continue
            rest = rest_joints(open_body, motion.betas)
            joints = joint_chain(motion.camera.rotmat[row], rest, open_body.parents)[1]
            expected = to_canvas(page, scene.camera.project(joints + motion.camera.transl[row]))
            drawn = page.evaluate(
                "([person, n]) => Array.from({length: n}, (_, joint) => tcmr.project(person, joint))",
                [index, len(rest)],
            )
            np.testing.assert_allclose(drawn, expected, atol=0.3)


@needs_browser
def test_people_are_drawn_where_the_renderer_draws_them(page: Any, scene: Scene, open_body: BodyData) -> None:
    show_people_only(page)
    page.click("#video-view")
    for frame, present in ((20, [0, 1]), (5, [0])):
        page.evaluate("frame => tcmr.show(frame)", frame)
        image = canvas_image(page).astype(int)
        height, width = image.shape[:2]
        renderer = Renderer(open_body.faces, width, height)
        covered = np.zeros((height, width), bool)
        for index in present:
            motion = scene.people[index]
            verts = Meshes(SMPL(open_body), motion.camera, motion.betas)[motion.row(frame)]
            seen = renderer.render(
                np.zeros((height, width, 3), np.uint8),
                [(verts, person_colour(index))],
                # Pixel centres are whole numbers there, and lie half a pixel further in the browser.
                lambda points: to_canvas(page, scene.camera.project(points)) - 0.5,
            )
            mask = seen.max(2) > 60
            covered |= mask
            order = np.argsort(np.median(image[mask], axis=0))
            assert order.tolist() == np.argsort(person_colour(index)).tolist()  # of red, green and blue
        for toggle in page.locator("#people .toggle").all():
            toggle.click()
        picture = canvas_image(page).astype(int)
        for toggle in page.locator("#people .toggle").all():
            toggle.click()
        drawn = np.abs(image - picture).max(2) > 25
        # Pose correctives and weights of more than four joints are not drawn in the browser.
        overlap = (drawn & covered).sum() / (drawn | covered).sum()
        assert overlap > 0.94


@needs_browser
def test_without_people_and_floor_nothing_is_drawn(page: Any) -> None:
    show_people_only(page)
    page.evaluate("tcmr.show(15)")
    assert len(np.unique(canvas_image(page).reshape(-1, 3), axis=0)) > 100
    toggles = page.locator("#people .toggle")
    assert toggles.all_text_contents() == ["Person 1", "Person 4"]
    toggles.nth(0).click()
    one = canvas_image(page)
    assert len(np.unique(one.reshape(-1, 3), axis=0)) > 100
    toggles.nth(1).click()
    assert len(np.unique(canvas_image(page).reshape(-1, 3), axis=0)) == 1
    toggles.nth(1).click()
    assert (canvas_image(page) == one).all()


@needs_browser
def test_each_layer_is_drawn_and_taken_away(page: Any, scene: Scene) -> None:
    frame = int(np.argmax(scene.people[0].contacts.all(1)))
    page.evaluate("frame => tcmr.show(frame)", frame)
    show_people_only(page)
    without = canvas_image(page)
    for layer in ("floor", "contacts", "paths", "camera"):
        page.eval_on_selector(f"[data-layer={layer}]", "button => button.click()")
        assert (canvas_image(page) != without).any(), layer
        page.eval_on_selector(f"[data-layer={layer}]", "button => button.click()")
        if layer != "camera":  # for which the view steps back
            assert (canvas_image(page) == without).all(), layer


@needs_browser
def test_contacts_are_lit(page: Any, scene: Scene) -> None:
    """Green on the canvas in frames with contacts only."""
    page.click("[data-layer=floor]")
    for frame in range(4):  # nobody else is there yet
        page.evaluate("frame => tcmr.show(frame)", frame)
        image = canvas_image(page).astype(int)
        green = (image[..., 1] - image[..., [0, 2]].max(2) > 60).sum()
        assert (green > 50) == scene.people[0].contacts[frame].all() == (green > 0)


@needs_browser
def test_mesh_and_skeleton_differ(page: Any) -> None:
    show_people_only(page)
    page.evaluate("tcmr.show(15)")
    shares = {}
    for style in ("mesh", "skeleton", "both"):
        page.click(f"[data-style={style}]")
        image = canvas_image(page).astype(int)
        shares[style] = (np.abs(image - image[0, 0]).sum(2) > 30).mean()
        page.add_style_tag(content=".bar { display: flex !important; }")
    assert 0 < shares["skeleton"] < 0.5 * shares["mesh"]
    assert shares["both"] == pytest.approx(shares["mesh"], rel=0.1)


@needs_browser
def test_followed_people_stay_in_the_middle(page: Any) -> None:
    middle = page.locator("#canvas").bounding_box()["width"] / 2
    seen = {}
    for following in (False, True):
        if following:
            page.click("#follow")
        for frame in (0, N_FRAMES - 1):
            page.evaluate("frame => tcmr.show(frame)", frame)
            seen[following, frame] = page.evaluate("tcmr.project(0, 0)")[0]
    assert abs(seen[False, 0] - seen[False, N_FRAMES - 1]) > 20
    assert seen[True, 0] == pytest.approx(middle, abs=0.5)
    assert seen[True, N_FRAMES - 1] == pytest.approx(middle, abs=0.5)


@needs_browser
def test_playing(page: Any) -> None:
    show_people_only(page)
    before = canvas_image(page)
    page.click("#play")
    until(page, "tcmr.frame > 5")
    assert page.get_attribute("#play", "aria-label") == "Pause"
    page.keyboard.press("Home")
    until(page, "tcmr.frame > 5")
    page.click("#play")
    assert not page.evaluate("tcmr.playing")
    frame = page.evaluate("tcmr.frame")
    page.evaluate("frame => tcmr.show(frame)", frame)
    await_picture(page, frame)
    assert (canvas_image(page) != before).any()


@needs_browser
def test_loop_or_end(page: Any) -> None:
    page.select_option("#speed", "2")
    page.evaluate(f"tcmr.show({N_FRAMES - 4})")
    page.click("#play")
    until(page, f"tcmr.playing && tcmr.frame < {N_FRAMES - 10}")
    page.click("#play")
    page.click("#loop")
    page.evaluate(f"tcmr.show({N_FRAMES - 4})")
    page.click("#play")
    until(page, "!tcmr.playing")
    assert page.evaluate("tcmr.frame") == N_FRAMES - 1


@needs_browser
def test_keys_and_buttons_step_by_frames(page: Any) -> None:
    page.evaluate("tcmr.show(12)")
    steps = {"ArrowRight": 13, "ArrowLeft": 12, "Shift+ArrowRight": 22, "End": N_FRAMES - 1, "Home": 0}
    for key, frame in steps.items():
        page.keyboard.press(key)
        assert page.evaluate("tcmr.frame") == frame
    page.click("#forth")
    page.click("#forth")
    page.click("#back")
    assert page.evaluate("tcmr.frame") == 1
    page.focus("#frame")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("tcmr.frame") == 2


@needs_browser
def test_attention_of_the_chosen_person_is_told(page: Any, scene: Scene) -> None:
    page.locator("#people .choose").nth(1).click()
    page.evaluate("tcmr.show(17)")
    told = [text.removesuffix(" %") for text in page.locator("#attention-legend b").all_text_contents()]
    expected = 100 * scene.people[1].attention[scene.people[1].row(17)]
    np.testing.assert_allclose([float(text) for text in told], expected, atol=0.5 + 1e-4)
    page.evaluate("tcmr.show(2)")
    assert page.locator("#attention-legend b").all_text_contents() == ["–"] * 3


@needs_browser
def test_without_attention_there_is_no_chart_of_it(page: Any, html: Path, scene: Scene) -> None:
    assert page.locator("#attention-chart").is_visible()
    values = scene.people[0].attention
    ours, none = (base64.b64encode(array.tobytes()).decode() for array in (values, 0 * values))
    text = html.read_text(encoding="utf-8")
    assert ours in text
    changed = html.with_name(f"{html.name}.changed.html")
    changed.write_text(text.replace(ours, none), encoding="utf-8")
    open_page(page, changed)
    page.evaluate("tcmr.show(5)")
    assert page.locator("#contacts").is_visible() and not page.locator("#attention-chart").is_visible()
    page.locator("#people .choose").nth(1).click()
    assert page.locator("#attention-chart").is_visible()


@needs_browser
def test_the_button_saves_the_scene_that_is_exported(
    page: Any, scene: Scene, open_body: BodyData, tmp_path: Path
) -> None:
    with page.expect_download() as download:
        page.click("#save")
    saved = tmp_path / "saved.glb"
    download.value.save_as(saved)
    assert download.value.suggested_filename.endswith(".glb")
    (exported,) = gltf.export(scene, open_body, tmp_path)
    assert saved.read_bytes() == exported.read_bytes()
    nodes = [node.name for node in pygltflib.GLTF2().load_binary(saved).nodes]
    assert {"person_1", "person_4"} <= set(nodes)


@needs_browser
def test_names_stay_text(page: Any) -> None:
    assert page.title() == NAME
    assert page.locator("h1").text_content() == NAME


@needs_browser
@pytest.mark.parametrize("size", [(1280, 720), (360, 640)])
def test_nothing_lies_outside_the_window(page: Any, size: tuple[int, int]) -> None:
    page.set_viewport_size({"width": size[0], "height": size[1]})
    page.evaluate("new Promise(requestAnimationFrame)")
    assert page.evaluate("document.documentElement.scrollWidth") == size[0]
    outside = page.evaluate(
        """[...document.querySelectorAll('header *, footer *, section, .panel')].filter(element => {
            const { left, right, width } = element.getBoundingClientRect();
            return width > 0 && (left < -1 || right > innerWidth + 1);
        }).map(element => element.id || element.tagName)"""
    )
    assert outside == []


@needs_browser
def test_a_video_that_the_browser_cannot_play(chromium: Any, html: Path, tmp_path: Path) -> None:
    start = html.read_text().index('id="video-data">') + len('id="video-data">')
    text = html.read_text()
    broken = tmp_path / "broken.html"
    broken.write_text(text[:start] + "AAAA" + text[text.index("</script>", start) :])
    page = chromium.new_page()
    open_page(page, broken)
    assert page.is_visible("#no-video")
    page.click("#play")
    until(page, "tcmr.frame > 3")
    page.evaluate("tcmr.show(7)")
    assert page.evaluate("tcmr.frame") == 7
    page.close()


@needs_browser
def test_a_browser_without_webgl_says_so(chromium: Any, html: Path) -> None:
    page = chromium.new_page()
    page.add_init_script("HTMLCanvasElement.prototype.getContext = () => null")
    page.goto(html.as_uri())
    page.wait_for_selector("#note:visible")
    assert "WebGL" in page.text_content("#note")
    page.close()


@needs_browser
@pytest.mark.parametrize("fps", [0.5, 9000])
def test_moving_cameras_and_strange_rates(
    chromium: Any, scene: Scene, open_body: BodyData, video: Path, fps: float
) -> None:
    path = video.with_name("moving.html")
    people = tuple(replace(motion, fps=fps) for motion in scene.people)
    write_viewer(replace(scene, people=people, camera_moves=True, fps=fps), open_body, VideoFile(video), path)
    page = chromium.new_page()
    open_page(page, path)
    assert "camera moves" in page.text_content("#note")
    assert page.is_disabled("#video-view")
    page.evaluate("tcmr.show(29)")
    await_picture(page, 29)
    page.click("#play")
    until(page, "tcmr.frame != 29")
    page.close()


def test_wrong_videos_leave_no_page(scene: Scene, video: Path, tmp_path: Path) -> None:
    motions, output = tmp_path / "tcmr_output.npz", tmp_path / "viewer.html"
    blank = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    films = {
        "has 30 frames": encode(tmp_path / "short.mp4", [blank] * 30, fps=FPS),
        f"has more than {N_FRAMES} frames": encode(tmp_path / "long.mp4", [blank] * (N_FRAMES + 1), fps=FPS),
        "is 160x180 px": encode(tmp_path / "narrow.mp4", [blank[:, :160]] * N_FRAMES, fps=FPS),
        "no such video file": tmp_path / "none.mp4",
    }
    save_scene(scene, motions)
    for message, film in films.items():
        with pytest.raises(UserError, match=message):
            main([str(motions), "--video", str(film)])
    with pytest.raises(UserError, match="SMPL_NEUTRAL"):
        save_scene(replace(scene, body="smpl"), motions)
        main([str(motions), "--video", str(video), "--base_data", str(tmp_path)])
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".mp4"] * 3 + [".npz"]
    assert not output.exists()


def test_a_damaged_scene_is_one_line(scene: Scene, video: Path, tmp_path: Path) -> None:
    motions = tmp_path / "tcmr_output.npz"
    save_scene(scene, motions)
    motions.write_bytes(motions.read_bytes()[:-5000])
    command = [sys.executable, "-m", "lib.motion.viewer", str(motions), "--video", str(video)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "tcmr_output.npz" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["tcmr_output.npz"]


def test_frames_that_the_video_lacks_are_refused(scene: Scene) -> None:
    with pytest.raises(ValueError, match="person 1 is in frames"):
        replace(scene, n_frames=N_FRAMES - 1)
    with pytest.raises(ValueError, match="n_frames is 0"):
        replace(scene, n_frames=0, people=())


def test_three_js_is_what_notice_says() -> None:
    notice = (ROOT / "NOTICE").read_text()
    for path in sorted((ROOT / "lib/motion/viewer_assets/three").iterdir()):
        assert f"{sha256(path)}  {path.name}" in notice

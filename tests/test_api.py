"""The public API: its names and signatures, and what it gives beside what the commands give."""

from __future__ import annotations

import inspect
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch

import lib
from lib import api
from lib.commands import VERBS
from lib.core import own_predictions
from lib.core.build import load_model
from lib.core.config import load_config
from lib.demo.tracking import track_people
from lib.models.body import OPEN_DATA, load_body
from lib.models.predict import predict_sequence
from lib.models.smpl import SMPL
from lib.utils import metrics
from lib.utils.errors import UserError
from lib.utils.files import dump_joblib
from lib.utils.keypoints import convert_kps

ROOT = Path(__file__).resolve().parents[1]

TRACK = api.Track(
    1, np.arange(2), *(np.zeros((2, *shape), np.float32) for shape in [(4,), (33, 2), (33,), (33, 3)])
)
SIGNATURES = {
    "recover": "source, *, checkpoint, device, fps, size, tracks, poses, person, min_seconds, detector, "
    "fit, smooth, focal, height, up, lock_feet, progress",
    "load": "checkpoint, device",
    "evaluate": "predictions, truth, protocol",
    "export": "scene, folder, formats",
    "read_database": "path, fields",
    "save_scene": "scene, path, mark",
    "load_scene": "path",
    "Predictor.predict": "self, features, *, fps, vertices",
    "Predictor.stream": "self, *, fps, delay, vertices",
}
CLASSES = {
    "Scene": {"name", "people", "camera", "fps", "n_frames", "body", "gender", "world_rotation",
              "world_offset", "camera_moves", "feet_locked"},
    "Motion": {"person_id", "frames", "frame_ids", "betas", "camera", "world", "contacts", "boxes",
               "joints3d", "joints2d", "attention", "fps", "poses", "trans", "row"},
    "Placed": {"rotmat", "transl", "poses", "trans", "moved"},
    "Predictor": {"model", "cfg", "checkpoint", "feature_size", "predict", "stream"},
    "Track": {"person_id", "frame_ids", "bboxes", "xy", "visibility", "world"},
    "UserError": {"args", "add_note", "with_traceback"},
}  # fmt: skip


def test_names() -> None:
    functions = {name for name in SIGNATURES if "." not in name}
    assert set(lib.__all__) == set(api.__all__) == functions | set(CLASSES)
    assert all(getattr(lib, name) is getattr(api, name) for name in lib.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        lib.nonsense  # noqa: B018


@pytest.mark.parametrize("name", SIGNATURES)
def test_signatures(name: str) -> None:
    function = api
    for part in name.split("."):
        function = getattr(function, part)
    shown, starred = [], False
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and not starred:
            shown.append("*")
            starred = True
        shown.append(parameter.name)
    assert ", ".join(shown) == SIGNATURES[name]


@pytest.mark.parametrize("name", CLASSES)
def test_attributes(name: str) -> None:
    cls = getattr(api, name)
    fields = set(getattr(cls, "__dataclass_fields__", ()))
    found = fields | {attribute for attribute in dir(cls) if not attribute.startswith("_")}
    if name == "UserError":  # add_note came with Python 3.11
        found |= {"add_note"}
    assert found == CLASSES[name]


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_takes_its_arguments(verb: str, capsys, monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", ["tcmr", "of another program"])
    module = import_module(VERBS[verb][0], "lib.commands")
    with pytest.raises(SystemExit) as ended:
        module.main(["--help"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("usage: ")


def test_import_loads_no_library() -> None:
    code = (
        "import sys, lib, lib.open_data.assets; lib.__version__; "
        "print([m for m in ('torch', 'numpy', 'cv2') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.fixture(scope="module")
def film() -> np.ndarray:
    """Every fourth of the sample video's first frames, which holds one person."""
    from lib.utils.pinned import asset_path
    from lib.video.video_file import VideoFile

    frames = [frame for i, frame in zip(range(40), VideoFile(asset_path("demo_video"))) if i % 4 == 0]
    return np.stack(frames)


def test_recover_from_frames_and_from_tracks(film, capfd) -> None:
    """The frames' own tracks give the same scene without the frames."""
    told: list[tuple[str, int, int | None]] = []
    scene = api.recover(film, fps=7.5, detector="full", device="cpu", progress=lambda *a: told.append(a))
    assert capfd.readouterr() == ("", "")
    (person,) = scene.people
    n = len(person.frame_ids)
    assert (scene.fps, person.fps, scene.n_frames) == (7.5, 7.5, len(film))
    assert (person.poses.shape, person.trans.shape, person.betas.shape) == ((n, 72), (n, 3), (10,))
    assert {stage for stage, *_ in told} == {"tracking", "features", "TCMR", "fit"}
    assert [done for stage, done, _ in told if stage == "tracking"] == list(range(1, len(film) + 1))
    # axis-angle is of the same rotations
    angle = np.linalg.norm(person.poses.reshape(n, 24, 3), axis=-1)
    trace = np.trace(person.camera.rotmat, axis1=-2, axis2=-1)
    np.testing.assert_allclose(np.cos(angle), (trace - 1) / 2, atol=1e-5)

    engine = api._engine(api.DemoOptions(detector="full", device="cpu"))
    camera = scene.camera
    assert engine.detector is not None
    network = engine.landmarks.with_focal(camera.focal)
    tracks = track_people(film, engine.detector, network, fps=7.5)
    again = api.recover(tracks, fps=7.5, size=(camera.width, camera.height), detector="full", device="cpu")
    np.testing.assert_array_equal(again.people[0].poses, person.poses)
    np.testing.assert_array_equal(again.people[0].trans, person.trans)
    with pytest.raises(UserError, match=r"size=\(W, H\)"):
        api.recover(tracks)


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        (np.zeros((0, 8, 8, 3), np.uint8), "there are no frames"),
        (np.zeros((2, 8, 8), np.uint8), r"frame 0 is uint8 of shape \(8, 8\)"),
        (np.zeros((2, 8, 8, 3)), "frame 0 is float64"),
        ([np.zeros((8, 8, 3), np.uint8), np.zeros((8, 9, 3), np.uint8)], "frame 1 has shape"),
    ],
)
def test_frames_that_are_none(frames, reason) -> None:
    with pytest.raises(UserError, match=reason):
        api.recover(frames, detector="full", device="cpu")


def test_predictor_is_predict_sequence() -> None:
    predictor = api.load(device="cpu")
    features = np.random.default_rng(0).normal(size=(40, predictor.feature_size)).astype(np.float32)
    model, cfg = load_model(predictor.checkpoint, None, load_body("", open_dir=OPEN_DATA))
    expected = predict_sequence(model, features, return_verts=False, borders="edge", step=2)
    assert not cfg.COMPAT.STATIC_BORDERS
    found = predictor.predict(features, fps=60)
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)
    assert predictor.predict(features[:3], vertices=True)["verts"].shape == (3, 6890, 3)
    with pytest.raises(UserError, match=r"expected \(frames, 256\)"):
        predictor.predict(features[:, :7])

    stream = predictor.stream(fps=60)
    pushed = [stream.push(feature) for feature in features]
    streamed = [output for output in pushed if output is not None] + stream.finish()
    assert stream.delay == pushed.index(streamed[0])
    for name in ("rotmat", "theta", "kp_3d"):
        np.testing.assert_allclose([output[name] for output in streamed], expected[name], atol=1e-5)


RNG = np.random.default_rng(1)
TRUTH = {name: RNG.normal(0, 0.3, (n, 14, 3)) for name, n in (("a", 9), ("b", 14))}
PREDICTED = {name: joints + RNG.normal(0, 0.05, joints.shape) for name, joints in TRUTH.items()}


def naive(pred: np.ndarray, true: np.ndarray) -> tuple[float, float]:
    """MPJPE and Accel error of one video about the middle of the hips, mm, spelt out."""
    pred, true = (x - (x[:, 2:3] + x[:, 3:4]) / 2 for x in (pred, true))
    distances = [np.linalg.norm(p - t) for P, T in zip(pred, true) for p, t in zip(P, T)]
    error = pred - true
    accelerations = [
        np.linalg.norm(error[t - 1, j] - 2 * error[t, j] + error[t + 1, j])
        for t in range(1, len(error) - 1)
        for j in range(14)
    ]
    return 1000 * float(np.mean(distances)), 1000 * float(np.mean(accelerations))


def test_evaluate_joints() -> None:
    result = api.evaluate(PREDICTED, TRUTH, "open")
    for name in TRUTH:
        mpjpe, accel = naive(PREDICTED[name], TRUTH[name])
        assert result["per_sequence"][name]["mpjpe"] == pytest.approx(mpjpe)
        assert result["per_sequence"][name]["accel_err"] == pytest.approx(accel)
    assert result["num_poses"] == 23
    means = [naive(PREDICTED[name], TRUTH[name])[0] for name in TRUTH]
    assert result["mpjpe"] == pytest.approx((9 * means[0] + 14 * means[1]) / 23)
    moved = {name: 1.3 * joints + 5 for name, joints in TRUTH.items()}
    assert api.evaluate(moved, TRUTH, "open")["mpjpe_pa"] == pytest.approx(0, abs=1e-6)


def test_evaluate_a_file_against_a_database(tmp_path: Path) -> None:
    """Predictions with and without names, of all frames or of the valid ones, come to the same."""
    names = np.array(["a"] * 9 + ["b"] * 14)
    valid = np.ones(23, int)
    valid[[2, 11]] = 0
    joints, predicted = (np.concatenate([part["a"], part["b"]]) for part in (TRUTH, PREDICTED))
    dump_joblib(
        {"vid_name": names, "joints3D": joints.astype(np.float32), "valid": valid[:, None],
         "pose": np.zeros((23, 72), np.float32), "shape": np.zeros((23, 10), np.float32)},
        tmp_path / "db.pt",
    )  # fmt: skip
    np.savez(tmp_path / "rows.npz", joints=predicted)
    order = np.r_[9:23, 0:9]
    np.savez(tmp_path / "named.npz", joints=predicted[order], vid_name=names[order])
    kept = valid == 1
    np.savez(tmp_path / "valid.npz", joints=predicted[kept], vid_name=names[kept])
    found = [
        api.evaluate(tmp_path / f"{name}.npz", tmp_path / "db.pt", "open")
        for name in ("rows", "named", "valid")
    ]
    assert found[0] == found[1] == found[2]
    assert found[0]["num_poses"] == 21
    assert found[0]["accel_err_m_s2"] == pytest.approx(found[0]["accel_err"] / 1000 * 30**2)
    np.savez(tmp_path / "short.npz", joints=predicted[1:])
    with pytest.raises(UserError, match="expected 23 rows"):
        api.evaluate(tmp_path / "short.npz", tmp_path / "db.pt", "open")
    np.savez(tmp_path / "one.npz", joints=predicted[:9], vid_name=names[:9])
    with pytest.raises(UserError, match="no predictions of b; they are of a"):
        api.evaluate(tmp_path / "one.npz", tmp_path / "db.pt", "open")


def test_evaluate_poses(open_body) -> None:
    """Poses and shapes become the joints and vertices of the body; the truth against itself is without error,
    and a betas vector counts for all frames."""
    rng = np.random.default_rng(2)
    poses, betas = rng.normal(0, 0.3, (5, 72)).astype(np.float32), rng.normal(size=10).astype(np.float32)
    true = {"v": {"poses": poses, "betas": betas}}
    assert api.evaluate(true, true, "open")["mpvpe"] == pytest.approx(0, abs=1e-4)
    smpl = SMPL(open_body)
    with torch.inference_mode():
        output = smpl(
            torch.from_numpy(betas).expand(5, -1),
            torch.from_numpy(poses[:, 3:]),
            torch.from_numpy(poses[:, :3]),
        )
    joints = convert_kps(output.joints.numpy(), "spin", "common")
    other = {"v": {"poses": poses * 1.1, "betas": betas}}
    result = api.evaluate(other, {"v": {"joints": joints, "vertices": output.vertices.numpy()}}, "open")
    found = api.evaluate(other, true, "open")
    assert result["mpjpe"] == pytest.approx(found["mpjpe"], rel=1e-4)
    assert result["mpvpe"] == pytest.approx(found["mpvpe"], rel=1e-4)
    with torch.inference_mode():
        moved = smpl(
            torch.from_numpy(betas).expand(5, -1),
            torch.from_numpy(poses[:, 3:] * 1.1),
            torch.from_numpy(poses[:, :3] * 1.1),
        ).vertices.numpy()
    expected = 1000 * metrics.vertex_error(moved, output.vertices.numpy()).mean()
    assert found["mpvpe"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (np.zeros((9, 13, 3)), r"joints have shape \(9, 13, 3\), expected \(n, 14, 3\)"),
        (np.full((9, 14, 3), np.nan), "not finite"),
        (np.zeros((8, 14, 3)), "8 frames, its truth of 9"),
        ({"poses": np.zeros((9, 72))}, "poses without betas"),
        ({"poses": np.zeros((9, 71)), "betas": np.zeros(10)}, r"expected \(n, 72\)"),
        ({"wrong": 1}, "expected joints"),
        (np.full((9, 14, 3), "a"), "expected numbers"),
        (np.zeros((9, 14, 3), complex), "expected numbers"),
        ({"joints": [[1, 2], [3]]}, "ragged"),
        ({"poses": np.float32(3), "betas": np.zeros(10)}, "expected numbers"),
        (
            {"joints": np.zeros((9, 14, 3)), "vertices": np.zeros((9, 5, 3))},
            r"vertices have shape \(9, 5, 3\)",
        ),
    ],
)
def test_evaluate_refuses(entry, reason) -> None:
    with pytest.raises(UserError, match=reason):
        api.evaluate({"a": entry}, {"a": TRUTH["a"]}, "open")


def test_one_shape_for_a_video_with_frames_left_out(tmp_path: Path) -> None:
    """Ten frames, as many as betas, of which one is not valid."""
    poses, betas = RNG.normal(0, 0.3, (10, 72)).astype(np.float32), RNG.normal(size=10).astype(np.float32)
    valid = np.arange(10) != 4
    dump_joblib(
        {"vid_name": np.array(["v"] * 10), "joints3D": np.zeros((10, 14, 3), np.float32),
         "valid": valid.astype(int), "pose": poses, "shape": np.tile(betas, (10, 1))},
        tmp_path / "db.pt",
    )  # fmt: skip
    result = api.evaluate({"v": {"poses": poses, "betas": betas}}, tmp_path / "db.pt", "open")
    assert result["num_poses"] == 9
    assert result["mpvpe"] == pytest.approx(0, abs=1e-4)


def test_vertices_count_where_all_videos_have_them() -> None:
    vertices = np.zeros((9, 6890, 3))
    both = {"joints": TRUTH["a"], "vertices": vertices}
    for order in (("a", "b"), ("b", "a")):
        truth = {name: both if name == "a" else TRUTH[name] for name in order}
        result = api.evaluate({**TRUTH, "a": both}, truth, "open")
        assert "mpvpe" not in result
        assert result["per_sequence"]["a"]["mpvpe"] == 0
    infinite = {"a": np.where(np.arange(14)[:, None] == 3, np.inf, TRUTH["a"])}
    with pytest.raises(UserError, match="not finite"):
        api.evaluate(TRUTH, infinite, "open")
    unseen = TRUTH["a"].copy()
    unseen[0, 5, 1] = np.nan  # of a joint that was not seen no coordinate counts
    assert api.evaluate(TRUTH, {"a": unseen}, "open")["mpjpe"] == pytest.approx(0)


def test_poses_are_of_the_datasets_body(monkeypatch, base_data, open_body) -> None:
    monkeypatch.setattr(own_predictions, "BASE_DATA", str(base_data))
    poses = {"v": {"poses": np.zeros((3, 72)), "betas": np.zeros(10)}}
    assert api.evaluate(poses, poses, "open")["body"] == "open"
    assert api.evaluate(poses, poses, "3dpw")["body"] == "smpl"


def test_two_threads_recover_one_after_the_other(film) -> None:
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(
            lambda _: api.recover(film, fps=7.5, detector="full", device="cpu"), range(2)
        )
    np.testing.assert_array_equal(first.people[0].poses, second.people[0].poses)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"up": "sideways"}, "--up sideways"),
        ({"fps": "fast"}, "fps is 'fast'"),
        ({"focal": []}, "focal is"),
        ({"source": 3}, "source is a int"),
        ({"source": (frame for frame in ())}, "source is a generator"),
        ({"source": [TRACK], "size": (0, 9)}, r"size=\(W, H\)"),
        ({"source": [TRACK], "poses": "a.npz"}, "tracks already"),
        ({"source": [replace(TRACK, frame_ids=np.array([0, 2]))], "size": (9, 9)}, "consecutive"),
        ({"source": [replace(TRACK, frame_ids=np.array([], int))], "size": (9, 9)}, "consecutive"),
    ],
)
def test_options_of_recover_that_make_no_sense(film, options, reason) -> None:
    with pytest.raises(UserError, match=reason):
        api.recover(**{"source": film, "detector": "full", "device": "cpu", **options})


@pytest.mark.parametrize("fps", [0, -30, np.nan, 1e9, "x"])
def test_frame_rates_that_make_no_sense(fps) -> None:
    predictor = api.load(device="cpu")
    with pytest.raises(UserError, match="fps is"):
        predictor.predict(np.zeros((4, predictor.feature_size)), fps=fps)
    with pytest.raises(UserError, match="fps is"):
        predictor.stream(fps=fps)
    with pytest.raises(UserError, match="delay is -1"):
        predictor.stream(delay=-1)
    with pytest.raises(UserError, match="expected numbers"):
        predictor.predict([["a"]])


def test_read_database(tmp_path: Path) -> None:
    content = {"vid_name": np.array(["a", "a"]), "features": np.zeros((2, 4), np.float32)}
    dump_joblib(content, tmp_path / "db.pt")
    assert set(api.read_database(tmp_path / "db.pt")) == {"vid_name", "features"}
    assert set(api.read_database(tmp_path / "db.pt", ["features"])) == {"features"}
    with pytest.raises(UserError, match="lacks pose"):
        api.read_database(tmp_path / "db.pt", ["pose"])


def test_configurations_find_what_ships_from_any_folder(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    cfg = load_config("configs/open.yaml")
    assert Path(cfg.TRAIN.PRETRAINED) == Path(OPEN_DATA) / "tcmr_open.pth.tar"
    assert cfg.PATHS.BASE_DATA == "data/base_data" or Path(cfg.PATHS.BASE_DATA).is_dir()

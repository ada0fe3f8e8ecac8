"""Every variant through the same tests: bodies x temporal encoders x precisions, extractors, export formats.

What is registered is tested, new encoders and extractors with nothing added here, formats with a reader.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import bvhio
import numpy as np
import pytest
import smplx
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy.spatial.transform import Rotation
from smplx.lbs import lbs
from smplx.utils import Struct

from lib.core.build import load_model
from lib.core.config import get_cfg_defaults, to_dict
from lib.models.body import BodyData
from lib.models.extractors import EXTRACTORS, Extractor, PoseTrack, SpinExtractor, get_extractor
from lib.models.hmr import HMR
from lib.models.inference import PreparedTCMR
from lib.models.precision import Precision, check_precision
from lib.models.predict import predict_sequence
from lib.models.stream import StreamingPredictor
from lib.models.tcmr import TCMR
from lib.models.temporal import ENCODERS, TemporalEncoder
from lib.motion.exporters import EXPORTERS, export_scene
from lib.motion.exporters.skeleton import BONES
from lib.motion.exporters.trc import MARKERS
from lib.motion.motion import Motion, Scene
from lib.utils.errors import UserError
from lib.utils.files import load_joblib, save_checkpoint
from tests.export_tools import Glb, make_scene, naive_joints
from tests.golden_tools import fill_by_recipe

pytestmark = pytest.mark.usefixtures("one_thread")
OPEN = Path(__file__).resolve().parents[1] / "data" / "open"
T, F, LENGTH = 7, 160, 20
BODIES = ("open_body", "smpl_body")


def available(precision: Precision) -> bool:
    try:
        check_precision(precision, torch.device("cpu"))
    except UserError:
        return False
    return True


PRECISIONS = [precision for precision in get_args(Precision) if available(precision)]
NEAR = {"fp32": 1e-4, "tf32": 1e-2, "bf16": 0.1, "fp16": 0.02}  # what a change of precision may change


# --------------------------------------------------------------------------------
# Networks


class Mean(TemporalEncoder):
    """As a plugin may be: the constructor, and forward; noisy in training mode."""

    def __init__(self, n_layers: int, seq_len: int, hidden_size: int, feature_size: int) -> None:
        super().__init__(n_layers, seq_len, hidden_size, feature_size)
        self.net = torch.nn.Sequential(torch.nn.Linear(feature_size, feature_size), torch.nn.Dropout())

    def forward(self, x: torch.Tensor, is_train: bool = False) -> tuple[torch.Tensor, None]:
        feature = self.net(x).mean(dim=1)
        return (feature[:, None] if is_train else feature), None


encoders = [*{encoder: name for name, encoder in ENCODERS.items()}.values(), "a plugin's"]
variants = [(body, name, False) for body in BODIES for name in encoders] + [("open_body", encoders[0], True)]


@dataclass
class Case:
    body: BodyData
    encoder: str
    model: TCMR
    features: np.ndarray
    starts: bool

    def explicit(self) -> dict[str, np.ndarray]:
        """Every window written out and put through the network's plain forward, in float64."""
        windows = [[min(max(t + k - T // 2, 0), LENGTH - 1) for k in range(T)] for t in range(LENGTH)]
        chosen = torch.from_numpy(self.features[np.array(windows)]).double()
        with torch.no_grad():
            output = self.model.double()(chosen, return_verts=False)[0][0]
        self.model.float()
        return {name: value.numpy() for name, value in output.items()}


@pytest.fixture(scope="module", params=variants, ids=lambda v: f"{v[0][:4]}-{v[1]}{'-start' * v[2]}")
def case(request: pytest.FixtureRequest) -> Case:
    body, encoder, starts = request.param
    data = request.getfixturevalue(body)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ENCODERS, "a plugin's", Mean)
        model = TCMR(T, 2, 8, F, 16, 0.5, data, "edge", 0.0, starts, encoder=encoder)
    fill_by_recipe(model)
    features = np.random.default_rng(0).standard_normal((LENGTH, F)).astype(np.float32)
    return Case(data, encoder, model.eval(), features, starts)


def assert_near(found: dict[str, np.ndarray], expected: dict[str, np.ndarray], tolerance: float) -> None:
    assert found.keys() == expected.keys()
    for name in found.keys() - {"theta"}:  # whose angles jump at half a turn: rotmat is the same without
        scale = max(1.0, float(np.abs(expected[name]).max()))
        assert_allclose(found[name], expected[name], rtol=0, atol=tolerance * scale, err_msg=name)
    for part in (slice(0, 3), slice(75, 85)):
        assert_allclose(found["theta"][:, part], expected["theta"][:, part], rtol=0, atol=10 * tolerance)


def test_shapes(case: Case) -> None:
    windows = torch.from_numpy(case.features[: 2 * T]).view(2, T, F)
    shapes = {"theta": (85,), "verts": (6890, 3), "kp_2d": (49, 2), "kp_3d": (49, 3), "rotmat": (24, 3, 3)}
    outputs = case.model.encoder.outputs
    for is_train, leading in ((False, (2,)), (True, (2, outputs))):
        (output,), scores = case.model(windows, is_train=is_train)
        assert scores is None or scores.shape == (2, 3)
        assert ("scores" in output) == (scores is not None)
        for name, shape in shapes.items():
            assert output[name].shape == (*leading, *shape)
            assert output[name].isfinite().all()
    regressor = torch.from_numpy(case.body.J_regressor_h36m)
    (output,), _ = case.model(windows, J_regressor=regressor, return_verts=False)
    assert "verts" not in output and output["kp_3d"].shape == (2, 14, 3)
    unit = output["rotmat"] @ output["rotmat"].mT
    torch.testing.assert_close(unit, torch.eye(3).expand_as(unit), atol=1e-5, rtol=0)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_sequence_stream_and_windows_agree(case: Case, precision: Precision) -> None:
    """Whatever mode the model is in, and without a change of it; and twice the same."""
    options: dict[str, Any] = {"borders": "edge", "precision": precision, "return_verts": False}
    case.model.train()
    found = predict_sequence(case.model, case.features, batch_size=6, **options)
    again = predict_sequence(case.model, case.features, batch_size=6, **options)
    assert case.model.training and case.model.encoder.training
    stream = StreamingPredictor(case.model.eval(), **options)
    parts = [stream.push(feature) for feature in case.features]
    streamed = [part for part in parts if part is not None] + stream.finish()
    assert_near(found, case.explicit(), NEAR[precision])
    assert_near({name: np.stack([part[name] for part in streamed]) for name in found}, found, NEAR[precision])
    for name, values in found.items():
        assert values.dtype == np.float32 and np.isfinite(values).all(), name
        assert_array_equal(again[name], values, err_msg=name)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_prepared_is_the_same(case: Case, precision: Precision) -> None:
    frames = torch.from_numpy(case.features)
    windows = torch.arange(LENGTH - T + 1)[:, None] + torch.arange(T)
    with torch.inference_mode():
        prepared = PreparedTCMR(case.model, precision, rows=len(windows)).predict_windows(frames, windows)
        plain = case.model.predict_windows(frames, windows)
        (forward,), _ = case.model(frames[windows])
    numbers = [{k: v.float().numpy() for k, v in out.items()} for out in (prepared, plain, forward)]
    assert_near(numbers[0], numbers[2], NEAR[precision])
    assert_near(numbers[1], numbers[2], NEAR["fp32"])


def test_precisions_that_the_cpu_lacks_are_refused(case: Case) -> None:
    for precision in set(get_args(Precision)) - set(PRECISIONS):
        with pytest.raises(UserError, match=f"precision {precision}"):
            PreparedTCMR(case.model, precision)


def test_a_checkpoint_gives_the_model_back(case: Case, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(ENCODERS, "a plugin's", Mean)
    cfg = get_cfg_defaults()
    cfg.MODEL.TEMPORAL_TYPE, cfg.MODEL.FEATURE_SIZE, cfg.DATASET.SEQLEN = case.encoder, F, T
    cfg.MODEL.TGRU.HIDDEN_SIZE, cfg.MODEL.TGRU.NUM_LAYERS, cfg.MODEL.REGRESSOR.HIDDEN_SIZE = 8, 2, 16
    cfg.COMPAT.STATIC_BORDERS, cfg.MODEL.START_FROM_FEATURE = False, case.starts
    content = {"gen_state_dict": case.model.state_dict(), "body": case.body.kind, "config": to_dict(cfg)}
    save_checkpoint(content, tmp_path / "x.pth.tar")
    again, _ = load_model(tmp_path / "x.pth.tar", None, case.body)
    assert not again.training and again.borders == "edge"
    expected = predict_sequence(case.model, case.features, return_verts=False)
    for name, values in predict_sequence(again, case.features, return_verts=False).items():
        assert_array_equal(values, expected[name], err_msg=name)


def test_runs_train_every_weight(case: Case) -> None:
    """Runs of windows are those windows one after the other."""
    model = case.model.train().double()
    for dropout in [part for part in model.modules() if isinstance(part, torch.nn.Dropout)]:
        dropout.p = 0.0
    runs = torch.from_numpy(case.features[: 2 * (T + 2)]).double().view(2, T + 2, F)
    output = model.forward_runs(runs, 3)
    windows = torch.stack([run[k : k + T] for run in runs for k in range(3)])
    (expected,), _ = model(windows, is_train=True, return_verts=False)
    torch.testing.assert_close(output["kp_3d"], expected["kp_3d"])
    model.zero_grad()
    output["kp_2d"].square().sum().backward()
    for key, weight in model.named_parameters():
        assert not weight.requires_grad or weight.grad.any(), key
    model.eval().float()


# --------------------------------------------------------------------------------
# Extractors


@dataclass
class SeenTrack:
    """Somebody whose box and landmarks are known."""

    person_id: int
    frame_ids: np.ndarray
    bboxes: np.ndarray
    xy: np.ndarray
    visibility: np.ndarray
    world: np.ndarray


def some_tracks(name: str) -> list[SeenTrack] | list[PoseTrack]:
    """Two people in frames 0 to 2 and 1 to 3."""
    rng = np.random.default_rng(0)
    people = []
    for person in (0, 1):
        frames, boxes = np.arange(person, person + 3), np.tile(np.float32([40, 30, 40, 40]), (3, 1))
        if name == "poses":
            rotmat = Rotation.from_rotvec(rng.normal(0, 0.3, (72, 3))).as_matrix().reshape(3, 24, 3, 3)
            place = rng.uniform([30, 20, 15], [50, 40, 25], (3, 3))
            shape = rng.normal(size=(3, 10))
            people.append(PoseTrack(person, frames, boxes, np.ones(3, bool), rotmat, shape, place, 30.0))
        else:
            landmarks = (
                rng.normal([40, 30], 8, (3, 33, 2)),
                rng.random((3, 33)),
                rng.normal(0, 0.4, (3, 33, 3)),
            )
            people.append(SeenTrack(person, frames, boxes, *(part.astype(np.float32) for part in landmarks)))
    return people


SLOW = {"spin": pytest.mark.slow}


@pytest.fixture(scope="module", params=[pytest.param(name, marks=SLOW.get(name, ())) for name in EXTRACTORS])
def extractor(request: pytest.FixtureRequest, open_body: BodyData) -> Extractor:
    if request.param == "spin":  # whose weights nobody may hand on
        torch.manual_seed(0)
        return SpinExtractor(HMR(open_body).eval())
    return get_extractor(request.param, open_body, open_dir=OPEN)


def test_extractors(extractor: Extractor) -> None:
    frames = np.random.default_rng(1).integers(0, 256, (5, 60, 80, 3), dtype=np.uint8)
    tracks, done = some_tracks(extractor.name), []
    found = extractor(iter(frames), tracks, done.append)
    assert sum(done) == 6 and len(found) == 2
    for static, again in zip(found, extractor(frames if extractor.needs_frames else [], tracks)):
        assert static.values.shape == (3, extractor.feature_size) and static.values.dtype == np.float32
        assert static.bboxes.shape == (3, 4)
        assert np.isfinite(static.values).all() and (static.bboxes[:, 2:] > 0).all()
        assert_array_equal(again.values, static.values)
        assert_array_equal(again.bboxes, static.bboxes)
    assert not np.allclose(found[0].values, found[1].values)
    (alone,) = extractor(frames, tracks[1:])
    assert_allclose(alone.values, found[1].values, rtol=1e-3, atol=1e-3)


# --------------------------------------------------------------------------------
# Export formats


MM = 1e-3
Points = tuple[np.ndarray, np.ndarray]  # what a file says, and what is true
SEEN = {
    "Shoulder": 16,
    "Elbow": 18,
    "Wrist": 20,
    "Knee": 4,
    "Ankle": 7,
}  # SMPL's of the left side; right is next


def world_vertices(body: BodyData, motion: Motion) -> np.ndarray:
    """(T, V, 3) by smplx."""
    rotmat = torch.from_numpy(motion.world.rotmat)
    tensors = [torch.from_numpy(np.array(value)) for value in
               (body.v_template, body.shapedirs, body.posedirs.reshape(-1, 207).T, body.J_regressor,
                body.parents, body.weights)]  # fmt: skip
    betas = torch.from_numpy(motion.betas).expand(len(motion), -1)
    return lbs(betas, rotmat, *tensors, pose2rot=False)[0].numpy() + motion.world.transl[:, None]


def read_npz(folder: Path, scene: Scene, motion: Motion, body: BodyData) -> Points:
    data = np.load(folder / f"person_{motion.person_id}.npz", allow_pickle=False)
    n, tree = len(motion), np.stack([body.parents.copy(), np.arange(24)])
    names = ("v_template", "shapedirs", "posedirs", "J_regressor", "weights")
    fields = {name: getattr(body, name) for name in names} | {"f": body.faces, "kintree_table": tree}
    poses, trans, betas = (torch.from_numpy(data[name]) for name in ("poses_smpl", "trans", "betas"))
    smpl = smplx.SMPL("", data_struct=Struct(**fields), batch_size=n)
    betas = betas[:10].expand(n, -1)
    joints = smpl(betas=betas, global_orient=poses[:, :3], body_pose=poses[:, 3:], transl=trans).joints
    x, y, z = joints[:, :24].detach().numpy().transpose(2, 0, 1)  # z up
    return np.stack([x, z, -y], axis=-1), naive_joints(body, motion)


def read_bvh(folder: Path, scene: Scene, motion: Motion, body: BodyData) -> Points:
    root = bvhio.readAsHierarchy(str(folder / f"person_{motion.person_id}.bvh"))
    joints = {joint.Name: joint for joint, _, _ in root.layout()}
    assert sorted(joints) == sorted(BONES)
    found = []
    for row in range(len(motion)):
        root.loadPose(row)
        found.append([list(joints[name].PositionWorld) for name in BONES])
    return np.array(found) / 100, naive_joints(body, motion)


def read_glb(folder: Path, scene: Scene, motion: Motion, body: BodyData) -> Points:
    glb = Glb.read(folder / "scene.glb")
    moments = (motion.frames / scene.fps).astype(np.float32)
    found = [glb.joints(f"person_{motion.person_id}", moment) for moment in moments]
    return np.array(found), naive_joints(body, motion)


def read_json(folder: Path, scene: Scene, motion: Motion, body: BodyData) -> Points:
    content = json.loads((folder / "scene.json").read_text())
    (category,) = content["categories"]
    rows = [row for row in content["annotations"] if row["person_id"] == motion.person_id]
    assert [row["image_id"] for row in rows] == motion.frames.tolist()
    names = [f"{side}_{part.lower()}" for part in SEEN for side in ("left", "right")]
    columns = [category["keypoints"].index(name) for name in names]
    found = np.array([row["keypoints_3d"] for row in rows])[:, columns]
    return found, naive_joints(body, motion)[:, [j + right for j in SEEN.values() for right in (0, 1)]]


def read_trc(folder: Path, scene: Scene, motion: Motion, body: BodyData) -> Points:
    lines = (folder / f"person_{motion.person_id}.trc").read_text().splitlines()[6:]
    markers = np.array([line.split("\t") for line in lines], float)[:, 2:].reshape(len(motion), -1, 3)
    found = markers[:, [MARKERS.index(side + part) for part in SEEN for side in "LR"]]
    return found, naive_joints(body, motion)[:, [j + right for j in SEEN.values() for right in (0, 1)]]


def read_obj(folder: Path, scene: Scene, motion: Motion, body: BodyData) -> Points:
    found = []
    for frame in motion.frames[[0, -1]]:
        path = folder / "meshes" / f"{motion.person_id:04d}" / f"{frame:06d}.obj"
        lines = [line.split() for line in path.read_text().splitlines()]
        assert_array_equal(np.array([line[1:] for line in lines if line[0] == "f"], int), body.faces + 1)
        found.append(np.array([line[1:] for line in lines if line[0] == "v"], float))
    return np.array(found), world_vertices(body, motion)[[0, -1]]


def read_pkl(folder: Path, scene: Scene, motion: Motion, body: BodyData) -> Points:
    result = load_joblib(folder / "tcmr_output.pkl")[motion.person_id]
    seen = result["verts"] + result["trans"][:, None]
    return seen @ scene.world_rotation.T + scene.world_offset, world_vertices(body, motion)


READERS: dict[str, Callable[[Path, Scene, Motion, BodyData], Points]] = {
    "npz": read_npz, "bvh": read_bvh, "glb": read_glb, "json": read_json, "trc": read_trc,
    "obj": read_obj, "pkl": read_pkl,
}  # fmt: skip
formats = pytest.mark.parametrize("name", EXPORTERS)


@pytest.fixture(scope="module", params=BODIES)
def exported(request: pytest.FixtureRequest) -> tuple[Scene, BodyData]:
    body = request.getfixturevalue(request.param)
    return make_scene(body), body


def contents(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@formats
def test_exported_bodies_are_where_the_scenes_are(exported, name: str, tmp_path: Path) -> None:
    scene, body = exported
    written = export_scene(scene, body, tmp_path / "a", [name])
    assert written and all(path.exists() for path in written)
    assert {path.relative_to(tmp_path / "a").parts[0] for path in written} == {
        Path(file).parts[0] for file in contents(tmp_path / "a")
    }
    export_scene(scene, body, tmp_path / "b", [name])
    assert contents(tmp_path / "a") == contents(tmp_path / "b")  # nothing tells when it was written
    for motion in scene.people if name in READERS else []:
        found, truth = READERS[name](tmp_path / "a", scene, motion, body)
        assert_allclose(found, truth, atol=1e-5 if name == "obj" else MM)


@formats
def test_a_scene_without_people_is_refused(exported, name: str, tmp_path: Path) -> None:
    scene, body = exported
    with pytest.raises(UserError, match="nobody is in the scene") as refused:
        export_scene(replace(scene, people=()), body, tmp_path, [name])
    assert "\n" not in str(refused.value)
    assert not contents(tmp_path)


def test_all_formats_are_read() -> None:
    assert set(READERS) == set(EXPORTERS)  # a new format needs a reader that is not ours

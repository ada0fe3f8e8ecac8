"""Facts about the original, one by one, that no other file's tests pin: numbers from running it, its tables,
and definitions written out by hand."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from yacs.config import CfgNode

from lib.core import evaluator
from lib.core.build import build_model
from lib.core.config import get_cfg_defaults, load_config
from lib.core.evaluation_set import EvaluationSet
from lib.core.evaluator import evaluate
from lib.core.seeding import seed_everything
from lib.core.trainer import Trainer
from lib.dataset.datasets import DATASETS, database_path, get_spec, training_set
from lib.dataset.windows import split_into_chunks, window_frames
from lib.models.body import BodyData
from lib.models.encoder import PoseForecast
from lib.models.hmr import HMR
from lib.models.predict import window_indices
from lib.models.regressor import Regressor
from lib.models.smpl import SMPL
from lib.models.tcmr import TCMR
from lib.utils import geometry, metrics
from lib.utils.errors import UserError
from lib.utils.files import dump_joblib, load_joblib
from lib.utils.keypoints import JOINT_NAMES, SMPL49_MAP, convert_kps, get_perm_idxs
from lib.utils.smoothing import slerp_filter
from tests.golden_tools import GOLDEN, fill_by_recipe, load_golden
from tests.trainer_tools import CONFIGS

T4_3DPW, T4_OTHER, T6_H36M = (
    *("repr_table4_3dpw_model", "repr_table4_h36m_mpii3d_model"),
    "repr_table6_h36m_model",
)


pytestmark = pytest.mark.usefixtures("one_thread")


def read_json(name: str) -> Any:
    return json.loads((GOLDEN / f"{name}.json").read_text())


# --------------------------------------------------------------------------------
# Models


def test_branches_depend_on_exactly_their_frames() -> None:
    """Past on frames 0-7, future on 9-15, each of them; the middle frame reaches the output by the scores."""
    torch.manual_seed(0)
    encoder = PoseForecast(n_layers=2, seq_len=16, hidden_size=8, feature_size=12).eval()
    x = torch.randn(1, 16, 12, requires_grad=True)
    features, scores = encoder(x, is_train=True)
    for output, expected in (
        (features[0, 0], [*range(8)]),
        (features[0, 1], [*range(9, 16)]),
        (features[0, 2], [*range(16)]),
        (scores[0, 0], [*range(16)]),
    ):
        (gradient,) = torch.autograd.grad(output.sum(), x, retain_graph=True)
        assert gradient[0].any(dim=1).nonzero()[:, 0].tolist() == expected


def test_six_numbers_are_two_interleaved_columns() -> None:
    rotmat = geometry.rot6d_to_rotmat(torch.tensor([1.0, 1, 2, 3, 4, 8]))
    torch.testing.assert_close(rotmat[:, 0], torch.tensor([1.0, 2, 4]) / math.sqrt(21))
    residual = torch.tensor([1.0, 3, 8]) - torch.tensor([1.0, 2, 4]) * 39 / 21
    torch.testing.assert_close(rotmat[:, 1], residual / residual.norm())


def test_no_rotation_and_half_a_turn() -> None:
    matrices = torch.stack([torch.eye(3), torch.diag(torch.tensor([1.0, -1, -1]))])
    vectors = geometry.rotmat_to_axis_angle(matrices)
    torch.testing.assert_close(vectors, torch.tensor([[0.0, 0, 0], [math.pi, 0, 0]]), atol=1e-6, rtol=0)


def test_rotations_of_three_poses_are_not_mixed() -> None:
    """A cross product without an axis takes the first one of size 3: the batch, where there are three."""
    six = torch.randn(3, 6, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        geometry.rot6d_to_rotmat(six), torch.stack([geometry.rot6d_to_rotmat(row) for row in six])
    )
    assert torch.allclose(torch.linalg.det(geometry.rot6d_to_rotmat(six)), torch.ones(3))


def test_points_in_the_plane_of_the_body_are_scaled_only() -> None:
    points = torch.tensor([[[0.3, -0.8, 0.0], [-0.5, 0.2, 0.0]]])
    projected = geometry.project(points, torch.tensor([[0.9, 0.0, 0.0]]))
    torch.testing.assert_close(projected, 0.9 * points[..., :2], atol=1e-5, rtol=0)


def naive_joints(body: BodyData, rotvecs: np.ndarray, betas: np.ndarray) -> np.ndarray:
    """The 24 posed joints, one after the other along the kinematic tree."""
    shaped = body.v_template + (body.shapedirs * betas).sum(axis=-1)
    rest = body.J_regressor @ shaped
    parents = [-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21]
    turns, places = [], []
    for joint, parent in enumerate(parents):
        turn = Rotation.from_rotvec(rotvecs[joint])
        if parent < 0:
            turns.append(turn)
            places.append(rest[joint])
        else:
            turns.append(turns[parent] * turn)
            places.append(places[parent] + turns[parent].apply(rest[joint] - rest[parent]))
    return np.array(places)


def test_the_49_joints_come_from_where_the_original_takes_them(smpl_body: BodyData) -> None:
    """24 joints of the skeleton, 21 vertices, 9 rows of a regressor: 49 of the 54, in a fixed order."""
    tables = read_json("smpl/joint_tables")
    assert list(SMPL49_MAP) == [tables["JOINT_MAP"][name] for name in tables["JOINT_NAMES"]]
    random = np.random.default_rng(0)
    rotvecs, betas = random.normal(0, 0.4, (24, 3)), random.normal(0, 1, 10)
    vectors = torch.tensor(rotvecs, dtype=torch.float32).reshape(1, 72)
    output = SMPL(smpl_body)(torch.tensor(betas, dtype=torch.float32)[None], vectors[:, 3:], vectors[:, :3])
    verts, joints = output.vertices[0].numpy(), output.joints[0].numpy()
    face = ["nose", "reye", "leye", "rear", "lear"]
    feet = ["LBigToe", "LSmallToe", "LHeel", "RBigToe", "RSmallToe", "RHeel"]
    fingers = [side + name for side in "lr" for name in ("thumb", "index", "middle", "ring", "pinky")]
    picked = verts[[tables["vertex_ids"][name] for name in (*face, *feet, *fingers)]]
    pool = np.concatenate(
        [naive_joints(smpl_body, rotvecs, betas), picked, smpl_body.J_regressor_extra @ verts]
    )
    assert pool.shape == (54, 3)
    expected = pool[[tables["JOINT_MAP"][name] for name in tables["JOINT_NAMES"]]]
    np.testing.assert_allclose(joints, expected, atol=1e-5)
    np.testing.assert_allclose(joints[0], verts[332], atol=1e-6)
    np.testing.assert_allclose(joints[39], smpl_body.J_regressor_extra[4] @ verts, atol=1e-5)


def test_regressor_is_linear_between_its_layers_and_drops_half_in_training(open_body: BodyData) -> None:
    torch.manual_seed(0)
    regressor = Regressor(open_body, feature_size=24, hidden_size=400)
    assert (regressor.drop1.p, regressor.drop2.p) == (0.5, 0.5)
    with torch.no_grad():
        for decoder in (regressor.decpose, regressor.decshape, regressor.deccam):
            decoder.weight.normal_()  # by far larger than in the beginning: steps are visible
            decoder.bias.zero_()
        regressor.fc1.bias.zero_()
        regressor.fc2.bias.zero_()
        regressor.fc1.weight[:, 24:] = 0  # one step is then a function of the feature alone
        x = torch.randn(1, 24)

        def step(feature: torch.Tensor) -> torch.Tensor:
            theta = regressor(feature, n_iter=1, return_verts=False)[0]["theta"][0]
            return torch.cat([theta[:3] - regressor.init_cam[0], theta[75:] - regressor.init_shape[0]])

        regressor.eval()
        torch.testing.assert_close(step(-x), -step(x), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(step(3 * x), 3 * step(x), atol=1e-4, rtol=1e-4)
        regressor.train()
        steps = torch.stack([step(x) for _ in range(400)])
        assert steps.std(dim=0).min() > 0
        regressor.eval()
        # dropout keeps the expectation
        assert (steps.mean(dim=0) - step(x)).abs().max() < 5 * steps.std(dim=0).max() / math.sqrt(400)


def torchvision_resnet50() -> set[str]:
    """Its 318 entries without the classifier, by rule."""
    norm = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
    names = ["conv1.weight", *(f"bn1.{part}" for part in norm)]
    for stage, blocks in enumerate((3, 4, 6, 3), start=1):
        for block in range(blocks):
            prefix = f"layer{stage}.{block}"
            for i in (1, 2, 3):
                names += [f"{prefix}.conv{i}.weight", *(f"{prefix}.bn{i}.{part}" for part in norm)]
        names += [f"layer{stage}.0.downsample.0.weight"]
        names += [f"layer{stage}.0.downsample.1.{part}" for part in norm]
    assert len(names) == 318
    return set(names)


def test_backbone_entries_are_torchvisions(smpl_body: BodyData) -> None:
    head = {
        f"{name}.{kind}"
        for name in ("fc1", "fc2", "decpose", "decshape", "deccam")
        for kind in ("weight", "bias")
    }
    head |= {"init_pose", "init_shape", "init_cam"}
    state = HMR(smpl_body).state_dict()
    assert {key for key in state if not key.startswith("smpl.")} == torchvision_resnet50() | head
    assert state["layer2.0.conv2.weight"].shape == (128, 128, 3, 3)
    blocks = {name: getattr(HMR(smpl_body), name)[0] for name in ("layer1", "layer2", "layer3", "layer4")}
    assert [block.conv2.stride[0] for block in blocks.values()] == [1, 2, 2, 2]
    assert all(block.conv1.stride == (1, 1) for block in blocks.values())


# --------------------------------------------------------------------------------
# Keypoints


def test_joints_of_other_conventions_land_where_documented() -> None:
    spin = np.arange(49)
    seventeen = [*range(25, 40), 41, 43]
    limbs = [*range(25, 37), 38]
    for source, filled in (
        ("mpii3d", seventeen),
        ("mpii3d_test", seventeen),
        ("h36m", seventeen),
        ("insta", [*range(8), *range(9, 25), 38]),
        ("common", [*range(25, 39)]),
        ("posetrack", [*range(25, 39), 44, 47, 48]),
        ("pennaction", limbs),
    ):
        converted = convert_kps(np.ones((1, len(JOINT_NAMES[source]), 3)), source, "spin")[0]
        assert spin[converted[:, 0] == 1].tolist() == filled, source
        assert set(np.unique(converted)) <= {0.0, 1.0}
    assert JOINT_NAMES["mpii3d_test"][-3] == "hip"
    assert get_perm_idxs("3dpw", "common") == [10, 9, 8, 11, 12, 13, 4, 3, 2, 5, 6, 7]
    assert get_perm_idxs("pennaction", "common") == [12, 10, 8, 7, 9, 11, 6, 4, 2, 1, 3, 5, 0]
    lengths = "mpii3d_test 17 mpii3d 28 insta 25 staf 21 spin 49 h36m 17 posetrack 17 pennaction 13 common 14"
    lengths += " coco 17 mpii 16 aich 14 3dpw 14 smplcoco 19 smpl 24"
    words = lengths.split()
    assert {name: len(JOINT_NAMES[name]) for name in words[::2]} == dict(
        zip(words[::2], map(int, words[1::2]))
    )


# --------------------------------------------------------------------------------
# Data


def spans(first: int, last: int) -> list[list[int]]:
    return [[k, k] for k in range(first, last + 1)]


@pytest.mark.parametrize(
    ("length", "stride", "train", "cut", "expected"),
    [
        (15, 1, True, True, []),
        (15, 16, False, False, []),
        (16, 1, True, True, [[0, 15]] * 16),
        (17, 1, True, True, [[0, 15]] * 16),
        (32, 1, True, True, [[0, 15]] * 9 + [[k, k + 15] for k in range(1, 16)] + [[16, 31]] * 8),
        (16, 1, False, True, [*spans(0, 7), [0, 15], *spans(9, 15)]),
        (17, 1, False, False, [*spans(0, 7), [0, 15], [1, 16], *spans(10, 16)]),
        (40, 16, True, True, [[0, 15], [16, 31]]),
        (40, 16, False, False, [[0, 15], [16, 31]]),
    ],
)
def test_original_windows_of_one_video(
    length: int, stride: int, train: bool, cut: bool, expected: list[list[int]]
) -> None:
    assert split_into_chunks(np.array(["v"] * length), 16, stride, train, cut).tolist() == expected


@given(st.integers(16, 120), st.booleans())
def test_one_window_per_frame_in_evaluation(length: int, cut: bool) -> None:
    chunks = split_into_chunks(np.array(["v"] * length), 16, 1, is_train=False, match_vibe=cut)
    assert len(chunks) == (length // 16 * 16 if cut else length)


def config(title: str, *opts: str) -> CfgNode:
    paths = ["PATHS.PREPROCESSED", str(GOLDEN / "data"), "MODEL.TGRU.HIDDEN_SIZE", "64"]
    return load_config(CONFIGS / f"{title}.yaml", [*paths, *opts])


COMPAT = [f"COMPAT.{key}" for key in ("TRAIN_WINDOWS", "FLOAT16_TARGETS", "VALIDATION")]
AS_ORIGINAL = [word for key in COMPAT for word in (key, "True")]


def test_files_of_every_title_are_the_originals() -> None:
    compared = 0
    for title, files in read_json("datasets/db_file_names_by_title").items():
        if title == "default":  # no TITLE of the paper's: files must be named
            continue
        for key, file in files.items():
            name, split = key.split("/")
            if "<class" in file:  # the original cannot load these
                continue
            assert database_path(get_spec(name), split, config(title)).name == file, (title, key)
            compared += 1
    assert compared == 33
    cfg = config(T4_3DPW)
    assert database_path(DATASETS["PennAction"], "train", cfg).name == "pennaction_train_scale12_db.pt"
    assert database_path(DATASETS["PoseTrack"], "train", cfg).name == "posetrack_train_db.pt"


def penn_database(folder: Path) -> None:
    random = np.random.default_rng(0)
    dump_joblib(
        {
            "vid_name": np.array(["0001"] * 20),
            "img_name": np.array(["0001.jpg"] * 20),
            "joints2D": convert_kps(random.uniform(10, 200, (20, 13, 3)), "pennaction", "common"),
            "bbox": np.tile([100.0, 90, 150, 150], (20, 1)),
            "features": np.zeros((20, 2048), np.float32),
        },
        folder / "pennaction_train_scale12_db.pt",
    )


@pytest.mark.parametrize("name", ["ThreeDPW", "MPII3D", "Human36M", "Insta", "PoseTrack", "PennAction"])
def test_reading_a_sample_twice_gives_the_same_and_leaves_the_database_alone(
    name: str, tmp_path: Path
) -> None:
    cfg = config(T4_3DPW)
    if name == "PennAction":
        penn_database(tmp_path)
        cfg.PATHS.PREPROCESSED = str(tmp_path)
    dataset = training_set([name], cfg, with_3d=DATASETS[name].has_3d)
    assert dataset is not None
    first = dataset[9]
    # windows share frames: reading the neighbours touches the same rows
    dataset.__getitems__([8, 9, 10, 9])
    second = dataset[9]
    assert first.keys() == second.keys()
    for key in first:
        assert torch.equal(first[key], second[key]), key
    assert first["kp_2d"].any()


def test_mpii3d_targets_stay_those_of_the_first_reading() -> None:
    """The original transforms its database in place: its second reading is off by up to 3 crop units."""
    golden = load_golden("datasets/quirk_mpii3d_inplace")
    dataset = training_set(["MPII3D"], config(T4_3DPW, *AS_ORIGINAL), with_3d=True)
    assert dataset is not None
    assert np.abs(golden["call1_kp_2d"] - golden["call0_kp_2d"]).max() > 3
    for index in golden["order"]:  # all of them predict frame 8
        for repeated in golden["call0_kp_2d"]:
            np.testing.assert_allclose(dataset[index]["kp_2d"][0], repeated, rtol=1e-3)


def test_penn_action_joints_keep_their_names(tmp_path: Path) -> None:
    penn_database(tmp_path)
    cfg = config(T4_3DPW, "PATHS.PREPROCESSED", str(tmp_path))
    dataset = training_set(["PennAction"], cfg, with_3d=False)
    assert dataset is not None
    stored = load_joblib(tmp_path / "pennaction_train_scale12_db.pt")["joints2D"][4]
    read = dataset[4]["kp_2d"][0].numpy()
    for joint, (x, y, confidence) in zip(JOINT_NAMES["common"], stored):
        place = JOINT_NAMES["spin"].index(joint)
        np.testing.assert_allclose(read[place, 2], confidence, rtol=1e-6)
        if joint != "neck":  # not annotated
            expected = [2 * (x - 100) / (1.2 * 150), 2 * (y - 90) / (1.2 * 150)]
            np.testing.assert_allclose(read[place, :2], expected, atol=1e-6)
    assert read[JOINT_NAMES["spin"].index("neck"), 2] == 0


def test_targets_are_the_rounded_middle_frame() -> None:
    dataset = training_set(["ThreeDPW"], config(T4_3DPW, *AS_ORIGINAL), with_3d=True)
    assert dataset is not None
    joints = load_joblib(GOLDEN / "data" / "3dpw_train_occ_db.pt")["joints3D"]
    windows = window_frames(dataset.datasets[0].windows, 16)  # type: ignore[attr-defined]
    for index in (0, 20, len(dataset) - 1):
        expected = joints[windows[index][8]].astype(np.float16).astype(np.float32)
        for output in dataset[index]["kp_3d"].numpy():
            np.testing.assert_array_equal(output, expected)


def test_absent_joints_have_no_weight_in_3d() -> None:
    """Official files hold -root for joints a dataset lacks; the loss looks at 25-38, which all have."""
    for name in ("mpii3d", "mpii3d_test", "h36m", "common"):
        filled = convert_kps(np.ones((1, len(JOINT_NAMES[name]), 3)), name, "spin")[0, 25:39]
        assert filled.all(), name


@pytest.mark.parametrize(
    ("file", "name", "title"),
    [
        ("3dpw_val", "ThreeDPW", T4_3DPW),
        ("mpii3d_val", "MPII3D", T4_3DPW),
        ("h36m_val", "Human36M", T4_3DPW),
        ("h36m_val_table6", "Human36M", T6_H36M),
    ],
)
def test_validation_targets_equal_the_original(file: str, name: str, title: str) -> None:
    golden = load_golden(f"datasets/{file}")
    data = list(EvaluationSet(get_spec(name), "val", config(title, *AS_ORIGINAL), validation=True))
    joints = np.concatenate([video.joints for video in data if len(video.features) >= 16])
    counted = np.concatenate([video.counted for video in data if len(video.features) >= 16])
    assert len(joints) == len(golden["vid_indices"])
    for index in golden["indices"]:
        np.testing.assert_allclose(joints[index], golden[f"{index}_kp_3d"], rtol=1e-3, atol=1e-6)
        assert counted[index] == bool(golden[f"{index}_valid"][0])
    if name == "ThreeDPW":
        poses = np.concatenate(
            [video.pose for video in data if video.pose is not None and len(video.pose) >= 16]
        )
        for index in golden["indices"]:
            np.testing.assert_allclose(poses[index], golden[f"{index}_theta"][3:75], rtol=1e-3, atol=1e-6)


# --------------------------------------------------------------------------------
# Training

# Every key of the original's schema with its default.
SCHEMA = """
TITLE='default' OUTPUT_DIR='results' EXP_NAME='default' DEVICE='cuda' DEBUG=True LOGDIR='' NUM_WORKERS=8
DEBUG_FREQ=1000 SEED_VALUE=-1 render=False CUDNN.BENCHMARK=True CUDNN.DETERMINISTIC=False CUDNN.ENABLED=True
TRAIN.DATASETS_2D=['Insta'] TRAIN.DATASETS_3D=['MPII3D'] TRAIN.DATASET_EVAL='ThreeDPW' TRAIN.BATCH_SIZE=32
TRAIN.OVERLAP=True TRAIN.DATA_2D_RATIO=0.5 TRAIN.START_EPOCH=0 TRAIN.END_EPOCH=5 TRAIN.PRETRAINED_REGRESSOR=''
TRAIN.PRETRAINED='' TRAIN.RESUME='' TRAIN.NUM_ITERS_PER_EPOCH=1000 TRAIN.LR_PATIENCE=5 TRAIN.GEN_OPTIM='Adam'
TRAIN.GEN_LR=1e-4 TRAIN.GEN_WD=1e-4 TRAIN.GEN_MOMENTUM=0.9 TRAIN.MOT_DISCR.OPTIM='SGD' TRAIN.MOT_DISCR.LR=1e-2
TRAIN.MOT_DISCR.WD=1e-4 TRAIN.MOT_DISCR.MOMENTUM=0.9 TRAIN.MOT_DISCR.UPDATE_STEPS=1
TRAIN.MOT_DISCR.FEATURE_POOL='concat' TRAIN.MOT_DISCR.HIDDEN_SIZE=1024 TRAIN.MOT_DISCR.NUM_LAYERS=1
TRAIN.MOT_DISCR.ATT.SIZE=1024 TRAIN.MOT_DISCR.ATT.LAYERS=1 TRAIN.MOT_DISCR.ATT.DROPOUT=0.1 DATASET.SEQLEN=20
DATASET.OVERLAP=0.5 LOSS.KP_2D_W=60.0 LOSS.KP_3D_W=30.0 LOSS.SHAPE_W=0.001 LOSS.POSE_W=1.0
LOSS.D_MOTION_LOSS_W=1.0 MODEL.TEMPORAL_TYPE='gru' MODEL.TGRU.NUM_LAYERS=1 MODEL.TGRU.HIDDEN_SIZE=2048
"""
# What all six shipped files say, or leave at the default.
SHIPPED = """
DEBUG=False DEBUG_FREQ=5 LOGDIR='' DEVICE='cuda' EXP_NAME='tcmr' OUTPUT_DIR='experiments' NUM_WORKERS=16
SEED_VALUE=1 DATASET.SEQLEN=16 LOSS.KP_2D_W=300.0 LOSS.KP_3D_W=300.0 LOSS.SHAPE_W=0.06 LOSS.POSE_W=60.0
LOSS.D_MOTION_LOSS_W=0.0 TRAIN.NUM_ITERS_PER_EPOCH=500 CUDNN.BENCHMARK=True CUDNN.DETERMINISTIC=False
CUDNN.ENABLED=True TRAIN.GEN_LR=0.00005 TRAIN.GEN_WD=0.0 TRAIN.GEN_OPTIM='Adam' TRAIN.GEN_MOMENTUM=0.9
TRAIN.MOT_DISCR.OPTIM='Adam' TRAIN.MOT_DISCR.LR=0.0001 TRAIN.MOT_DISCR.WD=0.0001
TRAIN.MOT_DISCR.MOMENTUM=0.9 TRAIN.MOT_DISCR.UPDATE_STEPS=1 TRAIN.MOT_DISCR.HIDDEN_SIZE=1024
TRAIN.MOT_DISCR.NUM_LAYERS=2 TRAIN.MOT_DISCR.FEATURE_POOL='attention' TRAIN.MOT_DISCR.ATT.LAYERS=3
TRAIN.MOT_DISCR.ATT.SIZE=1024 TRAIN.MOT_DISCR.ATT.DROPOUT=0.2 MODEL.TEMPORAL_TYPE='gru'
MODEL.TGRU.NUM_LAYERS=2 MODEL.TGRU.HIDDEN_SIZE=1024 TRAIN.BATCH_SIZE=32 TRAIN.DATA_2D_RATIO=0.6
TRAIN.START_EPOCH=0 TRAIN.LR_PATIENCE=5 TRAIN.RESUME='' DATASET.OVERLAP=0.5
TRAIN.PRETRAINED_REGRESSOR='data/base_data/spin_model_checkpoint.pth.tar'
"""


def assert_holds(cfg: CfgNode, table: str) -> int:
    entries = [entry.split("=") for entry in table.split()]
    for key, text in entries:
        value: Any = cfg
        for part in key.split("."):
            value = value[part]
        expected = CfgNode._decode_cfg_value(text)
        assert value == expected and type(value) is type(expected), f"{key}: {value!r}, not {text}"
    return len(entries)


def test_defaults_are_the_originals() -> None:
    assert assert_holds(get_cfg_defaults(), SCHEMA) == 51


@pytest.mark.parametrize("file", ["config", *sorted(path.stem for path in CONFIGS.glob("repr_*.yaml"))])
def test_shipped_files_are_the_originals(file: str) -> None:
    assert_holds(load_config(CONFIGS / f"{file}.yaml"), SHIPPED)


def test_a_seed_gives_the_same_weights_again(open_body: BodyData) -> None:
    cfg = config(
        T4_3DPW, "TRAIN.PRETRAINED_REGRESSOR", "''", "MODEL.TGRU.HIDDEN_SIZE", "4", "MODEL.FEATURE_SIZE", "6"
    )
    states = []
    for seed in (1, 1, 2):
        seed_everything(seed)
        states.append(build_model(cfg, open_body).state_dict())
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())
    assert not torch.equal(states[0]["encoder.linear_cur.weight"], states[2]["encoder.linear_cur.weight"])


def test_first_gradients_equal_the_original(smpl_body: BodyData) -> None:
    """Of every weight, for the mixed batch of the original's first step."""
    no_dropout = ("TRAIN.PRETRAINED_REGRESSOR", "''", "MODEL.REGRESSOR.DROPOUT", "0.0", "NUM_WORKERS", "0")
    cfg = config(T4_3DPW, *AS_ORIGINAL, *no_dropout)
    model = build_model(cfg, smpl_body)
    fill_by_recipe(model)
    trainer = Trainer(cfg, model.train(), smpl_body, torch.device("cpu"))
    sets = trainer.datasets["3d"]
    first = np.cumsum([0] + [len(part) for part in sets.datasets])
    indices = load_golden("train/batches")
    number, place = indices["index_3d"][0].T
    two, three = trainer.datasets["2d"], sets.__getitems__(first[number] + place)
    trainer.train_step({"2d": two.__getitems__(indices["index_2d"][0]), "3d": three})
    golden = load_golden("train/first_gradients")
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert sorted(gradients) == golden["names"].tolist()
    for name, norm, head in zip(golden["names"].tolist(), golden["norm"], golden["head"]):
        gradient = gradients[name].flatten()
        assert gradient.double().norm().item() == pytest.approx(norm, rel=1e-3), name
        head = head[np.isfinite(head)]
        np.testing.assert_allclose(gradient[: len(head)].numpy(), head, rtol=1e-3, atol=1e-6, err_msg=name)


# --------------------------------------------------------------------------------
# Evaluation


@pytest.fixture(scope="module")
def model(smpl_body: BodyData) -> TCMR:
    model = TCMR(16, 2, 64, body=smpl_body).eval()
    fill_by_recipe(model)
    return model


def changed(tmp_path: Path, name: str, change: Any) -> list[str]:
    """Options that use a changed copy of a golden database."""
    database = {key: np.array(values) for key, values in load_joblib(GOLDEN / "data" / name).items()}
    change(database)
    dump_joblib(database, tmp_path / name)
    return ["PATHS.PREPROCESSED", str(tmp_path)]


def measure(
    model: TCMR,
    body: BodyData,
    dataset: str,
    *opts: str,
    title: str = "",
    part: str = "",
    smooth: bool = False,
):
    title = title or {"3dpw": T4_3DPW}.get(dataset, T4_OTHER)
    data = EvaluationSet(get_spec(dataset), "test", config(title, *opts), name_part=part)
    return evaluate(model, data, body, smooth=smooth)


def test_a_moved_prediction_changes_the_vertex_error_only(
    model: TCMR, smpl_body: BodyData, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = "downtown_walk_00_1"
    before = measure(model, smpl_body, "3dpw", part=part).summary()
    predictions = evaluator.iter_predictions

    def moved(*args: Any, **kwargs: Any) -> Iterator[tuple[slice, dict[str, torch.Tensor]]]:
        for frames, output in predictions(*args, **kwargs):
            offset = torch.tensor([0.3, -0.1, 0.2])
            yield frames, {**output, **{name: output[name] + offset for name in ("kp_3d", "verts")}}

    monkeypatch.setattr(evaluator, "iter_predictions", moved)
    after = measure(model, smpl_body, "3dpw", part=part).summary()
    assert abs(after.pop("mpvpe") - before.pop("mpvpe")) > 10
    assert after == pytest.approx(before, abs=1e-3)


@pytest.mark.parametrize(
    ("video", "length", "invalid", "poses", "accelerations"),
    [
        ("downtown_walk_00_2", 15, [], 0, 0),
        ("downtown_walk_00_2", 16, [], 16, 14),
        ("downtown_walk_00_6", 25, [5], 24, 22),
        ("downtown_walk_00_6", 25, range(10), 0, 0),
    ],
)
def test_counts_of_3dpw(
    model: TCMR,
    smpl_body: BodyData,
    tmp_path: Path,
    video: str,
    length: int,
    invalid: Any,
    poses: int,
    accelerations: int,
) -> None:
    def cut(database: dict[str, np.ndarray]) -> None:
        rows = np.flatnonzero(database["vid_name"] == video)[:length]
        rows = np.r_[np.flatnonzero(database["vid_name"] == "downtown_walk_00_1"), rows]
        database.update({key: values[rows] for key, values in database.items()})
        database["valid"][:] = 1
        database["valid"][17 + np.array(invalid, int)] = 0

    evaluation = measure(model, smpl_body, "3dpw", *changed(tmp_path, "3dpw_test_db.pt", cut))
    counts = {s.name: (len(s.mpjpe), len(s.accel_err)) for s in evaluation.sequences}
    assert counts.get(video, (0, 0)) == (poses, accelerations)
    assert counts["downtown_walk_00_1"] == (17, 15)
    assert [name for name, _, _ in evaluation.skipped] == ([video] if not poses else [])


def test_counts_of_mpii3d(model: TCMR, smpl_body: BodyData, tmp_path: Path) -> None:
    """Invalid frames do not count, but their neighbours' accelerations see them."""

    def invalidate(database: dict[str, np.ndarray]) -> None:
        database["valid_i"][:] = 1
        database["valid_i"][np.flatnonzero(database["vid_name"] == "subj1_seg4")[5]] = 0

    evaluation = measure(
        model,
        smpl_body,
        "mpii3d",
        *changed(tmp_path, "mpii3d_val_scale12_db.pt", invalidate),
        part="subj1_seg4",
    )
    (sequence,) = evaluation.sequences
    assert (len(sequence.mpjpe), len(sequence.accel_err)) == (24, 22)
    own = metrics.accel_error(sequence.pred, sequence.target)  # of frames 1 to 23
    np.testing.assert_allclose(sequence.accel_err, np.delete(own, 4))


def invalidate_a_video(database: dict[str, np.ndarray]) -> None:
    database["valid"][database["vid_name"] == "downtown_walk_00_0"] = 0


def keep_one_video(database: dict[str, np.ndarray]) -> None:
    rows = database["vid_name"] == "downtown_walk_00_2"
    database.update({key: values[rows] for key, values in database.items()})


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (keep_one_video, (394.55518, 235.52448, 49.31448745727539, 328.23834)),
    ],
)
def test_odd_databases_equal_the_original(
    model: TCMR, smpl_body: BodyData, tmp_path: Path, change: Any, expected: tuple[float, ...]
) -> None:
    summary = measure(model, smpl_body, "3dpw", *changed(tmp_path, "3dpw_test_db.pt", change)).summary()
    keys = ("mpjpe", "mpjpe_pa", "accel_err", "mpvpe")
    assert [summary[key] for key in keys] == pytest.approx(expected, abs=0.005)


def test_a_video_without_valid_frame_is_skipped(model: TCMR, smpl_body: BodyData, tmp_path: Path) -> None:
    opts = changed(tmp_path, "3dpw_test_db.pt", invalidate_a_video)
    evaluation = measure(model, smpl_body, "3dpw", *opts)
    assert ("downtown_walk_00_0", 40, "0 valid frames, fewer than 16") in evaluation.skipped
    everything = measure(model, smpl_body, "3dpw")
    rest = [s for s in everything.sequences if s.name != "downtown_walk_00_0"]
    mean = np.concatenate([s.mpjpe for s in rest]).mean() * 1000
    assert evaluation.summary()["mpjpe"] == pytest.approx(mean)


def test_valid_flags_of_mpii3d_may_be_called_valid(model: TCMR, smpl_body: BodyData, tmp_path: Path) -> None:
    """The original crashes on such a database."""

    def rename(database: dict[str, np.ndarray]) -> None:
        database["valid"] = np.ones(len(database["vid_name"]), np.uint8)
        database["valid"][:2] = 0

    opts = changed(tmp_path, "mpii3d_val_scale12_db.pt", rename)
    (sequence,) = measure(model, smpl_body, "mpii3d", *opts, part="subj1_seg0").sequences
    assert len(sequence.pred) == 18


@pytest.mark.parametrize("smooth", [False, True])
def test_human36m_of_table6_equals_the_original(
    model: TCMR, smpl_body: BodyData, tmp_path: Path, smooth: bool
) -> None:
    source = GOLDEN / "data" / "h36m_test_front_25fps_tight_db.pt"
    (tmp_path / "h36m_test_front_25fps_tight_nosmpl_db.pt").symlink_to(source)
    evaluation = measure(
        model, smpl_body, "h36m", "PATHS.PREPROCESSED", str(tmp_path), title=T6_H36M, smooth=smooth
    )
    golden = load_golden("e2e/h36m_repr_table6_h36m_model" + "_filter" * smooth)
    assert [s.name for s in evaluation.sequences] == golden["seq_names"].tolist()
    for i, sequence in enumerate(evaluation.sequences):
        for key in ("mpjpe", "mpjpe_pa", "accel_err"):
            np.testing.assert_allclose(getattr(sequence, key) * 1000, golden[f"{i}_{key}"], atol=0.01)
    expected = (305.09470, 145.67253, 29.65364) if smooth else (304.72708, 145.89583, 37.21965)
    summary = evaluation.summary()
    assert [summary[key] for key in ("mpjpe", "mpjpe_pa", "accel_err")] == pytest.approx(expected, abs=0.005)
    assert evaluation.num_poses == 53


def test_validation_on_human36m_equals_the_original(model: TCMR, smpl_body: BodyData) -> None:
    data = EvaluationSet(get_spec("h36m"), "val", config(T6_H36M, *AS_ORIGINAL), validation=True)
    summary = evaluate(model, data, smpl_body).with_accel_across_videos().summary()
    assert (
        "mpvpe" not in summary
    )  # there is no SMPL to compare with: the original compares with the zero pose
    expected = {"mpjpe": 291.16467, "mpjpe_pa": 141.40518, "accel": 27.24438, "accel_err": 55.32798}
    assert {key: summary[key] for key in expected} == pytest.approx(expected, abs=0.05)


def test_validation_on_mpii3d_compares_17_joints(model: TCMR, smpl_body: BodyData) -> None:
    """The original crashes: it predicts 14."""
    data = EvaluationSet(get_spec("MPII3D"), "val", config(T4_3DPW), validation=True)
    evaluation = evaluate(model, data, smpl_body)
    assert all(s.pred.shape[1] == 17 for s in evaluation.sequences)
    assert np.isfinite(evaluation.summary()["mpjpe_pa"])


def test_a_steady_rotation_is_not_smoothed_away() -> None:
    rotmats = Rotation.random(24, rng=np.random.default_rng(1)).as_matrix()[None].repeat(9, axis=0)
    np.testing.assert_allclose(slerp_filter(rotmats), rotmats, atol=1e-7)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_few_poses_are_aligned_like_many(count: int) -> None:
    """The original takes a batch of 2 or 3 poses for transposed ones."""
    source, target = np.random.default_rng(0).normal(size=(2, 5, 14, 3))
    many = metrics.pa_mpjpe(source, target)
    np.testing.assert_allclose(metrics.pa_mpjpe(source[:count], target[:count]), many[:count])


# --------------------------------------------------------------------------------
# Demo


def test_windows_of_the_demo_are_the_originals() -> None:
    compared = 0
    for key, windows in read_json("chunks/demo_windows").items():
        length, seqlen = map(int, key.split("_"))
        if len(windows) != length:  # an odd window length gives the original one too few
            continue
        frames = [[first % length, last % length] for first, last in windows]  # it counts the end backwards
        assert window_indices(length, seqlen)[:, [0, -1]].tolist() == frames, key
        compared += 1
    assert compared == 8


# --------------------------------------------------------------------------------
# Documentation


def test_the_table_of_quirks_is_complete_and_names_real_tests() -> None:
    """Labels D1 ... V6 and #1 ... #47 are all there; cited tests and keys exist."""
    text = (CONFIGS.parent / "docs" / "compatibility.md").read_text(encoding="utf-8")
    labels = [
        label for line in text.splitlines() if line.startswith("| ") for label in line.split("|")[1].split()
    ]
    groups = zip("DPMTERV", (16, 16, 9, 12, 14, 12, 6))
    expected = [f"{letter}{k}" for letter, last in groups for k in range(1, last + 1)]
    expected += [f"#{k}" for k in range(1, 48)]
    found = [label for label in labels if re.fullmatch(r"[DPMTERV]\d+|#\d+", label)]
    assert sorted(found) == sorted(expected)
    cited = re.findall(r"`tests/(test_\w+)\.py::(\w+)`", text)
    assert len(cited) > len(expected)
    for file, test in cited:
        assert f"def {test}(" in (Path(__file__).parent / f"{file}.py").read_text(), f"{file}::{test}"
    for key in re.findall(r"`COMPAT\.(\w+)`", text):
        assert key in get_cfg_defaults().COMPAT


def test_unknown_titles_need_named_files() -> None:
    cfg = config(T4_3DPW, "TITLE", "mine")
    with pytest.raises(UserError, match=r"DATASET\.FILES\.h36m_test"):
        database_path(get_spec("h36m"), "test", cfg)

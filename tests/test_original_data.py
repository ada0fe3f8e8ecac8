"""The original's windows, files and targets, one fact after the other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lib.core.evaluation_set import EvaluationSet
from lib.dataset.datasets import DATASETS, database_path, get_spec
from lib.dataset.training import training_set
from lib.dataset.windows import split_into_chunks, window_frames
from lib.models.predict import window_indices
from lib.utils.errors import UserError
from lib.utils.files import dump_joblib, load_joblib
from lib.utils.keypoints import JOINT_NAMES, convert_kps
from tests.golden_tools import GOLDEN, load_golden
from tests.original_tools import AS_ORIGINAL, T4_3DPW, T6_H36M, config, read_json

pytestmark = pytest.mark.usefixtures("one_thread")


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


def test_unknown_titles_need_named_files() -> None:
    cfg = config(T4_3DPW, "TITLE", "mine")
    with pytest.raises(UserError, match=r"DATASET\.FILES\.h36m_test"):
        database_path(get_spec("h36m"), "test", cfg)

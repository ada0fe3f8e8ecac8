"""Training samples against the original's, the files they come from, and the order they are drawn in."""

from __future__ import annotations

import functools
import itertools
import math
import operator
import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from lib.core.config import get_cfg_defaults
from lib.dataset import database as database_module
from lib.dataset.database import H5Rows, open_database
from lib.dataset.datasets import TITLES, database_path, get_spec
from lib.dataset.loaders import BatchStream, EndlessBatches
from lib.dataset.sequences import RealMotions, video_sequences
from lib.dataset.training import WindowDataset, training_set
from lib.dataset.windows import window_frames
from lib.models.encoder import run_windows
from lib.utils.errors import UserError
from lib.utils.files import dump_joblib, load_joblib
from tests.golden_tools import GOLDEN, load_golden

T4_3DPW, T4_OTHER, T6_3DPW, T6_MPII3D, T6_H36M = TITLES
SETS_2D = ("Insta", "PoseTrack", "PennAction")


def config(title: str = T4_3DPW, overlap: bool = True, compat: bool = True):
    cfg = get_cfg_defaults()
    cfg.TITLE, cfg.TRAIN.OVERLAP, cfg.DATASET.SEQLEN = title, overlap, 16
    cfg.PATHS.PREPROCESSED = str(GOLDEN / "data")
    cfg.COMPAT.TRAIN_WINDOWS = cfg.COMPAT.FLOAT16_TARGETS = compat
    if title == T6_H36M:
        cfg.DATASET.FILES.h36m_train = "h36m_train_25fps_occ_db.pt"
    return cfg


def open_set(name: str, cfg):
    return training_set([name], cfg, with_3d=name not in SETS_2D)


@pytest.mark.parametrize(
    ("file", "name", "title", "overlap"),
    [
        ("3dpw_train_overlap", "ThreeDPW", T4_3DPW, True),
        ("3dpw_train_nooverlap", "ThreeDPW", T4_3DPW, False),
        ("mpii3d_train_overlap", "MPII3D", T4_3DPW, True),
        ("h36m_train_overlap", "Human36M", T4_3DPW, True),
        ("h36m_train_overlap_table6", "Human36M", T6_H36M, True),
        ("insta_train_overlap", "Insta", T4_3DPW, True),
        ("insta_train_nooverlap", "Insta", T4_3DPW, False),
        ("posetrack_train_overlap", "PoseTrack", T4_OTHER, True),
    ],
)
def test_samples_equal_original(file: str, name: str, title: str, overlap: bool) -> None:
    golden = load_golden(f"datasets/{file}")
    dataset = open_set(name, config(title, overlap))
    frames = window_frames(dataset.datasets[0].windows, 16)
    assert frames[:, [0, -1]].tolist() == golden["vid_indices"].tolist()
    for index in golden["indices"]:
        sample = dataset[index]
        sums = sample.pop("features").double().sum(dim=1)
        np.testing.assert_allclose(sums, golden[f"{index}_features_sum"], atol=1e-9)
        assert {f"{index}_{key}" for key in sample} == {
            key for key in golden if key.startswith(f"{index}_") and "features" not in key
        }
        for key, values in sample.items():
            expected = golden[f"{index}_{key}"]  # the original repeats a target for each of its outputs
            repeated = np.broadcast_to(values, expected.shape)
            np.testing.assert_allclose(repeated, expected, rtol=1e-3, err_msg=key)


@pytest.mark.parametrize("name", ["ThreeDPW", "MPII3D", "Human36M", "Insta"])
def test_batches_are_stacked_samples_and_reading_changes_nothing(name: str) -> None:
    dataset = open_set(name, config(compat=False))
    indices = [5, 0, len(dataset) - 1, 5]
    first, second = dataset.__getitems__(indices), dataset.__getitems__(indices)
    for key, values in first.items():
        assert torch.equal(values, second[key])
        assert torch.equal(values, torch.stack([dataset[index][key] for index in indices]))


@pytest.mark.parametrize("run_length", [2, 5])
def test_a_run_holds_the_windows_of_consecutive_frames(run_length: int) -> None:
    """Those of ordinary training, which are compared with the original's above."""
    lengths, seqlen = [9, 1, 4, 6], 6
    random, n = np.random.default_rng(0), sum(lengths)
    database = {
        "vid_name": np.repeat(list("abcd"), lengths),
        "features": random.standard_normal((n, 3)).astype(np.float32),
        "joints2D": random.standard_normal((n, 14, 3)),
        "bbox": np.abs(random.standard_normal((n, 4))) + 1,
        "joints3D": random.standard_normal((n, 49, 3)),
        "pose": random.standard_normal((n, 72)),
        "shape": random.standard_normal((n, 10)),
    }
    single, runs = (
        WindowDataset(get_spec("ThreeDPW"), database, seqlen, run_length=r) for r in (1, run_length)
    )
    starts = np.cumsum([0, *lengths])
    firsts = [
        start + i for start, length in zip(starts, lengths) for i in range(max(0, length - run_length + 1))
    ]
    assert len(runs) == len(firsts)
    batch = runs.__getitems__(np.arange(len(runs)))
    expected = single.__getitems__([first + k for first in firsts for k in range(run_length)])
    windows = run_windows(len(firsts), seqlen, run_length)
    assert torch.equal(batch.pop("features").flatten(0, 1)[windows], expected.pop("features"))
    assert batch.keys() == expected.keys()
    for key, values in batch.items():
        assert values.shape[:2] == (len(firsts), run_length)
        assert torch.equal(values.flatten(0, 1), expected[key].flatten(0, 1)), key


@pytest.mark.parametrize("names", [["Insta"], ["ThreeDPW"], ["MPII3D", "ThreeDPW", "Human36M"]])
@pytest.mark.parametrize("indices", [[0, 1, 2], [5, 60, 200, 3]])
def test_batches_can_be_copied_into_the_same_strides(names: list[str], indices: list[int]) -> None:
    """As pinning them for a GPU does; entries that share memory cannot be written to."""
    dataset = training_set(names, config(), with_3d=names != ["Insta"])
    assert dataset is not None
    for key, values in dataset.__getitems__([index % len(dataset) for index in indices]).items():
        torch.empty_strided(values.shape, values.stride(), dtype=values.dtype).copy_(values)
        assert key and values.untyped_storage().nbytes() == values.numel() * values.itemsize


def test_targets_are_full_precision_by_default() -> None:
    database = load_joblib(GOLDEN / "data" / "3dpw_train_occ_db.pt")
    dataset = open_set("ThreeDPW", config(compat=False))
    assert len(dataset) == len(database["vid_name"])
    sample = dataset[30]
    assert torch.equal(sample["kp_3d"], torch.from_numpy(database["joints3D"][30])[None])
    theta = np.r_[1, 0, 0, database["pose"][30], database["shape"][30]].astype(np.float32)
    assert torch.equal(sample["theta"][0], torch.from_numpy(theta))
    assert not torch.equal(sample["kp_3d"], open_set("ThreeDPW", config())[30]["kp_3d"])


def make_posetrack(folder: Path, **changes: np.ndarray) -> None:
    joints = np.ones((20, 49, 3))
    joints[:, 0, :2], joints[:, 1, :2] = (400, 300), (400 + 0.6 * 120, 300)
    database = {
        "vid_name": np.array(["a"] * 20),
        "joints2D": joints,
        "bbox": np.tile([400.0, 300, 120, 120], (20, 1)),
        "features": np.zeros((20, 2048), np.float32),
    }
    dump_joblib({**database, **changes}, folder / "posetrack_train_db.pt")


def test_box_is_the_unit_square_when_enlarged(tmp_path: Path) -> None:
    make_posetrack(tmp_path)
    cfg = config(T4_OTHER)
    cfg.PATHS.PREPROCESSED = str(tmp_path)
    joints = open_set("PoseTrack", cfg)[7]["kp_2d"]
    np.testing.assert_allclose(joints[0, :2, :2], [[0, 0], [1, 0]], atol=1e-6)


def test_smpl_is_used_where_there_is_some(tmp_path: Path) -> None:
    database = {
        k: np.array(v) for k, v in load_joblib(GOLDEN / "data" / "h36m_train_25fps_occ_db.pt").items()
    }
    database["pose"][7] = database["shape"][7] = 0
    database["pose"][9] = database["shape"][10] = 0  # one of the two is enough
    dump_joblib(database, tmp_path / "h36m.pt")
    for title in TITLES:
        cfg = config(title, compat=False)
        cfg.DATASET.FILES.h36m_train = str(tmp_path / "h36m.pt")
        w_smpl = open_set("Human36M", cfg).__getitems__([6, 7, 8, 9, 10])["w_smpl"][:, 0]
        assert w_smpl.tolist() == ([0] * 5 if title == T4_3DPW else [1, 0, 1, 1, 1])


def test_file_names() -> None:
    def file(name: str, split: str, title: str) -> str:
        return str(database_path(get_spec(name), split, config_at(title)))

    def config_at(title: str):
        cfg = get_cfg_defaults()
        cfg.TITLE, cfg.PATHS.PREPROCESSED = title, "data"
        return cfg

    expected = {
        ("ThreeDPW", "train"): ("3dpw_train_occ_db.pt", *["3dpw_train_db.pt"] * 4),
        ("MPII3D", "train"): (
            "mpii3d_train_scale12_occ_db.pt", "mpii3d_train_scale12_db.pt",
            "mpii3d_train_scale12_new_occ_db.pt", "mpii3d_train_scale12_db.pt", "mpii3d_train_scale1_db.pt",
        ),
        ("Human36M", "val"): (*["h36m_val_db.pt"] * 4, "h36m_test_front_25fps_tight_db.pt"),
        ("ThreeDPW", "test"): ("3dpw_test_db.pt",) * 5,
        ("MPII3D", "test"): ("mpii3d_val_scale12_db.pt",) * 5,
        ("Insta", "train"): ("insta_train_db.h5",) * 5,
        ("Open", "val"): ("open_val_db.pt",) * 5,
    }  # fmt: skip
    for (name, split), files in expected.items():
        assert tuple(file(name, split, title) for title in TITLES) == tuple(f"data/{f}" for f in files)
    assert file("PoseTrack", "train", T6_3DPW) == "data/posetrack_train_occ_db.pt"
    assert file("Human36M", "train", T6_H36M) == "data/h36m_train_25fps_tight_db.pt"
    for name, split, title in (("ThreeDPW", "train", "default"), ("Human36M", "test", T4_3DPW)):
        with pytest.raises(UserError, match=r"DATASET\.FILES\.(3dpw_train|h36m_test)"):
            file(name, split, title)
    cfg = config_at("mine")
    cfg.DATASET.FILES = type(cfg)({"3dpw_train": "own.pt", "h36m_train": "/else/where.pt"})
    assert database_path(get_spec("3dpw"), "train", cfg) == Path("data/own.pt")
    assert database_path(get_spec("h36m"), "train", cfg) == Path("/else/where.pt")


def test_mistakes_are_explained(tmp_path: Path) -> None:
    cfg = config(T4_OTHER)
    with pytest.raises(UserError, match=r"no dataset 'COCO'"):
        training_set(["COCO"], cfg, with_3d=True)
    with pytest.raises(UserError, match="DATASETS_2D"):
        training_set(["Insta"], cfg, with_3d=True)
    with pytest.raises(UserError, match="DATASETS_3D"):
        training_set(["MPII3D"], cfg, with_3d=False)
    assert training_set([], cfg, with_3d=False) is None
    cfg.PATHS.PREPROCESSED = str(tmp_path)
    with pytest.raises(UserError, match="does not exist"):
        open_set("PoseTrack", cfg)
    for changes, message in (
        ({"bbox": np.zeros((3, 4))}, "differ in length"),
        ({"features": np.zeros((20, 256), np.float32)}, r"\(256,\), expected \(2048,\)"),
        ({"joints2D": np.ones((20, 14, 3))}, r"joints2D have shape \(14, 3\), expected \(49, 3\)"),
        ({"vid_name": np.arange(20).astype(str)}, "no window"),
        ({"vid_name": np.array(["a", None] * 10, object)}, "vid_name holds other things than names"),
    ):
        make_posetrack(tmp_path, **changes)
        with pytest.raises(UserError, match=message):
            open_set("PoseTrack", cfg)
    dump_joblib({"vid_name": np.array(["a"])}, tmp_path / "posetrack_train_db.pt")
    with pytest.raises(UserError, match="lacks features, joints2D, bbox"):
        open_set("PoseTrack", cfg)
    (tmp_path / "broken.h5").write_text("no")
    with pytest.raises(UserError, match=r"broken\.h5"):
        open_database(tmp_path / "broken.h5", ["vid_name"])


def test_large_arrays_stay_on_disk(tmp_path: Path) -> None:
    make_posetrack(tmp_path)
    features = open_database(tmp_path / "posetrack_train_db.pt", ["vid_name", "features"])["features"]
    assert isinstance(features.base, np.memmap)


def test_h5_rows_read_like_an_array(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(50, 3, 2))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = values
    rows, index = H5Rows(tmp_path / "a.h5", "x"), np.array([[4, 5, 6], [40, 5, 4]])
    for reader in (rows, pickle.loads(pickle.dumps(rows))):
        assert np.array_equal(reader[index], values[index])


@pytest.mark.parametrize("suffix", [".pt", ".h5"])
def test_numbers_that_are_none_are_found_before_the_work_or_when_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    def write(**changes: np.ndarray) -> Path:
        joints = np.ones((20, 49, 3))
        database = {
            "vid_name": np.array(["a"] * 20),
            "joints2D": joints,
            "bbox": np.tile([400.0, 300, 120, 120], (20, 1)),
            "features": np.zeros((20, 2048), np.float32),
            **changes,
        }
        path = tmp_path / f"db{suffix}"
        if suffix == ".pt":
            dump_joblib(database, path)
        else:
            with h5py.File(path, "w") as file:
                for key, values in database.items():
                    file[key] = values.astype("S") if key == "vid_name" else values
        return path

    fields = ["vid_name", "joints2D", "bbox", "features"]
    for field, shape in (("joints2D", (49, 3)), ("bbox", (4,)), ("features", (2048,))):
        for value in (np.nan, -np.inf):
            values = np.ones((20, *shape))
            values[13].flat[-1] = value
            with pytest.raises(UserError, match=rf"db\{suffix}: {field} of row 13 "):
                open_database(write(**{field: values}), fields)

    joints = np.ones((20, 49, 3))
    joints[3, 5] = np.nan, np.nan, 0
    cfg = config(T4_OTHER, compat=False)
    cfg.DATASET.FILES.posetrack_train = str(write(joints2D=joints))
    target = open_set("PoseTrack", cfg)[3]["kp_2d"]
    assert target.isfinite().all() and target[0, 5, 2] == 0
    joints[3, 5, 2] = 1
    with pytest.raises(UserError, match=r"joints2D of row 3 .*where the confidence is 0"):
        open_database(write(joints2D=joints), fields)

    # too large to be looked at as a whole
    monkeypatch.setattr(database_module, "_SCAN_BYTES", 2 * 8192)
    monkeypatch.setattr(database_module, "_SCAN_LIMIT", 8192)
    monkeypatch.setattr(database_module.blocks, "__defaults__", (2 * 8192, math.inf))
    features = np.zeros((20, 2048), np.float32)
    features[7, 9] = np.nan
    cfg.DATASET.FILES.posetrack_train = str(write(features=features))
    dataset = open_set("PoseTrack", cfg)
    dataset.__getitems__([18, 19])
    with pytest.raises(UserError, match=r"db\.\w+: features of row 7 "):
        dataset.__getitems__([19, 8])


def test_worker_processes_get_paths_not_arrays(tmp_path: Path) -> None:
    """Where they are spawned, what they get is pickled."""
    cfg = config(T4_3DPW, compat=False)
    dataset = training_set(["ThreeDPW", "Human36M"], cfg, with_3d=True)
    assert dataset is not None
    dump_joblib({"vid_name": np.repeat("m", 40), "theta": np.ones((40, 82))}, tmp_path / "amass_db.pt")
    sources = [
        dataset,
        open_set("Insta", cfg),
        video_sequences(dataset, 16),
        RealMotions(tmp_path / "amass_db.pt", 16),
    ]
    for source in sources:
        text = pickle.dumps(source)
        assert len(text) < 20_000
        first, second = source.__getitems__([1, 0]), pickle.loads(text).__getitems__([1, 0])
        assert all(torch.equal(first[key], second[key]) for key in first)


def test_concatenation_keeps_the_order_of_indices() -> None:
    cfg = config()
    together = training_set(["ThreeDPW", "MPII3D", "Human36M"], cfg, with_3d=True)
    parts = [open_set(name, cfg) for name in ("ThreeDPW", "MPII3D", "Human36M")]
    first, second = len(parts[0]), len(parts[0]) + len(parts[1])
    batch = together.__getitems__([second, 2, first + 1, 0])
    expected = [parts[2][0], parts[0][2], parts[1][1], parts[0][0]]
    for key, values in batch.items():
        assert torch.equal(values, torch.stack([sample[key] for sample in expected]))
    assert len(together) == sum(len(part) for part in parts)


def take(batches, count: int) -> list:
    return list(itertools.islice(iter(batches), count))


def test_passes_are_permutations_and_any_position_can_be_resumed() -> None:
    whole = take(EndlessBatches(10, 4, seed=3), 10)
    flat = functools.reduce(operator.iadd, whole, [])
    for i in range(4):
        assert sorted(flat[10 * i : 10 * i + 10]) == list(range(10))
    assert flat[:10] != flat[10:20]
    assert take(EndlessBatches(10, 4, seed=3, start=12), 7) == whole[3:]
    assert take(EndlessBatches(10, 4, seed=4), 10) != whole
    assert sorted(take(EndlessBatches(3, 9, seed=0), 1)[0]) == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_processes_share_each_batch() -> None:
    whole = take(EndlessBatches(10, 4, seed=3), 5)
    for rank in range(2):
        shares = take(EndlessBatches(10, 4, seed=3, rank=rank, world=2), 5)
        assert shares == [batch[rank::2] for batch in whole]


@pytest.mark.parametrize("workers", [0, 1])
def test_stream_goes_on_where_it_stopped(workers: int) -> None:
    dataset = open_set("Insta", config())
    torch.manual_seed(5)
    stream = BatchStream(dataset, 7, seed=1, workers=workers)
    batches = [next(stream) for _ in range(4)]
    assert torch.initial_seed() == 5
    assert torch.equal(torch.rand(3), torch.rand(3, generator=torch.Generator().manual_seed(5)))
    again = next(BatchStream(dataset, 7, seed=1, start=21, workers=workers))
    assert stream.position == 28
    assert all(torch.equal(again[key], batches[3][key]) for key in again)


def test_samples_collate_by_default_too() -> None:
    batch = next(iter(DataLoader([open_set("Insta", config())[i] for i in range(3)], batch_size=3)))
    assert batch["features"].shape == (3, 16, 2048)
    assert batch["kp_2d"].shape == (3, 1, 49, 3)

"""The five shipped configurations from databases to numbers: train, go on, evaluate.

The databases are tiny and synthetic, in the official layout and under the official names. Each configuration
finds only the files that the original's table gives for its TITLE.
"""

from __future__ import annotations

import json
import logging
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from lib.commands import evaluate, train
from lib.core.config import load_config
from lib.core.training_data import open_datasets
from lib.dataset import database as database_module
from lib.dataset.loaders import BatchStream
from lib.utils.errors import UserError
from lib.utils.files import dump_joblib, load_checkpoint
from lib.utils.keypoints import JOINT_NAMES
from tests.golden_tools import GOLDEN
from tests.trainer_tools import CONFIGS, logged

FEATURES, HIDDEN = 24, 16
LENGTHS = [20, 9, 17]  # the second is shorter than a window
# For every TITLE: files of the 2D sets, of the 3D sets, of validation, and what the paper evaluates it on.
TABLE: dict[str, tuple[list[str], list[str], str, dict[str, str]]] = {
    "repr_table4_3dpw_model": (
        ["insta_train_db.h5"],
        ["3dpw_train_occ_db.pt", "mpii3d_train_scale12_occ_db.pt", "h36m_train_25fps_occ_db.pt"],
        "3dpw_val_db.pt",
        {"3dpw": "3dpw_test_db.pt", "mpii3d": "mpii3d_val_scale12_db.pt"},
    ),
    "repr_table4_h36m_mpii3d_model": (
        ["insta_train_db.h5", "posetrack_train_db.pt"],
        ["3dpw_train_db.pt", "mpii3d_train_scale12_db.pt", "h36m_train_25fps_db.pt"],
        "3dpw_val_db.pt",
        {"mpii3d": "mpii3d_val_scale12_db.pt", "h36m": "h36m_test_25fps_nosmpl_db.pt"},
    ),
    "repr_table6_3dpw_model": (
        ["insta_train_db.h5", "posetrack_train_occ_db.pt"],
        ["mpii3d_train_scale12_new_occ_db.pt", "h36m_train_25fps_occ_db.pt"],
        "3dpw_val_db.pt",
        {"3dpw": "3dpw_test_db.pt"},
    ),
    "repr_table6_mpii3d_model": (
        ["insta_train_db.h5", "posetrack_train_db.pt"],
        ["mpii3d_train_scale12_db.pt", "h36m_train_25fps_db.pt"],
        "3dpw_val_db.pt",
        {"mpii3d": "mpii3d_val_scale12_db.pt"},
    ),
    "repr_table6_h36m_model": (
        ["insta_train_db.h5"],
        ["mpii3d_train_scale1_db.pt", "h36m_train_25fps_tight_db.pt"],
        "h36m_test_front_25fps_tight_db.pt",
        {"h36m": "h36m_test_front_25fps_tight_nosmpl_db.pt"},
    ),
}
TABLE4_3DPW = "repr_table4_3dpw_model"


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def log_handlers() -> Iterator[None]:
    """The commands send the root logger's messages to files."""
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    root.setLevel(logging.INFO)
    yield
    for handler in set(root.handlers) - set(before):
        root.removeHandler(handler)
        handler.close()
    root.setLevel(level)


# --------------------------------------------------------------------------------
# Databases


def make_database(path: Path) -> None:
    """The fields, types and joint conventions that the official file of this name has."""
    dataset, split = path.name.split("_")[:2]
    random, n = np.random.default_rng(len(path.name)), sum(LENGTHS)
    conventions = {"3dpw": "common", "insta": "insta", "pennaction": "common"}
    joints2d = random.uniform(80, 140, (n, len(JOINT_NAMES[conventions.get(dataset, "spin")]), 3))
    joints2d[..., 2] = 1
    names = np.repeat([f"{dataset}_{split}_{k}" for k in range(len(LENGTHS))], LENGTHS)
    fields: dict[str, Any] = {
        "vid_name": names,
        "frame_id": np.concatenate([np.arange(length) for length in LENGTHS]),
        "joints2D": joints2d,
        "features": random.uniform(-1, 1, (n, FEATURES)).astype(np.float32),
    }
    if path.suffix == ".h5":
        with h5py.File(path, "w") as file:
            for key, values in fields.items():
                file[key] = values.astype("S") if key == "vid_name" else values
        return
    fields["img_name"] = np.char.add(names, ".jpg")
    fields["bbox"] = np.tile([110.0, 110.0, 90.0, 90.0], (n, 1))
    if dataset in ("3dpw", "h36m", "mpii3d"):
        joints = 14 if dataset == "3dpw" and split != "train" else 49
        fields["joints3D"] = random.normal(0, 0.3, (n, joints, 3)).astype(np.float32)
    if dataset in ("3dpw", "h36m"):
        smpl = 0 if "nosmpl" in path.name else 0.2
        fields["pose"] = random.normal(0, smpl, (n, 72)).astype(np.float32)
        fields["shape"] = random.normal(0, smpl, (n, 10)).astype(np.float32)
    if dataset == "3dpw":
        fields["valid"] = np.ones(n, np.uint8)
    if dataset == "mpii3d" and split == "val":
        fields["valid_i"] = np.ones((n, 1), np.uint8)
        fields["valid_i"][3] = 0
    dump_joblib(fields, path)


@pytest.fixture(scope="module")
def make_databases(tmp_path_factory: pytest.TempPathFactory) -> Callable[[set[str]], Path]:
    """A folder with the files of the given names and no others."""
    store = tmp_path_factory.mktemp("official")

    def make(names: set[str]) -> Path:
        folder = tmp_path_factory.mktemp("preprocessed_data")
        for name in names:
            if not (store / name).exists():
                make_database(store / name)
            (folder / name).symlink_to(store / name)
        return folder

    return make


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the databases that are opened, in order."""
    names: list[str] = []
    read_fields = database_module.read_fields

    def spy(path: Path) -> dict[str, Any]:
        names.append(path.name)
        return read_fields(path)

    monkeypatch.setattr(database_module, "read_fields", spy)
    return names


@pytest.fixture(scope="module")
def spin_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SPIN's file, as far as its layout goes: backbone and head under ``model``, no body."""
    size, torch_seed = FEATURES + 144 + 10 + 3, torch.Generator().manual_seed(3)
    shapes = {
        "conv1.weight": (64, 3, 7, 7),
        "fc1.weight": (HIDDEN, size),
        "fc1.bias": (HIDDEN,),
        "fc2.weight": (HIDDEN, HIDDEN),
        "fc2.bias": (HIDDEN,),
        **{f"{name}.weight": (n, HIDDEN) for name, n in (("decpose", 144), ("decshape", 10), ("deccam", 3))},
        **{f"{name}.bias": (n,) for name, n in (("decpose", 144), ("decshape", 10), ("deccam", 3))},
        **{name: (1, n) for name, n in (("init_pose", 144), ("init_shape", 10), ("init_cam", 3))},
    }
    weights = {key: 0.01 * torch.randn(shape, generator=torch_seed) for key, shape in shapes.items()}
    weights["init_cam"][0, 0] = 0.9
    path = tmp_path_factory.mktemp("spin") / "spin_model_checkpoint.pth.tar"
    torch.save({"model": weights, "epoch": 5, "total_step_count": np.int64(7)}, path)
    return path


# --------------------------------------------------------------------------------
# Commands


class Commands:
    """``train.py`` and ``evaluate.py`` of one configuration, in this process."""

    def __init__(
        self, title: str, folder: Path, databases: Path, base: Path, spin: Path, patch: pytest.MonkeyPatch
    ) -> None:
        self.title, self.folder, self.patch = title, folder, patch
        self.opts = [
            *("PATHS.PREPROCESSED", str(databases), "PATHS.BASE_DATA", str(base), "NUM_WORKERS", "0"),
            *("OUTPUT_DIR", str(folder / "experiments"), "DEVICE", "cpu", "MODEL.TGRU.HIDDEN_SIZE", "8"),
            *("MODEL.FEATURE_SIZE", str(FEATURES), "MODEL.REGRESSOR.HIDDEN_SIZE", str(HIDDEN)),
            *("TRAIN.PRETRAINED_REGRESSOR", str(spin), "TRAIN.NUM_ITERS_PER_EPOCH", "2"),
        ]

    def _argv(self, command: str, more: list[str], opts: tuple[str, ...]) -> None:
        cfg = str(CONFIGS / f"{self.title}.yaml")
        self.patch.setattr(sys, "argv", [command, "--cfg", cfg, *more, "--opts", *self.opts, *opts])

    def train(self, *opts: str) -> Path:
        """Train; returns the run folder."""
        before = set((self.folder / "experiments").glob("*"))
        self._argv("train.py", [], opts)
        train.main()
        (made,) = set((self.folder / "experiments").glob("*")) - before
        return made

    def evaluate(self, dataset: str, checkpoint: Path) -> dict[str, Any]:
        """Evaluate; returns what ``--json`` writes."""
        target = self.folder / f"{dataset}.json"
        more = ["--dataset", dataset, "--json", str(target)]
        self._argv("evaluate.py", more, ("TRAIN.PRETRAINED", str(checkpoint)))
        evaluate.main()
        return json.loads(target.read_text())


@pytest.fixture
def commands(
    tmp_path: Path, base_data: Path, spin_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str, Path], Commands]]:
    monkeypatch.chdir(tmp_path)
    yield lambda title, databases: Commands(
        title, tmp_path, databases, base_data, spin_checkpoint, monkeypatch
    )
    shutil.rmtree(tmp_path / "experiments", ignore_errors=True)  # checkpoints hold the body: 20 MB each


# --------------------------------------------------------------------------------


@pytest.mark.parametrize("title", TABLE)
def test_train_go_on_and_evaluate(
    title: str,
    make_databases: Callable[[set[str]], Path],
    opened: list[str],
    spin_checkpoint: Path,
    commands: Callable[[str, Path], Commands],
) -> None:
    sets_2d, sets_3d, validation, tests = TABLE[title]
    run = commands(title, make_databases({*sets_2d, *sets_3d, validation, *tests.values()}))

    first = run.train("TRAIN.END_EPOCH", "1", "TRAIN.GEN_LR", "0.0")
    assert sorted(opened) == sorted([*sets_2d, *sets_3d, validation])
    assert {p.name for p in first.iterdir() if not p.name.startswith("events")} == {
        *("checkpoint.pth.tar", "model_best.pth.tar", "best.txt", "train_log.txt", "config.yaml")
    }
    start = load_checkpoint(first / "checkpoint.pth.tar")
    assert (start["epoch"], start["step"]) == (0, 2)
    assert start["loaders"] == {"2d": 2 * 19, "3d": 2 * 13}
    assert type(start["performance"]) is float
    spin = load_checkpoint(spin_checkpoint)["model"]  # the learning rate was 0: still what it began with
    torch.testing.assert_close(start["gen_state_dict"]["regressor.fc1.weight"], spin["fc1.weight"])
    torch.testing.assert_close(start["gen_state_dict"]["regressor.init_pose"], spin["init_pose"])
    original = json.loads((GOLDEN / "state_dicts.json").read_text())["tcmr_h1024_l2"]
    assert set(start["gen_state_dict"]) == set(original)

    resume = ["TRAIN.RESUME", str(first / "checkpoint.pth.tar"), "TRAIN.END_EPOCH", "2"]
    second = run.train(*resume)
    assert second != first
    end = load_checkpoint(second / "checkpoint.pth.tar")
    assert (end["epoch"], end["step"]) == (1, 4)
    assert end["loaders"] == {"2d": 4 * 19, "3d": 4 * 13}
    events = logged(second)
    assert [event.step for event in events.Scalars("train_loss/loss")] == [2, 3]
    assert [event.step for event in events.Scalars("error/pa-mpjpe")] == [1]
    assert {"train_loss/loss_pose", "train_loss/loss_shape"} <= set(events.Tags()["scalars"])
    log = (second / "train_log.txt").read_text()
    assert "resumed from" in log and "epoch 2 comes next" in log
    assert "2D training windows" in log and "19 per batch" in log and "13 per batch" in log

    for dataset, file in tests.items():
        opened.clear()
        content = run.evaluate(dataset, second / "checkpoint.pth.tar")
        assert opened == [file]
        assert {"mpjpe", "mpjpe_pa", "accel_err", "num_poses", "per_sequence", "skipped"} <= set(content)
        assert ("mpvpe" in content) == (dataset == "3dpw")
        assert content["num_poses"] == 20 + 17 - (dataset == "mpii3d")  # one frame there is not valid
        assert [entry["frames"] for entry in content["skipped"]] == [9]
        assert all(np.isfinite(content[key]) for key in ("mpjpe", "mpjpe_pa", "accel_err"))
        published = {"repr_table4_3dpw_model": {"3dpw"}}.get(title, set(tests))
        assert bool(content["published"]) == (dataset in published)
        assert content["protocol"]["title"] == title


@pytest.mark.parametrize("title", TABLE)
def test_batches_can_be_pinned(title: str, make_databases: Callable[[set[str]], Path]) -> None:
    """For a GPU they are copied into memory of the same strides, which must not share entries."""
    sets_2d, sets_3d, _, _ = TABLE[title]
    folder = make_databases({*sets_2d, *sets_3d})
    opts = ["PATHS.PREPROCESSED", str(folder), "MODEL.FEATURE_SIZE", str(FEATURES)]
    datasets = open_datasets(load_config(CONFIGS / f"{title}.yaml", opts))
    assert datasets.keys() == {"2d", "3d"}
    for windows in datasets.values():
        for source in (windows, *windows.datasets):  # several sets, and one
            for values in next(BatchStream(source, 13, seed=0)).values():
                torch.empty_strided(values.shape, values.stride(), dtype=values.dtype).copy_(values)


def test_a_missing_database_is_named(
    make_databases: Callable[[set[str]], Path], commands: Callable[[str, Path], Commands]
) -> None:
    """A file of another TITLE is no substitute."""
    sets_2d, sets_3d, validation, _ = TABLE[TABLE4_3DPW]
    others = {"mpii3d_train_scale12_db.pt"}
    run = commands(TABLE4_3DPW, make_databases({*sets_2d, *sets_3d, validation, *others} - {sets_3d[1]}))
    with pytest.raises(UserError, match=r"mpii3d_train_scale12_occ_db\.pt does not exist"):
        run.train("TRAIN.END_EPOCH", "1")


@pytest.mark.parametrize(
    ("opts", "files", "sizes"),
    [
        (["TRAIN.DATASETS_2D", "[]"], ["mpii3d_train_scale12_db.pt", "h36m_train_25fps_db.pt"], {"3d": 32}),
        (["TRAIN.DATASETS_3D", "[]"], ["insta_train_db.h5", "posetrack_train_db.pt"], {"2d": 32}),
        (
            ["TRAIN.DATASETS_2D", "['PennAction']", "TRAIN.DATASETS_3D", "['MPII3D']"],
            ["pennaction_train_scale12_db.pt", "mpii3d_train_scale12_db.pt"],
            {"2d": 19, "3d": 13},
        ),
    ],
    ids=["3D only", "2D only", "PennAction"],
)
def test_other_mixtures(
    make_databases: Callable[[set[str]], Path],
    opened: list[str],
    commands: Callable[[str, Path], Commands],
    opts: list[str],
    files: list[str],
    sizes: dict[str, int],
) -> None:
    run = commands("repr_table6_mpii3d_model", make_databases({*files, "3dpw_val_db.pt"}))
    folder = run.train("TRAIN.END_EPOCH", "1", *opts)
    assert sorted(opened) == sorted([*files, "3dpw_val_db.pt"])
    checkpoint = load_checkpoint(folder / "checkpoint.pth.tar")
    assert checkpoint["loaders"] == {kind: 2 * size for kind, size in sizes.items()}
    tags = logged(folder).Tags()["scalars"]
    assert ("train_loss/loss_kp_3d" in tags) == ("3d" in sizes)
    assert ("train_loss/loss_pose" in tags) == any("h36m" in file for file in files)

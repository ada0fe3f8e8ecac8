"""The datasets by name, the files they live in, and the training samples they give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset
from yacs.config import CfgNode

from ..utils.crops import transform_keypoints
from ..utils.errors import UserError
from ..utils.geometry import CROP_SIZE
from ..utils.keypoints import JOINT_NAMES, convert_kps
from ..utils.registry import Registry
from .database import Database, open_database, read_features
from .windows import first_of_runs, original_windows, training_windows, window_frames

Batch = dict[str, torch.Tensor]


class BatchDataset(Dataset[Batch]):
    """A dataset that gives whole batches."""

    def __len__(self) -> int:
        raise NotImplementedError

    def __getitem__(self, index: int) -> Batch:
        return {key: values[0] for key, values in self.__getitems__([index]).items()}

    def __getitems__(self, indices: Sequence[int] | np.ndarray) -> Batch:
        """The samples at ``indices``, stacked in that order."""
        raise NotImplementedError


@dataclass(frozen=True)
class FrameRate:
    """Frames per second of a database (None if unknown), and how that is known."""

    fps: float | None
    source: str


_UNKNOWN_RATE = FrameRate(None, "the database has no fps")


@dataclass(frozen=True)
class DatasetSpec:
    """What distinguishes one dataset from another. Databases are written as docs/data.md says."""

    name: str  # in configuration files
    key: str  # in file names and on the command line
    joints2d: str = "spin"  # convention of the stored 2D joints
    crop_pixels: bool = False  # 2D joints are pixels of the crop, and there are no boxes
    has_3d: bool = True
    has_smpl: bool = True
    eval_joints: str = ""  # convention of the joints that are compared; "" = not evaluated
    eval_regressor: bool = False  # predicted joints come from the H36M regressor, else from the 49
    eval_mesh: bool = False  # ground truth pose and shape give vertices to compare
    gendered: bool = False  # can be measured against male and female bodies, by the database's `gender`
    frame_rate: FrameRate = _UNKNOWN_RATE  # of databases without `fps`; only Accel in m/s^2 depends on it
    frames: str = "all"  # which of them count, in words
    file: str = "{key}_{split}_db.pt"  # of a split's database; "" = see _FILES


DATASETS: Registry[DatasetSpec] = Registry("dataset")  # by name


def register_dataset(spec: DatasetSpec) -> DatasetSpec:
    """Make a dataset known by its name and its key.

    Raises:
        UserError: one of them is taken.
    """
    if spec.key in _keys():
        raise UserError(f"there is a dataset with the key {spec.key!r} already: give yours another")
    return DATASETS.add(spec.name, spec)


def _keys() -> dict[str, DatasetSpec]:
    return {spec.key: spec for spec in DATASETS.values()}


for _spec in (
    DatasetSpec(
        "ThreeDPW",
        "3dpw",
        "common",
        eval_joints="common",
        eval_regressor=True,
        eval_mesh=True,
        gendered=True,
        frame_rate=FrameRate(30, "3DPW's videos"),
        frames="those not `valid` are removed, and the rest is taken as contiguous",
        file="",
    ),
    DatasetSpec(
        "MPII3D",
        "mpii3d",
        has_smpl=False,
        eval_joints="mpii3d_test",
        frame_rate=FrameRate(
            25, "assumed: the test videos were recorded at 25 or 50, the database does not say"
        ),
        frames="those with `valid_i` 0 do not count, but their neighbours see them, in windows and in Accel",
        file="",
    ),
    DatasetSpec(
        "Human36M",
        "h36m",
        eval_joints="common",
        eval_regressor=True,
        frame_rate=FrameRate(25, "assumed: the 25fps databases, every other frame of 50"),
        file="",
    ),
    DatasetSpec(
        "Open",
        "open",
        eval_joints="common",
        eval_mesh=True,
        frame_rate=FrameRate(30, "the simulated camera"),
    ),
    DatasetSpec("Insta", "insta", "insta", crop_pixels=True, has_3d=False, has_smpl=False, file=""),
    DatasetSpec("PoseTrack", "posetrack", has_3d=False, has_smpl=False, file=""),
    DatasetSpec("PennAction", "pennaction", "common", has_3d=False, has_smpl=False, file=""),
):
    register_dataset(_spec)

TABLE4_3DPW = "repr_table4_3dpw_model"
TABLE4_H36M_MPII3D = "repr_table4_h36m_mpii3d_model"
TABLE6_3DPW = "repr_table6_3dpw_model"
TABLE6_MPII3D = "repr_table6_mpii3d_model"
TABLE6_H36M = "repr_table6_h36m_model"
TITLES = (TABLE4_3DPW, TABLE4_H36M_MPII3D, TABLE6_3DPW, TABLE6_MPII3D, TABLE6_H36M)

_FILES = {  # the same for every title
    "3dpw_val": "3dpw_val_db.pt",
    "3dpw_test": "3dpw_test_db.pt",
    "3dpw_val_all": "3dpw_val_all_db.pt",  # with the frames in which few joints are seen, for drawing
    "3dpw_test_all": "3dpw_test_all_db.pt",
    "mpii3d_val": "mpii3d_val_scale12_db.pt",
    "mpii3d_test": "mpii3d_val_scale12_db.pt",
    "insta_train": "insta_train_db.h5",
    "pennaction_train": "pennaction_train_scale12_db.pt",
    "amass_train": "amass_db.pt",
}
_FILES_BY_TITLE = {  # in the order of TITLES
    "3dpw_train": ("3dpw_train_occ_db.pt", *["3dpw_train_db.pt"] * 4),
    "mpii3d_train": (
        "mpii3d_train_scale12_occ_db.pt",
        "mpii3d_train_scale12_db.pt",
        "mpii3d_train_scale12_new_occ_db.pt",
        "mpii3d_train_scale12_db.pt",
        "mpii3d_train_scale1_db.pt",
    ),
    "h36m_train": (
        "h36m_train_25fps_occ_db.pt",
        "h36m_train_25fps_db.pt",
        "h36m_train_25fps_occ_db.pt",
        "h36m_train_25fps_db.pt",
        "h36m_train_25fps_tight_db.pt",
    ),
    "posetrack_train": (
        "posetrack_train_db.pt",
        "posetrack_train_db.pt",
        "posetrack_train_occ_db.pt",
        "posetrack_train_db.pt",
        "posetrack_train_db.pt",
    ),
    "h36m_val": (*["h36m_val_db.pt"] * 4, "h36m_test_front_25fps_tight_db.pt"),
    "h36m_test": (
        "",
        "h36m_test_25fps_nosmpl_db.pt",
        "",
        "",
        "h36m_test_front_25fps_tight_nosmpl_db.pt",
    ),
}


def databases() -> list[str]:
    """The keys of DATASET.FILES."""
    named = [spec.key for spec in DATASETS.values() if spec.file]
    own = {f"{key}_{split}" for key in named for split in ("train", "val", "test")}
    return sorted({*_FILES, *_FILES_BY_TITLE, *own})


def get_spec(name: str) -> DatasetSpec:
    """The dataset called ``name`` in a configuration, or by its key.

    Raises:
        UserError: there is none.
    """
    return _keys().get(name) or DATASETS[name]


def database_path(spec: DatasetSpec, split: str, cfg: CfgNode) -> Path:
    """The database of a split: from DATASET.FILES, else the official file for the configuration's TITLE.

    A name with a folder in it is used as it is; a bare name lies in PATHS.PREPROCESSED.

    Raises:
        UserError: neither says which file it is.
    """
    return find_database(f"{spec.key}_{split}", cfg, spec.file.format(key=spec.key, split=split))


def find_database(key: str, cfg: CfgNode, default: str = "") -> Path:
    """:func:`database_path` by the key ``<dataset>_<split>`` of DATASET.FILES."""
    name = cfg.DATASET.FILES.get(key) or _FILES.get(key, default)
    if not name and cfg.TITLE in TITLES and key in _FILES_BY_TITLE:
        name = _FILES_BY_TITLE[key][TITLES.index(cfg.TITLE)]
    if not name:
        raise UserError(
            f"no database {key} belongs to TITLE {cfg.TITLE!r}: name its file in DATASET.FILES.{key}"
        )
    path = Path(name)
    return path if path.parent != Path() else Path(cfg.PATHS.PREPROCESSED) / path


class WindowDataset(BatchDataset):
    """Runs of R windows of one database, each a frame later than the one before, with the targets of the
    windows' middle frames.

    A sample holds ``features`` (L + R - 1, F), ``kp_2d`` (R, 49, 3: x, y in [-1, 1] of the crop, confidence)
    and, for a dataset with 3D, ``kp_3d`` (R, 49, 3) metres, NaN where unseen, ``theta`` (R, 85), ``w_3d``
    (R,) and ``w_smpl`` (R,), all float32. :meth:`__getitems__` gives a batch: one leading axis more.

    Args:
        database: the fields of :func:`required_fields`.
        seqlen: window length L.
        run_length: R; more than 1 needs ``overlap`` and not the original's windows.
        overlap: a window for every frame, else windows side by side.
        original: the original's choice of windows.
        float16: round targets to half precision, as the original does.
        use_smpl: False gives every sample w_smpl 0.
    """

    def __init__(
        self,
        spec: DatasetSpec,
        database: Mapping[str, Any],
        seqlen: int,
        *,
        run_length: int = 1,
        overlap: bool = True,
        original: bool = False,
        float16: bool = False,
        use_smpl: bool = True,
    ) -> None:
        self.spec, self.database, self.seqlen, self.run_length = spec, database, seqlen, run_length
        self.float16, self.use_smpl = float16, use_smpl and spec.has_smpl
        self._make_windows = original_windows if original else training_windows
        self._overlap = overlap

    @cached_property
    def windows(self) -> np.ndarray:
        """Windows (n, 3), see :mod:`lib.dataset.windows`: the first of each run."""
        windows = self._make_windows(self.database["vid_name"], self.seqlen, self._overlap)
        return first_of_runs(windows, self.run_length)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "windows"}

    def __len__(self) -> int:
        return len(self.windows)

    def __getitems__(self, indices: Sequence[int] | np.ndarray) -> Batch:
        windows = self.windows[np.asarray(indices)]
        targets = (windows[:, :1] + np.arange(self.run_length)).ravel()
        frames = window_frames(windows, self.seqlen, self.run_length)
        batch = {"features": torch.from_numpy(read_features(self.database, frames))}
        batch["kp_2d"] = self._target(self._joints2d(targets))
        if self.spec.has_3d:
            theta = self._theta(targets)
            has_smpl = theta[:, 3:].any(axis=1) & self.use_smpl  # all zero means that there is none
            batch["kp_3d"] = self._target(self.database["joints3D"][targets])
            batch["theta"] = self._target(theta)
            batch["w_3d"] = torch.ones(len(windows), self.run_length)
            batch["w_smpl"] = self._target(has_smpl)
        return batch

    def _joints2d(self, frames: np.ndarray) -> np.ndarray:
        joints = convert_kps(self.database["joints2D"][frames], self.spec.joints2d, "spin")  # a copy
        joints[..., :2][np.isnan(joints[..., :2])] = 0  # unseen: the loss weighs them by 0
        if not self.spec.crop_pixels:
            return transform_keypoints(joints, self.database["bbox"][frames])
        joints[..., :2] = 2 * joints[..., :2] / CROP_SIZE - 1
        return joints

    def _theta(self, frames: np.ndarray) -> np.ndarray:
        theta = np.zeros((len(frames), 85), np.float32)
        theta[:, 0] = 1
        if self.spec.has_smpl:
            theta[:, 3:75] = self.database["pose"][frames]
            theta[:, 75:] = self.database["shape"][frames]
        return theta

    def _target(self, values: Any) -> torch.Tensor:
        if self.float16:
            values = values.astype(np.float16)
        return torch.unflatten(torch.from_numpy(np.asarray(values, np.float32)), 0, (-1, self.run_length))


class ConcatWindows(BatchDataset):
    """Several datasets as one: batches mix them in proportion to their sizes. All give the same keys."""

    def __init__(self, datasets: Sequence[BatchDataset]) -> None:
        self.datasets = list(datasets)
        self._ends = np.cumsum([len(dataset) for dataset in self.datasets])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitems__(self, indices: Sequence[int] | np.ndarray) -> Batch:
        indices = np.asarray(indices)
        sources = np.searchsorted(self._ends, indices, side="right")
        parts: list[Batch] = []
        places: list[np.ndarray] = []
        for source in np.unique(sources):
            place = np.flatnonzero(sources == source)
            dataset = self.datasets[source]
            parts.append(dataset.__getitems__(indices[place] - self._ends[source] + len(dataset)))
            places.append(place)
        if len(parts) == 1:
            return parts[0]
        order = torch.from_numpy(np.argsort(np.concatenate(places)))
        return {key: torch.cat([part[key] for part in parts])[order] for key in parts[0]}


def required_fields(spec: DatasetSpec) -> list[str]:
    """Fields of a database that training reads."""
    fields = ["vid_name", "features", "joints2D"]
    fields += [] if spec.crop_pixels else ["bbox"]
    fields += ["joints3D"] if spec.has_3d else []
    return fields + (["pose", "shape"] if spec.has_smpl else [])


def training_set(names: Sequence[str], cfg: CfgNode, *, with_3d: bool) -> ConcatWindows | None:
    """The training windows of the named datasets, or None for an empty list.

    Raises:
        UserError: a name is unknown or belongs in the other list, or a database is missing or does not fit.
    """
    datasets: list[BatchDataset] = []
    for name in names:
        spec = get_spec(name)
        if with_3d and not spec.has_3d:
            raise UserError(f"TRAIN.DATASETS_3D holds {name}, which has no 3D: put it in TRAIN.DATASETS_2D")
        if spec.has_3d and not with_3d:
            raise UserError(f"TRAIN.DATASETS_2D holds {name}, which has 3D: put it in TRAIN.DATASETS_3D")
        datasets.append(_training_windows(spec, cfg))
    return ConcatWindows(datasets) if datasets else None


def _training_windows(spec: DatasetSpec, cfg: CfgNode) -> WindowDataset:
    path = database_path(spec, "train", cfg)
    database = open_database(path, required_fields(spec), optional=["fingerprint"])
    check_shape(path, database, "features", (cfg.MODEL.FEATURE_SIZE,))
    check_shape(path, database, "joints2D", (len(JOINT_NAMES[spec.joints2d]), 3))
    if spec.has_3d:
        check_shape(path, database, "joints3D", (49, 3))
    dataset = WindowDataset(
        spec,
        database,
        cfg.DATASET.SEQLEN,
        run_length=cfg.TRAIN.RUN_LENGTH,
        overlap=cfg.TRAIN.OVERLAP,
        original=cfg.COMPAT.TRAIN_WINDOWS,
        float16=cfg.COMPAT.FLOAT16_TARGETS,
        # the original trains this model, and no other, without Human3.6M's SMPL parameters
        use_smpl=not (spec.name == "Human36M" and cfg.TITLE == TABLE4_3DPW),
    )
    if not len(dataset):
        runs = f"run of TRAIN.RUN_LENGTH {cfg.TRAIN.RUN_LENGTH} windows"
        missing = runs if cfg.TRAIN.RUN_LENGTH > 1 else f"window of {cfg.DATASET.SEQLEN} frames"
        raise UserError(f"database {path} gives no {missing}: its videos are shorter")
    return dataset


def check_shape(path: Path, database: Database, field: str, shape: tuple[Any, ...]) -> None:
    """Compare the shape of a field's rows with what is expected.

    Raises:
        UserError: it differs.
    """
    found = tuple(database[field].shape[1:])
    if found != shape:
        raise UserError(
            f"database {path}: rows of {field} have shape {found}, expected {shape}: "
            "the file was made for another configuration or split"
        )

"""The training samples of databases: runs of windows with their targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset
from yacs.config import CfgNode

from ..utils.crops import transform_keypoints
from ..utils.errors import UserError
from ..utils.geometry import CROP_SIZE
from ..utils.keypoints import JOINT_NAMES, convert_kps
from .database import check_shape, open_database, read_features
from .datasets import TABLE4_3DPW, DatasetSpec, database_path, get_spec
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

"""Sequences of consecutive frames for the motion discriminator: real motions, and features of videos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..utils.errors import UserError
from .database import open_database, read_features, read_fields
from .training import Batch, BatchDataset, ConcatWindows, WindowDataset
from .windows import split_into_chunks, video_spans


class RealMotions(BatchDataset):
    """Motions of AMASS: windows of L frames side by side; what is left of a clip is not used.

    A sample holds ``theta`` (L, 85) float32: the camera (1, 0, 0), axis-angle pose 72, betas 10.

    Args:
        path: a database with ``theta`` (N, 82), or with ``pose`` (N, 72) and ``shape`` (N, 10).
        seqlen: L.

    Raises:
        UserError: the database is missing, does not fit, or has no clip of L frames.
    """

    def __init__(self, path: Path, seqlen: int) -> None:
        fields = ["theta"] if "theta" in read_fields(path) else ["pose", "shape"]
        self._database = open_database(path, ["vid_name", *fields])
        self._fields = fields
        self._windows = split_into_chunks(self._database["vid_name"], seqlen, seqlen)
        self._offsets = np.arange(seqlen)
        if not len(self):
            raise UserError(f"database {path} gives no motion of {seqlen} frames: its clips are shorter")

    def __len__(self) -> int:
        return len(self._windows)

    def __getitems__(self, indices: Sequence[int] | np.ndarray) -> Batch:
        frames = self._windows[np.asarray(indices), :1] + self._offsets
        theta = np.zeros((*frames.shape, 85), np.float32)
        theta[..., 0] = 1
        theta[..., 3:] = np.concatenate([self._database[field][frames] for field in self._fields], axis=-1)
        return {"theta": torch.from_numpy(theta)}


class VideoSequences(BatchDataset):
    """Every run of L consecutive frames of a training set's videos, with the frames their windows see.

    A sample holds ``features`` (2 L - 1, F) float32. The window of frame k of the run is its rows
    ``k ... k + L - 1``, see :func:`lib.models.encoder.run_windows`. Windows that reach over an end of the
    video repeat its border frame.
    """

    def __init__(self, database: Mapping[str, Any], seqlen: int) -> None:
        self._database = database
        spans = video_spans(database["vid_name"])
        runs = (spans[:, 1] - spans[:, 0] + 2 - seqlen).clip(min=0)
        first_run = np.repeat(np.cumsum(runs) - runs, runs)
        self._spans = np.repeat(spans, runs, axis=0)
        self._starts = self._spans[:, 0] + np.arange(runs.sum()) - first_run
        self._offsets = np.arange(2 * seqlen - 1) - seqlen // 2

    def __len__(self) -> int:
        return len(self._starts)

    def __getitems__(self, indices: Sequence[int] | np.ndarray) -> Batch:
        chosen = np.asarray(indices)
        first, last = self._spans[chosen].T[..., None]
        frames = (self._starts[chosen, None] + self._offsets).clip(first, last)
        return {"features": torch.from_numpy(read_features(self._database, frames))}


def video_sequences(windows: ConcatWindows, seqlen: int) -> ConcatWindows:
    """The sequences of the videos that training windows were cut from.

    Raises:
        UserError: no video has L frames.
    """
    parts = [
        VideoSequences(part.database, seqlen) for part in windows.datasets if isinstance(part, WindowDataset)
    ]
    sequences = ConcatWindows(parts)
    if not len(sequences):
        raise UserError(
            f"no video of TRAIN.DATASETS_3D has DATASET.SEQLEN {seqlen} frames, as the motion discriminator "
            "needs: set LOSS.D_MOTION_LOSS_W to 0.0 or add a dataset of longer videos"
        )
    return sequences

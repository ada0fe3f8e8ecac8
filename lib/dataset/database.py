"""Open preprocessed databases: joblib ``.pt`` or HDF5 ``.h5`` files of arrays with one row per frame."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from lib.utils.errors import UserError
from lib.utils.files import load_joblib


class H5Rows:
    """An HDF5 data set read by row numbers. Every process opens the file for itself."""

    def __init__(self, path: Path, key: str) -> None:
        self._path, self._key, self._pid = path, key, -1
        with h5py.File(path, "r") as file:
            self.shape, self.dtype = file[key].shape, file[key].dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """Rows by an integer array of any shape: (*, ...)."""
        if self._pid != os.getpid():
            self._data, self._pid = h5py.File(self._path, "r")[self._key], os.getpid()
        unique, place = np.unique(rows, return_inverse=True)
        runs = np.split(unique, np.flatnonzero(np.diff(unique) != 1) + 1)  # slices read far faster than lists
        return np.concatenate([self._data[run[0] : run[-1] + 1] for run in runs])[place.reshape(rows.shape)]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_data": None, "_pid": -1}


Database = dict[str, Any]  # field -> np.ndarray, or H5Rows for the large fields of an .h5 file


def open_database(path: str | Path, fields: Iterable[str], optional: Iterable[str] = ()) -> Database:
    """Open a database and check it; large arrays stay on disk until their rows are read.

    Args:
        path: the file; ``.h5`` is HDF5, anything else a joblib dump of a dict.
        fields: what it must hold, each (N, ...).
        optional: what is returned as well if it is there.

    Raises:
        UserError: the file is missing, is no database, lacks a field, or its fields differ in length.
    """
    path, fields = Path(path), list(fields)
    if not path.is_file():
        raise UserError(
            f"database {path} does not exist: make or download it (data/README.md says how), "
            "or name another file in DATASET.FILES"
        )
    content = _read_h5(path) if path.suffix == ".h5" else load_joblib(path)
    if not isinstance(content, dict):
        raise UserError(f"database {path} holds a {type(content).__name__}, expected a dict of arrays")
    missing = [field for field in fields if field not in content]
    if missing:
        raise UserError(f"database {path} lacks {', '.join(missing)}; it holds {', '.join(content)}")
    wanted = fields + [field for field in optional if field in content]
    database = {field: _plain(content[field]) for field in wanted}
    lengths = {field: len(values) for field, values in database.items()}
    if len(set(lengths.values())) > 1:
        raise UserError(f"database {path}: fields differ in length ({lengths}); make the file anew")
    return database


def _plain(values: Any) -> Any:
    # a plain view indexes much faster than np.memmap and still reads from the file
    return np.asarray(values) if isinstance(values, np.memmap) else values


def _read_h5(path: Path) -> dict[str, Any]:
    try:
        with h5py.File(path, "r") as file:
            content: dict[str, Any] = {key: H5Rows(path, key) for key in file}
            if "vid_name" in file:
                content["vid_name"] = file["vid_name"][:]
    except OSError as error:
        raise UserError(
            f"database {path} is not a readable HDF5 file ({error}); download it again"
        ) from error
    return content

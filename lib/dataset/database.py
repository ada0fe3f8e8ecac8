"""Open preprocessed databases: joblib ``.pt`` or HDF5 ``.h5`` files of arrays with one row per frame."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ..utils.errors import UserError, fault, shown
from ..utils.files import load_joblib, to_array
from ..utils.hdf5 import check_data_set, check_links, h5_errors
from .finite import check_numbers

_JOINTS = ((14, 3), (25, 3), (49, 3))
_ROW_SHAPES: dict[str, tuple[tuple[int, ...], ...]] = {  # what a row of a field may look like
    "vid_name": ((),),
    "frame_id": ((),),
    "img_name": ((),),
    "gender": ((),),
    "valid": ((), (1,)),
    "valid_i": ((), (1,)),
    "joints2D": _JOINTS,
    "joints3D": _JOINTS,
    "pose": ((72,),),
    "shape": ((10,),),
    "theta": ((82,),),
    "bbox": ((4,),),
}
_NUMBERS = {"features", "valid", "valid_i", "joints2D", "joints3D", "pose", "shape", "theta", "bbox"}
_SCAN_BYTES = 1 << 24  # of a field looked at, at a time
_SCAN_LIMIT = 1 << 30  # of a field looked at in all, so that large files open fast; the rest when it is read
_NAMES = ("vid_name", "frame_id", "img_name", "gender")
_SCAN_BYTES = 1 << 24  # of features looked at, at a time


class H5Rows:
    """An HDF5 data set read by row numbers. Every process opens the file for itself."""

    def __init__(self, path: Path, key: str) -> None:
        self._path, self._key, self._pid = path, key, -1
        with h5_errors(f"database {path}", key), h5py.File(path, "r") as file:
            check_data_set(file, key, f"database {path}")
            self.shape: tuple[int, ...] = file[key].shape
            self.dtype: np.dtype[Any] = file[key].dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """Rows by an integer array of any shape: (*, ...)."""
        unique, place = np.unique(rows, return_inverse=True)
        runs = np.split(unique, np.flatnonzero(np.diff(unique) != 1) + 1)  # slices read far faster than lists
        with h5_errors(f"database {self._path}", self._key):
            if self._pid != os.getpid():
                self._data, self._pid = h5py.File(self._path, "r")[self._key], os.getpid()
            parts = [self._data[run[0] : run[-1] + 1] for run in runs]
        return np.concatenate(parts)[place.reshape(rows.shape)]

    def whole(self) -> Any:
        """Everything: the array, or the value of a data set that is a scalar."""
        with h5_errors(f"database {self._path}", self._key), h5py.File(self._path, "r") as file:
            return file[self._key][()]

    def block(self, start: int, stop: int) -> np.ndarray:
        """Rows from ``start`` on. The file is closed again: processes that are forked afterwards must not
        find it open."""
        with h5_errors(f"database {self._path}", self._key), h5py.File(self._path, "r") as file:
            rows: np.ndarray = file[self._key][start:stop]
            return rows

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_data": None, "_pid": -1}


class Database(dict[str, Any]):
    """Fields of a file: np.ndarray, or H5Rows for the large ones of an .h5 file.

    It pickles as the file's name, so that a process that is spawned maps the file itself.
    """

    def __init__(self, path: Path, fields: Mapping[str, Any]) -> None:
        super().__init__(fields)
        self.path = path

    @property
    def fingerprint(self) -> str:
        """Of the extractor that made the features, see :mod:`lib.models.extractors`; '' if unknown."""
        value = np.asarray(self.get("fingerprint", "")).item()
        return value.decode() if isinstance(value, bytes) else str(value)

    def __reduce__(self) -> tuple[Any, ...]:
        return _mapped, (self.path, list(self))


def read_features(database: Mapping[str, Any], frames: np.ndarray) -> np.ndarray:
    """Features (*, F) float32 of rows (*) of a database.

    Raises:
        UserError: one is not finite.
    """
    features = np.ascontiguousarray(database["features"][frames], np.float32)
    if not math.isfinite(features.sum()):
        path = database.path if isinstance(database, Database) else Path()
        for frame, feature in zip(frames.reshape(-1), features.reshape(-1, features.shape[-1])):
            check_numbers(path, "features", feature[None], int(frame))
    return features


def open_database(path: str | Path, fields: Iterable[str], optional: Iterable[str] = ()) -> Database:
    """Open a database and check it; large arrays stay on disk until their rows are read.

    Fields are looked at block by block, to make sure that every number is finite; of a field of more than
    1 GiB it is a sample. What the file holds besides the fields asked for is neither read nor checked.

    Args:
        path: the file; ``.h5`` is HDF5, anything else a joblib dump of a dict.
        fields: what it must hold, each (N, ...).
        optional: what is returned as well if it is there; scalars may be among it.

    Raises:
        UserError: the file is missing, is no database, lacks a field, a field's rows have an impossible
            shape, fields differ in length, or a number is none (:func:`check_numbers`).
    """
    path, fields = Path(path), list(fields)
    content = read_fields(path)
    missing = [field for field in fields if field not in content]
    if missing:
        raise UserError(f"database {path} lacks {', '.join(missing)}; it holds {', '.join(content)}")
    wanted = fields + [field for field in optional if field in content]
    database = Database(path, {field: _plain(path, field, content[field]) for field in wanted})
    for field, values in database.items():
        if values.shape or field in fields:
            _check_rows(path, field, values)
    lengths = {field: len(values) for field, values in database.items() if values.shape}
    if len(set(lengths.values())) > 1:
        raise UserError(f"database {path}: fields differ in length ({lengths}); make the file anew")
    if "features" in database and len(database["features"].shape) != 2:
        found = database["features"].shape
        raise UserError(f"database {path}: features have shape {found}, expected (frames, size)")
    for field in _NUMBERS & {field for field, values in database.items() if values.shape}:
        for start, block in blocks(database[field], limit=_SCAN_LIMIT):
            check_numbers(path, field, block, start)
    return database


def _mapped(path: Path, fields: list[str]) -> Database:
    """Fields of a file that was checked in another process."""
    content = read_fields(path)
    return Database(path, {field: _plain(path, field, content[field]) for field in fields})


def read_fields(path: Path, numbers: bool = True) -> dict[str, Any]:
    """Every field of a database as it is stored, mapped where the file allows; unchecked.

    Args:
        numbers: False gives zeros for the large numeric arrays of a compressed file, which cannot be mapped.

    Raises:
        UserError: the file is missing or is no database.
    """
    if not path.is_file():
        raise UserError(
            f"database {path} {fault(path)}: make or download it (data/README.md says how), "
            "or name another file in DATASET.FILES"
        )
    content = _read_h5(path) if path.suffix == ".h5" else load_joblib(path, numbers=numbers)
    if not isinstance(content, dict):
        raise UserError(f"database {path} holds a {type(content).__name__}, expected a dict of arrays")
    return content


def blocks(
    values: np.ndarray | H5Rows, size: int = _SCAN_BYTES, limit: float = math.inf
) -> Iterator[tuple[int, np.ndarray]]:
    """The rows of a field in order, about ``size`` bytes at a time: number of the first row, and the rows.

    ``limit``: bytes in all; of a larger field it is every so manyth block.
    """
    row = values.dtype.itemsize * int(np.prod(values.shape[1:], dtype=np.int64))
    count = max(1, size // max(row, 1))
    step = max(1, math.ceil(row * len(values) / limit))
    for start in range(0, len(values), step * count):
        if isinstance(values, H5Rows):
            yield start, values.block(start, start + count)
        else:
            yield start, values[start : start + count]


def _plain(path: Path, field: str, values: Any) -> Any:
    if isinstance(values, H5Rows):
        if field != "vid_name" and values.shape:
            return values
        values = values.whole()
    try:
        # a plain view indexes much faster than np.memmap and still reads from the file
        array = to_array(values)
    except ValueError as error:
        raise UserError(f"database {path}: {field} {error}; make the file anew") from error
    if field == "vid_name" and array.dtype.kind == "O" and {*map(type, array.flat)} not in ({str}, {bytes}):
        raise UserError(f"database {path}: {field} holds other things than names; make the file anew")
    if field == "vid_name" and array.ndim and (bad := _unprintable(array)):
        raise UserError(f"database {path}: the name {shown(bad)} in {field} has characters that no name has")
    return array


def _unprintable(names: np.ndarray) -> str:
    """A name with control characters, '' if there is none: names go to terminals and into file names."""
    if names.dtype.kind == "O":
        texts = (n.decode("latin1") if isinstance(n, bytes) else str(n) for n in names)
        return next((text for text in texts if not text.isprintable()), "")
    if names.dtype.kind not in "SU" or not names.size:
        return ""
    letters = np.ascontiguousarray(names).view(
        np.uint8 if names.dtype.kind == "S" else names.dtype.byteorder + "u4"
    )
    letters = letters.reshape(len(names), -1)
    bad = ((letters < 32) & (letters > 0)) | ((letters >= 127) & (letters < 160))
    return str(names[bad.any(axis=1).argmax()]) if bad.any() else ""


def _check_rows(path: Path, field: str, values: np.ndarray | H5Rows) -> None:
    shape = values.shape
    if values.dtype.kind not in "?biuf" and field not in (*_NAMES, "features"):
        raise UserError(
            f"database {path}: {field} holds {values.dtype}, expected numbers; make the file anew"
        )
    if not shape:
        raise UserError(f"database {path}: {field} is a single value, expected one row per frame")
    allowed = _ROW_SHAPES.get(field)
    if allowed is not None and shape[1:] not in allowed:
        raise UserError(
            f"database {path}: rows of {field} have shape {shape[1:]}, "
            f"expected {' or '.join(map(str, allowed))}; make the file anew"
        )


def _read_h5(path: Path) -> dict[str, Any]:
    with h5_errors(f"database {path}"):
        with h5py.File(path, "r") as file:
            check_links(file, f"database {path}")
            keys = [key for key in file if isinstance(file[key], h5py.Dataset)]
        return {key: H5Rows(path, key) for key in keys}


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

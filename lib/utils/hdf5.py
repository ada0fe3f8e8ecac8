"""HDF5 files that nobody vouches for: what they claim is checked, and damage is one line."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py

from .errors import UserError, shown
from .reading import unpacked_limit


@contextmanager
def h5_errors(what: str, field: str = "") -> Iterator[None]:
    """Whatever HDF5 makes of a file becomes a UserError; ``what`` is its kind and name."""
    try:
        yield
    except UserError:
        raise
    except BlockingIOError as error:
        raise UserError(
            f"{what} is locked: another program has it open for writing, or its disk has no locks; wait, or"
            " set HDF5_USE_FILE_LOCKING=FALSE if nothing writes to it"
        ) from error
    except Exception as error:  # damaged bytes can make HDF5 raise anything
        part = f": {shown(field)} cannot be read" if field else " is not a readable HDF5 file"
        raise UserError(
            f"{what}{part} ({shown(error)}); it is damaged or incomplete: get it again"
        ) from error


def check_links(file: h5py.File, what: str) -> None:
    """UserError if an entry is a link to something else, in this file or another."""
    for key in file:
        if not isinstance(file.get(key, getlink=True), h5py.HardLink):
            raise UserError(
                f"{what}: {shown(key)} is a link to something else, which no data needs; get it again"
            )


def check_data_set(file: h5py.File, key: str, what: str) -> None:
    """UserError unless the data set ``key`` holds numbers or names, in this file and no more than it can."""
    data = file[key]
    if not isinstance(data, h5py.Dataset) or data.shape is None:
        raise UserError(f"{what}: {shown(key)} is no data set")
    if data.external or data.is_virtual:
        raise UserError(f"{what}: {shown(key)} lies in another file, which no data needs; get it again")
    if h5py.check_string_dtype(data.dtype) is None and data.dtype.kind not in "?biufSU":
        raise UserError(f"{what}: {shown(key)} holds {shown(data.dtype)}, expected numbers or names")
    largest = max(data.size, math.prod(data.chunks or ())) * data.dtype.itemsize
    if largest > unpacked_limit(Path(file.filename).stat().st_size):
        raise UserError(f"{what}: {shown(key)} claims to be far larger than the file; get it again")

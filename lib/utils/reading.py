"""Reading files that nobody vouches for: whatever is wrong with one is one line that names it."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from .errors import UserError, fault, shown

_RATIO, _FLOOR = 100, 64 << 20
_STARTS = (
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (b"PK\x03\x04", "a zip archive (as .npz files and checkpoints of PyTorch are)"),
    (b"\x93NUMPY", "an .npy file"),
    (b"\x1f\x8b", "a gzip file"),
    (b"BZh", "a bzip2 file"),
    (b"\xfd7zXZ\x00", "an xz file"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"%PDF", "a PDF file"),
    (b"version https://git-lfs", "a pointer of Git LFS, not the file itself"),
    (b"MATLAB ", "a MATLAB file"),
)


def unpacked_limit(size: int) -> int:
    """Bytes that a compressed file of ``size`` bytes may unpack to: no data compresses better."""
    return _RATIO * size + _FLOOR


def existing(path: str | Path, what: str) -> Path:
    """``path`` if it is a file, else a UserError."""
    path = Path(path)
    if path.is_dir():
        raise UserError(
            f"{what} {path} is a folder, expected a file; was an archive unpacked that need not be?"
        )
    if not path.is_file():
        raise UserError(
            f"{what} {path} does not exist; give an existing file; data/README.md says where those of the "
            "project come from"
        )
    return path


def need_folder(path: Path, what: str) -> Path:
    """``path`` if it is a folder, else a UserError that says what was expected there."""
    if not path.is_dir():
        raise UserError(f"folder {path} {fault(path)}: expected {what} there (docs/data.md shows the layout)")
    return path


def need_file(path: Path, what: str) -> Path:
    """``path`` if it is a file, else a UserError that says what was expected there."""
    if not path.is_file():
        raise UserError(f"file {path} {fault(path)}: expected {what} there (docs/data.md shows the layout)")
    return path


@contextmanager
def readable(path: Path, what: str) -> Iterator[None]:
    """Turn any failure to decode ``path`` into one :class:`UserError`."""
    try:
        yield
    except UserError:
        raise
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{what} {path} was refused or is damaged: {error}{_seems(path, what)}; get the file again"
        ) from error
    except Exception as error:  # damaged bytes can make a decoder raise anything
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise UserError(
            f"{what} {path} cannot be read ({reason}); it is damaged or of another format{_seems(path, what)}"
        ) from error


def _seems(path: Path, what: str) -> str:
    """What the file is by its first bytes, as a part of a sentence; '' where they tell nothing."""
    try:
        with path.open("rb") as source:
            start = source.read(512)
    except OSError:
        return ""
    kind = next((kind for magic, kind in _STARTS if start.startswith(magic)), "")
    if what == "checkpoint" and start.startswith(b"PK"):
        kind = ""
    if start[257:262] == b"ustar":
        kind = "a tar archive that has to be unpacked"
    elif start.lstrip()[:9].lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        kind = "a web page: the download went wrong"
    elif not start.strip(b"\0"):
        kind = "empty" if not start else "zeros, as after a power cut"
    return f" (it looks like {kind})" if kind else ""


def load_arrays(
    path: str | Path,
    what: str = "data file",
    names: Sequence[str] | None = None,
    optional: Sequence[str] = (),
) -> dict[str, np.ndarray]:
    """Arrays of an ``.npz`` file; an ``.npy`` file gives one, named ``array``.

    Numbers and strings only: object arrays are refused, and so is what unpacks to far more than the file.

    Args:
        what: the file's name in errors.
        names: the arrays to read, all of which must be there; None for every array of the file.
        optional: further arrays to read where they are there.

    Raises:
        UserError: the file is missing or damaged, or lacks one of ``names``.
    """
    path = existing(path, what)
    size = path.stat().st_size
    with readable(path, what), path.open("rb") as file:
        if file.read(4) != b"PK\x03\x04":
            file.seek(0)
            return {"array": _read_array(file, size)}
        with zipfile.ZipFile(file) as archive:
            members = {entry.filename.removesuffix(".npy"): entry for entry in archive.infolist()}
            if missing := [name for name in names or () if name not in members]:
                found = ", ".join(map(shown, members)) or "nothing"
                raise UserError(
                    f"{what} {path} lacks {', '.join(missing)} (found {found}); it is not the file that was"
                    " expected"
                )
            chosen = members if names is None else [*names, *(name for name in optional if name in members)]
            wanted = {name: members[name] for name in chosen}
            if sum(entry.file_size for entry in wanted.values()) > unpacked_limit(size):
                raise ValueError("it unpacks to far more than data of its size can")
            arrays = {}
            for name, entry in wanted.items():
                with archive.open(entry) as member:
                    arrays[name] = _read_array(member, entry.file_size)
            return arrays


def _read_array(file: Any, size: int) -> np.ndarray:
    """The array of an .npy file of ``size`` bytes."""
    version = np.lib.format.read_magic(file)
    header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in header:
        raise ValueError(f"version {version} of .npy")
    shape, fortran, dtype = header[version](file)
    if dtype.kind not in "?biufcSU" or not dtype.itemsize:
        raise ValueError(f"it holds an array of dtype {shown(dtype)}, expected numbers or strings")
    count = 1
    for length in shape:
        count *= length
    if count < 0 or count * dtype.itemsize > size:
        raise EOFError("the file ends inside an array")
    data = np.empty(count, dtype)
    filled, view = 0, data.view(np.uint8).data if count else memoryview(b"")
    while filled < len(view):
        block = file.read(min(len(view) - filled, 1 << 24))
        if not block:
            raise EOFError("the file ends inside an array")
        view[filled : filled + len(block)] = block
        filled += len(block)
    return data.reshape(shape, order="F" if fortran else "C")


def to_array(value: Any) -> np.ndarray:
    """A list, tuple or single value of a file as an array.

    Raises ValueError if it is none, or would be far larger than it is; the message continues its name.
    """
    if isinstance(value, np.ndarray):
        return np.asarray(value)
    if not isinstance(value, (np.generic, list, tuple, str, bytes, int, float)):
        raise ValueError(f"is a {type(value).__name__}, expected an array")
    if isinstance(value, (list, tuple)):
        longest = max((len(entry) for entry in value if isinstance(entry, (str, bytes))), default=0)
        if len(value) * longest > _FLOOR:
            raise ValueError("holds names that are too long")
    try:
        return np.asarray(value)
    except ValueError as error:
        raise ValueError(f"is a list whose entries differ in kind or length ({error})") from error

"""Files: atomic writing, hashing, and safe loading of pickles, joblib dumps and checkpoints.

Pickle based formats can execute anything when they are opened. Every loader here resolves only a short list
of harmless names (numpy arrays, plain containers, stand-ins for chumpy and scipy) and refuses the rest.
"""

from __future__ import annotations

import contextlib
import functools
import gzip
import hashlib
import io
import os
import pickle
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import joblib
import numpy as np
import torch
from joblib.compressor import BinaryZlibFile

from lib.utils.errors import UserError

# --------------------------------------------------------------------------------
# Writing and hashing


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside ``path`` that becomes ``path`` when the block ends without an error.

    The temporary file keeps the suffix (some writers choose the format by it), is flushed to disk before it
    is renamed, and is removed on an error: a reader sees the old file or the whole new one. Folders are
    created.

    Raises:
        UserError: ``path`` is a folder, or no file can be made beside it.
    """
    path = Path(path)
    if path.is_dir():
        raise UserError(f"cannot write {path}: it is a folder, expected the name of a file")
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
    except OSError as error:
        raise UserError(f"cannot write {path} ({error}): choose another place or mend that") from error
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def check_writable(path: str | Path, option: str) -> None:
    """Tell the user before the work, not after it, that a file or folder cannot be made; creates nothing.

    Raises:
        UserError: ``path`` cannot be made; ``option`` asked for it.
    """
    path = Path(path).absolute()
    parent = next(folder for folder in path.parents if folder.exists())
    if not parent.is_dir() or not os.access(path if path.exists() else parent, os.W_OK):
        raise UserError(f"{option}: cannot write {path}; expected a place that you may write to")


def sha256(path: str | Path) -> str:
    """Hexadecimal SHA-256 of a file's content."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as source:
        while block := source.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


# --------------------------------------------------------------------------------
# Restricted unpickling

_NUMPY_CORE = "numpy._core" if np.lib.NumpyVersion(np.__version__) >= "2.0.0" else "numpy.core"
_BUILTINS = {
    "object",
    "set",
    "frozenset",
    "slice",
    "complex",
    "bytearray",
    "list",
    "dict",
    "tuple",
    "int",
    "float",
}
_HARMLESS = (
    {("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode"), ("collections", "OrderedDict")}
    | {(module, "_reconstructor") for module in ("copy_reg", "copyreg")}
    | {(module, name) for module in ("__builtin__", "builtins") for name in _BUILTINS}
    | {
        (core + ".multiarray", name)
        for core in ("numpy.core", "numpy._core")
        for name in ("_reconstruct", "scalar")
    }
    | {(core + ".numeric", "_frombuffer") for core in ("numpy.core", "numpy._core")}
)


def _find_harmless(module: str, name: str) -> Any:
    if (module, name) not in _HARMLESS:
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no data file needs")
    if (module, name) in _NUMPY_MAKERS:
        return _NUMPY_MAKERS[module, name]
    module = {"__builtin__": "builtins", "copy_reg": "copyreg"}.get(module, module)
    if module.startswith(("numpy.core", "numpy._core")):
        module = f"{_NUMPY_CORE}.{module.rsplit('.', 1)[1]}"
    return pickle.Unpickler(io.BytesIO()).find_class(module, name)


# numpy trusts a pickle's word on what memory holds: its bytes could pass for pointers to Python objects.
# So a file does not call array and dtype as it likes, and what it says of them is checked.


def _new_dtype(code: str, *_: Any) -> np.dtype:
    dtype = np.dtype(str(code), False, True)  # a copy: its state is set next
    if dtype.kind not in "?biufcSUO":
        raise pickle.UnpicklingError(f"it holds an array of dtype {code}, which no data file needs")
    return dtype


def _new_array(*_: Any) -> np.ndarray:
    return np.zeros(0, np.int8)


_NUMPY_MAKERS: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): "numpy.ndarray",  # only ever named, as the argument of _reconstruct
    ("numpy", "dtype"): _new_dtype,
} | {(core + ".multiarray", "_reconstruct"): _new_array for core in ("numpy.core", "numpy._core")}


def _checked_dtype_state(dtype: np.dtype, state: tuple) -> tuple:
    version, order, subdtype, names, fields, size = state[:6]
    if (subdtype, names, fields) != (None, None, None) or order not in ("<", ">", "|", "="):
        raise pickle.UnpicklingError("it holds a structured array, which no data file needs")
    if dtype.kind in "SU" and size >= 0 and size % dtype.alignment == 0:
        return version, order, None, None, None, size, dtype.alignment, dtype.flags
    return version, order, None, None, None, -1, -1, dtype.flags


def _checked_array_state(state: tuple) -> tuple:
    shape, dtype, fortran, data = state[-4:]
    shape = tuple(int(length) for length in shape)
    count = int(np.prod(shape, dtype=object)) if shape else 1
    if min(shape, default=0) < 0 or (dtype.hasobject and len(list.copy(data)) != count):
        raise pickle.UnpicklingError("it holds an array whose shape and content differ")
    return 1, shape, dtype, bool(fortran), data


# Python's unpickler, since the C one has no place for a check. Nor does this one read ahead: joblib puts raw
# array bytes between pickle instructions.
_PythonUnpickler: Any = pickle._Unpickler


class _RestrictedUnpickler(_PythonUnpickler):
    dispatch = _PythonUnpickler.dispatch.copy()

    def find_class(self, module: str, name: str) -> Any:
        return _find_harmless(module, name)

    def load_build(self) -> None:
        made, state = self.stack[-2:]
        if isinstance(made, np.dtype):
            self.stack[-1] = _checked_dtype_state(made, state)
        elif isinstance(made, np.ndarray):
            self.stack[-1] = _checked_array_state(state)
        _PythonUnpickler.load_build(self)

    dispatch[pickle.BUILD[0]] = load_build


def _existing(path: str | Path, what: str) -> Path:
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{what} {path} does not exist; see data/README.md for where it comes from")
    return path


@contextmanager
def _readable(path: Path, what: str) -> Iterator[None]:
    """Turn any failure to decode ``path`` into one :class:`UserError`."""
    try:
        yield
    except UserError:
        raise
    except pickle.UnpicklingError as error:
        raise UserError(f"{what} {path} was refused or is damaged: {error}; get the file again") from error
    except Exception as error:  # damaged bytes can make a decoder raise anything
        reason = f"{type(error).__name__}: {error}"
        raise UserError(
            f"{what} {path} cannot be read ({reason}); it is damaged or of another format"
        ) from error


def load_pickle(path: str | Path, what: str = "pickle") -> dict[str, Any]:
    """Open a pickled dict of arrays and plain containers, Python 2's included, without running its code.

    Args:
        what: the file's name in errors.

    Raises:
        UserError: the file is missing, damaged, no dict, or refers to anything but arrays and containers.
    """
    path = _existing(path, what)
    with _readable(path, what), path.open("rb") as source:
        content = _RestrictedUnpickler(source, encoding="latin1").load()
        if not isinstance(content, dict):
            raise pickle.UnpicklingError(f"it holds a {type(content).__name__}, expected a dict")
        return content


def load_arrays(
    path: str | Path, what: str = "data file", names: Sequence[str] | None = None
) -> dict[str, np.ndarray]:
    """Arrays of an ``.npz`` file; an ``.npy`` file gives one, named ``array``. Object arrays are refused.

    Args:
        what: the file's name in errors.
        names: the arrays to read, all of which must be there; None for every array of the file.

    Raises:
        UserError: the file is missing or damaged, or lacks one of ``names``.
    """
    path = _existing(path, what)
    with _readable(path, what):
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            loaded = contextlib.nullcontext({"array": loaded})
        with loaded as arrays:
            if missing := [name for name in names or () if name not in arrays]:
                raise UserError(
                    f"{what} {path} lacks {', '.join(missing)} (found {', '.join(arrays) or 'nothing'});"
                    " it is not the file that was expected"
                )
            return {name: arrays[name] for name in (arrays if names is None else names)}


# --------------------------------------------------------------------------------
# SMPL pickles


class _Chumpy:
    """Stand-in for every chumpy class: keeps the pickled state and never runs chumpy code."""

    kind: ClassVar[str] = ""
    state: dict[str, Any]

    def __new__(cls, *args: Any, **kwargs: Any) -> _Chumpy:
        return object.__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        self.state = (state[1] or state[0]) if isinstance(state, tuple) else state

    def array(self) -> np.ndarray:
        """The value the chumpy object stands for."""
        state = self.state
        if self.kind == "chumpy.ch.Ch":
            return _plain(state["x"])
        source = _plain(state["a"]) if "a" in state else None
        if source is not None and self.kind == "chumpy.reordering.Select":
            chosen = source.ravel()[np.asarray(state["idxs"]).ravel()]
            shape = state.get("preferred_shape")
            return chosen if shape is None else chosen.reshape(shape)
        if source is not None and self.kind == "chumpy.reordering.Reshape":
            return source.reshape(state["newshape"])
        if source is not None and self.kind == "chumpy.reordering.Transpose":
            return np.transpose(source, state.get("axes"))
        raise pickle.UnpicklingError(
            f"it holds a {self.kind} with fields {sorted(state)}, which is not supported"
        )


class _CscMatrix:
    """Stand-in for ``scipy.sparse.csc_matrix``, whose module path depends on SciPy's version."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.state = state

    def array(self) -> np.ndarray:
        rows, columns = self.state["_shape"]
        data, indices, indptr = (np.asarray(self.state[key]) for key in ("data", "indices", "indptr"))
        dense = np.zeros((rows, columns), data.dtype)
        np.add.at(dense, (indices, np.repeat(np.arange(columns), np.diff(indptr))), data)
        return dense


def _plain(value: Any) -> Any:
    return value.array() if isinstance(value, (_Chumpy, _CscMatrix)) else np.asarray(value)


class _SmplUnpickler(_RestrictedUnpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module == "chumpy" or module.startswith("chumpy."):
            return type(f"Chumpy_{name}", (_Chumpy,), {"kind": f"{module}.{name}"})
        if module in ("scipy.sparse.csc", "scipy.sparse._csc", "scipy.sparse") and name == "csc_matrix":
            return _CscMatrix
        return super().find_class(module, name)


def load_smpl_pickle(path: str | Path) -> dict[str, Any]:
    """Open an official SMPL pickle without chumpy and without running its code.

    chumpy objects become the numpy arrays they stand for and sparse matrices become dense ones; everything
    else is returned as stored.

    Raises:
        UserError: the file is missing, damaged, or refers to anything but arrays and plain containers.
    """
    path = _existing(path, "SMPL model")
    with _readable(path, "SMPL model"), path.open("rb") as source:
        fields = _SmplUnpickler(source, encoding="latin1").load()
        if not isinstance(fields, dict):
            raise pickle.UnpicklingError(f"it holds a {type(fields).__name__}, expected a dict")
        return {k: v.array() if isinstance(v, (_Chumpy, _CscMatrix)) else v for k, v in fields.items()}


# --------------------------------------------------------------------------------
# joblib dumps


_SMALL = 1 << 16  # bytes of an array that is always read


class _JoblibArray:
    """Stand-in for joblib's array wrapper: the array's bytes follow it in the file."""

    shape: tuple[int, ...]
    order: str
    dtype: np.dtype
    allow_mmap: bool
    numpy_array_alignment_bytes: int | None = None

    def read(self, source: BinaryIO, mapped: Path | None, numbers: bool) -> np.ndarray:
        if self.dtype.hasobject:
            return _RestrictedUnpickler(source).load()
        if self.numpy_array_alignment_bytes is not None:
            source.read(source.read(1)[0])
        count = int(np.prod(self.shape, dtype=np.int64))
        size = count * self.dtype.itemsize
        if mapped is not None and self.allow_mmap and size:
            offset = source.tell()
            if offset + size > mapped.stat().st_size:
                raise EOFError("the file ends inside an array")
            source.seek(size, os.SEEK_CUR)
            return np.memmap(mapped, self.dtype, "r", offset, self.shape, "F" if self.order == "F" else "C")
        if not numbers and size > _SMALL and self.dtype.kind not in "SU":
            _skip(source, size)
            return np.broadcast_to(np.zeros((), self.dtype), self.shape)
        array = np.empty(count, self.dtype)
        view = array.view(np.uint8).data if size else memoryview(b"")
        filled = 0
        while filled < size:
            block = source.read(min(size - filled, 1 << 24))
            if not block:
                raise EOFError("the file ends inside an array")
            view[filled : filled + len(block)] = block
            filled += len(block)
        return array.reshape(self.shape, order="F" if self.order == "F" else "C")


def _skip(source: BinaryIO, size: int) -> None:
    while size:
        block = source.read(min(size, 1 << 20))
        if not block:
            raise EOFError("the file ends inside an array")
        size -= len(block)


class _JoblibUnpickler(_RestrictedUnpickler):
    dispatch = _RestrictedUnpickler.dispatch.copy()

    def __init__(self, source: BinaryIO, mapped: Path | None, numbers: bool) -> None:
        super().__init__(source)
        self.source, self.mapped, self.numbers = source, mapped, numbers

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("joblib.numpy_pickle", "NumpyArrayWrapper"):
            return _JoblibArray
        return super().find_class(module, name)

    def load_build(self) -> None:
        super().load_build()
        if isinstance(self.stack[-1], _JoblibArray):
            self.stack[-1] = self.stack[-1].read(self.source, self.mapped, self.numbers)

    dispatch[pickle.BUILD[0]] = load_build


def load_joblib(path: str | Path, mmap: bool = True, numbers: bool = True) -> Any:
    """Open a joblib dump of numpy arrays and plain containers without running its code.

    Args:
        path: a file written by ``joblib.dump``, uncompressed or compressed with zlib or gzip.
        mmap: map the arrays of an uncompressed file read-only instead of reading them.
        numbers: False puts zeros that take no memory in the place of large numeric arrays that would have to
            be read, to see what a compressed file holds.

    Raises:
        UserError: the file is missing, damaged, or refers to anything but arrays and plain containers.
    """
    path = _existing(path, "data file")
    with _readable(path, "data file"), path.open("rb") as raw:
        start = raw.read(2)
        raw.seek(0)
        if start == b"\x1f\x8b":
            return _JoblibUnpickler(gzip.open(raw), None, numbers).load()  # type: ignore[arg-type]
        if start[:1] == b"\x78":
            return _JoblibUnpickler(io.BufferedReader(BinaryZlibFile(raw, "rb")), None, numbers).load()
        return _JoblibUnpickler(raw, path if mmap else None, numbers).load()


def dump_joblib(obj: Any, path: str | Path) -> None:
    """Write ``obj`` as an uncompressed joblib dump (so that it can be memory-mapped), atomically."""
    with atomic_write(path) as temporary, temporary.open("wb") as sink:
        joblib.dump(obj, sink)


# --------------------------------------------------------------------------------
# Checkpoints


class _CheckpointDtype:
    """Stand-in for ``numpy.dtype``; only numbers are allowed."""

    def __init__(self, code: str, *_: Any) -> None:
        self.dtype = np.dtype(str(code))
        if self.dtype.kind not in "?biufc":
            raise pickle.UnpicklingError(f"it holds numpy values of dtype {code}, which no checkpoint needs")

    def __setstate__(self, state: tuple) -> None:
        self.dtype = self.dtype.newbyteorder(state[1])


class _CheckpointArray:
    """Stand-in for ``numpy.ndarray``; ``value`` is the array."""

    value: np.ndarray

    def __setstate__(self, state: tuple) -> None:
        shape, dtype, fortran, data = state[-4:]
        self.value = np.frombuffer(data, dtype.dtype).reshape(shape, order="F" if fortran else "C").copy()


def _scalar(dtype: _CheckpointDtype, data: bytes) -> Any:
    return np.frombuffer(data, dtype.dtype)[0]


def _reconstruct(array: type[_CheckpointArray], *_: Any) -> _CheckpointArray:
    return array()


def _renamed(function: Any, module: str, name: str) -> Any:
    """``function`` under the name by which a file asks for it."""

    @functools.wraps(function)
    def same(*args: Any) -> Any:
        return function(*args)

    same.__module__, same.__name__, same.__qualname__ = module, name, name
    return same


@functools.cache
def _allow_numpy_in_checkpoints() -> None:
    """Let torch's restricted loader accept numpy arrays and scalars, which original checkpoints hold.

    It gets stand-ins, for the same reason as the checks of :class:`_RestrictedUnpickler`.
    """
    functions = [
        _renamed(function, f"{core}.multiarray", function.__name__.replace("_scalar", "scalar"))
        for function in (_scalar, _reconstruct)
        for core in ("numpy.core", "numpy._core")
    ]
    types = [
        type(name, (stand_in,), {"__module__": "numpy"})
        for name, stand_in in (("dtype", _CheckpointDtype), ("ndarray", _CheckpointArray))
    ]
    torch.serialization.add_safe_globals([*functions, *types, OrderedDict])


def _without_stand_ins(value: Any) -> Any:
    """``value`` with arrays for their stand-ins; dicts and lists are changed in place."""
    if isinstance(value, _CheckpointArray):
        return value.value
    if isinstance(value, dict):
        value.update({key: _without_stand_ins(entry) for key, entry in value.items()})
    elif isinstance(value, list):
        value[:] = map(_without_stand_ins, value)
    elif isinstance(value, tuple):
        return tuple(map(_without_stand_ins, value))
    return value


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Open a PyTorch checkpoint on the CPU, without running its code.

    Raises:
        UserError: the file is missing or damaged, is not a dict, or holds objects other than tensors, numpy
            values and plain containers.
    """
    path = _existing(path, "checkpoint")
    _allow_numpy_in_checkpoints()
    with _readable(path, "checkpoint"):
        try:
            checkpoint = _without_stand_ins(torch.load(path, map_location="cpu", weights_only=True))
        except pickle.UnpicklingError as error:  # torch's words advise to load the file without restrictions
            reason = str(error).partition("WeightsUnpickler error:")[2].strip().partition("\n")[0]
            raise pickle.UnpicklingError(reason or "it is no checkpoint of PyTorch") from error
    if not isinstance(checkpoint, dict):
        raise UserError(f"checkpoint {path} holds a {type(checkpoint).__name__}, expected a dict")
    return checkpoint


def save_checkpoint(obj: dict[str, Any], path: str | Path) -> None:
    """Write a checkpoint atomically: an interrupted save leaves the previous file whole."""
    with atomic_write(path) as temporary:
        torch.save(obj, temporary)

"""Pickles of arrays: 3DPW's sequences and the official SMPL bodies, read without running their code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from .reading import existing, readable
from .stand_ins import Global, Refused, Resolver, StandIn, shape_of
from .unpickle import GLOBALS, Source, Unpickler

_ROOM = 64 << 20  # bytes that stand-ins of SMPL's fields may take beyond the file's size


def load_pickle(path: str | Path, what: str = "pickle") -> dict[str, Any]:
    """Open a pickled dict of arrays and plain containers, Python 2's included, without running its code.

    Args:
        what: the file's name in errors.

    Raises:
        UserError: the file is missing, damaged, no dict, or refers to anything but arrays and containers.
    """
    path = existing(path, what)
    with readable(path, what), path.open("rb") as file:
        return _as_dict(Unpickler(Source(file, path.stat().st_size)).load())


def _as_dict(content: Any) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise Refused(f"it holds a {type(content).__name__}, expected a dict")
    return content


# --------------------------------------------------------------------------------
# SMPL


class _Chumpy(StandIn):
    """Stand-in for every chumpy class: keeps the pickled state and never runs chumpy code."""

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def value(self, resolver: Resolver) -> np.ndarray:
        """The array that the chumpy object stands for."""
        state = self.state
        if isinstance(state, tuple) and len(state) == 2:
            state = state[1] or state[0]
        if not isinstance(state, dict):
            raise Refused(f"it holds a {self._kind} without content")
        if self._kind == "chumpy.ch.Ch" and "x" in state:
            return _array(resolver(state["x"]))
        source = _array(resolver(state["a"])) if "a" in state else None
        if source is not None and self._kind == "chumpy.reordering.Select":
            places = _array(resolver(state["idxs"])).ravel()
            resolver.spend(len(places) * source.itemsize)
            chosen: np.ndarray = source.ravel()[places]
            shape = state.get("preferred_shape")
            return chosen if shape is None else chosen.reshape(shape_of(shape, len(chosen)))
        if source is not None and self._kind == "chumpy.reordering.Reshape":
            return source.reshape(shape_of(state["newshape"], source.size))
        if source is not None and self._kind == "chumpy.reordering.Transpose":
            axes = state.get("axes")
            return np.transpose(source, None if axes is None else shape_of(axes))
        raise Refused(
            f"it holds a {self._kind} with fields {sorted(map(str, state))}, which is not supported"
        )


class _SparseMatrix(StandIn):
    """Stand-in for SciPy's sparse matrices; their module paths depend on SciPy's version."""

    def __init__(self, layout: str) -> None:
        self._layout = layout

    def value(self, resolver: Resolver) -> np.ndarray:
        """The dense array."""
        state = self.state
        if not isinstance(state, dict):
            raise Refused("it holds a sparse matrix without content")
        shape = shape_of(state["_shape"])
        data = _array(resolver(state["data"]))
        if len(shape) != 2 or data.ndim != 1:
            raise Refused("it holds a sparse matrix that is no matrix")
        if self._layout == "coo":
            rows, columns = (_array(resolver(entry)) for entry in self._coordinates())
        else:
            indices, ends = (_array(resolver(state[key])) for key in ("indices", "indptr"))
            if len(ends) != shape[self._layout == "csc"] + 1:
                raise Refused("it holds a sparse matrix whose parts differ in size")
            resolver.spend(8 * len(data))
            major = np.repeat(np.arange(len(ends) - 1), _counts(ends, len(data)))
            rows, columns = (indices, major) if self._layout == "csc" else (major, indices)
        if not len(rows) == len(columns) == len(data):
            raise Refused("it holds a sparse matrix whose parts differ in size")
        resolver.spend(shape[0] * shape[1] * data.itemsize)
        dense = np.zeros(shape, data.dtype)
        np.add.at(dense, (rows, columns), data)
        return dense

    def _coordinates(self) -> Any:
        return self.state["coords"] if "coords" in self.state else (self.state["row"], self.state["col"])


def _counts(ends: np.ndarray, total: int) -> np.ndarray:
    counts = np.diff(ends.astype(np.int64))
    if (counts < 0).any() or counts.sum() != total:
        raise Refused("it holds a sparse matrix whose parts differ in size")
    return counts


def _array(value: Any) -> np.ndarray:
    if not isinstance(value, (np.ndarray, np.generic)) or value.dtype.hasobject:
        raise Refused(f"it holds a {type(value).__name__} where an array is needed")
    return np.asarray(value)


class _SmplUnpickler(Unpickler):
    def load(self) -> Any:
        return Resolver(self.source.limit + _ROOM)(self.load_stand_ins())

    def find_class(self, module: str, name: str) -> Global:
        if module == "chumpy" or module.startswith("chumpy."):
            kind = f"{module}.{name}"
            return Global(kind, call=lambda *_: _Chumpy(kind), new=lambda: _Chumpy(kind))
        layout, _, kind = name.partition("_")
        sparse = layout in ("csc", "csr", "coo") and kind in ("matrix", "array")
        if sparse and module.split(".")[:2] == ["scipy", "sparse"]:
            return Global(f"scipy.sparse.{name}", new=lambda: _SparseMatrix(layout))
        return super().find_class(module, name)


def load_smpl_pickle(path: str | Path) -> dict[str, Any]:
    """Open an official SMPL pickle without chumpy and without running its code.

    chumpy objects become the numpy arrays they stand for and sparse matrices become dense ones; everything
    else is returned as stored.

    Raises:
        UserError: the file is missing, damaged, or refers to anything but arrays and plain containers.
    """
    path = existing(path, "SMPL model")
    with readable(path, "SMPL model"), path.open("rb") as file:
        return _as_dict(_SmplUnpickler(Source(file, path.stat().st_size), GLOBALS).load())

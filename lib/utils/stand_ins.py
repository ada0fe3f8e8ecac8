"""What a pickle's instructions make here in place of objects, and how the real ones are made of it later.

Arrays are made as copies. Sizes are bounded by the file's own, whatever it claims.
"""

from __future__ import annotations

import math
import pickle
import re
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .errors import shown

_DEPTH = 60  # of containers within containers
_SLACK = 1 << 20  # bytes that any file may take


class Refused(pickle.UnpicklingError):
    """What a file asks for is more than data needs."""


@dataclass(frozen=True)
class Global:
    """What a pickle may name: ``call`` answers a call of it, ``new`` makes an instance without one."""

    name: str
    call: Callable[..., Any] | None = None
    new: Callable[[], StandIn] | None = None


class StandIn:
    """An object whose state may be set once, and whose ``value`` is made when the pickle has been read."""

    state: Any = None

    def build(self, state: Any) -> None:
        if self.state is not None or state is None:
            raise Refused("it sets the state of an object twice, which no data file needs")
        self.state = state

    def value(self, resolver: Resolver) -> Any:
        """The real object; ``resolver`` gives those of the parts."""
        raise NotImplementedError


_NUMBERS = r"b1|\?|[iu][1248]|f[248]|f16|c8|c16|c32"
_DTYPE = re.compile(rf"(?P<number>{_NUMBERS})|(?P<text>[SUa])(?P<length>\d{{0,9}})|(?P<object>O[48]?)")


class Dtype(StandIn):
    """Stand-in for ``numpy.dtype``."""

    def __init__(self, code: Any) -> None:
        match = _DTYPE.fullmatch(code) if isinstance(code, str) else None
        if match is None:
            raise Refused(f"it holds an array of dtype {shown(code)}, which no data file needs")
        self._match = match

    def dtype(self, limit: int) -> np.dtype:
        """A new dtype; strings are no longer than ``limit`` bytes."""
        match, state = self._match, self.state
        if state is None:
            return np.dtype(match[0])
        if not isinstance(state, tuple) or len(state) < 6 or tuple(state[2:5]) != (None, None, None):
            raise Refused("it holds a structured array, which no data file needs")
        order, size = state[1], state[5]
        if order not in ("<", ">", "|", "="):
            raise Refused(f"it holds an array of byte order {shown(order)}")
        code = match[0]
        if match["text"]:
            letter, unit = ("U", 4) if match["text"] == "U" else ("S", 1)
            if type(size) is not int or not 0 < size <= limit or size % unit:
                raise Refused(f"it holds strings of {shown(size)} bytes")
            code = f"{letter}{size // unit}"
        return np.dtype(code) if order == "|" else np.dtype(code).newbyteorder(order)


def dtype_of(value: Any, limit: int) -> np.dtype:
    """The dtype that a stand-in is for; strings are no longer than ``limit`` bytes."""
    if not isinstance(value, Dtype):
        raise Refused(f"it holds an array whose dtype is a {type(value).__name__}")
    return value.dtype(limit)


def shape_of(value: Any, count: int | None = None) -> tuple[int, ...]:
    """A checked shape (of ``count`` items)."""
    if not isinstance(value, (tuple, list)) or len(value) > 32:
        raise Refused("it holds an array without a shape")
    if any(type(length) is not int or length < 0 for length in value):
        raise Refused("it holds an array whose shape is not made of numbers")
    if count is not None and math.prod(value) != count:
        raise Refused("it holds an array whose shape and content differ")
    return tuple(value)


class Array(StandIn):
    """Stand-in for ``numpy.ndarray``."""

    def value(self, resolver: Resolver) -> np.ndarray:
        if not isinstance(self.state, tuple) or len(self.state) < 4:
            raise Refused("it holds an array without content")
        shape, dtype, fortran, data = self.state[-4:]
        dtype = dtype_of(dtype, resolver.limit)
        if dtype.hasobject:
            if not isinstance(data, list):
                raise Refused("it holds an array whose dtype and content differ")
            array = np.empty(len(data), object)
            for row, entry in enumerate(data):
                array[row] = resolver(entry)
        else:
            array = _from_bytes(data, dtype, resolver)
        return array.reshape(shape_of(shape, len(array)), order="F" if fortran is True else "C")


class Buffer(StandIn):
    """Stand-in for an array of pickle protocol 5."""

    def __init__(self, data: Any, dtype: Any, shape: Any, order: Any, axes: Any = None) -> None:
        self._content = data, dtype, shape, order, axes

    def value(self, resolver: Resolver) -> np.ndarray:
        data, dtype, shape, order, axes = self._content
        array = _from_bytes(data, dtype_of(dtype, resolver.limit), resolver)
        array = array.reshape(shape_of(shape, len(array)), order="F" if order == "F" else "C")
        if axes is None:
            return array
        if sorted(shape_of(axes)) != list(range(array.ndim)):
            raise Refused("it holds an array whose axes are not those of its shape")
        return array.transpose(axes)


class Scalar(StandIn):
    """Stand-in for a number or string of numpy."""

    def __init__(self, dtype: Any, data: Any = b"") -> None:
        self._dtype, self._data = dtype, data

    def value(self, resolver: Resolver) -> Any:
        array = _from_bytes(self._data, dtype_of(self._dtype, resolver.limit), resolver)
        shape_of((1,), len(array))
        return array[0]


def _from_bytes(data: Any, dtype: np.dtype, resolver: Resolver) -> np.ndarray:
    """A new array (n,) of the bytes."""
    if isinstance(data, str):  # bytes of Python 2
        data = data.encode("latin1")
    if dtype.hasobject or not dtype.itemsize or not isinstance(data, (bytes, bytearray)):
        raise Refused("it holds an array whose dtype and content differ")
    if len(data) % dtype.itemsize:
        raise Refused("it holds an array whose shape and content differ")
    resolver.spend(len(data))
    if not data:
        return np.zeros(0, dtype)
    if dtype.kind == "b":
        return np.frombuffer(data, np.uint8).astype(bool)
    return np.frombuffer(bytearray(data), dtype)


_ATOMS = {type(None), bool, int, float, complex, slice, bytes, bytearray, set, frozenset}


class Resolver:
    """Values with the real objects in the place of their stand-ins. Lists and dicts are changed in place.

    Args:
        limit: bytes that the file has; what is made from it may take about as much, and may not unfold to
            much more where the same object stands in several places.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._left = limit + _SLACK
        self._unfolds = 8 * limit + _SLACK
        self._known: dict[
            int, tuple[Any, Any, int]
        ] = {}  # id -> the object (kept alive), its value, its size
        self._depth = 0

    def spend(self, size: int) -> None:
        """Account for ``size`` bytes that are about to be made."""
        self._left -= size
        if self._left < 0:
            raise Refused("it unfolds to more than it holds")

    def __call__(self, value: Any) -> Any:
        return self._resolve(value)[0]

    def _resolve(self, value: Any) -> tuple[Any, int]:
        if type(value) in _ATOMS:
            return value, 1
        if type(value) is str:
            return value, 1 + len(value) // 64
        if isinstance(value, np.ndarray):
            return value, 1 + value.nbytes
        if id(value) not in self._known:
            self._depth += 1
            if self._depth > _DEPTH:
                raise Refused("its containers are nested too deeply, or within themselves")
            self._known[id(value)] = value, *self._made(value)
            self._depth -= 1
        _, made, size = self._known[id(value)]
        return made, size

    def _made(self, value: Any) -> tuple[Any, int]:
        if isinstance(value, StandIn):
            made = value.value(self)
            if isinstance(made, np.ndarray) and made.dtype.hasobject:
                return made, 1 + sum(self._resolve(entry)[1] for entry in made.flat)
            return self._resolve(made) if isinstance(made, np.ndarray) else (made, 1)
        if isinstance(value, (dict, OrderedDict)):
            parts = {key: self._resolve(entry) for key, entry in value.items()}
            value.update({key: part for key, (part, _) in parts.items()})
            size = sum(size for _, size in parts.values())
        elif isinstance(value, (list, tuple)):
            resolved = [self._resolve(entry) for entry in value]
            size = sum(size for _, size in resolved)
            if isinstance(value, list):
                value[:] = [part for part, _ in resolved]
            else:
                value = tuple(part for part, _ in resolved)
        else:
            raise Refused(f"it holds {name_of(value)} as a value, which no data file needs")
        if size > self._unfolds:
            raise Refused("it unfolds to more than it holds")
        return value, 1 + size


def name_of(value: Any) -> str:
    return value.name if isinstance(value, Global) else type(value).__name__

"""Unpickling without code: a file can name only what is listed here, and what it names stays inert.

While a pickle's instructions run there are plain values and stand-ins. Arrays are made at the end, as copies,
from what was said of them by then: a file can change no array, type or function. Sizes are bounded by the
file's own, whatever it claims.
"""

from __future__ import annotations

import math
import os
import pickle
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, ClassVar

import numpy as np

from .errors import shown

_STEPS = 2_000_000  # of a pickle; the largest databases have some ten thousand
_CONTAINER_STEPS = 16  # what an instruction that makes a container counts
_DEPTH = 60  # of containers within containers
_SLACK = 1 << 20  # bytes that any file may take


class Refused(pickle.UnpicklingError):
    """What a file asks for is more than data needs."""


class Source:
    """A binary file that gives no more than ``limit`` bytes, however many are asked for."""

    def __init__(self, file: BinaryIO, limit: int) -> None:
        self._file, self.limit, self.left = file, limit, limit

    def read(self, size: int) -> bytes:
        self.need(size)
        data = self._file.read(size)
        self.left -= len(data)
        return data

    def readline(self) -> bytes:
        line = self._file.readline(self.left)
        self.left -= len(line)
        return line

    def need(self, size: int) -> None:
        """Refuse a size that the file does not have."""
        if not 0 <= size <= self.left:
            raise EOFError("the file ends before what it claims to hold")

    def tell(self) -> int:
        return self._file.tell()

    def skip(self, size: int) -> None:
        """Pass over ``size`` bytes, which :meth:`need` has found to be there."""
        if self._file.seekable():
            self._file.seek(size, os.SEEK_CUR)
            self.left -= size
            return
        while size:
            data = self.read(min(size, 1 << 20))
            if not data:
                raise EOFError("the file ends inside an array")
            size -= len(data)

    def into(self, view: memoryview) -> None:
        """Fill ``view`` with the bytes that come next."""
        while len(view):
            data = self.read(min(len(view), 1 << 24))
            if not data:
                raise EOFError("the file ends inside an array")
            view[: len(data)] = data
            view = view[len(data) :]


# --------------------------------------------------------------------------------
# Stand-ins


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
        return np.frombuffer(bytearray(data), np.uint8) != 0
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
            raise Refused(f"it holds {_name(value)} as a value, which no data file needs")
        if size > self._unfolds:
            raise Refused("it unfolds to more than it holds")
        return value, 1 + size


def _name(value: Any) -> str:
    return value.name if isinstance(value, Global) else type(value).__name__


# --------------------------------------------------------------------------------
# What may be named


def flat(value: Any) -> Any:
    """``value`` if it can be a key: nothing whose hash could take long, or deep recursion."""
    if type(value) in (str, bytes, bool, type(None)) or (type(value) is int and abs(value) < 1 << 60):
        return value
    raise Refused(f"it holds {_name(value)} as a key, which no data file needs")


def _flat_items(items: Any) -> list[Any]:
    if not isinstance(items, (list, tuple)):
        raise Refused("it makes a set of something else than a list")
    return [flat(item) for item in items]


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    if type(text) is not str or encoding not in ("latin1", "latin-1"):
        raise Refused(f"it asks for _codecs.encode to {shown(encoding)}, which no data file needs")
    return text.encode("latin1")


def _bytes(data: Any = b"", encoding: Any = "latin1") -> bytes:
    return data if type(data) is bytes else _encode(data, encoding)


def _ordered(pairs: Any = ()) -> OrderedDict:
    if not isinstance(pairs, (list, tuple)):
        raise Refused("it makes a dict of something else than pairs")
    return OrderedDict((flat(key), value) for key, value in pairs)


def _number(kind: type) -> Callable[..., Any]:
    def make(*parts: Any) -> Any:
        if any(type(part) not in (int, float, type(None)) for part in parts):
            raise Refused(f"it makes a {kind.__name__} of something else than numbers")
        return kind(*parts)

    return make


def _new(owner: Any, *_: Any) -> StandIn:
    if type(owner) is not Global or owner.new is None:
        raise Refused(f"it makes a {_name(owner)}, which no data file needs")
    return owner.new()


_BUILTINS: dict[str, Callable[..., Any] | None] = {
    "object": None,
    "bytes": _bytes,
    "bytearray": lambda *args: bytearray(_bytes(*args)),
    "set": lambda items=(): set(_flat_items(items)),
    "frozenset": lambda items=(): frozenset(_flat_items(items)),
    "complex": _number(complex),
    "slice": _number(slice),
}


def _globals() -> dict[tuple[str, str], Global]:
    calls: dict[tuple[str, str], Callable[..., Any] | None] = {
        ("numpy", "ndarray"): None,
        ("numpy", "dtype"): lambda code, *_: Dtype(code),
        ("_codecs", "encode"): _encode,
        ("collections", "OrderedDict"): _ordered,
    }
    for core in ("numpy.core", "numpy._core"):
        calls[f"{core}.multiarray", "_reconstruct"] = lambda *_: Array()
        calls[f"{core}.multiarray", "scalar"] = Scalar
        calls[f"{core}.numeric", "_frombuffer"] = Buffer
    for module in ("copy_reg", "copyreg"):
        calls[module, "_reconstructor"] = _new
    for module in ("__builtin__", "builtins"):
        calls |= {(module, name): call for name, call in _BUILTINS.items()}
    return {name: Global(".".join(name), call) for name, call in calls.items()}


GLOBALS: Mapping[tuple[str, str], Global] = _globals()
"""Arrays and plain containers, by module and name."""


# --------------------------------------------------------------------------------
# The machine

# Python's unpickler, since the C one has no place for checks. Nor does this one read ahead: joblib puts raw
# array bytes between pickle instructions.
_PythonUnpickler: Any = pickle._Unpickler

_PLAIN = (
    pickle.PROTO, pickle.FRAME, pickle.STOP, pickle.POP, pickle.POP_MARK, pickle.DUP, pickle.MARK,
    pickle.NONE, pickle.NEWTRUE, pickle.NEWFALSE, pickle.INT, pickle.BININT, pickle.BININT1, pickle.BININT2,
    pickle.LONG, pickle.LONG1, pickle.LONG4, pickle.FLOAT, pickle.BINFLOAT, pickle.STRING, pickle.BINSTRING,
    pickle.SHORT_BINSTRING, pickle.BINBYTES, pickle.SHORT_BINBYTES, pickle.BINBYTES8, pickle.UNICODE,
    pickle.BINUNICODE, pickle.SHORT_BINUNICODE, pickle.BINUNICODE8, pickle.EMPTY_TUPLE, pickle.TUPLE,
    pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3, pickle.EMPTY_LIST, pickle.LIST, pickle.EMPTY_DICT,
    pickle.EMPTY_SET, pickle.GET, pickle.BINGET, pickle.LONG_BINGET, pickle.PUT, pickle.BINPUT,
    pickle.LONG_BINPUT, pickle.MEMOIZE, pickle.GLOBAL, pickle.STACK_GLOBAL,
)  # fmt: skip
_CONTAINERS = (
    pickle.MARK, pickle.EMPTY_TUPLE, pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3,
    pickle.EMPTY_LIST, pickle.LIST, pickle.EMPTY_DICT, pickle.DICT, pickle.EMPTY_SET, pickle.FROZENSET,
    pickle.REDUCE, pickle.NEWOBJ,
)  # fmt: skip
_COST = {code[0]: _CONTAINER_STEPS for code in _CONTAINERS}


class _Counted(dict):
    """Instructions by code; counts how often one is looked up."""

    left = _STEPS

    def __getitem__(self, code: int) -> Any:
        self.left -= _COST.get(code, 1)
        if self.left < 0:
            raise Refused("it has more instructions than a data file needs")
        return super().__getitem__(code)

    def __missing__(self, code: int) -> Any:
        raise Refused(f"it holds the byte {code:#04x} as an instruction, which no data file needs")


class Unpickler(_PythonUnpickler):
    """Reads one pickle from ``source``.

    Args:
        names: what the file may refer to.
    """

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = {
        code[0]: _PythonUnpickler.dispatch[code[0]] for code in _PLAIN
    }

    def __init__(self, source: Source, names: Mapping[tuple[str, str], Global] = GLOBALS) -> None:
        super().__init__(source, encoding="latin1")
        self.source, self.names = source, names
        self.dispatch = _Counted(type(self).dispatch)  # type: ignore[misc]

    def load(self) -> Any:
        """The object, with real arrays. Raises Refused, or whatever damaged bytes lead to."""
        return Resolver(self.source.limit)(self.load_stand_ins())

    def load_stand_ins(self) -> Any:
        """The object as the instructions make it."""
        return super().load()

    def find_class(self, module: str, name: str) -> Global:
        if (module, name) not in self.names:
            raise Refused(f"it asks for {shown(f'{module}.{name}')}, which no data file needs")
        return self.names[module, name]

    def load_reduce(self) -> None:
        args, function = self.stack.pop(), self.stack[-1]
        if type(function) is not Global or function.call is None or type(args) is not tuple:
            raise Refused(f"it calls {_name(function)}, which no data file needs")
        self.stack[-1] = function.call(*args)

    def load_newobj(self) -> None:
        self.stack.pop()
        self.stack[-1] = _new(self.stack[-1])

    def load_build(self) -> None:
        state, made = self.stack.pop(), self.stack[-1]
        if isinstance(made, StandIn):
            made.build(state)
        elif type(made) is not OrderedDict:  # what torch notes beside an OrderedDict is not needed
            raise Refused(f"it sets the state of {_name(made)}, which no data file needs")

    def load_dict(self) -> None:
        items = self.pop_mark()
        self.append(self._filled({}, items))

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._filled(self.stack[-1], [key, value])

    def load_setitems(self) -> None:
        items = self.pop_mark()
        self._filled(self.stack[-1], items)

    def _filled(self, made: Any, items: list[Any]) -> Any:
        if type(made) not in (dict, OrderedDict) or len(items) % 2:
            raise Refused(f"it sets an entry of {_name(made)}, which no data file needs")
        for key, value in zip(items[::2], items[1::2]):
            made[flat(key)] = value
        return made

    def load_append(self) -> None:
        value = self.stack.pop()
        self._extended([value])

    def load_appends(self) -> None:
        self._extended(self.pop_mark())

    def _extended(self, items: list[Any]) -> None:
        made = self.stack[-1]
        if type(made) is not list:
            raise Refused(f"it appends to {_name(made)}, which no data file needs")
        made.extend(items)

    def load_additems(self) -> None:
        items = _flat_items(self.pop_mark())
        if type(self.stack[-1]) is not set:
            raise Refused(f"it adds to {_name(self.stack[-1])}, which no data file needs")
        self.stack[-1].update(items)

    def load_frozenset(self) -> None:
        items = self.pop_mark()
        self.append(frozenset(_flat_items(items)))

    def load_bytearray8(self) -> None:
        self.append(bytearray(self.read(int.from_bytes(self.read(8), "little"))))

    dispatch |= {
        pickle.REDUCE[0]: load_reduce,
        pickle.NEWOBJ[0]: load_newobj,
        pickle.BUILD[0]: load_build,
        pickle.DICT[0]: load_dict,
        pickle.SETITEM[0]: load_setitem,
        pickle.SETITEMS[0]: load_setitems,
        pickle.APPEND[0]: load_append,
        pickle.APPENDS[0]: load_appends,
        pickle.ADDITEMS[0]: load_additems,
        pickle.FROZENSET[0]: load_frozenset,
        pickle.BYTEARRAY8[0]: load_bytearray8,
    }

"""Unpickling without code: a file can name only what is listed here, and what it names stays inert.

While a pickle's instructions run there are plain values and the stand-ins of :mod:`lib.utils.stand_ins`.
Arrays are made at the end, from what was said of them by then: a file can change no array, type or function.
"""

from __future__ import annotations

import os
import pickle
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import IO, Any, ClassVar

from .errors import shown
from .stand_ins import Array, Buffer, Dtype, Global, Refused, Resolver, Scalar, StandIn, name_of

_STEPS = 2_000_000  # of a pickle; the largest databases have some ten thousand
_CONTAINER_STEPS = 16  # what an instruction that makes a container counts


class Source:
    """A binary file that gives no more than ``limit`` bytes, however many are asked for."""

    def __init__(self, file: IO[bytes], limit: int) -> None:
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


def flat(value: Any) -> Any:
    """``value`` if it can be a key: nothing whose hash could take long, or deep recursion."""
    if type(value) in (str, bytes, bool, type(None)) or (type(value) is int and abs(value) < 1 << 60):
        return value
    raise Refused(f"it holds {name_of(value)} as a key, which no data file needs")


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


def _ordered(pairs: Any = ()) -> OrderedDict[Any, Any]:
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
        raise Refused(f"it makes a {name_of(owner)}, which no data file needs")
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


class _Counted(dict[int, Callable[[Any], None]]):
    """Instructions by code; counts how often one is looked up."""

    left = _STEPS

    def __getitem__(self, code: int) -> Any:
        self.left -= _COST.get(code, 1)
        if self.left < 0:
            raise Refused("it has more instructions than a data file needs")
        return super().__getitem__(code)

    def __missing__(self, code: int) -> Any:
        raise Refused(f"it holds the byte {code:#04x} as an instruction, which no data file needs")


class Unpickler(_PythonUnpickler):  # type: ignore[misc] # typeshed leaves out what is overridden here
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
        self.dispatch = _Counted(type(self).dispatch)  # type: ignore[misc] # typeshed: of the class

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
            raise Refused(f"it calls {name_of(function)}, which no data file needs")
        self.stack[-1] = function.call(*args)

    def load_newobj(self) -> None:
        self.stack.pop()
        self.stack[-1] = _new(self.stack[-1])

    def load_build(self) -> None:
        state, made = self.stack.pop(), self.stack[-1]
        if isinstance(made, StandIn):
            made.build(state)
        elif type(made) is not OrderedDict:  # what torch notes beside an OrderedDict is not needed
            raise Refused(f"it sets the state of {name_of(made)}, which no data file needs")

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
            raise Refused(f"it sets an entry of {name_of(made)}, which no data file needs")
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
            raise Refused(f"it appends to {name_of(made)}, which no data file needs")
        made.extend(items)

    def load_additems(self) -> None:
        items = _flat_items(self.pop_mark())
        if type(self.stack[-1]) is not set:
            raise Refused(f"it adds to {name_of(self.stack[-1])}, which no data file needs")
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

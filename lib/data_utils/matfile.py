"""Numeric arrays and cells of MATLAB files of version 5 to 7.

SciPy's reader of these files ends the process on some damaged ones; this one checks every size before it uses
it. "MAT-File Format" (MathWorks) describes the bytes.
"""

from __future__ import annotations

import itertools
import math
import struct
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np

from ..utils.errors import shown
from ..utils.reading import unpacked_limit

_HEADER = 128
_MATRIX, _COMPRESSED = 14, 15
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_CELL, _NUMERIC = 1, range(6, 16)
_CLASSES = {2: "a struct", 3: "an object", 4: "text", 5: "a sparse matrix", 16: "a function", 17: "an object"}
_COMPLEX = 0x0800
_DEPTH = 8  # of cells in cells
_START = 1024  # bytes that hold a variable's name


def read_matfile(path: Path, names: Collection[str]) -> dict[str, np.ndarray]:
    """The variables called ``names``, those that are there.

    Returns:
        arrays of the type in which the numbers are stored; a cell array is an array of objects.

    Raises:
        ValueError: the file is damaged, of another version, or such a variable holds no numbers or cells.
    """
    content = memoryview(path.read_bytes())
    if content[:4].tobytes() == b"\x89HDF" or content[512:516].tobytes() == b"\x89HDF":
        raise ValueError("it is of version 7.3; save it as version 7")
    if len(content) < _HEADER or content[126:128].tobytes() not in (b"IM", b"MI"):
        raise ValueError("it is not of version 5 to 7")
    order = "<" if content[126:128].tobytes() == b"IM" else ">"
    left = unpacked_limit(len(content))
    found = {}
    for kind, data in _elements(content[_HEADER:], order):
        if kind == _COMPRESSED:
            start = memoryview(_unpacked(data, _START))[8:]  # behind the tag of the matrix
        else:
            start = data[:_START]
        name = _name(start, order)
        if name not in names or kind not in (_MATRIX, _COMPRESSED):
            continue
        if kind == _COMPRESSED:
            whole = memoryview(_unpacked(data, left))
            left -= len(whole)
            kind, data = next(_elements(whole, order), (0, whole))
        found[name] = _matrix(data, order, name)
    return found


def _unpacked(data: memoryview, limit: int) -> bytes:
    unpacker = zlib.decompressobj()
    try:
        content = unpacker.decompress(data, limit)
    except zlib.error as error:
        raise ValueError(f"a compressed part is damaged: {error}") from error
    if limit > _START and not unpacker.eof:
        raise ValueError("a compressed part is damaged, or unpacks to far more than data can")
    return content


def _elements(data: memoryview, order: str, cut: bool = False) -> Iterator[tuple[int, memoryview]]:
    """Type and bytes of the elements that lie in ``data``; with ``cut`` the last may be cut off."""
    place = 0
    while place + 8 <= len(data):
        kind, size = struct.unpack_from(f"{order}II", data, place)
        start = place + 8
        if kind >> 16:  # type, size and up to four bytes in one
            kind, size, start = kind & 0xFFFF, kind >> 16, place + 4
            if size > 4:
                raise ValueError("an element is damaged")
        if start + size > len(data) and not cut:
            raise ValueError("an element is cut off")
        yield kind, data[start : start + size]
        place = start + size
        if kind != _COMPRESSED:
            place += -place % 8


def _name(data: memoryview, order: str) -> str:
    """The name of the matrix whose bytes begin with ``data``: its third part."""
    parts = list(itertools.islice(_elements(data, order, cut=True), 3))
    return parts[2][1].tobytes().decode("latin1") if len(parts) == 3 else ""


def _matrix(data: memoryview, order: str, name: str, depth: int = 0) -> np.ndarray:
    parts = _elements(data, order)
    header = [part for _, part in (next(parts, (0, data[:0])) for _ in range(3))]
    if len(header[0]) != 8 or len(header[1]) % 4 or depth > _DEPTH:
        raise ValueError(f"{shown(name)} is damaged")
    flags = struct.unpack(f"{order}II", header[0])[0]
    shape = struct.unpack(f"{order}{len(header[1]) // 4}i", header[1])
    kind, count = flags & 0xFF, math.prod(shape)
    if min(shape, default=0) < 0 or not 2 <= len(shape) <= 32 or count > len(data):
        raise ValueError(f"{shown(name)} claims a size that it does not have")
    if kind == _CELL:
        cells = np.empty(count, object)
        for place in range(count):
            part_kind, part = next(parts, (0, data[:0]))
            if part_kind != _MATRIX:
                raise ValueError(f"{shown(name)} is damaged")
            cells[place] = _matrix(part, order, name, depth + 1) if len(part) else np.zeros((0, 0))
        return cells.reshape(shape, order="F")
    if kind not in _NUMERIC or flags & _COMPLEX:
        raise ValueError(f"{shown(name)} is {_CLASSES.get(kind, 'of an unknown kind')}, expected numbers")
    number, values = next(parts, (0, data[:0]))
    if number not in _NUMBERS:
        raise ValueError(f"{shown(name)} is damaged")
    dtype = np.dtype(order + _NUMBERS[number])
    if len(values) != count * dtype.itemsize:
        raise ValueError(f"{shown(name)} claims a size that it does not have")
    return np.frombuffer(values, dtype).reshape(shape, order="F")

"""joblib dumps: arrays that are mapped where the file allows, read without running the file's code."""

from __future__ import annotations

import bz2
import io
import lzma
import math
import pickle
import zlib
from pathlib import Path
from typing import Any, BinaryIO, Literal

import joblib
import numpy as np

from .atomic import atomic_write
from .reading import existing, readable, unpacked_limit
from .stand_ins import Global, Refused, StandIn, dtype_of, shape_of
from .unpickle import GLOBALS, Source, Unpickler

_SMALL = 1 << 16  # bytes of an array that is always read
_LZMA_MEMORY = 256 << 20


class _Wrapper(StandIn):
    """Stand-in for joblib's array wrapper: the array's bytes follow it in the file."""

    def field(self, name: str, default: Any = None) -> Any:
        return self.state.get(name, default) if isinstance(self.state, dict) else default


_NAMES = {
    **GLOBALS,
    ("joblib.numpy_pickle", "NumpyArrayWrapper"): Global("joblib.NumpyArrayWrapper", new=_Wrapper),
    ("numpy", "memmap"): Global("numpy.memmap"),
}


class _JoblibUnpickler(Unpickler):
    """Args: ``path`` of a file to map arrays from, or None; ``numbers`` as :func:`load_joblib`."""

    def __init__(self, source: Source, path: Path | None, numbers: bool) -> None:
        super().__init__(source, _NAMES)
        self._path, self._numbers = path, numbers

    def load_build(self) -> None:
        super().load_build()
        if isinstance(self.stack[-1], _Wrapper):
            self.stack[-1] = self._array(self.stack[-1])

    def _array(self, wrapper: _Wrapper) -> np.ndarray:
        """The array whose bytes are next in the file."""
        source = self.source
        shape, dtype = shape_of(wrapper.field("shape")), dtype_of(wrapper.field("dtype"), source.limit)
        order: Literal["C", "F"] = "F" if wrapper.field("order") == "F" else "C"
        if dtype.hasobject:
            content = Unpickler(source).load()
            if not isinstance(content, np.ndarray):
                raise Refused("it holds an array that is none")
            return content
        if wrapper.field("numpy_array_alignment_bytes") is not None:
            source.read(source.read(1)[0])
        count = math.prod(shape)
        size = count * dtype.itemsize
        if not dtype.itemsize:
            raise Refused("it holds an array of elements without a size")
        source.need(size)
        if self._path is not None and wrapper.field("allow_mmap") and size:
            offset = source.tell()
            source.skip(size)
            return np.memmap(self._path, dtype, "r", offset, shape, order)
        if not self._numbers and size > _SMALL and dtype.kind not in "SU":
            source.skip(size)
            return np.broadcast_to(np.zeros((), dtype), shape)
        array = np.empty(count, dtype)
        if size:
            source.into(array.view(np.uint8).data)
        return array.reshape(shape, order=order)

    dispatch = Unpickler.dispatch | {pickle.BUILD[0]: load_build}


def load_joblib(path: str | Path, mmap: bool = True, numbers: bool = True) -> Any:
    """Open a joblib dump of numpy arrays and plain containers without running its code.

    Args:
        path: a file written by ``joblib.dump``, uncompressed or compressed with zlib, gzip, bz2, lzma or xz.
        mmap: map the arrays of an uncompressed file read-only instead of reading them.
        numbers: False puts zeros that take no memory in the place of large numeric arrays that would have to
            be read, to see what a compressed file holds.

    Raises:
        UserError: the file is missing, damaged, refers to anything but arrays and plain containers, or
            unpacks to more than 100 times its size.
    """
    path = existing(path, "data file")
    size = path.stat().st_size
    with readable(path, "data file"), path.open("rb") as raw:
        decompressor = _decompressor(raw.read(6))
        raw.seek(0)
        if decompressor is None:
            return _JoblibUnpickler(Source(raw, size), path if mmap else None, numbers).load()
        unpacked = io.BufferedReader(_Unpacked(raw, decompressor), 1 << 20)
        return _JoblibUnpickler(Source(unpacked, unpacked_limit(size)), None, numbers).load()


def _decompressor(start: bytes) -> Any:
    """What unpacks a file that begins like that; None if it is not compressed."""
    if start.startswith((b"\x1f\x8b", b"\x78")):
        return _Zlib()
    if start.startswith(b"BZh"):
        return bz2.BZ2Decompressor()
    if start.startswith((b"\xfd7zXZ", b"\x5d\x00")):
        return lzma.LZMADecompressor(memlimit=_LZMA_MEMORY)
    if start.startswith(b"\x04\x22\x4d\x18"):
        raise Refused(
            "it is compressed with lz4, which cannot be read here: dump it with joblib uncompressed"
        )
    return None


class _Zlib:
    """zlib's and gzip's unpacking, with the interface of bz2 and lzma."""

    def __init__(self) -> None:
        self._object = zlib.decompressobj(zlib.MAX_WBITS | 32)

    @property
    def needs_input(self) -> bool:
        return not self._object.unconsumed_tail

    @property
    def eof(self) -> bool:
        return self._object.eof

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._object.decompress(self._object.unconsumed_tail + data, max_length)


class _Unpacked(io.RawIOBase):
    """The content of a compressed file, unpacked as it is read."""

    def __init__(self, raw: BinaryIO, decompressor: Any) -> None:
        self._raw, self._decompressor = raw, decompressor

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._decompressor.eof:
            data = self._raw.read(1 << 16) if self._decompressor.needs_input else b""
            at_end = self._decompressor.needs_input and not data
            block = self._decompressor.decompress(data, len(buffer))
            if block:
                buffer[: len(block)] = block
                return len(block)
            if at_end:
                raise EOFError("the file is cut off")
        return 0


def dump_joblib(obj: Any, path: str | Path) -> None:
    """Write ``obj`` as an uncompressed joblib dump (so that it can be memory-mapped), atomically."""
    with atomic_write(path) as temporary, temporary.open("wb") as sink:
        joblib.dump(obj, sink)

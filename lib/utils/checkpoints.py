"""Checkpoints of PyTorch, read without running their code and without torch's own unpickler.

A checkpoint is a zip archive: a pickle of plain values whose tensors name entries of raw numbers. Files of
PyTorch before 1.6 have the same parts one after the other. The pickle is read as every pickle here
(:mod:`lib.utils.unpickle`); the archive's checksums are compared.
"""

from __future__ import annotations

import math
import random
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from .atomic import atomic_write
from .errors import UserError, shown
from .reading import existing, readable
from .stand_ins import Global, Refused, Resolver, StandIn, shape_of
from .unpickle import GLOBALS, Source, Unpickler

_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # of files before PyTorch 1.6
_EXPANDED = 1 << 20  # numbers that a tensor may have beyond those that are stored
_DTYPES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


# --------------------------------------------------------------------------------
# Tensors


class _Storage(StandIn):
    """Numbers that are stored under ``key``."""

    def __init__(self, kind: Any, key: Any, count: Any) -> None:
        name = kind.name.rpartition(".")[2] if type(kind) is Global else ""
        if name not in _DTYPES or not isinstance(key, str) or type(count) is not int or count < 0:
            raise Refused("it holds numbers of an unknown kind")
        self.dtype, self.key, self.count = _DTYPES[name], key, count

    @property
    def size(self) -> int:
        return self.count * self.dtype.itemsize


class _Tensor(StandIn):
    """A view of a storage."""

    def __init__(self, storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> None:
        if not isinstance(storage, _Storage) or type(offset) is not int or offset < 0:
            raise Refused("it holds a tensor without numbers")
        self._view = storage, offset, shape_of(size), shape_of(stride)

    def value(self, resolver: Resolver) -> Tensor:
        assert isinstance(resolver, _TensorResolver)
        storage, offset, size, stride = self._view
        count = math.prod(size)
        last = offset + sum((n - 1) * step for n, step in zip(size, stride)) if count else offset - 1
        if len(size) != len(stride) or last >= storage.count or count > storage.count + _EXPANDED:
            raise Refused("it holds a tensor that is larger than its numbers")
        return torch.as_strided(resolver.numbers(storage), size, stride, offset)


class _TensorResolver(Resolver):
    """Args: ``read(storage, view)`` fills a view with the bytes of a storage."""

    def __init__(self, limit: int, read: Callable[[_Storage, memoryview], None]) -> None:
        super().__init__(limit)
        self._read = read
        self._numbers: dict[str, Tensor] = {}

    def numbers(self, storage: _Storage) -> Tensor:
        """The stored numbers (n,), read once."""
        if storage.key not in self._numbers:
            self.spend(storage.size)
            raw = torch.empty(storage.size, dtype=torch.uint8)
            self._read(storage, raw.numpy().data)
            self._numbers[storage.key] = raw != 0 if storage.dtype is torch.bool else raw.view(storage.dtype)
        numbers = self._numbers[storage.key]
        if numbers.dtype is not storage.dtype or len(numbers) != storage.count:
            raise Refused("it names the same numbers in two ways")
        return numbers


def _names() -> Mapping[tuple[str, str], Global]:
    names: dict[tuple[str, str], Callable[..., Any]] = {
        ("torch._utils", "_rebuild_tensor"): _Tensor,
        ("torch._utils", "_rebuild_tensor_v2"): _Tensor,
        ("torch._utils", "_rebuild_parameter"): lambda tensor, *_: tensor,
        ("torch", "Size"): lambda sizes=(): tuple(sizes) if isinstance(sizes, (list, tuple)) else (),
    }
    storages = {("torch", name): Global(f"torch.{name}") for name in _DTYPES}
    return {**GLOBALS, **storages, **{key: Global(".".join(key), call) for key, call in names.items()}}


_NAMES = _names()


class _CheckpointUnpickler(Unpickler):
    def __init__(self, source: Source) -> None:
        super().__init__(source, _NAMES)
        self.storages: dict[str, _Storage] = {}

    def persistent_load(self, pid: Any) -> _Storage:
        known = isinstance(pid, tuple) and len(pid) in (5, 6) and pid[0] == "storage"
        if not known or pid[5:] not in ((), (None,)):
            raise Refused("it holds something else than numbers beside the pickle")
        storage = _Storage(pid[1], pid[2], pid[4])
        return self.storages.setdefault(storage.key, storage)

    dispatch = Unpickler.dispatch | {b"Q"[0]: Unpickler.load_binpersid}


# --------------------------------------------------------------------------------
# Files


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Open a PyTorch checkpoint on the CPU, without running its code.

    Weights (``gen_state_dict``, ``model``, ``disc_motion_state_dict``) lose the prefix that DataParallel and
    ``torch.compile`` put before every name.

    Raises:
        UserError: the file is missing or damaged, is not a dict, or holds objects other than tensors, numpy
            values and plain containers; a field that training wrote is of another type; or a weight is not
            a finite number.
    """
    path = existing(path, "checkpoint")
    size = path.stat().st_size
    with readable(path, "checkpoint"), path.open("rb") as file:
        start = file.read(2)
        file.seek(0)
        checkpoint = _load_archive(file, size) if start == b"PK" else _load_old(file, size)
    if not isinstance(checkpoint, dict):
        raise UserError(f"checkpoint {path} holds a {type(checkpoint).__name__}, expected a dict")
    _check_fields(checkpoint, path)
    return checkpoint


def _load_archive(file: IO[bytes], size: int) -> Any:
    with zipfile.ZipFile(file) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        pickles = [name for name in entries if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(pickles) != 1:
            raise Refused("it is a zip archive, but no checkpoint of PyTorch")
        folder = pickles[0].removesuffix("data.pkl")
        if f"{folder}constants.pkl" in entries:
            raise Refused("it is a TorchScript program, expected a checkpoint")

        def opened(name: str, expected: int | None = None) -> IO[bytes]:
            entry = entries.get(folder + name)
            if entry is None or entry.compress_type != zipfile.ZIP_STORED or entry.file_size > size:
                raise Refused(f"its entry {shown(name)} is missing or compressed")
            if expected not in (None, entry.file_size):
                raise Refused(f"its entry {shown(name)} has another size than the tensor in it")
            return archive.open(entry)

        if f"{folder}byteorder" in entries and opened("byteorder").read(8) != b"little":
            raise Refused("it was written on a machine with another byte order")
        with opened("data.pkl") as content:
            unpickler = _CheckpointUnpickler(Source(content, entries[pickles[0]].file_size))
            stand_ins = unpickler.load_stand_ins()
            content.read()  # to the end, where the checksum is compared

        def read(storage: _Storage, view: memoryview) -> None:
            with opened(f"data/{storage.key}", storage.size) as numbers:
                Source(numbers, storage.size).into(view)

        return _TensorResolver(size, read)(stand_ins)


def _load_old(file: IO[bytes], size: int) -> Any:
    source = Source(file, size)
    if Unpickler(source).load() != _MAGIC or Unpickler(source).load() != _PROTOCOL:
        raise Refused("it is no checkpoint of PyTorch")
    system = Unpickler(source).load()
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise Refused("it was written on a machine with another byte order")
    unpickler = _CheckpointUnpickler(source)
    stand_ins = unpickler.load_stand_ins()
    keys = Unpickler(source).load()
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise Refused("it does not say which numbers it holds")
    numbers: dict[str, bytearray] = {}
    for key in keys:
        storage = unpickler.storages.get(key)
        count = int.from_bytes(source.read(8), "little")
        if storage is None or count != storage.count or key in numbers:
            raise Refused(f"its numbers {shown(key)} have another size than the tensor of them")
        source.need(storage.size)
        numbers[key] = bytearray(storage.size)
        source.into(memoryview(numbers[key]))

    def read(storage: _Storage, view: memoryview) -> None:
        view[:] = numbers.pop(storage.key)

    return _TensorResolver(size, read)(stand_ins)


def save_checkpoint(content: dict[str, Any], path: str | Path, *copies: str | Path) -> None:
    """Write a checkpoint atomically: an interrupted save leaves the previous file whole.

    Args:
        copies: further files with the same content. Each is in its place before ``path`` is: whoever finds
            the new ``path`` finds them, too.

    Raises:
        UserError: it cannot be written.
    """
    for target in (*map(Path, copies), Path(path)):
        with atomic_write(target) as temporary:
            try:
                torch.save(content, temporary)
            except RuntimeError as error:  # how torch's writer says that the disk is full
                reason = str(error).partition("\n")[0]
                raise UserError(
                    f"cannot write {target} ({reason}): is the disk full? Make room or choose another place"
                ) from error


# --------------------------------------------------------------------------------
# Fields


def _check_fields(checkpoint: dict[str, Any], path: Path) -> None:
    for name, check in _FIELDS.items():
        if name not in checkpoint:
            continue
        try:
            checkpoint[name] = check(checkpoint[name])
        except (
            TypeError,
            ValueError,
            KeyError,
            IndexError,
            AttributeError,
            RuntimeError,
            OverflowError,
        ) as error:
            raise UserError(
                f"checkpoint {path}: {name} is not what training writes ({error}); it is damaged or not of"
                " this project"
            ) from error


def _count(value: Any) -> int:
    """A whole number from 0 on."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not 0 <= value < 1 << 53:
        raise ValueError(f"{shown(value)} instead of a whole number from 0 on")
    return int(value)


def _epoch(value: Any) -> int:
    """A whole number from 0 on, or -1 inside the first epoch: the last that was finished."""
    return -1 if isinstance(value, int) and value == -1 else _count(value)


def _measure(value: Any) -> float:
    """A number that is not NaN."""
    if isinstance(value, Tensor) and value.numel() == 1:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or math.isnan(float(value)):
        raise ValueError(f"{shown(value)} instead of a number")
    return float(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"a {type(value).__name__} instead of a word")
    return value


def _named(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise ValueError(f"a {type(value).__name__} instead of a dict by names")
    return value


def _plain(value: Any) -> dict[str, Any]:
    """Nested dicts, lists, words and numbers."""
    named = _named(value)
    for entry in named.values():
        if isinstance(entry, dict):
            _plain(entry)
        elif isinstance(entry, (list, tuple)):
            _plain({str(k): part for k, part in enumerate(entry)})
        elif not isinstance(entry, (str, int, float, type(None))):
            raise ValueError(f"it holds a {type(entry).__name__}")
    return named


_PREFIXES = ("module.", "_orig_mod.")


def _weights(value: Any) -> dict[str, Tensor]:
    """Finite tensors by name, without the prefixes of wrappers."""
    weights = _named(value)
    for name, tensor in weights.items():
        if not isinstance(tensor, Tensor):
            raise ValueError(f"{shown(name)} is no tensor")
        if tensor.is_floating_point() and not tensor.sum().isfinite() and not tensor.isfinite().all():
            raise ValueError(f"{shown(name)} holds NaN or infinite numbers")
    while prefix := next(
        (p for p in _PREFIXES if weights and all(name.startswith(p) for name in weights)), ""
    ):
        weights = {name.removeprefix(prefix): tensor for name, tensor in weights.items()}
    return weights


def _optimizer(value: Any) -> dict[str, Any]:
    """What ``Optimizer.state_dict`` gives."""
    stored = _named(value)
    groups, state = stored["param_groups"], stored["state"]
    if not isinstance(state, dict) or not isinstance(groups, list):
        raise ValueError("it holds no state or no param_groups")
    for group in groups:
        if not isinstance(_named(group)["params"], list):
            raise ValueError("params is no list")
        for number in group["params"]:
            _count(number)
    for number, moments in state.items():
        _count(number)
        for name, moment in _named(moments).items():
            if not isinstance(moment, (Tensor, int, float, type(None))):
                raise ValueError(f"{shown(name)} is a {type(moment).__name__}")
    return stored


def _positions(value: Any) -> dict[str, int]:
    return {name: _count(position) for name, position in _named(value).items()}


def _random_numbers(value: Any) -> dict[str, Any]:
    """States that the generators take."""
    states: dict[str, Any] = value
    random.Random().setstate(states["python"])
    name, keys, *rest = states["numpy"]
    np.random.RandomState().set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.Generator().set_state(states["torch"])
    if not all(isinstance(state, Tensor) for state in states.get("cuda", [])):
        raise ValueError("cuda holds no tensors")
    return states


_FIELDS: dict[str, Callable[[Any], Any]] = {
    "gen_state_dict": _weights,
    "model": _weights,
    "disc_motion_state_dict": _weights,
    "gen_optimizer": _optimizer,
    "disc_motion_optimizer": _optimizer,
    "scheduler": _plain,
    "disc_motion_scheduler": _plain,
    "epoch": _epoch,
    "iteration": _count,
    "step": _count,
    "seed": _count,
    "performance": _measure,
    "best": _measure,
    "loaders": _positions,
    "rng": _random_numbers,
    "config": _plain,
    "body": _text,
    "fingerprint": _text,
}

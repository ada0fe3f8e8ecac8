"""Hostile and damaged files, generated: ``python -m tests.hostile`` loads them in child processes and counts.

A case is a file and the reader that gets it. ``good`` files are what the damaged ones are made from.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import pickle
import resource
import signal
import struct
import sys
import tempfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import h5py
import joblib
import numpy as np
import scipy.io
import scipy.sparse
import torch

from lib.core.config import from_dict, load_config
from lib.data_utils.raw import read_json, read_mat
from lib.data_utils.tfrecord import Example, _masked_crc32c, list_records
from lib.dataset import info
from lib.dataset.database import open_database
from lib.demo.pose_files import read_poses
from lib.open_data.motion_files import read_motion
from lib.utils.errors import UserError
from lib.utils.files import load_arrays, load_checkpoint, load_joblib, load_pickle, load_smpl_pickle
from lib.utils.images import read_image

CPU_SECONDS, GROWTH = 10, 1 << 30  # that a batch of files may take
_BATCH = 40
HARMLESS = {"refused", "accepted"}


def _database(path: Path) -> Any:
    info.describe(path)
    return open_database(path, ["vid_name", "features"], ["joints3D", "pose"])


def _checkpoint(path: Path) -> Any:
    checkpoint = load_checkpoint(path)
    return from_dict(checkpoint["config"]) if "config" in checkpoint else checkpoint


READERS: dict[str, Callable[[Path], Any]] = {
    "joblib": load_joblib,
    "pickle": load_pickle,
    "smpl": load_smpl_pickle,
    "database": _database,
    "checkpoint": _checkpoint,
    "arrays": load_arrays,
    "config": load_config,
    "mat": lambda path: read_mat(path, ["x", "cells"]),
    "json": read_json,
    "image": read_image,
    "poses": read_poses,
    "motion": read_motion,
    "tfrecord": lambda path: [record.read() for record in list_records(path)],
}


@dataclass(frozen=True)
class Case:
    """``content`` in a file with ``suffix``, given to a reader."""

    name: str
    reader: str
    content: bytes
    suffix: str


# --------------------------------------------------------------------------------
# Good files


def _written(write: Callable[[Path], Any], suffix: str = "") -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"x{suffix}"
        write(path)
        return path.read_bytes()


def _rows() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "vid_name": np.array(["a"] * 20 + ["b"] * 20),
        "features": rng.normal(size=(40, 64)).astype(np.float32),
        "joints3D": rng.normal(size=(40, 49, 3)).astype(np.float32),
    }


def _write_h5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        for key, values in _rows().items():
            file[key] = values.astype("S") if key == "vid_name" else values


def _training() -> dict[str, Any]:
    model = torch.nn.Linear(4, 3)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    return {
        "epoch": 3,
        "step": 40,
        "seed": 1,
        "best": 52.5,
        "performance": np.float64(53.0),
        "gen_state_dict": model.state_dict(),
        "gen_optimizer": optimizer.state_dict(),
        "loaders": {"3d": 640},
        "config": {"TITLE": "x", "DATASET": {"SEQLEN": 16}},
        "body": "open",
    }


def _tfrecord() -> bytes:
    example = Example()
    entry = example.features.feature.add(key="meta/N")
    entry.value.int64_list.value.append(3)
    entry = example.features.feature.add(key="image/xys")
    entry.value.float_list.value.extend(np.arange(84, dtype=np.float32).tolist())
    data = example.SerializeToString()
    size = struct.pack("<Q", len(data))
    return size + struct.pack("<I", _masked_crc32c(size)) + data + struct.pack("<I", _masked_crc32c(data))


@cache
def good() -> tuple[Case, ...]:
    """A whole file for every reader and container."""
    rng = np.random.default_rng(1)
    cells = np.empty((2, 1), object)
    cells[0, 0], cells[1, 0] = rng.normal(size=(5, 4)), np.arange(6).reshape(2, 3)
    mat = {"x": rng.normal(size=(30, 13)), "cells": cells, "text": "ignored"}
    smpl = {"J_regressor": scipy.sparse.csc_matrix(np.eye(5)), "v": rng.normal(size=(9, 3)), "kind": "lbs"}
    image = cv2.resize(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8), (80, 60))
    yaml = Path(__file__).parents[1].joinpath("configs/open.yaml").read_bytes()
    cases = [
        Case("plain", "joblib", _written(lambda path: joblib.dump(_rows(), path)), ".pt"),
        Case("plain", "database", _written(lambda path: joblib.dump(_rows(), path)), ".pt"),
        Case("hdf5", "database", _written(_write_h5), ".h5"),
        Case("protocol 2", "pickle", pickle.dumps(_rows(), 2), ".pkl"),
        Case("protocol 5", "pickle", pickle.dumps(_rows(), 5), ".pkl"),
        Case("protocol 0", "smpl", pickle.dumps(smpl, 0), ".pkl"),
        Case("protocol 4", "smpl", pickle.dumps(smpl, 4), ".pkl"),
        Case("zip", "checkpoint", _written(lambda path: torch.save(_training(), path)), ".pth.tar"),
        Case("old", "checkpoint", _written(_save_old), ".pth.tar"),
        Case("npz", "arrays", _written(lambda path: np.savez(path, **_rows()), ".npz"), ".npz"),
        Case("deflated", "arrays", _written(lambda p: np.savez_compressed(p, **_rows()), ".npz"), ".npz"),
        Case("npy", "arrays", _written(lambda p: np.save(p, _rows()["features"]), ".npy"), ".npy"),
        Case("yaml", "config", yaml, ".yaml"),
        Case("plain", "mat", _written(lambda path: scipy.io.savemat(path, mat), ".mat"), ".mat"),
        Case(
            *("deflated", "mat"),
            _written(lambda path: scipy.io.savemat(path, mat, do_compression=True), ".mat"),
            ".mat",
        ),
        Case("json", "json", json.dumps({"a": {"0": [[1, 2.5, None]] * 40}}).encode(), ".json"),
        Case("jpeg", "image", cv2.imencode(".jpg", image)[1].tobytes(), ".jpg"),
        Case("png", "image", cv2.imencode(".png", image)[1].tobytes(), ".png"),
        Case("tfrecord", "tfrecord", _tfrecord(), ".tfrecord"),
    ]
    for packed in ("zlib", "gzip", "bz2", "lzma", "xz"):
        content = _written(lambda path, packed=packed: joblib.dump(_rows(), path, compress=(packed, 3)))
        cases.append(Case(packed, "joblib", content, ".pt"))
    cases += [
        Case("poses", "poses", _written(lambda path: np.savez(path, **_poses()), ".npz"), ".npz"),
        Case("motion", "motion", _written(lambda path: np.savez(path, **_poses()), ".npz"), ".npz"),
        Case("bvh", "motion", _bvh().encode(), ".bvh"),
    ]
    return tuple(cases)


def _poses() -> dict[str, np.ndarray]:
    turns = np.random.default_rng(0).normal(0, 0.1, (5, 72)).astype(np.float32)
    return {"poses": turns, "transl": np.full((5, 3), 3.0), "trans": np.zeros((5, 3)), "fps": np.array(30.0)}


def _bvh() -> str:
    """Three frames of a skeleton with two legs, two arms and a head."""

    def joint(name: str, *children: str) -> str:
        kind, channels = ("ROOT", "6 Xposition Yposition Zposition") if name == "Hips" else ("JOINT", "3")
        inside = "".join(children) or "End Site\n{\nOFFSET 0 5 0\n}\n"
        channels += " Zrotation Xrotation Yrotation"
        side = 9 if name.startswith("Left") else -9
        down = name.endswith(("Leg", "Foot"))
        offset = f"{side * ('Up' in name)} -9 0" if down else f"{side} 0 0" if "Arm" in name else "0 9 0"
        return f"{kind} {name}\n{{\nOFFSET {offset}\nCHANNELS {channels}\n{inside}}}\n"

    def limb(*names: str) -> str:
        first, *others = names
        return joint(first, limb(*others)) if others else joint(first)

    sides = [
        [
            limb(f"{side}UpLeg", f"{side}Leg", f"{side}Foot"),
            limb(f"{side}Arm", f"{side}ForeArm", f"{side}Hand"),
        ]
        for side in ("Left", "Right")
    ]
    legs, arms = zip(*sides)
    tree = joint("Hips", *legs, joint("Spine", joint("Spine1", *arms, limb("Neck", "Head"))))
    values = np.random.default_rng(0).normal(0, 9, (3, 3 * (tree.count("CHANNELS") + 1)))
    rows = "\n".join(" ".join(f"{value:.3f}" for value in row) for row in values)
    return f"HIERARCHY\n{tree}MOTION\nFrames: 3\nFrame Time: 0.033333\n{rows}\n"


def _save_old(path: Path) -> None:
    torch.save(_training(), path, _use_new_zipfile_serialization=False)


# --------------------------------------------------------------------------------
# Damage


def _damaged() -> Iterator[Case]:
    """Every good file cut off, zeroed, overwritten, longer, and replaced by something else."""
    page = b"<!DOCTYPE html><html><body>Quota exceeded</body></html>"
    for number, case in enumerate(good()):
        data, rng = case.content, np.random.default_rng(number)
        variants = {
            "empty": b"",
            "a web page": page,
            "zeros": bytes(len(data)),
            "noise": rng.bytes(len(data)),
            "the first byte": data[:1],
            "noise in the middle": data[: len(data) // 2] + rng.bytes(64) + data[len(data) // 2 + 64 :],
            "zeros at the end": data[:-64] + bytes(64),
        }
        for share in (0.1, 0.5, 0.9):
            variants[f"cut at {share}"] = data[: int(len(data) * share)]
        for place in (0.02, 0.3, 0.7):
            flipped = bytearray(data)
            flipped[int(len(data) * place)] ^= 0x55
            variants[f"a flipped byte at {place}"] = bytes(flipped)
        for name, content in variants.items():
            yield Case(f"{case.name}: {name}", case.reader, content, case.suffix)


# --------------------------------------------------------------------------------
# Pickles by hand


def _text(x: str) -> bytes:
    return b"X" + struct.pack("<I", len(x)) + x.encode()


def _int(n: int) -> bytes:
    return b"\x8a\x0a" + n.to_bytes(10, "little", signed=True)


def _bytes(data: bytes) -> bytes:
    return b"B" + struct.pack("<I", len(data)) + data


def _put(slot: int) -> bytes:
    return b"q" + bytes([slot])


def _get(slot: int) -> bytes:
    return b"h" + bytes([slot])


def _state(size: int) -> bytes:
    return b"(" + _int(3) + _text("|") + b"NNN" + _int(size) + _int(1) + _int(0) + b"tb"


def _dtype(code: str, size: int = -1) -> bytes:
    return b"cnumpy\ndtype\n" + _text(code) + _int(0) + _int(1) + b"\x87R" + _state(size)


def _array(shape: tuple[int, ...], dtype: bytes, data: bytes) -> bytes:
    start = b"cnumpy._core.multiarray\n_reconstruct\n(cnumpy\nndarray\n" + _int(0) + b"\x85B\x01\0\0\0btR("
    return start + _int(1) + b"(" + b"".join(map(_int, shape)) + b"t" + dtype + b"\x89" + data + b"tb"


def _nested(levels: int, fan: int) -> bytes:
    body = b"(" + _int(0) * fan + b"l" + _put(1) + b"0"
    return body + (b"(" + _get(1) * fan + b"l" + _put(1) + b"0") * levels + _get(1)


def _memory() -> dict[str, bytes]:
    """Pickles that write beyond arrays, use freed memory, change the process, or unfold without end."""
    eight = _dtype("S8", 8) + _put(9)
    view = b"cnumpy._core.numeric\n_frombuffer\n("
    shared = _array((16000,), _dtype("i1"), _bytes(b"A" * 16000)) + _put(7) + b"0"
    shared += view + _get(7) + _dtype("i8") + _int(2000) + b"\x85" + _text("C") + b"tR" + _put(6) + b"0"
    again = _get(7) + b"(" + _int(1) + _int(1) + b"\x85" + _dtype("i1") + b"\x89" + _bytes(b"C") + b"tb0"
    encode, chain = b"c_codecs\nencode\n", _text("hex") + b"\x86R"
    sparse = b"cscipy.sparse.csc\ncsc_matrix\n)\x81}(" + _text("_shape") + _int(0) + _int(1 << 31) + b"\x86"
    sparse += _text("data") + _array((0,), _dtype("f8"), _bytes(b""))
    sparse += _text("indices") + _array((0,), _dtype("i4"), _bytes(b""))
    sparse += _text("indptr") + _array((1,), _dtype("i4"), _bytes(bytes(4))) + b"ub"
    wrapper = b"cjoblib.numpy_pickle\nNumpyArrayWrapper\n"
    claims = b"}(" + _text("shape") + _int(1 << 40) + b"\x85" + _text("order") + _text("C")
    claims += _text("dtype") + _dtype("f8") + _text("allow_mmap") + b"\x88u"
    values = {
        "a longer dtype after the array": _array((4,), eight, _bytes(b"A" * 32))
        + b"0"
        + _get(9)
        + _state(1 << 28),
        "a write beyond the array": _array((1,), eight, _bytes(b"A" * 8))
        + _put(8)
        + b"0"
        + _get(9)
        + _state(2_000_000)
        + b"0"
        + _get(8)
        + _int(0)
        + _bytes(b"B" * 200_000)
        + b"s",
        "heap bytes as data": _array((1,), eight, _bytes(b"A" * 8)) + _put(8) + b"0" + _get(9) + _state(4096),
        "a view of a freed array": shared + again + _get(6) + _int(7) + _int(1) + b"s",
        "an array built twice": _array((1,), _dtype("i1"), _bytes(b"A"))
        + b"("
        + _int(1)
        + _int(9)
        + b"\x85"
        + _dtype("i1")
        + b"\x89"
        + _bytes(b"A" * 9)
        + b"tb",
        "a class changed": wrapper + b"N}" + _text("read") + b"cbuiltins\nobject\ns\x86b",
        "a function changed": b"ccopyreg\n_reconstructor\nN}"
        + _text("__defaults__")
        + _int(1)
        + b"\x85s\x86b",
        "a function changed in its dict": b"c_codecs\nencode\n}" + _text("x") + _int(1) + b"sb",
        "a nested key": b"})" + b"\x85" * 100_000 + _int(1) + b"s",
        "a nested value": b")" + b"\x85" * 100_000,
        "a list within itself": b"]" + _put(1) + _get(1) + b"a",
        "a dict within itself": b"}" + _put(1) + _text("x") + _get(1) + b"s",
        "lists of lists": _nested(40, 4),
        "wide lists of lists": _nested(8, 10),
        "list of a bytearray": b"cbuiltins\nlist\ncbuiltins\nbytearray\n" + _int(1 << 30) + b"\x85R\x85R",
        "a large bytearray": b"cbuiltins\nbytearray\n" + _int(1 << 33) + b"\x85R",
        "hex of hex of hex": encode * 30 + _bytes(b"x" * 16) + chain * 30,
        "a scalar of 2 GB": b"cnumpy._core.multiarray\nscalar\n" + _dtype("S8", (1 << 31) - 8) + b"\x85R",
        "a bytearray without bytes": b"\x96" + struct.pack("<Q", 1 << 34) + b"x",
        "bytes without bytes": b"\x8e" + struct.pack("<Q", 1 << 40) + b"x",
        "text without letters": b"\x8d" + struct.pack("<Q", 1 << 40) + b"x",
        "a frame without bytes": b"\x95" + struct.pack("<Q", 1 << 40) + b"x",
        "2^31 columns": sparse,
        "an array of 8 TB": wrapper + b")\x81" + claims + b"b",
        "colliding keys": b"}(" + b"".join(_int(k * (2**61 - 1)) + b"N" for k in range(2, 400)) + b"u",
        "punycode": encode + _bytes(b"x" * 1000) + _text("punycode") + b"\x86R",
        "an array set like a list": _array((2,), _dtype("i8"), _bytes(bytes(16)))
        + _int(1 << 40)
        + _int(1)
        + b"s",
        "an array appended to": _array((2,), _dtype("i8"), _bytes(bytes(16))) + _int(1) + b"a",
        "bytes as pointers": _array((1,), _dtype("O8"), _bytes(b"\xde\xad\xbe\xef" * 2)),
        "a structured dtype": _array((1,), _dtype("V8"), _bytes(bytes(8))),
        "fields far away": b"cnumpy\ndtype\n" + _text("f8,f8,(9999,9999,9999)f8") + b"\x85R",
        "a negative shape": _array((-1,), _dtype("i8"), _bytes(bytes(8))),
        "a shape beyond 64 bits": _array((1 << 62, 1 << 62), _dtype("i8"), _bytes(bytes(8))),
        "many marks": b"(" * 300_000,
        "many sets": b"\x8f" * 300_000,
        "a persistent id": b"Px\n",
        "an extension": b"\x82\x01",
        "an out-of-band buffer": b"\x97",
    }
    return {name: b"\x80\x04}" + _text("a") + body + b"s." for name, body in values.items()}


_GADGETS = {
    "os.system": b"S'touch EXECUTED'\n",
    "posix.system": b"S'touch EXECUTED'\n",
    "subprocess.check_output": b"S'touch EXECUTED'\n",
    "builtins.eval": b'S\'open("EXECUTED","w")\'\n',
    "builtins.exec": b'S\'open("EXECUTED","w")\'\n',
    "builtins.getattr": b"S'x'\n",
    "builtins.open": b"S'EXECUTED'\n",
    "operator.attrgetter": b"S'system'\n",
    "importlib.import_module": b"S'os'\n",
    "pickle.loads": b"C\x02N.",
    "numpy.load": b"S'EXECUTED'\n",
    "numpy.core.multiarray.fromfile": b"S'EXECUTED'\n",
    "torch.load": b"S'EXECUTED'\n",
    "joblib.load": b"S'EXECUTED'\n",
    "shutil.rmtree": b"S'EXECUTED'\n",
    "lib.utils.errors.run_command": b"N",
}


def _code() -> dict[str, bytes]:
    """Pickles that call what no data needs, in every way that a pickle can call."""
    pickles = {}
    for path, argument in _GADGETS.items():
        module, _, name = path.rpartition(".")
        named = f"c{module}\n{name}\n".encode()
        pickles[f"{path}: reduce"] = b"\x80\x02}" + _text("a") + named + argument + b"\x85Rs."
        pickles[f"{path}: stack global"] = (
            b"\x80\x04}" + _text("a") + _text(module) + _text(name) + b"\x93" + argument + b"\x85Rs."
        )
        pickles[f"{path}: inst"] = (
            b"}" + _text("a") + b"(" + argument + f"i{module}\n{name}\n".encode() + b"s."
        )
        pickles[f"{path}: obj"] = b"}" + _text("a") + b"(" + named + argument + b"os."
        pickles[f"{path}: newobj"] = b"\x80\x02}" + _text("a") + named + argument + b"\x85\x81s."
        pickles[f"{path}: build"] = b"\x80\x02}" + _text("a") + named + b"}" + _text("x") + argument + b"sbs."
    return pickles


# --------------------------------------------------------------------------------
# Containers


def _zip_checkpoint(content: bytes, compressed: bool = False, more: dict[str, bytes] | None = None) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED) as archive:
        for name, data in {"data.pkl": content, "version": b"3\n", **(more or {})}.items():
            archive.writestr(f"archive/{name}", data)
    return target.getvalue()


def _tensor(offset: int, size: int, stride: int, stored: int, kind: str = "FloatStorage") -> bytes:
    storage = (
        b"(" + _text("storage") + f"ctorch\n{kind}\n".encode() + _text("0") + _text("cpu") + _int(stored)
    )
    body = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"tQ" + _int(offset)
    body += _int(size) + b"\x85" + _int(stride) + b"\x85" + b"\x89ccollections\nOrderedDict\n)RtR"
    return b"\x80\x02}" + _text("gen_state_dict") + b"}" + _text("w") + body + b"ss."


_WRONG_FIELDS: dict[str, Any] = {
    "epoch": ["x", None, -1, 2**70, [1], torch.ones(3), 1.5, float("nan")],
    "step": ["x", -5, {}],
    "seed": ["x", 2**80],
    "best": ["x", float("nan"), [1]],
    "performance": ["x", float("nan"), None],
    "gen_state_dict": [[], None, 3, {"w": 1}, {1: torch.ones(1)}, {"w": torch.tensor([1.0, float("nan")])}],
    "model": [[], {"w": torch.full((2,), float("inf"))}],
    "gen_optimizer": [[], {}, {"state": [], "param_groups": []}, {"state": {}, "param_groups": [3]}, 1],
    "scheduler": [[1], {"a": torch.ones(2)}],
    "loaders": [{"3d": -4}, {"3d": "x"}, [1], {"3d": 2**60}],
    "rng": [{}, 3, {"python": 1, "numpy": 2, "torch": 3}],
    "config": [[], {"TITLE": None}, {"nosuch": 1}, {1: 2}, {"DATASET": {"SEQLEN": torch.ones(2)}},
               {"DATASET": {"SEQLEN": -5}}, {"MODEL": {"TGRU": {"HIDDEN_SIZE": 0}}}, {"DATASET": 3}],
    "body": [torch.ones(1), 3, None],
}  # fmt: skip


def _checkpoints() -> Iterator[Case]:
    for field, values in _WRONG_FIELDS.items():
        for number, value in enumerate(values):
            content = _written(lambda path, f=field, v=value: torch.save({**_training(), f: v}, path))
            yield Case(f"{field} of another kind {number}", "checkpoint", content, ".pth.tar")
    numbers = {"data/0": bytes(40)}
    tensors = {
        "a tensor beyond its numbers": _tensor(0, 11, 1, 10),
        "a tensor that starts beyond": _tensor(11, 1, 1, 10),
        "a tensor with a far stride": _tensor(0, 2, 10, 10),
        "a tensor of 10^12 equal numbers": _tensor(0, 10**12, 0, 10),
        "a negative offset": _tensor(-1, 1, 1, 10),
        "a negative size": _tensor(0, -1, 1, 10),
        "more numbers than there are": _tensor(0, 1, 1, 10**12),
        "numbers of an unknown kind": _tensor(0, 1, 1, 10, "QInt8Storage"),
    }
    for name, content in tensors.items():
        yield Case(name, "checkpoint", _zip_checkpoint(content, more=numbers), ".pth.tar")
    plain = pickle.dumps({"gen_state_dict": {}}, 2)
    flipped = bytearray(_zip_checkpoint(_tensor(0, 10, 1, 10), more={"data/0": b"\x01" * 40}))
    flipped[flipped.index(b"\x01" * 40) + 20] ^= 1
    archives = {
        "a compressed entry": _zip_checkpoint(plain, compressed=True),
        "a zip bomb": _zip_checkpoint(_tensor(0, 10**8, 1, 10**8), True, {"data/0": bytes(4 * 10**8)}),
        "TorchScript": _zip_checkpoint(plain, more={"constants.pkl": b"N."}),
        "another byte order": _zip_checkpoint(plain, more={"byteorder": b"big"}),
        "a flipped bit in a weight": bytes(flipped),
        "no entry of the numbers": _zip_checkpoint(_tensor(0, 10, 1, 10)),
        "a zip without a pickle": _written(lambda path: zipfile.ZipFile(path, "w").close()),
        "lists of lists": _zip_checkpoint(b"\x80\x04}" + _text("a") + _nested(60, 2) + b"s."),
    }
    for name, content in archives.items():
        yield Case(name, "checkpoint", content, ".pth.tar")


def _h5(write: Callable[[h5py.File], Any]) -> bytes:
    def whole(path: Path) -> None:
        with h5py.File(path, "w") as file:
            file["vid_name"] = np.array([b"a"] * 9)
            write(file)

    return _written(whole, ".h5")


def _damaged_chunk(file: h5py.File) -> None:
    data = file.create_dataset("features", (9, 8), "f4", chunks=(9, 8), compression="gzip")
    data[:] = 1
    data.id.write_direct_chunk((0, 0), b"garbage")


def _virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((9, 8), "f4")
    layout[:] = h5py.VirtualSource("/etc/passwd", "features", (9, 8))
    file.create_virtual_dataset("features", layout)


def _hdf5() -> Iterator[Case]:
    zeros = np.zeros((9, 8), np.float32)
    writes: dict[str, Callable[[h5py.File], Any]] = {
        "a dangling link": lambda f: f.__setitem__("features", h5py.SoftLink("/nowhere")),
        "a dangling link beside": lambda f: f.update(features=zeros, x=h5py.SoftLink("/y")),
        "a link in a circle": lambda f: f.__setitem__("features", h5py.SoftLink("/features")),
        "a link to another file": lambda f: f.__setitem__("features", h5py.ExternalLink("/etc/passwd", "x")),
        "numbers in another file": lambda f: f.create_dataset(
            "features", (9, 8), "f4", external=[("/etc/passwd", 0, 288)]
        ),
        "virtual numbers": _virtual,
        "a damaged chunk": _damaged_chunk,
        "rows without storage": lambda f: f.create_dataset("features", (2 * 10**8, 8), "f4"),
        "a huge chunk": lambda f: f.create_dataset(
            "features", (9, 8), "f4", chunks=(10**8, 8), maxshape=(None, 8)
        ),
        "a compound type": lambda f: f.create_dataset("features", (9,), [("a", "f4"), ("b", "i4")]),
        "references": lambda f: f.create_dataset("features", (9, 8), h5py.ref_dtype),
        "no shape": lambda f: f.create_dataset("features", data=h5py.Empty("f4")),
        "a scalar": lambda f: f.__setitem__("features", 3.0),
        "a group": lambda f: f.create_group("features"),
        "text as features": lambda f: f.__setitem__("features", np.array([b"x"] * 9)),
        "NaN": lambda f: f.__setitem__("features", zeros * np.nan),
        "fewer rows": lambda f: f.__setitem__("features", zeros[:4]),
        "steering characters": lambda f: f.update(features=zeros, name=zeros[:, 0], **{"\x1b[2J": zeros}),
    }
    for name, write in writes.items():
        yield Case(name, "database", _h5(write), ".h5")


def _databases() -> Iterator[Case]:
    for name, changes in {
        "a dict as a field": {"features": {"a": 1}},
        "a ragged list": {"features": [[1.0], [1.0, 2.0]]},
        "objects": {"features": np.array([object] * 40, object)},
        "long names": {"vid_name": ["x" * 10**6] + ["a"] * 999},
        "steering characters": {"vid_name": np.array(["a\x1b[31m"] * 40)},
        "new lines": {"vid_name": np.array(["a\nerror: x"] * 40)},
        "text as numbers": {"joints3D": np.array(["x"] * 40)},
        "a single value": {"features": np.float32(1)},
        "another shape": {"joints3D": np.zeros((40, 2))},
    }.items():
        content = _written(lambda path, c=changes: joblib.dump({**_rows(), **c}, path))
        yield Case(name, "database", content, ".pt")


def _packed() -> Iterator[Case]:
    bomb = joblib_bomb()
    for name, pack in {
        "zlib": zlib.compress,
        "gzip": gzip.compress,
        "bz2": bz2.compress,
        "xz": lzma.compress,
    }.items():
        yield Case(f"a bomb in {name}", "joblib", pack(bomb), ".pt")
        yield Case(f"code in {name}", "joblib", pack(_code()["os.system: reduce"]), ".pt")
    stream = io.BytesIO()
    np.savez_compressed(stream, x=np.zeros(3 * 10**7))
    yield Case("a bomb in npz", "arrays", stream.getvalue(), ".npz")
    for name, value in {"an object": np.array([{}], object), "a structure": np.zeros(3, "f4,i4")}.items():
        yield Case(name, "arrays", _written(lambda p, v=value: np.savez(p, x=v), ".npz"), ".npz")
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("poses", b"not an array")
    yield Case("no array", "arrays", stream.getvalue(), ".npz")
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f8", "fortran_order": False, "shape": (5 * 10**9, 72)}
    )
    yield Case("a header of 3 TB", "arrays", header.getvalue(), ".npy")


@cache
def joblib_bomb() -> bytes:
    """80 MB of zeros as joblib dumps them."""
    return _written(lambda path: joblib.dump({"features": np.zeros((10**5, 100))}, path))


def _texts() -> Iterator[Case]:
    anchors = "".join(f"    k{i}: &a{i} {{a: *a{i - 1}, b: *a{i - 1}}}\n" for i in range(1, 40))
    merges = "".join(f"a{i}: &a{i} {{<<: [*a{i - 1}, *a{i - 1}]}}\n" for i in range(1, 40))
    configs = {
        "laughs": f"DATASET:\n  FILES:\n    k0: &a0 {{a: x, b: x}}\n{anchors}",
        "merged laughs": f"a0: &a0 {{x: 1}}\n{merges}",
        "deep": "TITLE: " + "[" * 3000,
        "deep value": 'TITLE: "' + "(" * 3000 + '"',
        "minus signs": 'TITLE: "' + "-" * 50_000 + '"',
        "many bytes": "TITLE: " + "x" * 10**6,
        "a large number": f"SEED_VALUE: {2**70}",
        "a hexadecimal number": "SEED_VALUE: 0x" + "f" * 20_000,
        "a number in base 60": "SEED_VALUE: 1" + ":1" * 20_000,
        "code": "TITLE: !!python/object/apply:os.system ['touch EXECUTED']",
        "a name of Python": "TITLE: !!python/name:os.system",
        "a date": "TITLE: 2020-01-01",
        "a list": "- 1\n- 2",
        "a word": "hello",
        "an unknown key": "NOSUCH: 1",
        "another type": "DATASET: 3",
        "an unhashable key": "? [a]\n: 1",
        "bytes": "\x00\x01",
        "nothing but an empty value": "DATASET:",
    }
    for name, text in configs.items():
        yield Case(name, "config", text.encode(), ".yaml")
    for suffix, text in {
        ".py": "import pathlib\npathlib.Path('EXECUTED').touch()\ncfg = {}\n",
        ".json": "TITLE: x",
        ".txt": "TITLE: x",
        ".yaml.bak": "TITLE: x",
        "": "TITLE: x",
    }.items():
        yield Case(f"the suffix {suffix!r}", "config", text.encode(), suffix)
    jsons = {
        "deep": "[" * 100_000,
        "NaN": '{"a": NaN}',
        "infinity": "[-Infinity]",
        "a long number": f"[{'9' * 5000}]",
        "two values": "{} {}",
        "bytes": "\x00",
        "half a pair": '"\\ud800',
    }
    for name, text in jsons.items():
        yield Case(name, "json", text.encode(), ".json")


def _images() -> Iterator[Case]:
    png = b"\x89PNG\r\n\x1a\n"

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    def claimed(side: int) -> bytes:
        return png + chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))

    rows = zlib.compress(bytes(20_000 * 60_001 // 40))
    jpeg = next(case.content for case in good() if case.name == "jpeg")
    yield Case("a png of 10^10 pixels", "image", claimed(100_000), ".png")
    yield Case("a png bomb", "image", claimed(20_000) + chunk(b"IDAT", rows) + chunk(b"IEND", b""), ".png")
    yield Case("a jpeg without an end", "image", jpeg[: len(jpeg) * 2 // 3], ".jpg")
    yield Case("a ppm of 10^10 pixels", "image", b"P6 100000 100000 255\n", ".png")
    yield Case("text", "image", b"hello", ".png")
    huge = struct.pack("<Q", 1 << 60)
    yield Case("a record of 2^60", "tfrecord", huge + struct.pack("<I", _masked_crc32c(huge)), ".tfrecord")
    broken = bytearray(_tfrecord())
    broken[20] ^= 1
    yield Case("a broken record", "tfrecord", bytes(broken), ".tfrecord")
    data = b"\xff" * 40
    size = struct.pack("<Q", len(data))
    record = size + struct.pack("<I", _masked_crc32c(size)) + data + struct.pack("<I", _masked_crc32c(data))
    yield Case("a record without an example", "tfrecord", record, ".tfrecord")
    for name, value in {"text": "hello", "a struct": {"a": 1}, "complex": np.array([[1j]])}.items():
        content = _written(lambda path, v=value: scipy.io.savemat(path, {"x": v, "cells": 1}), ".mat")
        yield Case(name, "mat", content, ".mat")


@cache
def corpus() -> tuple[Case, ...]:
    """Every hostile or damaged file."""
    cases = [*_damaged(), *_checkpoints(), *_hdf5(), *_databases(), *_packed(), *_texts(), *_images()]
    for name, content in {**_memory(), **_code()}.items():
        suffixes = {"joblib": ".pt", "pickle": ".pkl", "smpl": ".pkl"}
        cases += [Case(name, reader, content, suffix) for reader, suffix in suffixes.items()]
        cases.append(Case(f"{name}, zipped", "checkpoint", _zip_checkpoint(content), ".pth.tar"))
    return tuple(cases)


# --------------------------------------------------------------------------------
# Trying


@dataclass(frozen=True)
class Outcome:
    """``kind`` is refused, accepted, traceback, signal, slow, large or executed."""

    kind: str
    detail: str


def run(cases: Sequence[Case], folder: Path) -> list[Outcome]:
    """Give cases to their readers in a forked process, in an empty folder; one that fails, in its own."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    receive, send = os.pipe()
    process = os.fork()
    if not process:
        os.chdir(folder)
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 1))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        outcomes = [_attempt(case, folder) for case in cases]
        with os.fdopen(send, "wb") as target:
            pickle.dump(outcomes, target)
        os._exit(0)
    os.close(send)
    with os.fdopen(receive, "rb") as source:
        written = source.read()
    _, status, usage = os.wait4(process, 0)
    large = (usage.ru_maxrss - before) * 1024 > GROWTH
    executed = (folder / "EXECUTED").exists()
    if len(cases) > 1 and (status or large or executed):
        (folder / "EXECUTED").unlink(missing_ok=True)
        return [outcome for case in cases for outcome in run([case], folder)]
    if executed:
        return [Outcome("executed", "")]
    if status:
        slow = os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGKILL)
        return [Outcome("slow" if slow else "signal", f"signal {os.WTERMSIG(status)}")]
    if large:
        return [Outcome("large", f"{usage.ru_maxrss - before} kB")]
    return pickle.loads(written)


def _attempt(case: Case, folder: Path) -> Outcome:
    path = folder / f"file{case.suffix}"
    path.write_bytes(case.content)
    try:
        READERS[case.reader](path)
    except UserError as error:
        return Outcome("refused", str(error))
    except BaseException as error:
        return Outcome("traceback", repr(error))
    finally:
        path.unlink()
    return Outcome("accepted", "")


def run_corpus() -> list[tuple[Case, Outcome]]:
    """Every case with its outcome."""
    torch.set_num_threads(1)  # threads do not survive a fork
    cases, outcomes = corpus(), []
    with tempfile.TemporaryDirectory() as folder:
        for start in range(0, len(cases), _BATCH):
            outcomes += run(cases[start : start + _BATCH], Path(folder))
    return list(zip(cases, outcomes))


def main() -> None:
    done = run_corpus()
    counts = Counter(outcome.kind for _, outcome in done)
    for case, outcome in done:
        if outcome.kind not in HARMLESS or sys.argv[1:] == [outcome.kind]:
            print(f"{outcome.kind}: {case.reader}, {case.name}: {outcome.detail}")
    print(f"{len(done)} files: " + ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items())))
    sys.exit(not counts.keys() <= HARMLESS)


if __name__ == "__main__":
    main()

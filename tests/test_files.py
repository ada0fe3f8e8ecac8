"""Files: atomic writes, and loaders that give data but never run code."""

from __future__ import annotations

import collections
import gzip
import hashlib
import os
import pickle
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import torch

from lib.utils import files
from lib.utils.errors import UserError, fault
from lib.utils.files import atomic_write, check_writable, only_process
from tests.golden_tools import GOLDEN, load_golden


class _Touch:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mknod, (str(self.path),)


def _database() -> dict[str, Any]:
    random = np.random.default_rng(0)
    return {
        "features": random.standard_normal((50, 7)).astype(np.float32),
        "fortran": np.asfortranarray(random.standard_normal((4, 5))),
        "vid_name": np.array(["video_a"] * 30 + ["b"] * 20),
        "objects": np.array(["x", 3, None], object),
        "empty": np.zeros((0, 49, 3)),
        "number": np.float64(2.5),
        "nested": [1, (2.0, "three"), {"four"}, collections.OrderedDict(five=b"5")],
    }


def _assert_same(loaded: dict[str, Any], expected: dict[str, Any]) -> None:
    assert loaded.keys() == expected.keys()
    for name, value in expected.items():
        if isinstance(value, np.ndarray):
            assert loaded[name].dtype == value.dtype
            np.testing.assert_array_equal(loaded[name], value)
        else:
            assert loaded[name] == value


@pytest.mark.parametrize("mmap", [True, False])
def test_joblib_round_trip(tmp_path: Path, mmap: bool) -> None:
    path = tmp_path / "new" / "db.pt"
    files.dump_joblib(_database(), path)
    loaded = files.load_joblib(path, mmap=mmap)
    _assert_same(loaded, _database())
    _assert_same(joblib.load(path), _database())
    assert isinstance(loaded["features"], np.memmap) == mmap
    assert [p.name for p in path.parent.iterdir()] == ["db.pt"]


@pytest.mark.parametrize("compress", [0, 3, ("gzip", 3)])
def test_joblib_files_written_by_joblib(tmp_path: Path, compress: Any) -> None:
    path = tmp_path / "db.pt"
    joblib.dump(_database(), path, compress=compress)
    _assert_same(files.load_joblib(path), _database())


def _malicious_joblib(path: Path, touched: Path) -> None:
    joblib.dump({"features": np.zeros(3), "extra": _Touch(touched)}, path)


def _malicious_object_array(path: Path, touched: Path) -> None:
    joblib.dump({"names": np.array([_Touch(touched)], object)}, path)


def _malicious_gzip(path: Path, touched: Path) -> None:
    path.write_bytes(gzip.compress(pickle.dumps(_Touch(touched))))


def _malicious_pickle(path: Path, touched: Path) -> None:
    path.write_bytes(pickle.dumps({"v_template": _Touch(touched)}, protocol=2))


def _malicious_checkpoint(path: Path, touched: Path) -> None:
    torch.save({"gen_state_dict": {}, "performance": _Touch(touched)}, path)


@pytest.mark.parametrize(
    ("write", "load"),
    [
        (_malicious_joblib, files.load_joblib),
        (_malicious_object_array, files.load_joblib),
        (_malicious_gzip, files.load_joblib),
        (_malicious_pickle, files.load_joblib),
        (_malicious_pickle, files.load_smpl_pickle),
        (_malicious_checkpoint, files.load_checkpoint),
    ],
)
def test_code_in_files_is_refused_and_not_run(tmp_path: Path, write: Any, load: Any) -> None:
    path, touched = tmp_path / "file", tmp_path / "touched"
    write(path, touched)
    with pytest.raises(UserError, match="file"):
        load(path)
    assert not touched.exists()


@pytest.mark.parametrize(
    "payload", [b"cos\nsystem\n(S'true'\ntR.", b"cbuiltins\neval\n(S'1'\ntR.", b"cnumpy\nload\n."]
)
def test_dangerous_globals_are_refused(tmp_path: Path, payload: bytes) -> None:
    path = tmp_path / "file.pkl"
    path.write_bytes(payload)
    for load in (files.load_joblib, files.load_smpl_pickle):
        with pytest.raises(UserError, match="refused"):
            load(path)


class _Reduced:
    """Pickles to whatever call, and state, it is given."""

    def __init__(self, *reduced: Any) -> None:
        self.reduced = reduced

    def __reduce__(self) -> tuple:
        return self.reduced


_RECONSTRUCT = np.zeros(1).__reduce__()[0]
_OBJECT = np.dtype("O8")
_POINTER = (0xDEADBEEF).to_bytes(8, "little")
# The last 0 denies that the type holds objects, which would have numpy take bytes for pointers to them.
_DENIED_OBJECT = _Reduced(np.dtype, ("O8", False, True), (3, "|", None, None, None, -1, -1, 0))
_FIELDS = {"a": (np.dtype("f8"), 1 << 30)}
_FAR_FIELD = _Reduced(np.dtype, ("V8", False, True), (3, "|", None, ("a",), _FIELDS, 8, 1, 16))


@pytest.mark.parametrize(
    "forged",
    [
        _Reduced(np.ndarray, ((1,), _OBJECT, _POINTER)),
        _Reduced(_RECONSTRUCT, (np.ndarray, (0,), b"b"), (1, (1,), _DENIED_OBJECT, False, _POINTER)),
        _Reduced(_RECONSTRUCT, (np.ndarray, (0,), b"b"), (1, (9,), _OBJECT, False, [None])),
        _Reduced(_RECONSTRUCT, (np.ndarray, (0,), b"b"), (1, (1,), _FAR_FIELD, False, bytes(8))),
        _Reduced(np.float64(0).__reduce__()[0], (_DENIED_OBJECT, _POINTER)),
    ],
)
def test_bytes_do_not_pass_for_pointers(tmp_path: Path, forged: _Reduced) -> None:
    path = tmp_path / "forged"
    path.write_bytes(pickle.dumps({"a": forged}, protocol=2))
    for load in (files.load_pickle, files.load_smpl_pickle, files.load_joblib):
        try:
            value = load(path)["a"]
        except UserError:
            continue
        assert value == _POINTER  # left as the bytes that they are
    torch.save({"a": forged}, path)
    with pytest.raises(UserError, match="forged"):
        files.load_checkpoint(path)


def test_raw_bytes_of_a_joblib_file_do_not_pass_for_pointers(tmp_path: Path) -> None:
    path = tmp_path / "db.pt"
    joblib.dump({"a": np.arange(4, dtype=np.int64)}, path)
    content = path.read_bytes()
    assert content.count(b"\x8c\x02i8") == 1
    path.write_bytes(content.replace(b"\x8c\x02i8", b"\x8c\x02O8"))
    for mmap in (True, False):
        with pytest.raises(UserError, match=r"db\.pt"):
            files.load_joblib(path, mmap=mmap)


@pytest.mark.parametrize("load", [files.load_joblib, files.load_smpl_pickle, files.load_checkpoint])
def test_missing_truncated_and_foreign_files(tmp_path: Path, load: Any) -> None:
    with pytest.raises(UserError, match="does not exist"):
        load(tmp_path / "missing")
    whole = tmp_path / "whole"
    if load is files.load_checkpoint:
        torch.save({"a": torch.zeros(5000)}, whole)
    elif load is files.load_joblib:
        joblib.dump({"a": np.zeros(5000)}, whole)
    else:
        whole.write_bytes(pickle.dumps({"a": np.zeros(5000)}, protocol=2))
    load(whole)
    cut = tmp_path / "cut"
    for size in (0, 10, 4000):
        cut.write_bytes(whole.read_bytes()[:size])
        with pytest.raises(UserError, match="cut"):
            load(cut)
    cut.write_bytes(b"\x00not a pickle at all")
    with pytest.raises(UserError, match="cut"):
        load(cut)


def test_chumpy_pickle_is_read_bit_by_bit_without_chumpy() -> None:
    fields = files.load_smpl_pickle(GOLDEN / "smpl" / "chumpy_sample.pkl")
    for name, expected in load_golden("smpl/chumpy_sample_expected").items():
        assert fields[name].dtype == expected.dtype, name
        np.testing.assert_array_equal(fields[name], expected, err_msg=name)


@pytest.mark.parametrize("legacy", [False, True])
def test_original_checkpoints_with_numpy_scalars_load(tmp_path: Path, legacy: bool) -> None:
    original = {
        "epoch": 3,
        "gen_state_dict": collections.OrderedDict(weight=torch.arange(6.0).view(2, 3)),
        "performance": np.float64(52.5),
        "other": (np.float32(1.5), np.arange(4)),
    }
    path = tmp_path / "checkpoint.pth.tar"
    torch.save(original, path, _use_new_zipfile_serialization=not legacy)
    loaded = files.load_checkpoint(path)
    assert loaded["epoch"] == 3 and loaded["performance"] == 52.5 and loaded["other"][0] == 1.5
    torch.testing.assert_close(loaded["gen_state_dict"]["weight"], original["gen_state_dict"]["weight"])
    np.testing.assert_array_equal(loaded["other"][1], np.arange(4))


def test_checkpoints_of_older_numpy_load(tmp_path: Path) -> None:
    path = tmp_path / "old.pth"
    torch.save({"performance": np.float64(1.25)}, path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    assert b"numpy._core.multiarray\n" in content
    path.write_bytes(content.replace(b"numpy._core.multiarray\n", b"numpy.core.multiarray\n"))
    assert files.load_checkpoint(path)["performance"] == 1.25


def test_checkpoint_must_be_a_dict(tmp_path: Path) -> None:
    torch.save([1], tmp_path / "list.pth")
    with pytest.raises(UserError, match="expected a dict"):
        files.load_checkpoint(tmp_path / "list.pth")


def test_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "result.npz"
    files.save_checkpoint({"a": 1}, path)
    before = path.read_bytes()

    def fail_half_way() -> None:
        with files.atomic_write(path) as temporary:
            assert temporary.suffix == ".npz" and temporary.parent == path.parent
            temporary.write_bytes(b"half")
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        fail_half_way()
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_where_nothing_can_be_written_is_told_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path, message in ((tmp_path, "it is a folder"), (tmp_path / "file" / "out.pt", "another place")):
        with pytest.raises(UserError, match=message), files.atomic_write(path):
            pytest.fail("the block was entered")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_arrays_of_npz_and_npy_files(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.arange(3), y=np.array([{}], object))
    assert files.load_arrays(tmp_path / "a.npz", names=["x"])["x"].tolist() == [0, 1, 2]
    with pytest.raises(UserError, match=r"a\.npz lacks z \(found x, y\)"):
        files.load_arrays(tmp_path / "a.npz", names=["z"])
    with pytest.raises(UserError, match=r"a\.npz cannot be read"):
        files.load_arrays(tmp_path / "a.npz")
    np.save(tmp_path / "b.npy", np.eye(2))
    np.testing.assert_array_equal(files.load_arrays(tmp_path / "b.npy")["array"], np.eye(2))


def test_sha256(tmp_path: Path) -> None:
    path = tmp_path / "blob"
    path.write_bytes(b"abc" * 1_000_000)
    assert files.sha256(path) == hashlib.sha256(b"abc" * 1_000_000).hexdigest()


def test_no_device_is_replaced_and_links_stay_links(tmp_path: Path) -> None:
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    with pytest.raises(UserError, match=r"pipe: it is neither file nor folder"), atomic_write(pipe):
        pass
    with pytest.raises(UserError, match=r"--json: .*pipe: it is neither file nor folder"):
        check_writable(pipe, "--json")
    assert pipe.is_fifo()
    (tmp_path / "disk").mkdir()
    link.symlink_to(tmp_path / "disk" / "x.txt")
    for text in ("first", "second"):
        with atomic_write(link) as temporary:
            temporary.write_text(text)
        assert link.is_symlink() and (tmp_path / "disk" / "x.txt").read_text() == text


def test_what_lies_in_the_place_of_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    faults = {name: fault(tmp_path / name) for name in (".", "file", "pipe", "none")}
    assert faults == {
        ".": "is a folder",
        "file": "is a file",
        "pipe": "is neither file nor folder",
        "none": "does not exist",
    }


def test_one_process_at_a_time_holds_a_folder(tmp_path: Path) -> None:
    """The folder goes with the last process if nothing is in it, whatever ends the block."""
    folder = tmp_path / "a" / "b"
    with only_process(folder) as first, only_process(folder) as second:
        assert (first, second) == (True, False)
    assert not folder.exists()
    with pytest.raises(KeyboardInterrupt), only_process(folder) as again:
        assert again
        (folder / "result").touch()
        raise KeyboardInterrupt
    assert [path.name for path in folder.iterdir()] == ["result"]
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write"), only_process(tmp_path / "file" / "x"):
        pass

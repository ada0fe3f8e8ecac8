"""Files that nobody vouches for: refused in one line, by every reader, whatever they hold."""

from __future__ import annotations

import json
import os
import pickle
import re
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io
import scipy.sparse
import torch

from lib.core.build import check_claims
from lib.core.config import load_config
from lib.core.run_folder import create_run_folder
from lib.data_utils.matfile import read_matfile
from lib.dataset.database import open_database
from lib.models.body import find_smpl
from lib.models.weights import load_weights
from lib.utils import files
from lib.utils.errors import Terminated, UserError, printable, run_command
from tests import hostile

REPOSITORY = Path(__file__).resolve().parents[1]


def test_no_hostile_file_gets_through() -> None:
    """None runs code, ends the process, gives a traceback, or takes more than 10 s or 1 GB."""
    command = [sys.executable, "-m", "tests.hostile"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    last = done.stdout.splitlines()[-1]
    counts = {kind: int(count) for count, kind in re.findall(r"(\d+) (\w+)", last)}
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert counts.keys() == {"files", "refused", "accepted"}
    assert counts["files"] >= 900 and counts["refused"] >= 900


@pytest.mark.parametrize("case", hostile.good(), ids=lambda case: f"{case.reader} {case.name}")
def test_the_files_that_are_damaged_were_whole(tmp_path: Path, case: hostile.Case) -> None:
    path = tmp_path / f"file{case.suffix}"
    path.write_bytes(case.content)
    hostile.READERS[case.reader](path)


# --------------------------------------------------------------------------------
# Checkpoints


@pytest.mark.parametrize("old", [False, True])
def test_checkpoints_read_as_torch_reads_them(tmp_path: Path, old: bool) -> None:
    shared = torch.arange(24.0).view(4, 6)
    content = {
        "plain": shared,
        "view": shared[1:3, ::2],
        "transposed": shared.T,
        "empty": torch.zeros(0, 3),
        "scalar": torch.tensor(2.5),
        "parameter": torch.nn.Parameter(torch.ones(2)),
        **{str(dtype): torch.tensor([0, 1, 2]).to(dtype) for dtype in (
            torch.float16, torch.bfloat16, torch.float64, torch.int8, torch.uint8, torch.int16, torch.int64,
            torch.bool,
        )},
    }  # fmt: skip
    path = tmp_path / "x.pth"
    torch.save({"tensors": content}, path, _use_new_zipfile_serialization=not old)
    loaded = files.load_checkpoint(path)["tensors"]
    expected = torch.load(path, weights_only=True)["tensors"]
    for name, value in expected.items():
        assert loaded[name].dtype == value.dtype and loaded[name].stride() == value.stride(), name
        assert torch.equal(loaded[name], value.data), name
    loaded["plain"][0, 0] = 99
    assert loaded["transposed"][0, 0] == 99  # numbers that were shared are shared


def test_any_flipped_bit_of_a_weight_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "x.pth.tar"
    torch.save({"gen_state_dict": {"w": torch.rand(1000)}}, path)
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo("x.pth/data/0").header_offset + 200
    content = path.read_bytes()
    for place in range(start, start + 3000, 400):
        flipped = bytearray(content)
        flipped[place] ^= 1
        path.write_bytes(flipped)
        with pytest.raises(UserError, match=r"x\.pth\.tar"):
            files.load_checkpoint(path)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_prefixes_of_wrappers_are_understood(tmp_path: Path, prefix: str) -> None:
    net = torch.nn.Linear(2, 3)
    torch.save({"model": {prefix + k: v for k, v in net.state_dict().items()}}, tmp_path / "x.pth")
    other = torch.nn.Linear(2, 3)
    load_weights(other, files.load_checkpoint(tmp_path / "x.pth")["model"], "x.pth")
    assert torch.equal(other.weight, net.weight)


@pytest.mark.parametrize("dtype", [torch.int8, torch.int64, torch.bool])
def test_weights_of_another_kind_are_refused(dtype: torch.dtype) -> None:
    net = torch.nn.Linear(2, 3)
    weights = {name: value.to(dtype) for name, value in net.state_dict().items()}
    with pytest.raises(UserError, match=r"weight holds torch.* numbers, expected torch\.float32"):
        load_weights(net, weights, "x")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("MODEL.TGRU.HIDDEN_SIZE", 20_000),
        ("MODEL.TGRU.NUM_LAYERS", 10**6),
        ("MODEL.FEATURE_SIZE", 8),
        ("MODEL.REGRESSOR.HIDDEN_SIZE", 3),
        ("DATASET.SEQLEN", 10**9),
    ],
)
def test_no_network_is_built_from_what_a_file_claims(key: str, value: int) -> None:
    weights = {
        "encoder.gru_cur.weight_ih_l0": torch.zeros(96, 2048),
        "regressor.fc1.weight": torch.zeros(1024, 2048 + 157),
    }
    opts = ["MODEL.TGRU.HIDDEN_SIZE", "32", "MODEL.TGRU.NUM_LAYERS", "1", "MODEL.FEATURE_SIZE", "2048"]
    cfg = load_config(REPOSITORY / "configs/open.yaml", [*opts, "MODEL.REGRESSOR.HIDDEN_SIZE", "1024"])
    check_claims(cfg, weights, "x")
    cfg.merge_from_list([key, value])
    with pytest.raises(UserError, match=f"{re.escape(key)} is {value}"):
        check_claims(cfg, weights, "x")


def test_copies_of_a_checkpoint_are_there_before_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    last, best = tmp_path / "checkpoint.pth.tar", tmp_path / "model_best.pth.tar"
    order: list[str] = []
    replace = Path.replace
    monkeypatch.setattr(Path, "replace", lambda self, to: (order.append(Path(to).name), replace(self, to))[1])
    files.save_checkpoint({"epoch": 1}, last, best)
    assert order == ["model_best.pth.tar", "checkpoint.pth.tar"]
    assert files.load_checkpoint(best) == files.load_checkpoint(last) == {"epoch": 1}


# --------------------------------------------------------------------------------
# Pickles and arrays


@pytest.mark.parametrize("layout", ["csc", "csr", "coo"])
@pytest.mark.parametrize("kind", ["matrix", "array"])
@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_sparse_regressors_of_every_layout(tmp_path: Path, layout: str, kind: str, protocol: int) -> None:
    dense = np.random.default_rng(0).normal(size=(5, 9)) * (np.arange(9) % 3 == 0)
    sparse = getattr(scipy.sparse, f"{layout}_{kind}")(dense)
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"J_regressor": sparse}, protocol))
    np.testing.assert_array_equal(files.load_smpl_pickle(tmp_path / "x.pkl")["J_regressor"], dense)


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_are_those_that_were_pickled(tmp_path: Path, protocol: int) -> None:
    rng = np.random.default_rng(0)
    arrays = {
        "c": rng.normal(size=(3, 4)),
        "f": np.asfortranarray(rng.normal(size=(3, 4)).astype(np.float32)),
        "strided": rng.normal(size=(6, 4))[::2],
        "big-endian": np.arange(5, dtype=">i4"),
        "text": np.array(["é", "abc"]),
        "bytes": np.array([b"a", b"bcd"]),
        "empty": np.zeros((0, 49, 3)),
        "bool": np.array([True, False]),
        "objects": np.array(["x", 3, None], object),
        "scalar": np.float32(1.5),
    }
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(arrays, protocol))
    loaded = files.load_pickle(tmp_path / "x.pkl")
    for name, value in arrays.items():
        assert loaded[name].dtype == value.dtype, name
        np.testing.assert_array_equal(loaded[name], value, err_msg=name)
    loaded["c"][0, 0] = 7  # copies, which may be written to


@pytest.mark.parametrize("compressed", [False, True])
def test_matlab_files_read_as_scipy_reads_them(tmp_path: Path, compressed: bool) -> None:
    rng = np.random.default_rng(0)
    cells = np.empty((3, 1), object)
    cells[0, 0], cells[1, 0], cells[2, 0] = (
        rng.normal(size=(5, 4)),
        np.arange(6).reshape(2, 3),
        np.zeros((0, 0)),
    )
    content = {
        "double": rng.normal(size=(7, 13)),
        "single": rng.normal(size=(2, 3, 4)).astype(np.float32),
        "logical": np.array([[True, False]]),
        "small": np.array([[3]], np.uint8),
        "long_name_of_a_variable": np.arange(300, dtype=np.uint16)[None],
        "cells": cells,
        "text": "not asked for",
        "struct": {"a": 1},
    }
    path = tmp_path / "x.mat"
    scipy.io.savemat(path, content, do_compression=compressed)
    expected = scipy.io.loadmat(path)
    names = [name for name in content if name not in ("text", "struct")]
    found = read_matfile(path, [*names, "absent"])
    assert found.keys() == set(names)
    for name in names:
        assert found[name].shape == expected[name].shape and found[name].dtype == expected[name].dtype, name
        for ours, theirs in zip(found[name].ravel(), expected[name].ravel()):
            np.testing.assert_array_equal(ours, theirs, err_msg=name)
    with pytest.raises(ValueError, match="text is text, expected numbers"):
        read_matfile(path, ["text"])


def test_a_locked_database_is_called_locked(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file["vid_name"] = np.array([b"a"])
        code = "import sys; from lib.dataset.database import read_fields; read_fields(sys.argv[1])"
        code = f"from pathlib import Path; {code.replace('sys.argv[1]', 'Path(sys.argv[1])')}"
        command = [sys.executable, "-c", code, str(path)]
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert f"database {path} is locked" in done.stderr.splitlines()[-1]


def test_damage_below_a_database_is_named_when_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file["vid_name"] = np.array([b"a"] * 9)
        data = file.create_dataset("joints2D", (9, 49, 3), "f4", chunks=(9, 49, 3), compression="gzip")
        data[:] = 1
        data.id.write_direct_chunk((0, 0, 0), b"garbage")
    with pytest.raises(UserError, match=r"x\.h5: joints2D cannot be read .*damaged"):
        open_database(path, ["vid_name", "joints2D"])


@pytest.mark.parametrize(
    ("name", "gender"),
    [
        ("SMPL_NEUTRAL.pkl", "neutral"),
        ("smpl_male.npz", "male"),
        ("basicModel_neutral_lbs_10_207_0_v1.0.0.pkl", "neutral"),
        ("basicmodel_neutral_lbs_10_207_0_v1.1.0.pkl", "neutral"),
        ("basicModel_f_lbs_10_207_0_v1.0.0.pkl", "female"),
        ("basicmodel_m_lbs_10_207_0_v1.1.0.pkl", "male"),
    ],
)
def test_smpl_is_found_under_the_names_it_is_downloaded_with(tmp_path: Path, name: str, gender: str) -> None:
    (tmp_path / name).touch()
    found = {g: find_smpl(tmp_path, g) for g in ("neutral", "male", "female")}
    assert found == {g: tmp_path / name if g == gender else None for g in found}


# --------------------------------------------------------------------------------
# Writing, signals, messages


def test_what_killed_runs_left_is_removed_by_the_next(tmp_path: Path) -> None:
    target = tmp_path / "result.npz"
    code = (
        "import os, signal, sys; from lib.utils.files import atomic_write\n"
        "with atomic_write(sys.argv[1]) as temporary:\n"
        "    temporary.write_bytes(b'half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, str(target)], cwd=REPOSITORY, check=False)
    (left,) = tmp_path.iterdir()
    (tmp_path / ".other.tmp.npz").touch()  # not ours
    with files.atomic_write(target) as mine:
        assert not left.exists()
        with files.atomic_write(target):  # of a process that runs
            assert mine.exists()
        mine.write_bytes(b"whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".other.tmp.npz", "result.npz"]


@pytest.mark.parametrize("write", ["checkpoint", "joblib", "text"])
def test_a_full_disk_is_one_line_and_the_old_file_stays(tmp_path: Path, write: str) -> None:
    """A limit on the size of files stands for the disk: writing beyond it fails in the same places."""
    target = tmp_path / "x"
    target.write_bytes(b"old")
    code = (
        "import resource, sys, numpy as np, torch\n"
        "from lib.utils.errors import run_command; from lib.utils import files\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "def text():\n"
        "    with files.atomic_write(sys.argv[1]) as temporary: temporary.write_text('x' * 10**6)\n"
        "ways = {'checkpoint': lambda: files.save_checkpoint({'a': torch.zeros(10**6)}, sys.argv[1]),\n"
        "        'joblib': lambda: files.dump_joblib({'a': np.zeros(10**6)}, sys.argv[1]), 'text': text}\n"
        "run_command(ways[sys.argv[2]])"
    )
    command = [sys.executable, "-c", code, str(target), write]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert re.fullmatch(rf"error: cannot write {re.escape(str(target))} \(.*\n", done.stderr)
    assert target.read_bytes() == b"old" and list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize(("number", "word"), [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "terminated")])
@pytest.mark.parametrize("stage", ["imports", "work"])
def test_a_signal_ends_a_command_with_one_line(number: int, word: str, stage: str) -> None:
    code = (
        "import os, signal, sys; from lib.utils.errors import leave_on_signals, run_command\n"
        "leave_on_signals()\n"
        "def stop(): os.kill(os.getpid(), int(sys.argv[1])); signal.pause()\n"
        "stop() if sys.argv[2] == 'imports' else run_command(stop)"
    )
    command = [sys.executable, "-c", code, str(int(number)), stage]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (128 + number, f"{word}\n")


def _raising(error: BaseException) -> Any:
    def main() -> None:
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (UserError("a\nb"), 2, "error: a b\n"),
        (UserError("the file \x1b[2Jx is odd"), 2, "error: the file \\x1b[2Jx is odd\n"),
        (OSError(28, "No space left", "/x/y"), 2, "error: /x/y: No space left; make room there\n"),
        (MemoryError(), 2, "error: there is not enough memory for this\n"),
        (RuntimeError("CUDA out of memory. Tried"), 2, "error: there is not enough memory for this\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (Terminated(), 143, "terminated\n"),
    ],
)  # fmt: skip
def test_what_goes_wrong_is_one_line(
    capsys: pytest.CaptureFixture[str], error: BaseException, status: int, text: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        run_command(_raising(error))
    assert caught.value.code == status and capsys.readouterr().err == text


def test_programming_errors_keep_their_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        run_command(_raising(ZeroDivisionError()))


def test_letters_of_every_language_are_printable() -> None:
    assert printable("Müller 舞 \t\n") == "Müller 舞 \t\n"
    assert printable("\x07\x9b\x00\u202e") == "\\x07\\x9b\\x00\\u202e"


@pytest.mark.parametrize("name", ["../../x", "a/b", "a\x1bb", "a\0b", "x" * 300])
def test_a_run_folder_stays_where_it_belongs(tmp_path: Path, name: str) -> None:
    cfg = load_config(REPOSITORY / "configs/open.yaml")
    cfg.OUTPUT_DIR, cfg.EXP_NAME = str(tmp_path / "runs"), name
    with pytest.raises(UserError, match="EXP_NAME"):
        create_run_folder(cfg)
    assert not list(tmp_path.iterdir())


def test_runs_of_the_same_second_get_folders_of_their_own(tmp_path: Path) -> None:
    cfg = load_config(REPOSITORY / "configs/open.yaml")
    cfg.OUTPUT_DIR = str(tmp_path)
    folders = {create_run_folder(cfg) for _ in range(4)}
    assert len(folders) == 4 and all((folder / "config.yaml").is_file() for folder in folders)


def test_a_json_number_of_many_digits_is_one_line(tmp_path: Path) -> None:
    from lib.data_utils.h36m import _camera

    entry = {"R": np.eye(3).tolist(), "t": [0, 0, int("9" * 400)], "f": [1, 1], "c": [1, 1]}
    (tmp_path / "Human36M_subject1_camera.json").write_text(json.dumps({"1": entry}))
    with pytest.raises(UserError, match="camera 1 has no R"):
        _camera(tmp_path, 1, 1)


def test_a_forked_worker_dies_as_without_us() -> None:
    code = (
        "import os, signal; from lib.utils.errors import run_command\n"
        "def main():\n"
        "    pid = os.fork()\n"
        "    if not pid:\n"
        "        os.kill(os.getpid(), signal.SIGTERM); signal.pause()\n"
        "    print(os.WTERMSIG(os.waitpid(pid, 0)[1]))\n"
        "run_command(main)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == (f"{int(signal.SIGTERM)}\n", "") and os.name == "posix"

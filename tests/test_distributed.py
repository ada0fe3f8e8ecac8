"""Several processes train as one does, go on from each other's checkpoints, and fail together."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from yacs.config import CfgNode

from lib.core import distributed
from lib.core.config import dump_yaml
from lib.models.body import BodyData
from lib.utils.errors import UserError
from lib.utils.files import dump_joblib, load_checkpoint, load_joblib
from tests.trainer_tools import adversarial, logged, make_databases, tiny_config, train

ROOT = Path(__file__).resolve().parents[1]


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def databases(open_body: BodyData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some rows have no SMPL parameters, so that the processes' parts of a batch differ in their counts."""
    folder = tmp_path_factory.mktemp("databases")
    make_databases(folder, open_body)
    database = {key: np.array(value) for key, value in load_joblib(folder / "open_train_db.pt").items()}
    database["pose"][::3] = database["shape"][::3] = 0
    dump_joblib(database, folder / "open_train_db.pt")
    return folder


def torchrun_train(cfg: CfgNode, file: Path) -> None:
    file.write_text(dump_yaml(cfg))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    command = [*launcher, "train.py", "--cfg", str(file), "--device", "cpu"]
    result = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=240)
    assert result.returncode == 0, result.stderr


def curves(folder: Path, steps: range) -> dict[str, list[float]]:
    events = logged(folder)
    return {
        tag: [event.value for event in events.Scalars(tag) if event.step in steps]
        for tag in events.Tags()["scalars"]
        if tag.startswith("train_loss/")
    }


@pytest.mark.parametrize(("run_length", "velocity", "runs"), [("1", "0.0", (4, 5)), ("2", "3.0", (2, 2))])
def test_two_processes_equal_one_and_either_goes_on(
    databases: Path,
    open_body: BodyData,
    tmp_path: Path,
    run_length: str,
    velocity: str,
    runs: tuple[int, int],
) -> None:
    """One process for two epochs; two processes for the first and one for the second: the same run."""
    opts = ["TRAIN.LR_SCHEDULE", "plateau", "TRAIN.GRAD_CLIP", "0.5", "TRAIN.BATCH_SIZE", "9", *adversarial()]
    opts += ["TRAIN.RUN_LENGTH", run_length, "LOSS.VELOCITY_W", velocity]
    whole = train(tiny_config(databases, tmp_path / "one", *opts, "TRAIN.END_EPOCH", "2"), open_body)

    cfg = tiny_config(databases, tmp_path / "two", *opts, "TRAIN.END_EPOCH", "1")
    torchrun_train(cfg, tmp_path / "two.yaml")
    (folder,) = (tmp_path / "two").iterdir()
    assert {"checkpoint.pth.tar", "model_best.pth.tar", "best.txt", "config.yaml", "train_log.txt"} <= {
        path.name for path in folder.iterdir()
    }
    assert len(list(folder.glob("events*"))) == 1
    assert (folder / "train_log.txt").read_text().count("3D training ") == 1

    first, expected = curves(folder, range(7)), curves(whole.folder, range(7))
    assert first.keys() == expected.keys()
    assert {"train_loss/loss_shape", "train_loss/e_m_disc_loss", "train_loss/d_m_disc_loss"} <= first.keys()
    for tag, values in expected.items():
        np.testing.assert_allclose(first[tag], values, rtol=1e-5, err_msg=tag)

    resume = ["TRAIN.RESUME", str(folder / "checkpoint.pth.tar"), "TRAIN.END_EPOCH", "2"]
    resumed = train(tiny_config(databases, tmp_path / "rest", *opts, *resume), open_body)
    a, b = (load_checkpoint(trainer.folder / "checkpoint.pth.tar") for trainer in (whole, resumed))
    drawn = {"2d": runs[0], "3d": runs[1], "sequences": 3, "motions": 3}
    assert a["loaders"] == b["loaders"] == {kind: 14 * count for kind, count in drawn.items()}
    for key in ("gen_state_dict", "disc_motion_state_dict"):
        for name, value in a[key].items():
            np.testing.assert_allclose(b[key][name], value, rtol=1e-5, atol=1e-6, err_msg=name)
    assert b["performance"] == pytest.approx(a["performance"], rel=1e-5)
    for tag, values in curves(whole.folder, range(7, 14)).items():
        np.testing.assert_allclose(curves(resumed.folder, range(7, 14))[tag], values, rtol=1e-5, err_msg=tag)


@pytest.mark.parametrize(
    ("ends", "status"), [("raise UserError('no data')", 2), ("os.kill(os.getpid(), signal.SIGKILL)", -9)]
)
def test_a_process_that_ends_ends_the_others(tmp_path: Path, ends: str, status: int) -> None:
    """With one line, even without torchrun, which ends what is left: process 0 waits for one that is gone."""
    script = tmp_path / "fail.py"
    script.write_text(
        "import os, signal, torch\n"
        "from lib.core import distributed\n"
        "from lib.utils.errors import UserError, run_command\n"
        "def main():\n"
        "    with distributed.process_group(torch.device('cpu')):\n"
        "        assert distributed.sum_over_processes(torch.ones(1)) == 2\n"
        "        module = torch.nn.Linear(1, 1)\n"
        "        torch.nn.init.constant_(module.weight, 5 + distributed.rank())\n"
        "        distributed.copy_from_main(module)\n"
        "        assert module.weight == 5\n"
        "        if distributed.rank() == 1:\n"
        f"            {ends}\n"
        "        distributed.from_main(None)\n"
        "        distributed.sum_over_processes(torch.ones(1))\n"
        "run_command(main)\n"
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    variables = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "PYTHONPATH": str(ROOT)}
    processes = [
        subprocess.Popen(
            [sys.executable, str(script)],
            env={**os.environ, **variables, "RANK": rank},
            stderr=subprocess.PIPE,
        )
        for rank in "01"
    ]
    try:
        errors = [process.communicate(timeout=60)[1].decode() for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [2, status]
    assert re.fullmatch(
        r"error: process 0: another training process ended .*\n", errors[0].splitlines(True)[-1]
    )
    assert not any("Traceback" in text for text in errors)
    assert "no data" in errors[1] or status < 0


def test_a_process_notices_that_torchrun_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not distributed.orphaned()
    monkeypatch.setattr(distributed, "_PARENT", -1)
    assert not distributed.orphaned()  # a shell that started it may end
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    assert distributed.orphaned()


def test_a_process_takes_its_own_device(monkeypatch: pytest.MonkeyPatch) -> None:
    assert distributed.process_device(torch.device("cuda:1")) == torch.device("cuda:1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    chosen = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    assert distributed.process_device(torch.device("cpu")) == torch.device("cpu")
    assert distributed.process_device(torch.device("cuda")) == torch.device("cuda:1")
    assert chosen == [1]
    with pytest.raises(UserError, match="cuda:0"):
        distributed.process_device(torch.device("cuda:0"))
    with pytest.raises(UserError, match="mps"):
        distributed.process_device(torch.device("mps"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UserError, match="nproc_per_node 1"):
        distributed.process_device(torch.device("cuda"))

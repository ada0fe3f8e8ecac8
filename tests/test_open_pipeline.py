"""The way to the open weights, end to end at toy size: network, databases, TCMR, evaluation, table."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from lib.utils.files import load_checkpoint, load_joblib
from lib.utils.landmark_features import landmark_boxes
from lib.utils.landmark_flips import repair_flips

ROOT = Path(__file__).resolve().parent.parent


def run(*arguments: object, status: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == status, done.stderr[-2000:]
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the network, the databases and a trained checkpoint, all from procedural motions."""
    folder = tmp_path_factory.mktemp("open")
    extractor = folder / "net.pth.tar"
    run("scripts/train_landmark_net.py", "--minutes", 0.08, "--threads", 1, "--out", extractor)
    run("scripts/make_open_db.py", "--frames", 1500, "--extractor", extractor, "--out", folder)
    options = [
        *(
            "PATHS.PREPROCESSED",
            folder,
            "TRAIN.PRETRAINED_REGRESSOR",
            extractor,
            "OUTPUT_DIR",
            folder / "runs",
        ),
        *(
            "TRAIN.NUM_ITERS_PER_EPOCH",
            8,
            "TRAIN.END_EPOCH",
            1,
            "TRAIN.BATCH_SIZE",
            8,
            "MODEL.TGRU.HIDDEN_SIZE",
            32,
        ),
    ]
    run("train.py", "--cfg", "configs/open.yaml", "--device", "cpu", "--opts", *options)
    (checkpoint,) = (folder / "runs").glob("*/checkpoint.pth.tar")
    run("scripts/export_checkpoint.py", checkpoint, folder / "tcmr.pth.tar", "--half")
    return folder


def test_databases_are_consistent(made: Path) -> None:
    for split in ("train", "val", "test"):
        database = load_joblib(made / f"open_{split}_db.pt")
        frames = len(database["vid_name"])
        assert {key: value.shape[1:] for key, value in database.items() if key != "landmarks"} == {
            "vid_name": (),
            "frame_id": (),
            "img_name": (),
            "joints3D": (49, 3),
            "joints2D": (49, 3),
            "pose": (72,),
            "shape": (10,),
            "bbox": (4,),
            "features": (256,),
        }
        assert all(len(value) == frames for value in database.values())
        assert np.isfinite(database["features"]).all()
        assert ("landmarks" in database) == (split != "train")
    first = database["vid_name"] == database["vid_name"][0]
    seen = database["landmarks"][first]
    xy, _, _ = repair_flips(seen[..., :2], seen[..., 2], seen[..., 3:])
    np.testing.assert_allclose(database["bbox"][first], landmark_boxes(xy), rtol=1e-5)


def test_shipped_form_is_small_and_keeps_no_paths(made: Path) -> None:
    checkpoint = load_checkpoint(made / "tcmr.pth.tar")
    assert checkpoint["body"] == "open"
    assert not any("smpl" in key for key in checkpoint["gen_state_dict"])
    assert checkpoint["config"]["PATHS"]["PREPROCESSED"] == "data/preprocessed_data"
    assert str(made.parent) not in str(checkpoint["config"])
    assert (made / "tcmr.pth.tar").stat().st_size < 4e6


def test_evaluation_and_table(made: Path) -> None:
    options = [
        "PATHS.PREPROCESSED",
        made,
        "TRAIN.PRETRAINED",
        made / "tcmr.pth.tar",
        "MODEL.TGRU.HIDDEN_SIZE",
        32,
    ]
    evaluate = ["evaluate.py", "--dataset", "open", "--cfg", "configs/open.yaml", "--device", "cpu"]
    run(*evaluate, "--json", made / "open.json", "--opts", *options)
    numbers = json.loads((made / "open.json").read_text())
    assert 0 < numbers["mpjpe_pa"] < numbers["mpjpe"] < 2000
    command = [
        "scripts/compare_open.py",
        "--dataset",
        "open",
        "--preprocessed",
        made,
        "--json",
        made / "table.json",
    ]
    printed = run(*command, "--extractor", made / "net.pth.tar", "--checkpoint", made / "tcmr.pth.tar")
    table = json.loads((made / "table.json").read_text())["open"]
    assert list(table) == [
        "raw landmarks",
        "raw landmarks + Gaussian",
        "per-frame network",
        "per-frame network + Gaussian",
        "TCMR",
    ]
    assert all(row["frames"] == numbers["num_poses"] for row in table.values())
    assert f"| TCMR | {table['TCMR']['mpjpe']:.1f} |" in printed
    # both measure the same predictions; the table lacks neck and head
    assert abs(table["TCMR"]["mpjpe_pa"] - numbers["mpjpe_pa"]) < 0.3 * numbers["mpjpe_pa"]


def test_mistakes_in_making_databases_are_one_line(tmp_path: Path) -> None:
    np.savez(tmp_path / "cmu_1_1.npz", poses=np.zeros((60, 72)), trans=np.zeros((60, 3)), fps=30.0)
    printed = run("scripts/make_open_db.py", "--motions", tmp_path, "--out", tmp_path, status=2)
    assert "error: the val split has no clip" in printed
    torch.save({"model": {"fc1.weight": 3}}, tmp_path / "net.pth.tar")
    options = ["--minutes", 0.01, "--out", tmp_path / "new.pth.tar"]
    printed = run("scripts/train_landmark_net.py", *options, "--init", tmp_path / "net.pth.tar", status=2)
    assert "error:" in printed and "net.pth.tar" in printed and "Traceback" not in printed


def test_missing_extractor_is_one_line(tmp_path: Path) -> None:
    printed = run("scripts/make_open_db.py", "--extractor", tmp_path / "none.pth.tar", status=2)
    assert "none.pth.tar" in printed
    assert "Traceback" not in printed

"""The way to the open weights, end to end at toy size: network, databases, TCMR, evaluation, table."""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from lib.core.build import build_model
from lib.core.config import get_cfg_defaults, to_dict
from lib.landmarks.features import landmark_boxes
from lib.landmarks.flips import repair_flips
from lib.models.body import OPEN_DATA, load_body
from lib.models.extractors import fingerprint, load_landmark_net
from lib.open_data.motions import trained_split
from lib.utils.files import dump_joblib, load_checkpoint, load_joblib, save_checkpoint
from scripts import train_landmark_net

ROOT = Path(__file__).resolve().parent.parent
TINY = ["--batch", 16, "--width", 32, "--blocks", 1, "--threads", 1, "--device", "cpu"]


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
    extractor = folder / "net" / "landmark_net.pth.tar"
    run("scripts/train_landmark_net.py", *TINY, "--steps", 6, "--save_every", 4, "--out", extractor.parent)
    run("scripts/make_open_db.py", "--frames", 1500, "--extractor", extractor, "--out", folder)
    for split in ("val", "test"):  # two short videos are enough to measure
        database = load_joblib(folder / f"open_{split}_db.pt")
        names = database["vid_name"]
        kept = np.isin(names, list(dict.fromkeys(names.tolist()))[:2]) & (database["frame_id"] < 60)
        rows = {key: np.array(value[kept] if np.ndim(value) else value) for key, value in database.items()}
        dump_joblib(rows, folder / f"open_{split}_db.pt")
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
            4,
            "TRAIN.END_EPOCH",
            1,
            "TRAIN.BATCH_SIZE",
            8,
            "TRAIN.RUN_LENGTH",
            4,
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
        net = load_landmark_net(made / "net" / "landmark_net.pth.tar")
        assert database.pop("extractor") == "landmarks"
        assert database.pop("fingerprint") == fingerprint(net.state_dict())
        scalars = {key: float(database.pop(key)) for key in ("fps", "image_width", "image_height")}
        assert scalars == {"fps": 30, "image_width": 1000, "image_height": 1000}
        kept = {"landmarks": (33, 6), "world_orient": (3,), "world_trans": (3,)} if split != "train" else {}
        assert {key: value.shape[1:] for key, value in database.items()} == {
            **kept,
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
    first = database["vid_name"] == database["vid_name"][0]
    seen = database["landmarks"][first]
    xy, _, _ = repair_flips(seen[..., :2], seen[..., 2], seen[..., 3:])
    np.testing.assert_allclose(database["bbox"][first], landmark_boxes(xy), rtol=1e-5)


def test_shipped_form_is_small_and_keeps_no_paths(made: Path) -> None:
    checkpoint = load_checkpoint(made / "tcmr.pth.tar")
    assert checkpoint["body"] == "open"
    assert checkpoint["fingerprint"] == load_joblib(made / "open_val_db.pt")["fingerprint"]
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
    cfg = get_cfg_defaults()
    cfg.merge_from_file(str(ROOT / "configs" / "open.yaml"))
    cfg.merge_from_list(["MODEL.TEMPORAL_TYPE", "vibe", "TRAIN.PRETRAINED_REGRESSOR", ""])
    body = load_body(OPEN_DATA)
    trained = {"gen_state_dict": build_model(cfg, body).state_dict(), "config": to_dict(cfg), "body": "open"}
    save_checkpoint(trained, made / "vibe.pth.tar")
    command = ["scripts/compare_open.py", "--dataset", "open", "--preprocessed", made, "--out", made / "out"]
    networks = ["--extractor", made / "net" / "landmark_net.pth.tar", "--threads", 1]
    networks += [
        "--checkpoint",
        f"TCMR={made / 'tcmr.pth.tar'}",
        "--checkpoint",
        f"TCMR={made / 'runs' / '*'}",
    ]
    printed = run(*command, *networks, "--checkpoint", f"VIBE-style={made / 'vibe.pth.tar'}")
    results = json.loads((made / "out" / "results.json").read_text())["open"]
    rows = results["rows"]
    plain = (
        "raw landmarks",
        "per-frame network",
        "per-frame network + fit",
        "TCMR",
        "TCMR + fit",
        "VIBE-style",
    )
    assert list(rows) == [name + after for name in plain for after in ("", " + Gaussian")]
    assert results["frames"] == numbers["num_poses"] and results["videos"] == 2
    for name, row in rows.items():
        assert {"mpjpe", "mpjpe_pa", "accel_err", "accel_err_m_s2", "jitter", "overlay"} <= set(row)
        assert ("mpvpe" in row) == (not name.startswith("raw"))
        assert row["seeds"] == 1 + name.startswith("TCMR") and ("gaussian_frames" in row) == (
            "Gaussian" in name
        )
        assert row["mpjpe"]["low"] <= row["mpjpe"]["mean"] <= row["mpjpe"]["high"]
        assert row["accel_err_m_s2"]["mean"] == pytest.approx(0.9 * row["accel_err"]["mean"])
    own = rows["TCMR"]
    assert own["mpjpe"]["sd"] < 1  # the same weights, in half precision
    assert f"| {own['mpjpe']['mean']:.1f} " in printed
    assert (made / "out" / "results.md").read_text().strip() in printed
    assert {path.name for path in (made / "out").glob("*.png")} == {
        "open_accel.png",
        "open_joints.png",
        "open_attention.png",
    }
    assert rows["TCMR + fit"]["overlay"] != own["overlay"]
    run(*evaluate, "--fit", "--json", made / "fit.json", "--opts", *options)
    fitted = json.loads((made / "fit.json").read_text())
    # both measure the same predictions; the table's joints lack neck and head
    for row, other in ((own, numbers), (rows["TCMR + fit"], fitted)):
        assert row["mpvpe"]["mean"] == pytest.approx(other["mpvpe"], abs=0.1)
        assert row["mpjpe_pa"]["mean"] == pytest.approx(other["mpjpe_pa"], rel=0.3)
    assert fitted["mpjpe_pa"] != numbers["mpjpe_pa"]


def test_mistakes_in_making_databases_are_one_line(tmp_path: Path) -> None:
    np.savez(tmp_path / "cmu_1_1.npz", poses=np.zeros((60, 72)), trans=np.zeros((60, 3)), fps=30.0)
    printed = run("scripts/make_open_db.py", "--motions", tmp_path, "--out", tmp_path, status=2)
    assert "error: the val split has no clip" in printed


def test_the_per_frame_network_goes_on_exactly(made: Path, tmp_path: Path, one_thread: None) -> None:
    """Six steps at once, and the same after a stop at the fourth."""

    class Stop(Exception):
        pass

    def stop_after_four(*args: object) -> None:
        save_checkpoint(*args)
        if args[1] == tmp_path / "checkpoint.pth.tar":
            raise Stop

    parser_arguments = [str(part) for part in TINY]
    options = argparse.Namespace(
        **{name.removeprefix("--"): value for name, value in zip(TINY[::2], TINY[1::2])},
        motions="", split="2", steps=6, lr=1e-3, seed=1, save_every=4, resume=False, out=tmp_path,
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_landmark_net, "save_checkpoint", stop_after_four)
        with pytest.raises(Stop):
            train_landmark_net.train(options)
    assert load_checkpoint(tmp_path / "checkpoint.pth.tar")["step"] == 4
    options.resume = True
    train_landmark_net.train(options)
    assert trained_split(tmp_path / "landmark_net.pth.tar") == "2"
    for name in ("checkpoint.pth.tar", "landmark_net.pth.tar"):
        whole, resumed = (load_checkpoint(folder / name) for folder in (made / "net", tmp_path))
        assert resumed["step"] == whole["step"] == 6
        key = "network" if "network" in whole else "model"
        for weight, value in whole[key].items():
            assert torch.equal(resumed[key][weight], value), weight
    resume = ["scripts/train_landmark_net.py", "--out", tmp_path, "--resume"]
    printed = run(*resume, *parser_arguments, "--steps", 6, status=2)
    assert "has finished 6 steps; raise --steps, which is 6" in printed
    printed = run(*resume, "--width", 64, "--blocks", 1, "--steps", 7, "--device", "cpu", status=2)
    assert "does not fit --width 64 --blocks 1" in printed
    assert len([line for line in printed.splitlines() if "error" in line]) == 1


def test_missing_extractor_is_one_line(tmp_path: Path) -> None:
    printed = run("scripts/make_open_db.py", "--extractor", tmp_path / "none.pth.tar", status=2)
    assert "none.pth.tar" in printed
    assert "Traceback" not in printed

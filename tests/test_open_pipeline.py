"""The way to the open weights, end to end at toy size: network, databases, TCMR, evaluation, table."""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from lib.data_utils.motions import trained_split
from lib.models.extractors import fingerprint, load_landmark_net
from lib.utils.files import dump_joblib, load_checkpoint, load_joblib, save_checkpoint
from lib.utils.landmark_features import LIMB_JOINTS, landmark_boxes
from lib.utils.landmark_flips import repair_flips
from scripts import compare_open, train_landmark_net
from scripts.compare_open import interval

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
    for split in ("val", "test"):  # two videos are enough to measure
        database = load_joblib(folder / f"open_{split}_db.pt")
        names = database["vid_name"]
        kept = np.isin(names, list(dict.fromkeys(names.tolist()))[:2])
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
    command = [
        "scripts/compare_open.py",
        "--dataset",
        "open",
        "--preprocessed",
        made,
        "--json",
        made / "table.json",
    ]
    networks = ["--extractor", made / "net" / "landmark_net.pth.tar", "--checkpoint", made / "tcmr.pth.tar"]
    printed = run(*command, *networks)
    table = json.loads((made / "table.json").read_text())["open"]
    assert list(table) == [
        "raw landmarks",
        "raw landmarks + Gaussian",
        "per-frame network",
        "per-frame network + Gaussian",
        "TCMR",
        "TCMR + Gaussian",
        "TCMR + fit",
        "TCMR + fit + Gaussian",
    ]
    measured = ["mpjpe", "mpjpe_pa", "accel", "accel_err", "overlay"]
    for name, row in table.items():
        own = {"yaw_jumps", "frames", *measured, *(f"{key}_ci" for key in measured)}
        assert set(row) == own | ({"gaussian_frames"} if name.endswith("Gaussian") else set())
        assert row["frames"] == numbers["num_poses"]
        assert all(np.isfinite(value) for value in row.values())
    assert f"| TCMR | {table['TCMR']['mpjpe']:.1f} ± {table['TCMR']['mpjpe_ci']:.1f} |" in printed
    assert table["TCMR + fit"]["overlay"] != table["TCMR"]["overlay"]
    run(*evaluate, "--fit", "--json", made / "fit.json", "--opts", *options)
    fitted = json.loads((made / "fit.json").read_text())
    assert abs(table["TCMR + fit"]["mpjpe_pa"] - fitted["mpjpe_pa"]) < 0.3 * fitted["mpjpe_pa"]
    assert fitted["mpjpe_pa"] != numbers["mpjpe_pa"]
    # both measure the same predictions; the table lacks neck and head
    assert abs(table["TCMR"]["mpjpe_pa"] - numbers["mpjpe_pa"]) < 0.3 * numbers["mpjpe_pa"]


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


def test_interval_is_that_of_the_mean() -> None:
    rng = np.random.default_rng(0)
    parts = [rng.normal(rng.normal(50, 8), 1, 40) for _ in range(200)]
    means = np.array([part.mean() for part in parts])
    assert interval(parts) == pytest.approx(1.96 * means.std() / 200**0.5, rel=0.1)
    assert interval([np.full(9, 3.0), np.full(4, 3.0)]) == 0
    assert interval([part + 7 for part in parts]) == pytest.approx(interval(parts))
    assert interval([2 * part for part in parts]) == pytest.approx(2 * interval(parts))


def test_widths_are_the_best_of_each_method(monkeypatch: pytest.MonkeyPatch) -> None:
    """A method without an error wants no smoothing, one with much jitter the most of the two."""
    rng = np.random.default_rng(0)
    time = np.arange(120)[:, None, None]
    joints = rng.uniform(-0.5, 0.5, (1, 49, 3)) + 0.2 * np.sin(time / 8 + rng.uniform(0, 6, (1, 49, 3)))
    video = {
        "joints3D": joints, "joints2D": np.zeros((120, 49, 3)), "side": np.ones(120), "name": "a",
        "fps": np.array(30.0), "step": np.array(1),
    }  # fmt: skip
    limbs, pixels = joints[:, LIMB_JOINTS], np.zeros((120, 12, 2))
    rows = {
        "exact": (limbs, pixels),
        "jitter": (limbs + rng.normal(0, 0.03, limbs.shape), pixels),
    }
    monkeypatch.setattr(compare_open, "videos", lambda path: [video])
    widths = compare_open.choose_widths(Path("x"), lambda video: rows)
    costs = {}
    for width in compare_open.WIDTHS:
        errors = compare_open.measure(*compare_open.smoothed(rows["jitter"], width, video), video)
        costs[width] = errors["mpjpe_pa"].mean() + errors["accel_err"].mean()
    assert widths == {"exact": min(compare_open.WIDTHS), "jitter": min(costs, key=lambda width: costs[width])}
    assert widths["jitter"] > widths["exact"]
    fast = video | {"fps": np.array(60.0)}
    once, twice = (
        compare_open.smoothed(rows["jitter"], width, v)[0] for width, v in ((2.0, video), (1.0, fast))
    )
    np.testing.assert_allclose(once, twice)  # widths are in frames at 30 fps


def test_missing_extractor_is_one_line(tmp_path: Path) -> None:
    printed = run("scripts/make_open_db.py", "--extractor", tmp_path / "none.pth.tar", status=2)
    assert "none.pth.tar" in printed
    assert "Traceback" not in printed

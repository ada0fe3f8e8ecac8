"""Peak memory of evaluating one long video at the published size: ``python -m benchmarks.memory FRAMES``."""

from __future__ import annotations

import argparse
import resource
import runpy
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks import naive
from benchmarks.prediction import network, sequence
from lib.models.body import load_body
from lib.utils.files import dump_joblib, load_joblib, save_checkpoint
from lib.utils.metrics import mpjpe

CONFIG = "configs/repr_table4_3dpw_model.yaml"


def make_inputs(folder: Path, frames: int) -> None:
    """A 3DPW-like database of one video, and a checkpoint of the published size."""
    random = np.random.default_rng(0)
    database = {
        "vid_name": np.repeat(["video"], frames),
        "features": sequence(frames),
        "joints3D": random.standard_normal((frames, 14, 3), dtype=np.float32),
        "pose": 0.2 * random.standard_normal((frames, 72), dtype=np.float32),
        "shape": random.standard_normal((frames, 10), dtype=np.float32),
    }
    dump_joblib(database, folder / "db.pt")
    model, body = network(torch.device("cpu")), load_body()
    content = {"epoch": 0, "performance": 0.0, "gen_state_dict": model.state_dict(), "body": body.kind}
    save_checkpoint(content, folder / "model.pth.tar")


def run_fast(folder: Path) -> None:
    """``evaluate.py`` itself."""
    options = ["TRAIN.PRETRAINED", str(folder / "model.pth.tar")]
    options += ["DATASET.FILES.3dpw_test", str(folder / "db.pt")]
    sys.argv = ["evaluate.py", "--dataset", "3dpw", "--cfg", CONFIG, "--device", "cpu", "--opts", *options]
    runpy.run_path("evaluate.py", run_name="__main__")


def run_naive(folder: Path) -> None:
    """The plain order of work: all windows, then all meshes predicted and true, then the errors."""
    database = load_joblib(folder / "db.pt", mmap=False)
    body = load_body()
    regressor = torch.from_numpy(body.J_regressor_h36m)
    windows = naive.static_windows(len(database["features"]))
    output = naive.predict(network(torch.device("cpu")), database["features"], windows, regressor)
    mpjpe(output["kp_3d"], database["joints3D"])
    naive.vertex_error(body, output["verts"], database["pose"], database["shape"])


def peak(way: str, frames: int) -> tuple[float, float]:
    """Peak memory in GB and seconds of a fresh process that evaluates a video ``fast`` or ``naive``."""
    with tempfile.TemporaryDirectory() as name:
        command = [sys.executable, "-m", "benchmarks.memory", str(frames), "--folder", name, "--way"]
        subprocess.run([*command, "inputs"], check=True)
        start = time.perf_counter()
        done = subprocess.run([*command, way], check=True, capture_output=True, text=True)
        seconds = time.perf_counter() - start
    return int(done.stdout.split()[-1]) * 1024 / 1e9, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("frames", type=int)
    parser.add_argument("--way", choices=["fast", "naive", "inputs"], help="do this part in this process")
    parser.add_argument("--folder", type=Path, help="where the inputs are")
    args = parser.parse_args()
    if args.way is None:
        for way in ("fast", "naive"):
            print(way, "{:.2f} GB, {:.0f} s".format(*peak(way, args.frames)), flush=True)
        return
    if args.way == "inputs":
        make_inputs(args.folder, args.frames)
        return
    (run_fast if args.way == "fast" else run_naive)(args.folder)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


if __name__ == "__main__":
    main()

"""Measure raw landmarks, per-frame network and TCMR side by side on the open databases.

    python scripts/compare_open.py --dataset open --dataset pose2sim_full --json table.json

Every method is measured on the twelve limb joints (ankles to wrists), which landmarks and meshes share; the
joints of the network come through ``predict_sequence`` as everywhere. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import sys
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

if __name__ == "__main__":  # first, so that Ctrl-C while the rest is imported is one line, too
    from lib.utils.errors import leave_on_signals

    leave_on_signals()

from lib.core.build import load_model
from lib.models.body import OPEN_DATA, load_body
from lib.models.extractors import load_landmark_net
from lib.models.predict import Borders, predict_sequence, window_step
from lib.models.regressor import Regressor
from lib.models.weights import load_weights, per_frame_weights
from lib.utils import metrics
from lib.utils.crops import crop_to_image
from lib.utils.errors import UserError, run_command
from lib.utils.files import atomic_write, load_checkpoint, load_joblib
from lib.utils.landmark_features import LIMB_JOINTS, LIMB_LANDMARKS, landmark_vector
from lib.utils.landmark_flips import repair_flips
from lib.utils.smoothing import gaussian

HIPS = [LIMB_JOINTS.index(27), LIMB_JOINTS.index(28)]
SIGMA = 2.0  # of the Gaussian baselines, in frames at 30 fps
JUMP = 40.0  # degrees of hip yaw between frames 1/30 s apart
COLUMNS = {
    "mpjpe": "MPJPE mm",
    "mpjpe_pa": "PA-MPJPE mm",
    "accel": "Accel mm/frame²",
    "accel_err": "Accel error mm/frame²",
    "overlay": "overlay % of box",
    "yaw_jumps": "yaw jumps > 40°",
}


def heading(joints: np.ndarray) -> np.ndarray:
    """(n, 12, 3) limb joints -> (n,) yaw of the hips' line in radians, camera axes."""
    line = joints[:, HIPS[1]] - joints[:, HIPS[0]]
    return np.arctan2(line[:, 2], line[:, 0])


def measure(
    joints: np.ndarray, pixels: np.ndarray | None, video: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Per-frame errors (mm, mm/frame², %) of one video's joints (n, 12, 3) and their image (n, 12, 2)."""
    target = video["joints3D"][:, LIMB_JOINTS]
    target = target - target[:, HIPS].mean(1, keepdims=True)
    joints = joints - joints[:, HIPS].mean(1, keepdims=True)
    step = int(video["step"])
    turn = np.degrees(np.abs(np.angle(np.exp(1j * (heading(joints)[step:] - heading(joints)[:-step])))))
    true_turn = np.degrees(np.abs(np.angle(np.exp(1j * (heading(target)[step:] - heading(target)[:-step])))))
    result = {
        "mpjpe": 1000 * metrics.mpjpe(joints, target),
        "mpjpe_pa": 1000 * metrics.pa_mpjpe(joints, target),
        "accel": 1000 * metrics.accel(joints),
        "accel_err": 1000 * metrics.accel_error(joints, target),
        "yaw_jumps": (turn > JUMP) & (true_turn <= JUMP),
    }
    if pixels is not None:
        away = np.linalg.norm(pixels - video["joints2D"][:, LIMB_JOINTS, :2], axis=-1).mean(1)
        result["overlay"] = 100 * away / video["side"]
    return result


class Methods:
    """The five methods on one video; each gives limb joints and where the image shows them."""

    def __init__(self, extractor: Path, checkpoint: Path) -> None:
        body = load_body(OPEN_DATA)
        self.net = load_landmark_net(extractor)
        weights = per_frame_weights(load_checkpoint(extractor), extractor)
        self.regressor = Regressor(body, self.net.last.out_features, len(weights["fc1.bias"]), dropout=0.0)
        load_weights(self.regressor, weights, extractor, "smpl.", allow_more=True)
        self.model, self.cfg = load_model(checkpoint, None, body)

    def __call__(self, video: dict[str, np.ndarray]) -> dict[str, tuple[np.ndarray, np.ndarray | None]]:
        landmarks, step = video["landmarks"], int(video["step"])
        xy, visibility, world = landmarks[..., :2], landmarks[..., 2], landmarks[..., 3:]
        vectors, boxes = landmark_vector(*repair_flips(xy, visibility, world))
        with torch.inference_mode():
            features = self.net(torch.from_numpy(vectors))
            frame = self.regressor(features, return_verts=False)[0]
        borders: Borders = "static" if self.cfg.COMPAT.STATIC_BORDERS else "edge"
        result = predict_sequence(
            self.model, features.numpy(), return_verts=False, borders=borders, step=step
        )
        raw = world[:, LIMB_LANDMARKS]
        single = frame["kp_3d"].numpy()[:, LIMB_JOINTS]
        single2d = crop_to_image(frame["kp_2d"].numpy(), boxes)[:, LIMB_JOINTS]
        sigma = SIGMA * step
        return {
            "raw landmarks": (raw, xy[:, LIMB_LANDMARKS]),
            "raw landmarks + Gaussian": (gaussian(raw, sigma), gaussian(xy[:, LIMB_LANDMARKS], sigma)),
            "per-frame network": (single, single2d),
            "per-frame network + Gaussian": (gaussian(single, sigma), gaussian(single2d, sigma)),
            "TCMR": (result["kp_3d"][:, LIMB_JOINTS], crop_to_image(result["kp_2d"], boxes)[:, LIMB_JOINTS]),
        }


def videos(path: Path) -> list[dict[str, np.ndarray]]:
    """The videos of a database that holds landmarks, with frame step (for 30 fps windows) and box side."""
    database = load_joblib(path)
    if "landmarks" not in database:
        raise UserError(
            f"{path}: has no landmarks; make it with scripts/make_open_db.py or make_pose2sim_db.py"
        )
    names = np.asarray(database["vid_name"])
    edges = np.flatnonzero(np.r_[True, names[1:] != names[:-1], True])
    step = window_step(float(database.get("fps", 30.0)))
    out = []
    for start, end in itertools.pairwise(edges):
        rows = {
            key: np.asarray(database[key][start:end]) for key in ("joints3D", "joints2D", "landmarks", "bbox")
        }
        out.append(rows | {"step": np.array(step), "side": rows["bbox"][:, 2]})
    return out


def compare(path: Path, methods: Methods) -> dict[str, dict[str, float]]:
    """Means over all frames of the database, per method."""
    collected: dict[str, dict[str, list[np.ndarray]]] = {}
    for video in tqdm(videos(path), desc=path.stem, unit="video"):
        for name, (joints, pixels) in methods(video).items():
            for key, values in measure(joints, pixels, video).items():
                collected.setdefault(name, {}).setdefault(key, []).append(values)
    table = {}
    for name, columns in collected.items():
        joined = {key: np.concatenate(parts) for key, parts in columns.items()}
        table[name] = {key: float(v.sum() if key == "yaw_jumps" else v.mean()) for key, v in joined.items()}
        table[name]["frames"] = len(joined["mpjpe"])
    return table


def markdown(table: dict[str, dict[str, float]]) -> str:
    """A Markdown table, one method a row."""
    lines = ["| method | " + " | ".join(COLUMNS.values()) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    for name, row in table.items():
        cells = [f"{row[key]:.0f}" if key == "yaw_jumps" else f"{row[key]:.1f}" for key in COLUMNS]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--dataset", action="append", required=True, help="open, pose2sim_full or pose2sim_heavy"
    )
    parser.add_argument("--preprocessed", type=Path, default=Path("data/preprocessed_data"))
    parser.add_argument("--extractor", type=Path, default=Path("data/open/landmark_net.pth.tar"))
    parser.add_argument("--checkpoint", type=Path, default=Path("data/open/tcmr_open.pth.tar"))
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    methods, tables = Methods(args.extractor, args.checkpoint), {}
    for dataset in args.dataset:
        tables[dataset] = compare(args.preprocessed / f"{dataset}_test_db.pt", methods)
        frames = next(iter(tables[dataset].values()))["frames"]
        print(f"\n{dataset}: {frames:.0f} frames\n\n{markdown(tables[dataset])}")
    if args.json:
        with atomic_write(args.json) as temporary:
            temporary.write_text(json.dumps(tables, indent=2))


if __name__ == "__main__":
    run_command(main)

"""Measure landmarks, networks and the fit side by side on the open databases.

    python scripts/compare_open.py --dataset open --dataset pose2sim_heavy --json table.json

Every row gets the same landmarks, front-back flips undone, and is measured on the twelve limb joints (ankles
to wrists), which landmarks and meshes share; the joints of the network come through ``predict_sequence`` as
everywhere. Each Gaussian's width is the best of that row on ``open_val``. Prints a Markdown table with 95 %
intervals from a bootstrap over the motions.
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

from lib.core.build import fingerprint_of, model_from
from lib.data_utils.preprocess import positive_integer
from lib.data_utils.simulate import IMAGE_SIZE
from lib.models.body import OPEN_DATA, load_body
from lib.models.extractors import check_fingerprints, fingerprint, load_landmark_net
from lib.models.landmark_body import LandmarkBody
from lib.models.predict import TRAINING_FPS, predict_sequence, window_step
from lib.models.regressor import Regressor
from lib.models.weights import load_weights, per_frame_weights
from lib.motion.fit import FitOptions, fit_track
from lib.utils import metrics
from lib.utils.crops import crop_to_image
from lib.utils.errors import UserError, run_command
from lib.utils.files import atomic_write, load_checkpoint, load_joblib
from lib.utils.landmark_features import LIMB_JOINTS, LIMB_LANDMARKS, landmark_arrays
from lib.utils.landmark_flips import repair_flips
from lib.utils.smoothing import gaussian

log = logging.getLogger(__name__)

HIPS = [LIMB_JOINTS.index(27), LIMB_JOINTS.index(28)]
WIDTHS = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0)  # of the Gaussians, in frames at 30 fps
DEFAULT_WIDTH = 2.0  # where there is no validation database to choose by
JUMP = 40.0  # degrees of hip yaw between frames 1/30 s apart
BOOTSTRAPS = 1000
COLUMNS = {
    "mpjpe": "MPJPE mm",
    "mpjpe_pa": "PA-MPJPE mm",
    "accel": "Accel mm/frame²",
    "accel_err": "Accel error mm/frame²",
    "overlay": "overlay % of box",
    "yaw_jumps": "yaw jumps > 40°",
}
METHODS = ("raw landmarks", "per-frame network", "TCMR", "TCMR + fit")
Joints = tuple[np.ndarray, np.ndarray]  # (n, 12, 3) m and (n, 12, 2) px


def heading(joints: np.ndarray) -> np.ndarray:
    """(n, 12, 3) limb joints -> (n,) yaw of the hips' line in radians, camera axes."""
    line = joints[:, HIPS[1]] - joints[:, HIPS[0]]
    return np.arctan2(line[:, 2], line[:, 0])


def measure(joints: np.ndarray, pixels: np.ndarray, video: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Per-frame errors (mm, mm/frame², %) of one video's joints (n, 12, 3) and their image (n, 12, 2)."""
    target = video["joints3D"][:, LIMB_JOINTS]
    target = target - target[:, HIPS].mean(1, keepdims=True)
    joints = joints - joints[:, HIPS].mean(1, keepdims=True)
    step = int(video["step"])
    turn = np.degrees(np.abs(np.angle(np.exp(1j * (heading(joints)[step:] - heading(joints)[:-step])))))
    true_turn = np.degrees(np.abs(np.angle(np.exp(1j * (heading(target)[step:] - heading(target)[:-step])))))
    away = np.linalg.norm(pixels - video["joints2D"][:, LIMB_JOINTS, :2], axis=-1).mean(1)
    return {
        "mpjpe": 1000 * metrics.mpjpe(joints, target),
        "mpjpe_pa": 1000 * metrics.pa_mpjpe(joints, target),
        "accel": 1000 * metrics.accel(joints),
        "accel_err": 1000 * metrics.accel_error(joints, target),
        "yaw_jumps": (turn > JUMP) & (true_turn <= JUMP),
        "overlay": 100 * away / video["side"],
    }


class Methods:
    """The methods on one video; each gives limb joints and where the image shows them."""

    def __init__(self, extractor: Path, checkpoint: Path, options: FitOptions) -> None:
        body = load_body(OPEN_DATA)
        self.net, self.options = load_landmark_net(extractor), options
        weights = per_frame_weights(load_checkpoint(extractor), extractor)
        self.regressor = Regressor(body, self.net.last.out_features, len(weights["fc1.bias"]), dropout=0.0)
        load_weights(self.regressor, weights, extractor, "smpl.", allow_more=True)
        trained = load_checkpoint(checkpoint)
        check_fingerprints({str(extractor): fingerprint(weights), str(checkpoint): fingerprint_of(trained)})
        self.model, self.cfg = model_from(trained, checkpoint, None, body)
        self.body = LandmarkBody(body)

    def __call__(self, video: dict[str, np.ndarray]) -> dict[str, Joints]:
        landmarks, step = video["landmarks"], int(video["step"])
        seen = repair_flips(landmarks[..., :2], landmarks[..., 2], landmarks[..., 3:])
        vectors, boxes = landmark_arrays(*seen)
        with torch.inference_mode():
            features = self.net(vectors)
            frame = self.regressor(features, return_verts=False)[0]
        result = predict_sequence(self.model, features.numpy(), return_verts=False, step=step)
        width, height = video["image_size"]
        fitted = fit_track(
            self.body,
            result["rotmat"],
            result["theta"],
            boxes,
            seen,
            width=int(width),
            height=int(height),
            fps=float(video["fps"]),
            options=self.options,
        )
        tcmr = (result["kp_3d"][:, LIMB_JOINTS], crop_to_image(result["kp_2d"], boxes)[:, LIMB_JOINTS])
        single = frame["kp_3d"].numpy(), crop_to_image(frame["kp_2d"].numpy(), boxes)
        rows = (
            (seen[2][:, LIMB_LANDMARKS], seen[0][:, LIMB_LANDMARKS]),
            (single[0][:, LIMB_JOINTS], single[1][:, LIMB_JOINTS]),
            tcmr,
            tcmr if fitted is None else (fitted.joints3d[:, LIMB_JOINTS], fitted.joints2d[:, LIMB_JOINTS]),
        )
        return dict(zip(METHODS, rows))


def smoothed(joints: Joints, width: float, video: dict[str, np.ndarray]) -> Joints:
    """After a Gaussian of ``width`` frames at 30 fps."""
    sigma = width * float(video["fps"]) / TRAINING_FPS
    return gaussian(joints[0], sigma), gaussian(joints[1], sigma)


def videos(path: Path) -> list[dict[str, np.ndarray]]:
    """The videos of a database that holds landmarks, with frame step (for 30 fps windows) and box side."""
    database = load_joblib(path)
    if "landmarks" not in database:
        raise UserError(
            f"{path}: has no landmarks; make it with scripts/make_open_db.py or make_pose2sim_db.py"
        )
    names = np.asarray(database["vid_name"])
    edges = np.flatnonzero(np.r_[True, names[1:] != names[:-1], True])
    fps = np.asarray(database.get("fps", TRAINING_FPS))
    size = [float(database.get(key, IMAGE_SIZE)) for key in ("image_width", "image_height")]
    out = []
    for start, end in itertools.pairwise(edges):
        rows = {
            key: np.asarray(database[key][start:end]) for key in ("joints3D", "joints2D", "landmarks", "bbox")
        }
        rows |= {"name": names[start], "side": rows["bbox"][:, 2], "fps": fps, "image_size": np.array(size)}
        out.append(rows | {"step": np.array(window_step(float(fps)))})
    return out


def choose_widths(path: Path, methods: Methods) -> dict[str, float]:
    """For each method the Gaussian of least PA-MPJPE + Accel error on a validation database."""
    collected: dict[tuple[str, float], list[tuple[np.ndarray, np.ndarray]]] = {}
    for video in tqdm(videos(path), desc=f"{path.stem}: widths", unit="video"):
        for name, joints in methods(video).items():
            for width in WIDTHS:
                errors = measure(*smoothed(joints, width, video), video)
                collected.setdefault((name, width), []).append((errors["mpjpe_pa"], errors["accel_err"]))
    costs = {
        key: sum(np.concatenate(part).mean() for part in zip(*parts)) for key, parts in collected.items()
    }
    names = dict.fromkeys(name for name, _ in costs)
    return {name: min(WIDTHS, key=lambda width: costs[name, width]) for name in names}


def compare(path: Path, methods: Methods, widths: dict[str, float]) -> dict[str, dict[str, float]]:
    """Per method the means over all frames of the database, half widths of their 95 % intervals (``*_ci``),
    and the Gaussian's width in frames at 30 fps."""
    collected: dict[str, dict[str, list[np.ndarray]]] = {}
    for video in tqdm(videos(path), desc=path.stem, unit="video"):
        for name, joints in methods(video).items():
            rows = {name: joints, f"{name} + Gaussian": smoothed(joints, widths[name], video)}
            for row, estimate in rows.items():
                for key, values in measure(*estimate, video).items():
                    collected.setdefault(row, {}).setdefault(key, []).append(values)
    table = summary(collected)
    for name, width in widths.items():
        table[f"{name} + Gaussian"]["gaussian_frames"] = width
    return table


def summary(collected: dict[str, dict[str, list[np.ndarray]]]) -> dict[str, dict[str, float]]:
    """Per method the means over all frames of what :func:`measure` gave, video by video, and half widths of
    their 95 % intervals (``*_ci``)."""
    table = {}
    for name, columns in collected.items():
        table[name] = {key: float(np.concatenate(parts).mean()) for key, parts in columns.items()}
        table[name]["yaw_jumps"] = float(sum(part.sum() for part in columns["yaw_jumps"]))
        table[name] |= {f"{key}_ci": interval(parts) for key, parts in columns.items() if key != "yaw_jumps"}
        table[name]["frames"] = sum(map(len, columns["mpjpe"]))
    return table


def interval(parts: list[np.ndarray]) -> float:
    """Half the width of the 95 % bootstrap interval of the mean over frames, videos drawn with repetition."""
    sums, counts = np.array([part.sum() for part in parts]), np.array([len(part) for part in parts])
    drawn = np.random.default_rng(1).integers(0, len(parts), (BOOTSTRAPS, len(parts)))
    low, high = np.percentile(sums[drawn].sum(1) / counts[drawn].sum(1), [2.5, 97.5])
    return float(high - low) / 2


def markdown(table: dict[str, dict[str, float]]) -> str:
    """A Markdown table, one method a row."""
    lines = ["| method | " + " | ".join(COLUMNS.values()) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    for name, row in table.items():
        cells = [
            f"{row[key]:.0f}" if key == "yaw_jumps" else f"{row[key]:.1f} ± {row[key + '_ci']:.1f}"
            for key in COLUMNS
        ]
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
    parser.add_argument("--threads", type=positive_integer, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(args.threads)
    methods, tables = Methods(args.extractor, args.checkpoint, FitOptions()), {}
    validation = args.preprocessed / "open_val_db.pt"
    widths = dict.fromkeys(METHODS, DEFAULT_WIDTH)
    if validation.is_file():
        widths = choose_widths(validation, methods)
    else:
        log.warning("%s is not there: all Gaussians are %.1f frames wide", validation, DEFAULT_WIDTH)
    for dataset in args.dataset:
        tables[dataset] = compare(args.preprocessed / f"{dataset}_test_db.pt", methods, widths)
        frames = next(iter(tables[dataset].values()))["frames"]
        print(f"\n{dataset}: {frames:.0f} frames\n\n{markdown(tables[dataset])}")
    if args.json:
        with atomic_write(args.json) as temporary:
            temporary.write_text(json.dumps(tables, indent=2))


if __name__ == "__main__":
    run_command(main)

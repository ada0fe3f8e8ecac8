"""Measure what makes per-frame pose estimates consistent over time, on simulated errors of several kinds.

    python scripts/compare_poses.py --motions MOTIONS --json table.json

Motions of performers that were not trained on are estimated with errors (:mod:`lib.open_data.pose_noise`);
every method gets the same estimates. Each filter's parameter is the best of its choices, kind by kind, on the
validation performers: of least PA-MPJPE + Accel error. Prints Markdown tables with 95 % intervals from a
bootstrap over the motions. Joints are the 14 of the evaluation; rotations are smoothed as matrices, by their
nearest rotation.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

if __name__ == "__main__":  # first, so that Ctrl-C while the rest is imported is one line, too
    from lib.utils.errors import leave_on_signals

    leave_on_signals()

from lib.core.build import load_model
from lib.models.body import OPEN_DATA, load_body
from lib.models.landmark_body import LandmarkBody
from lib.models.predict import predict_sequence
from lib.motion.smooth import smooth_rotations
from lib.open_data.motions import FPS, Motion, open_motions
from lib.open_data.pose_noise import KINDS, PoseEstimator, pieces
from lib.utils import metrics
from lib.utils.errors import run_command
from lib.utils.files import atomic_write
from lib.utils.geometry import rot6d_to_rotmat, rotmat_to_rot6d
from lib.utils.options import positive_integer
from lib.utils.pose_features import pose_features
from lib.utils.smoothing import one_euro, slerp_filter

JOINTS = slice(25, 39)  # of the 49
BOOTSTRAPS = 1000
COLUMNS = {"mpjpe": "MPJPE mm", "mpjpe_pa": "PA-MPJPE mm", "accel_err": "Accel error mm/frame²"}


def _one_euro(rotmat: np.ndarray, setting: tuple[float, float]) -> np.ndarray:
    mean = torch.from_numpy(one_euro(rotmat, *setting, fps=FPS).astype(np.float32))
    return rot6d_to_rotmat(rotmat_to_rot6d(mean)).view(mean.shape).numpy()


FILTERS: dict[str, tuple[Callable[[np.ndarray, Any], np.ndarray], tuple[Any, ...]]] = {
    "Gaussian": (smooth_rotations, (0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0)),  # frames
    "1€ filter": (
        _one_euro,
        tuple((cutoff, beta) for cutoff in (0.5, 1.0, 2.0, 4.0) for beta in (0.0, 0.3, 1.0, 3.0)),
    ),
    "slerp": (slerp_filter, (0.2, 0.3, 0.4, 0.5, 0.7)),  # weight of the new frame
}


class Clip(NamedTuple):
    """A piece of motion as it was and as it was estimated: rotations (T, 24, 3, 3), joints (T, 14, 3) m."""

    name: str
    betas: np.ndarray
    seen: np.ndarray
    features: np.ndarray
    joints: np.ndarray


class Bench:
    """Clips, methods and the body they are measured on."""

    def __init__(self, checkpoint: Path) -> None:
        body = load_body(OPEN_DATA)
        self.body, (self.model, _) = LandmarkBody(body), load_model(checkpoint, None, body)

    def joints(self, rotmat: np.ndarray, betas: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            pose = torch.from_numpy(np.ascontiguousarray(rotmat, np.float32))
            return self.body(pose, torch.from_numpy(betas))[0][:, JOINTS].numpy()

    def clips(self, motions: list[Motion], kind: str, seed: int) -> Iterator[Clip]:
        generator = torch.Generator().manual_seed(seed)
        estimator = PoseEstimator(KINDS[kind], generator)
        for name, rotmat, betas in pieces(motions, generator):
            seen = estimator(rotmat, betas)
            features = pose_features(seen.rotmat, seen.betas, seen.cam)[0].numpy()
            truth = self.joints(rotmat[0].numpy(), betas.numpy())
            shape = np.median(seen.betas[0].numpy(), 0, keepdims=True)
            yield Clip(name, shape, seen.rotmat[0].numpy(), features, truth)

    def errors(self, rotmat: np.ndarray, clip: Clip) -> dict[str, np.ndarray]:
        """Per-frame errors, mm; of the truth's hips and of the median shape."""
        joints = self.joints(rotmat, clip.betas)
        return {
            "mpjpe": 1000 * metrics.mpjpe(_about_hips(joints), _about_hips(clip.joints)),
            "mpjpe_pa": 1000 * metrics.pa_mpjpe(joints, clip.joints),
            "accel_err": 1000 * metrics.accel_error(joints, clip.joints),
        }

    def tcmr(self, clip: Clip) -> np.ndarray:
        return predict_sequence(self.model, clip.features, return_verts=False)["rotmat"]

    def start(self, clip: Clip) -> np.ndarray:
        """Where TCMR starts from: the robust mean over time."""
        pose = torch.from_numpy(clip.features[:, :144]).view(-1, 24, 6)
        return smooth_rotations(rot6d_to_rotmat(pose).numpy(), self.model.feature_smooth)


def _about_hips(joints: np.ndarray) -> np.ndarray:
    return joints - joints[:, 2:4].mean(1, keepdims=True)


def tune(bench: Bench, clips: list[Clip]) -> dict[str, Any]:
    """The best parameter of each filter, and of the Gaussian behind TCMR."""
    predicted = [bench.tcmr(clip) for clip in clips]
    sources = {name: [clip.seen for clip in clips] for name in FILTERS} | {"TCMR + Gaussian": predicted}
    chosen = {}
    for name, source in sources.items():
        function, choices = FILTERS[name.removeprefix("TCMR + ")]
        costs = []
        for choice in choices:
            errors = [bench.errors(function(rotmat, choice), clip) for rotmat, clip in zip(source, clips)]
            costs.append(
                sum(np.concatenate([e[k] for e in errors]).mean() for k in ("mpjpe_pa", "accel_err"))
            )
        chosen[name] = choices[int(np.argmin(costs))]
    return chosen


def measure(bench: Bench, clips: Iterator[Clip], chosen: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Method -> means over all frames, half widths of their intervals (``*_ci``), and the differences to
    TCMR's with theirs (``*_more``, ``*_more_ci``): how much better TCMR is."""
    collected: dict[str, dict[str, list[np.ndarray]]] = {}
    for clip in clips:
        predicted = bench.tcmr(clip)
        rows = {"estimates": clip.seen}
        rows |= {name: function(clip.seen, chosen[name]) for name, (function, _) in FILTERS.items()}
        rows |= {"robust mean": bench.start(clip), "TCMR": predicted}
        rows["TCMR + Gaussian"] = smooth_rotations(predicted, chosen["TCMR + Gaussian"])
        for name, rotmat in rows.items():
            for key, values in bench.errors(rotmat, clip).items():
                collected.setdefault(name, {}).setdefault(key, []).append(values)
    table = {}
    for name, columns in collected.items():
        row: dict[str, float] = {}
        for key, parts in columns.items():
            row[key], row[f"{key}_ci"] = mean_and_interval(parts)
            more = [part - ours for part, ours in zip(parts, collected["TCMR"][key])]
            row[f"{key}_more"], row[f"{key}_more_ci"] = mean_and_interval(more)
        table[name] = row
    return table


def mean_and_interval(parts: list[np.ndarray]) -> tuple[float, float]:
    """Mean over frames, and half its 95 % bootstrap interval, clips drawn with repetition."""
    sums, counts = np.array([part.sum() for part in parts]), np.array([len(part) for part in parts])
    drawn = np.random.default_rng(1).integers(0, len(parts), (BOOTSTRAPS, len(parts)))
    low, high = np.percentile(sums[drawn].sum(1) / counts[drawn].sum(1), [2.5, 97.5])
    return float(sums.sum() / counts.sum()), float(high - low) / 2


def markdown(tables: dict[str, dict[str, dict[str, float]]]) -> str:
    lines = ["| errors | method | " + " | ".join(COLUMNS.values()) + " |", "|---" * (len(COLUMNS) + 2) + "|"]
    for kind, table in tables.items():
        for name, row in table.items():
            cells = [f"{row[key]:.1f} ± {row[key + '_ci']:.1f}" for key in COLUMNS]
            lines.append(f"| {kind} | {name} | " + " | ".join(cells) + " |")
            kind = ""
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--motions", default="", help="folder of motion files; default: procedural motions")
    parser.add_argument("--checkpoint", type=Path, default=Path(OPEN_DATA) / "tcmr_poses.pth.tar")
    parser.add_argument("--kind", action="append", choices=list(KINDS), help="default: all")
    parser.add_argument("--split", choices=("val", "test"), default="test")
    parser.add_argument("--threads", type=positive_integer, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(args.threads)
    bench, motions, tables, chosen = Bench(args.checkpoint), open_motions(args.motions), {}, {}
    for number, kind in enumerate(tqdm(args.kind or list(KINDS), desc="kinds of errors")):
        chosen[kind] = tune(bench, list(bench.clips(motions["val"], kind, seed=2 * number)))
        tables[kind] = measure(
            bench, bench.clips(motions[args.split], kind, seed=2 * number + 1), chosen[kind]
        )
    print(markdown(tables))
    if args.json:
        with atomic_write(args.json) as temporary:
            temporary.write_text(json.dumps({"errors": tables, "parameters": chosen}, indent=2))


if __name__ == "__main__":
    run_command(main)

"""Measure what knowing the past alone costs: TCMR with all delays side by side, on an open database.

    python scripts/measure_live.py [--videos N] [--json table.json]

The same landmarks for every row, of the videos of ``compare_open.py``. Offline: the whole sequence is known,
flips are undone with all of it. Live: each frame is judged for flips by those before it, and predicted when
so many frames after it have come; 0 is at once. Twelve limb joints, as there. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
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

from lib.core.build import model_from
from lib.data_utils.preprocess import positive_integer
from lib.live.filters import RotationTrend
from lib.live.person import TREND
from lib.models.body import OPEN_DATA, load_body
from lib.models.extractors import load_landmark_net
from lib.models.predict import predict_sequence
from lib.models.stream import StreamingPredictor
from lib.utils.crops import crop_to_image
from lib.utils.errors import run_command
from lib.utils.files import atomic_write, load_checkpoint
from lib.utils.geometry import project
from lib.utils.landmark_features import LIMB_JOINTS, landmark_arrays
from lib.utils.landmark_flips import StreamingFlips, flip_back, repair_flips
from scripts.compare_open import Joints, markdown, measure, summary, videos

DELAYS = (None, 7, 3, 0)


class Live:
    """The delays on one video."""

    def __init__(self, extractor: Path, checkpoint: Path) -> None:
        self.net = load_landmark_net(extractor)
        self.model, _ = model_from(load_checkpoint(checkpoint), checkpoint, None, load_body(OPEN_DATA))
        self.model.eval()

    def __call__(self, video: dict[str, np.ndarray]) -> dict[str, Joints]:
        landmarks, step = video["landmarks"], int(video["step"])
        seen = landmarks[..., :2], landmarks[..., 2], landmarks[..., 3:]
        features, boxes = self._features(repair_flips(*seen))
        result = predict_sequence(self.model, features, return_verts=False, step=step)
        rows = {"offline": _limbs(result["kp_3d"], result["kp_2d"], boxes)}
        features, boxes = self._features(undo_flips_live(*seen))
        for delay in DELAYS:
            predictor = StreamingPredictor(self.model, delay, step=step, return_verts=False)
            outputs = [predictor.push(feature) for feature in features]
            found = [out for out in outputs if out is not None] + predictor.finish()
            joints, pixels = (np.stack([out[key] for out in found]) for key in ("kp_3d", "kp_2d"))
            rows[f"live, {predictor.delay} frames later"] = _limbs(joints, pixels, boxes)
        trend = RotationTrend(TREND * float(video["fps"]))  # found is of no delay now
        calm = np.stack([trend(out["rotmat"]) for out in found])
        rows["live, 0 frames later, as `tcmr live` does it"] = _limbs(*self._seen(found, calm), boxes)
        return rows

    @torch.inference_mode()
    def _seen(self, found: list[dict[str, np.ndarray]], rotmat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Joints (T, 49, 3) and crop pixels (T, 49, 2) of other rotations."""
        theta = torch.from_numpy(np.stack([out["theta"] for out in found]))
        joints = self.model.regressor.smpl.joints(theta[:, 75:], torch.from_numpy(rotmat), None)
        return joints.numpy(), project(joints, theta[:, :3]).numpy()

    @torch.inference_mode()
    def _features(self, seen: tuple[np.ndarray, ...]) -> tuple[np.ndarray, np.ndarray]:
        vectors, boxes = landmark_arrays(*seen)
        return self.net(vectors).numpy(), boxes


def undo_flips_live(
    xy: np.ndarray, visibility: np.ndarray, world: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """:func:`repair_flips`, each frame judged by those before it."""
    judge = StreamingFlips()
    flipped = np.array([judge(frame) for frame in world])
    seen = [np.array(part) for part in (xy, visibility, world)]
    for part, other in zip(seen, flip_back(*map(torch.from_numpy, seen))):
        part[flipped] = other.numpy()[flipped]
    return seen[0], seen[1], seen[2]


def _limbs(joints: np.ndarray, pixels: np.ndarray, boxes: np.ndarray) -> Joints:
    return joints[:, LIMB_JOINTS], crop_to_image(pixels, boxes)[:, LIMB_JOINTS]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--database", type=Path, default=Path("data/preprocessed_data/open_test_db.pt"))
    parser.add_argument("--videos", type=positive_integer, help="so many, at equal distances; default: all")
    parser.add_argument("--extractor", type=Path, default=Path("data/open/landmark_net.pth.tar"))
    parser.add_argument("--checkpoint", type=Path, default=Path("data/open/tcmr_open.pth.tar"))
    parser.add_argument("--threads", type=positive_integer, default=1)
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(args.threads)
    live, found = Live(args.extractor, args.checkpoint), videos(args.database)
    if args.videos:
        found = found[:: max(1, len(found) // args.videos)][: args.videos]
    collected: dict[str, dict[str, list[np.ndarray]]] = {}
    for video in tqdm(found, desc=args.database.stem, unit="video"):
        for row, joints in live(video).items():
            for key, values in measure(*joints, video).items():
                collected.setdefault(row, {}).setdefault(key, []).append(values)
    table = summary(collected)
    print(f"\n{len(found)} videos, {next(iter(table.values()))['frames']:.0f} frames\n\n{markdown(table)}")
    if args.json:
        with atomic_write(args.json) as temporary:
            temporary.write_text(json.dumps(table, indent=2))


if __name__ == "__main__":
    run_command(main)

"""How TCMR's attention weighs past, current and future, why, and what other weights would give.

    python scripts/measure_attention.py --database output/benchmark/data/open_test_db.pt

Prints the weights; how far the attention's last Tanh is saturated, by its derivative; how alike the three
rows of the layer before it are; and the MPJPE (twelve limb joints) with its own weights, with constant ones,
and with those of each frame that are best for it, which only the truth can tell.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

if __name__ == "__main__":  # first, so that Ctrl-C while the rest is imported is one line, too
    from lib.utils.errors import leave_on_signals

    leave_on_signals()

from lib.core.benchmark.measures import HIPS
from lib.core.benchmark.videos import read_videos
from lib.core.build import load_model
from lib.landmarks.features import LIMB_JOINTS, landmark_arrays
from lib.models.body import OPEN_DATA, load_body
from lib.models.encoder import PoseForecast
from lib.models.extractors import load_landmark_net
from lib.models.predict import smoothing_width, window_indices
from lib.utils.errors import UserError, run_command
from lib.utils.smoothing import gaussian

LOW, HIGH = 0.063, 0.787  # what softmax can make of three numbers in [-1, 1]


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--database", type=Path, default=Path("data/preprocessed_data/open_test_db.pt"))
    parser.add_argument("--extractor", type=Path, default=Path(OPEN_DATA) / "landmark_net.pth.tar")
    parser.add_argument("--checkpoint", type=Path, default=Path(OPEN_DATA) / "tcmr_open.pth.tar")
    args = parser.parse_args()
    net = load_landmark_net(args.extractor)
    model, _ = load_model(args.checkpoint, None, load_body(OPEN_DATA))
    encoder = model.encoder
    if not isinstance(encoder, PoseForecast) or len(encoder.branches) != 3:
        raise UserError(f"{args.checkpoint}: its temporal encoder does not weigh past, current and future")
    windows, truth = [], []
    for video in read_videos(args.database):
        sigma = smoothing_width(model.feature_smooth, video.step)
        features = gaussian(net(landmark_arrays(*video.landmarks)[0]).numpy(), sigma)
        windows.append(features[window_indices(len(features), model.seqlen, "edge", video.step)])
        truth.append(video.joints - video.joints[:, HIPS].mean(1, keepdims=True))
    target = torch.from_numpy(np.concatenate(truth))
    states = encoder.states_by_gru(torch.from_numpy(np.concatenate(windows)).transpose(0, 1))
    names = [f"linear_{name}" for name in encoder.branches]
    branches = torch.stack([getattr(encoder, n)(s.relu()) for n, s in zip(names, states)], 1)
    attention = encoder.attention.attention
    outputs = attention[:-1](encoder.attention.fc(branches).flatten(1))  # before the last Tanh
    weights = outputs.tanh().softmax(-1)

    def errors(chosen: Tensor) -> Tensor:
        """(n,) mm with weights (n or 1, 3)."""
        mixed = (chosen[..., None] * branches).sum(1)
        joints = model.regressor(mixed, return_verts=False)[0]["kp_3d"][:, LIMB_JOINTS]
        joints = joints - joints[:, HIPS].mean(1, keepdim=True)
        return 1000 * (joints - target).norm(dim=-1).mean(1)

    rows = normalize(dict(attention.named_parameters())["4.weight"], dim=1)
    alike = (rows @ rows.T)[[0, 0, 1], [1, 2, 2]]
    print(f"{len(target)} frames; past, current, future:")
    print("weights, mean", *(f"{v:.4f}" for v in weights.mean(0)))
    print("weights, standard deviation", *(f"{v:.4f}" for v in weights.std(0)))
    print(f"last Tanh, mean derivative {(1 - outputs.tanh() ** 2).mean():.4f}")
    print("cosines of the rows before it", *(f"{v:.2f}" for v in alike))
    print(f"MPJPE {errors(weights).mean():.1f} mm with its own weights; with constant ones:")
    grid = [(p, c, 1 - p - c) for p in np.linspace(LOW, HIGH, 12) for c in np.linspace(LOW, HIGH, 12)]
    grid = [w for w in grid if LOW - 1e-6 < w[2] < HIGH + 1e-6]
    named = [(1 / 3, 1 / 3, 1 / 3), (0.5, 0, 0.5), (1, 0, 0), (0, 1, 0), (0, 0, 1)]
    found = torch.stack([errors(torch.tensor([w], dtype=torch.float32)) for w in [*named, *grid]])
    for w, mean in zip(named, found.mean(1)):
        print("  {:.2f} {:.2f} {:.2f}:".format(*w), f"{mean:.1f}")
    inner = found[len(named) :]
    best = int(inner.mean(1).argmin())
    print("  {:.2f} {:.2f} {:.2f}:".format(*grid[best]), f"{inner[best].mean():.1f}, the best of {len(grid)}")
    print(f"with the best of each frame, by the truth: {inner.amin(0).mean():.1f}")


if __name__ == "__main__":
    run_command(main)

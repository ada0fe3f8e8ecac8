"""Pre-train the per-frame landmark network and the regressor: the open counterpart of SPIN.

    python scripts/train_landmark_net.py --motions FOLDER --minutes 40

Simulated frames are made on the fly, so no example is seen twice. Writes a checkpoint with the layout of
SPIN's (``model``: regressor and ``extractor.*`` weights), which ``TRAIN.PRETRAINED_REGRESSOR`` reads.
"""

from __future__ import annotations

import argparse
import logging
import math
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

if __name__ == "__main__":  # first, so that Ctrl-C while the rest is imported is one line, too
    from lib.utils.errors import leave_on_signals

    leave_on_signals()

from lib.data_utils.motions import MotionSampler, open_motions
from lib.data_utils.preprocess import positive_integer, positive_number
from lib.data_utils.simulate import NoiseModel, Simulation, Simulator
from lib.models.body import OPEN_DATA, BodyData, load_body
from lib.models.landmark_net import LandmarkNet
from lib.models.regressor import Regressor
from lib.models.weights import load_weights, per_frame_weights
from lib.utils.crops import transform_keypoints
from lib.utils.errors import run_command
from lib.utils.files import load_checkpoint, save_checkpoint
from lib.utils.geometry import rotmat_to_rot6d
from lib.utils.landmark_features import landmark_vector

CLIP_LENGTH, CLIPS = 16, 28


class PerFrameModel(nn.Module):
    """Landmark vector -> static feature -> SMPL, and a linear read-out that keeps the feature rich."""

    def __init__(self, body: BodyData, hidden_size: int) -> None:
        super().__init__()
        self.extractor = LandmarkNet()
        feature_size = self.extractor.last.out_features
        self.regressor = Regressor(body, feature_size, hidden_size, dropout=0.0)
        self.readout = nn.Linear(feature_size, self.extractor.first.in_features)

    def state(self) -> dict[str, torch.Tensor]:
        """Weights under the names a SPIN checkpoint has, the extractor's with a prefix; in half precision."""
        weights = {k: v for k, v in self.regressor.state_dict().items() if not k.startswith("smpl.")}
        weights |= {f"extractor.{k}": v for k, v in self.extractor.state_dict().items()}
        return {k: v.half() for k, v in weights.items()}


def examples(sampler: MotionSampler, simulator: Simulator, clips: int) -> dict[str, torch.Tensor]:
    """A batch of independent frames: network input and targets."""
    rotmat, trans = sampler.sample(clips, CLIP_LENGTH)
    betas = torch.as_tensor(sampler.rng.normal(0, 1, (clips, 10)), dtype=torch.float32).clamp(-2.5, 2.5)
    simulation: Simulation = simulator(rotmat, trans, betas)
    vectors, boxes = landmark_vector(
        simulation.xy.numpy(), simulation.visibility.numpy(), simulation.world.numpy()
    )
    batch = {
        "vectors": torch.from_numpy(vectors),
        "rotmat": simulation.rotmat,
        "betas": simulation.betas,
        "joints3d": simulation.joints3d,
        "kp_2d": torch.from_numpy(transform_keypoints(simulation.joints2d.numpy(), boxes)),
    }
    return {key: value.flatten(0, 1) for key, value in batch.items()}


def losses(model: PerFrameModel, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The terms of TCMR's loss over all 49 joints, and the read-out term."""
    feature = model.extractor(batch["vectors"])
    output = model.regressor(feature, return_verts=False)[0]
    joints, truth = output["kp_3d"], batch["joints3d"]
    error3d = (joints - joints[:, 39:40]) - (truth - truth[:, 39:40])
    inside = (batch["kp_2d"].abs() < 3).all(-1, keepdim=True)
    standardised = ((batch["vectors"] - model.extractor.mean) / model.extractor.std).clamp(-5, 5)
    return {
        "kp_3d": 10 * error3d.square().mean(),
        "kp_2d": 10 * (inside * (output["kp_2d"] - batch["kp_2d"]).square()).mean(),
        "pose": (output["rotmat"] - batch["rotmat"]).square().mean(),
        "shape": 0.002 * (output["theta"][:, 75:] - batch["betas"]).square().mean(),
        "readout": 0.02 * (model.readout(feature) - standardised).square().mean(),
    }


@torch.no_grad()
def validate(model: PerFrameModel, batches: list[dict[str, torch.Tensor]]) -> float:
    """MPJPE over the 14 evaluation joints, mm."""
    model.eval()
    errors = []
    for batch in batches:
        joints = model.regressor(model.extractor(batch["vectors"]), return_verts=False)[0]["kp_3d"][:, 25:39]
        truth = batch["joints3d"][:, 25:39]
        root, true_root = (j[:, 2:4].mean(1, keepdim=True) for j in (joints, truth))
        errors.append(((joints - root) - (truth - true_root)).norm(dim=-1).mean(1))
    model.train()
    return 1000 * float(torch.cat(errors).mean())


def initialise(model: PerFrameModel, batch: dict[str, torch.Tensor]) -> None:
    """Input statistics and mean parameters from a first batch; the mean root faces the camera."""
    model.extractor.mean.copy_(batch["vectors"].mean(0))
    model.extractor.std.copy_(batch["vectors"].std(0) + 0.02)
    mean = rotmat_to_rot6d(batch["rotmat"].mean(0))
    mean[0] = torch.tensor([1.0, 0, 0, -1, 0, 0])
    model.regressor.init_pose.copy_(mean.reshape(1, 144))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--motions", default="", help="folder of motion files; default: procedural motions")
    parser.add_argument("--minutes", type=positive_number, default=40.0, help="training time")
    parser.add_argument("--lr", type=positive_number, default=1e-3)
    parser.add_argument("--init", default="", help="checkpoint of this script to start from")
    parser.add_argument("--threads", type=positive_integer, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, default=Path("data/open/landmark_net.pth.tar"))
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(args.threads)
    torch.manual_seed(1)
    body = load_body(OPEN_DATA)
    model = PerFrameModel(body, hidden_size=512)
    splits = open_motions(args.motions)
    generator = torch.Generator().manual_seed(1)
    simulator = Simulator(body, NoiseModel(), generator)
    sampler = MotionSampler(splits["train"], np.random.default_rng(1))
    held_out = MotionSampler(splits["val"], np.random.default_rng(2))
    validation = [examples(held_out, Simulator(body, NoiseModel(), generator), 64) for _ in range(4)]
    initialise(model, examples(sampler, simulator, 128))
    if args.init:
        weights = per_frame_weights(load_checkpoint(args.init), args.init)
        extractor = {
            k.removeprefix("extractor."): v for k, v in weights.items() if k.startswith("extractor.")
        }
        load_weights(model.extractor, extractor, args.init)
        load_weights(model.regressor, weights, args.init, "smpl.", allow_more=True)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=args.lr)
    start, step = time.monotonic(), 0
    smooth: dict[str, float] = {}
    with tqdm(total=round(args.minutes * 60), unit="s", desc="per-frame network") as bar:
        while (elapsed := time.monotonic() - start) < args.minutes * 60:
            share = elapsed / (args.minutes * 60)
            rate = args.lr * min(1, (step + 1) / 50) * (0.01 + 0.495 * (1 + math.cos(math.pi * share)))
            for group in optimizer.param_groups:
                group["lr"] = rate
            terms = losses(model, examples(sampler, simulator, CLIPS))
            optimizer.zero_grad()
            torch.stack(list(terms.values())).sum().backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            step += 1
            for key, value in terms.items():
                smooth[key] = 0.98 * smooth.get(key, value.item()) + 0.02 * value.item()
            bar.n = int(elapsed)
            if step % 20 == 0:
                bar.set_postfix({k: f"{v:.4f}" for k, v in smooth.items()} | {"step": step})
            if step % 500 == 0:
                tqdm.write(f"step {step}: validation MPJPE {validate(model, validation):.1f} mm")
                save_checkpoint({"model": model.state(), "body": body.kind}, args.out)
    error = validate(model, validation)
    save_checkpoint({"model": model.state(), "body": body.kind, "performance": error}, args.out)
    tqdm.write(f"{step} steps, validation MPJPE {error:.1f} mm -> {args.out}")


if __name__ == "__main__":
    run_command(main)

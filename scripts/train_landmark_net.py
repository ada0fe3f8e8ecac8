"""Train the per-frame landmark network and its regressor: the open counterpart of SPIN.

    python scripts/train_landmark_net.py --motions FOLDER --steps 20000 --device cuda

Simulated frames are made on the device that trains, so no example is seen twice. ``--out`` gets
``landmark_net.pth.tar``, which has the layout of SPIN's checkpoint (``model``: regressor and ``extractor.*``
weights) and which ``TRAIN.PRETRAINED_REGRESSOR`` and ``PATHS.OPEN`` read, and ``checkpoint.pth.tar``, from
which ``--resume`` goes on with the very steps that an uninterrupted run would have taken.
"""

from __future__ import annotations

import argparse
import logging
import math
import sys
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

if __name__ == "__main__":  # first, so that Ctrl-C while the rest is imported is one line, too
    from lib.utils.errors import leave_on_signals

    leave_on_signals()

from lib.models.body import OPEN_DATA, BodyData, load_body
from lib.models.landmark_body import LandmarkBody
from lib.models.landmark_net import LandmarkNet
from lib.models.regressor import Regressor
from lib.open_data.motions import NEWEST_SPLIT, UNCHANGED, VAL_PERFORMERS, Augmentation, open_motions
from lib.open_data.simulate import NOISE_V1, NOISE_V2
from lib.open_data.simulated import Clips, SimulatedClips
from lib.utils.devices import choose_device
from lib.utils.errors import UserError, run_command
from lib.utils.files import load_checkpoint, save_checkpoint
from lib.utils.geometry import project, rot6d_to_rotmat, rotmat_to_rot6d
from lib.utils.options import positive_integer, positive_number

log = logging.getLogger(__name__)

CLIP_LENGTH = 4  # frames of one clip in a batch: neighbours teach little
WARM_UP = 300
LSP = slice(25, 39)


class PerFrameModel(nn.Module):
    """Landmark vector -> static feature -> SMPL, and a linear read-out that keeps the feature rich."""

    def __init__(self, body: BodyData, width: int, blocks: int, hidden_size: int) -> None:
        super().__init__()
        self.extractor = LandmarkNet(width=width, blocks=blocks)
        feature_size = self.extractor.last.out_features
        self.regressor = Regressor(body, feature_size, hidden_size, dropout=0.0)
        self.readout = nn.Linear(feature_size, self.extractor.first.in_features)
        self.body = LandmarkBody(body)

    def forward(self, vectors: Tensor) -> dict[str, Tensor]:
        """Vectors (n, 303) -> rotmat, betas, kp_3d, kp_2d as the regressor gives them, and the feature."""
        feature = self.extractor(vectors)
        matrix, offset = self.regressor.as_affine()
        pose, betas, cam = (feature @ matrix.T + offset).split((144, 10, 3), dim=1)
        rotmat = rot6d_to_rotmat(pose.reshape(-1, 24, 6))
        joints, _ = self.body(rotmat, betas)
        return {
            "feature": feature,
            "rotmat": rotmat,
            "betas": betas,
            "kp_3d": joints,
            "kp_2d": project(joints, cam),
        }

    def learned(self) -> dict[str, Tensor]:
        """All that training changes; the body models are not part of it."""
        return {k: v for k, v in self.state_dict().items() if not k.startswith(("body.", "regressor.smpl."))}

    def weights(self) -> dict[str, Tensor]:
        """Weights under the names a SPIN checkpoint has, the extractor's with a prefix; in half precision."""
        weights = {k: v for k, v in self.regressor.state_dict().items() if not k.startswith("smpl.")}
        weights |= {f"extractor.{k}": v for k, v in self.extractor.state_dict().items()}
        return {k: v.half() for k, v in weights.items()}


def losses(model: PerFrameModel, clips: Clips) -> dict[str, Tensor]:
    """Distances of joints in 3D and 2D (not their squares: an ambiguous pose should be one or the other, not
    their mean), rotations, shape, and the read-out."""
    output = model(clips.vectors.flatten(0, 1))
    joints, truth = output["kp_3d"], clips.joints3d.flatten(0, 1)
    error3d = (joints - joints[:, 39:40]) - (truth - truth[:, 39:40])
    kp_2d = clips.kp_2d.flatten(0, 1)
    inside = (kp_2d.abs() < 3).all(-1)
    standardised = ((clips.vectors.flatten(0, 1) - model.extractor.mean) / model.extractor.std).clamp(-5, 5)
    return {
        "kp_3d": _length(error3d[:, LSP], 0.01).mean() + 0.5 * _length(error3d, 0.01).mean(),
        "kp_2d": 0.5 * (inside * _length(output["kp_2d"] - kp_2d, 0.01)).mean(),
        "pose": 0.3 * (output["rotmat"] - clips.rotmat.flatten(0, 1)).square().mean(),
        "shape": 0.002 * (output["betas"] - clips.betas.flatten(0, 1)).square().mean(),
        "readout": 0.01 * (model.readout(output["feature"]) - standardised).square().mean(),
    }


def _length(vectors: Tensor, smallest: float) -> Tensor:
    return (vectors.square().sum(-1) + smallest**2).sqrt()


@torch.no_grad()
def validate(model: PerFrameModel, clips: Clips) -> float:
    """MPJPE over the 14 evaluation joints, mm."""
    joints, truth = model(clips.vectors.flatten(0, 1))["kp_3d"][:, LSP], clips.joints3d.flatten(0, 1)[:, LSP]
    root, true_root = (j[:, 2:4].mean(1, keepdim=True) for j in (joints, truth))
    return 1000 * float(((joints - root) - (truth - true_root)).norm(dim=-1).mean())


def initialise(model: PerFrameModel, clips: Clips) -> None:
    """Input statistics and mean parameters from a first batch; the mean root faces the camera."""
    vectors = clips.vectors.flatten(0, 1)
    model.extractor.mean.copy_(vectors.mean(0))
    model.extractor.std.copy_(vectors.std(0) + 0.02)
    mean = rotmat_to_rot6d(clips.rotmat.flatten(0, 1).mean(0))
    mean[0] = mean.new_tensor([1.0, 0, 0, -1, 0, 0])
    model.regressor.init_pose.copy_(mean.reshape(1, 144))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--motions", default="", help="folder of motion files; default: procedural motions")
    parser.add_argument(
        "--split",
        choices=VAL_PERFORMERS,
        default=NEWEST_SPLIT,
        help="by performer; 1 is that of the shipped weights (%(default)s)",
    )
    parser.add_argument("--steps", type=positive_integer, default=20_000)
    parser.add_argument("--batch", type=positive_integer, default=1024, help="frames per step (%(default)s)")
    parser.add_argument("--lr", type=positive_number, default=1e-3)
    parser.add_argument("--width", type=positive_integer, default=768, help="of the network (%(default)s)")
    parser.add_argument("--blocks", type=positive_integer, default=3, help="hidden layers (%(default)s)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (%(default)s)")
    parser.add_argument("--threads", type=positive_integer, default=torch.get_num_threads())
    parser.add_argument("--seed", type=positive_integer, default=1)
    parser.add_argument("--save_every", type=positive_integer, default=500, help="steps (%(default)s)")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    parser.add_argument("--out", type=Path, default=Path("output/landmark_net"), help="folder (%(default)s)")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(args.threads)
    train(args)


def train(args: argparse.Namespace) -> None:
    """Train as the command line says; writes both files every ``save_every`` steps and at the end."""
    device = choose_device(args.device, "cuda")
    torch.manual_seed(args.seed)
    body, splits = load_body(OPEN_DATA), open_motions(args.motions, args.split)
    source = SimulatedClips(splits["train"], body, (NOISE_V1, NOISE_V2), device, seed=args.seed)
    validation = {
        name: SimulatedClips(splits["val"], body, (noise,), device, seed=0, augmentation=augmentation)(
            0, 512, CLIP_LENGTH
        )
        for name, noise, augmentation in (
            ("v1", NOISE_V1, UNCHANGED),
            ("v2", NOISE_V2, UNCHANGED),
            ("wide poses", NOISE_V2, Augmentation()),
        )
    }
    model = PerFrameModel(body, args.width, args.blocks, hidden_size=512).to(device)
    initialise(model, source(0, 512, CLIP_LENGTH))
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=args.lr)
    checkpoint = args.out / "checkpoint.pth.tar"
    first, before = _resume(checkpoint, model, optimizer, args) if args.resume else (0, 0.0)

    def save(step: int) -> None:
        errors = {name: validate(model, clips) for name, clips in validation.items()}
        text = ", ".join(f"{name} {error:.1f}" for name, error in errors.items())
        tqdm.write(f"step {step}: validation MPJPE mm: {text}")
        seconds = before + time.perf_counter() - started
        state = {"step": step, "network": model.learned(), "optimizer": optimizer.state_dict()}
        save_checkpoint({**state, "seconds": seconds}, checkpoint)
        weights = {"model": model.weights(), "body": body.kind, "performance": errors["v1"], "step": step}
        weights |= {"split": args.split, "seconds": seconds}
        save_checkpoint(weights, args.out / "landmark_net.pth.tar")

    smooth: dict[str, float] = {}
    started, clips = time.perf_counter(), math.ceil(args.batch / CLIP_LENGTH)
    with tqdm(total=args.steps, initial=first, unit="step", desc="per-frame network") as bar:
        for step in range(first, args.steps):
            warm = min(1.0, (step + 1) / WARM_UP)
            for group in optimizer.param_groups:
                group["lr"] = args.lr * warm * 0.5 * (1 + math.cos(math.pi * step / args.steps))
            terms = losses(model, source(step + 1, clips, CLIP_LENGTH))
            optimizer.zero_grad(set_to_none=True)
            torch.stack(list(terms.values())).sum().backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            if step % 50 == 49:
                for key, value in terms.items():
                    smooth[key] = 0.8 * smooth.get(key, value.item()) + 0.2 * value.item()
                bar.update(step + 1 - bar.n)
                bar.set_postfix({k: f"{v:.4f}" for k, v in smooth.items()})
            if (step + 1) % args.save_every == 0 and step + 1 < args.steps:
                save(step + 1)
    save(args.steps)
    rate = (args.steps - first) * clips * CLIP_LENGTH / (time.perf_counter() - started)
    log.info("%s: %.0f frames/s on %s", args.out / "landmark_net.pth.tar", rate, device)


def _resume(
    path: Path, model: PerFrameModel, optimizer: torch.optim.Optimizer, args: argparse.Namespace
) -> tuple[int, float]:
    """Restore network and optimiser; returns the number of steps done and the seconds they took."""
    state = load_checkpoint(path)
    try:
        learned = {key: state["network"][key] for key in model.learned()}
        model.load_state_dict(learned, strict=False)
        optimizer.load_state_dict(state["optimizer"])
        step, seconds = int(state["step"]), float(state.get("seconds", 0.0))
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"--resume: {path} does not fit --width {args.width} --blocks {args.blocks} ({reason}); give the "
            "options of the run that wrote it"
        ) from error
    if step >= args.steps:
        raise UserError(f"--resume: {path} has finished {step} steps; raise --steps, which is {args.steps}")
    return step, seconds


if __name__ == "__main__":
    run_command(main)

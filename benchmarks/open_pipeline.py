"""The open pipeline: bodies without meshes, simulated data, a training step per frame, the fit."""

from __future__ import annotations

from functools import cache, partial
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from benchmarks.case import Case
from lib.models.body import OPEN_DATA, load_body
from lib.models.landmark_body import LandmarkBody
from lib.models.smpl import SMPL
from lib.motion import fit
from lib.motion.fit_energy import Energy
from lib.open_data.motions import open_motions
from lib.open_data.simulate import NOISE_V1, NOISE_V2
from lib.open_data.simulated import Clips, SimulatedClips
from lib.utils.geometry import rotmat_to_axis_angle
from scripts.train_landmark_net import PerFrameModel, losses

CLIP_LENGTH, TRACK = 4, 320


@cache
def source(device: torch.device) -> SimulatedClips:
    motions = open_motions("")["train"]
    return SimulatedClips(motions, load_body(OPEN_DATA), (NOISE_V1, NOISE_V2), device, seed=1)


def naive_bodies(smpl: SMPL, clips: Clips) -> None:
    """The whole mesh, of which joints are picked."""
    rotmat, betas = clips.rotmat.flatten(0, 1), clips.betas.flatten(0, 1)
    with torch.no_grad():
        smpl(betas, rotmat[:, 1:], rotmat[:, :1], pose2rot=False)


def fast_bodies(body: LandmarkBody, clips: Clips) -> None:
    with torch.no_grad():
        body(clips.rotmat.flatten(0, 1), clips.betas.flatten(0, 1))


def naive_clips(device: torch.device, frames: int) -> None:
    """One clip after the other."""
    for step in range(frames // CLIP_LENGTH):
        source(device)(step, 2, CLIP_LENGTH // 2)


def fast_clips(device: torch.device, frames: int) -> None:
    source(device)(0, frames // CLIP_LENGTH, CLIP_LENGTH)


@cache
def per_frame_model(device: torch.device) -> tuple[PerFrameModel, torch.optim.Optimizer]:
    model = PerFrameModel(load_body(OPEN_DATA), 768, 3, 512).to(device)
    learned = [p for p in model.parameters() if p.requires_grad]
    return model, torch.optim.Adam(learned)


def naive_step(device: torch.device, clips: Clips) -> None:
    """The regressor's three refinements and the body model's joints, one frame's body after the other's."""
    model, optimiser = per_frame_model(device)
    feature = model.extractor(clips.vectors.flatten(0, 1))
    output = model.regressor(feature)[0]
    error = (output["kp_3d"] - clips.joints3d.flatten(0, 1)).norm(dim=-1).mean()
    optimiser.zero_grad()
    error.backward()
    optimiser.step()


def fast_step(device: torch.device, clips: Clips) -> None:
    model, optimiser = per_frame_model(device)
    optimiser.zero_grad()
    torch.stack(list(losses(model, clips).values())).sum().backward()
    optimiser.step()


@cache
def track(device: torch.device) -> dict[str, Any]:
    """A simulated track, and a start some degrees away from the truth."""
    clips = source(device)
    motions = clips._sampler
    clips._generator.manual_seed(5)
    rotmat, trans = motions.sample(1, TRACK)
    betas = motions.shapes(1)
    seen = clips._simulators[0](rotmat, trans, betas)
    theta = torch.zeros(TRACK, 85)
    theta[:, :3] = torch.tensor([0.9, 0.0, 0.0])
    theta[:, 3:75] = rotmat_to_axis_angle(seen.rotmat[0]).flatten(1).cpu()
    theta[:, 75:] = betas.cpu()
    start = seen.rotmat[0].cpu().numpy()
    xy = seen.xy[0].cpu().numpy()
    boxes = np.concatenate([xy.mean(1), np.ptp(xy, axis=1).max(1, keepdims=True).repeat(2, 1)], 1)
    return {
        "rotmat": start,
        "theta": theta.numpy(),
        "boxes": boxes,
        "landmarks": (xy, seen.visibility[0].cpu().numpy(), seen.world[0].cpu().numpy()),
        "width": 1000,
        "height": 1000,
        "fps": 30.0,
    }


def naive_minimise(energy: Energy, x: torch.Tensor, shared: Any, iterations: int) -> torch.Tensor:
    """L-BFGS on the whole track, fifteen times as many iterations, which brings it about as far."""
    x = x.clone().requires_grad_()
    optimiser = torch.optim.LBFGS([x], max_iter=15 * iterations, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        total = energy(x, shared).sum()
        total.backward()
        return total

    optimiser.step(closure)
    return x.detach()


def naive_fit(device: torch.device) -> None:
    with patch.object(fit, "minimise", naive_minimise):
        fast_fit(device)


def fast_fit(device: torch.device) -> None:
    fit.fit_track(LandmarkBody(load_body(OPEN_DATA)).to(device), **track(device))


def cases(device: torch.device, quick: bool) -> list[Case]:
    frames = 512 if quick else 2048
    clips = source(device)(0, frames // CLIP_LENGTH, CLIP_LENGTH)
    smpl, body = SMPL(load_body(OPEN_DATA)).to(device), LandmarkBody(load_body(OPEN_DATA)).to(device)
    found = [
        Case("joints and landmarks of poses", "frames", frames, partial(naive_bodies, smpl, clips),
             partial(fast_bodies, body, clips)),
        Case("simulated clips", "frames", frames, partial(naive_clips, device, frames),
             partial(fast_clips, device, frames)),
        Case("per-frame network, training step", "frames", frames, partial(naive_step, device, clips),
             partial(fast_step, device, clips)),
    ]  # fmt: skip
    if not quick:
        found.append(
            Case("fit of a track", "frames", TRACK, partial(naive_fit, device), partial(fast_fit, device))
        )
    return found

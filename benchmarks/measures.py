"""Metrics and smoothing of a long evaluation."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from benchmarks import naive
from benchmarks.case import Case
from benchmarks.prediction import network
from lib.models.body import load_body
from lib.utils import metrics
from lib.utils.geometry import axis_angle_to_rotmat
from lib.utils.smoothing import slerp_filter


def cases(device: torch.device, quick: bool) -> list[Case]:
    poses, plain = (2000, 200) if quick else (20000, 1000)
    random = np.random.default_rng(0)
    target = random.standard_normal((poses, 14, 3)).astype(np.float32)
    pred = target + 0.1 * random.standard_normal(target.shape).astype(np.float32)
    few = pred[:plain], target[:plain]
    turns = np.cumsum(0.02 * random.standard_normal((poses, 24, 3)), axis=0).reshape(-1, 3)
    rotmats = Rotation.from_rotvec(turns).as_matrix().reshape(poses, 24, 3, 3)

    meshes = 128 if quick else 512
    pose = turns.reshape(poses, 72)[:meshes].astype(np.float32)
    betas = random.standard_normal((meshes, 10)).astype(np.float32)
    verts = random.standard_normal((meshes, 6890, 3)).astype(np.float32)
    smpl = network(device).regressor.smpl

    @torch.no_grad()
    def vertex_error() -> np.ndarray:
        errors = []
        for start in range(0, meshes, 128):
            angles = torch.from_numpy(pose[start : start + 128]).to(device)
            rotmat = axis_angle_to_rotmat(angles.reshape(-1, 24, 3))
            shape = torch.from_numpy(betas[start : start + 128]).to(device)
            truth = smpl(shape, rotmat[:, 1:], rotmat[:, :1], pose2rot=False).vertices
            errors.append(metrics.vertex_error(verts[start : start + 128], truth.cpu().numpy()))
        return np.concatenate(errors)

    return [
        Case("PA-MPJPE", "poses", poses, partial(naive.pa_mpjpe, *few),
             partial(metrics.pa_mpjpe, pred, target), plain),
        Case("acceleration error", "poses", poses, partial(naive.acceleration_error, *few),
             partial(metrics.accel_error, pred, target), plain),
        Case("slerp filter", "poses", poses, partial(naive.slerp_filter, rotmats[:plain]),
             partial(slerp_filter, rotmats), plain),
        Case("vertex error, with true meshes", "poses", meshes,
             partial(naive.vertex_error, load_body(), verts, pose, betas), vertex_error),
    ]  # fmt: skip

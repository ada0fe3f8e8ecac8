"""The method as its description reads, with nothing shared, skipped or batched beyond that.

The benchmarks are measured against these functions, and the tests of the fast paths take them as truth. They
are written for plainness, from the published protocol; weights come from the project's own modules.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from smplx.lbs import lbs
from torch import Tensor
from torch.optim import Adam

from lib.dataset.datasets import DatasetSpec
from lib.models.body import BodyData
from lib.models.encoder import PoseForecast
from lib.models.regressor import Regressor
from lib.models.smpl import SMPL
from lib.models.tcmr import TCMR
from lib.models.temporal import TemporalEncoder
from lib.utils.geometry import axis_angle_to_rotmat, project, rot6d_to_rotmat, rotmat_to_axis_angle
from lib.utils.keypoints import H36M_TO_J14, SMPL49_MAP, convert_kps

WINDOW_BATCH = 8  # windows that the original's evaluation predicts at once


# ------------------------------------------------------------------------ the network


def encode(encoder: TemporalEncoder, windows: Tensor, is_train: bool = False) -> tuple[Tensor, Tensor]:
    """:meth:`PoseForecast.forward` of windows (N, T, F) by ``torch.nn.GRU``, all steps of all layers."""
    assert isinstance(encoder, PoseForecast)
    frames, middle = windows.transpose(0, 1), windows.shape[1] // 2
    current = encoder.linear_cur(encoder.gru_cur(frames)[0][middle].relu())
    before = encoder.linear_bef(encoder.gru_bef(frames[:middle])[0][-1].relu())
    after = encoder.linear_aft(encoder.gru_aft(frames[middle + 1 :].flip(0))[0][-1].relu())
    branches = torch.stack((before, current, after), dim=1)
    scores = encoder.attention(branches)
    integrated = (branches * scores[..., None]).sum(dim=1)
    return (torch.stack((before, after, integrated), dim=1) if is_train else integrated), scores


def regress(regressor: Regressor, features: Tensor, J_regressor: Tensor | None = None) -> dict[str, Tensor]:
    """:meth:`Regressor.forward` of features (n, F), always with the whole mesh."""
    n = len(features)
    pose, shape = regressor.init_pose.expand(n, -1), regressor.init_shape.expand(n, -1)
    cam = regressor.init_cam.expand(n, -1)
    for _ in range(3):
        hidden = regressor.drop1(regressor.fc1(torch.cat((features, pose, shape, cam), dim=1)))
        hidden = regressor.drop2(regressor.fc2(hidden))
        pose = pose + regressor.decpose(hidden)
        shape = shape + regressor.decshape(hidden)
        cam = cam + regressor.deccam(hidden)
    rotmat = rot6d_to_rotmat(pose.reshape(n, 24, 6))
    vertices, joints = mesh(regressor.smpl, shape, rotmat)
    if J_regressor is not None:
        joints = (J_regressor @ vertices)[:, H36M_TO_J14]
    theta = torch.cat((cam, rotmat_to_axis_angle(rotmat).flatten(1), shape), dim=1)
    outputs = {"theta": theta, "verts": vertices, "kp_3d": joints, "rotmat": rotmat}
    return {**outputs, "kp_2d": project(joints, cam)}


def mesh(smpl: SMPL, betas: Tensor, rotmat: Tensor) -> tuple[Tensor, Tensor]:
    """Vertices (n, V, 3) and the 49 joints (n, 49, 3) by smplx's linear blend skinning."""
    vertices, joints = lbs(
        betas, rotmat.contiguous(), smpl.v_template, smpl.shapedirs, smpl.posedirs, smpl.J_regressor,
        smpl.parents, smpl.lbs_weights, pose2rot=False,
    )  # fmt: skip
    picked = vertices[:, smpl.vertex_joint_selector.extra_joints_idxs]
    pool = torch.cat((joints, picked, smpl.J_regressor_extra @ vertices), dim=1)
    return vertices, pool[:, SMPL49_MAP]


def static_windows(length: int, seqlen: int = 16) -> list[list[int]]:
    """Frames that each frame is predicted from: a frame without a whole window sees itself, repeated."""
    half, windows = seqlen // 2, []
    for t in range(length):
        window = list(range(t - half, t - half + seqlen))
        windows.append(window if window[0] >= 0 and window[-1] < length else [t] * seqlen)
    return windows


def edge_windows(length: int, seqlen: int = 16, step: int = 1) -> list[list[int]]:
    """The same, with border frames repeated instead."""
    offsets = [step * (k - seqlen // 2) for k in range(seqlen)]
    return [[min(max(t + offset, 0), length - 1) for offset in offsets] for t in range(length)]


@torch.no_grad()
def predict(
    model: TCMR, features: np.ndarray, windows: list[list[int]], J_regressor: Tensor | None = None
) -> dict[str, np.ndarray]:
    """Every window written out and put through the network, eight at a time."""
    parts: list[dict[str, Tensor]] = []
    for start in range(0, len(windows), WINDOW_BATCH):
        chosen = [features[window] for window in windows[start : start + WINDOW_BATCH]]
        encoded, scores = encode(
            model.encoder, torch.from_numpy(np.stack(chosen)).to(model.regressor.init_cam)
        )
        parts.append({**regress(model.regressor, encoded, J_regressor), "scores": scores})
    return {name: torch.cat([part[name] for part in parts]).cpu().numpy() for name in parts[0]}


# ------------------------------------------------------------------------ training


def train_step(model: TCMR, loss: Any, optimizer: Adam, batches: list[dict[str, Tensor]]) -> float:
    """One update from the 2D and the 3D batch, with whole meshes; returns the loss."""
    features = torch.cat([batch["features"] for batch in batches])
    encoded, _ = encode(model.encoder, features, is_train=True)
    output = regress(model.regressor, encoded.flatten(0, 1))
    del output["verts"]
    total, _ = loss({name: value.unflatten(0, (-1, 3)) for name, value in output.items()}, *batches)
    optimizer.zero_grad()
    total.backward()
    optimizer.step()
    return total.item()


def adam(model: TCMR, learning_rate: float) -> Adam:
    """Adam, one tensor after the other."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return Adam(parameters, lr=learning_rate, foreach=False, fused=False)


def sample(database: Mapping[str, Any], window: list[int], spec: DatasetSpec) -> dict[str, Tensor]:
    """One training sample: the targets of every frame computed in turn, and only the middle's used."""
    features = np.array([database["features"][frame] for frame in window], np.float32)
    kp_2d = np.zeros((len(window), 49, 3), np.float16)
    kp_3d = np.zeros((len(window), 49, 3), np.float16)
    theta = np.zeros((len(window), 85), np.float16)
    for row, frame in enumerate(window):
        joints = convert_kps(database["joints2D"][frame : frame + 1], spec.joints2d, "spin")[0]
        for joint in range(len(joints)):
            x, y = joints[joint, :2]
            if not spec.crop_pixels:
                cx, cy, width, height = database["bbox"][frame]
                x, y = (x - cx) * 224 / (1.2 * width) + 112, (y - cy) * 224 / (1.2 * height) + 112
            joints[joint, :2] = 2 * x / 224 - 1, 2 * y / 224 - 1
        kp_2d[row] = joints
        if spec.has_3d:
            kp_3d[row] = database["joints3D"][frame]
        theta[row, 0] = 1
        if spec.has_smpl:
            theta[row, 3:] = np.concatenate([database["pose"][frame], database["shape"][frame]])
    middle = len(window) // 2
    targets = {"kp_2d": kp_2d[middle]}
    if spec.has_3d:
        targets |= {"kp_3d": kp_3d[middle], "theta": theta[middle]}
        targets |= {"w_3d": np.ones(()), "w_smpl": np.full((), float(spec.has_smpl))}
    repeated = {name: np.stack([value] * 3).astype(np.float32) for name, value in targets.items()}
    return {name: torch.from_numpy(value) for name, value in {"features": features, **repeated}.items()}


# ------------------------------------------------------------------------ metrics and smoothing


def pa_mpjpe(pred: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Error after similarity alignment, one pose (J, 3) after the other: (n, J, 3) twice -> (n,)."""
    errors = []
    for p, g in zip(pred.astype(np.float64), target.astype(np.float64)):
        p_mean, g_mean = p.mean(axis=0), g.mean(axis=0)
        x, y = (p - p_mean).T, (g - g_mean).T
        k = x @ y.T
        u, _, vt = np.linalg.svd(k)
        z = np.eye(3)
        z[2, 2] = np.sign(np.linalg.det(u @ vt))
        rotation = vt.T @ z @ u.T
        scale = np.trace(rotation @ k) / (x**2).sum()
        aligned = scale * (rotation @ x).T + g_mean
        errors.append(np.mean(np.linalg.norm(aligned - g, axis=1)))
    return np.array(errors)


def acceleration_error(pred: np.ndarray, target: np.ndarray) -> np.ndarray:
    """(n, J, 3) twice -> (n - 2,), frame by frame."""
    errors = []
    for t in range(1, len(pred) - 1):
        a = pred[t - 1] - 2 * pred[t] + pred[t + 1]
        b = target[t - 1] - 2 * target[t] + target[t + 1]
        errors.append(np.mean(np.linalg.norm(a - b, axis=1)))
    return np.array(errors)


@torch.no_grad()
def vertex_error(body: BodyData, pred: np.ndarray, pose: np.ndarray, betas: np.ndarray) -> np.ndarray:
    """Mean distance of predicted (n, V, 3) and true vertices (n,); the body model is built for the video and
    all its meshes are held."""
    smpl = SMPL(body)
    rotmat = axis_angle_to_rotmat(torch.from_numpy(pose).reshape(-1, 24, 3))
    truth = torch.cat(
        [mesh(smpl, *part)[0] for part in zip(torch.from_numpy(betas).split(5000), rotmat.split(5000))]
    )
    return np.linalg.norm(pred - truth.numpy(), axis=2).mean(axis=1)


def slerp_filter(rotmats: np.ndarray, ratio: float = 0.3) -> np.ndarray:
    """Recursive smoothing of (T, J, 3, 3), joint by joint and frame by frame."""
    smoothed = np.empty(rotmats.shape)
    for joint in range(rotmats.shape[1]):
        state = None
        for t in range(len(rotmats)):
            x, y, z, w = Rotation.from_matrix(rotmats[t, joint]).as_quat()
            new = np.array([w, x, y, z])
            state = new if state is None else _slerp(state, new, ratio)
            smoothed[t, joint] = Rotation.from_quat(np.r_[state[1:], state[:1]]).as_matrix()
    return smoothed


def _slerp(start: np.ndarray, end: np.ndarray, ratio: float) -> np.ndarray:
    dot = float(start @ end)
    if dot < 0:
        end, dot = -end, -dot
    if abs(dot - 1) < 4 * np.finfo(float).eps:
        return start
    angle = np.arccos(min(dot, 1.0))
    mixed = (np.sin((1 - ratio) * angle) * start + np.sin(ratio * angle) * end) / np.sin(angle)
    return mixed / np.linalg.norm(mixed)

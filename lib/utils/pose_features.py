"""Per-frame SMPL estimates of a track -> the static features of the ``poses`` extractor.

A feature is a robust mean over time of the estimate, as the regressor's state (6D pose, betas, crop camera),
and how far the frame's own rotations are from it. The mean is what the regressor starts from.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from .geometry import rotmat_to_rot6d

POSE_FEATURE_SIZE = 144 + 10 + 3 + 144
SIGMA = 2.0  # steps of 1/30 s, of the Gaussian weights of the mean
PEAK = 0.9
"""Scale of the crop camera that a person is normally seen with."""
_FAR = 0.35  # 6D distance from which on a frame counts less: about 14 degrees
_ROUNDS = 3
_AMPLIFIED = 4.0  # what is left has about the size of a rotation then
_BLOCK, _FASTEST = 1024, 240.0  # frames at once; per second, beyond which means are over fewer of a second
POSE_FINGERPRINT = hashlib.blake2b(
    f"poses 2 {SIGMA} {PEAK} {_FAR} {_ROUNDS} {_AMPLIFIED}".encode(), digest_size=8
).hexdigest()
"""There are no weights: the definition tells these features from others."""


def robust_mean(
    values: Float[Tensor, "*batch t j d"], sigma: float = SIGMA, margin: int = 0
) -> Float[Tensor, "*batch t-2*{margin} j d"]:
    """Means over time of vectors, Gaussian weights, frames far from the rest left out.

    Iteratively reweighted with the weights ``1 / (1 + (distance / far)²)`` of Cauchy's distribution; the ends
    are repeated. Fast motion is far from its mean, too, and so is smoothed over a shorter time. The
    ``margin`` frames at either end are looked at, and get no mean.
    """
    reach, length = int(3 * sigma), values.shape[-3]
    offsets = torch.arange(-reach, reach + 1, device=values.device)
    frames = torch.arange(margin, length - margin, device=values.device)
    index = (frames[:, None] + offsets).clamp(0, length - 1)
    windows = values[..., index, :, :]  # (..., T, W, J, D)
    weights = torch.exp(-0.5 * (offsets / sigma) ** 2).to(values)[:, None]
    near = min(reach, int(2 * sigma))  # up to that many wrong frames in a row are outvoted
    mean = _median(windows[..., reach - near : reach + near + 1, :, :].unbind(dim=-3))
    for _ in range(_ROUNDS):
        square = ((windows - mean[..., None, :, :]) ** 2).sum(-1)
        chosen = weights / (1 + square / _FAR**2)
        mean = (chosen[..., None] * windows).sum(-3) / chosen.sum(-2)[..., None]
    return mean


def _median(values: Sequence[Tensor]) -> Tensor:
    """Median, number by number, of an odd count of tensors: sorted by exchanging neighbours, which is ten
    times as fast as ``torch.median`` over a dimension of nine."""
    ordered, count = list(values), len(values)
    for turn in range(count):
        for i in range(turn % 2, count - 1, 2):
            a, b = ordered[i : i + 2]
            ordered[i : i + 2] = torch.minimum(a, b), torch.maximum(a, b)
    return ordered[count // 2]


def pose_features(
    rotmat: Float[Tensor, "*batch t 24 3 3"],
    betas: Float[Tensor, "*batch t 10"],
    cam: Float[Tensor, "*batch t 3"],
    sigma: float = SIGMA,
    margin: int = 0,
) -> Float[Tensor, "*batch t-2*{margin} 301"]:
    """Estimates of consecutive frames -> static features.

    Args:
        rotmat: the root's in the camera's frame.
        cam: crop camera.
        sigma: frames.
        margin: frames at either end that are looked at only.
    """
    pose = rotmat_to_rot6d(rotmat)
    mean = robust_mean(pose, sigma, margin)
    calm = robust_mean(torch.cat([betas, cam], -1)[..., None, :], 2 * sigma, margin)
    own = pose[..., margin : pose.shape[-3] - margin, :, :]
    return torch.cat([mean.flatten(-2), calm.flatten(-2), _AMPLIFIED * (own - mean).flatten(-2)], -1)


def track_features(
    rotmat: Float[Tensor, "t 24 3 3"], betas: Float[Tensor, "t 10"], cam: Float[Tensor, "t 3"], fps: float
) -> Float[Tensor, "t 301"]:
    """:func:`pose_features` of a whole track at any frame rate, block by block."""
    sigma = SIGMA * min(fps, _FASTEST) / 30
    reach, length = int(6 * sigma), len(rotmat)
    parts = []
    for start in range(0, length, _BLOCK):
        index = torch.arange(start - reach, min(start + _BLOCK, length) + reach, device=rotmat.device)
        index = index.clamp(0, length - 1)
        parts.append(pose_features(rotmat[index], betas[index], cam[index], sigma, reach))
    return torch.cat(parts)


def bridge(values: Float[Tensor, " *shape"], seen: Bool[Tensor, "*batch t"]) -> Float[Tensor, " *shape"]:
    """Values (*batch, t, …) with those of frames that were not seen interpolated linearly; at the ends
    the nearest that was seen is repeated. Clips without any seen frame stay as they are."""
    length = seen.shape[-1]
    time = torch.arange(length, device=seen.device)
    before = torch.where(seen, time, -1).cummax(-1)[0]
    after = torch.where(seen, time, length).flip(-1).cummin(-1)[0].flip(-1)
    before, after = torch.where(before < 0, after, before), torch.where(after >= length, before, after)
    before, after = (torch.where(seen.any(-1, keepdim=True), part, time) for part in (before, after))
    weight = ((time - before) / (after - before).clamp(min=1)).to(values)
    shape = (*seen.shape, *[1] * (values.dim() - seen.dim()))

    def rows(index: Tensor) -> Tensor:
        return values.gather(seen.dim() - 1, index.view(shape).expand_as(values))

    return torch.lerp(rows(before), rows(after), weight.view(shape))

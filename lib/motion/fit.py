"""Fit pose, shape and camera of a whole track to its 33 landmarks, starting from what TCMR says.

The counterpart of VIBE's temporal SMPLify for BlazePose landmarks. Only the fit knows the whole track, the
pixels and the perspective; only TCMR knows what poses people take. So the energy stays close to TCMR in
everything that the landmarks leave open.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from ..models.landmark_body import LandmarkBody
from ..utils.crops import CROP_SCALE
from ..utils.geometry import default_focal, rot6d_to_rotmat, rotmat_to_rot6d
from ..utils.smoothing import gaussian
from .camera import see, weak_to_perspective
from .fit_energy import DEFAULTS, HIPS, TURNS, Energy, FitOptions, Observed, Shared
from .fit_solver import fit_constants, minimise

# How far a landmark can be trusted to be a point of the body: the face and the hands' are rough.
_TRUST = [0.25] * 11 + [1.0] * 6 + [0.3] * 6 + [1.0] * 6 + [0.6] * 4


class Fitted(NamedTuple):
    """A fitted track, NumPy float32."""

    rotmat: Float[np.ndarray, "t 24 3 3"]  # the root's in camera axes
    betas: Float[np.ndarray, " 10"]
    transl: Float[np.ndarray, "t 3"]  # metres: a vertex of the posed body is seen at vertex + transl
    joints3d: Float[np.ndarray, "t 49 3"]  # metres, without transl
    joints2d: Float[np.ndarray, "t 49 2"]  # pixels
    energy: tuple[float, float]  # at the start and at the end
    focal: float  # pixels; the camera looks through the image's middle


BLOCK, OVERLAP = 160, 32
"""Frames at 30 fps of the blocks that are fitted at once, and that neighbouring blocks share."""
_CHUNK, _CHUNKS = 30, 3  # frames at 30 fps, and number, of the pieces that give the constants of a track
_AT_ONCE = 512  # frames in memory on a CPU
MIN_VISIBILITY = 0.3
MIN_LANDMARKS = 8
"""A frame can be used if that many landmarks are seen, and a track if a third of its frames can."""


def usable_frames(visibility: Float[np.ndarray, "t 33"]) -> Bool[np.ndarray, " t"]:
    """Frames with enough landmarks for a fit."""
    usable: np.ndarray = (visibility > MIN_VISIBILITY).sum(1) >= MIN_LANDMARKS
    return usable


def block_starts(frames: int, length: int, overlap: int) -> Int[np.ndarray, " blocks"]:
    """First frames of blocks of ``length`` frames that cover a track and share ``overlap`` frames or more."""
    count = 1 if length >= frames else 1 + -(-(frames - length) // (length - overlap))
    return np.linspace(0, frames - length, count).round().astype(int)


def seam_weights(
    starts: Int[np.ndarray, " blocks"], length: int, frames: int
) -> Float[np.ndarray, "blocks length"]:
    """How much of each frame comes from each block; over the middle half of what two blocks
    share, one fades into the next. Weights of a frame sum to 1."""
    place = np.arange(length)
    weights = np.ones((len(starts), length), np.float32)
    for k, (start, following) in enumerate(itertools.pairwise(starts)):
        shared = start + length - following
        fade = ((place[:shared] + 0.5) / shared * 2 - 0.5).clip(0, 1)
        weights[k + 1, :shared] *= fade
        weights[k, length - shared :] *= 1 - fade
    total = np.zeros(frames, np.float32)  # more than 1 where three short blocks meet
    for start, weight in zip(starts, weights):
        total[start : start + length] += weight
    return weights / np.stack([total[start : start + length] for start in starts])


class TrackFit:
    """A track's arrays, and the energy of any of its stretches."""

    def __init__(
        self,
        body: LandmarkBody,
        rotmat: Float[np.ndarray, "t 24 3 3"],
        betas: Float[np.ndarray, "n 10"],
        guess: Float[np.ndarray, "t 3"],
        side: Float[np.ndarray, " t"],
        landmarks: tuple[Float[np.ndarray, "t 33 2"], Float[np.ndarray, "t 33"], Float[np.ndarray, "t 33 3"]],
        usable: Bool[np.ndarray, " t"],
        lens: tuple[float, float, float],
        fps: float,
        options: FitOptions,
    ) -> None:
        focal, cx, cy = lens
        xy, visibility, world = landmarks
        self.body, self.lens, self.fps, self.options = body, lens, fps, options
        self.device = body.joint_template.device
        self.rotmat = np.asarray(rotmat, np.float32)
        if options.smooth:
            blurred = torch.from_numpy(gaussian(self.rotmat, options.smooth * fps))
            self.rotmat = rot6d_to_rotmat(rotmat_to_rot6d(blurred)).numpy()
        self.rays = ((xy - np.array([cx, cy])) / focal).astype(np.float32)
        self.unit = (0.01 * side / focal).astype(np.float32)[:, None, None]
        self.world = world - world[:, HIPS].mean(1, keepdims=True)
        self.weights = np.where(usable[:, None], np.array(_TRUST, np.float32) * visibility**2, 0)
        self.rays[~usable], self.unit[~usable], self.world[~usable] = 0, 0.01, 0
        self.guess = np.asarray(guess, np.float32)
        prior = torch.from_numpy(np.median(betas, 0).astype(np.float32)).to(self.device)
        self.shared = Shared(prior, torch.zeros(3, device=self.device), torch.zeros(1, device=self.device))

    @torch.no_grad()
    def energy(self, starts: Int[np.ndarray, " b"], length: int) -> Energy:
        """Of blocks of ``length`` frames that begin at ``starts``."""
        rows = np.asarray(starts)[:, None] + np.arange(length)
        parts = (self.rotmat, self.rays, self.unit, self.world, self.weights, self.guess)
        seen = Observed(*(torch.from_numpy(part[rows]).to(self.device) for part in parts))
        energy = Energy(self.body, seen, self.shared.betas, self.fps, self.options)
        hips = energy.pose(torch.zeros(*rows.shape, TURNS, device=self.device), self.shared)[3]
        energy.seen = seen._replace(guess=seen.guess + hips)
        return energy

    @torch.no_grad()
    def place(self, states: Float[np.ndarray, "t 63"], shared: Shared, energy: tuple[float, float]) -> Fitted:
        """The bodies of states; ``energy``: at the start and at the end."""
        parts: list[list[np.ndarray]] = []
        for start in range(0, len(states), _AT_ONCE):
            x = torch.from_numpy(states[None, start : start + _AT_ONCE]).to(self.device)
            block = self.energy(np.array([start]), x.shape[1])
            posed, points, _, hips = block.pose(x[..., :TURNS], shared)
            parts.append([v[0].cpu().numpy() for v in (posed, points, x[..., TURNS:] - hips)])
        rotmat, joints, transl = (np.concatenate(values) for values in zip(*parts))
        focal, cx, cy = self.lens
        joints2d = see(joints, transl[:, None], focal, (2 * cx, 2 * cy)).astype(np.float32)
        return Fitted(rotmat, shared.betas.cpu().numpy(), transl, joints, joints2d, energy, focal)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Many products of small matrices: several threads mostly wait for each other, by spinning."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@_one_thread()
def fit_track(
    body: LandmarkBody,
    rotmat: Float[np.ndarray, "t 24 3 3"],
    theta: Float[np.ndarray, "t 85"],
    boxes: Float[np.ndarray, "t 4"],
    landmarks: tuple[Float[np.ndarray, "t 33 2"], Float[np.ndarray, "t 33"], Float[np.ndarray, "t 33 3"]],
    *,
    width: int,
    height: int,
    fps: float,
    focal: float | None = None,
    options: FitOptions = DEFAULTS,
    progress: Callable[[int], object] | None = None,
) -> Fitted | None:
    """Fit one person's track of consecutive frames.

    Args:
        body: on the device to use, of the body model that TCMR was trained with.
        rotmat, theta: TCMR's; theta: crop camera, pose, betas.
        boxes: cx, cy, w, h px, unscaled, that the crop camera refers to.
        landmarks: xy in px, visibility, world in metres, flips undone.
        width, height: of the image, px.
        fps: frames per second; smoothness is in seconds.
        focal: px; by default :func:`default_focal`.
        progress: called with the number of frames just finished.

    Returns:
        the fitted track, or None where the landmarks are of no use. Memory does not grow with the track
        beyond the arrays given and returned: long tracks are fitted in blocks that overlap.
    """
    frames = len(rotmat)
    lens = focal or default_focal(width, height), width / 2, height / 2
    xy, visibility, world = (np.asarray(part, np.float32) for part in landmarks)
    finite = np.isfinite(np.concatenate([xy, visibility[..., None], world], -1)).all((1, 2))
    usable = finite & usable_frames(visibility)
    if 3 * usable.sum() < frames:
        return None
    scaled = np.concatenate([boxes[:, :2], CROP_SCALE * boxes[:, 2:]], 1)
    guess = weak_to_perspective(theta[:, :3], scaled, lens[0], width, height)
    seen = xy, visibility, world
    track = TrackFit(body, rotmat, theta[:, 75:], guess, boxes[:, 2], seen, usable, lens, fps, options)

    def count(at_30_fps: int) -> int:
        return min(frames, max(3, round(at_30_fps * fps / 30)))

    chunk = count(_CHUNK)
    starts = np.linspace(0, frames - chunk, min(_CHUNKS, 1 + frames // (2 * chunk))).round().astype(int)
    energy = track.energy(starts, chunk)
    shared = fit_constants(energy, energy.start(track.shared), track.shared, options.iterations)

    length, done, first, last = count(BLOCK), 0, 0.0, 0.0
    starts = block_starts(frames, length, count(OVERLAP))
    weights = seam_weights(starts, length, frames)
    states = np.zeros((frames, TURNS + 3), np.float32)
    together = max(1, _AT_ONCE // length) if track.device.type == "cpu" else 64
    for group in range(0, len(starts), together):
        chosen = starts[group : group + together]
        energy = track.energy(chosen, length)
        begin = energy.start(shared)
        x = minimise(energy, begin, shared, options.iterations)
        with torch.no_grad():
            first += float(energy(energy.start(track.shared), track.shared).sum())
            last += float(energy(x, shared).sum())
        for start, weight, block in zip(chosen, weights[group:], x.cpu().numpy()):
            states[start : start + length] += weight[:, None] * block
        if progress is not None:
            reached = int(chosen[-1]) + length
            progress(reached - done)
            done = reached
    return track.place(states, shared, (first, last)) if last <= first else None

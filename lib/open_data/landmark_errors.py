"""Statistics of the errors of a landmark network, real or simulated. Pure functions.

Words: "bias" is the mean of an error over a clip, "white" what changes from frame to frame (from second
differences), "slow" the rest; "depth" is along the camera's axis, "lateral" one axis across it; "aligned" is
after the best rotation, scale and shift of each frame.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from ..landmarks.features import LIMB_LANDMARKS, landmark_boxes
from ..landmarks.flips import repair_flips
from ..utils import metrics

QUANTILES = (25, 50, 75, 90, 95, 99)
LAGS = (1, 5, 15)
BANDS = (0.0, 1.0, 3.0, 7.0, 15.1)  # Hz, edges of the bands of a spectrum
FPS = 30.0
FAR = {"depth": 200.0, "yaw": 30.0}  # mm, degrees: beyond is told as a share
# Of the twelve limb joints (right ankle to left ankle, right wrist to left wrist).
GROUPS = {
    "all": list(range(12)),
    "torso": [2, 3, 8, 9],
    "elbows, knees": [1, 4, 7, 10],
    "wrists, ankles": [0, 5, 6, 11],
}
HIPS = [2, 3]
BONES = {  # ends of the bones of both sides
    "thigh": [(2, 1), (3, 4)],
    "shin": [(1, 0), (4, 5)],
    "upper arm": [(8, 7), (9, 10)],
    "forearm": [(7, 6), (10, 11)],
    "hips": [(2, 3)],
    "shoulders": [(8, 9)],
    "trunk sides": [(2, 8), (3, 9)],
}
ENDS = np.array([ends for pairs in BONES.values() for ends in pairs])
LIMBS = slice(0, 8)  # of the bones: arms and legs
WRONG_DEPTH = 0.6  # of a bone's length: its depth component is off by more, or …
WRONG_SIGN = 0.3  # … has the wrong sign and is off by more than this
OBLIQUE = 0.4  # of a bone's length in depth: the bones whose depth ratio is measured
SEEN = (0.0, 0.5, 0.9, 0.99, 1.001)  # edges of bins of visibility
MISS_2D = (0.0, 1.0, 2.0, 4.0, 8.0, np.inf)  # … of 2D error in % of the box side
MISS_3D = (0.0, 50.0, 100.0, 200.0, 400.0, np.inf)  # … of aligned 3D error in mm


@dataclass(frozen=True)
class Clip:
    """Landmarks of one person, as seen, and where the twelve limb joints truly are.

    ``xy``, ``true_xy`` px; ``world`` m; ``true_world`` m in camera axes, any origin. ``step`` frames are
    1/30 s.
    """

    xy: Float[np.ndarray, "t 33 2"]
    visibility: Float[np.ndarray, "t 33"]
    world: Float[np.ndarray, "t 33 3"]
    true_xy: Float[np.ndarray, "t 12 2"]
    true_world: Float[np.ndarray, "t 12 3"]
    step: int = 1


@dataclass(frozen=True)
class Errors:
    """Errors of the limb joints of one clip at 30 fps.

    ``image`` in box sides; ``raw`` and ``aligned`` m about the middle of the hips, and about the centroid
    after the best rotation and scale; ``turn`` yaw, pitch, roll of the best rotation from truth to landmarks
    in degrees; ``scale`` of the landmarks over the truth; ``bones``, ``true_bones`` aligned bone vectors in
    lengths of the true bone.
    """

    image: Float[np.ndarray, "t 12 2"]
    raw: Float[np.ndarray, "t 12 3"]
    aligned: Float[np.ndarray, "t 12 3"]
    turn: Float[np.ndarray, "t 3"]
    scale: Float[np.ndarray, " t"]
    bones: Float[np.ndarray, "t 12 3"]
    true_bones: Float[np.ndarray, "t 12 3"]
    visibility: Float[np.ndarray, "t 12"]


def errors_of(clip: Clip) -> Iterator[Errors]:
    """The errors after the flip repair, once for each phase of the sampling to 30 fps."""
    xy, visibility, world = repair_flips(clip.xy, clip.visibility, clip.world)
    side = landmark_boxes(xy)[:, 2]
    for phase in range(clip.step):
        take = slice(phase, None, clip.step)
        seen, truth = world[take, LIMB_LANDMARKS].astype(float), clip.true_world[take].astype(float)
        aligned = metrics.similarity_align(seen, truth)
        rotation, scale = similarity(truth, seen)
        length = np.linalg.norm(_bones(truth), axis=-1, keepdims=True)
        yield Errors(
            image=(xy[take, LIMB_LANDMARKS] - clip.true_xy[take]) / side[take, None, None],
            raw=_about_hips(seen) - _about_hips(truth),
            aligned=aligned - truth,
            turn=turn_angles(rotation),
            scale=scale,
            bones=_bones(aligned) / length,
            true_bones=_bones(truth) / length,
            visibility=visibility[take, LIMB_LANDMARKS],
        )


def similarity(
    source: Float[np.ndarray, "n j 3"], target: Float[np.ndarray, "n j 3"]
) -> tuple[Float[np.ndarray, "n 3 3"], Float[np.ndarray, " n"]]:
    """Rotations and scales that take the poses ``source`` best to ``target``."""
    x, y = source - source.mean(1, keepdims=True), target - target.mean(1, keepdims=True)
    moved = metrics.similarity_align(x, y)
    scale = np.sqrt((moved**2).sum((1, 2)) / (x**2).sum((1, 2)))
    # ``moved`` is scale·R·x exactly, and x spans space, so that least squares give R back.
    rotation = np.swapaxes(np.linalg.pinv(x) @ moved, 1, 2) / scale[:, None, None]
    return rotation, scale


def turn_angles(rotation: Float[np.ndarray, "n 3 3"]) -> Float[np.ndarray, "n 3"]:
    """Yaw, pitch, roll in degrees with rotation = Ry(yaw)·Rx(pitch)·Rz(roll), camera axes."""
    yaw = np.arctan2(rotation[:, 0, 2], rotation[:, 2, 2])
    pitch = np.arcsin(np.clip(-rotation[:, 1, 2], -1, 1))
    roll = np.arctan2(rotation[:, 1, 0], rotation[:, 1, 1])
    angles: np.ndarray = np.degrees(np.stack([yaw, pitch, roll], 1))
    return angles


def _about_hips(joints: np.ndarray) -> np.ndarray:
    moved: np.ndarray = joints - joints[:, HIPS].mean(1, keepdims=True)
    return moved


def _bones(joints: np.ndarray) -> np.ndarray:
    vectors: np.ndarray = joints[:, ENDS[:, 1]] - joints[:, ENDS[:, 0]]
    return vectors


def white_rms(errors: Sequence[Float[np.ndarray, "_ ..."]]) -> float:
    """Standard deviation of noise that is new in each frame: of second differences, over √6."""
    seconds = np.concatenate([(e[:-2] - 2 * e[1:-1] + e[2:]).ravel() for e in errors])
    return float(np.sqrt((seconds**2).mean() / 6))


def parts(errors: Sequence[Float[np.ndarray, "_ ..."]]) -> dict[str, float]:
    """rms of bias, slow and white part, and autocorrelation about each clip's mean."""
    centred = [e - e.mean(0, keepdims=True) for e in errors]
    bias = np.concatenate([e.mean(0).ravel() for e in errors])
    white = white_rms(errors)
    about = float(np.mean([(c**2).mean() for c in centred]))
    out = {"bias": float(np.sqrt((bias**2).mean())), "white": white}
    out["slow"] = float(np.sqrt(max(about - white**2, 0.0)))
    for lag in LAGS:
        product = np.mean([(c[lag:] * c[:-lag]).mean() for c in centred if len(c) > lag])
        out[f"autocorrelation {lag}"] = float(product / max(about, 1e-12))
    return out | spectrum(centred)


def spectrum(centred: Sequence[Float[np.ndarray, "_ ..."]]) -> dict[str, float]:
    """Shares of the power of errors about their means in each of :data:`BANDS`."""
    power = np.zeros(len(BANDS) - 1)
    for error in centred:
        each = (np.abs(np.fft.rfft(error, axis=0)) ** 2).reshape(len(error) // 2 + 1, -1).sum(1) / len(error)
        each[1 : (len(error) + 1) // 2] *= 2  # all but the constant and the fastest stand for two
        band = np.digitize(np.fft.rfftfreq(len(error), 1 / FPS), BANDS) - 1
        power += np.bincount(band, each, len(power))
    shares = power / max(power.sum(), 1e-12)
    return {f"{a:g} to {b:.0f} Hz": float(v) for a, b, v in zip(BANDS, BANDS[1:], shares)}


def quantiles(values: np.ndarray) -> dict[str, float]:
    """Of sizes: {"q50": median, …}."""
    return {f"q{q}": float(v) for q, v in zip(QUANTILES, np.percentile(values, QUANTILES))}


def image_errors(clips: Sequence[Errors], joints: list[int]) -> dict[str, float]:
    """Distances in % of the box side, and the parts of one coordinate."""
    distance = np.concatenate([np.linalg.norm(c.image[:, joints], axis=-1).ravel() for c in clips])
    split = parts([c.image[:, joints] for c in clips])
    return quantiles(100 * distance) | _scaled(split, 100)


def world_errors(clips: Sequence[Errors], joints: list[int], kind: str) -> dict[str, Any]:
    """Lateral (one axis) and depth errors in mm, of ``kind`` "raw" or "aligned"."""
    errors = [getattr(c, kind)[:, joints] for c in clips]
    out: dict[str, Any] = {}
    for name, axes in (("lateral", slice(0, 2)), ("depth", slice(2, 3))):
        chosen = [e[..., axes] for e in errors]
        size = 1000 * np.abs(np.concatenate([e.ravel() for e in chosen]))
        rms = {"rms": float(np.sqrt((size**2).mean()))}
        out[name] = quantiles(size) | rms | _scaled(parts(chosen), 1000)
        out[name]["far"] = float((size > FAR["depth"]).mean())
    out["depth / lateral"] = out["depth"]["rms"] / out["lateral"]["rms"]
    return out


def _scaled(split: dict[str, float], unit: float) -> dict[str, float]:
    return {name: value * (unit if name in ("bias", "white", "slow") else 1) for name, value in split.items()}


def body_turn(clips: Sequence[Errors]) -> dict[str, Any]:
    """Best rotation (degrees) and scale per frame: rms of the clips' means and what varies about them."""
    out: dict[str, Any] = {}
    for i, name in enumerate(("yaw", "pitch", "roll")):
        angles = [c.turn[:, i] for c in clips]
        size = np.abs(np.concatenate(angles))
        out[name] = quantiles(size) | parts(angles) | {"far": float((size > FAR["yaw"]).mean())}
        out[name]["mean"] = float(np.mean([c.turn[:, i].mean() for c in clips]))
    logs = [np.log(c.scale) for c in clips]
    out["scale"] = parts([v - np.mean(np.concatenate(logs)) for v in logs])
    out["scale"]["mean"] = float(np.exp(np.concatenate(logs).mean()))
    return out


def bone_errors(clips: Sequence[Errors]) -> dict[str, Any]:
    """Errors of aligned bone vectors in % of the bone's length, and by how much their depth is flattened:
    slope of seen on true depth component."""
    out: dict[str, Any] = {}
    first = 0
    for name, pairs in BONES.items():
        own = slice(first, first + len(pairs))
        first += len(pairs)
        seen, true = [c.bones[:, own] for c in clips], [c.true_bones[:, own] for c in clips]
        x = np.concatenate([v[..., 2].ravel() for v in true])
        y = np.concatenate([v[..., 2].ravel() for v in seen])
        out[name] = {
            "depth slope": float((x * y).sum() / (x * x).sum()),
            "lateral": _scaled(parts([a[..., :2] - b[..., :2] for a, b in zip(seen, true)]), 100),
            "depth": _scaled(parts([a[..., 2:] - b[..., 2:] for a, b in zip(seen, true)]), 100),
        }
    return out


def wrong_depths(clips: Sequence[Errors]) -> dict[str, Any]:
    """Limb bones whose depth is plainly wrong: share of frames, and for how many frames (at 30 fps) in a row;
    and the quantiles of seen over true depth of oblique bones."""
    shares, ratios = [], []
    runs: list[int] = []
    for clip in clips:
        seen, true = clip.bones[:, LIMBS, 2], clip.true_bones[:, LIMBS, 2]
        wrong = np.abs(seen - true) > WRONG_DEPTH
        wrong |= (seen * true < 0) & (np.abs(seen - true) > WRONG_SIGN)
        shares.append(wrong.mean(0))
        for column in wrong.T:
            edges = np.flatnonzero(np.diff(np.r_[False, column, False]))
            runs.extend(edges[1::2] - edges[::2])
        oblique = np.abs(true) > OBLIQUE
        ratios.append((seen / np.where(oblique, true, 1))[oblique])
    ratio = np.concatenate(ratios)
    share = np.stack(shares)
    per_bone = share.ravel()
    return {
        "share": float(share.mean()),
        **{name: float(share[:, 2 * i : 2 * i + 2].mean()) for i, name in enumerate(list(BONES)[:4])},
        "bones ever wrong": float((per_bone > 0).mean()),
        "bones half the clip wrong": float((per_bone > 0.5).mean()),
        "frames in a row": quantiles(np.array(runs or [0])),
        "seen / true depth": {f"q{q}": float(np.percentile(ratio, q)) for q in (1, 5, 10, *QUANTILES)},
    }


def visibilities(clips: Sequence[Errors]) -> dict[str, Any]:
    """Mean visibility in bins of the errors, and mean errors in bins of visibility, with the bins' shares."""
    seen = np.concatenate([c.visibility.ravel() for c in clips])
    image = 100 * np.concatenate([np.linalg.norm(c.image, axis=-1).ravel() for c in clips])
    world = 1000 * np.concatenate([np.linalg.norm(c.aligned, axis=-1).ravel() for c in clips])
    return {
        "mean": float(seen.mean()),
        "by 2D error, %": _binned(image, MISS_2D, {"visibility": seen}),
        "by 3D error, mm": _binned(world, MISS_3D, {"visibility": seen}),
        "of": _binned(seen, SEEN, {"2D error, %": image, "3D error, mm": world}),
    }


def _binned(
    by: np.ndarray, edges: Sequence[float], values: dict[str, np.ndarray]
) -> dict[str, dict[str, float]]:
    """Name of each bin that is not empty -> its share of all, and mean values in it."""
    out = {}
    for low, high in itertools.pairwise(edges):
        chosen = (by >= low) & (by < high)
        if chosen.any():
            means = {f"mean {name}": float(v[chosen].mean()) for name, v in values.items()}
            out[f"{low:g} to {high:g}"] = {"share": float(chosen.mean()), **means}
    return out


def error_statistics(errors: Sequence[Errors]) -> dict[str, Any]:
    """All of the above, as nested dicts of numbers."""
    return {
        "2D": {name: image_errors(errors, joints) for name, joints in GROUPS.items()},
        "raw": {name: world_errors(errors, joints, "raw") for name, joints in GROUPS.items()},
        "aligned": {name: world_errors(errors, joints, "aligned") for name, joints in GROUPS.items()},
        "turn": body_turn(errors),
        "bones": bone_errors(errors),
        "wrong depth": wrong_depths(errors),
        "visibility": visibilities(errors),
    }

"""Measure how the landmark network errs on real video, and how the simulated landmarks do, side by side.

    python -m lib.data_utils.open_assets --views --heavy
    python scripts/measure_noise.py [--motions FOLDER] [--out noise] [--real heavy --real full]

Real: the single-person clip of four calibrated cameras; the truth are the heavy network's landmarks,
triangulated (see ``make_pose2sim_db.py``). Simulated: clips of the same length from ``lib.data_utils.simulate``.
Both after the flip repair, at 30 fps, on the twelve limb joints. Writes OUT.json and a Markdown table OUT.md.

Words: "bias" is the mean of an error over a clip, "white" what changes from frame to frame (from second
differences), "slow" the rest; "depth" is along the camera's axis, "lateral" one axis across it; "aligned" is
after the best rotation, scale and shift of each frame.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from lib.data_utils.motions import MotionSampler, open_motions
from lib.data_utils.multiview import project, read_qualisys, to_camera
from lib.data_utils.open_assets import asset_path
from lib.data_utils.preprocess import positive_integer
from lib.data_utils.simulate import NoiseModel, Simulator
from lib.demo.video import VideoFile
from lib.models.body import OPEN_DATA, load_body
from lib.models.predict import window_step
from lib.utils import metrics
from lib.utils.errors import run_command
from lib.utils.files import atomic_write
from lib.utils.landmark_features import LIMB_LANDMARKS, landmark_boxes
from lib.utils.landmark_flips import find_flips, repair_flips
from scripts.compare_open import JUMP, heading
from scripts.make_pose2sim_db import limb_targets, track_views

log = logging.getLogger(__name__)

FPS = 30.0
LENGTH = 50  # frames of a simulated clip: as long as the real ones at 30 fps
QUANTILES = (25, 50, 75, 90, 95, 99)
LAGS = (1, 5, 15)
# Of the twelve limb joints (right ankle to left ankle, right wrist to left wrist).
GROUPS = {"torso": [2, 3, 8, 9], "elbows, knees": [1, 4, 7, 10], "wrists, ankles": [0, 5, 6, 11]}
GROUPS = {"all": list(range(12)), **GROUPS}
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
FAINT = (0.0, 0.5, 0.9, 0.99, 1.001)  # edges of bins of visibility
MISS_2D = (0.0, 0.01, 0.02, 0.04, 0.08, 1.0)  # … of 2D error in box sides
MISS_3D = (0.0, 0.05, 0.1, 0.2, 0.4, 4.0)  # … of 3D error in metres


@dataclass(frozen=True)
class Clip:
    """Landmarks of one person, as seen, and where the twelve limb joints truly are.

    ``xy`` (T, 33, 2) px; ``visibility`` (T, 33); ``world`` (T, 33, 3) m; ``true_xy`` (T, 12, 2) px;
    ``true_world`` (T, 12, 3) m in camera axes, any origin; NaN where it isn't known. ``step`` frames are
    1/30 s.
    """

    xy: np.ndarray
    visibility: np.ndarray
    world: np.ndarray
    true_xy: np.ndarray
    true_world: np.ndarray
    step: int = 1


@dataclass(frozen=True)
class Errors:
    """Errors of the limb joints of one clip at 30 fps; arrays are (T, 12, ...).

    ``image`` (…, 2) in box sides; ``raw`` and ``aligned`` (…, 3) m about the middle of the hips, and about
    the centroid after the best rotation and scale; ``turn`` (T, 3) yaw, pitch, roll of the best rotation from
    truth to landmarks in degrees; ``scale`` (T,) of the landmarks over the truth; ``bones``, ``true_bones``
    (T, 12, 3) aligned bone vectors in lengths of the true bone.
    """

    image: np.ndarray
    raw: np.ndarray
    aligned: np.ndarray
    turn: np.ndarray
    scale: np.ndarray
    bones: np.ndarray
    true_bones: np.ndarray
    visibility: np.ndarray


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


def similarity(source: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rotations (n, 3, 3) and scales (n,) that take the poses ``source`` (n, J, 3) best to ``target``."""
    x, y = source - source.mean(1, keepdims=True), target - target.mean(1, keepdims=True)
    moved = metrics.similarity_align(x, y)
    scale = np.sqrt((moved**2).sum((1, 2)) / (x**2).sum((1, 2)))
    # ``moved`` is scale·R·x exactly, and x spans space, so that least squares give R back.
    rotation = np.swapaxes(np.linalg.pinv(x) @ moved, 1, 2) / scale[:, None, None]
    return rotation, scale


def turn_angles(rotation: np.ndarray) -> np.ndarray:
    """Yaw, pitch, roll (n, 3) in degrees with rotation = Ry(yaw)·Rx(pitch)·Rz(roll), camera axes."""
    yaw = np.arctan2(rotation[:, 0, 2], rotation[:, 2, 2])
    pitch = np.arcsin(np.clip(-rotation[:, 1, 2], -1, 1))
    roll = np.arctan2(rotation[:, 1, 0], rotation[:, 1, 1])
    return np.degrees(np.stack([yaw, pitch, roll], 1))


def _about_hips(joints: np.ndarray) -> np.ndarray:
    return joints - joints[:, HIPS].mean(1, keepdims=True)


def _bones(joints: np.ndarray) -> np.ndarray:
    return joints[:, ENDS[:, 1]] - joints[:, ENDS[:, 0]]


def white_rms(errors: Sequence[np.ndarray]) -> float:
    """Standard deviation of noise that is new in each frame: of second differences, over √6."""
    seconds = np.concatenate([(e[:-2] - 2 * e[1:-1] + e[2:]).ravel() for e in errors])
    return float(np.sqrt((seconds**2).mean() / 6))


def parts(errors: Sequence[np.ndarray]) -> dict[str, float]:
    """rms of bias, slow and white part, and autocorrelation about each clip's mean, of (T, …) errors."""
    centred = [e - e.mean(0, keepdims=True) for e in errors]
    bias = np.concatenate([e.mean(0).ravel() for e in errors])
    white = white_rms(errors)
    about = float(np.mean([(c**2).mean() for c in centred]))
    out = {"bias": float(np.sqrt((bias**2).mean())), "white": white}
    out["slow"] = float(np.sqrt(max(about - white**2, 0.0)))
    for lag in LAGS:
        product = np.mean([(c[lag:] * c[:-lag]).mean() for c in centred if len(c) > lag])
        out[f"autocorrelation {lag}"] = float(product / max(about, 1e-12))
    return out


def quantiles(values: np.ndarray) -> dict[str, float]:
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
    out["depth / lateral"] = out["depth"]["rms"] / out["lateral"]["rms"]
    return out


def _scaled(split: dict[str, float], unit: float) -> dict[str, float]:
    return {name: value * (1 if "auto" in name else unit) for name, value in split.items()}


def body_turn(clips: Sequence[Errors]) -> dict[str, Any]:
    """Best rotation (degrees) and scale per frame: rms of the clips' means and what varies about them."""
    out: dict[str, Any] = {}
    for i, name in enumerate(("yaw", "pitch", "roll")):
        out[name] = parts([c.turn[:, i] for c in clips])
        out[name]["mean"] = float(np.mean([c.turn[:, i].mean() for c in clips]))
        out[name]["per clip"] = [round(float(c.turn[:, i].mean()), 1) for c in clips[:8]]
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
    """Limb bones whose depth is plainly wrong: share of frames, durations (frames at 30 fps); and quantiles of
    seen over true depth component, of oblique bones."""
    shares, runs, ratios = [], [], []
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
        "duration": quantiles(np.array(runs)) if runs else None,
        "ratio": {f"q{q}": float(np.percentile(ratio, q)) for q in (1, 5, 10, 25, 50, 75, 90, 95, 99)},
    }


def visibilities(clips: Sequence[Errors]) -> dict[str, Any]:
    """Mean visibility in bins of error, and share and mean error in bins of visibility."""
    faint = np.concatenate([c.visibility.ravel() for c in clips])
    image = np.concatenate([np.linalg.norm(c.image, axis=-1).ravel() for c in clips])
    world = np.concatenate([np.linalg.norm(c.aligned, axis=-1).ravel() for c in clips])
    out: dict[str, Any] = {"mean": float(faint.mean())}
    out |= {
        "visibility by 2D error": _binned(image, faint, MISS_2D),
        "visibility by 3D error": _binned(world, faint, MISS_3D),
        "2D error % by visibility": _binned(faint, 100 * image, FAINT),
        "3D error mm by visibility": _binned(faint, 1000 * world, FAINT),
    }
    return out


def _binned(by: np.ndarray, values: np.ndarray, edges: Sequence[float]) -> dict[str, list[float]]:
    """Name of the bin -> share of all, mean value (NaN if there's none)."""
    out = {}
    for low, high in zip(edges[:-1], edges[1:]):
        chosen = (by >= low) & (by < high)
        mean = float(values[chosen].mean()) if chosen.any() else float("nan")
        out[f"{low:g} to {high:g}"] = [float(chosen.mean()), mean]
    return out


def jumps(clips: Sequence[Clip]) -> dict[str, float]:
    """Before the repair, per second: stretches read as flipped, share of frames, jumps of the hips' yaw."""
    flips = flipped = turned = seconds = frames = 0.0
    for clip in clips:
        found = find_flips(clip.world)
        flips += int((np.diff(np.r_[False, found].astype(int)) > 0).sum())
        flipped, frames = flipped + int(found.sum()), frames + len(found)
        seconds += len(found) / (clip.step * FPS)
        turn, truth = (
            np.abs(np.angle(np.exp(1j * (yaw[clip.step :] - yaw[: -clip.step]))))
            for yaw in (heading(clip.world[:, LIMB_LANDMARKS]), heading(clip.true_world))
        )
        turned += int(((np.degrees(turn) > JUMP) & (np.degrees(truth) <= JUMP)).sum()) / clip.step
    return {"flips / s": flips / seconds, "frames flipped": flipped / frames, "yaw jumps / s": turned / seconds}


def statistics(clips: Sequence[Clip]) -> dict[str, Any]:
    """All of it, as nested dicts of numbers."""
    errors = [e for clip in clips for e in errors_of(clip)]
    return {
        "frames": sum(len(e.scale) for e in errors),
        "clips": len(clips),
        "2D": {name: image_errors(errors, joints) for name, joints in GROUPS.items()},
        "raw": {name: world_errors(errors, joints, "raw") for name, joints in GROUPS.items()},
        "aligned": {name: world_errors(errors, joints, "aligned") for name, joints in GROUPS.items()},
        "turn": body_turn(errors),
        "bones": bone_errors(errors),
        "wrong depth": wrong_depths(errors),
        "visibility": visibilities(errors),
        "jumps": jumps(clips),
    }


def real_clips(networks: Sequence[str], threads: int) -> dict[str, list[Clip]]:
    """The four views as each network sees them."""
    folder = asset_path("views")
    cameras = read_qualisys(folder / "Calib.qca.txt")
    step = window_step(float(VideoFile(folder / f"{cameras[0].name}.mp4").info.fps))
    tracks = {n: track_views(folder, cameras, n, threads) for n in {*networks, "heavy"}}
    joints, cameras = limb_targets(tracks["heavy"], cameras)
    return {
        name: [
            Clip(t.xy, t.visibility, t.world, project(joints, camera), to_camera(joints, camera), step)
            for t, camera in zip(tracks[name], cameras)
        ]
        for name in networks
    }


def simulated_clips(motions: str, noise: NoiseModel, count: int, seed: int) -> list[Clip]:
    """Clips of the training motions, drawn as for training."""
    sampler = MotionSampler(open_motions(motions)["train"], np.random.default_rng(seed))
    generator = torch.Generator().manual_seed(seed)
    simulator, clips = Simulator(load_body(OPEN_DATA), noise, generator), []
    for _ in tqdm(range(count), desc="simulated", unit="clip"):
        rotmat, trans = sampler.sample(1, LENGTH)
        betas = torch.randn(1, 10, generator=generator).clamp(-2.5, 2.5)
        one = simulator(rotmat, trans, betas)
        arrays = (one.xy, one.visibility, one.world, one.true_xy[:, :, LIMB_LANDMARKS])
        clips.append(Clip(*(a[0].numpy() for a in arrays), one.true_world[0, :, LIMB_LANDMARKS].numpy()))
    return clips


def markdown(columns: dict[str, dict[str, Any]]) -> str:
    """A Markdown table, one statistic a row."""
    flat = {name: dict(_flat(statistics)) for name, statistics in columns.items()}
    lines = ["| | " + " | ".join(flat) + " |", "|---" * (len(flat) + 1) + "|"]
    for key in next(iter(flat.values())):
        lines.append(f"| {key} | " + " | ".join(_cell(column.get(key)) for column in flat.values()) + " |")
    return "\n".join(lines)


def _flat(tree: dict[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Rows of the table; quantiles and the like share a cell."""
    for key, value in tree.items():
        name = f"{path}, {key}" if path else key
        if isinstance(value, dict) and any(k.startswith("q") for k in value):
            row = {k: v for k, v in value.items() if k.startswith("q")}
            yield f"{name}: {' / '.join(row)}", list(row.values())
            yield from _flat({k: v for k, v in value.items() if k not in row}, name)
        elif isinstance(value, dict) and value and all(isinstance(v, list) for v in value.values()):
            for label, (share, mean) in value.items():
                yield f"{name} {label}: share, mean", [share, mean]
        elif isinstance(value, dict) and "bias" in value:
            row = {k: v for k, v in value.items() if not isinstance(v, list)}
            yield f"{name}: {' / '.join(row)}", list(row.values())
        elif isinstance(value, dict):
            yield from _flat(value, name)
        elif value is not None and not isinstance(value, list):
            yield name, [value]


def _cell(values: list[float] | None) -> str:
    return "-" if values is None else " / ".join(f"{v:.3g}" if abs(v) < 100 else f"{v:.0f}" for v in values)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--motions", default="", help="folder of motion files; default: procedural motions")
    parser.add_argument("--clips", type=positive_integer, default=400, help="simulated clips")
    parser.add_argument("--seed", type=positive_integer, default=1)
    parser.add_argument("--no-real", action="store_true", help="only the simulation")
    parser.add_argument("--threads", type=positive_integer, default=2)
    parser.add_argument("--out", type=Path, default=Path("noise"), help="writes OUT.json and OUT.md")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    columns = {}
    if not args.no_real:
        for name, clips in real_clips(("full", "heavy"), args.threads).items():
            columns[f"measured, {name}"] = statistics(clips)
    columns["simulated"] = statistics(simulated_clips(args.motions, NoiseModel(), args.clips, args.seed))
    for suffix, text in ((".json", json.dumps(columns, indent=1)), (".md", markdown(columns) + "\n")):
        with atomic_write(args.out.with_suffix(suffix)) as temporary:
            temporary.write_text(text)
    print(markdown(columns))


if __name__ == "__main__":
    run_command(main)

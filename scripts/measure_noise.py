"""Measure how the landmark network errs on real video, and how the simulated landmarks do, side by side.

    python -m lib.open_data.assets --views --heavy
    python scripts/measure_noise.py [--motions FOLDER] [--out noise]

Real: the single-person clip of four calibrated cameras; the truth are the heavy network's landmarks,
triangulated (see ``make_pose2sim_db.py``). Simulated: clips of the same length, with each error model of
``lib.open_data.simulate``. Both after the flip repair, at 30 fps, on the twelve limb joints. Writes all
numbers to OUT.json and a Markdown table of most to OUT.md. What the words mean is said in
lib/open_data/landmark_errors.py.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

if __name__ == "__main__":  # first, so that Ctrl-C while the rest is imported is one line, too
    from lib.utils.errors import leave_on_signals

    leave_on_signals()

from lib.core.benchmark.measures import JUMP, heading
from lib.landmarks.features import LIMB_LANDMARKS
from lib.landmarks.flips import find_flips
from lib.models.body import OPEN_DATA, load_body
from lib.models.predict import window_step
from lib.open_data import landmark_errors
from lib.open_data.landmark_errors import Clip, error_statistics, errors_of
from lib.open_data.motions import Motion, MotionSampler, open_motions
from lib.open_data.multiview import project, to_camera
from lib.open_data.simulate import NOISES, NoiseModel, Simulator
from lib.utils.errors import run_command
from lib.utils.files import atomic_write
from lib.utils.options import positive_integer
from lib.utils.pinned import asset_path
from lib.video.video_file import VideoFile
from scripts.make_pose2sim_db import find_people, long_runs, owner_of

FPS = 30.0
QUANTILES = ("q50", "q75", "q90", "q95", "q99")
PARTS = ("bias", "white", "slow")
LAGS = tuple(f"autocorrelation {lag}" for lag in landmark_errors.LAGS)
BANDS = tuple(f"{a:g} to {b:.0f} Hz" for a, b in itertools.pairwise(landmark_errors.BANDS))
ROWS: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (  # title, where, and what of the statistics
    ("**2D**, % of the box side: quantiles 50 / 75 / 90 / 95 / 99", ("2D", "all"), QUANTILES),
    ("… constant in a clip / white / slow", ("2D", "all"), PARTS),
    ("… correlation after 1 / 5 / 15 frames", ("2D", "all"), LAGS),
    ("… share of power in 0-1 / 1-3 / 3-7 / 7-15 Hz", ("2D", "all"), BANDS),
    ("**About the hips**: rms depth / rms lateral", ("raw", "all"), ("depth / lateral",)),
    ("… depth of wrists and ankles, mm: quantiles", ("raw", "wrists, ankles", "depth"), QUANTILES),
    ("… share of these over 200 mm", ("raw", "wrists, ankles", "depth"), ("far",)),
    ("**Aligned, lateral**, mm: quantiles", ("aligned", "all", "lateral"), QUANTILES),
    ("… rms / constant / white / slow", ("aligned", "all", "lateral"), ("rms", *PARTS)),
    ("… correlation", ("aligned", "all", "lateral"), LAGS),
    ("… share of power", ("aligned", "all", "lateral"), BANDS),
    ("**Aligned, depth**, mm: quantiles", ("aligned", "all", "depth"), QUANTILES),
    ("… rms / constant / white / slow", ("aligned", "all", "depth"), ("rms", *PARTS)),
    ("… correlation", ("aligned", "all", "depth"), LAGS),
    ("… share of power", ("aligned", "all", "depth"), BANDS),
    ("… wrists and ankles: quantiles", ("aligned", "wrists, ankles", "depth"), QUANTILES),
    *(
        row
        for turn in ("yaw", "pitch", "roll")
        for row in (
            (f"**{turn.capitalize()}**, degrees: quantiles", ("turn", turn), QUANTILES),
            ("… share over 30 degrees / mean", ("turn", turn), ("far", "mean")),
            ("… constant / white / slow", ("turn", turn), PARTS),
            ("… correlation", ("turn", turn), LAGS),
        )
    ),
    ("**Scale**: mean / constant / white / slow", ("turn", "scale"), ("mean", *PARTS)),
    (
        "**Bones of plainly wrong depth**: share / thigh / shin / upper arm / forearm",
        ("wrong depth",),
        ("share", "thigh", "shin", "upper arm", "forearm"),
    ),
    ("… ever / half of the clip", ("wrong depth",), ("bones ever wrong", "bones half the clip wrong")),
    ("… frames in a row: quantiles", ("wrong depth", "frames in a row"), QUANTILES),
    (
        "… seen / true depth of oblique bones: quantiles 5 / 25 / 50 / 75 / 95",
        ("wrong depth", "seen / true depth"),
        ("q5", "q25", "q50", "q75", "q95"),
    ),
    ("**Visibility**: mean", ("visibility",), ("mean",)),
    (
        "… where the 3D error is under 50 / to 100 / to 200 / to 400 mm",
        ("visibility", "by 3D error, mm", "*", "mean visibility"),
        ("0 to 50", "50 to 100", "100 to 200", "200 to 400"),
    ),
    (
        "**Before the repair**: flips per second / share of frames / yaw jumps per second",
        ("before the repair",),
        ("flips / s", "frames flipped", "yaw jumps / s"),
    ),
)
LENGTH = 50  # frames of a simulated clip: as long as the real ones at 30 fps


def jumps(clips: Sequence[Clip]) -> dict[str, float]:
    """Before the repair, per second: stretches read as flipped, share of frames, jumps of the hips' yaw."""
    flips = flipped = turned = seconds = frames = 0.0
    for clip in clips:
        found = find_flips(torch.from_numpy(clip.world)).numpy()
        flips += int((np.diff(np.r_[False, found].astype(int)) > 0).sum())
        flipped, frames = flipped + int(found.sum()), frames + len(found)
        seconds += len(found) / (clip.step * FPS)
        turn, truth = (
            np.abs(np.angle(np.exp(1j * (yaw[clip.step :] - yaw[: -clip.step]))))
            for yaw in (heading(clip.world[:, LIMB_LANDMARKS]), heading(clip.true_world))
        )
        turned += int(((np.degrees(turn) > JUMP) & (np.degrees(truth) <= JUMP)).sum()) / clip.step
    return {
        "flips / s": flips / seconds,
        "frames flipped": flipped / frames,
        "yaw jumps / s": turned / seconds,
    }


def statistics(clips: Sequence[Clip]) -> dict[str, Any]:
    """How the landmarks of ``clips`` err, as nested dicts of numbers; also before the flip repair."""
    errors = [part for clip in clips for part in errors_of(clip)]
    counts = {"clips": len(clips), "frames": sum(len(part.scale) for part in errors)}
    return counts | error_statistics(errors) | {"before the repair": jumps(clips)}


def real_clips(networks: Sequence[str], threads: int) -> dict[str, list[Clip]]:
    """The views of the single person as each network sees them."""
    (joints,), cameras, tracks = find_people("single", networks, threads)
    step = window_step(float(VideoFile(asset_path("views") / f"{cameras[0].name}.mp4").info.fps))
    clips: dict[str, list[Clip]] = {name: [] for name in networks}
    for name in networks:
        for camera, seen in zip(cameras, tracks[name], strict=True):
            for track in (t for t in seen if owner_of(t, [joints], camera) is not None):
                truth = joints[track.frame_ids]
                for run in long_runs(np.isfinite(truth).all((1, 2))):
                    landmarks = (track.xy[run], track.visibility[run], track.world[run])
                    there = (project(truth[run], camera), to_camera(truth[run], camera))
                    clips[name].append(Clip(*landmarks, *there, step))
    return clips


class _Witness(Simulator):
    """Remembers where the landmarks of the last clips truly were in the image."""

    true_xy: torch.Tensor

    def _observe(
        self, xy: torch.Tensor, world: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        self.true_xy = xy
        return super()._observe(xy, world)


def simulated_clips(motions: list[Motion], noise: NoiseModel, count: int, seed: int) -> list[Clip]:
    """Clips of ``motions``, drawn and seen as for training."""
    generator = torch.Generator().manual_seed(seed)
    sampler, simulator = MotionSampler(motions, generator), _Witness(load_body(OPEN_DATA), noise, generator)
    rotmat, trans = sampler.sample(count, LENGTH)
    one = simulator(rotmat, trans, sampler.shapes(count))
    truth = (simulator.true_xy[:, :, LIMB_LANDMARKS], one.true_world[:, :, LIMB_LANDMARKS])
    return [
        Clip(*arrays) for arrays in zip(*(a.numpy() for a in (one.xy, one.visibility, one.world, *truth)))
    ]


def markdown(columns: dict[str, dict[str, Any]]) -> str:
    """A Markdown table of :data:`ROWS`, a column for each statistics."""
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for title, place, keys in ROWS:
        cells = (
            " / ".join(_number(statistics, place, key) for key in keys) for statistics in columns.values()
        )
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _number(statistics: dict[str, Any], place: tuple[str, ...], key: str) -> str:
    """``place`` is a path of keys; * is where ``key`` goes, else the end. "-" where there is none."""
    value: Any = statistics
    for name in place if "*" in place else (*place, "*"):
        value = value.get(key if name == "*" else name)
        if value is None:
            return "-"
    return f"{value:.2g}" if abs(value) < 10 else f"{value:.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--motions", default="", help="folder of motion files; default: procedural motions")
    parser.add_argument(
        "--noise", action="append", choices=tuple(NOISES), help="error models to simulate (default: all)"
    )
    parser.add_argument("--clips", type=positive_integer, default=200, help="simulated clips")
    parser.add_argument("--seed", type=positive_integer, default=1)
    parser.add_argument("--no-real", action="store_true", help="only the simulation")
    parser.add_argument("--threads", type=positive_integer, default=2)
    parser.add_argument("--out", type=Path, default=Path("noise"), help="writes OUT.json and OUT.md")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    columns = {}
    if not args.no_real:
        columns = {
            f"measured, {k}": statistics(v) for k, v in real_clips(("full", "heavy"), args.threads).items()
        }
    training = open_motions(args.motions)["train"]
    noises = {name: NOISES[name] for name in args.noise or NOISES}
    newest = list(noises)[-1]  # once more with people in full view of the camera, as in the recording
    noises[f"{newest}, in view"] = replace(noises[newest], drop=0.0, cut=0.0)
    for name, noise in noises.items():
        clips = simulated_clips(training, noise, args.clips, args.seed)
        columns[f"simulated, {name}"] = statistics(clips)
    for suffix, text in ((".json", json.dumps(columns, indent=1)), (".md", markdown(columns) + "\n")):
        with atomic_write(args.out.with_suffix(suffix)) as temporary:
            temporary.write_text(text)
    print(markdown(columns))


if __name__ == "__main__":
    run_command(main)

"""Plots of the open benchmark, as PNG files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ...landmarks.features import LIMB_JOINTS
from ...models.predict import TRAINING_FPS
from ...utils import metrics
from ...utils.keypoints import JOINT_NAMES
from ..plots import new_figure, save_figure
from .comparison import Comparison
from .methods import FIT, GAUSSIAN, PER_FRAME, RAW, TCMR

_TRUE = "#222222"
_COLOURS = {
    RAW: "#bbbbbb",
    PER_FRAME: "#e6ab02",
    PER_FRAME + GAUSSIAN: "#1b9e77",
    PER_FRAME + FIT: "#80b1d3",
    TCMR: "#d95f02",
    TCMR + FIT: "#7570b3",
}
_OTHERS = ("#e7298a", "#1f78b4", "#a6761d", "#33a02c", "#e31a1c", "#6a3d9a")
_SHARES = {"past": "#1f78b4", "current": "#222222", "future": "#d95f02"}


def write_plots(found: Comparison, folder: Path, prefix: str) -> list[Path]:
    """Write ``{prefix}_accel.png`` and ``{prefix}_attention.png`` of one video, ``{prefix}_joints.png``
    of all.

    Returns the files; there is no attention where no row has any.
    """
    colours = _rows(found.joints)
    files = [folder / f"{prefix}_accel.png", folder / f"{prefix}_joints.png"]
    _accelerations(found, colours, files[0])
    _joint_errors(found.joints, colours, files[1])
    shares = {name: e.attention for name, e in found.shown[1].items() if e.attention is not None}
    if shares:
        files.append(folder / f"{prefix}_attention.png")
        _attention(shares, found.shown[0].name, found.shown[0].fps, files[-1])
    return files


def _rows(names: Mapping[str, object]) -> dict[str, str]:
    """The rows that are drawn, and their colours: those known here, and other networks as they are."""
    others = [name for name in names if name not in _COLOURS and " + " not in name]
    extra = {name: _OTHERS[i % len(_OTHERS)] for i, name in enumerate(others)}
    return {name: colour for name, colour in (_COLOURS | extra).items() if name in names}


def _accelerations(found: Comparison, colours: Mapping[str, str], path: Path) -> None:
    video, estimates = found.shown
    figure, axes = new_figure(13, 6)
    step = video.step
    scale = 1000 * (video.fps / step / TRAINING_FPS) ** 2
    for name, colour in {"ground truth": _TRUE, **colours}.items():
        joints = video.joints if name == "ground truth" else estimates[name].joints
        curve = scale * metrics.accel((joints - joints[:, 2:4].mean(1, keepdims=True))[::step])
        seconds = step * np.arange(1, len(curve) + 1) / video.fps
        wide = 2.0 if name == "ground truth" else 1.3
        axes.plot(seconds, curve, color=colour, label=f"{name}, mean {curve.mean():.1f}", linewidth=wide)
    axes.set(title=f"{video.name}: acceleration of the limb joints about the hips", xlabel="seconds")
    axes.set(ylabel="mm/frame² at 30 frames/s", yscale="log")
    axes.legend(ncols=2)
    save_figure(figure, path)


def _joint_errors(joints: Mapping[str, np.ndarray], colours: Mapping[str, str], path: Path) -> None:
    figure, axes = new_figure(13, 6)
    names = [JOINT_NAMES["spin"][joint] for joint in LIMB_JOINTS]
    width = 0.85 / len(colours)
    for number, (name, colour) in enumerate(colours.items()):
        places = np.arange(len(names)) + (number - (len(colours) - 1) / 2) * width
        axes.bar(places, joints[name], width, color=colour, label=f"{name}, mean {joints[name].mean():.1f}")
    axes.set(title="error per joint", ylabel="mm after PA alignment of each frame")
    axes.set_xticks(np.arange(len(names)), names, rotation=30, ha="right")
    axes.set_ylim(0, 1.2 * axes.get_ylim()[1])  # room for the legend
    axes.legend(ncols=3)
    save_figure(figure, path)


def _attention(shares: Mapping[str, np.ndarray], video: str, fps: float, path: Path) -> None:
    figure, _ = new_figure(13, 2.6 * len(shares) + 0.6)
    figure.clear()
    panels = figure.subplots(len(shares), 1, squeeze=False, sharex=True)[:, 0]
    for axes, (name, scores) in zip(panels, shares.items()):
        for column, (part, colour) in enumerate(_SHARES.items()):
            label = f"{part}, mean {scores[:, column].mean():.4f}"
            axes.plot(np.arange(len(scores)) / fps, scores[:, column], color=colour, label=label)
        axes.set(title=f"{name}, {video}", ylabel="attention", ylim=(0, 0.8))
        axes.legend(ncols=3, loc="upper right")
    panels[-1].set_xlabel("seconds")
    save_figure(figure, path)

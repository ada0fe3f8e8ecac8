"""Plots of an evaluation, as PNG files."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure  # used without pyplot, it needs no display and keeps no global state

from ..utils import metrics
from ..utils.files import atomic_write
from ..utils.keypoints import JOINT_NAMES
from .evaluation import MM, Evaluation, SequenceErrors

_BINS = 60
_PRED, _TRUE = "#d95f02", "#444444"


def write_plots(evaluation: Evaluation, folder: Path) -> list[Path]:
    """Write the plots ``accel_{sequence}.png``, ``error_histogram.png`` and ``joint_errors.png``.

    Beside each of the first lies ``accel_{sequence}.npy``, its two curves. In file names everything but
    letters, digits, ``.``, ``-`` and ``_`` becomes ``_``. Returns all files.
    """
    name = evaluation.protocol.benchmark
    files = []
    for sequence in evaluation.sequences:
        curves = acceleration_curves(sequence)
        files.append(folder / f"accel_{_file_name(sequence.name)}.png")
        save_figure(_accelerations(sequence.name, *curves, evaluation.protocol.frame_rate.fps), files[-1])
        files.append(files[-1].with_suffix(".npy"))
        with atomic_write(files[-1]) as temporary:
            np.save(temporary, np.stack(curves))
    files += [folder / "error_histogram.png", folder / "joint_errors.png"]
    save_figure(_histogram(evaluation, name), files[-2])
    save_figure(_joint_errors(evaluation, name), files[-1])
    return files


def _file_name(sequence: str) -> str:
    return re.sub(r"[^\w.-]+", "_", sequence).strip("_")


def acceleration_curves(
    sequence: SequenceErrors,
) -> tuple[Float[np.ndarray, " inner"], Float[np.ndarray, " inner"]]:
    """Mean length over joints of the predicted and the true acceleration at inner frames, mm / frame^2,
    NaN at frames that do not count."""
    counted = sequence.counted[1:-1]
    pred, true = (
        np.where(counted, metrics.accel(joints) * MM, np.nan) for joints in (sequence.pred, sequence.target)
    )
    return pred, true


def joint_distances(evaluation: Evaluation) -> tuple[Float[np.ndarray, "n j"], Float[np.ndarray, "n j"]]:
    """Distances in mm of counted frames' joints, about the root and after PA alignment; NaN where the
    true joint was not seen."""
    pairs = [(s.pred[s.counted], s.target[s.counted]) for s in evaluation.sequences]
    pred, true = (np.concatenate(joints) for joints in zip(*pairs))
    aligned = metrics.similarity_align(pred, true)
    return np.linalg.norm(pred - true, axis=-1) * MM, np.linalg.norm(aligned - true, axis=-1) * MM


def _accelerations(name: str, pred: np.ndarray, true: np.ndarray, fps: float | None) -> Figure:
    figure, axes = new_figure(15, 6)
    frames = np.arange(1, len(pred) + 1)
    axes.plot(frames, true, color=_TRUE, label="ground truth", linewidth=1, marker=".", markersize=3)
    axes.plot(frames, pred, color=_PRED, label="prediction", linewidth=1.5, marker=".", markersize=3)
    axes.set(
        title=name,
        xlabel="frame (of those predicted, from 0)",
        ylabel="mean joint acceleration (mm/frame²)",
        xlim=(0, len(pred) + 1),
        ylim=(0, None),
    )
    if fps is not None:
        factor = fps**2 / MM
        limits = axes.get_ylim()
        second = axes.twinx()
        second.set_ylim(limits[0] * factor, limits[1] * factor)
        second.set_ylabel(f"m/s² at {fps:g} frames/s")
    axes.legend()
    return figure


def _histogram(evaluation: Evaluation, name: str) -> Figure:
    figure, axes = new_figure(10, 6)
    errors = {
        "MPJPE": np.concatenate([s.mpjpe for s in evaluation.sequences]) * MM,
        "PA-MPJPE": np.concatenate([s.mpjpe_pa for s in evaluation.sequences]) * MM,
    }
    bins = np.linspace(0, max(errors["MPJPE"].max(), 1.0), _BINS + 1).tolist()
    for (label, values), colour in zip(errors.items(), (_TRUE, _PRED)):
        axes.hist(values, bins, color=colour, alpha=0.6, label=f"{label}, mean {values.mean():.1f} mm")
    axes.set(title=name, xlabel="error of a frame (mm)", ylabel="frames")
    axes.legend()
    return figure


def _joint_errors(evaluation: Evaluation, name: str) -> Figure:
    figure, axes = new_figure(12, 6)
    names = JOINT_NAMES[evaluation.protocol.joints]
    places = np.arange(len(names))
    both = zip(("MPJPE", "PA-MPJPE"), joint_distances(evaluation), (-0.2, 0.2), (_TRUE, _PRED))
    for label, distances, shift, colour in both:
        seen = np.ma.masked_invalid(distances)
        mean, spread = seen.mean(axis=0).filled(0), seen.std(axis=0).filled(0)
        below = np.minimum(spread, mean)  # a distance is not negative
        axes.bar(
            places + shift, mean, 0.4, yerr=[below, spread], color=colour, alpha=0.8, capsize=2, label=label
        )
    axes.set(title=name, ylabel="error of a joint, mean ± standard deviation (mm)")
    axes.set_xticks(places, names, rotation=45, ha="right")
    axes.legend()
    return figure


def new_figure(width: float, height: float) -> tuple[Figure, Axes]:
    """An empty figure, in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def save_figure(figure: Figure, path: Path) -> None:
    """As PNG."""
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=100)

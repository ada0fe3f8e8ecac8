"""Evaluation results as a Markdown report to read and as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..utils.files import atomic_write
from .evaluation import METRICS, MM, Evaluation, SequenceErrors, mean_mm
from .published import published

COLUMNS = {
    "mpjpe_pa": "PA-MPJPE",
    "mpjpe": "MPJPE",
    "mpvpe": "MPVPE",
    "mpvpe_root_aligned": "MPVPE-root",
    "accel_err": "Accel",
    "accel_err_m_s2": "Accel m/s²",
    "accel": "own accel",
}
_UNITS = "mm; Accel, the error, and own accel, the magnitude of the prediction's, in mm/frame²"


def results(evaluation: Evaluation, checkpoint: str = "") -> dict[str, Any]:
    """Everything that was measured, as plain values; None where a mean is undefined.

    Means over all counted frames ``mpjpe, mpjpe_pa, accel_err, accel[, mpvpe, mpvpe_root_aligned]`` in mm and
    mm/frame^2, and ``accel_err_m_s2`` in m/s^2 at the frame rate of ``protocol``; ``num_poses``;
    ``per_sequence``, the same by name; ``skipped``; ``published``, the paper's numbers, empty where it has
    none for this benchmark.
    """
    protocol = evaluation.protocol
    name, rows = published(protocol.title, protocol.dataset)
    comparable = protocol.ground_truth == "neutral" and not protocol.split.startswith("val")
    return {
        **means(evaluation.summary(), protocol.frame_rate.fps),
        "num_poses": evaluation.num_poses,
        "benchmark": protocol.benchmark,
        "checkpoint": checkpoint,
        "protocol": protocol.as_dict(),
        "published": {"table": name, "methods": rows} if rows and comparable else {},
        "per_sequence": {s.name: sequence_means(s, protocol.frame_rate.fps) for s in evaluation.sequences},
        "skipped": [
            {"name": name, "frames": frames, "reason": reason} for name, frames, reason in evaluation.skipped
        ],
    }


def write_json(evaluation: Evaluation, path: str | Path, checkpoint: str = "") -> None:
    """Write :func:`results` to a file."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(results(evaluation, checkpoint), indent=2) + "\n", encoding="utf-8")


def report(evaluation: Evaluation, checkpoint: str = "") -> str:
    """Markdown: the means beside the published ones, the protocol, every sequence, and what was skipped."""
    content, protocol = results(evaluation, checkpoint), evaluation.protocol
    columns = [key for key in COLUMNS if key in content]
    labels = [COLUMNS[key] for key in columns]

    def cells(row: dict[str, Any]) -> list[str]:
        return [cell(row.get(key)) for key in columns]

    main = [["this run", *cells(content)]]
    methods = content["published"].get("methods", {})
    for method in sorted(methods, key="TCMR".__ne__):  # TCMR first
        main.append([f"{method}, published", *cells(methods[method])])
    measured = f": {checkpoint}" if checkpoint else ""
    lines = [f"# {protocol.benchmark}{measured}", "", *table(["", *labels], main), "", _UNITS]
    if methods and (reasons := protocol.deviations()):
        lines += ["", f"Not made as the published numbers were: {'; '.join(reasons)}."]
    elif methods:
        lines += ["", f"Published: {content['published']['table']} of Choi et al., CVPR 2021."]

    card = [*([("checkpoint", checkpoint)] if checkpoint else []), *protocol.card("mpvpe" in content)]
    lines += ["", "## Protocol", "", *table(["", ""], card, right=False)]

    sequences = content["per_sequence"]
    rows = [
        [name, str(row["num_poses"]), str(row["left_out"]), *cells(row)] for name, row in sequences.items()
    ]
    left_out = sum(row["left_out"] for row in sequences.values())
    rows.append(["all", str(content["num_poses"]), str(left_out), *cells(content)])
    lines += ["", "## Sequences", "", *table(["sequence", "poses", "left out", *labels], rows)]
    lines += ["", f"Left out of these sequences: {left_out} frames marked invalid or without a true root."]
    skipped = content["skipped"]
    frames = sum(entry["frames"] for entry in skipped)
    lines.append(f"Skipped: {len(skipped)} sequences, {frames} frames" + (":" if skipped else "."))
    lines += [""] * bool(skipped)
    lines += [f"- {entry['name']} ({entry['frames']} frames): {entry['reason']}" for entry in skipped]
    return "\n".join([*lines, "", f"Evaluated total {content['num_poses']} poses"])


def write_report(evaluation: Evaluation, path: str | Path, checkpoint: str = "") -> None:
    """Write :func:`report` to a file."""
    with atomic_write(path) as temporary:
        temporary.write_text(report(evaluation, checkpoint) + "\n", encoding="utf-8")


def means(values: dict[str, float], fps: float | None) -> dict[str, float | None]:
    """Means in mm, None where undefined; with the Accel error in m/s^2 if the frame rate is known."""
    if fps is not None:
        values = {**values, "accel_err_m_s2": values["accel_err"] / MM * fps**2}
    return {key: value if math.isfinite(value) else None for key, value in values.items()}


def sequence_means(sequence: SequenceErrors, fps: float | None) -> dict[str, Any]:
    """Means of a sequence, and how many frames they are of."""
    errors = {key: getattr(sequence, key) for key in METRICS}
    present = {key: mean_mm(values) for key, values in errors.items() if values is not None}
    return {**means(present, fps), "num_poses": len(sequence.mpjpe), "left_out": sequence.left_out}


def cell(value: float | None) -> str:
    """A number in a table."""
    return "–" if value is None else f"{value:.2f}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, right: bool = True) -> list[str]:
    """A Markdown table, padded to be read as it is; all but the first column to the right."""
    rows = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    widths = [max(3, *(len(row[i]) for row in (header, *rows))) for i in range(len(header))]
    sides = ["<", *([">"] if right else ["<"]) * (len(header) - 1)]
    dashes = ["-" * (width - 1) + (":" if side == ">" else "-") for width, side in zip(widths, sides)]
    padded = [
        [f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths)] for row in (header, *rows)
    ]
    return [f"| {' | '.join(row)} |" for row in (padded[0], dashes, *padded[1:])]

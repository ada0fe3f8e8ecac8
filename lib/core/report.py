"""Evaluation results as a table to read and as JSON."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from lib.core.evaluator import Evaluation, SequenceErrors, mean_mm
from lib.dataset.datasets import (
    TABLE4_3DPW,
    TABLE4_H36M_MPII3D,
    TABLE6_3DPW,
    TABLE6_H36M,
    TABLE6_MPII3D,
)
from lib.utils.files import atomic_write

COLUMNS = {
    "mpjpe_pa": "PA-MPJPE",
    "mpjpe": "MPJPE",
    "mpvpe": "MPVPE",
    "accel_err": "Accel",
    "accel": "|accel|",
}
PUBLISHED = {  # Choi et al., CVPR 2021, tables 4 and 6: PA-MPJPE, MPJPE, MPVPE, Accel
    (TABLE4_3DPW, "3dpw"): (52.7, 86.5, 102.9, 6.8),
    (TABLE4_H36M_MPII3D, "mpii3d"): (63.5, 97.3, None, 8.5),
    (TABLE4_H36M_MPII3D, "h36m"): (52.0, 73.6, None, 3.9),
    (TABLE6_3DPW, "3dpw"): (55.8, 95.0, 111.5, 6.7),
    (TABLE6_MPII3D, "mpii3d"): (62.8, 96.5, None, 9.5),
    (TABLE6_H36M, "h36m"): (41.1, 62.3, None, 5.3),
}
_NAME_WIDTH = 48


def results(evaluation: Evaluation) -> dict[str, Any]:
    """Means over all frames, then the same per sequence: mm and mm / frame^2, None where undefined."""
    return {
        **{key: _number(value) for key, value in evaluation.summary().items()},
        "num_poses": evaluation.num_poses,
        "per_sequence": {sequence.name: _sequence(sequence) for sequence in evaluation.sequences},
        "skipped": [
            {"name": name, "frames": frames, "reason": reason} for name, frames, reason in evaluation.skipped
        ],
    }


def write_json(evaluation: Evaluation, path: str | Path) -> None:
    """Write :func:`results` to a file."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(results(evaluation), indent=2) + "\n")


def table(evaluation: Evaluation, title: str, dataset: str) -> str:
    """One line per sequence, the means, the published numbers if there are any, and what was skipped."""
    content = results(evaluation)
    columns = {key: label for key, label in COLUMNS.items() if key in content}
    lines = [_line("sequence", "poses", list(columns.values()))]
    for name, row in content["per_sequence"].items():
        lines.append(_line(name, row["num_poses"], [row[key] for key in columns]))
    lines.append(_line("all frames", content["num_poses"], [content[key] for key in columns]))
    published = dict(zip(COLUMNS, PUBLISHED.get((title, dataset), ())))
    if published:
        lines.append(_line("published (TCMR paper)", "", [published.get(key) for key in columns]))
    lines.append("mm; Accel, the error, and |accel|, the predicted magnitude, in mm/frame^2")
    left_out = sum(row["left_out"] for row in content["per_sequence"].values())
    lines.append(f"left out of these sequences: {left_out} frames marked invalid")
    frames = sum(skipped["frames"] for skipped in content["skipped"])
    lines.append(f"skipped: {len(content['skipped'])} sequences, {frames} frames")
    lines += [f"  {s['name']} ({s['frames']} frames): {s['reason']}" for s in content["skipped"]]
    lines.append(f"Evaluated total {content['num_poses']} poses")
    return "\n".join(lines)


def _sequence(sequence: SequenceErrors) -> dict[str, Any]:
    values = {key: getattr(sequence, key) for key in ("mpjpe", "mpjpe_pa", "accel_err", "accel", "mpvpe")}
    row: dict[str, Any] = {key: _number(mean_mm(v)) for key, v in values.items() if v is not None}
    return {**row, "num_poses": len(sequence.mpjpe), "left_out": sequence.left_out}


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _line(name: str, poses: object, cells: list[Any]) -> str:
    name = name if len(name) <= _NAME_WIDTH else "…" + name[1 - _NAME_WIDTH :]
    texts = ["-" if c is None else c if isinstance(c, str) else f"{c:.2f}" for c in cells]
    return f"{name:<{_NAME_WIDTH}} {poses:>7}" + "".join(f" {text:>9}" for text in texts)

"""Means, intervals and differences of measured rows, and their tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..report import table
from .comparison import Comparison
from .methods import FIT, GAUSSIAN

BOOTSTRAPS = 2000
COLUMNS = {  # those of the table; others are in the JSON
    "mpjpe_pa": "PA-MPJPE mm",
    "mpjpe": "MPJPE mm",
    "mpvpe": "MPVPE mm",
    "accel_err": "Accel error mm/frame²",
    "accel_err_m_s2": "Accel error m/s²",
    "jitter": "jitter m/s³",
    "slide": "foot slide mm/frame",
    "floats": "floating mm",
    "sinks": "penetration mm",
}
PAIRED = ("mpjpe_pa", "mpjpe", "accel_err")
Results = dict[str, Any]


def summarise(
    found: Comparison,
    references: Sequence[str] = (),
    widths: Mapping[str, float] | None = None,
    facts: Mapping[str, Mapping[str, float]] | None = None,
) -> Results:
    """Means, 95 % intervals over motions, standard deviations over seeds, and paired differences of every row
    from the ``references`` that there are. Means are over frames: long motions weigh more."""
    rows: Results = {}
    for name, measures in found.totals.items():
        row: Results = {key: statistic(total) for key, total in measures.items() if total[..., 1].any()}
        row["yaw_jumps"] = float(measures["yaw_jumps"][..., 0].sum(1).mean())
        row["seeds"] = len(measures["mpjpe"])
        plain = name.removesuffix(GAUSSIAN)
        row |= (facts or {}).get(plain.removesuffix(FIT), {})
        if widths and name != plain:
            row["gaussian_frames"] = widths[plain]
        rows[name] = row
    differences = {
        reference: {
            name: {key: statistic(measures[key], found.totals[reference][key]) for key in PAIRED}
            for name, measures in found.totals.items()
            if name != reference
        }
        for reference in references
        if reference in found.totals
    }
    counts = {"motions": len(found.motions), "videos": found.videos, "frames": found.frames}
    return counts | {"rows": rows, "differences": differences}


def statistic(total: np.ndarray, other: np.ndarray | None = None) -> Results:
    """Of sums and counts (seeds, motions, 2): ``mean`` over seeds, ``low`` to ``high`` of 95 % of bootstraps
    over motions, ``sd`` over seeds if there are some. With ``other``: of the difference from it, motions
    drawn alike."""
    motions = total.shape[1]
    drawn = np.random.default_rng(1).integers(0, motions, (BOOTSTRAPS, motions))

    def means(values: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        sums = values[:, chosen].sum(-2)  # (seeds, ..., 2)
        quotient: np.ndarray = sums[..., 0] / np.maximum(sums[..., 1], 1e-9)
        return quotient

    every = np.arange(motions)
    seeds, samples = means(total, every), means(total, drawn).mean(0)
    mean = float(seeds.mean())
    if other is not None:
        mean -= float(means(other, every).mean())
        samples = samples - means(other, drawn).mean(0)
    low, high = np.percentile(samples, [2.5, 97.5])
    result = {"mean": mean, "low": float(low), "high": float(high)}
    if other is None and len(seeds) > 1:
        result["sd"] = float(seeds.std(ddof=1))
    return result


def markdown(results: Results) -> str:
    """Two Markdown tables: the rows, and their differences."""
    rows, differences = results["rows"], results["differences"]
    head = ["method", "Gaussian, frames", *COLUMNS.values(), "parameters, M", "training, min"]
    lines = []
    for name, row in rows.items():
        cells = [f"{row['gaussian_frames']:.1f}" if "gaussian_frames" in row else "–"]
        cells += [_cell(row.get(key)) for key in COLUMNS]
        cells.append(f"{row['parameters'] / 1e6:.1f}" if "parameters" in row else "–")
        cells.append(f"{row['training_seconds'] / 60:.0f}" if "training_seconds" in row else "–")
        lines.append([name, *cells])
    text = "\n".join(table(head, lines))
    if differences:
        head = [
            "difference, mean [95 %]",
            *(f"{COLUMNS[k]}, from {ref}" for ref in differences for k in PAIRED),
        ]
        lines = []
        for name in rows:
            cells = [
                _difference(differences[ref].get(name, {}).get(k)) for ref in differences for k in PAIRED
            ]
            lines.append([name, *cells])
        text += "\n\n" + "\n".join(table(head, lines))
    return text


def _cell(value: Results | None) -> str:
    if value is None:
        return "–"
    half = (value["high"] - value["low"]) / 2
    interval = f" ± {half:.1f}" if half > 0 else ""  # of a single motion there is none
    text = f"{value['mean']:.1f}{interval}"
    return text + (f" (sd {value['sd']:.1f})" if "sd" in value else "")


def _difference(value: Results | None) -> str:
    if value is None:
        return "–"
    interval = f" [{value['low']:+.1f}, {value['high']:+.1f}]" * (value["high"] > value["low"])
    return f"{value['mean']:+.1f}{interval}"

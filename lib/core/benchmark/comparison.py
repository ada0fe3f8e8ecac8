"""Measure all rows on a database, each with and without the Gaussian that suits it best."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ...models.body import BodyData
from ...models.smpl import SMPL
from .measures import BodyMeasures, measure
from .methods import GAUSSIAN, Methods
from .videos import Estimate, Video, read_videos

WIDTHS = (0.0, *(0.4 * 1.25**k for k in range(11)))  # of the Gaussians, in frames at 30 fps
_WIDEST = 60.0


def best_width(cost: Callable[[float], float]) -> tuple[float, float]:
    """The width of least cost, and that cost; the grid goes on while its widest is the best."""
    costs = {width: cost(width) for width in WIDTHS}
    while min(costs, key=costs.__getitem__) == max(costs) and 1.25 * max(costs) <= _WIDEST:
        costs[1.25 * max(costs)] = cost(1.25 * max(costs))
    best = min(costs, key=costs.__getitem__)
    return best, costs[best]


def choose_widths(path: Path, methods: Methods) -> tuple[dict[str, float], str]:
    """For each row the Gaussian of least PA-MPJPE + Accel error on a validation database, the same for all
    seeds; and the row, smoothed, that is best by that of those that see each frame alone."""
    seen = [(video, methods(video)) for video in tqdm(read_videos(path), desc=path.stem, unit="video")]
    widths, costs = {}, {}
    for row in tqdm(list(seen[0][1]), desc="widths", unit="row"):

        def cost(width: float, row: str = row) -> float:
            errors = [
                measure(methods.smoothed(estimate, width, video.fps), video)
                for video, rows in seen
                for estimate in rows[row]
            ]
            return sum(
                float(np.concatenate([e[key] for e in errors]).mean()) for key in ("mpjpe_pa", "accel_err")
            )

        widths[row], costs[row] = best_width(cost)
    return widths, min(methods.frame_by_frame, key=costs.__getitem__) + GAUSSIAN


@dataclass(frozen=True, eq=False)
class Comparison:
    """Rows measured on a database.

    ``totals``: row -> measure -> (seeds, motions, 2) sums and counts; ``joints``: row -> (12,) mm, mean error
    after PA alignment; ``shown``: a video and the estimates of its rows' first seeds.
    """

    motions: list[str]
    videos: int
    frames: int
    totals: dict[str, dict[str, np.ndarray]]
    joints: dict[str, np.ndarray]
    shown: tuple[Video, dict[str, Estimate]]


def compare(path: Path, methods: Methods, widths: Mapping[str, float], body: BodyData) -> Comparison:
    """Measure all rows on a database, and each after its Gaussian."""

    def rows_of(video: Video) -> dict[str, list[Estimate]]:
        rows = {}
        for name, seeds in methods(video).items():
            rows[name] = seeds
            rows[name + GAUSSIAN] = [methods.smoothed(e, widths[name], video.fps) for e in seeds]
        return rows

    return tally(read_videos(path), rows_of, body, path.stem)


def tally(
    videos: Sequence[Video],
    rows_of: Callable[[Video], Mapping[str, list[Estimate]]],
    body: BodyData,
    what: str,
) -> Comparison:
    """Measure the rows that ``rows_of`` gives of each video; ``what`` they are, for the progress bar."""
    smpl, motions = SMPL(body).eval(), list(dict.fromkeys(video.motion for video in videos))
    totals: dict[str, dict[str, np.ndarray]] = {}
    joints: dict[str, list[np.ndarray]] = {}
    shown: tuple[Video, dict[str, Estimate]] | None = None
    for video in tqdm(videos, desc=what, unit="video"):
        of_bodies, rows = BodyMeasures(video, body, smpl), rows_of(video)
        shown = shown or (video, {name: seeds[0] for name, seeds in rows.items()})
        for name, seeds in rows.items():
            for seed, estimate in enumerate(seeds):
                errors = measure(estimate, video) | of_bodies(estimate)
                joints.setdefault(name, []).append(errors.pop("joints"))
                for key, values in errors.items():
                    empty = np.zeros((len(seeds), len(motions), 2))
                    total = totals.setdefault(name, {}).setdefault(key, empty)
                    total[seed, motions.index(video.motion)] += values.sum(), len(values)
    assert shown is not None
    means = {name: np.concatenate(parts).mean(0) for name, parts in joints.items()}
    return Comparison(motions, len(videos), sum(len(v.joints) for v in videos), totals, means, shown)

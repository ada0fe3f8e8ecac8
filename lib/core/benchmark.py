"""The open benchmark: landmarks, networks and fit on the same repaired input, measured side by side.

Every row (:class:`Estimate`) is measured on the twelve limb joints that landmarks and meshes share; rows that
are bodies also by their vertices and by what their feet do on the true floor. Several checkpoints of one name
are seeds: a row is their mean. Intervals and differences are bootstrapped over motions, of which a database
holds several pieces or views.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from ..landmarks.features import LIMB_JOINTS, LIMB_LANDMARKS, landmark_arrays
from ..landmarks.flips import repair_flips
from ..models.body import BodyData
from ..models.extractors import check_fingerprints, fingerprint, load_landmark_net
from ..models.landmark_body import LandmarkBody
from ..models.predict import TRAINING_FPS, predict_sequence, window_step
from ..models.regressor import Regressor
from ..models.smpl import SMPL
from ..models.weights import load_weights, per_frame_weights
from ..motion.feet import Skeleton, contacts_of
from ..motion.fit import fit_track
from ..motion.motion import Placed, joint_chain
from ..motion.smooth import smooth_rotations
from ..open_data.simulate import IMAGE_SIZE
from ..utils import metrics
from ..utils.crops import crop_to_image
from ..utils.errors import UserError
from ..utils.files import load_checkpoint, load_joblib
from ..utils.geometry import axis_angle_to_rotmat
from ..utils.smoothing import gaussian
from .build import fingerprint_of, model_from
from .report import table

RAW, PER_FRAME, TCMR = "raw landmarks", "per-frame network", "TCMR"
FIT, GAUSSIAN = " + fit", " + Gaussian"
FITTED = (PER_FRAME, TCMR)
HIPS = [LIMB_JOINTS.index(27), LIMB_JOINTS.index(28)]
JUMP = 40.0  # degrees of hip yaw between frames 1/30 s apart
WIDTHS = (0.0, *(0.4 * 1.25**k for k in range(11)))  # of the Gaussians, in frames at 30 fps
_WIDEST = 60.0
BOOTSTRAPS = 2000
FLOOR_PERCENTILE = 20  # of the height of the lower sole in a motion
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
# Of names: make_open_db.py's of pieces of a motion, make_pose2sim_db.py's of views of a recording.
_PIECE, _VIEW = re.compile(r"_\d{5}$"), re.compile(r"(pose2sim(?:_multi)?)_.*")
Results = dict[str, Any]


class Posed(NamedTuple):
    """Bodies of n frames."""

    rotmat: np.ndarray  # (n, 24, 3, 3), root in camera axes
    betas: np.ndarray  # (n, 10)


@dataclass(frozen=True, eq=False)
class Video:
    """One video of a database of n frames: what is seen, and the truth."""

    name: str
    motion: str  # which it is a piece or a view of
    observed: np.ndarray  # (n, 33, 6) landmarks as they came: px, visibility, metres
    landmarks: tuple[np.ndarray, np.ndarray, np.ndarray]  # repaired: (n, 33, 2) px, (n, 33), (n, 33, 3) m
    joints: np.ndarray  # (n, 12, 3) metres, camera axes
    pixels: np.ndarray  # (n, 12, 2)
    side: np.ndarray  # (n,) px, of the person's box
    fps: float
    image_size: tuple[int, int]  # width, height in px
    body: Posed | None = None  # where it is known
    world: Placed | None = None  # the same in a world with y up

    @property
    def step(self) -> int:
        """Frames from one to the next about 1/30 s later."""
        return window_step(self.fps)


@dataclass(frozen=True, eq=False)
class Estimate:
    """What a method says of a video of n frames."""

    joints: np.ndarray  # (n, 12, 3) metres, camera axes, any origin
    pixels: np.ndarray  # (n, 12, 2), where the image shows them
    body: Posed | None = None
    attention: np.ndarray | None = None  # (n, 3): past, current, future


def read_videos(path: Path) -> list[Video]:
    """The videos of a database that keeps its landmarks.

    Raises:
        UserError: it is missing, or holds no landmarks.
    """
    data = load_joblib(path)
    if "landmarks" not in data:
        raise UserError(
            f"{path}: has no landmarks; make it with scripts/make_open_db.py or make_pose2sim_db.py"
        )
    names = np.asarray(data["vid_name"])
    edges = np.flatnonzero(np.r_[True, names[1:] != names[:-1], True])
    size = tuple(int(data.get(key, IMAGE_SIZE)) for key in ("image_width", "image_height"))
    videos = []
    for start, end in itertools.pairwise(edges):
        rows = {
            key: np.asarray(v[start:end]) for key, v in data.items() if np.ndim(v) and len(v) == len(names)
        }
        seen = rows["landmarks"]
        truth: dict[str, Any] = {}
        if rows["pose"].any():
            truth["body"] = Posed(_rotations(rows["pose"]), rows["shape"])
            if "world_orient" in rows:
                turned = truth["body"].rotmat.copy()
                turned[:, 0] = _rotations(rows["world_orient"])[:, 0]
                truth["world"] = Placed(turned, rows["world_trans"])
        name = str(names[start])
        video = Video(
            name=name,
            motion=_VIEW.sub(r"\1", _PIECE.sub("", name)),
            observed=seen,
            landmarks=repair_flips(seen[..., :2], seen[..., 2], seen[..., 3:]),
            joints=rows["joints3D"][:, LIMB_JOINTS],
            pixels=rows["joints2D"][:, LIMB_JOINTS, :2],
            side=rows["bbox"][:, 2],
            fps=float(data.get("fps", TRAINING_FPS)),
            image_size=(size[0], size[1]),
            **truth,
        )
        videos.append(video)
    return videos


def _rotations(pose: np.ndarray) -> np.ndarray:
    """Axis-angle (n, 3 K) -> (n, K, 3, 3)."""
    return axis_angle_to_rotmat(torch.from_numpy(pose.astype(np.float32)).view(len(pose), -1, 3)).numpy()


class Methods:
    """All methods on one video.

    Args:
        extractor: checkpoint of the per-frame network.
        checkpoints: TCMRs with any temporal encoder, by the row's name; several of a name are seeds.
    """

    def __init__(self, extractor: Path, checkpoints: Mapping[str, Sequence[Path]], body: BodyData) -> None:
        weights = per_frame_weights(load_checkpoint(extractor), extractor)
        self.net = load_landmark_net(extractor)
        self.regressor = Regressor(body, self.net.last.out_features, len(weights["fc1.bias"]), dropout=0.0)
        load_weights(self.regressor, weights, extractor, "smpl.", allow_more=True)
        self.bodies, self.models = LandmarkBody(body), {}
        self.facts: dict[str, dict[str, float]] = {
            PER_FRAME: {"parameters": _count(self.net, self.regressor)}
        }
        for name, paths in checkpoints.items():
            loaded = {path: load_checkpoint(path) for path in paths}
            found = {str(path): fingerprint_of(trained) for path, trained in loaded.items()}
            check_fingerprints({str(extractor): fingerprint(weights), **found})
            self.models[name] = [model_from(trained, path, None, body)[0] for path, trained in loaded.items()]
            times = [float(t["training"]["seconds"]) for t in loaded.values() if "training" in t]
            first = self.models[name][0]
            self.facts[name] = {"parameters": _count(self.net, first.encoder, first.regressor)}
            if len(times) == len(paths):
                self.facts[name]["training_seconds"] = float(np.mean(times))

    def __call__(self, video: Video) -> dict[str, list[Estimate]]:
        """Row -> its estimates, one for each seed."""
        xy, _, world = video.landmarks
        rows = {RAW: [Estimate(world[:, LIMB_LANDMARKS], xy[:, LIMB_LANDMARKS])]}
        vectors, boxes = landmark_arrays(*video.landmarks)
        with torch.inference_mode():
            features = self.net(vectors)
            frame = self.regressor(features, return_verts=False)[0]
        outputs = {PER_FRAME: [{key: value.numpy() for key, value in frame.items()}]}
        for name, models in self.models.items():
            outputs[name] = [
                predict_sequence(model, features.numpy(), return_verts=False, step=video.step)
                for model in models
            ]
        for name, seeds in outputs.items():
            rows[name] = [self._body(out, boxes) for out in seeds]
            if name in FITTED:
                rows[name + FIT] = [self._fitted(out, boxes, video) for out in seeds]
        return rows

    def _body(self, out: Mapping[str, np.ndarray], boxes: np.ndarray) -> Estimate:
        pixels = crop_to_image(out["kp_2d"], boxes)[:, LIMB_JOINTS]
        joints, betas = out["kp_3d"][:, LIMB_JOINTS], out["theta"][:, 75:]
        return Estimate(joints, pixels, Posed(out["rotmat"], betas), out.get("scores"))

    def _fitted(self, out: Mapping[str, np.ndarray], boxes: np.ndarray, video: Video) -> Estimate:
        width, height = video.image_size
        fitted = fit_track(
            self.bodies, out["rotmat"], out["theta"], boxes, video.landmarks,
            width=width, height=height, fps=video.fps,
        )  # fmt: skip
        if fitted is None:
            return self._body(out, boxes)
        posed = Posed(fitted.rotmat, np.tile(fitted.betas, (len(boxes), 1)))
        return Estimate(fitted.joints3d[:, LIMB_JOINTS], fitted.joints2d[:, LIMB_JOINTS], posed)

    def smoothed(self, estimate: Estimate, width: float, fps: float) -> Estimate:
        """After a Gaussian of ``width`` frames at 30 fps: over a body's rotations and shape, so that it stays
        one; over points where there is none."""
        sigma = width * fps / TRAINING_FPS
        if sigma == 0:
            return estimate
        pixels = gaussian(estimate.pixels, sigma)
        if estimate.body is None:
            return Estimate(gaussian(estimate.joints, sigma), pixels)
        rotmat = smooth_rotations(estimate.body.rotmat, sigma)
        betas = gaussian(estimate.body.betas, sigma).astype(np.float32)
        with torch.inference_mode():
            joints = self.bodies(torch.from_numpy(rotmat), torch.from_numpy(betas))[0].numpy()
        return Estimate(joints[:, LIMB_JOINTS], pixels, Posed(rotmat, betas))


def _count(*parts: torch.nn.Module) -> int:
    return sum(p.numel() for part in parts for p in part.parameters() if p.requires_grad)


# ------------------------------------------------------------------------------------- measures


def heading(joints: np.ndarray) -> np.ndarray:
    """(n, 12, 3) limb joints -> (n,) yaw of the hips' line in radians, camera axes."""
    line = joints[:, HIPS[1]] - joints[:, HIPS[0]]
    return np.arctan2(line[:, 2], line[:, 0])


def measure(estimate: Estimate, video: Video) -> dict[str, np.ndarray]:
    """Values of the frames that have them, all about the middle of the hips.

    ``mpjpe``, ``mpjpe_pa`` mm; ``accel`` and ``accel_err``, second differences over 1/30 s, mm/frame² at 30
    fps, and the latter in m/s², too; ``jitter``, third differences, m/s³; ``overlay`` % of the box;
    ``yaw_jumps`` 0 or 1; ``joints`` (n, 12) mm after PA alignment.
    """
    joints, target = (j - j[:, HIPS].mean(1, keepdims=True) for j in (estimate.joints, video.joints))
    step = video.step
    rate = video.fps / step  # of every step-th frame
    pairs = [(joints[k::step], target[k::step]) for k in range(step)]
    scale = 1000 * (rate / TRAINING_FPS) ** 2
    accel_err = scale * np.concatenate([metrics.accel_error(*pair) for pair in pairs])
    third = np.concatenate([np.diff(j, 3, axis=0) for j, _ in pairs])
    turn, true_turn = (
        np.degrees(np.abs(np.angle(np.exp(1j * (heading(j)[step:] - heading(j)[:-step])))))
        for j in (joints, target)
    )
    away = np.linalg.norm(estimate.pixels - video.pixels, axis=-1).mean(1)
    aligned = 1000 * np.linalg.norm(metrics.similarity_align(joints, target) - target, axis=-1)
    return {
        "mpjpe": 1000 * metrics.mpjpe(joints, target),
        "mpjpe_pa": aligned.mean(1),
        "accel": scale * np.concatenate([metrics.accel(j) for j, _ in pairs]),
        "accel_err": accel_err,
        "accel_err_m_s2": accel_err * TRAINING_FPS**2 / 1000,
        "jitter": rate**3 * np.linalg.norm(third, axis=-1).mean(1),
        "overlay": 100 * away / video.side,
        "yaw_jumps": ((turn > JUMP) & (true_turn <= JUMP)).astype(float),
        "joints": aligned,
    }


class BodyMeasures:
    """What only a body has, of the estimates of one video.

    ``mpvpe`` (n,) mm, without alignment, as in evaluate.py; and over all frames and soles (heels and toes)
    that truly stand, of the body moved to the true pelvis in the true world: ``slide``, the horizontal speed
    that the sole has against the true one, mm/frame; ``floats`` and ``sinks``, how far it is above and below
    it, mm. Nothing where video or estimate has no body.
    """

    def __init__(self, video: Video, body: BodyData, smpl: SMPL) -> None:
        self.video, self.body, self.smpl = video, body, smpl
        if video.body is None:
            return
        self.vertices = self._mesh(video.body)
        if video.world is not None:
            feet, self.pelvis = self._soles(Posed(video.world.rotmat, video.body.betas))
            self.true_feet = feet + video.world.transl[:, None]
            floor = np.percentile(self.true_feet[..., 1].min(1), FLOOR_PERCENTILE)
            self.stands = contacts_of(self.true_feet - [0, floor, 0], video.fps)

    def __call__(self, estimate: Estimate) -> dict[str, np.ndarray]:
        truth, found = self.video, estimate.body
        if found is None or truth.body is None:
            return {}
        result = {"mpvpe": 1000 * metrics.vertex_error(self._mesh(found), self.vertices)}
        if truth.world is None:
            return result
        turned = found.rotmat.copy()
        turned[:, 0] = truth.world.rotmat[:, 0] @ truth.body.rotmat[:, 0].swapaxes(-1, -2) @ turned[:, 0]
        feet, pelvis = self._soles(Posed(turned, found.betas))
        place = self.pelvis + truth.world.transl - pelvis
        away = 1000 * (feet + place[:, None] - self.true_feet)
        speed = np.linalg.norm(np.diff(away, axis=0)[..., [0, 2]], axis=-1) * truth.fps / TRAINING_FPS
        above = away[..., 1][self.stands]
        return result | {
            "slide": speed[self.stands[1:] & self.stands[:-1]],
            "floats": above.clip(0),
            "sinks": (-above).clip(0),
        }

    @torch.inference_mode()
    def _mesh(self, posed: Posed) -> np.ndarray:
        turns, shape = (torch.from_numpy(np.array(part, np.float32)) for part in posed)
        return self.smpl(shape, turns[:, 1:], turns[:, :1], pose2rot=False).vertices.numpy()

    def _soles(self, posed: Posed) -> tuple[np.ndarray, np.ndarray]:
        """(n, 4, 3) soles and (n, 3) pelvis, before any translation. Networks change shape from frame to
        frame by little, and a skeleton has one: the mean of the video."""
        skeleton = Skeleton.of(self.body, posed.betas.mean(0))
        rotations, positions = joint_chain(posed.rotmat, skeleton.rest, skeleton.parents)
        return skeleton.points(rotations, positions), positions[:, 0]


# ------------------------------------------------------------------------------------- tables


def best_width(cost: Callable[[float], float]) -> tuple[float, float]:
    """The width of least cost, and that cost; the grid goes on while its widest is the best."""
    costs = {width: cost(width) for width in WIDTHS}
    while min(costs, key=costs.__getitem__) == max(costs) and 1.25 * max(costs) <= _WIDEST:
        costs[1.25 * max(costs)] = cost(1.25 * max(costs))
    best = min(costs, key=costs.__getitem__)
    return best, costs[best]


def choose_widths(path: Path, methods: Methods) -> tuple[dict[str, float], str]:
    """For each row the Gaussian of least PA-MPJPE + Accel error on a validation database, the same for all
    seeds; and the row, smoothed, that is best by that of those that need neither TCMR nor fit."""
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
    return widths, min((RAW, PER_FRAME), key=costs.__getitem__) + GAUSSIAN


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
        return sums[..., 0] / np.maximum(sums[..., 1], 1e-9)

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
    text = f"{value['mean']:.1f}" + f" ± {half:.1f}" * (half > 0)  # of a single motion there is no interval
    return text + (f" (sd {value['sd']:.1f})" if "sd" in value else "")


def _difference(value: Results | None) -> str:
    if value is None:
        return "–"
    interval = f" [{value['low']:+.1f}, {value['high']:+.1f}]" * (value["high"] > value["low"])
    return f"{value['mean']:+.1f}{interval}"

"""BlazePose without mediapipe: person detector and 33-landmark network on the LiteRT interpreter.

Both take RGB images and answer in pixels of that image. The networks come from
``lib.open_data.assets``. Conventions (boxes, turned square region of interest, world landmarks) are
those of mediapipe's pose graphs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float, Shaped, UInt8

from ..utils.errors import UserError, shown
from ..utils.geometry import default_focal, turn_to_ray
from ..utils.pinned import check_pinned, fetch_command

N_POINTS = 39  # that the network gives: the 33 landmarks, centre and rim of the body's circle, 4 of no use
N_LANDMARKS = 33
CENTRE, RIM = 33, 34

DETECTOR_SIZE = 224
LANDMARK_SIZE = 256
ROI_SCALE = 1.25  # side of the region of interest over the diameter of the circle about the body


@dataclass(frozen=True)
class Detection:
    """A person: ``score`` in [0, 1], ``box`` x0, y0, x1, y1 px about head and shoulders, and the circle about
    the body: ``centre`` between the hips, ``scale_point`` on its rim, beyond the head."""

    score: float
    box: Float[np.ndarray, " 4"]
    centre: Float[np.ndarray, " 2"]
    scale_point: Float[np.ndarray, " 2"]


@dataclass(frozen=True)
class Landmarks:
    """The 33 landmarks of one person.

    ``xy`` px; ``z`` depth about the hips in px; ``visibility`` and ``score`` (presence of a person) in
    [0, 1]; ``world`` metres about the middle of the hips: x right, y down, z away along the ray through the
    middle of the crop, which is all that the network sees. ``axes`` turns it to the camera's axes.
    ``next_centre``, ``next_scale_point`` px: the circle to look in for this person in the next frame.
    """

    xy: Float[np.ndarray, "33 2"]
    z: Float[np.ndarray, " 33"]
    visibility: Float[np.ndarray, " 33"]
    score: float
    world: Float[np.ndarray, "33 3"]
    next_centre: Float[np.ndarray, " 2"]
    next_scale_point: Float[np.ndarray, " 2"]
    axes: Float[np.ndarray, "3 3"] = field(default_factory=lambda: np.eye(3))


class PersonDetector:
    """Finds persons in an image (head and upper body must be in sight), the smaller the less surely: all that
    are half as tall as its longer side, few that are a sixth."""

    short_sighted = True

    def __init__(self, path: str | Path, threads: int = 2, min_score: float = 0.4, max_overlap: float = 0.3):
        """``threads``: CPU threads. Raises UserError if the file or the interpreter cannot be used."""
        self._network = _Network(path, threads, {"boxes": (1, 2254, 12), "scores": (1, 2254, 1)})
        self._anchors = anchor_centres()
        self._min_score = min_score
        self._max_overlap = max_overlap

    def detect(self, rgb: UInt8[np.ndarray, "height width 3"]) -> list[Detection]:
        """Persons in ``rgb``, surest first."""
        height, width = rgb.shape[:2]
        side = max(height, width)
        size = [max(1, round(length * DETECTOR_SIZE / side)) for length in (width, height)]
        shrunk = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
        top, left = (DETECTOR_SIZE - shrunk.shape[0]) // 2, (DETECTOR_SIZE - shrunk.shape[1]) // 2
        square = np.full((DETECTOR_SIZE, DETECTOR_SIZE, 3), -1, np.float32)
        square[top : top + shrunk.shape[0], left : left + shrunk.shape[1]] = shrunk / np.float32(127.5) - 1

        outputs = self._network(square)
        scores = _sigmoid(outputs["scores"][0, :, 0])
        chosen = scores > self._min_score
        raw = outputs["boxes"][0, chosen].reshape(-1, 6, 2) / DETECTOR_SIZE
        centre, size, points = raw[:, :1], raw[:, 1:2], raw[:, 2:]
        corners = np.concatenate([centre - size / 2, centre + size / 2], axis=1)
        # Rows: two corners of the box, then hip centre, body circle, shoulder centre, upper body circle.
        rows = np.concatenate([corners, points], axis=1) + self._anchors[chosen, None]
        offset = np.array([left, top]) / DETECTOR_SIZE
        return [
            Detection(score, row[:2].ravel(), row[2], row[3])
            for score, row in (
                (score, (row - offset) * side)
                for score, row in weighted_nms(rows, scores[chosen], self._max_overlap)
            )
        ]


class LandmarkNetwork:
    """Locates the 33 landmarks of the person inside a circle ("full" and "heavy" networks)."""

    def __init__(self, path: str | Path, threads: int = 2):
        """``threads``: of the CPU. Raises UserError if the file or the interpreter cannot be used."""
        self._focal: float | None = None
        shapes = {"points": (1, 195), "score": (1, 1), "world": (1, 117), "heatmaps": (1, 64, 64, 39)}
        self._network = _Network(path, threads, shapes)

    def with_focal(self, focal: float) -> LandmarkNetwork:
        """The same network for a camera of ``focal`` px, in place of :func:`default_focal`."""
        network = copy(self)
        network._focal = focal
        return network

    def __call__(
        self,
        rgb: UInt8[np.ndarray, "height width 3"],
        centre: Float[np.ndarray, " 2"],
        scale_point: Float[np.ndarray, " 2"],
    ) -> Landmarks:
        """Landmarks of the person in the circle about ``centre`` through ``scale_point``, px: of a detection
        or of what the frame before gave."""
        to_crop, rotation, side = region_of_interest(centre, scale_point)
        crop = cv2.warpAffine(rgb, to_crop, (LANDMARK_SIZE, LANDMARK_SIZE), flags=cv2.INTER_LINEAR)
        outputs = self._network(crop.astype(np.float32) / 255)

        points = outputs["points"].reshape(N_POINTS, 5)
        refined = refine_from_heatmaps(points[:, :2] / LANDMARK_SIZE, outputs["heatmaps"][0]) * LANDMARK_SIZE
        to_image = cv2.invertAffineTransform(to_crop)
        xy = refined @ to_image[:, :2].T + to_image[:, 2]
        world = outputs["world"].reshape(N_POINTS, 3)[:N_LANDMARKS].copy()
        world[:, :2] = world[:, :2] @ rotation.T
        height, width = rgb.shape[:2]
        ray = (np.asarray(centre) - [width / 2, height / 2]) / (self._focal or default_focal(width, height))
        return Landmarks(
            xy=xy[:N_LANDMARKS].astype(np.float32),
            z=points[:N_LANDMARKS, 2] * (side / LANDMARK_SIZE),
            visibility=_sigmoid(points[:N_LANDMARKS, 3]),
            score=float(outputs["score"][0, 0]),
            world=world,
            axes=turn_to_ray(np.array([*ray, 1.0])),
            next_centre=xy[CENTRE],
            next_scale_point=xy[RIM],
        )


def refine_from_heatmaps(
    xy: Float[np.ndarray, "n 2"],
    logits: Float[np.ndarray, "height width n"],
    radius: int = 3,
    min_confidence: float = 0.5,
) -> Float[np.ndarray, "n 2"]:
    """Move points to the centre of mass of their heatmap round about them, where it is sure of itself.

    xy: in [0, 1] of the crop. The mean is over (2·radius + 1)² cells. It makes the
    error that slowly comes and goes about a third smaller (measured by triangulation) than that of the
    regressed points alone.
    """
    height, width, n = logits.shape
    cell = (xy * [width, height]).astype(int)
    offsets = np.arange(-radius, radius + 1)
    columns, rows = cell[:, :1] + offsets, cell[:, 1:] + offsets  # (n, k)
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None]
    window = logits[
        rows.clip(0, height - 1)[:, :, None], columns.clip(0, width - 1)[:, None], np.arange(n)[:, None, None]
    ]
    weight = np.where(inside, _sigmoid(window), 0)
    total = np.maximum(weight.sum(axis=(1, 2)), 1e-9)
    x = (weight.sum(axis=1) * columns).sum(axis=1) / total / width
    y = (weight.sum(axis=2) * rows).sum(axis=1) / total / height
    sure = (weight.max(axis=(1, 2)) >= min_confidence) & (cell >= 0).all(1) & (cell < [width, height]).all(1)
    return np.where(sure[:, None], np.stack([x, y], axis=1), xy)


def region_of_interest(
    centre: Shaped[np.ndarray, " 2"], scale_point: Shaped[np.ndarray, " 2"]
) -> tuple[Float[np.ndarray, "2 3"], Float[np.ndarray, "2 2"], float]:
    """Square about a body circle, turned so that the direction centre → scale_point points up.

    Returns the affine map from image to crop pixels, the rotation from the crop's axes to the
    image's, and the square's side in image pixels.
    """
    x, y = (float(v) for v in np.subtract(scale_point, centre))
    angle = np.pi / 2 - np.arctan2(-y, x)
    side = 2 * ROI_SCALE * max(float(np.hypot(x, y)), 1.0)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear = rotation.T * (LANDMARK_SIZE / side)
    shift = LANDMARK_SIZE / 2 - linear @ np.asarray(centre, dtype=np.float64)
    return np.concatenate([linear, shift[:, None]], axis=1), rotation, side


def anchor_centres() -> Float[np.ndarray, "2254 2"]:
    """Centres of the detector's anchors in [0, 1], x and y: grids of stride 8, 16 and 32 px with
    2, 2 and 6 anchors per cell."""
    grids = []
    for stride, per_cell in ((8, 2), (16, 2), (32, 6)):
        centres = (np.arange(DETECTOR_SIZE // stride) + 0.5) * stride / DETECTOR_SIZE
        cells = np.stack(np.meshgrid(centres, centres), axis=-1).reshape(-1, 2)
        grids.append(np.repeat(cells, per_cell, axis=0))
    return np.concatenate(grids).astype(np.float32)


def weighted_nms(
    rows: Float[np.ndarray, "n k 2"], scores: Float[np.ndarray, " n"], max_overlap: float
) -> list[tuple[float, Float[np.ndarray, "k 2"]]]:
    """Merge detections whose boxes overlap; of each group its best score and its score-weighted mean.

    rows: points of which the first two are the box's corners. Two boxes overlap when
    intersection over union exceeds ``max_overlap``.
    """
    merged = []
    left = np.argsort(-scores)
    while len(left):
        overlap = intersection_over_union(rows[left[0], :2], rows[left, :2])
        group = overlap > max_overlap
        group[0] = True  # also where the best box is empty
        members = left[group]
        mean = np.average(rows[members], axis=0, weights=scores[members])
        merged.append((float(scores[left[0]]), mean))
        left = left[~group]
    return merged


def intersection_over_union(
    box: Float[np.ndarray, "2 2"], boxes: Float[np.ndarray, "n 2 2"]
) -> Float[np.ndarray, " n"]:
    """IoU of one box with n boxes, all as corners (x0, y0), (x1, y1)."""
    low, high = np.maximum(box[0], boxes[:, 0]), np.minimum(box[1], boxes[:, 1])
    shared = np.prod(np.clip(high - low, 0, None), axis=-1)
    area, areas = np.prod(box[1] - box[0]), np.prod(boxes[:, 1] - boxes[:, 0], axis=-1)
    overlap: np.ndarray = shared / np.maximum(area + areas - shared, 1e-12)
    return overlap


def _sigmoid(x: np.ndarray) -> np.ndarray:
    value: np.ndarray = 1 / (1 + np.exp(-np.clip(x, -80, 80)))
    return value


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """The interpreter announces from C++ how it runs, which no setting of its turns off."""
    try:
        kept = os.dup(2)
    except OSError:  # there is no stderr
        yield
        return
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


class _Network:
    """A TensorFlow Lite network with one image input, whose outputs are found by their shapes."""

    def __init__(self, path: str | Path, threads: int, outputs: Mapping[str, tuple[int, ...]]):
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError as error:
            raise UserError(
                f"the landmark networks need the package ai-edge-litert ({error}): "
                "run `pip install -r requirements.txt`"
            ) from error
        if not Path(path).is_file():
            raise UserError(f"{path}: no such network; `{fetch_command()}` fetches it")
        check_pinned(path)
        try:
            with _silent_stderr():
                self._interpreter: Any = Interpreter(model_path=str(path), num_threads=threads)
                self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise UserError(
                f"{path} is not a TensorFlow Lite network ({shown(error)}); fetch it again"
            ) from error
        self._input = self._interpreter.get_input_details()[0]["index"]
        # The names (Identity, Identity_1, …) depend on the export; the shapes are the network's own.
        found = {tuple(d["shape"].tolist()): d["index"] for d in self._interpreter.get_output_details()}
        missing = [name for name, shape in outputs.items() if shape not in found]
        if missing:
            raise UserError(
                f"{path} is another network: no output {missing[0]} of shape {outputs[missing[0]]}"
            )
        self._outputs = {name: found[shape] for name, shape in outputs.items()}

    def __call__(self, image: np.ndarray) -> dict[str, np.ndarray]:
        self._interpreter.set_tensor(self._input, image[None])
        self._interpreter.invoke()
        return {name: self._interpreter.get_tensor(index) for name, index in self._outputs.items()}

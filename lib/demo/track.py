"""One person over consecutive frames, as landmarks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..landmarks.blazepose import Landmarks
from ..landmarks.features import landmark_boxes
from ..landmarks.flips import repair_flips

MAX_GAP = 1 / 3
"""Seconds of a track that may be missing, and are interpolated."""


@dataclass
class Track:
    """One person over consecutive frames.

    ``frame_ids`` (n,) int, 0-based, without gaps; ``bboxes`` (n, 4) float32 cx, cy, side, side px, the tight
    square about the landmarks (x1.0); ``xy`` (n, 33, 2) px; ``visibility`` (n, 33) in [0, 1], 0 in frames
    that were interpolated; ``world`` (n, 33, 3) m about the hips, in the camera's axes; all float32.
    """

    person_id: int
    frame_ids: np.ndarray
    bboxes: np.ndarray
    xy: np.ndarray
    visibility: np.ndarray
    world: np.ndarray


def make_track(person_id: int, seen: Sequence[int], landmarks: Sequence[Landmarks]) -> Track:
    """A track of the landmarks of the frames ``seen``, in order; what is missing between is interpolated.

    Front-back flips, mirrorings along the viewing ray, are undone before the metric landmarks are turned
    from the ray's axes to the camera's.
    """
    ids = np.array(seen)
    frame_ids = np.arange(ids[0], ids[-1] + 1)
    xy = _fill(frame_ids, ids, np.stack([found.xy for found in landmarks]))
    world = _fill(frame_ids, ids, np.stack([found.world for found in landmarks]))
    axes = _fill(frame_ids, ids, np.stack([found.axes for found in landmarks]))
    visibility = np.zeros((len(frame_ids), xy.shape[1]), np.float32)
    visibility[ids - ids[0]] = [found.visibility for found in landmarks]
    xy, visibility, world = repair_flips(xy, visibility, world)
    return Track(
        person_id=person_id,
        frame_ids=frame_ids,
        bboxes=landmark_boxes(xy),
        xy=xy,
        visibility=visibility,
        world=world @ axes.transpose(0, 2, 1),
    )


def _fill(frame_ids: np.ndarray, seen: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Linear interpolation along the first axis: values at the frames ``seen`` -> at all ``frame_ids``."""
    columns = [np.interp(frame_ids, seen, column) for column in values.reshape(len(seen), -1).T]
    return np.stack(columns, axis=1).reshape(len(frame_ids), *values.shape[1:]).astype(np.float32)

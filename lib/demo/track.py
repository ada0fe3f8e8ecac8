"""One person over consecutive frames, as landmarks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from ..landmarks.blazepose import Landmarks
from ..landmarks.features import landmark_boxes
from ..landmarks.flips import repair_flips

MAX_GAP = 1 / 3
"""Seconds of a track that may be missing, and are interpolated."""


@dataclass
class Track:
    """One person over consecutive frames.

    Attributes:
        frame_ids: from 0, without gaps.
        bboxes: cx, cy, side, side px, the tight square about the landmarks (x1.0).
        xy: px. visibility: in [0, 1], 0 in frames that were interpolated.
        world: metres about the hips, in the camera's axes; all float32.
    """

    person_id: int
    frame_ids: Int[np.ndarray, " t"]
    bboxes: Float[np.ndarray, "t 4"]
    xy: Float[np.ndarray, "t 33 2"]
    visibility: Float[np.ndarray, "t 33"]
    world: Float[np.ndarray, "t 33 3"]


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


def _fill(
    frame_ids: Int[np.ndarray, " t"], seen: Int[np.ndarray, " n"], values: Float[np.ndarray, " n *rest"]
) -> Float[np.ndarray, " t *rest"]:
    """Linear interpolation along the first axis: values at the frames ``seen`` -> at all ``frame_ids``."""
    columns = [np.interp(frame_ids, seen, column) for column in values.reshape(len(seen), -1).T]
    return np.stack(columns, axis=1).reshape(len(frame_ids), *values.shape[1:]).astype(np.float32)

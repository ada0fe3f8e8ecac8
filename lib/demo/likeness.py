"""Whether two sets of landmarks are of one person, in one frame or from frame to frame."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from ..landmarks.blazepose import Landmarks, intersection_over_union
from ..landmarks.features import LANDMARK_FLIP, landmark_boxes

SAME_OVERLAP = 0.7  # IoU of two landmark boxes that can only be one person
SAME_DISTANCE = 0.1  # or: median distance of their landmarks, in sides of the larger box, …
SAME_DISTANCE_OVERLAP = 0.4  # … where the boxes overlap by this at least
MAX_SHIFT = 0.5  # of the hips within REFERENCE_STEP or one frame, in radii of the body's circle, …
MAX_LONG_SHIFT = 1.0  # … and at most, at low frame rates
MAX_GROWTH = 1.5  # of that circle
REFERENCE_STEP = 1 / 30
REUNION_SHIFT = 0.5  # how far a lost person may have gone, in box sides
REUNION_GROWTH = 1.5
JOIN_GROWTH = 2.0  # the same, where reading backwards led to the lost person


def same_person(a: Landmarks, b: Landmarks) -> bool:
    """Whether two landmark sets of one frame lie on the same person: their boxes overlap a lot, or somewhat
    and most landmarks agree, be it with left and right exchanged (which the network sometimes does)."""
    overlap = box_overlap(a, b)
    if overlap > SAME_OVERLAP or overlap < SAME_DISTANCE_OVERLAP:
        return overlap > SAME_OVERLAP
    side = max(np.ptp(points, axis=0).max() for points in (a.xy, b.xy))
    orders = (slice(None), LANDMARK_FLIP)
    distance = min(np.median(np.linalg.norm(a.xy - b.xy[order], axis=1)) for order in orders)
    return bool(distance < SAME_DISTANCE * side)


def circle_radius(person: Landmarks) -> float:
    """Of the circle about the body, px."""
    return float(np.linalg.norm(person.next_scale_point - person.next_centre))


def box_overlap(a: Landmarks, b: Landmarks) -> float:
    """IoU of the boxes about two persons' landmarks."""
    corners = np.stack([[points.min(axis=0), points.max(axis=0)] for points in (a.xy, b.xy)])
    return float(intersection_over_union(corners[0], corners[1:])[0])


def landmark_distance(a: Landmarks, b: Landmarks) -> float:
    """Median distance of landmarks in box sides."""
    return float(np.median(np.linalg.norm(a.xy - b.xy, axis=1)) / landmark_boxes(b.xy)[2])


def landmark_motion(readings: dict[int, Landmarks], frame_ids: list[int]) -> float:
    """Sum over the frames of what all landmarks move, in box sides."""
    return sum(
        float(
            np.linalg.norm(readings[a].xy - readings[b].xy, axis=1).mean() / landmark_boxes(readings[b].xy)[2]
        )
        for a, b in pairwise(frame_ids)
    )


def is_reunion(before: Landmarks, now: Landmarks, growth: float = REUNION_GROWTH) -> bool:
    old, new = landmark_boxes(before.xy), landmark_boxes(now.xy)
    near = np.linalg.norm(new[:2] - old[:2]) < REUNION_SHIFT * max(old[2], new[2])
    return bool(near and 1 / growth < new[2] / old[2] < growth)


def largest_shift(seconds: float) -> float:
    """How far a person's hips may go between two frames, in radii of the body's circle."""
    return MAX_SHIFT * min(max(1.0, seconds / REFERENCE_STEP), MAX_LONG_SHIFT / MAX_SHIFT)

"""Heels and toes: where they are, and how a motion is changed so that they stand still."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.ndimage import minimum_filter1d
from scipy.spatial.transform import Rotation

from ..models.body import BodyData
from ..utils.smoothing import gaussian
from .motion import Placed, joint_chain, rest_joints, rest_vertices

LEGS = ((1, 4, 7, 10), (2, 5, 8, 11))
"""Hip, knee, ankle and toe joint of the left and the right leg."""
SOLE_JOINTS = [joint for *_, ankle, toe in LEGS for joint in (ankle, toe)]
"""The joints that the points on the soles go with, in the order of :data:`lib.motion.motion.FEET`."""
_HEELS = ((3387,), (6787,))  # vertices; where these feet end behind and in front
_TOES = ((3216, 3216, 3216, 3226), (6617, 6617, 6617, 6624))

CONTACT_SPEED, CONTACT_HEIGHT = 0.3, 0.04  # m/s and m
MAX_SHIFT = 0.25  # metres that a foot may be moved; a contact that asks for more is none
_BLEND = 0.25  # seconds over which a change comes and goes
_ROOT_BLEND = 1.0  # the same of the root's
_ROOT_SMOOTH = 0.07  # seconds, width of the Gaussian over the change of the root
_STRETCH = 0.985  # of a leg's length that it may reach, unless it did before: knees of straight legs shake
_MAX_DROP = 0.1  # metres that the root may sink for legs to reach their feet


@dataclass(frozen=True, eq=False)
class Skeleton:
    """Joints and soles of one shape.

    Attributes:
        rest: metres, joints of the rest pose.
        parents: kinematic tree.
        soles: metres, from the ankle to the heel's and from the toe joint to the toe's end on the sole, in
            the rest pose; in the order of :data:`lib.motion.motion.FEET`.
    """

    rest: Float[np.ndarray, "24 3"]
    parents: Int[np.ndarray, " 24"]
    soles: Float[np.ndarray, "4 3"]

    @staticmethod
    def of(body: BodyData, betas: Float[np.ndarray, " 10"]) -> Skeleton:
        """The skeleton of a shape."""
        rest = rest_joints(body, betas)
        verts = rest_vertices(body, betas)
        soles = []
        for (_, _, ankle, toe), heels, toes in zip(LEGS, _HEELS, _TOES):
            foot = verts[np.isin(body.weights.argmax(1), (ankle, toe))]
            for joint, ends in ((ankle, heels), (toe, toes)):
                point = verts[list(ends)].mean(0)
                point[1] = foot[:, 1].min()
                soles.append(point - rest[joint])
        return Skeleton(rest, body.parents, np.array(soles, np.float32))

    def chain(self, placed: Placed) -> tuple[Float[np.ndarray, "t 24 3 3"], Float[np.ndarray, "t 24 3"]]:
        """Rotations and positions of the joints in the frame of reference."""
        rotations, positions = joint_chain(placed.rotmat, self.rest, self.parents)
        return rotations, positions + placed.transl[:, None]

    def feet(self, placed: Placed) -> Float[np.ndarray, "t 4 3"]:
        """Metres: the points on the soles, see :data:`lib.motion.motion.FEET`."""
        return self.points(*self.chain(placed))

    def points(
        self, rotations: Float[np.ndarray, "t 24 3 3"], positions: Float[np.ndarray, "t 24 3"]
    ) -> Float[np.ndarray, "t 4 3"]:
        """:meth:`feet` of joints that are known."""
        arms = (rotations[:, SOLE_JOINTS] @ self.soles[..., None])[..., 0]
        points: np.ndarray = positions[:, SOLE_JOINTS] + arms
        return points


def contacts_of(
    feet: Float[np.ndarray, "t 4 3"], fps: float, speed: float = CONTACT_SPEED, height: float = CONTACT_HEIGHT
) -> Bool[np.ndarray, "t 4"]:
    """Which soles, in metres, y up, of a motion that is known stand on the floor at 0: those slower than
    ``speed`` m/s and lower than ``height`` m."""
    slow: np.ndarray = np.linalg.norm(np.gradient(feet, axis=0), axis=-1) * fps < speed
    return slow & (feet[..., 1] < height)


def lock_feet(
    placed: Placed, skeleton: Skeleton, contacts: Bool[np.ndarray, "t 4"], fps: float
) -> tuple[Placed, Bool[np.ndarray, "t 4"]]:
    """A motion in the world whose feet stand still on the floor while they touch it.

    The root takes what all feet need, smoothly; legs bend for the rest, about the knees' own axes; soles that
    rest as a whole are laid flat. In the air changes fade out, and no foot sinks.

    Args:
        placed: y up, floor at 0.
        contacts: see :data:`lib.motion.motion.FEET`.

    Returns:
        the motion, and the contacts that hold in it: those that would move a foot by more than
        :data:`MAX_SHIFT` are taken back.
    """
    feet = skeleton.feet(placed)
    pairs = slice(0, 2), slice(2, 4)
    anchors = np.concatenate([anchor(feet[:, pair], contacts[:, pair]) for pair in pairs], 1)
    contacts = contacts & (np.linalg.norm(anchors - feet, axis=-1) < MAX_SHIFT)
    standing = np.any(contacts, 1)
    if not standing.any():
        return placed, contacts
    wanted = np.where(contacts[..., None], anchors - feet, 0).sum(1) / contacts.sum(1).clip(1)[:, None]
    shift = gaussian(_fade(wanted, standing, round(_ROOT_BLEND * fps)), _ROOT_SMOOTH * fps)
    placed = Placed(placed.rotmat, (placed.transl + shift).astype(np.float32))
    rotations, positions = skeleton.chain(placed)
    feet = skeleton.points(rotations, positions)
    targets, turns = [], []
    for (_, _, ankle, _), pair in zip(LEGS, pairs):
        move, turn = _foot_change(
            feet[:, pair], anchors[:, pair], contacts[:, pair], positions[:, ankle], round(_BLEND * fps)
        )
        targets.append(positions[:, ankle] + move)
        turns.append(turn)
    drop = _drop(positions, targets, round(_BLEND * fps))
    positions[..., 1] += drop[:, None]
    transl = placed.transl.copy()
    transl[:, 1] += drop
    rotmat = placed.rotmat.copy()
    for (hip, knee, ankle, _), target, turn in zip(LEGS, targets, turns):
        thigh, shin = reach(positions[:, [hip, knee, ankle]], rotations[:, hip], target)
        upper, lower, foot = thigh @ rotations[:, hip], shin @ rotations[:, knee], turn @ rotations[:, ankle]
        rotmat[:, hip] = np.swapaxes(rotations[:, skeleton.parents[hip]], -1, -2) @ upper
        rotmat[:, knee] = np.swapaxes(upper, -1, -2) @ lower
        rotmat[:, ankle] = np.swapaxes(lower, -1, -2) @ foot
    return Placed(rotmat, transl), contacts


def runs(flags: Bool[np.ndarray, " t"]) -> list[tuple[int, int]]:
    """First frame and the one after the last of each stretch of True."""
    edges = np.flatnonzero(np.diff(np.r_[False, flags, False].astype(np.int8)))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2])]


def anchor(
    points: Float[np.ndarray, "t 2 3"], contacts: Bool[np.ndarray, "t 2"]
) -> Float[np.ndarray, "t 2 3"]:
    """Where heel and toe of one foot stand, metres.

    Each contact stands in one place on the floor; places of a heel and a toe that rest together are a foot's
    length apart. Frames without contact keep their points.
    """
    result = points.copy()
    ground = points[..., [0, 2]]
    stretches = [runs(contacts[:, side]) for side in range(2)]
    number = np.full(contacts.shape, -1)
    for side in range(2):
        for index, (start, stop) in enumerate(stretches[side]):
            number[start:stop, side] = index
    places: dict[tuple[int, int], np.ndarray] = {}
    group: dict[tuple[int, int], int] = {}
    for start, stop in runs(np.all(contacts, 1)):
        heel, toe = (0, int(number[start, 0])), (1, int(number[start, 1]))
        along = (ground[start:stop, 1] - ground[start:stop, 0]).mean(0)
        along *= np.linalg.norm(ground[start:stop, 1] - ground[start:stop, 0], axis=-1).mean() / max(
            float(np.linalg.norm(along)), 1e-6
        )
        if toe in places and heel in places:
            continue
        if toe in places:
            places[heel], group[heel] = places[toe] - along, group[toe]
        else:
            if heel not in places:
                places[heel], group[heel] = np.zeros(2), start
            places[toe], group[toe] = places[heel] + along, group[heel]
    for side in range(2):
        for index, (start, _) in enumerate(stretches[side]):
            if (side, index) not in places:
                places[side, index], group[side, index] = np.zeros(2), ~(2 * start + side)
    for name in set(group.values()):
        members = [key for key in places if group[key] == name]
        away = [ground[slice(*stretches[side][index]), side] - places[side, index] for side, index in members]
        offset = np.concatenate(away).mean(0)
        for side, index in members:
            x, z = places[side, index] + offset
            result[slice(*stretches[side][index]), side] = x, 0, z
    return result


def reach(
    leg: Float[np.ndarray, "t 3 3"], thigh: Float[np.ndarray, "t 3 3"], target: Float[np.ndarray, "t 3"]
) -> tuple[Float[np.ndarray, "t 3 3"], Float[np.ndarray, "t 3 3"]]:
    """Two-bone inverse kinematics.

    Args:
        leg: hip, knee and ankle, metres.
        thigh: rotation of the thigh, whose x axis is the knee's while the leg is straight.
        target: where the ankle goes, as far as the leg reaches.

    Returns:
        two rotations in the frame of reference, of the thigh and of the shin.
    """
    hip, knee, ankle = np.moveaxis(leg.astype(np.float64), 1, 0)
    start_upper, start_lower = knee - hip, ankle - knee
    upper, lower = start_upper, start_lower
    lengths = np.linalg.norm(upper, axis=-1), np.linalg.norm(lower, axis=-1)
    reach_to = np.linalg.norm(target - hip, axis=-1).clip(
        np.abs(lengths[0] - lengths[1]) + 1e-3, _longest(hip, knee, ankle)
    )
    turned = Rotation.identity(len(hip)), Rotation.identity(len(hip))
    for _ in range(3):
        straight = _unit(upper + lower)
        axis = np.cross(upper, lower) / (lengths[0] * lengths[1])[:, None]
        spare = turned[0].apply(thigh[:, :, 0])
        spare = spare - (spare * straight).sum(-1, keepdims=True) * straight
        axis = _unit(axis + 0.02 * _unit(spare))
        bend = _bend(*lengths, reach_to) - _bend(*lengths, np.linalg.norm(upper + lower, axis=-1))
        knees = Rotation.from_rotvec(axis * bend[:, None])
        lower = knees.apply(lower)
        hips = between(upper + lower, target - hip)
        upper, lower = hips.apply(upper), hips.apply(lower)
        turned = hips * turned[0], hips * knees * turned[1]
    return turned[0].as_matrix(), turned[1].as_matrix()


def _longest(
    hip: Float[np.ndarray, "t 3"], knee: Float[np.ndarray, "t 3"], ankle: Float[np.ndarray, "t 3"]
) -> Float[np.ndarray, " t"]:
    """Metres from hip to ankle that a leg may reach."""
    bones = np.linalg.norm(knee - hip, axis=-1) + np.linalg.norm(ankle - knee, axis=-1)
    longest: np.ndarray = np.maximum(_STRETCH * bones, np.linalg.norm(ankle - hip, axis=-1))
    return longest


def _bend(
    upper: Float[np.ndarray, " t"], lower: Float[np.ndarray, " t"], distance: Float[np.ndarray, " t"]
) -> Float[np.ndarray, " t"]:
    """Flexion in radians of a joint whose bones' ends are so far apart."""
    cosine = (upper**2 + lower**2 - distance**2) / (2 * upper * lower)
    flexion: np.ndarray = np.pi - np.arccos(cosine.clip(-1, 1))
    return flexion


def between(start: Float[np.ndarray, "n 3"], end: Float[np.ndarray, "n 3"]) -> Rotation:
    """The smallest rotations from directions to others."""
    start, end = _unit(start), _unit(end)
    axis = np.cross(start, end)
    sine = np.linalg.norm(axis, axis=-1, keepdims=True)
    angle = np.arctan2(sine, (start * end).sum(-1, keepdims=True))
    return Rotation.from_rotvec(axis * np.where(sine > 1e-9, angle / sine.clip(1e-9), 1))


def _unit(vectors: Float[np.ndarray, "*batch 3"]) -> Float[np.ndarray, "*batch 3"]:
    unit: np.ndarray = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True).clip(1e-9)
    return unit


def _foot_change(
    points: Float[np.ndarray, "t 2 3"],
    anchors: Float[np.ndarray, "t 2 3"],
    contacts: Bool[np.ndarray, "t 2"],
    ankle: Float[np.ndarray, "t 3"],
    blend: int,
) -> tuple[Float[np.ndarray, "t 3"], Float[np.ndarray, "t 3 3"]]:
    """Shift of an ankle and turn of a foot that bring its heel and toe to their places."""
    heel, toe = points[:, 0], points[:, 1]
    flat = np.all(contacts, 1)
    turn = between(toe - heel, anchors[:, 1] - anchors[:, 0]).as_rotvec()
    turn = Rotation.from_rotvec(_fade(turn, flat, blend))
    arms = turn.apply(heel - ankle), turn.apply(toe - ankle)
    by_heel, by_toe = anchors[:, 0] - arms[0] - ankle, anchors[:, 1] - arms[1] - ankle
    move = np.where(contacts[:, 1:], by_toe, by_heel)
    standing = np.any(contacts, 1)
    move = _fade(move, standing, blend)
    lowest = (ankle + move)[:, 1] + np.minimum(arms[0][:, 1], arms[1][:, 1])
    move[:, 1] += np.where(standing, 0, (-lowest).clip(0))
    return move, turn.as_matrix()


def _fade(
    values: Float[np.ndarray, "t k"], known: Bool[np.ndarray, " t"], width: int
) -> Float[np.ndarray, "t k"]:
    """Values that are known in some frames; elsewhere they go on smoothly, at the speed that they
    had, to the next, or to 0 and back where more than ``width`` frames lie between."""
    rows = np.flatnonzero(known)
    if len(rows) == 0:
        return np.zeros_like(values)
    frames = np.arange(len(values))
    after = np.searchsorted(rows, frames)
    left, right = rows[(after - 1).clip(0)], rows[after.clip(max=len(rows) - 1)]
    between = (left < frames) & (frames < right)
    span = np.where(between, np.minimum(right - left, width), width).clip(1)
    steps = np.diff(values, axis=0, prepend=values[:1]) * (known & np.r_[False, known[:-1]])[:, None]
    backwards = np.r_[steps[1:], np.zeros_like(steps[:1])]
    faded = np.zeros_like(values)
    for end, speed, passed in ((left, steps, frames > left), (right, -backwards, frames < right)):
        way = (np.abs(frames - end) / span).clip(0, 1)[:, None]
        part = (1 - way) ** 2 * ((1 + 2 * way) * values[end] + way * span[:, None] * speed[end])
        faded += np.where(passed[:, None], part, 0)
    return np.where(known[:, None], values, faded)


def _drop(
    positions: Float[np.ndarray, "t 24 3"], targets: list[Float[np.ndarray, "t 3"]], width: int
) -> Float[np.ndarray, " t"]:
    """Metres, at most 0, that the root sinks so that both legs reach their targets."""
    drop = np.zeros(len(positions))
    for (hip, knee, ankle, _), target in zip(LEGS, targets):
        longest = _longest(positions[:, hip], positions[:, knee], positions[:, ankle])
        away = target - positions[:, hip]
        height = np.sqrt((longest**2 - away[:, 0] ** 2 - away[:, 2] ** 2).clip(0))
        drop = np.minimum(drop, (height + away[:, 1]).clip(-_MAX_DROP, 0))
    # The smallest of a window, then averages over less than it: smooth, and never higher than needed.
    return gaussian(minimum_filter1d(drop, 2 * width + 1, mode="nearest"), width / 4)

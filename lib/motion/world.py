"""From the camera's frame to a world with a floor that everybody stands on."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import sparse
from scipy.ndimage import minimum_filter1d
from scipy.sparse.linalg import spsolve

from ..models.body import BodyData
from .camera import Camera
from .contacts import find_contacts
from .feet import Skeleton, between, lock_feet
from .motion import Motion, Placed, Scene

log = logging.getLogger(__name__)

LEVEL = np.diag([1.0, -1.0, -1.0])
"""Camera axes to a world with y up, for a camera that is held level."""
Up = Literal["floor", "camera"]

# How cameras are held: pitch (positive looks down) and roll in radians, and how much they vary.
_PITCH, _PITCH_SPREAD, _ROLL_SPREAD = 0.1, 0.15, 0.05
_UPRIGHT_SPREAD = 0.15  # rad, of the mean axis of one standing person against gravity
_STANDING_LEAN = 0.6  # rad from a level camera's vertical; who leans more does not stand
_HEAD, _ANKLES = 15, [7, 8]
_ALONG, _ALONG_LATER = 0.3, 0.35  # of the speed along the line of sight, before and after it is corrected
_STRIDE = 0.5  # seconds within which some foot is on the floor, before and after
_BESIDE = 0.03  # metres above the lowest sole, of others that stand
_LASTS = 0.5  # seconds for which errors of a pose last: of so many frames one counts
_SOLE_SPREAD = 0.02  # metres, errors of a resting sole across the line of sight
_DEPTH_SPREAD = 0.02  # of the distance, errors along it, apart from a person's size
_SIZE_SPREAD = 0.06  # of a person's size
_ROOT_SPREAD = 3.0  # m/s^2 of the root along the line of sight
_STEP = 0.3  # metres from which on a level is another one: a box, a stair
_KNOWN = 1.0  # seconds of resting soles that tell a level
_OUTLIER = 3.0  # spreads from which on an error counts less and less


@dataclass(frozen=True)
class Floor:
    """The floor as the camera sees it: ``up`` unit vector in camera axes, ``height`` metres of the camera
    above it. A point x lies ``up x + height`` above the floor."""

    up: Float[np.ndarray, " 3"]
    height: float

    @property
    def rotation(self) -> Float[np.ndarray, "3 3"]:
        """From the camera's axes to the world's, without turning about the vertical."""
        turn: np.ndarray = between((LEVEL @ self.up)[None], np.array([[0.0, 1.0, 0.0]])).as_matrix()[0]
        return turn @ LEVEL


@dataclass(frozen=True, eq=False)
class _Seen:
    """One person's feet and pelvis in the camera's frame, the axis from the feet to the head while they
    stand, the share of frames in which they do, and which points are in the image."""

    skeleton: Skeleton
    feet: Float[np.ndarray, "t 4 3"]
    pelvis: Float[np.ndarray, "t 3"]
    axis: Float[np.ndarray, " 3"]
    standing: float
    in_sight: Bool[np.ndarray, "t 4"]


def place_in_world(scene: Scene, body: BodyData, *, up: Up = "floor", lock: bool = True) -> Scene:
    """The scene in a world with y up and the floor at 0, its origin below the first person's first pelvis.

    Gravity and floor come from the soles that rest, of everybody; towards a camera held as cameras are, and
    people who stand upright, where they say little. Each person's distance from the camera is then corrected
    by the soles that rest, which are on the floor.

    Args:
        scene: with motions in the camera's frame. Of a camera that moves, each person's path becomes their
            own alone, told from the feet.
        body: of the scene.
        up: ``camera`` takes the camera as level.
        lock: make feet stand, see :func:`lib.motion.feet.lock_feet`.
    """
    if not scene.people:
        return scene
    people = [_look(motion, body, scene.camera) for motion in scene.people]
    find = _own_paths if scene.camera_moves else _paths
    floor, paths, contacts = find(people, up == "camera", scene.fps)
    if scene.camera_moves:
        log.info("the camera moves: world paths are each person's own, told from their feet")
    else:
        down = np.degrees(np.arcsin(-floor.up[2]))
        log.info("the camera stands %.2f m above the floor and looks %.0f degrees down", floor.height, down)
    rotation = floor.rotation
    start = rotation @ (people[0].pelvis[0] + paths[0][0])
    offset = np.array([-start[0], floor.height, -start[2]])
    placed = []
    for motion, person, path, contact in zip(scene.people, people, paths, contacts):
        aside = Placed(motion.camera.rotmat, (motion.camera.transl + path).astype(np.float32))
        world = aside.moved(rotation.astype(np.float32), offset, person.skeleton.rest[0])
        if lock:
            world, contact = lock_feet(world, person.skeleton, contact, scene.fps)
        placed.append(replace(motion, world=world, contacts=contact))
    return replace(
        scene, people=tuple(placed), world_rotation=rotation, world_offset=offset, feet_locked=lock
    )


def _paths(
    people: Sequence[_Seen], level: bool, fps: float
) -> tuple[Floor, list[Float[np.ndarray, "_ 3"]], list[Bool[np.ndarray, "_ 4"]]]:
    """Before a camera that stands: the floor, how far each person has to be moved in the camera's frame, and
    contacts."""
    contacts = _first_contacts(people, level, fps)
    for _ in range(2):
        floor = find_floor(contacts, people, level=level, fps=fps)
        paths = [
            follow_floor(person.pelvis, person.feet, contact, floor, fps)
            for person, contact in zip(people, contacts)
        ]
        contacts = []
        for person, path in zip(people, paths):
            feet = person.feet + path[:, None]
            contacts.append(
                find_contacts(feet, feet @ floor.up + floor.height, fps, _ALONG_LATER) & person.in_sight
            )
    return floor, paths, contacts


def _first_contacts(people: Sequence[_Seen], level: bool, fps: float) -> list[Bool[np.ndarray, "_ 4"]]:
    """Contacts while nothing is known of the floor but its direction: "low" is lower than around."""
    up = find_floor([], people, level=level, fps=fps).up
    contacts = []
    for person in people:
        heights = person.feet @ up
        around = minimum_filter1d(heights.min(1), 2 * round(_STRIDE * fps) + 1, mode="nearest")
        contacts.append(find_contacts(person.feet, heights - around[:, None], fps, _ALONG) & person.in_sight)
    return contacts


def _own_paths(
    people: Sequence[_Seen], level: bool, fps: float
) -> tuple[Floor, list[Float[np.ndarray, "_ 3"]], list[Bool[np.ndarray, "_ 4"]]]:
    """:func:`_paths` before a camera that moves, which says nothing of where people go: the lowest sole
    stands still, on the floor. Everybody starts where the camera saw them."""
    floor = find_floor([], people, level=level, fps=fps)
    paths, contacts = [], []
    for person in people:
        heights = person.feet @ floor.up
        lowest = heights.min(1, keepdims=True)
        contact = heights < lowest + _BESIDE
        arms = person.feet - person.pelvis[:, None]
        both = contact[1:] & contact[:-1]
        step = -(np.diff(arms, axis=0) * both[..., None]).sum(1) / both.sum(1).clip(1)[:, None]
        known = both.any(1)
        if known.any():
            rows = np.flatnonzero(known)
            step = np.stack([np.interp(np.arange(len(step)), rows, side[rows]) for side in step.T], 1)
        path = person.pelvis[0] + np.concatenate([np.zeros((1, 3)), np.cumsum(step, 0)])
        low = ((path[:, None] + arms) @ floor.up).min(1) + floor.height
        path = path - low[:, None] * floor.up
        paths.append(path - person.pelvis)
        contacts.append(contact & person.in_sight)
    return floor, paths, contacts


def find_floor(
    contacts: Sequence[Bool[np.ndarray, "_ 4"]], people: Sequence[_Seen], *, level: bool, fps: float = 30.0
) -> Floor:
    """The most likely floor: soles that rest lie on it, people stand upright on it.

    A person whose size is wrong by some share is so much too near or too far, and the floor below them seems
    so much too high or too low; so each person has a floor level of their own here, and the floor's is the
    mean of the lowest ones. ``level``: the camera is.
    """
    points, owners = [], []
    slant = np.array([0.0, _PITCH])
    for number, (contact, person) in enumerate(zip(contacts, people)):
        chosen = contact & person.in_sight
        points.append(person.feet[chosen] @ LEVEL)
        owners.append(np.full(chosen.sum(), number))
    found = np.concatenate(points) if points else np.zeros((0, 3))
    owner = np.concatenate(owners) if owners else np.zeros(0, int)
    axes = np.array([person.axis @ LEVEL for person in people])
    standing = np.array([person.standing for person in people])
    share = 1 / max(_LASTS * fps, 1)
    counts = np.bincount(owner, minlength=len(people))
    robust = np.ones(len(found))
    for _ in range(0 if level else 8):
        normal = _slanted(slant)
        spread = np.hypot(_SOLE_SPREAD, _DEPTH_SPREAD * np.abs(found @ normal))
        weight = share * robust / spread**2
        centred = found - _means(found, weight, owner, len(people))[owner]
        # Linear in the slant (a, b): a sole lies x a + y c + z b above the middle of its owner's, c near 1.
        sides, height = centred[:, [0, 2]], centred[:, 1] * normal[1]
        matrix = sides.T @ (weight[:, None] * sides) + np.eye(2) * standing.sum() / _UPRIGHT_SPREAD**2
        matrix += np.diag([_ROLL_SPREAD**-2, _PITCH_SPREAD**-2])
        right = standing @ axes[:, [0, 2]] / _UPRIGHT_SPREAD**2 - sides.T @ (weight * height)
        right[1] += _PITCH / _PITCH_SPREAD**2
        slant = np.linalg.solve(matrix, right).clip(-0.8, 0.8)
        robust = 1 / (1 + (centred @ _slanted(slant) / spread / _OUTLIER) ** 2)
    normal = _slanted(np.zeros(2) if level else slant)
    levels = np.array([
        _lowest_level(-found[owner == number] @ normal) if counts[number]
        else -np.percentile((person.feet @ LEVEL @ normal).min(1), 10)
        for number, person in enumerate(people)
    ])  # fmt: skip
    trust = np.sqrt(counts + 1e-3)
    # Who stands higher than the others, stands on something.
    trusted = counts >= min(_KNOWN * fps, counts.max())
    floor = levels > levels[trusted].max() - _STEP
    return Floor(LEVEL @ normal, float(np.average(levels[floor], weights=trust[floor])))


def _lowest_level(levels: Float[np.ndarray, " n"]) -> float:
    """How high the camera is above what is lowest of the things that soles rest on for a while, given how
    high it is above each sole."""
    lowest = np.percentile(levels, 90)
    if lowest - np.median(levels) > _STEP:
        levels = levels[levels > lowest - _STEP]
    return float(np.median(levels))


def follow_floor(
    pelvis: Float[np.ndarray, "t 3"],
    feet: Float[np.ndarray, "t 4 3"],
    contacts: Bool[np.ndarray, "t 4"],
    floor: Floor,
    fps: float,
) -> Float[np.ndarray, "t 3"]:
    """How far, in metres, a person has to be moved along the lines of sight so that soles rest on the floor.

    The only thing that one camera sees badly is the distance. A sole that rests gives it where its line of
    sight meets the floor; and a root has mass.

    Args:
        pelvis, feet: metres in the camera's frame. contacts: of the feet.
    """
    share = 1 / max(_LASTS * fps, 1)
    up, far = pelvis @ floor.up, pelvis[:, 2]
    height = feet @ floor.up + floor.height
    size = _size(height, up, contacts, share)
    # The unknown is the change of the distance, as a share of it: a sole's height is height + up * change.
    smooth, bend = sparse.csc_array((len(far), len(far))), np.zeros(len(far))
    if len(far) > 2:
        second = sparse.diags_array([1.0, -2.0, 1.0], offsets=[0, 1, 2], shape=(len(far) - 2, len(far)))
        second = second @ sparse.diags_array(far) * (fps**2 / _ROOT_SPREAD)
        smooth, bend = second.T @ second, second.T @ (second @ np.ones(len(far)))
    change = np.full(len(far), size)
    for _ in range(4):
        error = (height + (up * change)[:, None]) / _SOLE_SPREAD
        weight = contacts / _SOLE_SPREAD**2 / (1 + (error / _OUTLIER) ** 2)
        diagonal = _DEPTH_SPREAD**-2 + weight.sum(1) * up**2
        right = size * _DEPTH_SPREAD**-2 - (weight * height).sum(1) * up - bend
        change = spsolve((smooth + sparse.diags_array(diagonal)).tocsc(), right)
    moved: np.ndarray = pelvis * np.atleast_1d(change)[:, None]
    return moved


def _means(
    values: Float[np.ndarray, "n k"],
    weights: Float[np.ndarray, " n"],
    groups: Int[np.ndarray, " n"],
    count: int,
) -> Float[np.ndarray, "groups k"]:
    """Weighted means of the rows of each of ``count`` groups."""
    sums = np.bincount(groups, weights, count).clip(1e-12)
    return np.stack([np.bincount(groups, weights * column, count) / sums for column in values.T], 1)


def _size(
    height: Float[np.ndarray, "t 4"],
    up: Float[np.ndarray, " t"],
    contacts: Bool[np.ndarray, "t 4"],
    share: float,
) -> float:
    """The change of distance, as a share of it, that is the same in all frames of a person: that of a size
    which was wrong. Soles of these heights that rest must come down by moving the pelvis, which lies so far
    above the camera, along the line of sight."""
    slope = np.broadcast_to(up[:, None], height.shape)[contacts]
    rest, size = height[contacts], 0.0
    spread = np.hypot(_SOLE_SPREAD, _DEPTH_SPREAD * slope)
    for _ in range(4):
        weight = share / spread**2 / (1 + ((rest + slope * size) / spread / _OUTLIER) ** 2)
        size = -(weight * slope * rest).sum() / ((weight * slope**2).sum() + _SIZE_SPREAD**-2)
    return float(size)


def _look(motion: Motion, body: BodyData, camera: Camera) -> _Seen:
    skeleton = Skeleton.of(body, motion.betas)
    rotations, joints = skeleton.chain(motion.camera)
    feet = skeleton.points(rotations, joints).astype(np.float64)
    pixels = camera.project(feet)
    in_sight = ((pixels >= 0) & (pixels < [camera.width, camera.height])).all(-1) & (feet[..., 2] > 0)
    axes = joints[:, _HEAD] - joints[:, _ANKLES].mean(1)
    axes = axes / np.linalg.norm(axes, axis=-1, keepdims=True)
    stands = -axes[:, 1] > np.cos(_STANDING_LEAN)
    axis = np.median(axes[stands], 0) if stands.any() else np.zeros(3)
    return _Seen(skeleton, feet, joints[:, 0].astype(np.float64), axis, float(stands.mean()), in_sight)


def _slanted(slant: Float[np.ndarray, " 2"]) -> Float[np.ndarray, " 3"]:
    """Unit vector up of a floor whose normal has so much of x and z in the axes of a level camera."""
    a, b = slant
    return np.array([a, np.sqrt(1 - min(a * a + b * b, 0.99)), b])

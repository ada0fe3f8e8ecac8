"""BVH files -> motions of SMPL's 24 joints.

Joints are found by the names of usual skeletons; spine, neck and collars by where they hang. What the file's
rest pose differs from SMPL's T-pose by is taken out: limbs are turned by the shortest way, trunk and feet are
taken as they stand. Lengths become metres by the unit in which the legs are as long as a person's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from ..models.body import OPEN_DATA, load_body
from ..motion.motion import rest_joints
from ..utils.errors import UserError, shown
from ..utils.reading import existing, readable

_LEFT = (1, 4, 7, 16, 18, 20, 10, 22)  # SMPL's joints; those of the right come next. The last two may lack
_NEEDED = 6
_FAMILIES = (  # hips, head, and the left side in the order of _LEFT
    ("hips", "head", "leftupleg leftleg leftfoot leftarm leftforearm lefthand lefttoebase lefthandindex1"),
    ("hips", "head", "leftupleg leftleg leftfoot leftarm leftforearm lefthand lefttoe lefthandindex1"),
    ("hips", "head", "lefthip leftknee leftankle leftshoulder leftelbow leftwrist lefttoe lefthand"),
    ("hip", "head", "lthigh lshin lfoot lshldr lforearm lhand ltoe lfingers"),
    ("pelvis", "head", "lhip lknee lankle lshoulder lelbow lwrist lfoot lhand"),
)
_CHANNELS = {f"{axis}{kind}" for axis in "XYZ" for kind in ("position", "rotation")}
_LIMBS = {1: 4, 4: 7, 2: 5, 5: 8, 16: 18, 18: 20, 17: 19, 19: 21}  # bones whose rest direction is taken out
_WITH_FOREARM = {20: 18, 22: 18, 21: 19, 23: 19}
_UNITS = (0.001, 0.01, 0.0254, 0.0564444, 1.0)  # mm, cm, inch, CMU's (an inch over 0.45), m
_FURTHEST = 120.0  # degrees from SMPL's limb to that of a rest pose
_STILL = 0.2  # rad: from a T-pose in the first frame to the motion, it is a calibration frame
_HEADER = re.compile(r"^[ \t]*MOTION\s+Frames:\s*(\d+)\s+Frame\s+Time:\s*(\S+)", re.MULTILINE)


@dataclass
class _Skeleton:
    """Joints of a file in its order: names, parents (-1 at the root), offsets (J, 3), channels."""

    names: list[str]
    parents: list[int]
    offsets: np.ndarray
    channels: list[list[str]]

    def path(self, joint: int) -> list[int]:
        """From the root down to ``joint``."""
        way = [joint]
        while self.parents[way[-1]] >= 0:
            way.append(self.parents[way[-1]])
        return way[::-1]


def read_bvh(path: str | Path) -> tuple[Float[np.ndarray, "t 24 3 3"], Float[np.ndarray, "t 3"], float]:
    """The motion of a BVH file.

    Returns:
        local rotations of SMPL's joints, trans in metres with y up as SMPL's translation (of a body of mean
        shape), and frames per second.

    Raises:
        UserError: no BVH file, cut off, numbers that are not finite, joints that are not found, or a rest
            pose that is not that of somebody who stands.
    """
    path = existing(path, "BVH file")
    with readable(path, "BVH file"):
        text = path.read_text(encoding="utf-8", errors="replace")
        header = _HEADER.search(text)  # bvhio waits for ever for one that does not come
        if header is None:
            raise UserError(f"{path}: no BVH file (no MOTION, Frames: and Frame Time: in it); get it again")
        skeleton = _skeleton(path)
        frames, frame_time = int(header[1]), float(header[2])
        values = np.array(text[header.end() :].split(), dtype=np.float64)
    width = sum(map(len, skeleton.channels))
    if values.size != frames * width or not frames:
        raise UserError(
            f"{path}: {values.size} numbers after MOTION, expected {frames} frames of {width}; get it again"
        )
    if not (np.isfinite(values).all() and np.isfinite(skeleton.offsets).all() and 1e-4 <= frame_time <= 1):
        raise UserError(f"{path}: numbers that are not finite, or no frame time of 0.0001 to 1 s")
    turns, places = _globals(skeleton, values.reshape(frames, width))
    sources = _sources(skeleton, path)
    rotmat, trans = _retarget(skeleton, turns[:, sources], places[:, sources[0]], sources, path)
    if _starts_at_rest(turns):
        rotmat, trans = rotmat[1:], trans[1:]
    return rotmat, trans, round(1 / frame_time, 2)


def _skeleton(path: Path) -> _Skeleton:
    try:
        import bvhio
    except ImportError as error:
        raise UserError(
            f"{path}: BVH files need the package bvhio: pip install tcmr[bvh], or bvhio"
        ) from error
    names: list[str] = []
    parents: list[int] = []
    offsets: list[list[float]] = []
    channels: list[list[str]] = []

    def add(joint: Any, parent: int) -> None:
        number = len(names)
        names.append(joint.Name)
        parents.append(parent)
        offsets.append(list(joint.Offset))
        channels.append(joint.Channels)
        if not set(joint.Channels) <= _CHANNELS or len(set(joint.Channels)) < len(joint.Channels):
            raise UserError(f"{path}: joint {shown(joint.Name)} has channels {shown(joint.Channels)}")
        for child in joint.Children:
            add(child, number)

    add(bvhio.readAsBvh(str(path), loadKeyFrames=False).Root, -1)
    return _Skeleton(names, parents, np.array(offsets), channels)


def _globals(skeleton: _Skeleton, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rotations (T, J, 3, 3) and places (T, J, 3) of the joints, in the file's axes and unit."""
    frames, first = len(values), 0
    turns = np.tile(np.eye(3), (frames, len(skeleton.names), 1, 1))
    places = np.zeros((frames, len(skeleton.names), 3))
    for joint, (parent, channels) in enumerate(zip(skeleton.parents, skeleton.channels)):
        own = values[:, first : first + len(channels)]
        first += len(channels)
        local = np.tile(skeleton.offsets[joint], (frames, 1))
        for column, name in enumerate(channels):
            if name.endswith("position"):
                local[:, "XYZ".index(name[0])] = own[:, column]
        order = [(column, name[0]) for column, name in enumerate(channels) if name.endswith("rotation")]
        if order:
            angles = own[:, [column for column, _ in order]]
            axes = "".join(axis for _, axis in order)
            turns[:, joint] = Rotation.from_euler(axes, angles, degrees=True).as_matrix()
        if parent >= 0:
            turns[:, joint] = turns[:, parent] @ turns[:, joint]
            local = places[:, parent] + (turns[:, parent] @ local[..., None])[..., 0]
        places[:, joint] = local
    return turns, places


def _plain(name: str) -> str:
    """A joint's name without a rig's prefix, case and separators."""
    return re.sub(r"^mixamorig\d*|[^a-z0-9]", "", name.lower().rpartition(":")[2])


def _sources(skeleton: _Skeleton, path: Path) -> list[int]:
    """For each of SMPL's joints the file's joint that turns as it does."""
    there: dict[str, int] = {}
    for number, name in enumerate(skeleton.names):
        there.setdefault(_plain(name), number)
    best: dict[int, int] = {}
    for hips, head, side in _FAMILIES:
        left = side.split()
        right = [f"right{n[4:]}" if n.startswith("left") else f"r{n[1:]}" for n in left]
        named = {0: hips, 15: head} | dict(zip(_LEFT, left)) | {k + 1: n for k, n in zip(_LEFT, right)}
        found = {joint: there[name] for joint, name in named.items() if name in there}
        best = max(best, found, key=len)
    if not {0, 15, *_LEFT[:_NEEDED], *(joint + 1 for joint in _LEFT[:_NEEDED])} <= best.keys():
        raise UserError(
            f"{path}: the joints of no known skeleton (CMU, Mixamo, DAZ, SMPL names); it has "
            f"{shown(', '.join(skeleton.names))}"
        )
    return _with_trunk(skeleton, best)


def _with_trunk(skeleton: _Skeleton, found: dict[int, int]) -> list[int]:
    ways = [skeleton.path(found[joint]) for joint in (15, 16, 17)]
    together = [joints[0] for joints in zip(*ways) if len(set(joints)) == 1]
    spine = [joint for joint in together if joint not in skeleton.path(found[0])] or [found[0]]
    found |= {3: spine[0], 6: spine[len(spine) // 2], 9: spine[-1]}
    for joint, way, last in zip((12, 13, 14), ways, (15, 16, 17)):
        above = way[min(len(together), len(way) - 1)]
        found[joint] = above if above != found[last] else spine[-1]
    for last, before in ((10, 7), (11, 8), (22, 20), (23, 21)):
        found.setdefault(last, found[before])
    return [found[joint] for joint in range(24)]


@lru_cache(maxsize=1)
def _smpl_rest() -> tuple[np.ndarray, list[int]]:
    """Rest joints (24, 3) of the mean body, and parents."""
    body = load_body(OPEN_DATA)
    return rest_joints(body, np.zeros(10)).astype(np.float64), body.parents.tolist()


def _retarget(
    skeleton: _Skeleton, turns: np.ndarray, hips: np.ndarray, sources: list[int], path: Path
) -> tuple[np.ndarray, np.ndarray]:
    """Global rotations (T, 24, 3, 3) of the file's joints -> local ones of SMPL's, and trans (T, 3)."""
    smpl, parents = _smpl_rest()
    rest = np.array([skeleton.offsets[skeleton.path(joint)[1:]].sum(0) for joint in sources])
    axes = _axes(rest)
    rest, turns = rest @ axes, axes.T @ turns @ axes
    legs, own = (
        sum(np.linalg.norm(joints[end] - joints[start]) for start, end in _LIMBS.items() if start < 16)
        for joints in (smpl, rest)
    )
    turned = np.zeros((24, 3))
    if not len(skeleton.names) == len(set(sources)) == 24:  # else it is SMPL's skeleton, of whatever shape
        for joint, end in _LIMBS.items():
            turned[joint] = _shortest_turn(smpl[end] - smpl[joint], rest[end] - rest[joint])
        turned[list(_WITH_FOREARM)] = turned[list(_WITH_FOREARM.values())]
    if not own or not (np.linalg.norm(turned, axis=1) < np.radians(_FURTHEST)).all():
        raise UserError(f"{path}: the rest pose (all angles 0) is not that of somebody who stands")
    whole = turns @ Rotation.from_rotvec(turned).as_matrix()
    local = whole.copy()
    for joint, parent in enumerate(parents[1:], start=1):
        local[:, joint] = np.swapaxes(whole[:, parent], 1, 2) @ whole[:, joint]
    unit = min(_UNITS, key=lambda metres: abs(np.log(metres * own / legs)))
    trans = unit * hips @ axes - smpl[0]
    return local.astype(np.float32), trans.astype(np.float32)


def _axes(rest: np.ndarray) -> np.ndarray:
    """(3, 3) from SMPL's axes to the file's, which are taken to be some of its own: left, up, forth of the
    rest pose (24, 3)."""
    left, up = rest[1] - rest[2], rest[15] - rest[0]
    matrix = np.zeros((3, 3))
    for column, direction in ((1, up), (0, left)):
        free = np.where(matrix.any(axis=1), 0.0, direction)
        axis = int(np.abs(free).argmax())
        matrix[axis, column] = np.sign(direction[axis]) or 1.0
    matrix[:, 2] = np.cross(matrix[:, 0], matrix[:, 1])
    return matrix


def _shortest_turn(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """(3,) axis-angle from direction ``source`` to ``target``; NaN where one has no length."""
    if not source.any() or not target.any():
        return np.full(3, np.nan)
    cross = np.cross(source, target)
    sine = np.linalg.norm(cross)
    turn: np.ndarray = np.arctan2(sine, source @ target) * cross / max(sine, 1e-12)
    return turn


def _starts_at_rest(turns: np.ndarray) -> bool:
    """Whether the first frame is a rest pose before the motion, as in CMU's files."""
    if len(turns) < 3 or np.abs(turns[0] - np.eye(3)).max() > 1e-6:
        return False
    return bool(Rotation.from_matrix(turns[1]).magnitude().max() > _STILL)

"""``person_<id>.bvh``: one person's skeleton and its rotations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float

from ...models.body import BodyData
from ...utils.files import atomic_write
from ..motion import Motion, Scene, rest_joints, rest_vertices
from .skeleton import BONES

_CM = 100
_ORDER = "ZXY"
_ROTATIONS = " ".join(f"{axis}rotation" for axis in _ORDER)
_TIPS = {"Head": (0, 1, 0), "LeftToeBase": (0, 0, 1), "RightToeBase": (0, 0, 1),
         "LeftHandIndex1": (1, 0, 0), "RightHandIndex1": (-1, 0, 0)}  # fmt: skip
"""Which way the last bones point in the rest pose."""


def export(scene: Scene, body: BodyData, folder: Path) -> list[Path]:
    """Write one file per person: a T-pose at rest, centimetres, y up, degrees."""
    written = []
    for motion in scene.people:
        written.append(folder / f"person_{motion.person_id}.bvh")
        rest = rest_joints(body, motion.betas)
        lines = [
            "HIERARCHY",
            *_hierarchy(0, rest, _tips(body, motion.betas, rest), body.parents.tolist()),
            "MOTION",
            f"Frames: {len(motion)}",
            f"Frame Time: {1 / scene.fps:.9f}",
        ]
        with atomic_write(written[-1]) as temporary, temporary.open("w") as sink:
            sink.write("\n".join(lines) + "\n")
            np.savetxt(sink, _channels(motion, rest, body.parents.tolist()), "%.6f")
    return written


def _hierarchy(joint: int, rest: np.ndarray, tips: dict[int, np.ndarray], parents: list[int]) -> list[str]:
    """The lines of a joint and of all below it."""
    if joint == 0:
        # The root's position is told by its channels alone: some readers add the offset to it, others do not.
        kind, offset, channels = "ROOT", np.zeros(3), f"6 Xposition Yposition Zposition {_ROTATIONS}"
    else:
        kind, offset, channels = "JOINT", rest[joint] - rest[parents[joint]], f"3 {_ROTATIONS}"
    inside = [_offset(offset), f"CHANNELS {channels}"]
    for child in _children(joint, parents):
        inside += _hierarchy(child, rest, tips, parents)
    if joint in tips:
        inside += ["End Site", "{", f"\t{_offset(tips[joint])}", "}"]
    return [f"{kind} {BONES[joint]}", "{", *(f"\t{line}" for line in inside), "}"]


def _children(joint: int, parents: list[int]) -> list[int]:
    return [child for child, parent in enumerate(parents) if parent == joint]


def _offset(metres: np.ndarray) -> str:
    return "OFFSET " + " ".join(f"{value:.6f}" for value in _CM * metres)


def _tips(body: BodyData, betas: np.ndarray, rest: np.ndarray) -> dict[int, np.ndarray]:
    """From the last joint of each limb to where the skin ends, (3,) metres."""
    vertices, tips = rest_vertices(body, betas), {}
    for name, direction in _TIPS.items():
        joint = BONES.index(name)
        skin = vertices[body.weights[:, joint] > 0.5]
        tips[joint] = np.array(direction) * max(((skin - rest[joint]) @ direction).max(initial=0.0), 0.01)
    return tips


def _channels(
    motion: Motion, rest: Float[np.ndarray, "24 3"], parents: list[int]
) -> Float[np.ndarray, "t 75"]:
    """The root's position in cm, then each joint's angles in the order of the hierarchy."""
    n = len(motion)
    order = [0]
    for joint in order:  # grows while it is walked
        at = order.index(joint) + 1
        order[at:at] = _children(joint, parents)
    angles = steady_angles(euler_angles(motion.world.rotmat[:, order]))
    return np.concatenate([_CM * (rest[0] + motion.world.transl), angles.reshape(n, -1)], axis=1)


def euler_angles(rotmat: Float[np.ndarray, "*batch 3 3"]) -> Float[np.ndarray, "*batch 3"]:
    """Rotations as angles in degrees about z, then the new x, then the new y."""
    z = np.arctan2(-rotmat[..., 0, 1], rotmat[..., 1, 1])
    # Without the turn about z, an x and a y remain that are well defined even where z and y are not.
    cos, sin = np.cos(z)[..., None], np.sin(z)[..., None]
    first = cos * rotmat[..., 0, :] + sin * rotmat[..., 1, :]
    second = cos * rotmat[..., 1, :] - sin * rotmat[..., 0, :]
    x, y = np.arctan2(rotmat[..., 2, 1], second[..., 1]), np.arctan2(first[..., 2], first[..., 0])
    angles: np.ndarray = np.degrees(np.stack([z, x, y], axis=-1))
    return angles


def steady_angles(angles: Float[np.ndarray, "t j 3"]) -> Float[np.ndarray, "t j 3"]:
    """The same rotations by Euler angles that change least from frame to frame, so that programs may
    interpolate them.

    Args:
        angles: degrees, about three different axes.
    """
    steady = angles.copy()
    turned = np.stack([angles[..., 0] + 180, 180 - angles[..., 1], angles[..., 2] + 180], axis=-1)
    for t in range(1, len(angles)):
        both = np.stack([angles[t], turned[t]])
        both += 360 * np.round((steady[t - 1] - both) / 360)
        change = np.abs(both - steady[t - 1]).sum(-1, keepdims=True)
        steady[t] = np.where(change[1] < change[0], both[1], both[0])
    return steady

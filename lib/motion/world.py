"""From the camera's frame to a world with a floor."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from lib.models.body import BodyData
from lib.motion.motion import Scene, joint_chain, rest_joints

LEVEL = np.diag([1.0, -1.0, -1.0])
"""Camera axes to a world with y up, for a camera that is held level."""
_FEET = [7, 8, 10, 11]  # ankles and feet
_SOLE = 0.02  # metres from the joints of the feet to the floor


def level_world(scene: Scene, body: BodyData) -> Scene:
    """The scene in a world that takes the camera as level: the floor is where feet are lowest, the origin on
    it below the first person's first pelvis."""
    lows, starts = [], []
    for motion in scene.people:
        rest = rest_joints(body, motion.betas)
        joints = joint_chain(motion.camera.rotmat, rest, body.parents)[1] + motion.camera.transl[:, None]
        lows.append(-joints[:, _FEET, 1].max(1))
        starts.append(joints[0, 0] @ LEVEL.T)
    floor = np.percentile(np.concatenate(lows), 5) - _SOLE
    offset = -np.array([starts[0][0], floor, starts[0][2]])
    people = [
        replace(motion, world=motion.camera.moved(LEVEL, offset, rest_joints(body, motion.betas)[0]))
        for motion in scene.people
    ]
    return replace(scene, people=tuple(people), world_rotation=LEVEL, world_offset=offset)

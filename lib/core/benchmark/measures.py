"""What is measured of an estimate, against the truth of its video."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float

from ...landmarks.features import LIMB_JOINTS
from ...models.body import BodyData
from ...models.predict import TRAINING_FPS
from ...models.smpl import SMPL
from ...motion.feet import Skeleton, contacts_of
from ...motion.motion import joint_chain
from ...utils import metrics
from .videos import Estimate, Posed, Video

HIPS = [LIMB_JOINTS.index(27), LIMB_JOINTS.index(28)]
JUMP = 40.0  # degrees of hip yaw between frames 1/30 s apart
FLOOR_PERCENTILE = 20  # of the height of the lower sole in a motion


def heading(joints: Float[np.ndarray, "n 12 3"]) -> Float[np.ndarray, " n"]:
    """Yaw of the line of the hips of limb joints, in radians, camera axes."""
    line = joints[:, HIPS[1]] - joints[:, HIPS[0]]
    yaw: np.ndarray = np.arctan2(line[:, 2], line[:, 0])
    return yaw


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
        vertices: torch.Tensor = self.smpl(shape, turns[:, 1:], turns[:, :1], pose2rot=False).vertices
        return vertices.numpy()

    def _soles(self, posed: Posed) -> tuple[np.ndarray, np.ndarray]:
        """(n, 4, 3) soles and (n, 3) pelvis, before any translation. Networks change shape from frame to
        frame by little, and a skeleton has one: the mean of the video."""
        skeleton = Skeleton.of(self.body, posed.betas.mean(0))
        rotations, positions = joint_chain(posed.rotmat, skeleton.rest, skeleton.parents)
        return skeleton.points(rotations, positions), positions[:, 0]

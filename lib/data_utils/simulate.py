"""Motion -> what a landmark network would see of it: the open training data needs no photograph.

Body -> virtual camera -> 33 true landmarks -> noise with the structure measured on real video (slow drifts,
weak depth, dropped limbs, swapped limbs, whole-body front-back flips).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from lib.models.body import BodyData
from lib.models.smpl import SMPL
from lib.utils.geometry import axis_angle_to_rotmat
from lib.utils.landmark_features import LANDMARK_FLIP

FOCAL, IMAGE_SIZE = 1000.0, 1000.0
LIMBS = {
    "left arm": [13, 15, 17, 19, 21],
    "right arm": [14, 16, 18, 20, 22],
    "left leg": [25, 27, 29, 31],
    "right leg": [26, 28, 30, 32],
    "head": list(range(11)),
}
LIMB_PARENT = {13: 11, 15: 13, 17: 15, 19: 15, 21: 15, 14: 12, 16: 14, 18: 16, 20: 16, 22: 16}
LIMB_PARENT |= {25: 23, 27: 25, 29: 27, 31: 27, 26: 24, 28: 26, 30: 28, 32: 28}
HEAD, ARMS, LEGS = list(range(11)), list(range(13, 23)), list(range(25, 33))


@dataclass(frozen=True)
class NoiseModel:
    """Standard deviations of the simulated landmark errors.

    ``*_2d`` are fractions of the person's box side, ``*_3d`` metres, rotations degrees; "white" changes every
    frame, "slow" drifts (time constant ``slow_frames``), "bias" stays for a clip. Depth errors are the
    lateral ones times ``depth_*``. ``clean`` is the smallest share of the noise a clip may have: clips are
    drawn between that and the full level. ``definition`` is the share of bone lengths by which landmarks lie
    off the model's joints. ``drop`` is per clip and limb, ``swap`` per 16 frames and limb pair.
    Front-back flips come in stretches that start at ``flip_stretch`` per frame; inside, the estimate turns
    over with probability ``flip_on`` and back with ``flip_off``. ``yaw_rate`` and ``freeze`` are per frame.
    """

    white_2d: float = 0.0035
    slow_2d: float = 0.009
    bias_2d: float = 0.010
    white_3d: float = 0.004
    slow_3d: float = 0.0125
    bias_3d: float = 0.0135
    depth_white: float = 2.5
    depth_slow: float = 3.1
    depth_bias: float = 3.1
    turn_bias: float = 5.0
    turn_slow: float = 2.0
    scale: float = 0.05
    definition: float = 0.05
    slow_frames: float = 8.0
    clean: float = 0.2
    drop: float = 0.3
    swap: float = 0.06
    flip_stretch: float = 0.006
    flip_on: float = 0.22
    flip_off: float = 0.4
    yaw_rate: float = 0.008
    freeze: float = 0.01


class LandmarkBody:
    """A body that yields the 49 joints and the 33 landmarks of poses, at the cost of a few vertices."""

    def __init__(self, body: BodyData) -> None:
        self.smpl = SMPL(body)
        joint_weights, vertex_weights = _landmark_weights(_face_vertices(body), len(body.v_template))
        self._joint_weights = torch.from_numpy(joint_weights)
        self._vertex_weights = torch.from_numpy(vertex_weights)

    def __call__(self, rotmat: torch.Tensor, betas: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(n, 24, 3, 3), (n, 10) -> joints (n, 49, 3) and landmarks (n, 33, 3), metres."""
        posed, points = self.smpl.regress(betas, rotmat, self._vertex_weights)
        return self.smpl.joints(betas, rotmat), self._joint_weights @ posed + points


def _face_vertices(body: BodyData) -> dict[str, int]:
    """Eye corners and mouth corners: the front-most head vertices near where a face has them."""
    template = body.v_template
    nose, left_eye, right_eye = template[332], template[2800], template[6260]

    def front(x: float, y: float) -> int:
        near = np.flatnonzero(np.hypot(template[:, 0] - x, template[:, 1] - y) < 0.012)
        return int(near[template[near, 2].argmax()])

    return {
        "left eye inner": front(0.6 * left_eye[0], left_eye[1]),
        "left eye outer": front(1.4 * left_eye[0], left_eye[1]),
        "right eye inner": front(0.6 * right_eye[0], right_eye[1]),
        "right eye outer": front(1.4 * right_eye[0], right_eye[1]),
        "mouth left": front(0.025, nose[1] - 0.042),
        "mouth right": front(-0.025, nose[1] - 0.042),
    }


def _landmark_weights(face: dict[str, int], vertices: int) -> tuple[np.ndarray, np.ndarray]:
    """(33, 24) and (33, vertices): how BlazePose landmarks mix joints and vertices."""
    of_joints, of_vertices = np.zeros((33, 24), np.float32), np.zeros((33, vertices), np.float32)
    for row, name in (
        (1, "left eye inner"),
        (3, "left eye outer"),
        (4, "right eye inner"),
        (6, "right eye outer"),
        (9, "mouth left"),
        (10, "mouth right"),
    ):
        of_vertices[row, face[name]] = 1
    for row, vertex in ((0, 332), (2, 2800), (5, 6260), (7, 583), (8, 4071), (29, 3387), (30, 6787)):
        of_vertices[row, vertex] = 1
    for row, joint in zip(
        (11, 12, 13, 14, 15, 16, 23, 24, 25, 26, 27, 28), (16, 17, 18, 19, 20, 21, 1, 2, 4, 5, 7, 8)
    ):
        of_joints[row, joint] = 1
    for row, wrist, tip, share in (
        (17, 20, 2673, 0.5),
        (18, 21, 6133, 0.5),
        (19, 20, 2319, 0.5),
        (20, 21, 5782, 0.5),
        (21, 20, 2746, 0.6),
        (22, 21, 6191, 0.6),
    ):
        of_joints[row, wrist], of_vertices[row, tip] = 1 - share, share
    for row, big, small in ((31, 3216, 3226), (32, 6617, 6624)):
        of_vertices[row, big], of_vertices[row, small] = 0.75, 0.25
    return of_joints, of_vertices


@dataclass(frozen=True)
class Simulation:
    """Clips of B x T frames. Camera axes are x right, y down, z away; units metres and pixels."""

    rotmat: torch.Tensor  # (B, T, 24, 3, 3) with the global rotation in the camera frame
    betas: torch.Tensor  # (B, T, 10)
    joints3d: torch.Tensor  # (B, T, 49, 3) without translation, as the body model gives them
    joints2d: torch.Tensor  # (B, T, 49, 2) pixels
    xy: torch.Tensor  # (B, T, 33, 2) observed landmarks, pixels
    visibility: torch.Tensor  # (B, T, 33)
    world: torch.Tensor  # (B, T, 33, 3) observed metric landmarks
    true_world: torch.Tensor  # (B, T, 33, 3) the same without noise


class Simulator:
    """Turns clips of motion into observed landmarks; all randomness comes from ``generator``."""

    def __init__(self, body: BodyData, noise: NoiseModel, generator: torch.Generator) -> None:
        self.body, self.noise, self.generator = LandmarkBody(body), noise, generator

    def _uniform(self, low: float, high: float, *shape: int) -> torch.Tensor:
        return low + (high - low) * torch.rand(*shape, generator=self.generator)

    def _normal(self, *shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=self.generator)

    def _slow(self, frames: float, clips: int, length: int, *shape: int) -> torch.Tensor:
        """Ornstein-Uhlenbeck noise of unit variance, (clips, length, *shape)."""
        keep = float(np.exp(-1 / frames))
        state = self._normal(clips, *shape)
        states = [state]
        for _ in range(length - 1):
            state = keep * state + (1 - keep**2) ** 0.5 * self._normal(clips, *shape)
            states.append(state)
        return torch.stack(states, 1)

    def _intervals(self, clips: int, length: int, rate: float, longest: int) -> torch.Tensor:
        """(clips, length) bool: intervals of 1..longest frames that start at ``rate`` per frame."""
        active = torch.zeros(clips, length, dtype=torch.bool)
        starts = torch.rand(clips, length + longest, generator=self.generator) < rate
        duration = torch.randint(1, longest + 1, (clips, length + longest), generator=self.generator)
        for back in range(longest):
            window = slice(longest - back, longest - back + length)
            active |= starts[:, window] & (duration[:, window] > back)
        return active

    def _camera(self, clips: int) -> torch.Tensor:
        """(clips, 3, 3) world (y up) -> camera rotations: any heading, mostly level, seldom tilted."""
        angles = torch.zeros(3, clips, 3)
        angles[0, :, 1] = self._uniform(-np.pi, np.pi, clips)
        pitch, roll = 0.1 + 0.15 * self._normal(clips), 0.06 * self._normal(clips)
        tilted = torch.rand(2, clips, generator=self.generator) < 0.3
        angles[1, :, 0] = torch.where(tilted[0], self._uniform(-0.35, 0.95, clips), pitch)
        angles[2, :, 2] = torch.where(tilted[1], self._uniform(-0.5, 0.5, clips), roll)
        yaw, pitch, roll = axis_angle_to_rotmat(angles)
        return torch.diag(torch.tensor([1.0, -1, -1])) @ roll @ pitch @ yaw

    def __call__(self, rotmat: torch.Tensor, trans: torch.Tensor, betas: torch.Tensor) -> Simulation:
        """rotmat (B, T, 24, 3, 3), trans (B, T, 3) y-up world metres, betas (B, 10)."""
        clips, length = rotmat.shape[:2]
        camera = self._camera(clips)
        seen = rotmat.clone()
        seen[:, :, 0] = camera[:, None] @ rotmat[:, :, 0]
        shape = betas[:, None].expand(clips, length, 10)
        joints, landmarks = self.body(seen.flatten(0, 1), shape.flatten(0, 1))
        joints, landmarks = joints.unflatten(0, (clips, length)), landmarks.unflatten(0, (clips, length))
        root = joints[:, :, 39:40]
        landmarks = landmarks + self._definition(landmarks)

        distance = torch.exp(self._uniform(np.log(2.3), np.log(14.0), clips))
        travel = trans - trans[:, length // 2 : length // 2 + 1]
        position = (camera[:, None] @ travel.unsqueeze(-1)).squeeze(-1)
        centre = torch.stack(
            [distance * 0.1 * self._normal(clips), distance * 0.08 * self._normal(clips), distance], 1
        )
        position = position + centre[:, None]
        position[..., 2].clamp_(min=1.6)

        def to_pixels(points: torch.Tensor) -> torch.Tensor:
            placed = points - root + position[:, :, None]
            return IMAGE_SIZE / 2 + FOCAL * placed[..., :2] / placed[..., 2:].clamp(min=0.4)

        true_world = landmarks - landmarks[:, :, 23:25].mean(2, keepdim=True)
        xy, visibility, world = self._observe(to_pixels(landmarks), true_world)
        return Simulation(seen, shape, joints, to_pixels(joints), xy, visibility, world, true_world)

    def _definition(self, landmarks: torch.Tensor) -> torch.Tensor:
        """Offsets (B, T, 33, 3), constant on the body: a landmark is not where the body model has its joint,
        and nobody has the model's proportions exactly."""
        clips = len(landmarks)
        torso = landmarks[:, :, [11, 12]].mean(2) - landmarks[:, :, [23, 24]].mean(2)
        offset = torch.zeros_like(landmarks)
        for left, right in ((11, 12), (23, 24)):
            along, across = self.noise.definition * self._normal(2, clips, 1, 1)
            half = (landmarks[:, :, left] - landmarks[:, :, right]) / 2
            offset[:, :, left] = along * torso + 2 * across * half
            offset[:, :, right] = along * torso - 2 * across * half
        for landmark in (13, 15, 25, 27):
            stretch = self.noise.definition * self._normal(clips, 1, 1)
            for side in (landmark, landmark + 1):
                bone = landmarks[:, :, side] - landmarks[:, :, LIMB_PARENT[side]]
                offset[:, :, side] = offset[:, :, LIMB_PARENT[side]] + stretch * bone
        for landmark in (17, 19, 21, 29, 31):
            for side in (landmark, landmark + 1):
                offset[:, :, side] = offset[:, :, LIMB_PARENT[side]]
        return offset

    def _observe(
        self, xy: torch.Tensor, world: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        noise, (clips, length) = self.noise, xy.shape[:2]
        side = (xy.amax(2) - xy.amin(2)).amax(-1)
        visibility, level = self._visibility(world)
        axes2, axes3 = (clips, length, 33, 2), (clips, length, 33, 3)

        drift = noise.white_2d * self._normal(*axes2) + noise.bias_2d * self._normal(clips, 1, 33, 2)
        drift += noise.slow_2d * self._slow(noise.slow_frames, clips, length, 33, 2)
        xy = xy + drift * level[..., None] * side[:, :, None, None]

        def lateral_and_depth(depth: float) -> torch.Tensor:
            return torch.tensor([1.0, 1.0, depth])

        white = self._normal(*axes3) * noise.white_3d * lateral_and_depth(noise.depth_white)
        slow = self._slow(noise.slow_frames, clips, length, 33, 3) * noise.slow_3d
        bias = self._normal(clips, 1, 33, 3) * noise.bias_3d
        lasting = slow * lateral_and_depth(noise.depth_slow) + bias * lateral_and_depth(noise.depth_bias)
        white, error = white * level[..., None], (white + lasting) * level[..., None]
        error[:, :, HEAD] = 0.45 * error[:, :, HEAD] + lasting[:, :, :1]
        total = error.clone()
        for landmark, parent in LIMB_PARENT.items():  # a misplaced elbow takes the hand with it
            own = 1.0 if landmark in (13, 14, 15, 16, 25, 26, 27, 28) else 0.6
            total[:, :, landmark] = own * total[:, :, landmark] + 0.6 * (
                total[:, :, parent] - white[:, :, parent]
            )
        world = world + total
        turn = self._normal(clips, 1, 3) * noise.turn_bias
        turn = turn + self._slow(15.0, clips, length, 3) * noise.turn_slow
        turn = turn * np.pi / 180 * torch.tensor([1.3, 1.0, 0.4])
        world = (axis_angle_to_rotmat(turn)[:, :, None] @ world.unsqueeze(-1)).squeeze(-1)
        world = world * torch.exp(self._normal(clips, 1, 1, 1) * noise.scale)
        xy, world = self._confuse(xy, world)
        return xy, visibility, world - world[:, :, 23:25].mean(2, keepdim=True)

    def _visibility(self, world: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Visibility (B, T, 33) and the factor by which each landmark's errors grow."""
        noise, (clips, length) = self.noise, world.shape[:2]
        visibility = self._uniform(0.97, 1.0, clips, length, 33)
        level = torch.ones(clips, length, 33)
        torso = world[:, :, [11, 12, 23, 24]].mean(2)
        behind = world[..., 2] - torso[:, :, None, 2] > 0.08
        beside = (world[..., :2] - torso[:, :, None, :2]).abs()
        hidden = behind & (beside[..., 0] < 0.16) & (beside[..., 1] < 0.32)
        hidden &= torch.rand(clips, 1, 33, generator=self.generator) < 0.8
        visibility = torch.where(hidden, visibility * self._uniform(0.1, 0.9, clips, 1, 33), visibility)
        level = torch.where(hidden, 1.8, level)
        time = torch.arange(length)
        for landmarks in LIMBS.values():
            begin, lasts = (
                self._uniform(-0.5 * length, length, clips),
                self._uniform(2, max(length, 3), clips),
            )
            dropped = (time >= begin[:, None]) & (time < (begin + lasts)[:, None])
            dropped &= torch.rand(clips, 1, generator=self.generator) < noise.drop / 3
            severity = self._uniform(1.5, 5.0, clips, 1)
            faint = self._uniform(0.02, 0.7, clips, 1)
            for landmark in landmarks:
                visibility[:, :, landmark] *= torch.where(dropped, faint, 1.0)
                worse = torch.maximum(level[:, :, landmark], severity)
                level[:, :, landmark] = torch.where(dropped, worse, level[:, :, landmark])
        quality = torch.exp(0.45 * self._normal(clips, 1, 1)) * self._uniform(noise.clean, 1.0, clips, 1, 1)
        part = torch.ones(33)
        part[HEAD], part[[11, 12, 23, 24]], part[[15, 16, 27, 28]] = 0.6, 0.8, 1.2
        part[[17, 18, 19, 20, 21, 22, 29, 30, 31, 32]] = 1.4
        return visibility, level * quality * part

    def _confuse(self, xy: torch.Tensor, world: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Left-right swaps of limbs, front-back flips of the whole body, wrong yaw, frozen frames."""
        noise, (clips, length) = self.noise, xy.shape[:2]
        for limb in (ARMS, LEGS):
            swapped = self._intervals(clips, length, noise.swap / 16, 6)[..., None, None]
            other = [LANDMARK_FLIP[i] for i in limb]
            xy[:, :, limb] = torch.where(swapped, xy[:, :, other], xy[:, :, limb])
            world[:, :, limb] = torch.where(swapped, world[:, :, other], world[:, :, limb])
        # Seen from behind but taken for the front: names swap sides, depth turns round, the picture stays.
        strength = self._flips(clips, length)[..., None, None]
        mirrored = world[:, :, LANDMARK_FLIP] * torch.tensor([1.0, 1.0, -1.0])
        world = torch.lerp(world, mirrored, strength)
        xy = torch.lerp(xy, xy[:, :, LANDMARK_FLIP], strength)
        yawed = self._intervals(clips, length, noise.yaw_rate, 5)
        yaw = torch.zeros(clips, length, 3)
        yaw[..., 1] = torch.where(yawed, 0.9 * self._normal(clips, length), 0.0)
        world = (axis_angle_to_rotmat(yaw)[:, :, None] @ world.unsqueeze(-1)).squeeze(-1)
        frozen = torch.rand(clips, length, generator=self.generator) < noise.freeze
        for t in range(1, length):
            again = frozen[:, t, None, None]
            xy[:, t] = torch.where(again, xy[:, t - 1], xy[:, t])
            world[:, t] = torch.where(again, world[:, t - 1], world[:, t])
        return xy, world

    def _flips(self, clips: int, length: int) -> torch.Tensor:
        """(clips, length) how far each frame is flipped: mostly 0 or 1, sometimes caught half-way."""
        noise = self.noise
        stretch = self._intervals(clips, length, noise.flip_stretch, 40)
        change = torch.rand(clips, length, generator=self.generator)
        state = torch.rand(clips, generator=self.generator) < noise.flip_on / (noise.flip_on + noise.flip_off)
        states = []
        for t in range(length):
            state = torch.where(state, change[:, t] >= noise.flip_off, change[:, t] < noise.flip_on)
            states.append(state)
        strength = self._uniform(0.3, 1.7, clips, length).clamp(max=1.0)
        return torch.where(torch.stack(states, 1) & stretch, strength, 0.0)

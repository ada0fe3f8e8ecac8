"""Motion -> what a landmark network would see of it: the open training data needs no photograph.

Body -> virtual camera -> 33 true landmarks -> noise with the structure measured on real video (slow drifts,
weak depth, dropped limbs, swapped limbs, whole-body front-back flips). Everything is computed on the device
of the random generator.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..landmarks.features import LANDMARK_FLIP
from ..models.body import BodyData
from ..models.landmark_body import LandmarkBody
from ..utils.geometry import axis_angle_to_rotmat
from .draws import Draws

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
ANKLES = (27, 28)
HEAD, ARMS, LEGS = list(range(11)), list(range(13, 23)), list(range(25, 33))
_BONES = {13: 0, 14: 1, 25: 2, 26: 3, 15: 4, 16: 5, 27: 6, 28: 7}  # upper arms, thighs, forearms, shins
_NEAR, _FAR = 2.3, 14.0  # metres between camera and body


@dataclass(frozen=True)
class NoiseModel:
    """Standard deviations of the simulated landmark errors.

    ``*_2d`` are fractions of the person's box side, ``*_3d`` metres, rotations degrees; "white" changes every
    frame, "slow" drifts (time constant ``slow_frames``), "bias" stays for a clip. Depth errors are the
    lateral ones times ``depth_*``. ``clean`` is the smallest share of the noise a clip may have: clips are
    drawn between that and the full level, times a factor whose logarithm varies by ``quality``.
    ``definition`` is the share of bone lengths by which landmarks lie off the model's joints. ``turn_*``: of
    the whole body about x, y, z; ``turn_mean`` that of everybody. ``scale``: of its size (logarithm).
    ``slope_*``: the depth of each bone of arms and legs is that share of the true one, on average, and how
    much it varies from clip to clip and slowly, by a factor of its own for each bone of a clip, whose
    logarithm varies by ``tails``; ``deep``: limbs per second whose depth is plainly wrong for a while;
    ``shin_bias``: metres in depth from knee to ankle. ``drop`` is per clip and limb, ``swap`` per 16 frames
    and limb pair; ``faint``: how far visibility goes down with the errors of a dropped limb. Front-back flips
    and yaw jumps (``yaw_rate`` per frame) befall the share ``flip_clips`` of clips. Flips come in stretches
    that start at ``flip_stretch`` per frame; inside, the estimate turns over with probability ``flip_on`` and
    back with ``flip_off``. ``freeze`` is per frame. ``cut``: clips in which the image's border cuts up to
    half of the person off; ``cut_alike``: from the left as from the right, else up to 80 % from the left.
    """

    white_2d: float = 0.0035
    slow_2d: float = 0.009
    bias_2d: float = 0.006
    white_3d: float = 0.005
    slow_3d: float = 0.021
    bias_3d: float = 0.026
    depth_white: float = 2.3
    depth_slow: float = 2.6
    depth_bias: float = 2.8
    slow_frames: float = 14.0
    turn_bias: tuple[float, float, float] = (7.0, 6.0, 2.0)
    turn_slow: tuple[float, float, float] = (4.0, 4.5, 1.5)
    turn_mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    scale: float = 0.04
    slope_mean: float = 0.82
    slope_bias: float = 0.15
    slope_slow: float = 0.2
    tails: float = 0.4
    definition: float = 0.05
    clean: float = 0.2
    quality: float = 0.45
    drop: float = 0.3
    faint: float = 1.0
    swap: float = 0.06
    deep: float = 0.04
    shin_bias: float = 0.0
    flip_clips: float = 0.5
    flip_stretch: float = 0.008
    flip_on: float = 0.22
    flip_off: float = 0.4
    yaw_rate: float = 0.008
    freeze: float = 0.01
    cut: float = 0.1
    cut_alike: bool = False


NOISE_V1 = NoiseModel(
    bias_2d=0.010,
    white_3d=0.004,
    slow_3d=0.0125,
    bias_3d=0.0135,
    depth_white=2.5,
    depth_slow=3.1,
    depth_bias=3.1,
    slow_frames=8.0,
    turn_bias=(6.5, 5.0, 2.0),
    turn_slow=(2.6, 2.0, 0.8),
    scale=0.05,
    slope_mean=1.0,
    slope_bias=0.0,
    slope_slow=0.0,
    faint=0.0,
    deep=0.0,
    flip_clips=1.0,
    flip_stretch=0.006,
    cut=0.0,
)
"""The errors that the first open weights were trained and measured with."""
NOISE_V2 = NoiseModel()
"""Calibrated on the single person seen by four cameras, see docs/open_noise.md."""
NOISE_V3 = NoiseModel(
    slow_3d=0.0215,
    bias_3d=0.024,
    depth_bias=3.2,
    turn_bias=(4.5, 4.5, 1.5),
    turn_slow=(4.5, 3.5, 1.2),
    turn_mean=(-3.5, 0.0, 0.0),
    scale=0.03,
    slope_mean=0.78,
    slope_bias=0.12,
    slope_slow=0.15,
    tails=0.1,
    clean=0.6,
    quality=0.2,
    deep=0.012,
    shin_bias=0.1,
    flip_clips=0.4,
    yaw_rate=0.005,
    cut_alike=True,
)
"""Calibrated on the same recording: errors of middle size, wrong shins and the mean pitch that v2 lacks."""
NOISES = {"v1": NOISE_V1, "v2": NOISE_V2, "v3": NOISE_V3}


@dataclass(frozen=True)
class Simulation:
    """n clips of t frames. Camera axes are x right, y down, z away; units metres and pixels."""

    rotmat: Float[Tensor, "n t 24 3 3"]  # with the global rotation in the camera frame
    betas: Float[Tensor, "n t 10"]
    joints3d: Float[Tensor, "n t 49 3"]  # without translation, as the body model gives them
    joints2d: Float[Tensor, "n t 49 2"]  # pixels
    xy: Float[Tensor, "n t 33 2"]  # observed landmarks, pixels
    visibility: Float[Tensor, "n t 33"]
    world: Float[Tensor, "n t 33 3"]  # observed metric landmarks
    true_world: Float[Tensor, "n t 33 3"]  # the same without noise


class Simulator(Draws):
    """Turns clips of motion into observed landmarks; all randomness comes from ``generator``."""

    def __init__(self, body: BodyData, noise: NoiseModel, generator: torch.Generator) -> None:
        super().__init__(generator)
        self.noise = noise
        self.body = LandmarkBody(body).to(self.device)
        self._flip = torch.tensor(LANDMARK_FLIP, device=self.device)
        self._mix = _chain().to(self.device)
        self._own = self._mix.diagonal()[:, None]

    @torch.no_grad()
    def __call__(
        self,
        rotmat: Float[Tensor, "n t 24 3 3"],
        trans: Float[Tensor, "n t 3"],
        betas: Float[Tensor, "n 10"],
        view: tuple[Float[Tensor, "n 3 3"], Float[Tensor, "n 3"]] | None = None,
    ) -> Simulation:
        """What a camera sees of bodies.

        Args:
            trans: y-up world metres.
            view: the camera's rotation, from the world's axes to its own, and its place, metres; by default
                it is drawn, near the body.
        """
        clips, length = rotmat.shape[:2]
        camera = self._camera(clips) if view is None else view[0]
        seen = rotmat.clone()
        seen[:, :, 0] = camera[:, None] @ rotmat[:, :, 0]
        shape = betas[:, None].expand(clips, length, 10)
        joints, landmarks = self.body(seen.flatten(0, 1), shape.flatten(0, 1))
        joints, landmarks = joints.unflatten(0, (clips, length)), landmarks.unflatten(0, (clips, length))
        root = joints[:, :, 39:40]
        landmarks = landmarks + self._definition(landmarks)

        if view is None:
            distance = torch.exp(self._uniform(math.log(_NEAR), math.log(_FAR), clips))
            travel = trans - trans[:, length // 2 : length // 2 + 1]
            position = (camera[:, None] @ travel.unsqueeze(-1)).squeeze(-1)
            centre = torch.stack(
                [distance * 0.1 * self._normal(clips), distance * 0.08 * self._normal(clips), distance], 1
            )
            position = position + centre[:, None]
            position[..., 2].clamp_(min=1.6)
        else:
            pelvis = self.body.rest_pelvis(betas)[:, None]
            turned = camera[:, None] @ (pelvis + trans - view[1][:, None]).unsqueeze(-1)
            position = turned.squeeze(-1) - pelvis + root[:, :, 0]

        def to_pixels(points: Tensor) -> Tensor:
            placed = points - root + position[:, :, None]
            pixels: Tensor = IMAGE_SIZE / 2 + FOCAL * placed[..., :2] / placed[..., 2:].clamp(min=0.4)
            return pixels

        true_world = landmarks - landmarks[:, :, 23:25].mean(2, keepdim=True)
        xy, visibility, world = self._observe(to_pixels(landmarks), true_world)
        return Simulation(seen, shape, joints, to_pixels(joints), xy, visibility, world, true_world)

    def _definition(self, landmarks: Float[Tensor, "n t 33 3"]) -> Float[Tensor, "n t 33 3"]:
        """Offsets, constant on the body: a landmark is not where the body model has its joint,
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
        self, xy: Float[Tensor, "n t 33 2"], world: Float[Tensor, "n t 33 3"]
    ) -> tuple[Float[Tensor, "n t 33 2"], Float[Tensor, "n t 33"], Float[Tensor, "n t 33 3"]]:
        noise, (clips, length) = self.noise, xy.shape[:2]
        side = (xy.amax(2) - xy.amin(2)).amax(-1)
        visibility, level = self._visibility(xy, world)
        level = level[..., None]

        drift = noise.white_2d * self._normal(clips, length, 33, 2)
        drift += noise.slow_2d * self._slow(noise.slow_frames, clips, length, 33, 2)
        drift += noise.bias_2d * self._normal(clips, 1, 33, 2)
        xy = xy + drift * level * side[:, :, None, None]

        white = self._normal(clips, length, 33, 3)
        white *= noise.white_3d * self._vector(1.0, 1.0, noise.depth_white)
        lasting = self._slow(noise.slow_frames, clips, length, 33, 3)
        lasting *= noise.slow_3d * self._vector(1.0, 1.0, noise.depth_slow)
        lasting += self._normal(clips, 1, 33, 3) * noise.bias_3d * self._vector(1.0, 1.0, noise.depth_bias)
        # A misplaced elbow takes the hand with it; the head's points share the nose's error.
        error = self._own * level * white + self._mix @ (level * lasting)
        error[:, :, HEAD] = 0.45 * error[:, :, HEAD] + lasting[:, :, :1]
        world = world + error
        world = self._deepen(world)
        turn = self._normal(clips, 1, 3) * self._vector(*noise.turn_bias)
        turn = turn + self._slow(15.0, clips, length, 3) * self._vector(*noise.turn_slow)
        turn = turn + self._vector(*noise.turn_mean)
        world = world @ axis_angle_to_rotmat(turn * math.pi / 180).mT
        world = world * torch.exp(self._normal(clips, 1, 1, 1) * noise.scale)
        xy, world = self._confuse(xy, world)
        return xy, visibility, world - world[:, :, 23:25].mean(2, keepdim=True)

    def _deepen(self, world: Float[Tensor, "n t 33 3"]) -> Float[Tensor, "n t 33 3"]:
        """Bones of arms and legs come out too flat or too deep; now and then a limb's depth is reversed."""
        noise, (clips, length) = self.noise, world.shape[:2]
        wrongs = (noise.slope_bias, noise.slope_slow, noise.deep, noise.shin_bias)
        if noise.slope_mean == 1.0 and not any(wrongs):
            return world
        bones = [i for limb in list(LIMBS.values())[:4] for i in limb]
        tails = torch.exp(noise.tails * self._normal(clips, 1, 8))  # some bones of some clips are far worse
        vary = noise.slope_slow * self._slow(noise.slow_frames, clips, length, 8)
        slope = noise.slope_mean + tails * (vary + noise.slope_bias * self._normal(clips, 1, 8))
        slope[:, :, 2:4] = 0.5 + 0.5 * slope[:, :, 2:4]  # thighs are less wrong than the rest
        wrong = self._intervals(clips, length, noise.deep / 30, 45, 4).repeat(1, 1, 2)
        slope = torch.where(wrong, self._uniform(-1.0, 0.5, clips, 1, 4).repeat(1, 1, 2), slope)
        depth, result = world[..., 2], world.clone()
        for landmark in bones:
            parent, bone = LIMB_PARENT[landmark], _BONES.get(landmark)
            own = depth[:, :, landmark] - depth[:, :, parent]
            own = own if bone is None else slope[:, :, bone] * own
            if noise.shin_bias and landmark in ANKLES:
                own = own + noise.shin_bias * self._normal(clips, 1)
            result[:, :, landmark, 2] = result[:, :, parent, 2] + own
        return result

    def _visibility(
        self, xy: Float[Tensor, "n t 33 2"], world: Float[Tensor, "n t 33 3"]
    ) -> tuple[Float[Tensor, "n t 33"], Float[Tensor, "n t 33"]]:
        """Visibility and the factor by which each landmark's errors grow."""
        noise, (clips, length) = self.noise, world.shape[:2]
        visibility = self._uniform(0.97, 1.0, clips, length, 33)
        level = torch.ones(clips, length, 33, device=self.device)
        torso = world[:, :, [11, 12, 23, 24]].mean(2)
        behind = world[..., 2] - torso[:, :, None, 2] > 0.08
        beside = (world[..., :2] - torso[:, :, None, :2]).abs()
        hidden = behind & (beside[..., 0] < 0.16) & (beside[..., 1] < 0.32)
        hidden &= self._chance(0.8, clips, 1, 33)
        visibility = torch.where(hidden, visibility * self._uniform(0.1, 0.9, clips, 1, 33), visibility)
        level = torch.where(hidden, 1.8, level)
        time = torch.arange(length, device=self.device)
        for landmarks in LIMBS.values():
            begin, lasts = (
                self._uniform(-0.5 * length, length, clips),
                self._uniform(2, max(length, 3), clips),
            )
            dropped = (time >= begin[:, None]) & (time < (begin + lasts)[:, None])
            dropped = (dropped & self._chance(noise.drop / 3, clips, 1))[..., None]
            severity, faint = self._uniform(1.5, 5.0, clips, 1, 1), self._uniform(0.02, 0.7, clips, 1, 1)
            faint = faint * (1.5 / severity) ** noise.faint
            visibility[:, :, landmarks] *= torch.where(dropped, faint, 1.0)
            worse = torch.maximum(level[:, :, landmarks], severity)
            level[:, :, landmarks] = torch.where(dropped, worse, level[:, :, landmarks])
        if noise.cut:
            outside = self._outside(xy)
            visibility = torch.where(outside, visibility * self._uniform(0.0, 0.6, clips, 1, 33), visibility)
            level = torch.where(outside, level.clamp(min=1) * self._uniform(2.0, 6.0, clips, 1, 1), level)
        quality = torch.exp(noise.quality * self._normal(clips, 1, 1)) * self._uniform(
            noise.clean, 1.0, clips, 1, 1
        )
        part = torch.ones(33, device=self.device)
        part[HEAD], part[[11, 12, 23, 24]], part[[15, 16, 27, 28]] = 0.6, 0.8, 1.2
        part[[17, 18, 19, 20, 21, 22, 29, 30, 31, 32]] = 1.4
        return visibility, level * quality * part

    def _outside(self, xy: Tensor) -> Tensor:
        """(B, T, 33) landmarks beyond a border of the image that cuts off up to half of the person."""
        clips = len(xy)
        low, high = xy.amin((1, 2)), xy.amax((1, 2))
        share = 1 - self._uniform(0.05, 0.5, clips, 1)
        border = low + share * (high - low)
        below = xy[..., 1] > border[:, None, None, 1]
        beside = xy[..., 0] > border[:, None, None, 0]
        if self.noise.cut_alike:
            left = xy[..., 0] < (high - share * (high - low))[:, None, None, 0]
        else:
            left = ~beside & (share[:, None] < 0.8)
        beside = torch.where(self._chance(0.5, clips)[:, None, None], beside, left)
        from_below = self._chance(0.75, clips)[:, None, None]
        return torch.where(from_below, below, beside) & self._chance(self.noise.cut, clips)[:, None, None]

    def _confuse(self, xy: Tensor, world: Tensor) -> tuple[Tensor, Tensor]:
        """Left-right swaps of limbs, front-back flips of the whole body, wrong yaw, frozen frames."""
        noise, (clips, length) = self.noise, xy.shape[:2]
        for limb in (ARMS, LEGS):
            swapped = self._intervals(clips, length, noise.swap / 16, 6)[..., None, None]
            other = [LANDMARK_FLIP[i] for i in limb]
            xy[:, :, limb] = torch.where(swapped, xy[:, :, other], xy[:, :, limb])
            world[:, :, limb] = torch.where(swapped, world[:, :, other], world[:, :, limb])
        # Seen from behind but taken for the front: names swap sides, depth turns round, the picture stays.
        unsure = self._chance(noise.flip_clips, clips, 1)
        strength = (self._flips(clips, length) * unsure)[..., None, None]
        mirrored = world[:, :, self._flip] * self._vector(1.0, 1.0, -1.0)
        world = torch.lerp(world, mirrored, strength)
        xy = torch.lerp(xy, xy[:, :, self._flip], strength)
        yaw = torch.zeros(clips, length, 3, device=self.device)
        yawed = self._intervals(clips, length, noise.yaw_rate, 5) & unsure
        yaw[..., 1] = torch.where(yawed, 0.9 * self._normal(clips, length), 0.0)
        world = world @ axis_angle_to_rotmat(yaw).mT
        rows = torch.arange(clips, device=self.device)[:, None]
        held = self._held(~self._chance(noise.freeze, clips, length))
        return xy[rows, held], world[rows, held]

    def _flips(self, clips: int, length: int) -> Float[Tensor, "{clips} {length}"]:
        """How far each frame is flipped: mostly 0 or 1, sometimes caught half-way."""
        noise = self.noise
        stretch = self._intervals(clips, length, noise.flip_stretch, 40)
        # The chain of two states, as a state that is drawn anew with this probability and else kept.
        redrawn = noise.flip_on + noise.flip_off
        drawn = self._chance(noise.flip_on / redrawn, clips, length)
        state = drawn.gather(1, self._held(self._chance(redrawn, clips, length)))
        strength = self._uniform(0.3, 1.7, clips, length).clamp(max=1.0)
        return torch.where(state & stretch, strength, 0.0)


def _chain() -> Float[Tensor, "33 33"]:
    """How the lasting error of each landmark adds up along its limb."""
    mix = torch.eye(33)
    for landmark, parent in LIMB_PARENT.items():  # parents come before their children
        own = 1.0 if landmark in (13, 14, 15, 16, 25, 26, 27, 28) else 0.6
        mix[landmark] = own * torch.eye(33)[landmark] + 0.6 * mix[parent]
    return mix

"""Everybody in a stream, on a floor: from pictures to bodies, knowing the past alone."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float

from ..demo.looking import Detector
from ..demo.models import Models
from ..landmarks.blazepose import LandmarkNetwork
from ..models.inference import PreparedTCMR
from ..models.landmark_body import LandmarkBody
from ..motion.camera import Camera
from ..motion.feet import Skeleton
from ..motion.motion import Placed, joint_chain
from ..motion.world import LEVEL
from ..utils.geometry import rotmat_to_axis_angle
from .capture import Frame
from .filters import RunningMean
from .person import Estimate, LivePerson
from .tracker import LiveTracker

PEOPLE = ("largest", "all")
_FLOOR_MEMORY, _FLOOR_CALM = 10.0, 2.0  # seconds of soles that tell the floor, and of its own mean
_LOWEST = 90  # percentile of how far below the camera soles are


@dataclass(frozen=True, eq=False)
class LiveBody:
    """One person in one frame, in the world: y up, floor at y = 0, metres.

    Attributes:
        person_id: from 1. frame, time: number and seconds of the frame.
        captured: when its picture was there, s of :func:`time.perf_counter`; None where interpolated.
        rotmat: local rotations, the root's against the world. transl, betas: see
            :class:`lib.motion.motion.Placed`.
        skeleton: of that shape. joints: in the world.
        pixels: where the joints are seen.
        camera: where the camera stands. It looks along -z and is level.
    """

    person_id: int
    frame: int
    time: float
    captured: float | None
    rotmat: Float[np.ndarray, "24 3 3"]
    transl: Float[np.ndarray, " 3"]
    betas: Float[np.ndarray, " 10"]
    skeleton: Skeleton
    joints: Float[np.ndarray, "24 3"]
    pixels: Float[np.ndarray, "24 2"]
    camera: Float[np.ndarray, " 3"]

    @cached_property
    def poses(self) -> Float[np.ndarray, " 72"]:
        """Axis-angle."""
        return rotmat_to_axis_angle(torch.from_numpy(self.rotmat)).flatten().numpy()


class LiveEngine:
    """Bodies of a stream.

    Args:
        models: see :func:`lib.demo.models.load_models`.
        detector, network: see :class:`LiveTracker`.
        camera: of the pictures. fps: of the stream.
        delay: frames, see :class:`lib.models.stream.StreamingPredictor`.
        person: ``largest`` or ``all``. fit: move bodies onto the landmarks.

    Attributes:
        delay: frames, the true one.
    """

    def __init__(
        self,
        models: Models,
        detector: Detector,
        network: LandmarkNetwork,
        camera: Camera,
        fps: float,
        *,
        delay: int | None = None,
        person: str = "largest",
        fit: bool = False,
    ) -> None:
        self._tracker = LiveTracker(detector, network, fps, largest=person == "largest")
        self._people: dict[int, LivePerson] = {}
        prepared = PreparedTCMR(models.tcmr, models.cfg.MODEL.PRECISION, rows=1)
        self._setting = models, prepared, LandmarkBody(models.body), camera, fps, delay, fit
        self.delay = LivePerson(*self._setting).delay
        self._camera = camera
        self._soles: deque[float] = deque(maxlen=max(1, round(_FLOOR_MEMORY * fps)))
        self._floor = RunningMean(round(_FLOOR_CALM * fps))
        self._origin: np.ndarray | None = None

    def __call__(self, frame: Frame) -> list[LiveBody]:
        """What is known now that was not before: bodies of this frame and of earlier ones."""
        found = self._tracker.follow(frame.number, frame.image)
        done = []
        for number in [*self._people]:
            if number not in self._tracker.known:
                done += self._placed(number, self._people.pop(number).finish())
        for number, landmarks in found.items():
            if number not in self._people:
                self._people[number] = LivePerson(*self._setting)
            done += self._placed(number, self._people[number].push(frame, landmarks))
        return done

    def finish(self) -> list[LiveBody]:
        """The bodies that are left when the stream ends."""
        done = []
        for number, person in self._people.items():
            done += self._placed(number, person.finish())
        self._people = {}
        return done

    def _placed(self, number: int, estimates: list[Estimate]) -> list[LiveBody]:
        return [self._place(number, estimate) for estimate in estimates]

    def _place(self, number: int, estimate: Estimate) -> LiveBody:
        """Into the world of a level camera that stands as high above the floor as soles tell that rest."""
        skeleton, placed = estimate.skeleton, Placed(estimate.rotmat[None], estimate.transl[None])
        rotations, joints = skeleton.chain(placed)
        self._soles.append(float(skeleton.points(rotations, joints)[0, :, 1].max()))
        height = float(self._floor(np.percentile(self._soles, _LOWEST)))
        pelvis = joints[0, 0]
        if self._origin is None:
            self._origin = pelvis[[0, 2]]
        offset = np.array([-self._origin[0], height, self._origin[1]], np.float32)
        world = placed.moved(LEVEL.astype(np.float32), offset, skeleton.rest[0])
        there = joint_chain(world.rotmat, skeleton.rest, skeleton.parents)[1] + world.transl[:, None]
        return LiveBody(
            person_id=number,
            frame=estimate.frame,
            time=estimate.time,
            captured=estimate.captured,
            rotmat=world.rotmat[0],
            transl=world.transl[0],
            betas=estimate.betas,
            skeleton=skeleton,
            joints=there[0],
            pixels=self._camera.project(joints[0]).astype(np.float32),
            camera=offset,
        )

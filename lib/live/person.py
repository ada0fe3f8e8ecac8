"""One person of a stream: from landmarks, picture by picture, to a body before the camera."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from ..demo.models import Models
from ..demo.reconstruct import sequence_step
from ..demo.track import MAX_GAP, Track
from ..landmarks.blazepose import Landmarks
from ..landmarks.features import landmark_boxes
from ..landmarks.flips import StreamingFlips, flip_back
from ..models.inference import PreparedTCMR
from ..models.landmark_body import LandmarkBody
from ..models.stream import StreamingPredictor
from ..motion.camera import Camera, solve_camera, weak_to_perspective
from ..motion.feet import Skeleton
from ..motion.fit_stream import StreamingFit
from ..utils.crops import CROP_SCALE
from ..utils.smoothing import OneEuro
from .capture import Frame
from .filters import RotationTrend, RunningMean

_SHAPE_MEMORY = 10.0  # seconds
_SHAPE_STEP = 0.05  # of a beta, from which on the skeleton is made anew
TREND = 2 / 30
"""Seconds, width of the :class:`RotationTrend` of poses that are predicted without delay."""
_CALM, _AGILE = 0.7, 4.0  # Hz at rest, and Hz per 1/s, of the logarithm of the distance
_NEAREST = 0.5  # metres
_UNSEEN = 1e-3  # weight of a landmark that is not seen


@dataclass(frozen=True, eq=False)
class Estimate:
    """A body before the camera, in one frame.

    Attributes:
        frame, time: number and seconds of the frame.
        captured: when its picture was there, see :class:`Frame`; None where the person was not seen and is
            interpolated.
        rotmat: local rotations, the root's against the camera's axes.
        transl: metres, see :class:`lib.motion.motion.Placed`.
        betas: the shape, and its skeleton.
    """

    frame: int
    time: float
    captured: float | None
    rotmat: Float[np.ndarray, "24 3 3"]
    transl: Float[np.ndarray, " 3"]
    betas: Float[np.ndarray, " 10"]
    skeleton: Skeleton


@dataclass(frozen=True, eq=False)
class _Sight:
    """What was seen of a person in a frame: landmarks (33, 2) px and (33, 3) m in the camera's axes, how well
    (33,), box (4,) px, feature (F,)."""

    frame: int
    time: float
    captured: float | None
    xy: Float[np.ndarray, "33 2"]
    visibility: Float[np.ndarray, " 33"]
    world: Float[np.ndarray, "33 3"]
    box: Float[np.ndarray, " 4"]
    feature: Float[np.ndarray, " f"]


class LivePerson:
    """Estimates of one person, each as soon as the predictor has it.

    What is missing between two frames is interpolated, up to a third of a second; after more the past is
    forgotten, but not the shape.

    Args:
        models: see :func:`lib.demo.models.load_models`; prepared: of its temporal network.
        body: of ``models.body``.
        fps: frame numbers per second.
        delay: see :class:`StreamingPredictor`.
        fit: move bodies onto the landmarks.
    """

    def __init__(
        self,
        models: Models,
        prepared: PreparedTCMR,
        body: LandmarkBody,
        camera: Camera,
        fps: float,
        delay: int | None,
        fit: bool = False,
    ) -> None:
        self._models, self._prepared, self._body = models, prepared, body
        self._camera, self._fps, self._delay, self._wants_fit = camera, fps, delay, fit
        self._shape = RunningMean(round(_SHAPE_MEMORY * fps))
        self._betas: np.ndarray | None = None
        self._latest: _Sight | None = None
        self._begin()

    @property
    def delay(self) -> int:
        """Frames from a picture to its estimate."""
        return self._predictor.delay

    def push(self, frame: Frame, found: Landmarks) -> list[Estimate]:
        """Add what was found of the person in a frame, later than all before."""
        done = []
        if self._latest is not None and frame.number - self._latest.frame > MAX_GAP * self._fps:
            done += self.finish()
        sight = self._look(frame, found)
        for one in self._between(sight):
            self._waiting.append(one)
            output = self._predictor.push(one.feature)
            if output is not None:
                done.append(self._estimate(self._waiting.popleft(), output))
        self._latest = sight
        return done

    def finish(self) -> list[Estimate]:
        """Estimates that are left, where the person is lost or the stream ends."""
        outputs = self._predictor.finish()
        done = [self._estimate(sight, output) for sight, output in zip(self._waiting, outputs)]
        self._begin()
        return done

    def _begin(self) -> None:
        self._predictor = StreamingPredictor(
            self._prepared,
            self._delay,
            step=sequence_step(self._models.cfg, self._fps),
            return_verts=False,
        )
        self._flips = StreamingFlips()
        self._trend = None if self._predictor.delay else RotationTrend(TREND * self._fps)
        self._fit = None
        if self._wants_fit:
            camera, fps = self._camera, self._fps
            self._fit = StreamingFit(
                self._body, width=camera.width, height=camera.height, fps=fps, focal=camera.focal
            )
        self._distance = OneEuro(_CALM, _AGILE)
        self._latest = None
        self._placed: float | None = None
        self._waiting: deque[_Sight] = deque()

    def _look(self, frame: Frame, found: Landmarks) -> _Sight:
        xy, visibility, world = found.xy, found.visibility.astype(np.float32), found.world
        if self._flips(world):
            tensors = (torch.from_numpy(np.ascontiguousarray(part)) for part in (xy, visibility, world))
            xy, visibility, world = (part.numpy() for part in flip_back(*tensors))
        box = landmark_boxes(xy)
        turned = (world @ found.axes.T).astype(np.float32)
        track = Track(1, np.array([0]), box[None], xy[None], visibility[None], turned[None])
        static = self._models.extractor([frame.image], [track])[0]
        return _Sight(
            frame.number,
            frame.time,
            frame.captured,
            xy,
            visibility,
            turned,
            static.bboxes[0],
            static.values[0],
        )

    def _between(self, sight: _Sight) -> list[_Sight]:
        """The frames since the latest one, interpolated, and this one."""
        before = self._latest
        if before is None:
            return [sight]
        missing = []
        unseen = np.zeros_like(sight.visibility)
        for frame in range(before.frame + 1, sight.frame):
            share = (frame - before.frame) / (sight.frame - before.frame)
            time = before.time + share * (sight.time - before.time)
            xy, world, box, feature = (
                (a + share * (b - a)).astype(np.float32)
                for a, b in (
                    (before.xy, sight.xy),
                    (before.world, sight.world),
                    (before.box, sight.box),
                    (before.feature, sight.feature),
                )
            )
            missing.append(_Sight(frame, time, None, xy, unseen, world, box, feature))
        return [*missing, sight]

    @torch.no_grad()
    def _estimate(self, sight: _Sight, output: dict[str, np.ndarray]) -> Estimate:
        mean = self._shape(output["theta"][75:]).astype(np.float32)
        if self._betas is None or np.abs(mean - self._betas).max() > _SHAPE_STEP:
            self._betas, self._skeleton = mean, Skeleton.of(self._models.body, mean)
        rotmat = output["rotmat"] if self._trend is None else self._trend(output["rotmat"])
        size = np.array([self._camera.width, self._camera.height])
        crop = (sight.box * [1, 1, CROP_SCALE, CROP_SCALE])[None]
        weak = weak_to_perspective(output["theta"][None, :3], crop, self._camera.focal, *size.tolist())
        if self._fit is not None:
            seen = sight.xy, sight.visibility, sight.world
            rotmat, transl = self._fit(rotmat, weak[0], self._betas, sight.box[2], seen)
        else:
            rays = ((sight.xy - size / 2) / self._camera.focal).astype(np.float32)
            transl = self._place(rotmat, rays, sight.visibility.clip(_UNSEEN), weak[0], sight.time)
        return Estimate(sight.frame, sight.time, sight.captured, rotmat, transl, self._betas, self._skeleton)

    def _place(
        self,
        rotmat: Float[np.ndarray, "24 3 3"],
        rays: Float[np.ndarray, "33 2"],
        visibility: Float[np.ndarray, " 33"],
        guess: Float[np.ndarray, " 3"],
        time: float,
    ) -> Float[np.ndarray, " 3"]:
        """The translation that brings the body's landmarks onto their viewing rays, at a calm distance."""
        betas = torch.from_numpy(self._betas)
        points = self._body(torch.from_numpy(rotmat)[None], betas[None])[1][0]
        seen = [torch.from_numpy(part) for part in (rays, visibility, guess)]
        far = solve_camera(points, *seen)[2:].clamp(min=_NEAREST)
        passed = 1 / self._fps if self._placed is None else time - self._placed
        self._placed = time
        depth = torch.from_numpy(self._distance(far.log().numpy(), max(passed, 1e-3))).exp()
        return solve_camera(points, *seen, depth=depth).numpy()

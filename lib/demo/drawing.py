"""Pictures of a scene: over the video's frames, and seen from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from ..models.body import BodyData
from ..models.smpl import SMPL
from ..motion.camera import NEAREST, Camera, weak_to_perspective
from ..motion.meshes import Meshes
from ..motion.motion import Motion, Placed, Scene, rest_joints
from ..utils.colours import Colour, person_colour
from ..utils.smoothing import gaussian
from .render import SIDE_VIEW_DEGREES, Projection, Renderer, rotate_about_y

View = Literal["", "side", "top", "follow"]
VIEWS: tuple[View, ...] = ("side", "top", "follow")
_BACKGROUND, _LINES = (22, 24, 28), (62, 66, 74)
_MARGIN = 1.0  # metres around all paths in the view from above
_DISTANCE, _RISE, _AZIMUTH = 4.5, 0.2, 35.0  # metres, share of it, degrees: where the following camera is
_PATH = 60.0  # seconds of the way gone that are drawn
_CALM = 0.5  # seconds, width of the Gaussian over its path
_GRID = 12  # metres that the floor reaches around the person who is followed


@dataclass(frozen=True, eq=False)
class Figure:
    """A person to be drawn: meshes over the video, and in the world."""

    motion: Motion
    origins: Float[np.ndarray, "t 3"]  # of the overlay's bodies
    overlay: Meshes
    world: Meshes
    pelvis: Float[np.ndarray, " 3"]  # of the rest pose
    colour: Colour


def figures(scene: Scene, smpl: SMPL, body: BodyData, *, plain: bool = False) -> list[Figure]:
    """Everybody in a scene; ``plain``: over the video where the crop camera (1, 0, 0) would see them."""
    found, camera = [], scene.camera
    for index, motion in enumerate(scene.people):
        placed = motion.camera
        if plain:
            cam = np.tile(np.array([1, 0, 0], np.float32), (len(motion), 1))
            placed = Placed(
                placed.rotmat,
                weak_to_perspective(cam, motion.boxes, camera.focal, camera.width, camera.height),
            )
        found.append(
            Figure(
                motion,
                placed.transl,
                Meshes(smpl, placed, motion.betas),
                Meshes(smpl, motion.world, motion.betas),
                rest_joints(body, motion.betas)[0],
                person_colour(index),
            )
        )
    return found


class Drawer:
    """Draws the frames of a video with everybody in them.

    Args:
        people: see :func:`figures`.
        renderer: of the video's size.
        view: what is shown to the right of each frame: ``side``, everybody turned by 270 degrees where they
            stand; ``top``, the world from above; ``follow``, the world beside the person who is longest in
            sight; '' for nothing.
        wireframe: draw the meshes' visible edges. plain: draw on black.
    """

    def __init__(
        self,
        scene: Scene,
        people: Sequence[Figure],
        renderer: Renderer,
        *,
        view: View = "",
        wireframe: bool = False,
        plain: bool = False,
    ) -> None:
        self._camera, self._people, self._renderer = scene.camera, people, renderer
        self._view, self._wireframe, self._plain = view, wireframe, plain
        self._remembered = max(2, round(_PATH * scene.fps))
        # The pelvises' ways through the world.
        self._paths = [figure.motion.world.transl + figure.pelvis for figure in people]
        if view == "follow":
            chosen = max(range(len(people)), key=lambda index: len(people[index].motion))
            self._followed = people[chosen].motion
            self._target = gaussian(self._paths[chosen], _CALM * scene.fps)

    def __call__(self, frame: UInt8[np.ndarray, "h w 3"], frame_id: int) -> UInt8[np.ndarray, "h width 3"]:
        """The frame with everybody drawn in; with a view, twice as wide."""
        present = [
            (index, row)
            for index, figure in enumerate(self._people)
            if (row := figure.motion.row(frame_id)) is not None
        ]
        meshes = [(self._people[i].overlay[row], self._people[i].colour) for i, row in present]
        image = np.zeros_like(frame) if self._plain else frame
        image = self._draw(image, meshes, self._camera.project)
        if not self._view:
            return image
        beside = np.empty_like(frame)
        beside[:] = 0 if self._view == "side" else _BACKGROUND
        if self._view == "side":
            turned = [(self._turned(i, row), self._people[i].colour) for i, row in present]
            beside = self._draw(beside, turned, self._camera.project)
        else:
            beside = self._from_elsewhere(beside, present, frame_id)
        return np.concatenate([image, beside], axis=1)

    def _draw(
        self, image: np.ndarray, meshes: Sequence[tuple[np.ndarray, Colour]], camera: Projection
    ) -> np.ndarray:
        return self._renderer.render(image, meshes, camera, wireframe=self._wireframe)

    def _turned(self, index: int, row: int) -> np.ndarray:
        """A mesh of the overlay, turned about the vertical through the body's origin."""
        verts = self._people[index].overlay[row]
        middle = self._people[index].origins[row]
        turned: np.ndarray = rotate_about_y(verts - middle, SIDE_VIEW_DEGREES) + middle
        return turned

    def _from_elsewhere(
        self, image: np.ndarray, present: Sequence[tuple[int, int]], frame_id: int
    ) -> np.ndarray:
        if self._view == "top":
            rotation, offset, project, middle, reach = self._above()
        else:
            rotation, offset, project, middle, reach = self._beside(frame_id)

        def see(points: np.ndarray) -> np.ndarray:
            seen: np.ndarray = points @ rotation.T + offset
            return seen

        _draw_floor(image, middle, reach, see, project)
        for figure, path in zip(self._people, self._paths):
            gone = max(0, frame_id - int(figure.motion.frames[0]) + 1)
            points = see(path[max(0, gone - self._remembered) : gone] * [1, 0, 1])
            points = project(points[points[:, 2] > NEAREST])
            _polyline(image, points, [int(200 * part) for part in figure.colour])
        meshes = [
            (see(self._people[i].world[row]).astype(np.float32), self._people[i].colour) for i, row in present
        ]
        ahead = [(verts, colour) for verts, colour in meshes if verts[:, 2].min() > NEAREST]
        return self._draw(image, ahead, project)

    def _above(self) -> tuple[np.ndarray, np.ndarray, Projection, np.ndarray, float]:
        """From above: right is +x, down is +z, which is towards a level camera."""
        way = np.concatenate(self._paths)[:, [0, 2]]
        low, high = way.min(0) - _MARGIN, way.max(0) + _MARGIN
        width, height = self._camera.width, self._camera.height
        scale = min(width / (high - low)[0], height / (high - low)[1])
        middle = (low + high) / 2

        def project(points: np.ndarray) -> np.ndarray:
            pixels: np.ndarray = (points[:, :2] - middle) * scale + np.array([width, height]) / 2
            return pixels

        # Everything lies below the eye, at a positive depth.
        down = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
        reach = float(np.hypot(width, height) / scale)
        return down, np.array([0, 0, 100.0]), project, np.array([middle[0], 0, middle[1]]), reach

    def _beside(self, frame_id: int) -> tuple[np.ndarray, np.ndarray, Projection, np.ndarray, float]:
        """Beside the person who is followed, obliquely from where the camera is."""
        row = int(np.clip(frame_id - self._followed.frames[0], 0, len(self._target) - 1))
        target, angle = self._target[row], np.radians(_AZIMUTH)
        eye = target + _DISTANCE * np.array([np.sin(angle), _RISE, np.cos(angle)])
        away = (target - eye) / np.linalg.norm(target - eye)
        right = np.cross(away, [0, 1.0, 0])
        right /= np.linalg.norm(right)
        rotation = np.stack([right, np.cross(away, right), away])
        camera = self._camera
        lens = Camera(camera.width, camera.height, 1.3 * camera.height)
        return rotation, -rotation @ eye, lens.project, target * [1, 0, 1], _GRID


def _draw_floor(
    image: np.ndarray, middle: np.ndarray, reach: float, see: Projection, project: Projection
) -> None:
    """Lines of the floor, one metre apart."""
    first, last = np.floor(middle - reach), np.ceil(middle + reach)
    along = np.linspace(0, 1, 60)[:, None]
    for axis, across in ((0, 2), (2, 0)):
        for place in np.arange(first[axis], last[axis] + 1):
            start, end = first * [1, 0, 1], last * [1, 0, 1]
            start[axis] = end[axis] = place
            start[across], end[across] = first[across], last[across]
            points = see(start + along * (end - start))
            ahead = points[:, 2] > NEAREST
            _polyline(image, project(points[ahead]), _LINES)


def _polyline(image: np.ndarray, points: np.ndarray, colour: Sequence[int]) -> None:
    if len(points) > 1 and np.isfinite(points).all():
        clipped = np.round(points.clip(-20000, 20000) * 16).astype(np.int32)
        cv2.polylines(image, [clipped[:, None]], False, tuple(colour), 1, cv2.LINE_AA, 4)

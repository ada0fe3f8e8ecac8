"""Draw body meshes over an image on the CPU, without OpenGL: OpenCV's rasteriser plus shading per vertex.

Cameras map vertices (X, Y, Z) in metres (x right, y down, z away) to pixels, pixel centres at whole numbers.
Weak perspective in the image, ``orig_cam`` = (sx, sy, tx, ty), is
``((sx (X + tx) + 1) W / 2, (sy (Y + ty) + 1) H / 2)``, whatever the depth; Z only decides what hides what.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from jaxtyping import Float, Integer, UInt8
from scipy.sparse import csr_matrix

from ..utils.colours import Colour

SIDE_VIEW_DEGREES = 270.0
_SUPERSAMPLING = 2
_NEAR, _FAR = 1.0, 4.0
_MESH_NEAR, _MESH_FAR = 2.0, 3.0
_EDGE_DEPTH_SLACK = 0.02  # metres behind the visible surface at which an edge still counts as visible


def rotate_about_y(verts: Float[np.ndarray, "v 3"], degrees: float) -> Float[np.ndarray, "v 3"]:
    """Turn vertices, in camera axes, about the y axis of the graphics axes (up) at the body origin."""
    angle = np.radians(degrees)
    c, s = np.cos(angle), np.sin(angle)
    # Rotation about +y of the graphics axes, written for camera axes (z flipped).
    matrix = np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]], dtype=verts.dtype)
    turned: np.ndarray = verts @ matrix.T
    return turned


def project_vertices(
    verts: Float[np.ndarray, "v 3"], orig_cam: Float[np.ndarray, " 4"], width: int, height: int
) -> Float[np.ndarray, "v 2"]:
    """Metres -> pixels of the image; see the module's text."""
    sx, sy, tx, ty = (float(v) for v in orig_cam)
    u = (sx * (verts[:, 0] + tx) + 1) * width / 2
    v = (sy * (verts[:, 1] + ty) + 1) * height / 2
    return np.stack([u, v], axis=1)


Projection = Callable[[np.ndarray], np.ndarray]
"""Vertices (V, 3) metres -> pixels (V, 2)."""


class Renderer:
    """Draws meshes of one topology into images of one size."""

    def __init__(
        self, faces: Integer[np.ndarray, "n 3"], width: int, height: int, n_verts: int = 6890
    ) -> None:
        """``faces``: vertex numbers, counter-clockwise seen from outside."""
        self.faces = np.ascontiguousarray(faces, dtype=np.int32)
        self.width, self.height = width, height
        corner = self.faces.ravel()
        n_faces = len(self.faces)
        # Sums the normals of the faces around a vertex.
        self._gather = csr_matrix(
            (np.ones(corner.size, np.float32), (corner, np.repeat(np.arange(n_faces), 3))), (n_verts, n_faces)
        )
        sides = np.sort(self.faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
        self._edges, inverse = np.unique(sides, axis=0, return_inverse=True)
        self._face_edges = inverse.reshape(-1, 3)
        self._settings = cv2.TriangleRasterizeSettings()
        self._settings.setShadingType(cv2.RASTERIZE_SHADING_SHADED)
        self._settings.setCullingMode(cv2.RASTERIZE_CULLING_CW)

    def render(
        self,
        image: UInt8[np.ndarray, "h w 3"],
        meshes: Sequence[tuple[Float[np.ndarray, "v 3"], Colour]],
        camera: Float[np.ndarray, " 4"] | Projection,
        *,
        wireframe: bool = False,
    ) -> UInt8[np.ndarray, "h w 3"]:
        """Draw meshes over an image; of each point the nearest surface is seen, whoever's it is.

        Args:
            image: RGB, left as it is.
            meshes: vertices in metres, camera axes (x right, y down, z away), and RGB in [0, 1].
            camera: ``orig_cam`` sx, sy, tx, ty, or any projection; a mesh partly or wholly outside the
                image is fine.
            wireframe: draw the visible edges instead of the surface.

        Returns:
            RGB, a new image.
        """
        out = image.copy()
        shapes = [self._shape(verts, colour, camera) for verts, colour in meshes]
        for group, low, high in _windows([shape for shape in shapes if shape is not None]):
            window = out[low[1] : high[1], low[0] : high[0]]
            moved = [replace(shape, pixels=shape.pixels - low) for shape in group]
            samples, buffer, depths = self._rasterise(moved, window.shape[1], window.shape[0])
            if wireframe:
                self._draw_edges(window, moved, buffer, depths)
            else:
                _draw_surface(window, samples, buffer)
        return out

    def _shape(self, verts: np.ndarray, colour: Colour, camera: np.ndarray | Projection) -> _Shape | None:
        """What is to be drawn of a mesh; None if it is nowhere in the image."""
        verts = np.asarray(verts, np.float32)
        if callable(camera):
            pixels = camera(verts)
        else:
            pixels = project_vertices(verts, camera, self.width, self.height)
        if not np.isfinite(pixels).all():
            return None
        low = np.maximum(np.floor(pixels.min(axis=0)) - 1, 0).astype(int)
        high = np.minimum(np.ceil(pixels.max(axis=0)) + 2, [self.width, self.height]).astype(int)
        if (low >= high).any():
            return None
        return _Shape(pixels, verts[:, 2], self._shade(verts, colour), low, high)

    def _shade(self, verts: np.ndarray, colour: Colour) -> np.ndarray:
        """(V, 3) RGB in [0, 1]: key light from the upper left, cool fill from the right, rim, soft gloss."""
        a, b, c = (verts[self.faces[:, k]] for k in range(3))
        normals = self._gather @ np.cross(b - a, c - a)
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
        toward = -normals[:, 2]  # 1 where the surface faces the camera
        key = np.clip(normals @ _KEY, 0, 1)
        fill = np.clip(normals @ _FILL, 0, 1)
        gloss = np.clip(normals @ _HALFWAY, 0, 1) ** 24
        rim = np.clip(1 - np.abs(toward), 0, 1) ** 3
        base = np.asarray(colour, np.float32)
        diffuse = (0.30 + 0.62 * key)[:, None] + fill[:, None] * _FILL_COLOUR
        shaded = base * diffuse + (0.12 * gloss + 0.10 * rim)[:, None]
        clipped: np.ndarray = np.clip(shaded, 0, 1)
        return clipped.astype(np.float32)

    def _rasterise(
        self, shapes: Sequence[_Shape], width: int, height: int
    ) -> tuple[np.ndarray, np.ndarray, tuple[float, float]]:
        """Supersampled colour (h, w, 3), zero where empty; depth (h, w), ``_FAR`` where empty; and which
        metres its ends ``_MESH_NEAR`` and ``_MESH_FAR`` are.

        The rasteriser knows only perspective cameras. Each vertex is therefore moved to where its viewing ray
        has the pixel that the camera wants: vertices, and with them triangles, land exactly.
        """
        near = min(float(shape.depth.min()) for shape in shapes)
        far = max(float(shape.depth.max()) for shape in shapes)
        size = (height * _SUPERSAMPLING, width * _SUPERSAMPLING)
        surface = np.zeros((*size, 3), np.float32)
        buffer = np.full(size, _FAR, np.float32)
        for shape in shapes:
            z = _MESH_NEAR + (shape.depth - near) * ((_MESH_FAR - _MESH_NEAR) / max(far - near, 1e-6))
            # The image plane's centre is the window's; +0.5 because pixel centres are whole numbers here.
            x = (shape.pixels[:, 0] + 0.5 - width / 2) / (height / 2) * z
            y = (shape.pixels[:, 1] + 0.5 - height / 2) / (height / 2) * z
            cv2.triangleRasterize(
                np.stack([x, -y, -z], axis=1).astype(np.float32)[:, None],
                self.faces[:, None],
                shape.colours[:, None],
                surface,
                buffer,
                np.eye(4, dtype=np.float32),
                np.pi / 2,
                _NEAR,
                _FAR,
                self._settings,
            )
        return surface, buffer, (near, far)

    def _draw_edges(
        self,
        window: np.ndarray,
        shapes: Sequence[_Shape],
        buffer: np.ndarray,
        depths: tuple[float, float],
    ) -> None:
        height, width = window.shape[:2]
        near, far = depths
        surface_depth = near + (buffer - _MESH_NEAR) * ((far - near) / (_MESH_FAR - _MESH_NEAR))
        for shape in shapes:
            ends = shape.pixels[self._edges]
            middle = ends.mean(axis=1) + 0.5
            inside = ((middle >= 0) & (middle < [width, height])).all(axis=1)
            column, row = (middle[inside] * _SUPERSAMPLING).astype(int).T
            depth = shape.depth[self._edges].mean(axis=1)[inside]
            visible = np.flatnonzero(inside)[depth < surface_depth[row, column] + _EDGE_DEPTH_SLACK]
            shift = 4
            points = np.round(ends[visible] * (1 << shift)).astype(np.int32)
            rgb = (255 * shape.colours[self._edges[visible]].mean(axis=1)).tolist()
            for (start, end), line_colour in zip(points.tolist(), rgb):
                cv2.line(window, start, end, line_colour, 1, cv2.LINE_AA, shift)


@dataclass(frozen=True, eq=False)
class _Shape:
    """A mesh on its way into the image: pixels (V, 2), depth (V,) metres, colours (V, 3), corners (2,)."""

    pixels: np.ndarray
    depth: np.ndarray
    colours: np.ndarray
    low: np.ndarray
    high: np.ndarray


def _windows(shapes: Sequence[_Shape]) -> list[tuple[list[_Shape], np.ndarray, np.ndarray]]:
    """Shapes whose rectangles meet, with the rectangle about all of them."""
    groups: list[tuple[list[_Shape], np.ndarray, np.ndarray]] = []
    for shape in shapes:
        together, low, high = [shape], shape.low, shape.high
        while meeting := [g for g in groups if (g[1] < high).all() and (low < g[2]).all()]:
            groups = [group for group in groups if all(group is not other for other in meeting)]
            together = [*(member for group in meeting for member in group[0]), *together]
            low = np.min([low, *(group[1] for group in meeting)], axis=0)
            high = np.max([high, *(group[2] for group in meeting)], axis=0)
        groups.append((together, low, high))
    return groups


def _draw_surface(window: np.ndarray, samples: np.ndarray, buffer: np.ndarray) -> None:
    height, width = window.shape[:2]
    surface = cv2.resize(samples, (width, height), interpolation=cv2.INTER_AREA)
    missed = (buffer >= 0.99 * _FAR).astype(np.uint8) * 255
    background = cv2.resize(missed, (width, height), interpolation=cv2.INTER_AREA)
    kept = cv2.multiply(window, cv2.merge([background] * 3), scale=1 / 255)
    window[:] = cv2.add(kept, cv2.convertScaleAbs(surface, alpha=255))


def _unit(*direction: float) -> np.ndarray:
    vector = np.array(direction, np.float32)
    return vector / np.linalg.norm(vector)


# Directions towards the lights, camera axes: up is -y, towards the viewer is -z.
_KEY = _unit(-0.45, -0.65, -0.75)
_FILL = _unit(0.8, -0.1, -0.4)
_HALFWAY = _unit(*(_KEY + np.array([0, 0, -1], np.float32)))
_FILL_COLOUR = np.array([0.13, 0.15, 0.19], np.float32)

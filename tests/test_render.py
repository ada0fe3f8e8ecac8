"""The rasteriser against direct projection, plus occlusion, clipping and the drawing options."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from lib.demo.render import Renderer, project_vertices, rotate_about_y
from lib.utils.colours import colour_name, person_colour

W, H = 320, 200
CAMERA = np.array([0.6 * H / W, 0.6, 0.1, -0.05])


def sphere(radius: float = 0.8, rows: int = 24, columns: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """Vertices and outward counter-clockwise faces, in axes with y down and z away."""
    theta, phi = np.meshgrid(
        np.linspace(0, np.pi, rows + 1), np.linspace(0, 2 * np.pi, columns, endpoint=False), indexing="ij"
    )
    verts = np.stack([np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)], -1).reshape(
        -1, 3
    )
    i, j = (x.ravel() for x in np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij"))
    a, b = i * columns + j, i * columns + (j + 1) % columns
    faces = np.concatenate([np.stack([a, a + columns, b], 1), np.stack([b, a + columns, b + columns], 1)])
    normals = np.cross(verts[faces[:, 1]] - verts[faces[:, 0]], verts[faces[:, 2]] - verts[faces[:, 0]])
    keep = np.linalg.norm(normals, axis=1) > 1e-9
    assert ((normals * verts[faces].mean(1)).sum(1)[keep] > 0).all()
    return (radius * verts).astype(np.float32), faces[keep]


@pytest.fixture(scope="module")
def ball():
    return sphere()


@pytest.fixture(scope="module")
def renderer(ball):
    return Renderer(ball[1], W, H, len(ball[0]))


def black(height: int = H, width: int = W) -> np.ndarray:
    return np.zeros((height, width, 3), np.uint8)


def draw(renderer, image, verts, camera, colour=(1.0, 1.0, 0.9), **options) -> np.ndarray:
    return renderer.render(image, [(verts, colour)], camera, **options)


def extent(image: np.ndarray) -> list[float]:
    """First column and row, last column and row that are not zero."""
    mask = image.any(axis=2)
    x, y = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    return [x[0], y[0], x[-1], y[-1]]


@pytest.mark.parametrize("camera", [CAMERA, [0.5, 0.3, -0.2, 0.4], [0.2, 0.7, 1.0, 0.0]])
def test_silhouette_is_where_the_vertices_project(ball, renderer, camera):
    """Also with sx, sy that do not belong together: a circle becomes an ellipse."""
    verts, _ = ball
    mask = draw(renderer, black(), verts, camera).max(axis=2) > 0
    pixels = project_vertices(verts, camera, W, H)
    hull = cv2.convexHull(pixels.astype(np.float32))[:, 0]
    ys, xs = np.mgrid[:H, :W]
    distance = np.array(
        [
            cv2.pointPolygonTest(hull, (float(x), float(y)), True)
            for x, y in zip(xs.ravel().tolist(), ys.ravel().tolist())
        ]
    ).reshape(H, W)
    # 2x2 samples per pixel: a pixel whose centre is 0.75 px away from the outline is certain.
    assert mask[distance > 0.75].all()
    assert not mask[distance < -0.75].any()


@pytest.mark.parametrize("depth", [0.0, -5.0, 12.0])
def test_slanted_square_lands_where_it_projects(depth):
    """Its edges within half a pixel, whatever its distance and slant: no perspective."""
    square = np.array([[-0.5, -0.5, 0], [0.5, -0.5, 0.7], [0.5, 0.5, 0.7], [-0.5, 0.5, 0]], np.float32)
    camera = np.array([0.25, 0.37, 0.313, -0.211])
    verts = square + np.array([0, 0, depth], np.float32)
    renderer = Renderer(np.array([[0, 2, 1], [0, 3, 2]]), W, H, 4)
    left, top, right, bottom = extent(draw(renderer, black(), verts, camera) > 100)
    low, high = project_vertices(verts, camera, W, H)[[0, 2]]
    # A pixel reaches half a pixel to either side of its centre.
    np.testing.assert_allclose([left - 0.5, top - 0.5, right + 0.5, bottom + 0.5], [*low, *high], atol=0.5)


def test_mesh_is_opaque_and_the_input_is_left_alone(ball, renderer):
    bright = np.full((H, W, 3), 255, np.uint8)
    dark = black()
    over_bright, over_dark = (draw(renderer, image, ball[0], CAMERA) for image in (bright, dark))
    assert bright.min() == 255
    assert dark.max() == 0
    x, y = project_vertices(np.zeros((1, 3), np.float32), CAMERA, W, H)[0].round().astype(int)
    window = np.s_[y - 20 : y + 20, x - 20 : x + 20]
    np.testing.assert_array_equal(over_bright[window], over_dark[window])
    assert over_bright[0, 0].min() == 255


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("wireframe", [False, True])
def test_the_nearer_surface_is_seen_whoever_comes_first(ball, renderer, first, wireframe):
    """Two balls that reach into each other: each is seen where it is the nearer one."""
    left = (ball[0] + np.array([-0.4, 0, 0.3], np.float32)) * np.array([1, 1, 1.0], np.float32)
    right = ball[0] + np.array([0.4, 0, 0], np.float32)
    meshes = [(left, (1.0, 0.0, 0.0)), (right, (0.0, 0.0, 1.0))]
    image = renderer.render(black(), meshes if first else meshes[::-1], CAMERA, wireframe=wireframe)
    if wireframe:
        same = renderer.render(black(), meshes, CAMERA, wireframe=True)
        assert np.abs(image.astype(int) - same).mean() < 0.5  # lines may cross
        return
    # On the line between the centres, the surfaces meet where the depths sqrt(r^2 - (x -+ 0.4)^2) agree.
    xs = np.linspace(-0.35, 0.35, 15)
    depth_left = 0.3 - np.sqrt(0.64 - (xs + 0.4) ** 2)
    depth_right = -np.sqrt(0.64 - (xs - 0.4) ** 2)
    points = np.stack([xs, 0 * xs, 0 * xs], 1).astype(np.float32)
    for (x, y), a, b in zip(
        project_vertices(points, CAMERA, W, H).round().astype(int), depth_left, depth_right
    ):
        if abs(a - b) > 0.05:
            assert (image[y, x, 0] > image[y, x, 2]) == (a < b)


def test_meshes_that_touch_nowhere_do_not_change_each_other(ball, renderer):
    apart = [
        (0.3 * ball[0] + np.array([x, 0, z], np.float32), (1.0, 0.5, 0.5)) for x, z in ((-1, 4), (1, -3))
    ]
    alone = np.maximum(*(renderer.render(black(), [mesh], CAMERA) for mesh in apart))
    np.testing.assert_array_equal(renderer.render(black(), apart, CAMERA), alone)
    np.testing.assert_array_equal(renderer.render(black(), [], CAMERA), black())


@pytest.mark.parametrize("small_is_nearer", [True, False])
def test_nearer_part_hides_the_farther_one(small_is_nearer):
    """A small square that faces the light and a large one that does not, in one mesh; smaller z is nearer."""
    square = np.array([[-0.5, -0.5, 0], [0.5, -0.5, 0], [0.5, 0.5, 0], [-0.5, 0.5, 0]], np.float32)
    large, small = square.copy(), 0.4 * square
    large[2:, 2] += 0.6  # the lower edge lies back, so that the surface looks down, away from the light
    small[:, 2] += -2 if small_is_nearer else 2
    faces = np.array([[0, 2, 1], [0, 3, 2]])
    renderer = Renderer(np.concatenate([faces, faces + 4]), W, H, 8)
    image = draw(renderer, black(), np.concatenate([large, small]), CAMERA).astype(int).sum(axis=2)
    x, y = (
        project_vertices(np.array([[0, 0, 0], [0.4, 0, 0]], np.float32), CAMERA, W, H).round().astype(int).T
    )
    middle, side = image[y, x]
    assert side > 0
    assert (middle > side + 30) == small_is_nearer


@pytest.mark.parametrize("wireframe", [False, True])
@pytest.mark.parametrize("offset", [(2.4, 0.0), (-2.8, 1.7), (30.0, 0.0), (0.0, -30.0)])
def test_partly_and_wholly_outside(ball, renderer, offset, wireframe):
    """What is drawn equals the same mesh drawn in a larger image and cut out."""
    camera = CAMERA + np.array([0, 0, *offset])
    margin = 80
    wide = Renderer(ball[1], W + 2 * margin, H + 2 * margin, len(ball[0]))
    sx, sy, tx, ty = camera
    wide_camera = np.array([sx * W / (W + 2 * margin), sy * H / (H + 2 * margin), tx, ty])
    expected = draw(wide, black(H + 2 * margin, W + 2 * margin), ball[0], wide_camera, wireframe=wireframe)
    expected = expected[margin : margin + H, margin : margin + W]
    image = draw(renderer, black(), ball[0], camera, wireframe=wireframe)
    assert np.abs(image.astype(int) - expected).mean() < 0.15
    if max(np.abs(offset)) > 10:
        assert not image.any()
    else:
        assert image.any()


@pytest.mark.parametrize(
    "camera", [[np.nan, 0.5, 0, 0], [0.0, 0.0, 0, 0], [1e-9, 1e-9, 0, 0], [40.0, 40.0, 0, 0]]
)
def test_degenerate_cameras_do_not_fail(ball, renderer, camera):
    for wireframe in (False, True):
        assert draw(renderer, black(), ball[0], np.array(camera), wireframe=wireframe).shape == (H, W, 3)


def test_wireframe_draws_visible_edges_only(ball, renderer):
    surface = draw(renderer, black(), ball[0], CAMERA)
    wires = draw(renderer, black(), ball[0], CAMERA, wireframe=True)
    drawn, covered = wires.max(axis=2) > 60, surface.max(axis=2) > 0
    assert 0.1 < drawn.sum() / covered.sum() < 0.9
    assert (drawn & ~cv2.dilate(covered.astype(np.uint8), np.ones((5, 5))).astype(bool)).sum() == 0


def test_side_view_is_a_turn_by_270_degrees_in_graphics_axes():
    verts = np.array([[1.0, 2.0, 3.0], [0.2, -0.4, 0.1]], np.float32)
    angle = np.radians(270)
    c, s = np.cos(angle), np.sin(angle)
    about_y = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    to_graphics = np.diag([1.0, -1, -1])
    expected = verts @ to_graphics @ about_y.T @ to_graphics
    np.testing.assert_allclose(rotate_about_y(verts, 270.0), expected, atol=1e-6)


def test_edges_a_hand_behind_the_surface_are_hidden():
    """A small triangle behind a large one."""
    large = np.array([[-1, 0.8, 0], [1, 0.8, 0], [0, -0.9, 0]], np.float32)
    verts = np.concatenate([large, 0.4 * large + np.float32([0, 0.1, 0.1])])
    faces = np.array([[0, 1, 2], [3, 4, 5]])
    front, both = (
        draw(Renderer(faces[:n], W, H, 3 * n), black(), verts[: 3 * n], CAMERA, wireframe=True)
        for n in (1, 2)
    )
    assert front.any()
    np.testing.assert_array_equal(both, front)
    verts[3:, 2] = -0.1
    nearer = draw(Renderer(faces, W, H, 6), black(), verts, CAMERA, wireframe=True)
    assert nearer.any(axis=2).sum() > 1.2 * front.any(axis=2).sum()


def test_light_comes_from_above(ball, renderer):
    image = draw(renderer, black(), ball[0], CAMERA).sum(axis=2).astype(int)
    top, bottom = project_vertices(np.array([[0, -0.5, 0], [0, 0.5, 0]], np.float32), CAMERA, W, H).astype(
        int
    )
    assert image[top[1], top[0]] > image[bottom[1], bottom[0]] > 0


def test_colours_repeat_and_differ():
    colours = np.array([person_colour(i) for i in range(6)])
    np.testing.assert_array_equal(colours, [person_colour(i) for i in range(6)])
    distance = np.linalg.norm(colours[:, None] - colours[None], axis=2)[~np.eye(6, dtype=bool)]
    assert distance.min() > 0.15
    assert colours.max() <= 1
    assert colours.min() >= 0.45


def test_colours_have_the_names_that_people_would_give():
    assert [colour_name(i) for i in range(4)] == ["blue", "pink", "green", "violet"]

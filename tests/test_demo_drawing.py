"""What the demo draws: order, views, and where a fitted person is seen."""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest

from lib.demo.drawing import VIEWS, figures
from lib.demo.render import Renderer
from lib.motion.meshes import Meshes
from lib.motion.motion import Placed
from lib.utils.colours import person_colour
from tests.demo_tools import H, N, W, drawer, make_track, scene_of

BLACK = np.zeros((H, W, 3), np.uint8)


@pytest.mark.parametrize("nearer_first", [True, False])
def test_nearer_person_covers_the_farther_one(open_models, nearer_first):
    tracks = [make_track(1), make_track(1, size=40.0)]
    scene = scene_of(open_models, *(tracks if nearer_first else tracks[::-1]))
    near, far = sorted(scene.people, key=lambda motion: motion.camera.transl[0, 2])
    assert near.camera.transl[0, 2] < 0.8 * far.camera.transl[0, 2]
    verts = Meshes(open_models.tcmr.regressor.smpl, near.camera, near.betas)[0]
    colour = person_colour(scene.people.index(near))
    alone = Renderer(open_models.body.faces, W, H).render(BLACK, [(verts, colour)], scene.camera.project)
    inside = cv2.erode(alone.max(axis=2), np.ones((3, 3))) > 0
    image = drawer(open_models, scene)(BLACK, 0)
    np.testing.assert_allclose(image[inside].astype(int), alone[inside], atol=1)
    assert (image.any(axis=2) & ~alone.any(axis=2)).any()  # the other one is there, too


@pytest.mark.parametrize("view", ["", "side", "top", "follow"])
def test_only_people_of_the_frame_are_drawn(open_models, view):
    draw = drawer(open_models, scene_of(open_models, make_track(1, start=3)), view=view)
    absent, first, gone = draw(BLACK, 2), draw(BLACK, 3), draw(BLACK, 3 + N)
    assert not absent[:, :W].any() and not gone[:, :W].any()
    assert first[:, :W].any()
    if view:
        assert (first[:, W:] != absent[:, W:]).mean() > 0.003


def test_a_view_is_appended_and_leaves_the_overlay_alone(open_models):
    scene = scene_of(open_models, make_track())
    grey = np.full((H, W, 3), 90, np.uint8)
    usual = drawer(open_models, scene)(grey, 0)
    for view in VIEWS:
        image = drawer(open_models, scene, view=view)(grey, 0)
        assert image.shape == (H, 2 * W, 3)
        np.testing.assert_array_equal(image[:, :W], usual)
        assert image[0, 0].tolist() == [90, 90, 90]
        assert image[0, W].max() < 80
        assert image[:, W:].any()


def test_plain_people_are_turned_where_they_are_drawn(open_models):
    scene = scene_of(open_models, make_track(centre=(40.0, 60.0)))
    image = drawer(open_models, scene, view="side", plain=True)(BLACK, 0)
    columns = [np.flatnonzero(half.any((0, 2))).mean() for half in (image[:, :W], image[:, W:])]
    assert columns[1] == pytest.approx(columns[0], abs=12)


def test_the_side_view_turns_people_where_they_stand(open_models):
    scene = scene_of(open_models, make_track(centre=(40.0, 60.0)))
    image = drawer(open_models, scene, view="side")(BLACK, 0)
    front, side = image[:, :W], image[:, W:]
    (motion,) = scene.people
    verts = Meshes(open_models.tcmr.regressor.smpl, motion.camera, motion.betas)[0]
    x, y, z = (verts - motion.camera.transl[0]).T  # what is farther away comes to the right
    turned = np.stack([z, y, -x], axis=1) + motion.camera.transl[0]
    expected = Renderer(open_models.body.faces, W, H).render(
        BLACK, [(turned, person_colour(0))], scene.camera.project
    )
    np.testing.assert_allclose(side.astype(int), expected, atol=2)
    assert (front != side).any()


def test_the_view_from_above_is_in_scale(open_models):
    """Two people two metres apart, and a metre of margin on either side, fill the picture's width."""
    scene = scene_of(open_models, make_track(1), make_track(2))
    upright = np.tile(np.eye(3, dtype=np.float32), (N, 24, 1, 1))
    motions = []
    for motion, x in zip(scene.people, (0, 2)):
        world = Placed(upright, np.tile(np.array([x, 1, 0], np.float32), (N, 1)))
        motions.append(dataclasses.replace(motion, world=world, betas=np.zeros(10, np.float32)))
    scene = dataclasses.replace(scene, people=tuple(motions))
    image = drawer(open_models, scene, view="top")(BLACK, 0)[:, W:]
    filled = np.flatnonzero((image.max(axis=2) > 110).any(0))
    groups = [group for group in np.split(filled, np.flatnonzero(np.diff(filled) > 1) + 1) if len(group) > 3]
    left, right = (group.mean() for group in groups)
    assert right - left == pytest.approx(2 * W / 4, abs=1.5)


def test_plain_rendering_leaves_the_result_alone(open_models):
    """(1, 0, 0): a metre is half a box, and the body's origin is in the box's middle."""
    scene = scene_of(open_models, make_track())
    image = drawer(open_models, scene, plain=True)(np.full((H, W, 3), 90, np.uint8), 0)
    assert image[0, 0].tolist() == [0, 0, 0]
    (figure,) = figures(scene, open_models.tcmr.regressor.smpl, open_models.body, plain=True)
    motion, camera = scene.people[0], scene.camera
    usual = Meshes(open_models.tcmr.regressor.smpl, motion.camera, motion.betas)
    origin = (figure.overlay[0] - usual[0])[0] + motion.camera.transl[0]
    np.testing.assert_allclose(camera.project(origin), motion.boxes[0, :2], atol=0.1)
    assert origin[2] == pytest.approx(2 * camera.focal / motion.boxes[0, 2], rel=1e-5)


def test_a_fitted_person_is_seen_where_its_mesh_is_drawn(open_models):
    """Projecting the mesh and its joints with K gives the pixels that are told, and those that are drawn."""
    scene = scene_of(open_models, make_track(n=26), fit=None)
    (motion,) = scene.people
    placed = motion.joints3d + motion.camera.transl[:, None]
    ahead = placed[..., 2] > 0.3  # the landmarks are nobody's: parts may come too near
    seen = (placed @ scene.camera.K.T)[ahead]
    assert ahead.mean() > 0.9
    np.testing.assert_allclose(seen[:, :2] / seen[:, 2:], motion.joints2d[ahead], atol=0.02)
    meshes = Meshes(open_models.tcmr.regressor.smpl, motion.camera, motion.betas)
    np.testing.assert_allclose(meshes.joints(), placed, atol=1e-4)
    verts = meshes[0] @ scene.camera.K.T
    pixels = verts[:, :2] / verts[:, 2:]
    low, high = pixels.min(0).clip(0, [W - 1, H - 1]), pixels.max(0).clip(0, [W - 1, H - 1])
    ys, xs = np.nonzero(drawer(open_models, scene)(BLACK, 0).any(2))
    np.testing.assert_allclose([xs.min(), ys.min(), xs.max(), ys.max()], [*low, *high], atol=1)


def test_without_landmarks_everybody_stays_as_tcmr_says(open_models):
    """None of the arrays of a track whose landmarks are all hidden changes, whatever a neighbour's are."""
    hidden = make_track(2)
    hidden.visibility[:] = 0.1
    fitted, passed = scene_of(open_models, make_track(1, n=26), hidden, fit=None).people
    usual_fitted, usual = scene_of(open_models, make_track(1, n=26), hidden).people
    assert np.abs(fitted.camera.rotmat - usual_fitted.camera.rotmat).max() > 0.01
    for name in ("frames", "betas", "boxes", "joints3d", "joints2d", "attention"):
        np.testing.assert_array_equal(getattr(passed, name), getattr(usual, name), err_msg=name)
    np.testing.assert_array_equal(passed.camera.rotmat, usual.camera.rotmat)
    np.testing.assert_array_equal(passed.camera.transl, usual.camera.transl)


def test_meshes_may_be_shared_by_threads(open_models):
    (motion,) = scene_of(open_models, make_track(n=100), n_frames=100).people
    meshes = Meshes(open_models.tcmr.regressor.smpl, motion.camera, motion.betas)
    rows = np.random.default_rng(0).permutation(100)
    with ThreadPoolExecutor(4) as pool:
        verts = list(pool.map(meshes.__getitem__, rows.tolist()))
    np.testing.assert_array_equal(np.stack(verts), meshes.all()[rows])

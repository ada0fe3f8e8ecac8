"""The world of exact scenes: gravity, floor, paths and contacts are known."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from lib.demo.render import Renderer
from lib.models.body import OPEN_DATA, BodyData, load_body
from lib.models.smpl import SMPL
from lib.motion.feet import Skeleton
from lib.motion.height import height_of, with_height
from lib.motion.lift import resize
from lib.motion.meshes import Meshes
from lib.motion.motion import Placed
from lib.motion.world import place_in_world
from tests.motion_tools import CAMERA, EYE, angle, camera_turn, make_motion, scene_of, walk


@pytest.fixture(scope="module")
def body() -> BodyData:
    return load_body("", open_dir=OPEN_DATA)


def true_contacts(feet: np.ndarray, fps: float = 30.0) -> np.ndarray:
    """Slow and low, of feet (T, 4, 3) in the true world."""
    return (np.linalg.norm(np.gradient(feet, axis=0), axis=-1) * fps < 0.3) & (feet[..., 1] < 0.04)


@pytest.mark.parametrize(("pitch", "roll"), [(0.0, 0.0), (12.0, 2.0), (3.0, -3.0)])
def test_exact_walk(body: BodyData, pitch: float, roll: float) -> None:
    turn = camera_turn(pitch, roll)
    people = [walk(body, 3), walk(body, 4)]
    scene = place_in_world(scene_of(people, body, turn), body, lock=False)
    assert angle(turn @ [0, 1, 0], scene.world_rotation.T @ [0, 1, 0]) < 1.0
    assert scene.world_offset[1] == pytest.approx(EYE[1], abs=0.04)
    assert not scene.feet_locked
    # Up to the heading of the camera and the origin, everybody is where they are, and as they are.
    heading = scene.world_rotation @ turn
    assert angle(heading @ [0, 1, 0], np.array([0, 1, 0])) < 1.0
    found, true = [], []
    for motion, (placed, betas) in zip(scene.people, people):
        skeleton = Skeleton.of(body, betas)
        found.append(skeleton.chain(motion.world)[1])
        true.append(skeleton.chain(placed)[1] @ heading.T)
        contacts = true_contacts(skeleton.feet(placed))
        hits = (contacts & motion.contacts).sum()
        assert 2 * hits / (contacts.sum() + motion.contacts.sum()) > 0.88
    found, true = np.concatenate(found), np.concatenate(true)
    away = found - true
    assert np.linalg.norm(away - away.mean((0, 1)), axis=-1).mean() < 0.03
    start = found[0, 0]
    assert np.allclose(start[[0, 2]], 0, atol=1e-3)  # the origin is below the first pelvis


def test_sizes_that_are_wrong_still_stand_on_one_floor(body: BodyData) -> None:
    """Somebody taken for a tenth too small is taken for a tenth too near; the floor tells how near."""
    turn = camera_turn(10.0, 0.0)
    scene = scene_of([walk(body, 3), walk(body, 4)], body, turn)
    small = scene.people[1]
    pelvis = Skeleton.of(body, small.betas).rest[0]
    nearer = (0.9 * (small.camera.transl + pelvis) - pelvis).astype(np.float32)
    scene = replace(
        scene, people=(scene.people[0], replace(small, camera=Placed(small.camera.rotmat, nearer)))
    )
    placed = place_in_world(scene, body, lock=False)
    for motion in placed.people:
        feet = Skeleton.of(body, motion.betas).feet(motion.world)
        assert np.abs(feet[..., 1][motion.contacts]).mean() < 0.015


@pytest.mark.parametrize("stays", [40, 200])
def test_somebody_on_a_box_is_above_the_floor(body: BodyData, stays: int) -> None:
    """One walks on the floor; another stands on a box for most of the film, or all of it, then beside it."""
    (placed, betas), (other, shape) = walk(body, 3), walk(body, 4)
    upright = np.tile(np.eye(3, dtype=np.float32), (200, 24, 1, 1))
    on_box = Placed(upright, other.transl[:1].repeat(200, 0))
    on_box.transl[:, 1] -= Skeleton.of(body, shape).feet(on_box)[0, :, 1].min()
    on_box.transl[:stays, 1] += 1.1
    turn = camera_turn(8.0, 0.0)
    scene = place_in_world(scene_of([(on_box, shape), (placed, betas)], body, turn), body)
    assert scene.world_offset[1] == pytest.approx(EYE[1], abs=0.08)
    soles = [Skeleton.of(body, motion.betas).feet(motion.world)[..., 1].min(1) for motion in scene.people]
    assert np.median(soles[0][:stays]) == pytest.approx(1.1, abs=0.1)
    assert np.abs(soles[1]).max() < 0.02
    assert not scene.people[0].contacts[5 : stays - 5].any()


def test_level_camera_where_asked_and_where_nothing_is_known(body: BodyData) -> None:
    scene = scene_of([walk(body, 3)], body, camera_turn(12.0, 0.0))
    assert np.allclose(place_in_world(scene, body, up="camera").world_rotation, np.diag([1, -1, -1]))
    # Feet out of the picture say nothing.
    cut = replace(scene_of([walk(body, 3)], body, camera_turn(0.0, 0.0)), camera=replace(CAMERA, height=100))
    assert not place_in_world(cut, body).people[0].contacts.any()
    assert place_in_world(replace(scene, people=()), body).people == ()


def test_noise_along_the_line_of_sight_is_taken_out(body: BodyData) -> None:
    """What one camera sees badly is the distance; soles on the floor say it better."""
    turn, (placed, betas) = camera_turn(15.0, 0.0), walk(body, 5)
    scene = scene_of([(placed, betas)], body, turn)
    motion, pelvis = scene.people[0], Skeleton.of(body, betas).rest[0]
    time = np.arange(len(motion))[:, None] / 30
    wrong = (motion.camera.transl + pelvis) * (0.03 * np.sin(2 * np.pi * 0.7 * time))
    noisy = Placed(motion.camera.rotmat, (motion.camera.transl + wrong).astype(np.float32))
    found = place_in_world(replace(scene, people=(replace(motion, camera=noisy),)), body, lock=False)
    heading = found.world_rotation @ turn
    away = found.people[0].world.transl + pelvis - (placed.transl + pelvis) @ heading.T
    assert np.abs(away - away.mean(0)).mean() < 0.25 * np.abs(wrong - wrong.mean(0))[:, 2].mean()


def test_own_path_before_a_camera_that_moves(body: BodyData) -> None:
    """The camera goes along: seen from it the walker stays; the feet still tell where the walk goes."""
    placed, betas = walk(body, 6)
    skeleton = Skeleton.of(body, betas)
    still = Placed(placed.rotmat, placed.transl * np.array([0, 1, 0], np.float32))
    scene = place_in_world(scene_of([(still, betas)], body, camera_turn(0.0, 0.0), moves=True), body)
    assert scene.camera_moves
    gone = np.linalg.norm(placed.transl[-1] - placed.transl[0])
    world = scene.people[0].world
    assert np.linalg.norm(world.transl[-1] - world.transl[0]) == pytest.approx(gone, rel=0.1)
    feet = skeleton.feet(world)
    assert np.abs(feet[..., 1][scene.people[0].contacts]).max() < 1e-3


def test_who_lies_says_nothing_of_gravity(body: BodyData) -> None:
    """Somebody who lies beside a walker, along the line of sight, does not turn the world over."""
    placed, betas = walk(body, 3)
    pelvis = Skeleton.of(body, betas).rest[0]
    still = Placed(placed.rotmat[:1].repeat(120, 0), placed.transl[:1].repeat(120, 0))
    over = Rotation.from_euler("x", -90, degrees=True).as_matrix()
    lying = still.moved(over, np.array([-2.0, 0.15, 0]) - over @ (still.transl[0] + pelvis), pelvis)
    turn = camera_turn(10.0, 0.0)
    scene = place_in_world(scene_of([(placed, betas), (lying, betas)], body, turn), body)
    assert angle(turn @ [0, 1, 0], scene.world_rotation.T @ [0, 1, 0]) < 2.5


def test_one_frame(body: BodyData) -> None:
    placed, betas = walk(body, 7, length=40)
    one = Placed(placed.rotmat[:1], placed.transl[:1])
    assert len(place_in_world(scene_of([(one, betas)], body, camera_turn(0, 0)), body).people[0]) == 1


def test_moved_turns_about_the_pelvis(body: BodyData) -> None:
    """A rigid motion of the body moves every vertex by it, whatever the shape's pelvis."""
    placed, betas = walk(body, 8, length=3)
    smpl = SMPL(body)
    turn = Rotation.from_euler("xyz", [40, -70, 20], degrees=True).as_matrix()
    moved = placed.moved(turn, np.array([1.0, 2, 3]), Skeleton.of(body, betas).rest[0])
    expected = Meshes(smpl, placed, betas).all() @ turn.T + [1, 2, 3]
    assert np.abs(Meshes(smpl, moved, betas).all() - expected).max() < 1e-4


def test_given_height_changes_size_and_distance_but_not_the_picture(body: BodyData) -> None:
    smpl, scene = SMPL(body), scene_of([walk(body, 9, length=20)], body, camera_turn(5, 0))
    motion = scene.people[0]
    joints = Meshes(smpl, motion.camera, motion.betas).joints()
    motion = replace(motion, joints2d=CAMERA.project(joints).astype(np.float32))
    before = height_of(body, motion.betas)
    tall = resize(smpl, body, motion, 1.1 * before, CAMERA)
    assert height_of(body, tall.betas) == pytest.approx(1.1 * before, abs=1e-4)
    assert (tall.camera.transl[:, 2] / motion.camera.transl[:, 2]).mean() == pytest.approx(1.1, abs=0.03)
    away = np.linalg.norm(tall.joints2d - motion.joints2d, axis=-1).mean()
    assert away < 0.01 * np.ptp(motion.joints2d[..., 1])
    assert np.allclose(CAMERA.project(tall.joints3d + tall.camera.transl[:, None]), tall.joints2d, atol=1e-2)
    assert np.allclose(with_height(body, motion.betas, before), motion.betas, atol=1e-3)
    assert make_motion(1, tall.camera, tall.betas).person_id == 1


def test_the_matrix_gives_the_pixels_that_are_drawn(body: BodyData) -> None:
    """The overlay covers what the triangles cover whose corners K gives, to half a pixel."""
    placed, betas = walk(body, 2, length=1)
    scene = scene_of([(placed, betas)], body, camera_turn(5, 1))
    verts = Meshes(SMPL(body), scene.people[0].camera, betas)[0]
    renderer = Renderer(body.faces, CAMERA.width, CAMERA.height, len(verts))
    black = np.zeros((CAMERA.height, CAMERA.width, 3), np.uint8)
    drawn = renderer.render(black, [(verts, (1.0, 1.0, 1.0))], scene.camera.project).any(-1)
    seen = verts @ scene.camera.K.T
    pixels, fine = seen[:, :2] / seen[:, 2:], 8
    low = np.floor(pixels.min(0)) - 1
    corners = np.round(fine * (pixels - low) - 0.5).astype(np.int32)
    covered = np.zeros(corners.max(0)[::-1] + 1, np.uint8)
    for face in body.faces:
        cv2.fillConvexPoly(covered, corners[face], 1)
    expected = (np.argwhere(covered) + 0.5) / fine + low[::-1]
    assert np.abs(np.argwhere(drawn).mean(0) - expected.mean(0)).max() < 0.5
    assert np.abs(np.argwhere(drawn).std(0) - expected.std(0)).max() < 0.5
    assert drawn.sum() == pytest.approx(len(expected) / fine**2, rel=0.03)

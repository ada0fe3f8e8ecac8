"""The fit of a track to its landmarks: its parts against slow ones, the whole on motions that are known."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lib.landmarks.features import LIMB_LANDMARKS, landmark_boxes
from lib.models.landmark_body import LandmarkBody
from lib.motion import fit
from lib.motion.camera import perspective_to_weak, solve_camera, weak_to_perspective
from lib.motion.fit import Fitted, TrackFit, block_starts, fit_track, seam_weights
from lib.motion.fit_energy import FITTED, STIFF, Energy, FitOptions, Observed, Shared
from lib.motion.fit_solver import fit_constants, minimise
from lib.motion.fit_stream import StreamingFit
from lib.open_data.motions import procedural_motions, resample
from lib.utils.crops import crop_to_image
from lib.utils.geometry import axis_angle_to_rotmat, project
from lib.utils.joint_limits import HINGES, flexion_axes, flexion_sine
from tests.simulation_tools import generator

pytestmark = pytest.mark.usefixtures("one_thread")
WIDTH, HEIGHT, FOCAL = 1280, 720, 1500.0
LEGS = [25, 26, 27, 28, 29, 30, 31, 32]
LIMBS = [LIMB_LANDMARKS.index(i) for i in (13, 14, 15, 16, 25, 26, 27, 28)]


@dataclass
class Scene:
    """A person who moves before a camera, exact landmarks, and an estimate that is off."""

    fps: float
    rotmat: np.ndarray  # (T, 24, 3, 3) truth
    joints: np.ndarray  # (T, 12, 3) limb landmarks about the hips, truth
    pixels: np.ndarray  # (T, 12, 2)
    start: np.ndarray  # (T, 24, 3, 3)
    theta: np.ndarray
    boxes: np.ndarray
    landmarks: tuple[np.ndarray, np.ndarray, np.ndarray]

    def fit(self, body: LandmarkBody, **changes: object) -> Fitted | None:
        arrays = {"rotmat": self.start, "theta": self.theta, "boxes": self.boxes, "landmarks": self.landmarks}
        options = {"width": WIDTH, "height": HEIGHT, "fps": self.fps, "focal": FOCAL}
        return fit_track(body, **(arrays | options | changes))

    def errors(self, body: LandmarkBody, fitted: Fitted) -> tuple[float, float]:
        """Mean distances of the limb joints: px, and mm about the hips."""
        seen, joints = see(body, fitted.rotmat, fitted.betas, fitted.transl)[:2]
        return (
            float(np.linalg.norm(seen[:, LIMB_LANDMARKS] - self.pixels, axis=-1).mean()),
            1000 * float(np.linalg.norm(joints[:, LIMB_LANDMARKS] - self.joints, axis=-1).mean()),
        )


def see(
    body: LandmarkBody, rotmat: np.ndarray, betas: np.ndarray, transl: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (T, 33, 2), and metric landmarks (T, 33, 3) about the hips."""
    points = body(torch.from_numpy(rotmat), torch.from_numpy(betas)[None])[1].numpy()
    placed = points + transl[:, None]
    pixels = FOCAL * placed[..., :2] / placed[..., 2:] + np.array([WIDTH, HEIGHT]) / 2
    return pixels.astype(np.float32), points - points[:, 23:25].mean(1, keepdims=True)


def scene(body: LandmarkBody, frames: int, fps: float = 30.0, off: float = 0.15, seed: int = 1) -> Scene:
    """``off``: rad by which each joint of the estimate is off, constantly."""
    motion = procedural_motions(1, seed=seed, length=frames + 2)[0]
    times = np.arange(round(frames * fps / 30)) * 30 / fps
    rotmat, moved = resample(motion.rotmat, motion.trans, times)
    camera = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
    rotmat[:, 0] = camera @ rotmat[:, 0]
    transl = (moved - moved[0]).numpy() @ camera.numpy() + np.array([0.2, 0.1, 4.0], np.float32)
    rng = np.random.default_rng(seed)
    betas = rng.normal(0, 0.5, 10).astype(np.float32)
    pixels, world = see(body, rotmat.numpy(), betas, transl.astype(np.float32))
    turns = rng.normal(0, off / 3**0.5, (1, 24, 3)).astype(np.float32)
    turns[:, 0] *= 0.5
    start = (axis_angle_to_rotmat(torch.from_numpy(turns)) @ rotmat).numpy()
    boxes = landmark_boxes(pixels)
    scaled = boxes * np.array([1, 1, 1.2, 1.2], np.float32)
    weak = perspective_to_weak(transl, scaled, FOCAL, WIDTH, HEIGHT) * np.float32([1.05, 1, 1])
    theta = np.concatenate([weak, np.zeros((len(weak), 72)), np.tile(0.5 * betas, (len(weak), 1))], 1)
    landmarks = pixels, np.ones(pixels.shape[:2], np.float32), world
    return Scene(
        fps, rotmat.numpy(), world[:, LIMB_LANDMARKS], pixels[:, LIMB_LANDMARKS],
        start, theta.astype(np.float32), boxes, landmarks,
    )  # fmt: skip


@pytest.fixture(scope="module")
def body(open_body) -> LandmarkBody:
    return LandmarkBody(open_body)


@pytest.fixture(scope="module")
def exact_body(open_body) -> LandmarkBody:
    """In double precision, with a skin that does not follow the pose."""
    return LandmarkBody(replace(open_body, posedirs=np.zeros_like(open_body.posedirs))).double()


@pytest.fixture(scope="module")
def walk(body: LandmarkBody) -> Scene:
    return scene(body, 40)


@pytest.fixture(scope="module")
def fitted_walk(body: LandmarkBody, walk: Scene) -> Fitted:
    fitted = walk.fit(body)
    assert fitted is not None
    return fitted


# --------------------------------------------------------------------------------
# Cameras


def test_camera_equals_least_squares() -> None:
    random = generator(0)
    points = torch.randn(5, 7, 3, generator=random, dtype=torch.double)
    rays = 0.3 * torch.randn(5, 7, 2, generator=random, dtype=torch.double)
    weights = torch.rand(5, 7, generator=random, dtype=torch.double)
    guess = torch.randn(5, 3, generator=random, dtype=torch.double) + torch.tensor([0, 0, 4.0])
    found = solve_camera(points, rays, weights, guess, trust=0.02)
    for k in range(5):
        rows, right = [0.02**0.5 * np.eye(3)], [0.02**0.5 * guess[k].numpy()]
        for (x, y, z), (u, v), weight in zip(points[k].tolist(), rays[k].tolist(), weights[k].tolist()):
            rows.append(weight**0.5 * np.array([[1, 0, -u], [0, 1, -v]]))
            right.append(weight**0.5 * np.array([u * z - x, v * z - y]))
        expected = np.linalg.lstsq(np.concatenate(rows), np.concatenate(right), rcond=None)[0]
        np.testing.assert_allclose(found[k], expected, atol=1e-9)
        # At a given depth, the best of the other two.
        depth = torch.tensor([3.0], dtype=torch.double)
        shifted = np.concatenate(right) - np.concatenate(rows)[:, 2] * 3
        across = np.linalg.lstsq(np.concatenate(rows)[:, :2], shifted, rcond=None)[0]
        there = solve_camera(points[k], rays[k], weights[k], guess[k], trust=0.02, depth=depth)
        np.testing.assert_allclose(there, [*across, 3.0], atol=1e-9)


def test_camera_where_nothing_is_seen_is_the_guess() -> None:
    guess = torch.tensor([[0.3, -0.2, 5.0]])
    rays = torch.full((1, 4, 2), 9.0)
    found = solve_camera(torch.ones(1, 4, 3), rays, torch.zeros(1, 4), guess)
    torch.testing.assert_close(found, guess)


def test_perspective_and_crop_cameras_are_inverse_and_agree_far_away() -> None:
    rng = np.random.default_rng(0)
    boxes = np.stack([*rng.uniform(200, 500, (2, 6)), *[rng.uniform(20, 40, 6)] * 2], 1)
    cam = np.stack([rng.uniform(0.7, 1.1, 6), *rng.uniform(-0.2, 0.2, (2, 6))], 1)
    transl = weak_to_perspective(cam, boxes, FOCAL, WIDTH, HEIGHT)
    np.testing.assert_allclose(perspective_to_weak(transl, boxes, FOCAL, WIDTH, HEIGHT), cam, rtol=1e-4)
    joints = rng.uniform(-1, 1, (6, 49, 3)) * [0.5, 1, 0.05]
    placed = joints + transl[:, None]
    seen = FOCAL * placed[..., :2] / placed[..., 2:] + np.array([WIDTH, HEIGHT]) / 2
    crop = project(torch.from_numpy(joints), torch.from_numpy(cam)).numpy()
    unscaled = boxes / np.array([1, 1, 1.2, 1.2])
    np.testing.assert_allclose(seen, crop_to_image(crop, unscaled), atol=0.5)  # px, of bodies 30 px high


# --------------------------------------------------------------------------------
# The energy


def energy_of(body: LandmarkBody, given: Scene, options: FitOptions) -> tuple[Energy, Shared]:
    """The energy of a whole scene in double precision, and constants that are not those of the prior."""
    transl = weak_to_perspective(
        given.theta[:, :3], given.boxes * np.array([1, 1, 1.2, 1.2]), FOCAL, WIDTH, HEIGHT
    )
    xy, visibility, world = given.landmarks
    seen = Observed(
        rotmat=torch.from_numpy(given.start)[None].double(),
        rays=torch.from_numpy((xy - np.array([WIDTH, HEIGHT]) / 2) / FOCAL)[None].double(),
        unit=torch.from_numpy(0.01 * given.boxes[:, 2] / FOCAL)[None, :, None, None].double(),
        world=torch.from_numpy(world)[None].double(),
        weights=torch.from_numpy(visibility)[None].double(),
        guess=torch.from_numpy(transl)[None].double(),
    )
    prior = torch.from_numpy(given.theta[0, 75:]).double()
    shared = Shared(prior + 0.3, torch.tensor([0.1, -0.2, 0.05]).double(), torch.tensor([0.06]).double())
    return Energy(body, seen, prior, given.fps, options), shared


@pytest.fixture(scope="module")
def jump(body: LandmarkBody) -> Scene:
    """Five frames with landmarks of all visibilities, some of them far off."""
    given = scene(body, 5)
    rng = np.random.default_rng(5)
    xy, visibility, world = given.landmarks
    visibility = rng.uniform(0.2, 1, visibility.shape).astype(np.float32)
    xy = xy + rng.standard_t(2, xy.shape).astype(np.float32) * 4
    world = world + rng.standard_t(2, world.shape).astype(np.float32) * 0.05
    return replace(given, landmarks=(xy, visibility, world))


@pytest.fixture(scope="module", params=[30.0, 60.0])
def system(exact_body: LandmarkBody, jump: Scene, request: pytest.FixtureRequest):
    given = replace(jump, fps=request.param)
    energy, shared = energy_of(exact_body, given, FitOptions(hinge=0.0, motion=0.3, calm=5.0, travel=0.02))
    x = energy.start(shared)
    x = x + torch.randn(x.shape, generator=generator(3), dtype=torch.double) * 0.1
    return energy, shared, x


def test_slope_of_the_energy(exact_body: LandmarkBody, jump: Scene) -> None:
    energy, shared = energy_of(exact_body, jump, FitOptions())
    x = energy.start(shared)
    x = x + 0.1 * torch.randn(x.shape, generator=generator(1), dtype=torch.double)
    x.requires_grad_()
    (slope,) = torch.autograd.grad(energy(x, shared).sum(), x)
    with torch.no_grad():
        for seed in range(8):
            way = torch.randn(x.shape, generator=generator(seed), dtype=torch.double)
            way *= (torch.rand(x.shape, generator=generator(seed + 99)) < 0.1).double()
            found = float(energy(x + 1e-5 * way, shared) - energy(x - 1e-5 * way, shared)) / 2e-5
            assert found == pytest.approx(float((slope * way).sum()), rel=1e-5, abs=1e-6)


def test_linearised_energy_equals_a_slow_one(system) -> None:
    """The matrix of Gauss and Newton from residuals that are written down here and derived automatically."""
    energy, shared, x = system
    seen, chosen, body = energy.seen, energy.options, energy.body
    rate = energy.fps**2 / 10
    moving = [0, 11, 12, 13, 14, 15, 16, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32]
    fitted = [joint for joint in range(24) if joint not in (10, 11, 22, 23)]

    def residuals(state: torch.Tensor) -> list[torch.Tensor]:
        turns, transl = state[..., :60].view(5, 20, 3), state[..., 60:][0]
        rotmat = seen.rotmat[0].clone()
        rotmat[:, fitted] = axis_angle_to_rotmat(turns) @ rotmat[:, fitted]
        points = body(rotmat, shared.betas[None])[1]
        points = points - (points[:, 23:24] + points[:, 24:25]) / 2
        placed = points + transl[:, None]
        world = torch.exp(shared.size) * seen.world[0] @ axis_angle_to_rotmat(shared.turn)
        stiff = chosen.pose * torch.tensor(STIFF, dtype=torch.double)
        stiff[0] = chosen.root
        across = placed.clone()
        across[..., 2] = points[..., 2]
        across = across[:, moving]
        return [
            (placed[..., :2] / placed[..., 2:] - seen.rays[0]) / seen.unit[0],
            10 * (points - world) * torch.tensor([1, 1, chosen.depth]),
            turns * stiff.sqrt()[:, None],
            0.5**0.5 * (transl - seen.guess[0]) / seen.guess[0, :, 2:],
            rate * (across[2:] - 2 * across[1:-1] + across[:-2]),
            rate * (transl[2:, 2] - 2 * transl[1:-1, 2] + transl[:-2, 2]) * chosen.travel**0.5,
        ]

    pixels, metres, _, _, moves, _ = residuals(x)
    ends = (100 * chosen.pixel_scale) ** 2, (10 * chosen.metre_scale) ** 2, (chosen.calm / 10) ** 2
    square = [part.square().sum(-1, keepdim=True) for part in (pixels, metres, moves)]
    trust = seen.weights[0, :, :, None].sqrt()
    factors = [
        chosen.pixels**0.5 * trust / (1 + square[0] / ends[0]),
        chosen.metres**0.5 * trust / (1 + square[1] / ends[1]),
        1.0,
        1.0,
        chosen.motion**0.5 / (1 + square[2] / ends[2]) ** 0.5,
        1.0,
    ]
    assert square[2].max() > ends[2] and square[0].max() > ends[0]  # robust weights are at work

    def weighted(state: torch.Tensor) -> torch.Tensor:
        return torch.cat([(f * part).flatten() for f, part in zip(factors, residuals(state))])

    rows = torch.autograd.functional.jacobian(weighted, x, vectorize=True).flatten(1)
    expected = (rows.T @ rows * 30 / energy.fps).unflatten(1, (5, 63)).unflatten(0, (5, 63)).transpose(1, 2)
    found = energy.linearise(x, shared)
    matrix = torch.zeros_like(expected)
    for blocks, lag in ((found.same[0], 0), (found.following[0], 1), (found.second[0], 2)):
        for t, block in enumerate(blocks):
            matrix[t, t + lag], matrix[t + lag, t] = block, block.T
    scale = expected.abs().max()
    torch.testing.assert_close(matrix / scale, expected / scale, atol=1e-7, rtol=0)
    # Half the slope of the energy is what the weighted residuals and their derivatives give.
    leaf = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(energy(leaf, shared).sum(), leaf)
    gauss_newton = (rows.T @ weighted(x) * 30 / energy.fps).view_as(x)
    torch.testing.assert_close(0.5 * slope, gauss_newton, atol=1e-6 * float(slope.abs().max()), rtol=0)


@pytest.fixture
def still(exact_body: LandmarkBody):
    """Five frames of a body at rest, exact landmarks, at the prior: no term has a cause."""
    rest = torch.eye(3).expand(5, 24, 3, 3).double().clone()
    rest[:, 0] = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
    points = exact_body(rest, torch.zeros(1, 10).double())[1]
    points = points - points[:, 23:25].mean(1, keepdim=True)
    transl = torch.tensor([0.0, 0.0, 4.0]).double().expand(5, 3).clone()
    placed = points + transl[:, None]
    seen = Observed(
        rotmat=rest[None],
        rays=(placed[..., :2] / placed[..., 2:])[None],
        unit=torch.full((1, 5, 1, 1), 0.004).double(),
        world=points[None].clone(),
        weights=torch.full((1, 5, 33), 0.5).double(),
        guess=transl[None],
    )
    prior = torch.zeros(10).double()
    shared = Shared(prior, torch.zeros(3).double(), torch.zeros(1).double())
    state = torch.cat([torch.zeros(5, 60).double(), transl], 1)[None]
    return Energy(exact_body, seen, prior, 30.0, FitOptions()), state, shared


def check(found: dict[str, torch.Tensor], **expected: float) -> None:
    """The named terms, and that all others are 0."""
    for name, value in found.items():
        assert float(value) == pytest.approx(expected.get(name, 0.0), rel=1e-6, abs=1e-9), name


def test_terms_of_what_is_seen(still) -> None:
    energy, x, shared = still
    check(energy.terms(x, shared))
    rays, world = energy.seen.rays.clone(), energy.seen.world.clone()
    rays[0, 2, 15] += 0.004 * torch.tensor([2.4, 3.2]).double()  # 4 % of the box
    energy.seen = energy.seen._replace(rays=rays)
    check(energy.terms(x, shared), pixels=energy.options.pixels * 0.5 * 16 / (1 + 16 / 16))
    world[0, 1, 16, 0] += 0.1
    world[0, 3, 16, 2] += 0.4  # 0.2 m after the weight of depth
    energy.seen = energy.seen._replace(rays=still[0].seen.rays, world=world)
    lateral, depth = 1 / (1 + 1 / 1.44), 4 / (1 + 4 / 1.44)
    found = energy.terms(x, shared)
    check(found, pixels=float(found["pixels"]), metres=0.1 * 0.5 * (lateral + depth))


def test_terms_of_turns(still) -> None:
    energy, x, shared = still
    energy.seen = energy.seen._replace(weights=torch.zeros(1, 5, 33).double())
    energy.options = replace(energy.options, motion=0.0)
    turned = x.clone()
    turned[0, :, 3 * 12 + 1] = 0.2  # the neck, twice as stiff
    check(energy.terms(turned, shared), pose=5 * 2 * 0.4 * 0.04)
    turned = x.clone()
    turned[0, :, 1] = 0.1
    check(energy.terms(turned, shared), pose=5 * energy.options.root * 0.01)
    for number, hinge in enumerate(HINGES):
        for angle, free in ((0.8, True), (-0.05, True), (-0.8, False)):
            axis = torch.nn.functional.normalize(flexion_axes(x)[number], dim=0)
            turned = x.clone()
            place = 3 * FITTED.index(hinge)
            turned[0, 2, place : place + 3] = angle * axis
            # Sines along axes that are rounded to two digits.
            sine = float(np.sin(angle) * flexion_axes(x)[number].norm())
            backwards = 0.0 if free else 20 * (-sine - 0.1) ** 2
            check(energy.terms(turned, shared), pose=0.4 * 0.64 if abs(angle) > 0.1 else 0.4 * 0.0025,
                  hinge=backwards)  # fmt: skip


def test_terms_of_ways(still) -> None:
    energy, x, shared = still
    energy.seen = energy.seen._replace(weights=torch.zeros(1, 5, 33).double())
    moved = x.clone()
    moved[..., 60] += 0.4
    check(energy.terms(moved, shared), camera=5 * 0.5 * 0.01)
    time = torch.arange(5).double() / 30
    energy.seen = energy.seen._replace(guess=energy.seen.guess + 1e6 * torch.tensor([0.0, 0, 1]).double())
    for acceleration in (3.0, 40.0):  # m/s^2; 15 are calm
        moved = x.clone()
        moved[0, :, 61] += acceleration * time.square() / 2
        found = energy.terms(moved, shared)
        calm = 1.5**2
        expected = 3 * 17 * 0.025 * calm * np.log1p((acceleration / 10) ** 2 / calm)
        check(found, camera=float(found["camera"]), motion=expected)
        moved = x.clone()
        moved[0, :, 62] += acceleration * time.square() / 2
        found = energy.terms(moved, shared)
        check(found, camera=float(found["camera"]), travel=3 * 0.002 * (acceleration / 10) ** 2)


def test_terms_of_constants(still) -> None:
    energy, x, shared = still
    energy.seen = energy.seen._replace(weights=torch.zeros(1, 5, 33).double())
    check(energy.terms(x, shared._replace(betas=shared.betas + 2)), constant=5 * 0.02 * 10 * 4)
    turn = torch.tensor([0.1, 0.2, 0.3]).double()
    check(energy.terms(x, shared._replace(turn=turn)), constant=5 * 3 * (0.01 + 0.4 * 0.04 + 2 * 0.09))
    check(energy.terms(x, shared._replace(size=shared.size + 0.1)), constant=5 * 10 * 0.01)


def test_the_minimum_is_that_of_a_slow_optimiser(body: LandmarkBody, exact_body: LandmarkBody) -> None:
    given = scene(body, 3, off=0.2, seed=4)
    # Accelerations that weigh little, for the sake of the slow optimiser.
    energy, shared = energy_of(exact_body, given, FitOptions(motion=0.002, travel=0.0005))
    begin = energy.start(shared)
    with torch.no_grad():
        first = float(energy(begin, shared))
    few, many = (float(energy(minimise(energy, begin, shared, n), shared).detach()) for n in (4, 25))
    x = begin.clone().requires_grad_()
    optimiser = torch.optim.LBFGS(
        [x], max_iter=120, history_size=50, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def evaluate() -> torch.Tensor:
        optimiser.zero_grad()
        value = energy(x, shared).sum()
        value.backward()
        return value

    optimiser.step(evaluate)
    slow = float(energy(x, shared).detach())
    assert slow < 0.5 * first
    assert many == pytest.approx(slow, rel=1e-3)
    assert few - slow < 0.03 * (first - slow)


def test_no_block_grows_and_blocks_do_not_meet(body: LandmarkBody, jump: Scene) -> None:
    """Two blocks of which one starts far away give what each alone gives."""
    track = TrackFit(
        body, jump.start, jump.theta[:, 75:], np.float32([[0.2, 0.1, 4.0]] * 5), jump.boxes[:, 2],
        jump.landmarks, np.ones(5, bool), (FOCAL, WIDTH / 2, HEIGHT / 2), 30.0, FitOptions(smooth=0.0),
    )  # fmt: skip
    both = track.energy(np.array([0, 1]), 4)
    x = both.start(track.shared)
    x[1, :, :60] += 2 * torch.randn(4, 60, generator=generator(0))
    value = both(x, track.shared)
    for iterations in (1, 2, 5):
        lower = both(minimise(both, x, track.shared, iterations), track.shared)
        assert (lower <= value).all()
        value = lower
    together = minimise(both, x, track.shared, 3)
    for k, start in enumerate((0, 1)):
        alone = minimise(track.energy(np.array([start]), 4), x[k : k + 1], track.shared, 3)
        torch.testing.assert_close(together[k], alone[0], atol=2e-3, rtol=0)


def test_constants_lower_the_energy(body: LandmarkBody, exact_body: LandmarkBody) -> None:
    """Metric landmarks that are turned and too small as a whole are found to be, without losing the pose."""
    given = scene(body, 12, off=0.05, seed=2)
    turn = axis_angle_to_rotmat(torch.tensor([0.0, 0.25, 0.0])).numpy()
    xy, visibility, world = given.landmarks
    smaller = replace(given, landmarks=(xy, visibility, 0.85 * world @ turn.T))
    energy, shared = energy_of(exact_body, smaller, FitOptions())
    begin = Shared(energy.prior_betas, 0 * shared.turn, 0 * shared.size)
    x = energy.start(begin)
    found = fit_constants(energy, x, begin, 6)
    after, before = (energy(minimise(energy, x, shared, 4), shared) for shared in (found, begin))
    assert after < 0.9 * before
    # landmarks = body @ turn', so that the body's frame is turned by this to get theirs; priors hold back.
    assert 0.12 < float(found.turn[1]) < 0.3
    assert 0.03 < float(found.size) < 0.2


# --------------------------------------------------------------------------------
# Tracks


def test_a_known_motion_is_found(body: LandmarkBody, walk: Scene, fitted_walk: Fitted) -> None:
    transl = weak_to_perspective(
        walk.theta[:, :3], walk.boxes * np.array([1, 1, 1.2, 1.2]), FOCAL, WIDTH, HEIGHT
    )
    begin = Fitted(walk.start, walk.theta[0, 75:], transl, *[np.zeros(0)] * 2, (0, 0), FOCAL)
    (pixels, metres), (fewer, less) = walk.errors(body, begin), walk.errors(body, fitted_walk)
    assert fewer * 4000 / FOCAL < 8 < pixels * 4000 / FOCAL  # mm at 4 m
    assert less < 0.5 * metres
    assert fitted_walk.energy[1] < 0.5 * fitted_walk.energy[0]
    shapes = [part.shape for part in fitted_walk[:5]]
    assert shapes == [(40, 24, 3, 3), (10,), (40, 3), (40, 49, 3), (40, 49, 2)]
    assert {part.dtype for part in fitted_walk[:5]} == {np.dtype(np.float32)}


def test_joints_and_their_image_are_those_of_the_pose(body: LandmarkBody, fitted_walk: Fitted) -> None:
    joints = body(torch.from_numpy(fitted_walk.rotmat), torch.from_numpy(fitted_walk.betas)[None])[0].numpy()
    np.testing.assert_allclose(fitted_walk.joints3d, joints, atol=1e-5)
    placed = joints + fitted_walk.transl[:, None]
    pixels = FOCAL * placed[..., :2] / placed[..., 2:] + np.array([WIDTH, HEIGHT]) / 2
    np.testing.assert_allclose(fitted_walk.joints2d, pixels, atol=1e-2)


def limbs(body: LandmarkBody, fitted: Fitted) -> np.ndarray:
    """(T, 12, 3) metres, about the hips."""
    return see(body, fitted.rotmat, fitted.betas, fitted.transl)[1][:, LIMB_LANDMARKS]


def test_frame_rate_does_not_matter(body: LandmarkBody, walk: Scene, fitted_walk: Fitted) -> None:
    fast = scene(body, 40, fps=60.0)
    np.testing.assert_allclose(fast.start[::2], walk.start, atol=1e-5)
    twice = fast.fit(body)
    assert twice is not None and len(twice.rotmat) == 80
    assert np.linalg.norm(limbs(body, twice)[::2] - limbs(body, fitted_walk), axis=-1).mean() < 0.006
    assert twice.energy[1] == pytest.approx(fitted_walk.energy[1], rel=0.1)


def test_what_is_not_seen_has_no_influence(body: LandmarkBody, walk: Scene) -> None:
    xy, visibility, world = (part[:10].copy() for part in walk.landmarks)
    visibility[3:, 15:23:2] = 0
    short = replace(walk, start=walk.start[:10], theta=walk.theta[:10], boxes=walk.boxes[:10])
    usual = short.fit(body, landmarks=(xy, visibility, world))
    rng = np.random.default_rng(0)
    xy[3:, 15:23:2] += rng.normal(0, 300, (7, 4, 2)).astype(np.float32)
    world[3:, 15:23:2] += rng.normal(0, 1, (7, 4, 3)).astype(np.float32)
    other = short.fit(body, landmarks=(xy, visibility, world))
    assert usual is not None and other is not None
    for one, same in zip(usual[:5], other[:5]):
        np.testing.assert_array_equal(one, same)


@pytest.mark.parametrize("parts", [(0, 2), (0, 1, 2)])
def test_frames_without_landmarks_are_bridged(
    body: LandmarkBody, walk: Scene, fitted_walk: Fitted, parts: tuple[int, ...]
) -> None:
    landmarks = [part.copy() for part in walk.landmarks]
    for part in parts:
        landmarks[part][14:19] = np.nan
    fitted = walk.fit(body, landmarks=tuple(landmarks))
    assert fitted is not None and all(np.isfinite(part).all() for part in fitted[:5])
    away = np.linalg.norm(limbs(body, fitted) - limbs(body, fitted_walk), axis=-1).mean(1)
    assert away[:10].max() < 0.01
    start = Fitted(walk.start, walk.theta[0, 75:], fitted.transl, *[np.zeros(0)] * 2, (0, 0), FOCAL)
    missing = np.linalg.norm(limbs(body, fitted) - walk.joints, axis=-1)[14:19].mean()
    assert missing < np.linalg.norm(limbs(body, start) - walk.joints, axis=-1)[14:19].mean()


@pytest.mark.parametrize("seen", [True, False])
def test_knees_and_elbows_that_bend_backwards_come_back(body: LandmarkBody, walk: Scene, seen: bool) -> None:
    start = walk.start[:8].copy()
    axes = flexion_axes(torch.zeros(1))
    start[:, HINGES] = axis_angle_to_rotmat(-0.8 * axes).numpy()
    xy, visibility, world = (part[:8].copy() for part in walk.landmarks)
    if not seen:
        visibility[:, [13, 14, *range(15, 23), *LEGS]] = 0
    assert flexion_sine(torch.from_numpy(start)).max() < -0.6
    short = replace(walk, start=start, theta=walk.theta[:8], boxes=walk.boxes[:8])
    fitted = short.fit(body, landmarks=(xy, visibility, world))
    assert fitted is not None
    assert flexion_sine(torch.from_numpy(fitted.rotmat)).min() > -0.2


def test_a_track_without_landmarks_is_not_fitted(body: LandmarkBody, walk: Scene) -> None:
    xy, visibility, world = walk.landmarks
    assert walk.fit(body, landmarks=(xy, 0 * visibility, world)) is None
    assert walk.fit(body, landmarks=(np.nan * xy, visibility, world)) is None
    third = visibility.copy()
    third[13:] = 0  # 13 of 40 frames are less than a third
    assert walk.fit(body, landmarks=(xy, third, world)) is None
    third[13, :8] = 1
    assert walk.fit(body, landmarks=(xy, third, world)) is not None
    third[13, 0] = 0.3  # seven landmarks are too few
    assert walk.fit(body, landmarks=(xy, third, world)) is None


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_very_short_tracks(body: LandmarkBody, walk: Scene, frames: int) -> None:
    parts = (part[:frames] for part in (walk.start, walk.theta, walk.boxes))
    short = replace(walk, **dict(zip(("start", "theta", "boxes"), parts)))
    done: list[int] = []
    fitted = short.fit(body, landmarks=tuple(part[:frames] for part in walk.landmarks), progress=done.append)
    assert fitted is not None and fitted.rotmat.shape == (frames, 24, 3, 3)
    assert sum(done) == frames
    assert fitted.energy[1] < fitted.energy[0]
    away = np.linalg.norm(fitted.joints2d[:, 25:37] - walk.pixels[:frames], axis=-1).mean()
    assert away < 12  # px, of a person 600 px high; hips of the 49 joints are others


def test_landmarks_that_are_nobody_s_cannot_make_it_worse(body: LandmarkBody, walk: Scene) -> None:
    rng = np.random.default_rng(0)
    landmarks = (
        rng.uniform(0, 700, (12, 33, 2)).astype(np.float32),
        rng.uniform(0.4, 1, (12, 33)).astype(np.float32),
        rng.normal(0, 0.4, (12, 33, 3)).astype(np.float32),
    )
    nobody = replace(walk, start=walk.start[:12], theta=walk.theta[:12], boxes=landmark_boxes(landmarks[0]))
    fitted = nobody.fit(body, landmarks=landmarks)
    assert fitted is None or fitted.energy[1] <= fitted.energy[0]


def test_blocks_agree_with_one_block(
    body: LandmarkBody, walk: Scene, fitted_walk: Fitted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit, "BLOCK", 20)
    monkeypatch.setattr(fit, "OVERLAP", 6)
    monkeypatch.setattr(fit, "_AT_ONCE", 20)
    done: list[int] = []
    parts = walk.fit(body, progress=done.append)
    assert parts is not None and len(done) == 3 and sum(done) == 40
    np.testing.assert_array_equal(parts.betas, fitted_walk.betas)
    together, apart = limbs(body, fitted_walk), limbs(body, parts)
    assert np.linalg.norm(together - apart, axis=-1).max() < 0.01
    np.testing.assert_allclose(parts.transl, fitted_walk.transl, atol=0.02)
    # Nothing jumps at the seams: accelerations are those of one block.
    second = [np.diff(joints, 2, axis=0) for joints in (together, apart)]
    assert np.linalg.norm(second[1] - second[0], axis=-1).max() < 0.005


@given(frames=st.integers(1, 400), length=st.integers(3, 80), data=st.data())
def test_blocks_cover_a_track_and_their_weights_sum_to_one(frames: int, length: int, data) -> None:
    length = min(length, frames)
    overlap = data.draw(st.integers(0, length - 1))
    starts = block_starts(frames, length, overlap)
    assert starts[0] == 0 and starts[-1] == frames - length
    if len(starts) > 1:
        assert (np.diff(starts) > 0).all() and np.diff(starts).max() <= length - overlap
    weights = seam_weights(starts, length, frames)
    assert weights.shape == (len(starts), length)
    total = np.zeros(frames)
    for start, weight in zip(starts, weights):
        total[start : start + length] += weight
    np.testing.assert_allclose(total, 1, atol=1e-5)
    assert (weights >= 0).all()


def test_a_stream_is_fitted_by_the_past(body: LandmarkBody, walk: Scene, fitted_walk: Fitted) -> None:
    """Each frame, once, when it comes, and from what the frames before it came to."""
    stream = StreamingFit(body, width=WIDTH, height=HEIGHT, fps=walk.fps, focal=FOCAL)
    scaled = walk.boxes * np.array([1, 1, 1.2, 1.2], np.float32)
    guess = weak_to_perspective(walk.theta[:, :3], scaled, FOCAL, WIDTH, HEIGHT)
    betas = walk.theta[0, 75:]
    found = []
    for t, start in enumerate(walk.start):
        seen = tuple(part[t] for part in walk.landmarks)
        found.append(stream(start, guess[t], betas, walk.boxes[t, 2], seen))
    rotmat, transl = (np.stack(parts) for parts in zip(*found))
    errors = []
    for poses, places in ((walk.start, guess), (rotmat, transl)):
        nothing = np.zeros(0, np.float32)
        errors.append(walk.errors(body, Fitted(poses, betas, places, nothing, nothing, (0.0, 0.0), FOCAL)))
    (pixels, metres), (fitted_pixels, fitted_metres) = errors
    assert fitted_pixels < 0.15 * pixels and fitted_metres < 0.35 * metres
    assert fitted_metres < 1.5 * walk.errors(body, fitted_walk)[1]  # which knows the whole track

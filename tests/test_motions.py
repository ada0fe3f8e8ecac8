"""Motion files, splits and the sampler."""

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from lib.open_data.motions import (
    UNCHANGED,
    Augmentation,
    Motion,
    MotionSampler,
    load_motions,
    open_motions,
    procedural_motions,
    resample,
)
from lib.utils.errors import UserError
from lib.utils.geometry import axis_angle_to_rotmat, quat_to_axis_angle, rotmat_to_quat
from lib.utils.joint_limits import HINGES, flexion_axes, flexion_sine
from tests.simulation_tools import generator


def write(folder: Path, name: str, frames: int = 60, fps: float = 30, **change: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(len(name))
    poses = np.cumsum(rng.normal(0, 0.02, (frames, 72)), 0).astype(np.float32)
    arrays = {"poses": poses, "trans": np.zeros((frames, 3), np.float32), "fps": np.float32(fps)} | change
    np.savez(folder / f"{name}.npz", **arrays)
    return poses


def test_reads_files_as_rotations(tmp_path: Path) -> None:
    poses = write(tmp_path, "cmu_14_03")
    (motion,) = load_motions(tmp_path)
    assert motion.performer == "14"
    expected = Rotation.from_rotvec(poses.reshape(-1, 3)).as_matrix().reshape(60, 24, 3, 3)
    np.testing.assert_allclose(motion.rotmat.numpy(), expected, atol=1e-5)


def test_other_frame_rates_become_30_fps(tmp_path: Path) -> None:
    write(tmp_path, "a_1_1", frames=61, fps=60)
    (motion,) = load_motions(tmp_path)
    assert len(motion.rotmat) == 30
    write(tmp_path, "a_1_1", frames=61, fps=30)
    (same,) = load_motions(tmp_path)
    torch.testing.assert_close(motion.rotmat, same.rotmat[:60:2], atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "change",
    [
        {"poses": np.zeros((60, 71))},
        {"trans": np.zeros((59, 3))},
        {"trans": np.full((60, 3), np.nan)},
        {"fps": np.float32(0)},
        {"fps": np.float32(np.nan)},
        {"fps": np.zeros(2)},
        {"poses": np.zeros((4, 72)), "trans": np.zeros((4, 3)), "fps": np.float32(120)},
    ],
)
def test_bad_files_are_refused_by_name(tmp_path: Path, change: dict) -> None:
    write(tmp_path, "cmu_1_1", **change)
    with pytest.raises(UserError, match=r"cmu_1_1\.npz"):
        load_motions(tmp_path)


def test_empty_folder_and_broken_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no motion files"):
        load_motions(tmp_path)
    for content in (b"not a zip", b"", b"PK\x03\x04 cut off"):
        (tmp_path / "broken.npz").write_bytes(content)
        with pytest.raises(UserError, match=r"broken\.npz"):
            load_motions(tmp_path)


def test_no_performer_is_in_two_splits(tmp_path: Path) -> None:
    for name in ("cmu_01_01", "cmu_94_01", "cmu_26_01", "cmu_14_01", "cmu_01_02", "walk"):
        write(tmp_path, name)
    splits = open_motions(tmp_path)
    who = {split: {m.performer for m in motions} for split, motions in splits.items()}
    assert who == {"train": {"14", ""}, "val": {"26"}, "test": {"1", "94"}}


def test_resample_at_whole_frames_is_the_identity() -> None:
    motion = procedural_motions(1, seed=3, length=20)[0]
    rotmat, trans = resample(motion.rotmat, motion.trans, np.arange(20.0))
    torch.testing.assert_close(rotmat, motion.rotmat, atol=1e-5, rtol=0)
    torch.testing.assert_close(trans, motion.trans)


def test_half_of_the_clips_are_mirrored() -> None:
    """One still pose: a clip is that pose or its mirror image, found here with axis-angles."""
    still = procedural_motions(1, seed=4, length=1)[0]
    trans = torch.tensor([0.3, 1.0, -0.2])
    motion = Motion("still", "1", still.rotmat.expand(8, -1, -1, -1), trans.expand(8, 3))
    other = [0, 2, 1, 3, 5, 4, 6, 8, 7, 9, 11, 10, 12, 14, 13, 15, 17, 16, 19, 18, 21, 20, 23, 22]
    turns = Rotation.from_matrix(still.rotmat[0].numpy()).as_rotvec()
    mirrored = torch.from_numpy(Rotation.from_rotvec(turns[other] * [1, -1, -1]).as_matrix()).float()
    rotmat, moved = MotionSampler([motion], generator(0), UNCHANGED).sample(200, 3)
    as_it_is, swapped = (
        (rotmat - pose).abs().amax((1, 2, 3, 4)) < 1e-4 for pose in (still.rotmat[0], mirrored)
    )
    assert (as_it_is ^ swapped).all()
    assert 70 < swapped.sum() < 130
    sign = 1 - 2 * swapped[:, None, None].float() * torch.tensor([1.0, 0, 0])
    torch.testing.assert_close(moved, trans * sign.expand(200, 3, 3))


def test_sampler_gives_rotations_and_repeats_with_its_seed() -> None:
    motions = procedural_motions(4, seed=5, length=64)
    rotmat, trans = MotionSampler(motions, generator(0)).sample(6, 16)
    again, _ = MotionSampler(motions, generator(0)).sample(6, 16)
    other, _ = MotionSampler(motions, generator(1)).sample(6, 16)
    assert not torch.equal(rotmat, other)
    assert rotmat.shape == (6, 16, 24, 3, 3)
    assert trans.shape == (6, 16, 3)
    torch.testing.assert_close(rotmat, again)
    identity = rotmat @ rotmat.transpose(-1, -2)
    torch.testing.assert_close(identity, torch.eye(3).expand_as(identity), atol=1e-4, rtol=0)
    assert (torch.linalg.det(rotmat) > 0.99).all()


def test_procedural_motions_move_smoothly() -> None:
    for motion in procedural_motions(5, seed=6):
        angle = torch.acos(
            ((motion.rotmat[1:] @ motion.rotmat[:-1].mT).diagonal(0, -1, -2).sum(-1) / 2 - 0.5).clamp(-1, 1)
        )
        assert 0.001 < float(angle.mean()) < 0.2
        assert float(angle.max()) < 0.9


def test_a_clip_shorter_than_the_sample_is_slowed_down() -> None:
    motions = procedural_motions(1, seed=7, length=10)
    rotmat, _ = MotionSampler(motions, generator(0)).sample(3, 32)
    assert rotmat.shape[1] == 32
    assert torch.isfinite(rotmat).all()


def quiet(**changes: float) -> Augmentation:
    """Nothing but what is named."""
    nothing = {field.name: 0.0 for field in fields(Augmentation)}
    return Augmentation(**(nothing | changes))


def stills(count: int) -> list[Motion]:
    """Clips of one pose each: every joint of clip k is turned by 0.1 (k + 1) about x."""
    turn = torch.zeros(count, 1, 24, 3)
    turn[..., 0] = 0.1 * torch.arange(1, count + 1).view(-1, 1, 1)
    rotmat = axis_angle_to_rotmat(turn).expand(-1, 4, -1, -1, -1)
    return [Motion(f"{k}", str(k), rotmat[k], torch.zeros(4, 3)) for k in range(count)]


def sources(rotmat: torch.Tensor) -> torch.Tensor:
    """(B, 24) the number of the clip of :func:`stills` that each joint comes from."""
    sine = (rotmat[:, 0, :, 2, 1] - rotmat[:, 0, :, 1, 2]) / 2
    return (10 * torch.asin(sine)).round().long() - 1


@pytest.mark.parametrize("augmentation", [Augmentation(), Augmentation(wide=1.0, seated=1.0, limbs=1.0)])
def test_knees_and_elbows_stay_within_their_limits(augmentation: Augmentation) -> None:
    motions = procedural_motions(4, seed=5, length=64)
    rotmat, _ = MotionSampler(motions, generator(2), augmentation).sample(200, 4)
    hinges = rotmat_to_quat(rotmat[:, :, HINGES])
    angle = 2 * torch.atan2(hinges[..., 1:].norm(dim=-1), hinges[..., 0].abs())
    axis = torch.nn.functional.normalize(hinges[..., 1:] * hinges[..., :1].sign(), dim=-1)
    flexion = (axis * flexion_axes(rotmat)).sum(-1) * angle
    # To within the rounding of the axes: they are 0.997 long.
    assert flexion.min() > -0.17 and flexion.max() < 2.65
    assert flexion.max() > 1.5  # and they do bend
    assert (flexion_sine(rotmat) > -0.2).all()


def test_without_augmentation_every_pose_was_recorded() -> None:
    rotmat, _ = MotionSampler(stills(6), generator(0), UNCHANGED).sample(40, 3)
    found = sources(rotmat)
    assert (found == found[:, :1]).all()
    assert found.unique().tolist() == list(range(6))


def test_upper_bodies_come_from_other_clips() -> None:
    found = sources(MotionSampler(stills(9), generator(0), quiet(mixed=0.5)).sample(400, 2)[0])
    upper, lower = found[:, 12:24], found[:, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]]
    assert (upper == upper[:, :1]).all() and (lower == lower[:, :1]).all()
    changed = (upper[:, 0] != lower[:, 0]).float().mean()
    assert pytest.approx(float(changed), abs=0.08) == 0.5 * 8 / 9  # some donors show the same clip


def test_limbs_come_from_several_clips() -> None:
    found = sources(MotionSampler(stills(9), generator(0), quiet(limbs=1.0)).sample(300, 2)[0])
    for limb in (
        [1, 4, 7, 10],
        [2, 5, 8, 11],
        [3, 6, 9],
        [12, 15],
        [13, 16, 18, 20, 22],
        [14, 17, 19, 21, 23],
    ):
        assert (found[:, limb] == found[:, limb[:1]]).all()
        assert 0.3 < (found[:, limb[0]] != found[:, 0]).float().mean() < 0.6
    donors = [len(set(row)) for row in found.tolist()]
    assert np.mean(donors) > 3


def test_seated_bodies_bend_hips_and_knees() -> None:
    still = [Motion("still", "1", torch.eye(3).expand(4, 24, 3, 3), torch.zeros(4, 3))]
    rotmat, _ = MotionSampler(still, generator(0), quiet(seated=1.0)).sample(300, 2)
    turn = quat_to_axis_angle(rotmat_to_quat(rotmat[:, 0]))
    assert turn[:, 1:3, 0].mean() == pytest.approx(-1.0, abs=0.15)
    assert turn[:, 4:6, 0].mean() == pytest.approx(1.0, abs=0.2)
    others = [joint for joint in range(24) if joint not in (1, 2, 4, 5)]
    assert turn[:, others].abs().max() < 1e-3
    straight, _ = MotionSampler(still, generator(0), quiet()).sample(8, 2)
    torch.testing.assert_close(straight, torch.eye(3).expand_as(straight), atol=1e-4, rtol=0)


def test_joints_are_offset_by_as_much_as_is_said() -> None:
    still = [Motion("still", "1", torch.eye(3).expand(4, 24, 3, 3), torch.zeros(4, 3))]
    rotmat, _ = MotionSampler(still, generator(0), quiet(offset=0.1)).sample(2000, 2)
    turn = quat_to_axis_angle(rotmat_to_quat(rotmat))
    torch.testing.assert_close(turn[:, 0], turn[:, 1])  # constant in a clip
    free = [joint for joint in range(1, 24) if joint not in HINGES]
    # The share of 0.1 is uniform between 0 and 1: its mean square is a third.
    assert turn[:, 0, free].square().mean().sqrt() == pytest.approx(0.1 / 3**0.5, rel=0.05)
    assert turn[:, :, 0].abs().max() < 1e-6


def test_tilted_bodies_turn_over_with_their_way() -> None:
    way = torch.arange(4.0)[:, None] * torch.tensor([0.0, 1.0, 0.0])
    still = [Motion("still", "1", torch.eye(3).expand(4, 24, 3, 3), way)]
    rotmat, trans = MotionSampler(still, generator(0), quiet(tilted=0.5)).sample(600, 2)
    up = rotmat[:, 0, 0, :, 1]
    upright = up[:, 1] > 0.9999
    assert 0.42 < upright.float().mean() < 0.58
    over = torch.acos(up[~upright, 1])
    assert over.mean() == pytest.approx(np.pi / 2, abs=0.15) and over.max() > 3
    step = trans[:, 1] - trans[:, 0]
    along = torch.nn.functional.normalize(step, dim=-1)
    assert ((along * up).sum(-1).abs() > 0.999)[step.norm(dim=-1) > 1e-3].all()


def test_shapes_spread_as_is_said() -> None:
    sampler = MotionSampler(stills(2), generator(0), Augmentation(shape=1.0, wide_shape=2.0))
    shapes = sampler.shapes(20_000)
    assert shapes.shape == (20_000, 10)
    assert shapes.abs().max() <= 4
    # Four fifths of the bodies have a deviation of 1, the others of 2, cut off at 4.
    wide = float(torch.randn(200_000, generator=generator(1)).mul(2).clamp(-4, 4).square().mean())
    assert shapes.square().mean() == pytest.approx(0.8 + 0.2 * wide, rel=0.03)
    assert (shapes.square().mean(1) > 2).float().mean() == pytest.approx(0.2, abs=0.06)


def test_performers_are_balanced() -> None:
    """One with nine clips of a length is drawn three times as often as one with one, not nine times."""
    clips = stills(10)
    motions = [Motion(m.name, "many" if k else "one", m.rotmat, m.trans) for k, m in enumerate(clips)]
    found = sources(MotionSampler(motions, generator(0), UNCHANGED).sample(4000, 2)[0])[:, 0]
    assert (found == 0).float().mean() == pytest.approx(1 / 4, abs=0.03)

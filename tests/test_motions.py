"""Motion files, splits and the sampler."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from lib.data_utils.motions import (
    TEST_PERFORMERS,
    UNCHANGED,
    VAL_PERFORMERS,
    Motion,
    MotionSampler,
    load_motions,
    open_motions,
    procedural_motions,
    resample,
)
from lib.utils.errors import UserError
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
    assert not set(TEST_PERFORMERS) & set(VAL_PERFORMERS)


def test_resample_at_whole_frames_is_the_identity() -> None:
    motion = procedural_motions(1, seed=3, length=20)[0]
    rotmat, trans = resample(motion.rotmat, motion.trans, np.arange(20.0))
    torch.testing.assert_close(rotmat, motion.rotmat, atol=1e-5, rtol=0)
    torch.testing.assert_close(trans, motion.trans)


def test_half_of_the_clips_are_mirrored() -> None:
    """One still pose: a clip is that pose or its mirror image, sides exchanged, found by axis-angles."""
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

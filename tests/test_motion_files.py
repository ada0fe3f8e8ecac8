"""Motions of other people: AMASS, BVH, who moves in them, and who is held out."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import bvhio
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from smplx.joint_names import JOINT_NAMES as SMPLX_NAMES
from smplx.joint_names import SMPLH_JOINT_NAMES

from lib.motion.exporters import export_scene
from lib.motion.motion import Placed, joint_chain, rest_joints
from lib.open_data.bvh import read_bvh
from lib.open_data.motion_files import performer_of, read_motion
from lib.open_data.motions import (
    TEST_PERFORMERS,
    VAL_PERFORMERS,
    Motion,
    load_motions,
    open_motions,
    resample,
    split_of,
    trained_split,
)
from lib.utils.errors import UserError
from lib.utils.files import save_checkpoint
from scripts.make_open_db import table
from tests.motion_tools import scene_of

LENGTH = 25


def random_motion(seed: int, length: int = LENGTH) -> Placed:
    rng = np.random.default_rng(seed)
    start = Rotation.random(24, rng=rng)
    turns = [Rotation.from_rotvec(rng.normal(0, 0.05 * t, (24, 3))) for t in range(length)]
    rotmat = np.stack([(start * turn).as_matrix() for turn in turns]).astype(np.float32)
    return Placed(rotmat, np.cumsum(rng.normal(0, 0.03, (length, 3)), 0).astype(np.float32))


@pytest.fixture(scope="module")
def exported(open_body, tmp_path_factory) -> tuple[Placed, Path]:
    placed, folder = random_motion(3), tmp_path_factory.mktemp("exported")
    scene = scene_of([(placed, np.zeros(10, np.float32))], open_body, np.eye(3))
    person = scene.people[0]
    object.__setattr__(person, "world", placed)
    export_scene(scene, open_body, folder, ["bvh", "npz"])
    return placed, folder


def angle(a: np.ndarray, b: np.ndarray) -> float:
    """The largest between rotations (…, 3, 3), rad."""
    relative = np.swapaxes(a, -1, -2) @ b
    return float(Rotation.from_matrix(relative.reshape(-1, 3, 3)).magnitude().max())


def test_our_own_exports_come_back(exported: tuple[Placed, Path]) -> None:
    placed, folder = exported
    bvh, amass = (read_motion(folder / f"person_1.{kind}") for kind in ("bvh", "npz"))
    for recording, joints in ((bvh, 24), (amass, 22)):  # SMPL-H's hands are fingers, which do not move
        assert recording.fps == 30
        assert angle(recording.rotmat.numpy()[:, :joints], placed.rotmat[:, :joints]) < 1e-3
        np.testing.assert_allclose(recording.trans.numpy(), placed.transl, atol=1e-3)
    motions = load_motions(folder)
    assert [len(m.rotmat) for m in motions] == [LENGTH, LENGTH]


def write_bvh(path: Path, rest: np.ndarray, names: list[str], parents: list[int], **change: object) -> Path:
    """A file of joints whose rest places (J, 3) are given, with random angles, in random Euler orders."""
    rng = np.random.default_rng(1)
    orders = ["ZXY", "XYZ", "ZYX"]
    columns = [3 + 3 * (parent < 0) for parent in parents]

    def lines(joint: int) -> list[str]:
        turns = " ".join(f"{axis}rotation" for axis in orders[joint % 3])
        place = "Xposition Yposition Zposition " if parents[joint] < 0 else ""
        offset = rest[joint] - (rest[parents[joint]] if parents[joint] >= 0 else rest[joint])
        children = [child for child, parent in enumerate(parents) if parent == joint]
        inside = ["OFFSET " + " ".join(f"{v:.8f}" for v in offset)]
        inside.append(f"CHANNELS {columns[joint]} {place}{turns}")
        inside += [line for child in children for line in lines(child)]
        inside += [] if children else ["End Site", "{", "OFFSET 0 1 0", "}"]
        return [f"{'ROOT' if parents[joint] < 0 else 'JOINT'} {names[joint]}", "{", *inside, "}"]

    values = np.cumsum(rng.normal(0, 8, (6, sum(columns))), 0)
    text = "\n".join(["HIERARCHY", *lines(0), "MOTION", "Frames: 6", f"Frame Time: {1 / 60:.6f}", ""])
    path.write_text(text + "\n".join(" ".join(f"{v:.6f}" for v in row) for row in values) + "\n")
    return path


SIDES = ("Left", "Right")
CMU = ["Hips", "LHipJoint", "LeftUpLeg", "LeftLeg", "LeftFoot", "LeftToeBase", "RHipJoint", "RightUpLeg",
       "RightLeg", "RightFoot", "RightToeBase", "LowerBack", "Spine", "Spine1", "Neck", "Neck1", "Head",
       "LeftShoulder", "LeftArm", "LeftForeArm", "LeftHand", "LThumb", "RightShoulder", "RightArm",
       "RightForeArm", "RightHand", "RThumb"]  # fmt: skip
CMU_PARENTS = [
    -1,
    0,
    1,
    2,
    3,
    4,
    0,
    6,
    7,
    8,
    9,
    0,
    11,
    12,
    13,
    14,
    15,
    13,
    17,
    18,
    19,
    20,
    13,
    22,
    23,
    24,
    25,
]
CMU_SMPL = [0, 0, 1, 4, 7, 10, 0, 2, 5, 8, 11, 3, 6, 9, 12, 12, 15, 13, 16, 18, 20, 20, 14, 17, 19, 21, 21]
LIMBS = [(1, 4), (4, 7), (2, 5), (5, 8), (16, 18), (18, 20), (17, 19), (19, 21)]


def cmu_rest(body, arms: float, legs: float) -> np.ndarray:
    """Joints of a person in metres, y up, whose arms hang by an angle and whose legs are apart (rad)."""
    rest = rest_joints(body, np.zeros(10)).astype(float)
    for side, sign in enumerate((1, -1)):
        for first, chain, turn in (
            (16 + side, (18 + side, 20 + side), -sign * arms),
            (1 + side, (4 + side, 7 + side, 10 + side), sign * legs),
        ):
            for joint in chain:
                rest[joint] = rest[first] + Rotation.from_euler("Z", turn).apply(rest[joint] - rest[first])
    # Doubled joints (thumbs, second neck) a bit beside.
    return rest[CMU_SMPL] + 0.01 * np.arange(len(CMU))[:, None] * np.array([0, 0.0, 0.1])


@pytest.mark.parametrize(
    ("prefix", "arms", "legs", "unit", "axes"),
    [
        ("", 0.0, 0.35, 0.0564444, "xyz"),  # CMU's spread legs
        ("mixamorig:", 0.0, 0.0, 0.01, "xyz"),
        ("", 0.8, 0.1, 0.0254, "z up"),  # an A-pose
        ("", 1.5, 0.0, 1.0, "xyz"),  # arms down
    ],
)
def test_limbs_point_where_those_of_the_file_do(
    open_body, tmp_path: Path, prefix: str, arms: float, legs: float, unit: float, axes: str
) -> None:
    """Whatever the rest pose; truth is bvhio's forward kinematics."""
    turn = Rotation.from_euler("X", np.pi / 2).as_matrix() if axes == "z up" else np.eye(3)
    rest = cmu_rest(open_body, arms, legs) @ turn.T / unit
    path = write_bvh(tmp_path / "a.bvh", rest, [prefix + name for name in CMU], CMU_PARENTS)
    rotmat, trans, fps = read_bvh(path)
    assert fps == 60
    smpl = rest_joints(open_body, np.zeros(10)).astype(float)
    _, ours = joint_chain(rotmat.astype(float), smpl, open_body.parents)
    root = bvhio.readAsHierarchy(str(path))
    joints = {joint.Name.removeprefix(prefix): joint for joint, _, _ in root.layout()}
    names = dict(zip(CMU_SMPL[::-1], CMU[::-1]))
    for frame in range(6):
        root.loadPose(frame)
        theirs = {k: np.array(list(joints[name].PositionWorld)) @ turn * unit for k, name in names.items()}
        np.testing.assert_allclose(smpl[0] + trans[frame], theirs[0], atol=1e-4)
        for start, end in LIMBS:
            bones = ours[frame, end] - ours[frame, start], theirs[end] - theirs[start]
            cosine = bones[0] @ bones[1] / np.linalg.norm(bones[0]) / np.linalg.norm(bones[1])
            assert cosine > 0.9999


def test_a_t_pose_before_the_motion_is_dropped(open_body, tmp_path: Path) -> None:
    path = write_bvh(tmp_path / "a.bvh", cmu_rest(open_body, 0, 0), CMU, CMU_PARENTS)
    head, _, rows = path.read_text().rpartition(f"{1 / 60:.6f}\n")
    rest = "0 " * len(rows.splitlines()[0].split())
    whole = f"{head}{1 / 60:.6f}\n{rest}\n{rows}".replace("Frames: 6", "Frames: 7")
    path.with_name("b.bvh").write_text(whole)
    rotmat = read_bvh(path)[0]
    np.testing.assert_allclose(read_bvh(path.with_name("b.bvh"))[0], rotmat, atol=1e-6)
    assert len(rotmat) == 6


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("MOTION", "MOTIO", "no BVH file"),
        ("Frame Time:", "Frames", "no BVH file"),
        ("Frames: 6", "Frames: 600000", r"numbers after MOTION, expected 600000 frames of 84"),
        ("Frames: 6", "Frames: 0", "numbers after MOTION"),
        ("JOINT LeftFoot", "JOINT Tail", "no known skeleton .* it has Hips, LHipJoint"),
        ("ROOT", "ROT", "cannot be read"),
        ("CHANNELS 3 ", "CHANNELS 4 ", "cannot be read"),
        ("Zrotation", "Zrota", "joint Hips has channels .*Zrota"),
        ("0.016667", "0", "frame time"),
        ("0.016667", "nan", "frame time"),
        ("0.016667\n", "0.016667\nnan ", "numbers after MOTION"),
        ("OFFSET", "OFFSET nan", "cannot be read"),
    ],
)
def test_broken_bvh_files_are_refused_by_name(
    open_body, tmp_path: Path, old: str, new: str, message: str
) -> None:
    path = write_bvh(tmp_path / "bad.bvh", cmu_rest(open_body, 0, 0), CMU, CMU_PARENTS)
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(UserError, match=rf"bad\.bvh.*{message}"):
        load_motions(tmp_path)


def test_bvh_files_of_nobody_who_stands(open_body, tmp_path: Path) -> None:
    rest = cmu_rest(open_body, 0, 0)
    rest[[CMU.index("LeftLeg"), CMU.index("LeftFoot")]] += [0, 2.0, 0]
    with pytest.raises(UserError, match=r"one\.bvh: the rest pose .* stands"):
        read_bvh(write_bvh(tmp_path / "one.bvh", rest, CMU, CMU_PARENTS))
    with pytest.raises(UserError, match="stands"):
        read_bvh(write_bvh(tmp_path / "two.bvh", 0 * rest, CMU, CMU_PARENTS))
    (tmp_path / "three.bvh").write_bytes(b"\0" * 100)
    with pytest.raises(UserError, match=r"three\.bvh: no BVH file"):
        read_bvh(tmp_path / "three.bvh")


def test_bvh_files_say_what_they_need(open_body, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_bvh(tmp_path / "a.bvh", cmu_rest(open_body, 0, 0), CMU, CMU_PARENTS)
    monkeypatch.setitem(sys.modules, "bvhio", None)
    with pytest.raises(UserError, match="pip install"):
        read_bvh(path)


def write_amass(path: Path, **arrays: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **arrays)  # type: ignore[arg-type]


@pytest.mark.parametrize("layout", ["SMPL", "SMPL-H", "SMPL-X", "parts"])
@pytest.mark.parametrize("rate", ["mocap_framerate", "mocap_frame_rate", "frame_rate"])
def test_layouts_of_amass(open_body, tmp_path: Path, layout: str, rate: str) -> None:
    """y is AMASS's z, z its -y; each SMPL joint is the one of its name in smplx."""
    rng = np.random.default_rng(0)
    names = {"SMPL": SMPLH_JOINT_NAMES[:24], "SMPL-H": SMPLH_JOINT_NAMES[:52], "SMPL-X": SMPLX_NAMES[:55]}
    of = names.get(layout, SMPLH_JOINT_NAMES[:22])
    joints = rng.normal(0, 0.5, (8, len(of), 3))
    trans = rng.normal(0, 1, (8, 3))
    arrays = {"poses": joints.reshape(8, -1)}
    if layout == "parts":
        arrays = {"root_orient": joints[:, 0], "pose_body": joints[:, 1:].reshape(8, 63)}
    write_amass(tmp_path / "a.npz", trans=trans, betas=np.zeros(16), **arrays, **{rate: 60.0})
    found = read_motion(tmp_path / "a.npz")
    assert found.fps == 60
    y_up = np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]])
    expected = np.zeros((8, 24, 3))
    for number, name in enumerate([*SMPLH_JOINT_NAMES[:22], "left_index1", "right_index1"]):
        if layout == "SMPL" and number >= 22:
            expected[:, number] = joints[:, number]
        elif name in of:
            expected[:, number] = joints[:, of.index(name)]
    rotmat = Rotation.from_rotvec(expected.reshape(-1, 3)).as_matrix().reshape(8, 24, 3, 3)
    rotmat[:, 0] = y_up @ rotmat[:, 0]
    np.testing.assert_allclose(found.rotmat.numpy(), rotmat, atol=1e-5)
    pelvis = rest_joints(open_body, np.zeros(10))[0]
    np.testing.assert_allclose(found.trans.numpy() + pelvis, (trans + pelvis) @ y_up.T, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"poses": np.zeros((9, 157))}, r"poses \(9, 157\)"),
        ({"poses": np.zeros(9)}, r"poses \(9,\)"),
        ({"poses": np.array(["a"])}, "not a motion file"),
        ({"mocap_framerate": None}, "without fps"),
        ({"trans": None}, "lacks trans"),
        ({"poses": None}, "not a motion file"),
        ({"poses": None, "root_orient": np.zeros((9, 3)), "pose_body": np.zeros((9, 66))}, "pose_body"),
        ({"poses": None, "root_orient": np.zeros((9, 3)), "pose_body": np.zeros((8, 63))}, "pose_body"),
    ],
)
def test_broken_amass_files_are_refused_by_name(tmp_path: Path, change: dict, message: str) -> None:
    arrays = {"poses": np.zeros((9, 156)), "trans": np.zeros((9, 3)), "mocap_framerate": 60.0} | change
    write_amass(tmp_path / "bad.npz", **{k: v for k, v in arrays.items() if v is not None})
    with pytest.raises(UserError, match=rf"bad\.npz.*{message}"):
        load_motions(tmp_path)


def test_turns_are_resampled_at_their_speed() -> None:
    """A wheel at 12 frames per second, 100 degrees from frame to frame."""
    axis = np.array([0.6, 0.0, 0.8])
    turns = Rotation.from_rotvec(np.radians(100) * np.arange(8)[:, None] * axis).as_matrix()
    rotmat = torch.from_numpy(turns).float()[:, None].expand(-1, 24, -1, -1)
    times = np.arange(0, 7, 12 / 30)
    found, trans = resample(rotmat, torch.arange(8.0)[:, None].expand(8, 3), times)
    expected = Rotation.from_rotvec(np.radians(100) * times[:, None] * axis).as_matrix()
    np.testing.assert_allclose(found[:, 5].numpy(), expected, atol=1e-5)
    np.testing.assert_allclose(trans[:, 0].numpy(), times, atol=1e-6)


@pytest.mark.parametrize(
    ("path", "performer"),
    [
        ("cmu_14_03.npz", "14"), ("cmu/cmu_01_01.npz", "1"), ("14_03.bvh", "14"), ("02/02_01.bvh", "2"),
        ("CMU/14/14_03_poses.npz", "14"), ("AMASS/CMU/127/127_03_stageii.npz", "127"),
        ("KIT/3/walk_01_02_poses.npz", "KIT/3"), ("amass/ACCAD/Female1/A1_poses.npz", "ACCAD/Female1"),
        ("walk1_subject5.bvh", "subject5"), ("BMLmovi/Subject_11_F/x_poses.npz", "BMLmovi/Subject_11_F"),
        ("walk.npz", ""), ("some/walk.bvh", ""), ("misc/dmgnn_test_jumping_1.npz", "49"),
    ],
)  # fmt: skip
def test_performers_by_name(path: str, performer: str) -> None:
    assert performer_of(Path(path)) == performer


def motion(performer: str, assigned: str = "") -> Motion:
    return Motion("a", performer, torch.eye(3).expand(4, 24, 3, 3), torch.zeros(4, 3), assigned=assigned)


def test_splits_of_cmu_and_of_others() -> None:
    for split, held_out in VAL_PERFORMERS.items():
        assert not set(TEST_PERFORMERS) & set(held_out)
        assert [split_of(motion(who), split) for who in ("135", "127", "14", "")] == [
            "test", "val", "train", "train"]  # fmt: skip
    assert set(VAL_PERFORMERS["1"]) < set(VAL_PERFORMERS["2"])
    assert (split_of(motion("49"), "1"), split_of(motion("49"), "2")) == ("train", "val")
    names = [f"KIT/{number}" for number in range(3000)]
    found = [split_of(motion(name)) for name in names]
    for split, share in (("test", 0.1), ("val", 0.1), ("train", 0.8)):
        assert found.count(split) / len(names) == pytest.approx(share, abs=0.02)
    for name, split in zip(names[:50], found):  # the same on every machine: by the hash alone
        share = int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) / 16**8
        assert split == ("test" if share < 0.1 else "val" if share < 0.2 else "train")
    assert split_of(motion("1", "train")) == "train"


def test_an_index_names_performers_and_splits(tmp_path: Path) -> None:
    for name in ("b/walk.npz", "b/run.npz", "b/sit.npz"):
        write_amass(tmp_path / name, poses=np.zeros((9, 72)), trans=np.zeros((9, 3)), fps=30.0)
    write_amass(tmp_path / "b" / "shape.npz", betas=np.zeros(16))  # as in AMASS: no motion
    index = tmp_path / "b" / "index.csv"
    index.write_text("file,performer,description,split\nwalk.npz,ann,walks,val\nrun.npz,bob,runs,test\n")
    splits = open_motions(tmp_path)
    found = {k: [(m.name, m.performer, m.description) for m in v] for k, v in splits.items()}
    assert found == {
        "train": [("sit", "", "")], "val": [("walk", "ann", "walks")], "test": [("run", "bob", "runs")],
    }  # fmt: skip
    assert table(splits).splitlines()[2:] == [
        "| train | unknown | 1 motions | 9 |  |",
        "| val | ann | walk | 9 | walks |",
        "| test | bob | run | 9 | runs |",
    ]
    index.write_text("file,subject,split\nwalk.npz,07,val\nrun.npz,7,test\n")
    with pytest.raises(UserError, match=r"performer 7 is in .*index\.csv"):
        open_motions(tmp_path)
    for content, message in (
        ("name\nwalk.npz\n", "lacks the column file"),
        ("file,split\na,b\n", "split 'b'"),
    ):
        index.write_text(content)
        with pytest.raises(UserError, match=rf"index\.csv.*{message}"):
            open_motions(tmp_path)
    index.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"index\.csv cannot be read"):
        open_motions(tmp_path)


def test_networks_tell_who_was_held_out(tmp_path: Path) -> None:
    for told, split in (({}, "1"), ({"split": "2"}, "2")):
        save_checkpoint({"model": {}, **told}, tmp_path / "net.pth.tar")
        assert trained_split(tmp_path / "net.pth.tar") == split
    save_checkpoint({"model": {}, "split": "x"}, tmp_path / "net.pth.tar")
    with pytest.raises(UserError, match=r"net\.pth\.tar: split 'x'"):
        trained_split(tmp_path / "net.pth.tar")

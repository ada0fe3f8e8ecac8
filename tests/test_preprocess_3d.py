"""3DPW, MPI-INF-3DHP and Human3.6M: miniature raw data in their formats -> databases."""

from __future__ import annotations

import io
import json
import pickle
import struct
from pathlib import Path
from typing import Any, ClassVar

import h5py
import numpy as np
import pytest
import scipy.io
import torch
from scipy.ndimage import gaussian_filter1d
from scipy.signal import medfilt
from scipy.spatial.transform import Rotation

from lib.data_utils import h36m, mpii3d, threedpw
from lib.dataset.database import open_database
from lib.dataset.datasets import get_spec
from lib.dataset.training import required_fields
from lib.models.body import load_body
from lib.models.smpl import SMPL
from lib.utils.errors import UserError
from lib.utils.keypoints import H36M_TO_J14, JOINT_NAMES
from tests.raw_tools import FakeExtractor, assert_same, naive_features, read, write_images

SPIN = JOINT_NAMES["spin"]


def smooth_boxes(keypoints: np.ndarray, factor: float) -> dict[int, np.ndarray]:
    """Boxes by frame: the diagonal of the visible joints' rectangle, gaps filled, then filtered twice."""
    rows = {}
    for t, frame in enumerate(keypoints):
        xy = np.array([[x, y] for x, y, c in frame if c > 0.3])
        if len(xy) and np.hypot(*np.ptp(xy, axis=0)) >= 0.5:
            rows[t] = [*(xy.min(0) + xy.max(0)) / 2, 150 / np.hypot(*np.ptp(xy, axis=0))]
    if not rows:
        return {}
    frames = range(min(rows), max(rows) + 1)
    columns = [np.interp(frames, list(rows), [row[k] for row in rows.values()]) for k in range(3)]
    x, y, q = (gaussian_filter1d(medfilt(np.pad(c, 5), 11)[5:-5], 8) for c in columns)
    return {t: np.array([x[k], y[k], *[150 / q[k] * factor] * 2]) for k, t in enumerate(frames)}


# --------------------------------------------------------------------------------
# 3DPW


class Python2Pickler(pickle._Pickler):  # type: ignore[name-defined]
    """Writes array bytes as Python 2 strings, as the files of 3DPW have them."""

    dispatch: ClassVar[dict[Any, Any]] = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined]

    def save_bytes(self, data: bytes) -> None:
        self.write(b"T" + struct.pack("<i", len(data)) + data)
        self.memoize(data)

    dispatch[bytes] = save_bytes


def save_python2(content: dict[str, Any], path: Path) -> None:
    buffer = io.BytesIO()
    Python2Pickler(buffer, protocol=2).dump(content)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(buffer.getvalue())


def threedpw_sequence(seed: int, frames: int, seen: list[range], genders: list[str]) -> dict[str, Any]:
    """Raw fields of a sequence; person p is seen in the frames ``seen[p]``."""
    rng = np.random.default_rng(seed)
    people = len(seen)
    cameras = np.tile(np.eye(4), (frames, 1, 1))
    cameras[:, :3, :3] = Rotation.from_rotvec(rng.normal(size=(frames, 3))).as_matrix()
    cameras[:, :3, 3] = rng.normal([0, 0, 5], size=(frames, 3))
    poses2d = []
    for p in range(people):
        keypoints = np.zeros((frames, 3, 18))
        for t in seen[p]:
            keypoints[t, :2] = rng.uniform(5, 60, (2, 18)) * [[1], [0.7]]
            keypoints[t, 2] = rng.uniform(0.31, 1, 18)
            keypoints[t, 2, [0, 1, 14, 15, 16, 17]] = rng.uniform(0, 1, 6)
        poses2d.append(keypoints)
    return {
        "sequence": "x",
        "genders": genders,
        "img_frame_ids": np.arange(frames),
        "poses": [rng.normal(0, 0.4, (frames, 72)) for _ in range(people)],
        "betas": [rng.normal(size=p * 290 + 10) for p in range(people)],
        "trans": [rng.normal(0, 2, (frames, 3)) for _ in range(people)],
        "poses2d": poses2d,
        "cam_poses": cameras,
        "campose_valid": [rng.integers(0, 2, frames) for _ in range(people)],
    }


@pytest.fixture(scope="module")
def threedpw_raw(tmp_path_factory) -> tuple[Path, dict[str, dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("3dpw")
    late, gap = range(4, 20), range(1, 22)
    sequences = {
        "train/courtyard_box_00": threedpw_sequence(1, 24, [late, range(24)], ["m", "f"]),
        "train/outdoors_golf_00": threedpw_sequence(2, 20, [range(20)], ["f"]),
        "validation/downtown_rampAndStairs_00": threedpw_sequence(3, 22, [gap], ["m"]),
        "test/downtown_bar_00": threedpw_sequence(4, 25, [range(25), range(0)], ["f", "m"]),
    }
    # limbs hidden in some frames: 7 and 6 of the 12 joints are left (raw keypoints 2-13 are the limbs)
    box = sequences["train/courtyard_box_00"]["poses2d"]
    box[0][10, 2, 2:7] = 0.3
    box[0][[7, 12], 2, 2:8] = 0
    sequences["test/downtown_bar_00"]["poses2d"][0][9:11, 2] = 0  # nothing at all is seen in between
    for name, content in sequences.items():
        save_python2(content, folder / "sequenceFiles" / f"{name}.pkl")
        stem = name.split("/")[1]
        frames = len(content["cam_poses"])
        write_images(
            [folder / "imageFiles" / stem / f"image_{i:05d}.jpg" for i in range(frames)], seed=frames
        )
    return folder, sequences


def run_threedpw(folder: Path, out: Path, base_data: Path, *options: str) -> None:
    threedpw.main(
        ["--dir", str(folder), "--out", str(out), "--base-data", str(base_data), *options], FakeExtractor()
    )


def expected_person(raw: dict[str, Any], p: int, body: Any, split: str) -> dict[int, dict[str, Any]]:
    """Fields of one person by frame, each computed by itself, with the mesh and in the world frame first."""
    smpl = SMPL(body)
    boxes = smooth_boxes(raw["poses2d"][p].transpose(0, 2, 1), 1.1)
    rows = {}
    for t, box in boxes.items():
        pose, betas = raw["poses"][p][t], raw["betas"][p][:10]
        output = smpl(
            torch.tensor(betas, dtype=torch.float32)[None],
            torch.tensor(pose[3:], dtype=torch.float32)[None],
            torch.tensor(pose[:3], dtype=torch.float32)[None],
            transl=torch.tensor(raw["trans"][p][t], dtype=torch.float32)[None],
        )
        joints = output.joints[0].numpy().astype(float)
        if split != "train":
            joints = (body.J_regressor_h36m @ output.vertices[0].numpy().astype(float))[H36M_TO_J14]
        camera = raw["cam_poses"][t]
        in_camera = np.array([camera[:3, :3] @ joint + camera[:3, 3] for joint in joints])
        names = ["rankle", "rknee", "rhip", "lhip", "lknee", "lankle", "rwrist", "relbow", "rshoulder"]
        names += ["lshoulder", "lelbow", "lwrist"]
        order = [10, 9, 8, 11, 12, 13, 4, 3, 2, 5, 6, 7]
        joints2d = np.zeros((14, 3))
        for joint, source in zip(names, order):
            x, y, confidence = raw["poses2d"][p][t][:, source]
            joints2d[JOINT_NAMES["common"].index(joint)] = x, y, float(confidence > 0.3)
        rows[t] = {"joints3D": in_camera, "joints2D": joints2d, "bbox": box, "betas": betas}
        turned = Rotation.from_matrix(camera[:3, :3]) * Rotation.from_rotvec(pose[:3])
        rows[t]["rotation"], rows[t]["body_pose"] = turned.as_matrix(), pose[3:]
    return rows


def check_threedpw(
    database: dict[str, np.ndarray], folder: Path, sequences, split: str, body, all_frames=False
):
    row = 0
    for name, raw in sequences.items():
        if not name.startswith(split):
            continue
        stem = name.split("/")[1]
        for p in range(len(raw["poses"])):
            for t, want in expected_person(raw, p, body, split).items():
                if (want["joints2D"][:, 2] > 0.3).sum() <= 6 and not all_frames:
                    continue
                assert database["vid_name"][row] == f"{stem}_{p}"
                assert database["frame_id"][row] == t
                assert Path(database["img_name"][row]) == folder / "imageFiles" / stem / f"image_{t:05d}.jpg"
                assert database["gender"][row] == raw["genders"][p]
                assert database["valid"][row] == raw["campose_valid"][p][t]
                np.testing.assert_allclose(database["bbox"][row], want["bbox"])
                np.testing.assert_allclose(database["joints2D"][row], want["joints2D"])
                np.testing.assert_allclose(database["joints3D"][row], want["joints3D"], atol=1e-5)
                np.testing.assert_allclose(database["shape"][row], want["betas"], rtol=1e-6)
                np.testing.assert_allclose(database["pose"][row][3:], want["body_pose"], atol=1e-6)
                rotation = Rotation.from_rotvec(database["pose"][row][:3]).as_matrix()
                np.testing.assert_allclose(rotation, want["rotation"], atol=1e-5)
                row += 1
    assert len(database["vid_name"]) == row
    features = naive_features(database["img_name"], database["bbox"], 1.2)
    np.testing.assert_allclose(database["features"], features, atol=0.5)


def test_threedpw(tmp_path, threedpw_raw, base_data, smpl_body):
    folder, sequences = threedpw_raw
    run_threedpw(folder, tmp_path, base_data)
    for name, split in (("train", "train"), ("val", "validation"), ("test", "test")):
        database = read(tmp_path / f"3dpw_{name}_db.pt")
        check_threedpw(database, folder, sequences, split, smpl_body)
        kinds = {key: (values.dtype.name, values.shape[1:]) for key, values in database.items()}
        assert kinds["joints3D"] == ("float32", (49, 3) if name == "train" else (14, 3))
        assert kinds["joints2D"] == ("float64", (14, 3)) and kinds["frame_id"] == ("int64", ())
        assert kinds["pose"] == ("float32", (72,)) and kinds["shape"] == ("float32", (10,))
        assert kinds["bbox"] == ("float64", (4,)) and database["crop_scale"] == 1.2
        assert database["fps"] == 30
        open_database(tmp_path / f"3dpw_{name}_db.pt", required_fields(get_spec("ThreeDPW")), ["valid"])
    # the person who appears late: boxes belong to their frames, and none is infinite
    late = read(tmp_path / "3dpw_train_db.pt")
    first = late["vid_name"] == "courtyard_box_00_0"
    assert late["frame_id"][first].tolist() == [t for t in range(4, 20) if t not in (7, 12)]
    assert np.isfinite(late["bbox"]).all()


def test_threedpw_all_frames(tmp_path, threedpw_raw, base_data, smpl_body):
    folder, sequences = threedpw_raw
    run_threedpw(folder, tmp_path, base_data, "--set", "test", "--all-frames")
    database = read(tmp_path / "3dpw_test_all_db.pt")
    check_threedpw(database, folder, sequences, "test", smpl_body, all_frames=True)
    assert database["frame_id"].tolist() == list(range(25))


def test_threedpw_gendered(tmp_path, threedpw_raw, base_data):
    folder, sequences = threedpw_raw
    run_threedpw(folder, tmp_path, base_data, "--set", "val", "--gendered")
    body = load_body(base_data, "male")
    database = read(tmp_path / "3dpw_val_gendered_db.pt")
    check_threedpw(database, folder, sequences, "validation", body)


def test_threedpw_stored_pose_gives_the_stored_joints(tmp_path, threedpw_raw, base_data, smpl_body):
    """Pose, shape and joints of a row belong together: they differ by a translation only."""
    run_threedpw(threedpw_raw[0], tmp_path, base_data, "--set", "train")
    database = read(tmp_path / "3dpw_train_db.pt")
    pose, shape = torch.from_numpy(database["pose"]), torch.from_numpy(database["shape"])
    joints = SMPL(smpl_body)(shape, pose[:, 3:], pose[:, :3]).joints.numpy()
    offset = database["joints3D"] - joints
    assert np.abs(offset - offset.mean(axis=1, keepdims=True)).max() < 2e-5


def test_threedpw_needs_smpl(tmp_path, threedpw_raw):
    with pytest.raises(UserError, match=r"SMPL_NEUTRAL\.pkl does not exist"):
        run_threedpw(threedpw_raw[0], tmp_path, tmp_path)


class Evil:
    def __reduce__(self):
        return (Path.touch, (Path("hacked"),))


def test_threedpw_messages(tmp_path, base_data):
    good = threedpw_sequence(1, 12, [range(12)], ["m"])
    path = tmp_path / "sequenceFiles" / "train" / "a.pkl"

    def fails(content: Any, message: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content, protocol=2))
        with pytest.raises(UserError, match=message):
            run_threedpw(tmp_path, tmp_path, base_data, "--set", "train")

    with pytest.raises(UserError, match="sequenceFiles/train does not exist: expected 3DPW's sequence files"):
        run_threedpw(tmp_path, tmp_path, base_data)
    fails(b"nonsense", r"a\.pkl")
    fails({**good, "genders": [Evil()]}, r"a\.pkl was refused")
    fails({k: v for k, v in good.items() if k != "trans"}, r"a\.pkl has no field trans")
    fails({**good, "trans": [np.zeros((5, 3))]}, r"trans of person 0 has shape \(5, 3\)")
    fails({**good, "genders": ["x"]}, "gender 'x'")
    fails({**good, "poses": []}, "holds no person")
    fails({**good, "betas": []}, "betas has no person 0")
    fails({**good, "genders": []}, "genders has no person 0")
    fails({**good, "cam_poses": np.zeros((5, 4, 4))}, r"cam_poses \(5, 4, 4\)")
    fails(good, r"imageFiles/a/image_00000\.jpg does not exist")


# --------------------------------------------------------------------------------
# MPI-INF-3DHP


def mpii3d_sequence(
    rng: np.random.Generator, frames: int, outside: dict[int, list[int]]
) -> dict[str, np.ndarray]:
    """annot2 and annot3 of 14 cameras; in ``outside[camera]`` one joint leaves the image."""
    annot2, annot3 = (np.empty((14, 1), object) for _ in range(2))
    for camera in range(14):
        pixels = rng.uniform(5, 45, (frames, 28, 2))
        for k, frame in enumerate(outside.get(camera, [])):
            joint = JOINT_NAMES["mpii3d"].index(["lwrist", "headtop"][k % 2])
            pixels[frame, joint] = [(-1, 10), (10, 2048)][k % 2]
        pixels[0, JOINT_NAMES["mpii3d"].index("left_toe")] = -50  # not a joint of the database
        annot2[camera, 0] = pixels.reshape(frames, 56)
        annot3[camera, 0] = rng.normal(0, 500, (frames, 84)) + 3000
    return {"annot2": annot2, "annot3": annot3}


OUTSIDE = {0: [0, 3, 4, 9], 1: [9], 2: list(range(10))}


@pytest.fixture(scope="module")
def mpii3d_raw(tmp_path_factory) -> tuple[Path, dict[str, dict[str, np.ndarray]]]:
    folder = tmp_path_factory.mktemp("3dhp")
    rng = np.random.default_rng(0)
    content = {}
    for name in ("S1/Seq1", "S1/Seq2", "S4/Seq1"):
        content[name] = mpii3d_sequence(rng, 10, OUTSIDE if name == "S1/Seq1" else {})
        for camera in (0, 1, 2, 4, 5, 6, 7, 8):
            images = [folder / name / f"video_{camera}" / f"{k:06d}.jpg" for k in range(10)]
            write_images(images, seed=camera)
        scipy.io.savemat(folder / name / "annot.mat", {**content[name], "cameras": np.arange(14)})
    for number, (width, height) in ((1, (64, 48)), (5, (60, 40))):
        test = folder / "mpi_inf_3dhp_test_set" / f"TS{number}"
        write_images(
            [test / "imageSequence" / f"img_{k:06d}.jpg" for k in range(1, 9)], (width, height), number
        )
        arrays = {
            "annot2": rng.uniform(1, 39, (8, 1, 17, 2)),
            "univ_annot3": rng.normal(0, 500, (8, 1, 17, 3)),
            "valid_frame": rng.integers(0, 2, (8, 1)).astype(float),
        }
        arrays["annot2"][3, 0, 5] = width, 10  # just outside
        arrays["annot2"][2, 0, 5] = width - 0.5, height - 0.5  # just inside
        content[f"TS{number}"] = arrays
        with h5py.File(test / "annot_data.mat", "w", userblock_size=512) as file:
            for key, values in arrays.items():
                file[key] = values
        with (test / "annot_data.mat").open("r+b") as file:
            file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(116) + b"\0" * 8 + b"\0\2IM")
    return folder, content


def run_mpii3d(folder: Path, out: Path, *options: str) -> None:
    mpii3d.main(["--dir", str(folder), "--out", str(out), *options], FakeExtractor())


def check_mpii3d_row(database, row, pixels, millimetres, convention, factor=1.1):
    names = JOINT_NAMES[convention]
    root = np.array(millimetres[names.index("hip")]) / 1000
    shared = [name for name in SPIN if name in names]
    assert len(shared) == 17
    for j, name in enumerate(SPIN):
        if name in names:
            x, y = pixels[names.index(name)]
            np.testing.assert_allclose(database["joints2D"][row, j], [x, y, 1])
            joint = np.array(millimetres[names.index(name)]) / 1000 - root
            np.testing.assert_allclose(database["joints3D"][row, j], joint, atol=1e-12)
        else:
            assert not database["joints2D"][row, j].any() and not database["joints3D"][row, j].any()
    x = [pixels[names.index(name)][0] for name in shared]
    y = [pixels[names.index(name)][1] for name in shared]
    side = factor * max(max(x) - min(x), max(y) - min(y))
    box = [(min(x) + max(x)) / 2, (min(y) + max(y)) / 2, side, side]
    np.testing.assert_allclose(database["bbox"][row], box)


def test_mpii3d_train(tmp_path, mpii3d_raw, caplog):
    folder, content = mpii3d_raw
    run_mpii3d(folder, tmp_path, "--set", "train")
    database = read(tmp_path / "mpii3d_train_scale12_db.pt")
    row = 0
    for name in ("S1/Seq1", "S1/Seq2", "S4/Seq1"):
        for camera in (0, 1, 2, 4, 5, 6, 7, 8):
            dropped = OUTSIDE.get(camera, []) if name == "S1/Seq1" else []
            segment, stored = 0, False
            for k in range(10):
                if k in dropped:
                    segment, stored = segment + stored, False
                    continue
                stored = True
                video = f"subj{name[1]}_seq{name[-1]}_vid{camera}_seg{segment}"
                assert database["vid_name"][row] == video
                assert database["frame_id"][row] == f"{k:06d}"
                assert Path(database["img_name"][row]) == folder / name / f"video_{camera}" / f"{k:06d}.jpg"
                pixels = content[name]["annot2"][camera, 0][k].reshape(28, 2)
                millimetres = content[name]["annot3"][camera, 0][k].reshape(28, 3)
                check_mpii3d_row(database, row, pixels, millimetres, "mpii3d")
                row += 1
    assert len(database["vid_name"]) == row == 240 - 15
    # one number further for two frames dropped in a row; none for frames dropped at the start
    segments = database["vid_name"][np.char.startswith(database["vid_name"], "subj1_seq1_vid0")]
    assert dict(zip(*np.unique(segments, return_counts=True))) == {
        "subj1_seq1_vid0_seg0": 2,
        "subj1_seq1_vid0_seg1": 4,
    }
    features = naive_features(database["img_name"], database["bbox"], 1.2)
    np.testing.assert_allclose(database["features"], features, atol=0.5)
    assert database["joints3D"].dtype == database["joints2D"].dtype == np.float64
    assert "S2/Seq1" in caplog.text and "S4/Seq2" in caplog.text
    open_database(tmp_path / "mpii3d_train_scale12_db.pt", required_fields(get_spec("MPII3D")))


@pytest.mark.parametrize("keep", [False, True])
def test_mpii3d_test_set(tmp_path, mpii3d_raw, keep):
    folder, content = mpii3d_raw
    run_mpii3d(folder, tmp_path, "--set", "val", *["--keep-outside"] * keep)
    database = read(tmp_path / f"mpii3d_val_scale12{'_all' * keep}_db.pt")
    row = 0
    for number in (1, 5):
        arrays = content[f"TS{number}"]
        for k in range(8):
            if k == 3 and not keep:
                continue
            assert database["vid_name"][row] == f"subj{number}_seg{int(k > 3 and not keep)}"
            assert database["frame_id"][row] == f"img_{k + 1:06d}"
            assert database["valid_i"][row] == arrays["valid_frame"][k]
            if keep:
                assert database["inside"][row] == (k != 3)
            pixels, millimetres = arrays["annot2"][k, 0], arrays["univ_annot3"][k, 0]
            check_mpii3d_row(database, row, pixels, millimetres, "mpii3d_test")
            row += 1
    assert database["valid_i"].shape == (row, 1) and row == 14 + 2 * keep


def test_mpii3d_scale_and_box(tmp_path, mpii3d_raw):
    folder, content = mpii3d_raw
    run_mpii3d(folder, tmp_path, "--set", "val", "--scale", "1.0", "--box-factor", "1.3")
    database = read(tmp_path / "mpii3d_val_scale1_box13_db.pt")
    arrays = content["TS1"]
    check_mpii3d_row(database, 0, arrays["annot2"][0, 0], arrays["univ_annot3"][0, 0], "mpii3d_test", 1.3)
    features = naive_features(database["img_name"], database["bbox"], 1.0)
    np.testing.assert_allclose(database["features"], features, atol=0.5)


def test_mpii3d_goes_on(tmp_path, mpii3d_raw):
    folder, _ = mpii3d_raw
    argv = ["--dir", str(folder), "--set", "train", "--out", str(tmp_path)]
    with pytest.raises(KeyboardInterrupt):
        mpii3d.main(argv, FakeExtractor(limit=7))
    mpii3d.main(argv, FakeExtractor())
    run_mpii3d(folder, tmp_path / "whole", "--set", "train")
    name = "mpii3d_train_scale12_db.pt"
    assert_same(read(tmp_path / name), read(tmp_path / "whole" / name))


@pytest.mark.parametrize("place", ["video_0", "imageFrames/video_0", "imageSequence/video_0"])
def test_mpii3d_frames_are_found_where_spin_extracts_them(tmp_path, place):
    (tmp_path / place).mkdir(parents=True)
    assert mpii3d._frames(tmp_path, 0) == tmp_path / place


def test_mpii3d_messages(tmp_path):
    def fails(message: str, split: str = "train") -> None:
        with pytest.raises(UserError, match=message):
            run_mpii3d(tmp_path, tmp_path, "--set", split)

    fails(r"holds no S\*/Seq\*: expected S1/Seq1")
    fails("mpi_inf_3dhp_test_set does not exist", "val")
    folder = tmp_path / "S1" / "Seq1"
    folder.mkdir(parents=True)
    fails(r"S1/Seq1/annot\.mat does not exist")
    scipy.io.savemat(folder / "annot.mat", {"annot2": np.zeros((3, 3))})
    fails("video_0 does not exist: expected the extracted frames of camera 0")
    (folder / "imageSequence").mkdir()
    (folder / "imageSequence" / "video_0.avi").touch()
    fails(r"imageSequence/video_0\.avi has not been extracted: make .*Seq1/video_0 and run `ffmpeg -i ")
    for camera in range(9):
        (folder / f"video_{camera}").mkdir()
    fails(r"annot\.mat lacks annot3")
    scipy.io.savemat(folder / "annot.mat", {"annot2": np.zeros((3, 3)), "annot3": np.zeros((3, 3))})
    mpii3d._read_annotations.cache_clear()
    fails(r"annot2 holds no \(frames, 56\) of camera 0")
    scipy.io.savemat(folder / "annot.mat", mpii3d_sequence(np.random.default_rng(0), 3, {}))
    mpii3d._read_annotations.cache_clear()
    fails(r"video_0 holds no \.jpg or \.png")
    test = tmp_path / "mpi_inf_3dhp_test_set" / "TS2"
    test.mkdir(parents=True)
    scipy.io.savemat(test / "annot_data.mat", {"annot2": np.zeros(3)})
    fails(r"annotation file .*annot_data\.mat is not a readable HDF5 file", "val")
    with h5py.File(test / "annot_data.mat", "w") as file:
        file["annot2"] = np.zeros((4, 1, 17, 2))
    fails(r"annot_data\.mat is no annotation file .*: no univ_annot3, valid_frame", "val")
    with h5py.File(test / "annot_data.mat", "w") as file:
        file["annot2"], file["univ_annot3"] = np.zeros((4, 1, 17, 2)), np.zeros((4, 1, 17, 2))
        file["valid_frame"] = np.ones((4, 1))
    fails(r"univ_annot3 has shape \(4, 1, 17, 2\), expected \(n, 1, 17, 3\)", "val")


# --------------------------------------------------------------------------------
# Human3.6M

RAW_H36M = ["hip", "rhip", "rknee", "rankle", "lhip", "lknee", "lankle", *JOINT_NAMES["h36m"][7:]]


@pytest.fixture(scope="module")
def h36m_raw(tmp_path_factory) -> tuple[Path, dict[str, Any]]:
    """Subjects 1, 9 and 11, cameras 1 and 4, one action of 9 frames (subject 9: two)."""
    folder = tmp_path_factory.mktemp("h36m")
    rng = np.random.default_rng(0)
    content: dict[str, Any] = {}
    (folder / "annotations").mkdir()
    for subject in (1, 9, 11):
        cameras, joints, smpl = {}, {}, {}
        for camera in (1, 2, 3, 4):
            rotation = Rotation.from_rotvec(rng.normal(0, 0.3, 3)).as_matrix()
            cameras[str(camera)] = {
                "R": rotation.tolist(),
                "t": [0.0, 0.0, 4000.0],
                "f": [1145.0, 1143.0],
                "c": [512.0, 515.0],
            }
        for action in (2, 3) if subject == 9 else (2,):
            world = rng.normal(0, 300, (9, 17, 3))
            joints[str(action)] = {"1": {str(t): world[t].tolist() for t in range(9)}}
            entry = {}
            for t in range(9):
                values = {"pose": rng.normal(0, 1, 72).tolist(), "shape": rng.normal(0, 1, 10).tolist()}
                # subject 1 in world coordinates, subject 9 per camera; frame 4 has none
                if t != 4:
                    entry[str(t)] = values if subject == 1 else {"4": values}
            smpl[str(action)] = {"1": entry}
            for camera in (1, 4):
                name = f"s_{subject:02d}_act_{action:02d}_subact_01_ca_{camera:02d}"
                images = [folder / "images" / name / f"{name}_{t + 1:06d}.jpg" for t in range(9)]
                write_images(images, (1000, 1002), seed=camera)
        content[str(subject)] = {"camera": cameras, "joint_3d": joints, "SMPL_NeuralAnnot": smpl}
        for kind, table in content[str(subject)].items():
            if subject != 11 or kind != "SMPL_NeuralAnnot":
                path = folder / "annotations" / f"Human36M_subject{subject}_{kind}.json"
                path.write_text(json.dumps(table))
    return folder, content


def run_h36m(folder: Path, out: Path, *options: str) -> None:
    h36m.main(["--dir", str(folder), "--out", str(out), *options], FakeExtractor())


def check_h36m(database, folder, content, clips, *, step, factor, scale, smpl=True):
    row = 0
    for subject, action, camera in clips:
        raw = content[str(subject)]
        cam = {key: np.array(value) for key, value in raw["camera"][str(camera)].items()}
        frames = []
        for t in range(9):
            joints = [cam["R"] @ np.array(j) + cam["t"] for j in raw["joint_3d"][str(action)]["1"][str(t)]]
            frames.append(dict(zip(RAW_H36M, joints)))
        pixels = [
            {
                n: [x / z * cam["f"][0] + cam["c"][0], y / z * cam["f"][1] + cam["c"][1]]
                for n, (x, y, z) in f.items()
            }
            for f in frames
        ]
        boxes = smooth_boxes(np.array([[[*p, 1.0] for p in frame.values()] for frame in pixels]), factor)
        name = f"s_{subject:02d}_act_{action:02d}_subact_01_ca_{camera:02d}"
        for t in range(0, 9, step):
            assert database["vid_name"][row] == name and database["frame_id"][row] == t
            assert Path(database["img_name"][row]) == folder / "images" / name / f"{name}_{t + 1:06d}.jpg"
            for j, joint in enumerate(SPIN):
                got2d, got3d = database["joints2D"][row, j], database["joints3D"][row, j]
                if joint in frames[t]:
                    np.testing.assert_allclose(got2d, [*pixels[t][joint], 1], rtol=1e-5)
                    metres = (frames[t][joint] - frames[t]["hip"]) / 1000
                    np.testing.assert_allclose(got3d, metres, atol=1e-6)
                else:
                    assert not got2d.any() and not got3d.any()
            np.testing.assert_allclose(database["bbox"][row], boxes[t], rtol=1e-6)
            entry = raw["SMPL_NeuralAnnot"][str(action)]["1"].get(str(t), {})
            if subject != 1:
                entry = entry.get(str(camera), {})
            if not smpl or not entry:
                assert not database["pose"][row].any() and not database["shape"][row].any()
            else:
                turn = Rotation.from_rotvec(entry["pose"][:3])
                if subject == 1:
                    turn = Rotation.from_matrix(cam["R"]) * turn
                got = Rotation.from_rotvec(database["pose"][row, :3]).as_matrix()
                np.testing.assert_allclose(got, turn.as_matrix(), atol=1e-5)
                np.testing.assert_allclose(database["pose"][row, 3:], entry["pose"][3:], rtol=1e-6)
                np.testing.assert_allclose(database["shape"][row], entry["shape"], rtol=1e-6)
            row += 1
    assert len(database["vid_name"]) == row
    features = naive_features(database["img_name"], database["bbox"], scale)
    np.testing.assert_allclose(database["features"], features, atol=0.5)
    assert (database["crop_scale"], database["box_factor"]) == (scale, factor)


def test_h36m_train(tmp_path, h36m_raw):
    folder, content = h36m_raw
    run_h36m(folder, tmp_path, "--set", "train")
    database = read(tmp_path / "h36m_train_25fps_db.pt")
    assert database["fps"] == 25
    check_h36m(database, folder, content, [(1, 2, 1), (1, 2, 4)], step=2, factor=1.1, scale=1.2)
    assert {database[key].dtype.name for key in ("joints2D", "joints3D", "pose", "shape")} == {"float32"}
    open_database(tmp_path / "h36m_train_25fps_db.pt", required_fields(get_spec("Human36M")))


def test_h36m_variants(tmp_path, h36m_raw):
    folder, content = h36m_raw
    run_h36m(folder, tmp_path, "--set", "test", "--front", "--tight", "--no-smpl")
    database = read(tmp_path / "h36m_test_front_25fps_tight_nosmpl_db.pt")
    clips = [(9, 2, 4), (9, 3, 4), (11, 2, 4)]
    check_h36m(database, folder, content, clips, step=2, factor=0.9, scale=1.0, smpl=False)
    run_h36m(folder, tmp_path, "--set", "val", "--fps", "50", "--no-smpl")
    database = read(tmp_path / "h36m_val_nosmpl_db.pt")
    assert database["fps"] == 50
    clips = [(9, 2, 1), (9, 2, 4), (9, 3, 1), (9, 3, 4), (11, 2, 1), (11, 2, 4)]
    check_h36m(database, folder, content, clips, step=1, factor=1.1, scale=1.2, smpl=False)
    run_h36m(folder, tmp_path, "--set", "train", "--tight", "--scale", "1.1")
    assert read(tmp_path / "h36m_train_25fps_tight_scale11_db.pt")["box_factor"] == 0.9


def test_h36m_smpl_per_camera(tmp_path, h36m_raw):
    folder, content = h36m_raw
    only = tmp_path / "raw"
    (only / "images").mkdir(parents=True)
    (only / "annotations").symlink_to(folder / "annotations")
    for path in (folder / "images").glob("s_09*"):
        (only / "images" / path.name).symlink_to(path)
    run_h36m(only, tmp_path, "--set", "test", "--front")
    database = read(tmp_path / "h36m_test_front_25fps_db.pt")
    check_h36m(database, only, content, [(9, 2, 4), (9, 3, 4)], step=2, factor=1.1, scale=1.2)
    assert database["pose"].any(axis=1).tolist() == [True, True, False, True, True] * 2


def test_h36m_messages(tmp_path, h36m_raw):
    def fails(message: str, *options: str) -> None:
        with pytest.raises(UserError, match=message):
            run_h36m(tmp_path, tmp_path, *options)

    with pytest.raises(UserError, match=r"subject11_SMPL_NeuralAnnot\.json does not exist.*--no-smpl"):
        run_h36m(h36m_raw[0], tmp_path, "--set", "test")
    fails("images does not exist: expected Human3.6M's extracted frames")
    name = "s_05_act_02_subact_01_ca_01"
    write_images([tmp_path / "images" / name / f"{k}.jpg" for k in range(3)])
    fails("holds no folder for test", "--set", "test")
    fails(r"subject5_camera\.json does not exist")
    annotations = tmp_path / "annotations"
    annotations.mkdir()
    camera = annotations / "Human36M_subject5_camera.json"
    joints = annotations / "Human36M_subject5_joint_3d.json"
    camera.write_text("{}")
    fails("no such camera")
    camera.write_text(json.dumps({"1": {"R": [1], "t": [0, 0, 0], "f": [1, 1], "c": [1, 1]}}))
    fails("camera 1 has no R")
    camera.write_text(json.dumps({"1": {"R": np.eye(3).tolist(), "t": [0, 0, 9], "f": [1, 1], "c": [1, 1]}}))
    joints.write_text(json.dumps({"2": {"2": {"0": np.zeros((17, 3)).tolist()}}}))
    fails(r"no 3D joints \(key 1 of 2/1 is missing")
    h36m._joints.cache_clear()
    joints.write_text(json.dumps({"2": {"1": {"0": np.zeros((16, 3)).tolist()}}}))
    fails(r"joint_3d\.json is no readable JSON file .*\(16, 3\)")
    joints.write_text(json.dumps({"2": {"1": {"1": np.zeros((17, 3)).tolist()}}}))
    fails("frame '0' is missing")

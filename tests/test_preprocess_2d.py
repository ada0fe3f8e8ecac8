"""InstaVariety, PennAction, PoseTrack and AMASS: miniature raw data in their formats -> databases."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pytest

from lib.core.config import get_cfg_defaults
from lib.data_utils import amass, insta, penn_action, posetrack
from lib.data_utils.tfrecord import list_records
from lib.dataset.database import open_database
from lib.dataset.datasets import database_path, get_spec
from lib.dataset.training import WindowDataset, required_fields
from lib.utils.errors import UserError
from lib.utils.keypoints import JOINT_NAMES
from tests.raw_tools import (
    FakeExtractor,
    assert_same,
    naive_features,
    quarter_means,
    read,
    write_images,
    write_penn,
)

# --------------------------------------------------------------------------------
# TFRecord files, encoded by hand


def crc32c(data: bytes) -> int:
    """Castagnoli's CRC, bit by bit."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(data: bytes) -> bytes:
    crc = crc32c(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def frame(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    return length + masked(length) + data + masked(data)


def varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def field(number: int, data: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(data)) + data


def example(features: dict[str, Any]) -> bytes:
    """A serialised ``tf.train.Example``: floats packed, integers packed, bytes repeated."""
    entries = b""
    for key, values in features.items():
        if isinstance(values, list):
            kind, payload = 1, b"".join(field(1, value) for value in values)
        elif values.dtype.kind == "f":
            kind, payload = 2, field(1, values.astype("<f4").tobytes())
        else:
            kind, payload = 3, field(1, b"".join(varint(int(v)) for v in values.ravel()))
        entries += field(1, field(1, key.encode()) + field(2, field(kind, payload)))
    return field(1, entries)


def jpeg(rng: np.random.Generator, size: int = 224) -> bytes:
    small = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return cv2.imencode(".jpg", cv2.resize(small, (size, size), interpolation=cv2.INTER_CUBIC))[1].tobytes()


def insta_features(rng: np.random.Generator, n: int, size: int = 224, **more: Any) -> dict[str, Any]:
    return {
        "meta/N": np.array([n]),
        "image/encoded": [jpeg(rng, size) for _ in range(n)],
        "image/xys": rng.uniform(0, 224, (n, 2, 14)).astype(np.float32),
        "image/visibilities": rng.integers(0, 2, (n, 1, 14)).astype(np.float32),
        "image/face_pts": rng.uniform(0, 224, (n, 3, 5)).astype(np.float32),
        "image/toe_pts": rng.uniform(0, 224, (n, 3, 6)).astype(np.float32),
        **more,
    }


FILES = ["insta_variety_00_copy00_hmr_noS5.ckpt-642561.tfrecord", "insta_variety_01_copy00.tfrecord"]


@pytest.fixture(scope="module")
def insta_raw(tmp_path_factory) -> tuple[Path, list[tuple[str, dict[str, Any]]]]:
    """Two tfrecord files: three clips, of which one has its points in [-1, 1] and one lacks toes."""
    folder = tmp_path_factory.mktemp("insta")
    (folder / "train").mkdir()
    rng = np.random.default_rng(0)
    unit = rng.uniform(-1, 1, (3, 2, 14)).astype(np.float32)
    clips = [
        (f"{FILES[0]}-0", insta_features(rng, 4)),
        (
            f"{FILES[0]}-1",
            insta_features(rng, 3, **{"image/xys": unit, "image/phis": np.zeros(3, np.float32)}),
        ),
        (f"{FILES[1]}-0", insta_features(rng, 2)),
    ]
    del clips[2][1]["image/toe_pts"]
    for file, part in ((FILES[0], clips[:2]), (FILES[1], clips[2:])):
        (folder / "train" / file).write_bytes(b"".join(frame(example(features)) for _, features in part))
    return folder, clips


def test_insta(tmp_path, insta_raw):
    folder, clips = insta_raw
    insta.main(["--dir", str(folder), "--out", str(tmp_path)], FakeExtractor())
    names, joints, features = [], [], []
    for name, raw in clips:
        for k, encoded in enumerate(raw["image/encoded"]):
            names.append((name.encode(), k))
            rows = []
            scale = (lambda v: (v + 1) / 2 * 224) if "image/phis" in raw else (lambda v: v)
            for j in range(14):
                x, y = raw["image/xys"][k, :, j].astype(float)
                rows.append([scale(x), scale(y), raw["image/visibilities"][k, 0, j]])
            for key, count in (("image/face_pts", 5), ("image/toe_pts", 6)):
                for j in range(count):
                    x, y, c = raw[key][k, :, j].astype(float) if key in raw else np.zeros(3)
                    rows.append([scale(x), scale(y), c])
            joints.append(rows)
            image = cv2.cvtColor(cv2.imdecode(np.frombuffer(encoded, np.uint8), 1), cv2.COLOR_BGR2RGB)
            features.append(quarter_means(image[None])[0])
    with h5py.File(tmp_path / "insta_train_db.h5") as file:
        assert list(zip(file["vid_name"][:], file["frame_id"][:])) == names
        assert file["joints2D"].shape == (9, 25, 3) and file["joints2D"].dtype == np.float64
        np.testing.assert_allclose(file["joints2D"][:], joints, rtol=1e-6)
        np.testing.assert_allclose(file["features"][:], features, atol=1e-4)
        assert file["extractor"][()] == b"fake"
    spec = get_spec("Insta")
    database = open_database(tmp_path / "insta_train_db.h5", required_fields(spec))
    assert WindowDataset(spec, database, 16)[0]["kp_2d"].shape == (1, 49, 3)


def test_insta_goes_on_with_the_clip_it_was_at(tmp_path, insta_raw):
    folder, _ = insta_raw
    argv = ["--dir", str(folder), "--out", str(tmp_path)]
    with pytest.raises(KeyboardInterrupt):
        insta.main(argv, FakeExtractor(limit=2))
    second = FakeExtractor()
    insta.main(argv, second)
    assert second.calls == 1
    insta.main(["--dir", str(folder), "--out", str(tmp_path / "whole")], FakeExtractor())
    with h5py.File(tmp_path / "insta_train_db.h5") as a, h5py.File(tmp_path / "whole/insta_train_db.h5") as b:
        assert a.keys() == b.keys()
        for key in a:
            assert np.array_equal(a[key][()], b[key][()])


def test_records_of_a_file(tmp_path):
    path = tmp_path / "x.tfrecord"
    numbers = np.array([0, 1, 300, 2**40])
    unpacked = field(1, b"".join(varint(1 << 3 | 5) + struct.pack("<f", v) for v in (1.5, -2)))
    loose = field(1, field(1, field(1, b"f") + field(2, field(2, unpacked[2:]))))
    path.write_bytes(frame(example({"a": numbers, "b": [b"", b"xyz"]})) + frame(b"") + frame(loose))
    first, second, third = list_records(path)
    content = first.read()
    np.testing.assert_array_equal(content["a"], numbers)
    assert content["b"] == [b"", b"xyz"]
    assert second.read() == {}
    np.testing.assert_array_equal(third.read()["f"], np.array([1.5, -2], np.float32))


def test_damaged_tfrecords(tmp_path):
    path = tmp_path / "train" / "x.tfrecord"
    path.parent.mkdir()
    whole = frame(example({"a": np.array([1.0])})) * 2
    size = len(whole) // 2
    damage = {
        "record 1 is cut off": whole[:-3],
        f"no TFRecord at byte {size}": whole[: size + 5],
        "no TFRecord at byte 0": b"PK\x03\x04" * 20,
        "record 0 is damaged .its checksum differs": whole[:15] + b"\xff" + whole[16:],
        "no tf.train.Example": frame(b"\x0a\x7f"),
        "no clip of InstaVariety": whole,
    }
    for message, content in damage.items():
        path.write_bytes(content)
        with pytest.raises(UserError, match=message):
            insta.main(["--dir", str(tmp_path), "--out", str(tmp_path / message)], FakeExtractor())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 256}, "256 x 256, expected 224 x 224"),
        ({"image/encoded": [b"\xff\xd8\xff"] * 2}, "image 0 of record 0 .* is damaged"),
        ({"image/encoded": [b""]}, "has 1 images, expected meta/N = 2"),
        ({"image/xys": np.zeros(3, np.float32)}, "no clip of InstaVariety"),
    ],
)
def test_clips_that_do_not_fit(tmp_path, change, message):
    (tmp_path / "train").mkdir()
    content = example(insta_features(np.random.default_rng(0), 2, **change))
    (tmp_path / "train" / "x.tfrecord").write_bytes(frame(content))
    with pytest.raises(UserError, match=message):
        insta.main(["--dir", str(tmp_path), "--out", str(tmp_path)], FakeExtractor())


# --------------------------------------------------------------------------------
# PennAction


def test_penn_action(tmp_path):
    labels = write_penn(tmp_path / "raw", [10, 1, 66])
    labels[1]["visibility"][:] = 1
    penn_action.main(["--dir", str(tmp_path / "raw"), "--out", str(tmp_path)], FakeExtractor())
    database = read(tmp_path / "pennaction_train_scale12_db.pt")
    np.testing.assert_array_equal(database["vid_name"], np.repeat(["0001", "0002", "0003"], [10, 1, 66]))
    assert database["joints2D"].shape == (77, 14, 3) and database["joints2D"].dtype == np.float64
    row = 0
    for number, label in enumerate(labels, start=1):
        for k in range(len(label["x"])):
            x, y = label["x"][k], label["y"][k]
            for j, joint in enumerate(JOINT_NAMES["common"]):
                stored = database["joints2D"][row, j]
                if joint == "neck":
                    assert not stored.any()
                else:
                    i = JOINT_NAMES["pennaction"].index(joint)
                    if number != 2:
                        assert stored[2] == label["visibility"][k, i]
                    np.testing.assert_array_equal(stored[:2], [x[i], y[i]])
            good = [i for i in range(13) if x[i] != 0 and y[i] != 0]
            assert len(good) == 12
            left, right = min(x[i] for i in good), max(x[i] for i in good)
            top, bottom = min(y[i] for i in good), max(y[i] for i in good)
            side = max(right - left, bottom - top)
            box = [(left + right) / 2, (top + bottom) / 2, side, side]
            np.testing.assert_allclose(database["bbox"][row], box)
            assert database["img_name"][row].endswith(f"frames/{number:04d}/{k + 1:06d}.jpg")
            row += 1
    expected = naive_features(database["img_name"], database["bbox"], 1.2)
    np.testing.assert_allclose(database["features"], expected, atol=0.5)
    assert (
        database_path(get_spec("PennAction"), "train", get_cfg_defaults()).name
        == "pennaction_train_scale12_db.pt"
    )


def test_penn_frames_without_joints_take_their_neighbours_boxes(tmp_path):
    import scipy.io

    label = write_penn(tmp_path / "raw", [5])[0]
    label["x"][[0, 2]] = 0
    scipy.io.savemat(tmp_path / "raw" / "labels" / "0001.mat", label)
    penn_action.main(["--dir", str(tmp_path / "raw"), "--out", str(tmp_path)], FakeExtractor())
    boxes = read(tmp_path / "pennaction_train_scale12_db.pt")["bbox"]
    np.testing.assert_allclose(boxes[0], boxes[1])
    np.testing.assert_allclose(boxes[2], (boxes[1] + boxes[3]) / 2)


def test_penn_with_fewer_frames_than_labels_warns(tmp_path, caplog):
    write_penn(tmp_path / "raw", [5])
    (tmp_path / "raw" / "frames" / "0001" / "000005.jpg").unlink()
    penn_action.main(["--dir", str(tmp_path / "raw"), "--out", str(tmp_path)], FakeExtractor())
    assert "4 images" in caplog.text and "5 annotated" in caplog.text
    assert len(read(tmp_path / "pennaction_train_scale12_db.pt")["bbox"]) == 4


def test_penn_layout(tmp_path):
    argv = ["--dir", str(tmp_path / "raw"), "--out", str(tmp_path)]
    (tmp_path / "raw").mkdir()
    with pytest.raises(UserError, match="raw/labels does not exist: expected PennAction's labels"):
        penn_action.main(argv, FakeExtractor())
    write_penn(tmp_path / "raw", [3])
    label = tmp_path / "raw" / "labels" / "0001.mat"
    whole = label.read_bytes()
    for content, message in ((b"x", "no readable MATLAB file"), (whole[: len(whole) // 2], "0001.mat")):
        label.write_bytes(content)
        with pytest.raises(UserError, match=message):
            penn_action.main(argv, FakeExtractor())


# --------------------------------------------------------------------------------
# PoseTrack

POSETRACK_NAMES = JOINT_NAMES["posetrack_original"]


def write_posetrack(
    folder: Path, name: str, tracks: dict[int, list[int]], frames: int = 14, first_id: int = 0, **change: Any
) -> dict[str, Any]:
    """One annotation file: ``tracks`` says in which frames each person is. Frame 12 is not labelled."""
    rng = np.random.default_rng(len(name) + frames)
    order = list(rng.permutation(17))  # the order of names in a file is the file's own
    images = []
    for k in range(frames):
        images.append(
            {
                "file_name": f"images/train/{name}/{k:06d}.jpg",
                "is_labeled": k != 12,
                "frame_id": first_id + k,
                "id": first_id + k,
            }
        )
    write_images([folder / image["file_name"] for image in images], seed=frames)
    annotations = []
    for track, places in tracks.items():
        for k in places:
            x, y = rng.uniform(0, 30, 2)
            width, height = rng.uniform(5, 20, 2)
            points = np.column_stack([rng.uniform(1, 40, (17, 2)), np.ones(17)])
            points[rng.integers(17)] = 0
            annotations.append(
                {
                    "image_id": first_id + k,
                    "track_id": track,
                    "bbox": [x, y, width, height],
                    "keypoints": points.ravel().tolist(),
                }
            )
    content = {
        "images": images,
        "annotations": annotations,
        "categories": [{"name": "person", "keypoints": [POSETRACK_NAMES[i] for i in order]}],
        **change,
    }
    path = folder / "posetrack_data" / "annotations" / "train" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return content


def test_posetrack(tmp_path):
    folder = tmp_path / "raw"
    gap = [0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 13]
    second = write_posetrack(folder, "000002_bonn_train", {0: list(range(12)), 3: list(range(7)), 1: gap})
    second["annotations"][2]["bbox"] = [3, 4, 0, 5]  # frame 2 of person 0 has no box
    for annotation in second["annotations"]:
        if annotation["track_id"] == 0 and annotation["image_id"] == 11:
            annotation["keypoints"] = [0] * 51  # and frame 11 no keypoint
    path = folder / "posetrack_data" / "annotations" / "train" / "000002_bonn_train.json"
    path.write_text(json.dumps(second))
    first = write_posetrack(folder, "000001_bonn_train", {2: list(range(3, 12))}, first_id=100)
    write_posetrack(folder, "021133_mpii_train", {0: list(range(12))})
    argv = ["--dir", str(folder), "--out", str(tmp_path)]
    posetrack.main(argv, FakeExtractor())
    database = read(tmp_path / "posetrack_train_db.pt")

    expected = []  # (video, annotation, image)
    for content, track, places, name in (
        (first, 2, range(3, 12), "000001_bonn_train_2"),
        (second, 0, range(3, 11), "000002_bonn_train_0"),  # frames 0 and 1 are too few
        (second, 1, range(8), "000002_bonn_train_1"),  # then frame 8 is missing, and what follows too short
    ):
        for annotation in content["annotations"]:
            place = annotation["image_id"] - content["images"][0]["frame_id"]
            if annotation["track_id"] == track and place in places:
                expected.append(
                    (name, annotation, content["images"][place], content["categories"][0]["keypoints"])
                )
    check_posetrack(database, expected, folder)
    features = naive_features(database["img_name"], database["bbox"], 1.2)
    np.testing.assert_allclose(database["features"], features, atol=0.5)
    open_database(tmp_path / "posetrack_train_db.pt", required_fields(get_spec("PoseTrack")))

    posetrack.main([*argv[:3], str(tmp_path / "joined"), "--join-gaps"], FakeExtractor())
    names = read(tmp_path / "joined" / "posetrack_train_db.pt")["vid_name"]
    counts = dict(zip(*np.unique(names, return_counts=True)))
    assert counts == {"000001_bonn_train_2": 9, "000002_bonn_train_0": 10, "000002_bonn_train_1": 12}


def check_posetrack(database, expected, folder):
    assert len(database["vid_name"]) == len(expected)
    for row, (name, annotation, image, names) in enumerate(expected):
        assert database["vid_name"][row] == name
        assert Path(database["img_name"][row]) == folder / image["file_name"]
        x, y, w, h = annotation["bbox"]
        box = [x + w / 2, y + h / 2, 0.8 * max(w, h), 0.8 * max(w, h)]
        np.testing.assert_allclose(database["bbox"][row], box)
        points = np.array(annotation["keypoints"]).reshape(17, 3)
        for j, joint in enumerate(JOINT_NAMES["spin"]):
            stored = database["joints2D"][row, j]
            if joint not in JOINT_NAMES["posetrack"]:
                assert not stored.any()
                continue
            px, py, _ = points[names.index(POSETRACK_NAMES[JOINT_NAMES["posetrack"].index(joint)])]
            np.testing.assert_allclose(stored, [px, py, float(px != 0 or py != 0)])


def test_posetrack_splits_long_tracks_at_gaps(tmp_path):
    write_posetrack(tmp_path, "a", {0: [*range(9), *range(20, 30)], 1: [*range(8, 18)]}, frames=30)
    posetrack.main(["--dir", str(tmp_path), "--out", str(tmp_path)], FakeExtractor())
    names = read(tmp_path / "posetrack_train_db.pt")["vid_name"]
    # frame 12 has no labels at all, so person 1 (frames 8-11, 13-17) is seen in each labelled frame
    np.testing.assert_array_equal(names, np.repeat(["a_0", "a_0_seg1", "a_1"], [9, 10, 9]))


def test_posetrack_messages(tmp_path):
    argv = ["--dir", str(tmp_path), "--out", str(tmp_path)]
    with pytest.raises(UserError, match="expected PoseTrack's annotations"):
        posetrack.main(argv, FakeExtractor())
    write_posetrack(tmp_path, "a", {0: list(range(12))}, categories=[{"keypoints": ["nose"]}])
    with pytest.raises(UserError, match=r"a\.json is no annotation file of PoseTrack 2018"):
        posetrack.main(argv, FakeExtractor())
    (tmp_path / "posetrack_data/annotations/train/a.json").write_text("{")
    with pytest.raises(UserError, match=r"a\.json is no readable JSON file"):
        posetrack.main(argv, FakeExtractor())
    write_posetrack(tmp_path, "a", {0: list(range(7))})
    with pytest.raises(UserError, match="no video has a usable frame"):
        posetrack.main(argv, FakeExtractor())


# --------------------------------------------------------------------------------
# AMASS


def write_motion(path: Path, frames: int, rate: float = 120.0, **change: Any) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(frames)
    content = {
        "trans": rng.normal(size=(frames, 3)),
        "gender": np.array("male"),
        "mocap_framerate": np.array(rate),
        "betas": rng.normal(size=16),
        "dmpls": rng.normal(size=(frames, 8)),
        "poses": rng.normal(size=(frames, 156)),
        **change,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **content)
    return content


def test_amass(tmp_path, caplog):
    folder = tmp_path / "raw"
    cmu = write_motion(folder / "CMU" / "01" / "01_01 (2)_poses.npz", 130)
    accad = write_motion(folder / "ACCAD" / "Female1" / "run_poses.npz", 61, rate=60.0)
    write_motion(folder / "ACCAD" / "Female1" / "short_poses.npz", 59)
    write_motion(folder / "ACCAD" / "Female1" / "shape.npz", 100)
    write_motion(folder / "Other" / "x" / "y.npz", 100)
    argv = ["--dir", str(folder), "--out", str(tmp_path)]
    amass.main(argv)
    database = read(tmp_path / "amass_db.pt")
    assert set(database) == {"theta", "vid_name", "fps"} and database["theta"].dtype == np.float64
    assert (database["fps"] == 30).all()  # 60 / 2 and 120 / 4
    expected, names = [], []
    for name, motion, step in (("ACCAD_Female1_run_poses", accad, 2), ("CMU_01_01_01 (2)_poses", cmu, 4)):
        for k in range(0, len(motion["poses"]), step):
            joints = [motion["poses"][k, 3 * j : 3 * j + 3] for j in [*range(23), 37]]
            expected.append(np.concatenate([*joints, motion["betas"][:10]]))
            names.append(name)
    np.testing.assert_array_equal(database["theta"], expected)
    np.testing.assert_array_equal(database["vid_name"], names)
    assert "lacks BMLrub, EKUT" in caplog.text
    assert "ignored, as they are not in the original's list: Other" in caplog.text

    amass.main([*argv[:3], str(tmp_path / "native"), "--fps", "0"])
    native = read(tmp_path / "native" / "amass_db.pt")["fps"]
    assert native.tolist() == [60] * 61 + [120] * 130


def test_amass_of_every_release(tmp_path):
    for name in (*amass.DATASETS, *amass.DATASETS.values()):
        newer = (
            {"mocap_framerate": None, "mocap_frame_rate": np.array(120.0)} if name in amass.DATASETS else {}
        )
        motion = write_motion(tmp_path / name / "s" / "a_poses.npz", 80)
        motion = {key: value for key, value in {**motion, **newer}.items() if value is not None}
        np.savez(tmp_path / name / "s" / "a_poses.npz", **motion)
        write_motion(tmp_path / name / "s" / "neutral_stagei.npz", 70)
    amass.main(["--dir", str(tmp_path), "--out", str(tmp_path)])
    names = read(tmp_path / "amass_db.pt")["vid_name"]
    folders = {*amass.DATASETS, *amass.DATASETS.values()}
    assert set(names) == {f"{folder}_s_a_poses" for folder in folders} and len(names) == 20 * len(folders)


def test_amass_messages(tmp_path):
    argv = ["--dir", str(tmp_path), "--out", str(tmp_path)]
    with pytest.raises(UserError, match=r"holds no \{dataset\}/\{subject\}/\{action\}"):
        amass.main(argv)
    for change, message in (
        ({"poses": np.zeros((70, 72))}, r"a\.npz is no SMPL\+H motion"),
        ({"poses": np.zeros((70, 165))}, r"a\.npz is a motion of SMPL-X"),
        ({"mocap_framerate": np.array(np.nan)}, r"a\.npz is no SMPL\+H motion"),
        ({"mocap_framerate": np.zeros(2)}, r"a\.npz is no SMPL\+H motion"),
        ({"poses": np.array([{}], object)}, r"SMPL\+H motion .*a\.npz cannot be read"),
    ):
        write_motion(tmp_path / "CMU" / "01" / "a.npz", 70, **change)
        with pytest.raises(UserError, match=message):
            amass.main(argv)
    (tmp_path / "CMU" / "01" / "a.npz").write_bytes(b"PK")
    with pytest.raises(UserError, match=r"SMPL\+H motion .*a\.npz cannot be read"):
        amass.main(argv)
    with pytest.raises(UserError, match="--fps -1"):
        amass.main([*argv, "--fps", "-1"])


def test_same_database_wherever_the_raw_data_lies(tmp_path):
    for where in ("a", "b/c"):
        write_penn(tmp_path / where, [4])
        penn_action.main(["--dir", str(tmp_path / where), "--out", str(tmp_path / where)], FakeExtractor())
    one, two = (read(tmp_path / where / "pennaction_train_scale12_db.pt") for where in ("a", "b/c"))
    del one["img_name"], two["img_name"]
    assert_same(one, two)

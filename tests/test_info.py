"""Opening and describing databases: what is checked, and that big files are not loaded."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import h5py
import joblib
import numpy as np
import pytest

from lib.dataset import info
from lib.dataset.database import open_database, read_fields
from lib.dataset.info import describe, list_videos
from lib.utils.errors import UserError
from lib.utils.files import dump_joblib

FIELDS = ["vid_name", "features", "pose", "shape", "bbox", "joints3D", "joints2D"]
MB = 1 << 20


def content(n: int = 30, **changes: Any) -> dict[str, Any]:
    fields = {
        "vid_name": np.repeat(["a", "bc"], [n // 3, n - n // 3]),
        "features": np.ones((n, 16), np.float32),
        "pose": np.zeros((n, 72), np.float32),
        "shape": np.zeros((n, 10), np.float32),
        "bbox": np.zeros((n, 4)),
        "joints3D": np.zeros((n, 49, 3), np.float32),
        "joints2D": np.zeros((n, 14, 3)),
    }
    return {**fields, **changes}


def write(path: Path, fields: dict[str, Any]) -> Path:
    if path.suffix == ".h5":
        with h5py.File(path, "w") as file:
            for key, values in fields.items():
                array = np.asarray(values)
                if array.ndim == 0:
                    file[key] = array.item()
                else:
                    file[key] = array.astype("S") if array.dtype.kind == "U" else array
    else:
        dump_joblib(fields, path)
    return path


@pytest.mark.parametrize("suffix", [".pt", ".h5"])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pose": np.zeros((30, 24, 3))}, r"rows of pose have shape \(24, 3\), expected \(72,\)"),
        ({"bbox": np.zeros((30, 3))}, r"rows of bbox"),
        ({"joints3D": np.zeros((30, 17, 3))}, r"expected \(14, 3\) or \(25, 3\) or \(49, 3\)"),
        ({"vid_name": np.array([["a", "b"]] * 30)}, r"rows of vid_name have shape \(2,\)"),
        ({"shape": np.zeros((29, 10))}, "fields differ in length .*'shape': 29"),
        ({"features": np.array(3.0)}, "features is a single value"),
        ({"features": np.zeros(30)}, r"features have shape \(30,\)"),
        ({"features": np.array([["x"]] * 30, "S1")}, r"type \|S1"),
    ],
)
def test_fields_that_do_not_fit_are_named(
    tmp_path: Path, suffix: str, changes: dict[str, Any], message: str
) -> None:
    path = write(tmp_path / f"bad_db{suffix}", content(**changes))
    with pytest.raises(UserError, match=message) as caught:
        open_database(path, FIELDS)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("suffix", [".pt", ".h5"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_feature_that_is_not_finite_is_found_in_any_block(
    tmp_path: Path, suffix: str, value: float
) -> None:
    features = np.ones((5000, 2048), np.float32)  # three blocks
    path = write(tmp_path / f"good{suffix}", {"features": features})
    assert open_database(path, ["features"])["features"].shape == (5000, 2048)
    features[4321, 7] = value
    path = write(tmp_path / f"bad{suffix}", {"features": features})
    with pytest.raises(UserError, match=r"features of row 4321 .*are not all finite"):
        open_database(path, ["features"])


def test_huge_finite_features_are_accepted(tmp_path: Path) -> None:
    largest = np.finfo(np.float32).max
    path = write(tmp_path / "a_db.pt", content(features=np.full((30, 16), largest, np.float32)))
    assert open_database(path, FIELDS)["features"][0, 0] == largest


@pytest.mark.parametrize("suffix", [".pt", ".h5"])
def test_other_fields_and_scalars_are_tolerated(tmp_path: Path, suffix: str) -> None:
    more = {"fps": np.array(25.0), "extractor": np.array("spin"), "crop_scale": np.array(1.2)}
    fields = content(**more, odd=np.zeros((3, 3)), gender=np.array(["m"] * 30))
    if suffix == ".h5":
        fields |= {"extractor": "spin", "vid_name": np.array(["a"] * 30)}
    database = open_database(write(tmp_path / f"x{suffix}", fields), FIELDS, ["fps", "absent"])
    assert database.keys() == {*FIELDS, "fps"}
    assert float(np.asarray(database["fps"])) == 25


def test_what_is_no_array_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "x.pt", content(pose={"a": 1}))
    with pytest.raises(UserError, match="pose is a dict, expected an array"):
        open_database(path, FIELDS)


def peak(action: Any) -> int:
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_big_compressed_files_are_described_without_loading_them(tmp_path: Path) -> None:
    path = tmp_path / "small.pt"
    names, features = np.array(["a"] * 40_000), np.ones((40_000, 512), np.float32)
    joblib.dump({"features": features, "fps": np.array(25.0), "vid_name": names}, path, compress=1)
    assert path.stat().st_size < MB
    assert peak(lambda: describe(path)) < 10 * MB
    assert "features  float32   (40000, 512)" in describe(path)
    assert "fps       float64   = 25.0" in describe(path)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(UserError, match=r"small\.pt"):
        describe(path)


@pytest.mark.parametrize("suffix", [".pt", ".h5"])
def test_big_files_are_not_loaded(tmp_path: Path, suffix: str) -> None:
    fields = {"vid_name": np.repeat(["a", "b"], 20_000), "features": np.ones((40_000, 512), np.float32)}
    path = write(tmp_path / f"big{suffix}", fields)
    assert path.stat().st_size > 78 * MB
    assert peak(lambda: open_database(path, ["vid_name", "features"])) < 40 * MB
    assert peak(lambda: describe(path)) < 5 * MB


def test_description_names_fields_videos_and_lengths(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = np.repeat(["a", "bc", "a"], [4, 20, 1])
    extra = {"fps": np.array(25.0), "extractor": np.array("x" * 50)}
    path = write(tmp_path / "some_db.pt", {**content(25, vid_name=names), **extra})
    amass = write(
        tmp_path / "amass_db.pt", {"theta": np.zeros((9, 82)), "vid_name": np.array(["m"] * 9, "U40")}
    )
    info.main([str(path), str(amass)])
    text = capsys.readouterr().out
    for expected in (
        r"MB, joblib",
        "25 frames of 2 videos",
        "lengths: 5 (a) to 20 (bc), median 12.5, 1 under 16",
        "scattered: 2 videos lie in 3 pieces",
        "features   float32   (25, 16)",
        "fps        float64   = 25.0",
        "extractor  <U50      = " + "x" * 40 + "…",
        "9 frames of 1 videos",
        "theta     float64   (9, 82)",
    ):
        assert expected in text


def test_description_of_hdf5_and_compressed_files(tmp_path: Path) -> None:
    text = describe(write(tmp_path / "a.h5", {**content(), "extractor": "spin"}))
    assert "HDF5" in text
    assert "lengths: 10 (a) to 20 (bc)" in text
    assert "extractor  object    = spin" in text
    joblib.dump(content(), tmp_path / "b.pt", compress=3)
    assert "compressed" in describe(tmp_path / "b.pt")
    uneven = write(tmp_path / "c.pt", {"theta": np.zeros((3, 82)), "x": np.zeros(2)})
    assert "differ in length" in describe(uneven)
    assert "3 rows, without vid_name" in describe(uneven)
    lists = write(tmp_path / "d.pt", {"vid_name": ["a", "a", "b"], "x": np.zeros(3)})
    assert "3 frames of 2 videos" in describe(lists)


def test_videos_are_counted_across_blocks() -> None:
    rng = np.random.default_rng(0)
    names = np.repeat(np.array([f"video_{i:04d}" + "x" * 4000 for i in range(50)]), rng.integers(1, 90, 50))
    assert names.nbytes > 1.9 * (1 << 24)
    videos = list_videos(names)
    assert videos.lengths == {str(name): int((names == name).sum()) for name in np.unique(names)}
    assert videos.runs == 50


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.write_bytes(b"nothing of use"), "damaged"),
        (lambda path: dump_joblib([1, 2], path), "holds a list, expected a dict"),
        (lambda path: dump_joblib({"a": 1}, path), "holds no arrays"),
        (lambda path: joblib.dump({"a": Path("x")}, path), "refused"),
        (lambda path: path.write_bytes(path.with_name("whole").read_bytes()[:-100]), "some_db.pt"),
    ],
)
def test_bad_files_are_user_errors(tmp_path: Path, make: Any, message: str) -> None:
    dump_joblib(content(), tmp_path / "whole")
    make(tmp_path / "some_db.pt")
    with pytest.raises(UserError, match=message):
        describe(tmp_path / "some_db.pt")


def test_bad_hdf5_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "a.h5").write_text("no")
    with pytest.raises(UserError, match=r"a.h5 is not a readable HDF5"):
        read_fields(tmp_path / "a.h5")

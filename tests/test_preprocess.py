"""What all preprocessing shares: parts and resuming, bounded memory, files, features, messages."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from lib.data_utils import penn_action
from lib.data_utils.clips import Clip, Video, image_clip
from lib.data_utils.command import Job, make_parser
from lib.data_utils.features import FeatureStep
from lib.data_utils.preprocess import build_database
from lib.dataset.database import open_database
from lib.models.body import load_body
from lib.models.hmr import HMR
from lib.utils.crops import crop_image, normalise_crop
from lib.utils.errors import UserError
from lib.utils.files import load_joblib, save_checkpoint
from lib.utils.images import read_image
from tests.golden_tools import fill_by_recipe
from tests.raw_tools import (
    FakeExtractor,
    assert_same,
    naive_features,
    read,
    write_images,
    write_penn,
    write_voc,
)

REPOSITORY = Path(__file__).resolve().parents[1]
SETTINGS = {"crop_scale": 1.2, "dir": "raw"}


def noise_video(name: str, frames: int, log: list[str] | None = None) -> Video:
    def load() -> Clip:
        if log is not None:
            log.append(name)
        rng = np.random.default_rng(frames)
        crops = rng.integers(0, 256, (frames, 224, 224, 3), dtype=np.uint8)
        rows = {
            "vid_name": np.full(frames, name),
            "x": rng.normal(size=(frames, 2, 3)),
            "k": np.arange(frames),
        }
        return Clip(rows if frames else {}, lambda row: crops[row])

    return Video(name, load)


VIDEOS = [("a", 5), ("a longer name/with (odd) signs", 70), ("empty", 0), ("b", 1), ("c", 9)]


@pytest.fixture(scope="module")
def voc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("voc")
    write_voc(folder)
    return folder


def build(path: Path, extractor: FakeExtractor, log: list[str] | None = None, **step: object) -> None:
    videos = [noise_video(name, frames, log) for name, frames in VIDEOS]
    build_database(path, videos, FeatureStep(extractor, **step), SETTINGS)  # type: ignore[arg-type]


def test_database_holds_the_videos_in_order(tmp_path):
    path = tmp_path / "out" / "x_db.pt"
    build(path, FakeExtractor())
    database = read(path)
    clips = [(name, noise_video(name, n).load()) for name, n in VIDEOS if n]
    np.testing.assert_array_equal(database["vid_name"], np.repeat([n for n, _ in clips], [5, 70, 1, 9]))
    for key in ("x", "k"):
        np.testing.assert_array_equal(database[key], np.concatenate([clip.rows[key] for _, clip in clips]))
    crops = [clip.crop(row) for _, clip in clips for row in range(len(clip))]
    np.testing.assert_array_equal(database["features"], FakeExtractor().features(np.stack(crops)))
    assert database["features"].dtype == np.float32
    assert (database["crop_scale"], database["extractor"]) == (1.2, "fake")
    assert database["fingerprint"] == "of a fake"
    assert [p.name for p in path.parent.iterdir()] == ["x_db.pt"]
    # the project's reader maps it, and does not mind the scalar fields
    opened = open_database(path, ["vid_name", "features", "x"])
    assert len(opened["features"]) == 85
    assert isinstance(load_joblib(path)["features"], np.memmap)


@pytest.mark.parametrize("stop", range(5))
def test_a_stopped_run_goes_on(tmp_path, stop):
    build(tmp_path / "whole_db.pt", FakeExtractor())
    path, first, second = tmp_path / "x_db.pt", [], []
    with pytest.raises(KeyboardInterrupt):
        build(path, FakeExtractor(limit=stop), first)
    assert not path.exists()
    build(path, FakeExtractor(), second)
    assert_same(read(path), read(tmp_path / "whole_db.pt"))
    assert path.read_bytes() == (tmp_path / "whole_db.pt").read_bytes()
    # only the video that was not finished is read again
    assert [*first[:-1], *second] == [name for name, _ in VIDEOS]
    assert not list(tmp_path.glob("*.parts"))


def test_occlusion_does_not_depend_on_where_a_run_was_stopped(tmp_path, voc):
    build(tmp_path / "whole_db.pt", FakeExtractor(), occluders=voc)
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "x_db.pt", FakeExtractor(limit=2), occluders=voc)
    build(tmp_path / "x_db.pt", FakeExtractor(), occluders=voc, batch_size=3, workers=1)
    occluded = read(tmp_path / "x_db.pt")
    assert_same(occluded, read(tmp_path / "whole_db.pt"))
    build(tmp_path / "clean_db.pt", FakeExtractor())
    build(tmp_path / "seed_db.pt", FakeExtractor(), occluders=voc, seed=2)
    for other in ("clean_db.pt", "seed_db.pt"):
        assert (read(tmp_path / other)["features"] != occluded["features"]).any(axis=1).mean() > 0.9


def test_each_video_has_its_own_occlusion(voc):
    """Equal crops, by video and by frame within a video, are occluded differently."""
    clip = Clip({"vid_name": np.full(6, "v")}, lambda row: np.full((224, 224, 3), 90, np.uint8))
    step = FeatureStep(FakeExtractor(), occluders=voc)
    features = np.concatenate([step("a", clip), step("b", clip)])
    assert len(np.unique(features, axis=0)) == 12
    np.testing.assert_array_equal(step("a", clip), features[:6])


def test_a_finished_file_is_left_alone(tmp_path, caplog):
    path = tmp_path / "x_db.pt"
    path.write_bytes(b"mine")
    log: list[str] = []
    with caplog.at_level("INFO"):
        build(path, FakeExtractor(), log)
    assert path.read_bytes() == b"mine" and not log
    assert "delete it" in caplog.text


def test_the_folder_for_output_cannot_be_written(tmp_path):
    write_penn(tmp_path / "raw", [2])
    (tmp_path / "file").write_text("")
    argv = ["--dir", str(tmp_path / "raw"), "--out", str(tmp_path / "file")]
    with pytest.raises(UserError, match=r"cannot write .*file/pennaction_train_scale12_db.pt"):
        penn_action.main(argv, FakeExtractor())


def test_parts_of_other_settings_are_refused(tmp_path):
    path = tmp_path / "x_db.pt"
    with pytest.raises(KeyboardInterrupt):
        build(path, FakeExtractor(limit=2))
    with pytest.raises(UserError, match=r"x_db.pt.parts.*crop_scale was 1.2, now 1.3"):
        build_database(
            path, [noise_video("a", 5)], FeatureStep(FakeExtractor()), {**SETTINGS, "crop_scale": 1.3}
        )


@pytest.mark.parametrize("finished", [False, True])
def test_two_runs_do_not_share_parts(tmp_path, finished):
    """The second is refused, also while the first removes its parts; one that was killed holds nothing."""
    path = tmp_path / "x_db.pt"
    code = (
        "import sys; from pathlib import Path; from lib.utils.files import only_process\n"
        "with only_process(Path(sys.argv[1])): print(flush=True); input()"
    )
    command = [sys.executable, "-c", code, f"{path}.parts"]
    first = subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert first.stdout.readline()
    if finished:
        path.touch()
    with pytest.raises(UserError, match=r"another process is at work on .*x_db\.pt"):
        build(path, FakeExtractor())
    first.kill()
    first.communicate()
    build(path, FakeExtractor())
    assert [file.name for file in tmp_path.iterdir()] == ["x_db.pt"]
    assert finished == (not path.stat().st_size)


def test_a_damaged_part_is_named(tmp_path):
    path = tmp_path / "x_db.pt"
    with pytest.raises(KeyboardInterrupt):
        build(path, FakeExtractor(limit=3))
    part = tmp_path / "x_db.pt.parts" / "a.part"
    part.write_bytes(part.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"a\.part"):
        build(path, FakeExtractor())
    assert not path.exists()


def test_no_usable_frame_and_equal_names(tmp_path):
    with pytest.raises(UserError, match="no video has a usable frame"):
        build_database(tmp_path / "x_db.pt", [noise_video("a", 0)], None, {})
    with pytest.raises(UserError, match="'a'"):
        build_database(tmp_path / "y_db.pt", [noise_video("a", 1), noise_video("a", 2)], None, {})


def test_fields_of_a_clip_are_aligned():
    with pytest.raises(ValueError, match="differ in length"):
        Clip({"a": np.zeros(3), "b": np.zeros(4)})


def test_memory_is_that_of_one_video(tmp_path):
    """60 videos of 2 MB: the database is 120 MB, and the most that is held is a few videos."""

    def load(k: int) -> Clip:
        return Clip({"vid_name": np.full(1000, f"v{k}".encode()), "x": np.full((1000, 250), k, float)})

    videos = [Video(f"v{k}", partial(load, k)) for k in range(60)]
    for name in ("big_db.pt", "big_db.h5"):
        tracemalloc.start()
        build_database(tmp_path / name, videos, None, {})
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert (tmp_path / name).stat().st_size > 120e6
        assert peak < 40e6, f"{peak / 1e6:.0f} MB"  # joblib writes blocks of 16 MB
    x = load_joblib(tmp_path / "big_db.pt")["x"]
    np.testing.assert_array_equal(x[:, 7], np.repeat(np.arange(60.0), 1000))
    with h5py.File(tmp_path / "big_db.h5") as file:
        np.testing.assert_array_equal(file["x"][:, 7], np.repeat(np.arange(60.0), 1000))


def test_memory_of_features_is_bounded(tmp_path):
    """A clip of 1500 crops (226 MB): only two batches are held."""
    rows = {"vid_name": np.full(1500, "v")}
    clip = Clip(rows, lambda row: np.full((224, 224, 3), row % 256, np.uint8))
    tracemalloc.start()
    features = FeatureStep(FakeExtractor(), batch_size=16)("v", clip)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(features, np.repeat(np.arange(1500) % 256, 12).reshape(1500, 12))
    assert peak < 30e6, f"{peak / 1e6:.0f} MB"


# --------------------------------------------------------------------------------
# Names, messages, devices


def job(tmp_path: Path, *options: str) -> Job:
    parser = make_parser("text", "raw", sets=["train"], scale=1.2, box_factor=1.1)
    return Job(parser, ["--dir", str(tmp_path), "--out", "out", *options], FakeExtractor())


def test_file_names_tell_the_options(tmp_path):
    assert job(tmp_path).database("3dpw", "train", "") == Path("out/3dpw_train_db.pt")
    changed = job(tmp_path, "--scale", "1.0", "--box-factor", "1.05", "--occlude", "voc")
    assert changed.database("3dpw", "train").name == "3dpw_train_scale1_box105_occ_db.pt"
    assert changed.database("mpii3d", "train", "scale1").name == "mpii3d_train_scale1_box105_occ_db.pt"


@pytest.mark.parametrize(
    "options", [["--scale", "0"], ["--box-factor", "nan"], ["--workers", "0"], ["--set", "x"]]
)
def test_nonsense_options(tmp_path, options, capsys):
    with pytest.raises(SystemExit):
        job(tmp_path, *options)
    assert options[0] in capsys.readouterr().err


def test_missing_raw_folder_and_device(tmp_path):
    with pytest.raises(UserError, match=r"--dir .*nowhere does not exist"):
        job(tmp_path, "--dir", str(tmp_path / "nowhere"))
    for name in ("cuda:97", "banana"):
        with pytest.raises(UserError, match=f"device .?{name}"):
            _ = FeatureStep(device=name).extractor


def test_missing_spin_checkpoint(tmp_path, base_data):
    with pytest.raises(UserError, match="spin_model_checkpoint"):
        _ = FeatureStep(base_data=base_data).extractor


@pytest.mark.parametrize("content", [b"", b"no image", None])
def test_damaged_images(tmp_path, content):
    path = tmp_path / "i.jpg"
    write_images([path], size=(640, 480))
    whole = path.read_bytes()
    read_image(path)
    path.write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(UserError, match=r"i\.jpg is damaged"):
        read_image(path)
    with pytest.raises(UserError, match=r"j\.jpg does not exist"):
        read_image(tmp_path / "j.jpg")


def test_a_missing_image_is_named_and_the_rest_is_kept(tmp_path):
    write_penn(tmp_path / "raw", [10, 6])
    image = sorted((tmp_path / "raw" / "frames" / "0002").iterdir())[3]
    content = image.read_bytes()
    image.write_bytes(content[:40])
    argv = ["--dir", str(tmp_path / "raw"), "--out", str(tmp_path)]
    with pytest.raises(UserError, match=r"frames/0002/000004\.jpg"):
        penn_action.main(argv, FakeExtractor())
    image.write_bytes(content)
    again = FakeExtractor()
    penn_action.main(argv, again)
    assert again.calls == 1
    database = read(tmp_path / "pennaction_train_scale12_db.pt")
    np.testing.assert_allclose(
        database["features"], naive_features(database["img_name"], database["bbox"], 1.2), atol=0.5
    )


def test_reduced_jpegs_give_nearly_the_same_crops(tmp_path):
    """A box of 1000 px is read at a quarter of the size, one of 300 px as it is, and a PNG always so."""
    path = tmp_path / "i.jpg"
    write_images([path, tmp_path / "i.png"], size=(1501, 1203))
    names = np.array([str(path), str(path), str(tmp_path / "i.png")])
    boxes = np.array([[740.0, 600, 1000, 1000], [700.0, 500, 300, 300], [740.0, 600, 1000, 1000]])
    rows = {"img_name": names, "bbox": boxes}
    whole, reduced = image_clip(rows, 1.0), image_clip(rows, 1.0, reduced_jpeg=True)
    exact, rough = (np.stack([clip.crop(k) for k in range(3)]).astype(int) for clip in (whole, reduced))
    difference = np.abs(rough - exact)
    assert difference[1:].max() == 0
    assert 0 < difference[0].mean() < 1.5
    # a shift of one pixel of the crop would be seen
    assert difference[0][:, :-1].mean() < 0.5 * np.abs(exact[0][:, 1:] - exact[0][:, :-1]).mean()


def test_options_that_change_features_are_in_the_file(tmp_path):
    write_penn(tmp_path / "raw", [2])
    argv = ["--dir", str(tmp_path / "raw"), "--out", str(tmp_path)]
    penn_action.main([*argv, "--reduced-jpeg"], FakeExtractor())
    database = read(tmp_path / "pennaction_train_scale12_db.pt")
    assert database["reduced_jpeg"] and "bf16" not in database


def test_features_of_spin(tmp_path, base_data):
    """The real network, from a checkpoint in its format, on two frames."""
    for file in base_data.iterdir():
        (tmp_path / file.name).symlink_to(file)
    hmr = HMR(load_body(base_data)).eval()
    fill_by_recipe(hmr)
    save_checkpoint({"model": hmr.state_dict()}, tmp_path / "spin_model_checkpoint.pth.tar")
    write_penn(tmp_path / "raw", [2])
    argv = ["--dir", str(tmp_path / "raw"), "--out", str(tmp_path), "--base-data", str(tmp_path)]
    penn_action.main([*argv, "--device", "cpu", "--scale", "1.3"])
    database = read(tmp_path / "pennaction_train_scale13_db.pt")
    assert (database["crop_scale"], database["extractor"], database["box_factor"]) == (1.3, "spin", 1.0)
    crops = [
        crop_image(read_image(Path(name)), box, 1.3)
        for name, box in zip(database["img_name"], database["bbox"])
    ]
    with torch.inference_mode():
        expected = hmr.feature_extractor(normalise_crop(np.stack(crops))).numpy()
    np.testing.assert_allclose(database["features"], expected, rtol=1e-4, atol=5e-5)

"""What `pip install` makes of the project, in an environment and a folder without the checkout."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import av
import pytest

from lib.commands.info import collect, describe, find_assets
from lib.utils import paths
from lib.utils.errors import UserError
from lib.utils.paths import DOWNLOADS
from lib.utils.pinned import asset_path

ROOT = Path(__file__).resolve().parents[1]
OPEN_FILES = [path for path in (ROOT / "data" / "open").iterdir() if path.is_file()]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from copies, so that nothing is left in the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("lib", "configs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "data" / "open", source / "data" / "open", ignore=lambda *_: ["downloads"])
    for name in ("pyproject.toml", "requirements.txt", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q", "-w", folder]
    subprocess.run([*command, source], check=True)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """The programs of an environment with the wheel; the packages that it needs are this environment's."""
    folder = tmp_path_factory.mktemp("installed") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "those.pth").write_text(sysconfig.get_path("purelib") + "\n")
    python = folder / "bin" / "python"
    command = [sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "-q", wheel]
    subprocess.run(command, check=True)
    return folder / "bin"


@pytest.fixture
def run(installed, tmp_path, monkeypatch):
    """Runs a program of the environment in an empty folder, with what `tcmr assets` would have fetched."""
    home = tmp_path / "home"
    (home / "open").mkdir(parents=True)
    (home / "open" / "downloads").symlink_to(DOWNLOADS)
    (tmp_path / "work").mkdir()
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}

    def run(*command: str | Path, code: int = 0, home: Path = home) -> str:
        done = subprocess.run(
            [installed / command[0], *command[1:]],
            cwd=tmp_path / "work",
            env={**environment, "TCMR_HOME": str(home), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr

    return run


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    """The first frames of the sample video."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    with av.open(str(asset_path("demo_video"))) as source, av.open(str(path), "w") as target:
        stream = target.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 960, 540, "yuv420p"
        for _, frame in zip(range(12), source.decode(video=0)):
            image = frame.reformat(960, 540, "yuv420p")
            image.pts = None
            target.mux(stream.encode(image))
        target.mux(stream.encode())
    return path


def test_the_wheel_holds_every_module_and_asset(wheel) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    modules = {f"tcmr/{path.relative_to(ROOT / 'lib')}" for path in (ROOT / "lib").rglob("*.py")}
    assert modules <= names
    pages = {path for path in (ROOT / "lib").rglob("*") if path.suffix in (".html", ".css", ".js", ".typed")}
    assert {f"tcmr/{path.relative_to(ROOT / 'lib')}" for path in pages} <= names
    assert {
        f"tcmr/open/{path.name}" for path in (ROOT / "data" / "open").iterdir() if path.is_file()
    } <= names
    assert {f"tcmr/configs/{path.name}" for path in (ROOT / "configs").glob("*.yaml")} <= names
    assert not any(name.startswith("lib/") for name in names)


def test_commands(run, clip, tmp_path) -> None:
    assert run("tcmr", "--version").startswith("tcmr 0.")
    output = run(
        "tcmr", "demo", "--vid_file", clip, "--detector", "full", "--export", "bvh", "--device", "cpu"
    )
    folder = tmp_path / "work" / "output" / "demo_output" / "clip"
    assert (folder / "tcmr_clip_output.mp4").is_file(), output
    assert (folder / "person_1.bvh").read_text().startswith("HIERARCHY")
    run("tcmr", "export", folder / "tcmr_output.npz", "--to", "npz")
    assert (folder / "person_1.npz").is_file()
    assert "error: 'nonsense' is no verb" in run("tcmr", "nonsense", code=2)


def test_info(run, tmp_path) -> None:
    """Before anything is fetched; what it says of the demo is true."""
    bare = tmp_path / "nowhere"
    found = json.loads(run("tcmr", "info", "--json", home=bare))
    assert {entry["file"]: entry["fault"] for entry in found["weights"]} == dict.fromkeys(
        (path.name for path in OPEN_FILES), ""
    )
    assert found["folders"]["data"] == str(bare)
    assert found["commands"]["train --cfg configs/open.yaml"]["works"]
    demo = found["commands"]["demo"]
    assert (demo["works"], demo["missing"]) == (False, ["person_detector", "landmarks_full"])
    assert demo["mend"] == ["tcmr assets"]
    lines = describe(found).splitlines()
    assert any(line.startswith("  no  person_detector") for line in lines)
    assert "        mend: tcmr assets" in lines
    output = run("tcmr", "demo", "--device", "cpu", code=2, home=bare)
    assert output.startswith("error: ")
    assert "run `tcmr assets` to fetch it" in output
    assert collect()["commands"]["demo"]["works"]  # here, where the tests' networks are


def test_files_are_looked_for_where_the_demo_does(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(paths, "OPEN_DATA", tmp_path)
    file = tmp_path / "downloads" / Path(find_assets()["person_detector"]["path"]).name
    file.parent.mkdir()
    file.touch()
    assets = find_assets()
    assert assets["person_detector"] == {"path": str(file), "found": True, "mend": ""}
    assert all(Path(asset["path"]).is_absolute() for asset in assets.values())


def test_a_home_that_is_no_folder(tmp_path, monkeypatch) -> None:
    for place in (tmp_path, tmp_path / "absent"):
        monkeypatch.setattr(paths, "DATA", place)
        paths.check_data()
    (tmp_path / "file").touch()
    monkeypatch.setattr(paths, "DATA", tmp_path / "file")
    with pytest.raises(UserError, match=r"^TCMR_HOME: .* is a file; expected a folder"):
        paths.check_data()


@pytest.mark.parametrize("example", ["recover", "predict", "evaluate", "live"])
def test_examples(run, clip, tmp_path, example) -> None:
    arguments = {"recover": [clip, "out"], "live": [clip]}
    output = run("python", ROOT / "examples" / f"{example}.py", *arguments.get(example, []))
    wanted = {"recover": "person 1: poses (12, 72)", "predict": "(60, 24, 3, 3)", "evaluate": "'mpjpe':"}
    wanted["live"] = "0.367 s  person 1"
    assert wanted[example] in output
    if example == "recover":
        files = sorted(path.name for path in (tmp_path / "work" / "out").iterdir())
        assert files == ["person_1.bvh", "person_1.npz", "scene.glb"]

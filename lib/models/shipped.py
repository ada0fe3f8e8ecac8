"""The weights that ship with the project, and what is known of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..utils.files import sha256

_CMU = "293 clips of the CMU motion capture database moved before simulated cameras; no photographs"


@dataclass(frozen=True)
class Shipped:
    """Facts of a file in ``data/open``.

    Attributes:
        what: what it is.
        trained_on: where its numbers come from.
        licence: of the file.
        sha256: of its bytes.
        fingerprint: of the extractor that it is, or whose features it takes; '' if that means nothing.
        fps: frames per second that it was trained at; 0 if it knows no time.
        metrics: on held-out performers (README.md, first noise model), mm and mm/frame^2.
    """

    file: str
    what: str
    trained_on: str
    licence: str
    sha256: str
    fingerprint: str = ""
    fps: float = 0.0
    metrics: str = ""

    def fault(self, folder: str | Path) -> str:
        """What is wrong with the file in a folder; '' if it is the one that ships."""
        path = Path(folder) / self.file
        if not path.is_file():
            return "missing"
        return "" if sha256(path) == self.sha256 else "another file than the one that ships"


SHIPPED = (
    Shipped(
        "open_body.npz",
        "body model with SMPL's structure",
        "MakeHuman's base mesh and shapes (scripts/build_open_body.py)",
        "CC0-1.0",
        "41f563d69eec6073890f8565586af8d2d787cecf2c57f4470256924ae09f43c0",
    ),
    Shipped(
        "landmark_net.pth.tar",
        "per-frame network: 33 landmarks to a static feature of 256 numbers",
        _CMU,
        "MIT",
        "10db0ee1b0b337a9cb2b7214049ce01d3d45f66e96071a8f94ce91be0c69fe44",
        fingerprint="2b25c079642c1d31",
        metrics="MPJPE 63.2, PA-MPJPE 38.5, Accel error 32.3",
    ),
    Shipped(
        "tcmr_open.pth.tar",
        "TCMR on these features",
        _CMU,
        "MIT",
        "59f96922351f7747af9b413f4b6b76917614002c8a7ffc5abd7142bc912da051",
        fingerprint="2b25c079642c1d31",
        fps=30.0,
        metrics="MPJPE 69.4, PA-MPJPE 46.5, Accel error 8.1; with the fit 50.7, 34.3, 5.7",
    ),
    Shipped(
        "tcmr_poses.pth.tar",
        "TCMR on per-frame pose estimates of other methods",
        _CMU,
        "MIT",
        "430ae1ff149158d20e4235e4d0c4278500dc67d538030aea93e9543746eda4ef",
        fingerprint="366e4f3dbee92933",
        fps=30.0,
        metrics="mixed simulated errors (docs/poses.md): MPJPE 45.7, PA-MPJPE 30.2, Accel error 8.1",
    ),
)

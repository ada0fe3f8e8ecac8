"""``person_<id>.trc``: one person's markers, for OpenSim and the tools about it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ...models.body import BodyData
from ...models.smpl import SMPL
from ...utils.files import atomic_write
from ...utils.keypoints import JOINT_NAMES
from ..meshes import Meshes
from ..motion import Motion, Scene

_SIDE = ("Hip", "Knee", "Ankle", "BigToe", "SmallToe", "Heel")
_ARM = ("Shoulder", "Elbow", "Wrist")
MARKERS = ["Hip", *(f"R{name}" for name in _SIDE), *(f"L{name}" for name in _SIDE), "Neck", "Head", "Nose",
           *(f"R{name}" for name in _ARM), *(f"L{name}" for name in _ARM)]  # fmt: skip
"""The names that Pose2Sim and Sports2D give their markers."""
_SOURCES = {"Hip": "OP MidHip", "Head": "headtop"}
_JOINTS = [JOINT_NAMES["spin"].index(_SOURCES.get(name, f"OP {name}")) for name in MARKERS]


def export(scene: Scene, body: BodyData, folder: Path) -> list[Path]:
    """Write one file per person: metres, y up, frames from 1 and seconds of the video."""
    written, smpl = [], SMPL(body)
    for motion in scene.people:
        path = folder / f"person_{motion.person_id}.trc"
        with atomic_write(path) as temporary, temporary.open("w") as sink:
            sink.write("\n".join([*_header(scene, motion, path.name), ""]))
            positions = Meshes(smpl, motion.world, motion.betas).joints()[:, _JOINTS].reshape(len(motion), -1)
            table = np.column_stack([motion.frames + 1, motion.frames / scene.fps, positions])
            np.savetxt(sink, table, ["%d", *["%.6f"] * (table.shape[1] - 1)], delimiter="\t")
        written.append(path)
    return written


def _header(scene: Scene, motion: Motion, name: str) -> list[str]:
    n, first = len(motion), int(motion.frames[0]) + 1
    values = {
        "DataRate": scene.fps,
        "CameraRate": scene.fps,
        "NumFrames": n,
        "NumMarkers": len(MARKERS),
        "Units": "m",
        "OrigDataRate": scene.fps,
        "OrigDataStartFrame": first,
        "OrigNumFrames": n,
    }
    axes = (f"{axis}{marker}" for marker in range(1, len(MARKERS) + 1) for axis in "XYZ")
    return [
        f"PathFileType\t4\t(X/Y/Z)\t{name}",
        "\t".join(values),
        "\t".join(str(value) for value in values.values()),
        "Frame#\tTime\t" + "\t\t\t".join(MARKERS) + "\t\t",
        "\t\t" + "\t".join(axes),
        "",
    ]

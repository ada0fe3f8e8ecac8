"""``meshes/``: one .obj per person and frame."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from ...models.body import BodyData
from ...models.smpl import SMPL
from ...utils.files import atomic_folder
from ..meshes import Meshes
from ..motion import Scene


def export(scene: Scene, body: BodyData, folder: Path) -> list[Path]:
    """Write ``meshes/{person:04d}/{frame:06d}.obj``: metres in the world, y up."""
    path, smpl = folder / "meshes", SMPL(body)
    faces = _rows("f", "%d", body.faces + 1)  # .obj counts from 1
    with atomic_folder(path) as temporary:
        for motion in scene.people:
            place = temporary / f"{motion.person_id:04d}"
            place.mkdir()
            meshes = Meshes(smpl, motion.world, motion.betas)
            for row, frame in enumerate(motion.frames.tolist()):
                (place / f"{frame:06d}.obj").write_text(_rows("v", "%.6f", meshes[row]) + faces)
    return [path]


def _rows(letter: str, number: str, values: Shaped[np.ndarray, "n 3"]) -> str:
    """One line ``letter a b c`` per row of ``values``."""
    line = f"{letter} {number} {number} {number}\n"
    return (line * len(values)) % tuple(values.ravel().tolist())

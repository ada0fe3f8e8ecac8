"""Results on disk: ``tcmr_output.pkl`` and one .obj per person and frame."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lib.demo.render import flip_to_gl
from lib.utils.files import atomic_write, dump_joblib


def save_results(results: Mapping[int, Mapping[str, Any]], path: str | Path) -> None:
    """Write ``{person id: {key: array}}`` as a joblib pickle (plain containers and NumPy arrays only)."""
    dump_joblib({person: dict(result) for person, result in results.items()}, path)


class ObjWriter:
    """Writes meshes as ``{folder}/{person:04d}/{frame:06d}.obj``."""

    def __init__(self, folder: str | Path, faces: np.ndarray) -> None:
        """``faces`` (F, 3) vertex numbers from 0; .obj counts from 1."""
        self.folder = Path(folder)
        self._faces = _rows("f", "%d", np.asarray(faces, np.int64) + 1)

    def write(self, person: int, frame: int, verts: np.ndarray) -> Path:
        """Write vertices (V, 3) in metres, camera axes, as (X, -Y, -Z): y up, facing the viewer."""
        path = self.folder / f"{person:04d}" / f"{frame:06d}.obj"
        with atomic_write(path) as temporary:
            temporary.write_text(_rows("v", "%.6f", flip_to_gl(verts)) + self._faces)
        return path


def _rows(letter: str, number: str, values: np.ndarray) -> str:
    """One line ``letter a b c`` per row of ``values`` (n, 3)."""
    line = f"{letter} {number} {number} {number}\n"
    return (line * len(values)) % tuple(values.ravel().tolist())

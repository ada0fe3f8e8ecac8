"""Results on disk: ``tcmr_output.pkl`` and one .obj per person and frame."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lib.demo.render import flip_to_gl
from lib.utils.files import dump_joblib, temporary_beside


def save_results(results: Mapping[int, Mapping[str, Any]], path: str | Path) -> None:
    """Write ``{person id: {key: array}}`` as a joblib pickle (plain containers and NumPy arrays only)."""
    dump_joblib({person: dict(result) for person, result in results.items()}, path)


class ObjWriter:
    """Writes meshes as ``{folder}/{person:04d}/{frame:06d}.obj``.

    A context manager: the folder appears, in place of an earlier one, when the block ends without an error.
    """

    def __init__(self, folder: str | Path, faces: np.ndarray) -> None:
        """``faces`` (F, 3) vertex numbers from 0; .obj counts from 1."""
        self.folder = Path(folder)
        self._temporary = temporary_beside(self.folder)
        self._faces = _rows("f", "%d", np.asarray(faces, np.int64) + 1)

    def __enter__(self) -> ObjWriter:
        self._temporary.mkdir(parents=True)
        return self

    def write(self, person: int, frame: int, verts: np.ndarray) -> None:
        """Write vertices (V, 3) in metres, camera axes, as (X, -Y, -Z): y up, facing the viewer."""
        path = self._temporary / f"{person:04d}" / f"{frame:06d}.obj"
        path.parent.mkdir(exist_ok=True)
        path.write_text(_rows("v", "%.6f", flip_to_gl(verts)) + self._faces)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                shutil.rmtree(self.folder, ignore_errors=True)
                self._temporary.rename(self.folder)
        finally:
            shutil.rmtree(self._temporary, ignore_errors=True)


def _rows(letter: str, number: str, values: np.ndarray) -> str:
    """One line ``letter a b c`` per row of ``values`` (n, 3)."""
    line = f"{letter} {number} {number} {number}\n"
    return (line * len(values)) % tuple(values.ravel().tolist())

"""A scene in the formats that other programs read; docs/exports.md says what is in each."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from ...models.body import BodyData
from ...utils.errors import UserError, shown
from ..exporters import amass, bvh, coco, gltf, obj, original, trc
from ..motion import Scene

EXPORTERS: dict[str, Callable[[Scene, BodyData, Path], list[Path]]] = {
    "npz": amass.export,
    "bvh": bvh.export,
    "glb": gltf.export,
    "json": coco.export,
    "trc": trc.export,
    "obj": obj.export,
    "pkl": original.export,
}
"""By the name of the format: writes a scene's files into a folder and returns them."""


def check_formats(formats: Iterable[str], option: str) -> None:
    """UserError if one of the formats is not in :data:`EXPORTERS`; ``option`` asked for them."""
    for name in formats:
        if name not in EXPORTERS:
            raise UserError(
                f"{option}: there is no format {shown(name)!r}; expected any of {','.join(EXPORTERS)}"
            )


def export_scene(scene: Scene, body: BodyData, folder: Path, formats: Iterable[str]) -> list[Path]:
    """Write a scene in each of the formats; each file appears only when it is complete.

    Args:
        body: that the scene was made with.
        folder: is made if it is not there.
        formats: names in :data:`EXPORTERS`.

    Returns:
        the files and folders written.
    """
    return [path for name in dict.fromkeys(formats) for path in EXPORTERS[name](scene, body, folder)]

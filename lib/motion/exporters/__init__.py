"""A scene in the formats that other programs read; docs/exports.md says what is in each."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from ...models.body import BodyData
from ...utils.errors import UserError
from ...utils.registry import Registry
from ..exporters import amass, bvh, coco, gltf, obj, original, trc
from ..motion import Scene

EXPORTERS: Registry[Callable[[Scene, BodyData, Path], list[Path]]] = Registry("format", "--export")
"""By the name of the format: writes a scene's files into a folder and returns them."""
EXPORTERS.update(
    npz=amass.export,
    bvh=bvh.export,
    glb=gltf.export,
    json=coco.export,
    trc=trc.export,
    obj=obj.export,
    pkl=original.export,
)


def export_scene(scene: Scene, body: BodyData, folder: Path, formats: Iterable[str]) -> list[Path]:
    """Write a scene in each of the formats; each file appears only when it is complete.

    Args:
        body: that the scene was made with.
        folder: is made if it is not there.
        formats: names in :data:`EXPORTERS`.

    Returns:
        the files and folders written.

    Raises:
        UserError: there is no such format, or nobody is in the scene.
    """
    if not scene.people:
        raise UserError("nobody is in the scene to export: take one in which somebody was found")
    return [path for name in dict.fromkeys(formats) for path in EXPORTERS[name](scene, body, folder)]

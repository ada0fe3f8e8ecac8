"""Temporally consistent 3D human pose and shape from video (TCMR).

    import tcmr
    scene = tcmr.recover("my.mp4")
    tcmr.export(scene, "out", ["glb", "bvh"])

Importing this loads nothing; what is used is loaded when it is first named.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api import (
        Motion,
        Placed,
        Predictor,
        Scene,
        Track,
        UserError,
        evaluate,
        export,
        load,
        load_scene,
        read_database,
        recover,
        save_scene,
    )

__version__ = "0.1.0"
__all__ = [
    "Motion",
    "Placed",
    "Predictor",
    "Scene",
    "Track",
    "UserError",
    "evaluate",
    "export",
    "load",
    "load_scene",
    "read_database",
    "recover",
    "save_scene",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module(".api", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]

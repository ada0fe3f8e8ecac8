"""``tcmr_output.npz``: a whole scene in one file of plain arrays, without pickles."""

from __future__ import annotations

import zipfile
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from ..utils.errors import UserError
from ..utils.files import atomic_write, load_arrays
from .camera import Camera
from .motion import Motion, Placed, Scene

FORMAT = 1
_HEADER = ("format", "name", "fps", "n_frames", "body", "gender", "image_size", "focal", "focal_source",
           "world_rotation", "world_offset", "camera_moves", "feet_locked", "person_ids")  # fmt: skip
_ARRAYS = [field.name for field in fields(Motion) if "np.ndarray" in str(field.type)]


def save_scene(scene: Scene, path: str | Path, mark: str = "") -> None:
    """Write a scene; :func:`load_scene` gives it back, :func:`scene_mark` the ``mark``. Appears only when it
    is complete."""
    arrays: dict[str, Any] = {
        "format": np.array(FORMAT),
        "name": np.array(scene.name),
        "fps": np.array(scene.fps),
        "n_frames": np.array(scene.n_frames),
        "body": np.array(scene.body),
        "gender": np.array(scene.gender),
        "image_size": np.array([scene.camera.width, scene.camera.height]),
        "focal": np.array(scene.camera.focal),
        "focal_source": np.array(scene.camera.source),
        "world_rotation": scene.world_rotation,
        "world_offset": scene.world_offset,
        "camera_moves": np.array(scene.camera_moves),
        "feet_locked": np.array(scene.feet_locked),
        "person_ids": np.array([motion.person_id for motion in scene.people]),
    }
    for motion in scene.people:
        for name in _ARRAYS:
            arrays[f"{motion.person_id}/{name}"] = getattr(motion, name)
        for frame in ("camera", "world"):
            placed: Placed = getattr(motion, frame)
            arrays[f"{motion.person_id}/{frame}_rotmat"] = placed.rotmat
            arrays[f"{motion.person_id}/{frame}_transl"] = placed.transl
    with atomic_write(path) as temporary:
        np.savez_compressed(temporary, **arrays)
        with zipfile.ZipFile(temporary, "a") as archive:
            archive.comment = mark.encode()


def scene_mark(path: str | Path) -> str:
    """The mark that a scene was saved with; '' if there is none, or no such file."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.comment.decode()
    except (OSError, zipfile.BadZipFile, UnicodeDecodeError):
        return ""


def load_scene(path: str | Path) -> Scene:
    """Read what :func:`save_scene` wrote.

    Raises:
        UserError: no such file, a damaged one, or one of another program.
    """
    arrays = load_arrays(path, "motion file", _HEADER)
    if arrays["format"].shape != () or arrays["format"] != FORMAT:
        raise UserError(
            f"motion file {path}: its format is {arrays['format']}, expected {FORMAT}; make it anew with "
            "demo.py"
        )
    ids = [str(number) for number in arrays["person_ids"].ravel().tolist()]
    names = [*_ARRAYS, *(f"{frame}_{part}" for frame in ("camera", "world") for part in ("rotmat", "transl"))]
    arrays |= load_arrays(path, "motion file", [f"{number}/{name}" for number in ids for name in names])
    try:
        return _scene(arrays, ids)
    except (ValueError, TypeError, IndexError, OverflowError) as error:
        raise UserError(f"motion file {path} is damaged ({error}); make it anew with demo.py") from error


def _scene(arrays: dict[str, np.ndarray], ids: list[str]) -> Scene:
    people, n_frames, fps = [], int(arrays["n_frames"]), float(arrays["fps"])
    if not ids or len(set(ids)) < len(ids):
        raise ValueError("expected one person or more, each with a number of its own")
    for number in ids:
        parts: dict[str, Any] = {name: _numbers(arrays[f"{number}/{name}"], name) for name in _ARRAYS}
        parts["contacts"], parts["frames"] = parts["contacts"].astype(bool), parts["frames"].astype(int)
        placed = {
            frame: Placed(
                *(_numbers(arrays[f"{number}/{frame}_{part}"], part) for part in ("rotmat", "transl"))
            )
            for frame in ("camera", "world")
        }
        for frame, values in placed.items():
            _check_rotations(f"{frame}_rotmat", values.rotmat)
        people.append(Motion(person_id=int(number), fps=fps, **parts | placed))
        first, last = people[-1].frames[[0, -1]]
        if first < 0 or last >= n_frames:
            raise ValueError(f"person {number} is in frames {first} to {last} of {n_frames}")
    width, height = (int(side) for side in _numbers(arrays["image_size"], "image_size"))
    focal = float(arrays["focal"])
    if not (width > 0 and height > 0 and np.isfinite(focal) and focal > 0):
        raise ValueError(f"a camera of {width}x{height} px and focal length {focal}")
    _check_rotations("world_rotation", _numbers(arrays["world_rotation"], "world_rotation"))
    return Scene(
        name=str(arrays["name"]),
        people=tuple(people),
        camera=Camera(width, height, focal, str(arrays["focal_source"])),
        fps=fps,
        n_frames=n_frames,
        body=str(arrays["body"]),
        gender=str(arrays["gender"]),
        world_rotation=_numbers(arrays["world_rotation"], "world_rotation"),
        world_offset=_numbers(arrays["world_offset"], "world_offset"),
        camera_moves=bool(arrays["camera_moves"]),
        feet_locked=bool(arrays["feet_locked"]),
    )


def _check_rotations(name: str, values: np.ndarray) -> None:
    """ValueError if matrices (*, 3, 3) do not turn."""
    square = values @ np.swapaxes(values, -1, -2)
    if not (np.allclose(square, np.eye(3), atol=1e-3) and (np.linalg.det(values) > 0).all()):
        raise ValueError(f"{name} is not made of rotations")


def _numbers(values: np.ndarray, name: str) -> np.ndarray:
    if values.dtype.kind not in "?biuf":
        raise ValueError(f"{name} is not made of numbers")
    return values.astype(values.dtype.newbyteorder("="))

"""Body model data: the official SMPL files where the user has them, else the open body that ships here."""

from __future__ import annotations

import functools
import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..utils import paths
from ..utils.errors import UserError
from ..utils.files import load_arrays, load_smpl_pickle

logger = logging.getLogger(__name__)

BASE_DATA = str(paths.BASE_DATA)
OPEN_DATA = str(paths.OPEN_DATA)
GENDERS = ("neutral", "male", "female")

_N_VERTICES, _N_JOINTS, _N_BETAS, _N_FACES = 6890, 24, 10, 13776


@dataclass(frozen=True, eq=False)
class BodyData:
    """Arrays of a body model with SMPL's structure. Floats are float32, lengths are metres.

    Attributes:
        kind: ``smpl`` (official files) or ``open`` (the body that ships with the project).
        gender: ``neutral``, ``male`` or ``female``.
        v_template: (6890, 3) rest vertices.
        shapedirs: (6890, 3, 10) shape basis.
        posedirs: (6890, 3, 207) pose correctives.
        J_regressor: (24, 6890) rest vertices to joints.
        weights: (6890, 24) skinning weights, rows sum to 1.
        faces: (13776, 3) int64 triangles.
        parents: (24,) int64 kinematic tree, -1 at the root.
        J_regressor_extra: (9, 6890) the nine extra joints of SPIN.
        J_regressor_h36m: (17, 6890) the Human3.6M joints.
        mean_pose: (144,) 6D rotations (layout of :func:`lib.utils.geometry.rot6d_to_rotmat`).
        mean_shape: (10,) betas.
        mean_cam: (3,) crop camera (s, tx, ty).
        flip: (6890,) mirrored vertex of each vertex, or None where unknown.
        path: the model file.
    """

    kind: Literal["smpl", "open"]
    gender: str
    v_template: np.ndarray
    shapedirs: np.ndarray
    posedirs: np.ndarray
    J_regressor: np.ndarray
    weights: np.ndarray
    faces: np.ndarray
    parents: np.ndarray
    J_regressor_extra: np.ndarray
    J_regressor_h36m: np.ndarray
    mean_pose: np.ndarray
    mean_shape: np.ndarray
    mean_cam: np.ndarray
    flip: np.ndarray | None
    path: Path


def load_body(
    base_data: str | Path = BASE_DATA, gender: str = "neutral", open_dir: str | Path = OPEN_DATA
) -> BodyData:
    """Load the official SMPL body if its files are present, otherwise the open body.

    What :func:`find_smpl` finds in ``base_data`` decides. In that folder must then lie
    ``J_regressor_extra.npy``, ``J_regressor_h36m.npy`` and ``smpl_mean_params.npz``. The open body has one
    gender. The result is cached; treat its arrays as read-only.

    Raises:
        UserError: an unknown gender, a missing or damaged file, or arrays of unexpected shape.
    """
    if gender not in GENDERS:
        raise UserError(f"gender is {gender!r}, expected one of {', '.join(GENDERS)}")
    return _load_body(Path(base_data).resolve(), gender, Path(open_dir).resolve())


def load_gendered_body(base_data: str | Path, gender: str) -> BodyData:
    """The official SMPL body of a gender; where its file is missing, no other body takes its place.

    Raises:
        UserError: as :func:`load_body`, and for a missing file.
    """
    body = load_body(base_data, gender)
    if body.kind != "smpl":
        raise UserError(
            f"gender {gender} needs {Path(base_data) / f'SMPL_{gender.upper()}.pkl'}, which does not exist:"
            " data/README.md says where it comes from"
        )
    return body


def find_smpl(base_data: str | Path, gender: str = "neutral") -> Path | None:
    """The official SMPL file of a gender: ``SMPL_{GENDER}.pkl`` or ``.npz`` in ``base_data``, or by the name
    that it is downloaded with, there or in the folders that its archives unpack to; None if it is not there.
    """
    short = gender if gender == "neutral" else gender[:1]
    name = re.compile(rf"(smpl_{gender}|basicmodel_{short}_lbs_10_207_0_v\d[\d.]*)\.(pkl|npz)", re.IGNORECASE)
    for pattern in ("*", "*/*", "smpl/models/*", "*/smpl/models/*", "*/code/models/*"):
        found = sorted(path for path in Path(base_data).glob(pattern) if name.fullmatch(path.name))
        # Names of our own first, and of these .pkl.
        found.sort(key=lambda path: (not path.name.startswith("SMPL_"), path.suffix != ".pkl"))
        if found:
            return found[0]
    return None


@functools.lru_cache(maxsize=8)
def _load_body(base_data: Path, gender: str, open_dir: Path) -> BodyData:
    official = find_smpl(base_data, gender)
    if official is not None:
        logger.info("body model: official SMPL, %s", official)
        return _official_body(official, gender, base_data)
    path = open_dir / "open_body.npz"
    if not path.is_file():
        raise UserError(
            f"no body model: neither {base_data}/SMPL_{gender.upper()}.pkl nor {path} exists;"
            " restore data/open/open_body.npz from the repository or see data/README.md for SMPL"
        )
    missing = "" if base_data == open_dir else f" (no SMPL in {base_data})"
    logger.info("body model: the open body, %s%s", path, missing)
    return _open_body(path)


def _official_body(path: Path, gender: str, base_data: Path) -> BodyData:
    what = "file that official SMPL needs:"
    fields = load_smpl_pickle(path) if path.suffix == ".pkl" else load_arrays(path, what)
    mean = load_arrays(base_data / "smpl_mean_params.npz", what, ("pose", "shape", "cam"))
    extra = {f"mean_{name}": value for name, value in mean.items()}
    for name in ("J_regressor_extra", "J_regressor_h36m"):
        extra[name] = load_arrays(base_data / f"{name}.npy", what, ("array",))["array"]
    return _body("smpl", gender, path, {**fields, **extra, "flip": None})


def _open_body(path: Path) -> BodyData:
    fields = load_arrays(path, "body model")
    # Stored in half precision: the rows have to be made to sum to 1 again.
    weights = _field(fields, "weights", path).astype(np.float32)
    mean_pose = np.tile(np.array([1, 0, 0, 1, 0, 0], np.float32), (_N_JOINTS, 1))
    mean_pose[0] = [1, 0, 0, -1, 0, 0]  # upright in a camera frame with y down
    made = {
        "weights": weights / weights.sum(1, keepdims=True),
        "mean_pose": mean_pose.reshape(-1),
        "mean_shape": np.zeros(_N_BETAS),
        "mean_cam": np.array([0.9, 0, 0]),
    }
    return _body("open", "neutral", path, {**fields, **made})


def _body(kind: Literal["smpl", "open"], gender: str, path: Path, fields: dict[str, Any]) -> BodyData:
    def array(name: str, shape: tuple[int, ...], dtype: type = np.float32) -> np.ndarray:
        value = np.asarray(_field(fields, name, path))
        if name == "shapedirs" and value.ndim == 3:
            value = value[..., :_N_BETAS]
        if value.shape != shape:
            raise UserError(f"{path}: {name} has shape {value.shape}, expected {shape}; get the file again")
        if value.dtype.kind not in "?biuf" or not np.isfinite(value).all():
            raise UserError(f"{path}: {name} is not made of finite numbers; get the file again")
        return np.ascontiguousarray(value, dtype)

    def indices(name: str, shape: tuple[int, ...], count: int) -> np.ndarray:
        value = array(name, shape, np.int64)
        if value.min() < 0 or value.max() >= count:
            raise UserError(
                f"{path}: {name} is not made of numbers from 0 to {count - 1}; get the file again"
            )
        return value

    parents = array("kintree_table", (2, _N_JOINTS), np.int64)[0].copy()
    parents[0] = -1
    if not all(0 <= parent < joint for joint, parent in enumerate(parents[1:], start=1)):
        raise UserError(f"{path}: kintree_table does not name a parent before each joint; get the file again")
    return BodyData(
        kind=kind,
        gender=gender,
        v_template=array("v_template", (_N_VERTICES, 3)),
        shapedirs=array("shapedirs", (_N_VERTICES, 3, _N_BETAS)),
        posedirs=array("posedirs", (_N_VERTICES, 3, (_N_JOINTS - 1) * 9)),
        J_regressor=array("J_regressor", (_N_JOINTS, _N_VERTICES)),
        weights=array("weights", (_N_VERTICES, _N_JOINTS)),
        faces=indices("f", (_N_FACES, 3), _N_VERTICES),
        parents=parents,
        J_regressor_extra=array("J_regressor_extra", (9, _N_VERTICES)),
        J_regressor_h36m=array("J_regressor_h36m", (17, _N_VERTICES)),
        mean_pose=array("mean_pose", (_N_JOINTS * 6,)),
        mean_shape=array("mean_shape", (_N_BETAS,)),
        mean_cam=array("mean_cam", (3,)),
        flip=None if fields.get("flip") is None else indices("flip", (_N_VERTICES,), _N_VERTICES),
        path=path,
    )


def _field(fields: dict[str, Any], name: str, path: Path) -> Any:
    if name not in fields:
        raise UserError(f"{path} has no field {name}; it is not the file that data/README.md describes")
    return fields[name]

"""The protocol for predictions that were made elsewhere, by any method."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..dataset.datasets import DatasetSpec, get_spec
from ..models.body import BASE_DATA, OPEN_DATA, BodyData, load_body
from ..models.smpl import SMPL
from ..utils import metrics
from ..utils.errors import UserError, shown
from ..utils.files import load_arrays
from ..utils.geometry import axis_angle_to_rotmat
from ..utils.keypoints import JOINT_NAMES, convert_kps
from .config import get_cfg_defaults
from .evaluation import SequenceErrors, compare, mean_errors
from .evaluation_set import EvalSequence, EvaluationSet
from .protocol import ROOT_JOINTS
from .report import COLUMNS, cell, means, sequence_means, table

Arrays = np.ndarray | Mapping[str, np.ndarray]
"""Joints (n, J, 3), or a mapping with ``joints``, ``vertices``, ``poses`` and ``betas``."""
_KEYS = ("joints", "vertices", "poses", "betas")
_CHUNK = 128  # frames whose vertices are computed at once
_VERTICES = 6890


def evaluate(
    predictions: str | Path | Mapping[str, Arrays],
    truth: str | Path | Mapping[str, Arrays],
    protocol: str = "3dpw",
) -> dict[str, Any]:
    """Measure predictions as ``evaluate.py`` measures its own.

    Both are given per video: joints (n, J, 3) in metres, of the dataset's evaluation convention or all 49; or
    a mapping with ``joints``, ``vertices`` (n, 6890, 3) metres, or ``poses`` (n, 72) axis-angle and ``betas``
    (n, 10) or (10,), which the body here turns into joints and vertices. Vertices are compared where both
    sides have them.

    Args:
        predictions: by name of the video; or an ``.npz`` of such arrays with ``vid_name`` (N,), rows of a
            video in the order of time, or without it, in the order of the database's rows.
        truth: the same, joints that were not seen being NaN; or a database of the dataset.
        protocol: key of the dataset whose joints and root are meant: ``3dpw``, ``h36m``, ``mpii3d``, ...

    Returns:
        means over all counted frames: ``mpjpe``, ``mpjpe_pa``, ``accel``, ``accel_err`` and maybe ``mpvpe``
        in mm and mm/frame^2, ``accel_err_m_s2`` if the frame rate is known; ``num_poses``; ``per_sequence``,
        the same by name; ``body``, ``smpl`` or ``open``, that poses were turned into meshes with.

    Raises:
        UserError: a file is missing or damaged, a video lacks predictions, or arrays do not fit.
    """
    spec = get_spec(protocol)
    if not spec.eval_joints:
        raise UserError(f"protocol {protocol!r}: that dataset has no 3D to evaluate")
    body, fps = _body(spec), None
    poser = _Poser(spec, body)
    sequences: Iterable[tuple[EvalSequence, np.ndarray | None]]
    if isinstance(truth, Mapping):
        given = _read(predictions, {}) if not isinstance(predictions, Mapping) else predictions
        sequences = (_sequence(name, entry, spec, poser) for name, entry in truth.items())
    else:
        data = _database(spec, truth)
        fps = data.frame_rate.fps
        rows = {name: data.rows(name) for name in data.names}
        given = _read(predictions, rows) if not isinstance(predictions, Mapping) else predictions
        given = {name: _valid(given[name], data.kept(name)) for name in data.names if name in given}
        sequences = ((s, None) for s in data)
    errors = []
    for sequence, vertices in sequences:
        if sequence.name not in given:
            found = ", ".join(shown(name) for name in list(given)[:3]) or "no video"
            raise UserError(f"there are no predictions of {sequence.name}; they are of {found}")
        if sequence.counted.any():
            errors.append(_compare(sequence, vertices, given[sequence.name], spec, poser))
    if not errors:
        raise UserError("no frame of the truth counts: there is nothing to compare")
    return {
        **means(mean_errors(errors), fps),
        "num_poses": sum(len(e.mpjpe) for e in errors),
        "body": body.kind,
        "per_sequence": {e.name: sequence_means(e, fps) for e in errors},
    }


def _body(spec: DatasetSpec) -> BodyData:
    """The body that the dataset's poses are of: of open data the open one, else the official one if there."""
    return load_body(OPEN_DATA if spec.key == "open" else BASE_DATA)


def describe(result: Mapping[str, Any]) -> str:
    """What :func:`evaluate` returned, as a Markdown table."""
    columns = [key for key in COLUMNS if key in result]
    rows = [*result["per_sequence"].items(), ("all", result)]
    lines = table(
        ["sequence", "poses", *(COLUMNS[key] for key in columns)],
        [[name, str(row["num_poses"]), *(cell(row.get(key)) for key in columns)] for name, row in rows],
    )
    body = {"smpl": "SMPL", "open": "the open body, not SMPL"}[result["body"]]
    return "\n".join([*lines, "", f"Meshes, where poses were given: {body}."])


def _database(spec: DatasetSpec, path: str | Path) -> EvaluationSet:
    cfg = get_cfg_defaults()
    cfg.DATASET.FILES[f"{spec.key}_test"] = str(Path(path).absolute())
    return EvaluationSet(spec, "test", cfg, features=False)


def _sequence(
    name: str, entry: Arrays, spec: DatasetSpec, poser: _Poser
) -> tuple[EvalSequence, np.ndarray | None]:
    joints, vertices = _joints(f"truth of {name}", entry, spec, poser, unseen=True)
    seen = ~np.isnan(joints).any(axis=2)
    joints = np.where(seen[..., None], joints, np.nan)
    counted = seen[:, ROOT_JOINTS[spec.eval_joints]].all(axis=1) & (seen.sum(axis=1) >= 3)
    nothing = np.zeros((len(joints), 0))
    sequence = EvalSequence(name, nothing, joints, counted, None, None, 0, np.full(len(joints), "neutral"))
    return sequence, vertices


def _compare(
    sequence: EvalSequence, true_vertices: np.ndarray | None, entry: Arrays, spec: DatasetSpec, poser: _Poser
) -> SequenceErrors:
    joints, vertices = _joints(f"predictions of {sequence.name}", entry, spec, poser)
    if len(joints) != len(sequence.joints):
        raise UserError(
            f"predictions of {sequence.name} are of {len(joints)} frames, its truth of "
            f"{len(sequence.joints)}"
            + f" ({sequence.removed} invalid ones left out)"
            * bool(sequence.removed)
        )
    errors = compare(sequence, joints, sequence.joints, spec.eval_joints)
    if vertices is None:
        return errors
    if sequence.pose is not None and sequence.shape is not None:
        true_vertices = poser.vertices(sequence.pose, sequence.shape)
    if true_vertices is None:
        return errors
    mpvpe = metrics.vertex_error(vertices, true_vertices)[sequence.counted]
    return SequenceErrors(**{**vars(errors), "mpvpe": mpvpe})


def _joints(
    what: str, entry: Arrays, spec: DatasetSpec, poser: _Poser, unseen: bool = False
) -> tuple[np.ndarray, np.ndarray | None]:
    """Joints (n, J, 3) of the dataset's convention, and vertices if they are known."""
    arrays = dict(entry) if isinstance(entry, Mapping) else {"joints": entry}
    arrays = {key: _numbers(what, key, value) for key, value in arrays.items() if key in _KEYS}
    joints, vertices = arrays.get("joints"), arrays.get("vertices")
    if "poses" in arrays:
        if "betas" not in arrays:
            raise UserError(f"{what}: poses without betas; give both")
        poses, betas = arrays["poses"], arrays["betas"]
        if poses.shape != (len(poses), 72) or betas.shape not in ((10,), (len(poses), 10)):
            raise UserError(
                f"{what}: poses have shape {poses.shape} and betas {betas.shape}, expected (n, 72) and (10,) "
                "or (n, 10)"
            )
        joints = poser.joints(poses, betas) if joints is None else joints
        vertices = poser.vertices(poses, betas)
    if joints is None:
        raise UserError(
            f"{what}: expected joints (n, J, 3), or poses (n, 72) and betas; found {list(arrays)}"
        )
    count = len(JOINT_NAMES[spec.eval_joints])
    if joints.ndim != 3 or joints.shape[2] != 3 or joints.shape[1] not in (count, len(JOINT_NAMES["spin"])):
        raise UserError(
            f"{what}: joints have shape {joints.shape}, expected (n, {count}, 3) of the convention "
            f"{spec.eval_joints}, or all 49"
        )
    if vertices is not None and vertices.shape != (len(joints), _VERTICES, 3):
        raise UserError(f"{what}: vertices have shape {vertices.shape}, expected ({len(joints)}, 6890, 3)")
    for name, values in (("joints", joints), ("vertices", vertices)):
        bad = np.isinf if unseen and name == "joints" else _not_finite
        if values is not None and bad(values).any():
            raise UserError(f"{what}: {name} hold values that are not finite")
    if joints.shape[1] != count:
        joints = convert_kps(joints, "spin", spec.eval_joints)
    return joints, vertices


def _numbers(what: str, key: str, value: np.ndarray) -> np.ndarray:
    try:
        array = np.asarray(value)
    except ValueError:
        raise UserError(f"{what}: {key} is ragged, expected an array") from None
    if array.dtype.kind not in "biuf" or not array.ndim:
        raise UserError(
            f"{what}: {key} is {array.dtype} of shape {array.shape}, expected numbers, a row a frame"
        )
    return array


def _not_finite(values: np.ndarray) -> np.ndarray:
    finite: np.ndarray = np.isfinite(values)
    return ~finite


class _Poser:
    """Turns poses (n, 72) and betas (n, 10) or (10,) into joints and vertices of a body."""

    def __init__(self, spec: DatasetSpec, body: BodyData) -> None:
        self._smpl = SMPL(body)
        self._regressor = torch.from_numpy(body.J_regressor_h36m) if spec.eval_regressor else None

    @torch.inference_mode()
    def joints(self, poses: np.ndarray, betas: np.ndarray) -> np.ndarray:
        """(n, 14, 3) of the H36M regressor where the dataset's are, else all 49."""
        parts = _tensors(poses, betas)
        return np.concatenate([self._smpl.joints(*part, self._regressor).numpy() for part in parts])

    @torch.inference_mode()
    def vertices(self, poses: np.ndarray, betas: np.ndarray) -> np.ndarray:
        """(n, 6890, 3)."""
        meshes = (
            self._smpl(shape, rotmat[:, 1:], rotmat[:, :1], pose2rot=False).vertices.numpy()
            for shape, rotmat in _tensors(poses, betas)
        )
        return np.concatenate(list(meshes))


def _tensors(poses: np.ndarray, betas: np.ndarray) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Shapes (k, 10) and rotations (k, 24, 3, 3), some frames at a time."""
    shape = torch.from_numpy(np.broadcast_to(betas, (len(poses), 10)).astype(np.float32))
    turns = torch.from_numpy(poses.astype(np.float32)).reshape(-1, 24, 3)
    for part, some in zip(torch.split(shape, _CHUNK), torch.split(turns, _CHUNK)):
        yield part, axis_angle_to_rotmat(some.reshape(-1, 3)).reshape(-1, 24, 3, 3)


def _valid(entry: Arrays, kept: np.ndarray) -> Arrays:
    """Predictions of the valid frames, from those of all frames of a video or as they are."""
    if isinstance(entry, Mapping):
        return {key: _valid_rows(np.asarray(values), kept) for key, values in entry.items()}
    return _valid_rows(np.asarray(entry), kept)


def _valid_rows(values: np.ndarray, kept: np.ndarray) -> np.ndarray:
    return values[kept] if len(values) == len(kept) and values.ndim > 1 else values  # betas (10,) stay


def _read(path: str | Path, rows: Mapping[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    """The predictions of a file by name; ``rows`` of the videos, for a file that does not name them."""
    arrays = load_arrays(path, "predictions")
    names = arrays.pop("vid_name", None)
    arrays = {key: values for key, values in arrays.items() if key in _KEYS}
    if not arrays:
        raise UserError(f"predictions {path}: hold none of {', '.join(_KEYS)}")
    if names is not None:
        if names.ndim != 1:
            raise UserError(f"predictions {path}: vid_name has shape {names.shape}, expected a name per row")
        order = {str(name): np.flatnonzero(names == name) for name in np.unique(names)}
        total = len(names)
    else:
        order, total = dict(rows), sum(map(len, rows.values()))
    for key, values in arrays.items():
        if values.shape[:1] != (total,) and values.shape != (10,):
            raise UserError(
                f"predictions {path}: {key} has shape {values.shape}, expected {total} rows, as many as "
                + ("vid_name" if names is not None else "the database, for want of vid_name")
            )
    return {
        name: {key: v if v.shape == (10,) else v[chosen] for key, v in arrays.items()}
        for name, chosen in order.items()
    }

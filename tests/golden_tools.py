"""Deterministic stand-ins for licensed files: weights from key names, and base data with SMPL's structure.

Golden outputs in ``tests/golden`` were made by the original implementation on exactly these inputs. All
numbers lie on power-of-two grids, so float32 and float64 copies agree. numpy's legacy ``RandomState`` streams
never change.
"""

from __future__ import annotations

import functools
import math
import pickle
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
import torch

GOLDEN = Path(__file__).parent / "golden"


def load_golden(name: str) -> dict[str, np.ndarray]:
    """Arrays of ``tests/golden/<name>.npz``."""
    with np.load(GOLDEN / f"{name}.npz") as archive:
        return {key: archive[key] for key in archive.files}


# --------------------------------------------------------------------------------
# Weights


def recipe_value(key: str, shape: tuple[int, ...], keys: Collection[str]) -> np.ndarray:
    """float32 weights of a state-dict entry, a function of its name and shape (``keys``: all names)."""
    draw = np.random.RandomState(zlib.crc32(key.encode())).standard_normal(shape)
    value = np.clip(np.rint(draw * 32), -127, 127).astype(np.float32) / 32
    if len(shape) >= 2:
        gain = math.sqrt(2) if len(shape) == 4 else 1.0
        if key.endswith(("decpose.weight", "decshape.weight", "deccam.weight")):
            gain = 0.25
        return value * np.float32(2.0 ** round(math.log2(gain / math.sqrt(math.prod(shape[1:])))))
    stem, _, leaf = key.rpartition(".")
    if leaf == "running_mean":
        return value / 16
    if leaf == "running_var":
        return 1 + np.abs(value) / 8
    if leaf == "weight" and f"{stem}.running_var" in keys:
        return np.float32(0.25) + value / 32 if stem.endswith("bn3") else 1 + value / 8
    return value / 32


def fill_by_recipe(module: torch.nn.Module) -> None:
    """Give a module the recipe's weights; entries that come from base data stay as they are."""
    state = module.state_dict()
    kept = ("init_pose", "init_shape", "init_cam", "num_batches_tracked")
    for key, value in state.items():
        if ".smpl." in key or key.startswith("smpl.") or key.endswith(kept):
            continue
        value.copy_(torch.from_numpy(recipe_value(key, tuple(value.shape), state.keys())))


# --------------------------------------------------------------------------------
# Base data

_N_VERTICES = 6890
_PARENTS = [-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21]
# fmt: off
_JOINTS = np.array([
    [0, -.23, .02], [.06, -.32, .01], [-.06, -.32, .01], [0, -.12, 0], [.10, -.70, 0], [-.10, -.70, 0],
    [0, .02, .02], [.09, -1.10, -.03], [-.09, -1.10, -.03], [0, .08, .02], [.12, -1.16, .09],
    [-.12, -1.16, .09],
    [0, .28, -.02], [.08, .19, -.01], [-.08, .19, -.01], [0, .36, .03], [.19, .22, -.02], [-.19, .22, -.02],
    [.45, .21, -.04], [-.45, .21, -.04], [.70, .22, -.05], [-.70, .22, -.05], [.79, .21, -.06],
    [-.79, .21, -.06]])
_TIPS = {10: [.12, -1.17, .16], 11: [-.12, -1.17, .16], 15: [0, .55, .03], 22: [.88, .20, -.06],
         23: [-.88, .20, -.06]}
_EXTRA_JOINTS = np.array([
    [-.08, -.34, 0], [.08, -.34, 0], [0, .24, .02], [0, .55, .03], [0, -.24, 0], [0, .22, .02],
    [0, -.02, .01], [0, .30, .07], [0, .42, .05]])
_H36M_JOINTS = np.array([
    [0, -.24, 0], [.08, -.33, 0], [.10, -.71, 0], [.09, -1.10, -.02], [-.08, -.33, 0], [-.10, -.71, 0],
    [-.09, -1.10, -.02], [0, -.02, .01], [0, .23, .01], [0, .31, .07], [0, .53, .03], [.18, .21, 0],
    [.45, .21, -.03], [.70, .21, -.04], [-.18, .21, 0], [-.45, .21, -.03], [-.70, .21, -.04]])
_FACE = [[0, .40, .15], [-.03, .43, .12], [.03, .43, .12], [-.08, .40, .04], [.08, .40, .04]]
# fmt: on
_FACE_VERTICES = [332, 6260, 2800, 4071, 583]
_GENDERS = {"NEUTRAL": ([1, 1, 1], 11), "MALE": ([1.03, 1.04, 1.02], 12), "FEMALE": ([0.97, 0.95, 0.99], 13)}


def _grid(x: Any, bits: int) -> np.ndarray:
    return np.round(np.asarray(x, np.float64) * 2.0**bits) / 2.0**bits


def _regressor(targets: np.ndarray, vertices: np.ndarray, support: int, seed: int) -> np.ndarray:
    """Rows of weights on the vertices nearest to each target; every row sums to exactly 1."""
    random = np.random.RandomState(seed)
    rows = np.zeros((len(targets), _N_VERTICES))
    for row, target in zip(rows, targets):
        nearest = np.argsort(((vertices - target) ** 2).sum(1), kind="stable")[:support]
        weights = random.uniform(0.5, 1.5, support)
        weights = _grid(weights / weights.sum(), 16)
        weights[0] += 1.0 - weights.sum()
        row[nearest] = weights
    return rows


def _shape_basis(vertices: np.ndarray, seed: int) -> np.ndarray:
    random = np.random.RandomState(seed)
    basis = np.zeros((_N_VERTICES, 3, 10))
    for k in range(10):
        linear = random.standard_normal((3, 3)) * 0.03 / (1 + 0.3 * k)
        if k == 0:
            linear = np.eye(3) * 0.045
        if k == 1:
            linear = np.diag([0.05, -0.01, 0.05])
        basis[:, :, k] = vertices @ linear.T + random.standard_normal((_N_VERTICES, 3)) * 0.0015
    return _grid(basis, 20)


def _skinning_weights(vertices: np.ndarray, segments: list, owners: np.ndarray) -> np.ndarray:
    """Soft assignment of vertices to bones: four largest, exact unit sums."""
    squared = []
    for a, b in segments:
        t = np.clip(((vertices - a) @ (b - a)) / ((b - a) @ (b - a)), 0, 1)[:, None]
        squared.append(((vertices - (a + t * (b - a))) ** 2).sum(1))
    distance = np.stack(squared, 1)
    closeness = np.exp(-(distance - distance.min(1, keepdims=True)) / (2 * 0.06**2))
    weights = np.zeros((_N_VERTICES, 24))
    for segment, joint in enumerate(owners):
        weights[:, joint] += closeness[:, segment]
    weights[weights < np.sort(weights, 1)[:, -4][:, None]] = 0
    weights = _grid(weights / weights.sum(1, keepdims=True), 16)
    weights[np.arange(_N_VERTICES), weights.argmax(1)] += 1.0 - weights.sum(1)
    return weights


@functools.cache
def base_arrays() -> dict[str, Any]:
    """Every array of the synthetic base data. The order of the random draws is part of the golden data."""
    random = np.random.RandomState(20240601)
    bones = [(parent, child) for child, parent in enumerate(_PARENTS) if parent >= 0]
    segments = [(_JOINTS[parent], _JOINTS[child]) for parent, child in bones]
    segments += [(_JOINTS[joint], np.array(tip)) for joint, tip in sorted(_TIPS.items())]
    owners = np.array([parent for parent, _ in bones] + sorted(_TIPS))
    length = np.array([np.linalg.norm(b - a) for a, b in segments]) + 0.08
    counts = np.floor(_N_VERTICES * length / length.sum()).astype(int)
    counts[0] += _N_VERTICES - counts.sum()
    parts = []
    for (a, b), n in zip(segments, counts):
        t = random.uniform(0, 1, (n, 1))
        offset = random.standard_normal((n, 3))
        offset /= np.linalg.norm(offset, axis=1, keepdims=True)
        parts.append(a + t * (b - a) + offset * random.uniform(0.03, 0.07, (n, 1)))
    vertices = np.concatenate(parts)[random.permutation(_N_VERTICES)]
    vertices[_FACE_VERTICES] = _FACE
    vertices = _grid(vertices, 20)
    posedirs = np.clip(np.rint(random.standard_normal((_N_VERTICES, 3, 207)) * 24), -127, 127) * 2.0**-15
    faces = random.randint(0, _N_VERTICES, (13776, 3)).astype(np.uint32)

    random = np.random.RandomState(77)
    pose = np.tile(np.array([1.0, 0, 0, 1, 0, 0]), (24, 1))
    pose[0] = [1, 0, 0, -1, 0, 0]
    pose = _grid(pose + random.standard_normal((24, 6)) * 0.08, 12).reshape(144)
    shape = _grid(random.standard_normal(10) * 0.2, 12)
    return {
        "weights": _skinning_weights(vertices, segments, owners),
        "posedirs": posedirs.astype(np.float32),
        "f": faces,
        "J_regressor": _regressor(_JOINTS, vertices, 32, 1),
        "J_regressor_extra": _regressor(_EXTRA_JOINTS, vertices, 24, 2),
        "J_regressor_h36m": _regressor(_H36M_JOINTS, vertices, 24, 3),
        "genders": {
            gender: {"v_template": _grid(vertices * scale, 20), "shapedirs": _shape_basis(vertices, seed)}
            for gender, (scale, seed) in _GENDERS.items()
        },
        "mean": {
            "pose": pose.astype(np.float32),
            "shape": shape.astype(np.float32),
            "cam": np.array([0.9, 0, 0], np.float32),
        },
    }


def write_base_data(folder: Path, genders: Collection[str] = ("NEUTRAL", "MALE", "FEMALE")) -> None:
    """Write the files of a ``data/base_data`` folder: SMPL pickles, joint regressors and mean parameters."""
    arrays = base_arrays()
    folder.mkdir(parents=True, exist_ok=True)
    tree = np.array([[4294967295, *_PARENTS[1:]], range(24)], np.uint32)
    for gender in genders:
        fields = {
            **arrays["genders"][gender],
            **{name: arrays[name] for name in ("posedirs", "weights", "f")},
            "J_regressor": scipy.sparse.csc_matrix(arrays["J_regressor"]),
            "J": arrays["J_regressor"] @ arrays["genders"][gender]["v_template"],
            "kintree_table": tree,
            "bs_type": "lrotmin",
            "bs_style": "lbs",
        }
        (folder / f"SMPL_{gender}.pkl").write_bytes(pickle.dumps(fields, protocol=2))
    np.save(folder / "J_regressor_extra.npy", arrays["J_regressor_extra"])
    np.save(folder / "J_regressor_h36m.npy", arrays["J_regressor_h36m"])
    np.savez(folder / "smpl_mean_params.npz", **arrays["mean"])

"""The numbers of the paper (Choi et al., CVPR 2021, tables 4 and 6), to be printed beside one's own."""

from __future__ import annotations

from ..dataset.datasets import TABLE4_3DPW, TABLE4_H36M_MPII3D, TABLE6_3DPW, TABLE6_H36M, TABLE6_MPII3D

_Row = tuple[float | None, ...]
# Each method: 3DPW PA-MPJPE, MPJPE, MPVPE, Accel; MPI-INF-3DHP PA-MPJPE, MPJPE, Accel; Human3.6M the same.
_TABLE4: dict[str, _Row] = {  # all but HMMR train on 3DPW, without Human3.6M's SMPL parameters
    "HMMR": (72.6, 116.5, 139.3, 15.2, None, None, None, 56.9, None, None),
    "VIBE": (57.6, 91.9, None, 25.4, 68.9, 103.9, 27.3, 53.3, 78.0, 27.3),
    "MEVA": (54.7, 86.9, None, 11.6, 65.4, 96.4, 11.1, 53.2, 76.0, 15.3),
    "TCMR": (52.7, 86.5, 102.9, 6.8, 63.5, 97.3, 8.5, 52.0, 73.6, 3.9),
}
_TABLE6: dict[str, _Row] = {  # none trains on 3DPW
    "HMR (image)": (76.7, 130.0, None, 37.4, 89.8, 124.2, None, 56.8, 88.0, None),
    "GraphCMR (image)": (70.2, None, None, None, None, None, None, 50.1, None, None),
    "SPIN (image)": (59.2, 96.9, 116.4, 29.8, 67.5, 105.2, None, 41.1, None, 18.3),
    "I2L-MeshNet (image)": (57.7, 93.2, 110.1, 30.9, None, None, None, 41.1, 55.7, 13.4),
    "Pose2Mesh (image)": (58.3, 88.9, 106.3, 22.6, None, None, None, 46.3, 64.9, 23.9),
    "HKMR (image)": (None, None, None, None, None, None, None, None, 59.6, None),
    "HMMR": (72.6, 116.5, 139.3, 15.2, None, None, None, 56.9, None, None),
    "Doersch et al.": (74.7, None, None, None, None, None, None, None, None, None),
    "Sun et al.": (69.5, None, None, None, None, None, None, 42.4, 59.1, None),
    "VIBE": (56.5, 93.5, 113.4, 27.1, 63.4, 97.7, 29.0, 41.5, 65.9, 18.3),
    "TCMR": (55.8, 95.0, 111.5, 6.7, 62.8, 96.5, 9.5, 41.1, 62.3, 5.3),
}
_PLACES = {  # where a dataset's columns stand
    "3dpw": {"mpjpe_pa": 0, "mpjpe": 1, "mpvpe": 2, "accel_err": 3},
    "mpii3d": {"mpjpe_pa": 4, "mpjpe": 5, "accel_err": 6},
    "h36m": {"mpjpe_pa": 7, "mpjpe": 8, "accel_err": 9},
}
_TABLES = {
    (TABLE4_3DPW, "3dpw"): ("table 4", _TABLE4),
    (TABLE4_H36M_MPII3D, "mpii3d"): ("table 4", _TABLE4),
    (TABLE4_H36M_MPII3D, "h36m"): ("table 4", _TABLE4),
    (TABLE6_3DPW, "3dpw"): ("table 6", _TABLE6),
    (TABLE6_MPII3D, "mpii3d"): ("table 6", _TABLE6),
    (TABLE6_H36M, "h36m"): ("table 6", _TABLE6),
}


def published(title: str, dataset: str) -> tuple[str, dict[str, dict[str, float | None]]]:
    """The table that a configuration's TITLE belongs to: its name, and errors by method and metric.

    Both are empty where the paper has no number: another title, or another dataset than the title's. Methods
    without any number for the dataset are left out.
    """
    name, table = _TABLES.get((title, dataset), ("", {}))
    places = _PLACES.get(dataset, {})
    rows = {method: {key: row[place] for key, place in places.items()} for method, row in table.items()}
    return name, {method: row for method, row in rows.items() if any(v is not None for v in row.values())}

"""Numbers in databases that are none. They are found before the work begins, or at the latest when a row is
read, and named by file, field and row."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from ..utils.errors import UserError

_ADVICE = {  # what may be NaN
    "joints2D": "; where the confidence is 0, x and y may be NaN",
    "joints3D": "; an unseen joint may be NaN in all three coordinates",
}


def check_numbers(path: Path, field: str, values: Any, start: int = 0) -> None:
    """Whether a block of a field's rows holds numbers only.

    Args:
        values: (n, ...), rows ``start ... start + n - 1``.

    Raises:
        UserError: they are no numbers, or one is NaN or infinite. Unseen joints are let pass: in ``joints2D``
            those of confidence 0, in ``joints3D`` those of which all coordinates are NaN.
    """
    if values.dtype.kind not in "biuf":
        raise UserError(f"database {path}: {field} are of type {values.dtype}, expected numbers")
    # any number that is not finite spoils the sum; the sum of finite ones may overflow
    with np.errstate(over="ignore", invalid="ignore"):
        if not len(values) or math.isfinite(values.sum()):
            return
    if (bad := np.flatnonzero(_bad_rows(field, values))).size:
        raise UserError(
            f"database {path}: {field} of row {start + bad[0]} (counted from 0) are not all finite numbers"
            f"{_ADVICE.get(field, '')}; make the file anew"
        )


def _bad_rows(field: str, values: np.ndarray) -> np.ndarray:
    finite: np.ndarray = np.isfinite(values)
    if field == "joints2D":
        finite[..., :2] |= values[..., 2:] == 0
    elif field == "joints3D":
        finite |= np.isnan(values).all(axis=-1, keepdims=True)
    bad: np.ndarray = np.any(~finite.reshape(len(values), -1), axis=1)
    return bad

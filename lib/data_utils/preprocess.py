"""What every raw dataset goes through: resumable parts, one database file.

A dataset module lists its videos; each gives rows (one per frame and person) and the crops that features are
computed from. :func:`build_database` works through them. A finished video is kept as a part file in a folder
beside the output, so a run that was stopped goes on where it was, and memory holds one video at a time. When
all parts are there, they are copied into the final file and the folder is removed.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import h5py
import joblib
import numpy as np
from tqdm import tqdm

from ..utils.errors import UserError
from ..utils.files import atomic_write, dump_joblib, load_joblib, only_process
from .clips import Rows, Video
from .features import FeatureStep
from .raw import interpreting

log = logging.getLogger(__name__)

_RECORDED = ("crop_scale", "box_factor", "extractor", "fingerprint", "fps", "bf16", "reduced_jpeg")


def build_database(
    path: Path, videos: Sequence[Video], features: FeatureStep | None, settings: dict[str, Any]
) -> None:
    """Work through ``videos`` and write the database ``path``; a file that exists already is left alone.

    Args:
        path: ``.h5`` gives HDF5, anything else an uncompressed joblib dump.
        features: fills the field ``features``; None for a database without.
        settings: everything that the result depends on, plain values. A run that was stopped is continued
            only with the same ones. What the features depend on (``crop_scale``, ``extractor``, ...) becomes
            scalar fields of the file.

    Raises:
        UserError: parts of a run with other settings are there, another process is at work on the file, or no
            video has a usable frame.
    """
    folder = path.with_name(f"{path.name}.parts")
    finished = path.exists()
    if not finished or folder.exists():
        with only_process(folder) as alone:
            if not alone:
                raise UserError(f"another process is at work on {path}: wait for it, or choose another --out")
            if finished := path.exists():
                shutil.rmtree(folder, ignore_errors=True)  # of a run that was stopped at the very end
            else:
                _build(path, folder, videos, features, settings)
    if finished:
        log.info("%s exists: left as it is; delete it to make it anew", path)


def _build(
    path: Path, folder: Path, videos: Sequence[Video], features: FeatureStep | None, settings: dict[str, Any]
) -> None:
    if repeated := [name for name, count in Counter(video.name for video in videos).items() if count > 1]:
        raise UserError(f"two raw files give the same video name {repeated[0]!r}: rename one of them")
    if features is not None:
        extractor = features.extractor
        settings = {**settings, "extractor": extractor.name, "fingerprint": extractor.fingerprint}
    _check_settings(folder, settings)
    parts = [folder / f"{quote(video.name, safe=' ()')}.part" for video in videos]
    ready = sum(part.exists() for part in parts)
    if ready:
        log.info("%s: %d of %d videos are there already", path.name, ready, len(videos))
    with tqdm(total=len(videos), initial=ready, desc=path.name, unit="video") as progress:
        for video, part in zip(videos, parts):
            if part.exists():
                continue
            with interpreting(f"the raw data of {video.name}", "what docs/data.md describes; get it again"):
                clip = video.load()
                _check_finite(clip.rows)
            rows = dict(clip.rows)
            if len(clip) and features is not None:
                rows["features"] = features(video.name, clip)
            dump_joblib(rows if len(clip) else {}, part)
            progress.update()
    frames = join_parts(parts, path, {k: np.array(v) for k, v in settings.items() if k in _RECORDED})
    shutil.rmtree(folder)
    log.info("%s: %d frames", path, frames)


def _check_finite(rows: Rows) -> None:
    for field, values in rows.items():
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            row = int(np.flatnonzero(~np.isfinite(values).reshape(len(values), -1).all(axis=1))[0])
            raise ValueError(f"{field} of row {row} is not made of finite numbers")


def _check_settings(folder: Path, settings: dict[str, Any]) -> None:
    file = folder / "settings.json"
    if not file.exists():
        with atomic_write(file) as temporary:
            temporary.write_text(json.dumps(settings, indent=1, sort_keys=True))
        return
    stored = json.loads(file.read_text())
    differing = sorted(
        k for k in stored.keys() | settings.keys() if k not in stored or stored[k] != settings.get(k)
    )
    if differing:
        changes = ", ".join(f"{k} was {stored.get(k)!r}, now {settings.get(k)!r}" for k in differing)
        raise UserError(
            f"{folder} holds the parts of a run with other options ({changes}): use those again, or delete it"
        )


def join_parts(parts: Sequence[Path], path: Path, scalars: Rows) -> int:
    """Copy parts, in this order, into the database ``path``, holding no more than one at a time.

    Returns the number of rows. Raises UserError if there are none.
    """
    dtypes: dict[str, np.dtype] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    total = 0
    for part in parts:
        rows = load_joblib(part)
        for key, values in rows.items():
            dtypes[key] = np.promote_types(dtypes.get(key, values.dtype), values.dtype)
            shapes[key] = values.shape[1:]
        total += len(next(iter(rows.values()), ()))
    if not total:
        raise UserError(f"{path.name}: no video has a usable frame, so there is nothing to write")
    write = _write_h5 if path.suffix == ".h5" else _write_joblib
    with atomic_write(path) as temporary:
        fields = {key: ((total, *shapes[key]), dtypes[key]) for key in dtypes}
        write(temporary, fields, scalars, (load_joblib(part) for part in parts))
    return total


_Fields = dict[str, tuple[tuple[int, ...], np.dtype]]


def _write_joblib(path: Path, fields: _Fields, scalars: Rows, parts: Iterator[Rows]) -> None:
    # First zeros of the final size, which joblib writes in small blocks; then the parts go to their places.
    blank = {key: np.broadcast_to(np.zeros((), dtype), shape) for key, (shape, dtype) in fields.items()}
    with path.open("wb") as file:
        joblib.dump({**blank, **scalars}, file)
    offsets = {key: values.offset for key, values in load_joblib(path).items() if key in fields}
    with path.open("r+b") as file:
        for rows in parts:
            for key, values in rows.items():
                block = np.ascontiguousarray(values, fields[key][1])
                file.seek(offsets[key])
                file.write(block.view(np.uint8).data)
                offsets[key] += block.nbytes


def _write_h5(path: Path, fields: _Fields, scalars: Rows, parts: Iterator[Rows]) -> None:
    done = 0
    with h5py.File(path, "w") as file:
        for key, (shape, dtype) in fields.items():
            file.create_dataset(key, shape, dtype)
        for key, value in scalars.items():
            file[key] = value.item()
        for rows in parts:
            for key, values in rows.items():
                file[key][done : done + len(values)] = values
            done += len(next(iter(rows.values()), ()))

"""What every raw dataset goes through: static features, resumable parts, one database file.

A dataset module lists its videos; each gives rows (one per frame and person) and the crops that features are
computed from. :func:`build_database` works through them. A finished video is kept as a part file in a folder
beside the output, so a run that was stopped goes on where it was, and memory holds one video at a time. When
all parts are there, they are copied into the final file and the folder is removed.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, cast
from urllib.parse import quote

import h5py
import joblib
import numpy as np
import torch
from tqdm import tqdm

from ..models.body import BASE_DATA, load_body
from ..models.extractors import SpinExtractor, get_extractor
from ..utils.crops import CROP_SIZE, crop_image
from ..utils.errors import UserError, fault
from ..utils.files import atomic_write, dump_joblib, load_joblib, only_process
from ..utils.images import read_image
from ..utils.prefetch import map_ahead
from .occlusion import load_occluders, occlude
from .raw import interpreting

log = logging.getLogger(__name__)

PREPROCESSED = Path("data/preprocessed_data")
_RECORDED = ("crop_scale", "box_factor", "extractor", "fingerprint", "fps", "bf16", "reduced_jpeg")
_JPEG_SUFFIXES = (".jpg", ".jpeg")
Rows = dict[str, np.ndarray]


class CropExtractor(Protocol):
    """Features of crops: (n, 224, 224, 3) uint8 RGB -> (n, feature_size) float32."""

    name: str
    fingerprint: str
    feature_size: int

    def features(self, crops: np.ndarray) -> np.ndarray: ...


@dataclass(frozen=True)
class Clip:
    """Rows of one video, and its crops.

    Attributes:
        rows: database fields with equal first dimension, without ``features``.
        crop: row number -> (224, 224, 3) uint8 RGB, called from threads; None in a database without features.
    """

    rows: Rows
    crop: Callable[[int], np.ndarray] | None = None

    def __post_init__(self) -> None:
        lengths = {key: len(values) for key, values in self.rows.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"fields differ in length: {lengths}")

    def __len__(self) -> int:
        return len(next(iter(self.rows.values()), ()))


@dataclass(frozen=True)
class Video:
    """A unit of work: ``name`` is unique in its database, ``load`` reads the raw data."""

    name: str
    load: Callable[[], Clip]


def image_clip(rows: Rows, scale: float, reduced_jpeg: bool = False) -> Clip:
    """A clip whose crops are ``scale`` times ``bbox`` of the files ``img_name``.

    ``reduced_jpeg``: decode JPEGs at 1/2, 1/4 or 1/8 of their size where the crop is no larger than that.
    """

    def crop(row: int) -> np.ndarray:
        path = Path(rows["img_name"][row])
        bbox = np.asarray(rows["bbox"][row], np.float64)
        reduction = _reduction(bbox, scale) if reduced_jpeg and path.suffix.lower() in _JPEG_SUFFIXES else 1
        image = read_image(path, reduction)
        if reduction > 1:
            bbox = np.concatenate([(bbox[:2] + 0.5) / reduction - 0.5, bbox[2:] / reduction])
        return crop_image(image, bbox, scale)

    return Clip(rows, crop)


def _reduction(bbox: np.ndarray, scale: float) -> int:
    """The largest of 8, 4, 2, 1 at which the crop still has a pixel of its own for each pixel."""
    pixels = bbox[2:].min() * scale / CROP_SIZE
    return next((factor for factor in (8, 4, 2) if factor <= pixels), 1)


# --------------------------------------------------------------------------------
# Features


class FeatureStep:
    """Static features of clips; the network and the occluders are loaded on first use.

    Args:
        extractor: used instead of SPIN.
        base_data: folder of SPIN's checkpoint.
        device: see :func:`choose_device`.
        occluders: folder of Pascal VOC 2012, to paste its objects over the crops; None for none.
        seed: of the occlusion. Each video has its own random stream, whatever was done before it.
        batch_size: crops that go through the network at once.
        workers: threads that read and crop images while the network runs.
        bf16: run SPIN in bfloat16.
    """

    def __init__(
        self,
        extractor: CropExtractor | None = None,
        *,
        base_data: str | Path = BASE_DATA,
        device: str = "auto",
        occluders: Path | None = None,
        seed: int = 1,
        batch_size: int = 64,
        workers: int = 4,
        bf16: bool = False,
    ) -> None:
        self._given, self._base_data, self._device, self._bf16 = extractor, base_data, device, bf16
        self._voc, self._seed, self._batch_size, self._workers = occluders, seed, batch_size, workers

    @cached_property
    def extractor(self) -> CropExtractor:
        """SPIN's network on the chosen device, or the one that was given."""
        if self._given is not None:
            return self._given
        device = choose_device(self._device)
        spin = get_extractor(
            SpinExtractor.name,
            load_body(self._base_data),
            base_data=self._base_data,
            device=device,
            bf16=self._bf16,
        )
        return cast(SpinExtractor, spin)

    @cached_property
    def _occluders(self) -> list[np.ndarray]:
        return load_occluders(self._voc) if self._voc is not None else []

    def __call__(self, video: str, clip: Clip) -> np.ndarray:
        """(n, F) float32 features of a clip of the video of that name."""
        assert clip.crop is not None
        features = np.empty((len(clip), self.extractor.feature_size), np.float32)
        rng = np.random.default_rng([self._seed, zlib.crc32(video.encode())])
        done = 0
        with (
            tqdm(total=len(clip), desc=video[-40:], unit="frame", leave=False) as progress,
            map_ahead(
                clip.crop, range(len(clip)), workers=self._workers, ahead=self._batch_size + self._workers
            ) as every,
        ):
            while crops := list(islice(every, self._batch_size)):
                if self._occluders:
                    crops = [occlude(crop, self._occluders, rng) for crop in crops]
                features[done : done + len(crops)] = self.extractor.features(np.stack(crops))
                done += len(crops)
                progress.update(len(crops))
        return features


def choose_device(name: str) -> torch.device:
    """The device called ``name``; ``auto`` is the first CUDA device, or the CPU.

    Raises:
        UserError: there is no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"--device {name} cannot be used here ({reason}): use auto, cpu or cuda:N") from error
    return device


# --------------------------------------------------------------------------------
# Databases


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


# --------------------------------------------------------------------------------
# Command lines


def make_parser(
    text: str | None,
    folder: str,
    *,
    sets: Sequence[str] = (),
    scale: float | None = None,
    box_factor: float | None = None,
    features: bool = True,
) -> argparse.ArgumentParser:
    """The options that all datasets share. ``None`` and empty values leave an option out.

    Args:
        text: the module's documentation.
        folder: default of ``--dir``.
        sets: choices of ``--set``; all of them are its default.
        scale, box_factor: defaults of ``--scale`` and ``--box-factor``.
        features: whether static features are computed.
    """
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dir", type=Path, default=Path(folder), help="raw dataset (%(default)s)")
    parser.add_argument("--out", type=Path, default=PREPROCESSED, help="folder of databases (%(default)s)")
    if sets:
        parser.add_argument("--set", nargs="+", choices=sets, default=list(sets), help="files (%(default)s)")
    if scale is not None:
        parser.add_argument("--scale", type=positive_number, default=scale, help="crop / box (%(default)s)")
    if box_factor is not None:
        parser.add_argument(
            "--box-factor", type=positive_number, default=box_factor, help="box / person (%(default)s)"
        )
    if features:
        parser.add_argument(
            "--base-data", type=Path, default=Path(BASE_DATA), help="SPIN, SMPL (%(default)s)"
        )
        parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (%(default)s)")
        parser.add_argument(
            "--batch-size", type=positive_integer, default=64, help="crops at once (%(default)s)"
        )
        parser.add_argument(
            "--workers", type=positive_integer, default=4, help="threads that read images (%(default)s)"
        )
        parser.add_argument(
            "--bf16", action="store_true", help="SPIN in bfloat16: faster, features change by about 0.3 %%"
        )
        if scale is not None:
            parser.add_argument(
                "--reduced-jpeg",
                action="store_true",
                help="decode JPEGs at 1/2, 1/4 or 1/8 size where the crop is no larger: faster, not exact",
            )
        parser.add_argument(
            "--occlude", type=Path, metavar="VOC", help="paste objects of Pascal VOC 2012 over the crops"
        )
        parser.add_argument("--seed", type=positive_integer, default=1, help="of the occlusion (%(default)s)")
    return parser


def positive_number(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise ValueError
    return value


def positive_integer(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value


class Job:
    """The parsed options of one command: what files are called, what they depend on, and their features."""

    def __init__(
        self, parser: argparse.ArgumentParser, argv: Sequence[str] | None, extractor: CropExtractor | None
    ) -> None:
        self.args = parser.parse_args(argv)
        self._defaults = {key: parser.get_default(key) for key in ("scale", "box_factor")}
        self.features: FeatureStep | None = None
        if hasattr(self.args, "base_data"):
            self.features = FeatureStep(
                extractor,
                base_data=self.args.base_data,
                device=self.args.device,
                occluders=self.args.occlude,
                seed=self.args.seed,
                batch_size=self.args.batch_size,
                workers=self.args.workers,
                bf16=self.args.bf16,
            )
        logging.basicConfig(level=logging.INFO, format="%(message)s")
        if not self.args.dir.is_dir():
            raise UserError(
                f"--dir {self.args.dir} {fault(self.args.dir)}: expected the raw dataset (docs/data.md shows "
                "how)"
            )

    def database(self, *name: str, suffix: str = ".pt") -> Path:
        """The output's path: the given parts of its name, then what the options change, then ``db``."""
        parts = [*name]
        for key, default in self._defaults.items():
            value = getattr(self.args, key, default)
            label = {"scale": "scale", "box_factor": "box"}[key]
            if value != default and not any(part.startswith(label) for part in name):
                parts.append(label + number_label(value))
        if getattr(self.args, "occlude", None):
            parts.append("occ")
        return self.args.out / f"{'_'.join(part for part in parts if part)}_db{suffix}"

    def build(self, path: Path, videos: Sequence[Video], **settings: Any) -> None:
        """:func:`build_database` with the options that all datasets share, and the dataset's own ones."""
        shared: dict[str, Any] = {"dir": str(self.args.dir)}
        if hasattr(self.args, "scale"):
            shared["crop_scale"] = self.args.scale
        if hasattr(self.args, "box_factor"):
            shared["box_factor"] = self.args.box_factor
        if getattr(self.args, "occlude", None):
            shared |= {"occlude": str(self.args.occlude), "seed": self.args.seed}
        shared |= {key: True for key in ("bf16", "reduced_jpeg") if getattr(self.args, key, False)}
        try:
            build_database(path, videos, self.features, {**shared, **settings})
        except OSError as error:
            raise UserError(
                f"{path} could not be made: {error}. Mend that and run the same command again: it goes on"
                " where it stopped"
            ) from error


def number_label(value: float) -> str:
    """A number in a file name: 1.2 -> ``12``, 1.0 -> ``1``."""
    return f"{value:g}".replace(".", "")

"""The command lines of all datasets: their shared options, and what follows from them."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..models.body import BASE_DATA
from ..utils.errors import UserError, fault
from ..utils.options import positive_integer, positive_number
from .clips import Video
from .features import CropExtractor, FeatureStep
from .preprocess import build_database

PREPROCESSED = Path("data/preprocessed_data")


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
        folder: Path = self.args.out
        return folder / f"{'_'.join(part for part in parts if part)}_db{suffix}"

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

"""What databases hold: ``python -m lib.dataset.info FILE...`` prints fields, videos and lengths.

Arrays of numbers are not read into memory, so a file may be larger than it.
"""

from __future__ import annotations

if __name__ == "__main__":  # first, so that Ctrl-C while the rest is imported is one line, too
    from ..utils.errors import leave_on_signals

    leave_on_signals()

import argparse
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..utils.errors import UserError, printable, run_command
from ..utils.files import to_array
from .database import H5Rows, blocks, read_fields

_SHOWN = 40  # characters of a scalar's value


@dataclass(frozen=True)
class Videos:
    """The videos of a database.

    Attributes:
        lengths: frames by name, in order of first appearance.
        runs: stretches of equal names; more than videos if frames of one are scattered.
    """

    lengths: dict[str, int]
    runs: int


def main(argv: Sequence[str] | None = None) -> None:
    """The command line; see the module's text."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="joblib .pt or HDF5 .h5")
    for path in parser.parse_args(argv).files:
        print(printable(describe(path)))


def describe(path: Path) -> str:
    """The file, its videos, and one line per field.

    Raises:
        UserError: the file is missing, damaged or no database.
    """
    fields = read_fields(path, numbers=False)
    lines = [f"{path}: {path.stat().st_size / 1e6:.1f} MB, {_storage(path, fields)}"]
    arrays = {key: values for key, values in fields.items() if _shape(values)}
    lengths = {len(values) for values in arrays.values()}
    if not lengths:
        raise UserError(f"{path} holds no arrays, so it is no database")
    if len(lengths) > 1:
        lines.append("  fields differ in length: such a file cannot be used")
    if "vid_name" in arrays:
        lines += [
            f"  {line}" for line in _video_lines(list_videos(_array(path, "vid_name", arrays["vid_name"])))
        ]
    else:
        lines.append(f"  {max(lengths)} rows, without vid_name")
    width = max(map(len, fields))
    lines += [f"  {key:<{width}}  {_field(values)}" for key, values in fields.items()]
    return "\n".join(lines)


def list_videos(names: np.ndarray | H5Rows) -> Videos:
    """Count the frames of every video: ``names`` (N,) str or bytes."""
    lengths: dict[str, int] = {}
    runs, last = 0, None
    for _, block in blocks(names):
        starts = np.r_[0, np.flatnonzero(block[1:] != block[:-1]) + 1, len(block)]
        for start, end in itertools.pairwise(starts):
            value = block[start]
            name = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
            runs += name != last
            lengths[name] = lengths.get(name, 0) + int(end - start)
            last = name
    return Videos(lengths, runs)


def _video_lines(videos: Videos) -> list[str]:
    counts = np.array(list(videos.lengths.values()), int)
    lines = [f"{counts.sum()} frames of {len(counts)} videos"]
    if len(counts):
        shortest, longest = (list(videos.lengths)[i] for i in (counts.argmin(), counts.argmax()))
        lines.append(
            f"lengths: {counts.min()} ({shortest}) to {counts.max()} ({longest}), "
            f"median {np.median(counts):g}, {(counts < 16).sum()} under 16"
        )
    if videos.runs > len(counts):
        lines.append(f"scattered: {len(counts)} videos lie in {videos.runs} pieces")
    return lines


def _storage(path: Path, fields: dict[str, Any]) -> str:
    if path.suffix == ".h5":
        return "HDF5"
    mapped = any(isinstance(values, np.memmap) for values in fields.values())
    return "joblib" if mapped else "compressed joblib, which cannot be mapped"


def _array(path: Path, field: str, values: Any) -> np.ndarray | H5Rows:
    try:
        return values if isinstance(values, H5Rows) else to_array(values)
    except ValueError as error:
        raise UserError(f"{path}: {field} {error}; make the file anew") from error


def _shape(values: Any) -> tuple[int, ...]:
    return tuple(getattr(values, "shape", (len(values),) if isinstance(values, (list, tuple)) else ()))


def _field(values: Any) -> str:
    shape = _shape(values)
    kind = getattr(values, "dtype", type(values).__name__)
    if shape:
        return f"{kind!s:<9} {shape}"
    value = values.whole() if isinstance(values, H5Rows) else values
    text = str(value.decode(errors="replace") if isinstance(value, bytes) else value)
    return f"{kind!s:<9} = {text[:_SHOWN]}{'…' * (len(text) > _SHOWN)}"


if __name__ == "__main__":
    run_command(main)

"""Where frames come from, a folder of images or an array: they are streamed, so that any
length fits in memory.

Images are (H, W, 3) uint8 RGB everywhere in the demo.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType

import numpy as np

from ..utils.errors import UserError
from ..utils.images import read_image

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
IMAGE_FPS = Fraction(30)
"""Frame rate of image folders, which carry none."""
FRAMES_AHEAD = 4
"""Frames that a stage of a pass over the video (decoding, drawing, ...) may be ahead of the next stage."""


@dataclass(frozen=True)
class VideoInfo:
    """Size in pixels (after rotation), average frame rate in 1/s, and number of frames (None if unknown)."""

    width: int
    height: int
    fps: Fraction
    frames: int | None


class FrameSource(ABC):
    """Frames that can be iterated over as often as needed; each time they are decoded afresh."""

    path: Path
    name: str
    info: VideoInfo
    damage: str = ""
    """What the first pass could not read, for the user; '' if nothing."""
    tags: Mapping[str, str] = MappingProxyType({})
    """What a video file says of itself."""

    @abstractmethod
    def timed(self) -> Iterator[tuple[Fraction, np.ndarray]]:
        """Time in seconds since the first frame, strictly increasing, and the frame."""

    def __iter__(self) -> Iterator[np.ndarray]:
        return (frame for _, frame in self.timed())


class ImageFolder(FrameSource):
    """The .png, .jpg and .jpeg files of a folder as a video; numbers in their names count as numbers."""

    def __init__(self, path: str | Path, fps: Fraction | None = None) -> None:
        """Raises UserError if the folder is missing or holds no image."""
        self.path = Path(path)
        self.name = self.path.resolve().name
        if self.path.is_file():
            raise UserError(f"{self.path}: is a file; give a video or a single image with --vid_file")
        if not self.path.is_dir():
            raise UserError(f"{self.path}: no such folder; give a folder of images with --img_dir")
        self.files = sorted(
            (
                p
                for p in self.path.iterdir()
                if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".") and p.is_file()
            ),
            key=lambda p: natural_key(p.name),
        )
        if not self.files:
            raise UserError(f"{self.path}: holds no images; expected {', '.join(IMAGE_SUFFIXES)} files")
        height, width = read_image(self.files[0]).shape[:2]
        self.info = VideoInfo(width, height, fps or IMAGE_FPS, len(self.files))

    def timed(self) -> Iterator[tuple[Fraction, np.ndarray]]:
        for i, path in enumerate(self.files):
            image = read_image(path)
            if image.shape[:2] != (self.info.height, self.info.width):
                raise UserError(
                    f"{path}: {image.shape[1]}x{image.shape[0]} pixels, but {self.files[0].name} has "
                    f"{self.info.width}x{self.info.height}; expected images of one size"
                )
            yield i / self.info.fps, image


class FrameList(FrameSource):
    """Images in memory as a video: (T, H, W, 3) uint8 RGB, or a sequence of (H, W, 3)."""

    def __init__(self, frames: Sequence[np.ndarray] | np.ndarray, fps: Fraction | None = None) -> None:
        """``fps``: 30 unless given. Raises UserError if they are no images of one shape."""
        self.path, self.name, self._frames = Path(), "frames", frames
        if not len(frames):
            raise UserError("there are no frames: expected RGB images (T, H, W, 3) uint8")
        for i, frame in enumerate(frames):
            image = np.asarray(frame)
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
                raise UserError(
                    f"frame {i} is {image.dtype} of shape {image.shape}; expected RGB images (H, W, 3) uint8"
                )
            if image.shape != np.asarray(frames[0]).shape:
                raise UserError(f"frame {i} has shape {image.shape}, frame 0 {np.asarray(frames[0]).shape}")
        height, width = np.asarray(frames[0]).shape[:2]
        self.info = VideoInfo(width, height, fps or IMAGE_FPS, len(frames))

    def timed(self) -> Iterator[tuple[Fraction, np.ndarray]]:
        return ((i / self.info.fps, np.ascontiguousarray(frame)) for i, frame in enumerate(self._frames))


def natural_key(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """Key to sort names by, so that 2.png comes before 10.png."""
    parts = re.split(r"([0-9]+)", name.casefold())
    return [(1, int(part), "") if i % 2 else (0, 0, part) for i, part in enumerate(parts)], name

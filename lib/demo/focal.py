"""The focal length of a film: given, told by the camera that made it, or assumed."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

from ..motion.camera import Camera
from ..utils.geometry import default_focal
from ..video.frames import IMAGE_SUFFIXES, FrameSource, ImageFolder

log = logging.getLogger(__name__)

PLAUSIBLE = 0.3, 20.0
"""Focal lengths, in longer sides of the image, that cameras have."""
_FILM = float(np.hypot(36, 24))  # mm, the diagonal that 35 mm equivalents refer to
_MILLIMETRES = {2: 25.4, 3: 10.0, 4: 1.0, 5: 1e-3}  # EXIF's units of resolution
_EQUIVALENT = "35mm_equivalent", "35mmequivalent", "focallengthin35mmfilm", "focal_length_35mm"


def film_camera(source: FrameSource, focal: float | None = None) -> Camera:
    """The camera of a film: of focal length ``focal`` px, or what its metadata say, or the default; the log
    says which. 35 mm equivalents are meant along the diagonal, as EXIF's are."""
    width, height = source.info.width, source.info.height
    if focal is not None:
        camera, reason = Camera(width, height, focal), "--focal"
    else:
        image = source.files[0] if isinstance(source, ImageFolder) else source.path
        told = None
        if image.suffix.lower() in IMAGE_SUFFIXES:
            told = exif_focal(image, width, height)
        elif not isinstance(source, ImageFolder):
            told = tag_focal(source.tags, width, height)
        if told is not None and PLAUSIBLE[0] < told / max(width, height) < PLAUSIBLE[1]:
            camera, reason = Camera(width, height, told, "metadata"), "told by the file's metadata"
        else:
            camera = Camera(width, height, default_focal(width, height), "default")
            reason = "assumed, 1.2 longer sides; --focal gives another"
    log.info("focal length: %.0f px (%s)", camera.focal, reason)
    return camera


def tag_focal(tags: Mapping[str, str], width: int, height: int) -> float | None:
    """px, from a video's tags such as ``com.apple.quicktime.camera.focal_length.35mm_equivalent``; None if
    they do not tell."""
    for name, value in tags.items():
        if name.lower().endswith(_EQUIVALENT):
            try:
                return float(value.split()[0]) / _FILM * float(np.hypot(width, height))
            except (ValueError, IndexError):
                continue
    return None


def exif_focal(path: Path, width: int, height: int) -> float | None:
    """px, from an image's EXIF: the 35 mm equivalent, or the length in mm with the resolution of the sensor;
    None if it does not tell. ``width``, ``height``: of the image."""
    try:
        with Image.open(path) as image:
            exif = image.getexif().get_ifd(ExifTags.IFD.Exif)
        if equivalent := float(exif.get(ExifTags.Base.FocalLengthIn35mmFilm, 0)):
            return equivalent / _FILM * float(np.hypot(width, height))
        length = float(exif.get(ExifTags.Base.FocalLength, 0))
        density = float(exif.get(ExifTags.Base.FocalPlaneXResolution, 0))
        unit = _MILLIMETRES[int(exif.get(ExifTags.Base.FocalPlaneResolutionUnit, 2))]
        taken = max(
            float(exif.get(ExifTags.Base.ExifImageWidth, 0)),
            float(exif.get(ExifTags.Base.ExifImageHeight, 0)),
        )
        # The image may have been made smaller since it was taken.
        shrunk = max(width, height) / taken if taken else 1.0
        return length * density / unit * shrunk or None
    except (OSError, ValueError, TypeError, KeyError, ZeroDivisionError, SyntaxError):
        return None

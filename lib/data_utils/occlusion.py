"""Synthetic occlusion: objects cut out of Pascal VOC 2012, pasted over crops (Sárándi et al., 2018).

Persons are among the objects, and each frame is occluded independently, as in the original.
"""

from __future__ import annotations

import io
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from tqdm import tqdm

from ..utils.errors import UserError
from ..utils.images import check_image_size, read_image
from ..utils.reading import need_file
from .raw import find, interpreting

MIN_PIXELS = 500
EDGE_ALPHA = 192
MAX_OBJECTS = 7
_REFERENCE_SIDE = 256
_BOX_SIDES = ("xmin", "ymin", "xmax", "ymax")  # whole numbers but for a few files
_LAYOUTS = ("", "VOC2012", "VOCdevkit/VOC2012")


def load_occluders(voc: str | Path) -> list[np.ndarray]:
    """Cut the usable objects out of Pascal VOC 2012, at half their size.

    Usable are objects of segmented images that are neither ``difficult`` nor ``truncated`` and show at least
    500 pixels.

    Args:
        voc: the folder with ``Annotations``, ``JPEGImages`` and ``SegmentationObject``, or one above it.

    Returns:
        (h, w, 4) uint8 RGB and opacity, one per object, ordered by file and object.

    Raises:
        UserError: the folder is not VOC's, a file is missing or damaged, or no object is usable.
    """
    folders = [Path(voc) / layout for layout in _LAYOUTS]
    folder = next((f for f in folders if (f / "Annotations").is_dir()), None)
    if folder is None:
        raise UserError(
            f"{voc} holds no Annotations folder: expected the unpacked Pascal VOC 2012 (VOCdevkit)"
        )
    occluders = []
    annotations = find(folder / "Annotations", "*.xml", "Pascal VOC's annotations")
    for annotation in tqdm(annotations, desc="occluders", unit="image", leave=False):
        with interpreting(annotation, "an annotation of Pascal VOC, its image and its masks"):
            occluders += _objects(folder, annotation)
    if not occluders:
        raise UserError(f"{folder} gives no occluder: expected segmented images with whole objects")
    return occluders


def _objects(folder: Path, annotation: Path) -> list[np.ndarray]:
    try:
        root = ElementTree.parse(annotation).getroot()
        if root.findtext("segmented", "0") == "0":
            return []
        boxes = [
            (number, [int(float(obj.findtext(f"bndbox/{side}", ""))) for side in _BOX_SIDES])
            for number, obj in enumerate(root.findall("object"), start=1)
            if obj.findtext("difficult", "0") == "0" and obj.findtext("truncated", "0") == "0"
        ]
    except (ElementTree.ParseError, ValueError, OverflowError) as error:
        raise UserError(
            f"{annotation} is no Pascal VOC annotation ({error}): unpack the archive again"
        ) from error
    if not boxes:
        return []
    image = read_image(folder / "JPEGImages" / f"{annotation.stem}.jpg")
    labels = _read_labels(folder / "SegmentationObject" / f"{annotation.stem}.png")
    ellipse = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (8, 8))
    objects = []
    for number, (xmin, ymin, xmax, ymax) in boxes:
        alpha = (labels[ymin:ymax, xmin:xmax] == number).astype(np.uint8) * 255
        if np.count_nonzero(alpha) < MIN_PIXELS:
            continue
        alpha[cv2.erode(alpha, ellipse) < alpha] = EDGE_ALPHA
        objects.append(resize_by(np.dstack([image[ymin:ymax, xmin:xmax], alpha]), 0.5))
    return objects


def _read_labels(path: Path) -> np.ndarray:
    """(H, W) object numbers. OpenCV would give the palette's colours instead."""
    data = need_file(path, "Pascal VOC's object masks").read_bytes()
    try:
        check_image_size(data, path)
        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"{path} is damaged ({error}): unpack the archive again") from error


def resize_by(image: np.ndarray, factor: float) -> np.ndarray:
    """Resize by a factor, to at least a pixel: bilinear to enlarge, area average to shrink."""
    size = np.maximum(np.round(np.array([image.shape[1], image.shape[0]]) * factor).astype(int), 1)
    return cv2.resize(image, size.tolist(), interpolation=cv2.INTER_LINEAR if factor > 1 else cv2.INTER_AREA)


def paste(patch: np.ndarray, image: np.ndarray, centre: np.ndarray) -> None:
    """Blend ``patch`` (h, w, 4) onto ``image`` (H, W, 3), in place, around ``centre`` = (x, y), clipped."""
    size = np.array([patch.shape[1], patch.shape[0]])
    low = np.round(centre).astype(int) - size // 2
    x0, y0 = np.maximum(low, 0)
    x1, y1 = np.minimum(low + size, [image.shape[1], image.shape[0]])
    if x0 >= x1 or y0 >= y1:
        return
    visible = patch[y0 - low[1] : y1 - low[1], x0 - low[0] : x1 - low[0]]
    alpha = visible[..., 3:].astype(np.float32) / 255
    region = image[y0:y1, x0:x1]
    region[...] = alpha * visible[..., :3] + (1 - alpha) * region


def occlude(image: np.ndarray, occluders: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """A copy of ``image`` (H, W, 3) uint8 with 1 to 7 random objects pasted over it."""
    result = image.copy()
    size = np.array([image.shape[1], image.shape[0]])
    for _ in range(rng.integers(1, MAX_OBJECTS + 1)):
        occluder = occluders[int(rng.integers(len(occluders)))]
        factor = rng.uniform(0.2, 1.0) * size.min() / _REFERENCE_SIDE
        centre = rng.uniform([0, 0], size)
        paste(resize_by(occluder, factor), result, centre)
    return result

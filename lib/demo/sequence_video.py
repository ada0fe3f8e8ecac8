"""Videos of evaluated sequences: the predicted meshes drawn over the dataset's images."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from ..core.evaluation import Bodies, SequenceErrors
from ..data_utils.boxes import scale_bboxes
from ..models.smpl import SMPL
from ..motion.meshes import Meshes
from ..motion.motion import Placed
from ..utils.crops import CROP_SCALE
from ..utils.errors import UserError
from ..utils.geometry import crop_cam_to_image_cam
from ..utils.images import read_image
from ..video.writer import VideoWriter
from .render import Renderer

logger = logging.getLogger(__name__)

LAST_FRAME = 240  # frames after the first one that are drawn
DEFAULT_FPS = 30.0
_PLAIN_CAMERA = (1.0, 0.0, 0.0)
_COLOUR = (1.0, 1.0, 0.9)


def write_videos(
    sequences: Sequence[SequenceErrors],
    smpl: SMPL,
    folder: Path,
    *,
    first_frame: int = 0,
    plain: bool = False,
    fps: float | None = None,
) -> list[Path]:
    """Write ``{folder}/tcmr_{sequence}[_plain]_{first_frame}.mp4`` for every sequence, and return the files.

    Frames whose number (in the image's file name) is ``first_frame`` to ``first_frame + 240`` are drawn, at
    half of the image's size. A sequence without any is left out with a warning.

    Args:
        sequences: with ``bodies``.
        plain: draw on black, with the camera (1, 0, 0) and the box of the first frame drawn.

    Raises:
        UserError: an image is missing or damaged, its name has no number, or no sequence has such frames.
    """
    files, ranges = [], []
    for sequence in sequences:
        assert sequence.bodies is not None, "the evaluation set was opened without images"
        numbers = frame_numbers(sequence.bodies.images)
        rows = np.flatnonzero((numbers >= first_frame) & (numbers <= first_frame + LAST_FRAME))
        if not len(rows):
            ranges.append(f"{sequence.name} has {numbers.min()} to {numbers.max()}")
            logger.warning(
                "not drawn, no frame %d to %d: %s", first_frame, first_frame + LAST_FRAME, ranges[-1]
            )
            continue
        name = f"tcmr_{Path(sequence.name).name}{'_plain' * plain}_{first_frame}.mp4"
        files.append(folder / name)
        _write_video(files[-1], sequence.bodies, rows, smpl, plain, fps or DEFAULT_FPS)
    if not files:
        raise UserError(f"--frame {first_frame}: no frame is numbered so or up to 240 more: {ranges[0]}")
    return files


def frame_numbers(images: np.ndarray) -> np.ndarray:
    """Numbers of frames (n,) from the names of their files, as in ``image_00012.jpg``.

    Raises:
        UserError: a name does not end in a number.
    """
    matches = [re.search(r"(\d+)(\.\w+)?$", str(image)) for image in images]
    for image, match in zip(images, matches):
        if match is None:
            raise UserError(
                f"image {image} has no frame number at the end of its name, as image_00012.jpg has: "
                "sequences of this database cannot be drawn"
            )
    return np.array([int(match[1]) for match in matches if match], int)


def _write_video(path: Path, bodies: Bodies, rows: np.ndarray, smpl: SMPL, plain: bool, fps: float) -> None:
    files = [Path(str(bodies.images[row])) for row in rows]
    for file in files[: 1 if plain else None]:  # before anything is drawn
        if not file.is_file():
            raise UserError(
                f"image {file} does not exist: the database names it so; put the dataset's images there, or "
                "run from the folder that such paths start in"
            )
    height, width = read_image(files[0]).shape[:2]
    boxes = scale_bboxes(bodies.boxes[rows], CROP_SCALE)
    cameras = bodies.theta[rows, :3].astype(np.float64)
    if plain:
        boxes, cameras = np.repeat(boxes[:1], len(rows), 0), np.tile(_PLAIN_CAMERA, (len(rows), 1))
    cameras = crop_cam_to_image_cam(cameras, boxes, width, height)
    renderer = Renderer(smpl.faces, width, height)
    half = (width // 4 * 2, height // 4 * 2)
    with VideoWriter(path, Fraction(fps).limit_denominator(1000)) as video:
        # As measured: with a shape of its own and a weak camera for every frame.
        still = Placed(bodies.rotmat[rows], np.zeros((len(rows), 3), np.float32))
        meshes = Meshes(smpl, still, bodies.theta[rows, 75:])
        for k in tqdm(range(len(rows)), desc=path.stem, disable=None):
            image = np.zeros((height, width, 3), np.uint8) if plain else read_image(files[k])
            if image.shape[:2] != (height, width):
                raise UserError(
                    f"image {files[k]} is {image.shape[1]}x{image.shape[0]}, expected {width}x{height} like "
                    f"{files[0]}: repair it"
                )
            drawn = renderer.render(image, [(meshes[k], _COLOUR)], cameras[k])
            video.write(cv2.resize(drawn, half, interpolation=cv2.INTER_AREA), k / video.fps)

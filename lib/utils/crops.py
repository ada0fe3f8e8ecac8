"""From a frame and a box to the network's input crop, and keypoints into the crop's coordinates.

Boxes are ``(cx, cy, w, h)`` in pixels, pixel centres at whole numbers (OpenCV's convention).
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from jaxtyping import Float, Shaped, UInt8
from torch import Tensor

from .geometry import CROP_SIZE

CROP_SCALE = 1.2
"""Factor from a person's box to the crop in the demo, and to the crop coordinates of all 2D targets."""
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def crop_matrix(
    bbox: Shaped[np.ndarray, " 4"], scale: float = CROP_SCALE, size: int = CROP_SIZE
) -> Float[np.ndarray, "2 3"]:
    """The affine map that sends the box's centre to the crop's centre and ``scale`` x box to the crop."""
    cx, cy, width, height = (float(v) for v in bbox)
    # Through three float32 points, as in the original: warpAffine's fixed-point grid feels the last bit.
    source = np.array(
        [[cx, cy], [cx, cy + height * scale / 2], [cx + width * scale / 2, cy]], dtype=np.float32
    )
    half = size / 2
    target = np.array([[half, half], [half, size], [size, half]], dtype=np.float32)
    return cv2.getAffineTransform(source, target)


def crop_image(
    image: UInt8[np.ndarray, "height width 3"],
    bbox: Shaped[np.ndarray, " 4"],
    scale: float = CROP_SCALE,
    size: int = CROP_SIZE,
) -> UInt8[np.ndarray, "{size} {size} 3"]:
    """Crop a box out of an image, bilinear, black outside the image.

    Args:
        image: RGB, and so is the crop.
        bbox: ``cx, cy, w, h`` in pixels, before ``scale``.
        scale: factor on width and height.
        size: side of the crop in pixels.
    """
    return cv2.warpAffine(image, crop_matrix(bbox, scale, size), (size, size), flags=cv2.INTER_LINEAR)


def normalise_crop(
    crops: UInt8[np.ndarray, "*n h w 3"], device: torch.device | str = "cpu"
) -> Float[Tensor, "_ 3 h w"]:
    """ImageNet-normalise one or n RGB crops: float32 on ``device``, in channels-last order."""
    batch = crops[None] if crops.ndim == 3 else crops
    pixels = torch.from_numpy(np.ascontiguousarray(batch)).to(device).permute(0, 3, 1, 2).float()
    mean, std = (torch.tensor(v, device=device).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    return pixels.div_(255).sub_(mean).div_(std)


def transform_keypoints(
    kp_2d: Shaped[np.ndarray, "*batch j d"], bbox: Shaped[np.ndarray, "*batch 4"], scale: float = CROP_SCALE
) -> Float[np.ndarray, "*batch j d"]:
    """Image pixels -> crop coordinates in [-1, 1]; the input is left as it is.

    Args:
        kp_2d: x, y in pixels; further columns (confidence) are copied through.
        bbox: ``cx, cy, w, h`` in pixels, before ``scale``.
        scale: factor on width and height.

    Returns:
        Of the input's float type; the box's centre is (0, 0), the scaled box's edge is +-1.
    """
    out = np.array(kp_2d, dtype=np.result_type(kp_2d, np.float32))
    box = np.asarray(bbox, np.float64)[..., None, :]
    out[..., :2] = (out[..., :2] - box[..., :2]) / (box[..., 2:] * scale / 2)
    return out


def crop_to_image(
    kp_2d: Shaped[np.ndarray, "*batch j d"], bbox: Shaped[np.ndarray, "*batch 4"], scale: float = CROP_SCALE
) -> Float[np.ndarray, "*batch j d"]:
    """Inverse of :func:`transform_keypoints`: crop coordinates in [-1, 1] -> image pixels."""
    out = np.array(kp_2d, dtype=np.result_type(kp_2d, np.float32))
    box = np.asarray(bbox, np.float64)[..., None, :]
    out[..., :2] = out[..., :2] * (box[..., 2:] * scale / 2) + box[..., :2]
    return out

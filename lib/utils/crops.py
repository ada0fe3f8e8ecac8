"""From a frame and a box to the network's input crop, and keypoints into the crop's coordinates.

Boxes are ``(cx, cy, w, h)`` in pixels, pixel centres at whole numbers (OpenCV's convention).
"""

from __future__ import annotations

import cv2
import numpy as np
import torch

from .geometry import CROP_SIZE

CROP_SCALE = 1.2
"""Factor from a person's box to the crop in the demo, and to the crop coordinates of all 2D targets."""
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def crop_matrix(bbox: np.ndarray, scale: float = CROP_SCALE, size: int = CROP_SIZE) -> np.ndarray:
    """(2, 3) affine map that sends the box's centre to the crop's centre and ``scale`` x box to the crop."""
    cx, cy, width, height = (float(v) for v in bbox)
    # Through three float32 points, as in the original: warpAffine's fixed-point grid feels the last bit.
    source = np.array(
        [[cx, cy], [cx, cy + height * scale / 2], [cx + width * scale / 2, cy]], dtype=np.float32
    )
    half = size / 2
    target = np.array([[half, half], [half, size], [size, half]], dtype=np.float32)
    return cv2.getAffineTransform(source, target)


def crop_image(
    image: np.ndarray, bbox: np.ndarray, scale: float = CROP_SCALE, size: int = CROP_SIZE
) -> np.ndarray:
    """Crop a box out of an image, bilinear, black outside the image.

    Args:
        image: (H, W, 3) uint8, RGB.
        bbox: (4,) ``cx, cy, w, h`` in pixels, before ``scale``.
        scale: factor on width and height.
        size: side of the crop in pixels.

    Returns:
        (size, size, 3) uint8, RGB.
    """
    return cv2.warpAffine(image, crop_matrix(bbox, scale, size), (size, size), flags=cv2.INTER_LINEAR)


def normalise_crop(crops: np.ndarray, device: torch.device | str = "cpu") -> torch.Tensor:
    """ImageNet-normalise crops: (h, w, 3) or (n, h, w, 3) uint8 RGB -> (n, 3, h, w) float32 on ``device``,
    in channels-last order."""
    batch = crops[None] if crops.ndim == 3 else crops
    pixels = torch.from_numpy(np.ascontiguousarray(batch)).to(device).permute(0, 3, 1, 2).float()
    mean, std = (torch.tensor(v, device=device).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    return pixels.div_(255).sub_(mean).div_(std)


def transform_keypoints(kp_2d: np.ndarray, bbox: np.ndarray, scale: float = CROP_SCALE) -> np.ndarray:
    """Image pixels -> crop coordinates in [-1, 1]; the input is left as it is.

    Args:
        kp_2d: (*, J, 2+) x, y in pixels; further columns (confidence) are copied through.
        bbox: (*, 4) ``cx, cy, w, h`` in pixels, before ``scale``.
        scale: factor on width and height.

    Returns:
        (*, J, 2+) of the input's float type; the box's centre is (0, 0), the scaled box's edge is +-1.
    """
    out = np.array(kp_2d, dtype=np.result_type(kp_2d, np.float32))
    box = np.asarray(bbox, np.float64)[..., None, :]
    out[..., :2] = (out[..., :2] - box[..., :2]) / (box[..., 2:] * scale / 2)
    return out


def crop_to_image(kp_2d: np.ndarray, bbox: np.ndarray, scale: float = CROP_SCALE) -> np.ndarray:
    """Inverse of :func:`transform_keypoints`: crop coordinates in [-1, 1] -> image pixels."""
    out = np.array(kp_2d, dtype=np.result_type(kp_2d, np.float32))
    box = np.asarray(bbox, np.float64)[..., None, :]
    out[..., :2] = out[..., :2] * (box[..., 2:] * scale / 2) + box[..., :2]
    return out

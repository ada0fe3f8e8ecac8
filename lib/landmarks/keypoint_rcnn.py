"""torchvision's Keypoint R-CNN as person detector: slow, but sees small and crowded people."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8

from ..utils.errors import UserError
from .blazepose import Detection

_PERSON = 1
_LEFT_SHOULDER, _RIGHT_SHOULDER, _LEFT_HIP, _RIGHT_HIP = 5, 6, 11, 12  # of COCO's 17 keypoints
_MARGIN = 1.1  # keypoints end at eyes and ankles, the circle goes about head and feet


class KeypointRCNN:
    """Finds persons in an image, see :class:`lib.landmarks.blazepose.PersonDetector`."""

    short_sighted = False

    def __init__(
        self, device: torch.device | str = "cpu", min_score: float = 0.7, network: Any | None = None
    ) -> None:
        """``network``: another one with torchvision's outputs. By default the one that torchvision trained on
        COCO, which it downloads on first use.

        Raises UserError if torchvision or the weights are missing.
        """
        self._device = torch.device(device)
        self._min_score = min_score
        self._network = (network or _trained()).to(self._device).eval()

    @torch.inference_mode()
    def detect(self, rgb: UInt8[np.ndarray, "height width 3"]) -> list[Detection]:
        """Persons in ``rgb``, surest first."""
        image = torch.from_numpy(np.ascontiguousarray(rgb)).to(self._device).permute(2, 0, 1) / 255
        (output,) = self._network([image])
        people = (output["labels"] == _PERSON) & (output["scores"] > self._min_score)
        scores, boxes, keypoints = (
            output[name][people].cpu().numpy().astype(np.float64) for name in ("scores", "boxes", "keypoints")
        )
        return [
            Detection(float(scores[i]), boxes[i], *body_circle(keypoints[i, :, :2]))
            for i in np.argsort(-scores)
        ]


def body_circle(
    keypoints: Float[np.ndarray, "17 2"],
) -> tuple[Float[np.ndarray, " 2"], Float[np.ndarray, " 2"]]:
    """Centre between the hips, and a point on the rim, beyond the head."""
    centre = keypoints[[_LEFT_HIP, _RIGHT_HIP]].mean(axis=0)
    up = keypoints[[_LEFT_SHOULDER, _RIGHT_SHOULDER]].mean(axis=0) - centre
    length = float(np.linalg.norm(up))
    up = up / length if length > 1e-6 else np.array([0.0, -1.0])
    radius = _MARGIN * float(np.linalg.norm(keypoints - centre, axis=1).max())
    return centre, centre + max(radius, 1.0) * up


def _trained() -> Any:
    try:
        from torchvision.models import detection
    except (ImportError, RuntimeError) as error:  # torchvision of another torch raises RuntimeError
        raise UserError(
            f"--detector torchvision: torchvision cannot be imported ({error}); install the one that goes "
            "with this torch, or choose another detector"
        ) from error
    try:
        return detection.keypointrcnn_resnet50_fpn(weights="DEFAULT", progress=False)
    except (OSError, RuntimeError) as error:  # RuntimeError: the download is damaged
        raise UserError(
            f"--detector torchvision: the weights of Keypoint R-CNN could not be fetched ({error}); "
            f"put them into {torch.hub.get_dir()}/checkpoints, or choose another detector"
        ) from error

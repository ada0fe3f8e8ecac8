"""The static feature extractor: SPIN's ResNet-50 and regressor (Kolotouros et al., ICCV 2019)."""

from __future__ import annotations

from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from ..utils.files import load_checkpoint
from .body import BodyData
from .regressor import Regressor
from .resnet import add_resnet50, resnet50_features
from .weights import load_weights, per_frame_weights


class HMR(Regressor):
    """Image to feature by :meth:`feature_extractor`, and feature to body by :meth:`Regressor.forward`.

    Args:
        body: the body model.
    """

    def __init__(self, body: BodyData) -> None:
        super().__init__(body, feature_size=2048)
        add_resnet50(self)

    def feature_extractor(self, x: Float[Tensor, "n 3 224 224"]) -> Float[Tensor, "n 2048"]:
        """Static features of RGB images in [0, 1], then normalised by the ImageNet mean and deviation."""
        return resnet50_features(self, x)


def load_hmr(checkpoint: str | Path, body: BodyData) -> HMR:
    """SPIN from its checkpoint, in evaluation mode on the CPU.

    Raises:
        UserError: the file is missing, damaged, or not SPIN's.
    """
    model = HMR(body)
    weights = per_frame_weights(load_checkpoint(checkpoint), checkpoint)
    load_weights(model, weights, checkpoint, own_prefix="smpl.", allow_more=True)
    return model.eval()

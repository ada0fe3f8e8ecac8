"""The static feature extractor: SPIN's ResNet-50 and regressor (Kolotouros et al., ICCV 2019)."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from ..utils.files import load_checkpoint
from .body import BodyData
from .regressor import Regressor
from .resnet import add_resnet50, resnet50_features
from .weights import load_weights, per_frame_weights


class HMR(Regressor):
    """Image to feature, and feature to body.

    Images are (n, 3, 224, 224), RGB, in [0, 1] and then normalised by the ImageNet mean and deviation.

    Args:
        body: the body model.
    """

    def __init__(self, body: BodyData) -> None:
        super().__init__(body, feature_size=2048)
        add_resnet50(self)

    def feature_extractor(self, x: Tensor) -> Tensor:
        """Static features (n, 2048) of images (n, 3, 224, 224)."""
        return resnet50_features(self, x)

    def forward(  # type: ignore[override]
        self,
        x: Tensor,
        init_pose: Tensor | None = None,
        init_shape: Tensor | None = None,
        init_cam: Tensor | None = None,
        n_iter: int = 3,
        return_features: bool = False,
    ) -> list[dict[str, Tensor]] | tuple[Tensor, list[dict[str, Tensor]]]:
        """Regress bodies from images (n, 3, 224, 224).

        Returns:
            the list of :meth:`Regressor.forward`; with ``return_features`` features (n, 2048) and the list.
        """
        features = self.feature_extractor(x)
        output = super().forward(features, init_pose, init_shape, init_cam, n_iter)
        return (features, output) if return_features else output


def load_hmr(checkpoint: str | Path, body: BodyData) -> HMR:
    """SPIN from its checkpoint, in evaluation mode on the CPU.

    Raises:
        UserError: the file is missing, damaged, or not SPIN's.
    """
    model = HMR(body)
    weights = per_frame_weights(load_checkpoint(checkpoint), checkpoint)
    load_weights(model, weights, checkpoint, own_prefix="smpl.", allow_more=True)
    return model.eval()

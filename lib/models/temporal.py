"""Temporal encoders: from a window of static features to a feature of its middle frame."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..utils.registry import Registry
from .precision import Precision, dtype_of, tf32
from .weights import matrix_of

States = Callable[[Tensor, Tensor], tuple[Tensor, Tensor | None]]


class TemporalEncoder(nn.Module):
    """What goes between static features and the regressor. Own ones need only a constructor with these
    arguments and :meth:`forward`, and are registered in :data:`ENCODERS`; docs/plugins.md.

    Args:
        n_layers, hidden_size: MODEL.TGRU, whatever that means for the encoder.
        seq_len: window length; the middle frame is ``seq_len // 2``, counted from 0.
        feature_size: numbers per frame in and out.

    Attributes:
        outputs: M, features per window in training; each learns to give the middle frame, and the last is
            what predicts.
    """

    outputs = 1

    def __init__(self, n_layers: int, seq_len: int, hidden_size: int, feature_size: int) -> None:
        super().__init__()

    def forward(
        self, x: Float[Tensor, "n t f"], is_train: bool = False
    ) -> tuple[Float[Tensor, "n *m f"], Float[Tensor, "n 3"] | None]:
        """Encode windows.

        Returns:
            features (n, f), with ``is_train`` (n, M, f); and the weights that past, current and future got in
            them, or None.
        """
        raise NotImplementedError

    def encode_windows(
        self, frames: Float[Tensor, "u f"], windows: Int[Tensor, "n t"], is_train: bool = False
    ) -> tuple[Float[Tensor, "n *m f"], Float[Tensor, "n 3"] | None]:
        """:meth:`forward` of ``frames[windows]``; an encoder may do work that windows share once."""
        encoded: tuple[Tensor, Tensor | None] = self(frames[windows], is_train)
        return encoded

    def prepare(
        self, matrix: Float[Tensor, "s f"], offset: Float[Tensor, " s"], precision: Precision, rows: int
    ) -> States:
        """Copies of the weights for many predictions without gradient, and what follows them.

        Args:
            matrix, offset: a feature x is followed by ``x @ matrix.T + offset``.
            precision: of products in the encoder. rows: windows predicted at once, about.

        Returns:
            a function of frames (u, f) and windows (n, t): (n, s), and the weights of :meth:`forward`.
        """
        encoder = deepcopy(self).eval()
        dtype = dtype_of(precision, offset.dtype)

        def states(frames: Tensor, windows: Tensor) -> tuple[Tensor, Tensor | None]:
            reduced = torch.autocast(frames.device.type, dtype, enabled=dtype != offset.dtype)
            with reduced, tf32(precision == "tf32"):
                features, scores = encoder.encode_windows(frames, windows)
            return features.to(offset.dtype) @ matrix.T + offset, scores

        return states

    @classmethod
    def sizes(cls, weights: Mapping[str, Tensor]) -> dict[str, int] | None:
        """What weights of such an encoder say of MODEL.TGRU.NUM_LAYERS, MODEL.TGRU.HIDDEN_SIZE and
        MODEL.FEATURE_SIZE. A checkpoint whose configuration says otherwise is refused before a network of any
        size is built from it. None, the default, leaves it to a comparison of the number of weights.
        """
        return None


ENCODERS: Registry[type[TemporalEncoder]] = Registry("temporal encoder", "MODEL.TEMPORAL_TYPE")


def gru_sizes(weights: Mapping[str, Tensor], gru: str) -> dict[str, int]:
    """:meth:`TemporalEncoder.sizes` of an encoder with a ``torch.nn.GRU`` of that name over the features."""
    first = matrix_of(weights, f"{gru}.weight_ih_l0")
    layers = sum(name.startswith(f"{gru}.weight_ih_l") and name[-1].isdigit() for name in weights)
    return {
        "MODEL.TGRU.NUM_LAYERS": layers,
        "MODEL.TGRU.HIDDEN_SIZE": len(first) // 3,
        "MODEL.FEATURE_SIZE": first.shape[-1],
    }

"""TCMR: a temporally consistent body from a window of static image features (Choi et al., CVPR 2021), and
models with another temporal encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..utils.errors import UserError
from ..utils.files import load_checkpoint
from . import per_frame as per_frame  # registers its encoder
from . import vibe as vibe  # the same
from .body import BodyData, load_body
from .encoder import run_windows
from .regressor import STATE, STATE_SIZE, Regressor
from .temporal import ENCODERS
from .weights import load_weights, per_frame_weights

Borders = Literal["static", "edge"]


class TCMR(nn.Module):
    """A temporal encoder, by default PoseForecast, and the iterative regressor.

    Args:
        seqlen: window length T.
        n_layers, hidden_size: GRU layers and hidden size of the encoder.
        feature_size: F, numbers per static feature.
        regressor_hidden_size, regressor_dropout: see :class:`lib.models.regressor.Regressor`.
        body: body model; by default what :func:`lib.models.body.load_body` finds.
        borders: what the ends of a sequence see where a prediction is not told otherwise, see
            :func:`lib.models.predict.window_indices`.
        feature_smooth: frames, width of the Gaussian that a sequence's features get before the windows.
        starts_from_feature: the regressor starts from the first 157 numbers of the middle frame's feature (6D
            pose, betas, crop camera) rather than from the mean state, so that it learns a correction.
        pretrained: checkpoint of a per-frame network whose regressor is the starting point; '' for none.
        encoder: name in :data:`lib.models.temporal.ENCODERS`.

    Raises:
        UserError: there is no such encoder; or ``pretrained`` is missing, or does not fit this model or its
            body.
    """

    def __init__(
        self,
        seqlen: int = 16,
        n_layers: int = 2,
        hidden_size: int = 1024,
        feature_size: int = 2048,
        regressor_hidden_size: int = 1024,
        regressor_dropout: float = 0.5,
        body: BodyData | None = None,
        borders: Borders = "static",
        feature_smooth: float = 0.0,
        starts_from_feature: bool = False,
        pretrained: str | Path = "",
        encoder: str = "tcmr",
    ) -> None:
        super().__init__()
        body = load_body() if body is None else body
        self.body_kind = body.kind
        self.seqlen, self.borders = seqlen, borders
        self.feature_size, self.feature_smooth = feature_size, feature_smooth
        self.starts_from_feature = starts_from_feature
        if starts_from_feature and feature_size < STATE_SIZE:
            raise UserError(
                f"MODEL.FEATURE_SIZE is {feature_size}, MODEL.START_FROM_FEATURE needs {STATE_SIZE} or more: "
                "choose another extractor or leave the key out"
            )
        self.encoder = ENCODERS[encoder](n_layers, seqlen, hidden_size, feature_size)
        self.regressor = Regressor(body, feature_size, regressor_hidden_size, regressor_dropout)
        if starts_from_feature:  # at first the estimate stands as it is
            for decoder in (self.regressor.decpose, self.regressor.decshape, self.regressor.deccam):
                nn.init.zeros_(decoder.weight)
                nn.init.zeros_(decoder.bias)
        if pretrained:
            self._load_pretrained_regressor(pretrained)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.regressor.init_cam.device

    @property
    def dtype(self) -> torch.dtype:
        """Of its weights."""
        return self.regressor.init_cam.dtype

    def forward(
        self,
        x: Float[Tensor, "n t f"],
        is_train: bool = False,
        J_regressor: Float[Tensor, "17 v"] | None = None,
        return_verts: bool = True,
    ) -> tuple[list[dict[str, Tensor]], Float[Tensor, "n 3"] | None]:
        """Predict the body of the middle frame of each window.

        Args:
            x: windows of static features.
            is_train: all of the encoder's M outputs; of PoseForecast also from the past and the future alone.
            J_regressor: for the 14 evaluation joints; ignored with ``is_train``.
            return_verts: False leaves out ``verts``.

        Returns:
            a list of one dict (keys and units of :meth:`Regressor.forward`, and ``scores``) and the attention
            scores (N, 3) of past, current, future, both without scores if the encoder has none. Tensors are
            (N, …), with ``is_train`` (N, M, …), for PoseForecast past, future, integrated.
        """
        features, scores = self.encoder(x, is_train)
        middle = x[:, self.seqlen // 2]
        if is_train:
            output = self._regress_branches(features, middle, return_verts)
        else:
            output = self._regress(features, middle, J_regressor, return_verts)
        return [_with_scores(output, scores)], scores

    def forward_runs(self, features: Float[Tensor, "n t f"], run_length: int = 1) -> dict[str, Tensor]:
        """What :meth:`forward` predicts in training, without ``verts``, for runs of consecutive windows.

        Args:
            features: static features (N, T + R - 1, F) of consecutive frames; window k of a run of R sees
                frames ``k ... k + T - 1``.
            run_length: R.

        Returns:
            a dict of tensors (N * R, M, …), the windows of a run one after the other.
        """
        windows = features
        if run_length > 1:
            indices = run_windows(len(features), self.seqlen, run_length, features.device)
            if not features.is_cuda:  # where cuDNN's GRU takes less time than sharing work saves
                frames = features.flatten(0, 1)
                encoded, scores = self.encoder.encode_windows(frames, indices, is_train=True)
                output = self._regress_branches(encoded, self.middle(frames, indices), return_verts=False)
                return _with_scores(output, scores)
            windows = features.flatten(0, 1)[indices]
        (whole,), _ = self.forward(windows, is_train=True, return_verts=False)
        return whole

    def middle(self, frames: Float[Tensor, "u f"], windows: Int[Tensor, "n t"]) -> Float[Tensor, "n f"]:
        """The features of the middle frames of windows, which hold indices of frames."""
        return frames[windows[:, self.seqlen // 2]]

    def _regress(
        self, features: Tensor, middle: Tensor, J_regressor: Tensor | None, return_verts: bool
    ) -> dict[str, Tensor]:
        """Bodies from encoded features (N, F); ``middle`` (N, F) are the middle frames' own."""
        start: Sequence[Tensor | None] = (None, None, None)
        if self.starts_from_feature:
            start = torch.split(middle[:, :STATE_SIZE], STATE, dim=1)
        output: dict[str, Tensor]
        (output,) = self.regressor(features, *start, J_regressor=J_regressor, return_verts=return_verts)
        return output

    def _regress_branches(self, features: Tensor, middle: Tensor, return_verts: bool) -> dict[str, Tensor]:
        middle = middle.repeat_interleave(features.shape[1], 0)
        output = self._regress(features.flatten(0, 1), middle, None, return_verts)
        return {name: torch.unflatten(value, 0, features.shape[:2]) for name, value in output.items()}

    def predict_windows(
        self,
        frames: Float[Tensor, "u f"],
        windows: Int[Tensor, "n t"],
        J_regressor: Float[Tensor, "17 v"] | None = None,
        return_verts: bool = True,
    ) -> dict[str, Tensor]:
        """The dict of ``forward(frames[windows])``, faster where windows share frames.

        Args:
            frames: static features.
            windows: indices of frames.
            J_regressor, return_verts: see :meth:`forward`.
        """
        features, scores = self.encoder.encode_windows(frames, windows)
        output = self._regress(features, self.middle(frames, windows), J_regressor, return_verts)
        return _with_scores(output, scores)

    def load_weights(
        self,
        state_dict: Mapping[str, Tensor],
        body_kind: str | None = None,
        source: str | Path = "the checkpoint",
    ) -> None:
        """Load encoder and regressor weights. The body model stays this model's own.

        Args:
            state_dict: ``gen_state_dict`` of a checkpoint, with or without ``regressor.smpl.*``.
            body_kind: ``smpl`` or ``open``, the body the weights were trained with (``body`` of a
                checkpoint). None: told by the body in ``state_dict``, or ``smpl`` if it holds none.
            source: named in errors.

        Raises:
            UserError: keys or shapes do not fit, or the weights were trained with another body.
        """
        self._check_body(body_kind or self._kind_of(state_dict), source)
        load_weights(self, state_dict, source, own_prefix="regressor.smpl.")

    def _load_pretrained_regressor(self, path: str | Path) -> None:
        """Start the regressor from the ``model`` weights of a per-frame network (SPIN, landmark network)."""
        checkpoint = load_checkpoint(path)
        weights = per_frame_weights(checkpoint, path)
        self._check_body(checkpoint.get("body", "smpl"), path)
        load_weights(self.regressor, weights, path, own_prefix="smpl.", allow_more=True)

    def _kind_of(self, state_dict: Mapping[str, Tensor]) -> str:
        """Body kind of weights, told by the rest mesh in them."""
        template = state_dict.get("regressor.smpl.v_template")
        if template is None:
            return "smpl"
        own = self.regressor.smpl.v_template
        # Official versions and genders differ by centimetres; the open body numbers its vertices differently.
        same = template.shape == own.shape and (template.to(own) - own).norm(dim=-1).mean() < 0.1
        return self.body_kind if same else {"smpl": "open", "open": "smpl"}[self.body_kind]

    def _check_body(self, kind: str, source: str | Path) -> None:
        if kind == self.body_kind:
            return
        if kind == "smpl":
            raise UserError(
                f"{source} was trained with the official SMPL body but the open body is in use; put"
                " SMPL_NEUTRAL.pkl and its companions into data/base_data (see data/README.md)"
                " or choose an open checkpoint"
            )
        raise UserError(
            f"{source} was trained with the open body but the official SMPL body is in use; choose a"
            " checkpoint trained with SMPL, or set PATHS.BASE_DATA to a folder without SMPL_NEUTRAL.pkl"
        )


def _with_scores(output: dict[str, Tensor], scores: Tensor | None) -> dict[str, Tensor]:
    return output if scores is None else {**output, "scores": scores}

"""Build a TCMR from a configuration, or from a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from yacs.config import CfgNode

from ..models.body import BodyData, load_body
from ..models.regressor import STATE_SIZE
from ..models.tcmr import TCMR
from ..models.temporal import ENCODERS
from ..models.weights import matrix_of
from ..utils.errors import UserError, fault
from ..utils.files import load_checkpoint
from .config import from_dict

_LONGEST_WINDOW = 4096  # frames


def build_model(cfg: CfgNode, body: BodyData) -> TCMR:
    """A TCMR with fresh weights; its regressor starts from TRAIN.PRETRAINED_REGRESSOR if that is named.

    Raises:
        UserError: that file is missing or does not fit.
    """
    pretrained = cfg.TRAIN.PRETRAINED_REGRESSOR
    if pretrained and not Path(pretrained).is_file():
        raise UserError(
            f"TRAIN.PRETRAINED_REGRESSOR {pretrained} {fault(Path(pretrained))}: put the file there "
            "(data/README.md) or set the key to '' to start from random weights"
        )
    return _construct(cfg, body, pretrained)


def body_of(checkpoint: Mapping[str, Any], cfg: CfgNode) -> BodyData:
    """The body that a checkpoint's weights belong to: the open one even where SMPL is installed, if they were
    trained with it.

    Raises:
        UserError: see :func:`lib.models.body.load_body`.
    """
    folder = cfg.PATHS.OPEN if checkpoint.get("body") == "open" else cfg.PATHS.BASE_DATA
    return load_body(folder, open_dir=cfg.PATHS.OPEN)


def fingerprint_of(checkpoint: Mapping[str, Any]) -> str:
    """Of the extractor whose features a TCMR was trained on, '' if its checkpoint does not say."""
    return str(checkpoint.get("fingerprint", ""))


def training_body(cfg: CfgNode) -> BodyData:
    """The body to train with: that of the weights training starts from, if it starts from any.

    Raises:
        UserError: see :func:`lib.models.body.load_body`; or the weights cannot be read.
    """
    start = cfg.TRAIN.RESUME or cfg.TRAIN.PRETRAINED_REGRESSOR
    return body_of(load_checkpoint(start) if start and Path(start).is_file() else {}, cfg)


def load_model(checkpoint_path: str | Path, cfg: CfgNode | None, body: BodyData) -> tuple[TCMR, CfgNode]:
    """:func:`model_from` a file.

    Raises:
        UserError: see there; or the file is missing or no checkpoint.
    """
    return model_from(load_checkpoint(checkpoint_path), checkpoint_path, cfg, body)


def model_from(
    checkpoint: Mapping[str, Any], source: str | Path, cfg: CfgNode | None, body: BodyData
) -> tuple[TCMR, CfgNode]:
    """The trained TCMR of a checkpoint, in evaluation mode, and its configuration.

    Args:
        source: where it comes from, named in errors.
        cfg: the configuration to build from; None takes the one stored in the checkpoint.

    Raises:
        UserError: it is no checkpoint of TCMR, holds no configuration though none is given, or does not fit
            the configuration or the body model.
    """
    if "gen_state_dict" not in checkpoint:
        raise UserError(f"{source} is no TCMR checkpoint: it has no 'gen_state_dict'")
    if cfg is None:
        if "config" not in checkpoint:
            raise UserError(f"{source} holds no configuration: give the one it was trained with")
        cfg = from_dict(checkpoint["config"])
        check_claims(cfg, checkpoint["gen_state_dict"], source)
    model = _construct(cfg, body, "")
    model.load_weights(checkpoint["gen_state_dict"], checkpoint.get("body"), source=source)
    return model.eval(), cfg


def check_claims(cfg: CfgNode, weights: Mapping[str, Tensor], source: str | Path) -> None:
    """Before a network is built from a checkpoint's own configuration: its weights must have those sizes.

    Raises:
        UserError: they have others, or none.
    """
    middle = matrix_of(weights, "regressor.fc1.weight")
    sizes = {
        "MODEL.FEATURE_SIZE": (cfg.MODEL.FEATURE_SIZE, max(0, middle.shape[1] - STATE_SIZE)),
        "MODEL.REGRESSOR.HIDDEN_SIZE": (cfg.MODEL.REGRESSOR.HIDDEN_SIZE, len(middle)),
        **_encoder_sizes(cfg, weights),
    }
    for key, (claimed, found) in sizes.items():
        if claimed != found:
            raise UserError(
                f"{source} does not fit its own configuration: {key} is {claimed}, its weights have {found};"
                " get the file again, or give the right configuration"
            )
    if cfg.DATASET.SEQLEN > _LONGEST_WINDOW:
        raise UserError(
            f"{source}: DATASET.SEQLEN is {cfg.DATASET.SEQLEN}, expected at most {_LONGEST_WINDOW}"
        )


def _encoder_sizes(cfg: CfgNode, weights: Mapping[str, Tensor]) -> dict[str, tuple[int, int]]:
    """What the configuration claims of the encoder, and what its weights say."""
    prefix = "encoder."
    own = {name[len(prefix) :]: value for name, value in weights.items() if str(name).startswith(prefix)}
    settings, encoder = cfg.MODEL, ENCODERS[cfg.MODEL.TEMPORAL_TYPE]
    claimed = {
        "MODEL.TGRU.NUM_LAYERS": settings.TGRU.NUM_LAYERS,
        "MODEL.TGRU.HIDDEN_SIZE": settings.TGRU.HIDDEN_SIZE,
        "MODEL.FEATURE_SIZE": settings.FEATURE_SIZE,
    }
    if (found := encoder.sizes(own)) is not None:
        return {key: (claimed[key], found[key]) for key in found}
    with torch.device("meta"):  # has shapes, but no memory
        n_layers, hidden_size, feature_size = claimed.values()
        shapes = encoder(n_layers, cfg.DATASET.SEQLEN, hidden_size, feature_size).state_dict()
    claims, has = (
        sum(value.numel() for value in each.values() if isinstance(value, Tensor)) for each in (shapes, own)
    )
    return {"the number of weights of its encoder": (claims, has)}


def _construct(cfg: CfgNode, body: BodyData, pretrained: str) -> TCMR:
    return TCMR(
        seqlen=cfg.DATASET.SEQLEN,
        n_layers=cfg.MODEL.TGRU.NUM_LAYERS,
        hidden_size=cfg.MODEL.TGRU.HIDDEN_SIZE,
        feature_size=cfg.MODEL.FEATURE_SIZE,
        regressor_hidden_size=cfg.MODEL.REGRESSOR.HIDDEN_SIZE,
        regressor_dropout=cfg.MODEL.REGRESSOR.DROPOUT,
        body=body,
        borders="static" if cfg.COMPAT.STATIC_BORDERS else "edge",
        feature_smooth=cfg.MODEL.FEATURE_SMOOTH,
        starts_from_feature=cfg.MODEL.START_FROM_FEATURE,
        pretrained=pretrained,
        encoder=cfg.MODEL.TEMPORAL_TYPE,
    )

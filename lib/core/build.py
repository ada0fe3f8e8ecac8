"""Build a TCMR from a configuration, or from a checkpoint."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from yacs.config import CfgNode

from ..models.body import BodyData, load_body
from ..models.tcmr import TCMR
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
    first = weights.get("encoder.gru_cur.weight_ih_l0", torch.zeros(0, 0))
    middle = weights.get("regressor.fc1.weight", torch.zeros(0, 0))
    layers = sum(re.fullmatch(r"encoder\.gru_cur\.weight_ih_l\d+", name) is not None for name in weights)
    sizes = {
        "MODEL.TGRU.NUM_LAYERS": (cfg.MODEL.TGRU.NUM_LAYERS, layers),
        "MODEL.TGRU.HIDDEN_SIZE": (cfg.MODEL.TGRU.HIDDEN_SIZE, len(first) // 3),
        "MODEL.FEATURE_SIZE": (cfg.MODEL.FEATURE_SIZE, first.shape[-1]),
        "MODEL.REGRESSOR.HIDDEN_SIZE": (cfg.MODEL.REGRESSOR.HIDDEN_SIZE, len(middle)),
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
    )

"""Build a TCMR from a configuration, or from a checkpoint."""

from __future__ import annotations

from pathlib import Path

from yacs.config import CfgNode

from lib.core.config import from_dict
from lib.models.body import BodyData
from lib.models.tcmr import TCMR
from lib.utils.errors import UserError
from lib.utils.files import load_checkpoint


def build_model(cfg: CfgNode, body: BodyData) -> TCMR:
    """A TCMR with fresh weights; its regressor starts from TRAIN.PRETRAINED_REGRESSOR if that is named.

    Raises:
        UserError: that file is missing or does not fit.
    """
    pretrained = cfg.TRAIN.PRETRAINED_REGRESSOR
    if pretrained and not Path(pretrained).is_file():
        raise UserError(
            f"TRAIN.PRETRAINED_REGRESSOR {pretrained} does not exist: put the file there (data/README.md) "
            "or set the key to '' to start from random weights"
        )
    return _construct(cfg, body, pretrained)


def load_model(checkpoint_path: str | Path, cfg: CfgNode | None, body: BodyData) -> tuple[TCMR, CfgNode]:
    """The trained TCMR of a checkpoint, in evaluation mode, and its configuration.

    Args:
        cfg: the configuration to build from; None takes the one stored in the checkpoint.

    Raises:
        UserError: the checkpoint is missing, is none, holds no configuration though none is given, or does
            not fit the configuration or the body model.
    """
    checkpoint = load_checkpoint(checkpoint_path)
    if "gen_state_dict" not in checkpoint:
        raise UserError(f"{checkpoint_path} is no TCMR checkpoint: it has no 'gen_state_dict'")
    if cfg is None:
        if "config" not in checkpoint:
            raise UserError(f"{checkpoint_path} holds no configuration: give the one it was trained with")
        cfg = from_dict(checkpoint["config"])
    model = _construct(cfg, body, "")
    model.load_weights(checkpoint["gen_state_dict"], checkpoint.get("body"), source=checkpoint_path)
    return model.eval(), cfg


def _construct(cfg: CfgNode, body: BodyData, pretrained: str) -> TCMR:
    return TCMR(
        seqlen=cfg.DATASET.SEQLEN,
        n_layers=cfg.MODEL.TGRU.NUM_LAYERS,
        hidden_size=cfg.MODEL.TGRU.HIDDEN_SIZE,
        feature_size=cfg.MODEL.FEATURE_SIZE,
        regressor_hidden_size=cfg.MODEL.REGRESSOR.HIDDEN_SIZE,
        regressor_dropout=cfg.MODEL.REGRESSOR.DROPOUT,
        body=body,
        pretrained=pretrained,
    )

"""Which networks and which body the demo uses."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from yacs.config import CfgNode

from ..core.build import build_model, check_claims, fingerprint_of
from ..core.config import from_dict, get_cfg_defaults, load_config, merge_opts
from ..models.body import BASE_DATA, OPEN_DATA, BodyData, find_smpl, load_body, load_gendered_body
from ..models.extractors import Extractor, PosesExtractor, check_fingerprints, get_extractor
from ..models.smpl import SMPL
from ..models.tcmr import TCMR
from ..utils.errors import UserError
from ..utils.files import load_checkpoint

log = logging.getLogger(__name__)

OFFICIAL_CHECKPOINT = "tcmr_demo_model.pth.tar"
OPEN_CHECKPOINT = "tcmr_open.pth.tar"
POSES_CHECKPOINT = "tcmr_poses.pth.tar"


@dataclass(frozen=True, eq=False)
class Models:
    """A TCMR with what it needs around it; ``body`` is the one that meshes are made of."""

    tcmr: TCMR
    cfg: CfgNode
    extractor: Extractor
    body: BodyData


def find_checkpoint(
    model: str, base_data: str | Path = BASE_DATA, open_dir: str | Path = OPEN_DATA, *, poses: bool = False
) -> Path:
    """The checkpoint of ``--model``, or the official one if it and SMPL are there, else the open one; the one
    for ``poses`` features if these are wanted.

    Raises UserError, telling how to get one, if there is none.
    """
    if model:
        return Path(model)
    if poses:
        return Path(open_dir) / POSES_CHECKPOINT
    official = Path(base_data) / OFFICIAL_CHECKPOINT
    if official.is_file() and find_smpl(base_data) is not None:
        return official
    open_checkpoint = Path(open_dir) / OPEN_CHECKPOINT
    if not open_checkpoint.is_file():
        raise UserError(
            f"no TCMR checkpoint: neither {official} with SMPL beside it nor {open_checkpoint} is there; see "
            "data/README.md for both, or give a checkpoint with --model"
        )
    return open_checkpoint


def official_config() -> CfgNode:
    """The architecture of the official demo checkpoint, which carries no configuration."""
    cfg = get_cfg_defaults()
    cfg.DATASET.SEQLEN = 16
    cfg.MODEL.TGRU.NUM_LAYERS = 2
    cfg.MODEL.TGRU.HIDDEN_SIZE = 1024
    return cfg


def load_models(
    checkpoint_path: str | Path,
    *,
    base_data: str | Path = BASE_DATA,
    open_dir: str | Path = OPEN_DATA,
    gender: str = "neutral",
    device: torch.device | str = "cpu",
    bf16: bool = False,
    cfg_file: str = "",
    opts: Sequence[str] = (),
) -> Models:
    """Everything that turns tracked people into meshes.

    The checkpoint says which body and which features it was trained with. ``gender`` only changes the body
    that meshes and joints are made with, ``bf16`` how SPIN's features are computed.
    ``cfg_file`` takes the place of the configuration in the checkpoint, ``opts`` overrides single keys.

    Raises:
        UserError: a file is missing or does not fit.
    """
    checkpoint = load_checkpoint(checkpoint_path)
    if "gen_state_dict" not in checkpoint:
        raise UserError(
            f"{checkpoint_path} is no TCMR checkpoint: it has no 'gen_state_dict'; choose another --model"
        )
    if cfg_file:
        cfg = load_config(cfg_file)
    else:
        cfg = from_dict(checkpoint["config"]) if "config" in checkpoint else official_config()
        check_claims(cfg, checkpoint["gen_state_dict"], checkpoint_path)
    merge_opts(cfg, opts)
    cfg.TRAIN.PRETRAINED_REGRESSOR = ""
    # The open body is taken even where SMPL is installed, if the checkpoint was trained with it. But
    # estimates of poses are SMPL's, and what is learnt of them holds for any body with its joints.
    any_body = PosesExtractor.name == cfg.MODEL.EXTRACTOR
    folder = open_dir if checkpoint.get("body") == "open" and not any_body else base_data
    if folder == open_dir and (unused := find_smpl(base_data)) is not None:
        log.info("%s is not used: this checkpoint was trained with the open body", unused)
    body = load_body(folder, "neutral", open_dir)
    tcmr = build_model(cfg, body)
    trained_with = body.kind if any_body else checkpoint.get("body")
    tcmr.load_weights(checkpoint["gen_state_dict"], trained_with, checkpoint_path)
    extractor = get_extractor(
        cfg.MODEL.EXTRACTOR, body, base_data=base_data, open_dir=open_dir, device=device, bf16=bf16
    )
    check_fingerprints(
        {
            str(checkpoint_path): fingerprint_of(checkpoint),
            f"the {extractor.name} extractor": extractor.fingerprint,
        }
    )
    if bf16 and not extractor.needs_frames:
        log.warning("--bf16 has no effect: %s features need no large network", extractor.name)
    if gender != "neutral":
        if body.kind == "open":
            log.warning("--gender %s: the open body has one shape for all; it is used", gender)
        else:
            body = load_gendered_body(base_data, gender)
            tcmr.regressor.smpl = SMPL(body)
    return Models(tcmr.to(device).eval(), cfg, extractor, body)

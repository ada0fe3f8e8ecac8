"""What the tests against the original have in common: its configurations, recorded values in JSON."""

from __future__ import annotations

import json
from typing import Any

from yacs.config import CfgNode

from lib.core.config import load_config
from tests.golden_tools import GOLDEN
from tests.trainer_tools import CONFIGS

T4_3DPW, T4_OTHER = "repr_table4_3dpw_model", "repr_table4_h36m_mpii3d_model"
T6_H36M = "repr_table6_h36m_model"
_COMPAT = ("COMPAT.TRAIN_WINDOWS", "COMPAT.FLOAT16_TARGETS", "COMPAT.VALIDATION")
AS_ORIGINAL = [word for key in _COMPAT for word in (key, "True")]


def read_json(name: str) -> Any:
    return json.loads((GOLDEN / f"{name}.json").read_text())


def config(title: str, *opts: str) -> CfgNode:
    paths = ["PATHS.PREPROCESSED", str(GOLDEN / "data"), "MODEL.TGRU.HIDDEN_SIZE", "64"]
    return load_config(CONFIGS / f"{title}.yaml", [*paths, *opts])

"""Make a small file for prediction from a training checkpoint: ``export_checkpoint.py SRC DST [--half]``.

It keeps the weights without the body model, the configuration, the epoch, the performance, the training time
and the extractor's fingerprint. It cannot be resumed from. With ``--half`` weights are stored in half
precision; they are loaded as float32 again.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if __name__ == "__main__":  # first, so that Ctrl-C while the rest is imported is one line, too
    from lib.utils.errors import leave_on_signals

    leave_on_signals()

from lib.core.config import get_cfg_defaults, to_dict
from lib.utils.errors import UserError, run_command
from lib.utils.files import load_checkpoint, save_checkpoint

_BODY_MODEL = "regressor.smpl."
_KEPT = ("epoch", "performance", "config", "body")
_TRAIN_PATHS = ("PRETRAINED", "PRETRAINED_REGRESSOR", "RESUME")


def slim(checkpoint: dict[str, Any], half: bool) -> dict[str, Any]:
    """The part of a training checkpoint that prediction needs."""
    weights = {k: v for k, v in checkpoint["gen_state_dict"].items() if not k.startswith(_BODY_MODEL)}
    if half:
        weights = {k: v.half() if v.is_floating_point() else v for k, v in weights.items()}
    kept = {key: checkpoint[key] for key in (*_KEPT, "fingerprint", "training") if key in checkpoint}
    defaults = to_dict(get_cfg_defaults())  # where one machine keeps its files is nobody else's business
    kept["config"] = checkpoint["config"] | {key: defaults[key] for key in ("PATHS", "OUTPUT_DIR", "LOGDIR")}
    kept["config"]["TRAIN"] = checkpoint["config"].get("TRAIN", {}) | dict.fromkeys(_TRAIN_PATHS, "")
    kept["config"]["DATASET"] = checkpoint["config"].get("DATASET", {}) | {"MOTIONS": ""}
    return {"gen_state_dict": weights, **kept}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path, help="checkpoint.pth.tar or model_best.pth.tar of a run folder")
    parser.add_argument("target", type=Path, help="file to write")
    parser.add_argument("--half", action="store_true", help="store weights in half precision")
    args = parser.parse_args()
    checkpoint = load_checkpoint(args.source)
    missing = [key for key in ("gen_state_dict", *_KEPT) if key not in checkpoint]
    missing += [key for key in ("gen_state_dict", "config") if not isinstance(checkpoint.get(key, {}), dict)]
    if missing:
        raise UserError(f"{args.source} lacks {', '.join(missing)}: give a checkpoint that train.py wrote")
    before = args.source.stat().st_size
    save_checkpoint(slim(checkpoint, args.half), args.target)
    print(f"{args.target}: {args.target.stat().st_size / 2**20:.1f} MB, from {before / 2**20:.1f} MB")


if __name__ == "__main__":
    run_command(main)

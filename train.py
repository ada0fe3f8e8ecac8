"""Train TCMR: ``python train.py --cfg configs/repr_table4_3dpw_model.yaml``."""

from __future__ import annotations

import os

import torch

from lib.core.config import choose_device, parse_args
from lib.core.run_folder import create_run_folder, log_to_console, log_to_file
from lib.core.trainer import Trainer, seed_everything
from lib.models.body import load_body
from lib.models.build import build_model
from lib.utils.errors import UserError, run_command


def main() -> None:
    args, cfg = parse_args(__doc__)
    log_to_console()
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("training runs on one device so far: start train.py without torchrun")
    device = choose_device(args.device, cfg.DEVICE)
    torch.backends.cudnn.benchmark = cfg.CUDNN.BENCHMARK
    torch.backends.cudnn.deterministic = cfg.CUDNN.DETERMINISTIC
    torch.backends.cudnn.enabled = cfg.CUDNN.ENABLED
    if cfg.SEED_VALUE >= 0:
        seed_everything(cfg.SEED_VALUE)
    body = load_body(cfg.PATHS.BASE_DATA, open_dir=cfg.PATHS.OPEN)
    model = build_model(cfg, body)
    folder = create_run_folder(cfg)
    log_to_file(folder)
    Trainer(cfg, model, body, device, folder).run()


if __name__ == "__main__":
    run_command(main)

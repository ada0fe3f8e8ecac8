"""Train TCMR: ``python train.py --cfg configs/repr_table4_3dpw_model.yaml``.

Several devices: ``torchrun --nproc_per_node 4 train.py --cfg ...``; TRAIN.BATCH_SIZE is shared among them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..core import distributed
from ..core.build import build_model, training_body
from ..core.config import parse_args
from ..core.run_folder import create_run_folder, last_checkpoint, log_to_console, log_to_file
from ..core.seeding import seed_everything
from ..core.trainer import Trainer
from ..utils.devices import choose_device


def main(argv: Sequence[str] | None = None) -> None:
    args, cfg = parse_args(__doc__, argv=argv)
    if distributed.is_main():
        log_to_console()
    device = distributed.process_device(choose_device(args.device, cfg.DEVICE))
    torch.backends.cudnn.benchmark = cfg.CUDNN.BENCHMARK
    torch.backends.cudnn.deterministic = cfg.CUDNN.DETERMINISTIC
    torch.backends.cudnn.enabled = cfg.CUDNN.ENABLED
    with distributed.process_group(device):
        if cfg.SEED_VALUE >= 0:
            seed_everything(cfg.SEED_VALUE)
        if cfg.TRAIN.RESUME == "auto":
            cfg.TRAIN.RESUME = distributed.from_main(last_checkpoint(cfg))
        body = training_body(cfg)
        trainer = Trainer(cfg, build_model(cfg, body), body, device)
        folder = None
        if distributed.is_main():
            folder = create_run_folder(cfg)
            log_to_file(folder)
        trainer.run(folder)

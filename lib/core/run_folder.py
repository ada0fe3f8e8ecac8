"""The folder of a training run and its text log."""

from __future__ import annotations

import itertools
import logging
import re
from datetime import datetime
from pathlib import Path

from yacs.config import CfgNode

from ..utils.errors import UserError, shown
from ..utils.files import atomic_write
from .config import dump_yaml

CHECKPOINT, BEST_CHECKPOINT, BEST_VALUE = "checkpoint.pth.tar", "model_best.pth.tar", "best.txt"
_DATE_PATTERN = r"\d\d-\d\d-\d{4}_\d\d-\d\d-\d\d(-\d+)?_"
LOG_FORMAT = "%(asctime)-15s %(message)s"


def create_run_folder(cfg: CfgNode) -> Path:
    """Make ``{OUTPUT_DIR}/{date}_{EXP_NAME}``, set LOGDIR to it, and write the configuration there.

    The dates of runs that begin in the same second get numbers. ``config.yaml`` is plain YAML that ``--cfg``
    reads back.

    Raises:
        UserError: the folder cannot be made.
    """
    if not cfg.EXP_NAME.isprintable() or Path(cfg.EXP_NAME).name != cfg.EXP_NAME or len(cfg.EXP_NAME) > 200:
        raise UserError(
            f"EXP_NAME {shown(cfg.EXP_NAME)} is no part of a file name: choose a short, plain word"
        )
    date = f"{datetime.now():%d-%m-%Y_%H-%M-%S}"
    folder = Path(cfg.OUTPUT_DIR) / f"{date}_{cfg.EXP_NAME}"
    for number in itertools.count(1):
        try:
            folder.mkdir(parents=True)
            break
        except FileExistsError:  # two runs in the same second
            if not folder.is_dir():
                raise UserError(f"OUTPUT_DIR {cfg.OUTPUT_DIR} is no folder: choose another") from None
            folder = Path(cfg.OUTPUT_DIR) / f"{date}-{number}_{cfg.EXP_NAME}"
        except (OSError, ValueError) as error:
            raise UserError(f"cannot make the run folder ({error}): choose another OUTPUT_DIR") from error
    cfg.LOGDIR = str(folder)
    with atomic_write(folder / "config.yaml") as temporary:
        temporary.write_text(dump_yaml(cfg))
    return folder


def find_checkpoint(path: str | Path) -> Path:
    """The file to measure: ``path``, or of a run folder its best model, or the last before there is a best.

    Raises:
        UserError: the folder holds none.
    """
    path = Path(path)
    if not path.is_dir():
        return path
    for name in (BEST_CHECKPOINT, CHECKPOINT):
        if (path / name).is_file():
            return path / name
    raise UserError(
        f"{path} is a folder without {BEST_CHECKPOINT} or {CHECKPOINT}: give a checkpoint, or the folder of "
        "a training run"
    )


def last_checkpoint(cfg: CfgNode) -> str:
    """The newest checkpoint of the runs of EXP_NAME in OUTPUT_DIR; '' if there is none."""
    name = re.compile(_DATE_PATTERN + re.escape(cfg.EXP_NAME))
    every = Path(cfg.OUTPUT_DIR).glob(f"*/{CHECKPOINT}")
    files = [path for path in every if name.fullmatch(path.parent.name)]
    return str(max(files, key=lambda path: path.stat().st_mtime_ns)) if files else ""


def log_to_console() -> None:
    """Send messages of level INFO to the console."""
    logging.basicConfig(level=logging.INFO, format=LOG_FORMAT)


def log_to_file(folder: Path) -> None:
    """Send messages to ``train_log.txt`` of the run folder too."""
    handler = logging.FileHandler(folder / "train_log.txt")
    handler.setFormatter(logging.Formatter(LOG_FORMAT))
    logging.getLogger().addHandler(handler)

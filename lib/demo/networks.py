"""Which person detector and which landmark network the demo runs, and where their files lie."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from ..data_utils.blazepose import LandmarkNetwork, PersonDetector
from ..data_utils.keypoint_rcnn import KeypointRCNN
from ..data_utils.open_assets import HEAVY, MODULE, asset_path
from ..utils.errors import UserError
from ..utils.paths import module_command
from .tracking import Detector

log = logging.getLogger(__name__)

DETECTORS = ("auto", "full", "heavy", "torchvision")
HEAVY_THREADS = 2
"""CPU threads from which on the heavy network, three times as slow as the full one, is the default."""


def find_asset(name: str, open_dir: str | Path) -> Path:
    """An asset in ``{open_dir}/downloads`` or where ``make assets`` puts it; UserError if in neither."""
    try:
        return asset_path(name, Path(open_dir) / "downloads")
    except UserError:
        return asset_path(name)


def choose_network(detector: str, open_dir: str | Path) -> str:
    """``full`` or ``heavy``: what ``--detector`` names, or the better one that is there and that this machine
    keeps up with; the log says which and why."""
    threads = torch.get_num_threads()
    if detector in ("full", "heavy"):
        chosen, reason = detector, f"--detector {detector}"
    elif threads < HEAVY_THREADS:
        chosen, reason = "full", f"heavy needs {HEAVY_THREADS} CPU threads to keep up, {threads} may be used"
    else:
        try:
            find_asset(HEAVY, open_dir)
            chosen, reason = "heavy", f"it is there, and {threads} CPU threads"
        except UserError:
            chosen, reason = "full", f"heavy is not there: `{module_command(MODULE)}` fetches it"
    log.info("landmarks: the %s network (%s)", chosen, reason)
    return chosen


def landmark_network(detector: str, open_dir: str | Path) -> LandmarkNetwork:
    """The network that :func:`choose_network` chooses. UserError if its file is missing."""
    chosen = choose_network(detector, open_dir)
    return LandmarkNetwork(find_asset(f"landmarks_{chosen}", open_dir), torch.get_num_threads())


def person_detector(detector: str, open_dir: str | Path, device: torch.device) -> Detector:
    """torchvision's where ``--detector`` names it, else BlazePose's. UserError if files are missing."""
    if detector == "torchvision":
        return KeypointRCNN(device)
    return PersonDetector(find_asset("person_detector", open_dir), torch.get_num_threads())

"""Which person detector and which landmark network the demo runs, and where their files lie."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from ..landmarks.blazepose import LandmarkNetwork, PersonDetector
from ..landmarks.keypoint_rcnn import KeypointRCNN
from ..utils.errors import UserError
from ..utils.pinned import HEAVY, asset_path, fetch_command
from ..utils.registry import Registry
from .looking import Detector

log = logging.getLogger(__name__)

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
            chosen, reason = "full", f"heavy is not there: `{fetch_command()}` fetches it"
    log.info("landmarks: the %s network (%s)", chosen, reason)
    return chosen


def _landmarks(open_dir: str | Path, detector: str = "auto") -> LandmarkNetwork:
    chosen = choose_network(detector, open_dir)
    return LandmarkNetwork(find_asset(f"landmarks_{chosen}", open_dir), torch.get_num_threads())


def _people(open_dir: str | Path, device: torch.device) -> Detector:
    return PersonDetector(find_asset("person_detector", open_dir), torch.get_num_threads())


@dataclass(frozen=True)
class Networks:
    """What a name of ``--detector`` stands for.

    Attributes:
        people: makes what finds people, from the folder of the open files and a device; by default
            BlazePose's.
        landmarks: makes what finds a person's landmarks, from that folder; by default the heavy network or
            the full one.
    """

    people: Callable[[str | Path, torch.device], Detector] = _people
    landmarks: Callable[[str | Path], LandmarkNetwork] = _landmarks


DETECTORS: Registry[Networks] = Registry("detector", "--detector")
DETECTORS.update(
    auto=Networks(),
    full=Networks(landmarks=partial(_landmarks, detector="full")),
    heavy=Networks(landmarks=partial(_landmarks, detector="heavy")),
    torchvision=Networks(people=lambda _, device: KeypointRCNN(device)),
)


def landmark_network(detector: str, open_dir: str | Path) -> LandmarkNetwork:
    """The landmark network of ``--detector``. UserError if its file is missing."""
    return DETECTORS[detector].landmarks(open_dir)


def person_detector(detector: str, open_dir: str | Path, device: torch.device) -> Detector:
    """The person detector of ``--detector``. UserError if a file is missing."""
    return DETECTORS[detector].people(open_dir, device)

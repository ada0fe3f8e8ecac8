"""Which device to run on."""

from __future__ import annotations

import logging

import torch

from .errors import UserError

logger = logging.getLogger(__name__)


def choose_device(option: str, configured: str | None = None) -> torch.device:
    """The device to run on: ``option`` if it names one, else the configured one, else the CPU.

    Args:
        option: ``auto``, or a name.
        configured: by default CUDA where there is some.

    Raises:
        UserError: ``option`` names a device that this machine lacks, or is no device.
    """
    if configured is None:
        configured = "cuda" if torch.cuda.is_available() else "cpu"
    name = configured if option == "auto" else option
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"device {name!r} is unknown: use auto, cpu, cuda, cuda:N or mps") from None
    if _present(device):
        return device
    if option != "auto":
        raise UserError(f"--device {option}: this machine or this build of torch has none; try --device auto")
    logger.info("DEVICE %s is not present: running on the CPU", configured)
    return torch.device("cpu")


def _present(device: torch.device) -> bool:
    if device.type == "cpu":
        return True
    if device.type == "cuda":
        return torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count()
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError):
        return False
    return True

"""Where the project's files lie, in a checkout and when it is installed as a package.

=============  ==========================  ===================================
\\              in a checkout               installed
=============  ==========================  ===================================
what ships     ``data/open``, ``configs``  ``open``, ``configs`` in the package
what is added  ``data``                    ``$TCMR_HOME``, or the user's cache
=============  ==========================  ===================================

``TCMR_HOME`` is heeded in a checkout, too. Inside it lies what ``data`` of a checkout holds.
"""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

from .errors import UserError, fault

_PACKAGE = Path(__file__).resolve().parents[1]
CHECKOUT = _PACKAGE.parent if _PACKAGE.name == "lib" else None
"""The repository's folder; None if this is an installed package."""

OPEN_DATA = CHECKOUT / "data" / "open" if CHECKOUT else _PACKAGE / "open"
"""The open body and the open weights."""
CONFIGS = CHECKOUT / "configs" if CHECKOUT else _PACKAGE / "configs"


def _data() -> Path:
    if given := os.environ.get("TCMR_HOME"):
        return Path(given).expanduser().absolute()
    return CHECKOUT / "data" if CHECKOUT else platformdirs.user_cache_path("tcmr")


DATA = _data()
"""Official files, databases and downloads: what does not ship."""
BASE_DATA = DATA / "base_data"
DOWNLOADS = DATA / "open" / "downloads"


def check_data() -> None:
    """UserError if ``DATA`` is no folder and cannot become one."""
    if DATA.exists() and not DATA.is_dir():
        raise UserError(f"TCMR_HOME: {DATA} {fault(DATA)}; expected a folder, which need not be there yet")


def located(path: str) -> str:
    """A path of a configuration: where it is not there from the current folder, the one that the project
    has under that name, if it has one."""
    if not path or Path(path).is_absolute() or Path(path).exists():
        return path
    known = {("data", "open"): OPEN_DATA, ("configs",): CONFIGS, ("data",): DATA}
    parts = Path(path).parts
    for name, home in known.items():
        candidate = home.joinpath(*parts[len(name) :])
        if parts[: len(name)] == name and candidate.exists():
            return str(candidate)
    return path


def module_command(module: str) -> str:
    """The command line that runs a module of the project from the current folder."""
    command = f"python -m {module}"
    return command if CHECKOUT in (None, Path.cwd()) else f"cd '{CHECKOUT}' && {command}"

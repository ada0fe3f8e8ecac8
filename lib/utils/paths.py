"""Where the project lies: commands find its data from any folder."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""The repository's folder."""


def module_command(module: str) -> str:
    """The command line that runs a module of the project from the current folder."""
    command = f"python -m {module}"
    return command if Path.cwd() == ROOT else f"cd '{ROOT}' && {command}"

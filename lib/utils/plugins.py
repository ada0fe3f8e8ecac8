"""Files of a user's own that add to the registries: ``--plugin FILE.py``; docs/plugins.md."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec, spec_from_file_location, spec_from_loader
from pathlib import Path
from traceback import walk_tb
from types import ModuleType
from typing import Any

from .errors import UserError, fault

_PACKAGE = __name__.split(".")[0]
_INSTALLED = "tcmr"


def add_plugin_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--plugin",
        action="append",
        default=[],
        metavar="FILE.py",
        help="run this file first, which may register encoders, extractors, datasets, losses, detectors and "
        "formats: docs/plugins.md; may be repeated",
    )


def load_plugins(files: Sequence[str | Path]) -> None:
    """Import Python files, each once, that register something.

    Names come from the command line alone: never pass one that a configuration or a checkpoint holds.

    Raises:
        UserError: a file is missing, or its code fails; the cause tells all of that.
    """
    if _PACKAGE != _INSTALLED and not any(isinstance(finder, _OneName) for finder in sys.meta_path):
        sys.meta_path.insert(0, _OneName())
    for file in files:
        path = Path(file).resolve()
        if not path.is_file():
            raise UserError(f"--plugin {file} {fault(path)}: expected a file of Python code")
        name = f"tcmr_plugin_{path}"
        if name in sys.modules:
            continue
        spec = spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            raise UserError(f"--plugin {file}: expected a file of Python code, a name that ends in .py")
        sys.modules[name] = module = module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except BaseException as error:
            del sys.modules[name]
            if isinstance(error, (KeyboardInterrupt, UserError)):
                raise
            raise UserError(
                f"--plugin {file}: {type(error).__name__}: {error}{_where(error, path)}"
            ) from error


def _where(error: BaseException, path: Path) -> str:
    """The line of a file in which an error came up, in brackets; '' if in none."""
    lines = [line for frame, line in walk_tb(error.__traceback__) if frame.f_code.co_filename == str(path)]
    return f" (line {lines[-1]})" if lines else ""


class _OneName(MetaPathFinder, Loader):
    """Lets plugins ``import tcmr`` in a checkout, where this package has another name: a second copy of it
    would have registries that nobody looks into."""

    def find_spec(self, fullname: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:
        ours = fullname.split(".")[0] == _INSTALLED
        return spec_from_loader(fullname, self) if ours else None

    def exec_module(self, module: ModuleType) -> None:
        sys.modules[module.__name__] = import_module(_PACKAGE + module.__name__.removeprefix(_INSTALLED))

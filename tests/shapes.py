"""Checks the shapes in the signatures of ``lib`` at every call: ``python -m pytest -p tests.shapes`` (``make
shapes``).

jaxtyping's import hook hands every function to :func:`checked`, which has beartype compare what is annotated
with jaxtyping and leaves other annotations to mypy: tests pass stand-ins and mistakes on purpose.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, get_args

import beartype
import jaxtyping
import pytest
from jaxtyping import AbstractArray

seen: set[str] = set()
"""Functions that are checked."""


def has_shapes(annotation: Any) -> bool:
    """Whether an annotation holds one of jaxtyping, as in ``tuple[Float[Tensor, "n 3"], ...] | None``."""
    if isinstance(annotation, str):  # of a name that is not there at run time
        if "Float[" in annotation:
            raise NameError(f"{annotation} cannot be checked: import its names outside of TYPE_CHECKING")
        return False
    mine = isinstance(annotation, type) and issubclass(annotation, AbstractArray)
    return mine or any(has_shapes(part) for part in get_args(annotation))


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with the annotations checked that have shapes; itself if none has."""
    annotations = {name: hint for name, hint in function.__annotations__.items() if has_shapes(hint)}
    function.__annotations__ = annotations
    if not annotations:
        return function
    seen.add(f"{function.__module__}.{function.__qualname__}")
    return beartype.beartype(function)


def pytest_load_initial_conftests() -> None:
    assert "lib" not in sys.modules
    jaxtyping.install_import_hook("lib", "tests.shapes.checked")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.write_line(f"{len(seen)} functions with shapes were checked")

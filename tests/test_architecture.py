"""The rule of docs/architecture.md: no module of ``lib`` imports from a layer above its own."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LAYERS = [  # lowest first; those of one layer do not import each other
    ("utils",),
    ("video",),
    ("landmarks",),
    ("models",),
    ("motion",),
    ("dataset", "open_data"),
    ("data_utils",),
    ("core",),
    ("demo",),
    ("live", "batch"),
    ("api",),
    ("commands",),
]
LEVEL = {name: level for level, layer in enumerate(LAYERS) for name in layer}
ENTRIES = {"__init__", "__main__"}  # may import whatever they offer


def imports(source: str, package: tuple[str, ...]) -> list[tuple[int, str]]:
    """Line and part of ``lib`` (``models``, ``api``) of all imports in a file of a package."""
    found: list[tuple[int, str]] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            targets = [tuple(alias.name.split(".")) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            if node.level > len(package):
                found.append((node.lineno, "out of lib"))
                continue
            base = package[: len(package) + 1 - node.level] if node.level else ()
            module = (*base, *(node.module or "").split(".")) if node.module else base
            # `from .. import models` names the package in what is imported
            targets = [(*module, alias.name) for alias in node.names] if len(module) == 1 else [module]
        else:
            continue
        found += [(node.lineno, target[1]) for target in targets if target[0] == "lib" and len(target) > 1]
    return found


def violations(source: str, path: str) -> list[str]:
    """What the file ``path`` (``lib/models/smpl.py``) imports against the rule."""
    *package, file = path.removesuffix(".py").split("/")
    own = package[1] if len(package) > 1 else file
    if own in ENTRIES:
        return []
    return [
        f"{path}:{line}: {own} imports {part}"
        for line, part in imports(source, tuple(package))
        if part not in (own, "__version__") and LEVEL.get(part, len(LAYERS)) >= LEVEL[own]
    ]


def parts() -> set[str]:
    """Packages and modules directly in lib."""
    packages = {path.parent.name for path in (ROOT / "lib").glob("*/*.py")}
    return packages | {path.stem for path in (ROOT / "lib").glob("*.py")} - ENTRIES


def test_every_package_has_its_layer() -> None:
    assert parts() == set(LEVEL)


def test_no_module_imports_a_layer_above_its_own() -> None:
    wrong = []
    for path in sorted((ROOT / "lib").rglob("*.py")):
        wrong += violations(path.read_text(encoding="utf-8"), str(path.relative_to(ROOT)))
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("path", "source", "part"),
    [
        ("lib/models/a.py", "from ..core.config import get_cfg_defaults", "core"),
        ("lib/models/a.py", "def f():\n    from .. import core", "core"),
        ("lib/models/a.py", "import lib.demo.pipeline", "demo"),
        ("lib/models/a.py", "from lib import api", "api"),
        ("lib/models/a.py", "from ..nowhere import x", "nowhere"),
        ("lib/models/a.py", "from ... import benchmarks", "out of lib"),
        ("lib/motion/exporters/a.py", "from ...dataset.windows import video_spans", "dataset"),
        ("lib/dataset/a.py", "from ..open_data import draws", "open_data"),
        ("lib/api.py", "from .commands import main", "commands"),
    ],
)
def test_a_planted_violation_is_found(path: str, source: str, part: str) -> None:
    (found,) = violations(source, path)
    assert found.endswith(f" imports {part}")


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("lib/models/a.py", "from . import smpl\nfrom .body import BodyData\nfrom ..utils import metrics"),
        ("lib/motion/exporters/a.py", "from ..motion import Scene\nfrom ...models.body import BodyData"),
        ("lib/__init__.py", "from .commands import main"),
        ("lib/utils/a.py", "from .. import __version__\nfrom . import files"),
        ("lib/commands/a.py", "from .. import api\nimport torch\nfrom libcst import parse"),
    ],
)
def test_what_the_rule_allows(path: str, source: str) -> None:
    assert violations(source, path) == []


def test_the_page_names_every_package() -> None:
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    assert [name for name in sorted(parts()) if f"`{name}`" not in page and f"lib/{name}" not in page] == []


def test_files_of_lib_are_short() -> None:
    """CONTRIBUTING.md: at most 400 lines."""
    lengths = {
        path: len(path.read_text(encoding="utf-8").splitlines()) for path in (ROOT / "lib").rglob("*.py")
    }
    assert [path for path, lines in lengths.items() if lines > 400] == []

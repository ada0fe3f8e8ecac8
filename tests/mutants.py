"""One small fault at a time, to see whether a test notices: ``python -m tests.mutants`` (``make mutants``).

Each mutant is planted in a temporary copy of the repository, and the tests of its module, with ``--fast``
those in tests/fast.txt, run on it until one fails. What no test notices is listed; docs/reliability.md argues
those that change nothing.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import importlib
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import SimpleQueue

ROOT = Path(__file__).resolve().parents[1]
MODULES = {  # and what pytest is given
    "lib/utils/metrics.py": ["tests/test_metrics.py", "tests/test_fast_paths.py::test_metrics"],
    "lib/dataset/windows.py": [
        "tests/test_windows.py",
        "tests/test_original_data.py::test_original_windows_of_one_video",
        "tests/test_datasets.py::test_a_run_holds_the_windows_of_consecutive_frames",
    ],
    "lib/core/loss.py": ["tests/test_loss.py"],
    "lib/core/evaluator.py": ["tests/test_evaluate.py"],
    "lib/core/evaluation.py": ["tests/test_evaluate.py"],
    "lib/core/evaluation_set.py": ["tests/test_evaluate.py"],
    "lib/demo/tracking.py": ["tests/test_tracking.py", "-k", "not sample_video"],
    "lib/demo/likeness.py": ["tests/test_tracking.py", "-k", "not sample_video"],
    "lib/demo/looking.py": ["tests/test_tracking.py", "-k", "not sample_video"],
    "lib/demo/cuts.py": ["tests/test_tracking.py", "-k", "not sample_video"],
    "lib/demo/track.py": ["tests/test_tracking.py", "-k", "not sample_video"],
    "lib/open_data/simulate.py": ["tests/test_simulate.py", "tests/test_noise.py"],
}
FAST = {  # what tests/fast.txt must notice by itself, and which of its files to begin with
    "lib/utils/metrics.py": "tests/test_metrics.py",
    "lib/dataset/windows.py": "tests/test_windows.py",
    "lib/core/loss.py": "tests/test_loss.py",
    "lib/motion/camera.py": "tests/test_camera.py",
    "lib/motion/exporters/bvh.py": "tests/test_exports.py",
    "lib/motion/exporters/gltf.py": "tests/test_exports.py",
    "lib/utils/checkpoints.py": "tests/test_round_trips.py",
}
_EXTERNAL = ("torch", "cv2", "scipy.ndimage", "hypothesis", "tensorboard", "h5py", "smplx", "pytest")
_SWAPS = {
    "Lt": "LtE Gt", "LtE": "Lt Gt", "Gt": "GtE Lt", "GtE": "Gt Lt", "Eq": "NotEq", "NotEq": "Eq",
    "Is": "IsNot", "IsNot": "Is", "In": "NotIn", "NotIn": "In", "And": "Or", "Or": "And",
    "Add": "Sub", "Sub": "Add", "Mult": "Div", "Div": "Mult", "FloorDiv": "Mult", "Mod": "Mult",
    "Pow": "Mult", "BitAnd": "BitOr", "BitOr": "BitAnd",
}  # fmt: skip
_NAMES = {"min": "max", "any": "all", "minimum": "maximum", "amin": "amax", "ceil": "floor"}
_NAMES |= {theirs: ours for ours, theirs in _NAMES.items()}


@dataclass(frozen=True)
class Mutant:
    """A module with one fault: what stood in a line before and after, and the whole source."""

    module: str
    line: int
    before: str
    after: str
    source: str

    def __str__(self) -> str:
        return f"{self.module}:{self.line}: {self.before} -> {self.after}"


def mutants(module: str) -> list[Mutant]:
    """All mutants of a module, in the order of its lines."""
    tree, found = ast.parse((ROOT / module).read_text(encoding="utf-8")), []
    for holder, key in _places(tree):
        old = holder[key]
        for new in _replacements(old):
            holder[key] = new
            found.append(Mutant(module, old.lineno, _text(old), _text(new), ast.unparse(tree)))
        holder[key] = old
    return sorted(found, key=lambda mutant: mutant.line)


def _places(node: ast.AST) -> Iterator[tuple[dict | list, str | int]]:
    """Where a node can be replaced; not in annotations, messages, assertions or decorators."""
    if isinstance(node, (ast.Raise, ast.Assert, ast.JoinedStr, ast.Import, ast.ImportFrom)):
        return
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "type_comment"):
            continue
        holder, keys = (value, range(len(value))) if isinstance(value, list) else (vars(node), [name])
        for key in keys:
            if isinstance(child := holder[key], ast.AST):
                if hasattr(child, "lineno"):
                    yield holder, key
                yield from _places(child)


def _replacements(node: ast.AST) -> Iterator[ast.AST]:
    def changed(**fields: object) -> ast.AST:
        return ast.copy_location(type(node)(**{**vars(node), **fields}), node)

    def swapped(operator: ast.AST) -> list[ast.AST]:
        return [getattr(ast, name)() for name in _SWAPS.get(type(operator).__name__, "").split()]

    nothing = ast.copy_location(ast.Pass(), node)
    match node:
        case ast.Constant(value=bool(value)):
            yield changed(value=not value)
        case ast.Constant(value=int(value)):
            yield from (changed(value=value + 1), changed(value=value - 1))
        case ast.Constant(value=float(value)):
            yield from (changed(value=value * 2 or 1.0), changed(value=value / 2 or -1.0))
        case ast.Compare(ops=[operator]):
            yield from (changed(ops=[new]) for new in swapped(operator))
        case ast.BinOp(op=operator) | ast.BoolOp(op=operator):
            yield from (changed(op=new) for new in swapped(operator))
        case ast.AugAssign(op=operator):
            yield from (*(changed(op=new) for new in swapped(operator)), nothing)
        case ast.UnaryOp(operand=operand):
            yield operand
        case ast.IfExp(body=body, orelse=orelse):
            yield from (body, orelse)
        case ast.If() | ast.While():
            yield from (changed(test=ast.Constant(value)) for value in (True, False))
        case ast.Slice():
            yield from (changed(**{side: None}) for side in ("lower", "upper") if getattr(node, side))
        case ast.Name(id=name) if name in _NAMES:
            yield changed(id=_NAMES[name])
        case ast.Attribute(attr=name) if name in _NAMES:
            yield changed(attr=_NAMES[name])
        case ast.Expr(value=ast.Call()):
            yield nothing
        case ast.Assign(targets=[target], value=value):
            again = {name.id for name in ast.walk(value) if isinstance(name, ast.Name)}
            if isinstance(target, (ast.Subscript, ast.Attribute)) or getattr(target, "id", "") in again:
                yield nothing
        case ast.Continue():
            yield ast.copy_location(ast.Break(), node)
        case ast.Break():
            yield ast.copy_location(ast.Continue(), node)


def _text(node: ast.AST) -> str:
    line = ast.unparse(node).splitlines()[0]
    return line if len(line) < 90 else line[:87] + "..."


def copy_repository(folder: Path) -> None:
    """The files that git does not ignore, and a link to the downloads, which tests only read."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0")
    for name in filter(None, listed):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    (folder / "data/open/downloads").symlink_to((ROOT / "data/open/downloads").resolve())


def _run_tests(folder: Path, tests: list[str]) -> None:
    """In a child: end with the status of pytest."""
    os.setsid()
    os.chdir(folder)
    sys.path[:] = [str(folder), *(path for path in sys.path if path not in ("", str(ROOT)))]
    for name in [name for name in sys.modules if name == "tests" or name.startswith(("tests.", "lib"))]:
        del sys.modules[name]
    os.dup2(os.open("tests.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
    os.dup2(1, 2)
    import pytest

    options = ["-x", "-q", "-p", "no:cacheprovider", f"--basetemp={folder}/tmp"]
    os._exit(int(pytest.main([*options, *tests])))


def passes(folder: Path, tests: list[str], limit: float) -> bool:
    """Whether tests pass in a copy, in time."""
    child = multiprocessing.get_context("fork").Process(target=_run_tests, args=(folder, tests))
    child.start()
    child.join(limit)
    with contextlib.suppress(ProcessLookupError):  # and whatever the tests had started
        os.killpg(child.pid or 0, signal.SIGKILL)
    child.join()
    return child.exitcode == 0


class Copies:
    """Temporary copies of the repository, each for one mutant at a time."""

    def __init__(self, folder: Path, count: int) -> None:
        self.folders = [folder / str(number) for number in range(count)]
        self._free: SimpleQueue[Path] = SimpleQueue()
        for copy in self.folders:
            copy_repository(copy)
            self._free.put(copy)

    def kills(self, mutant: Mutant, tests: list[str], limit: float) -> bool:
        """Whether a test fails, or all together take longer than ``limit`` seconds."""
        folder = self._free.get()
        path = folder / mutant.module
        original = path.read_bytes()
        path.write_text(mutant.source, encoding="utf-8")
        try:
            return not passes(folder, tests, limit)
        finally:
            path.write_bytes(original)
            self._free.put(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--module", action="append", help="only this; may be repeated")
    parser.add_argument("--fast", action="store_true", help="the tests of `make fast`, whatever the module")
    parser.add_argument("--count", type=int, default=40, help="mutants of each module (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="decides which (%(default)s)")
    parser.add_argument("--jobs", type=int, default=1, help="at the same time (%(default)s)")
    args = parser.parse_args()
    known = FAST if args.fast else MODULES
    if unknown := set(args.module or ()) - known.keys():
        parser.error(f"--module {' '.join(unknown)}: expected any of {', '.join(known)}")
    os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    for name in _EXTERNAL:  # once, for all children
        importlib.import_module(name)
    with tempfile.TemporaryDirectory(prefix="mutants_") as temporary, ThreadPoolExecutor(args.jobs) as pool:
        copies, limits = Copies(Path(temporary), args.jobs), dict[str, float]()
        for module in args.module or known:
            tests = [FAST[module], "@tests/fast.txt"] if args.fast else MODULES[module]
            if (key := "fast" if args.fast else module) not in limits:
                started = time.monotonic()
                if not passes(copies.folders[0], tests, 3600):
                    raise SystemExit(f"the tests of {module} fail without a fault")
                limits[key] = 30 + 4 * (time.monotonic() - started)
            kills = partial(copies.kills, tests=tests, limit=limits[key])
            everything = mutants(module)
            chosen = random.Random(args.seed).sample(everything, min(args.count, len(everything)))
            killed = 0
            for mutant, dead in zip(chosen, pool.map(kills, chosen)):
                killed += dead
                if not dead:
                    print(f"survived {mutant}", flush=True)
            print(f"{module}: {killed} of {len(chosen)} killed, {len(everything)} exist", flush=True)


if __name__ == "__main__":
    main()

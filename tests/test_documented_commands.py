"""What the pages tell to type exists: programs, options, values, keys, make's targets, files, names."""

from __future__ import annotations

import argparse
import ast
import re
import shlex
import sys
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

from lib.commands import VERBS
from lib.core.config import get_cfg_defaults
from tests.mutants import FAST, MODULES

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    *(
        ROOT / name
        for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "data/README.md")
    ),
    *sorted(ROOT.glob("docs/*.md")),
]
NOT_OURS = {"--index-url", "--nproc_per_node", "--array"}  # of pip, torchrun, SLURM
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`\n]+)`")
START = re.compile(r"^(?:time |srun |[A-Z_]+=\S* )*(?:torchrun .*?(?=\S+\.py)|(?=(?:python|tcmr|make) ))")


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def commands(text: str) -> Iterator[list[str]]:
    """Words of each command in a page: in blocks without a language, and between single backticks."""
    blocks = [block for language, block in FENCE.findall(text) if language in ("", "sh", "bash")]
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines() + INLINE.findall(FENCE.sub("", text))
    for line in lines:
        if (start := START.match(line := line.strip())) is None:
            continue
        line = line[start.end() :].translate({ord(c): None for c in "[]"})  # [--what may be left out]
        words = shlex.split(line, comments=True)
        yield words if words[0] in ("python", "tcmr", "make") else ["python", *words]


def resolve(words: list[str]) -> list[tuple[str, list[str]]]:
    """Programs (modules, files, ``make``) that a command runs, and what they are given."""
    match words:
        case ["make", *given]:
            return [("make", given)]
        case ["tcmr", verb, *given] | ["python", "-m", "lib", verb, *given]:
            if verb == "VERB":
                return []
            assert verb in VERBS, f"no verb {verb}"
            module = VERBS[verb][0]
            return [("lib" + module[1:] if module.startswith("..") else f"lib.commands{module}", given)]
        case ["python", "-m", "venv" | "pip" | "pytest", *_] | ["python", "-" | "-c", *_]:
            return []
        case ["python", "-m", module, *given]:
            package, _, name = module.rpartition(".")
            if not name.isupper():
                return [(module, given)]
            files = (ROOT / package.replace(".", "/")).glob("*.py")
            return [(f"{package}.{path.stem}", given) for path in files if "def main(" in text_of(path)]
        case ["python", file, *given]:
            assert (ROOT / file).is_file(), f"no file {file}"
            if file.startswith("examples/"):  # tests/test_examples.py runs them
                return []
            name = file.removesuffix(".py").replace("/", ".")
            return [(name if "." in name else f"lib.commands.{name}", given)]
    raise AssertionError(f"not understood: {words}")


class Found(BaseException):
    """Carries the parser out of a program."""


@cache
def parser_of(program: str) -> argparse.ArgumentParser:
    """The parser that a program reads its command line with."""

    def stop(parser: argparse.ArgumentParser, *_: object) -> None:
        raise Found(parser)

    main = import_module(program).main
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [program])
        patch.setattr(argparse.ArgumentParser, "parse_args", stop)
        with pytest.raises(Found) as found:
            main()
    parser = found.value.args[0]
    assert isinstance(parser, argparse.ArgumentParser)
    return parser


def check(words: list[str]) -> None:
    """Whether a command would start: AssertionError, ImportError or SystemExit if not."""
    for program, given in resolve(words):
        if program == "make":
            makefile = text_of(ROOT / "Makefile")
            for word in given:
                name, variable, _ = word.partition("=")
                assert re.search(rf"^{name}{' [?:]?=' if variable else ':'}", makefile, re.MULTILINE), word
        elif not given:  # and not all that is run without options has a parser
            assert callable(import_module(program).main)
        else:
            parser = parser_of(program)
            check_values(parser.parse_args([*filled(parser, [word for word in given if word != "--help"])]))


def filled(parser: argparse.ArgumentParser, words: list[str]) -> Iterator[str]:
    """Words with something in place of ``N`` that its option takes, and without dots that stand for more."""
    for before, word in zip(["", *words], words):
        action = parser._option_string_actions.get(before)
        if word == "N" and action is not None:
            yield str(next(iter(action.choices or [1])))
        elif word not in ("…", "...") or action is not None:
            yield word


def check_values(args: argparse.Namespace) -> None:
    if getattr(args, "cfg", "") not in ("", "…"):
        assert (ROOT / args.cfg).is_file(), args.cfg
    for key in getattr(args, "opts", None) or []:
        if "." in key and key.isupper() and "/" not in key:
            assert is_key(key), key


def is_key(key: str) -> bool:
    node: object = get_cfg_defaults()
    for part in key.split("."):
        if not isinstance(node, dict) or part not in node:
            return False
        node = node[part]
    return True


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_would_start(page: Path) -> None:
    for words in commands(text_of(page)):
        try:
            check(words)
        except (AssertionError, ImportError, SystemExit) as error:
            pytest.fail(f"{page.name}: {shlex.join(words)}: {error!r}")


def test_commands_are_found() -> None:
    number = [len(list(commands(text_of(page)))) for page in PAGES]
    assert number[0] >= 12 and sum(number) > 60


@pytest.mark.parametrize(
    "command",
    [
        "python train.py --cfg configs/nowhere.yaml",
        "python evaluate.py --checkpoints experiments/RUN",
        "python train.py --opts TRAIN.NOTHING 1",
        "python scripts/make_pose2sim_db.py --network light",
        "python scripts/nothing.py --motions MOTIONS",
        "python -m lib.models.export FILE",
        "tcmr show FILE",
        "make nothing",
        "make demo FILM=my.mp4",
    ],
)
def test_what_is_not_there_is_found(command: str) -> None:
    (words,) = commands(f"Type `{command}` here.")
    with pytest.raises((AssertionError, ImportError, SystemExit)):
        check(words)


def programs() -> Iterator[str]:
    """All that has options."""
    for folder in ("lib", "scripts", "benchmarks", "tests"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            source, name = text_of(path), str(path.relative_to(ROOT))
            reads = "argv: Sequence" in source or "ArgumentParser(" in source
            if reads and "\ndef main(" in source and name != "lib/commands/__init__.py":
                yield name.removesuffix(".py").replace("/", ".")


@pytest.fixture(scope="module")
def known() -> set[str]:
    options = {option for program in programs() for option in parser_of(program)._option_string_actions}
    return options | NOT_OURS


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_options_keys_and_files_exist(page: Path, known: set[str]) -> None:
    text = FENCE.sub("", text_of(page))
    quoted = " ".join(INLINE.findall(text))
    options = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", quoted))
    assert sorted(options - known) == []
    keys = set(re.findall(r"\b(?:TRAIN|MODEL|LOSS|DATASET|COMPAT|PATHS)\.[A-Z][A-Z0-9_.]*\b", text))
    assert [key for key in sorted(keys) if not is_key(key.rstrip("."))] == []
    files = set(re.findall(r"\b(?:lib|scripts|tests|benchmarks|configs|examples|docs)/[\w/.-]+\.\w+", quoted))
    assert [file for file in sorted(files) if not (ROOT / file).exists()] == []
    for target in re.findall(r"\]\(([^)#:\s]+)\)", text):
        assert (page.parent / target).exists(), target


def test_imports_in_the_pages_exist() -> None:
    pattern = re.compile(r"^\s*(?:from (?:tcmr|lib)[\w.]* import .+|import tcmr[\w.]*)$", re.MULTILINE)
    for page in PAGES:
        for line in pattern.findall(text_of(page)):
            (node,) = ast.parse(line.strip()).body
            if isinstance(node, ast.ImportFrom):
                module = import_module(re.sub("^tcmr", "lib", node.module or ""))
                for alias in node.names:
                    name = f"{module.__name__}.{alias.name}"
                    assert hasattr(module, alias.name) or find_spec(name), f"{page.name}: {line}"


def test_the_table_of_quirks_is_complete_and_names_real_tests() -> None:
    """Labels D1 ... V6 and #1 ... #47 are all there; cited tests and keys exist."""
    text = (ROOT / "docs" / "compatibility.md").read_text(encoding="utf-8")
    labels = [
        label for line in text.splitlines() if line.startswith("| ") for label in line.split("|")[1].split()
    ]
    groups = zip("DPMTERV", (16, 16, 9, 12, 14, 12, 6))
    expected = [f"{letter}{k}" for letter, last in groups for k in range(1, last + 1)]
    expected += [f"#{k}" for k in range(1, 48)]
    found = [label for label in labels if re.fullmatch(r"[DPMTERV]\d+|#\d+", label)]
    assert sorted(found) == sorted(expected)
    cited = re.findall(r"`tests/(test_\w+)\.py::(\w+)`", text)
    assert len(cited) > len(expected)
    for file, test in cited:
        assert f"def {test}(" in (ROOT / "tests" / f"{file}.py").read_text(), f"{file}::{test}"
    for key in re.findall(r"`COMPAT\.(\w+)`", text):
        assert key in get_cfg_defaults().COMPAT


def test_the_lists_of_tests_name_what_is_there() -> None:
    fast = (ROOT / "tests/fast.txt").read_text().splitlines()
    assert set(FAST.values()) <= set(fast)
    for words in (fast, FAST, MODULES, *MODULES.values()):
        for file, _, test in (word.partition("::") for word in words if word.endswith(".py") or "::" in word):
            assert (ROOT / file).is_file(), file
            assert not test or f"def {test}(" in text_of(ROOT / file), test

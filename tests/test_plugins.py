"""Registries, and files of a user's own that add to them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from lib.utils.errors import UserError
from lib.utils.plugins import load_plugins
from lib.utils.registry import Registry


def test_registry() -> None:
    animals: Registry[int] = Registry("beast", "--animal")

    @animals.register("snake")
    def legs() -> int:
        return 0

    assert animals.add("horse", 4) == 4
    assert (animals["snake"](), list(animals), animals.get("hose"), "hose" in animals) == (
        0,
        ["snake", "horse"],
        None,
        False,
    )
    with pytest.raises(
        UserError, match=r"^--animal: there is no beast 'hose'.*snake, horse; did you mean horse"
    ):
        animals["hose"]
    with pytest.raises(UserError, match=r"^--pet: there is no beast '.*x1b'; expected any of snake, horse$"):
        animals.find("x\x1b", "--pet")
    with pytest.raises(UserError, match="'snake' of a beast is taken"):
        animals.register("snake")(legs)
    assert animals["snake"] is legs


def test_a_plugin_sees_the_same_registries_under_the_installed_name(tmp_path: Path, monkeypatch) -> None:
    from lib.motion.exporters import EXPORTERS

    plugin = tmp_path / "mine.py"
    plugin.write_text(
        "import tcmr\n"
        "from tcmr.motion import exporters\n"
        "from tcmr.motion.exporters import EXPORTERS\n"
        "assert exporters.EXPORTERS is EXPORTERS\n"
        "EXPORTERS.add('mine', len)\n"
    )
    try:
        load_plugins([plugin, tmp_path / "." / "mine.py"])  # once
        assert EXPORTERS["mine"] is len
        assert sys.modules["tcmr.motion.exporters"] is sys.modules["lib.motion.exporters"]
        assert sys.modules["lib.motion.exporters"].__spec__.name == "lib.motion.exporters"
    finally:
        EXPORTERS.pop("mine", None)


def test_plugins_that_cannot_be_run(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    (tmp_path / "broken.py").write_text("1 / 0")
    for file, message in (
        ("missing.py", "does not exist"),
        (".", "is a folder"),
        ("notes.txt", r"ends in \.py"),
    ):
        with pytest.raises(UserError, match=rf"^--plugin .*{message}"):
            load_plugins([tmp_path / file])
    for _ in range(2):  # a failed one is not taken for loaded
        with pytest.raises(ZeroDivisionError):
            load_plugins([tmp_path / "broken.py"])

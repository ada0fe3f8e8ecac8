"""Registries, and files of a user's own that add to them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from lib.core.config import from_dict, get_cfg_defaults, load_config, merge_opts, to_dict
from lib.core.loss import TCMRLoss, other_weights
from lib.dataset.datasets import DATASETS, DatasetSpec, database_path, get_spec, register_dataset
from lib.utils.errors import UserError
from lib.utils.plugins import load_plugins
from lib.utils.registry import Registry
from tests.trainer_tools import CONFIGS


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
    for name, code in (
        ("division", b"def f():\n    return 1 / 0\n\nf()"),
        ("syntax", b"\n\ndef (\n"),
        ("import", b"import absent_package"),
        ("binary", b"\xff\xfe\x00"),
        ("exit", b"import sys\nsys.exit(7)"),
        ("mistake", b"from tcmr.utils.errors import UserError\nraise UserError('its own line')"),
        ("ctrl_c", b"raise KeyboardInterrupt"),
    ):
        (tmp_path / f"{name}.py").write_bytes(code)
    for file, message in (
        ("missing.py", "does not exist"),
        (".", "is a folder"),
        ("notes.txt", r"ends in \.py"),
        ("division.py", r"division\.py: ZeroDivisionError: division by zero \(line 2\)$"),
        ("division.py", "ZeroDivisionError"),  # a failed one is not taken for loaded
        ("syntax.py", r"syntax\.py: SyntaxError: invalid syntax \(syntax\.py, line 3\)$"),
        ("import.py", r"ModuleNotFoundError: No module named 'absent_package' \(line 1\)$"),
        ("binary.py", "SyntaxError"),
        ("exit.py", r"SystemExit: 7 \(line 2\)$"),
    ):
        with pytest.raises(UserError, match=rf"^--plugin .*{message}"):
            load_plugins([tmp_path / file])
    with pytest.raises(UserError, match=r"^its own line$"):
        load_plugins([tmp_path / "mistake.py"])
    with pytest.raises(KeyboardInterrupt):
        load_plugins([tmp_path / "ctrl_c.py"])


def test_weights_of_own_loss_terms() -> None:
    cfg = load_config(CONFIGS / "open.yaml", ["LOSS.EXTRA.limbs", "2", "LOSS.VELOCITY_W", "0.5"])
    weights = {"velocity_2d": 150, "velocity_3d": 150, "velocity_pose": 30, "limbs": 2}
    assert other_weights(cfg.LOSS) == weights
    assert from_dict(to_dict(cfg)).LOSS.EXTRA == {"limbs": 2}  # of a checkpoint, whoever has the plugin
    with pytest.raises(UserError, match=r"^LOSS\.EXTRA: there is no loss term 'limbs'"):
        TCMRLoss(others=other_weights(cfg.LOSS))
    for value, message in (
        ("-1", "at least 0"),
        ("much", "could not convert"),
        ("nan", "at least 0"),
        ("inf", "finite"),
    ):
        with pytest.raises(UserError, match=rf"LOSS\.EXTRA\.limbs.*{message}"):
            load_config(CONFIGS / "open.yaml", ["LOSS.EXTRA.limbs", value])


def test_datasets_are_told_apart_by_name_and_key() -> None:
    for spec in (DatasetSpec("Open", "mine"), DatasetSpec("Mine", "open")):
        with pytest.raises(UserError, match=r"'[Oo]pen'"):
            register_dataset(spec)
    cfg = get_cfg_defaults()
    with pytest.raises(UserError, match="names no database"):
        merge_opts(cfg, ["DATASET.FILES.mine_train", "x.pt"])
    assert from_dict({"DATASET": {"FILES": {"mine_train": "x.pt"}}}).DATASET.FILES.mine_train == "x.pt"
    try:
        spec = register_dataset(DatasetSpec("Mine", "mine"))
        assert get_spec("mine") is get_spec("Mine") is spec
        assert database_path(spec, "val", cfg).name == "mine_val_db.pt"
        merge_opts(cfg, ["DATASET.FILES.mine_train", "x.pt"])
        assert database_path(spec, "train", cfg).name == "x.pt"
    finally:
        DATASETS.pop("Mine", None)

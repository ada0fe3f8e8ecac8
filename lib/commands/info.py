"""What is installed, what is found where, and which commands therefore work."""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from .. import __version__
from ..core.config import load_config
from ..dataset.datasets import database_path, get_spec
from ..demo.models import OFFICIAL_CHECKPOINT, OPEN_CHECKPOINT, POSES_CHECKPOINT
from ..demo.networks import find_asset
from ..models.body import find_smpl
from ..models.extractors import LANDMARK_CHECKPOINT, SPIN_CHECKPOINT
from ..models.precision import cpu_has_bf16
from ..models.shipped import SHIPPED
from ..utils import paths
from ..utils.errors import UserError
from ..utils.paths import module_command
from ..utils.pinned import ASSETS, HEAVY, fetch_command

PACKAGES = ("torch", "numpy", "scipy", "opencv-python-headless", "av", "ai-edge-litert", "smplx")
EXTRAS = {"torchvision": "detectors", "python-osc": "live", "ray": "batch", "bvhio": "bvh"}
_SPIN_FILES = ("J_regressor_extra.npy", "J_regressor_h36m.npy", "smpl_mean_params.npz")


def main(argv: Sequence[str] | None = None) -> None:
    """The command line; see the module's text."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="as JSON, for scripts")
    args = parser.parse_args(argv)
    found = collect()
    print(json.dumps(found, indent=2) if args.json else describe(found))


def collect() -> dict[str, Any]:
    """Everything, as plain values.

    Returns:
        ``tcmr``, ``python``, ``platform``: versions; ``packages``, ``extras``: versions, None where missing;
        ``device``; ``folders``; ``weights``: the facts of what ships, and ``fault``, '' if it is right;
        ``assets``: by name ``path``, ``found``, and ``mend``, the command or the page that gets it;
        ``commands``: by name ``works``, ``missing`` (names of assets) and ``mend``.
    """
    assets = find_assets()
    return {
        "tcmr": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
        "extras": {name: _version(name) for name in EXTRAS},
        "device": _device(),
        "folders": {
            "package": str(Path(paths.__file__).parents[1]),
            "weights": str(paths.OPEN_DATA),
            "data": str(paths.DATA),
        },
        "weights": [
            {
                "path": str(paths.OPEN_DATA / entry.file),
                **asdict(entry),
                "fault": entry.fault(paths.OPEN_DATA),
            }
            for entry in SHIPPED
        ],
        "assets": assets,
        "commands": _commands(assets),
    }


def find_assets() -> dict[str, dict[str, Any]]:
    """What commands need beside the package, by name: path, whether it is there, how to get it."""
    form = f"accept its licence at {{}} and put it into {paths.BASE_DATA}".format
    spin, tcmr = form("github.com/nkolot/SPIN"), form("github.com/hongsukchoi/TCMR_RELEASE")
    threedpw = module_command(f"{__name__.partition('.')[0]}.data_utils.threedpw") + " --set test"
    smpl = find_smpl(paths.BASE_DATA) or paths.BASE_DATA / "SMPL_NEUTRAL.pkl"
    found: dict[str, tuple[Path, str]] = {
        entry.file: (paths.OPEN_DATA / entry.file, "restore it from the repository or install tcmr again")
        for entry in SHIPPED
    }
    for name, asset in ASSETS.items():
        try:
            place = find_asset(name, paths.OPEN_DATA)
        except UserError:
            place = paths.DOWNLOADS / asset.path
        found[name] = place, fetch_command(asset.option)
    found["SMPL"] = smpl, form("smplify.is.tue.mpg.de")
    for file in (*_SPIN_FILES, SPIN_CHECKPOINT):
        found[file] = paths.BASE_DATA / file, spin
    found[OFFICIAL_CHECKPOINT] = paths.BASE_DATA / OFFICIAL_CHECKPOINT, tcmr
    for config, dataset, mend in (
        ("open", "open", "python scripts/make_open_db.py, in a checkout"),
        ("repr_table4_3dpw_model", "3dpw", threedpw),
    ):
        cfg = load_config(paths.CONFIGS / f"{config}.yaml")
        split = database_path(get_spec(dataset), "test", cfg)
        found[f"{dataset} test database"] = Path(paths.located(str(split))).absolute(), mend
    checkpoint = Path(cfg.TRAIN.PRETRAINED).absolute()
    found["3dpw checkpoint"] = checkpoint, f"{tcmr.rpartition(' into ')[0]} into {checkpoint.parent}"
    return {
        name: {"path": str(path), "found": path.exists(), "mend": "" if path.exists() else mend}
        for name, (path, mend) in found.items()
    }


def _commands(assets: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    body, networks = "open_body.npz", ("person_detector", "landmarks_full")
    weights = (body, LANDMARK_CHECKPOINT, OPEN_CHECKPOINT)
    official = ("SMPL", *_SPIN_FILES)
    needs = {
        "demo": (*weights, *networks),
        "demo on the sample video": (*weights, *networks, "demo_video"),
        "demo with the larger landmark network": (*weights, "person_detector", HEAVY),
        "demo with SMPL": (*official, SPIN_CHECKPOINT, OFFICIAL_CHECKPOINT, *networks),
        "demo --poses FILE": (body, POSES_CHECKPOINT),
        "live": (*weights, *networks),
        "batch": (*weights, *networks),
        "export, viewer": (body,),
        "train --cfg configs/open.yaml": (body, LANDMARK_CHECKPOINT),
        "evaluate --dataset open --cfg configs/open.yaml": (body, OPEN_CHECKPOINT, "open test database"),
        "evaluate --dataset 3dpw --cfg configs/repr_table4_3dpw_model.yaml": (
            *official,
            "3dpw checkpoint",
            "3dpw test database",
        ),
    }
    commands = {}
    for command, names in needs.items():
        missing = [name for name in names if not assets[name]["found"]]
        mend = list(dict.fromkeys(assets[name]["mend"] for name in missing))
        commands[command] = {"works": not missing, "missing": missing, "mend": mend}
    return commands


def _device() -> dict[str, Any]:
    cuda = torch.cuda.is_available()
    return {
        "cuda": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if cuda else [],
        "mps": torch.backends.mps.is_available(),
        "cpu_threads": torch.get_num_threads(),
        "cpu_cores": os.cpu_count(),
        "cpu_bf16": cpu_has_bf16(),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def describe(found: dict[str, Any]) -> str:
    """The same to read."""
    device, folders = found["device"], found["folders"]
    runs_on = device["cuda"] or (["mps"] if device["mps"] else ["the CPU"])
    lines = [
        f"tcmr {found['tcmr']}, Python {found['python']}, {found['platform']}",
        f"runs on {', '.join(runs_on)}; {device['cpu_threads']} threads on {device['cpu_cores']} cores, "
        f"bfloat16 on the CPU: {'yes' if device['cpu_bf16'] else 'no'}",
        "packages: " + ", ".join(f"{name} {value or 'MISSING'}" for name, value in found["packages"].items()),
        "extras: "
        + ", ".join(
            f"{name} {value}" if value else f"no {name} (pip install 'tcmr[{EXTRAS[name]}]')"
            for name, value in found["extras"].items()
        ),
        f"code in {folders['package']}, data in {folders['data']}",
        "",
        f"weights that ship, in {folders['weights']}",
    ]
    for entry in found["weights"]:
        lines.append(f"  {entry['file']}: {entry['what']}" + f" ({entry['fault']})" * bool(entry["fault"]))
        facts = [("from", entry["trained_on"]), ("licence", entry["licence"]), ("sha256", entry["sha256"])]
        facts += [("extractor", entry["fingerprint"]), ("fps", f"{entry['fps']:g}" if entry["fps"] else "")]
        facts += [("held-out performers", entry["metrics"])]
        lines += [f"    {name}: {value}" for name, value in facts if value]
    lines += ["", "files"]
    width = max(map(len, found["assets"]))
    for name, asset in found["assets"].items():
        lines.append(f"  {'ok ' if asset['found'] else 'no '} {name:<{width}}  {asset['path']}")
    lines += ["", "commands"]
    for name, command in found["commands"].items():
        lines.append(f"  {'ok ' if command['works'] else 'no '} {name}")
        if not command["works"]:
            lines.append(f"        missing: {', '.join(command['missing'])}")
            lines += [f"        mend: {mend}" for mend in command["mend"]]
    return "\n".join(lines)

"""Other formats from a scene: ``python -m lib.motion.export tcmr_output.npz --to glb,bvh``."""

from __future__ import annotations

if __name__ == "__main__":  # first, so that Ctrl-C while the rest is imported is one line, too
    from ..utils.errors import leave_on_signals

    leave_on_signals()

import argparse
from collections.abc import Sequence
from pathlib import Path

from ..models.body import BASE_DATA, OPEN_DATA, BodyData, load_body, load_gendered_body
from ..utils.errors import UserError, run_command, shown
from ..utils.files import check_writable
from ..utils.plugins import add_plugin_option, load_plugins
from .exporters import EXPORTERS, export_scene
from .motion import Scene
from .scene_file import load_scene


def scene_body(scene: Scene, base_data: str | Path = BASE_DATA, open_dir: str | Path = OPEN_DATA) -> BodyData:
    """The body that a scene was made with.

    Raises:
        UserError: it is not installed, or there is no such body.
    """
    if scene.body == "open":
        return load_body(open_dir, open_dir=open_dir)
    if scene.body == "smpl":
        return load_gendered_body(base_data, scene.gender)
    raise UserError(
        f"the scene's body is {shown(scene.body)!r}, expected smpl or open; make it anew with demo.py"
    )


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Write a scene in the formats that other programs read.")
    parser.add_argument("scene", help="tcmr_output.npz of demo.py")
    parser.add_argument(
        "--to",
        type=lambda text: text.split(","),
        required=True,
        metavar="FORMATS",
        help=f"any of {','.join(EXPORTERS)}; docs/exports.md says what is in each",
    )
    parser.add_argument("--output_folder", default="", help="default: the folder of the scene")
    parser.add_argument("--base_data", default=BASE_DATA, help="folder of the official body (%(default)s)")
    parser.add_argument("--open_dir", default=OPEN_DATA, help="folder of the open body (%(default)s)")
    add_plugin_option(parser)
    args = parser.parse_args(argv)
    load_plugins(args.plugin)
    for name in args.to:
        EXPORTERS.find(name, "--to")
    folder = Path(args.output_folder or Path(args.scene).parent)
    scene = load_scene(args.scene)
    body = scene_body(scene, args.base_data, args.open_dir)
    check_writable(folder / "scene", "--output_folder")
    for path in export_scene(scene, body, folder, args.to):
        print(path)


if __name__ == "__main__":
    run_command(main)

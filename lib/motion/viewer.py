"""``viewer.html``: a scene beside its video, in one page that opens from disk without anything else.

``python -m lib.motion.viewer tcmr_output.npz --video my.mp4``
"""

from __future__ import annotations

if __name__ == "__main__":  # first, so that Ctrl-C while the rest is imported is one line, too
    from ..utils.errors import leave_on_signals

    leave_on_signals()

import argparse
import html
import json
import logging
import re
from base64 import b64encode
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..models.body import BASE_DATA, OPEN_DATA, BodyData
from ..utils.colours import person_colour
from ..utils.errors import UserError, run_command
from ..utils.files import atomic_write, check_writable
from ..video.frames import FrameSource, ImageFolder
from ..video.video_file import VideoFile
from .export import scene_body
from .exporters import gltf
from .feet import SOLE_JOINTS, Skeleton
from .motion import Motion, Scene, rest_vertices
from .scene_file import load_scene
from .web_video import encode_webm

log = logging.getLogger(__name__)

_ASSETS = Path(__file__).parent / "viewer_assets"
_MODULES = {
    "three": "three/three.module.min.js",
    "three-core": "three/three.core.min.js",
    "orbit-controls": "three/OrbitControls.js",
    "data": "data.js",
    "player": "player.js",
    "stage": "stage.js",
    "timeline": "timeline.js",
}
_RATES = 1.0, 250.0  # 1/s, of the video in the page: WebM counts milliseconds


def write_viewer(
    scene: Scene,
    body: BodyData,
    source: FrameSource,
    path: str | Path,
    progress: Callable[[int], object] = lambda n: None,
) -> None:
    """Write the page; it appears only when it is complete.

    Args:
        body: the one that the scene's shapes belong to.
        source: the video that the scene was made from.
        progress: called with 1 per frame.

    Raises:
        UserError: the video is of another size or length than the scene's, or the page cannot be written.
    """
    camera, info = scene.camera, source.info
    if (info.width, info.height) != (camera.width, camera.height):
        raise UserError(
            f"{source.path} is {info.width}x{info.height} px, but the motions are of a video of "
            f"{camera.width}x{camera.height}; give the video that they were made from"
        )
    video_fps = float(np.clip(scene.fps, *_RATES))
    video = encode_webm(source, video_fps, scene.n_frames, progress)
    contents = {
        "title": html.escape(scene.name),
        "style": _asset("viewer.css"),
        "modules": json.dumps({"imports": {name: _module(file) for name, file in _MODULES.items()}}),
        "scene": _json(_scene_data(scene, body) | {"videoFps": video_fps}),
        "video": b64encode(video).decode(),
        "glb": b64encode(gltf.glb(scene, body)).decode(),
        "script": _asset("viewer.js"),
    }
    # In one pass: a name that looks like a place to be filled stays a name.
    page = re.sub(r"\{\{(\w+)\}\}", lambda match: contents[match[1]], _asset("viewer.html"))
    with atomic_write(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _asset(name: str) -> str:
    return (_ASSETS / name).read_text(encoding="utf-8")


def _module(name: str) -> str:
    """A module as an address of its own: a page from disk may not load files beside it."""
    text = _asset(name).replace('"./three.core.min.js"', '"three-core"')
    return f"data:text/javascript;base64,{b64encode(text.encode()).decode()}"


def _json(data: dict[str, Any]) -> str:
    """JSON that cannot end the element it stands in."""
    return json.dumps(data, allow_nan=False).replace("<", "\\u003c")


def _array(values: np.ndarray, dtype: str) -> dict[str, str]:
    """Little-endian numbers for the page's ``decode``."""
    return {"type": dtype, "data": b64encode(np.ascontiguousarray(values, f"<{dtype}").tobytes()).decode()}


def _scene_data(scene: Scene, body: BodyData) -> dict[str, Any]:
    joints, weights = gltf.skin_weights(body)
    return {
        "name": scene.name,
        "fps": scene.fps,
        "nFrames": scene.n_frames,
        "cameraMoves": scene.camera_moves,
        "camera": {
            "width": scene.camera.width,
            "height": scene.camera.height,
            "focal": scene.camera.focal,
            "rotation": scene.world_rotation.tolist(),
            "offset": scene.world_offset.tolist(),
        },
        "body": {
            "parents": body.parents.tolist(),
            "faces": _array(body.faces, "u2"),
            "skinJoints": _array(joints, "u1"),
            "skinWeights": _array(weights, "f4"),
            "soleJoints": SOLE_JOINTS,
        },
        "people": [_person_data(motion, index, body) for index, motion in enumerate(scene.people)],
    }


def _person_data(motion: Motion, index: int, body: BodyData) -> dict[str, Any]:
    skeleton = Skeleton.of(body, motion.betas)
    quats = np.stack([gltf.steady_quaternions(rotmat) for rotmat in motion.world.rotmat.swapaxes(0, 1)], 1)
    return {
        "id": motion.person_id,
        "colour": person_colour(index),
        "start": int(motion.frames[0]),
        "rest": skeleton.rest.tolist(),
        "vertices": _array(rest_vertices(body, motion.betas), "f4"),
        "soles": (skeleton.soles + skeleton.rest[SOLE_JOINTS]).tolist(),
        # x, y, z, w in steps of 1/32767: less than 0.1 mm at a fingertip.
        "rotations": _array(np.rint(32767 * quats), "i2"),
        "translations": _array(motion.world.transl, "f4"),
        "contacts": _array(motion.contacts, "u1"),
        "attention": _array(motion.attention, "f4"),
    }


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; ``--help`` documents it."""
    parser = argparse.ArgumentParser(
        prog="python -m lib.motion.viewer" if __name__ == "__main__" else None,
        description="Write one web page that shows motions in 3D beside their video.",
    )
    parser.add_argument("motions", metavar="tcmr_output.npz", help="result of demo.py")
    parser.add_argument(
        "--video", required=True, help="the video, or folder of images, that the motions were made from"
    )
    parser.add_argument("--output", default="", help="the page (viewer.html beside the motions)")
    parser.add_argument("--base_data", default=BASE_DATA, help="folder of the official files (%(default)s)")
    parser.add_argument("--open_dir", default=OPEN_DATA, help="folder of the open body (%(default)s)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    scene = load_scene(args.motions)
    output = Path(args.output or Path(args.motions).with_name("viewer.html"))
    check_writable(output, "--output")
    source = ImageFolder(args.video) if Path(args.video).is_dir() else VideoFile(args.video)
    write_viewer(scene, scene_body(scene, args.base_data, args.open_dir), source, output)
    log.info("written: %s", output)


if __name__ == "__main__":
    run_command(main)

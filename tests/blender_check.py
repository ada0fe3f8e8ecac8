"""Import exported files into Blender, and compare what it shows in every frame with the truth beside them.

Run by ``make test-blender`` with a Python that has ``bpy``: ``python tests/blender_check.py FOLDER``, which
``python -m tests.export_tools FOLDER`` has written. Exit status 1 if anything is further off than 1 mm.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import bpy
import numpy as np

TOLERANCE = 1e-3  # metres
Z_UP = np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]])  # the files' y up to Blender's axes


def empty_scene(fps: float) -> None:
    bpy.ops.wm.read_factory_settings(use_empty=True)
    import addon_utils  # bpy brings it

    for addon in ("io_scene_gltf2", "io_anim_bvh"):
        addon_utils.enable(addon)
    bpy.context.scene.render.fps = round(fps)


def show(frame: float) -> None:
    bpy.context.scene.frame_set(int(frame), subframe=frame - int(frame))


def heads(armature: bpy.types.Object, bones: list[str]) -> np.ndarray:
    """(24, 3) where the bones begin, in the axes of the files."""
    points = [armature.matrix_world @ armature.pose.bones[name].head for name in bones]
    return np.array(points) @ Z_UP


def vertices(mesh: bpy.types.Object) -> np.ndarray:
    """(V, 3) as Blender skins them, in the axes of the files."""
    shown = mesh.evaluated_get(bpy.context.evaluated_depsgraph_get())
    points = np.empty(3 * len(shown.data.vertices))
    shown.data.vertices.foreach_get("co", points)
    matrix = np.array(shown.matrix_world)
    return (points.reshape(-1, 3) @ matrix[:3, :3].T + matrix[:3, 3]) @ Z_UP


def check_glb(folder: Path, truth: dict) -> dict[str, float]:
    """Largest distances in metres, of joints and of vertices; and the size of whom nobody should see."""
    empty_scene(truth["fps"])
    bpy.ops.import_scene.gltf(filepath=str(folder / "scene.glb"))
    scene_fps = bpy.context.scene.render.fps
    people = {person["id"]: person for person in truth["people"]}
    armatures = {i: bpy.data.objects[f"person_{i}"] for i in people}
    meshes = {
        i: next(o for o in bpy.data.objects if o.type == "MESH" and o.find_armature() == armature)
        for i, armature in armatures.items()
    }
    worst = {"joints": 0.0, "vertices": 0.0, "unseen": 0.0}
    for frame in range(truth["n_frames"]):
        show(frame / truth["fps"] * scene_fps)
        for i, person in people.items():
            points = vertices(meshes[i])
            if frame in person["frames"]:
                row = person["frames"].index(frame)
                off = {
                    "joints": heads(armatures[i], truth["bones"]) - person["joints"][row],
                    "vertices": points[:: truth["every"]] - person["vertices"][row],
                }
            else:
                off = {"unseen": points - points.mean(0)}
            for name, values in off.items():
                worst[name] = max(worst[name], float(np.linalg.norm(values, axis=-1).max()))
    return worst


def check_bvh(path: Path, person: dict, truth: dict) -> float:
    """Largest distance of the joints in metres."""
    empty_scene(truth["fps"])
    bpy.ops.import_anim.bvh(filepath=str(path), global_scale=0.01, frame_start=1)
    (armature,) = bpy.data.objects
    worst = 0.0
    for row, joints in enumerate(person["joints"]):
        show(1 + row)
        worst = max(worst, float(np.linalg.norm(heads(armature, truth["bones"]) - joints, axis=-1).max()))
    return worst


def main(root: Path) -> None:
    lines, failed = [], False
    for path in sorted(root.glob("*/truth.json")):
        folder, truth = path.parent, json.loads(path.read_text())
        found = {f"scene.glb {name}": value for name, value in check_glb(folder, truth).items()}
        for person in truth["people"]:
            name = f"person_{person['id']}.bvh"
            found[f"{name} joints"] = check_bvh(folder / name, person, truth)
        failed |= max(found.values()) > TOLERANCE
        lines += [f"{folder.name}: {name} {1000 * value:.4f} mm" for name, value in found.items()]
    print("\n".join([f"Blender {bpy.app.version_string}, largest distances", *lines]))
    sys.exit(1 if failed or not lines else 0)


if __name__ == "__main__":
    main(Path(sys.argv[-1]))

"""Scenes to export, what their files must say, and a reader of glTF that knows only the file's own numbers.

``python -m tests.export_tools FOLDER [tcmr_output.npz ...]`` exports the scene of :func:`make_scene` and
those given, each into a folder of its own, with a ``truth.json`` for the programs that read the files.
"""

from __future__ import annotations

import json
import struct
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation, Slerp

from lib.models.body import OPEN_DATA, BodyData, load_body
from lib.models.smpl import SMPL
from lib.motion.camera import Camera
from lib.motion.export import scene_body
from lib.motion.exporters import export_scene
from lib.motion.exporters.skeleton import BONES
from lib.motion.meshes import Meshes
from lib.motion.motion import Motion, Placed, Scene
from lib.motion.scene_file import load_scene

FPS = 30000 / 1001
N_FRAMES = 12
SOME_VERTICES = slice(0, None, 97)


def make_scene(body: BodyData) -> Scene:
    """Three people in 12 frames: one turns round twice, one lies and rolls, one jumps with a somersault.

    The second comes later and leaves earlier, the third stays to the end. The camera looks down on them.
    """
    random = np.random.default_rng(0)
    turn = about("y", np.linspace(10, 730, 12))
    roll = about("x", np.full(6, -90)) * about("y", np.linspace(-100, 200, 6))
    flip = about("y", np.full(8, 40)) * about("x", np.linspace(0, 360, 8))
    s = np.linspace(-1, 1, 8)
    paths = [
        (1, 0, turn, np.stack([np.linspace(-1, 1, 12), np.full(12, 0.95), np.zeros(12)], 1)),
        (2, 3, roll, np.stack([np.linspace(0, 0.5, 6), np.full(6, 0.15), np.full(6, -1)], 1)),
        (7, 4, flip, np.stack([s, 0.95 + 0.6 * (1 - s**2), np.ones(8)], 1)),
    ]
    camera = Camera(640, 480, 700.0)
    down = about("x", np.array([-20]))[0].as_matrix() @ np.diag([1.0, -1, -1])
    offset = np.array([0.3, 2.5, 6.0])
    smpl = SMPL(body)
    people = []
    for person_id, first, root, pelvis in paths:
        betas = random.normal(0, 1, 10).astype(np.float32)
        rest = naive_rest(body, betas)
        rotmat = wild_rotations(random, len(pelvis))
        rotmat[:, 0] = root.as_matrix()
        world = Placed(rotmat.astype(np.float32), (pelvis - rest[0]).astype(np.float32))
        seen = world.moved(down.T, -offset @ down, rest[0])
        joints = Meshes(smpl, Placed(seen.rotmat, np.zeros_like(seen.transl)), betas).joints()
        n = len(pelvis)
        people.append(
            Motion(
                person_id=person_id,
                frames=first + np.arange(n),
                betas=betas,
                camera=seen,
                world=world,
                contacts=random.random((n, 4)) < 0.5,
                boxes=np.tile(np.array([320, 240, 300, 300], np.float32), (n, 1)),
                joints3d=joints,
                joints2d=camera.project(joints + seen.transl[:, None]).astype(np.float32),
                attention=np.full((n, 3), 1 / 3, np.float32),
                fps=FPS,
            )
        )
    return Scene(
        name="three people",
        people=tuple(people),
        camera=camera,
        fps=FPS,
        n_frames=N_FRAMES,
        body=body.kind,
        gender=body.gender,
        world_rotation=down,
        world_offset=offset,
    )


def about(axis: str, degrees: np.ndarray) -> Rotation:
    return Rotation.from_euler(axis, degrees[:, None], degrees=True)


def wild_rotations(random: np.random.Generator, n: int) -> np.ndarray:
    """(n, 24, 3, 3): joints that turn by up to 150 degrees, more than those of people do."""
    ends = Rotation.from_rotvec(random.uniform(-1.5, 1.5, (24, 2, 3)).reshape(-1, 3)).as_matrix()
    moments = np.linspace(0, 1, n)
    joints = [Slerp([0, 1], Rotation.from_matrix(pair))(moments) for pair in ends.reshape(24, 2, 3, 3)]
    return np.stack([joint.as_matrix() for joint in joints], axis=1)


def naive_rest(body: BodyData, betas: np.ndarray) -> np.ndarray:
    return body.J_regressor @ (body.v_template + (body.shapedirs * betas).sum(axis=-1))


def naive_joints(body: BodyData, motion: Motion) -> np.ndarray:
    """(T, 24, 3) metres in the world, one after the other along the kinematic tree."""
    rest = naive_rest(body, motion.betas).astype(float)
    found = []
    for rotmat, transl in zip(motion.world.rotmat.astype(float), motion.world.transl):
        turns, places = [rotmat[0]], [rest[0] + transl]
        for joint in range(1, 24):
            parent = body.parents[joint]
            turns.append(turns[parent] @ rotmat[joint])
            places.append(places[parent] + turns[parent] @ (rest[joint] - rest[parent]))
        found.append(places)
    return np.array(found)


@dataclass
class Glb:
    """A binary glTF file, decoded by hand."""

    json: dict[str, Any]
    binary: bytes

    @classmethod
    def read(cls, path: Path) -> Glb:
        data = path.read_bytes()
        magic, version, length = struct.unpack_from("<4sII", data)
        assert (magic, version, length) == (b"glTF", 2, len(data))
        chunks, at = {}, 12
        while at < length:
            size, kind = struct.unpack_from("<I4s", data, at)
            chunks[kind] = data[at + 8 : at + 8 + size]
            at += 8 + size
        return cls(json.loads(chunks[b"JSON"]), chunks[b"BIN\0"])

    def array(self, accessor: int) -> np.ndarray:
        """The numbers of an accessor (n, k)."""
        entry = self.json["accessors"][accessor]
        view = self.json["bufferViews"][entry["bufferView"]]
        kind = {5121: "<u1", 5123: "<u2", 5126: "<f4"}[entry["componentType"]]
        width = {"SCALAR": 1, "VEC3": 3, "VEC4": 4, "MAT4": 16}[entry["type"]]
        at = view.get("byteOffset", 0) + entry.get("byteOffset", 0)
        return np.frombuffer(self.binary, kind, entry["count"] * width, at).reshape(-1, width)

    def node(self, name: str) -> int:
        (found,) = (i for i, node in enumerate(self.json["nodes"]) if node["name"] == name)
        return found

    def skin(self, person: str) -> dict[str, Any]:
        return self.json["skins"][self.json["nodes"][self.node(person)]["skin"]]

    def attribute(self, person: str, name: str) -> np.ndarray:
        mesh = self.json["meshes"][self.json["nodes"][self.node(person)]["mesh"]]
        return self.array(mesh["primitives"][0]["attributes"][name])

    def parents(self) -> dict[int, int]:
        return {c: i for i, node in enumerate(self.json["nodes"]) for c in node.get("children", [])}

    def globals(self, moment: float | None) -> np.ndarray:
        """(nodes, 4, 4): where each node is at a moment of the animation, None for at rest."""
        states = [dict(node) for node in self.json["nodes"]]
        (animation,) = self.json["animations"]
        for channel in animation["channels"] if moment is not None else []:
            sampler = animation["samplers"][channel["sampler"]]
            times, values = self.array(sampler["input"])[:, 0], self.array(sampler["output"])
            states[channel["target"]["node"]][channel["target"]["path"]] = _sample(
                times, values, moment, sampler.get("interpolation", "LINEAR"), channel["target"]["path"]
            )
        parents = self.parents()
        matrices: dict[int, np.ndarray] = {}

        def matrix(node: int) -> np.ndarray:
            if node not in matrices:
                state, local = states[node], np.eye(4)
                turn = Rotation.from_quat(state.get("rotation", [0, 0, 0, 1])).as_matrix()
                local[:3, :3] = turn * np.asarray(state.get("scale", [1, 1, 1]))
                local[:3, 3] = state.get("translation", [0, 0, 0])
                matrices[node] = matrix(parents[node]) @ local if node in parents else local
            return matrices[node]

        return np.stack([matrix(node) for node in range(len(states))])

    def joints(self, person: str, moment: float | None) -> np.ndarray:
        """(24, 3) the joints of a person."""
        return self.globals(moment)[self.skin(person)["joints"], :3, 3]

    def vertices(self, person: str, moment: float) -> np.ndarray:
        """(V, 3) the skinned mesh of a person."""
        skin = self.skin(person)
        # Matrices are stored columns first.
        inverse = self.array(skin["inverseBindMatrices"]).reshape(-1, 4, 4).swapaxes(1, 2)
        moves = self.globals(moment)[skin["joints"]] @ inverse
        position, weights = self.attribute(person, "POSITION"), self.attribute(person, "WEIGHTS_0")
        blended = np.einsum("vk,vkij->vij", weights, moves[self.attribute(person, "JOINTS_0")])
        return np.einsum("vij,vj->vi", blended[:, :3, :3], position) + blended[:, :3, 3]


def _sample(
    times: np.ndarray, values: np.ndarray, moment: float, interpolation: str, path: str
) -> np.ndarray:
    after = int(np.searchsorted(times, moment, side="right"))
    if after in (0, len(times)):
        return values[max(after - 1, 0)]
    before = after - 1
    if interpolation == "STEP":
        return values[before]
    share = (moment - times[before]) / (times[after] - times[before])
    if path == "rotation":  # as readers do it: no side of the quaternion is changed where they are near
        mixed = (1 - share) * values[before] + share * values[after]
        return mixed / np.linalg.norm(mixed)
    return (1 - share) * values[before] + share * values[after]


def write_truth(scene: Scene, body: BodyData, folder: Path) -> None:
    """``truth.json``: per person the frames, the joints, and some vertices of the mesh in ``scene.glb``."""
    glb = Glb.read(folder / "scene.glb")
    people = [
        {
            "id": motion.person_id,
            "frames": motion.frames.tolist(),
            "joints": naive_joints(body, motion).tolist(),
            "vertices": [
                glb.vertices(f"person_{motion.person_id}", np.float32(frame / scene.fps))[
                    SOME_VERTICES
                ].tolist()
                for frame in motion.frames
            ],
        }
        for motion in scene.people
    ]
    truth = {
        "bones": BONES,
        "fps": scene.fps,
        "n_frames": scene.n_frames,
        "every": SOME_VERTICES.step,
        "people": people,
    }
    (folder / "truth.json").write_text(json.dumps(truth))


def main(folder: Path, paths: list[Path]) -> None:
    body = load_body(OPEN_DATA)
    scenes = {"three_people": (make_scene(body), body)}
    for index, path in enumerate(paths):
        scene = load_scene(path)
        scenes[f"{index}_{path.parent.name}"] = (scene, scene_body(scene))
    for name, (scene, body) in scenes.items():
        export_scene(scene, body, folder / name, ["glb", "bvh"])
        write_truth(scene, body, folder / name)


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]])

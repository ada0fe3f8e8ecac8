"""``scene.glb``: everybody as a skinned, animated mesh in one binary glTF 2.0 file."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pygltflib as gl
from jaxtyping import Float, Integer, UInt8
from scipy.spatial.transform import Rotation

from ...models.body import BodyData
from ...utils.colours import person_colour
from ...utils.files import atomic_write
from ..motion import Motion, Scene, rest_joints, rest_vertices
from .skeleton import BONES

_WEIGHTS = 4  # joints per vertex that every reader takes
_NEAR = 0.1  # metres, of the camera's view
_TYPES = {1: gl.SCALAR, 3: gl.VEC3, 4: gl.VEC4, 16: gl.MAT4}
_COMPONENTS = {"uint8": gl.UNSIGNED_BYTE, "uint16": gl.UNSIGNED_SHORT, "float32": gl.FLOAT}


def export(scene: Scene, body: BodyData, folder: Path) -> list[Path]:
    """Write one file: metres, y up, the floor at 0, seconds of the video.

    A node ``person_<id>`` per person holds the mesh, with the person's shape in it, and the skeleton. At rest
    it is a T-pose that stands on the floor; in frames without the person the scale of the hips is 0. If the
    camera stands still, a node ``camera`` looks at the scene as the video's camera does.
    """
    path = folder / "scene.glb"
    with atomic_write(path) as temporary:
        temporary.write_bytes(glb(scene, body))
    return [path]


def glb(scene: Scene, body: BodyData) -> bytes:
    """What :func:`export` writes."""
    return b"".join(_file(scene, body).save_to_bytes())


@dataclass
class _Buffer:
    """The binary part of a file, and how its content is named in the other part."""

    gltf: gl.GLTF2
    parts: list[bytes] = field(default_factory=list)
    size: int = 0

    def add(self, values: np.ndarray, target: int | None = None, *, limits: bool = False) -> int:
        """Append an array (n,) or (n, k); ``limits``: with its smallest and largest values. The accessor."""
        values = np.ascontiguousarray(values)
        data = values.tobytes()
        view = gl.BufferView(buffer=0, byteOffset=self.size, byteLength=len(data), target=target)
        accessor = gl.Accessor(
            bufferView=len(self.gltf.bufferViews),
            componentType=_COMPONENTS[values.dtype.name],
            count=len(values),
            type=_TYPES[values[0].size],
        )
        if limits:
            rows = values.reshape(len(values), -1)
            accessor.min, accessor.max = rows.min(0).tolist(), rows.max(0).tolist()
        self.gltf.bufferViews.append(view)
        self.gltf.accessors.append(accessor)
        self.parts.append(data + bytes(-len(data) % 4))
        self.size += len(self.parts[-1])
        return len(self.gltf.accessors) - 1


def _file(scene: Scene, body: BodyData) -> gl.GLTF2:
    extras = {
        "fps": scene.fps,
        "frames": scene.n_frames,
        "body": scene.body,
        "camera_moves": scene.camera_moves,
    }
    gltf = gl.GLTF2(asset=gl.Asset(version="2.0", generator="TCMR"))
    gltf.scene, gltf.scenes = 0, [gl.Scene(name=scene.name, nodes=[], extras=extras)]
    animation = gl.Animation(name="motion")
    buffer = _Buffer(gltf)
    joints, weights = skin_weights(body)
    shared = {
        "JOINTS_0": buffer.add(joints, gl.ARRAY_BUFFER),
        "WEIGHTS_0": buffer.add(weights, gl.ARRAY_BUFFER),
    }
    indices = buffer.add(body.faces.astype(np.uint16).ravel(), gl.ELEMENT_ARRAY_BUFFER)
    for index, motion in enumerate(scene.people):
        vertices = rest_vertices(body, motion.betas)
        standing = np.array([0, -vertices[:, 1].min(), 0])
        rest = rest_joints(body, motion.betas)
        gltf.materials.append(_material(index))
        attributes = gl.Attributes(
            POSITION=buffer.add((vertices + standing).astype(np.float32), gl.ARRAY_BUFFER, limits=True),
            NORMAL=buffer.add(_normals(vertices, body.faces), gl.ARRAY_BUFFER),
            **shared,
        )
        primitive = gl.Primitive(attributes=attributes, indices=indices, material=index)
        gltf.meshes.append(gl.Mesh(name=f"person_{motion.person_id}", primitives=[primitive]))
        person = _add_person(gltf, buffer, index, motion.person_id, rest + standing, body.parents.tolist())
        gltf.scenes[0].nodes.append(person)
        _animate(animation, buffer, scene, motion, person, rest)
    gltf.animations.append(animation)
    if not scene.camera_moves:
        _add_camera(gltf, scene)
    gltf.buffers.append(gl.Buffer(byteLength=buffer.size))
    gltf.set_binary_blob(b"".join(buffer.parts))
    return gltf


def skin_weights(body: BodyData) -> tuple[UInt8[np.ndarray, "v 4"], Float[np.ndarray, "v 4"]]:
    """Of each vertex the joints that move it most, and by which part."""
    joints = np.argsort(-body.weights, axis=1, kind="stable")[:, :_WEIGHTS]
    weights = np.take_along_axis(body.weights, joints, axis=1)
    joints[weights == 0] = 0  # as the format asks
    return joints.astype(np.uint8), weights / weights.sum(1, keepdims=True)


def _normals(
    vertices: Float[np.ndarray, "v 3"], faces: Integer[np.ndarray, "n 3"]
) -> Float[np.ndarray, "v 3"]:
    """Unit normals: the sum of those of the faces about a vertex, by their areas."""
    a, b, c = (vertices[faces[:, corner]] for corner in range(3))
    normals = np.zeros_like(vertices)
    for corner in range(3):
        np.add.at(normals, faces[:, corner], np.cross(b - a, c - a))
    lengths = np.linalg.norm(normals, axis=1, keepdims=True)
    return np.where(lengths > 0, normals / np.maximum(lengths, 1e-12), [0, 1, 0]).astype(np.float32)


def _material(person: int) -> gl.Material:
    srgb = np.array(person_colour(person))
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    surface = gl.PbrMetallicRoughness(
        baseColorFactor=[*linear.tolist(), 1.0], metallicFactor=0.0, roughnessFactor=0.7
    )
    return gl.Material(name=f"colour_{person + 1}", pbrMetallicRoughness=surface, alphaCutoff=None)


def _add_person(
    gltf: gl.GLTF2, buffer: _Buffer, index: int, person_id: int, rest: np.ndarray, parents: list[int]
) -> int:
    """Nodes of a person and of its joints, and the skin that ties the mesh to them; the person's node."""
    person = len(gltf.nodes)
    first = person + 1
    gltf.nodes.append(gl.Node(name=f"person_{person_id}", mesh=index, skin=index, children=[first]))
    for joint, parent in enumerate(parents):
        children = [first + child for child, above in enumerate(parents) if above == joint]
        offset = rest[joint] - rest[parent] if parent >= 0 else rest[joint]
        gltf.nodes.append(
            gl.Node(name=BONES[joint], children=children, translation=offset.astype(float).tolist())
        )
    inverse = np.tile(np.eye(4, dtype=np.float32), (len(rest), 1, 1))
    inverse[:, 3, :3] = -rest  # columns first
    gltf.skins.append(
        gl.Skin(
            name=f"person_{person_id}",
            joints=list(range(first, first + len(rest))),
            skeleton=first,
            inverseBindMatrices=buffer.add(inverse.reshape(-1, 16)),
        )
    )
    return person


def _animate(
    animation: gl.Animation, buffer: _Buffer, scene: Scene, motion: Motion, person: int, rest: np.ndarray
) -> None:
    """Keys at the moments of the person's frames; before and after them the skeleton has no size."""

    def channel(
        node: int, path: str, times: int, values: np.ndarray, interpolation: str = gl.ANIM_LINEAR
    ) -> None:
        sampler = gl.AnimationSampler(
            input=times, output=buffer.add(values.astype(np.float32)), interpolation=interpolation
        )
        target = gl.AnimationChannelTarget(node=node, path=path)
        animation.channels.append(gl.AnimationChannel(sampler=len(animation.samplers), target=target))
        animation.samplers.append(sampler)

    hips = person + 1
    times = buffer.add((motion.frames / scene.fps).astype(np.float32), limits=True)
    channel(hips, "translation", times, rest[0] + motion.world.transl)
    for joint in range(len(rest)):
        channel(hips + joint, "rotation", times, steady_quaternions(motion.world.rotmat[:, joint]))

    first, end = int(motion.frames[0]), int(motion.frames[-1]) + 1
    # The last one, so that the animation is as long as the video.
    moments = np.array(sorted({0, first, end, scene.n_frames - 1} - {scene.n_frames}))
    seen = (first <= moments) & (moments < end)
    if not seen.all():
        times = buffer.add((moments / scene.fps).astype(np.float32), limits=True)
        channel(hips, "scale", times, np.repeat(seen[:, None], 3, axis=1), gl.ANIM_STEP)


def steady_quaternions(rotmat: Float[np.ndarray, "t 3 3"]) -> Float[np.ndarray, "t 4"]:
    """Rotations as unit quaternions x, y, z, w, each on the side of the one before, so that
    what lies between them takes the short way."""
    quats: np.ndarray = Rotation.from_matrix(rotmat).as_quat()
    turns = np.where((quats[1:] * quats[:-1]).sum(1) < 0, -1, 1)
    quats[1:] *= np.cumprod(turns)[:, None]
    return quats


def _add_camera(gltf: gl.GLTF2, scene: Scene) -> None:
    camera = scene.camera
    lens = gl.Perspective(
        aspectRatio=camera.width / camera.height,
        yfov=2 * float(np.arctan(camera.height / 2 / camera.focal)),
        znear=_NEAR,
    )
    gltf.cameras.append(gl.Camera(type="perspective", perspective=lens))
    # Cameras of the format look along -z with y up.
    turn = Rotation.from_matrix(scene.world_rotation @ np.diag([1.0, -1, -1]))
    gltf.scenes[0].nodes.append(len(gltf.nodes))
    gltf.nodes.append(
        gl.Node(
            name="camera",
            camera=0,
            rotation=turn.as_quat().tolist(),
            translation=np.asarray(scene.world_offset, float).tolist(),
        )
    )

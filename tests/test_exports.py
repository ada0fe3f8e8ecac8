"""What is in each format, by readers that are not ours; tests/test_conformance.py compares the joints."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import bvhio
import numpy as np
import pytest
import smplx
import torch
from scipy.spatial.transform import Rotation
from smplx.utils import Struct

from lib.models.body import BodyData
from lib.models.smpl import SMPL
from lib.motion import export
from lib.motion.exporters import EXPORTERS, export_scene
from lib.motion.exporters.bvh import euler_angles, steady_angles
from lib.motion.exporters.coco import KEYPOINTS
from lib.motion.exporters.skeleton import BONES
from lib.motion.exporters.trc import MARKERS
from lib.motion.meshes import Meshes
from lib.motion.motion import Motion, Scene
from lib.motion.scene_file import load_scene, save_scene
from lib.utils import atomic
from lib.utils.errors import UserError, run_command
from lib.utils.files import load_joblib
from lib.utils.keypoints import JOINT_NAMES
from tests.export_tools import FPS, N_FRAMES, Glb, make_scene, naive_joints, naive_rest

MM = 1e-3
_TIPS = (("Head", 1), ("LeftToeBase", 2), ("RightToeBase", 2), ("LeftHandIndex1", 0), ("RightHandIndex1", 0))
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def scene(open_body: BodyData) -> Scene:
    return make_scene(open_body)


@pytest.fixture(scope="module")
def written(scene: Scene, open_body: BodyData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the scene in all formats."""
    folder = tmp_path_factory.mktemp("all formats")
    export_scene(scene, open_body, folder, EXPORTERS)
    return folder


def name_of(motion: Motion) -> str:
    return f"person_{motion.person_id}"


def world_meshes(motion: Motion, body: BodyData) -> Meshes:
    return Meshes(SMPL(body), motion.world, motion.betas)


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_files_of_all_formats(scene, open_body, written, tmp_path) -> None:
    people = [f"person_{i}.{suffix}" for i in (1, 2, 7) for suffix in ("npz", "bvh", "trc")]
    meshes = [f"meshes/{m.person_id:04d}/{f:06d}.obj" for m in scene.people for f in m.frames]
    assert files_in(written) == {*people, *meshes, "scene.glb", "scene.json", "tcmr_output.pkl"}
    # Nothing tells when it was written, and what is asked for twice is written once.
    told = export_scene(scene, open_body, tmp_path, ["glb", "npz", "bvh", "json", "trc", "glb"])
    assert len(told) == len(set(told)) == 11
    for path in told:
        assert path.read_bytes() == (written / path.name).read_bytes(), path


# --------------------------------------------------------------------------------
# AMASS


def smplx_fields(body: BodyData) -> dict[str, np.ndarray]:
    return {
        "v_template": body.v_template,
        "shapedirs": body.shapedirs,
        "posedirs": body.posedirs,
        "J_regressor": body.J_regressor,
        "weights": body.weights,
        "f": body.faces,
        "kintree_table": np.stack([body.parents.copy(), np.arange(24)]),
    }


def smplh_fields(body: BodyData) -> dict[str, np.ndarray]:
    """The body with 15 finger joints per hand in place of SMPL's hands: three to a finger."""
    fields = smplx_fields(body)
    hands = [
        w if k % 3 == 0 else 22 + side * 15 + k - 1 for side, w in enumerate((20, 21)) for k in range(15)
    ]
    parents = np.array([*body.parents[:22], *hands])
    fields["kintree_table"] = np.stack([parents, np.arange(52)])
    fields["J_regressor"] = np.concatenate(
        [body.J_regressor[:22], *(np.tile(body.J_regressor[hand], (15, 1)) for hand in (22, 23))]
    )
    weights = np.zeros((6890, 52), np.float32)
    weights[:, :22], weights[:, 22], weights[:, 37] = body.weights[:, :22], *body.weights[:, 22:].T
    fields["weights"] = weights
    fields["posedirs"] = np.concatenate(
        [body.posedirs[..., : 21 * 9], np.zeros((6890, 3, 30 * 9), np.float32)], axis=2
    )
    none = {f"hands_{what}{side}": np.zeros((45, 45)[: 2 - (what == "mean")], np.float32)
            for what in ("components", "mean") for side in "lr"}  # fmt: skip
    return fields | none


def test_amass_by_smplx(scene, open_body, written) -> None:
    for motion in scene.people:
        data = np.load(written / f"{name_of(motion)}.npz", allow_pickle=False)
        n = len(motion)
        assert data["poses"].shape == (n, 156)
        assert data["poses_smpl"].shape == (n, 72)
        assert data["betas"].shape == (16,)
        assert str(data["gender"]) == "neutral"
        assert data["mocap_framerate"] == data["mocap_frame_rate"] == FPS
        np.testing.assert_array_equal(data["frames"], motion.frames)
        np.testing.assert_array_equal(data["root_orient"], data["poses"][:, :3])
        np.testing.assert_array_equal(data["pose_body"], data["poses"][:, 3:66])
        tensors = {key: torch.from_numpy(data[key]) for key in ("poses", "poses_smpl", "trans", "betas")}
        betas = tensors["betas"].expand(n, -1)
        smpl = smplx.SMPL("", data_struct=Struct(**smplx_fields(open_body)), batch_size=n)
        poses = tensors["poses_smpl"]
        posed = smpl(
            betas=betas[:, :10], global_orient=poses[:, :3], body_pose=poses[:, 3:], transl=tensors["trans"]
        )
        smplh = smplx.SMPLH(
            "", data_struct=Struct(**smplh_fields(open_body)), batch_size=n, use_pca=False,
            flat_hand_mean=True,
        )  # fmt: skip
        poses = tensors["poses"]
        posed_h = smplh(
            betas=betas[:, :10], global_orient=poses[:, :3], body_pose=poses[:, 3:66],
            left_hand_pose=poses[:, 66:111], right_hand_pose=poses[:, 111:], transl=tensors["trans"],
        )  # fmt: skip
        truth = naive_joints(open_body, motion)
        for joints, some in ((posed.joints, 24), (posed_h.joints, 22)):
            x, y, z = joints[:, :some].detach().numpy().transpose(2, 0, 1)
            np.testing.assert_allclose(np.stack([x, z, -y], axis=-1), truth[:, :some], atol=MM)


# --------------------------------------------------------------------------------
# BVH


def test_bvh_has_a_pose_for_every_frame(scene, written) -> None:
    for motion in scene.people:
        file = bvhio.readAsBvh(str(written / f"{name_of(motion)}.bvh"))
        assert file.FrameCount == len(motion)
        assert file.FrameTime == pytest.approx(1 / FPS, abs=1e-9)


def test_bvh_rests_as_a_t_pose_with_limbs_that_end_where_the_skin_does(scene, open_body, written) -> None:
    for motion in scene.people:
        rest = naive_rest(open_body, motion.betas)
        skin = open_body.v_template + open_body.shapedirs @ motion.betas
        file = bvhio.readAsBvh(str(written / f"{name_of(motion)}.bvh"))
        turns = ["Zrotation", "Xrotation", "Yrotation"]
        assert file.Root.Channels == ["Xposition", "Yposition", "Zposition", *turns]
        places, ends, left = {}, {}, [(file.Root, np.zeros(3))]
        while left:
            joint, above = left.pop()
            at = places[joint.Name] = above + list(joint.Offset)
            if not joint.Children:
                ends[joint.Name] = at + list(joint.EndSite)
            assert all(child.Channels == turns for child in joint.Children)
            left += [(child, at) for child in joint.Children]
        moved = [100 * (joint - rest[0]) for joint in rest]
        np.testing.assert_allclose([places[name] for name in BONES], moved, atol=1e-4)
        ends = {name: at / 100 + rest[0] for name, at in ends.items()}
        assert set(ends) == {"Head", "LeftToeBase", "RightToeBase", "LeftHandIndex1", "RightHandIndex1"}
        assert ends["Head"][1] == pytest.approx(skin[:, 1].max(), abs=1e-5)
        assert ends["LeftHandIndex1"][0] == pytest.approx(skin[:, 0].max(), abs=1e-5)
        assert ends["RightHandIndex1"][0] == pytest.approx(skin[:, 0].min(), abs=1e-5)
        for name, axis in _TIPS:
            bone = ends[name] - rest[BONES.index(name)]
            np.testing.assert_allclose(np.delete(bone, axis), 0, atol=1e-5)  # along one axis
        for side in ("Left", "Right"):
            assert 0.02 < ends[f"{side}ToeBase"][2] - rest[BONES.index(f"{side}ToeBase"), 2] < 0.2


def test_euler_angles_are_those_of_scipy_and_hold_in_gimbal_lock() -> None:
    turns = Rotation.random(200, rng=0)
    np.testing.assert_allclose(
        euler_angles(turns.as_matrix()), turns.as_euler("ZXY", degrees=True), atol=1e-9
    )
    locked = Rotation.from_euler("ZXY", [[z, x, 20] for z in range(-170, 180, 20) for x in (-90, 90)], True)
    for matrix in (locked.as_matrix(), locked.as_matrix().astype(np.float32)):
        again = Rotation.from_euler("ZXY", euler_angles(matrix), degrees=True)
        assert np.degrees((again * locked.inv()).magnitude()).max() < 1e-4


def test_steady_angles_are_the_same_rotations_without_jumps() -> None:
    """A turn of 720 degrees about each axis: no angle jumps, also where the middle one passes 90 degrees."""
    for axis in np.eye(3):
        turns = Rotation.from_rotvec(np.linspace(0, 4 * np.pi, 100)[:, None] * axis)
        angles = steady_angles(euler_angles(turns.as_matrix())[:, None])
        again = Rotation.from_euler("ZXY", angles[:, 0], degrees=True)
        assert (again * turns.inv()).magnitude().max() < 1e-6
        np.testing.assert_allclose(
            np.abs(np.diff(angles, axis=0)).max(axis=(0, 1)), 720 / 99 * axis[[2, 0, 1]], atol=1e-6
        )


# --------------------------------------------------------------------------------
# GLB


def moment(scene: Scene, frame: int) -> np.float32:
    return np.float32(frame / scene.fps)


def test_glb_by_its_own_numbers(scene, open_body, written) -> None:
    """Skinned as the file says, the mesh is the motion's but for the pose correctives and small weights."""
    glb = Glb.read(written / "scene.glb")
    for motion in scene.people:
        person, meshes = name_of(motion), world_meshes(motion, open_body)
        skinned = naive_skinning(motion, open_body)
        for row, frame in enumerate(motion.frames):
            at = moment(scene, frame)
            np.testing.assert_allclose(glb.joints(person, at), naive_joints(open_body, motion)[row], atol=MM)
            vertices = glb.vertices(person, at)
            assert np.linalg.norm(vertices - meshes[row], axis=1).mean() < 0.01
            four = (open_body.weights > 0).sum(1) <= 4
            assert four.sum() > 5000
            np.testing.assert_allclose(vertices[four], skinned[row][four], atol=0.1 * MM)


def naive_skinning(motion: Motion, body: BodyData) -> np.ndarray:
    """(T, V, 3) in the world: linear blend skinning without pose correctives."""
    rest = naive_rest(body, motion.betas)
    shaped = body.v_template + (body.shapedirs * motion.betas).sum(axis=-1)
    found = []
    for rotmat, joints in zip(motion.world.rotmat.astype(float), naive_joints(body, motion)):
        turns = [rotmat[0]]
        for joint in range(1, 24):
            turns.append(turns[body.parents[joint]] @ rotmat[joint])
        moved = [(shaped - rest[j]) @ turns[j].T + joints[j] for j in range(24)]
        found.append(np.einsum("vj,jvk->vk", body.weights, np.array(moved)))
    return np.array(found)


def test_glb_rests_as_a_t_pose_on_the_floor(scene, open_body, written) -> None:
    glb = Glb.read(written / "scene.glb")
    for motion in scene.people:
        person, rest = name_of(motion), naive_rest(open_body, motion.betas)
        joints, vertices = glb.joints(person, None), glb.attribute(person, "POSITION")
        assert vertices[:, 1].min() == pytest.approx(0, abs=1e-6)
        np.testing.assert_allclose(joints - joints[0], rest - rest[0], atol=1e-6)
        # Each joint's inverse bind matrix undoes where the joint rests.
        skin = glb.skin(person)
        inverse = glb.array(skin["inverseBindMatrices"]).reshape(-1, 4, 4).swapaxes(1, 2)
        identity = glb.globals(None)[skin["joints"]] @ inverse
        np.testing.assert_allclose(identity, np.tile(np.eye(4), (24, 1, 1)), atol=1e-6)
        assert [glb.json["nodes"][node]["name"] for node in skin["joints"]] == BONES


def test_glb_keeps_to_the_rules_of_the_format(scene, open_body, written) -> None:
    glb = Glb.read(written / "scene.glb")
    content = glb.json
    assert len(glb.binary) == content["buffers"][0]["byteLength"]
    for view in content["bufferViews"]:
        assert view["byteOffset"] % 4 == 0
        assert view["byteOffset"] + view["byteLength"] <= len(glb.binary)
    (faces,) = {mesh["primitives"][0]["indices"] for mesh in content["meshes"]}
    np.testing.assert_array_equal(glb.array(faces)[:, 0].reshape(-1, 3), open_body.faces)
    for motion in scene.people:
        person = name_of(motion)
        weights, joints = glb.attribute(person, "WEIGHTS_0"), glb.attribute(person, "JOINTS_0")
        np.testing.assert_allclose(weights.sum(1), 1, atol=1e-6)
        assert joints.max() < 24
        normals, vertices = glb.attribute(person, "NORMAL"), glb.attribute(person, "POSITION")
        np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-5)
        # Outwards: a step along its normal leads out of the body's box where a vertex is on its border.
        for axis in range(3):
            assert normals[vertices[:, axis].argmax(), axis] > 0.5
            assert normals[vertices[:, axis].argmin(), axis] < -0.5
    colours = [m["pbrMetallicRoughness"]["baseColorFactor"] for m in content["materials"]]
    assert len({tuple(colour) for colour in colours}) == len(scene.people)
    (animation,) = content["animations"]
    for sampler in animation["samplers"]:
        times = content["accessors"][sampler["input"]]
        numbers = glb.array(sampler["input"])[:, 0]
        assert (times["min"], times["max"]) == ([numbers.min()], [numbers.max()])
        assert (np.diff(numbers) > 0).all()
    for channel in animation["channels"]:
        if channel["target"]["path"] == "rotation":
            quats = glb.array(animation["samplers"][channel["sampler"]]["output"])
            np.testing.assert_allclose(np.linalg.norm(quats, axis=1), 1, atol=1e-6)
            assert ((quats[1:] * quats[:-1]).sum(1) >= 0).all()


def test_glb_moves_at_the_moments_of_the_video_and_hides_who_is_not_there(scene, written) -> None:
    glb = Glb.read(written / "scene.glb")
    ends = [accessor["max"][0] for accessor in glb.json["accessors"] if accessor["type"] == "SCALAR" and
            "max" in accessor]  # fmt: skip
    assert max(ends) == pytest.approx((N_FRAMES - 1) / FPS)
    for frame in range(N_FRAMES):
        for motion in scene.people:
            size = np.ptp(glb.vertices(name_of(motion), moment(scene, frame) + 1e-4), axis=0).max()
            assert size == pytest.approx(0, abs=1e-5) if motion.row(frame) is None else size > 0.5


def test_glb_camera_sees_what_the_video_sees(scene, written, open_body) -> None:
    glb = Glb.read(written / "scene.glb")
    (lens,) = (camera["perspective"] for camera in glb.json["cameras"])
    motion = scene.people[0]
    points = world_meshes(motion, open_body).joints()[0]
    camera = glb.globals(None)[glb.node("camera")]
    x, y, z = ((points - camera[:3, 3]) @ camera[:3, :3]).T  # the format's cameras look along -z, y up
    focal = 240 / np.tan(lens["yfov"] / 2)
    pixels = np.stack([320 + focal * x / -z, 240 - focal * y / -z], axis=1)
    np.testing.assert_allclose(pixels, motion.joints2d[0], atol=0.01)
    assert lens["aspectRatio"] == pytest.approx(640 / 480)


def test_a_moving_camera_and_a_single_frame(scene, open_body, tmp_path) -> None:
    motion = scene.people[0]
    first = replace(
        motion,
        **{name: getattr(motion, name)[:1] for name in
           ("frames", "contacts", "boxes", "joints3d", "joints2d", "attention")},
        camera=replace(motion.camera, rotmat=motion.camera.rotmat[:1], transl=motion.camera.transl[:1]),
        world=replace(motion.world, rotmat=motion.world.rotmat[:1], transl=motion.world.transl[:1]),
    )  # fmt: skip
    photo = replace(scene, people=(first,), n_frames=1, camera_moves=True)
    export_scene(photo, open_body, tmp_path, EXPORTERS)
    glb = Glb.read(tmp_path / "scene.glb")
    assert "cameras" not in glb.json
    np.testing.assert_allclose(glb.joints("person_1", 0.0), naive_joints(open_body, first)[0], atol=MM)
    assert bvhio.readAsBvh(str(tmp_path / "person_1.bvh")).FrameCount == 1
    assert np.load(tmp_path / "person_1.npz")["poses"].shape == (1, 156)


# --------------------------------------------------------------------------------
# JSON, TRC, OBJ, pickle


def test_json_is_cocos_with_joints_that_project_onto_its_keypoints(scene, open_body, written) -> None:
    content = json.loads((written / "scene.json").read_text())
    assert [image["id"] for image in content["images"]] == list(range(N_FRAMES))
    assert content["images"][5]["time"] == pytest.approx(5 / FPS, abs=1e-6)
    (category,) = content["categories"]
    assert category["keypoints"] == KEYPOINTS
    assert KEYPOINTS[:2] + KEYPOINTS[-2:] == ["nose", "left_eye", "left_ankle", "right_ankle"]
    K, turn = np.array(content["camera"]["K"]), np.array(content["camera"]["world_rotation"])
    rows = content["annotations"]
    assert [row["id"] for row in rows] == list(range(1, sum(map(len, scene.people)) + 1))
    by_person = {motion.person_id: motion for motion in scene.people}
    coco = [JOINT_NAMES["spin"].index(name) for name in JOINT_NAMES["coco"]]
    for row in rows:
        motion = by_person[row["person_id"]]
        at = motion.row(row["image_id"])
        seen, world = np.array(row["keypoints_3d_camera"]), np.array(row["keypoints_3d"])
        np.testing.assert_allclose(world, world_meshes(motion, open_body).joints()[at, coco], atol=MM)
        np.testing.assert_allclose(seen @ turn.T + content["camera"]["world_offset"], world, atol=MM)
        x, y, v = np.array(row["keypoints"]).reshape(17, 3).T
        pixels = seen @ K.T
        np.testing.assert_allclose(np.stack([x, y], 1), pixels[:, :2] / pixels[:, 2:], atol=0.2)
        inside = (x >= 0) & (x < 640) & (y >= 0) & (y < 480)
        np.testing.assert_array_equal(v, np.where(inside, 2, 1))
        left, top, width, height = row["bbox"]
        assert (left + width / 2, top + height / 2) == (320, 240)


def test_trc_has_the_markers_at_the_joints(scene, open_body, written) -> None:
    for motion in scene.people:
        path = written / f"{name_of(motion)}.trc"
        lines = path.read_text().splitlines()
        assert lines[0].split("\t") == ["PathFileType", "4", "(X/Y/Z)", path.name]
        header = dict(zip(lines[1].split("\t"), lines[2].split("\t")))
        assert float(header["DataRate"]) == float(header["CameraRate"]) == FPS
        assert (int(header["NumFrames"]), int(header["NumMarkers"])) == (len(motion), len(MARKERS))
        assert header["Units"] == "m"
        names = lines[3].rstrip("\t").split("\t")
        assert names[:2] == ["Frame#", "Time"]
        assert [name for name in names[2:] if name] == MARKERS
        assert lines[4].split("\t")[2:5] == ["X1", "Y1", "Z1"]
        assert lines[5] == ""
        rows = np.array([line.split("\t") for line in lines[6:]], float)
        np.testing.assert_array_equal(rows[:, 0], motion.frames + 1)
        np.testing.assert_allclose(rows[:, 1], motion.frames / FPS, atol=1e-6)
        joints = world_meshes(motion, open_body).joints()
        for marker, source in (("Hip", "OP MidHip"), ("RHeel", "OP RHeel"), ("LWrist", "OP LWrist"),
                               ("Head", "headtop"), ("Neck", "OP Neck")):  # fmt: skip
            column = 2 + 3 * MARKERS.index(marker)
            truth = joints[:, JOINT_NAMES["spin"].index(source)]
            np.testing.assert_allclose(rows[:, column : column + 3], truth, atol=MM)


def test_pickle_has_the_originals_keys_and_the_new_ones(scene, written) -> None:
    results = load_joblib(written / "tcmr_output.pkl")
    assert list(results) == [1, 2, 7]
    for motion in scene.people:
        result, n = results[motion.person_id], len(motion)
        assert list(result) == ["pred_cam", "orig_cam", "verts", "pose", "betas", "joints3d", "joints2d",
                                "joints2d_img_coord", "bboxes", "frame_ids", "trans", "fps", "image_size",
                                "focal_length", "body"]  # fmt: skip
        assert result["verts"].shape == (n, 6890, 3)
        seen = scene.camera.project(result["joints3d"] + result["trans"][:, None])
        np.testing.assert_allclose(seen, result["joints2d_img_coord"], atol=1e-2)
        again = Rotation.from_rotvec(result["pose"].reshape(-1, 3)).as_matrix()
        np.testing.assert_allclose(again.reshape(n, 24, 3, 3), motion.camera.rotmat, atol=1e-5)
        assert (result["fps"], result["body"], result["focal_length"]) == (FPS, "open", 700)
        assert result["image_size"].tolist() == [640, 480]


# --------------------------------------------------------------------------------
# The command, and what goes wrong


@pytest.fixture
def saved(scene: Scene, tmp_path: Path) -> Path:
    save_scene(scene, tmp_path / "result" / "tcmr_output.npz")
    return tmp_path / "result" / "tcmr_output.npz"


def test_command_writes_beside_the_scene_or_elsewhere(saved, written, capsys, tmp_path) -> None:
    export.main([str(saved), "--to", "glb,bvh"])
    names = ["scene.glb", "person_1.bvh", "person_2.bvh", "person_7.bvh"]
    assert capsys.readouterr().out.split("\n") == [*(str(saved.parent / name) for name in names), ""]
    export.main([str(saved), "--to", "glb,bvh", "--output_folder", str(tmp_path / "a" / "b")])
    for name in names:
        same = (written / name).read_bytes()
        assert (saved.parent / name).read_bytes() == (tmp_path / "a" / "b" / name).read_bytes() == same


def test_official_bodies_are_taken_from_where_they_are(scene, smpl_body, base_data, tmp_path) -> None:
    made = make_scene(smpl_body)
    save_scene(made, tmp_path / "scene.npz")
    export.main([str(tmp_path / "scene.npz"), "--to", "npz,glb", "--base_data", str(base_data)])
    glb = Glb.read(tmp_path / "scene.glb")
    motion = made.people[1]
    at = moment(made, motion.frames[2])
    np.testing.assert_allclose(glb.joints("person_2", at), naive_joints(smpl_body, motion)[2], atol=MM)
    assert np.load(tmp_path / "person_2.npz")["body"] == "smpl"


@pytest.mark.parametrize(
    ("changes", "to", "message"),
    [
        ({}, "glb,fbx", "--to: there is no format 'fbx'; expected any of npz, bvh, glb, json, trc, obj, pkl"),
        ({}, "", "--to: there is no format ''"),
        ({"body": "smpl"}, "glb", "gender neutral needs .*SMPL_NEUTRAL.pkl, which does not exist"),
        ({"body": "smpl", "gender": "female"}, "glb", "gender female needs .*SMPL_FEMALE.pkl"),
        ({"body": "smplx"}, "glb", "body is 'smplx', expected smpl or open"),
    ],
)
def test_scenes_and_formats_of_no_use(scene, tmp_path, changes, to, message) -> None:
    save_scene(replace(scene, **changes), tmp_path / "scene.npz")
    with pytest.raises(UserError, match=message):
        export.main([str(tmp_path / "scene.npz"), "--to", to, "--base_data", str(tmp_path / "nothing")])
    assert files_in(tmp_path) == {"scene.npz"}


def damage(**changes):
    """Other arrays in place of those of a scene's file."""

    def change(path: Path) -> None:
        arrays = dict(np.load(path))
        for name, make in changes.items():
            arrays[name.replace("__", "/")] = make(arrays[name.replace("__", "/")])
        np.savez(path, **arrays)

    return change


@pytest.mark.parametrize(
    "damaging",
    [
        lambda path: path.write_bytes(path.read_bytes()[:5000]),
        lambda path: path.write_bytes(b"not a zip archive"),
        damage(**{"2__world_rotmat": lambda values: 0 * values}),
        damage(**{"2__camera_rotmat": lambda values: -values}),
        damage(**{"2__world_transl": lambda values: values * np.nan}),
        damage(**{"7__frames": lambda values: values + 2}),
        damage(**{"1__frames": lambda values: values - 1}),
        damage(**{"1__betas": lambda values: values[:9]}),
        damage(person_ids=lambda values: values[[0, 0, 1]]),
        damage(person_ids=lambda values: values[:0]),
        damage(world_rotation=lambda values: 2 * values),
    ],
)
def test_damaged_scenes(saved, damaging) -> None:
    damaging(saved)
    with pytest.raises(UserError, match=r"motion file .*tcmr_output\.npz"):
        export.main([str(saved), "--to", "npz,bvh,glb,json,trc,obj,pkl"])
    assert files_in(saved.parent) == {"tcmr_output.npz"}


def test_one_line_and_status_2(saved, capsys) -> None:
    (saved.parent / "file").touch()
    for arguments, message in (
        (["--to", "fbx"], "error: --to: there is no format 'fbx'"),
        (
            ["--to", "glb", "--output_folder", str(saved.parent / "file")],
            "error: --output_folder: cannot write",
        ),
    ):
        with pytest.raises(SystemExit) as left:
            run_command(partial(export.main, [str(saved), *arguments]))
        said = capsys.readouterr().err
        assert left.value.code == 2
        assert said.startswith(message)
        assert said.count("\n") == 1
    assert files_in(saved.parent) == {"tcmr_output.npz", "file"}


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("npz", "numpy.savez_compressed"),
        ("bvh", "numpy.savetxt"),
        ("glb", "lib.motion.exporters.gltf.gl.GLTF2.save_to_bytes"),
        ("json", "json.dump"),
        ("trc", "numpy.savetxt"),
        ("obj", "lib.motion.exporters.obj.Meshes.__getitem__"),
        ("pkl", "joblib.dump"),
    ],
)
def test_a_failure_leaves_the_old_files_alone(scene, open_body, tmp_path, monkeypatch, name, what) -> None:
    one = replace(scene, people=scene.people[1:2])
    export_scene(one, open_body, tmp_path, [name])
    before = {path: (tmp_path / path).read_bytes() for path in files_in(tmp_path)}

    def fail(*args, **kwargs):
        raise RuntimeError("no more")

    monkeypatch.setattr(what, fail)
    with pytest.raises(RuntimeError, match="no more"):
        export_scene(one, open_body, tmp_path, [name])
    assert {path: (tmp_path / path).read_bytes() for path in files_in(tmp_path)} == before


def test_meshes_take_the_place_of_an_earlier_runs(scene, open_body, tmp_path, monkeypatch) -> None:
    export_scene(scene, open_body, tmp_path, ["obj"])
    # What a killed run left behind is removed, but nothing of a run that goes on.
    with monkeypatch.context() as patch:
        patch.setattr(atomic.os, "getpid", lambda: 2**22 + 1)
        left = atomic.temporary_beside(tmp_path / "meshes")
    left.mkdir()
    (left / "half.obj").touch()
    export_scene(replace(scene, people=scene.people[1:]), open_body, tmp_path, ["obj"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["meshes"]
    assert sorted(path.name for path in (tmp_path / "meshes").iterdir()) == ["0002", "0007"]
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "meshes").touch()
    with pytest.raises(UserError, match="meshes: it is a file, expected a folder"):
        export_scene(scene, open_body, tmp_path / "elsewhere", ["obj"])
    assert files_in(tmp_path / "elsewhere") == {"meshes"}


def test_a_scene_that_went_through_its_file_exports_the_same(saved, open_body, written, tmp_path) -> None:
    export_scene(load_scene(saved), open_body, tmp_path, ["glb", "json", "npz"])
    for name in files_in(tmp_path) - {"result/tcmr_output.npz"}:
        assert (tmp_path / name).read_bytes() == (written / name).read_bytes()

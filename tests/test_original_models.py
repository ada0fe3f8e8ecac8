"""The original's networks and joints, one fact after the other: its tables, and definitions written out."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from lib.models.body import BodyData
from lib.models.encoder import PoseForecast
from lib.models.hmr import HMR
from lib.models.regressor import Regressor
from lib.models.smpl import SMPL
from lib.utils import geometry
from lib.utils.keypoints import JOINT_NAMES, SMPL49_MAP, convert_kps, get_perm_idxs
from tests.original_tools import read_json

pytestmark = pytest.mark.usefixtures("one_thread")


def test_branches_depend_on_exactly_their_frames() -> None:
    """Past on frames 0-7, future on 9-15, each of them; the middle frame reaches the output by the scores."""
    torch.manual_seed(0)
    encoder = PoseForecast(n_layers=2, seq_len=16, hidden_size=8, feature_size=12).eval()
    x = torch.randn(1, 16, 12, requires_grad=True)
    features, scores = encoder(x, is_train=True)
    for output, expected in (
        (features[0, 0], [*range(8)]),
        (features[0, 1], [*range(9, 16)]),
        (features[0, 2], [*range(16)]),
        (scores[0, 0], [*range(16)]),
    ):
        (gradient,) = torch.autograd.grad(output.sum(), x, retain_graph=True)
        assert gradient[0].any(dim=1).nonzero()[:, 0].tolist() == expected


def test_six_numbers_are_two_interleaved_columns() -> None:
    rotmat = geometry.rot6d_to_rotmat(torch.tensor([1.0, 1, 2, 3, 4, 8]))
    torch.testing.assert_close(rotmat[:, 0], torch.tensor([1.0, 2, 4]) / math.sqrt(21))
    residual = torch.tensor([1.0, 3, 8]) - torch.tensor([1.0, 2, 4]) * 39 / 21
    torch.testing.assert_close(rotmat[:, 1], residual / residual.norm())


def test_no_rotation_and_half_a_turn() -> None:
    matrices = torch.stack([torch.eye(3), torch.diag(torch.tensor([1.0, -1, -1]))])
    vectors = geometry.rotmat_to_axis_angle(matrices)
    torch.testing.assert_close(vectors, torch.tensor([[0.0, 0, 0], [math.pi, 0, 0]]), atol=1e-6, rtol=0)


def test_rotations_of_three_poses_are_not_mixed() -> None:
    """A cross product without an axis takes the first one of size 3: the batch, where there are three."""
    six = torch.randn(3, 6, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        geometry.rot6d_to_rotmat(six), torch.stack([geometry.rot6d_to_rotmat(row) for row in six])
    )
    assert torch.allclose(torch.linalg.det(geometry.rot6d_to_rotmat(six)), torch.ones(3))


def test_points_in_the_plane_of_the_body_are_scaled_only() -> None:
    points = torch.tensor([[[0.3, -0.8, 0.0], [-0.5, 0.2, 0.0]]])
    projected = geometry.project(points, torch.tensor([[0.9, 0.0, 0.0]]))
    torch.testing.assert_close(projected, 0.9 * points[..., :2], atol=1e-5, rtol=0)


def naive_joints(body: BodyData, rotvecs: np.ndarray, betas: np.ndarray) -> np.ndarray:
    """The 24 posed joints, one after the other along the kinematic tree."""
    shaped = body.v_template + (body.shapedirs * betas).sum(axis=-1)
    rest = body.J_regressor @ shaped
    parents = [-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21]
    turns, places = [], []
    for joint, parent in enumerate(parents):
        turn = Rotation.from_rotvec(rotvecs[joint])
        if parent < 0:
            turns.append(turn)
            places.append(rest[joint])
        else:
            turns.append(turns[parent] * turn)
            places.append(places[parent] + turns[parent].apply(rest[joint] - rest[parent]))
    return np.array(places)


def test_the_49_joints_come_from_where_the_original_takes_them(smpl_body: BodyData) -> None:
    """24 joints of the skeleton, 21 vertices, 9 rows of a regressor: 49 of the 54, in a fixed order."""
    tables = read_json("smpl/joint_tables")
    assert list(SMPL49_MAP) == [tables["JOINT_MAP"][name] for name in tables["JOINT_NAMES"]]
    random = np.random.default_rng(0)
    rotvecs, betas = random.normal(0, 0.4, (24, 3)), random.normal(0, 1, 10)
    vectors = torch.tensor(rotvecs, dtype=torch.float32).reshape(1, 72)
    output = SMPL(smpl_body)(torch.tensor(betas, dtype=torch.float32)[None], vectors[:, 3:], vectors[:, :3])
    verts, joints = output.vertices[0].numpy(), output.joints[0].numpy()
    face = ["nose", "reye", "leye", "rear", "lear"]
    feet = ["LBigToe", "LSmallToe", "LHeel", "RBigToe", "RSmallToe", "RHeel"]
    fingers = [side + name for side in "lr" for name in ("thumb", "index", "middle", "ring", "pinky")]
    picked = verts[[tables["vertex_ids"][name] for name in (*face, *feet, *fingers)]]
    pool = np.concatenate(
        [naive_joints(smpl_body, rotvecs, betas), picked, smpl_body.J_regressor_extra @ verts]
    )
    assert pool.shape == (54, 3)
    expected = pool[[tables["JOINT_MAP"][name] for name in tables["JOINT_NAMES"]]]
    np.testing.assert_allclose(joints, expected, atol=1e-5)
    np.testing.assert_allclose(joints[0], verts[332], atol=1e-6)
    np.testing.assert_allclose(joints[39], smpl_body.J_regressor_extra[4] @ verts, atol=1e-5)


def test_regressor_is_linear_between_its_layers_and_drops_half_in_training(open_body: BodyData) -> None:
    torch.manual_seed(0)
    regressor = Regressor(open_body, feature_size=24, hidden_size=400)
    assert (regressor.drop1.p, regressor.drop2.p) == (0.5, 0.5)
    with torch.no_grad():
        for decoder in (regressor.decpose, regressor.decshape, regressor.deccam):
            decoder.weight.normal_()  # by far larger than in the beginning: steps are visible
            decoder.bias.zero_()
        regressor.fc1.bias.zero_()
        regressor.fc2.bias.zero_()
        regressor.fc1.weight[:, 24:] = 0  # one step is then a function of the feature alone
        x = torch.randn(1, 24)

        def step(feature: torch.Tensor) -> torch.Tensor:
            theta = regressor(feature, n_iter=1, return_verts=False)[0]["theta"][0]
            return torch.cat([theta[:3] - regressor.init_cam[0], theta[75:] - regressor.init_shape[0]])

        regressor.eval()
        torch.testing.assert_close(step(-x), -step(x), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(step(3 * x), 3 * step(x), atol=1e-4, rtol=1e-4)
        regressor.train()
        steps = torch.stack([step(x) for _ in range(400)])
        assert steps.std(dim=0).min() > 0
        regressor.eval()
        # dropout keeps the expectation
        assert (steps.mean(dim=0) - step(x)).abs().max() < 5 * steps.std(dim=0).max() / math.sqrt(400)


def torchvision_resnet50() -> set[str]:
    """Its 318 entries without the classifier, by rule."""
    norm = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
    names = ["conv1.weight", *(f"bn1.{part}" for part in norm)]
    for stage, blocks in enumerate((3, 4, 6, 3), start=1):
        for block in range(blocks):
            prefix = f"layer{stage}.{block}"
            for i in (1, 2, 3):
                names += [f"{prefix}.conv{i}.weight", *(f"{prefix}.bn{i}.{part}" for part in norm)]
        names += [f"layer{stage}.0.downsample.0.weight"]
        names += [f"layer{stage}.0.downsample.1.{part}" for part in norm]
    assert len(names) == 318
    return set(names)


def test_backbone_entries_are_torchvisions(smpl_body: BodyData) -> None:
    head = {
        f"{name}.{kind}"
        for name in ("fc1", "fc2", "decpose", "decshape", "deccam")
        for kind in ("weight", "bias")
    }
    head |= {"init_pose", "init_shape", "init_cam"}
    state = HMR(smpl_body).state_dict()
    assert {key for key in state if not key.startswith("smpl.")} == torchvision_resnet50() | head
    assert state["layer2.0.conv2.weight"].shape == (128, 128, 3, 3)
    blocks = {name: getattr(HMR(smpl_body), name)[0] for name in ("layer1", "layer2", "layer3", "layer4")}
    assert [block.conv2.stride[0] for block in blocks.values()] == [1, 2, 2, 2]
    assert all(block.conv1.stride == (1, 1) for block in blocks.values())


def test_joints_of_other_conventions_land_where_documented() -> None:
    spin = np.arange(49)
    seventeen = [*range(25, 40), 41, 43]
    limbs = [*range(25, 37), 38]
    for source, filled in (
        ("mpii3d", seventeen),
        ("mpii3d_test", seventeen),
        ("h36m", seventeen),
        ("insta", [*range(8), *range(9, 25), 38]),
        ("common", [*range(25, 39)]),
        ("posetrack", [*range(25, 39), 44, 47, 48]),
        ("pennaction", limbs),
    ):
        converted = convert_kps(np.ones((1, len(JOINT_NAMES[source]), 3)), source, "spin")[0]
        assert spin[converted[:, 0] == 1].tolist() == filled, source
        assert set(np.unique(converted)) <= {0.0, 1.0}
    assert JOINT_NAMES["mpii3d_test"][-3] == "hip"
    assert get_perm_idxs("3dpw", "common") == [10, 9, 8, 11, 12, 13, 4, 3, 2, 5, 6, 7]
    assert get_perm_idxs("pennaction", "common") == [12, 10, 8, 7, 9, 11, 6, 4, 2, 1, 3, 5, 0]
    lengths = "mpii3d_test 17 mpii3d 28 insta 25 staf 21 spin 49 h36m 17 posetrack 17 pennaction 13 common 14"
    lengths += " coco 17 mpii 16 aich 14 3dpw 14 smplcoco 19 smpl 24"
    words = lengths.split()
    assert {name: len(JOINT_NAMES[name]) for name in words[::2]} == dict(
        zip(words[::2], map(int, words[1::2]))
    )

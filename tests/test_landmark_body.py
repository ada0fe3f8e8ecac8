"""Joints, landmarks and their derivatives without a mesh, against the mesh and against automatic ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from lib.models.body import BodyData
from lib.models.landmark_body import LandmarkBody
from lib.models.smpl import SMPL
from lib.utils.geometry import axis_angle_to_rotmat
from tests.simulation_tools import generator

pytestmark = pytest.mark.usefixtures("one_thread")
# Landmark -> the joint of OpenPose's 25 (first in the 49), which are SMPL's own there.
OF_JOINTS = {11: 5, 12: 2, 13: 6, 14: 3, 15: 7, 16: 4, 23: 12, 24: 9, 25: 13, 26: 10, 27: 14, 28: 11}
OF_VERTICES = {0: 332, 2: 2800, 5: 6260, 7: 583, 8: 4071, 29: 3387, 30: 6787}
OF_TOES = {31: (3216, 3226), 32: (6617, 6624)}  # big and little, 3 to 1
# Landmark -> wrist among the joints, vertex, share of the vertex.
OF_HANDS = {17: (7, 2673, 0.5), 19: (7, 2319, 0.5), 21: (7, 2746, 0.6)}
OF_HANDS |= {18: (4, 6133, 0.5), 20: (4, 5782, 0.5), 22: (4, 6191, 0.6)}
OF_FACE = [1, 3, 4, 6, 9, 10]


@pytest.fixture(params=["open_body", "smpl_body"])
def body(request: pytest.FixtureRequest) -> BodyData:
    return request.getfixturevalue(request.param)


def poses(count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    random = generator(seed)
    turns = 0.5 * torch.randn(count, 24, 3, generator=random, dtype=torch.double)
    betas = torch.randn(count, 10, generator=random, dtype=torch.double)
    return axis_angle_to_rotmat(turns), betas


def test_joints_and_landmarks_are_those_of_the_mesh(body: BodyData) -> None:
    rotmat, betas = (values.float() for values in poses(4))
    rotmat[3], betas[3] = torch.eye(3), 0
    joints, landmarks = LandmarkBody(body)(rotmat, betas)
    mesh = SMPL(body)(betas, rotmat[:, 1:], rotmat[:, :1], pose2rot=False)
    torch.testing.assert_close(joints, mesh.joints, atol=2e-5, rtol=0)
    expected = torch.full_like(landmarks, torch.nan)
    for landmark, joint in OF_JOINTS.items():
        expected[:, landmark] = mesh.joints[:, joint]
    for landmark, vertex in OF_VERTICES.items():
        expected[:, landmark] = mesh.vertices[:, vertex]
    for landmark, (big, little) in OF_TOES.items():
        expected[:, landmark] = 0.75 * mesh.vertices[:, big] + 0.25 * mesh.vertices[:, little]
    for landmark, (wrist, vertex, share) in OF_HANDS.items():
        expected[:, landmark] = (1 - share) * mesh.joints[:, wrist] + share * mesh.vertices[:, vertex]
    # Eye corners and mouth corners are vertices: the ones that they are at rest.
    distance, vertices = (landmarks[3, OF_FACE, None] - mesh.vertices[3]).norm(dim=-1).min(1)
    assert distance.max() < 2e-5
    expected[:, OF_FACE] = mesh.vertices[:, vertices]
    torch.testing.assert_close(landmarks, expected, atol=2e-5, rtol=0)


def test_one_shape_serves_all_poses(open_body: BodyData) -> None:
    rotmat, betas = (values.float() for values in poses(3))
    model = LandmarkBody(open_body)
    for one, each in zip(model(rotmat, betas[:1]), model(rotmat, betas[:1].expand(3, 10))):
        torch.testing.assert_close(one, each)
    torch.testing.assert_close(
        model.jacobian(rotmat, betas[:1]), model.jacobian(rotmat, betas[:1].expand(3, 10))
    )


def automatic(model: LandmarkBody, rotmat: torch.Tensor, betas: torch.Tensor) -> torch.Tensor:
    """(n, 33, 3, 24, 3) derivatives of the landmarks by small turns of the joints."""

    def turned(turn: torch.Tensor) -> torch.Tensor:
        return model(axis_angle_to_rotmat(turn) @ rotmat, betas)[1].sum(0)

    # Every pose has its own landmarks, so that the sum over poses has each one's derivatives.
    rows = torch.autograd.functional.jacobian(turned, torch.zeros(*rotmat.shape[:2], 3, dtype=torch.double))
    return rows.permute(2, 0, 1, 3, 4)


def test_jacobian_is_exact_but_for_the_skin(body: BodyData) -> None:
    rotmat, betas = poses(2)
    still = replace(body, posedirs=np.zeros_like(body.posedirs))
    model = LandmarkBody(still).double()
    torch.testing.assert_close(
        model.jacobian(rotmat, betas), automatic(model, rotmat, betas), atol=1e-7, rtol=0
    )


def test_jacobian_with_a_skin_that_follows_the_pose(open_body: BodyData) -> None:
    rotmat, betas = poses(2)
    model = LandmarkBody(open_body).double()
    found, true = model.jacobian(rotmat, betas), automatic(model, rotmat, betas)
    assert (found - true).abs().max() < 0.05  # metres per radian
    assert (found - true).norm() < 0.03 * true.norm()

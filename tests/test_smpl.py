"""The SMPL wrapper against outputs of the original implementation, and its fast joints against its mesh."""

from __future__ import annotations

import copy
import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from lib.models import body as body_module
from lib.models.body import BodyData, load_body, load_gendered_body
from lib.models.smpl import SMPL
from lib.utils.errors import UserError
from lib.utils.geometry import axis_angle_to_rotmat, rot6d_to_rotmat
from lib.utils.keypoints import H36M_TO_J14
from tests.golden_tools import load_golden, write_base_data


@pytest.mark.parametrize("gender", ["neutral", "male", "female"])
def test_forward_equals_the_original(base_data: Path, gender: str) -> None:
    golden = load_golden("smpl/smpl_forward")
    body = load_body(base_data, gender)
    smpl = SMPL(body)
    betas, pose, rotmat, transl = (torch.from_numpy(golden[k]) for k in ("betas", "pose", "rotmat", "transl"))
    by_axis_angle = smpl(betas=betas, body_pose=pose[:, 3:], global_orient=pose[:, :3])
    by_matrix = smpl(betas=betas, body_pose=rotmat[:, 1:], global_orient=rotmat[:, :1], pose2rot=False)
    moved = smpl(betas=betas, body_pose=pose[:, 3:], global_orient=pose[:, :3], transl=transl)
    h36m = torch.from_numpy(body.J_regressor_h36m) @ by_axis_angle.vertices
    for value, key in (
        (by_axis_angle.joints, "joints49"),
        (by_matrix.joints, "joints49_rotmat"),
        (moved.joints, "joints49_transl"),
        (by_axis_angle.vertices[:, golden["verts_index"]], "verts"),
        (by_matrix.vertices[:, golden["verts_index"]], "verts_rotmat"),
        (h36m, "h36m17"),
    ):
        np.testing.assert_allclose(value.numpy(), golden[f"{gender}_{key}"], atol=2e-6, err_msg=key)
    total = by_axis_angle.vertices.double().sum(dim=1)
    np.testing.assert_allclose(total.numpy(), golden[f"{gender}_verts_sum"], atol=2e-3)
    np.testing.assert_allclose(
        (moved.vertices - by_axis_angle.vertices)[:, 0].numpy(), transl.numpy(), atol=1e-5
    )


@pytest.mark.parametrize("which", ["smpl_body", "open_body"])
def test_fast_joints_equal_the_mesh_and_its_gradients(which: str, request: pytest.FixtureRequest) -> None:
    body: BodyData = request.getfixturevalue(which)
    smpl = SMPL(body).double()
    generator = torch.Generator().manual_seed(1)
    rotmat = axis_angle_to_rotmat(torch.randn(4, 24, 3, generator=generator, dtype=torch.float64) * 0.6)
    betas = torch.randn(4, 10, generator=generator, dtype=torch.float64)
    h36m = torch.from_numpy(body.J_regressor_h36m).double()
    for regressor in (None, h36m):
        gradients, values = [], []
        for fast in (True, False):
            r, b = rotmat.clone().requires_grad_(), betas.clone().requires_grad_()
            if fast:
                joints = smpl.joints(b, r, regressor)
            else:
                mesh = smpl(betas=b, body_pose=r[:, 1:], global_orient=r[:, :1], pose2rot=False)
                joints = mesh.joints if regressor is None else (regressor @ mesh.vertices)[:, H36M_TO_J14]
            (joints**2).sum().backward()
            values.append(joints.detach())
            gradients.append(torch.cat((r.grad.flatten(), b.grad.flatten())))
        torch.testing.assert_close(values[0], values[1], atol=1e-10, rtol=0)
        torch.testing.assert_close(gradients[0], gradients[1], atol=1e-9, rtol=1e-9)


def test_cached_bases_follow_weights_precision_and_regressor(smpl_body: BodyData, base_data: Path) -> None:
    smpl = SMPL(smpl_body)
    male = SMPL(load_body(base_data, "male"))
    betas, rotmat = torch.zeros(1, 10), torch.eye(3).expand(1, 24, 3, 3)
    with torch.inference_mode():
        before = smpl.joints(betas, rotmat).clone()
    smpl.joints(betas.requires_grad_(), rotmat).sum().backward()  # what prediction cached serves training
    smpl.load_state_dict(male.state_dict())
    after = smpl.joints(betas, rotmat)
    torch.testing.assert_close(after, male.joints(betas, rotmat))
    assert (after - before).abs().max() > 0.01
    assert smpl.double().joints(betas.double(), rotmat.double()).dtype == torch.float64
    smpl.float()
    regressor = torch.from_numpy(smpl_body.J_regressor_h36m)
    assert not torch.equal(
        smpl.joints(betas, rotmat, regressor), smpl.joints(betas, rotmat, regressor.flip(0))
    )
    assert copy.deepcopy(smpl).joints(betas, rotmat).shape == (1, 49, 3)


def test_stored_pose_parameters_are_not_trained(smpl_body: BodyData) -> None:
    smpl = SMPL(smpl_body)
    assert {name for name, _ in smpl.named_parameters()} == {"betas", "body_pose", "global_orient"}
    assert not any(parameter.requires_grad for parameter in smpl.parameters())
    assert smpl.state_dict()["betas"].shape == (64, 10)
    assert not [name for name in smpl.state_dict() if name.startswith("_")]


def test_open_body_is_a_plausible_person(open_body: BodyData) -> None:
    assert open_body.kind == "open"
    np.testing.assert_allclose(open_body.weights.sum(1), 1, atol=1e-6)
    root = rot6d_to_rotmat(torch.from_numpy(open_body.mean_pose).view(24, 6))
    torch.testing.assert_close(root[0], torch.diag(torch.tensor([1.0, -1.0, -1.0])))
    torch.testing.assert_close(root[1:], torch.eye(3).expand(23, 3, 3))
    joints = SMPL(open_body).joints(torch.zeros(1, 10), torch.eye(3).expand(1, 24, 3, 3))[0]
    height = joints[38, 1] - joints[[25, 30], 1].mean()
    assert 1.3 < height < 1.9
    assert joints[28, 0] > joints[27, 0]  # facing +z, the left hip lies at +x


def test_load_body_prefers_official_files_and_says_so_once(
    base_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    body_module._load_body.cache_clear()
    with caplog.at_level(logging.INFO, logger="lib.models.body"):
        assert load_body(base_data).kind == "smpl"
        assert load_body(base_data) is load_body(base_data)
    assert len(caplog.records) == 1
    assert load_body(base_data, "male").gender == "male"
    with pytest.raises(UserError, match="gender"):
        load_body(base_data, "other")
    with pytest.raises(UserError, match=r"open_body\.npz"):
        load_body(tmp_path, open_dir=tmp_path)


def test_load_body_names_what_is_missing_or_wrong(tmp_path: Path) -> None:
    write_base_data(tmp_path, genders=["NEUTRAL"])
    np.save(tmp_path / "J_regressor_extra.npy", np.zeros((8, 6890)))
    with pytest.raises(UserError, match=r"J_regressor_extra has shape \(8, 6890\), expected \(9, 6890\)"):
        load_body(tmp_path)
    (tmp_path / "smpl_mean_params.npz").unlink()
    with pytest.raises(UserError, match=r"smpl_mean_params.npz does not exist"):
        load_body(tmp_path)


def test_a_missing_gender_is_not_replaced_by_another_body(tmp_path: Path) -> None:
    base = tmp_path / "base"
    write_base_data(base, ["NEUTRAL"])
    with pytest.raises(UserError, match=r"gender female needs .*SMPL_FEMALE\.pkl"):
        load_gendered_body(base, "female")

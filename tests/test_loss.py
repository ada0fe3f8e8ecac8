"""Training losses against the original's values and gradients, and by their definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from lib.core.loss import TCMRLoss, count_rows, lsgan_discriminator_loss, lsgan_generator_loss
from lib.utils.geometry import axis_angle_to_rotmat
from tests.golden_tools import load_golden


def _loss() -> TCMRLoss:
    return TCMRLoss(
        e_loss_weight=300.0, e_3d_loss_weight=300.0, e_pose_loss_weight=60.0, e_shape_loss_weight=0.06
    )


def _blank(n: int) -> tuple[dict, dict, dict]:
    """Predictions for n 2D and n 3D samples, and all-zero targets."""
    pred = {
        "theta": torch.zeros(2 * n, 3, 85),
        "kp_2d": torch.zeros(2 * n, 3, 49, 2),
        "kp_3d": torch.zeros(2 * n, 3, 49, 3),
    }
    target_3d = {
        "kp_2d": torch.zeros(n, 3, 49, 3),
        "kp_3d": torch.zeros(n, 3, 49, 3),
        "theta": torch.zeros(n, 3, 85),
        "w_3d": torch.ones(n, 3),
        "w_smpl": torch.ones(n, 3),
    }
    return pred, {"kp_2d": torch.zeros(n, 3, 49, 3)}, target_3d


@pytest.mark.parametrize("case", ["mixed", "mixed_w3d", "no_2d", "no_smpl", "no_2d_no_smpl"])
@pytest.mark.parametrize("with_rotmat", [False, True])
def test_values_and_gradients_equal_the_original(case: str, with_rotmat: bool) -> None:
    golden = load_golden(f"loss/tcmr_loss_{case}")
    tensors = {name: torch.from_numpy(np.array(value)) for name, value in golden.items()}
    pred = {name: tensors[f"pred_{name}"].clone().requires_grad_() for name in ("theta", "kp_2d", "kp_3d")}
    given = dict(pred)
    if with_rotmat:  # as the network gives it: theta and rotmat come from the same rotations
        n = len(pred["theta"])
        given["rotmat"] = axis_angle_to_rotmat(pred["theta"][..., 3:75].reshape(n, 3, 24, 3))
    target_2d = {"kp_2d": tensors["data2d_kp_2d"]} if "data2d_kp_2d" in tensors else None
    target_3d = {name[7:]: value for name, value in tensors.items() if name.startswith("data3d_")}

    total, terms = _loss()([given], target_2d, target_3d)
    torch.testing.assert_close(total, tensors["gen_loss"], rtol=1e-5, atol=0)
    assert {f"out_{name}" for name in terms} == {name for name in tensors if name.startswith("out_")}
    for name, value in terms.items():
        torch.testing.assert_close(value, tensors[f"out_{name}"], rtol=1e-5, atol=0)
    total.backward()
    for name, value in pred.items():
        if f"grad_{name}" in tensors:
            torch.testing.assert_close(value.grad, tensors[f"grad_{name}"], rtol=1e-4, atol=1e-6)
        else:
            assert value.grad is None or not value.grad.any()


def test_one_confident_joint_gives_the_defined_value() -> None:
    pred, target_2d, _ = _blank(1)
    target_2d["kp_2d"][:, :, 7] = torch.tensor([1.0, 0.0, 1.0])
    pred = {name: value[:1] for name, value in pred.items()}
    total, terms = _loss()(pred, target_2d, None)
    assert terms.keys() == {"loss_kp_2d"}
    assert math.isclose(total.item(), 300 / 98, rel_tol=1e-6)


def test_3d_loss_ignores_translation_and_joints_outside_the_fourteen() -> None:
    pred, target_2d, target_3d = _blank(2)
    pred["kp_3d"] = torch.randn(4, 3, 49, 3)
    target_3d["kp_3d"] = torch.randn(2, 3, 49, 3)
    before = _loss()(pred, target_2d, target_3d)[1]["loss_kp_3d"]
    pred["kp_3d"] = pred["kp_3d"] + torch.tensor([1.0, -2.0, 3.0])
    target_3d["kp_3d"][:, :, :25] += 5
    target_3d["kp_3d"][:, :, 39:] -= 5
    torch.testing.assert_close(
        _loss()(pred, target_2d, target_3d)[1]["loss_kp_3d"], before, rtol=1e-4, atol=0
    )


def test_rows_without_3d_or_smpl_do_not_count() -> None:
    pred, target_2d, target_3d = _blank(2)
    pred["kp_3d"] = torch.randn(4, 3, 49, 3, requires_grad=True)
    target_3d["w_3d"][:] = 0
    target_3d["w_smpl"][:] = 0
    total, terms = _loss()(pred, target_2d, target_3d)
    assert terms["loss_kp_3d"].shape == () and terms["loss_kp_3d"] == 0
    assert terms.keys() == {"loss_kp_2d", "loss_kp_3d"}
    assert total.shape == ()


def test_gradient_is_finite_for_a_rest_pose() -> None:
    pred, target_2d, target_3d = _blank(1)
    pred["theta"].requires_grad_()
    _loss()(pred, target_2d, target_3d)[0].backward()
    assert pred["theta"].grad.isfinite().all()


def test_least_squares_adversarial_losses_equal_the_original() -> None:
    golden = {
        name: torch.from_numpy(np.array(value)) for name, value in load_golden("loss/adversarial").items()
    }
    torch.testing.assert_close(lsgan_generator_loss(golden["fake"]), golden["enc_l2"])
    expected = tuple(golden[f"adv_l2_{name}"] for name in ("real", "fake", "total"))
    torch.testing.assert_close(lsgan_discriminator_loss(golden["real"], golden["fake"]), expected)
    halves = [lsgan_generator_loss(part, len(golden["fake"])) for part in golden["fake"].split(3)]
    torch.testing.assert_close(sum(halves), golden["enc_l2"])


def test_parts_of_a_batch_add_up_to_the_whole() -> None:
    """With the counts of the whole batch, terms and gradients are sums over its parts of unequal content."""
    torch.manual_seed(0)
    pred, target_2d, target_3d = _blank(5)
    pred = {name: torch.randn_like(value) for name, value in pred.items()}
    target_2d["kp_2d"] = torch.randn(5, 3, 49, 3)
    target_3d = {name: torch.randn_like(value) for name, value in target_3d.items()}
    target_3d["w_3d"] = torch.tensor([0.0, 1, 1, 1, 1])[:, None].expand(-1, 3)
    target_3d["w_smpl"] = torch.tensor([0.0, 0, 1, 1, 0])[:, None].expand(-1, 3)

    def evaluate(rows_2d: slice, rows_3d: slice, counts: torch.Tensor | None) -> tuple[dict, torch.Tensor]:
        kp_3d = pred["kp_3d"].clone().requires_grad_()
        parts = {name: torch.cat([value[:5][rows_2d], value[5:][rows_3d]]) for name, value in pred.items()}
        parts["kp_3d"] = torch.cat([kp_3d[:5][rows_2d], kp_3d[5:][rows_3d]])
        two = {name: value[rows_2d] for name, value in target_2d.items()}
        three = {name: value[rows_3d] for name, value in target_3d.items()}
        total, terms = _loss()(parts, two, three, counts)
        total.backward()
        return {**terms, "loss": total}, kp_3d.grad

    whole, gradient = evaluate(slice(0, 5), slice(0, 5), None)
    counts = count_rows(target_2d, target_3d)
    assert counts.tolist() == [30, 12, 6]
    cuts = [(slice(0, 2), slice(0, 1)), (slice(2, 5), slice(1, 5))]  # the first has no 3D and no SMPL
    parts = [evaluate(*cut, counts) for cut in cuts]
    for name, value in whole.items():
        torch.testing.assert_close(sum(part[name] for part, _ in parts), value)
    torch.testing.assert_close(sum(part for _, part in parts), gradient)

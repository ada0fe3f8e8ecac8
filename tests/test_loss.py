"""Training losses against the original's values and gradients, and by their definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lib.core.loss import (
    TCMRLoss,
    count_rows,
    expand_targets,
    lsgan_discriminator_loss,
    lsgan_generator_loss,
    velocity_counts,
    velocity_terms,
)
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

    total, terms = _loss()([{}, given], target_2d, target_3d)  # the last of a list counts
    torch.testing.assert_close(total, tensors["gen_loss"], rtol=1e-5, atol=0)
    assert {f"out_{name}" for name in terms} >= {name for name in tensors if name.startswith("out_")}
    for name, value in terms.items():  # where the original leaves a term out, it is 0
        torch.testing.assert_close(value, tensors.get(f"out_{name}", torch.tensor(0.0)), rtol=1e-5, atol=0)
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
    assert terms["loss_shape"] == terms["loss_pose"] == 0
    assert total.shape == ()
    target_3d["w_smpl"][0, 0] = 1
    target_3d["theta"][..., 75:] = 2
    assert _loss()(pred, target_2d, target_3d)[1]["loss_shape"] == pytest.approx(0.06 * 4)


def test_weights_are_the_originals_unless_told() -> None:
    torch.manual_seed(0)
    pred, target_2d, target_3d = _blank(2)
    pred = {name: torch.randn_like(value) for name, value in pred.items()}
    target_2d["kp_2d"][..., 2] = target_3d["kp_2d"][..., 2] = 1
    ours, told = (loss(pred, target_2d, target_3d)[1] for loss in (TCMRLoss(), TCMRLoss(1, 1, 1, 1)))
    shares = {name: (value / told[name]).item() for name, value in ours.items()}
    assert shares == pytest.approx(
        {"loss_kp_2d": 60, "loss_kp_3d": 30, "loss_shape": 0.001, "loss_pose": 1}, rel=1e-4
    )


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


# ------------------------------------------------------------------------ velocities


def random_runs(run_length: int, runs_2d: int = 3, runs_3d: int = 4) -> tuple[dict, dict, dict]:
    """Predictions, and targets of which some frames have no 3D, no SMPL, or joints that are not seen."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    def confident(count: int) -> torch.Tensor:
        kp_2d = normal(count, run_length, 49, 3)
        kp_2d[..., 2] = torch.rand(count, run_length, 49, generator=generator).sub(0.3).clamp(min=0)
        return kp_2d

    rows = (runs_2d + runs_3d) * run_length
    pred = {
        "kp_2d": normal(rows, 3, 49, 2),
        "kp_3d": normal(rows, 3, 49, 3),
        "rotmat": normal(rows, 3, 24, 3, 3),
    }
    target_3d = {
        "kp_2d": confident(runs_3d),
        "kp_3d": normal(runs_3d, run_length, 49, 3),
        "theta": normal(runs_3d, run_length, 85),
        "w_3d": (torch.rand(runs_3d, run_length, generator=generator) < 0.8).float(),
        "w_smpl": (torch.rand(runs_3d, run_length, generator=generator) < 0.7).float(),
    }
    return pred, {"kp_2d": confident(runs_2d)}, target_3d


def naive_velocities(pred: dict, target_2d: dict, target_3d: dict) -> dict[str, float]:
    """Run by run, pair of frames by pair, joint by joint."""
    found: dict[str, list[float]] = {"velocity_2d": [], "velocity_3d": [], "velocity_pose": []}
    runs_2d, length = target_2d["kp_2d"].shape[:2]
    for run in range(runs_2d + len(target_3d["kp_2d"])):
        target, row = (target_2d, run) if run < runs_2d else (target_3d, run - runs_2d)
        for t in range(length - 1):
            now, then = (
                {name: value[run * length + frame][2] for name, value in pred.items()} for frame in (t, t + 1)
            )
            for joint in range(49):
                (x, y, seen), (x2, y2, seen2) = target["kp_2d"][row, t : t + 2, joint]
                wrong = (then["kp_2d"] - now["kp_2d"])[joint] - torch.stack((x2 - x, y2 - y))
                found["velocity_2d"] += (min(seen, seen2) * wrong**2).tolist()
            if run < runs_2d:
                continue
            if target["w_3d"][row, t] and target["w_3d"][row, t + 1]:
                around = []
                for joints in (then["kp_3d"], now["kp_3d"], *target["kp_3d"][row, [t + 1, t]]):
                    limbs = joints[25:39]
                    around.append(limbs - (limbs[2] + limbs[3]) / 2)
                wrong = (around[0] - around[1]) - (around[2] - around[3])
                found["velocity_3d"] += (wrong**2).flatten().tolist()
            if target["w_smpl"][row, t] and target["w_smpl"][row, t + 1]:
                true = axis_angle_to_rotmat(target["theta"][row, t : t + 2, 3:75].reshape(2, 24, 3))
                wrong = (then["rotmat"] - now["rotmat"]) - (true[1] - true[0])
                found["velocity_pose"] += (wrong**2).flatten().tolist()
    return {name: float(np.mean(values)) for name, values in found.items()}


@pytest.mark.parametrize("run_length", [2, 5])
def test_velocities_by_their_definition(run_length: int) -> None:
    pred, target_2d, target_3d = random_runs(run_length)
    terms = velocity_terms(pred, target_2d, target_3d)
    expected = naive_velocities(pred, target_2d, target_3d)
    assert {name: value.item() for name, value in terms.items()} == pytest.approx(expected, rel=1e-5)


def test_velocities_do_not_see_what_does_not_change() -> None:
    """Neither a wrong place nor a wrong pose that stay as they are, nor the past and future outputs."""
    _, _, target_3d = random_runs(4)
    target_3d["w_3d"][:] = target_3d["w_smpl"][:] = 1
    expanded = expand_targets(target_3d)
    pred = {
        "kp_2d": expanded["kp_2d"][..., :2] + torch.randn(49, 2),
        "kp_3d": expanded["kp_3d"] + torch.randn(49, 3),
        "rotmat": axis_angle_to_rotmat(expanded["theta"][..., 3:75].unflatten(-1, (24, 3))),
    }
    pred = {name: value.clone() for name, value in pred.items()}
    for value in pred.values():
        value[:, :2] += torch.randn_like(value[:, :2])
    for value in velocity_terms(pred, None, target_3d).values():
        assert value.item() == pytest.approx(0, abs=1e-10)


def test_velocities_of_parts_add_up_to_the_whole() -> None:
    pred, target_2d, target_3d = random_runs(3)
    counts = velocity_counts(target_2d, target_3d)
    pairs_3d, pairs_smpl = (
        sum(bool(w[t] and w[t + 1]) for w in target_3d[key] for t in range(2)) for key in ("w_3d", "w_smpl")
    )
    assert counts.tolist() == [7 * 2, pairs_3d, pairs_smpl]
    whole = velocity_terms(pred, target_2d, target_3d)
    sums = dict.fromkeys(whole, 0.0)
    for rows_2d, rows_3d in ((slice(0, 1), slice(0, 3)), (slice(1, 3), slice(3, 4))):
        rows = [*range(3)[rows_2d], *[3 + row for row in range(4)[rows_3d]]]
        chosen = {name: value.unflatten(0, (7, 3))[rows].flatten(0, 1) for name, value in pred.items()}
        two = {name: value[rows_2d] for name, value in target_2d.items()}
        three = {name: value[rows_3d] for name, value in target_3d.items()}
        for name, value in velocity_terms(chosen, two, three, counts).items():
            sums[name] += value.item()
    assert sums == pytest.approx({name: value.item() for name, value in whole.items()}, rel=1e-5)
    alone = velocity_terms({name: value[:9] for name, value in pred.items()}, target_2d, None)
    assert alone.keys() == {"velocity_2d"}


def test_velocities_are_terms_of_the_loss() -> None:
    pred, target_2d, target_3d = random_runs(3)
    pred = {**pred, "theta": torch.zeros(21, 3, 85)}
    targets = expand_targets(target_2d), expand_targets(target_3d)
    loss = TCMRLoss(0, 0, 0, 0, others={"velocity_2d": 2, "velocity_3d": 3, "velocity_pose": 4})
    total, terms = loss(pred, *targets, run_length=3)
    expected = velocity_terms(pred, target_2d, target_3d)
    weighted = {name: weight * expected[name] for weight, name in enumerate(expected, start=2)}
    torch.testing.assert_close({name: terms[name] for name in weighted}, weighted)
    torch.testing.assert_close(total, sum(weighted.values()))


# ------------------------------------------------------------------------ for both


def test_unseen_joints_of_the_truth_are_as_if_they_were_right() -> None:
    """A NaN joint adds nothing and passes no gradient on; without a hip no joint of the frame counts."""
    pred, target_2d, target_3d = random_runs(3)
    pred = {**pred, "theta": torch.zeros(21, 3, 85)}
    target_3d["w_3d"][:] = 1
    target_3d["kp_3d"][1, 1, 30] = torch.nan  # a shoulder
    target_3d["kp_3d"][2, 0, 27] = torch.nan  # a hip
    pred["kp_3d"].requires_grad_()
    targets = expand_targets(target_2d), expand_targets(target_3d)
    total, terms = _loss()(pred, *targets)
    (total + sum(velocity_terms(pred, target_2d, target_3d).values())).backward()
    gradient = pred["kp_3d"].grad[9:].unflatten(0, (4, 3))
    assert total.isfinite() and gradient.isfinite().all()
    assert not gradient[1, 1, :, 30].any() and gradient[1, 1, :, 31].any()
    assert not gradient[2, 0].any() and gradient[2, 1].any()

    truth = _about(target_3d["kp_3d"].flatten(0, 1))[:, None]
    expected = ((_about(pred["kp_3d"][9:]) - truth).nan_to_num() ** 2).mean()
    torch.testing.assert_close(terms["loss_kp_3d"], 300 * expected)


def _about(joints: torch.Tensor) -> torch.Tensor:
    return joints[..., 25:39, :] - joints[..., 27:29, :].mean(dim=-2, keepdim=True)


class _Recorder(TorchDispatchMode):
    """Names of the operations that make a CPU wait for a GPU: the size or value of a result is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        indices = [index for arg in args if isinstance(arg, (list, tuple)) for index in arg]
        masks = [index for index in indices if isinstance(index, torch.Tensor)]
        if name in ("nonzero", "masked_select", "_local_scalar_dense", "equal", "is_nonzero") or (
            name.startswith(("index", "_index")) and any(mask.dtype == torch.bool for mask in masks)
        ):
            self.waits.append(name)
        return func(*args, **(kwargs or {}))


def test_losses_do_not_wait_for_the_device() -> None:
    pred, target_2d, target_3d = random_runs(3)
    pred = {**pred, "theta": torch.zeros(21, 3, 85)}
    for values in pred.values():
        values.requires_grad_()
    with _Recorder() as recorder:
        targets = expand_targets(target_2d), expand_targets(target_3d)
        total, _ = _loss()(pred, *targets, count_rows(*targets))
        pairs = velocity_counts(target_2d, target_3d)
        (total + sum(velocity_terms(pred, target_2d, target_3d, pairs).values())).backward()
    assert not recorder.waits
    with _Recorder() as recorder:
        pred["kp_2d"][pred["kp_2d"] > 0].sum().item()
    assert recorder.waits  # it does see them

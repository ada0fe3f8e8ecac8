"""Every fast path against the plain way of :mod:`benchmarks.naive`, on random sizes."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from torch import nn

from benchmarks import naive
from benchmarks.case import Case, Result, measure
from benchmarks.run import plot, table
from lib.core.build import build_model
from lib.core.loss import TCMRLoss, expand_targets
from lib.core.trainer import Trainer
from lib.dataset.datasets import DATASETS
from lib.dataset.training import WindowDataset
from lib.dataset.windows import window_frames
from lib.models import precision, recurrence
from lib.models.body import BodyData
from lib.models.encoder import PoseForecast
from lib.models.inference import PreparedTCMR
from lib.models.predict import iter_predictions, predict_sequence
from lib.models.recurrence import Product, layers_of, output_at, prepare
from lib.models.smpl import SMPL
from lib.models.tcmr import TCMR
from lib.utils import metrics
from lib.utils.errors import UserError
from lib.utils.smoothing import slerp_filter
from tests.golden_tools import fill_by_recipe
from tests.trainer_tools import CPU, make_databases, tiny_config

FEATURES = 12
few = settings(max_examples=12)
small = st.integers(1, 5)


def make_model(body: BodyData, seqlen: int = 16, layers: int = 2, hidden: int = 16) -> TCMR:
    model = TCMR(seqlen, layers, hidden, FEATURES, regressor_hidden_size=24, body=body)
    fill_by_recipe(model)
    return model.eval()


def features_of(length: int) -> np.ndarray:
    return np.random.default_rng(length).standard_normal((length, FEATURES)).astype(np.float32)


def assert_same(result: dict[str, np.ndarray], expected: dict[str, np.ndarray], atol: float) -> None:
    assert result.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(result[name], value, rtol=atol, atol=atol, err_msg=name)


# ------------------------------------------------------------------------ recurrence


@few
@given(steps=st.integers(1, 9), n=small, size=small, hidden=small, layers=st.integers(1, 3),
       bidirectional=st.booleans(), seed=st.integers(0, 99))  # fmt: skip
def test_recurrence_is_torch_gru(
    steps: int, n: int, size: int, hidden: int, layers: int, bidirectional: bool, seed: int
) -> None:
    """Output at any step, and the gradients of inputs and weights."""
    torch.manual_seed(seed)
    gru = nn.GRU(size, hidden, layers, bidirectional=bidirectional).double()
    x = torch.randn(steps, n, size, dtype=torch.float64, requires_grad=True)
    step = seed % steps
    expected = gru(x)[0][step]
    direction = torch.randn_like(expected)
    unused = {"allow_unused": True}  # a single step has no earlier state to multiply
    wanted = torch.autograd.grad((expected * direction).sum(), [x, *gru.parameters()], **unused)

    for layered in (layers_of(gru), prepare(layers_of(gru), torch.float64, n)):
        result = output_at(layered, lambda product, part: product(x[part]), step)
        torch.testing.assert_close(result, expected, rtol=1e-10, atol=1e-10)
        if isinstance(layered[0][0].from_state, Product):
            found = torch.autograd.grad((result * direction).sum(), [x, *gru.parameters()], **unused)
            for a, b in zip(found, wanted):
                zero = torch.zeros(())
                torch.testing.assert_close(
                    a if a is not None else zero.to(b).expand_as(b), b, rtol=1e-9, atol=1e-9
                )


# ------------------------------------------------------------------------ prediction


@few
@given(length=st.integers(1, 45), batch_size=st.integers(1, 50), seqlen=st.integers(4, 17),
       layers=st.integers(1, 3), step=st.integers(1, 3), meshes=st.booleans())  # fmt: skip
def test_prediction_is_the_naive_one(
    open_body: BodyData, length: int, batch_size: int, seqlen: int, layers: int, step: int, meshes: bool
) -> None:
    model, features = make_model(open_body, seqlen, layers), features_of(length)
    options = {"return_verts": meshes, "batch_size": batch_size}
    if step == 1:  # with a step the features are smoothed first
        expected = naive.predict(model, features, naive.edge_windows(length, seqlen))
        if not meshes:
            del expected["verts"]
        assert_same(predict_sequence(model, features, borders="edge", **options), expected, 1e-5)
    if length >= seqlen:
        expected = naive.predict(model, features, naive.static_windows(length, seqlen))
        if not meshes:
            del expected["verts"]
        assert_same(predict_sequence(model, features, **options), expected, 1e-5)
    else:
        with pytest.raises(UserError, match="static borders"):
            predict_sequence(model, features, **options)


@few
@given(n=st.integers(1, 6), frames=st.integers(1, 9), seed=st.integers(0, 99))
def test_windows_in_any_order(open_body: BodyData, n: int, frames: int, seed: int) -> None:
    """Windows need not follow each other; gradients flow through what they share."""
    model = make_model(open_body, 6).double()
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(frames, FEATURES, generator=generator, dtype=torch.float64)
    windows = torch.randint(frames, (n, 6), generator=generator)
    expected, scores = naive.encode(model.encoder, features[windows])
    parameters = list(model.encoder.parameters())
    wanted = torch.autograd.grad((expected**2).sum() + scores.sum(), parameters)
    shared = model.encoder.encode_windows(features, windows)
    torch.testing.assert_close(shared, (expected, scores), rtol=1e-9, atol=1e-9)
    found = torch.autograd.grad((shared[0] ** 2).sum() + shared[1].sum(), parameters)
    torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-8)
    prepared = PreparedTCMR(model).predict_windows(features, windows, return_verts=False)
    plain = naive.regress(model.regressor, expected)
    for name, value in prepared.items():
        torch.testing.assert_close(value, plain.get(name, scores), rtol=1e-9, atol=1e-9)


def test_the_regressor_is_one_affine_map(open_body: BodyData) -> None:
    regressor = make_model(open_body).regressor.double()
    x = torch.randn(5, FEATURES, dtype=torch.float64)
    matrix, offset = regressor.as_affine()
    pose, shape, cam = (x @ matrix.T + offset).split((144, 10, 3), dim=1)
    expected = naive.regress(regressor, x)
    for name, value in regressor.body_of(pose, shape, cam).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-9, atol=1e-9)


def test_long_sequences_come_in_parts(open_body: BodyData) -> None:
    model, features = make_model(open_body), features_of(50)
    whole = predict_sequence(model, features)
    parts = list(iter_predictions(model, features, batch_size=16))
    assert [part.stop - part.start for part, _ in parts] == [16, 16, 16, 2]
    for name, value in whole.items():
        joined = np.concatenate([output[name].numpy() for _, output in parts])
        np.testing.assert_allclose(joined, value, rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(not precision.cpu_has_bf16(), reason="this CPU has no bf16 instructions")
def test_bf16_is_near(open_body: BodyData) -> None:
    model, features = make_model(open_body, hidden=64), features_of(40)
    exact, reduced = (predict_sequence(model, features, precision=name) for name in ("fp32", "bf16"))
    distance = np.linalg.norm(exact["kp_3d"] - reduced["kp_3d"], axis=-1)
    assert 0 < distance.mean() < 0.005  # metres; weights of the test recipe are far larger than trained ones


def test_precisions_that_a_device_lacks_are_named(
    open_body: BodyData, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, features = make_model(open_body), features_of(20)
    monkeypatch.setattr(precision, "cpu_has_bf16", lambda: False)
    for name, message in {
        "bf16": "no instructions",
        "tf32": "CUDA",
        "fp16": "CUDA",
        "int8": "use one of",
    }.items():
        with pytest.raises(UserError, match=message):
            predict_sequence(model, features, precision=name)  # type: ignore[arg-type]


@few
@given(n=st.integers(1, 40), with_grad=st.booleans())
def test_body_model(open_body: BodyData, n: int, with_grad: bool) -> None:
    smpl = SMPL(open_body).double()
    random = np.random.default_rng(n)
    rotmat = torch.from_numpy(Rotation.random(n * 24, rng=random).as_matrix().reshape(n, 24, 3, 3))
    betas = torch.from_numpy(random.standard_normal((n, 10)))
    with torch.set_grad_enabled(with_grad):
        vertices, joints = naive.mesh(smpl, betas, rotmat)
        output = smpl(betas, rotmat[:, 1:], rotmat[:, :1], pose2rot=False)
        torch.testing.assert_close(output.vertices, vertices, rtol=0, atol=1e-9)
        torch.testing.assert_close(output.joints, joints, rtol=0, atol=1e-9)
        torch.testing.assert_close(smpl.joints(betas, rotmat), joints, rtol=0, atol=1e-9)


# ------------------------------------------------------------------------ training


@few
@given(name=st.sampled_from(["ThreeDPW", "MPII3D", "Human36M", "Insta", "PoseTrack"]),
       lengths=st.lists(st.integers(1, 20), min_size=1, max_size=4), seqlen=st.integers(2, 7),
       picks=st.lists(st.integers(0, 10**6), min_size=1, max_size=9))  # fmt: skip
def test_samples(name: str, lengths: list[int], seqlen: int, picks: list[int]) -> None:
    spec, n = DATASETS[name], sum(lengths)
    random = np.random.default_rng(n)
    joints2d = {"common": 14, "insta": 25, "spin": 49}[spec.joints2d]
    database = {
        "vid_name": np.repeat([f"v{i}" for i in range(len(lengths))], lengths),
        "features": random.standard_normal((n, 4)).astype(np.float32),
        "joints2D": random.uniform(0, 200, (n, joints2d, 3)).astype(np.float32),
        "joints3D": random.standard_normal((n, 49, 3)).astype(np.float32),
        "bbox": random.uniform(100, 200, (n, 4)).astype(np.float32),
        "pose": random.standard_normal((n, 72)).astype(np.float32),
        "shape": random.standard_normal((n, 10)).astype(np.float32),
    }
    dataset = WindowDataset(spec, database, seqlen, float16=True)
    indices = [pick % len(dataset) for pick in picks]
    batch = dataset.__getitems__(indices)
    windows = window_frames(dataset.windows[indices], seqlen)
    samples = [naive.sample(database, window.tolist(), spec) for window in windows]
    expected = torch.utils.data.default_collate(samples)
    batch = {"features": batch["features"], **expand_targets(batch)}
    assert batch.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(batch[key], value, rtol=2e-3, atol=2e-3, msg=key)  # half precision


@pytest.fixture(scope="module")
def databases(open_body: BodyData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("databases")
    make_databases(folder, open_body)
    return folder


def losses(databases: Path, folder: Path, body: BodyData, *opts: str) -> list[float]:
    """Of six training steps, all starting from the same weights and reading the same batches."""
    cfg = tiny_config(databases, folder, "MODEL.REGRESSOR.DROPOUT", "0.0", *opts)
    torch.manual_seed(0)
    trainer = Trainer(cfg, build_model(cfg, body), body, CPU)
    trainer.model.train()
    return [
        trainer.train_step({kind: next(stream) for kind, stream in trainer.streams.items()})["loss"]
        for _ in range(6)
    ]


def naive_losses(databases: Path, folder: Path, body: BodyData) -> list[float]:
    cfg = tiny_config(databases, folder, "MODEL.REGRESSOR.DROPOUT", "0.0")
    torch.manual_seed(0)
    trainer = Trainer(cfg, build_model(cfg, body), body, CPU)
    model = copy.deepcopy(trainer.model).train()
    optimizer = naive.adam(model, cfg.TRAIN.GEN_LR)
    weights = cfg.LOSS.KP_2D_W, cfg.LOSS.KP_3D_W, cfg.LOSS.POSE_W, cfg.LOSS.SHAPE_W
    found = []
    for _ in range(6):
        batches = [
            {"features": batch["features"], **expand_targets(batch)}
            for batch in map(next, trainer.streams.values())
        ]
        found.append(naive.train_step(model, TCMRLoss(*weights), optimizer, batches))
    return found


def test_training_steps(databases: Path, tmp_path: Path, open_body: BodyData) -> None:
    expected = naive_losses(databases, tmp_path, open_body)
    options = "TRAIN.GRAD_CLIP", "0.0", "TRAIN.LR_SCHEDULE", "plateau", "TRAIN.WARMUP_ITERS", "0"
    result = losses(databases, tmp_path, open_body, *options)
    assert result == pytest.approx(expected, rel=1e-5)
    for parts in ("2", "3", "20"):
        split = losses(databases, tmp_path, open_body, *options, "TRAIN.ACCUMULATE", parts)
        assert split == pytest.approx(expected, rel=1e-5)
    if precision.cpu_has_bf16():
        reduced = losses(databases, tmp_path, open_body, *options, "TRAIN.PRECISION", "bf16")
        assert reduced == pytest.approx(expected, rel=2e-2) and reduced != result


def test_training_steps_of_runs(databases: Path, tmp_path: Path, open_body: BodyData) -> None:
    """As if every window had been a sample of its own, and the same in parts."""
    options = [
        *("TRAIN.GRAD_CLIP", "0.0", "TRAIN.LR_SCHEDULE", "plateau", "TRAIN.WARMUP_ITERS", "0"),
        *("TRAIN.RUN_LENGTH", "3", "TRAIN.BATCH_SIZE", "24", "MODEL.REGRESSOR.DROPOUT", "0.0"),
    ]
    cfg = tiny_config(databases, tmp_path, *options)
    torch.manual_seed(0)
    trainer = Trainer(cfg, build_model(cfg, open_body), open_body, CPU)
    model = copy.deepcopy(trainer.model).train()
    optimizer = naive.adam(model, cfg.TRAIN.GEN_LR)
    weights = cfg.LOSS.KP_2D_W, cfg.LOSS.KP_3D_W, cfg.LOSS.POSE_W, cfg.LOSS.SHAPE_W
    expected = []
    for _ in range(6):
        batches = []
        for batch in map(next, trainer.streams.values()):
            windows = [run[k : k + 6] for run in batch["features"] for k in range(3)]
            batches.append({"features": torch.stack(windows), **expand_targets(batch)})
        assert [len(batch["features"]) for batch in batches] == [12, 12]
        expected.append(naive.train_step(model, TCMRLoss(*weights), optimizer, batches))
    assert losses(databases, tmp_path, open_body, *options) == pytest.approx(expected, rel=1e-5)
    with_velocity = losses(databases, tmp_path, open_body, *options, "LOSS.VELOCITY_W", "5.0")
    assert with_velocity[0] > 1.01 * expected[0]
    parts = losses(
        databases, tmp_path, open_body, *options, "LOSS.VELOCITY_W", "5.0", "TRAIN.ACCUMULATE", "3"
    )
    assert parts == pytest.approx(with_velocity, rel=1e-5)


@pytest.mark.parametrize("autocast", [False, True])
def test_the_branch_of_a_gpu_is_the_same_gru(autocast: bool) -> None:
    """Full precision under autocast too, values and gradients."""
    torch.manual_seed(0)
    encoder = PoseForecast(2, 7, 5, 4)
    windows = torch.randn(3, 7, 4)
    found = []
    for fast in (False, True):
        encoder.zero_grad()
        if fast:
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                states = encoder.states_by_gru(windows.transpose(0, 1))
        else:
            flat = torch.arange(21).reshape(3, 7)
            states = encoder.window_states(windows.flatten(0, 1), flat, encoder.layers())
        torch.cat(states, dim=1).square().sum().backward()
        found.append([*states, encoder.gru_bef.weight_hh_l0.grad, encoder.gru_cur.weight_ih_l1_reverse.grad])
    for ours, gru in zip(*found):
        assert gru.dtype == torch.float32
        torch.testing.assert_close(ours, gru, rtol=1e-5, atol=1e-6)


def test_tanh_by_sigmoid() -> None:
    x = torch.linspace(-20, 20, 4001)
    torch.testing.assert_close(recurrence._tanh_by_sigmoid_(x.clone()), x.tanh(), rtol=0, atol=3e-7)


def test_impossible_training_options_are_named(databases: Path, tmp_path: Path, open_body: BodyData) -> None:
    for option, value, message in (
        ("TRAIN.PRECISION", "fp16", "use one of fp32, tf32, bf16"),
        ("TRAIN.PRECISION", "tf32", "CUDA"),
        ("TRAIN.ACCUMULATE", "0", "at least 1"),
    ):
        with pytest.raises(UserError, match=message):
            losses(databases, tmp_path, open_body, option, value)


# ------------------------------------------------------------------------ metrics and smoothing


@few
@given(n=st.integers(1, 30), joints=st.integers(3, 20), mirrored=st.booleans(), seed=st.integers(0, 99))
def test_metrics(n: int, joints: int, mirrored: bool, seed: int) -> None:
    random = np.random.default_rng(seed)
    target = random.standard_normal((n, joints, 3))
    pred = target * (-1 if mirrored else 1) + 0.2 * random.standard_normal(target.shape)
    np.testing.assert_allclose(metrics.pa_mpjpe(pred, target), naive.pa_mpjpe(pred, target), atol=1e-10)
    expected = naive.acceleration_error(pred, target)
    np.testing.assert_allclose(metrics.accel_error(pred, target), expected, atol=1e-10)
    plain = np.linalg.norm(pred - target, axis=2).mean(axis=1)
    np.testing.assert_allclose(metrics.vertex_error(pred, target), plain, atol=1e-10)


@few
@given(n=st.integers(1, 30), joints=st.integers(1, 4), ratio=st.floats(0, 1), seed=st.integers(0, 99))
def test_slerp_filter(n: int, joints: int, ratio: float, seed: int) -> None:
    turns = np.cumsum(0.3 * np.random.default_rng(seed).standard_normal((n, joints, 3)), axis=0)
    rotmats = Rotation.from_rotvec(turns.reshape(-1, 3)).as_matrix().reshape(n, joints, 3, 3)
    np.testing.assert_allclose(slerp_filter(rotmats, ratio), naive.slerp_filter(rotmats, ratio), atol=1e-9)


# ------------------------------------------------------------------------ the benchmarks themselves


def test_rounds_alternate_and_the_first_is_not_counted() -> None:
    calls: list[str] = []
    case = Case("case", "things", 4, lambda: calls.append("naive"), lambda: calls.append("fast"), 2)
    result = measure(case, rounds=2)
    assert calls == ["naive", "fast"] * 3
    assert len(result.naive_rounds) == len(result.fast_rounds) == 2


def test_reports(tmp_path: Path) -> None:
    text = table([Result("case", "frames", 2.0, 8.0, [2.0], [8.0])], {"CPU": "x"}, 1, [(20, 1.5, 3.0)])
    assert "| case | frames/s | 2 | 8 | 4.00 |" in text and "| 20 frames | 1.50 GB | 3 s |" in text
    plot(
        {"frames: seconds": {"ours": [(1, 2), (3, 4)]}, "threads: rate": {"ours": [(1, 1)]}},
        tmp_path / "a.png",
    )
    assert (tmp_path / "a.png").stat().st_size > 1000

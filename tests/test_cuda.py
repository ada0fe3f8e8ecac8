"""What only a GPU shows. `scripts/gpu_check.sh` runs this file; without a GPU it is skipped."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from lib.core.build import build_model
from lib.core.config import load_config
from lib.core.seeding import seed_everything
from lib.core.trainer import Trainer
from lib.models.body import BodyData
from lib.models.extractors import LandmarkExtractor, SpinExtractor
from lib.models.hmr import HMR
from lib.models.inference import PreparedTCMR
from lib.models.landmark_net import LandmarkNet
from lib.models.precision import Precision
from lib.models.predict import predict_sequence
from lib.models.tcmr import TCMR
from lib.utils.files import load_checkpoint
from tests.golden_tools import fill_by_recipe
from tests.test_official_configs import FEATURES, TABLE, make_database
from tests.trainer_tools import CONFIGS, CPU, adversarial, make_databases, tiny_config, train

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
CUDA = torch.device("cuda")


def three_losses(cfg, body: BodyData, device: torch.device) -> list[float]:
    """Of the first steps on a device, all from the same weights and batches."""
    seed_everything(1)
    trainer = Trainer(cfg, build_model(cfg, body), body, device)
    trainer.model.train()
    losses = []
    for trainer.place.step in range(3):
        batches = {kind: next(stream) for kind, stream in trainer.streams.items()}
        losses.append(trainer.train_step(batches)["loss"])
    return losses


@pytest.mark.parametrize("title", TABLE)
@pytest.mark.parametrize("workers", ["0", "2"])
def test_official_configurations_train_as_on_a_cpu(
    title: str, workers: str, smpl_body: BodyData, tmp_path: Path
) -> None:
    """Batches of one set and of several, pinned, with and without worker processes."""
    sets_2d, sets_3d, validation, _ = TABLE[title]
    for name in {*sets_2d, *sets_3d, validation}:
        make_database(tmp_path / name)
    opts = [
        *("PATHS.PREPROCESSED", str(tmp_path), "MODEL.TGRU.HIDDEN_SIZE", "16", "NUM_WORKERS", workers),
        *("MODEL.FEATURE_SIZE", str(FEATURES), "MODEL.REGRESSOR.HIDDEN_SIZE", "16"),
        *("TRAIN.PRETRAINED_REGRESSOR", "", "MODEL.REGRESSOR.DROPOUT", "0.0"),
    ]
    cfg = load_config(CONFIGS / f"{title}.yaml", opts)
    expected = three_losses(cfg, smpl_body, CPU)
    assert three_losses(cfg, smpl_body, CUDA) == pytest.approx(expected, rel=1e-3)


@pytest.fixture(scope="module")
def databases(open_body: BodyData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("databases")
    make_databases(folder, open_body)
    return folder


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
@pytest.mark.parametrize("runs", [False, True])
def test_the_open_configuration_trains_as_on_a_cpu(
    databases: Path, open_body: BodyData, tmp_path: Path, precision: str, runs: bool
) -> None:
    opts = [*adversarial(), "MODEL.TGRU.HIDDEN_SIZE", "32", "MODEL.REGRESSOR.DROPOUT", "0.0"]
    if runs:
        opts += ["TRAIN.RUN_LENGTH", "4", "TRAIN.BATCH_SIZE", "32", "LOSS.VELOCITY_W", "5.0"]
    expected = three_losses(tiny_config(databases, tmp_path, *opts), open_body, CPU)
    cfg = tiny_config(databases, tmp_path, *opts, "TRAIN.PRECISION", precision)
    tolerance = {"fp32": 1e-3, "tf32": 1e-2, "bf16": 5e-2}[precision]
    assert three_losses(cfg, open_body, CUDA) == pytest.approx(expected, rel=tolerance)


def test_a_step_waits_for_the_device_once(databases: Path, open_body: BodyData, tmp_path: Path) -> None:
    cfg = tiny_config(databases, tmp_path)
    trainer = Trainer(cfg, build_model(cfg, open_body), open_body, CUDA)
    trainer.model.train()
    batches = [{kind: next(stream) for kind, stream in trainer.streams.items()} for _ in range(3)]
    trainer.train_step(batches[0])
    trainer.train_step(batches[1])
    try:
        torch.cuda.set_sync_debug_mode("warn")
        with warnings.catch_warnings(record=True) as waits:
            warnings.simplefilter("always")
            trainer.train_step(batches[2])
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len([w for w in waits if "synchroniz" in str(w.message)]) <= 1, [str(w.message) for w in waits]


def test_a_resumed_run_equals_an_uninterrupted_one(
    databases: Path, open_body: BodyData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up to the order in which a GPU adds."""
    monkeypatch.setattr("tests.trainer_tools.CPU", CUDA)
    opts = ["MODEL.REGRESSOR.DROPOUT", "0.3", "TRAIN.LR_SCHEDULE", "plateau"]
    whole = train(tiny_config(databases, tmp_path / "a", *opts, "TRAIN.END_EPOCH", "2"), open_body)
    first = train(tiny_config(databases, tmp_path / "b", *opts, "TRAIN.END_EPOCH", "1"), open_body)
    resume = ["TRAIN.RESUME", str(first.folder / "checkpoint.pth.tar"), "TRAIN.END_EPOCH", "2"]
    second = train(tiny_config(databases, tmp_path / "c", *opts, *resume), open_body)
    a, b = (load_checkpoint(t.folder / "checkpoint.pth.tar") for t in (whole, second))
    assert (a["step"], a["loaders"]) == (b["step"], b["loaders"])
    for name, value in a["gen_state_dict"].items():
        torch.testing.assert_close(b["gen_state_dict"][name], value, rtol=1e-3, atol=1e-4, msg=name)


@pytest.fixture(scope="module")
def model(open_body: BodyData) -> TCMR:
    model = TCMR(16, 2, 64, 128, regressor_hidden_size=64, body=open_body).eval()
    fill_by_recipe(model)
    return model


@pytest.mark.parametrize(
    ("precision", "metres"), [("fp32", 1e-4), ("tf32", 5e-3), ("bf16", 3e-2), ("fp16", 5e-3)]
)
def test_predictions_are_those_of_a_cpu(model: TCMR, precision: Precision, metres: float) -> None:
    features = np.random.default_rng(0).standard_normal((60, 128)).astype(np.float32)
    expected = predict_sequence(model, features)
    prepared = PreparedTCMR(copy.deepcopy(model).to(CUDA), precision)
    result = predict_sequence(prepared, features)
    for name in ("kp_3d", "verts"):
        assert np.abs(result[name] - expected[name]).max() < metres, name


@pytest.mark.parametrize("run_length", [1, 4])
def test_the_networks_branches_on_a_gpu_equal_those_on_a_cpu(model: TCMR, run_length: int) -> None:
    features = torch.randn(3, 16 + run_length - 1, 128, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = model.forward_runs(features, run_length)
        result = copy.deepcopy(model).to(CUDA).forward_runs(features.to(CUDA), run_length)
    for name, value in expected.items():
        torch.testing.assert_close(result[name].cpu(), value, rtol=1e-3, atol=1e-3, msg=name)


def test_features_are_those_of_a_cpu(smpl_body: BodyData) -> None:
    torch.manual_seed(0)
    hmr = HMR(smpl_body).eval()
    crops = np.random.default_rng(0).integers(0, 256, (5, 224, 224, 3), dtype=np.uint8)
    expected = SpinExtractor(hmr).features(crops)
    result = SpinExtractor(hmr, CUDA).features(crops)
    assert np.linalg.norm(result - expected) < 1e-4 * np.linalg.norm(expected)  # TensorFloat-32 is 1e-3 off

    net = LandmarkNet(width=64, feature_size=32, blocks=2)
    vectors = torch.randn(7, net.first.in_features)
    assert LandmarkExtractor(net, CUDA).fingerprint == LandmarkExtractor(copy.deepcopy(net)).fingerprint
    with torch.no_grad():
        on_gpu = net.to(CUDA)(vectors.to(CUDA)).cpu()
        torch.testing.assert_close(on_gpu, net.to(CPU)(vectors), rtol=1e-3, atol=1e-3)

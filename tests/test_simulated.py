"""Training data made while training: independent of what came before, laid out as windows of a database."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from lib.core.config import load_config
from lib.dataset.training import training_set
from lib.landmarks.flips import find_flips
from lib.models.landmark_net import LandmarkNet
from lib.models.regressor import Regressor
from lib.models.smpl import SMPL
from lib.open_data import simulated
from lib.open_data.motions import UNCHANGED, open_motions, procedural_motions
from lib.open_data.simulate import NOISE_V1, NOISE_V2
from lib.open_data.simulated import Clips, SimulatedClips, SimulatedStream
from lib.utils.errors import UserError
from lib.utils.files import load_checkpoint, save_checkpoint
from lib.utils.geometry import axis_angle_to_rotmat, rotmat_to_axis_angle
from lib.utils.smoothing import gaussian
from tests.simulation_tools import SILENT
from tests.trainer_tools import CONFIGS, CPU, FEATURES, make_databases, tiny_config, train

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny landmark network with random weights."""
    torch.manual_seed(0)
    net = LandmarkNet(width=16, feature_size=FEATURES, blocks=1)
    path = tmp_path_factory.mktemp("network") / "net.pth.tar"
    save_checkpoint({"model": {f"extractor.{k}": v for k, v in net.state_dict().items()}}, path)
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, open_body) -> Path:
    folder = tmp_path_factory.mktemp("databases")
    make_databases(folder, open_body)
    return folder


@pytest.fixture(autouse=True)
def few_motions(monkeypatch: pytest.MonkeyPatch) -> None:
    motions = {"train": procedural_motions(3, seed=1, length=60)}
    monkeypatch.setattr(
        simulated, "open_motions", lambda folder, split: open_motions(folder) if folder else motions
    )


def simulated_config(network: Path, data: Path, output: Path, *opts: str):
    return tiny_config(
        data, output,
        *("TRAIN.DATASETS_2D", "[]", "TRAIN.DATASETS_3D", "['Simulated']", "TRAIN.RUN_LENGTH", "3"),
        *("LOSS.VELOCITY_W", "2.0", "MODEL.FEATURE_SMOOTH", "0.7", "TRAIN.BATCH_SIZE", "12", *opts),
    )  # fmt: skip


def stream(network: Path, data: Path, open_body, *opts: str, **options: int) -> SimulatedStream:
    cfg = simulated_config(network, data, data, *opts)
    cfg.TRAIN.PRETRAINED_REGRESSOR = str(network)
    return SimulatedStream(cfg, open_body, CPU, options.pop("batch_size", 4), seed=3, **options)


def equal(one: Clips, other: Clips) -> bool:
    return all(torch.equal(a, b) for a, b in zip(vars(one).values(), vars(other).values()))


def test_the_clips_of_a_step_depend_on_nothing_before(open_body) -> None:
    motions = procedural_motions(3, seed=1, length=60)
    source = SimulatedClips(motions, open_body, (NOISE_V1, NOISE_V2), CPU, seed=5)
    first, seventh = source(1, 3, 4), source(7, 3, 4)
    source(2, 5, 6)
    assert equal(source(7, 3, 4), seventh)
    fresh = SimulatedClips(motions, open_body, (NOISE_V1, NOISE_V2), CPU, seed=5)
    assert equal(fresh(7, 3, 4), seventh)
    assert not equal(first, seventh)
    other = SimulatedClips(motions, open_body, (NOISE_V1, NOISE_V2), CPU, seed=6)
    assert not equal(other(7, 3, 4), seventh)
    shapes = [tuple(value.shape) for value in vars(seventh).values()]
    assert shapes == [(3, 4, 303), (3, 4, 24, 3, 3), (3, 4, 10), (3, 4, 49, 3), (3, 4, 49, 2)]


def test_joints_are_those_of_the_pose_and_the_picture_is_theirs(open_body) -> None:
    motions = procedural_motions(3, seed=1, length=60)
    clips = SimulatedClips(motions, open_body, (SILENT,), CPU, seed=0, augmentation=UNCHANGED)(0, 4, 2)
    rotmat, betas = clips.rotmat.flatten(0, 1), clips.betas.flatten(0, 1)
    posed = SMPL(open_body)(betas, rotmat[:, 1:], rotmat[:, :1], pose2rot=False)
    torch.testing.assert_close(clips.joints3d.flatten(0, 1), posed.joints, atol=2e-5, rtol=0)
    # Without noise the wrist is where the vector says that the landmark is.
    seen = clips.vectors[..., :66].unflatten(-1, (33, 2))
    torch.testing.assert_close(clips.kp_2d[..., 7, :], seen[..., 15, :], atol=1e-3, rtol=0)


def test_half_of_the_clips_get_each_noise(open_body) -> None:
    motions = procedural_motions(3, seed=1, length=60)
    loud = SimulatedClips(motions, open_body, (SILENT, NOISE_V2), CPU, seed=0)(0, 9, 4)
    seen = loud.vectors[..., :66].unflatten(-1, (33, 2))
    wrong = (seen[..., 15, :] - loud.kp_2d[..., 7, :]).abs().amax((1, 2)) > 1e-3
    assert wrong.tolist() == [False] * 5 + [True] * 4


def test_repair_undoes_flips(open_body) -> None:
    motions = procedural_motions(3, seed=1, length=60)

    def world(repair: bool) -> torch.Tensor:
        source = SimulatedClips(motions, open_body, (NOISE_V1,), CPU, seed=2, repair=repair)
        return source(0, 24, 24).vectors[..., 99:198].unflatten(-1, (33, 3)) / 2

    assert find_flips(world(False)).any()
    assert find_flips(world(True)).float().mean() < 0.1 * find_flips(world(False)).float().mean()


def test_batches_are_laid_out_as_those_of_a_database(network, data, open_body) -> None:
    batch = next(stream(network, data, open_body))
    cfg = tiny_config(data, data, "TRAIN.RUN_LENGTH", "3")
    stored = training_set(["Open"], cfg, with_3d=True)
    assert stored is not None
    sample = stored[0]
    assert {k: (4, *v.shape) for k, v in sample.items()} == {k: tuple(v.shape) for k, v in batch.items()}
    assert {v.dtype for v in batch.values()} == {torch.float32}
    joints, theta = batch["kp_3d"], batch["theta"]
    rotmat = axis_angle_to_rotmat(theta[..., 3:75].unflatten(-1, (24, 3))).flatten(0, 1)
    posed = SMPL(open_body)(
        theta[..., 75:].flatten(0, 1), rotmat[:, 1:], rotmat[:, :1], pose2rot=False
    ).joints
    torch.testing.assert_close(posed, joints.flatten(0, 1), atol=1e-3, rtol=0)
    assert set(batch["kp_2d"][..., 2].unique().tolist()) <= {0.0, 1.0}


def test_features_are_smoothed_and_targets_lie_in_the_middle(network, data, open_body) -> None:
    """The batch is what the network gives for the clips of its step, smoothed; margins left out."""
    found = stream(network, data, open_body, start=2)
    batch = next(found)
    clips = found._clips(2, 4, 6 + 3 - 1 + 2 * 3)  # a kernel of 0.7 frames reaches 3 to both sides
    features = found._net(clips.vectors.flatten(0, 1)).unflatten(0, (4, 14)).detach().numpy()
    smooth = np.stack([gaussian(run, 0.7) for run in features])[:, 3:-3]
    np.testing.assert_allclose(batch["features"], smooth, atol=1e-5)
    middle = slice(3 + 3, 3 + 3 + 3)
    torch.testing.assert_close(batch["kp_3d"], clips.joints3d[:, middle])
    torch.testing.assert_close(
        batch["theta"][..., 3:75], rotmat_to_axis_angle(clips.rotmat[:, middle]).flatten(2)
    )


def test_a_stream_goes_on_where_another_stopped(network, data, open_body) -> None:
    whole = stream(network, data, open_body)
    batches = [next(whole) for _ in range(3)]
    assert whole.position == 3
    later = stream(network, data, open_body, start=2)
    for key, values in next(later).items():
        assert torch.equal(values, batches[2][key]), key
    assert later.position == 3
    assert not torch.equal(batches[0]["features"], batches[1]["features"])


def test_processes_share_the_runs(network, data, open_body) -> None:
    parts = [stream(network, data, open_body, batch_size=5, rank=rank, world=2) for rank in (0, 1)]
    batches = [[next(part)["features"] for _ in range(2)] for part in parts]
    assert [len(part[0]) for part in batches] == [3, 2]
    runs = torch.cat([features for part in batches for features in part]).flatten(1)
    assert len(runs.unique(dim=0)) == 10  # nobody gets what another one, or another batch, has


def test_a_network_of_another_size_is_refused(network, data, open_body) -> None:
    with pytest.raises(UserError, match=f"gives {FEATURES} numbers per frame, MODEL.FEATURE_SIZE is 7"):
        stream(network, data, open_body, "MODEL.FEATURE_SIZE", "7")


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["TRAIN.DATASETS_3D", "['Simulated', 'Open']"], "Simulated is trained on alone"),
        (["TRAIN.DATASETS_2D", "['PoseTrack']"], "Simulated is trained on alone"),
        (["LOSS.D_MOTION_LOSS_W", "1.0"], "D_MOTION_LOSS_W needs videos"),
        (["TRAIN.DATASETS_3D", "['Open']"], "FEATURE_SMOOTH is 0.7, which training on databases cannot do"),
        (["DATASET.MOTIONS", "/nowhere"], "/nowhere: no motion files"),
    ],
)
def test_mistakes_are_explained(network, data, open_body, tmp_path, opts, message) -> None:
    cfg = simulated_config(network, data, tmp_path, *opts)
    cfg.TRAIN.PRETRAINED_REGRESSOR = str(full_network(tmp_path, open_body))
    with pytest.raises(UserError, match=message):
        train(cfg, open_body)


def full_network(folder: Path, open_body) -> Path:
    """A per-frame checkpoint that a tiny TCMR can start from."""
    torch.manual_seed(0)
    regressor = Regressor(open_body, FEATURES, 12, dropout=0.0)
    weights = {k: v for k, v in regressor.state_dict().items() if not k.startswith("smpl.")}
    net = LandmarkNet(width=16, feature_size=FEATURES, blocks=1)
    weights |= {f"extractor.{k}": v for k, v in net.state_dict().items()}
    save_checkpoint({"model": weights, "body": "open"}, folder / "full.pth.tar")
    return folder / "full.pth.tar"


def test_a_resumed_run_equals_an_uninterrupted_one(network, data, open_body, tmp_path) -> None:
    start = str(full_network(tmp_path, open_body))
    few = ["TRAIN.PRETRAINED_REGRESSOR", start, "TRAIN.NUM_ITERS_PER_EPOCH", "3"]
    few += ["TRAIN.LR_SCHEDULE", "plateau"]  # a cosine would have to know the end

    def run(folder: str, *opts: str) -> dict:
        cfg = simulated_config(network, data, tmp_path / folder, *few, *opts)
        train(cfg, open_body)
        (path,) = (tmp_path / folder).glob("*/checkpoint.pth.tar")
        return {"path": path, **load_checkpoint(path)}

    whole = run("whole", "TRAIN.END_EPOCH", "2")
    once = run("once", "TRAIN.END_EPOCH", "1")
    resumed = run("resumed", "TRAIN.END_EPOCH", "2", "TRAIN.RESUME", str(once["path"]))
    assert resumed["loaders"] == whole["loaders"] == {"3d": 6}
    assert resumed["performance"] == whole["performance"] != once["performance"]
    for key, value in whole["gen_state_dict"].items():
        assert torch.equal(resumed["gen_state_dict"][key], value), key


def test_the_shipped_configuration_trains_on_simulation() -> None:
    cfg = load_config(CONFIGS / "open.yaml")
    assert list(cfg.TRAIN.DATASETS_3D) == ["Simulated"] and not cfg.TRAIN.DATASETS_2D
    assert cfg.TRAIN.BATCH_SIZE % cfg.TRAIN.RUN_LENGTH == 0

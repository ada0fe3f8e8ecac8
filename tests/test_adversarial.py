"""The motion discriminator: its data, what both sides learn, and its place in a training run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from lib.core.adversary import BODY_POSE, MotionAdversary
from lib.core.build import build_model
from lib.core.loss import lsgan_generator_loss
from lib.core.trainer import Trainer
from lib.dataset.datasets import get_spec
from lib.dataset.sequences import RealMotions, VideoSequences, video_sequences
from lib.dataset.training import ConcatWindows, WindowDataset, training_set
from lib.models.body import BodyData
from lib.models.encoder import run_windows
from lib.models.motion_discriminator import MotionDiscriminator
from lib.models.tcmr import TCMR
from lib.utils.errors import UserError
from lib.utils.files import dump_joblib, load_checkpoint, load_joblib
from tests.golden_tools import GOLDEN, load_golden
from tests.trainer_tools import (
    CPU,
    adversarial,
    logged,
    make_databases,
    make_motion_database,
    tiny_config,
    train,
)

ATTENTION = [
    *("TRAIN.MOT_DISCR.FEATURE_POOL", "attention", "TRAIN.MOT_DISCR.ATT.SIZE", "16"),
    *("TRAIN.MOT_DISCR.ATT.LAYERS", "2", "TRAIN.MOT_DISCR.ATT.DROPOUT", "0.2"),
]


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def databases(open_body: BodyData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("databases")
    make_databases(folder, open_body)
    return folder


def make_pair(databases: Path, body: BodyData, *opts: str) -> tuple[MotionAdversary, TCMR]:
    cfg = tiny_config(databases, databases / "unused", *adversarial("TRAIN.LR_SCHEDULE", "plateau", *opts))
    torch.manual_seed(0)
    model = build_model(cfg, body)
    datasets = {"3d": training_set(["Open"], cfg, with_3d=True)}
    return MotionAdversary(cfg, datasets, CPU, 1, {}, source=""), model


# ------------------------------------------------------------------------ data


def test_real_motions_equal_the_original() -> None:
    motions = RealMotions(GOLDEN / "data" / "amass_db.pt", 16)
    golden = load_golden("datasets/amass")
    assert len(motions) == len(golden["vid_indices"])
    for index in (0, 2):
        theta = motions[index]["theta"]
        assert theta.dtype == torch.float32
        np.testing.assert_array_equal(theta, golden[f"{index}_theta"])
    both = motions.__getitems__([2, 0])["theta"]
    np.testing.assert_array_equal(both, np.stack([golden["2_theta"], golden["0_theta"]]))


def test_any_database_with_poses_can_be_real_motion(tmp_path: Path) -> None:
    database = load_joblib(GOLDEN / "data" / "amass_db.pt")
    theta = np.array(database["theta"])
    dump_joblib(
        {"vid_name": np.array(database["vid_name"]), "pose": theta[:, :72], "shape": theta[:, 72:]},
        tmp_path / "other.pt",
    )
    a, b = RealMotions(tmp_path / "other.pt", 16), RealMotions(GOLDEN / "data" / "amass_db.pt", 16)
    assert torch.equal(a.__getitems__([0, 1, 2])["theta"], b.__getitems__([0, 1, 2])["theta"])


@pytest.mark.parametrize("seqlen", [5, 6])
def test_sequences_hold_the_training_windows_of_consecutive_frames(seqlen: int) -> None:
    lengths = [9, 4, 6, 1, 7]
    rng, n = np.random.default_rng(0), sum(lengths)
    database = {
        "vid_name": np.repeat(list("abcde"), lengths),
        "features": rng.normal(size=(n, 3)).astype(np.float32),
        "joints2D": np.zeros((n, 49, 3)),
        "bbox": np.ones((n, 4)),
    }
    windows = WindowDataset(get_spec("PoseTrack"), database, seqlen)
    of_target = {target: windows[i]["features"] for i, (target, _, _) in enumerate(windows.windows)}
    sequences = VideoSequences(database, seqlen)
    starts = [
        first + i
        for first, length in zip(np.cumsum([0, *lengths]), lengths)
        for i in range(length - seqlen + 1)
    ]
    assert len(sequences) == len(starts)
    features = sequences.__getitems__(np.arange(len(starts)))["features"]
    assert features.shape == (len(starts), 2 * seqlen - 1, 3)
    seen = features.flatten(0, 1)[run_windows(len(starts), seqlen, seqlen)]
    expected = torch.stack([of_target[start + k] for start in starts for k in range(seqlen)])
    assert torch.equal(seen, expected)


def test_videos_and_clips_that_are_too_short_are_refused(databases: Path) -> None:
    datasets = training_set(["Open"], tiny_config(databases, databases), with_3d=True)
    assert isinstance(datasets, ConcatWindows)
    with pytest.raises(UserError, match="SEQLEN 31"):
        video_sequences(datasets, 31)
    with pytest.raises(UserError, match=r"amass_db\.pt gives no motion of 21 frames"):
        RealMotions(databases / "amass_db.pt", 21)


# ------------------------------------------------------------------------ predictions


def test_predicted_motion_is_the_integrated_output_of_each_frame(
    databases: Path, open_body: BodyData
) -> None:
    """Values and gradients are those of the network's ordinary forward pass over every window."""
    adversary, model = make_pair(databases, open_body)
    again, _ = make_pair(databases, open_body)
    motions = adversary.predict(model)
    assert motions.shape == (3, 6, 69)
    features = next(again.streams["sequences"])["features"]
    windows = torch.stack([sequence[k : k + 6] for sequence in features for k in range(6)])
    expected = model(windows, is_train=True)[0][0]["theta"][:, 2, BODY_POSE].reshape(3, 6, 69)
    torch.testing.assert_close(motions, expected, rtol=1e-4, atol=1e-5)

    weights = torch.randn(3, 6, 69)
    parameters = [p for p in model.parameters() if p.requires_grad]
    ours, theirs = (
        torch.autograd.grad(
            (predicted * weights).sum(), parameters, materialize_grads=True, allow_unused=True
        )
        for predicted in (motions, expected)
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("pool", ["attention", "concat", "last"])
def test_one_motion_is_scored_as_among_others(pool: str) -> None:
    torch.manual_seed(0)
    network = MotionDiscriminator(
        16, 69, 2, output_size=1, feature_pool=pool, attention_size=16, attention_layers=3
    )
    motions = torch.randn(4, 6, 69)
    together = network.eval()(motions)
    alone = torch.cat([network(motion[None]) for motion in motions])
    assert together.shape == (4, 1)
    torch.testing.assert_close(alone, together)
    network.train()(motions[:1]).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


# ------------------------------------------------------------------------ learning


@pytest.mark.parametrize("opts", [[], ATTENTION])
def test_the_discriminator_learns_to_tell_predictions_from_motion(
    databases: Path, open_body: BodyData, opts: list[str]
) -> None:
    adversary, model = make_pair(databases, open_body, *opts)
    losses = []
    for step in range(60):
        with torch.no_grad():
            motions = adversary.predict(model)
        losses.append(adversary.update(motions, step)["d_m_disc_loss"].item() / adversary.weight)
    assert np.mean(losses[-5:]) < 0.1 < 0.7 < losses[0]
    adversary.discriminator.eval()
    with torch.no_grad():
        real = adversary.discriminator(next(adversary.streams["motions"])["theta"][..., BODY_POSE])
        fake = adversary.discriminator(adversary.predict(model))
    assert real.min() > 0.6 > 0.4 > fake.max()


def test_the_network_learns_to_deceive_a_fixed_discriminator(databases: Path, open_body: BodyData) -> None:
    adversary, model = make_pair(databases, open_body)
    for step in range(40):
        adversary.update(adversary.predict(model), step)
    fixed = {name: value.clone() for name, value in adversary.discriminator.state_dict().items()}
    adversary.optimizer.zero_grad()

    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    optimizer = torch.optim.Adam(parameters.values(), lr=0.003)
    losses = []
    for _ in range(40):
        term = adversary.generator_term(adversary.predict(model))
        optimizer.zero_grad()
        term.backward()
        optimizer.step()
        losses.append(term.item() / adversary.weight)
    assert np.mean(losses[-5:]) < 0.3 * losses[0]
    for branch in ("gru_cur", "gru_bef", "gru_aft"):
        assert parameters[f"encoder.{branch}.weight_ih_l0"].grad.abs().sum() > 0
    assert all(p.grad is None for p in adversary.discriminator.parameters())
    assert all(torch.equal(v, fixed[name]) for name, v in adversary.discriminator.state_dict().items())


def test_the_terms_are_those_of_least_squares(databases: Path, open_body: BodyData) -> None:
    """Weighted, averaged over sequences, and without effect of the discriminator's lesson on the network."""
    adversary, model = make_pair(databases, open_body)
    motions = adversary.predict(model)
    real = next(make_pair(databases, open_body)[0].streams["motions"])["theta"][..., BODY_POSE]
    with torch.no_grad():
        fake_score, real_score = adversary.discriminator(motions), adversary.discriminator(real)
    term = adversary.generator_term(motions)
    torch.testing.assert_close(term, 2 * ((fake_score - 1) ** 2).mean())
    torch.testing.assert_close(term, 2 * lsgan_generator_loss(fake_score))
    terms = adversary.update(motions, 0)
    torch.testing.assert_close(terms["d_m_disc_real"], 2 * ((real_score - 1) ** 2).mean())
    torch.testing.assert_close(terms["d_m_disc_fake"], 2 * (fake_score**2).mean())
    torch.testing.assert_close(terms["d_m_disc_loss"], terms["d_m_disc_real"] + terms["d_m_disc_fake"])
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_discriminator_is_deceived_as_it_learns(databases: Path, open_body: BodyData) -> None:
    """With dropout, whatever mode it was left in."""
    adversary, model = make_pair(databases, open_body, *ATTENTION)
    motions = adversary.predict(model).detach()
    scores = set()
    for _ in range(4):
        adversary.discriminator.eval()
        scores.add(adversary.generator_term(motions).item())
    assert len(scores) == 4


def test_the_discriminator_learns_when_it_is_its_turn(databases: Path, open_body: BodyData) -> None:
    adversary, model = make_pair(databases, open_body, "TRAIN.MOT_DISCR.UPDATE_STEPS", "3")
    motions = adversary.predict(model).detach()
    learned = []
    for step in range(7):
        before = nn.utils.parameters_to_vector(adversary.parameters)
        terms = adversary.update(motions, step)
        learned.append(not torch.equal(before, nn.utils.parameters_to_vector(adversary.parameters)))
        assert bool(terms) == learned[-1]
    assert learned == [True, False, False, True, False, False, True]


# ------------------------------------------------------------------------ whole runs


def test_an_adversarial_run_is_logged_and_goes_on_exactly(
    databases: Path, open_body: BodyData, tmp_path: Path
) -> None:
    opts = ["TRAIN.LR_SCHEDULE", "plateau", *adversarial(*ATTENTION, "TRAIN.MOT_DISCR.UPDATE_STEPS", "2")]
    whole = train(tiny_config(databases, tmp_path / "whole", *opts, "TRAIN.END_EPOCH", "2"), open_body)
    events = logged(whole.folder)
    turns = [event.step for event in events.Scalars("train_loss/d_m_disc_loss")]
    assert turns == list(range(0, 14, 2))
    assert {f"train_loss/d_m_disc_{name}" for name in ("real", "fake")} <= set(events.Tags()["scalars"])
    assert len(events.Scalars("train_loss/e_m_disc_loss")) == 14
    assert [event.value for event in events.Scalars("lr/dis_lr")] == pytest.approx([0.002, 0.002])
    terms = {tag: [e.value for e in events.Scalars(f"train_loss/{tag}")] for tag in
             ("loss", "loss_kp_2d", "loss_kp_3d", "loss_shape", "loss_pose", "e_m_disc_loss")}  # fmt: skip
    np.testing.assert_allclose(terms.pop("loss"), np.sum(list(terms.values()), axis=0), rtol=1e-5)

    part = train(tiny_config(databases, tmp_path / "part", *opts, "TRAIN.END_EPOCH", "1"), open_body)
    resume = ["TRAIN.RESUME", str(part.folder / "checkpoint.pth.tar"), "TRAIN.END_EPOCH", "2"]
    rest = train(tiny_config(databases, tmp_path / "rest", *opts, *resume, "SEED_VALUE", "99"), open_body)
    a, b = (load_checkpoint(trainer.folder / "checkpoint.pth.tar") for trainer in (whole, rest))
    for key in ("gen_state_dict", "disc_motion_state_dict"):
        assert all(torch.equal(value, b[key][name]) for name, value in a[key].items())
    assert a["loaders"] == b["loaders"] == {"2d": 56, "3d": 56, "sequences": 42, "motions": 21}
    assert a["disc_motion_optimizer"]["state"].keys() == b["disc_motion_optimizer"]["state"].keys() != set()

    network = MotionDiscriminator(
        16, 69, 1, output_size=1, feature_pool="attention", attention_size=16, attention_layers=2
    )
    network.load_state_dict(a["disc_motion_state_dict"])


def test_a_checkpoint_without_discriminator_gets_a_fresh_one(
    databases: Path, open_body: BodyData, tmp_path: Path
) -> None:
    first = train(tiny_config(databases, tmp_path / "a", "TRAIN.END_EPOCH", "1"), open_body)
    assert not any(key.startswith("disc") for key in load_checkpoint(first.folder / "checkpoint.pth.tar"))
    resume = ["TRAIN.RESUME", str(first.folder / "checkpoint.pth.tar"), *adversarial()]
    cfg = tiny_config(databases, tmp_path / "b", *resume)
    trainer = Trainer(cfg, build_model(cfg, open_body), open_body, CPU)
    assert trainer.learner.adversary is not None
    assert (trainer.place.epoch, trainer.learner.adversary.streams["motions"].position) == (1, 0)


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["TRAIN.DATASETS_3D", "[]"], "DATASETS_3D is empty"),
        (["TRAIN.MOT_DISCR.SEQUENCES", "0"], "MOT_DISCR.SEQUENCES is 0"),
        (["TRAIN.MOT_DISCR.UPDATE_STEPS", "0"], "UPDATE_STEPS is 0"),
        (["TRAIN.MOT_DISCR.FEATURE_POOL", "attention"], "ATT.SIZE is 1024"),
        (["TRAIN.MOT_DISCR.FEATURE_POOL", "mean"], "FEATURE_POOL is 'mean'"),
        (["TRAIN.MOT_DISCR.OPTIM", "LBFGS"], "MOT_DISCR.OPTIM"),
        (["DATASET.FILES.amass_train", "none.pt"], r"D_MOTION_LOSS_W is 2.0 .*none\.pt does not exist"),
        (["DATASET.FILES.amass_train", "short.pt"], r"short\.pt gives no motion of 6 frames"),
    ],
)
def test_mistakes_are_explained(
    databases: Path, open_body: BodyData, tmp_path: Path, opts: list[str], message: str
) -> None:
    make_motion_database(databases / "short.pt", [5, 3], 0)
    cfg = tiny_config(databases, tmp_path, *adversarial(*opts))
    with pytest.raises(UserError, match=message):
        Trainer(cfg, build_model(cfg, open_body), open_body, CPU)


def test_another_discriminator_cannot_go_on(databases: Path, open_body: BodyData, tmp_path: Path) -> None:
    first = train(tiny_config(databases, tmp_path / "a", *adversarial(), "TRAIN.END_EPOCH", "1"), open_body)
    resume = ["TRAIN.RESUME", str(first.folder / "checkpoint.pth.tar")]
    for key, value, message in (
        ("HIDDEN_SIZE", "8", r"checkpoint\.pth\.tar does not fit .* TRAIN\.MOT_DISCR"),
        ("OPTIM", "SGD", r"optimiser state does not fit TRAIN\.MOT_DISCR\.OPTIM SGD"),
    ):
        cfg = tiny_config(databases, tmp_path / "b", *adversarial(*resume, f"TRAIN.MOT_DISCR.{key}", value))
        with pytest.raises(UserError, match=message):
            Trainer(cfg, build_model(cfg, open_body), open_body, CPU)

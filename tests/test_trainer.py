"""Training: the original's loss curve, logs and checkpoints, and runs that stop and go on."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from datetime import datetime, tzinfo
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch import nn
from torch.optim import SGD

from lib.commands import evaluate as evaluate_command
from lib.commands import train as train_command
from lib.core import distributed, learner, run_folder, training_checkpoint
from lib.core.build import build_model, load_model
from lib.core.config import dump_yaml, load_config
from lib.core.optimizer import build_optimizer
from lib.core.run_folder import create_run_folder, last_checkpoint
from lib.core.schedule import LearningRate, build_schedule
from lib.core.trainer import Trainer
from lib.models.body import OPEN_DATA, BodyData, load_body
from lib.models.smpl import SMPL
from lib.utils.errors import UserError
from lib.utils.files import load_checkpoint
from scripts import export_checkpoint
from tests.golden_tools import GOLDEN, fill_by_recipe, load_golden
from tests.trainer_tools import (
    CONFIGS,
    CPU,
    FEATURES,
    adversarial,
    logged,
    make_databases,
    tiny_config,
    train,
)

ROOT = Path(__file__).resolve().parents[1]

# ------------------------------------------------------------------------ against the original


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def golden_trainer(smpl_body: BodyData, tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    cfg = load_config(
        CONFIGS / "repr_table4_3dpw_model.yaml",
        [
            *("PATHS.PREPROCESSED", str(GOLDEN / "data"), "TRAIN.PRETRAINED_REGRESSOR", "''"),
            *("MODEL.TGRU.HIDDEN_SIZE", "64", "MODEL.REGRESSOR.DROPOUT", "0.0", "NUM_WORKERS", "0"),
            *("COMPAT.TRAIN_WINDOWS", "True", "COMPAT.FLOAT16_TARGETS", "True", "COMPAT.VALIDATION", "True"),
        ],
    )
    model = build_model(cfg, smpl_body)
    fill_by_recipe(model)
    trainer = Trainer(cfg, model, smpl_body, CPU)
    trainer.start_logging(tmp_path_factory.mktemp("golden_run"))
    return trainer


def golden_validation(when: str) -> dict[str, float]:
    values = json.loads((GOLDEN / "train" / "loss_curve.json").read_text())["trainer_eval"][
        f"{when}_3dpw_val"
    ]
    return {key.removeprefix("error/"): value for key, value in values.items() if "error/" in key}


def last_validation(trainer: Trainer) -> dict[str, float]:
    trainer.writer.flush()
    events = logged(trainer.folder)
    tags = [tag for tag in events.Tags()["scalars"] if tag.startswith("error/")]
    return {tag.removeprefix("error/"): events.Scalars(tag)[-1].value for tag in tags}


def test_training_follows_the_original(golden_trainer: Trainer) -> None:
    """Validation, ten steps on the same samples, validation: all numbers are the original's."""
    trainer = golden_trainer
    assert {kind: stream.batch_size for kind, stream in trainer.streams.items()} == {"2d": 19, "3d": 13}
    assert trainer.validate(0) == pytest.approx(227.964966, abs=0.05)
    assert last_validation(trainer) == pytest.approx(golden_validation("before"), abs=0.05)

    insta = trainer.datasets["2d"]
    sets_3d = trainer.datasets["3d"].datasets
    first = np.cumsum([0] + [len(dataset) for dataset in sets_3d])
    before = {key: value.clone() for key, value in trainer.model.state_dict().items()}
    indices = load_golden("train/batches")
    curve = json.loads((GOLDEN / "train" / "loss_curve.json").read_text())["curve"]
    trainer.model.train()
    for step, (index_2d, index_3d) in enumerate(zip(indices["index_2d"], indices["index_3d"])):
        batches = {
            "2d": insta.__getitems__(index_2d),
            "3d": trainer.datasets["3d"].__getitems__(first[index_3d[:, 0]] + index_3d[:, 1]),
        }
        terms = trainer.train_step(batches)
        expected = {key: values[step] for key, values in curve.items() if values[step] is not None}
        assert terms == pytest.approx(expected, rel=1e-4), f"step {step}"

    golden = load_golden("train/weights")
    for key, value in trainer.model.state_dict().items():
        if f"w10_delta_norm/{key}" in golden:
            delta = (value - before[key]).double().norm().item()
            assert delta == pytest.approx(float(golden[f"w10_delta_norm/{key}"]), rel=1e-3), key
    trainer.validate(1)
    assert last_validation(trainer) == pytest.approx(golden_validation("after"), abs=0.5)


# ------------------------------------------------------------------------ whole runs


@pytest.fixture(scope="module")
def databases(open_body: BodyData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("databases")
    make_databases(folder, open_body)
    return folder


def same(a: object, b: object) -> bool:
    """Equality of nested containers of tensors and plain values."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(value, b[key]) for key, value in a.items())
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b or (a != a and b != b)


@pytest.mark.parametrize("schedule", ["cosine", "plateau"])
def test_a_resumed_run_equals_an_uninterrupted_one(
    databases: Path, open_body: BodyData, tmp_path: Path, schedule: str
) -> None:
    opts = ["TRAIN.LR_SCHEDULE", schedule, "TRAIN.LR_PATIENCE", "0", "TRAIN.GEN_LR", "0.01"]
    whole = train(tiny_config(databases, tmp_path / "whole", *opts), open_body)

    class Interrupted(Exception):
        pass

    def stop_in_second_epoch(self: Trainer, batches):
        if self.place.step == 9:
            raise Interrupted
        return step(self, batches)

    step, cfg = Trainer.train_step, tiny_config(databases, tmp_path / "part", *opts)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(Trainer, "train_step", stop_in_second_epoch)
        train(cfg, open_body)
    resume = ["TRAIN.RESUME", str(Path(cfg.LOGDIR) / "checkpoint.pth.tar"), *opts, "SEED_VALUE", "99"]
    resumed = train(tiny_config(databases, tmp_path / "rest", *resume), open_body)

    a, b = (load_checkpoint(t.folder / "checkpoint.pth.tar") for t in (whole, resumed))
    assert a["epoch"] == 2
    assert a["step"] == 21
    for key in a.keys() - {"config", "training"}:
        assert same(a[key], b[key]), key
    best = [load_checkpoint(t.folder / "model_best.pth.tar")["performance"] for t in (whole, resumed)]
    assert best[0] == best[1] == a["best"] == float((resumed.folder / "best.txt").read_text())


class Stopped(Exception):
    """What a command would turn into exit status 143."""


@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_run_that_is_stopped_anywhere_goes_on_exactly(
    databases: Path, open_body: BodyData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: str
) -> None:
    """By signals inside an epoch, and by a failure of the validation."""
    opts = [
        *("TRAIN.LR_SCHEDULE", "plateau", "TRAIN.LR_PATIENCE", "0", "TRAIN.GEN_LR", "0.01"),
        *("MODEL.REGRESSOR.DROPOUT", "0.3", "NUM_WORKERS", workers, "TRAIN.RUN_LENGTH", "2"),
        *("LOSS.VELOCITY_W", "1.0", *adversarial()),
    ]
    whole = train(tiny_config(databases, tmp_path / "whole", *opts), open_body)

    def terminate(*_: object) -> None:
        raise Stopped

    handler = signal.signal(signal.SIGTERM, terminate)
    count_rows, validate = learner.count_rows, Trainer.validate
    try:
        for before, stop, number, ends in (
            (0, 3, signal.SIGTERM, Stopped),
            (3, 13, signal.SIGINT, KeyboardInterrupt),
        ):
            steps = iter(range(before + 1, 99))

            def interrupted(*targets, stop=stop, number=number, steps=steps):
                if next(steps) == stop:
                    signal.raise_signal(number)  # arrives in the middle of the step
                return count_rows(*targets)

            cfg = tiny_config(databases, tmp_path / "parts", *opts)
            cfg.TRAIN.RESUME = last_checkpoint(cfg)
            with monkeypatch.context() as patch, pytest.raises(ends):
                patch.setattr(learner, "count_rows", interrupted)
                train(cfg, open_body)
            checkpoint = load_checkpoint(Path(cfg.LOGDIR) / "checkpoint.pth.tar")
            assert (checkpoint["epoch"] + 1, checkpoint["iteration"]) == divmod(stop, 7)
            assert signal.getsignal(signal.SIGTERM) is terminate

        def failing_validation(self: Trainer, epoch: int) -> float:
            if epoch == 1:
                raise Stopped
            return validate(self, epoch)

        cfg.TRAIN.RESUME = last_checkpoint(cfg)
        with monkeypatch.context() as patch, pytest.raises(Stopped):
            patch.setattr(Trainer, "validate", failing_validation)
            train(cfg, open_body)
        assert load_checkpoint(Path(cfg.LOGDIR) / "checkpoint.pth.tar")["iteration"] == 7
    finally:
        signal.signal(signal.SIGTERM, handler)

    cfg.TRAIN.RESUME = last_checkpoint(cfg)
    resumed = train(cfg, open_body)
    a, b = (load_checkpoint(t.folder / "checkpoint.pth.tar") for t in (whole, resumed))
    for key in a.keys() - {"config", "training"}:
        assert same(a[key], b[key]), key
    best = [load_checkpoint(t.folder / "model_best.pth.tar") for t in (whole, resumed)]
    assert all(same(best[0][key], best[1][key]) for key in best[0].keys() - {"config", "training"})


def test_a_command_that_is_terminated_saves_and_goes_on(
    databases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opts = ["TRAIN.NUM_ITERS_PER_EPOCH", "100000", "TRAIN.SAVE_EVERY", "1e-9"]
    cfg = tiny_config(databases, tmp_path / "runs", *opts)
    (tmp_path / "c.yaml").write_text(dump_yaml(cfg))
    command = [sys.executable, "train.py", "--cfg", str(tmp_path / "c.yaml"), "--device", "cpu"]
    running = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    while not list(tmp_path.glob("runs/*/checkpoint.pth.tar")):
        with pytest.raises(subprocess.TimeoutExpired):  # it still runs
            running.wait(timeout=0.05)
    running.terminate()
    said = running.stderr.read()
    assert running.wait(timeout=60) in (143, -signal.SIGTERM)
    assert "saved as" in said and "Traceback" not in said
    (folder,) = (tmp_path / "runs").iterdir()
    stopped = load_checkpoint(folder / "checkpoint.pth.tar")
    assert stopped["epoch"] == -1 and stopped["iteration"] == stopped["step"] > 0
    iterations = str(stopped["iteration"] + 2)
    more = ["--opts", "TRAIN.RESUME", "auto", "TRAIN.NUM_ITERS_PER_EPOCH", iterations, "TRAIN.END_EPOCH", "1"]
    monkeypatch.setattr(sys, "argv", [*command[1:], *more])
    train_command.main()
    (second,) = set((tmp_path / "runs").iterdir()) - {folder}
    assert load_checkpoint(second / "checkpoint.pth.tar")["step"] == stopped["step"] + 2


@pytest.mark.parametrize(("every", "iterations"), [("0.0", [7, 0]), ("1e-9", [1, 2, 3, 4, 5, 6, 7, 7, 0])])
def test_checkpoints_are_written_inside_epochs(
    databases: Path,
    open_body: BodyData,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    every: str,
    iterations: list[int],
) -> None:
    saved = []
    monkeypatch.setattr(training_checkpoint, "save_checkpoint", lambda c, path: saved.append((path.name, c)))
    cfg = tiny_config(databases, tmp_path, "TRAIN.END_EPOCH", "1", "TRAIN.SAVE_EVERY", every)
    train(cfg, open_body)
    assert [c["iteration"] for name, c in saved if name == "checkpoint.pth.tar"] == iterations
    assert [name for name, _ in saved[-2:]] == ["model_best.pth.tar", "checkpoint.pth.tar"]


def test_auto_finds_the_newest_run_of_the_experiment(tmp_path: Path) -> None:
    cfg = tiny_config(tmp_path, tmp_path)
    assert last_checkpoint(cfg) == ""
    names = ["01-02-2026_10-00-00_open", "03-01-2026_10-00-00_open", "04-02-2026_10-00-00_my_open", "_open"]
    names.append("03-01-2026_10-00-00_open_1")  # of another experiment
    for age, name in enumerate(names):
        (tmp_path / name).mkdir()
        (tmp_path / name / "checkpoint.pth.tar").touch()
        os.utime(tmp_path / name / "checkpoint.pth.tar", (age, age))
    (tmp_path / "05-02-2026_10-00-00_open").mkdir()  # was killed before it could save
    assert last_checkpoint(cfg) == str(tmp_path / names[1] / "checkpoint.pth.tar")


def weights(trainer: Trainer) -> torch.Tensor:
    return nn.utils.parameters_to_vector(trainer.learner.parameters).detach().clone()


@pytest.mark.parametrize("clip", [0.0, 1e-3])
def test_gradients_are_clipped(databases: Path, open_body: BodyData, tmp_path: Path, clip: float) -> None:
    """By plain descent with rate 1 the weights move as far as the gradient is long."""
    opts = [
        "TRAIN.GEN_OPTIM",
        "sgd",
        "TRAIN.GEN_LR",
        "1.0",
        "TRAIN.GEN_MOMENTUM",
        "0.0",
        "TRAIN.GEN_WD",
        "0.0",
    ]
    opts += ["TRAIN.LR_SCHEDULE", "plateau", "TRAIN.WARMUP_ITERS", "0", "TRAIN.GRAD_CLIP", str(clip)]
    cfg = tiny_config(databases, tmp_path, *opts)
    trainer = Trainer(cfg, build_model(cfg, open_body), open_body, CPU)
    before = weights(trainer)
    trainer.train_step({kind: next(stream) for kind, stream in trainer.streams.items()})
    length = (weights(trainer) - before).norm().item()
    assert length == pytest.approx(clip, rel=1e-2) if clip else length > 0.1


def test_the_best_so_far_is_kept_by_a_resumed_run(
    databases: Path, open_body: BodyData, tmp_path: Path
) -> None:
    """Whatever the last epoch before was like, and if none after is better."""
    first = train(tiny_config(databases, tmp_path / "a", "TRAIN.END_EPOCH", "1"), open_body)
    stored = load_checkpoint(first.folder / "checkpoint.pth.tar")
    stored["best"], stored["performance"] = 0.25, 80.0
    (tmp_path / "b").mkdir()
    torch.save(stored, tmp_path / "b" / "checkpoint.pth.tar")
    (tmp_path / "b" / "model_best.pth.tar").write_bytes(b"the best")
    (tmp_path / "b" / "best.txt").write_text("0.25\n")
    resume = ["TRAIN.RESUME", str(tmp_path / "b" / "checkpoint.pth.tar"), "TRAIN.END_EPOCH", "2"]
    resumed = train(tiny_config(databases, tmp_path / "c", *resume), open_body)
    assert resumed.place.best == 0.25 < resumed.place.performance < 1000
    assert (resumed.folder / "model_best.pth.tar").read_bytes() == b"the best"
    assert (resumed.folder / "best.txt").read_text() == "0.25\n"


def test_every_epoch_trains_with_dropout(
    databases: Path, open_body: BodyData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Validation, which comes between, needs the network without."""
    modes, measured = [], []
    step, validate = Trainer.train_step, Trainer.validate

    def watched_step(self: Trainer, batches):
        modes.append({module.training for module in self.model.modules() if isinstance(module, nn.Dropout)})
        return step(self, batches)

    def watched_validation(self: Trainer, epoch: int) -> float:
        measured.append((validate(self, epoch), validate(self, epoch)))
        return measured[-1][0]

    monkeypatch.setattr(Trainer, "train_step", watched_step)
    monkeypatch.setattr(Trainer, "validate", watched_validation)
    train(tiny_config(databases, tmp_path, "MODEL.REGRESSOR.DROPOUT", "0.5"), open_body)
    assert modes == [{True}] * 21
    assert all(one == other for one, other in measured)


@pytest.mark.parametrize(("ratio", "sizes"), [("0.6", (4, 4)), ("0.7", (5, 3)), ("0.25", (2, 6))])
def test_the_2d_share_of_a_batch_is_rounded_down(
    databases: Path, open_body: BodyData, tmp_path: Path, ratio: str, sizes: tuple[int, int]
) -> None:
    cfg = tiny_config(databases, tmp_path, "TRAIN.DATA_2D_RATIO", ratio)
    streams = Trainer(cfg, build_model(cfg, open_body), open_body, CPU).streams
    assert (streams["2d"].batch_size, streams["3d"].batch_size) == sizes


def test_processes_differ_in_dropout_and_have_the_weights_of_the_first(
    databases: Path, open_body: BodyData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = []
    monkeypatch.setattr(distributed, "copy_from_main", sent.append)
    opts = ["MODEL.REGRESSOR.DROPOUT", "0.5", "TRAIN.GEN_LR", "0.0", *adversarial()]
    cfg = tiny_config(databases, tmp_path, *opts)
    trainer = Trainer(cfg, build_model(cfg, open_body), open_body, CPU)
    assert trainer.learner.adversary is not None
    assert sent == [trainer.model, trainer.learner.adversary.discriminator]
    trainer.learner.adversary = None
    batches = {kind: next(stream) for kind, stream in trainer.streams.items()}
    losses = {}
    for rank, step in [(1, 0), (2, 0), (1, 5), (1, 0), (0, 0), (0, 0)]:
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        trainer.place.step = step
        losses.setdefault((rank, step), []).append(trainer.train_step(batches)["loss"])
    again, *others = losses.values()
    assert again[0] == again[1]
    assert len({again[0], *(loss for some in others for loss in some)}) == 5


def test_auto_finds_runs_that_began_in_the_same_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stopped(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Stopped:
            return cls(2026, 2, 1, 10, tzinfo=tz)

    monkeypatch.setattr(run_folder, "datetime", Stopped)
    for name in ("open", "open_1", "open_1", "open", "1_open", "-1_open"):
        cfg = tiny_config(tmp_path, tmp_path, "EXP_NAME", name)
        for _ in range(3):
            checkpoint = create_run_folder(cfg) / "checkpoint.pth.tar"
            checkpoint.touch()
            os.utime(checkpoint, (len(list(tmp_path.iterdir())),) * 2)
            assert last_checkpoint(cfg) == str(checkpoint)


@pytest.mark.parametrize("schedule", ["plateau", "cosine"])
def test_settings_that_change_between_runs_are_applied(
    databases: Path, open_body: BodyData, tmp_path: Path, schedule: str
) -> None:
    opts = ["TRAIN.LR_SCHEDULE", schedule, "TRAIN.WARMUP_ITERS", "0", "TRAIN.GEN_LR", "0.01", *adversarial()]
    first = train(tiny_config(databases, tmp_path / "a", *opts, "TRAIN.END_EPOCH", "2"), open_body)
    stored = load_checkpoint(first.folder / "checkpoint.pth.tar")
    stored["gen_optimizer"]["param_groups"][0]["lr"] /= 10  # as if the plateau had been reached
    torch.save(stored, tmp_path / "c.pth.tar")
    changes = [
        *("TRAIN.GEN_LR", "0.004", "TRAIN.GEN_WD", "0.5", "TRAIN.LR_PATIENCE", "3"),
        *("TRAIN.MOT_DISCR.LR", "0.03", "TRAIN.MOT_DISCR.WD", "0.25"),
    ]
    cfg = tiny_config(databases, tmp_path / "b", *opts, "TRAIN.RESUME", str(tmp_path / "c.pth.tar"), *changes)
    resumed = Trainer(cfg, build_model(cfg, open_body), open_body, CPU)
    resumed.train_step({kind: next(stream) for kind, stream in resumed.streams.items()})
    learner = resumed.learner
    (group,), (other,) = learner.optimizer.param_groups, learner.adversary.optimizer.param_groups
    share = {"plateau": 0.1, "cosine": 0.25}[schedule]  # 14 of 21 iterations are done
    assert group["lr"] == pytest.approx(0.004 * share)
    assert other["lr"] == pytest.approx(0.03 * {"plateau": 1.0, "cosine": 0.25}[schedule])
    assert (group["weight_decay"], other["weight_decay"]) == (0.5, 0.25)
    if schedule == "plateau":
        assert resumed.learner.learning_rate.state_dict()["patience"] == 3
        assert resumed.learner.learning_rate.state_dict()["best"] == stored["scheduler"]["best"]


def test_whether_validation_is_possible_is_known_before_training(
    databases: Path, open_body: BodyData, tmp_path: Path
) -> None:
    cfg = tiny_config(databases, tmp_path, "DATASET.SEQLEN", "21", "COMPAT.STATIC_BORDERS", "True")
    with pytest.raises(
        UserError, match=r"open_val_db.pt can be evaluated: v0 \(20 frames\): .* fewer than 21"
    ):
        Trainer(cfg, build_model(cfg, open_body), open_body, CPU)


def test_weights_that_are_no_numbers_are_not_saved(
    databases: Path, open_body: BodyData, tmp_path: Path
) -> None:
    trainer = train(tiny_config(databases, tmp_path, "TRAIN.END_EPOCH", "1"), open_body)
    before = (trainer.folder / "checkpoint.pth.tar").read_bytes()
    trainer.model.encoder.linear_cur.bias.data[0] = math.inf
    with pytest.raises(UserError, match=r"encoder.linear_cur.bias holds numbers that are not finite"):
        trainer.save()
    assert (trainer.folder / "checkpoint.pth.tar").read_bytes() == before


def test_a_run_leaves_what_is_documented(databases: Path, open_body: BodyData, tmp_path: Path) -> None:
    cfg = tiny_config(databases, tmp_path, "TRAIN.END_EPOCH", "2")
    trainer = train(cfg, open_body)
    files = {path.name for path in trainer.folder.iterdir()}
    assert {"checkpoint.pth.tar", "model_best.pth.tar", "best.txt", "config.yaml"} <= files
    assert trainer.folder.name.endswith("_open")
    assert load_config(trainer.folder / "config.yaml") == cfg
    assert yaml.safe_load((trainer.folder / "config.yaml").read_text())["LOGDIR"] == str(trainer.folder)

    events = logged(trainer.folder)
    losses = {
        f"train_loss/{name}" for name in ("loss", "loss_kp_2d", "loss_kp_3d", "loss_shape", "loss_pose")
    }
    errors = {f"error/{name}" for name in ("mpjpe", "pa-mpjpe", "accel", "pve", "accel_err")}
    other = {"lr/gen_lr", "throughput/samples_per_second", "throughput/loading_share"}
    assert set(events.Tags()["scalars"]) == losses | errors | other
    assert [event.step for event in events.Scalars("train_loss/loss")] == list(range(14))
    assert [event.step for event in events.Scalars("error/pa-mpjpe")] == [0, 1]

    checkpoint = load_checkpoint(trainer.folder / "checkpoint.pth.tar")
    assert checkpoint["body"] == "open"
    assert checkpoint["loaders"] == {"2d": 2 * 7 * 4, "3d": 2 * 7 * 4}
    model, stored = load_model(trainer.folder / "checkpoint.pth.tar", None, open_body)
    assert same(model.state_dict(), trainer.model.state_dict())
    assert stored.MODEL.FEATURE_SIZE == FEATURES
    assert not model.training


def test_training_learns(databases: Path, open_body: BodyData, tmp_path: Path) -> None:
    opts = ["TRAIN.NUM_ITERS_PER_EPOCH", "40", "TRAIN.END_EPOCH", "1", "TRAIN.GEN_LR", "0.005"]
    trainer = train(tiny_config(databases, tmp_path, *opts, "TRAIN.DATASETS_2D", "[]"), open_body)
    loss = [event.value for event in logged(trainer.folder).Scalars("train_loss/loss")]
    assert np.mean(loss[-10:]) < 0.6 * np.mean(loss[:5])
    assert trainer.streams.keys() == {"3d"}


def test_2d_data_alone_is_enough(databases: Path, open_body: BodyData, tmp_path: Path) -> None:
    trainer = train(
        tiny_config(databases, tmp_path, "TRAIN.DATASETS_3D", "[]", "TRAIN.END_EPOCH", "1"), open_body
    )
    assert {tag for tag in logged(trainer.folder).Tags()["scalars"] if "train" in tag} == {
        "train_loss/loss",
        "train_loss/loss_kp_2d",
    }


def test_the_body_model_is_never_trained(databases: Path, open_body: BodyData, tmp_path: Path) -> None:
    trainer = train(
        tiny_config(databases, tmp_path, "TRAIN.GEN_WD", "0.1", "TRAIN.END_EPOCH", "1"), open_body
    )
    fresh = SMPL(open_body).state_dict()
    assert same(dict(trainer.model.regressor.smpl.state_dict()), dict(fresh))
    ours = {id(p) for group in trainer.learner.optimizer.param_groups for p in group["params"]}
    assert ours == {id(p) for n, p in trainer.model.named_parameters() if not n.startswith("regressor.smpl.")}


def test_a_loss_that_is_no_number_ends_training(databases: Path, open_body: BodyData, tmp_path: Path) -> None:
    cfg = tiny_config(databases, tmp_path)
    trainer = Trainer(cfg, build_model(cfg, open_body), open_body, CPU)
    trainer.place.step, trainer.model.encoder.linear_cur.bias.data[0] = 5, math.nan
    weights = {key: value.clone() for key, value in trainer.model.state_dict().items()}
    with pytest.raises(UserError, match=r"loss is nan .* at step 5"):
        trainer.train_step({kind: next(stream) for kind, stream in trainer.streams.items()})
    assert all(
        torch.equal(torch.nan_to_num(v), torch.nan_to_num(weights[k]))
        for k, v in trainer.model.state_dict().items()
    )


def test_the_original_optimiser_state_is_understood(
    databases: Path, open_body: BodyData, tmp_path: Path
) -> None:
    """Such checkpoints list the body model's parameters, and hold no schedule, step or random numbers."""
    first = train(tiny_config(databases, tmp_path / "a", "TRAIN.END_EPOCH", "1"), open_body)
    checkpoint = load_checkpoint(first.folder / "checkpoint.pth.tar")
    old = {key: checkpoint[key] for key in ("epoch", "gen_state_dict", "performance", "gen_optimizer")}
    count = len(first.learner.parameters)
    old["gen_optimizer"]["param_groups"][0]["params"] += [count, count + 1, count + 2]
    old["performance"] = np.float64(old["performance"])
    torch.save(old, tmp_path / "old.pth.tar")
    cfg = tiny_config(databases, tmp_path / "b", "TRAIN.RESUME", str(tmp_path / "old.pth.tar"))
    resumed = Trainer(cfg, build_model(cfg, open_body), open_body, CPU)
    assert (resumed.place.epoch, resumed.place.step, resumed.place.best) == (1, 7, old["performance"])
    assert same(
        resumed.learner.optimizer.state_dict()["state"], first.learner.optimizer.state_dict()["state"]
    )


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["TRAIN.DATASETS_2D", "[]", "TRAIN.DATASETS_3D", "[]"], "both empty"),
        (["TRAIN.DATA_2D_RATIO", "0.0"], "DATA_2D_RATIO"),
        (["TRAIN.LR_SCHEDULE", "'steps'"], "LR_SCHEDULE"),
        (["TRAIN.GEN_OPTIM", "'LBFGS'"], "GEN_OPTIM"),
        (["TRAIN.START_EPOCH", "3"], "START_EPOCH skips 3 epochs, and TRAIN.END_EPOCH is 3"),
        (
            ["TRAIN.PRETRAINED_REGRESSOR", "'none.pth.tar'"],
            "PRETRAINED_REGRESSOR none.pth.tar does not exist",
        ),
        (["TRAIN.RESUME", "'none.pth.tar'"], "none.pth.tar does not exist"),
        (["TRAIN.DATASET_EVAL", "'Insta'"], "Insta has no 3D to evaluate"),
        (["LOSS.VELOCITY_W", "5.0"], r"VELOCITY_W is 5.0 but TRAIN.RUN_LENGTH is 1"),
        (["TRAIN.RUN_LENGTH", "2", "TRAIN.OVERLAP", "False"], "RUN_LENGTH 2 needs a window for every frame"),
        (["TRAIN.RUN_LENGTH", "5"], r"RUN_LENGTH 5 gives batches of \{'2d': 0, '3d': 0\}"),
        (["TRAIN.RUN_LENGTH", "31", "TRAIN.BATCH_SIZE", "99"], "gives no run of TRAIN.RUN_LENGTH 31 windows"),
        (["MODEL.FEATURE_SIZE", "9"], r"features have shape \(8,\), expected \(9,\)"),
    ],
)
def test_mistakes_are_explained(
    databases: Path, open_body: BodyData, tmp_path: Path, opts: list[str], message: str
) -> None:
    cfg = tiny_config(databases, tmp_path, *opts)
    with pytest.raises(UserError, match=message):
        Trainer(cfg, build_model(cfg, open_body), open_body, CPU)


def test_a_refused_database_leaves_no_run_folder(
    databases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = tiny_config(databases, tmp_path / "runs", "DATASET.FILES.open_train", "none.pt")
    (tmp_path / "c.yaml").write_text(dump_yaml(cfg))
    monkeypatch.setattr(sys, "argv", ["train.py", "--cfg", str(tmp_path / "c.yaml"), "--device", "cpu"])
    with pytest.raises(UserError, match=r"none\.pt does not exist"):
        train_command.main()
    assert not (tmp_path / "runs").exists()


def test_the_weights_decide_the_body(
    databases: Path, base_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    """Where SMPL is installed too, the open network is trained, resumed and measured with the open body."""
    fresh = tiny_config(databases, tmp_path)
    regressor = build_model(fresh, load_body(OPEN_DATA)).regressor.state_dict()
    weights = {name: value for name, value in regressor.items() if not name.startswith("smpl.")}
    torch.save({"model": weights, "body": "open"}, tmp_path / "net.pth.tar")
    start = ["TRAIN.PRETRAINED_REGRESSOR", str(tmp_path / "net.pth.tar"), "PATHS.BASE_DATA", str(base_data)]

    def run(command, *opts: str, more: Sequence[str] = ()) -> Path:
        cfg = tiny_config(databases, tmp_path / "runs", *start, *opts)
        (tmp_path / "c.yaml").write_text(dump_yaml(cfg))
        argv = ["--cfg", str(tmp_path / "c.yaml"), "--device", "cpu", *more]
        monkeypatch.setattr(sys, "argv", ["command", *argv])
        command.main()
        return max((tmp_path / "runs").iterdir(), key=lambda path: path.stat().st_mtime_ns)

    first = run(train_command, "TRAIN.END_EPOCH", "1")
    assert load_checkpoint(first / "checkpoint.pth.tar")["body"] == "open"
    resume = ["TRAIN.RESUME", str(first / "checkpoint.pth.tar"), "TRAIN.PRETRAINED_REGRESSOR", ""]
    assert run(train_command, "TRAIN.END_EPOCH", "2", *resume) != first
    shutil.copy(databases / "open_val_db.pt", tmp_path / "open_test_db.pt")
    files = ["DATASET.FILES.open_test", str(tmp_path / "open_test_db.pt")]
    run(evaluate_command, *files, more=["--dataset", "open", "--checkpoint", str(first)])
    assert "the open body (not SMPL)" in capsys.readouterr().out


def test_a_run_folder_that_cannot_be_made_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="OUTPUT_DIR"):
        create_run_folder(tiny_config(tmp_path, tmp_path / "file"))


@pytest.mark.parametrize("half", [False, True])
def test_an_exported_checkpoint_predicts_the_same(
    databases: Path, open_body: BodyData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, half: bool
) -> None:
    trainer = train(tiny_config(databases, tmp_path, "TRAIN.END_EPOCH", "1"), open_body)
    target = tmp_path / "small.pth.tar"
    argv = ["export_checkpoint.py", str(trainer.folder / "checkpoint.pth.tar"), str(target)]
    monkeypatch.setattr(sys, "argv", [*argv, "--half"] if half else argv)
    export_checkpoint.main()
    exported = load_checkpoint(target)
    kept = {"gen_state_dict", "epoch", "performance", "config", "body", "fingerprint", "training"}
    assert set(exported) == kept
    assert 0 < exported["training"]["seconds"] < 600 and exported["training"]["device"].startswith("cpu")
    assert not any(key.startswith("regressor.smpl.") for key in exported["gen_state_dict"])
    assert target.stat().st_size < 0.1 * (trainer.folder / "checkpoint.pth.tar").stat().st_size
    model, _ = load_model(target, None, open_body)
    features = torch.randn(2, 6, FEATURES)
    with torch.no_grad():
        joints, expected = (m.eval()(features)[0][0]["kp_3d"] for m in (model, trainer.model))
    assert joints.dtype == torch.float32
    assert torch.allclose(joints, expected, atol=5e-3) if half else torch.equal(joints, expected)


# ------------------------------------------------------------------------ parts


def rates(kind: str, performances: list[float], **options: int) -> list[float]:
    """The learning rate of every iteration; one epoch is two iterations."""
    optimizer = SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = LearningRate(optimizer, kind, **{"patience": 5, "warmup": 0, "total": 100, **options})
    values = []
    for epoch, performance in enumerate(performances):
        for iteration in (2 * epoch, 2 * epoch + 1):
            schedule.before_iteration(iteration)
            values.append(schedule.value)
        schedule.after_epoch(performance)
    return values


def test_plateau_lowers_the_rate_after_six_bad_epochs() -> None:
    values = rates("plateau", [50.0, *[60.0] * 8])
    np.testing.assert_allclose(values, [1.0] * 14 + [0.1] * 4)


def test_cosine_falls_to_zero_and_warm_up_rises() -> None:
    values = rates("cosine", [50.0] * 10, total=20, warmup=4)
    np.testing.assert_allclose(values[:5], [0.25, 0.5, 0.75, 1.0, 1.0])
    np.testing.assert_allclose(values[12], 0.5)
    assert np.all(np.diff(values[4:]) < 0)
    assert values[-1] < 0.01
    np.testing.assert_allclose(rates("plateau", [50.0] * 3, warmup=4), [0.25, 0.5, 0.75, 1, 1, 1])


def test_the_schedule_ends_with_the_last_epoch(tmp_path: Path) -> None:
    cfg = tiny_config(tmp_path, tmp_path, "TRAIN.START_EPOCH", "1", "TRAIN.WARMUP_ITERS", "0")
    schedule = build_schedule(SGD([nn.Parameter(torch.zeros(1))], lr=1.0), cfg.TRAIN)
    values = []
    for iteration in range(14):  # two epochs of seven
        schedule.before_iteration(iteration)
        values.append(schedule.value)
    np.testing.assert_allclose(values, 0.5 + 0.5 * np.cos(np.pi * np.arange(14) / 14), atol=1e-12)


def test_optimisers_take_momentum_and_weight_decay() -> None:
    parameters = [nn.Parameter(torch.zeros(1))]
    group = build_optimizer("sgd", parameters, lr=5e-5, weight_decay=0.25, momentum=0.9).param_groups[0]
    assert (group["momentum"], group["weight_decay"], group["lr"]) == (0.9, 0.25, 5e-5)
    group = build_optimizer("Adam", parameters, lr=5e-5, weight_decay=0.25, momentum=0.9).param_groups[0]
    assert (group["weight_decay"], group["lr"]) == (0.25, 5e-5)

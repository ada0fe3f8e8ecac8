"""The examples, run as somebody does who has installed the package as ``tcmr``, and in a checkout."""

from __future__ import annotations

import json
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from lib.core.build import load_model
from lib.core.config import get_cfg_defaults, to_dict
from lib.core.loss import LOSS_TERMS, Compared
from lib.dataset.datasets import DATASETS
from lib.demo.models import load_models
from lib.demo.networks import DETECTORS
from lib.demo.reconstruct import reconstruct
from lib.demo.stages import Stages
from lib.models.body import BodyData
from lib.models.extractors import EXTRACTORS
from lib.models.tcmr import TCMR
from lib.models.temporal import ENCODERS
from lib.motion.camera import Camera
from lib.motion.exporters import EXPORTERS, export_scene
from lib.utils.errors import UserError
from lib.utils.files import load_checkpoint, save_checkpoint
from lib.utils.plugins import load_plugins
from tests.demo_tools import make_track
from tests.trainer_tools import logged

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
REGISTRIES = (DATASETS, DETECTORS, ENCODERS, EXPORTERS, EXTRACTORS, LOSS_TERMS)


@pytest.fixture
def plugins() -> Iterator[None]:
    """Whatever is registered in a test is forgotten after it."""
    before = [dict(registry) for registry in REGISTRIES]
    yield
    for registry, things in zip(REGISTRIES, before):
        for name in registry.keys() - things.keys():
            del registry[name]
    for name in [name for name in sys.modules if name.startswith("tcmr_plugin_")]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the run of an own encoder on an own dataset with an own loss term, and its evaluation."""
    folder = tmp_path_factory.mktemp("examples")
    (folder / "site").mkdir()
    (folder / "site" / "tcmr").symlink_to(ROOT / "lib")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["own_dataset.py", str(folder)])
        load_plugins([])
        runpy.run_path(str(EXAMPLES / "own_dataset.py"), run_name="__main__")
        del DATASETS["Mine"]

    own = [w for name in ("encoder", "dataset", "loss") for w in ("--plugin", EXAMPLES / f"own_{name}.py")]
    words = [*own, "--device", "cpu", "--cfg", ROOT / "configs" / "open.yaml", "--opts"]
    words += ["MODEL.TEMPORAL_TYPE", "convolution", "LOSS.EXTRA.limb_length", 10, "MODEL.FEATURE_SMOOTH", 0.0]
    words += ["TRAIN.DATASETS_3D", ["Mine"], "TRAIN.DATASET_EVAL", "Mine", "PATHS.PREPROCESSED", folder]
    words += ["TRAIN.END_EPOCH", 1, "TRAIN.NUM_ITERS_PER_EPOCH", 2, "TRAIN.BATCH_SIZE", 8]
    words += ["OUTPUT_DIR", "runs"]
    options = [str(word) for word in words]
    code = f"""
from pathlib import Path
from tcmr.commands import evaluate, train
train.main({options})
(made,) = Path("runs").iterdir()
evaluate.main(["--checkpoint", str(made), "--dataset", "mine", "--json", "mine.json", *{options}])
"""
    environment = {**os.environ, "PYTHONPATH": str(folder / "site"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return next((folder / "runs").iterdir())


def test_own_encoder_dataset_and_loss_are_trained_and_measured(run: Path) -> None:
    terms = [event.value for event in logged(run).Scalars("train_loss/limb_length")]
    assert len(terms) == 2 and all(0 < value < 1000 for value in terms)
    measured = json.loads((run.parents[1] / "mine.json").read_text())
    assert measured["benchmark"] == "mine test" and measured["num_poses"] == 40
    assert measured["protocol"]["frame_rate"] == {"fps": 50, "source": "our cameras"}
    assert measured["accel_err_m_s2"] == pytest.approx(measured["accel_err"] * 2.5)
    checkpoint = load_checkpoint(run / "checkpoint.pth.tar")
    assert "encoder.over_time.weight" in checkpoint["gen_state_dict"]


def test_its_checkpoint_needs_the_encoder_but_not_the_rest(run: Path, open_body: BodyData, plugins) -> None:
    path = run / "checkpoint.pth.tar"
    with pytest.raises(UserError, match=r"MODEL\.TEMPORAL_TYPE: there is no temporal encoder 'convolution'"):
        load_model(path, None, open_body)
    load_plugins([EXAMPLES / "own_encoder.py"])
    model, cfg = load_model(path, None, open_body)
    assert type(model.encoder).__name__ == "Convolution" and cfg.LOSS.EXTRA.limb_length == 10
    # Before it is built, whoever wrote it.
    cfg.MODEL.TGRU.HIDDEN_SIZE = 16_000
    checkpoint = load_checkpoint(path)
    checkpoint["config"]["MODEL"]["TGRU"]["HIDDEN_SIZE"] = 16_000
    save_checkpoint(checkpoint, run / "large.pth.tar")
    with pytest.raises(UserError, match=r"the number of weights of its encoder is 69\d{6}, its weights have"):
        load_model(run / "large.pth.tar", None, open_body)


def test_limb_lengths_are_compared(plugins) -> None:
    load_plugins([EXAMPLES / "own_loss.py"])
    true = torch.randn(3, 2, 49, 3)
    true[1, :, 25] = torch.nan  # an ankle: one limb of eight
    target = {"kp_2d": torch.zeros(3, 2, 49, 3), "theta": torch.zeros(3, 2, 85), "kp_3d": true}
    target |= {"w_3d": torch.tensor([[1.0, 1], [1, 1], [0, 0]]), "w_smpl": torch.zeros(3, 2)}
    counts = torch.tensor([10.0, 4, 0])
    pred = {"kp_3d": torch.cat([torch.zeros(2, 2, 49, 3), 2 * true]), "theta": torch.zeros(5, 2, 85)}
    part = Compared(pred, {"kp_2d": torch.zeros(2, 2, 49, 3)}, target, counts)
    limbs = [(0, 1), (1, 2), (3, 4), (4, 5), (6, 7), (7, 8), (9, 10), (10, 11)]
    squares = []
    for row, output, (start, end) in product(range(2), range(2), limbs):
        bone = true[row, output, 25 + start] - true[row, output, 25 + end]
        squares.append(0.0 if bone.isnan().any() else float(bone.norm()) ** 2)
    assert LOSS_TERMS["limb_length"](part).item() == pytest.approx(np.mean(squares), rel=1e-5)
    assert LOSS_TERMS["limb_length"](Compared(pred, part.target_2d, None, counts)) is None


def test_own_parts_of_the_demo(open_body: BodyData, tmp_path: Path, plugins) -> None:
    """With VIBE's encoder, so that there is no attention either."""
    load_plugins([EXAMPLES / "own_extractor.py"])
    cfg = get_cfg_defaults()
    cfg.DATASET.SEQLEN, cfg.COMPAT.STATIC_BORDERS = 16, False
    cfg.MODEL.EXTRACTOR, cfg.MODEL.TEMPORAL_TYPE, cfg.MODEL.FEATURE_SIZE = "raw_landmarks", "vibe", 99
    cfg.MODEL.TGRU.HIDDEN_SIZE, cfg.MODEL.REGRESSOR.HIDDEN_SIZE = 16, 32
    weights = TCMR(16, 1, 16, 99, 32, body=open_body, encoder="vibe").state_dict()
    checkpoint = {"gen_state_dict": weights, "config": to_dict(cfg), "body": "open"}
    save_checkpoint(checkpoint, tmp_path / "mine.pth.tar")
    models = load_models(tmp_path / "mine.pth.tar")
    assert models.extractor.fits and not models.extractor.needs_frames
    tracks = [make_track(1), make_track(2, n=7)]
    done: list[int] = []
    first, second = models.extractor([], tracks, done.append)
    assert (first.values.shape, second.values.shape, done) == ((30, 99), (7, 99), [30, 7])
    np.testing.assert_array_equal(first.values[3].reshape(33, 3), tracks[0].world[3])
    np.testing.assert_array_equal(second.bboxes, tracks[1].bboxes)
    scene = reconstruct(
        models, [], tracks, camera=Camera(160, 120, 200.0), fps=30.0, n_frames=30, stages=Stages(), fit=False
    )
    assert [motion.attention.any() for motion in scene.people] == [False, False]

    (snippet,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "plugins.md").read_text(), re.DOTALL)
    (tmp_path / "plugin.py").write_text(snippet)
    load_plugins([tmp_path / "plugin.py"])
    (path,) = export_scene(scene, models.body, tmp_path, ["csv"])
    np.testing.assert_allclose(np.loadtxt(path, delimiter=",")[:30], scene.people[0].world.transl, rtol=1e-5)
    assert "mine" in DETECTORS

"""Training samples and the training step at the published size and batch: 19 samples with 2D, 13 with 3D."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import h5py
import numpy as np
import torch

from benchmarks import naive
from benchmarks.case import Case
from benchmarks.prediction import FEATURES, SEQLEN, network
from lib.core.loss import TCMRLoss
from lib.core.optimizer import build_optimizer
from lib.dataset.database import open_database
from lib.dataset.datasets import DATASETS
from lib.dataset.loaders import BatchStream
from lib.dataset.training import WindowDataset, required_fields
from lib.models.precision import Precision, cpu_has_bf16
from lib.utils.files import dump_joblib

BATCH, WITH_2D = 32, 19
FRAMES = 4000
LEARNING_RATE = 5e-5
WEIGHTS = (300, 300, 60, 0.06)  # of the losses: 2D, 3D, pose, shape
JOINTS = {"common": 14, "insta": 25, "spin": 49}


# ------------------------------------------------------------------------ samples


@cache
def database_file(name: str) -> Path:
    """A database in a dataset's layout, filled with random numbers."""
    spec, random = DATASETS[name], np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return random.standard_normal((FRAMES, *shape), dtype=np.float32)

    fields = {
        "vid_name": np.repeat([f"video{i}" for i in range(4)], FRAMES // 4),
        "features": normal(FEATURES),
        "joints2D": normal(JOINTS[spec.joints2d], 3) * 50 + 100,
        "bbox": np.abs(normal(4)) * 10 + 200,
        "joints3D": normal(49, 3),
        "pose": normal(72) * 0.3,
        "shape": normal(10),
    }
    folder = Path(tempfile.mkdtemp())
    if not spec.crop_pixels:
        dump_joblib({field: fields[field] for field in required_fields(spec)}, folder / "db.pt")
        return folder / "db.pt"
    with h5py.File(folder / "db.h5", "w") as file:
        for field in required_fields(spec):
            values = fields[field]
            file[field] = values.astype("S") if field == "vid_name" else values
    return folder / "db.h5"


def naive_samples(name: str, count: int) -> list[dict[str, torch.Tensor]]:
    """Windows drawn at random and collated, one sample after the other."""
    spec, path = DATASETS[name], database_file(name)
    loaded = {} if path.suffix == ".h5" else {key: np.array(v) for key, v in _opened(name).items()}
    starts = np.random.default_rng(0).permutation(FRAMES // 4 - SEQLEN)[:count]
    batches = []
    for first in range(0, count, BATCH):
        samples = []
        for start in starts[first : first + BATCH]:
            window = list(range(start, start + SEQLEN))
            if path.suffix != ".h5":
                samples.append(naive.sample(loaded, window, spec))
                continue
            with h5py.File(path, "r") as file:  # opened anew for every sample
                samples.append(naive.sample(dict(file), window, spec))
        batches.append(torch.utils.data.default_collate(samples))
    return batches


@cache
def _opened(name: str) -> dict[str, np.ndarray]:
    return open_database(database_file(name), required_fields(DATASETS[name]))


def fast_samples(name: str, count: int) -> list[dict[str, torch.Tensor]]:
    """As many samples from the stream that training reads, without worker processes."""
    stream = BatchStream(WindowDataset(DATASETS[name], _opened(name), SEQLEN), BATCH, seed=0)
    return [next(stream) for _ in range(count // BATCH)]


def sample_cases(quick: bool) -> list[Case]:
    count, plain = (640, 96) if quick else (6400, 320)
    return [
        Case(f"samples, {name}", "samples", count, partial(naive_samples, name, plain),
             partial(fast_samples, name, count), plain)
        for name in ("ThreeDPW", "MPII3D", "Human36M", "Insta")
    ]  # fmt: skip


# ------------------------------------------------------------------------ the step


def batches(device: torch.device) -> list[dict[str, torch.Tensor]]:
    """A batch of 2D samples and one of 3D samples, of random numbers."""
    generator, found = torch.Generator().manual_seed(0), []
    for count in (WITH_2D, BATCH - WITH_2D):
        batch = {"features": torch.randn(count, SEQLEN, FEATURES, generator=generator)}
        batch["kp_2d"] = torch.rand(count, 3, 49, 3, generator=generator)
        found.append(batch)
    count = BATCH - WITH_2D
    found[1]["kp_3d"] = torch.rand(count, 3, 49, 3, generator=generator)
    found[1]["theta"] = 0.1 * torch.randn(count, 3, 85, generator=generator)
    found[1] |= {"w_3d": torch.ones(count, 3), "w_smpl": torch.ones(count, 3)}
    return [{key: values.to(device) for key, values in batch.items()} for batch in found]


def naive_step(device: torch.device) -> Callable[[], float]:
    model = copy.deepcopy(network(device)).train()
    return partial(
        naive.train_step,
        model,
        TCMRLoss(300, 300, 60, 0.06),
        naive.adam(model, LEARNING_RATE),
        batches(device),
    )


def fast_step(device: torch.device, precision: Precision) -> Callable[[], float]:
    """What :meth:`lib.core.learner.Learner.step` does."""
    model, loss, targets = (
        copy.deepcopy(network(device)).train(),
        TCMRLoss(300, 300, 60, 0.06),
        batches(device),
    )
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = build_optimizer("Adam", parameters, lr=LEARNING_RATE, weight_decay=0, momentum=0)

    def step() -> float:
        features = torch.cat([batch["features"] for batch in targets])
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            predictions, _ = model(features, is_train=True, return_verts=False)
        total, _ = loss(predictions, *targets)
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        optimizer.step()
        return total.item()

    return step


def step_cases(device: torch.device) -> list[Case]:
    reduced = device.type == "cuda" or cpu_has_bf16()
    precisions: list[Precision] = ["fp32", "bf16"] if reduced else ["fp32"]
    plain = naive_step(device)
    return [
        Case(f"training step of {BATCH}, {precision}", "steps", 1, plain, fast_step(device, precision))
        for precision in precisions
    ]


def cases(device: torch.device, quick: bool) -> list[Case]:
    return sample_cases(quick) + step_cases(device)

"""Prediction of a sequence, and its scaling, at the published size: hidden 1024, 2 layers, window 16."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import cache, partial

import numpy as np
import torch

from benchmarks import naive
from benchmarks.case import Case, rate
from lib.models.body import load_body
from lib.models.inference import PreparedTCMR
from lib.models.precision import Precision, cpu_has_bf16
from lib.models.predict import predict_sequence
from lib.models.tcmr import TCMR

SEQLEN, HIDDEN, LAYERS, FEATURES = 16, 1024, 2, 2048
NAIVE_FRAMES = 64
Scaling = dict[str, dict[str, Sequence[tuple[float, float]]]]  # title -> curve -> points


@cache
def network(device: torch.device) -> TCMR:
    """A network of the published size with random weights: speed does not depend on them."""
    torch.manual_seed(0)
    return TCMR(SEQLEN, LAYERS, HIDDEN, FEATURES, body=load_body()).to(device).eval()


@cache
def sequence(frames: int) -> np.ndarray:
    """Features that change slowly over time, as those of a video do."""
    random = np.random.default_rng(0)
    walk = np.cumsum(random.standard_normal((frames, FEATURES), dtype=np.float32), axis=0) * 0.1
    return np.abs(random.standard_normal(FEATURES, dtype=np.float32) + np.sin(walk))


def cases(device: torch.device, quick: bool) -> list[Case]:
    frames = 256 if quick else 1024
    model = network(device)
    regressor = torch.from_numpy(load_body().J_regressor_h36m).to(device)
    windows = naive.static_windows(frames)[16 : 16 + NAIVE_FRAMES]
    plain = partial(naive.predict, model, sequence(frames), windows, regressor)

    def fast(precision: Precision, meshes: bool) -> Callable[[], object]:
        prepared = PreparedTCMR(model, precision)
        return partial(
            predict_sequence, prepared, sequence(frames), J_regressor=regressor, return_verts=meshes
        )

    precisions: list[Precision] = ["fp32"]
    if device.type == "cuda":
        precisions += ["tf32", "bf16", "fp16"]
    elif cpu_has_bf16():
        precisions += ["bf16"]
    found = []
    for precision in precisions:
        for meshes in (False, True):
            name = f"prediction, {'meshes' if meshes else 'joints'}, {precision}"
            found.append(Case(name, "frames", frames, plain, fast(precision, meshes), NAIVE_FRAMES))
    return found + _body_cases(device)


def _body_cases(device: torch.device) -> list[Case]:
    smpl, count = network(device).regressor.smpl, 256
    generator = torch.Generator().manual_seed(0)
    betas = torch.randn(count, 10, generator=generator).to(device)
    matrices = torch.linalg.qr(torch.randn(count, 24, 3, 3, generator=generator))[0]
    rotmat = (matrices * torch.linalg.det(matrices)[..., None, None]).to(device)
    plain = torch.no_grad()(partial(naive.mesh, smpl, betas, rotmat))
    joints = torch.no_grad()(partial(smpl.joints, betas, rotmat))
    mesh = torch.no_grad()(partial(smpl.forward, betas, rotmat[:, 1:], rotmat[:, :1], pose2rot=False))
    return [
        Case("body model, joints", "poses", count, plain, joints),
        Case("body model, meshes", "poses", count, plain, mesh),
    ]


def scaling(device: torch.device, quick: bool) -> Scaling:
    """Seconds or rates by size, for a plot."""
    model, prepared = network(device), PreparedTCMR(network(device))
    lengths = [16, 64, 256] if quick else [16, 64, 256, 1024, 4096]

    def predict(frames: int, batch_size: int | None = None) -> None:
        predict_sequence(prepared, sequence(4096)[:frames], return_verts=False, batch_size=batch_size)

    def predict_people(people: int) -> None:
        for _ in range(people):
            predict(100)

    def plain(frames: int) -> None:
        naive.predict(model, sequence(4096), naive.static_windows(4096)[8 : 8 + frames])

    predict(64)
    by_length = [(n, _seconds(partial(predict, n))) for n in lengths]
    naive_by_length = [(n, _seconds(partial(plain, n))) for n in lengths if n <= 256]
    people = [1, 2, 4, 8]
    by_people = [(n, _seconds(partial(predict_people, n))) for n in people]
    by_batch = []
    for size in (1, 4, 16, 64, 256, 512):
        frames = max(2 * size, 2 * SEQLEN)
        by_batch.append((size, rate(partial(predict, frames, batch_size=size), frames)))
    before, by_threads, naive_by_threads = torch.get_num_threads(), [], []
    for threads in range(1, before + 1):
        torch.set_num_threads(threads)
        by_threads.append((threads, rate(partial(predict, 256), 256)))
        naive_by_threads.append((threads, rate(partial(plain, 32), 32)))
    torch.set_num_threads(before)
    return {
        "frames of a video: seconds": {"ours": by_length, "naive": naive_by_length},
        "people of 100 frames: seconds": {"ours": by_people},
        "frames at once: frames/s": {"ours": by_batch},
        "threads: frames/s": {"ours": by_threads, "naive": naive_by_threads},
    }


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start

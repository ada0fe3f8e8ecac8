"""Fixtures shared by all tests."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

# Threads that wait by spinning make small tensor operations many times slower on a busy machine. OpenMP reads
# this when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Of the tests, and of the commands that they run: where there is a process for every core, one each.
os.environ.setdefault("OMP_NUM_THREADS", "1" if "PYTEST_XDIST_WORKER" in os.environ else "2")

import pytest
import torch
from hypothesis import settings

from lib.models.body import BodyData, load_body
from lib.models.tcmr import TCMR
from tests.golden_tools import fill_by_recipe, write_base_data

if TYPE_CHECKING:
    from lib.demo.models import Models

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # so a shell starts what runs in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)
settings.register_profile("suite", deadline=None, derandomize=True)  # the same on a machine that is busy
settings.load_profile("suite")


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """For models so small that they run slower on two threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def base_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ``data/base_data`` folder in the official layout, filled with synthetic arrays."""
    folder = tmp_path_factory.mktemp("base_data")
    write_base_data(folder)
    return folder


@pytest.fixture(scope="session")
def smpl_body(base_data: Path) -> BodyData:
    """The neutral body of :func:`base_data`, of kind ``smpl``."""
    return load_body(base_data)


@pytest.fixture(scope="module")
def model(smpl_body: BodyData) -> TCMR:
    """A small TCMR on :func:`smpl_body`, with the weights that recorded outputs were made with."""
    model = TCMR(16, 2, 64, body=smpl_body).eval()
    fill_by_recipe(model)
    return model


@pytest.fixture(scope="session")
def open_body(tmp_path_factory: pytest.TempPathFactory) -> BodyData:
    """The body that ships with the project."""
    repository = Path(__file__).resolve().parents[1]
    return load_body(tmp_path_factory.mktemp("no_base_data"), open_dir=repository / "data" / "open")


@pytest.fixture(scope="session")
def open_dir(tmp_path_factory: pytest.TempPathFactory, open_body: BodyData) -> Path:
    """An open data folder with small networks of random weights."""
    from tests.demo_tools import write_open_dir

    folder = tmp_path_factory.mktemp("open")
    write_open_dir(folder, open_body)
    return folder


@pytest.fixture(scope="module")
def open_models(open_dir: Path) -> Models:
    """What :func:`open_dir` holds, loaded."""
    from lib.demo.models import load_models

    return load_models(open_dir / "tcmr_open.pth.tar", open_dir=open_dir)

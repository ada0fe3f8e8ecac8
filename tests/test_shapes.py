"""The check of shapes finds a wrong one, in arguments and in results, and passes what is true."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import jaxtyping
import numpy as np
import pytest
import torch

from tests import shapes

PLANTED = """
from __future__ import annotations
from dataclasses import dataclass
from typing import Literal
import numpy as np
from jaxtyping import Float, Int
from torch import Tensor, nn


def centred(points: Float[np.ndarray, "n 3"], kind: Literal["mean"] = "mean") -> Float[np.ndarray, "n 3"]:
    return points - points.mean(0)


def summed(points: Float[Tensor, "*batch j 3"]) -> Float[Tensor, "*batch 3"]:
    return points.sum(0)


def counted(frames: Int[np.ndarray, " n"] | None, n: int) -> int:
    return n


@dataclass(frozen=True)
class Placed:
    rotmat: Float[np.ndarray, "t 24 3 3"]
    transl: Float[np.ndarray, "t 3"]


class Layer(nn.Module):
    def forward(self, x: Float[Tensor, "n f"]) -> Float[Tensor, " n"]:
        return x.sum(1)
"""


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    (tmp_path / "planted_shapes.py").write_text(PLANTED)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "planted_shapes", raising=False)
    with jaxtyping.install_import_hook("planted_shapes", "tests.shapes.checked"):
        return importlib.import_module("planted_shapes")


def test_true_shapes_pass(planted: ModuleType) -> None:
    for dtype in (np.float16, np.float32, np.float64):
        assert planted.centred(np.zeros((4, 3), dtype), "anything").shape == (4, 3)
    assert planted.summed(torch.zeros(5, 3)).shape == (3,)
    assert planted.counted(None, "not checked") == "not checked"
    assert planted.Layer()(torch.zeros(2, 7)).shape == (2,)
    planted.Placed(np.zeros((2, 24, 3, 3)), np.zeros((2, 3)))
    assert {"planted_shapes.centred", "planted_shapes.Layer.forward"} <= shapes.seen


def test_wrong_shapes_are_found(planted: ModuleType) -> None:
    for call in (
        lambda: planted.centred(np.zeros((4, 2))),
        lambda: planted.centred(np.zeros((4, 3), int)),
        lambda: planted.centred(torch.zeros(4, 3)),
        lambda: planted.summed(torch.zeros(2, 5, 3)),  # of the result: it sums over the first axis
        lambda: planted.counted(np.zeros(3), 3),
        lambda: planted.Placed(np.zeros((2, 24, 3, 3)), np.zeros((3, 3))),
        lambda: planted.Layer()(torch.zeros(2, 7, 1)),
    ):
        with pytest.raises(jaxtyping.TypeCheckError):
            call()

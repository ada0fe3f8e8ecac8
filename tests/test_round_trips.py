"""What is written comes back: checkpoints as PyTorch itself reads them, scenes field by field."""

from __future__ import annotations

import tempfile
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lib.models.body import BodyData
from lib.motion.camera import Camera
from lib.motion.motion import Motion, Placed, Scene
from lib.motion.scene_file import load_scene, save_scene, scene_mark
from lib.utils.errors import UserError
from lib.utils.files import load_checkpoint, save_checkpoint
from tests.export_tools import make_scene

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16,
          torch.int8, torch.uint8, torch.bool)  # fmt: skip


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    """Of any kind; some are views that begin later or run the other way."""
    shape = draw(st.lists(st.integers(0, 4), max_size=3))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 999)))
    values = torch.randint(-100, 100, shape, generator=generator).to(draw(st.sampled_from(DTYPES)))
    view = draw(st.sampled_from(["whole", "transposed", "later", "expanded"]))
    if view == "transposed":
        return values.T if values.ndim == 2 else values
    if view == "later":
        return values[1:] if values.numel() and values.ndim and len(values) > 1 else values
    return values.expand(3, *values.shape) if view == "expanded" else values


plain = st.one_of(
    st.integers(-(2**70), 2**70), st.floats(allow_nan=False), st.text(), st.booleans(), st.none()
)
contents = st.dictionaries(
    st.text(st.characters(codec="ascii", categories=["Ll"]), min_size=3).map("own_".__add__),
    st.recursive(
        plain | tensors(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3) |
        st.tuples(inner, inner),
        max_leaves=5,
    ),
    max_size=4,
)  # fmt: skip


def assert_equal(found: Any, expected: Any) -> None:
    assert type(found) is type(expected)
    if isinstance(expected, Tensor):
        assert found.dtype == expected.dtype and found.shape == expected.shape
        assert torch.equal(found, expected)
    elif isinstance(expected, dict):
        assert list(found) == list(expected)
        assert_equal(list(found.values()), list(expected.values()))
    elif isinstance(expected, (list, tuple)):
        assert len(found) == len(expected)
        for pair in zip(found, expected):
            assert_equal(*pair)
    else:
        assert found == expected


@pytest.mark.parametrize("old", [False, True])
@settings(max_examples=25)
@given(content=contents, shared=tensors())
def test_checkpoints_are_read_as_pytorch_reads_them(
    old: bool, content: dict[str, Any], shared: Tensor
) -> None:
    """Ours and, as PyTorch wrote them before 1.6, with numbers that two tensors share."""
    content = {**content, "one": shared, "same": shared}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "some.pth.tar"
        if old:
            torch.save(content, path, _use_new_zipfile_serialization=False)
        else:
            save_checkpoint(content, path, Path(folder) / "copy.pth.tar")
            assert_equal(load_checkpoint(Path(folder) / "copy.pth.tar"), content)
        found = load_checkpoint(path)
        assert_equal(found, content)
        assert_equal(found, torch.load(path, weights_only=True))
        assert found["one"].untyped_storage().data_ptr() == found["same"].untyped_storage().data_ptr()


def test_weights_lose_the_names_of_wrappers_and_nothing_else(tmp_path: Path) -> None:
    weights = {"encoder.a": torch.ones(2), "b": torch.zeros(1)}
    wrapped = {f"module._orig_mod.{name}": value for name, value in weights.items()}
    save_checkpoint({"gen_state_dict": wrapped, "epoch": np.int64(3)}, tmp_path / "x.pth.tar")
    found = load_checkpoint(tmp_path / "x.pth.tar")
    assert_equal(found, {"gen_state_dict": weights, "epoch": 3})
    mixed = {"module.a": torch.ones(2), "b": torch.zeros(1)}
    save_checkpoint({"gen_state_dict": mixed}, tmp_path / "x.pth.tar")
    assert_equal(load_checkpoint(tmp_path / "x.pth.tar"), {"gen_state_dict": mixed})


def test_counts_are_whole_numbers_that_a_float_holds(tmp_path: Path) -> None:
    save_checkpoint({"step": 2**53 - 1, "epoch": -1}, tmp_path / "x.pth.tar")
    assert load_checkpoint(tmp_path / "x.pth.tar") == {"step": 2**53 - 1, "epoch": -1}
    for wrong in (2**53, -1, 1.0, True, "1"):
        save_checkpoint({"step": wrong}, tmp_path / "x.pth.tar")
        with pytest.raises(UserError, match="step is not what training writes"):
            load_checkpoint(tmp_path / "x.pth.tar")


def assert_same(found: Any, expected: Any) -> None:
    """Dataclasses field by field, arrays bit by bit."""
    for field in fields(expected):
        ours, theirs = getattr(found, field.name), getattr(expected, field.name)
        if isinstance(theirs, (Placed, Motion, Camera)):
            assert_same(ours, theirs)
        elif isinstance(theirs, np.ndarray):
            assert ours.dtype == theirs.dtype, field.name
            np.testing.assert_array_equal(ours, theirs, err_msg=field.name)
        elif field.name != "people":
            assert ours == theirs, field.name


@pytest.mark.parametrize("moves", [False, True])
def test_scenes_come_back(open_body: BodyData, tmp_path: Path, moves: bool) -> None:
    scene: Scene = replace(make_scene(open_body), camera_moves=moves, feet_locked=moves, name="Tänzer/1")
    save_scene(scene, tmp_path / "scene.npz", mark="made by a test")
    found = load_scene(tmp_path / "scene.npz")
    assert scene_mark(tmp_path / "scene.npz") == "made by a test"
    assert_same(found, scene)
    assert len(found.people) == len(scene.people)
    for ours, theirs in zip(found.people, scene.people):
        assert_same(ours, theirs)

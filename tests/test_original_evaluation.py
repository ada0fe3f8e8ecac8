"""What the original counts and measures, on its own databases and odd ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from lib.core import evaluator
from lib.core.evaluation_set import EvaluationSet
from lib.core.evaluator import evaluate
from lib.dataset.datasets import get_spec
from lib.models.body import BodyData
from lib.models.tcmr import TCMR
from lib.utils import metrics
from lib.utils.files import dump_joblib, load_joblib
from lib.utils.smoothing import slerp_filter
from tests.golden_tools import GOLDEN, load_golden
from tests.original_tools import AS_ORIGINAL, T4_3DPW, T4_OTHER, T6_H36M, config

pytestmark = pytest.mark.usefixtures("one_thread")


def changed(tmp_path: Path, name: str, change: Any) -> list[str]:
    """Options that use a changed copy of a golden database."""
    database = {key: np.array(values) for key, values in load_joblib(GOLDEN / "data" / name).items()}
    change(database)
    dump_joblib(database, tmp_path / name)
    return ["PATHS.PREPROCESSED", str(tmp_path)]


def measure(
    model: TCMR,
    body: BodyData,
    dataset: str,
    *opts: str,
    title: str = "",
    part: str = "",
    smooth: bool = False,
):
    title = title or {"3dpw": T4_3DPW}.get(dataset, T4_OTHER)
    data = EvaluationSet(get_spec(dataset), "test", config(title, *opts), name_part=part)
    return evaluate(model, data, body, smooth=smooth)


def test_a_moved_prediction_changes_the_vertex_error_only(
    model: TCMR, smpl_body: BodyData, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = "downtown_walk_00_1"
    before = measure(model, smpl_body, "3dpw", part=part).summary()
    predictions = evaluator.iter_predictions

    def moved(*args: Any, **kwargs: Any) -> Iterator[tuple[slice, dict[str, torch.Tensor]]]:
        for frames, output in predictions(*args, **kwargs):
            offset = torch.tensor([0.3, -0.1, 0.2])
            yield frames, {**output, **{name: output[name] + offset for name in ("kp_3d", "verts")}}

    monkeypatch.setattr(evaluator, "iter_predictions", moved)
    after = measure(model, smpl_body, "3dpw", part=part).summary()
    assert abs(after.pop("mpvpe") - before.pop("mpvpe")) > 10
    assert after == pytest.approx(before, abs=1e-3)


@pytest.mark.parametrize(
    ("video", "length", "invalid", "poses", "accelerations"),
    [
        ("downtown_walk_00_2", 15, [], 0, 0),
        ("downtown_walk_00_2", 16, [], 16, 14),
        ("downtown_walk_00_6", 25, [5], 24, 22),
        ("downtown_walk_00_6", 25, range(10), 0, 0),
    ],
)
def test_counts_of_3dpw(
    model: TCMR,
    smpl_body: BodyData,
    tmp_path: Path,
    video: str,
    length: int,
    invalid: Any,
    poses: int,
    accelerations: int,
) -> None:
    def cut(database: dict[str, np.ndarray]) -> None:
        rows = np.flatnonzero(database["vid_name"] == video)[:length]
        rows = np.r_[np.flatnonzero(database["vid_name"] == "downtown_walk_00_1"), rows]
        database.update({key: values[rows] for key, values in database.items()})
        database["valid"][:] = 1
        database["valid"][17 + np.array(invalid, int)] = 0

    evaluation = measure(model, smpl_body, "3dpw", *changed(tmp_path, "3dpw_test_db.pt", cut))
    counts = {s.name: (len(s.mpjpe), len(s.accel_err)) for s in evaluation.sequences}
    assert counts.get(video, (0, 0)) == (poses, accelerations)
    assert counts["downtown_walk_00_1"] == (17, 15)
    assert [name for name, _, _ in evaluation.skipped] == ([video] if not poses else [])


def test_counts_of_mpii3d(model: TCMR, smpl_body: BodyData, tmp_path: Path) -> None:
    """Invalid frames do not count, but their neighbours' accelerations see them."""

    def invalidate(database: dict[str, np.ndarray]) -> None:
        database["valid_i"][:] = 1
        database["valid_i"][np.flatnonzero(database["vid_name"] == "subj1_seg4")[5]] = 0

    evaluation = measure(
        model,
        smpl_body,
        "mpii3d",
        *changed(tmp_path, "mpii3d_val_scale12_db.pt", invalidate),
        part="subj1_seg4",
    )
    (sequence,) = evaluation.sequences
    assert (len(sequence.mpjpe), len(sequence.accel_err)) == (24, 22)
    own = metrics.accel_error(sequence.pred, sequence.target)  # of frames 1 to 23
    np.testing.assert_allclose(sequence.accel_err, np.delete(own, 4))


def invalidate_a_video(database: dict[str, np.ndarray]) -> None:
    database["valid"][database["vid_name"] == "downtown_walk_00_0"] = 0


def keep_one_video(database: dict[str, np.ndarray]) -> None:
    rows = database["vid_name"] == "downtown_walk_00_2"
    database.update({key: values[rows] for key, values in database.items()})


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (keep_one_video, (394.55518, 235.52448, 49.31448745727539, 328.23834)),
    ],
)
def test_odd_databases_equal_the_original(
    model: TCMR, smpl_body: BodyData, tmp_path: Path, change: Any, expected: tuple[float, ...]
) -> None:
    summary = measure(model, smpl_body, "3dpw", *changed(tmp_path, "3dpw_test_db.pt", change)).summary()
    keys = ("mpjpe", "mpjpe_pa", "accel_err", "mpvpe")
    assert [summary[key] for key in keys] == pytest.approx(expected, abs=0.005)


def test_a_video_without_valid_frame_is_skipped(model: TCMR, smpl_body: BodyData, tmp_path: Path) -> None:
    opts = changed(tmp_path, "3dpw_test_db.pt", invalidate_a_video)
    evaluation = measure(model, smpl_body, "3dpw", *opts)
    assert ("downtown_walk_00_0", 40, "0 valid frames, fewer than 16") in evaluation.skipped
    everything = measure(model, smpl_body, "3dpw")
    rest = [s for s in everything.sequences if s.name != "downtown_walk_00_0"]
    mean = np.concatenate([s.mpjpe for s in rest]).mean() * 1000
    assert evaluation.summary()["mpjpe"] == pytest.approx(mean)


def test_valid_flags_of_mpii3d_may_be_called_valid(model: TCMR, smpl_body: BodyData, tmp_path: Path) -> None:
    """The original crashes on such a database."""

    def rename(database: dict[str, np.ndarray]) -> None:
        database["valid"] = np.ones(len(database["vid_name"]), np.uint8)
        database["valid"][:2] = 0

    opts = changed(tmp_path, "mpii3d_val_scale12_db.pt", rename)
    (sequence,) = measure(model, smpl_body, "mpii3d", *opts, part="subj1_seg0").sequences
    assert len(sequence.pred) == 18


@pytest.mark.parametrize("smooth", [False, True])
def test_human36m_of_table6_equals_the_original(
    model: TCMR, smpl_body: BodyData, tmp_path: Path, smooth: bool
) -> None:
    source = GOLDEN / "data" / "h36m_test_front_25fps_tight_db.pt"
    (tmp_path / "h36m_test_front_25fps_tight_nosmpl_db.pt").symlink_to(source)
    evaluation = measure(
        model, smpl_body, "h36m", "PATHS.PREPROCESSED", str(tmp_path), title=T6_H36M, smooth=smooth
    )
    golden = load_golden("e2e/h36m_repr_table6_h36m_model" + "_filter" * smooth)
    assert [s.name for s in evaluation.sequences] == golden["seq_names"].tolist()
    for i, sequence in enumerate(evaluation.sequences):
        for key in ("mpjpe", "mpjpe_pa", "accel_err"):
            np.testing.assert_allclose(getattr(sequence, key) * 1000, golden[f"{i}_{key}"], atol=0.01)
    expected = (305.09470, 145.67253, 29.65364) if smooth else (304.72708, 145.89583, 37.21965)
    summary = evaluation.summary()
    assert [summary[key] for key in ("mpjpe", "mpjpe_pa", "accel_err")] == pytest.approx(expected, abs=0.005)
    assert evaluation.num_poses == 53


def test_validation_on_human36m_equals_the_original(model: TCMR, smpl_body: BodyData) -> None:
    data = EvaluationSet(get_spec("h36m"), "val", config(T6_H36M, *AS_ORIGINAL), validation=True)
    summary = evaluate(model, data, smpl_body).with_accel_across_videos().summary()
    assert (
        "mpvpe" not in summary
    )  # there is no SMPL to compare with: the original compares with the zero pose
    expected = {"mpjpe": 291.16467, "mpjpe_pa": 141.40518, "accel": 27.24438, "accel_err": 55.32798}
    assert {key: summary[key] for key in expected} == pytest.approx(expected, abs=0.05)


def test_validation_on_mpii3d_compares_17_joints(model: TCMR, smpl_body: BodyData) -> None:
    """The original crashes: it predicts 14."""
    data = EvaluationSet(get_spec("MPII3D"), "val", config(T4_3DPW), validation=True)
    evaluation = evaluate(model, data, smpl_body)
    assert all(s.pred.shape[1] == 17 for s in evaluation.sequences)
    assert np.isfinite(evaluation.summary()["mpjpe_pa"])


def test_a_steady_rotation_is_not_smoothed_away() -> None:
    rotmats = Rotation.random(24, rng=np.random.default_rng(1)).as_matrix()[None].repeat(9, axis=0)
    np.testing.assert_allclose(slerp_filter(rotmats), rotmats, atol=1e-7)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_few_poses_are_aligned_like_many(count: int) -> None:
    """The original takes a batch of 2 or 3 poses for transposed ones."""
    source, target = np.random.default_rng(0).normal(size=(2, 5, 14, 3))
    many = metrics.pa_mpjpe(source, target)
    np.testing.assert_allclose(metrics.pa_mpjpe(source[:count], target[:count]), many[:count])

"""Reports, JSON and plots of evaluations that are made up here, so that every number is known."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from lib.core.evaluation import Evaluation, SequenceErrors
from lib.core.plots import (
    _accelerations,
    _joint_errors,
    acceleration_curves,
    joint_distances,
    write_plots,
)
from lib.core.protocol import Protocol
from lib.core.published import published
from lib.core.report import report, results, write_json, write_report
from lib.dataset.datasets import DATASETS, TITLES, FrameRate
from lib.utils.keypoints import JOINT_NAMES

TABLE4 = "repr_table4_3dpw_model"
# Choi et al., CVPR 2021: 3DPW PA-MPJPE, MPJPE, MPVPE, Accel; MPI-INF-3DHP PA-MPJPE, MPJPE, Accel; Human3.6M
PAPER4 = """
    HMMR                  72.6  116.5  139.3  15.2     –      –     –   56.9     –     –
    VIBE                  57.6   91.9      –  25.4  68.9  103.9  27.3   53.3  78.0  27.3
    MEVA                  54.7   86.9      –  11.6  65.4   96.4  11.1   53.2  76.0  15.3
    TCMR                  52.7   86.5  102.9   6.8  63.5   97.3   8.5   52.0  73.6   3.9
"""
PAPER6 = """
    HMR (image)           76.7  130.0      –  37.4  89.8  124.2     –   56.8  88.0     –
    GraphCMR (image)      70.2      –      –     –     –      –     –   50.1     –     –
    SPIN (image)          59.2   96.9  116.4  29.8  67.5  105.2     –   41.1     –  18.3
    I2L-MeshNet (image)   57.7   93.2  110.1  30.9     –      –     –   41.1  55.7  13.4
    Pose2Mesh (image)     58.3   88.9  106.3  22.6     –      –     –   46.3  64.9  23.9
    HKMR (image)             –      –      –     –     –      –     –      –  59.6     –
    HMMR                  72.6  116.5  139.3  15.2     –      –     –   56.9     –     –
    Doersch et al.        74.7      –      –     –     –      –     –      –     –     –
    Sun et al.            69.5      –      –     –     –      –     –   42.4  59.1     –
    VIBE                  56.5   93.5  113.4  27.1  63.4   97.7  29.0   41.5  65.9  18.3
    TCMR                  55.8   95.0  111.5   6.7  62.8   96.5   9.5   41.1  62.3   5.3
"""
PROTOCOL = Protocol(
    title=TABLE4,
    dataset="3dpw",
    split="test",
    database="data/preprocessed_data/3dpw_test_db.pt",
    own_database=False,
    part="",
    body="smpl",
    ground_truth="neutral",
    joints="common",
    joint_count=14,
    joints_seen=14,
    seqlen=16,
    borders="static",
    step=1,
    precision="fp32",
    smoothed=False,
    fitted=False,
    root_aligned_verts=False,
    frames=DATASETS["ThreeDPW"].frames,
    frame_rate=DATASETS["ThreeDPW"].frame_rate,
)


def sequence(name: str, n: int, **changes: Any) -> SequenceErrors:
    rng = np.random.default_rng(n)
    values = {
        "pred": rng.normal(size=(n, 14, 3)),
        "target": rng.normal(size=(n, 14, 3)),
        "counted": np.ones(n, bool),
        "mpjpe": np.full(n, 0.1),
        "mpjpe_pa": np.full(n, 0.05),
        "accel": np.full(n - 2, 0.002),
        "accel_err": np.full(n - 2, 0.01),
        "mpvpe": np.full(n, 0.12),
        "mpvpe_root_aligned": None,
        "left_out": 0,
    }
    return SequenceErrors(name, **{**values, **changes})


def evaluation(**protocol: Any) -> Evaluation:
    sequences = [sequence("walk_0", 20), sequence("walk_1", 30, mpjpe=np.full(30, 0.2), left_out=4)]
    return Evaluation(
        sequences, [("short_0", 9, "9 valid frames, fewer than 16")], replace(PROTOCOL, **protocol)
    )


def test_frames_not_sequences_are_averaged_and_units_follow_the_frame_rate() -> None:
    content = results(evaluation(), "weights.pth.tar")
    assert content["mpjpe"] == pytest.approx((20 * 100 + 30 * 200) / 50)
    assert content["accel_err"] == pytest.approx(10.0)
    assert content["accel_err_m_s2"] == pytest.approx(9.0)  # 10 mm in (1/30 s)^2
    assert content["num_poses"] == 50
    assert content["per_sequence"]["walk_1"]["mpjpe"] == pytest.approx(200)
    assert content["per_sequence"]["walk_1"]["num_poses"] == 30
    assert results(evaluation(frame_rate=FrameRate(25, "")))["accel_err_m_s2"] == pytest.approx(6.25)
    assert "accel_err_m_s2" not in results(evaluation(frame_rate=FrameRate(None, "several")))
    assert {spec.key: spec.frame_rate.fps for spec in DATASETS.values() if spec.eval_joints} == {
        "3dpw": 30,
        "mpii3d": 25,
        "h36m": 25,
        "open": 30,
    }


def test_frames_left_out_are_added_up() -> None:
    content = evaluation()
    content.sequences[0] = replace(content.sequences[0], left_out=5)
    text = report(content)
    assert re.search(r"^\| all +\| +50 \| +9 \|", text, re.MULTILINE)
    assert "Left out of these sequences: 9 frames" in text


def test_published_numbers_belong_to_one_title_and_dataset() -> None:
    text = report(evaluation()).splitlines()
    ours, theirs = (next(line for line in text if line.startswith(f"| {name}")) for name in ("this", "TCMR"))
    assert re.findall(r"[\d.]+|–", ours) == ["50.00", "160.00", "120.00", "10.00", "9.00", "2.00"]
    assert re.findall(r"[\d.]+|–", theirs) == ["52.70", "86.50", "102.90", "6.80", "–", "–"]
    assert results(evaluation())["published"]["table"] == "table 4"
    for other in ({"title": "mine"}, {"dataset": "h36m"}, {"split": "val"}, {"ground_truth": "gendered"}):
        content = evaluation(**other)
        assert results(content)["published"] == {}
        assert ", published" not in report(content)
    keys = [spec.key for spec in DATASETS.values()]
    counts = {title: sum(bool(published(title, key)[0]) for key in keys) for title in TITLES}
    assert sorted(counts.values()) == [1, 1, 1, 1, 2]  # table 4's second model has two datasets


@pytest.mark.parametrize(
    ("title", "datasets", "table"),
    [
        (TABLE4, ["3dpw"], PAPER4),
        ("repr_table4_h36m_mpii3d_model", ["h36m", "mpii3d"], PAPER4),
        ("repr_table6_3dpw_model", ["3dpw"], PAPER6),
        ("repr_table6_h36m_model", ["h36m"], PAPER6),
        ("repr_table6_mpii3d_model", ["mpii3d"], PAPER6),
    ],
)
def test_published_numbers_are_the_papers(title: str, datasets: list[str], table: str) -> None:
    metrics = {"3dpw": ["mpjpe_pa", "mpjpe", "mpvpe", "accel_err"]}
    first = {"3dpw": 0, "mpii3d": 4, "h36m": 7}
    for dataset in datasets:
        keys, expected = metrics.get(dataset, ["mpjpe_pa", "mpjpe", "accel_err"]), {}
        for line in table.strip().splitlines():
            method, *cells = re.split(r"\s{2,}", line.strip())
            assert len(cells) == 10
            values = [None if cell == "–" else float(cell) for cell in cells[first[dataset] :]]
            if any(values[: len(keys)]):
                expected[method] = dict(zip(keys, values))
        assert published(title, dataset)[1] == expected


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"part": "walk"}, "'walk' in their name"),
        ({"smoothed": True}, "smoothed"),
        ({"fitted": True}, "fitted to landmarks"),
        ({"borders": "edge"}, "border frames"),
        ({"seqlen": 8}, "windows have 8 frames, not 16"),
        ({"step": 2}, "one frame in 2"),
        ({"precision": "bf16"}, "compute in bf16"),
        ({"joints_seen": 12}, "12 of 14 joints have a truth"),
        ({"own_database": True}, "the database is"),
        ({"split": "test_all"}, "the split is test_all"),
    ],
)
def test_departures_from_the_published_protocol_are_said(change: dict[str, Any], reason: str) -> None:
    assert "Not made as" not in report(evaluation())
    text = report(evaluation(**change))
    assert re.search(f"Not made as the published numbers were: .*{reason}", text)
    assert len(results(evaluation(**change))["protocol"]["deviations"]) == 1


def test_the_first_line_names_the_checkpoint_and_the_card_says_how() -> None:
    text = report(evaluation(precision="bf16", step=2, seqlen=12, borders="edge"), "runs/best.pth.tar")
    assert text.startswith("# 3dpw test: runs/best.pth.tar\n")
    card = text.split("## Protocol")[1]
    assert re.search(r"precision +\| bf16", card)
    assert re.search(r"windows +\| 12 frames", card)
    assert re.search(r"step in a window +\| 2 frames, features smoothed", card)


def test_other_benchmarks_are_labelled() -> None:
    gendered = evaluation(ground_truth="gendered")
    assert report(gendered).startswith("# 3dpw test, gendered ground truth\n")
    assert results(gendered)["benchmark"] == "3dpw test, gendered ground truth"
    assert "male or female" in report(gendered)
    aligned = evaluation(root_aligned_verts=True)
    sequences = [replace(s, mpvpe_root_aligned=s.mpvpe / 2) for s in aligned.sequences]
    aligned = replace(aligned, sequences=sequences)
    assert results(aligned)["mpvpe"] == pytest.approx(120)
    assert results(aligned)["mpvpe_root_aligned"] == pytest.approx(60)
    assert "another metric than MPVPE" in report(aligned)


@pytest.mark.parametrize("borders", ["static", "edge"])
@pytest.mark.parametrize("dataset", ["3dpw", "mpii3d", "h36m", "open"])
def test_every_table_is_well_formed(dataset: str, borders: str) -> None:
    joints = "mpii3d_test" if dataset == "mpii3d" else "common"
    content = evaluation(dataset=dataset, joints=joints, borders=borders, body="open")
    content.skipped.append(("odd|name", 3, "3 valid frames"))
    sequences = [replace(s, name="a|" + s.name) for s in content.sequences]
    tables, previous = 0, ""
    for line in report(replace(content, sequences=sequences), "a.pth.tar").splitlines():
        if line.startswith("|"):
            cells = len(re.findall(r"(?<!\\)\|", line))
            assert not previous.startswith("|") or cells == len(re.findall(r"(?<!\\)\|", previous))
            tables += not previous.startswith("|")
        previous = line
    assert tables == 3
    assert previous == "Evaluated total 50 poses"


def test_files_hold_what_is_reported(tmp_path: Path) -> None:
    content = evaluation()
    content.sequences[0] = sequence("one", 3, accel=np.zeros(0), accel_err=np.zeros(0))
    write_json(content, tmp_path / "a" / "b.json", "weights")
    read = json.loads((tmp_path / "a" / "b.json").read_text())
    assert read == results(content, "weights")
    assert read["per_sequence"]["one"]["accel_err"] is None  # NaN is no JSON
    assert read["checkpoint"] == "weights"
    write_report(content, tmp_path / "report.md", "weights")
    assert (tmp_path / "report.md").read_text(encoding="utf-8") == report(content, "weights") + "\n"
    assert "short_0 (9 frames): 9 valid frames, fewer than 16" in report(content)


def test_acceleration_curves_are_magnitudes_in_mm_per_frame_squared() -> None:
    steady = np.zeros((6, 14, 3))
    steady[:, :, 0] = 0.001 * np.arange(6)[:, None] ** 2  # second difference 2 mm
    counted = np.array([True, True, False, True, True, True])
    pred, true = acceleration_curves(sequence("a", 6, pred=steady, target=3 * steady, counted=counted))
    np.testing.assert_allclose(pred, [2, np.nan, 2, 2])
    np.testing.assert_allclose(true, [6, np.nan, 6, 6])


def test_joint_distances_average_to_the_metrics() -> None:
    content = evaluation()
    counted = np.arange(30) % 3 == 0
    content.sequences[1] = replace(content.sequences[1], counted=counted)
    plain, aligned = joint_distances(content)
    assert plain.shape == aligned.shape == (30, 14)
    first = content.sequences[1]
    expected = [1000 * np.linalg.norm(first.pred[3, j] - first.target[3, j]) for j in range(14)]
    np.testing.assert_allclose(plain[21], expected)
    assert (aligned.mean(axis=1) < plain.mean(axis=1)).all()


def test_bars_stand_over_their_joints() -> None:
    """Joint k is wrong by 10 k mm."""
    content = evaluation()
    content = replace(content, sequences=content.sequences[:1])
    first = content.sequences[0]
    first.pred[:] = first.target
    first.pred[:, :, 0] += 0.01 * np.arange(14)
    axes = _joint_errors(content, "").axes[0]
    bars = {round(bar.get_x() + bar.get_width() / 2 + 0.2): bar.get_height() for bar in axes.patches[:14]}
    heights = {
        label.get_text(): bars[place] for place, label in zip(axes.get_xticks(), axes.get_xticklabels())
    }
    assert heights == pytest.approx({name: 10 * k for k, name in enumerate(JOINT_NAMES["common"])}, abs=1e-6)


@pytest.mark.parametrize("fps", [25.0, 50.0])
def test_the_second_axis_shows_metres_per_second_squared(fps: float) -> None:
    curve = np.linspace(0, 40, 9)
    first, second = _accelerations("", curve, curve, fps).axes
    np.testing.assert_allclose(second.get_ylim(), np.array(first.get_ylim()) * 1e-3 * fps**2)
    assert first.get_ylim()[1] >= 40 and f"m/s² at {fps:g} frames/s" in second.get_ylabel()
    assert len(_accelerations("", curve, curve, None).axes) == 1


def test_plots_are_images_named_after_their_sequences(tmp_path: Path) -> None:
    content = evaluation()
    single = np.zeros(30, bool)
    single[0] = True
    content.sequences[1] = replace(content.sequences[1], name="data/h36m/s 09:1", counted=single)
    files = write_plots(content, tmp_path / "plot")
    assert sorted(files) == sorted((tmp_path / "plot").iterdir())
    assert [file.name for file in files] == [
        *("accel_walk_0.png", "accel_walk_0.npy", "accel_data_h36m_s_09_1.png", "accel_data_h36m_s_09_1.npy"),
        *("error_histogram.png", "joint_errors.png"),
    ]
    for file in files:
        if file.suffix == ".png":
            image = cv2.imread(str(file))
            assert image.shape[0] > 400
            assert image.std() > 5
    np.testing.assert_array_equal(np.load(files[1]), acceleration_curves(content.sequences[0]))

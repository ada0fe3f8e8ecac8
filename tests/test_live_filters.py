"""Filters that know the past alone."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from lib.live.filters import RotationTrend, RunningMean, Trend
from lib.utils.smoothing import OneEuro


def test_one_euro() -> None:
    """At a fixed cutoff it is a first-order low-pass: a step is followed by 1 - exp(-2 pi f t). A slope makes
    it follow what moves more closely, and what rests stays."""
    step = OneEuro(1.0, 0.0)
    values = [step(np.array(1.0 if t else 0.0), 0.001) for t in range(501)]
    assert abs(float(values[-1]) - (1 - np.exp(-2 * np.pi * 0.5))) < 0.01
    lags = []
    for slope in (0.0, 2.0):
        ramp = OneEuro(1.0, slope)
        lags.append([float(t / 30 - ramp(np.array(t / 30), 1 / 30)) for t in range(90)][-1])
    assert 0 < lags[1] < 0.6 * lags[0]
    assert OneEuro(1.0, 2.0)(np.array([3.0, 4.0]), 0.1).tolist() == [3.0, 4.0]


def test_trend() -> None:
    """What moves evenly is not held back; noise is calmed; at an end it is numpy's weighted line."""
    line = Trend(2.0)
    for t in range(20):
        np.testing.assert_allclose(line(np.array([3 * t, 7.0])), [3 * t, 7])
    noise = np.random.default_rng(0).standard_normal(3000)
    calm = Trend(2.0)
    values = np.array([calm(value) for value in noise])
    assert np.diff(values, 2).std() < 0.7 * np.diff(noise, 2).std()
    weights = np.exp(-((np.arange(9) - 8.0) ** 2) / 16)  # polyfit squares them
    assert abs(np.polyval(np.polyfit(np.arange(9), noise[-9:], 1, w=weights), 8) - values[-1]) < 1e-9


def test_trend_of_rotations() -> None:
    steady = RotationTrend(2.0)
    for angle in np.linspace(0, 2, 40):
        turn = Rotation.from_rotvec([[0, angle, 0], [0.3, 0, 0]]).as_matrix().astype(np.float32)
        apart = Rotation.from_matrix(steady(turn)) * Rotation.from_matrix(turn).inv()
        assert apart.magnitude().max() < 0.01


def test_running_mean() -> None:
    values = np.random.default_rng(0).normal(5, 1, (400, 3))
    mean = RunningMean(50)
    for count, value in enumerate(values[:50], 1):
        np.testing.assert_allclose(mean(value), values[:count].mean(0))
    for _ in range(500):
        last = mean(np.array([1.0, 2.0, 3.0]))
    np.testing.assert_allclose(last, [1, 2, 3], atol=1e-3)

"""Statistics against values worked by hand and against SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from utils import statistics

VALUES = (2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0)


def test_summary_by_hand() -> None:
    summary = statistics.summarise(VALUES)
    assert (summary.mean, summary.min, summary.max, summary.median) == (5.0, 2.0, 9.0, 4.5)
    assert summary.std == pytest.approx((32 / 7) ** 0.5)


def test_one_value_has_no_spread_and_none_has_nothing() -> None:
    assert statistics.summarise([3.0]).std is None
    assert statistics.summarise([3.0]).mean == 3.0
    assert statistics.summarise([]).mean is None
    assert statistics.mean_interval([3.0]) is None
    assert statistics.coefficient_of_variation([3.0]) is None


def test_interval_is_scipys() -> None:
    low, high = statistics.mean_interval(VALUES) or (0, 0)
    expected = stats.t.interval(0.95, len(VALUES) - 1, loc=np.mean(VALUES), scale=stats.sem(VALUES))
    assert (low, high) == pytest.approx(expected)


@pytest.mark.parametrize(("percent", "needed"), [(90, 64), (95, 130), (99, 662)])
def test_percentiles_wait_for_enough_values(percent: int, needed: int) -> None:
    assert statistics.percentile(range(needed - 1), percent) is None
    assert statistics.percentile(range(needed), percent) == pytest.approx((needed - 1) * percent / 100)


def test_spreads_by_hand() -> None:
    assert statistics.median_absolute_deviation((1.0, 1.0, 2.0, 2.0, 4.0, 6.0, 9.0)) == 1.0
    assert statistics.iqr_over_median((1.0, 2.0, 3.0, 4.0, 5.0)) == pytest.approx(2 / 3)
    assert statistics.drift((1.0, 1.0, 5.0, 5.0, 2.0, 2.0)) == pytest.approx(1.0)
    assert statistics.drift((1.0, 2.0)) is None


def test_outliers_are_flagged() -> None:
    assert statistics.outliers((1.0, 1.1, 0.9, 1.0, 1.05, 10.0)) == (10.0,)
    assert statistics.outliers((1.0, 9.0)) == ()


@pytest.mark.parametrize(
    ("durations", "said"),
    [
        ((1.0, 1.0), "too few runs"), ((1.0, 1.3, 0.8, 1.2, 0.7, 1.1), "standard deviation"),
        ((1.0, 1.0, 1.0, 1.2, 1.2, 1.2), "drift"), ((1.0,) * 4 + (1.5, 1.5) + (1.01, 0.99) * 3, "outliers"),
    ],
)
def test_instability_says_why(durations: tuple[float, ...], said: str) -> None:
    assert any(said in reason for reason in statistics.instability(durations))


def test_steady_runs_are_stable() -> None:
    assert statistics.instability((1.0, 1.01, 0.99, 1.0, 1.02, 1.0)) == ()

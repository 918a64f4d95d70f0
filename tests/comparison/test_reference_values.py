"""Holm's correction, intervals, equivalence and power compared with statsmodels 0.15.0 and SciPy.

The values of statsmodels were computed once and are written down here, so that the tests do not
need it.
"""

from __future__ import annotations

import math

import pytest
from scipy import stats

from tests.comparison.statistics_builders import process_values
from utils.comparison.decisions import decide
from utils.comparison.effects import estimate_effect
from utils.comparison.holm import adjust_p_values, level_of_the_rest
from utils.comparison.log_ratio import RatioError, t_quantile
from utils.comparison.power import processes_needed, smallest_detectable_log


def test_holm_is_that_of_statsmodels() -> None:
    # statsmodels.stats.multitest.multipletests(method="holm").
    p_values = dict(enumerate((0.001, 0.012, 0.012, 0.03, 0.2, 0.04, 0.9)))
    expected = dict(enumerate((0.007, 0.072, 0.072, 0.12, 0.4, 0.12, 0.9)))
    assert adjust_p_values(p_values) == pytest.approx(expected)


def test_holm_of_nothing_and_of_one() -> None:
    assert adjust_p_values({}) == {}
    assert adjust_p_values({"only": 0.04}) == {"only": 0.04}


def test_a_comparison_that_is_left_has_its_share_of_alpha() -> None:
    assert level_of_the_rest([0.01, 0.2, 0.9, 1.0], 0.06) == pytest.approx(0.02)
    assert level_of_the_rest([0.01], 0.05) == 0.05


def test_intervals_are_those_of_statsmodels() -> None:
    # statsmodels.stats.weightstats.CompareMeans.tconfint_diff(usevar="unequal") of the logarithms.
    effect = estimate_effect(
        process_values([100.0, 103.0, 98.0, 101.0]),
        process_values([92.0, 90.0, 95.0, 91.0]),
        process_spread=None,
    )
    assert effect.ci95 == pytest.approx((0.8809891438424519, 0.951118815834538))
    assert effect.ci90 == pytest.approx((0.8879860797738837, 0.943624421981801))
    assert effect.p_difference == pytest.approx(0.001359695105060573)


@pytest.mark.parametrize(
    ("margin", "p_value"),
    [
        (0.002, 0.25341879736954265),
        (0.005, 0.0582195168222085),
        (0.006, 0.03314758106484267),
        (0.02, 2.3985962983056677e-05),
    ],
)
def test_equivalence_is_that_of_two_one_sided_tests(margin: float, p_value: float) -> None:
    # statsmodels.stats.weightstats.ttost_ind(usevar="unequal") of the logarithms.
    effect = estimate_effect(
        process_values([100.0, 100.9, 99.4, 100.2, 99.8, 100.5]),
        process_values([100.3, 100.8, 99.7, 100.1, 100.4, 99.5]),
        process_spread=None,
    )
    verdict = decide({"only": effect}, margin=margin)["only"].verdict
    assert (verdict == "equivalent") == (p_value <= 0.05)


def test_the_smallest_detectable_difference_is_that_of_statsmodels() -> None:
    # statsmodels.stats.power.TTestIndPower.solve_power(nobs1=5, alpha=0.05, power=0.8), in units of
    # the standard deviation; the approximation is within 1% from five a side on.
    detectable = smallest_detectable_log(math.sqrt(2 / 5), 8.0, 0.05)
    assert detectable == pytest.approx(2.024440145655355, rel=0.01)


@pytest.mark.parametrize(
    ("observed_log", "expected"), [(0.0953, 2.904727736290511), (0.05, 6.760922961667519)]
)
def test_processes_needed_for_a_difference_are_those_of_statsmodels(
    observed_log: float, expected: float
) -> None:
    # statsmodels.stats.power.TTestIndPower.solve_power(alpha=0.05, power=0.8), standard deviation
    # 0.03.
    needed = processes_needed(0.03, observed_log, log_margin=0.02, level=0.05)
    assert needed == math.ceil(expected)


def test_processes_needed_for_equivalence_follow_from_both_one_sided_tests() -> None:
    margin = math.log(1.02)
    needed = processes_needed(0.03, 0.001, log_margin=margin, level=0.05)
    # With a known standard deviation: 2 (0.03 (1.645 + 1.282) / margin)^2, a little below.
    known = 2 * (0.03 * (1.6449 + 1.2816) / margin) ** 2
    assert known < needed < known + 2


@pytest.mark.parametrize("degrees_of_freedom", [1.0, 1.7, 4.0, 37.5, math.inf])
@pytest.mark.parametrize("probability", [0.8, 0.975, 1 - 1e-7])
def test_quantiles_are_those_of_scipy_stats(degrees_of_freedom: float, probability: float) -> None:
    expected = stats.t.ppf(probability, degrees_of_freedom)
    quantile = t_quantile(probability, degrees_of_freedom)
    assert quantile == pytest.approx(expected, rel=1e-6)
    error = RatioError(standard_error=1.0, degrees_of_freedom=degrees_of_freedom, process_std=1.0)
    assert error.p_value(quantile) == pytest.approx(2 * (1 - probability), rel=1e-6)

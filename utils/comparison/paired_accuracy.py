"""Accuracy of two sides on the same rows: McNemar's test and an interval of the change."""

from __future__ import annotations

import math

from scipy import optimize, stats


def mcnemar_p_value(num_only_baseline: int, num_only_candidate: int) -> float:
    """Two-sided p value of McNemar's exact test.

    Of the rows that only one side predicts right, each side has half if both are equally good; the
    number is then binomial. Without such rows nothing speaks against it, and p is 1.

    Source: McNemar, "Note on the sampling error of the difference between correlated proportions or
    percentages", 1947; exact by the binomial distribution.
    """
    total = num_only_baseline + num_only_candidate
    if total == 0:
        return 1.0
    return float(stats.binomtest(num_only_candidate, total, 0.5).pvalue)


def accuracy_change_interval(
    num_only_baseline: int, num_only_candidate: int, num_rows: int, confidence: float = 0.95
) -> tuple[float, float]:
    """Score interval of the change of accuracy, candidate less baseline, on the same rows.

    All changes that the score test of a paired difference does not reject. It keeps its coverage
    for few rows and for few or no differing predictions, where the simple interval has no width.

    Source: Tango, "Equivalence test and confidence interval for the difference in proportions for
    the paired-sample design", 1998.

    Args:
        num_only_baseline: rows that only the baseline predicts right.
        num_only_candidate: rows that only the candidate predicts right.
        num_rows: all rows, at least 1.
    """
    quantile = float(stats.norm.ppf((1 + confidence) / 2))
    observed = (num_only_candidate - num_only_baseline) / num_rows

    def excess(change: float, limit: float) -> float:
        return _score(num_only_baseline, num_only_candidate, num_rows, change) - limit

    low, high = -1.0, 1.0
    # The score falls from above 0 to below 0 as the assumed change rises through the observed one.
    if observed > -1:
        low = optimize.bisect(excess, -1.0, observed, args=(quantile,), xtol=1e-12)
    if observed < 1:
        high = optimize.bisect(excess, observed, 1.0, args=(-quantile,), xtol=1e-12)
    return float(low), float(high)


def _score(num_only_baseline: int, num_only_candidate: int, num_rows: int, change: float) -> float:
    """Score statistic of an assumed change; infinite where the rows contradict it for certain."""
    difference = num_only_candidate - num_only_baseline - num_rows * change
    share = _share_of_losses(num_only_baseline, num_only_candidate, num_rows, change)
    variance = num_rows * (2 * share + change * (1 - change))
    if difference == 0:
        return 0.0
    if variance <= 0:
        return math.copysign(math.inf, difference)
    return difference / math.sqrt(variance)


def _share_of_losses(
    num_only_baseline: int, num_only_candidate: int, num_rows: int, change: float
) -> float:
    """Most likely share of rows that only the baseline predicts right, given the change."""
    linear = (
        (2 * num_rows - num_only_candidate + num_only_baseline) * change
        - num_only_candidate
        - num_only_baseline
    )
    constant = -num_only_baseline * change * (1 - change)
    root = math.sqrt(max(0.0, linear**2 - 8 * num_rows * constant))
    return (root - linear) / (4 * num_rows)

"""Statistics of repeated measurements: numbers in, numbers out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from scipy import stats

RatioResult = Literal["same", "faster", "slower", "ambiguous"]

PERCENTILE_RISK = 0.01
"""Largest probability with which a percentile is given from latencies that hardly reach it. Source:
MLPerf Inference rules, early stopping, which asks for a confidence of 99%."""
MIN_RUNS = 5
"""Below this number of runs the spread says little about the next run."""
CONFIDENCE = 0.95
EQUIVALENCE_MARGIN = 0.01
"""A ratio whose complete interval is this close to 1 is no difference: processes differ by more."""
RESAMPLES = 2000
"""Of the bootstrap: the ends of a 95% interval then move by about a hundredth of its width."""
BETWEEN_PROCESS_CV = {"cpu": 0.12}
"""Standard deviation over mean of the same measurement in several processes, by kind of device.

Processes differ though each is steady: memory layout, placement of threads and, above all,
neighbours on the machine. Measured by ``benchmarks/repeatability.py``: 0.10, 0.15 and 0.08 with 5,
10 and 8 processes on two virtual CPU cores of a shared host, 2026-11-24; pooled. No GPU was
measured."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """A metric over several runs; all None if not measured, ``std`` None for a single run."""

    mean: float | None = None
    std: float | None = None
    min: float | None = None
    max: float | None = None
    median: float | None = None


def summarise(values: Sequence[float]) -> Summary:
    """Mean, sample standard deviation (n - 1), extremes and median."""
    if not values:
        return Summary()
    std = None
    if len(values) > 1:
        std = float(np.std(values, ddof=1))
    return Summary(
        mean=float(np.mean(values)),
        std=std,
        min=float(min(values)),
        max=float(max(values)),
        median=float(np.median(values)),
    )


@cache
def min_latencies(percent: int) -> int:
    """Latencies that are needed before a percentile is given.

    With p = percent / 100, a latency is above the true percentile with probability 1 - p. Of n
    independent latencies, at most one is above it with probability

        P(n) = p^n + n (1 - p) p^(n - 1).

    The result is the smallest n with P(n) <= ``PERCENTILE_RISK``: 64 for p90, 130 for p95, 662 for
    p99. Source: MLPerf Inference rules, early stopping, whose smallest test this is.

    Args:
        percent: from 1 to 99.
    """
    if not 1 <= percent <= 99:
        raise ValueError(f"percent must be from 1 to 99, not {percent}")
    below = percent / 100
    # Two latencies are the fewest of which more than one can be above.
    n = 2
    while below**n + n * (1 - below) * below ** (n - 1) > PERCENTILE_RISK:
        n += 1
    return n


def percentile(values: Sequence[float], percent: int) -> float | None:
    """Percentile by linear interpolation (Hyndman and Fan's type 7).

    None for fewer values than ``min_latencies``.
    """
    if len(values) < min_latencies(percent):
        return None
    return float(np.percentile(values, percent, method="linear"))


def percentile_bounds(
    values: Sequence[float], percent: int, confidence: float = CONFIDENCE
) -> tuple[float | None, float | None]:
    """Both ends of the interval of a percentile, from order statistics.

    With p = percent / 100, the number of n independent values below the true percentile has the
    binomial distribution B(n, p), whatever the distribution of the values. The l-th smallest value
    is above the true percentile with probability P(B < l), the u-th smallest below it with
    P(B >= u); l is the largest and u the smallest for which that is at most
    (1 - confidence) / 2. Source: Conover, "Practical Nonparametric Statistics", 3rd edition, 1999,
    section 3.2.

    An end is None where there are too few values for it.
    """
    n = len(values)
    if not n:
        return None, None
    risk = (1 - confidence) / 2
    ordered = sorted(values)
    lower_rank = int(stats.binom.ppf(risk, n, percent / 100))
    upper_rank = int(stats.binom.ppf(1 - risk, n, percent / 100)) + 1
    low = None if lower_rank < 1 else float(ordered[lower_rank - 1])
    high = None if upper_rank > n else float(ordered[upper_rank - 1])
    return low, high


def autocorrelation(values: Sequence[float]) -> float | None:
    """Correlation of each value with the one before it (lag 1).

    None for fewer than three values or values without spread.
    """
    if len(values) < 3:
        return None
    deviations = np.subtract(values, np.mean(values))
    variation = float(np.dot(deviations, deviations))
    if not variation:
        return None
    return float(np.dot(deviations[1:], deviations[:-1])) / variation


def effective_sample_size(values: Sequence[float]) -> float:
    """Number of independent values with the same information: n (1 - r) / (1 + r), at least 2.

    An autocorrelation r counts only above 1.96 / sqrt(n), which chance exceeds one time in forty.
    Source: Bayley and Hammersley, "The effective number of independent observations", 1946.
    """
    n = len(values)
    r = autocorrelation(values)
    if r is None or r <= 1.96 / math.sqrt(n):
        return float(n)
    return max(2.0, n * (1 - r) / (1 + r))


def mean_interval(
    values: Sequence[float], confidence: float = CONFIDENCE
) -> tuple[float, float] | None:
    """Student's t interval of the mean, wider if values are autocorrelated.

    None for fewer than two values.
    """
    if len(values) < 2:
        return None
    size = effective_sample_size(values)
    mean = float(np.mean(values))
    standard_error = float(np.std(values, ddof=1)) / math.sqrt(size)
    half = float(stats.t.ppf((1 + confidence) / 2, size - 1)) * standard_error
    return mean - half, mean + half


def between_process_interval(
    centre: float, interval: tuple[float, float], cv: float
) -> tuple[float, float]:
    """Interval for the same metric in another process, from this process's own ``interval``.

    Runs of one process cannot show by how much processes differ, so ``cv`` (standard deviation
    over ``centre``) comes from elsewhere. The two errors are independent, so half widths add as
    squares. The other process has the same error, hence the factor sqrt(2).
    """
    between = float(stats.norm.ppf((1 + CONFIDENCE) / 2)) * cv * centre
    low, high = interval
    below = math.sqrt(2) * math.hypot(centre - low, between)
    above = math.sqrt(2) * math.hypot(high - centre, between)
    return centre - below, centre + above


def bootstrap_median_ci(
    values: Sequence[float], confidence: float = CONFIDENCE, seed: int = 0
) -> tuple[float, float] | None:
    """Seeded percentile bootstrap interval of the median; None below MIN_RUNS values."""
    if len(values) < MIN_RUNS:
        return None
    resampled = np.random.default_rng(seed).choice(values, size=(RESAMPLES, len(values)))
    medians = np.median(resampled, axis=1)
    low, high = np.percentile(medians, (50 * (1 - confidence), 50 * (1 + confidence)))
    return float(low), float(high)


def coefficient_of_variation(values: Sequence[float]) -> float | None:
    """Sample standard deviation over mean; None for fewer than two values or a mean of 0."""
    summary = summarise(values)
    if summary.std is None or not summary.mean:
        return None
    return summary.std / summary.mean


def median_absolute_deviation(values: Sequence[float]) -> float | None:
    """Median of the distances to the median, unscaled; None without values."""
    if not len(values):
        return None
    return float(stats.median_abs_deviation(values))


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Ratio of durations B to durations A, with its interval, and what that says of B.

    ``same``: the interval lies within ``EQUIVALENCE_MARGIN`` of 1. ``slower`` or ``faster``:
    it lies above or below 1. ``ambiguous``: none of these, or there is no interval.
    """

    ratio: float | None
    low: float | None = None
    high: float | None = None
    result: RatioResult = "ambiguous"


def compare(a: Sequence[float], b: Sequence[float], confidence: float = CONFIDENCE) -> Comparison:
    """Compare durations B with durations A (counts may differ).

    The ratio is that of the geometric means, its interval is Welch's t interval of the difference
    of the logarithms. Sources: Welch, 1947; the four results are NVBench's.
    """
    if not len(a) or not len(b) or min(*a, *b) <= 0:
        return Comparison(ratio=None)
    log_a = np.log(a)
    log_b = np.log(b)
    ratio = float(np.exp(log_b.mean() - log_a.mean()))
    if min(len(a), len(b)) < 2:
        return Comparison(ratio=ratio)
    low = high = ratio
    if log_a.std() or log_b.std():
        test = stats.ttest_ind(log_b, log_a, equal_var=False)
        interval = test.confidence_interval(confidence)
        low = float(np.exp(interval.low))
        high = float(np.exp(interval.high))
    return Comparison(ratio=ratio, low=low, high=high, result=_classify_ratio(low, high))


def _classify_ratio(low: float, high: float) -> RatioResult:
    if low >= 1 - EQUIVALENCE_MARGIN and high <= 1 + EQUIVALENCE_MARGIN:
        return "same"
    if low > 1:
        return "slower"
    if high < 1:
        return "faster"
    return "ambiguous"

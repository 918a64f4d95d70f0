"""Pure statistics: numbers in, numbers out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

MIN_LATENCIES = {90: 64, 95: 130, 99: 662}
"""Fewest latencies from which a percentile is given. Source: MLPerf Inference rules, early stopping."""
SPREAD_LIMIT = 0.10
"""Standard deviation over mean from which a result is unstable. Source: pyperf's check."""
IQR_WARNING = 0.10
"""IQR over median that torch.utils.benchmark warns at (it calls 25% worse still)."""
DRIFT_LIMIT = 0.10
"""Change of the mean between the first and the last third. Source: perf_analyzer's windows within 10%."""
OUTLIER_SHARE = 0.10
"""Share of runs outside Tukey's fences from which they are no accident."""
MIN_RUNS = 5
"""Below this a spread says little about the next run."""
CONFIDENCE = 0.95


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """A figure over several runs; all None where it was not measured, ``std`` None for a single run."""

    mean: float | None = None
    std: float | None = None
    min: float | None = None
    max: float | None = None
    median: float | None = None


def summarise(values: Sequence[float]) -> Summary:
    """Mean, sample standard deviation (n - 1), extremes and median."""
    if not values:
        return Summary()
    data = np.asarray(values, dtype=np.float64)
    return Summary(
        mean=float(data.mean()), std=float(data.std(ddof=1)) if len(data) > 1 else None, min=float(data.min()),
        max=float(data.max()), median=float(np.median(data)),
    )


def percentile(values: Sequence[float], percent: int) -> float | None:
    """Percentile by linear interpolation (Hyndman and Fan's type 7); None below ``MIN_LATENCIES``."""
    if len(values) < MIN_LATENCIES.get(percent, 1):
        return None
    return float(np.percentile(np.asarray(values, dtype=np.float64), percent, method="linear"))


def mean_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> tuple[float, float] | None:
    """Student's t interval of the mean; None for fewer than two values."""
    if len(values) < 2:
        return None
    data = np.asarray(values, dtype=np.float64)
    half = float(stats.t.ppf((1 + confidence) / 2, len(data) - 1)) * float(data.std(ddof=1)) / math.sqrt(len(data))
    return float(data.mean()) - half, float(data.mean()) + half


def coefficient_of_variation(values: Sequence[float]) -> float | None:
    """Sample standard deviation over mean; None for fewer than two values or a mean of 0."""
    summary = summarise(values)
    return summary.std / summary.mean if summary.std is not None and summary.mean else None


def median_absolute_deviation(values: Sequence[float]) -> float | None:
    """Median of the distances to the median, unscaled; None without values."""
    data = np.asarray(values, dtype=np.float64)
    return float(np.median(np.abs(data - np.median(data)))) if len(data) else None


def iqr_over_median(values: Sequence[float]) -> float | None:
    """Interquartile range over median; None for fewer than four values or a median of 0."""
    if len(values) < 4:
        return None
    low, middle, high = np.percentile(np.asarray(values, dtype=np.float64), (25, 50, 75))
    return float((high - low) / middle) if middle else None


def outliers(values: Sequence[float]) -> tuple[float, ...]:
    """Values more than 1.5 IQR outside the quartiles (Tukey's fences). Flagged, never dropped."""
    if len(values) < 4:
        return ()
    low, high = np.percentile(np.asarray(values, dtype=np.float64), (25, 75))
    reach = 1.5 * (high - low)
    return tuple(value for value in values if value < low - reach or value > high + reach)


def drift(values: Sequence[float]) -> float | None:
    """Mean of the last third over mean of the first third, less 1; None for fewer than three values."""
    third = len(values) // 3
    if not third or not sum(values[:third]):
        return None
    return sum(values[-third:]) / sum(values[:third]) - 1


def instability(durations: Sequence[float]) -> tuple[str, ...]:
    """Why runs that took these times, in the order in which they were run, are not stable; empty where they are."""
    reasons = []
    if len(durations) < MIN_RUNS:
        reasons.append(f"too few runs: {len(durations)}, at least {MIN_RUNS} are needed to call a figure stable")
    spread, relative_iqr, moved = coefficient_of_variation(durations), iqr_over_median(durations), drift(durations)
    if spread is not None and spread >= SPREAD_LIMIT:
        reasons.append(f"spread: standard deviation is {spread:.0%} of the mean (limit {SPREAD_LIMIT:.0%})")
    if relative_iqr is not None and relative_iqr >= IQR_WARNING:
        reasons.append(f"spread: IQR is {relative_iqr:.0%} of the median (limit {IQR_WARNING:.0%})")
    if moved is not None and abs(moved) >= DRIFT_LIMIT:
        reasons.append(f"drift: the last third of the runs took {moved:+.0%} of the first third's time")
    strange = outliers(durations)
    if len(strange) > max(1, OUTLIER_SHARE * len(durations)):  # one odd run among few is an accident
        reasons.append(f"outliers: {len(strange)} of {len(durations)} runs, kept in the figures")
    return tuple(reasons)

"""Whether the runs of a measurement are stable, and why not."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from utils.schema.warning_codes import WarningCode
from utils.sweep.bench_stats import MIN_RUNS, coefficient_of_variation, compare

SPREAD_LIMIT = 0.10
"""Standard deviation over mean from which a result is unstable. Source: pyperf's check."""
EXTREME_LIMIT = 0.50
"""Distance of the fastest or slowest run from the mean, over the mean. Source: pyperf's check."""
IQR_LIMITS = ((0.25, "very wide"), (0.10, "wide"))
"""IQR over median, worst first. Source: the warnings of torch.utils.benchmark."""
WINDOW_LIMIT = 0.10
"""Distance between the means of three windows. Source: perf_analyzer's last three windows."""
DRIFT_LIMIT = 0.05
"""Change from the first third to the last that counts as drift. Half of WINDOW_LIMIT, because drift
has one direction."""
OUTLIER_SHARE = 0.10
"""Share of runs outside Tukey's fences from which outliers are no accident."""
SHORTEST_RUN_S = 1e-3
"""Runs below this are too short to time. Source: pyperf's check of raw values."""


def instability_reasons(durations: Sequence[float]) -> tuple[str, ...]:
    """Why runs are not stable; empty if they are.

    Args:
        durations: seconds of each run, above 0, at least one, in the order of measurement.
    """
    return (
        *_sample_reasons(durations),
        *_spread_reasons(durations),
        *_drift_reasons(durations),
        *_outlier_reasons(durations),
    )


def _sample_reasons(durations: Sequence[float]) -> list[str]:
    """Too few runs, or runs too short for the clock."""
    reasons = []
    count = len(durations)
    median = float(np.median(durations))
    if count < MIN_RUNS:
        reasons.append(
            WarningCode.FEW_RUNS.warn(
                f"there are {count} runs, and a stable result needs at least {MIN_RUNS}"
            )
        )
    if median < SHORTEST_RUN_S:
        reasons.append(
            WarningCode.FEW_RUNS.warn(
                f"a run takes {1e6 * median:.0f} us, which is too short to time (at least "
                f"{1e6 * SHORTEST_RUN_S:.0f} us are needed)"
            )
        )
    return reasons


def _spread_reasons(durations: Sequence[float]) -> list[str]:
    reasons = []
    cv = coefficient_of_variation(durations) or 0.0
    iqr = iqr_over_median(durations) or 0.0
    if cv >= SPREAD_LIMIT:
        reasons.append(
            WarningCode.SPREAD.warn(
                f"the standard deviation of the runs is {cv:.0%} of their mean "
                f"(the limit is {SPREAD_LIMIT:.0%})"
            )
        )
    for limit, word in IQR_LIMITS:
        if iqr >= limit:
            reasons.append(
                WarningCode.SPREAD.warn(
                    f"the middle half of the runs spans {iqr:.0%} of their median, which is {word} "
                    f"(the limit is {limit:.0%})"
                )
            )
            break
    return reasons


def _drift_reasons(durations: Sequence[float]) -> list[str]:
    means = window_means(durations)
    if means is None:
        return []
    reasons = []
    change = drift(durations) or 0.0
    third = len(durations) // 3
    difference = compare(durations[:third], durations[-third:])
    if abs(change) >= DRIFT_LIMIT and difference.result in ("slower", "faster"):
        reasons.append(
            WarningCode.DRIFT.warn(
                f"the last third of the runs took {abs(change):.0%} "
                f"{'more' if change > 0 else 'less'} time than the first third"
            )
        )
    distance = max(means) / min(means) - 1
    if distance > WINDOW_LIMIT:
        reasons.append(
            WarningCode.SPREAD.warn(
                f"the first, the middle and the last third of the runs differ by {distance:.0%} "
                f"on average (the limit is {WINDOW_LIMIT:.0%})"
            )
        )
    return reasons


def _outlier_reasons(durations: Sequence[float]) -> list[str]:
    reasons = []
    count = len(durations)
    mean = float(np.mean(durations))
    num_outliers = len(outliers(durations))
    # One outlier among few runs is an accident.
    if num_outliers > max(1, OUTLIER_SHARE * count):
        reasons.append(
            WarningCode.SPREAD.warn(f"{num_outliers} of {count} runs are outliers; they are kept")
        )
    furthest = max(max(durations) - mean, mean - min(durations)) / mean
    if furthest >= EXTREME_LIMIT:
        reasons.append(
            WarningCode.SPREAD.warn(
                f"one run is {furthest:.0%} away from the mean (the limit is "
                f"{EXTREME_LIMIT:.0%}); it is kept"
            )
        )
    return reasons


def iqr_over_median(values: Sequence[float]) -> float | None:
    """Interquartile range over median; None for fewer than four values or a median of 0."""
    if len(values) < 4:
        return None
    low, middle, high = np.percentile(values, (25, 50, 75))
    if not middle:
        return None
    return float((high - low) / middle)


def outliers(values: Sequence[float]) -> tuple[float, ...]:
    """Values more than 1.5 IQR outside the quartiles (Tukey's fences). Flagged, never dropped."""
    if len(values) < 4:
        return ()
    low, high = np.percentile(values, (25, 75))
    reach = 1.5 * (high - low)
    return tuple(value for value in values if value < low - reach or value > high + reach)


def window_means(values: Sequence[float]) -> tuple[float, float, float] | None:
    """Means of the first, middle and last third; None for fewer than six values.

    A third of one value is no window.
    """
    if len(values) < 6:
        return None
    first, middle, last = np.array_split(values, 3)
    return float(first.mean()), float(middle.mean()), float(last.mean())


def drift(values: Sequence[float]) -> float | None:
    """Mean of the last third over mean of the first third, less 1; None below six values."""
    means = window_means(values)
    if means is None or not means[0]:
        return None
    return means[2] / means[0] - 1

"""Pure statistics: numbers in, numbers out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

Answer = Literal["same", "faster", "slower", "ambiguous"]

MIN_LATENCIES = {90: 64, 95: 130, 99: 662}  # from which a percentile is given. Source: MLPerf Inference rules, early stopping
SPREAD_LIMIT = 0.10  # standard deviation over mean from which a result is unstable. Source: pyperf's check
EXTREME_LIMIT = 0.50  # distance of the fastest or slowest run from the mean, over the mean. Source: pyperf's check
IQR_LIMITS = ((0.25, "very wide"), (0.10, "wide"))  # IQR over median, worst first. Source: torch.utils.benchmark's warnings
WINDOW_LIMIT = 0.10  # how far the means of three windows may lie apart. Source: perf_analyzer, of its last three windows
DRIFT_LIMIT = 0.05  # change from the first third to the last that is no chance: half of WINDOW_LIMIT, for it has one direction
OUTLIER_SHARE = 0.10  # of runs outside Tukey's fences, from which they are no accident
MIN_RUNS = 5  # below this a spread says little about the next run
SHORTEST_RUN_S = 1e-3  # runs below this are too short to time. Source: pyperf's check of raw values
CONFIDENCE = 0.95
SAME_WITHIN = 0.01  # a ratio whose whole interval lies this close to 1 is no difference: less than what two processes differ by
RESAMPLES = 2000  # of the bootstrap: the ends of a 95% interval then move by about a hundredth of its width
PROCESS_SPREAD = {"cpu": 0.12}
"""Standard deviation over mean by which processes differ though each is steady (memory layout, placement of threads, and
above all neighbours on the machine), by kind of device. Measured by ``benchmarks/repeatability.py``: 0.10, 0.15 and 0.08 with
5, 10 and 8 processes on two virtual CPU cores of a shared host, 2026-11-24; pooled. No GPU was measured."""


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
    low, high, std = float(min(values)), float(max(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Summary(mean=float(np.mean(values)), std=std, min=low, max=high, median=float(np.median(values)))


def percentile(values: Sequence[float], percent: int) -> float | None:
    """Percentile by linear interpolation (Hyndman and Fan's type 7); None below ``MIN_LATENCIES``."""
    if len(values) < MIN_LATENCIES.get(percent, 1):
        return None
    return float(np.percentile(values, percent, method="linear"))


def autocorrelation(values: Sequence[float]) -> float | None:
    """Correlation of each value with the one before it (lag 1); None for fewer than three values or no spread."""
    deviations = np.subtract(values, np.mean(values)) if len(values) > 2 else np.zeros(0)
    below = float(np.dot(deviations, deviations))
    return float(np.dot(deviations[1:], deviations[:-1])) / below if below else None


def effective_size(values: Sequence[float]) -> float:
    """How many independent values these are worth: n (1 - r) / (1 + r) of a first-order process, at least 2.

    Only an autocorrelation r that chance would bring one time in forty, over 1.96 / sqrt(n), counts.
    Source: Bayley and Hammersley, "The effective number of independent observations", 1946.
    """
    n, r = len(values), autocorrelation(values)
    if r is None or r <= 1.96 / math.sqrt(n):
        return float(n)
    return max(2.0, n * (1 - r) / (1 + r))


def mean_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> tuple[float, float] | None:
    """Student's t interval of the mean, wider where values follow each other; None for fewer than two values."""
    if len(values) < 2:
        return None
    worth, mean = effective_size(values), float(np.mean(values))
    half = float(stats.t.ppf((1 + confidence) / 2, worth - 1)) * float(np.std(values, ddof=1)) / math.sqrt(worth)
    return mean - half, mean + half


def next_process(centre: float, interval: tuple[float, float], spread: float) -> tuple[float, float]:
    """The interval for the same figure of another process like this one, from this process's interval of its own.

    Runs of one process cannot tell how much processes differ: ``spread`` (over ``centre``) has to be known from elsewhere.
    The two kinds of chance are independent, so half widths add as squares; the other figure scatters as much, so twice.
    """
    more = float(stats.norm.ppf((1 + CONFIDENCE) / 2)) * spread * centre
    low, high = (math.sqrt(2) * math.hypot(centre - end, more) for end in interval)
    return centre - low, centre + high


def median_interval(values: Sequence[float], confidence: float = CONFIDENCE, seed: int = 0) -> tuple[float, float] | None:
    """Bootstrap interval of the median by percentiles, seeded; None below ``MIN_RUNS`` values."""
    if len(values) < MIN_RUNS:
        return None
    resampled = np.random.default_rng(seed).choice(values, size=(RESAMPLES, len(values)))
    low, high = np.percentile(np.median(resampled, axis=1), (50 * (1 - confidence), 50 * (1 + confidence)))
    return float(low), float(high)


def coefficient_of_variation(values: Sequence[float]) -> float | None:
    """Sample standard deviation over mean; None for fewer than two values or a mean of 0."""
    summary = summarise(values)
    return summary.std / summary.mean if summary.std is not None and summary.mean else None


def median_absolute_deviation(values: Sequence[float]) -> float | None:
    """Median of the distances to the median, unscaled; None without values."""
    return float(stats.median_abs_deviation(values)) if len(values) else None


def iqr_over_median(values: Sequence[float]) -> float | None:
    """Interquartile range over median; None for fewer than four values or a median of 0."""
    if len(values) < 4:
        return None
    low, middle, high = np.percentile(values, (25, 50, 75))
    return float((high - low) / middle) if middle else None


def outliers(values: Sequence[float]) -> tuple[float, ...]:
    """Values more than 1.5 IQR outside the quartiles (Tukey's fences). Flagged, never dropped."""
    if len(values) < 4:
        return ()
    low, high = np.percentile(values, (25, 75))
    reach = 1.5 * (high - low)
    return tuple(value for value in values if value < low - reach or value > high + reach)


def window_means(values: Sequence[float]) -> tuple[float, float, float] | None:
    """Means of the first, middle and last third; None for fewer than six values: single ones are no windows."""
    if len(values) < 6:
        return None
    return tuple(float(part.mean()) for part in np.array_split(values, 3))  # type: ignore[return-value]


def drift(values: Sequence[float]) -> float | None:
    """Mean of the last third over mean of the first third, less 1; None for fewer than six values."""
    means = window_means(values)
    return means[2] / means[0] - 1 if means and means[0] else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Durations B over durations A: their ratio with its interval, and what that says of B.

    ``same``: the whole interval lies within ``SAME_WITHIN`` of 1. ``slower`` or ``faster``: it lies on one side of 1.
    ``ambiguous``: it holds 1 and more, or there is no interval.
    """

    ratio: float | None
    low: float | None = None
    high: float | None = None
    answer: Answer = "ambiguous"


def compare(a: Sequence[float], b: Sequence[float], confidence: float = CONFIDENCE) -> Comparison:
    """Hold durations B against durations A (counts may differ), by Welch's t interval of the difference of their logarithms.

    The ratio is that of the geometric means. Source: Welch, 1947; the four answers are NVBench's.
    """
    if not len(a) or not len(b) or min(*a, *b) <= 0:
        return Comparison(ratio=None)
    first, second = np.log(a), np.log(b)
    low = high = ratio = float(np.exp(second.mean() - first.mean()))
    if min(len(a), len(b)) < 2:
        return Comparison(ratio=ratio)
    if first.std() or second.std():
        between = stats.ttest_ind(second, first, equal_var=False).confidence_interval(confidence)
        low, high = float(np.exp(between.low)), float(np.exp(between.high))
    same = low >= 1 - SAME_WITHIN and high <= 1 + SAME_WITHIN
    answer: Answer = "same" if same else "slower" if low > 1 else "faster" if high < 1 else "ambiguous"
    return Comparison(ratio=ratio, low=low, high=high, answer=answer)


def instability(durations: Sequence[float]) -> tuple[str, ...]:
    """Why runs that took these seconds (at least one, none 0), in the order in which they were run, are not stable."""
    count, median, mean = len(durations), float(np.median(durations)), float(np.mean(durations))
    spread, iqr, moved = coefficient_of_variation(durations) or 0.0, iqr_over_median(durations) or 0.0, drift(durations) or 0.0
    width, word = next(((limit, word) for limit, word in IQR_LIMITS if iqr >= limit), (math.inf, ""))
    thirds, third, strange = window_means(durations) or (1.0,), count // 3, outliers(durations)
    apart, away = max(thirds) / min(thirds) - 1, max(max(durations) - mean, mean - min(durations)) / mean
    changed = compare(durations[:third], durations[-third:]).answer in ("slower", "faster")
    reasons = {
        f"too few runs: {count}, at least {MIN_RUNS} are needed to call a figure stable": count < MIN_RUNS,
        f"too short to time: a run takes {1e6 * median:.0f} us (at least {1e6 * SHORTEST_RUN_S:.0f})": median < SHORTEST_RUN_S,
        f"spread: standard deviation is {spread:.0%} of the mean (limit {SPREAD_LIMIT:.0%})": spread >= SPREAD_LIMIT,
        f"spread: IQR is {iqr:.0%} of the median, {word} (limit {width:.0%})": iqr >= width,
        f"drift: the last third of the runs took {moved:+.0%} of the first third's time": abs(moved) >= DRIFT_LIMIT and changed,
        f"windows: the means of three windows lie {apart:.0%} apart (limit {WINDOW_LIMIT:.0%})": apart > WINDOW_LIMIT,
        # One odd run among few is an accident.
        f"outliers: {len(strange)} of {count} runs, kept in the figures": len(strange) > max(1, OUTLIER_SHARE * count),
        f"outliers: one run is {away:.0%} away from the mean (limit {EXTREME_LIMIT:.0%}), kept in the figures":
            away >= EXTREME_LIMIT,
    }
    return tuple(reason for reason, holds in reasons.items() if holds)

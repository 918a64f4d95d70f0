"""The effect on one metric: the ratio candidate / baseline with its interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from utils.comparison.log_ratio import (
    LARGEST_LOG,
    ProcessValue,
    RatioError,
    error_between_processes,
    error_from_spread,
)
from utils.schema.comparison_effects import Effect, IntervalSource

Variation = Literal["timed", "repeatable", "computed"]
"""How a metric varies from process to process.

``timed``: it always does, so that equal values prove nothing (times, rates, energy, percentiles).
``repeatable``: it usually does not; if several processes of each side agree to the last digit, it
is compared exactly (memory). ``computed``: it follows from texts and model, so that one process a
side is enough (padding, FLOPs, parameters).
"""

NOT_MEASURED = "not measured by any process of the {side}"
NO_RATIO = "a value is 0, so there is no ratio"
NO_VARIATION = (
    "the values of each side agree to the last digit, so nothing shows by how much those of other "
    "processes would differ"
)
UNKNOWN_SPREAD = (
    "one process a side, and it is not known by how much processes differ: measure several "
    "processes a side, or set profiling.process_spread as benchmarks/repeatability.py measures it"
)
UNKNOWN_RUN_SPREAD = (
    "one process a side, and the spread of this metric within a process is not known: measure "
    "several processes a side"
)


def estimate_effect(
    baseline: Sequence[ProcessValue],
    candidate: Sequence[ProcessValue],
    *,
    process_spread: float | None,
    variation: Variation = "timed",
) -> Effect:
    """Compare a metric of two sides, each measured by any number of processes.

    The processes are what is repeated: runs of one process share its memory layout, its placement
    of threads and its neighbours, so that many runs do not make up for a second process. The ratio
    is that of the geometric means of the processes' means.

    Args:
        baseline: one value for each process that measured the metric; may be empty.
        candidate: the same of the other side.
        process_spread: standard deviation over mean between processes of this machine, which stands
            in where each side has one process; None if it is not known.
        variation: whether and how the metric varies between processes.

    Returns:
        The effect. Without a basis for an interval it has none and says why; ``decide`` then
        never finds a difference. If both sides have the same values, the ratio is exactly 1.
    """
    baseline_means = sorted(value.mean for value in baseline)
    candidate_means = sorted(value.mean for value in candidate)
    if _are_identical(baseline_means, candidate_means):
        return _exact_effect(baseline_means, candidate_means)
    missing = _why_no_ratio(baseline_means, candidate_means)
    if missing is not None:
        return _effect_without_interval(baseline_means, candidate_means, missing)
    if _repeat_exactly(baseline_means, candidate_means, variation):
        return _exact_effect(baseline_means, candidate_means)
    if len(baseline) == 1 and len(candidate) == 1:
        return _effect_of_two_processes(baseline[0], candidate[0], process_spread, variation)
    error = error_between_processes(_logs(baseline_means), _logs(candidate_means))
    if error is None:
        return _effect_without_interval(baseline_means, candidate_means, NO_VARIATION)
    return _effect_with_interval(baseline_means, candidate_means, error, "processes")


def _are_identical(baseline_means: Sequence[float], candidate_means: Sequence[float]) -> bool:
    """Whether both sides have the same values: one side then is as good as a copy of the other."""
    if not baseline_means or not candidate_means:
        return False
    has_one_value = len({*baseline_means, *candidate_means}) == 1
    return has_one_value or baseline_means == candidate_means


def _why_no_ratio(baseline_means: Sequence[float], candidate_means: Sequence[float]) -> str | None:
    """The reason where there is no ratio, else None."""
    for side, means in (("baseline", baseline_means), ("candidate", candidate_means)):
        if not means:
            return NOT_MEASURED.format(side=side)
    if min(*baseline_means, *candidate_means) <= 0:
        return NO_RATIO
    return None


def _repeat_exactly(
    baseline_means: Sequence[float], candidate_means: Sequence[float], variation: Variation
) -> bool:
    """Whether the metric is one that repeats to the last digit, and did so on both sides."""
    if variation == "timed":
        return False
    fewest = min(len(baseline_means), len(candidate_means))
    if variation == "repeatable" and fewest < 2:
        return False
    return len(set(baseline_means)) == 1 and len(set(candidate_means)) == 1


def _effect_of_two_processes(
    baseline: ProcessValue,
    candidate: ProcessValue,
    process_spread: float | None,
    variation: Variation,
) -> Effect:
    """The effect with one process a side: only what is known of processes tells its error."""
    sides = (baseline, candidate)
    means = ([baseline.mean], [candidate.mean])
    if process_spread is None:
        return _effect_without_interval(*means, UNKNOWN_SPREAD)
    if variation == "timed" and not all(value.has_run_spread for value in sides):
        return _effect_without_interval(*means, UNKNOWN_RUN_SPREAD)
    error = error_from_spread(baseline, candidate, process_spread)
    if error is None:
        return _effect_without_interval(*means, NO_VARIATION)
    return _effect_with_interval(*means, error, "process_spread")


def _exact_effect(baseline_means: Sequence[float], candidate_means: Sequence[float]) -> Effect:
    """The effect of values that repeat: the interval is the ratio itself."""
    baseline = _geometric_mean(baseline_means)
    candidate = _geometric_mean(candidate_means)
    ratio = 1.0
    if baseline != candidate:
        ratio = candidate / baseline
    return Effect(
        baseline=baseline,
        candidate=candidate,
        ratio=ratio,
        ci95=(ratio, ratio),
        ci90=(ratio, ratio),
        num_baseline=len(baseline_means),
        num_candidate=len(candidate_means),
        interval_from="exact",
    )


def _effect_without_interval(
    baseline_means: Sequence[float], candidate_means: Sequence[float], reason: str
) -> Effect:
    """An effect of which nothing can be said; the ratio is given where there is one."""
    baseline = _mean_or_none(baseline_means)
    candidate = _mean_or_none(candidate_means)
    ratio = None
    if baseline and candidate:
        ratio = candidate / baseline
    return Effect(
        baseline=baseline,
        candidate=candidate,
        ratio=ratio,
        num_baseline=len(baseline_means),
        num_candidate=len(candidate_means),
        interval_from="none",
        no_interval=reason,
    )


def _effect_with_interval(
    baseline_means: Sequence[float],
    candidate_means: Sequence[float],
    error: RatioError,
    source: IntervalSource,
) -> Effect:
    baseline = _geometric_mean(baseline_means)
    candidate = _geometric_mean(candidate_means)
    difference = math.log(candidate / baseline)
    degrees_of_freedom = None
    if math.isfinite(error.degrees_of_freedom):
        degrees_of_freedom = error.degrees_of_freedom
    return Effect(
        baseline=baseline,
        candidate=candidate,
        ratio=candidate / baseline,
        ci95=_interval(difference, error.half_width(0.95)),
        ci90=_interval(difference, error.half_width(0.90)),
        p_difference=error.p_value(difference),
        num_baseline=len(baseline_means),
        num_candidate=len(candidate_means),
        interval_from=source,
        standard_error=error.standard_error,
        degrees_of_freedom=degrees_of_freedom,
        process_std=error.process_std,
    )


def _interval(difference: float, half_width: float) -> tuple[float, float]:
    """The interval of the ratio; its ends stay finite and positive."""
    low = max(difference - half_width, -LARGEST_LOG)
    high = min(difference + half_width, LARGEST_LOG)
    return math.exp(low), math.exp(high)


def _logs(means: Sequence[float]) -> list[float]:
    return [math.log(mean) for mean in means]


def _mean_or_none(means: Sequence[float]) -> float | None:
    if not means:
        return None
    return _geometric_mean(means)


def _geometric_mean(means: Sequence[float]) -> float:
    """The geometric mean; exactly the value where all are the same, and 0 where one is 0."""
    if min(means) == max(means):
        return float(means[0])
    if min(means) <= 0:
        return 0.0
    return math.exp(math.fsum(_logs(means)) / len(means))

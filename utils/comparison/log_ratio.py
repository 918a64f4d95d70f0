"""The error of a logarithm of a ratio: how far the means of two sides may be off by chance.

Everything is computed from logarithms, in which a ratio is a difference and a standard deviation
is a fraction of the mean.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

LARGEST_LOG = 700.0
"""The exponential of a larger logarithm may not be finite."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ProcessValue:
    """One metric at one batch size in one process, as one results folder has it.

    Args:
        mean: the mean over the runs of the process.
        std: standard deviation of the runs; None where the file has none.
        num_runs: number of runs that ``mean`` is made of.
    """

    mean: float
    std: float | None
    num_runs: int

    @property
    def has_run_spread(self) -> bool:
        """Whether it is known how much the runs of the process differ."""
        return self.std is not None and self.num_runs > 1


@dataclass(frozen=True, kw_only=True, slots=True)
class RatioError:
    """The error of the difference of two means of logarithms.

    Args:
        standard_error: of the difference.
        degrees_of_freedom: of ``standard_error``; infinite where it is known, not estimated.
        process_std: standard deviation of one process's mean.
    """

    standard_error: float
    degrees_of_freedom: float
    process_std: float

    def half_width(self, confidence: float) -> float:
        """Half of the interval of the difference."""
        return self.standard_error * t_quantile((1 + confidence) / 2, self.degrees_of_freedom)

    def p_value(self, difference: float) -> float:
        """Two-sided p value of a true difference of 0."""
        statistic = abs(difference) / self.standard_error
        if math.isinf(self.degrees_of_freedom):
            return float(2 * special.ndtr(-statistic))
        return float(2 * special.stdtr(self.degrees_of_freedom, -statistic))


def t_quantile(probability: float, degrees_of_freedom: float) -> float:
    """Quantile of Student's t distribution; of the normal one for infinite degrees of freedom."""
    if math.isinf(degrees_of_freedom):
        return float(special.ndtri(probability))
    return float(special.stdtrit(degrees_of_freedom, probability))


def error_between_processes(
    baseline_logs: Sequence[float], candidate_logs: Sequence[float]
) -> RatioError | None:
    """The error as the spread of the processes' means shows it; at least one side has several.

    With several processes on both sides it is the wider of Welch's t interval, which lets the sides
    have different variances, and Student's, which pools them. With equal counts that is always
    Welch's. With unequal counts each alone is too narrow somewhere: Welch's for two processes
    against five of the same variance (6.4% instead of 5% false differences), the pooled one where
    the side with fewer processes varies more. With one process on a side the variance of the other
    stands for both.

    Sources: Welch, "The generalization of Student's problem when several different population
    variances are involved", 1947; Student, "The probable error of a mean", 1908.

    Returns:
        None where no process differs from another of its side.
    """
    pooled = _pooled_error(baseline_logs, candidate_logs)
    if pooled.standard_error == 0:
        return None
    if min(len(baseline_logs), len(candidate_logs)) < 2:
        return pooled
    welch = _welch_error(baseline_logs, candidate_logs)
    return max(welch, pooled, key=lambda error: error.half_width(0.95))


def _pooled_error(first: Sequence[float], second: Sequence[float]) -> RatioError:
    degrees_of_freedom = len(first) + len(second) - 2
    assert degrees_of_freedom > 0, "one side has several processes"
    variance = (_squares(first) + _squares(second)) / degrees_of_freedom
    return RatioError(
        standard_error=math.sqrt(variance * (1 / len(first) + 1 / len(second))),
        degrees_of_freedom=degrees_of_freedom,
        process_std=math.sqrt(variance),
    )


def _welch_error(first: Sequence[float], second: Sequence[float]) -> RatioError:
    sides = (first, second)
    variances = [_squares(side) / (len(side) - 1) for side in sides]
    errors = [variance / len(side) for variance, side in zip(variances, sides, strict=True)]
    freedoms = [len(side) - 1.0 for side in sides]
    return RatioError(
        standard_error=math.sqrt(sum(errors)),
        degrees_of_freedom=_satterthwaite(errors, freedoms),
        process_std=math.sqrt(sum(variances) / 2),
    )


def _squares(values: Sequence[float]) -> float:
    """Sum of the squared distances from the mean; exactly 0 where all values are the same."""
    if min(values) == max(values):
        return 0.0
    return float(np.sum(np.square(np.subtract(values, np.mean(values)))))


def _satterthwaite(variances: Sequence[float], degrees_of_freedom: Sequence[float]) -> float:
    """Degrees of freedom of a sum of independent variances.

    Source: Satterthwaite, "An approximate distribution of estimates of variance components", 1946.
    """
    total = sum(variances)
    parts = zip(variances, degrees_of_freedom, strict=True)
    denominator = sum((variance / total) ** 2 / freedom for variance, freedom in parts)
    if denominator == 0:
        return math.inf
    return 1 / denominator


def error_from_spread(
    baseline: ProcessValue, candidate: ProcessValue, process_spread: float
) -> RatioError | None:
    """The error with one process a side, between which processes of this machine differ anyway.

    The variance between processes is taken as known, so that it has infinite degrees of freedom.
    The variance of each mean, as its runs show it, comes on top; where the file has no standard
    deviation, the mean counts as exact.

    Returns:
        None where nothing varies.
    """
    variances = [2 * process_spread**2]
    freedoms = [math.inf]
    for value in (baseline, candidate):
        if value.std is not None and value.num_runs > 1:
            variances.append((value.std / value.mean) ** 2 / value.num_runs)
            freedoms.append(value.num_runs - 1.0)
    total = sum(variances)
    if total == 0:
        return None
    return RatioError(
        standard_error=math.sqrt(total),
        degrees_of_freedom=_satterthwaite(variances, freedoms),
        process_std=math.sqrt(total / 2),
    )

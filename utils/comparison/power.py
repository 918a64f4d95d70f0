"""What a number of processes can show: the smallest difference, and how many processes it takes."""

from __future__ import annotations

import math
from collections.abc import Callable

from utils.comparison.log_ratio import t_quantile

POWER = 0.80
"""Probability with which a true difference is to be found. Source: Cohen, "Statistical power
analysis for the behavioral sciences", 1988, whose convention it is."""
EQUIVALENCE_LEVEL = 0.05
"""Level of each of the two one-sided tests, to which the 90% interval belongs."""


def smallest_detectable_log(
    standard_error: float, degrees_of_freedom: float | None, level: float
) -> float:
    """The smallest difference of logarithms that a two-sided test finds with ``POWER``.

    (t(1 - level / 2) + t(POWER)) times the standard error.

    Source: Julious, "Sample sizes for clinical trials with normal data", 2004.

    Args:
        level: of the test.
        degrees_of_freedom: None for a standard error that is known.
    """
    freedom = math.inf
    if degrees_of_freedom is not None:
        freedom = degrees_of_freedom
    quantiles = t_quantile(1 - level / 2, freedom) + t_quantile(POWER, freedom)
    return standard_error * quantiles


def processes_needed(
    process_std: float, observed_log: float, *, log_margin: float, level: float
) -> int:
    """Processes a side until a verdict is likely, by the same approximation.

    A difference above the margin is to be shown as it was observed, with ``POWER``. A smaller one
    is taken as none, and equivalence is to be shown with ``POWER``.

    Args:
        process_std: standard deviation of the logarithm of a process's mean.
        observed_log: size of the observed difference of the logarithms.
        log_margin: the margin of equivalence in logarithms.
        level: of the test of a difference.
    """
    if observed_log > log_margin:
        return _fewest(
            lambda count: (
                smallest_detectable_log(process_std * math.sqrt(2 / count), 2.0 * count - 2, level)
                <= observed_log
            )
        )
    return _fewest(
        lambda count: _equivalence_reach(process_std, count) <= log_margin,
    )


def _equivalence_reach(process_std: float, count: int) -> float:
    """The smallest margin within which equal sides are shown to be equivalent with ``POWER``.

    Both one-sided tests have to succeed, so each may fail with half of 1 - ``POWER``.
    """
    freedom = 2.0 * count - 2
    quantiles = t_quantile(1 - EQUIVALENCE_LEVEL, freedom) + t_quantile((1 + POWER) / 2, freedom)
    return quantiles * process_std * math.sqrt(2 / count)


def _fewest(is_enough: Callable[[int], bool]) -> int:
    """The smallest count from 2 on that is enough; ``is_enough`` stays true once it is."""
    high = 2
    while not is_enough(high):
        high *= 2
    low = max(2, high // 2)
    while low < high:
        middle = (low + high) // 2
        if is_enough(middle):
            high = middle
        else:
            low = middle + 1
    return low

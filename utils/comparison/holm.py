"""Holm's correction of p values for the number of comparisons."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

Key = TypeVar("Key")


def adjust_p_values(p_values: Mapping[Key, float]) -> dict[Key, float]:
    """Adjusted p values: rejecting those up to alpha errs with a probability of at most alpha.

    Of m p values in ascending order the i-th (from 0) is multiplied by m - i; none is below the one
    before it, and none is above 1. This holds for p values that depend on each other in any way.

    Source: Holm, "A simple sequentially rejective multiple test procedure", 1979.
    """
    ascending = sorted(p_values, key=lambda key: p_values[key])
    adjusted: dict[Key, float] = {}
    largest = 0.0
    for rank, key in enumerate(ascending):
        scaled = (len(ascending) - rank) * p_values[key]
        largest = max(largest, min(1.0, scaled))
        adjusted[key] = largest
    return adjusted


def level_of_the_rest(adjusted: Iterable[float], alpha: float) -> float:
    """The level that a comparison had to reach that Holm's method did not reject."""
    num_left = sum(p_value > alpha for p_value in adjusted)
    return alpha / max(1, num_left)

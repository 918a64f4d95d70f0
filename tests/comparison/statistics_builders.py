"""Builders of what the statistics of a comparison are made from."""

from __future__ import annotations

from collections.abc import Sequence

from utils.comparison.log_ratio import ProcessValue


def process_values(means: Sequence[float]) -> list[ProcessValue]:
    """One value for each process, with a spread of 1% over ten runs."""
    return [ProcessValue(mean=mean, std=0.01 * mean, num_runs=10) for mean in means]

"""How long the rest of a sweep takes, and how fast rows of the data set will be.

All of it follows from passes over the sample that were measured: timed runs, or the last pass of
the warm-up where there is no run yet.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from utils.sweep.schedule import SweepSettings, SweepState, Trial


@dataclass(frozen=True, kw_only=True, slots=True)
class PassCost:
    """One pass over the sample at one batch size.

    Args:
        real_tokens: tokens of the texts, without padding.
        computed_tokens: tokens with padding.
    """

    num_samples: int
    seconds: float
    real_tokens: int
    computed_tokens: int


def pass_cost(trial: Trial) -> PassCost | None:
    """The median run of a batch size, or its warm-up; None where neither was measured."""
    if trial.status != "ok":
        return None
    seconds = [run.seconds for run in trial.runs]
    for run in trial.runs:
        if run.real_tokens is None or run.padding_tokens is None:
            continue
        return PassCost(
            num_samples=trial.num_samples,
            seconds=statistics.median(seconds),
            real_tokens=run.real_tokens,
            computed_tokens=run.real_tokens + run.padding_tokens,
        )
    warm_up = trial.warm_up
    if warm_up is None:
        return None
    return PassCost(
        num_samples=trial.num_samples,
        seconds=warm_up.seconds,
        real_tokens=warm_up.real_tokens,
        computed_tokens=warm_up.computed_tokens,
    )


def sweep_seconds(states: Sequence[SweepState], settings: SweepSettings) -> float | None:
    """How long the runs take that are left; None where no pass was measured.

    A sample that has no pass yet takes as long for each text as another one, and warms up first.
    The runs that a precision or a latency target may ask for come on top.
    """
    seconds_per_text: dict[int, float] = {}
    for state in states:
        for trial in state.trials:
            cost = pass_cost(trial)
            if cost is not None:
                seconds_per_text[trial.batch_size] = cost.seconds / cost.num_samples
    if not seconds_per_text:
        return None
    total_s = 0.0
    for state in states:
        for trial in state.trials:
            # A batch size without a cost did not fit into memory.
            text_s = seconds_per_text.get(trial.batch_size, 0.0)
            total_s += _passes_left(trial, settings) * trial.num_samples * text_s
    return total_s


def sustained_seconds(states: Sequence[SweepState], settings: SweepSettings) -> float:
    """How long the runs back to back take that are left; a GPU's readings need such long runs.

    As ``InferenceProfiler`` makes them: none where a run is long enough, and a pass before each.
    """
    total_s = 0.0
    for state in states:
        for trial in state.trials:
            cost = pass_cost(trial)
            if cost is None or trial.sustained_run is not None or cost.seconds <= 0:
                continue
            if cost.seconds < settings.min_window_seconds:
                repeats = math.ceil(settings.min_window_seconds / cost.seconds)
                total_s += (1 + repeats) * cost.seconds
    return total_s


def _passes_left(trial: Trial, settings: SweepSettings) -> int:
    passes = trial.missing_runs(settings)
    if passes and trial.warm_up is None:
        passes += settings.num_warmup_runs + 1
    return passes


def seconds_per_row(states: Sequence[SweepState], *, is_grouped: bool) -> float | None:
    """How long a row of the data set takes; None where no pass was measured.

    Args:
        is_grouped: rows of similar length share a batch, which has next to no padding. A row then
            has as many tokens as a text of the sample has on average, and they are as fast as the
            tokens of the fastest batch size, padding included. Otherwise a row takes as long as a
            text at the fastest batch size.
    """
    costs = []
    for state in states:
        for trial in state.trials:
            cost = pass_cost(trial)
            if cost is not None:
                costs.append(cost)
    if not costs:
        return None
    if not is_grouped or any(cost.computed_tokens == 0 for cost in costs):
        return min(cost.seconds / cost.num_samples for cost in costs)
    seconds_per_token = min(cost.seconds / cost.computed_tokens for cost in costs)
    largest = max(costs, key=lambda cost: cost.num_samples)
    return seconds_per_token * largest.real_tokens / largest.num_samples

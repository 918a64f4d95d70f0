"""What the runs of a sweep show together: the optimal batch size, and whether samples differ."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

from utils.schema.baseline import SampleDependence
from utils.schema.batch_size import BatchSizeRow, OptimalBatchSize
from utils.schema.common import complete_reasons
from utils.sweep.bench_stats import compare
from utils.sweep.schedule import SweepState, Trial

SAMPLE_EFFECT_THRESHOLD = 0.05
"""Difference in time per token between samples that is reported: half of what perf_analyzer calls
unstable."""
NO_RATIO = "one of the samples has no runs, or its texts have no tokens"
NO_INTERVAL = "one of the samples has fewer than two runs"


def optimal_batch_size(rows: Sequence[BatchSizeRow], state: SweepState) -> OptimalBatchSize | None:
    """The batch size with the highest mean throughput, and those that are statistically tied.

    None if every batch size failed.
    """
    measured = [row for row in rows if row.throughput_samples_per_sec_mean is not None]
    if not measured:
        return None
    best = max(measured, key=lambda row: row.throughput_samples_per_sec_mean or 0.0)
    times = {}
    for trial in state.trials:
        times[trial.batch_size] = [run.seconds / run.num_samples for run in trial.runs]
    tied_with = []
    for row in measured:
        comparison = compare(times[best.batch_size], times[row.batch_size])
        if row is not best and comparison.result in ("same", "ambiguous"):
            tied_with.append(row.batch_size)
    assert best.throughput_samples_per_sec_mean is not None
    assert best.latency_per_sample_ms_mean is not None
    return OptimalBatchSize(
        batch_size=best.batch_size,
        throughput_samples_per_sec_mean=best.throughput_samples_per_sec_mean,
        latency_per_sample_ms_mean=best.latency_per_sample_ms_mean,
        criterion="highest mean throughput within memory",
        tied_with=tuple(tied_with),
    )


def sample_dependence(states: Sequence[SweepState]) -> tuple[SampleDependence, ...]:
    """For each batch size and two samples: the ratio of their times per real token.

    Time per token, because another sample has other lengths. What then remains depends on how the
    texts fall into batches.
    """
    records = []
    for one, other in combinations(states, 2):
        sample_sizes = (one.sample_size, other.sample_size)
        for trial, other_trial in zip(one.trials, other.trials, strict=True):
            records.append(_compare_samples(sample_sizes, trial, other_trial))
    return tuple(records)


def _compare_samples(sample_sizes: tuple[int, int], trial: Trial, other: Trial) -> SampleDependence:
    comparison = compare(_seconds_per_token(trial), _seconds_per_token(other))
    depends = None
    if comparison.low is not None and comparison.ratio is not None:
        is_large = abs(comparison.ratio - 1) > SAMPLE_EFFECT_THRESHOLD
        depends = is_large and comparison.result in ("slower", "faster")
    values: dict[str, Any] = {
        "time_per_token_ratio": comparison.ratio,
        "ci95_low": comparison.low,
        "ci95_high": comparison.high,
        "depends_on_sample": depends,
    }
    reason = NO_RATIO if comparison.ratio is None else NO_INTERVAL
    return SampleDependence(
        batch_size=trial.batch_size,
        sample_sizes=sample_sizes,
        **values,
        unavailable=complete_reasons(SampleDependence, values, dict.fromkeys(values, reason)),
    )


def _seconds_per_token(trial: Trial) -> list[float]:
    return [run.seconds / run.real_tokens for run in trial.runs if run.real_tokens]

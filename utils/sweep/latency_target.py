"""The largest batch size whose time stays below a target: a search by bisection.

The search assumes that a larger batch takes longer. It starts with the swept batch sizes, whose
runs it uses, and goes on between them. Queueing is no part of what is measured: a batch is timed
from its texts to their logits on the host.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from utils.pipeline import console
from utils.schema.common import complete_reasons
from utils.schema.latency import LatencyTarget, LatencyTrial
from utils.schema.sweep_checkpoint import Run
from utils.schema.warning_codes import sentence_of
from utils.sweep.bench_stats import min_latencies, percentile, percentile_bounds
from utils.sweep.row_reasons import RowRuns
from utils.sweep.run_summary import percentile_with_interval
from utils.sweep.schedule import SweepSettings, SweepState, Trial, new_state

EDGE_PRECISION = 0.05
"""The search ends when the two batch sizes around the target differ by this share or by one."""


def search_latency_edge(
    state: SweepState, settings: SweepSettings, measure: Callable[[Trial], None]
) -> None:
    """Measure until the edge between two batch sizes is found.

    A batch size needs ``min_latencies`` to be below the target. It is above it as soon as its
    interval is. Each has ``max_seconds_per_batch_size``.

    Args:
        measure: adds one run to a trial, or marks it as failed.
    """
    if settings.latency_target_ms is None:
        return
    swept = [trial.batch_size for trial in state.trials if trial.status == "ok"]
    low = 0
    high: int | None = None
    size = _next_size(swept, low, high)
    with console.progress(what="Latency target", unit="run") as bar:
        while size is not None:
            trial = _latency_trial(state, size)
            while _needs_more_runs(state, trial, settings):
                measure(trial)
                bar.update()
            is_below = _is_below(state, trial, settings)
            if is_below is None:
                return
            if is_below:
                low = size
            else:
                high = size
            size = _next_size(swept, low, high)


def _next_size(swept: Sequence[int], low: int, high: int | None) -> int | None:
    """The batch size to compare next; None at the edge, or where all swept ones are below.

    Args:
        low: the largest batch size known to be below the target; 0 if none is.
        high: the smallest one known to reach it.
    """
    inside = [size for size in sorted(swept) if low < size and (high is None or size < high)]
    if inside:
        return inside[len(inside) // 2]
    if high is None or high - low <= max(1, EDGE_PRECISION * low):
        return None
    return (low + high) // 2


def _latency_trial(state: SweepState, batch_size: int) -> Trial:
    """The runs that only the target needs: those of an interrupted search, or none yet."""
    for trial in state.latency_trials:
        if trial.batch_size == batch_size:
            return trial
    [trial] = new_state(state.sample_size, [batch_size]).trials
    trial.process_spread = state.trials[0].process_spread
    state.latency_trials.append(trial)
    return trial


def _all_runs(state: SweepState, trial: Trial) -> list[Run]:
    """The runs of the sweep at this batch size and those of the search."""
    runs = list(trial.runs)
    for swept in state.trials:
        if swept.batch_size == trial.batch_size:
            runs = [*swept.runs, *runs]
    return runs


def _latencies_ms(runs: Sequence[Run]) -> list[float]:
    return RowRuns(runs=tuple(runs)).full_batch_latencies_ms


def _needs_more_runs(state: SweepState, trial: Trial, settings: SweepSettings) -> bool:
    if trial.status != "ok" or _is_below(state, trial, settings) is not None:
        return False
    spent_s = sum(run.seconds for run in trial.runs)
    return spent_s < settings.max_seconds_per_batch_size


def _is_below(state: SweepState, trial: Trial, settings: SweepSettings) -> bool | None:
    """Whether the percentile is below the target; None while that cannot be decided.

    A batch size that does not fit into memory is not below it.
    """
    assert settings.latency_target_ms is not None
    if trial.status == "wrong_outputs":
        return None
    if trial.status != "ok":
        return False
    latencies_ms = _latencies_ms(_all_runs(state, trial))
    value = percentile(latencies_ms, settings.latency_target_percentile)
    if value is not None:
        return value < settings.latency_target_ms
    low, _ = percentile_bounds(latencies_ms, settings.latency_target_percentile)
    if low is not None and low >= settings.latency_target_ms:
        return False
    return None


def latency_target(state: SweepState, settings: SweepSettings) -> LatencyTarget | None:
    """What the search found; None where no target is set."""
    if settings.latency_target_ms is None:
        return None
    tried = []
    for trial in sorted(state.latency_trials, key=lambda item: item.batch_size):
        tried.append(_trial_record(state, trial, settings))
    below = [item for item in tried if item.is_below is True]
    above = [item for item in tried if item.is_below is False]
    values: dict[str, Any] = {
        "largest_below": below[-1] if below else None,
        "smallest_above": above[0] if above else None,
    }
    return LatencyTarget(
        target_ms=settings.latency_target_ms,
        percentile=settings.latency_target_percentile,
        sample_size=state.sample_size,
        **values,
        tried=tuple(tried),
        unavailable=complete_reasons(LatencyTarget, values, _missing_edges(tried)),
    )


def _missing_edges(tried: Sequence[LatencyTrial]) -> dict[str, str]:
    """Why there may be no batch size on one side of the target."""
    if not tried:
        reason = "no batch size of the sweep finished"
        return {"largest_below": reason, "smallest_above": reason}
    for item in tried:
        if item.is_below is None:
            reason = f"batch size {item.batch_size}: {item.unavailable['is_below']}"
            return {"largest_below": reason, "smallest_above": reason}
    return {
        "largest_below": "also the smallest batch takes longer",
        "smallest_above": "all batch sizes of the sweep are below; add larger ones to "
        "profiling.batch_sizes",
    }


def _trial_record(state: SweepState, trial: Trial, settings: SweepSettings) -> LatencyTrial:
    percent = settings.latency_target_percentile
    runs = _all_runs(state, trial)
    latencies_ms = _latencies_ms(runs)
    value, low, high = percentile_with_interval(latencies_ms, percent, trial.process_spread)
    values: dict[str, Any] = {
        "latency_ms": value,
        "latency_ms_ci95_low": low,
        "latency_ms_ci95_high": high,
        "is_below": _is_below(state, trial, settings),
        **_throughput(trial, runs),
    }
    reason = f"{len(latencies_ms)} latencies, {min_latencies(percent)} are needed"
    if trial.status != "ok":
        reason = sentence_of(trial.warnings[0])
    elif values["is_below"] is None:
        reason += ": raise profiling.max_seconds_per_batch_size"
    elif value is None:
        reason += "; they suffice to show that the target is reached"
    reasons = dict.fromkeys(values, reason)
    if trial.status == "ok":
        for end in ("low", "high"):
            reasons[f"throughput_samples_per_sec_ci95_{end}"] = "a single run has no spread"
    return LatencyTrial(
        batch_size=trial.batch_size,
        num_latencies=len(latencies_ms),
        **values,
        unavailable=complete_reasons(LatencyTrial, values, reasons),
    )


def _throughput(trial: Trial, runs: list[Run]) -> dict[str, float | None]:
    """The throughput with its interval, as in a row of the sweep."""
    names = [f"throughput_samples_per_sec_{part}" for part in ("mean", "ci95_low", "ci95_high")]
    if not runs or trial.status != "ok":
        return dict.fromkeys(names)
    together = Trial(
        batch_size=trial.batch_size,
        num_samples=trial.num_samples,
        runs=runs,
        process_spread=trial.process_spread,
    )
    row = together.record()
    return {name: getattr(row, name) for name in names}

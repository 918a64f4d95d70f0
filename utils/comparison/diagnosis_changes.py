"""Where the time went on both sides: phases, operators, kernels, modules, verdicts, suggestions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from statistics import fmean

import yaml

from utils.comparison.compatibility import changed_settings
from utils.comparison.loading import RunResults, Side
from utils.schema.batch_size import SweepRow
from utils.schema.comparison import MetricComparison
from utils.schema.comparison_diagnosis import (
    DiagnosisComparison,
    Level,
    Outcome,
    SuggestionOutcome,
    TimeBreakdown,
    TimeChange,
    VerdictChange,
)
from utils.schema.diagnosis import Diagnosis, Suggestion
from utils.schema.trace_tables import OperatorRow

MAX_PARTS = 30
"""Parts of a breakdown that are kept; the number of all is kept too."""
PHASES = {
    "tokenize": "tokenize_ms_mean",
    "host to device": "host_to_device_ms_mean",
    "forward": "forward_ms_mean",
    "device to host": "device_to_host_ms_mean",
}
"""Columns of the sweep by the name of the phase."""
NO_DIAGNOSIS = "step 03 has not run for the {side}"
Times = dict[str, float]
"""Milliseconds per batch by the name of the part."""
TimesOfRun = Callable[[RunResults], Times]


def compare_diagnoses(
    baseline: Side,
    candidate: Side,
    metrics: tuple[MetricComparison, ...],
    *,
    sweep_refused: str | None,
) -> DiagnosisComparison:
    """Join what both sides say about where the time went.

    Args:
        metrics: the compared metrics, from which measured speed-ups are taken.
        sweep_refused: why the sweeps cannot be compared. Traces are of batches of the same
            sample, so that all times are then left out.
    """
    breakdowns: list[TimeBreakdown] = []
    unavailable: dict[str, str] = {}
    if sweep_refused is None:
        breakdowns += _phase_breakdowns(baseline, candidate)
    else:
        unavailable["phases"] = sweep_refused
    reason = sweep_refused or _why_not_traced(baseline, candidate)
    readers: dict[Level, TimesOfRun] = {
        "operators": _operator_times,
        "kernels": _kernel_times,
        "modules": _module_times,
    }
    for level, read in readers.items():
        before = _mean_times(baseline, read)
        after = _mean_times(candidate, read)
        if reason is not None or not before or not after:
            unavailable[level] = reason or f"not both sides have a table of {level}"
            continue
        breakdowns.append(_breakdown(level, _detail_batch_size(baseline), before, after))
    return DiagnosisComparison(
        breakdowns=tuple(breakdowns),
        verdicts=_verdict_changes(baseline, candidate),
        suggestions=_suggestion_outcomes(baseline, candidate, metrics),
        unavailable=unavailable,
    )


def _phase_breakdowns(baseline: Side, candidate: Side) -> list[TimeBreakdown]:
    """The phases of each batch size of the largest sample that both sides have."""
    of_baseline = _phase_times(baseline)
    of_candidate = _phase_times(candidate)
    shared = sorted(set(of_baseline) & set(of_candidate))
    if not shared:
        return []
    largest_sample = shared[-1][0]
    breakdowns = []
    for key in shared:
        sample_size, batch_size = key
        if sample_size == largest_sample:
            before = of_baseline[key]
            after = of_candidate[key]
            breakdowns.append(_breakdown("phases", batch_size, before, after))
    return breakdowns


def _phase_times(side: Side) -> dict[tuple[int, int], Times]:
    """The mean of each phase over the processes, by sample and batch size."""
    values: dict[tuple[int, int], dict[str, list[float]]] = {}
    for run in side.runs:
        for key, row in run.rows().items():
            for name, time_ms in _phases_of_row(row).items():
                values.setdefault(key, {}).setdefault(name, []).append(time_ms)
    return {key: _means(phases) for key, phases in values.items()}


def _phases_of_row(row: SweepRow) -> Times:
    times = {}
    for name, column in PHASES.items():
        value: float | None = getattr(row, column)
        if value is not None:
            times[name] = value
    return times


def _means(values: Mapping[str, list[float]]) -> Times:
    return {name: fmean(times) for name, times in values.items()}


def _why_not_traced(baseline: Side, candidate: Side) -> str | None:
    """Why traced times cannot be compared; None where they can."""
    for side in (baseline, candidate):
        if _first_diagnosis(side) is None:
            return NO_DIAGNOSIS.format(side=side.name)
    before = _detail_batch_size(baseline)
    after = _detail_batch_size(candidate)
    if before != after:
        return f"the traces are of batch sizes {before} and {after}"
    return None


def _first_diagnosis(side: Side) -> Diagnosis | None:
    for run in side.runs:
        if run.diagnosis is not None:
            return run.diagnosis
    return None


def _detail_batch_size(side: Side) -> int:
    diagnosis = _first_diagnosis(side)
    assert diagnosis is not None
    return diagnosis.detail_batch_size


def _mean_times(side: Side, read: TimesOfRun) -> Times:
    """The mean time of each part over the runs of a side that have its table."""
    values: dict[str, list[float]] = {}
    for run in side.runs:
        if run.tables is None or run.diagnosis is None:
            continue
        for name, time_ms in read(run).items():
            values.setdefault(name, []).append(time_ms)
    return _means(values)


def _operator_times(run: RunResults) -> Times:
    """Own times by operator, all shapes of inputs together; of a batch."""
    assert run.tables is not None
    on_device = run.tables.has_device_times
    times: Times = {}
    for row in run.tables.operators:
        own_time = _own_time(row, on_device=on_device)
        times[row.operator] = times.get(row.operator, 0.0) + own_time
    return times


def _own_time(row: OperatorRow, *, on_device: bool) -> float:
    own_time = row.self_device_ms if on_device else row.self_host_ms
    return own_time or 0.0


def _kernel_times(run: RunResults) -> Times:
    """Times by kernel. The table has all traced steps together, so they are divided."""
    assert run.tables is not None and run.diagnosis is not None
    kernels = run.diagnosis.kernels
    if kernels is None or not kernels.num_steps:
        return {}
    times: Times = {}
    for row in run.tables.kernels:
        per_step = (row.time_ms or 0.0) / kernels.num_steps
        times[row.kernel] = times.get(row.kernel, 0.0) + per_step
    return times


def _module_times(run: RunResults) -> Times:
    """Own times by module, without the modules that it calls; of a forward pass."""
    assert run.tables is not None
    return {row.module: row.self_time_ms for row in run.tables.layers}


def _breakdown(level: Level, batch_size: int, before: Times, after: Times) -> TimeBreakdown:
    """Join the parts of both sides by name, the largest difference first."""
    changes = []
    for name in {**before, **after}:
        changes.append(_time_change(name, before.get(name), after.get(name)))
    changes.sort(key=lambda change: -abs(change.difference_ms))
    return TimeBreakdown(
        level=level,
        batch_size=batch_size,
        baseline_total_ms=sum(before.values()),
        candidate_total_ms=sum(after.values()),
        num_parts=len(changes),
        changes=tuple(changes[:MAX_PARTS]),
    )


def _time_change(name: str, before: float | None, after: float | None) -> TimeChange:
    ratio = None
    if before and after is not None:
        ratio = after / before
    return TimeChange(
        name=name,
        baseline_ms=before,
        candidate_ms=after,
        difference_ms=(after or 0.0) - (before or 0.0),
        ratio=ratio,
    )


def _verdict_changes(baseline: Side, candidate: Side) -> tuple[VerdictChange, ...]:
    before = _verdicts(baseline)
    after = _verdicts(candidate)
    changes = []
    for batch_size in sorted({**before, **after}):
        one = before.get(batch_size)
        other = after.get(batch_size)
        is_known = one is not None and other is not None
        changes.append(
            VerdictChange(
                batch_size=batch_size,
                baseline=one,
                candidate=other,
                changed=is_known and one != other,
            )
        )
    return tuple(changes)


def _verdicts(side: Side) -> dict[int, str]:
    diagnosis = _first_diagnosis(side)
    if diagnosis is None:
        return {}
    return {item.batch_size: item.verdict for item in diagnosis.batch_sizes}


def _suggestion_outcomes(
    baseline: Side, candidate: Side, metrics: tuple[MetricComparison, ...]
) -> tuple[SuggestionOutcome, ...]:
    """What became of the suggestions of the baseline whose settings the candidate has."""
    diagnosis = _first_diagnosis(baseline)
    if diagnosis is None:
        return ()
    changed = changed_settings(baseline.first, candidate.first)
    outcomes = []
    for suggestion in diagnosis.all_suggestions:
        if suggestion.setting is None or suggestion.predicted_speedup is None:
            continue
        key, _, value = suggestion.setting.partition("=")
        if key in changed and changed[key] == yaml.safe_load(value):
            outcomes.append(
                _suggestion_outcome(
                    suggestion,
                    key,
                    _measured_speedup(key, diagnosis.detail_batch_size, metrics),
                    num_other_changes=len(changed) - 1,
                )
            )
    return tuple(outcomes)


def _measured_speedup(
    setting: str, batch_size: int, metrics: tuple[MetricComparison, ...]
) -> MetricComparison | None:
    """The comparison of throughputs that a setting is about; None without one."""
    scope = "evaluation" if setting.startswith("evaluation.") else "sweep"
    for item in metrics:
        if item.metric != "throughput_samples_per_sec" or item.scope != scope:
            continue
        if item.batch_size in (None, batch_size):
            return item
    return None


def _suggestion_outcome(
    suggestion: Suggestion,
    key: str,
    measured: MetricComparison | None,
    *,
    num_other_changes: int,
) -> SuggestionOutcome:
    assert suggestion.setting is not None and suggestion.predicted_speedup is not None
    measured_at = "nothing: it was not compared"
    speedup = None
    interval = None
    if measured is not None and measured.effect is not None:
        speedup = measured.effect.ratio
        interval = measured.effect.ci95
        measured_at = "the complete data set"
        if measured.batch_size is not None:
            measured_at = f"batch size {measured.batch_size}"
    is_upper_bound = suggestion.prediction == "upper-bound"
    return SuggestionOutcome(
        title=suggestion.title,
        setting=suggestion.setting,
        predicted_speedup=suggestion.predicted_speedup,
        is_upper_bound=is_upper_bound,
        measured_at=measured_at,
        measured_speedup=speedup,
        speedup_ci95=interval,
        outcome=_outcome(suggestion.predicted_speedup, interval, is_upper_bound=is_upper_bound),
        num_other_changes=num_other_changes,
    )


def _outcome(
    predicted: float, interval: tuple[float, float] | None, *, is_upper_bound: bool
) -> Outcome:
    """The prediction compared with the interval of the measured speed-up.

    Undecided where the interval holds both the prediction and 1, no speed-up at all.
    """
    if interval is None:
        return "undecided"
    low, high = interval
    if low <= min(1.0, predicted) and max(1.0, predicted) <= high:
        return "undecided"
    if predicted < low:
        return "more than predicted"
    if predicted > high and not is_upper_bound:
        return "less than predicted"
    return "as predicted"

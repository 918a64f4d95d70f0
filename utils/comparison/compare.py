"""Compares two sides of results: from files to one record."""

from __future__ import annotations

import time
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path

from utils.comparison.compatibility import (
    Refusals,
    check_repeats,
    find_differences,
    find_refusals,
)
from utils.comparison.costs import GivenPrices, choose_prices, compare_costs
from utils.comparison.decisions import DEFAULT_MARGIN, decide
from utils.comparison.diagnosis_changes import compare_diagnoses
from utils.comparison.effects import estimate_effect
from utils.comparison.gates import check_gate, parse_gate
from utils.comparison.loading import RunResults, Side, copy_warnings, load_sides
from utils.comparison.metric_table import (
    MetricKey,
    get_metric,
    metric_keys,
    missing_reason,
    process_values,
    verdict_in_words,
)
from utils.schema.comparison import (
    COMPARISON_VERSION,
    ComparedRun,
    ComparedSide,
    Comparison,
    MetricComparison,
    Refusal,
    StatusChange,
)
from utils.schema.comparison_effects import Decision, Effect
from utils.sweep.bench_stats import BETWEEN_PROCESS_CV

SPEED_ALPHA = 0.04
"""Probability of one or more false differences among the verdicts on speed. What a comparison is
made for gets most of the 5%."""
OTHER_ALPHA = 0.01
"""The same among all other metrics."""
NOT_MEASURED = "not measured"


@dataclass(frozen=True, kw_only=True, slots=True)
class ComparisonOptions:
    """How two sides are compared.

    Args:
        margin: largest difference that counts as equivalent, as a fraction.
        force: compare what is refused all the same, marked.
        show_texts: give the texts of rows whose label changed.
        fail_if: gates as on the command line, for example ``throughput<-5%``.
        prices: prices of one GPU.
    """

    margin: float = DEFAULT_MARGIN
    force: bool = False
    show_texts: bool = False
    fail_if: tuple[str, ...] = ()
    prices: GivenPrices = GivenPrices()


def compare_sides(
    baseline: Sequence[Path], candidate: Sequence[Path], options: ComparisonOptions
) -> Comparison:
    """Compare the results of two sides, each of one or more processes.

    Args:
        baseline: results folders or metrics files.
        candidate: the same of the other side.

    Raises:
        UserError: a gate cannot be read, results are missing or damaged, the runs of a side are no
            repeats of each other, or predictions do not belong to their run.
    """
    conditions = [parse_gate(text) for text in options.fail_if]
    before, after = load_sides(baseline, candidate)
    warnings = copy_warnings(before, after)
    for side in (before, after):
        warnings += check_repeats(side, force=options.force)
        for run in side.runs:
            warnings += run.warnings
    refusals = find_refusals(before, after)
    metrics, num_tests = _compare_metrics(before, after, refusals, options)
    status_changes = _status_changes(before, after)
    prices = choose_prices(before, after, options.prices)
    gates = []
    for condition in conditions:
        gates.append(check_gate(condition, metrics, status_changes, lambda _: "not compared"))
    return Comparison(
        schema_version=COMPARISON_VERSION,
        created_at=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        margin=options.margin,
        alpha=SPEED_ALPHA + OTHER_ALPHA,
        baseline=_describe_side(before),
        candidate=_describe_side(after),
        differences=tuple(find_differences(before, after)),
        refusals=_list_refusals(refusals, forced=options.force),
        status_changes=status_changes,
        metrics=metrics,
        num_tests=num_tests,
        quality_reason=refusals.quality or "not compared",
        diagnosis=compare_diagnoses(
            before,
            after,
            metrics,
            sweep_refused=None if options.force else refusals.sweep,
        ),
        prices=prices,
        costs=compare_costs(before, after, metrics, prices),
        gates=tuple(gates),
        warnings=tuple(dict.fromkeys(warnings)),
    )


def _describe_side(side: Side) -> ComparedSide:
    first = side.first.metrics
    machine = first.environment
    processor = machine.cpu.name if machine.gpu is None else machine.gpu.name
    runs = []
    for run in side.runs:
        runs.append(
            ComparedRun(
                path=str(run.file),
                run_id=run.metrics.run.id,
                started_at=run.metrics.run.started_at,
                schema_version=run.metrics.schema_version,
                has_diagnosis=run.diagnosis is not None,
                has_predictions=run.predictions is not None,
            )
        )
    return ComparedSide(
        model=first.model_info.name,
        device=f"{first.model_info.device} ({processor})",
        dtype=first.model_info.dtype,
        runs=tuple(runs),
    )


def _list_refusals(refusals: Refusals, *, forced: bool) -> tuple[Refusal, ...]:
    reasons = {
        "all metrics of the batch-size sweep": refusals.sweep,
        "tokens per second": refusals.tokens,
        "speed and memory on the complete data set": refusals.evaluation,
        "energy": refusals.energy,
        "accuracy, F1 and predictions": refusals.quality,
    }
    listed = []
    for metrics, reason in reasons.items():
        if reason is not None:
            listed.append(Refusal(metrics=metrics, reason=reason, forced=forced))
    return tuple(listed)


def _compare_metrics(
    baseline: Side, candidate: Side, refusals: Refusals, options: ComparisonOptions
) -> tuple[tuple[MetricComparison, ...], int]:
    """Compare every metric; also the number of comparisons that are corrected for."""
    spread = _process_spread(baseline.first, candidate.first)
    keys = metric_keys(baseline, candidate)
    effects = {}
    for key in keys:
        effects[key] = estimate_effect(
            process_values(baseline, key),
            process_values(candidate, key),
            process_spread=spread,
            variation=get_metric(key).variation,
        )
    decisions, num_tests = _decide_all(effects, refusals, options)
    items = []
    for key in keys:
        item = _metric_comparison(baseline, candidate, key, effects[key])
        reason = refusals.reason(key)
        changes: dict[str, object] = {}
        if key in decisions:
            metric = get_metric(key)
            decision = decisions[key]
            changes["decision"] = decision
            changes["verdict"] = verdict_in_words(metric, decision.verdict)
            changes["effect"] = effects[key]
            changes["forced"] = reason is not None
        if reason is not None:
            changes["reason"] = reason
        items.append(item.model_copy(update=changes))
    return tuple(items), num_tests


def _decide_all(
    effects: dict[MetricKey, Effect], refusals: Refusals, options: ComparisonOptions
) -> tuple[dict[MetricKey, Decision], int]:
    """Decide the effects that are compared: the speed by itself, then everything else."""
    speeds: dict[MetricKey, Effect] = {}
    others: dict[MetricKey, Effect] = {}
    for key, effect in effects.items():
        is_refused = refusals.reason(key) is not None and not options.force
        if effect.ratio is None or is_refused:
            continue
        group = speeds if get_metric(key).is_speed else others
        group[key] = effect
    decisions = decide(speeds, margin=options.margin, alpha=SPEED_ALPHA, same_quantity=_speed_of)
    decisions |= decide(others, margin=options.margin, alpha=OTHER_ALPHA)
    quantities: set[Hashable] = set()
    for key, effect in {**speeds, **others}.items():
        if effect.p_difference is not None:
            quantities.add(_speed_of(key) if key in speeds else key)
    return decisions, len(quantities)


def _speed_of(key: MetricKey) -> Hashable:
    """Time per text, time per batch, texts and tokens per second state one quantity."""
    return (key.scope, key.sample_size, key.batch_size)


def _metric_comparison(
    baseline: Side, candidate: Side, key: MetricKey, effect: Effect
) -> MetricComparison:
    """Both values, without a verdict yet, and why there is none where a value is missing."""
    metric = get_metric(key)
    reason = None
    if effect.baseline is None:
        reason = missing_reason(baseline, key)
    elif effect.candidate is None:
        reason = missing_reason(candidate, key)
    elif effect.ratio is None:
        reason = effect.no_interval
    return MetricComparison(
        scope=key.scope,
        sample_size=key.sample_size,
        batch_size=key.batch_size,
        metric=key.name,
        label=metric.label,
        unit=metric.unit,
        baseline=effect.baseline,
        candidate=effect.candidate,
        reason=reason,
        forced=False,
    )


def _process_spread(one: RunResults, other: RunResults) -> float | None:
    """The larger spread between processes of both sides; None where one is not known."""
    spreads = []
    for run in (one, other):
        configured = run.metrics.config.get("profiling", {}).get("process_spread")
        if configured is None:
            kind = "cuda" if run.on_gpu else "cpu"
            configured = BETWEEN_PROCESS_CV.get(kind)
        if configured is None:
            return None
        spreads.append(float(configured))
    return max(spreads)


def _status_changes(baseline: Side, candidate: Side) -> tuple[StatusChange, ...]:
    """Batch sizes that did not finish on both sides, or are only in the files of one."""
    before = _statuses(baseline)
    after = _statuses(candidate)
    changes = []
    for key in sorted({**before, **after}):
        one = before.get(key, NOT_MEASURED)
        other = after.get(key, NOT_MEASURED)
        if (one, other) != ("ok", "ok"):
            sample_size, batch_size = key
            changes.append(
                StatusChange(
                    sample_size=sample_size, batch_size=batch_size, baseline=one, candidate=other
                )
            )
    return tuple(changes)


def _statuses(side: Side) -> dict[tuple[int, int], str]:
    """The result of each batch size: ``ok`` only where every process finished it."""
    statuses: dict[tuple[int, int], str] = {}
    for run in side.runs:
        for key, row in run.rows().items():
            if statuses.get(key, "ok") == "ok":
                statuses[key] = row.status
    return statuses

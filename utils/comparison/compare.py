"""Compares two sides of results: from files to one record."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from utils.comparison.compatibility import (
    Refusals,
    find_differences,
    find_refusals,
)
from utils.comparison.costs import GivenPrices, choose_prices, compare_costs
from utils.comparison.defaults import DEFAULT_MARGIN
from utils.comparison.diagnosis_changes import compare_diagnoses
from utils.comparison.gates import check_gate, parse_gate
from utils.comparison.loading import Side, load_sides
from utils.comparison.metric_comparison import OTHER_ALPHA, SPEED_ALPHA, compare_metrics
from utils.comparison.quality_sides import QualityResult, compare_predictions, quality_change
from utils.comparison.run_warnings import side_warnings
from utils.schema.comparison import (
    COMPARISON_VERSION,
    ComparedRun,
    ComparedSide,
    Comparison,
    Gate,
    MetricComparison,
    Refusal,
    StatusChange,
)

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
    for text in options.fail_if:
        parse_gate(text)
    before, after = load_sides(baseline, candidate)
    return _compare_loaded(before, after, options)


def _compare_loaded(baseline: Side, candidate: Side, options: ComparisonOptions) -> Comparison:
    """Compare two sides that have been read."""
    warnings = side_warnings(baseline, candidate, force=options.force)
    refusals = find_refusals(baseline, candidate)
    sweep_refused = None if options.force else refusals.sweep
    metrics, num_tests = compare_metrics(
        baseline, candidate, refusals, margin=options.margin, force=options.force
    )
    status_changes = _status_changes(baseline, candidate)
    quality = compare_predictions(
        baseline, candidate, refusals.quality, force=options.force, show_texts=options.show_texts
    )
    prices = choose_prices(baseline, candidate, options.prices)
    return Comparison(
        schema_version=COMPARISON_VERSION,
        created_at=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        margin=options.margin,
        alpha=SPEED_ALPHA + OTHER_ALPHA,
        baseline=_describe_side(baseline),
        candidate=_describe_side(candidate),
        differences=tuple(find_differences(baseline, candidate)),
        refusals=_list_refusals(refusals, forced=options.force),
        status_changes=status_changes,
        metrics=metrics,
        num_tests=num_tests,
        label_names=candidate.first.metrics.dataset_info.label_names,
        quality=quality.quality,
        quality_reason=quality.reason,
        diagnosis=compare_diagnoses(baseline, candidate, metrics, sweep_refused=sweep_refused),
        prices=prices,
        costs=compare_costs(baseline, candidate, metrics, prices),
        gates=_check_gates(options.fail_if, metrics, status_changes, quality),
        warnings=tuple(dict.fromkeys([*warnings, *quality.warnings])),
    )


def _check_gates(
    texts: Sequence[str],
    metrics: Sequence[MetricComparison],
    status_changes: Sequence[StatusChange],
    quality: QualityResult,
) -> tuple[Gate, ...]:
    gates = []
    for text in texts:
        quality_of = partial(quality_change, quality)
        gates.append(check_gate(parse_gate(text), metrics, status_changes, quality_of))
    return tuple(gates)


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
        accuracy=None if side.first.evaluation is None else side.first.evaluation.accuracy,
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

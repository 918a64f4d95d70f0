"""The warnings of all files, grouped by cause, and the metrics that are missing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from utils.reporting.results import Results
from utils.reporting.sweeps import Sweep
from utils.reporting.tables import EXTRA_COLUMNS, PERCENTILES
from utils.reporting.warning_causes import CAUSES, OTHER, Cause, cause_of
from utils.schema.warning_codes import sentence_of


@dataclass(frozen=True, kw_only=True, slots=True)
class WarningGroup:
    """All warnings of one cause."""

    cause: Cause
    messages: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Missing:
    """Metrics that are missing for one reason."""

    names: tuple[str, ...]
    reason: str


def group_warnings(results: Results) -> list[WarningGroup]:
    """Every warning once, by cause; the serious causes first."""
    by_cause: dict[Cause, list[str]] = {}
    for message, place in _warnings(results):
        sentence = sentence_of(message)
        text = f"{place}: {sentence}" if place else sentence
        by_cause.setdefault(cause_of(message), []).append(text)
    groups = []
    order = (*CAUSES, OTHER)
    for cause in sorted(by_cause, key=lambda cause: (not cause.serious, order.index(cause))):
        messages = tuple(dict.fromkeys(by_cause[cause]))
        groups.append(WarningGroup(cause=cause, messages=messages))
    return groups


def short_reasons(messages: Iterable[str]) -> list[str]:
    """What the serious ones of these warnings say, in a few words each."""
    reasons = []
    for message in messages:
        cause = cause_of(message)
        if cause.serious:
            reasons.append(cause.short)
    return list(dict.fromkeys(reasons))


def _warnings(results: Results) -> Iterator[tuple[str, str]]:
    """Each warning, and which batch sizes it is about where it is about some."""
    evaluation = results.evaluation
    for message in (*results.notes, *results.metrics.run.warnings):
        yield message, ""
    for message in evaluation.warnings if evaluation is not None else ():
        yield message, ""
    for sweep in results.sweeps:
        sizes: dict[str, list[str]] = {}
        for row in sweep.rows:
            for message in row.warnings:
                sizes.setdefault(message, []).append(str(row.batch_size))
        for message, batch_sizes in sizes.items():
            subject = "batch size" if len(batch_sizes) == 1 else "batch sizes"
            yield message, f"{subject} {', '.join(batch_sizes)}"
    if results.diagnosis is not None:
        for message in results.diagnosis.warnings:
            yield message, ""


def missing_metrics(sweep: Sweep) -> list[Missing]:
    """The columns of the sweep without a value: one entry for all percentiles, and each reason."""
    by_reason: dict[str, list[str]] = {}
    percentiles: list[str] = []
    percentile_reason = ""
    for column, name in EXTRA_COLUMNS.items():
        if sweep.has(column):
            continue
        reason = sweep.reason(column) or "no reason is recorded"
        if column in PERCENTILES:
            percentiles.append(name.partition(" ")[0])
            # The last one is the highest, whose number of runs is enough for all.
            percentile_reason = reason
        else:
            by_reason.setdefault(reason, []).append(name)
    missing = []
    if percentiles:
        missing.append(Missing(names=tuple(percentiles), reason=percentile_reason))
    for reason, names in by_reason.items():
        missing.append(Missing(names=tuple(names), reason=reason))
    return missing

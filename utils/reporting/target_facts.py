"""The targets of the configuration, compared with what the complete data set reached."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from utils.reporting.formatting import (
    Fact,
    format_interval,
    format_number,
    format_score,
    not_measured,
)
from utils.reporting.results import Results
from utils.schema.evaluation import EvaluationMetrics

TargetStatus = Literal["met", "missed", "undecided", "not measured"]
TARGET_UNITS = {
    "latency_per_sample_ms": "ms/sample",
    "throughput_samples_per_sec": "samples/s",
    "gpu_util": "%",
    "peak_gpu_mem": "MB",
    "accuracy": "",
    "f1_macro": "",
    "f1_weighted": "",
}
"""The metrics of ``full_dataset_metrics`` that can have a target, with their units."""
LOWER_IS_BETTER = ("latency_per_sample_ms", "peak_gpu_mem")


@dataclass(frozen=True, kw_only=True, slots=True)
class TargetResult:
    """One target beside what was measured.

    Args:
        low: lower end of the 95% interval of ``value``; None where it has none.
        status: ``undecided`` where that interval includes the target.
        reason: why there is no value.
    """

    metric: str
    target: float
    value: float | None
    low: float | None = None
    high: float | None = None
    status: TargetStatus
    reason: str | None = None


def compare_targets(results: Results) -> list[TargetResult]:
    """Every target that was set when the results were measured."""
    targets = results.metrics.config.get("targets", {})
    compared = []
    for metric in TARGET_UNITS:
        target = targets.get(metric)
        if target is not None:
            compared.append(_compare(results, metric, float(target)))
    return compared


def _compare(results: Results, metric: str, target: float) -> TargetResult:
    evaluation = results.evaluation
    value: float | None = None
    reason = results.metrics.not_evaluated
    if evaluation is not None:
        value = getattr(evaluation, metric)
        reason = evaluation.reason(metric)
    if evaluation is None or value is None:
        return TargetResult(
            metric=metric, target=target, value=None, status="not measured", reason=reason
        )
    low, high = _interval(evaluation, metric)
    return TargetResult(
        metric=metric,
        target=target,
        value=value,
        low=low,
        high=high,
        status=_status(metric, target, (value, low, high)),
    )


def _interval(evaluation: EvaluationMetrics, metric: str) -> tuple[float | None, float | None]:
    low = getattr(evaluation, f"{metric}_ci95_low", None)
    high = getattr(evaluation, f"{metric}_ci95_high", None)
    if low is None or high is None:
        return None, None
    return low, high


def _status(
    metric: str, target: float, measured: tuple[float, float | None, float | None]
) -> TargetStatus:
    """``measured``: the value and both ends of its interval."""
    value, low, high = measured
    if low is not None and high is not None and low < target <= high:
        return "undecided"
    is_met = value <= target if metric in LOWER_IS_BETTER else value >= target
    return "met" if is_met else "missed"


def target_facts(results: Results) -> list[Fact]:
    """One line for each target; none where no target is set."""
    return [Fact(item.metric, _target_text(item)) for item in compare_targets(results)]


def _target_text(item: TargetResult) -> str:
    unit = TARGET_UNITS[item.metric]
    limit = "at most" if item.metric in LOWER_IS_BETTER else "at least"
    goal = f"target {limit} {item.target:,g} {unit}".rstrip()
    if item.value is None:
        return f"{not_measured(item.reason)}; {goal}"
    text = f"{item.status}: {_value_text(item, unit)}"
    if item.low is not None:
        text += f" (95% interval {format_interval(item.low, item.high)})"
    if item.status == "undecided":
        goal += ", which the interval includes"
    return f"{text}; {goal}"


def _value_text(item: TargetResult, unit: str) -> str:
    """A score in the digits of its interval; another value with its unit."""
    if not unit:
        return format_score(item.value, item.low, item.high)
    return format_number(item.value, unit)

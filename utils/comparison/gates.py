"""Gates: conditions under which the candidate is not accepted, such as ``throughput<-5%``."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from scipy import stats

from utils.comparison.defaults import GATE_EXAMPLES
from utils.comparison.metric_table import metric_names
from utils.comparison.quality_sides import QUALITY_NAMES, QualityChange
from utils.core.errors import UserError
from utils.schema.comparison import Gate, GateCheck, GateResult, MetricComparison, StatusChange
from utils.schema.comparison_effects import Effect

Operator = Literal["<", ">"]
Unit = Literal["%", "pp"]

GATE = re.compile(
    r"\s*(?P<name>\w+)(?:@(?P<place>\w+))?\s*(?P<operator>[<>])"
    r"\s*(?P<number>[+-]?\d+(?:\.\d+)?)\s*(?P<unit>%|pp)\s*"
)
EVALUATION = "evaluation"
"""As the place of a gate: the complete data set."""
SHORT_NAMES = {
    "throughput": "throughput_samples_per_sec",
    "tokens_per_sec": "throughput_tokens_per_sec",
    "latency": "latency_per_sample_ms",
    "latency_per_sample": "latency_per_sample_ms",
    "latency_per_batch": "latency_per_batch_ms",
    "latency_p90": "latency_per_batch_ms_p90",
    "latency_p95": "latency_per_batch_ms_p95",
    "latency_p99": "latency_per_batch_ms_p99",
    "energy": "energy_per_sample_j",
    "energy_per_sample": "energy_per_sample_j",
    "padding": "padding_fraction",
    "load_time": "load_time_s",
}
"""Names without units that a gate may use, and the metrics that they stand for."""
ALPHA = 0.05
"""Probability of a false result of a gate, in either direction."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GateCondition:
    """A gate as it was given.

    Args:
        text: the condition as it was typed.
        metric: the full name of the metric.
        batch_size: only this one; None: all of them.
        only_evaluation: only the complete data set.
        limit: the change in ``unit``; beyond it the candidate is not accepted.
    """

    text: str
    metric: str
    batch_size: int | None
    only_evaluation: bool
    operator: Operator
    limit: float
    unit: Unit

    @property
    def is_quality(self) -> bool:
        return self.metric in QUALITY_NAMES

    def applies_to(self, item: MetricComparison) -> bool:
        """Whether a compared value is one that the gate is about."""
        if item.metric != self.metric:
            return False
        if self.only_evaluation:
            return item.scope == "evaluation"
        return self.batch_size is None or item.batch_size == self.batch_size

    def holds(self, change: float) -> bool:
        """Whether a change that is known exactly violates the gate."""
        return change < self.limit if self.operator == "<" else change > self.limit

    def distance(self, check: GateCheck) -> float:
        """How far a change lies on the accepted side of the limit; first what has no change."""
        if check.change is None:
            return -math.inf
        return check.change - self.limit if self.operator == "<" else self.limit - check.change


def parse_gate(text: str) -> GateCondition:
    """Read a gate from the command line.

    Raises:
        UserError: it has another form, an unknown metric or a unit that the metric does not have.
    """
    match = GATE.fullmatch(text)
    if match is None:
        raise UserError(
            f"Cannot read the gate {text!r}.",
            where="--fail-if",
            fix=f"write METRIC<CHANGE or METRIC>CHANGE with % or pp: {GATE_EXAMPLES}",
        )
    name = match["name"]
    metric = SHORT_NAMES.get(name, name)
    _check_metric(name, metric, match["unit"])
    place = match["place"]
    batch_size = None
    if place is not None and place != EVALUATION:
        if not place.isdigit():
            raise UserError(
                f"The gate {text!r} names no place: {place!r}.",
                where="--fail-if",
                fix=f"write @ and a batch size, or @{EVALUATION}",
            )
        batch_size = int(place)
    return GateCondition(
        text=text.strip(),
        metric=metric,
        batch_size=batch_size,
        only_evaluation=place == EVALUATION,
        operator="<" if match["operator"] == "<" else ">",
        limit=float(match["number"]),
        unit="pp" if match["unit"] == "pp" else "%",
    )


def _check_metric(name: str, metric: str, unit: str) -> None:
    known = [*metric_names(("sweep", "evaluation", "run")), *QUALITY_NAMES]
    if metric not in known:
        names = [*SHORT_NAMES, *known]
        close = difflib.get_close_matches(name, names, n=1)
        fix = f"did you mean {close[0]}?" if close else f"use one of: {', '.join(names)}"
        raise UserError(f"A gate names no metric: {name!r}.", where="--fail-if", fix=fix)
    expected = "pp" if metric in QUALITY_NAMES else "%"
    if unit != expected:
        raise UserError(
            f"A gate on {name} is in {expected}, not in {unit}.",
            where="--fail-if",
            fix=f"for example: {GATE_EXAMPLES}",
        )


QualityOf = Callable[[str], QualityChange | str]
"""For a metric of quality: its change, or why it has none."""


def check_gate(
    condition: GateCondition,
    metrics: Sequence[MetricComparison],
    status_changes: Sequence[StatusChange],
    quality_of: QualityOf,
) -> Gate:
    """Check a gate on every value that it is about.

    It is violated where the condition holds for at least one value, with a probability of error of
    5% over all of them (Bonferroni). It is passed where for each value the opposite is shown, each
    at 5%: the claim needs all of them (intersection-union test).
    """
    if condition.is_quality:
        checks = [_check_quality(condition, quality_of)]
    else:
        checks = _check_metrics(condition, metrics)
        checks += _check_unfinished(condition, status_changes)
    if not checks:
        reason = "not compared at any place"
        checks = [GateCheck(place="none", result="undecided", reason=reason)]
    checks.sort(key=condition.distance)
    return Gate(condition=condition.text, result=_worst(checks), checks=tuple(checks))


def _worst(checks: Sequence[GateCheck]) -> GateResult:
    results = {check.result for check in checks}
    if "violated" in results:
        return "violated"
    if "undecided" in results:
        return "undecided"
    return "passed"


def _check_quality(condition: GateCondition, quality_of: QualityOf) -> GateCheck:
    place = "complete data set"
    known = quality_of(condition.metric)
    if isinstance(known, str):
        return GateCheck(place=place, result="undecided", reason=known)
    change, (low, high), chance = known
    interval = (100 * low, 100 * high)
    if all(condition.holds(end) for end in interval):
        result: GateResult = "violated"
        reason = "the 95% interval lies beyond the limit"
        if chance is not None:
            result = "undecided"
            reason = chance
    elif not any(condition.holds(end) for end in interval):
        result = "passed"
        reason = "the 95% interval lies on the accepted side of the limit"
    else:
        result = "undecided"
        reason = "the limit lies inside the 95% interval"
    return GateCheck(place=place, result=result, change=100 * change, ci95=interval, reason=reason)


def _check_metrics(
    condition: GateCondition, metrics: Sequence[MetricComparison]
) -> list[GateCheck]:
    items = []
    for item in metrics:
        is_measured = item.baseline is not None or item.candidate is not None
        if condition.applies_to(item) and is_measured:
            items.append(item)
    return [_check_metric_item(condition, item, len(items)) for item in items]


def _check_metric_item(condition: GateCondition, item: MetricComparison, count: int) -> GateCheck:
    """Check one value of ``count``."""
    place = place_of(item)
    if item.effect is None or item.effect.ratio is None:
        reason = item.reason or "there is no ratio"
        return GateCheck(place=place, result="undecided", reason=reason)
    effect = item.effect
    change = 100 * (item.effect.ratio - 1)
    interval = None
    if effect.ci95 is not None:
        interval = (100 * (effect.ci95[0] - 1), 100 * (effect.ci95[1] - 1))
    result, reason = _decide(condition, effect, change, count)
    return GateCheck(place=place, result=result, change=change, ci95=interval, reason=reason)


def _decide(
    condition: GateCondition, effect: Effect, change: float, count: int
) -> tuple[GateResult, str]:
    if effect.interval_from == "none":
        return "undecided", effect.no_interval or "there is no interval"
    if not effect.standard_error:
        result: GateResult = "violated" if condition.holds(change) else "passed"
        return result, "the values are exact"
    p_holds = _probability_beyond(condition, effect)
    if p_holds >= 1 - ALPHA / count:
        return "violated", f"beyond the limit with a confidence of {p_holds:.1%}"
    if 1 - p_holds >= 1 - ALPHA:
        return "passed", f"on the accepted side with a confidence of {1 - p_holds:.1%}"
    return "undecided", "the limit cannot be told from the measured change with confidence"


def _probability_beyond(condition: GateCondition, effect: Effect) -> float:
    """1 less the p value of the test that the true change is on the accepted side."""
    assert effect.ratio is not None and effect.standard_error
    limit = 1 + condition.limit / 100
    if limit <= 0:
        # A ratio of positive values is above 0.
        return 0.0 if condition.operator == "<" else 1.0
    statistic = (math.log(limit) - math.log(effect.ratio)) / effect.standard_error
    if condition.operator == ">":
        statistic = -statistic
    if effect.degrees_of_freedom is None:
        return float(stats.norm.cdf(statistic))
    return float(stats.t.cdf(statistic, effect.degrees_of_freedom))


def _check_unfinished(
    condition: GateCondition, status_changes: Sequence[StatusChange]
) -> list[GateCheck]:
    """A batch size that the candidate did not finish, while the baseline did, passes no gate."""
    checks: list[GateCheck] = []
    if condition.only_evaluation or condition.metric not in metric_names(("sweep",)):
        return checks
    for change in status_changes:
        is_asked = condition.batch_size in (None, change.batch_size)
        if is_asked and change.baseline == "ok":
            checks.append(
                GateCheck(
                    place=f"batch size {change.batch_size}",
                    result="undecided",
                    reason=f"the candidate did not finish it ({change.candidate})",
                )
            )
    return checks


def place_of(item: MetricComparison) -> str:
    """What a compared value is of, in words."""
    if item.scope == "evaluation":
        return "complete data set"
    if item.scope == "run":
        return "process"
    return f"batch size {item.batch_size}"

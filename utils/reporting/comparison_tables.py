"""The tables of a comparison: what each cell says, for terminal, Markdown and page alike."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from utils.core.rounding import round_interval, round_value
from utils.reporting.formatting import DASH, format_change, format_change_interval, format_number
from utils.reporting.tables import STATUSES, Table
from utils.schema.comparison import (
    Comparison,
    CostComparison,
    Gate,
    GateCheck,
    MetricComparison,
)

MAX_DIFFERENCES_WIDTH = 60
"""Characters of a value that differs; longer ones are shortened in the middle of the list."""
NOT_FINISHED = {**STATUSES, "not measured": "not measured"}
FORCED = " (forced)"
"""Mark of a verdict that is shown although the comparison is refused."""


def difference_table(comparison: Comparison) -> Table | None:
    """What differs apart from the results; None where nothing does."""
    rows = []
    for item in comparison.differences:
        cells = (item.category, item.name, _short(item.baseline), _short(item.candidate))
        rows.append(cells)
    if not rows:
        return None
    return Table(
        caption="Not the same on both sides",
        header=("Of", "What", "Baseline", "Candidate"),
        rows=tuple(rows),
        num_text_columns=4,
    )


def _short(value: str) -> str:
    if len(value) <= MAX_DIFFERENCES_WIDTH:
        return value
    return f"{value[: MAX_DIFFERENCES_WIDTH - 1]}…"


def metrics_with_values(comparison: Comparison) -> list[str]:
    """The names of the metrics that any place has a value of, in the order of the record."""
    names: dict[str, None] = {}
    for item in comparison.metrics:
        if item.baseline is not None or item.candidate is not None:
            names[item.metric] = None
    return list(names)


def metric_table(comparison: Comparison, name: str) -> Table:
    """One metric at all places: batch sizes, the complete data set."""
    items = []
    for item in comparison.metrics:
        is_measured = item.baseline is not None or item.candidate is not None
        if item.metric == name and is_measured:
            items.append(item)
    has_samples = len({item.sample_size for item in items} - {None}) > 1
    rows = []
    for item in items:
        rows.append((place_name(item, with_sample=has_samples), *_metric_cells(item)))
    label = items[0].label
    return Table(
        caption=f"{label[0].upper()}{label[1:]} ({items[0].unit})",
        header=("Where", "Baseline", "Candidate", "Ratio", "95% interval", "Verdict"),
        rows=tuple(rows),
        note="; ".join(_refusal_notes(items)),
    )


def _refusal_notes(items: Iterable[MetricComparison]) -> list[str]:
    """Why values cannot be compared, each reason once."""
    reasons: dict[str, None] = {}
    for item in items:
        if item.reason is not None:
            reasons[item.reason] = None
    return list(reasons)


def _metric_cells(item: MetricComparison) -> tuple[str, ...]:
    ratio = DASH
    interval = DASH
    if item.effect is not None:
        ratio = format_ratio(item.effect.ratio, item.effect.ci95)
        interval = format_ratio_interval(item.effect.ci95)
        if item.effect.interval_from == "exact":
            interval = "exact"
    return (
        format_number(item.baseline),
        format_number(item.candidate),
        ratio,
        interval,
        verdict_text(item),
    )


def verdict_text(item: MetricComparison) -> str:
    """The verdict of a metric, or that it is refused."""
    if item.verdict is None:
        return "not compared"
    return f"{item.verdict}{FORCED}" if item.forced else item.verdict


def place_name(item: MetricComparison | CostComparison, *, with_sample: bool = False) -> str:
    """What a value is of: a batch size, the complete data set, the process."""
    if item.scope == "evaluation":
        return "data set"
    if item.scope == "run":
        return "process"
    name = f"batch {item.batch_size}"
    return f"{name} of {item.sample_size}" if with_sample else name


def format_ratio(ratio: float | None, interval: tuple[float, float] | None = None) -> str:
    """A ratio in the digits that its 95% interval allows; without one in three."""
    if ratio is None:
        return DASH
    low, high = interval or (None, None)
    return round_value(ratio, low, high).value


def format_ratio_interval(interval: tuple[float, float] | None) -> str:
    """The two ends of an interval of a ratio."""
    if interval is None:
        return DASH
    return round_interval(*interval)


def status_table(comparison: Comparison) -> Table | None:
    """Batch sizes that one side did not finish; None where there are none."""
    rows = []
    for item in comparison.status_changes:
        before = NOT_FINISHED.get(item.baseline, item.baseline)
        after = NOT_FINISHED.get(item.candidate, item.candidate)
        rows.append((f"{item.batch_size} of {item.sample_size}", before, after))
    if not rows:
        return None
    return Table(
        caption="Batch sizes without a comparison",
        header=("Batch size of sample", "Baseline", "Candidate"),
        rows=tuple(rows),
        num_text_columns=3,
    )


def cost_table(comparison: Comparison) -> Table | None:
    """Money and energy for a million samples; None where neither is known."""
    if not comparison.costs:
        return None
    has_samples = len({item.sample_size for item in comparison.costs} - {None}) > 1
    rows = []
    for item in comparison.costs:
        rows.append(
            (
                place_name(item, with_sample=has_samples),
                format_number(item.baseline_usd),
                format_number(item.candidate_usd),
                format_number(item.baseline_kwh),
                format_number(item.candidate_kwh),
            )
        )
    return Table(
        caption=f"A million samples; {_price_text(comparison)}",
        header=("Where", "Base USD", "Cand. USD", "Base kWh", "Cand. kWh"),
        rows=tuple(rows),
    )


def _price_text(comparison: Comparison) -> str:
    before = comparison.prices.baseline_usd_per_hour
    after = comparison.prices.candidate_usd_per_hour
    if before is None and after is None:
        return "no price was given (--price, cost.gpu_price_per_hour_usd)"
    if before == after:
        return f"a GPU at {format_number(before)} USD per hour"
    return (
        f"a GPU at {format_number(before)} USD per hour in the baseline, "
        f"{format_number(after)} in the candidate"
    )


def format_signed(value: float) -> str:
    """A difference with its sign; 0 has none."""
    if value == 0:
        return "0"
    sign = "+" if value > 0 else "-"
    return f"{sign}{format_number(abs(value))}"


def gate_table(gates: Sequence[Gate]) -> Table | None:
    """The gates, each with the values that decided; None without gates."""
    rows = []
    for gate in gates:
        for check in _deciding_checks(gate):
            rows.append((gate.condition, check.result, check.place, *_change_cells(gate, check)))
    if not rows:
        return None
    return Table(
        caption="Gates, with the values that decided",
        header=("Gate", "Result", "Where", "Change", "95% interval"),
        rows=tuple(rows),
        num_text_columns=3,
    )


def _deciding_checks(gate: Gate) -> Sequence[GateCheck]:
    """The checks that gave the result; of a gate that is passed the one closest to the limit."""
    if gate.result == "passed":
        return gate.checks[:1]
    return [check for check in gate.checks if check.result == gate.result]


def _change_cells(gate: Gate, check: GateCheck) -> tuple[str, str]:
    """The change with its interval, in the unit of the gate: percent or percentage points."""
    if check.change is None:
        return DASH, DASH
    unit = "pp" if gate.condition.endswith("pp") else "%"
    return format_change(check.change, check.ci95, unit), format_change_interval(check.ci95)


def gate_notes(gates: Sequence[Gate]) -> list[str]:
    """Why gates cannot be decided: each reason once, with the places that it holds for."""
    notes = []
    for gate in gates:
        places: dict[str, list[str]] = {}
        for check in gate.checks:
            if check.result == gate.result == "undecided":
                places.setdefault(check.reason, []).append(check.place)
        for reason, named in places.items():
            notes.append(f"{gate.condition} at {', '.join(named)}: {reason}")
    return notes

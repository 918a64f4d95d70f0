"""The tables of a comparison that say where the time went, and what limits each batch size."""

from __future__ import annotations

from utils.reporting.comparison_tables import (
    format_ratio,
    format_ratio_interval,
    format_signed,
)
from utils.reporting.formatting import DASH, format_number
from utils.reporting.tables import Table
from utils.schema.comparison import Comparison
from utils.schema.comparison_diagnosis import TimeBreakdown

MAX_PARTS_SHOWN = 15
BREAKDOWN_TITLES = {
    "phases": "Phases of a batch",
    "operators": "Operators, own time in the traced run",
    "kernels": "Kernels of the GPU in the traced run",
    "modules": "Modules of the model, own time in the traced run",
}


def main_breakdowns(comparison: Comparison) -> list[TimeBreakdown]:
    """Every breakdown, but of the phases only the batch size that the trace is of.

    Without a trace it is the batch size whose phases changed most.
    """
    traced: list[TimeBreakdown] = []
    phases: list[TimeBreakdown] = []
    for breakdown in comparison.diagnosis.breakdowns:
        group = phases if breakdown.level == "phases" else traced
        group.append(breakdown)
    traced_sizes = {breakdown.batch_size for breakdown in traced}
    chosen = [breakdown for breakdown in phases if breakdown.batch_size in traced_sizes]
    if phases and not chosen:
        chosen = [max(phases, key=_largest_difference)]
    return [*chosen, *traced]


def _largest_difference(breakdown: TimeBreakdown) -> float:
    return max((abs(change.difference_ms) for change in breakdown.changes), default=0.0)


def breakdown_table(breakdown: TimeBreakdown, max_parts: int = MAX_PARTS_SHOWN) -> Table:
    """Where the time of a batch went, the largest difference first."""
    rows = []
    for change in breakdown.changes[:max_parts]:
        rows.append(
            (
                change.name,
                format_number(change.baseline_ms),
                format_number(change.candidate_ms),
                format_signed(change.difference_ms),
                format_ratio(change.ratio),
            )
        )
    total_difference = breakdown.candidate_total_ms - breakdown.baseline_total_ms
    shown = min(max_parts, len(breakdown.changes))
    note = ""
    if shown < breakdown.num_parts:
        note = f"the {shown} largest differences of {breakdown.num_parts} parts"
    return Table(
        caption=(
            f"{BREAKDOWN_TITLES[breakdown.level]}, batch size {breakdown.batch_size}: "
            f"{format_number(breakdown.baseline_total_ms)} to "
            f"{format_number(breakdown.candidate_total_ms)} ms "
            f"({format_signed(total_difference)} ms)"
        ),
        header=("Part", "Base (ms)", "Cand. (ms)", "Change", "Ratio"),
        rows=tuple(rows),
        note=note,
    )


def verdict_change_table(comparison: Comparison) -> Table | None:
    """What limits each batch size on both sides; None where no side has a diagnosis."""
    rows = []
    for item in comparison.diagnosis.verdicts:
        mark = "changed" if item.changed else ""
        rows.append((str(item.batch_size), item.baseline or DASH, item.candidate or DASH, mark))
    if not rows:
        return None
    return Table(
        caption="What limits each batch size",
        header=("Batch", "Baseline", "Candidate", ""),
        rows=tuple(rows),
        num_text_columns=4,
    )


def suggestion_table(comparison: Comparison) -> Table | None:
    """What became of suggestions that the candidate follows; None where it follows none."""
    rows = []
    for item in comparison.diagnosis.suggestions:
        bound = "at most " if item.is_upper_bound else ""
        rows.append(
            (
                item.setting,
                f"{bound}{format_ratio(item.predicted_speedup)}",
                format_ratio(item.measured_speedup, item.speedup_ci95),
                format_ratio_interval(item.speedup_ci95),
                item.outcome,
            )
        )
    if not rows:
        return None
    return Table(
        caption="Suggestions of the baseline that the candidate follows: speed-up",
        header=("Setting", "Predicted", "Measured", "95% interval", "Outcome"),
        rows=tuple(rows),
        note=_other_changes_note(comparison),
    )


def _other_changes_note(comparison: Comparison) -> str:
    most = max(item.num_other_changes for item in comparison.diagnosis.suggestions)
    if not most:
        return ""
    settings = "setting" if most == 1 else "settings"
    return f"the candidate changes {most} other {settings} too, so that not all follows from one"

"""A comparison for the terminal: text of at most 80 columns."""

from __future__ import annotations

from utils.reporting.comparison_facts import (
    SPEED,
    conclusion_facts,
    inconclusive_notes,
    reading_notes,
    side_facts,
)
from utils.reporting.comparison_quality import (
    changed_row_table,
    class_table,
    quality_facts,
    score_table,
)
from utils.reporting.comparison_tables import (
    cost_table,
    difference_table,
    gate_notes,
    gate_table,
    metric_table,
    metrics_with_values,
    status_table,
)
from utils.reporting.comparison_time_tables import (
    breakdown_table,
    main_breakdowns,
    suggestion_table,
    verdict_change_table,
)
from utils.reporting.tables import Table
from utils.reporting.text_layout import TextLayout, section
from utils.schema.comparison import Comparison
from utils.schema.warning_codes import sentences_of

LAYOUT = TextLayout(width=80)
MAX_PARTS = 5
"""Rows of a table of times or of changed rows; the page has more."""
SHOWN_METRICS = (SPEED, "latency_per_batch_ms_p95", "peak_gpu_mem", "energy_per_sample_j")
"""Metrics that are always shown; others only where they differ, if they say something else."""
RESTATED = (
    "latency_per_sample_ms",
    "latency_per_batch_ms",
    "throughput_tokens_per_sec",
    "latency_per_batch_ms_p90",
    "latency_per_batch_ms_p99",
)
"""Metrics that say much the same as those that are shown; the page has them."""
DIFFERENT = ("faster", "slower", "less", "more")


def render_text(comparison: Comparison) -> str:
    """The comparison as text: what differs first, then the conclusion, then the tables."""
    parts = [
        section("What is compared", LAYOUT.facts(side_facts(comparison), 12)),
        section("What differs", _differences(comparison)),
        section("Conclusion", LAYOUT.facts(conclusion_facts(comparison), 16)),
    ]
    for title, lines in _details(comparison).items():
        if lines:
            parts.append(section(title, lines))
    return "\n\n".join(parts) + "\n"


def _details(comparison: Comparison) -> dict[str, list[str]]:
    """The lines of each section after the conclusion; empty where there is nothing to say."""
    return {
        "Gates": [
            *_tables([gate_table(comparison.gates)]),
            *LAYOUT.bullets(gate_notes(comparison.gates)),
        ],
        "Metrics": _metrics(comparison),
        "Quality": _quality(comparison),
        "Where the time went": _diagnosis(comparison),
        "Cost": _tables([cost_table(comparison)]),
        "Warnings": LAYOUT.bullets(sentences_of(comparison.warnings)),
        "How to read this": LAYOUT.bullets(reading_notes(comparison)),
    }


def _differences(comparison: Comparison) -> list[str]:
    lines = _tables([difference_table(comparison)]) or ["nothing but the results"]
    for refusal in comparison.refusals:
        verb = "Compared all the same (--force)" if refusal.forced else "Not compared"
        lines += LAYOUT.wrap(f"{verb}: {refusal.metrics}. Reason: {refusal.reason}.", "! ", "  ")
    return lines


def _metrics(comparison: Comparison) -> list[str]:
    tables: list[Table | None] = []
    for name in metrics_with_values(comparison):
        is_other = name not in SHOWN_METRICS and name not in RESTATED
        if name in SHOWN_METRICS or (is_other and _differs(comparison, name)):
            tables.append(metric_table(comparison, name))
    tables.append(status_table(comparison))
    lines = _tables(tables)
    notes = LAYOUT.bullets(inconclusive_notes(comparison, SHOWN_METRICS))
    if notes:
        lines += ["", "Inconclusive:", *notes]
    return lines


def _differs(comparison: Comparison, name: str) -> bool:
    verdicts = {item.verdict for item in comparison.metrics if item.metric == name}
    return not verdicts.isdisjoint(DIFFERENT)


def _quality(comparison: Comparison) -> list[str]:
    lines = LAYOUT.facts(quality_facts(comparison), 22)
    tables = [
        score_table(comparison),
        class_table(comparison),
        changed_row_table(comparison, MAX_PARTS),
    ]
    if any(table is not None for table in tables):
        lines += ["", *_tables(tables)]
    return lines


def _diagnosis(comparison: Comparison) -> list[str]:
    tables = [suggestion_table(comparison), verdict_change_table(comparison)]
    for breakdown in main_breakdowns(comparison):
        tables.append(breakdown_table(breakdown, MAX_PARTS))
    lines = _tables(tables)
    for level, reason in comparison.diagnosis.unavailable.items():
        lines += LAYOUT.wrap(f"{level}: {reason}", "- ", "  ")
    return lines


def _tables(tables: list[Table | None]) -> list[str]:
    """The tables that there are, with an empty line between them."""
    lines: list[str] = []
    for table in tables:
        if table is None:
            continue
        if lines:
            lines.append("")
        lines += LAYOUT.table(table)
        if table.note:
            lines += LAYOUT.wrap(f"({table.note})")
    return lines

"""A comparison in Markdown, for a pull request."""

from __future__ import annotations

from collections.abc import Sequence

from utils.reporting.comparison_facts import (
    SPEED,
    conclusion_facts,
    inconclusive_notes,
    reading_notes,
    side_facts,
)
from utils.reporting.comparison_quality import changed_row_table, class_table, score_table
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
from utils.reporting.formatting import Fact
from utils.reporting.tables import Table
from utils.reporting.text_layout import one_line
from utils.schema.comparison import Comparison

MAX_PARTS = 5
SPECIAL = "\\`*_{}[]<>()#!|~$@"
"""Characters that Markdown, or GitHub in it, gives a meaning."""


def render_markdown(comparison: Comparison) -> str:
    """The comparison: conclusion and gates open, the other tables behind summaries."""
    lines = ["## Inference compared with the baseline", ""]
    lines += _facts(conclusion_facts(comparison))
    lines += _facts(side_facts(comparison))
    for refusal in comparison.refusals:
        verb = "Compared all the same (`--force`)" if refusal.forced else "Not compared"
        reason = f"{escape(refusal.metrics)}. Reason: {escape(refusal.reason)}"
        lines += [f"- **{verb}:** {reason}"]
    lines += ["", *_table(gate_table(comparison.gates))]
    lines += [f"- {escape(note)}" for note in gate_notes(comparison.gates)]
    lines.append("")
    if SPEED in metrics_with_values(comparison):
        lines += _table(metric_table(comparison, SPEED))
    lines += [f"- {escape(note)}" for note in inconclusive_notes(comparison)]
    for summary, tables in _folded(comparison).items():
        lines += _details(summary, tables)
    lines += ["", *(f"<sub>{escape(note)}</sub>\n" for note in reading_notes(comparison))]
    return "\n".join(lines).strip() + "\n"


def _folded(comparison: Comparison) -> dict[str, list[Table | None]]:
    """The tables that are folded, by their summary."""
    metrics: list[Table | None] = [status_table(comparison)]
    for name in metrics_with_values(comparison):
        if name != SPEED:
            metrics.append(metric_table(comparison, name))
    times = [suggestion_table(comparison), verdict_change_table(comparison)]
    for breakdown in main_breakdowns(comparison):
        times.append(breakdown_table(breakdown, MAX_PARTS))
    return {
        "What differs": [difference_table(comparison)],
        "All metrics": metrics,
        "Quality": [
            score_table(comparison),
            class_table(comparison),
            changed_row_table(comparison),
        ],
        "Where the time went": times,
        "Cost": [cost_table(comparison)],
    }


def _facts(facts: Sequence[Fact]) -> list[str]:
    return [f"- **{escape(fact.name)}:** {escape(fact.text)}" for fact in facts]


def _details(summary: str, tables: Sequence[Table | None]) -> list[str]:
    body: list[str] = []
    for table in tables:
        body += _table(table)
    if not body:
        return []
    return ["", "<details>", f"<summary>{summary}</summary>", "", *body, "</details>"]


def _table(table: Table | None) -> list[str]:
    """Caption, header and rows; numbers to the right."""
    if table is None:
        return []
    alignments = []
    for index in range(len(table.header)):
        alignments.append("---" if index < table.num_text_columns else "---:")
    lines = [f"**{escape(table.caption)}**", "", _row(table.header), _row_of_marks(alignments)]
    lines += [_row(row) for row in table.rows]
    if table.note:
        lines += ["", escape(table.note)]
    return [*lines, ""]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(escape(cell) for cell in cells)} |"


def _row_of_marks(marks: Sequence[str]) -> str:
    return f"| {' | '.join(marks)} |"


def escape(text: str) -> str:
    """Text of a file, so that none of it is markup, a mention or a link."""
    escaped = []
    for character in one_line(text):
        if character in SPECIAL:
            escaped.append("\\")
        escaped.append(character)
    return "".join(escaped)

"""The report for reading in a terminal: Results in, text of at most 100 columns out."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

from utils.reporting.answers import PAGE_COLUMNS, six_answers
from utils.reporting.commands import STEP_03_MISSING
from utils.reporting.diagnosis_facts import attention_facts
from utils.reporting.diagnosis_lines import suggestion_lines, verified_lines
from utils.reporting.formatting import Fact
from utils.reporting.report_facts import (
    files_facts,
    full_dataset_facts,
    memory_facts,
    padding_facts,
)
from utils.reporting.results import Results
from utils.reporting.run_facts import model_title, run_facts
from utils.reporting.tables import Table, batch_table, sample_table

GAP = "  "
MIN_COLUMN_WIDTH = 8
"""Characters that a shortened column keeps."""


def render_text_report(results: Results) -> str:
    """The content of ``baseline_summary_report.txt``."""
    answers = [Fact(item.question.rstrip("?"), item.answer) for item in six_answers(results)]
    parts = [
        _title(results),
        _section("The six answers", _fact_lines(answers)),
        _section("Run and machine", _fact_lines(run_facts(results))),
        _section("Full Dataset Performance", _fact_lines(full_dataset_facts(results))),
        _section("Batch Size Analysis", _batch_size_lines(results)),
        _section("Main bottleneck", _bottleneck_lines(results)),
        _section("Padding", _fact_lines(padding_facts(results))),
        _section("Memory", _fact_lines(memory_facts(results))),
        _section("Warnings", _bullets(results.warnings) or ["none"]),
        _section(
            "Where the files lie (beside this report)",
            _fact_lines(files_facts(results), name_columns=32),
        ),
    ]
    return "\n\n".join(parts) + "\n"


def _title(results: Results) -> str:
    rule = "=" * PAGE_COLUMNS
    model = f"Model: {model_title(results.metrics.model_info)}"
    lines = [
        rule,
        "BASELINE SUMMARY REPORT: what was measured, and what holds it back",
        *_wrap(model, "", " " * len("Model: ")),
        rule,
    ]
    return "\n".join(lines)


def _section(title: str, lines: Sequence[str]) -> str:
    return "\n".join([title, "-" * len(title), *lines])


def _batch_size_lines(results: Results) -> list[str]:
    best = results.metrics.optimal_batch_size
    if best is None:
        optimal = "none: none finished"
    else:
        optimal = f"batch size {best.batch_size} ({best.criterion})"
    lines = _fact_lines([Fact("Optimal", optimal)])
    for sweep in results.sweeps:
        lines += ["", *_table_lines(batch_table(sweep))]
    samples = sample_table(results)
    if samples is not None:
        lines += ["", *_table_lines(samples)]
    return lines


def _bottleneck_lines(results: Results) -> list[str]:
    if results.diagnosis is None:
        return _wrap(f"Not measured: {STEP_03_MISSING}")
    lines = _wrap(results.diagnosis.main_bottleneck)
    suggestions = suggestion_lines(results.diagnosis)
    for place, suggestion in enumerate(suggestions, start=1):
        lines += _wrap(suggestion, f"{place}. ", "   ")
    if suggestions:
        lines.append("The savings overlap: they do not add up.")
    lines += ["", *_fact_lines(attention_facts(results.diagnosis))]
    verified = verified_lines(results.diagnosis)
    if verified:
        lines += ["", "Tried for real, each alone, on the same texts as the baseline:"]
        lines += _bullets(verified)
    return lines


def _fact_lines(facts: Iterable[Fact], name_columns: int = 20) -> list[str]:
    """``name: value`` lines, with the values in one column."""
    lines = []
    for name, text in facts:
        lines += _wrap(text, f"{name + ':':<{name_columns}} ", " " * (name_columns + 1))
    return lines


def _bullets(texts: Iterable[str]) -> list[str]:
    lines = []
    for text in texts:
        lines += _wrap(text, "- ", "  ")
    return lines


def _wrap(text: str, first_indent: str = "", further_indent: str = "") -> list[str]:
    lines = textwrap.wrap(
        _one_line(text),
        PAGE_COLUMNS,
        initial_indent=first_indent,
        subsequent_indent=further_indent,
    )
    return lines or [first_indent.rstrip()]


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _table_lines(table: Table) -> list[str]:
    """Caption, header, rule and rows in aligned columns."""
    rows = [table.header]
    for row in table.rows:
        rows.append(tuple(_one_line(cell) for cell in row))
    widths = _column_widths(rows)
    header, *body = [_row_line(row, widths, table.num_text_columns) for row in rows]
    rule = "-" * _table_width(widths)
    return [*_wrap(f"{table.caption}:"), header, rule, *body]


def _column_widths(rows: Sequence[Sequence[str]]) -> list[int]:
    """A width for each column; the widest shrink until the table fits onto the page."""
    widths = []
    for column in zip(*rows, strict=True):
        widths.append(max(len(cell) for cell in column))
    while _table_width(widths) > PAGE_COLUMNS and max(widths) > MIN_COLUMN_WIDTH:
        widths[widths.index(max(widths))] -= 1
    return widths


def _table_width(widths: Sequence[int]) -> int:
    return sum(widths) + len(GAP) * (len(widths) - 1)


def _row_line(row: Sequence[str], widths: Sequence[int], num_text_columns: int) -> str:
    """Text to the left, numbers to the right; a cell that is too long ends in an ellipsis."""
    cells = []
    for index, (cell, width) in enumerate(zip(row, widths, strict=True)):
        if len(cell) > width:
            cell = cell[: width - 1] + "…"
        is_text = index < num_text_columns
        cells.append(cell.ljust(width) if is_text else cell.rjust(width))
    return GAP.join(cells).rstrip()

"""The report for reading in a terminal: Results in, text of at most 100 columns out."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable

from utils.reporting import facts, tables
from utils.reporting.answers import WIDTH, six_answers
from utils.reporting.results import STEP_03_MISSING, Results
from utils.reporting.tables import Table

GAP = 2
SHORTEST = 8
"""Columns that a shortened word keeps."""


def summary_report(results: Results) -> str:
    """The whole of ``baseline_summary_report.txt``."""
    rule = "=" * WIDTH
    title = ["BASELINE SUMMARY REPORT: what was measured, and what holds it back"]
    title += _wrap(f"Model: {facts.model_title(results.metrics['model_info'])}", "", " " * 7)
    parts = ["\n".join([rule, *title, rule])]
    sections = {
        "The six answers": _pairs(
            (question.rstrip("?"), answer) for question, answer, _ in six_answers(results)
        ),
        "Run and machine": _pairs(facts.run_facts(results)),
        "Full Dataset Performance": _pairs(facts.full_facts(results)),
        "Batch Size Analysis": _batch_sizes(results),
        "Main bottleneck": _bottleneck(results),
        "Padding": _pairs(facts.padding_facts(results)),
        "Memory": _pairs(facts.memory_facts(results)),
        "Warnings": _bullets(results.warnings) or ["none"],
        "Where the files lie (beside this report)": _pairs(facts.files_facts(results), indent=32),
    }
    parts += ["\n".join([name, "-" * len(name), *lines]) for name, lines in sections.items()]
    return "\n\n".join(parts) + "\n"


def _batch_sizes(results: Results) -> list[str]:
    best = results.metrics["optimal_batch_size"]
    lines = _pairs(
        [
            (
                "Optimal",
                f"batch size {best['batch_size']} ({best['criterion']})"
                if best
                else "none: none finished",
            )
        ]
    )
    for table in (*map(tables.batch_table, results.sweeps), tables.sample_table(results)):
        lines += ["", *_table(table)] if table else []
    return lines


def _bottleneck(results: Results) -> list[str]:
    if results.diagnosis is None:
        return _wrap(f"Not measured: {STEP_03_MISSING}")
    lines = _wrap(results.diagnosis["main_bottleneck"])
    suggestions = tables.suggestion_lines(results.diagnosis)
    for place, suggestion in enumerate(suggestions, start=1):
        lines += _wrap(suggestion, f"{place}. ", "   ")
    if suggestions:
        lines.append("The savings overlap: they do not add up.")
    tried = tables.verified_lines(results.diagnosis)
    if tried:
        lines += [
            "",
            "Tried for real, each alone, on the same texts as the baseline:",
            *_bullets(tried),
        ]
    return lines


def _pairs(pairs: Iterable[tuple[str, str]], indent: int = 20) -> list[str]:
    """``name: value`` lines, the values in one column."""
    return [
        line
        for name, value in pairs
        for line in _wrap(value, f"{name + ':':<{indent}} ", " " * (indent + 1))
    ]


def _bullets(texts: Iterable[str]) -> list[str]:
    return [line for text in texts for line in _wrap(text, "- ", "  ")]


def _wrap(text: str, first: str = "", rest: str = "") -> list[str]:
    return textwrap.wrap(
        " ".join(text.split()), WIDTH, initial_indent=first, subsequent_indent=rest
    ) or [first.rstrip()]


def _table(table: Table) -> list[str]:
    """Caption, header, rule and rows in aligned columns; where they are too wide for the page, the widest give way."""
    cells = [table.header, *([" ".join(cell.split()) for cell in row] for row in table.rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    gaps = GAP * (len(widths) - 1)
    while sum(widths) + gaps > WIDTH and max(widths) > SHORTEST:
        widths[widths.index(max(widths))] -= 1
    lines = []
    for row in cells:
        shown = [
            cell if len(cell) <= width else cell[: width - 1] + "…"
            for cell, width in zip(row, widths, strict=True)
        ]
        aligned = [
            cell.ljust(width) if i < table.words else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(shown, widths, strict=True))
        ]
        lines.append((" " * GAP).join(aligned).rstrip())
    return [*_wrap(f"{table.caption}:"), lines[0], "-" * (sum(widths) + gaps), *lines[1:]]

"""The report for reading in a terminal: Results in, text of at most 100 columns out."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable

from utils.reporting import tables
from utils.reporting.answers import WIDTH, six_answers
from utils.reporting.results import STEP_03_MISSING, Results
from utils.reporting.tables import Table

INDENT = 20
GAP = 2
SHORTEST = 8
"""Columns that a shortened word keeps."""


def summary_report(results: Results) -> str:
    """The whole of ``baseline_summary_report.txt``."""
    rule = "=" * WIDTH
    parts = [f"{rule}\nBASELINE SUMMARY REPORT: what was measured, and what holds it back\n{rule}"]
    sections: list[tuple[str, Iterable[str]]] = [
        ("The six answers", facts((question, answer) for question, answer, _ in six_answers(results))),
        ("Run and machine", facts(tables.run_facts(results))),
        ("Full Dataset Performance", facts(tables.full_facts(results))),
        ("Batch Size Analysis", _batch_sizes(results)),
        ("Main bottleneck", _bottleneck(results)),
        ("Padding", facts(tables.padding_facts(results))),
        ("Memory", facts(tables.memory_facts(results))),
        ("Warnings", bullets(results.warnings) or ["none"]),
        ("Where the files lie (beside this report)", facts(tables.files_facts(results), indent=32)),
    ]
    parts += ["\n".join([title, "-" * len(title), *lines]) for title, lines in sections]
    return "\n\n".join(parts) + "\n"


def facts(pairs: Iterable[tuple[str, str]], indent: int = INDENT) -> list[str]:
    """``name: value`` lines, the values in one column."""
    return [line for name, value in pairs for line in _wrap(value, f"{name + ':':<{indent}} ", " " * (indent + 1))]


def bullets(texts: Iterable[str]) -> list[str]:
    """One wrapped item a text."""
    return [line for text in texts for line in _wrap(text, "- ", "  ")]


def table_lines(table: Table) -> list[str]:
    """Caption, header, rule and rows in aligned columns; cells too wide for the page are shortened."""
    cells = [table.header, *([_flat(cell) for cell in row] for row in table.rows)]
    widths = _widths([max(len(row[i]) for row in cells) for i in range(len(table.header))])
    lines = [_line(row, widths, table.words) for row in cells]
    return [*_wrap(f"{table.caption}:", "", ""), lines[0], "-" * (sum(widths) + GAP * (len(widths) - 1)), *lines[1:]]


def _batch_sizes(results: Results) -> list[str]:
    best = results.metrics["optimal_batch_size"]
    lines = facts([("Optimal", f"batch size {best['batch_size']} ({best['criterion']})" if best else "none: none finished")])
    for sweep in results.sweeps:
        lines += ["", *table_lines(tables.batch_table(sweep))]
    dependence = tables.sample_table(results)
    return [*lines, "", *table_lines(dependence)] if dependence else lines


def _bottleneck(results: Results) -> list[str]:
    if results.diagnosis is None:
        return _wrap(f"Not measured: {STEP_03_MISSING}", "", "")
    lines = _wrap(str(results.diagnosis["main_bottleneck"]), "", "")
    wins = tables.wins(results.diagnosis)
    for place, win in enumerate(wins, start=1):
        lines += _wrap(win, f"{place}. ", "   ")
    lines += ["The wins overlap: they do not add up."] if wins else []
    if tried := tables.verified_lines(results.diagnosis):
        lines += ["", "Tried for real, each alone, on the same texts as the baseline:", *bullets(tried)]
    return lines


def _flat(text: str) -> str:
    return " ".join(text.split())


def _wrap(text: str, first: str, rest: str) -> list[str]:
    return textwrap.wrap(_flat(text), WIDTH, initial_indent=first, subsequent_indent=rest) or [first.rstrip()]


def _widths(wanted: list[int]) -> list[int]:
    """Column widths that fit the page: the widest give way."""
    widths = list(wanted)
    while sum(widths) + GAP * (len(widths) - 1) > WIDTH and max(widths) > SHORTEST:
        widths[widths.index(max(widths))] -= 1
    return widths


def _line(cells: Iterable[str], widths: list[int], words: int) -> str:
    shown = [cell if len(cell) <= width else cell[: width - 1] + "…" for cell, width in zip(cells, widths, strict=True)]
    aligned = [f"{cell:<{w}}" if i < words else f"{cell:>{w}}" for i, (cell, w) in enumerate(zip(shown, widths, strict=True))]
    return (" " * GAP).join(aligned).rstrip()

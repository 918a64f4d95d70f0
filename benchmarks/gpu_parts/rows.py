"""Rows from what a benchmark or the tests left behind."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

from benchmarks import common
from benchmarks.common import Row


def benchmark_rows(name: str, file: Path, code: int) -> list[Row]:
    """The rows that a benchmark wrote, under its name; one miss where it wrote none."""
    rows = []
    if file.exists():
        rows = common.read_rows(file)
    if not rows:
        return [_nothing_left(name, "its rows", code)]
    return [replace(row, check=f"{name}: {row.check}") for row in rows]


def rows_of_tests(report: Path, code: int) -> list[Row]:
    """How many tests passed, failed and were skipped; skipped tests have not passed."""
    name = "tests/gpu"
    if not report.exists():
        return [_nothing_left(name, "all pass", code)]
    suites = list(ElementTree.parse(report).iter("testsuite"))

    def count(attribute: str) -> int:
        return sum(int(suite.get(attribute, 0)) for suite in suites)

    failed = count("failures") + count("errors")
    skipped = count("skipped")
    passed = count("tests") - failed - skipped
    if failed:
        measured = f"{passed} passed, {failed} failed, {skipped} skipped"
        return [common.checked(name, False, expected="all pass", measured=measured)]
    if passed:
        measured = f"{passed} passed, {skipped} skipped"
        return [common.checked(name, True, expected="all pass", measured=measured)]
    reason = "no tests"
    if skipped:
        reason = f"{skipped} tests, all skipped"
    return [common.not_here(name, reason)]


def _nothing_left(name: str, expected: str, code: int) -> Row:
    return common.checked(
        name, False, expected=expected, measured=f"exit code {code}", note="see log.txt"
    )

"""Rows from what a benchmark or the tests left behind."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

from benchmarks import common
from benchmarks.common import Row

STILL_RUNNING = "still running when this table was written"


def benchmark_rows(name: str, file: Path, code: int | None) -> list[Row]:
    """The rows that a benchmark wrote, under its name; one miss where it wrote none.

    Args:
        code: its process's exit code; None while it runs.
    """
    rows = []
    if file.exists():
        rows = common.read_rows(file)
    if not rows and code is None:
        return [common.not_here(name, STILL_RUNNING)]
    if not rows:
        measured = f"exit code {code}"
        return [
            common.checked(name, False, expected="its rows", measured=measured, note="see log.txt")
        ]
    return [replace(row, check=f"{name}: {row.check}") for row in rows]


def rows_of_tests(report: Path, code: int | None, log: Path, name: str) -> list[Row]:
    """How many tests passed, failed and were skipped; skipped tests have not passed.

    Args:
        report: pytest's XML, written when all tests have ended.
        code: pytest's exit code; None while it runs.
        log: the output of ``pytest -v``, read where there is no report.
        name: of the part.
    """
    # While pytest runs, its report may be half written.
    if code is None or not report.exists():
        return [_unfinished_tests(name, log, code)]
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


def _unfinished_tests(name: str, log: Path, code: int | None) -> Row:
    counts = _counts_in_log(log)
    if code is None:
        return common.not_here(name, ", ".join([STILL_RUNNING, *counts]))
    measured = ", ".join([f"exit code {code}", *counts])
    return common.checked(
        name, False, expected="all pass", measured=measured, note="not all have run; see log.txt"
    )


def _counts_in_log(log: Path) -> list[str]:
    """How many tests ended how, by the lines that ``pytest -v`` wrote."""
    text = ""
    if log.exists():
        text = log.read_text(encoding="utf-8", errors="replace")
    counts = []
    for word in ("PASSED", "FAILED", "ERROR", "SKIPPED"):
        # The line of a test ends with the result and the progress, in percent.
        number = len(re.findall(rf"^\S+::.* {word}\b", text, re.MULTILINE))
        if number:
            counts.append(f"{number} {word.lower()}")
    return counts

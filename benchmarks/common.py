"""What every benchmark shares: its flags, its rows, its table and its exit code."""

from __future__ import annotations

import argparse
import gc
import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

PASS, MISS, UNDECIDED, REPORTED, NOT_HERE = "pass", "MISS", "undecided", "reported", "not here"
STATUSES = (PASS, MISS, UNDECIDED, REPORTED, NOT_HERE)
COLUMNS = ("check", "expected", "measured", "error", "result")


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One line of a benchmark's table.

    Args:
        status: ``pass`` or ``MISS`` where a bar was held against a figure, ``undecided`` where the machine's noise is too
            large to tell, ``reported`` where there is no bar, ``not here`` where the check did not run.
        note: why it did not run, or what a reader has to know about the figure.
    """

    check: str
    expected: float | str | None = None
    measured: float | str | None = None
    unit: str = ""
    error: str = ""
    status: str
    note: str = ""

    def __post_init__(self) -> None:
        assert self.status in STATUSES, self.status
        assert self.note or self.status != NOT_HERE, "what is not here says why"

    def cells(self) -> tuple[str, ...]:
        """The columns as text."""
        result = f"{self.status}: {self.note}" if self.note else self.status
        return (
            self.check,
            _figure(self.expected, self.unit),
            _figure(self.measured, self.unit),
            self.error,
            result,
        )


def judged(check: str, passed: bool, **figures: Any) -> Row:
    """A row that holds a figure against its bar."""
    return Row(check=check, status=PASS if passed else MISS, **figures)


def within(
    check: str,
    expected: float,
    measured: float | None,
    unit: str,
    *,
    relative: float = 0.0,
    absolute: float = 0.0,
    note: str = "",
) -> Row:
    """Passes where ``measured`` lies within the larger of a share of ``expected`` and ``absolute`` (in ``unit``)."""
    if measured is None:
        return judged(
            check,
            False,
            expected=expected,
            measured="null",
            unit=unit,
            note=note or "nothing was measured",
        )
    difference = measured - expected
    # Rounding of a double, so that a bar of 0 means exact and not bit for bit.
    allowed = max(relative * abs(expected), absolute, 1e-12 * abs(expected))
    error = f"{difference / expected:+.2%}" if expected else f"{difference:+.4g} {unit}".rstrip()
    return judged(
        check,
        abs(difference) <= allowed,
        expected=expected,
        measured=measured,
        unit=unit,
        error=error,
        note=note,
    )


def at_most(check: str, bar: float, measured: float, unit: str, note: str = "") -> Row:
    """Passes where ``measured`` does not exceed ``bar``; the error says how much of the bar is used."""
    return judged(
        check,
        measured <= bar,
        expected=f"<= {_figure(bar, unit)}",
        measured=measured,
        unit=unit,
        error=f"{measured / bar:.0%} of the bar",
        note=note,
    )


def verdict(rounds: Sequence[float], low: float, high: float) -> str:
    """Whether the median over the rounds lies between two bars: yes, no, or too noisy to tell.

    The median's 95% interval is 1.96 x 1.253 standard deviations over the root of n, the deviation being IQR / 1.349: what
    a few disturbed rounds did does not widen it.
    """
    first, middle, third = statistics.quantiles(rounds, n=4)
    half = 1.96 * 1.253 * (third - first) / 1.349 / math.sqrt(len(rounds))
    if low <= middle - half and middle + half <= high:
        return PASS
    return MISS if middle - half > high or middle + half < low else UNDECIDED


def reported(
    check: str, measured: float | str, unit: str = "", note: str = "", **figures: Any
) -> Row:
    """A figure without a bar."""
    return Row(check=check, measured=measured, unit=unit, status=REPORTED, note=note, **figures)


def not_here(check: str, reason: str) -> Row:
    """A check that did not run, and why. It counts neither as passed nor as missed."""
    return Row(check=check, status=NOT_HERE, note=reason)


def table(rows: Sequence[Row]) -> str:
    """All rows in columns as wide as their longest cell; the last column is free."""
    cells = [COLUMNS, *(row.cells() for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(COLUMNS) - 1)]
    lines = [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]])
        for row in cells
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def tally(rows: Sequence[Row]) -> str:
    """How many rows ended how; what did not run is never among the passed."""
    counts = {status: sum(row.status == status for row in rows) for status in STATUSES}
    return (
        f"{counts[PASS]} passed, {counts[MISS]} missed, {counts[UNDECIDED]} undecided, "
        f"{counts[REPORTED]} reported without a bar, {counts[NOT_HERE]} not here"
    )


def exit_code(rows: Sequence[Row]) -> int:
    """1 where a bar was missed, else 0."""
    return int(any(row.status == MISS for row in rows))


def make_parser(description: str, example: str) -> argparse.ArgumentParser:
    """A parser with the flags that every benchmark takes."""
    parser = argparse.ArgumentParser(
        description=description,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--device",
        default="auto",
        choices=("auto", "cpu", "cuda"),
        help="default: a CUDA device if there is one",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="fewer sizes and rounds: shows that it runs, not the figures to keep",
    )
    parser.add_argument(
        "--json",
        type=Path,
        metavar="PATH",
        help="write the rows and the machine's record there too",
    )
    return parser


def add_rounds(parser: argparse.ArgumentParser) -> None:
    """For benchmarks that hold things against each other in turn."""
    parser.add_argument("--rounds", type=int, metavar="N", help="how often each takes its turn")


def run(
    parser: argparse.ArgumentParser,
    body: Callable[[argparse.Namespace], list[Row]],
    argv: Sequence[str] | None = None,
) -> int:
    """Run a benchmark: its rows become a table, a file where one was asked for, and an exit code."""
    args = parser.parse_args(argv)
    started = time.perf_counter()
    gc.freeze()  # the libraries' objects: the profiler collects garbage before each run, and here there are many short ones
    rows = body(args)
    print(table(rows))
    print(f"\n{Path(parser.prog).name}: {tally(rows)}; {time.perf_counter() - started:.0f} s")
    if args.json:
        write_rows(args.json, rows, parser.prog)
    return exit_code(rows)


def write_rows(path: Path, rows: Sequence[Row], name: str) -> None:
    """The rows as JSON, with the machine that they were measured on."""
    from utils.system.environment import read_environment

    payload = {
        "benchmark": Path(name).name,
        "command": " ".join(sys.argv),
        "rows": [asdict(row) for row in rows],
        "environment": read_environment(str(resolve("auto"))).to_dict(),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(payload, indent=1) + "\n", encoding="utf-8")


def read_rows(path: Path) -> list[Row]:
    """The rows that a benchmark wrote with ``--json``."""
    return [Row(**row) for row in json.loads(path.read_text(encoding="utf-8"))["rows"]]


def resolve(name: str) -> Any:
    """The torch device that ``auto``, ``cpu`` or ``cuda`` means; CUDA with its index."""
    from utils.system.device import resolve_device

    return resolve_device(name)


def _figure(value: float | str | None, unit: str) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    whole = isinstance(value, int) or abs(value) >= 1e5
    return f"{value:,.0f} {unit}".rstrip() if whole else f"{value:,.4g} {unit}".rstrip()

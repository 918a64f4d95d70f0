"""What every benchmark shares: its flags, its rows, its table and its exit code."""

from __future__ import annotations

import argparse
import gc
import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

PASS = "pass"
MISS = "MISS"
UNDECIDED = "undecided"
REPORTED = "reported"
NOT_HERE = "not here"
STATUSES = (PASS, MISS, UNDECIDED, REPORTED, NOT_HERE)
COLUMNS = ("check", "expected", "measured", "error", "result")


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One line of a benchmark's table.

    Args:
        status: ``pass`` or ``MISS`` where a value was compared with a bar, ``undecided`` where the
            machine's noise is too large to decide, ``reported`` where there is no bar, ``not here``
            where the check did not run.
        note: why it did not run, or what a reader has to know about the value.
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
            _shown(self.expected, self.unit),
            _shown(self.measured, self.unit),
            self.error,
            result,
        )


def checked(check: str, passed: bool, **values: Any) -> Row:
    """A row of a value that was compared with a bar."""
    return Row(check=check, status=PASS if passed else MISS, **values)


def within(
    check: str,
    expected: float,
    measured: float | None,
    unit: str,
    *,
    relative: float = 0.0,
    absolute: float = 0.0,
) -> Row:
    """Passes where ``measured`` differs from ``expected`` by no more than a bar.

    The bar is the larger of ``relative`` times ``expected`` and ``absolute`` (in ``unit``).
    """
    if measured is None:
        return checked(
            check,
            False,
            expected=expected,
            measured="null",
            unit=unit,
            note="nothing was measured",
        )
    difference = measured - expected
    # Rounding of a double, so that a bar of 0 means exact and not bit for bit.
    allowed = max(relative * abs(expected), absolute, 1e-12 * abs(expected))
    error = f"{difference / expected:+.2%}" if expected else f"{difference:+.4g} {unit}".rstrip()
    return checked(
        check,
        abs(difference) <= allowed,
        expected=expected,
        measured=measured,
        unit=unit,
        error=error,
    )


def at_most(check: str, bar: float, measured: float, unit: str, note: str = "") -> Row:
    """Passes where ``measured`` does not exceed ``bar``; the error is the share of the bar."""
    return checked(
        check,
        measured <= bar,
        expected=f"<= {_shown(bar, unit)}",
        measured=measured,
        unit=unit,
        error=f"{measured / bar:.0%} of the bar",
        note=note,
    )


def verdict(rounds: Sequence[float], low: float, high: float) -> str:
    """Whether the median over the rounds lies between two bars: pass, miss, or undecided.

    The median's 95% interval is 1.96 x 1.253 standard deviations over the root of n, the deviation
    being IQR / 1.349, which a few disturbed rounds do not widen.
    """
    first, middle, third = statistics.quantiles(rounds, n=4)
    half = 1.96 * 1.253 * (third - first) / 1.349 / math.sqrt(len(rounds))
    if low <= middle - half and middle + half <= high:
        return PASS
    return MISS if middle - half > high or middle + half < low else UNDECIDED


def reported(
    check: str, measured: float | str, unit: str = "", note: str = "", **values: Any
) -> Row:
    """A row of a value without a bar."""
    return Row(check=check, measured=measured, unit=unit, status=REPORTED, note=note, **values)


def not_here(check: str, reason: str) -> Row:
    """A check that did not run, and why. It counts neither as passed nor as missed."""
    return Row(check=check, status=NOT_HERE, note=reason)


def table(rows: Sequence[Row]) -> str:
    """All rows in columns as wide as their longest cell; the last column is free."""
    cells = [COLUMNS, *(row.cells() for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(COLUMNS) - 1)]
    lines = []
    for row in cells:
        padded = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        lines.append("  ".join([*padded, row[-1]]))
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
        help="fewer sizes and rounds: shows that it runs, not the values to keep",
    )
    parser.add_argument(
        "--json",
        type=Path,
        metavar="PATH",
        help="write the rows and the machine's record there too",
    )
    return parser


def add_rounds(parser: argparse.ArgumentParser) -> None:
    """For benchmarks that compare things in turn."""
    parser.add_argument("--rounds", type=int, metavar="N", help="how often each takes its turn")


def run(
    parser: argparse.ArgumentParser,
    measure: Callable[[argparse.Namespace], Iterable[Row]],
    argv: Sequence[str] | None = None,
) -> int:
    """Run a benchmark, print its rows as a table, write them if asked for; the exit code.

    Where ``measure`` is a generator, rows are written as they come, so that a benchmark that is
    killed keeps those it has.
    """
    args = parser.parse_args(argv)
    started = time.perf_counter()
    # The profiler collects garbage before each run; without the libraries' objects that is quick.
    gc.freeze()
    rows: list[Row] = []
    environment = read_machine() if args.json else {}
    for row in measure(args):
        rows.append(row)
        if args.json:
            write_rows(args.json, rows, parser.prog, environment)
    print(table(rows))
    print(f"\n{Path(parser.prog).name}: {tally(rows)}; {time.perf_counter() - started:.0f} s")
    if args.json and not rows:
        write_rows(args.json, rows, parser.prog, environment)
    return exit_code(rows)


def read_machine() -> dict[str, Any]:
    """The record of the machine that is measured on."""
    from utils.system.environment import read_environment

    return read_environment(str(resolve("auto"))).to_dict()


def write_rows(
    path: Path, rows: Sequence[Row], name: str, environment: dict[str, Any] | None = None
) -> None:
    """The rows as JSON, with the machine that they were measured on.

    A process that is killed while it writes leaves the file as it was.

    Args:
        environment: from ``read_machine``, which is called where it is None.
    """
    from utils.core.files import atomic_path

    if environment is None:
        environment = read_machine()
    payload = {
        "benchmark": Path(name).name,
        "command": " ".join(sys.argv),
        "rows": [asdict(row) for row in rows],
        "environment": environment,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as unfinished:
        unfinished.write_text(json.dumps(payload, indent=1) + "\n", encoding="utf-8")


def read_rows(path: Path) -> list[Row]:
    """The rows that a benchmark wrote with ``--json``."""
    return [Row(**row) for row in json.loads(path.read_text(encoding="utf-8"))["rows"]]


def resolve(name: str) -> Any:
    """The torch device that ``auto``, ``cpu`` or ``cuda`` means; CUDA with its index."""
    from utils.system.device import resolve_device

    return resolve_device(name)


def _shown(value: float | str | None, unit: str) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    text = f"{value:,.4g}"
    if isinstance(value, int) or abs(value) >= 1e5:
        text = f"{value:,.0f}"
    return f"{text} {unit}".rstrip()

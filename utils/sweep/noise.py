"""Whether a sweep ran on a machine that was too busy for its times to be relied on."""

from __future__ import annotations

from collections.abc import Sequence

from utils.schema.batch_size import BatchSizeRow
from utils.schema.warning_codes import WarningCode, code_of

CPU_WAIT_LIMIT = 0.05
"""Share of its runnable time that a process may wait for a CPU; above, latency shows the wait."""

DISTURBED = (
    WarningCode.SPREAD,
    WarningCode.DRIFT,
    WarningCode.SHARED,
    WarningCode.THROTTLED,
    WarningCode.CPU_WAIT,
)
"""Warnings of a row whose runs were not equally fast, or not alone on the machine."""


def is_noisy(rows: Sequence[BatchSizeRow]) -> bool:
    """Whether no batch size is stable, although the stability of some is known."""
    known = [row.stable for row in rows if row.stable is not None]
    return bool(known) and not any(known)


def noise_text(rows: Sequence[BatchSizeRow]) -> str:
    """What a reader has to know first where no batch size is stable; empty otherwise."""
    if not is_noisy(rows):
        return ""
    wait = largest_wait(rows)
    if wait is not None and wait > CPU_WAIT_LIMIT:
        reason = f"threads waited for a CPU in up to {wait:.0%} of their time"
    elif has_only_few_runs(rows):
        return "Too few or too short runs: no time is known to be stable; treat all as rough."
    else:
        reason = "at no batch size were the repeated runs equally fast"
    return f"The machine was too busy: {reason}; treat all times as rough."


def has_only_few_runs(rows: Sequence[BatchSizeRow]) -> bool:
    """Whether nothing but the number or the length of the runs makes the rows unstable."""
    wait = largest_wait(rows)
    if wait is not None and wait > CPU_WAIT_LIMIT:
        return False
    codes: set[WarningCode | None] = set()
    for row in rows:
        codes.update(code_of(warning) for warning in row.warnings)
    return WarningCode.FEW_RUNS in codes and codes.isdisjoint(DISTURBED)


def largest_wait(rows: Sequence[BatchSizeRow]) -> float | None:
    """The largest share of time in which threads waited for a CPU; None where it is not known."""
    waits = [row.cpu_wait_fraction for row in rows if row.cpu_wait_fraction is not None]
    return max(waits, default=None)

"""Operators: what they took beside what they had to do."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from typing import Any

from utils.analysis.roofline import Ceilings
from utils.analysis.tracing import OperatorTime
from utils.costs import OperatorCost, Shapes


@dataclass(frozen=True, kw_only=True, slots=True)
class OperatorRow:
    """One row of ``operators.csv``; calls, times, FLOPs, bytes and memory are per batch.

    FLOPs and bytes stand at the operator that was asked for; those that it is made of or called by have none, so that
    the column adds up. Achieved rates are over the total device time, shares over the sum of self device times
    (host times where the device's were not measured). Times are of the traced run, which tracing lengthens.
    """

    operator: str
    calls: float
    input_shapes: str
    self_device_ms: float | None
    total_device_ms: float | None
    self_host_ms: float | None
    total_host_ms: float | None
    flops: float | None
    bytes_moved: float | None
    arithmetic_intensity: float | None
    memory_allocated_mb: float | None
    achieved_gflops_per_s: float | None
    achieved_gbytes_per_s: float | None
    share_pct: float | None
    attainable_ms: float | None


def join(times: Sequence[OperatorTime], costs: Iterable[OperatorCost], batches: int, ceilings: Ceilings) -> tuple[OperatorRow, ...]:
    """Rows of all operators, the longest self time first.

    Args:
        times: per batch, from the trace.
        costs: of all ``batches`` together, counted on the same batches.
    """
    known = {(cost.name, cost.input_shapes): cost for cost in costs}
    whole = sum(_own(time) for time in times)
    rows = [_row(time, known.pop((time.name, time.input_shapes), None), batches, ceilings, whole) for time in times]
    # Work that the profiler has under another name keeps its place in the sums, without a time.
    rows += [_row(None, cost, batches, ceilings, whole) for cost in known.values() if cost.flops or cost.bytes_moved]
    return tuple(sorted(rows, key=lambda row: row.share_pct or 0.0, reverse=True))


def _own(time: OperatorTime) -> float:
    return time.self_host_ms if time.self_device_ms is None else time.self_device_ms


def _row(
    time: OperatorTime | None, cost: OperatorCost | None, batches: int, ceilings: Ceilings, whole_ms: float
) -> OperatorRow:
    flops = None if cost is None or cost.flops is None else cost.flops / batches
    moved = None if cost is None else cost.bytes_moved / batches
    total_ms = time.total_device_ms if time is not None else None
    source: Any = time or cost
    return OperatorRow(
        operator=source.name, calls=time.calls if time is not None else source.calls / batches,
        input_shapes=show_shapes(source.input_shapes),
        self_device_ms=None if time is None else time.self_device_ms, total_device_ms=total_ms,
        self_host_ms=None if time is None else time.self_host_ms, total_host_ms=None if time is None else time.total_host_ms,
        flops=flops, bytes_moved=moved, arithmetic_intensity=flops / moved if flops is not None and moved else None,
        memory_allocated_mb=None if time is None else time.memory_allocated_bytes / 1e6,
        achieved_gflops_per_s=_rate(flops, total_ms), achieved_gbytes_per_s=_rate(moved, total_ms),
        share_pct=100 * _own(time) / whole_ms if time is not None and whole_ms else None,
        attainable_ms=None if cost is None else attainable_s(cost, ceilings)[0] / batches * 1e3,
    )


def attainable_s(cost: OperatorCost, ceilings: Ceilings) -> tuple[float, str]:
    """Seconds of all calls at the ceilings, and which ceiling decides."""
    flops = None if cost.flops is None else cost.flops // cost.calls
    seconds, limit = ceilings.attainable_s(flops, cost.bytes_moved / cost.calls)
    return seconds * cost.calls, limit


def show_shapes(shapes: Shapes) -> str:
    """``8x10x32, 32``"""
    return ", ".join("x".join(map(str, shape)) for shape in shapes)


def _rate(amount: float | None, milliseconds: float | None) -> float | None:
    """10^9 a second."""
    return amount / milliseconds / 1e6 if amount and milliseconds else None


def to_csv(records: Sequence[Any], kind: type[Any]) -> str:
    """Records of one dataclass as CSV; None is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([field.name for field in fields(kind)])
    writer.writerows(["" if value is None else value for value in astuple(record)] for record in records)
    return text.getvalue()

"""Percentiles of the time of a batch, and the latency target, for the text report and step 02."""

from __future__ import annotations

from utils.reporting.formatting import (
    Fact,
    format_number,
    format_with_interval,
)
from utils.reporting.sweeps import Sweep, value_of
from utils.reporting.tables import Table
from utils.schema.batch_size import SweepRow, percentile_columns
from utils.schema.latency import LatencyTarget, LatencyTrial

NO_QUEUEING = "Waiting in a queue is not included: a request may wait for a batch to end first."


def percentile_table(sweep: Sweep) -> Table:
    """Each percentile with its 95% interval, by batch size."""
    columns = percentile_columns()
    header = ["Batch"]
    for percent in columns.values():
        header.append(f"p{percent} (95% interval)")
    rows = []
    for row in sweep.measured_rows:
        cells = [str(row.batch_size)]
        for column in columns:
            cells.append(_percentile_cell(row, column))
        rows.append(tuple(cells))
    return Table(
        caption="Percentiles of the time of a full batch in ms, without queueing; the 95% interval "
        "is that of another run in a new process",
        header=tuple(header),
        rows=tuple(rows),
    )


def _percentile_cell(row: SweepRow, column: str) -> str:
    low = value_of(row, f"{column}_ci95_low")
    high = value_of(row, f"{column}_ci95_high")
    return format_with_interval(value_of(row, column), low, high)


def percentile_reasons(sweep: Sweep) -> list[Fact]:
    """Why a percentile is missing, of the smallest batch size that lacks it."""
    facts = []
    for column, percent in percentile_columns().items():
        for row in sweep.measured_rows:
            reason = row.reason(column)
            if reason is not None:
                facts.append(Fact(f"No p{percent}", f"batch size {row.batch_size}: {reason}"))
                break
    return facts


def latency_target_text(target: LatencyTarget) -> str:
    """The largest batch size below the target, its throughput, and where the edge is."""
    name = f"p{target.percentile}"
    goal = f"{name} below {format_number(target.target_ms, 'ms')}"
    best = target.largest_below
    if best is None:
        return f"{goal}: no batch size found ({target.reason('largest_below')}). {NO_QUEUEING}"
    latency = format_with_interval(
        best.latency_ms, best.latency_ms_ci95_low, best.latency_ms_ci95_high, "ms"
    )
    throughput = format_with_interval(
        best.throughput_samples_per_sec_mean,
        best.throughput_samples_per_sec_ci95_low,
        best.throughput_samples_per_sec_ci95_high,
        "samples/s",
    )
    text = f"{goal}: batch size {best.batch_size}, {name} {latency}, {throughput}"
    return f"{text}. {_edge_text(target)} {NO_QUEUEING}"


def _edge_text(target: LatencyTarget) -> str:
    """What is known of the next larger batch, and whether chance may decide."""
    above = target.smallest_above
    if above is None:
        text = f"A larger batch may do as well: {target.reason('smallest_above')}."
    else:
        text = f"Batch size {above.batch_size} reaches the target{_above_text(above)}."
    best = target.largest_below
    high = None if best is None else best.latency_ms_ci95_high
    if high is not None and high >= target.target_ms:
        text += " The interval includes the target: another process may exceed it."
    return text


def _above_text(above: LatencyTrial) -> str:
    if above.latency_ms is None:
        return ""
    return f" ({format_number(above.latency_ms, 'ms')})"

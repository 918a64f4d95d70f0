"""The report's tables of step 03: verdicts, and where the time goes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from operator import attrgetter
from typing import TypeVar

from utils.reporting.formatting import DASH, format_number, format_percent
from utils.reporting.results import Results
from utils.reporting.tables import Table
from utils.schema.diagnosis import Bottleneck, Diagnosis
from utils.schema.trace_tables import KernelRow, LayerRow, OperatorRow, TraceRow

MAX_ROWS = 15
"""Operators, modules or kernels that are shown."""

Row = TypeVar("Row", bound=TraceRow)


def confidence_text(bottleneck: Bottleneck) -> str:
    """How sure a verdict is, and what speaks against it; empty where neither is known."""
    if bottleneck.confidence is None:
        return ""
    text = f"Confidence: {bottleneck.confidence}"
    if bottleneck.doubts:
        text += f", because {'; '.join(bottleneck.doubts)}"
    return f"{text}."


def _reason_text(bottleneck: Bottleneck) -> str:
    if not bottleneck.doubts:
        return bottleneck.sentence
    return f"{bottleneck.sentence} {confidence_text(bottleneck)}"


def verdict_table(diagnosis: Diagnosis) -> Table:
    """The verdict for each batch size."""
    rows = []
    for item in diagnosis.batch_sizes:
        rows.append(
            (
                str(item.batch_size),
                item.verdict,
                item.confidence or DASH,
                _reason_text(item),
                format_number(item.measured_ms),
                format_number(item.roofline_ms),
                format_percent(item.padding_fraction),
            )
        )
    note = ""
    if diagnosis.confidence_rule is not None:
        note = f"Confidence is {diagnosis.confidence_rule}; else low."
    return Table(
        caption="Verdict by batch size, with its reason",
        header=(
            "Batch",
            "Verdict",
            "Confidence",
            "Why",
            "Measured (ms)",
            "At best (ms)",
            "Padding",
        ),
        num_text_columns=4,
        rows=tuple(rows),
        note=note,
    )


def time_tables(results: Results) -> list[Table]:
    """The modules, operators and kernels with the most time, of those that were measured."""
    trace = results.tables
    tables = []
    if trace.layers:
        tables.append(_layer_table(trace.layers))
    if trace.operators:
        tables.append(_operator_table(trace.operators, own_time_column(trace.operators)))
    if trace.kernels:
        tables.append(_kernel_table(trace.kernels))
    return tables


def own_time_column(operators: Iterable[OperatorRow]) -> str:
    """The column with the operators' own time on the device, or on the host if none ran there."""
    if any(row.self_device_ms for row in operators):
        return "self_device_ms"
    return "self_host_ms"


def largest(rows: Iterable[Row], value: Callable[[Row], float | None]) -> list[Row]:
    """The ``MAX_ROWS`` rows with the largest value; those without one come last."""

    def rank(row: Row) -> float:
        key = value(row)
        return float("inf") if key is None else -key

    return sorted(rows, key=rank)[:MAX_ROWS]


def _layer_table(layers: Iterable[LayerRow]) -> Table:
    return Table(
        caption=(
            f"The {MAX_ROWS} modules of the model that take the most time themselves, "
            "per forward pass"
        ),
        header=("Module", "Kind", "Calls", "Own time (ms)", "With children (ms)", "Share (%)"),
        num_text_columns=2,
        rows=tuple(
            (
                row.module,
                row.kind,
                format_number(row.calls),
                format_number(row.self_time_ms),
                format_number(row.time_ms),
                format_number(row.share_pct),
            )
            for row in largest(layers, attrgetter("self_time_ms"))
        ),
    )


def _operator_table(operators: Iterable[OperatorRow], column: str) -> Table:
    place = "device" if column == "self_device_ms" else "host"
    own_time = attrgetter(column)
    return Table(
        caption=(
            f"The {MAX_ROWS} operators that take the most time of the {place} themselves, "
            "per batch of the traced run"
        ),
        header=(
            "Operator",
            "Input shapes",
            "Calls",
            "Own time (ms)",
            "At best (ms)",
            "Share (%)",
        ),
        num_text_columns=2,
        rows=tuple(
            (
                row.operator,
                row.input_shapes,
                format_number(row.calls),
                format_number(own_time(row)),
                format_number(row.attainable_ms),
                format_number(row.share_pct),
            )
            for row in largest(operators, own_time)
        ),
    )


def _kernel_table(kernels: Iterable[KernelRow]) -> Table:
    return Table(
        caption=f"The {MAX_ROWS} kernels of the GPU that take the most time, in all traced batches",
        header=("Kernel", "Category", "Calls", "Time (ms)", "Mean (us)", "Share (%)"),
        num_text_columns=2,
        rows=tuple(
            (
                row.kernel,
                row.category,
                format_number(row.calls),
                format_number(row.time_ms),
                format_number(row.mean_us),
                format_number(row.share_pct),
            )
            for row in largest(kernels, attrgetter("time_ms"))
        ),
    )

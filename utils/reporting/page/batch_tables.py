"""The sweep as several tables that each fit onto a screen and onto paper."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from utils.core.rounding import round_value
from utils.reporting.formatting import (
    DASH,
    format_bool,
    format_interval,
    format_mean_std,
    format_number,
    format_percent,
)
from utils.reporting.page.visible import make_visible
from utils.reporting.sweeps import Sweep, value_of
from utils.reporting.tables import EXTRA_COLUMNS, PERCENTILES, STATUSES, Table
from utils.schema.batch_size import SweepRow

MAX_COLUMNS = 8
"""More columns than this do not fit onto paper."""
GROUPS = {
    "Time of a batch": (
        "latency_per_batch_ms_median",
        *PERCENTILES,
        "latency_per_batch_ms_mad",
        "forward_launch_ms_mean",
        "forward_device_ms_mean",
    ),
    "Tokens and efficiency": (
        "throughput_tokens_per_sec_mean",
        "latency_per_token_ms_mean",
        "tokens_per_batch_mean",
        "padding_tokens_per_batch_mean",
        "num_truncated",
        "achieved_tflops",
        "mfu",
    ),
    "Memory": (
        "gpu_mem_used",
        "gpu_mem_change",
        "peak_gpu_mem",
        "activations_mem",
        "gpu_mem_device",
        "gpu_mem_other",
        "cpu_mem_used",
        "cpu_mem_peak",
    ),
    "GPU": (
        "gpu_util_pct_mean",
        "gpu_power_w_mean",
        "energy_per_sample_j",
        "gpu_sm_clock_mhz_mean",
        "gpu_temperature_c_max",
    ),
}
"""The further columns by subject. A column that no group names stands in the last table."""
OTHER_GROUP = "Further columns"
UNIT = re.compile(r" \(([^()]+)\)$")
TITLES = {"latency_per_batch_ms_median": "p50 (ms/batch)", **EXTRA_COLUMNS}
SPEED_HEADER = (
    "Batch",
    "Status",
    "ms/text (mean)",
    "± std",
    "texts/s (mean)",
    "95% interval",
    "Padding",
    "Stable",
)


def batch_tables(sweep: Sweep) -> Iterator[Table]:
    """First the speed, then a table for each subject that was measured."""
    yield Table(
        caption=f"Speed by batch size, over a sample of {format_number(sweep.sample_size)} texts",
        header=SPEED_HEADER,
        rows=tuple(_speed_cells(row) for row in sweep.rows),
        num_text_columns=2,
    )
    grouped = {column for columns in GROUPS.values() for column in columns}
    others = tuple(column for column in EXTRA_COLUMNS if column not in grouped)
    for subject, columns in {**GROUPS, OTHER_GROUP: others}.items():
        measured = [column for column in columns if sweep.has(column)]
        for start in range(0, len(measured), MAX_COLUMNS):
            part = measured[start : start + MAX_COLUMNS]
            yield _subject_table(sweep, subject, part)


def _speed_cells(row: SweepRow) -> tuple[str, ...]:
    stable = format_bool(row.stable) if row.status == "ok" else DASH
    mean, _, std = format_mean_std(
        row.latency_per_sample_ms_mean, row.latency_per_sample_ms_std
    ).partition(" ± ")
    low = row.throughput_samples_per_sec_ci95_low
    high = row.throughput_samples_per_sec_ci95_high
    rate = row.throughput_samples_per_sec_mean
    return (
        str(row.batch_size),
        STATUSES[row.status],
        mean,
        std or DASH,
        DASH if rate is None else round_value(rate, low, high).value,
        format_interval(low, high),
        format_percent(row.padding_fraction),
        stable,
    )


def _subject_table(sweep: Sweep, subject: str, columns: Sequence[str]) -> Table:
    rows = []
    for row in sweep.rows:
        cells = [_cell(row, column) for column in columns]
        rows.append((str(row.batch_size), *cells))
    note = ""
    if "mfu" in columns and sweep.mfu_source:
        note = make_visible(sweep.mfu_source)
    titles = [TITLES[column] for column in columns]
    unit = shared_unit(titles)
    caption = f"{subject} by batch size"
    if unit is not None:
        caption += f", in {unit}"
        titles = [title.removesuffix(f" ({unit})") for title in titles]
    return Table(
        caption=f"{caption} ({format_number(sweep.sample_size)} texts)",
        header=("Batch", *titles),
        rows=tuple(rows),
        note=note,
    )


def _cell(row: SweepRow, column: str) -> str:
    """A value, in the digits that its 95% interval allows where it has one."""
    value = value_of(row, column)
    low: float | None = getattr(row, f"{column}_ci95_low", None)
    high: float | None = getattr(row, f"{column}_ci95_high", None)
    if value is None or low is None or high is None:
        return format_number(value)
    return round_value(value, low, high).value


def shared_unit(titles: Sequence[str]) -> str | None:
    """The unit in brackets at the end of every title; None where they differ."""
    units = set()
    for title in titles:
        match = UNIT.search(title)
        units.add(match[1] if match else None)
    return units.pop() if len(units) == 1 else None

"""The report's tables: what each cell says, for the text and the page alike."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from utils.reporting.formatting import (
    format_bool,
    format_mean_std,
    format_number,
    format_percent,
    format_score,
    format_with_interval,
)
from utils.reporting.results import Results
from utils.reporting.sweeps import Sweep, value_of
from utils.schema.batch_size import SweepRow, percentile_columns
from utils.schema.evaluation import ClassMetrics

STATUSES = {
    "ok": "ok",
    "oom": "out of memory",
    "not_tried": "not tried",
    "wrong_outputs": "wrong outputs",
}
BATCH_HEADER = (
    "Batch",
    "Result",
    "ms/sample",
    "ms/batch",
    "samples/s (95%)",
    "Padding",
)
DETAIL_COLUMNS = {
    "throughput_batches_per_sec_mean": "batches/s",
    "throughput_tokens_per_sec_mean": "tokens/s",
    "latency_total_s_mean": "run (s)",
    "gpu_mem_used": "GPU MB",
    "gpu_mem_reserved": "reserved",
    "peak_gpu_mem": "peak",
    "gpu_util_pct_mean": "GPU %",
    "cpu_mem_used": "CPU MB",
}
"""The columns of the second table of the text report, with their titles."""
PERCENTILES = {column: f"p{percent} (ms/batch)" for column, percent in percentile_columns().items()}
EXTRA_COLUMNS = {
    **PERCENTILES,
    "latency_per_batch_ms_mad": "MAD (ms/batch)",
    "throughput_tokens_per_sec_mean": "tokens/s",
    "latency_per_token_ms_mean": "ms/token",
    "forward_launch_ms_mean": "forward on the host (ms)",
    "forward_device_ms_mean": "forward on the device (ms)",
    "gpu_mem_used": "GPU memory (MB)",
    "gpu_mem_change": "GPU memory change (MB)",
    "peak_gpu_mem": "GPU peak (MB)",
    "activations_mem": "activations (MB)",
    "gpu_mem_device": "whole GPU (MB)",
    "gpu_mem_other": "outside PyTorch (MB)",
    "cpu_mem_used": "CPU resident (MB)",
    "cpu_mem_peak": "CPU peak (MB)",
    "gpu_util_pct_mean": "GPU util (%)",
    "gpu_power_w_mean": "GPU power (W)",
    "energy_per_sample_j": "energy (J/sample)",
    "gpu_sm_clock_mhz_mean": "SM clock (MHz)",
    "gpu_temperature_c_max": "hottest (°C)",
    "tokens_per_batch_mean": "tokens/batch",
    "padding_tokens_per_batch_mean": "padding/batch",
    "num_truncated": "texts truncated",
    "achieved_tflops": "TFLOP/s",
    "mfu": "MFU",
    "cpu_wait_fraction": "share of waiting for a CPU",
    "cv": "std / mean of the runs",
}
"""The columns of the page's tables by batch size, with their titles."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """Cells ready to show.

    Args:
        num_text_columns: so many columns from the left are text, the others are numbers.
        note: a sentence below the table.
    """

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    num_text_columns: int = 1
    note: str = ""


def batch_table(sweep: Sweep) -> Table:
    """One row a batch size: time, throughput, padding, and whether the runs are stable."""
    return Table(
        caption=_batch_caption(sweep),
        header=BATCH_HEADER,
        rows=tuple(_batch_cells(row) for row in sweep.rows),
        num_text_columns=2,
    )


def _batch_caption(sweep: Sweep) -> str:
    return (
        f"Batch-size sweep over a sample of {format_number(sweep.sample_size)} texts. "
        "ms/sample: mean and standard deviation of the runs; ms/batch: median; samples/s: mean of "
        "the rates of the runs with its 95% interval, which is only about the inverse of ms/sample"
    )


def _batch_cells(row: SweepRow) -> tuple[str, ...]:
    return (
        str(row.batch_size),
        _result_text(row),
        format_mean_std(row.latency_per_sample_ms_mean, row.latency_per_sample_ms_std),
        format_number(row.latency_per_batch_ms_median),
        format_with_interval(
            row.throughput_samples_per_sec_mean,
            row.throughput_samples_per_sec_ci95_low,
            row.throughput_samples_per_sec_ci95_high,
        ),
        format_percent(row.padding_fraction),
    )


def _result_text(row: SweepRow) -> str:
    """Whether the runs of a batch size are stable, or why it has none."""
    if row.status != "ok" or row.stable is None:
        return STATUSES[row.status]
    return "stable" if row.stable else "not stable"


def detail_table(sweep: Sweep) -> Table | None:
    """Rates, memory and use of the GPU by batch size; None where none was measured."""
    columns = [column for column in DETAIL_COLUMNS if sweep.has(column)]
    if not columns:
        return None
    rows = []
    for row in sweep.measured_rows:
        cells = [format_number(value_of(row, column)) for column in columns]
        rows.append((str(row.batch_size), *cells))
    titles = [DETAIL_COLUMNS[column] for column in columns]
    return Table(
        caption="Other rates, the time of a run over all texts of the sample, and memory in MB",
        header=("Batch", *titles),
        rows=tuple(rows),
    )


def sample_table(results: Results) -> Table | None:
    """Whether the values depend on the sample; None for a single sample."""
    comparisons = results.metrics.measurement.sample_dependence
    if not comparisons:
        return None
    rows = []
    for item in comparisons:
        rows.append(
            (
                str(item.batch_size),
                " and ".join(str(size) for size in item.sample_sizes),
                format_with_interval(item.time_per_token_ratio, item.ci95_low, item.ci95_high),
                format_bool(item.depends_on_sample),
            )
        )
    return Table(
        caption=(
            "Time per real token of the larger sample over the smaller's: "
            "what is left depends on how texts fall into batches"
        ),
        header=("Batch", "Samples", "Ratio (95% interval)", "Depends on the sample"),
        num_text_columns=2,
        rows=tuple(rows),
    )


def per_class_table(classes: Iterable[ClassMetrics]) -> Table:
    """Quality by label."""
    rows = []
    for item in classes:
        scores = [format_score(score) for score in (item.precision, item.recall, item.f1)]
        rows.append((item.label, *scores, format_number(item.support)))
    return Table(
        caption="Quality by label",
        header=("Label", "Precision", "Recall", "F1", "Rows"),
        rows=tuple(rows),
    )

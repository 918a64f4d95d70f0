"""The report's tables: what each cell says, for the text and the page alike."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from utils.reporting.formatting import (
    DASH,
    format_bool,
    format_interval,
    format_mean_std,
    format_number,
    format_percent,
)
from utils.reporting.results import Results
from utils.reporting.sweeps import Sweep
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
    "Status",
    "ms/sample",
    "p50 (ms/batch)",
    "samples/s",
    "95% interval",
    "Padding",
    "Stable",
)
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
    "cpu_wait_fraction": "CPU wait",
    "cv": "CV",
}
"""The columns of the page's table beyond those of ``BATCH_HEADER``, with their titles."""


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
    """One row a batch size, with the columns that fit into a terminal."""
    return Table(
        caption=_batch_caption(sweep),
        header=BATCH_HEADER,
        rows=tuple(_batch_cells(row) for row in sweep.rows),
        num_text_columns=2,
    )


def _batch_caption(sweep: Sweep) -> str:
    return (
        f"Batch-size sweep over a sample of {format_number(sweep.sample_size)} texts; "
        "mean ± standard deviation of the runs, for ms/sample of their times and for samples/s of "
        "their rates, so that one is only about the other's inverse"
    )


def _batch_cells(row: SweepRow) -> tuple[str, ...]:
    return (
        str(row.batch_size),
        STATUSES[row.status],
        format_mean_std(row.latency_per_sample_ms_mean, row.latency_per_sample_ms_std),
        format_number(row.latency_per_batch_ms_median),
        format_number(row.throughput_samples_per_sec_mean),
        format_interval(
            row.throughput_samples_per_sec_ci95_low, row.throughput_samples_per_sec_ci95_high
        ),
        format_percent(row.padding_fraction),
        format_bool(row.stable) if row.status == "ok" else DASH,
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
                format_number(item.time_per_token_ratio),
                format_interval(item.ci95_low, item.ci95_high),
                format_bool(item.depends_on_sample),
            )
        )
    return Table(
        caption=(
            "Time per real token of the larger sample over the smaller's: "
            "what is left depends on how texts fall into batches"
        ),
        header=("Batch", "Samples", "Ratio", "95% interval", "Depends on the sample"),
        num_text_columns=2,
        rows=tuple(rows),
    )


def per_class_table(classes: Iterable[ClassMetrics]) -> Table:
    """Quality by label."""
    rows = []
    for item in classes:
        scores = [f"{score:.4f}" for score in (item.precision, item.recall, item.f1)]
        rows.append((item.label, *scores, format_number(item.support)))
    return Table(
        caption="Quality by label",
        header=("Label", "Precision", "Recall", "F1", "Rows"),
        rows=tuple(rows),
    )

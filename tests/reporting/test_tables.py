"""The tables of the report: no column of the measurement is forgotten."""

from __future__ import annotations

from utils.reporting.comparison_plot import PERCENTILES
from utils.reporting.tables import EXTRA_COLUMNS
from utils.schema.batch_size import COLUMNS, percentile_columns

SHOWN_IN_EVERY_TABLE = {
    "batch_size",
    "status",
    "latency_per_sample_ms_mean",
    "latency_per_sample_ms_std",
    "latency_per_batch_ms_median",
    "throughput_samples_per_sec_mean",
    "throughput_samples_per_sec_ci95_low",
    "throughput_samples_per_sec_ci95_high",
    "padding_fraction",
    "stable",
}
SHOWN_ELSEWHERE = {
    # In the caption, in the list of warnings, and in the pictures.
    "num_samples",
    "warnings",
    "tokenize_ms_mean",
    "host_to_device_ms_mean",
    "forward_ms_mean",
    "device_to_host_ms_mean",
    "gpu_mem_reserved",
}
INTERVALS_OF_PERCENTILES = {
    # In the table of percentiles.
    f"{column}_ci95_{end}"
    for column in percentile_columns()
    for end in ("low", "high")
}
LEFT_OUT = {
    "num_runs",
    "energy_source",
    "flops_per_sample",
    "latency_per_batch_ms_mean",
    "latency_per_sample_ms_median_ci95_low",
    "latency_per_sample_ms_median_ci95_high",
}
LEFT_OUT_STATISTICS = ("_std", "_min", "_max", "_median")
LEFT_OUT_METRICS = ("latency_total_s", "throughput_batches_per_sec")


def is_left_out(column: str) -> bool:
    """Details that only ``detailed_metrics.csv`` has."""
    if column in LEFT_OUT or column.startswith(LEFT_OUT_METRICS):
        return True
    is_speed = column.startswith(("latency", "throughput"))
    return is_speed and column.endswith(LEFT_OUT_STATISTICS)


def test_every_column_is_shown_or_left_out_on_purpose() -> None:
    shown = SHOWN_IN_EVERY_TABLE | SHOWN_ELSEWHERE | set(EXTRA_COLUMNS) | INTERVALS_OF_PERCENTILES
    forgotten = [name for name in COLUMNS if name not in shown and not is_left_out(name)]
    assert forgotten == []


def test_every_percentile_is_in_the_table_and_in_the_picture() -> None:
    percentiles = set(percentile_columns())
    assert len(percentiles) >= 3
    assert percentiles <= set(EXTRA_COLUMNS)
    assert percentiles <= set(PERCENTILES.curves)

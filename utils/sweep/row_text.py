"""The lines of one batch size for the terminal."""

from __future__ import annotations

from utils.core.rounding import round_mean_std, round_value
from utils.schema.batch_size import BatchSizeRow
from utils.schema.warning_codes import sentence_of


def row_lines(row: BatchSizeRow) -> list[str]:
    """Latency, throughput and memory of one batch size, or why there are none."""
    title = f"Batch Size {row.batch_size}:"
    if row.latency_per_sample_ms_mean is None:
        return [title, f"  {sentence_of(row.warnings[0])}"]
    lines = [_latency_line(row), _throughput_line(row), _memory_line(row)]
    return [title, *(f"  {line}" for line in lines)]


def _latency_line(row: BatchSizeRow) -> str:
    """The mean and its standard deviation, in the digits that the deviation allows."""
    mean_ms = row.latency_per_sample_ms_mean
    assert mean_ms is not None, "the row was measured"
    if row.latency_per_sample_ms_std is None:
        return f"Latency/sample: {round_value(mean_ms).value} ms"
    mean, std = round_mean_std(mean_ms, row.latency_per_sample_ms_std)
    return f"Latency/sample: {mean} ms (std {std})"


def _throughput_line(row: BatchSizeRow) -> str:
    """The mean, in the digits that its interval allows, and the interval."""
    samples_per_s = row.throughput_samples_per_sec_mean
    assert samples_per_s is not None, "the row was measured"
    rounded = round_value(
        samples_per_s,
        row.throughput_samples_per_sec_ci95_low,
        row.throughput_samples_per_sec_ci95_high,
    )
    text = f"Throughput: {rounded.value} samples/sec"
    if rounded.interval:
        text += f" (95% interval {rounded.interval})"
    return text


def _memory_line(row: BatchSizeRow) -> str:
    if row.peak_gpu_mem is not None:
        return f"GPU Memory (peak): {round_value(row.peak_gpu_mem).value} MB"
    if row.cpu_mem_used is not None:
        return f"CPU Memory: {round_value(row.cpu_mem_used).value} MB"
    return "CPU Memory: not measured"

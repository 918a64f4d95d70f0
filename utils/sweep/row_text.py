"""The lines of one batch size for the terminal."""

from __future__ import annotations

from utils.schema.batch_size import BatchSizeRow


def row_lines(row: BatchSizeRow) -> list[str]:
    """Latency, throughput and memory of one batch size, or why there are none."""
    title = f"Batch Size {row.batch_size}:"
    latency_ms = row.latency_per_sample_ms_mean
    throughput = row.throughput_samples_per_sec_mean
    if latency_ms is None or throughput is None:
        return [title, f"  {row.warnings[0]}"]
    spread = ""
    if row.latency_per_sample_ms_std is not None:
        spread = f" (std {row.latency_per_sample_ms_std:,.2f})"
    return [
        title,
        f"  Latency/sample: {latency_ms:,.2f} ms{spread}",
        f"  Throughput: {throughput:,.2f} samples/sec",
        f"  {_memory_line(row)}",
    ]


def _memory_line(row: BatchSizeRow) -> str:
    if row.peak_gpu_mem is not None:
        return f"GPU Memory (peak): {row.peak_gpu_mem:,.2f} MB"
    if row.cpu_mem_used is not None:
        return f"CPU Memory: {row.cpu_mem_used:,.2f} MB"
    return "CPU Memory: not measured"

"""Records of a measurement: one run, and the table row of all runs at one batch size."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from utils.sweep.bench_stats import Summary
from utils.system.gpu_timeline import GpuReadings

PHASES = ("tokenize", "host_to_device", "forward", "device_to_host")
STATUSES = ("ok", "oom", "not_tried", "wrong_outputs")
"""``not_tried``: a smaller batch did not fit into memory. ``wrong_outputs``: logits of timed runs
differed from untimed ones, so no metrics are given."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """All texts of the sample once, at one batch size. Seconds and bytes; None if not measured.

    Args:
        seconds: from the first text to the last logits on the host, with the device synchronized
            at both ends.
        num_full_batches: batches with ``batch_size`` rows; the last batch of a run may be smaller.
        phase_seconds: one row per batch, with the phases in the order of ``PHASES``.
        launch_seconds: per batch, how long the host was in the model's call.
        device_seconds: per batch, by CUDA events on an idle stream, from the start of the model's
            call to the end of its last kernel. Gaps in which the device waits are included.
        activation_bytes: the peak less what was allocated before the run, such as the weights.
        cpu_wait_fraction: share of the time in which this process could have run but waited for a
            CPU.
    """

    num_samples: int
    seconds: float
    num_batches: int
    num_full_batches: int = 0
    phase_seconds: tuple[tuple[float, ...], ...] = ()
    launch_seconds: tuple[float, ...] = ()
    device_seconds: tuple[float, ...] = ()
    real_tokens: int | None = None
    padded_tokens: int | None = None
    allocated_bytes: int | None = None
    reserved_bytes: int | None = None
    peak_bytes: int | None = None
    activation_bytes: int | None = None
    resident_bytes: int | None = None
    resident_peak_bytes: int | None = None
    cpu_wait_fraction: float | None = None
    gpu: GpuReadings = field(default_factory=GpuReadings)


def _metric(unit: str, default: Summary | None = None) -> Any:
    return field(default=default, metadata={"unit": unit})


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchSizeRecord:
    """One row of ``detailed_metrics.csv``, each metric with its unit.

    The guide says how each is measured. Latency is end to end: from the texts to their logits on
    the host. ``flops_per_sample`` and ``achieved_tflops`` count what was executed, padding
    included.
    """

    batch_size: int = field(metadata={"unit": "rows"})
    status: str
    num_runs: int = field(metadata={"unit": "runs"})
    num_samples: int = field(metadata={"unit": "rows"})
    latency_per_sample_ms: Summary = _metric("ms", Summary())
    latency_per_batch_ms: Summary = _metric("ms", Summary())
    latency_total_s: Summary = _metric("s", Summary())
    throughput_samples_per_sec: Summary = _metric("samples/s", Summary())
    throughput_batches_per_sec: Summary = _metric("batches/s", Summary())
    throughput_tokens_per_sec: Summary = _metric("tokens/s", Summary())
    latency_per_batch_ms_p90: float | None = _metric("ms")
    latency_per_batch_ms_p95: float | None = _metric("ms")
    latency_per_batch_ms_p99: float | None = _metric("ms")
    latency_per_batch_ms_mad: float | None = _metric("ms")
    latency_per_sample_ms_median_ci95_low: float | None = _metric("ms")
    latency_per_sample_ms_median_ci95_high: float | None = _metric("ms")
    latency_per_token_ms_mean: float | None = _metric("ms")
    throughput_samples_per_sec_ci95_low: float | None = _metric("samples/s")
    throughput_samples_per_sec_ci95_high: float | None = _metric("samples/s")
    tokenize_ms_mean: float | None = _metric("ms per batch")
    host_to_device_ms_mean: float | None = _metric("ms per batch")
    forward_ms_mean: float | None = _metric("ms per batch")
    device_to_host_ms_mean: float | None = _metric("ms per batch")
    forward_launch_ms_mean: float | None = _metric("ms per batch")
    forward_device_ms_mean: float | None = _metric("ms per batch")
    gpu_mem_used: float | None = _metric("MB")
    gpu_mem_reserved: float | None = _metric("MB")
    peak_gpu_mem: float | None = _metric("MB")
    activations_mem: float | None = _metric("MB")
    gpu_mem_device: float | None = _metric("MB")
    gpu_mem_other: float | None = _metric("MB")
    cpu_mem_used: float | None = _metric("MB")
    cpu_mem_peak: float | None = _metric("MB")
    gpu_util_pct_mean: float | None = _metric("%")
    gpu_power_w_mean: float | None = _metric("W")
    energy_per_sample_j: float | None = _metric("J")
    energy_source: str | None = None
    gpu_sm_clock_mhz_mean: float | None = _metric("MHz")
    gpu_temperature_c_max: float | None = _metric("degrees C")
    tokens_per_batch_mean: float | None = _metric("tokens")
    padding_tokens_per_batch_mean: float | None = _metric("tokens")
    num_truncated: int | None = _metric("rows")
    padding_fraction: float | None = _metric("fraction of tokens")
    flops_per_sample: float | None = _metric("FLOP")
    achieved_tflops: float | None = _metric("TFLOP/s")
    mfu: float | None = _metric("fraction")
    cpu_wait_fraction: float | None = _metric("fraction of runnable time")
    cv: float | None = _metric("fraction")
    stable: bool | None = None
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        assert self.status in STATUSES, self.status
        assert self.batch_size > 0

    def to_dict(self) -> dict[str, Any]:
        """JSON values by column name, in the table's order."""
        row: dict[str, Any] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, Summary):
                for part in fields(Summary):
                    row[f"{item.name}_{part.name}"] = getattr(value, part.name)
            elif isinstance(value, tuple):
                row[item.name] = list(value)
            else:
                row[item.name] = value
        return row


COLUMNS = tuple(BatchSizeRecord(batch_size=1, status="ok", num_runs=0, num_samples=0).to_dict())
UNITS = {item.name: item.metadata["unit"] for item in fields(BatchSizeRecord) if item.metadata}
"""Unit of every metric; a metric with a spread has the same unit in each of its columns."""

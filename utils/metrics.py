"""One measurement: clock, memory, energy and utilisation around a block of work; and the row that runs add up to."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import Any

import psutil
import torch

from utils.gpu_monitor import GpuMonitor, GpuReadings
from utils.statistics import (
    MIN_LATENCIES,
    Summary,
    coefficient_of_variation,
    instability,
    mean_interval,
    percentile,
    summarise,
)

MEGA = 1e6
PHASES = ("tokenize", "host_to_device", "forward", "device_to_host")
PHASE_TOLERANCE = 0.03
"""Share of the whole that the phases may leave unexplained."""
UNITS = {
    "batch_size": "rows", "num_runs": "runs", "num_samples": "rows", "latency_per_sample_ms": "ms",
    "latency_per_batch_ms": "ms", "latency_total_s": "s", "throughput_samples_per_sec": "samples/s",
    "throughput_batches_per_sec": "batches/s", "throughput_tokens_per_sec": "tokens/s",
    "throughput_samples_per_sec_ci95_low": "samples/s", "throughput_samples_per_sec_ci95_high": "samples/s",
    "tokenize_ms_mean": "ms per batch", "host_to_device_ms_mean": "ms per batch", "forward_ms_mean": "ms per batch",
    "device_to_host_ms_mean": "ms per batch", "gpu_mem_used": "MB", "gpu_mem_reserved": "MB", "peak_gpu_mem": "MB",
    "cpu_mem_used": "MB", "gpu_util_pct_mean": "%", "gpu_power_w_mean": "W", "energy_per_sample_j": "J",
    "padding_fraction": "fraction of tokens", "flops_per_sample": "FLOP", "achieved_tflops": "TFLOP/s",
    "mfu": "fraction", "cv": "fraction",
}
"""Unit of every figure; a figure with a spread has the same unit in each of its columns."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """The whole sample once, at one batch size. Seconds and bytes; None is not measured.

    Args:
        seconds: from the first text to the last logits on the host, the device synchronised at both ends.
        batch_seconds: each full batch by itself.
        phase_seconds: total of each phase, in the order of ``PHASES``; None where they were not taken apart.
    """

    num_samples: int
    seconds: float
    num_batches: int
    batch_seconds: tuple[float, ...] = ()
    phase_seconds: tuple[float, ...] | None = None
    real_tokens: int | None = None
    padded_tokens: int | None = None
    allocated_bytes: int | None = None
    reserved_bytes: int | None = None
    peak_bytes: int | None = None
    resident_bytes: int | None = None
    gpu: GpuReadings = field(default_factory=GpuReadings)


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchSizeRecord:
    """One row of ``detailed_metrics.csv``; ``UNITS`` gives the units.

    Latency is end to end: from the texts to their logits on the host. ``flops_per_sample`` and ``achieved_tflops``
    count what was executed, padding included. ``cpu_mem_used`` is the process's resident memory after a run.
    """

    batch_size: int
    status: str
    num_runs: int
    num_samples: int
    latency_per_sample_ms: Summary = Summary()
    latency_per_batch_ms: Summary = Summary()
    latency_total_s: Summary = Summary()
    throughput_samples_per_sec: Summary = Summary()
    throughput_batches_per_sec: Summary = Summary()
    throughput_tokens_per_sec: Summary = Summary()
    latency_per_batch_ms_p90: float | None = None
    latency_per_batch_ms_p95: float | None = None
    latency_per_batch_ms_p99: float | None = None
    throughput_samples_per_sec_ci95_low: float | None = None
    throughput_samples_per_sec_ci95_high: float | None = None
    tokenize_ms_mean: float | None = None
    host_to_device_ms_mean: float | None = None
    forward_ms_mean: float | None = None
    device_to_host_ms_mean: float | None = None
    gpu_mem_used: float | None = None
    gpu_mem_reserved: float | None = None
    peak_gpu_mem: float | None = None
    cpu_mem_used: float | None = None
    gpu_util_pct_mean: float | None = None
    gpu_power_w_mean: float | None = None
    energy_per_sample_j: float | None = None
    padding_fraction: float | None = None
    flops_per_sample: float | None = None
    achieved_tflops: float | None = None
    mfu: float | None = None
    cv: float | None = None
    stable: bool | None = None
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        assert self.status in ("ok", "oom"), self.status
        assert self.batch_size > 0

    def to_dict(self) -> dict[str, Any]:
        """JSON values by column name, in the table's order."""
        row: dict[str, Any] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, Summary):
                row |= {f"{item.name}_{part.name}": getattr(value, part.name) for part in fields(Summary)}
            else:
                row[item.name] = list(value) if isinstance(value, tuple) else value
        return row


COLUMNS = tuple(BatchSizeRecord(batch_size=1, status="ok", num_runs=0, num_samples=0).to_dict())


@dataclass(kw_only=True, slots=True)
class Measurement:
    """A measurement under way; ``run`` and ``record`` are there once it has ended.

    The block may fill in batches, phases and token counts, which only it knows.
    """

    started_ns: int = 0
    allocated_before: int = 0
    batch_seconds: list[float] = field(default_factory=list)
    phase_seconds: list[float] | None = None
    num_batches: int | None = None
    real_tokens: int | None = None
    padded_tokens: int | None = None
    run: Run | None = None
    record: BatchSizeRecord | None = None


class MetricsCollector:
    """Measures any block of inference on one device.

    Args:
        device: ``cuda``, ``cuda:N`` or ``cpu``.
        gpu_sample_interval_ms: milliseconds between two NVML readings.
    """

    def __init__(self, device: str | torch.device = "cuda", gpu_sample_interval_ms: float = 20.0) -> None:
        self.device = torch.device(device)
        self._cuda = self.device.type == "cuda"
        self._monitor = GpuMonitor(self.device, gpu_sample_interval_ms / 1e3)
        self._process = psutil.Process()
        self._collecting = gc.isenabled()  # what to go back to, also after a measurement that was never ended

    def start_measurement(self) -> Measurement:
        """Start the clock, last of all: what prepares the measurement is not in it."""
        gc.collect()
        measurement = Measurement()
        gc.disable()
        self.synchronize()
        if self._cuda:
            torch.cuda.reset_peak_memory_stats(self.device)
            measurement.allocated_before = torch.cuda.memory_allocated(self.device)
        self._monitor.start()
        measurement.started_ns = time.perf_counter_ns()
        return measurement

    def end_measurement(self, measurement: Measurement, batch_size: int, num_samples: int) -> BatchSizeRecord:
        """Stop the clock, once the device has finished, and read what else there is to read."""
        self.synchronize()
        seconds = (time.perf_counter_ns() - measurement.started_ns) / 1e9
        gpu = self._stop()
        memory: dict[str, int] = {}
        if self._cuda:
            memory = {
                "allocated_bytes": torch.cuda.memory_allocated(self.device) - measurement.allocated_before,
                "reserved_bytes": torch.cuda.memory_reserved(self.device),
                "peak_bytes": torch.cuda.max_memory_allocated(self.device),
            }
        phases = measurement.phase_seconds
        measurement.run = Run(
            num_samples=num_samples, seconds=seconds, num_batches=measurement.num_batches or -(-num_samples // batch_size),
            batch_seconds=tuple(measurement.batch_seconds), phase_seconds=None if phases is None else tuple(phases),
            real_tokens=measurement.real_tokens, padded_tokens=measurement.padded_tokens,
            resident_bytes=self._process.memory_info().rss, gpu=gpu, **memory,
        )
        measurement.record = summarise_runs(batch_size, (measurement.run,))
        return measurement.record

    @contextmanager
    def measure(self, batch_size: int, num_samples: int) -> Iterator[Measurement]:
        """Measure the block; its result is in ``run`` and ``record`` afterwards."""
        measurement = self.start_measurement()
        try:
            yield measurement
        except BaseException:
            self._stop()
            raise
        self.end_measurement(measurement, batch_size, num_samples)

    def synchronize(self) -> None:
        """Wait until the device has done all that it was given."""
        if self._cuda:
            torch.cuda.synchronize(self.device)

    def _stop(self) -> GpuReadings:
        if self._collecting:
            gc.enable()
        return self._monitor.stop()


def summarise_runs(
    batch_size: int, runs: Sequence[Run], *, flops_per_sample: float | None = None,
    matmul_flops_per_s: float | None = None, warnings: Sequence[str] = (),
) -> BatchSizeRecord:
    """The row that runs at one batch size add up to.

    Args:
        runs: in the order in which they were run; at least one.
        flops_per_sample: executed FLOPs, padding included.
        matmul_flops_per_s: this machine's measured ceiling; MFU needs it.
    """
    said = list(warnings)
    first = runs[0]
    seconds = [run.seconds for run in runs]
    rates = [run.num_samples / run.seconds for run in runs]
    batches = [1e3 * value for run in runs for value in run.batch_seconds]
    low, high = mean_interval(rates) or (None, None)
    short = {percent: needed for percent, needed in MIN_LATENCIES.items() if len(batches) < needed}
    said += [f"latency_per_batch_ms_p{p}: {len(batches)} latencies, it takes {needed}" for p, needed in short.items()]
    phases = _phases(runs, said)
    forward_s = phases["forward_ms_mean"] / 1e3 * first.num_batches if phases else None
    achieved = flops_per_sample * first.num_samples / forward_s if flops_per_sample and forward_s else None
    if achieved is not None and matmul_flops_per_s is None:
        said.append("mfu: the matrix-product ceiling is measured by step 03")
    said += dict.fromkeys(text for run in runs for text in run.gpu.warnings)
    reasons = instability(seconds)
    return BatchSizeRecord(
        batch_size=batch_size, status="ok", num_runs=len(runs), num_samples=first.num_samples,
        latency_per_sample_ms=summarise([1e3 * run.seconds / run.num_samples for run in runs]),
        latency_per_batch_ms=summarise(batches or [1e3 * run.seconds / run.num_batches for run in runs]),
        latency_total_s=summarise(seconds),
        throughput_samples_per_sec=summarise(rates),
        throughput_batches_per_sec=summarise([run.num_batches / run.seconds for run in runs]),
        throughput_tokens_per_sec=summarise([r.real_tokens / r.seconds for r in runs if r.real_tokens is not None]),
        latency_per_batch_ms_p90=percentile(batches, 90),
        latency_per_batch_ms_p95=percentile(batches, 95),
        latency_per_batch_ms_p99=percentile(batches, 99),
        throughput_samples_per_sec_ci95_low=low,
        throughput_samples_per_sec_ci95_high=high,
        **(phases or {}),
        gpu_mem_used=_largest_mb(run.allocated_bytes for run in runs),
        gpu_mem_reserved=_largest_mb(run.reserved_bytes for run in runs),
        peak_gpu_mem=_largest_mb(run.peak_bytes for run in runs),
        cpu_mem_used=_largest_mb(run.resident_bytes for run in runs),
        gpu_util_pct_mean=_mean(run.gpu.util_pct_mean for run in runs),
        gpu_power_w_mean=_mean(run.gpu.power_w_mean for run in runs),
        energy_per_sample_j=_mean(None if r.gpu.energy_j is None else r.gpu.energy_j / r.num_samples for r in runs),
        padding_fraction=_padding_fraction(first),
        flops_per_sample=flops_per_sample,
        achieved_tflops=None if achieved is None else achieved / 1e12,
        mfu=None if achieved is None or matmul_flops_per_s is None else achieved / matmul_flops_per_s,
        cv=coefficient_of_variation(seconds),
        stable=not reasons if len(runs) > 1 else None,
        warnings=(*said, *reasons),
    )


def _phases(runs: Sequence[Run], said: list[str]) -> dict[str, float] | None:
    """Mean milliseconds a batch of each phase; a warning where they do not add up to the whole."""
    parts = [run.phase_seconds for run in runs if run.phase_seconds is not None]
    if len(parts) < len(runs):
        return None
    missing = 1 - sum(map(sum, parts)) / sum(run.seconds for run in runs)
    if abs(missing) > PHASE_TOLERANCE:
        said.append(f"phases: {missing:.1%} of the time lies between them (limit {PHASE_TOLERANCE:.0%})")
    batches = sum(run.num_batches for run in runs)
    totals = (sum(column) for column in zip(*parts, strict=True))
    return {f"{name}_ms_mean": 1e3 * total / batches for name, total in zip(PHASES, totals, strict=True)}


def _padding_fraction(run: Run) -> float | None:
    if run.real_tokens is None or run.padded_tokens is None or not run.real_tokens + run.padded_tokens:
        return None
    return run.padded_tokens / (run.real_tokens + run.padded_tokens)


def _largest_mb(values: Iterable[int | None]) -> float | None:
    known = [value for value in values if value is not None]
    return max(known) / MEGA if known else None


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None

"""What a measurement says: one run, and the row that runs at one batch size add up to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from utils.gpu_timeline import GpuReadings
from utils.statistics import (
    MIN_LATENCIES,
    MIN_RUNS,
    Summary,
    coefficient_of_variation,
    effective_size,
    instability,
    mean_interval,
    median_absolute_deviation,
    median_interval,
    next_process,
    percentile,
    summarise,
)

MEGA = 1e6
PHASES = ("tokenize", "host_to_device", "forward", "device_to_host")
PHASE_TOLERANCE = 0.03
"""Share of the whole that the phases may leave unexplained."""
WAITING_LIMIT = 0.05
"""Share of its runnable time that the process may wait for a CPU: from there on the wait shows in the latency."""
SHARED = "shared: another process used this GPU"
STATUSES = ("ok", "oom", "not_tried", "wrong_outputs")
"""``not_tried``: a smaller batch did not fit. ``wrong_outputs``: timed answers differed from untimed ones; no figures."""
UNITS = {
    "batch_size": "rows", "num_runs": "runs", "num_samples": "rows", "latency_per_sample_ms": "ms",
    "latency_per_batch_ms": "ms", "latency_total_s": "s", "throughput_samples_per_sec": "samples/s",
    "throughput_batches_per_sec": "batches/s", "throughput_tokens_per_sec": "tokens/s",
    "throughput_samples_per_sec_ci95_low": "samples/s", "throughput_samples_per_sec_ci95_high": "samples/s",
    "latency_per_token_ms_mean": "ms", "tokenize_ms_mean": "ms per batch", "host_to_device_ms_mean": "ms per batch",
    "forward_ms_mean": "ms per batch", "device_to_host_ms_mean": "ms per batch", "forward_launch_ms_mean": "ms per batch",
    "forward_device_ms_mean": "ms per batch", "gpu_mem_used": "MB", "gpu_mem_reserved": "MB", "peak_gpu_mem": "MB",
    "activations_mem": "MB", "gpu_mem_device": "MB", "gpu_mem_other": "MB", "cpu_mem_used": "MB", "cpu_mem_peak": "MB",
    "gpu_util_pct_mean": "%", "gpu_power_w_mean": "W", "energy_per_sample_j": "J", "gpu_sm_clock_mhz_mean": "MHz",
    "gpu_temperature_c_max": "degrees C", "tokens_per_batch_mean": "tokens", "padding_tokens_per_batch_mean": "tokens",
    "num_truncated": "rows", "padding_fraction": "fraction of tokens", "flops_per_sample": "FLOP",
    "achieved_tflops": "TFLOP/s", "mfu": "fraction", "cpu_wait_fraction": "fraction of runnable time", "cv": "fraction",
}
"""Unit of every figure; a figure with a spread has the same unit in each of its columns."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """The whole sample once, at one batch size. Seconds and bytes; None and empty are not measured.

    Args:
        seconds: from the first text to the last logits on the host, the device synchronised at both ends.
        num_full_batches: those that hold ``batch_size`` rows; the last batch of a run may be smaller.
        phase_seconds: a row a batch, each phase in the order of ``PHASES``.
        launch_seconds: by batch, how long the host was in the model's call; ``device_seconds``: by CUDA events on an idle
            stream, from that call's start to the end of its last kernel, gaps in which the device waits included.
        activation_bytes: peak less what was allocated before the run, the weights among it.
        cpu_wait_fraction: share of the time in which this process could have run that it waited for a CPU.
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


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchSizeRecord:
    """One row of ``detailed_metrics.csv``; ``UNITS`` gives the units, the guide says how each figure is measured.

    Latency is end to end: from the texts to their logits on the host. ``flops_per_sample`` and ``achieved_tflops``
    count what was executed, padding included.
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
    latency_per_batch_ms_mad: float | None = None
    latency_per_sample_ms_median_ci95_low: float | None = None
    latency_per_sample_ms_median_ci95_high: float | None = None
    latency_per_token_ms_mean: float | None = None
    throughput_samples_per_sec_ci95_low: float | None = None
    throughput_samples_per_sec_ci95_high: float | None = None
    tokenize_ms_mean: float | None = None
    host_to_device_ms_mean: float | None = None
    forward_ms_mean: float | None = None
    device_to_host_ms_mean: float | None = None
    forward_launch_ms_mean: float | None = None
    forward_device_ms_mean: float | None = None
    gpu_mem_used: float | None = None
    gpu_mem_reserved: float | None = None
    peak_gpu_mem: float | None = None
    activations_mem: float | None = None
    gpu_mem_device: float | None = None
    gpu_mem_other: float | None = None
    cpu_mem_used: float | None = None
    cpu_mem_peak: float | None = None
    gpu_util_pct_mean: float | None = None
    gpu_power_w_mean: float | None = None
    energy_per_sample_j: float | None = None
    energy_source: str | None = None
    gpu_sm_clock_mhz_mean: float | None = None
    gpu_temperature_c_max: float | None = None
    tokens_per_batch_mean: float | None = None
    padding_tokens_per_batch_mean: float | None = None
    num_truncated: int | None = None
    padding_fraction: float | None = None
    flops_per_sample: float | None = None
    achieved_tflops: float | None = None
    mfu: float | None = None
    cpu_wait_fraction: float | None = None
    cv: float | None = None
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
                row |= {f"{item.name}_{part.name}": getattr(value, part.name) for part in fields(Summary)}
            else:
                row[item.name] = list(value) if isinstance(value, tuple) else value
        return row


COLUMNS = tuple(BatchSizeRecord(batch_size=1, status="ok", num_runs=0, num_samples=0).to_dict())


def summarise_runs(
    batch_size: int, runs: Sequence[Run], *, window: Run | None = None, flops_per_sample: float | None = None,
    num_truncated: int | None = None, matmul_flops_per_s: float | None = None, disturbed: Sequence[str] = (),
    process_spread: float | None = 0.0, warnings: Sequence[str] = (),
) -> BatchSizeRecord:
    """The row that runs at one batch size add up to.

    Args:
        runs: in the order in which they were run; at least one.
        window: runs back to back, long enough for the GPU's readings; None takes them from ``runs``.
        flops_per_sample: executed FLOPs, padding included.
        matmul_flops_per_s: this machine's measured ceiling; MFU needs it.
        process_spread: by how much processes differ, standard deviation over mean; None is not known, and said.
        disturbed: reasons from outside the runs why the row is not stable.
    """
    first, seconds = runs[0], [run.seconds for run in runs]
    rates, per_sample = [r.num_samples / r.seconds for r in runs], [1e3 * r.seconds / r.num_samples for r in runs]
    batches = [1e3 * sum(phases) for run in runs for phases in run.phase_seconds[: run.num_full_batches]]
    mean, median = summarise(rates).mean or 0.0, summarise(per_sample).median or 0.0
    low, high = _interval(mean, mean_interval(rates), process_spread)
    median_low, median_high = _interval(median, median_interval(per_sample), process_spread)
    phases = _phase_means(runs)
    forward_s = sum(parts[PHASES.index("forward")] for run in runs for parts in run.phase_seconds)
    achieved = flops_per_sample * sum(run.num_samples for run in runs) / forward_s if flops_per_sample and forward_s else None
    waiting = _mean(runs, lambda run: run.cpu_wait_fraction)
    seen = runs if window is None else (*runs, window)
    reasons = (*instability(seconds), *_disturbances(seen, waiting), *disturbed)
    unknown = {
        "mfu: it needs the matrix-product ceiling, which step 03 measures: see bottlenecks.json": not matmul_flops_per_s,
        "flops_per_sample, achieved_tflops: no operator with a formula was counted": flops_per_sample is None,
        "num_truncated: this tokenizer does not tell which texts it cut": num_truncated is None,
        "ci95: what processes differ by is not known for this device, the intervals are of this process alone; measure it "
        "with benchmarks/repeatability.py and set profiling.process_spread": process_spread is None,
    }
    return BatchSizeRecord(
        batch_size=batch_size, status="ok", num_runs=len(runs), num_samples=first.num_samples,
        latency_per_sample_ms=summarise(per_sample),
        latency_per_batch_ms=summarise(batches or [1e3 * run.seconds / run.num_batches for run in runs]),
        latency_total_s=summarise(seconds),
        throughput_samples_per_sec=summarise(rates),
        throughput_batches_per_sec=summarise([run.num_batches / run.seconds for run in runs]),
        throughput_tokens_per_sec=summarise([r.real_tokens / r.seconds for r in runs if r.real_tokens is not None]),
        latency_per_batch_ms_p90=percentile(batches, 90),
        latency_per_batch_ms_p95=percentile(batches, 95),
        latency_per_batch_ms_p99=percentile(batches, 99),
        latency_per_batch_ms_mad=median_absolute_deviation(batches),
        latency_per_sample_ms_median_ci95_low=median_low,
        latency_per_sample_ms_median_ci95_high=median_high,
        latency_per_token_ms_mean=_mean(runs, lambda run: 1e3 * run.seconds / run.real_tokens if run.real_tokens else None),
        throughput_samples_per_sec_ci95_low=low,
        throughput_samples_per_sec_ci95_high=high,
        **phases,
        gpu_mem_used=_largest_mb(runs, lambda run: run.allocated_bytes),
        gpu_mem_reserved=_largest_mb(runs, lambda run: run.reserved_bytes),
        peak_gpu_mem=_largest_mb(runs, lambda run: run.peak_bytes),
        activations_mem=_largest_mb(runs, lambda run: run.activation_bytes),
        gpu_mem_device=_largest_mb(seen, lambda run: run.gpu.device_memory_bytes),
        gpu_mem_other=_largest_mb(seen, _outside_allocator),
        cpu_mem_used=_largest_mb(runs, lambda run: run.resident_bytes),
        cpu_mem_peak=_largest_mb(runs, lambda run: run.resident_peak_bytes),
        **_gpu_figures(runs if window is None else (window,)),
        tokens_per_batch_mean=None if first.real_tokens is None else first.real_tokens / first.num_batches,
        padding_tokens_per_batch_mean=None if first.padded_tokens is None else first.padded_tokens / first.num_batches,
        num_truncated=num_truncated,
        padding_fraction=_padding_fraction(first),
        flops_per_sample=flops_per_sample,
        achieved_tflops=None if achieved is None else achieved / 1e12,
        mfu=None if achieved is None or matmul_flops_per_s is None else achieved / matmul_flops_per_s,
        cpu_wait_fraction=waiting,
        cv=coefficient_of_variation(seconds),
        stable=not reasons if len(runs) > 1 else None,
        warnings=tuple(dict.fromkeys((
            *warnings, *_absences(runs, window, len(batches)), *(text for text, holds in unknown.items() if holds), *reasons,
        ))),
    )


def _interval(
    centre: float, own: tuple[float, float] | None, process_spread: float | None
) -> tuple[float, float] | tuple[None, None]:
    """Of another process's figure; of this process's own where nothing is known of others. No figure here is below 0."""
    if own is None:
        return None, None
    low, high = own if process_spread is None else next_process(centre, own, process_spread)
    return max(0.0, low), high


def _absences(runs: Sequence[Run], window: Run | None, latencies: int) -> Iterable[str]:
    """Why figures are null, and what else a reader should know of them."""
    per_run = max(1, latencies // len(runs))
    for percent, needed in MIN_LATENCIES.items():
        if latencies < needed:
            yield (f"latency_per_batch_ms_p{percent}: {latencies} latencies, it takes {needed} "
                   f"(profiling.num_measurement_runs={-(-needed // per_run)})")
    worth = effective_size([run.num_samples / run.seconds for run in runs])
    if worth < len(runs):
        yield f"throughput_samples_per_sec_ci95: runs follow each other; {len(runs)} are worth {worth:.1f}, so it is wider"
    spent = sum(run.seconds for run in runs)
    missing = 1 - sum(sum(map(sum, run.phase_seconds)) for run in runs) / spent
    if all(run.phase_seconds for run in runs) and abs(missing) > PHASE_TOLERANCE:
        yield f"phases: {missing:.1%} of the time lies between them (limit {PHASE_TOLERANCE:.0%})"
    if len(runs) < MIN_RUNS:
        yield f"latency_per_sample_ms_median_ci95: {len(runs)} runs, it takes {MIN_RUNS}"
    if len(runs) < 2:
        yield "throughput_samples_per_sec_ci95, cv, std: a single run has no spread"
    if runs[0].resident_peak_bytes is None:
        yield "cpu_mem_peak: this kernel does not let a process reset its peak"
    if runs[0].cpu_wait_fraction is None:
        yield "cpu_wait_fraction: this kernel does not say how long threads waited for a CPU"
    yield from (text for run in (runs if window is None else (window,)) for text in run.gpu.warnings)


def _disturbances(runs: Sequence[Run], waiting: float | None) -> Iterable[str]:
    """What else used the machine, or slowed it down, while the runs were measured."""
    if throttled := dict.fromkeys(name for run in runs for name in run.gpu.throttled):
        yield f"throttled: {', '.join(throttled)}"
    if any(run.gpu.shared for run in runs):
        yield SHARED
    if waiting is not None and waiting > WAITING_LIMIT:
        yield (f"CPU starved: threads waited for a CPU in {waiting:.0%} of their time (limit {WAITING_LIMIT:.0%}): other "
               "processes, or more threads than cores (OMP_NUM_THREADS; the tokenizer's own: TOKENIZERS_PARALLELISM=false)")


def _phase_means(runs: Sequence[Run]) -> dict[str, Any]:
    """Mean milliseconds a batch of each phase, over the batches that the latency per batch is taken from."""

    def mean(values: Sequence[float]) -> float:
        return 1e3 * sum(values) / len(values)

    full = [phases for run in runs for phases in run.phase_seconds[: run.num_full_batches]]
    means = {f"{name}_ms_mean": mean(column) for name, column in zip(PHASES, zip(*full, strict=True), strict=False)}
    for name, field_name in (("forward_launch_ms_mean", "launch_seconds"), ("forward_device_ms_mean", "device_seconds")):
        if values := [value for run in runs for value in getattr(run, field_name)[: run.num_full_batches]]:
            means[name] = mean(values)
    return means


def _gpu_figures(runs: Sequence[Run]) -> dict[str, Any]:
    """The GPU's readings over windows that are long enough for them."""
    temperatures = [run.gpu.temperature_c_max for run in runs if run.gpu.temperature_c_max is not None]
    return {
        "gpu_util_pct_mean": _mean(runs, lambda run: run.gpu.util_pct_mean),
        "gpu_power_w_mean": _mean(runs, lambda run: run.gpu.power_w_mean),
        "energy_per_sample_j": _mean(runs, lambda run: None if run.gpu.energy_j is None else run.gpu.energy_j / run.num_samples),
        "energy_source": next((run.gpu.energy_source for run in runs if run.gpu.energy_source), None),
        "gpu_sm_clock_mhz_mean": _mean(runs, lambda run: run.gpu.sm_clock_mhz_mean),
        "gpu_temperature_c_max": max(temperatures, default=None),
    }


def _outside_allocator(run: Run) -> int | None:
    """Memory in use on the device that PyTorch's allocator does not hold: CUDA's context, libraries, other processes."""
    device, reserved = run.gpu.device_memory_bytes, run.reserved_bytes
    return None if device is None or reserved is None else int(device) - reserved


def _padding_fraction(run: Run) -> float | None:
    if run.real_tokens is None or run.padded_tokens is None or not run.real_tokens + run.padded_tokens:
        return None
    return run.padded_tokens / (run.real_tokens + run.padded_tokens)


def _largest_mb(runs: Sequence[Run], of: Callable[[Run], float | None]) -> float | None:
    known = [value for run in runs if (value := of(run)) is not None]
    return max(known) / MEGA if known else None


def _mean(runs: Sequence[Run], of: Callable[[Run], float | None]) -> float | None:
    known = [value for run in runs if (value := of(run)) is not None]
    return sum(known) / len(known) if known else None

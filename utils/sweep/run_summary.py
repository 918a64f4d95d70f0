"""From runs to the table row: what all runs at one batch size show together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from utils.sweep import bench_stats
from utils.sweep.bench_stats import MIN_LATENCIES, MIN_RUNS, summarise
from utils.sweep.records import PHASES, BatchSizeRecord, Run

FORWARD = PHASES.index("forward")
PHASE_TOLERANCE = 0.03
"""Share of a run's time that may lie between its phases."""
CPU_WAIT_LIMIT = 0.05
"""Share of its runnable time that a process may wait for a CPU; above, latency shows the wait."""
SHARED = "shared: another process used this GPU"


@dataclass(frozen=True, kw_only=True, slots=True)
class RunContext:
    """What is known of the runs at one batch size beside the runs themselves.

    Args:
        sustained_run: runs back to back, long enough for the GPU's readings; None takes the
            readings from the runs.
        flops_per_sample: executed FLOPs, padding included.
        num_truncated: texts that were truncated.
        matmul_flops_per_s: the machine's measured ceiling, which MFU needs.
        process_spread: standard deviation over mean between processes; None is unknown, and a
            warning says so.
        interference: reasons from outside the runs why the row is not stable.
        warnings: more warnings for the row.
    """

    sustained_run: Run | None = None
    flops_per_sample: float | None = None
    num_truncated: int | None = None
    matmul_flops_per_s: float | None = None
    process_spread: float | None = 0.0
    interference: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def summarise_runs(
    batch_size: int, runs: Sequence[Run], context: RunContext | None = None
) -> BatchSizeRecord:
    """The table row of at least one run at one batch size; runs in the order of measurement."""
    context = context or RunContext()
    all_runs = tuple(runs)
    gpu_runs = tuple(runs)
    if context.sustained_run is not None:
        all_runs = (*runs, context.sustained_run)
        gpu_runs = (context.sustained_run,)
    seconds = [run.seconds for run in runs]
    record = BatchSizeRecord(
        batch_size=batch_size,
        status="ok",
        num_runs=len(runs),
        num_samples=runs[0].num_samples,
        num_truncated=context.num_truncated,
        flops_per_sample=context.flops_per_sample,
        cpu_wait_fraction=_mean(run.cpu_wait_fraction for run in runs),
        cv=bench_stats.coefficient_of_variation(seconds),
    )
    record = _with_run_times(record, runs, context.process_spread)
    record = _with_batch_latencies(record, runs)
    record = _with_phases(record, runs)
    record = _with_memory(record, runs, all_runs)
    record = _with_gpu_readings(record, gpu_runs)
    record = _with_tokens(record, runs)
    record = _with_flop_rates(record, runs, context)
    return _with_stability_and_warnings(record, runs, all_runs, gpu_runs, context)


def _with_run_times(
    record: BatchSizeRecord, runs: Sequence[Run], process_spread: float | None
) -> BatchSizeRecord:
    """Latency and throughput of complete runs, with their intervals."""
    per_sample_ms = [1e3 * run.seconds / run.num_samples for run in runs]
    rates = [run.num_samples / run.seconds for run in runs]
    token_rates = [run.real_tokens / run.seconds for run in runs if run.real_tokens is not None]
    latency = summarise(per_sample_ms)
    throughput = summarise(rates)
    median_interval = _widened_interval(
        latency.median, bench_stats.bootstrap_median_ci(per_sample_ms), process_spread
    )
    rate_interval = _widened_interval(
        throughput.mean, bench_stats.mean_interval(rates), process_spread
    )
    return replace(
        record,
        latency_per_sample_ms=latency,
        latency_per_sample_ms_median_ci95_low=median_interval[0],
        latency_per_sample_ms_median_ci95_high=median_interval[1],
        latency_total_s=summarise([run.seconds for run in runs]),
        latency_per_token_ms_mean=_mean(
            _safe_divide(1e3 * run.seconds, run.real_tokens) for run in runs
        ),
        throughput_samples_per_sec=throughput,
        throughput_samples_per_sec_ci95_low=rate_interval[0],
        throughput_samples_per_sec_ci95_high=rate_interval[1],
        throughput_batches_per_sec=summarise([run.num_batches / run.seconds for run in runs]),
        throughput_tokens_per_sec=summarise(token_rates),
    )


def _widened_interval(
    centre: float | None, own: tuple[float, float] | None, process_spread: float | None
) -> tuple[float | None, float | None]:
    """The interval for another process; this process's own interval if the spread is unknown."""
    if own is None or centre is None:
        return None, None
    low, high = own
    if process_spread is not None:
        low, high = bench_stats.between_process_interval(centre, own, process_spread)
    # No time and no rate is below 0.
    return max(0.0, low), high


def _full_batch_latencies_ms(runs: Sequence[Run]) -> list[float]:
    """Latencies of all full batches, in milliseconds."""
    latencies = []
    for run in runs:
        for phases in run.phase_seconds[: run.num_full_batches]:
            latencies.append(1e3 * sum(phases))
    return latencies


def _with_batch_latencies(record: BatchSizeRecord, runs: Sequence[Run]) -> BatchSizeRecord:
    latencies_ms = _full_batch_latencies_ms(runs)
    mean_latencies_ms = [1e3 * run.seconds / run.num_batches for run in runs]
    return replace(
        record,
        latency_per_batch_ms=summarise(latencies_ms or mean_latencies_ms),
        latency_per_batch_ms_p90=bench_stats.percentile(latencies_ms, 90),
        latency_per_batch_ms_p95=bench_stats.percentile(latencies_ms, 95),
        latency_per_batch_ms_p99=bench_stats.percentile(latencies_ms, 99),
        latency_per_batch_ms_mad=bench_stats.median_absolute_deviation(latencies_ms),
    )


def _with_phases(record: BatchSizeRecord, runs: Sequence[Run]) -> BatchSizeRecord:
    """Mean milliseconds per full batch of each phase."""
    phases: list[tuple[float, ...]] = []
    launches: list[float] = []
    on_device: list[float] = []
    for run in runs:
        phases += run.phase_seconds[: run.num_full_batches]
        launches += run.launch_seconds[: run.num_full_batches]
        on_device += run.device_seconds[: run.num_full_batches]
    means_ms = [_mean_ms(column) for column in zip(*phases, strict=True)]
    tokenize_ms, host_to_device_ms, forward_ms, device_to_host_ms = means_ms or [None] * len(PHASES)
    return replace(
        record,
        tokenize_ms_mean=tokenize_ms,
        host_to_device_ms_mean=host_to_device_ms,
        forward_ms_mean=forward_ms,
        device_to_host_ms_mean=device_to_host_ms,
        forward_launch_ms_mean=_mean_ms(launches),
        forward_device_ms_mean=_mean_ms(on_device),
    )


def _with_memory(
    record: BatchSizeRecord, runs: Sequence[Run], all_runs: Sequence[Run]
) -> BatchSizeRecord:
    """The largest value of all runs, in MB."""
    # What the allocator of PyTorch does not hold: CUDA's context, libraries, other processes.
    other_bytes = []
    for run in all_runs:
        if run.gpu.device_memory_bytes is not None and run.reserved_bytes is not None:
            other_bytes.append(run.gpu.device_memory_bytes - run.reserved_bytes)
    return replace(
        record,
        gpu_mem_used=_largest_mb(run.allocated_bytes for run in runs),
        gpu_mem_reserved=_largest_mb(run.reserved_bytes for run in runs),
        peak_gpu_mem=_largest_mb(run.peak_bytes for run in runs),
        activations_mem=_largest_mb(run.activation_bytes for run in runs),
        cpu_mem_used=_largest_mb(run.resident_bytes for run in runs),
        cpu_mem_peak=_largest_mb(run.resident_peak_bytes for run in runs),
        gpu_mem_device=_largest_mb(run.gpu.device_memory_bytes for run in all_runs),
        gpu_mem_other=_largest_mb(other_bytes),
    )


def _with_gpu_readings(record: BatchSizeRecord, gpu_runs: Sequence[Run]) -> BatchSizeRecord:
    energies = [_safe_divide(run.gpu.energy_j, run.num_samples) for run in gpu_runs]
    sources = [run.gpu.energy_source for run in gpu_runs if run.gpu.energy_source]
    return replace(
        record,
        gpu_util_pct_mean=_mean(run.gpu.util_pct_mean for run in gpu_runs),
        gpu_power_w_mean=_mean(run.gpu.power_w_mean for run in gpu_runs),
        energy_per_sample_j=_mean(energies),
        energy_source=next(iter(sources), None),
        gpu_sm_clock_mhz_mean=_mean(run.gpu.sm_clock_mhz_mean for run in gpu_runs),
        gpu_temperature_c_max=_largest(run.gpu.temperature_c_max for run in gpu_runs),
    )


def _with_tokens(record: BatchSizeRecord, runs: Sequence[Run]) -> BatchSizeRecord:
    """Tokens of a batch; every run has the same ones."""
    run = runs[0]
    all_tokens = (run.real_tokens or 0) + (run.padded_tokens or 0)
    return replace(
        record,
        tokens_per_batch_mean=_safe_divide(run.real_tokens, run.num_batches),
        padding_tokens_per_batch_mean=_safe_divide(run.padded_tokens, run.num_batches),
        padding_fraction=_safe_divide(run.padded_tokens, all_tokens),
    )


def _with_flop_rates(
    record: BatchSizeRecord, runs: Sequence[Run], context: RunContext
) -> BatchSizeRecord:
    """FLOP/s over the forward phase of all batches, also smaller ones."""
    if context.flops_per_sample is None:
        return record
    forward_s = 0.0
    for run in runs:
        forward_s += sum(phases[FORWARD] for phases in run.phase_seconds)
    flops = context.flops_per_sample * sum(run.num_samples for run in runs)
    achieved = _safe_divide(flops, forward_s)
    return replace(
        record,
        achieved_tflops=_safe_divide(achieved, 1e12),
        mfu=_safe_divide(achieved, context.matmul_flops_per_s),
    )


def _with_stability_and_warnings(
    record: BatchSizeRecord,
    runs: Sequence[Run],
    all_runs: Sequence[Run],
    gpu_runs: Sequence[Run],
    context: RunContext,
) -> BatchSizeRecord:
    reasons = [
        *bench_stats.instability_reasons([run.seconds for run in runs]),
        *_interference_reasons(all_runs, record.cpu_wait_fraction),
        *context.interference,
    ]
    warnings = [
        *context.warnings,
        *_percentile_reasons(runs),
        *_interval_reasons(runs),
        *_kernel_reasons(runs[0]),
    ]
    for run in gpu_runs:
        warnings += run.gpu.warnings
    warnings += _context_reasons(context)
    warnings += reasons
    return replace(
        record,
        # A single run shows nothing of stability.
        stable=not reasons if len(runs) > 1 else None,
        warnings=tuple(dict.fromkeys(warnings)),
    )


def _percentile_reasons(runs: Sequence[Run]) -> list[str]:
    """Why percentiles are missing, with the number of runs that gives them."""
    reasons = []
    num_latencies = len(_full_batch_latencies_ms(runs))
    latencies_per_run = max(1, num_latencies // len(runs))
    for percent, needed in MIN_LATENCIES.items():
        if num_latencies < needed:
            runs_needed = -(-needed // latencies_per_run)
            reasons.append(
                f"latency_per_batch_ms_p{percent}: {num_latencies} latencies, {needed} are needed "
                f"(profiling.num_measurement_runs={runs_needed})"
            )
    return reasons


def _interval_reasons(runs: Sequence[Run]) -> list[str]:
    """Why intervals are missing or wide, and whether the phases leave time unexplained."""
    reasons = []
    count = len(runs)
    size = bench_stats.effective_sample_size([run.num_samples / run.seconds for run in runs])
    if size < count:
        reasons.append(
            f"throughput_samples_per_sec_ci95: runs are autocorrelated; {count} runs count as "
            f"{size:.1f} independent ones, so the interval is wider"
        )
    unexplained = _unexplained_fraction(runs)
    if unexplained is not None and abs(unexplained) > PHASE_TOLERANCE:
        reasons.append(
            f"phases: {unexplained:.1%} of the time lies between them (limit {PHASE_TOLERANCE:.0%})"
        )
    if count < MIN_RUNS:
        reasons.append(f"latency_per_sample_ms_median_ci95: {count} runs, {MIN_RUNS} are needed")
    if count < 2:
        reasons.append("throughput_samples_per_sec_ci95, cv, std: a single run has no spread")
    return reasons


def _unexplained_fraction(runs: Sequence[Run]) -> float | None:
    """Share of the runs' time that lies between the phases; None without phases."""
    phases_s = 0.0
    for run in runs:
        if not run.phase_seconds:
            return None
        phases_s += sum(map(sum, run.phase_seconds))
    return 1 - phases_s / sum(run.seconds for run in runs)


def _kernel_reasons(run: Run) -> list[str]:
    """What this operating system does not report."""
    reasons = []
    if run.resident_peak_bytes is None:
        reasons.append("cpu_mem_peak: this kernel does not let a process reset its peak")
    if run.cpu_wait_fraction is None:
        reasons.append(
            "cpu_wait_fraction: this kernel does not report how long threads waited for a CPU"
        )
    return reasons


def _context_reasons(context: RunContext) -> list[str]:
    """Why metrics are missing that need more than the runs."""
    reasons = []
    if not context.matmul_flops_per_s:
        reasons.append(
            "mfu: it needs the matrix-product ceiling, which step 03 measures: see bottlenecks.json"
        )
    if context.flops_per_sample is None:
        reasons.append("flops_per_sample, achieved_tflops: no operator with a formula was counted")
    if context.num_truncated is None:
        reasons.append("num_truncated: this tokenizer does not report which texts it truncated")
    if context.process_spread is None:
        reasons.append(
            "ci95: the spread between processes is unknown for this device, so the intervals are "
            "of this process alone; measure it with benchmarks/repeatability.py and set "
            "profiling.process_spread"
        )
    return reasons


def _interference_reasons(runs: Sequence[Run], cpu_wait_fraction: float | None) -> list[str]:
    """What else used the machine, or slowed it down, while the runs were measured."""
    reasons = []
    throttled: list[str] = []
    for run in runs:
        throttled += run.gpu.throttled
    if throttled:
        reasons.append(f"throttled: {', '.join(dict.fromkeys(throttled))}")
    if any(run.gpu.shared for run in runs):
        reasons.append(SHARED)
    if cpu_wait_fraction is not None and cpu_wait_fraction > CPU_WAIT_LIMIT:
        reasons.append(
            f"CPU starved: threads waited for a CPU in {cpu_wait_fraction:.0%} of their time "
            f"(limit {CPU_WAIT_LIMIT:.0%}): other processes, or more threads than cores "
            "(OMP_NUM_THREADS; the tokenizer's own: TOKENIZERS_PARALLELISM=false)"
        )
    return reasons


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    if not known:
        return None
    return sum(known) / len(known)


def _mean_ms(seconds: Sequence[float]) -> float | None:
    if not seconds:
        return None
    return 1e3 * sum(seconds) / len(seconds)


def _largest(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _largest_mb(values_bytes: Iterable[float | None]) -> float | None:
    return _safe_divide(_largest(values_bytes), 1e6)


def _safe_divide(numerator: float | None, denominator: float | None) -> float | None:
    """The ratio; None if a part is missing or the denominator is 0."""
    if numerator is None or not denominator:
        return None
    return numerator / denominator

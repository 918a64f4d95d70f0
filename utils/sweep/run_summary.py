"""From runs to the table row: what all runs at one batch size show together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field

from utils.schema.batch_size import BatchSizeRow, FailedStatus, percentile_columns
from utils.schema.common import complete_reasons, nullable_metrics
from utils.schema.sweep_checkpoint import PHASES, Run
from utils.schema.warning_codes import sentence_of
from utils.sweep import bench_stats
from utils.sweep.bench_stats import summarise
from utils.sweep.row_reasons import (
    GPU_READING_COLUMNS,
    RowRuns,
    row_warnings,
    unavailable_reasons,
    unstable_reasons,
)

FORWARD = PHASES.index("forward")

Metrics = dict[str, float | None]
"""Values by column."""


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
        unavailable: more reasons for missing metrics, by column.
    """

    sustained_run: Run | None = None
    flops_per_sample: float | None = None
    num_truncated: int | None = None
    matmul_flops_per_s: float | None = None
    process_spread: float | None = 0.0
    interference: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    unavailable: Mapping[str, str] = field(default_factory=dict)


def summarise_runs(
    batch_size: int, runs: Sequence[Run], context: RunContext | None = None
) -> BatchSizeRow:
    """The table row of at least one run at one batch size; runs in the order of measurement."""
    context = context or RunContext()
    row_runs = RowRuns(runs=tuple(runs), sustained_run=context.sustained_run)
    metrics: Metrics = {
        **_run_times(runs, context.process_spread),
        **_batch_latencies(row_runs, context.process_spread),
        **_phases(runs),
        **_memory(runs),
        **_device_memory(row_runs.all_runs),
        **_gpu_readings(row_runs.gpu_runs),
        **_tokens(runs[0]),
        **_flop_rates(runs, context),
        "num_truncated": context.num_truncated,
        "cpu_wait_fraction": _mean(run.cpu_wait_fraction for run in runs),
        "cv": bench_stats.coefficient_of_variation([run.seconds for run in runs]),
    }
    stability = (*unstable_reasons(row_runs), *context.interference)
    # A single run shows nothing of stability.
    stable = not stability if len(runs) > 1 else None
    values = {**metrics, "energy_source": _energy_source(row_runs.gpu_runs), "stable": stable}
    reasons = {**unavailable_reasons(row_runs), **context.unavailable}
    warnings = (
        *context.warnings,
        *row_warnings(row_runs, spread_is_known=context.process_spread is not None),
        *stability,
    )
    return BatchSizeRow.model_validate(
        {
            "batch_size": batch_size,
            "status": "ok",
            "num_runs": len(runs),
            "num_samples": runs[0].num_samples,
            **values,
            "warnings": tuple(dict.fromkeys(warnings)),
            "unavailable": complete_reasons(BatchSizeRow, values, reasons),
        }
    )


def failed_row(
    batch_size: int, num_samples: int, status: FailedStatus, warnings: Sequence[str]
) -> BatchSizeRow:
    """The table row of a batch size without metrics; the first warning is the reason."""
    return BatchSizeRow(
        batch_size=batch_size,
        status=status,
        num_runs=0,
        num_samples=num_samples,
        warnings=tuple(dict.fromkeys(warnings)),
        unavailable=dict.fromkeys(nullable_metrics(BatchSizeRow), sentence_of(warnings[0])),
    )


def _spread(name: str, values: Sequence[float]) -> Metrics:
    """The five columns of a metric with a spread: mean, std, min, max, median."""
    return {f"{name}_{part}": value for part, value in asdict(summarise(values)).items()}


def _run_times(runs: Sequence[Run], process_spread: float | None) -> Metrics:
    """Latency and throughput of complete runs, with their intervals."""
    per_sample_ms = [1e3 * run.seconds / run.num_samples for run in runs]
    rates = [run.num_samples / run.seconds for run in runs]
    token_rates = [run.real_tokens / run.seconds for run in runs if run.real_tokens is not None]
    median_interval = _widened_interval(
        summarise(per_sample_ms).median,
        bench_stats.bootstrap_median_ci(per_sample_ms),
        process_spread,
    )
    rate_interval = _widened_interval(
        summarise(rates).mean, bench_stats.mean_interval(rates), process_spread
    )
    return {
        **_spread("latency_per_sample_ms", per_sample_ms),
        **_spread("latency_total_s", [run.seconds for run in runs]),
        **_spread("throughput_samples_per_sec", rates),
        **_spread("throughput_batches_per_sec", [run.num_batches / run.seconds for run in runs]),
        **_spread("throughput_tokens_per_sec", token_rates),
        "latency_per_sample_ms_median_ci95_low": median_interval[0],
        "latency_per_sample_ms_median_ci95_high": median_interval[1],
        "latency_per_token_ms_mean": _mean(
            _safe_divide(1e3 * run.seconds, run.real_tokens) for run in runs
        ),
        "throughput_samples_per_sec_ci95_low": rate_interval[0],
        "throughput_samples_per_sec_ci95_high": rate_interval[1],
    }


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


def _batch_latencies(row_runs: RowRuns, process_spread: float | None) -> Metrics:
    """Metrics of the full batches of all runs; every column of a percentile is filled."""
    latencies_ms = row_runs.full_batch_latencies_ms
    mean_latencies_ms = [1e3 * run.seconds / run.num_batches for run in row_runs.runs]
    metrics = _spread("latency_per_batch_ms", latencies_ms or mean_latencies_ms)
    for column, percent in percentile_columns().items():
        value, low, high = percentile_with_interval(latencies_ms, percent, process_spread)
        metrics[column] = value
        metrics[f"{column}_ci95_low"] = low
        metrics[f"{column}_ci95_high"] = high
    metrics["latency_per_batch_ms_mad"] = bench_stats.median_absolute_deviation(latencies_ms)
    return metrics


def percentile_with_interval(
    latencies_ms: Sequence[float], percent: int, process_spread: float | None
) -> tuple[float | None, float | None, float | None]:
    """A percentile with both ends of its interval for another process.

    All None for fewer latencies than ``min_latencies``. The interval is of this process alone if
    the spread between processes is unknown.
    """
    value = bench_stats.percentile(latencies_ms, percent)
    low, high = bench_stats.percentile_bounds(latencies_ms, percent)
    if value is None or low is None or high is None:
        return value, None, None
    low, high = _widened_interval(value, (low, high), process_spread)
    return value, low, high


def _phases(runs: Sequence[Run]) -> Metrics:
    """Mean milliseconds per full batch of each phase."""
    phases: list[tuple[float, ...]] = []
    launches: list[float] = []
    on_device: list[float] = []
    for run in runs:
        phases += run.phase_seconds[: run.num_full_batches]
        launches += run.launch_seconds[: run.num_full_batches]
        on_device += run.device_seconds[: run.num_full_batches]
    metrics: Metrics = {
        "forward_launch_ms_mean": _mean_ms(launches),
        "forward_device_ms_mean": _mean_ms(on_device),
    }
    for position, name in enumerate(PHASES):
        metrics[f"{name}_ms_mean"] = _mean_ms([batch[position] for batch in phases])
    return metrics


def _memory(runs: Sequence[Run]) -> Metrics:
    """The largest value of all runs, in MB."""
    return {
        "gpu_mem_used": _largest_mb(run.allocated_bytes for run in runs),
        "gpu_mem_change": _largest_mb(run.allocated_change_bytes for run in runs),
        "gpu_mem_reserved": _largest_mb(run.reserved_bytes for run in runs),
        "peak_gpu_mem": _largest_mb(run.peak_bytes for run in runs),
        "activations_mem": _largest_mb(run.activation_bytes for run in runs),
        "cpu_mem_used": _largest_mb(run.resident_bytes for run in runs),
        "cpu_mem_peak": _largest_mb(run.resident_peak_bytes for run in runs),
    }


def _device_memory(all_runs: Sequence[Run]) -> Metrics:
    """The largest use of the complete device, and of it what PyTorch's allocator does not hold.

    That is CUDA's context, libraries and other processes.
    """
    other_bytes = []
    for run in all_runs:
        if run.gpu.device_memory_bytes is not None and run.reserved_bytes is not None:
            other_bytes.append(run.gpu.device_memory_bytes - run.reserved_bytes)
    return {
        "gpu_mem_device": _largest_mb(run.gpu.device_memory_bytes for run in all_runs),
        "gpu_mem_other": _largest_mb(other_bytes),
    }


def _gpu_readings(gpu_runs: Sequence[Run]) -> Metrics:
    energies = [_safe_divide(run.gpu.energy_j, run.num_samples) for run in gpu_runs]
    metrics: Metrics = {
        "energy_per_sample_j": _mean(energies),
        "gpu_temperature_c_max": _largest(run.gpu.temperature_c_max for run in gpu_runs),
    }
    for column in ("gpu_util_pct_mean", "gpu_power_w_mean", "gpu_sm_clock_mhz_mean"):
        reading = GPU_READING_COLUMNS[column]
        metrics[column] = _mean(getattr(run.gpu, reading) for run in gpu_runs)
    return metrics


def _energy_source(gpu_runs: Sequence[Run]) -> str | None:
    for run in gpu_runs:
        if run.gpu.energy_source:
            return run.gpu.energy_source
    return None


def _tokens(run: Run) -> Metrics:
    """Tokens of a batch; every run has the same ones."""
    all_tokens = (run.real_tokens or 0) + (run.padding_tokens or 0)
    return {
        "tokens_per_batch_mean": _safe_divide(run.real_tokens, run.num_batches),
        "padding_tokens_per_batch_mean": _safe_divide(run.padding_tokens, run.num_batches),
        "padding_fraction": _safe_divide(run.padding_tokens, all_tokens),
    }


def _flop_rates(runs: Sequence[Run], context: RunContext) -> Metrics:
    """FLOP/s over the forward phase of all batches, also smaller ones."""
    if context.flops_per_sample is None:
        return {}
    forward_s = 0.0
    for run in runs:
        forward_s += sum(phases[FORWARD] for phases in run.phase_seconds)
    flops = context.flops_per_sample * sum(run.num_samples for run in runs)
    achieved = _safe_divide(flops, forward_s)
    return {
        "flops_per_sample": context.flops_per_sample,
        "achieved_tflops": _safe_divide(achieved, 1e12),
        "mfu": _safe_divide(achieved, context.matmul_flops_per_s),
    }


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

"""Why metrics of a row are missing, why it is not stable, and what else to know about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from utils.schema.batch_size import BatchSizeRow, percentile_columns
from utils.schema.common import nullable_metrics
from utils.schema.sweep_checkpoint import PHASES, Run
from utils.schema.warning_codes import WarningCode
from utils.sweep import bench_stats
from utils.sweep.bench_stats import MIN_RUNS, min_latencies
from utils.sweep.noise import CPU_WAIT_LIMIT
from utils.sweep.stability import instability_reasons
from utils.system.device import NOT_ON_CUDA
from utils.system.gpu_readings import throttling_warning

PHASE_TOLERANCE = 0.03
"""Share of a run's time that may lie between its phases."""
SHARED = WarningCode.SHARED.warn("another process used this GPU")
GPU_READING_COLUMNS = {
    "gpu_util_pct_mean": "util_pct_mean",
    "gpu_power_w_mean": "power_w_mean",
    "energy_per_sample_j": "energy_j",
    "energy_source": "energy_j",
    "gpu_sm_clock_mhz_mean": "sm_clock_mhz_mean",
    "gpu_temperature_c_max": "temperature_c_max",
}
"""Columns that come from NVML, with the field of ``GpuReadings`` that they need."""
ALLOCATOR_COLUMNS = (
    "gpu_mem_used",
    "gpu_mem_change",
    "gpu_mem_reserved",
    "peak_gpu_mem",
    "activations_mem",
)
"""Columns that come from PyTorch's allocator."""
TOKEN_COLUMNS = (
    "latency_per_token_ms_mean",
    "tokens_per_batch_mean",
    "padding_tokens_per_batch_mean",
    "padding_fraction",
    "num_truncated",
)
NO_BATCH_TIMES = "the measured block did not time its batches"
NO_FULL_BATCH = "no batch of the runs was full"
NO_TOKENS = "the measured block did not count its tokens"
NO_FLOPS = "no operator with a formula was counted"
FLOP_COLUMNS = ("flops_per_sample", "achieved_tflops", "mfu")
"""Columns that need the FLOPs of the batches."""
NO_CEILING = "it needs the matrix-product ceiling, which step 03 measures: see bottlenecks.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class RowRuns:
    """The runs of one batch size; ``sustained_run`` is in no other metric than the GPU's."""

    runs: tuple[Run, ...]
    sustained_run: Run | None = None

    @property
    def all_runs(self) -> tuple[Run, ...]:
        """The runs and the sustained one."""
        if self.sustained_run is None:
            return self.runs
        return (*self.runs, self.sustained_run)

    @property
    def gpu_runs(self) -> tuple[Run, ...]:
        """The runs that the GPU's readings come from."""
        if self.sustained_run is None:
            return self.runs
        return (self.sustained_run,)

    @property
    def full_batch_latencies_ms(self) -> list[float]:
        """Latencies of all full batches in milliseconds."""
        latencies = []
        for run in self.runs:
            for phases in run.phase_seconds[: run.num_full_batches]:
                latencies.append(1e3 * sum(phases))
        return latencies


def unavailable_reasons(row_runs: RowRuns) -> dict[str, str]:
    """For each column that may be missing: the reason that applies if it is."""
    return {
        **_single_run_reasons(row_runs.runs),
        **_batch_reasons(row_runs),
        **_device_reasons(row_runs),
        "cpu_mem_peak": "this kernel does not let a process reset its peak",
        "cpu_wait_fraction": "this kernel does not report how long threads waited for a CPU",
        **_token_reasons(row_runs.runs[0]),
    }


def _single_run_reasons(runs: Sequence[Run]) -> dict[str, str]:
    """Columns of spread, and intervals, which need several runs."""
    no_spread = "a single run has no spread"
    reasons = {"cv": no_spread, "stable": "a single run shows nothing of stability"}
    for name in nullable_metrics(BatchSizeRow):
        if name.endswith("_std"):
            reasons[name] = no_spread
    for end in ("low", "high"):
        reasons[f"throughput_samples_per_sec_ci95_{end}"] = no_spread
        reasons[f"latency_per_sample_ms_median_ci95_{end}"] = (
            f"{len(runs)} runs, {MIN_RUNS} are needed"
        )
    return reasons


def _batch_reasons(row_runs: RowRuns) -> dict[str, str]:
    """Columns of single batches; of a percentile, how many runs would give it."""
    runs = row_runs.runs
    reason = NO_FULL_BATCH if runs[0].phase_seconds else NO_BATCH_TIMES
    reasons = {"latency_per_batch_ms_mad": reason}
    for phase in PHASES:
        reasons[f"{phase}_ms_mean"] = reason
    num_latencies = len(row_runs.full_batch_latencies_ms)
    if num_latencies == 1:
        reasons["latency_per_batch_ms_std"] = "a single batch has no spread"
    latencies_per_run = max(1, num_latencies // len(runs))
    for column, percent in percentile_columns().items():
        needed = min_latencies(percent)
        runs_needed = -(-needed // latencies_per_run)
        reason = (
            f"{num_latencies} latencies, {needed} are needed "
            f"(profiling.num_measurement_runs={runs_needed})"
        )
        for name in (column, f"{column}_ci95_low", f"{column}_ci95_high"):
            reasons[name] = reason
    return reasons


def _device_reasons(row_runs: RowRuns) -> dict[str, str]:
    """Columns of the GPU."""
    reasons = {}
    on_cuda = row_runs.runs[0].allocated_bytes is not None
    reason = NO_BATCH_TIMES if on_cuda else NOT_ON_CUDA
    reasons["forward_launch_ms_mean"] = reason
    reasons["forward_device_ms_mean"] = reason
    for column in ALLOCATOR_COLUMNS:
        reasons[column] = NOT_ON_CUDA
    for column, reading in GPU_READING_COLUMNS.items():
        missing = _reading_reason(row_runs.gpu_runs, reading)
        if missing is not None:
            reasons[column] = missing
    missing = _reading_reason(row_runs.all_runs, "device_memory_bytes")
    if missing is not None:
        reasons["gpu_mem_device"] = missing
        reasons["gpu_mem_other"] = missing
    return reasons


def _reading_reason(runs: Sequence[Run], reading: str) -> str | None:
    """The first reason why NVML gave no such reading."""
    for run in runs:
        reason = run.gpu.unavailable.get(reading)
        if reason is not None:
            return reason
    return None


def _token_reasons(run: Run) -> dict[str, str]:
    """Columns of tokens and FLOPs."""
    no_tokens = NO_TOKENS if run.real_tokens is None else "the texts have no tokens"
    reasons = dict.fromkeys(TOKEN_COLUMNS, no_tokens)
    if run.real_tokens is None:
        for part in ("mean", "std", "min", "max", "median"):
            reasons[f"throughput_tokens_per_sec_{part}"] = no_tokens
    if run.real_tokens is not None:
        reasons["num_truncated"] = "an earlier version measured this and did not count them"
    reasons["flops_per_sample"] = NO_FLOPS
    reasons["achieved_tflops"] = NO_FLOPS if run.phase_seconds else NO_BATCH_TIMES
    reasons["mfu"] = NO_CEILING
    return reasons


def row_warnings(row_runs: RowRuns, *, spread_is_known: bool) -> list[str]:
    """What to know about the row's values, apart from stability."""
    warnings = _interval_warnings(row_runs.runs)
    for run in row_runs.gpu_runs:
        warnings += run.gpu.warnings
    if not spread_is_known:
        warnings.append(
            WarningCode.INTERVAL.warn(
                "how much times differ between processes is not known for this device, so the "
                "intervals hold for this process alone; measure it with "
                "benchmarks/repeatability.py and set profiling.process_spread"
            )
        )
    return warnings


def _interval_warnings(runs: Sequence[Run]) -> list[str]:
    """Whether an interval is wider than usual, and whether phases leave time unexplained."""
    warnings = []
    count = len(runs)
    size = bench_stats.effective_sample_size([run.num_samples / run.seconds for run in runs])
    if size < count:
        warnings.append(
            WarningCode.INTERVAL.warn(
                f"runs resemble the ones before them, so that {count} runs count as {size:.1f} "
                "independent ones and the interval of the throughput is wider"
            )
        )
    unexplained = _unexplained_fraction(runs)
    if unexplained is not None and abs(unexplained) > PHASE_TOLERANCE:
        warnings.append(
            WarningCode.PHASES.warn(
                f"{unexplained:.1%} of the time lies between the measured phases "
                f"(the limit is {PHASE_TOLERANCE:.0%})"
            )
        )
    return warnings


def _unexplained_fraction(runs: Sequence[Run]) -> float | None:
    """Share of the runs' time that lies between the phases; None without phases."""
    phases_s = 0.0
    for run in runs:
        if not run.phase_seconds:
            return None
        phases_s += sum(map(sum, run.phase_seconds))
    return 1 - phases_s / sum(run.seconds for run in runs)


def unstable_reasons(row_runs: RowRuns) -> list[str]:
    """Why the runs are not stable: their times, or what else used or slowed down the machine."""
    reasons = list(instability_reasons([run.seconds for run in row_runs.runs]))
    throttled: list[str] = []
    for run in row_runs.all_runs:
        throttled += run.gpu.throttled
    if throttled:
        reasons.append(throttling_warning(tuple(dict.fromkeys(throttled))))
    if any(run.gpu.shared for run in row_runs.all_runs):
        reasons.append(SHARED)
    waits = [run.cpu_wait_fraction for run in row_runs.runs if run.cpu_wait_fraction is not None]
    if waits and sum(waits) / len(waits) > CPU_WAIT_LIMIT:
        reasons.append(_cpu_wait_reason(sum(waits) / len(waits)))
    return reasons


def _cpu_wait_reason(cpu_wait_fraction: float) -> str:
    return WarningCode.CPU_WAIT.warn(
        f"threads waited for a CPU in {cpu_wait_fraction:.0%} of their time "
        f"(the limit is {CPU_WAIT_LIMIT:.0%})"
    )

"""What a measurement says: one run, and the row that runs at one batch size add up to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from utils import statistics
from utils.gpu_timeline import GpuReadings
from utils.statistics import MIN_LATENCIES, MIN_RUNS, Summary, summarise

PHASES = ("tokenize", "host_to_device", "forward", "device_to_host")
PHASE_TOLERANCE = 0.03  # share of the whole that the phases may leave unexplained
WAITING_LIMIT = 0.05  # share of its runnable time that the process may wait for a CPU: from there on it shows in the latency
SHARED = "shared: another process used this GPU"
MEMORY = {  # MB, the most of all runs
    "gpu_mem_used": "allocated_bytes", "gpu_mem_reserved": "reserved_bytes", "peak_gpu_mem": "peak_bytes",
    "activations_mem": "activation_bytes", "cpu_mem_used": "resident_bytes", "cpu_mem_peak": "resident_peak_bytes",
}
STATUSES = ("ok", "oom", "not_tried", "wrong_outputs")
"""``not_tried``: a smaller batch did not fit. ``wrong_outputs``: timed answers differed from untimed ones; no figures."""


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


def _figure(unit: str, default: Summary | None = None) -> Any:
    return field(default=default, metadata={"unit": unit})


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchSizeRecord:
    """One row of ``detailed_metrics.csv``, each figure with its unit; the guide says how each is measured.

    Latency is end to end: from the texts to their logits on the host. ``flops_per_sample`` and ``achieved_tflops``
    count what was executed, padding included.
    """

    batch_size: int = field(metadata={"unit": "rows"})
    status: str
    num_runs: int = field(metadata={"unit": "runs"})
    num_samples: int = field(metadata={"unit": "rows"})
    latency_per_sample_ms: Summary = _figure("ms", Summary())
    latency_per_batch_ms: Summary = _figure("ms", Summary())
    latency_total_s: Summary = _figure("s", Summary())
    throughput_samples_per_sec: Summary = _figure("samples/s", Summary())
    throughput_batches_per_sec: Summary = _figure("batches/s", Summary())
    throughput_tokens_per_sec: Summary = _figure("tokens/s", Summary())
    latency_per_batch_ms_p90: float | None = _figure("ms")
    latency_per_batch_ms_p95: float | None = _figure("ms")
    latency_per_batch_ms_p99: float | None = _figure("ms")
    latency_per_batch_ms_mad: float | None = _figure("ms")
    latency_per_sample_ms_median_ci95_low: float | None = _figure("ms")
    latency_per_sample_ms_median_ci95_high: float | None = _figure("ms")
    latency_per_token_ms_mean: float | None = _figure("ms")
    throughput_samples_per_sec_ci95_low: float | None = _figure("samples/s")
    throughput_samples_per_sec_ci95_high: float | None = _figure("samples/s")
    tokenize_ms_mean: float | None = _figure("ms per batch")
    host_to_device_ms_mean: float | None = _figure("ms per batch")
    forward_ms_mean: float | None = _figure("ms per batch")
    device_to_host_ms_mean: float | None = _figure("ms per batch")
    forward_launch_ms_mean: float | None = _figure("ms per batch")
    forward_device_ms_mean: float | None = _figure("ms per batch")
    gpu_mem_used: float | None = _figure("MB")
    gpu_mem_reserved: float | None = _figure("MB")
    peak_gpu_mem: float | None = _figure("MB")
    activations_mem: float | None = _figure("MB")
    gpu_mem_device: float | None = _figure("MB")
    gpu_mem_other: float | None = _figure("MB")
    cpu_mem_used: float | None = _figure("MB")
    cpu_mem_peak: float | None = _figure("MB")
    gpu_util_pct_mean: float | None = _figure("%")
    gpu_power_w_mean: float | None = _figure("W")
    energy_per_sample_j: float | None = _figure("J")
    energy_source: str | None = None
    gpu_sm_clock_mhz_mean: float | None = _figure("MHz")
    gpu_temperature_c_max: float | None = _figure("degrees C")
    tokens_per_batch_mean: float | None = _figure("tokens")
    padding_tokens_per_batch_mean: float | None = _figure("tokens")
    num_truncated: int | None = _figure("rows")
    padding_fraction: float | None = _figure("fraction of tokens")
    flops_per_sample: float | None = _figure("FLOP")
    achieved_tflops: float | None = _figure("TFLOP/s")
    mfu: float | None = _figure("fraction")
    cpu_wait_fraction: float | None = _figure("fraction of runnable time")
    cv: float | None = _figure("fraction")
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
UNITS = {item.name: item.metadata["unit"] for item in fields(BatchSizeRecord) if item.metadata}
"""Unit of every figure; a figure with a spread has the same unit in each of its columns."""


def summarise_runs(
    batch_size: int, runs: Sequence[Run], *, window: Run | None = None, flops_per_sample: float | None = None,
    num_truncated: int | None = None, matmul_flops_per_s: float | None = None, disturbed: Sequence[str] = (),
    process_spread: float | None = 0.0, warnings: Sequence[str] = (),
) -> BatchSizeRecord:
    """The row that runs at one batch size, at least one and in the order in which they were run, add up to.

    Args:
        window: runs back to back, long enough for the GPU's readings; None takes them from ``runs``.
        flops_per_sample: executed FLOPs, padding included.
        matmul_flops_per_s: this machine's measured ceiling; MFU needs it.
        process_spread: by how much processes differ, standard deviation over mean; None is not known, and said.
        disturbed: reasons from outside the runs why the row is not stable.
    """
    first, seconds = runs[0], [run.seconds for run in runs]
    rates, per_sample = [r.num_samples / r.seconds for r in runs], [1e3 * r.seconds / r.num_samples for r in runs]
    batches = [1e3 * sum(phases) for run in runs for phases in run.phase_seconds[: run.num_full_batches]]
    rate, sample = summarise(rates), summarise(per_sample)
    forward_s = sum(parts[PHASES.index("forward")] for run in runs for parts in run.phase_seconds)
    achieved = _ratio(flops_per_sample and flops_per_sample * sum(run.num_samples for run in runs), forward_s)
    waiting = _mean(run.cpu_wait_fraction for run in runs)
    seen, averaged = (runs, runs) if window is None else ((*runs, window), (window,))
    reasons = (*statistics.instability(seconds), *_disturbances(seen, waiting), *disturbed)
    notes = {
        **_notes(runs, averaged, rates, len(batches)),
        "mfu: it needs the matrix-product ceiling, which step 03 measures: see bottlenecks.json": not matmul_flops_per_s,
        "flops_per_sample, achieved_tflops: no operator with a formula was counted": flops_per_sample is None,
        "num_truncated: this tokenizer does not tell which texts it cut": num_truncated is None,
        "ci95: what processes differ by is not known for this device, the intervals are of this process alone; measure it "
        "with benchmarks/repeatability.py and set profiling.process_spread": process_spread is None,
    }
    return BatchSizeRecord(
        batch_size=batch_size, status="ok", num_runs=len(runs), num_samples=first.num_samples,
        latency_per_sample_ms=sample, latency_total_s=summarise(seconds), throughput_samples_per_sec=rate,
        latency_per_batch_ms=summarise(batches or [1e3 * run.seconds / run.num_batches for run in runs]),
        throughput_batches_per_sec=summarise([run.num_batches / run.seconds for run in runs]),
        throughput_tokens_per_sec=summarise([r.real_tokens / r.seconds for r in runs if r.real_tokens is not None]),
        **{f"latency_per_batch_ms_p{percent}": statistics.percentile(batches, percent) for percent in MIN_LATENCIES},
        latency_per_batch_ms_mad=statistics.median_absolute_deviation(batches),
        **_interval("latency_per_sample_ms_median", sample.median, statistics.median_interval(per_sample), process_spread),
        latency_per_token_ms_mean=_mean(_ratio(1e3 * run.seconds, run.real_tokens) for run in runs),
        **_interval("throughput_samples_per_sec", rate.mean, statistics.mean_interval(rates), process_spread),
        **_phase_means(runs),
        **{name: _ratio(_largest(getattr(run, item) for run in runs), 1e6) for name, item in MEMORY.items()},
        gpu_mem_device=_ratio(_largest(run.gpu.device_memory_bytes for run in seen), 1e6),
        gpu_mem_other=_ratio(_largest(  # what PyTorch's allocator does not hold: CUDA's context, libraries, other processes
            run.gpu.device_memory_bytes - run.reserved_bytes for run in seen
            if run.gpu.device_memory_bytes is not None and run.reserved_bytes is not None
        ), 1e6),
        gpu_util_pct_mean=_mean(run.gpu.util_pct_mean for run in averaged),
        gpu_power_w_mean=_mean(run.gpu.power_w_mean for run in averaged),
        energy_per_sample_j=_mean(_ratio(run.gpu.energy_j, run.num_samples) for run in averaged),
        energy_source=next((run.gpu.energy_source for run in averaged if run.gpu.energy_source), None),
        gpu_sm_clock_mhz_mean=_mean(run.gpu.sm_clock_mhz_mean for run in averaged),
        gpu_temperature_c_max=_largest(run.gpu.temperature_c_max for run in averaged),
        tokens_per_batch_mean=_ratio(first.real_tokens, first.num_batches),
        padding_tokens_per_batch_mean=_ratio(first.padded_tokens, first.num_batches),
        num_truncated=num_truncated, cpu_wait_fraction=waiting, cv=statistics.coefficient_of_variation(seconds),
        padding_fraction=_ratio(first.padded_tokens, (first.real_tokens or 0) + (first.padded_tokens or 0)),
        flops_per_sample=flops_per_sample, achieved_tflops=_ratio(achieved, 1e12), mfu=_ratio(achieved, matmul_flops_per_s),
        stable=not reasons if len(runs) > 1 else None,
        warnings=tuple(dict.fromkeys((*warnings, *(text for text, holds in notes.items() if holds), *reasons))),
    )


def _interval(name: str, centre: float | None, own: tuple[float, float] | None, spread: float | None) -> dict[str, Any]:
    """Of another process's figure; of this process's own where nothing is known of others. No figure here is below 0."""
    if own is None or centre is None:
        return {}
    low, high = own if spread is None else statistics.next_process(centre, own, spread)
    return {f"{name}_ci95_low": max(0.0, low), f"{name}_ci95_high": high}


def _notes(runs: Sequence[Run], averaged: Sequence[Run], rates: Sequence[float], latencies: int) -> dict[str, bool]:
    """Why figures are null, and what else a reader should know of them; each with whether it holds."""
    count, worth, first = len(runs), statistics.effective_size(rates), runs[0]
    missing = 1 - sum(sum(map(sum, run.phase_seconds)) for run in runs) / sum(run.seconds for run in runs)
    return {
        **{f"latency_per_batch_ms_p{percent}: {latencies} latencies, it takes {needed} "
           f"(profiling.num_measurement_runs={-(-needed // max(1, latencies // count))})": latencies < needed
           for percent, needed in MIN_LATENCIES.items()},
        f"throughput_samples_per_sec_ci95: runs follow each other; {count} are worth {worth:.1f}, so it is wider": worth < count,
        f"phases: {missing:.1%} of the time lies between them (limit {PHASE_TOLERANCE:.0%})":
            all(run.phase_seconds for run in runs) and abs(missing) > PHASE_TOLERANCE,
        f"latency_per_sample_ms_median_ci95: {count} runs, it takes {MIN_RUNS}": count < MIN_RUNS,
        "throughput_samples_per_sec_ci95, cv, std: a single run has no spread": count < 2,
        "cpu_mem_peak: this kernel does not let a process reset its peak": first.resident_peak_bytes is None,
        "cpu_wait_fraction: this kernel does not say how long threads waited for a CPU": first.cpu_wait_fraction is None,
        **{text: True for run in averaged for text in run.gpu.warnings},
    }


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
    parts = {name: [p[i] for run in runs for p in run.phase_seconds[: run.num_full_batches]] for i, name in enumerate(PHASES)}
    parts["forward_launch"] = [s for run in runs for s in run.launch_seconds[: run.num_full_batches]]
    parts["forward_device"] = [s for run in runs for s in run.device_seconds[: run.num_full_batches]]
    return {f"{name}_ms_mean": 1e3 * sum(seconds) / len(seconds) for name, seconds in parts.items() if seconds}


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _largest(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _ratio(above: float | None, below: float | None) -> float | None:
    return above / below if above is not None and below else None

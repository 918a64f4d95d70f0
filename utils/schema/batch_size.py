"""The record of one batch size: the columns of ``detailed_metrics.csv``, in order."""

from __future__ import annotations

from typing import Literal

from utils.core.files import JsonObject
from utils.schema.common import (
    Count,
    Fraction,
    MeasuredRecord,
    NonNegative,
    PositiveCount,
    Record,
    Unavailable,
    metric,
    required,
    text,
    unavailable,
    warnings,
)

Status = Literal["ok", "oom", "not_tried", "wrong_outputs"]
"""The result of a batch size.

``oom``: it does not fit into memory. ``not_tried``: a smaller one did not. ``wrong_outputs``: the
logits of timed runs differed from untimed ones, so no metrics are given.
"""
FailedStatus = Literal["oom", "not_tried", "wrong_outputs"]
EnergySource = Literal["counter", "integrated power"]

MB = "MB"
PER_BATCH = "ms per batch"


class BatchSizeRow(MeasuredRecord):
    """One batch size of the sweep; a run is the complete sample in batches of this size.

    Its fields, without ``unavailable``, are the columns of ``detailed_metrics.csv`` in order.
    Latency is end to end: from the texts to their logits on the host.
    """

    batch_size: PositiveCount = required("rows", "Texts in a batch.")
    status: Status = text(
        "`ok`; `oom`: does not fit into memory; `not_tried`: a smaller batch did not fit; "
        "`wrong_outputs`: timed logits differed from untimed ones. Only `ok` has metrics."
    )
    num_runs: Count = required("runs", "Measured runs.")
    num_samples: Count = required("rows", "Texts in a run.")

    latency_per_sample_ms_mean: NonNegative | None = metric(
        "ms", "Time of a run divided by its texts: mean over the runs."
    )
    latency_per_sample_ms_std: NonNegative | None = metric(
        "ms", "Standard deviation of `latency_per_sample_ms` over the runs."
    )
    latency_per_sample_ms_min: NonNegative | None = metric(
        "ms", "Smallest value of `latency_per_sample_ms` over the runs."
    )
    latency_per_sample_ms_max: NonNegative | None = metric(
        "ms", "Largest value of `latency_per_sample_ms` over the runs."
    )
    latency_per_sample_ms_median: NonNegative | None = metric(
        "ms", "Median of `latency_per_sample_ms` over the runs."
    )

    latency_per_batch_ms_mean: NonNegative | None = metric(
        "ms",
        "Time of a full batch by its own clock: mean over the batches of all runs. "
        "A smaller last batch is left out.",
    )
    latency_per_batch_ms_std: NonNegative | None = metric(
        "ms", "Standard deviation of `latency_per_batch_ms` over these batches."
    )
    latency_per_batch_ms_min: NonNegative | None = metric(
        "ms", "Smallest value of `latency_per_batch_ms` over these batches."
    )
    latency_per_batch_ms_max: NonNegative | None = metric(
        "ms", "Largest value of `latency_per_batch_ms` over these batches."
    )
    latency_per_batch_ms_median: NonNegative | None = metric(
        "ms", "Median of `latency_per_batch_ms` over these batches."
    )

    latency_total_s_mean: NonNegative | None = metric("s", "Time of a run: mean over the runs.")
    latency_total_s_std: NonNegative | None = metric(
        "s", "Standard deviation of `latency_total_s` over the runs."
    )
    latency_total_s_min: NonNegative | None = metric(
        "s", "Smallest value of `latency_total_s` over the runs."
    )
    latency_total_s_max: NonNegative | None = metric(
        "s", "Largest value of `latency_total_s` over the runs."
    )
    latency_total_s_median: NonNegative | None = metric(
        "s", "Median of `latency_total_s` over the runs."
    )

    throughput_samples_per_sec_mean: NonNegative | None = metric(
        "samples/s", "Texts of a run divided by its time: mean over the runs."
    )
    throughput_samples_per_sec_std: NonNegative | None = metric(
        "samples/s", "Standard deviation of `throughput_samples_per_sec` over the runs."
    )
    throughput_samples_per_sec_min: NonNegative | None = metric(
        "samples/s", "Smallest value of `throughput_samples_per_sec` over the runs."
    )
    throughput_samples_per_sec_max: NonNegative | None = metric(
        "samples/s", "Largest value of `throughput_samples_per_sec` over the runs."
    )
    throughput_samples_per_sec_median: NonNegative | None = metric(
        "samples/s", "Median of `throughput_samples_per_sec` over the runs."
    )

    throughput_batches_per_sec_mean: NonNegative | None = metric(
        "batches/s", "Batches of a run divided by its time: mean over the runs."
    )
    throughput_batches_per_sec_std: NonNegative | None = metric(
        "batches/s", "Standard deviation of `throughput_batches_per_sec` over the runs."
    )
    throughput_batches_per_sec_min: NonNegative | None = metric(
        "batches/s", "Smallest value of `throughput_batches_per_sec` over the runs."
    )
    throughput_batches_per_sec_max: NonNegative | None = metric(
        "batches/s", "Largest value of `throughput_batches_per_sec` over the runs."
    )
    throughput_batches_per_sec_median: NonNegative | None = metric(
        "batches/s", "Median of `throughput_batches_per_sec` over the runs."
    )

    throughput_tokens_per_sec_mean: NonNegative | None = metric(
        "tokens/s", "Tokens of a run, without padding, divided by its time: mean over the runs."
    )
    throughput_tokens_per_sec_std: NonNegative | None = metric(
        "tokens/s", "Standard deviation of `throughput_tokens_per_sec` over the runs."
    )
    throughput_tokens_per_sec_min: NonNegative | None = metric(
        "tokens/s", "Smallest value of `throughput_tokens_per_sec` over the runs."
    )
    throughput_tokens_per_sec_max: NonNegative | None = metric(
        "tokens/s", "Largest value of `throughput_tokens_per_sec` over the runs."
    )
    throughput_tokens_per_sec_median: NonNegative | None = metric(
        "tokens/s", "Median of `throughput_tokens_per_sec` over the runs."
    )

    latency_per_batch_ms_p90: NonNegative | None = metric(
        "ms", "90th percentile of the time of a full batch; from 64 batches on."
    )
    latency_per_batch_ms_p95: NonNegative | None = metric(
        "ms", "95th percentile of the time of a full batch; from 130 batches on."
    )
    latency_per_batch_ms_p99: NonNegative | None = metric(
        "ms", "99th percentile of the time of a full batch; from 662 batches on."
    )
    latency_per_batch_ms_p90_ci95_low: NonNegative | None = metric(
        "ms",
        "Lower end of the 95% interval of `latency_per_batch_ms_p90` for another process (order "
        "statistics).",
    )
    latency_per_batch_ms_p90_ci95_high: NonNegative | None = metric(
        "ms", "Upper end of the same interval."
    )
    latency_per_batch_ms_p95_ci95_low: NonNegative | None = metric(
        "ms",
        "Lower end of the 95% interval of `latency_per_batch_ms_p95` for another process (order "
        "statistics).",
    )
    latency_per_batch_ms_p95_ci95_high: NonNegative | None = metric(
        "ms", "Upper end of the same interval."
    )
    latency_per_batch_ms_p99_ci95_low: NonNegative | None = metric(
        "ms",
        "Lower end of the 95% interval of `latency_per_batch_ms_p99` for another process (order "
        "statistics).",
    )
    latency_per_batch_ms_p99_ci95_high: NonNegative | None = metric(
        "ms", "Upper end of the same interval."
    )
    latency_per_batch_ms_mad: NonNegative | None = metric(
        "ms",
        "Median absolute deviation of the time of a full batch, unscaled: a spread that outliers "
        "do not move.",
    )
    latency_per_sample_ms_median_ci95_low: NonNegative | None = metric(
        "ms",
        "Lower end of the 95% interval of the median for another process (bootstrap); from 5 runs "
        "on.",
    )
    latency_per_sample_ms_median_ci95_high: NonNegative | None = metric(
        "ms", "Upper end of the same interval."
    )
    latency_per_token_ms_mean: NonNegative | None = metric(
        "ms", "Time of a run divided by its tokens without padding: mean over the runs."
    )
    throughput_samples_per_sec_ci95_low: float | None = metric(
        "samples/s",
        "Lower end of the 95% interval of the mean for another process: Student's t interval, "
        "wider where runs are autocorrelated and by `profiling.process_spread`.",
    )
    throughput_samples_per_sec_ci95_high: NonNegative | None = metric(
        "samples/s", "Upper end of the same interval."
    )

    tokenize_ms_mean: NonNegative | None = metric(
        PER_BATCH, "Tokenization of a full batch: mean over the batches of all runs."
    )
    host_to_device_ms_mean: NonNegative | None = metric(
        PER_BATCH, "Copy of the inputs to the device: mean over the same batches."
    )
    forward_ms_mean: NonNegative | None = metric(
        PER_BATCH, "Forward pass, with the wait for the device: mean over the same batches."
    )
    device_to_host_ms_mean: NonNegative | None = metric(
        PER_BATCH, "Copy of the logits to the host: mean over the same batches."
    )
    forward_launch_ms_mean: NonNegative | None = metric(
        PER_BATCH,
        "Time that the host is in the model's call (CUDA only). Where it is as long as "
        "`forward_ms_mean`, the host decides.",
    )
    forward_device_ms_mean: NonNegative | None = metric(
        PER_BATCH,
        "Time from the start of the model's call to the end of its last kernel, by CUDA events; "
        "gaps in which the device waits are included (CUDA only).",
    )

    gpu_mem_used: NonNegative | None = metric(
        MB,
        "GPU memory that PyTorch has allocated after a run, the weights included: the largest of "
        "the runs.",
    )
    gpu_mem_reserved: NonNegative | None = metric(
        MB,
        "GPU memory that PyTorch's allocator holds after a run, in use or not. Batch sizes share "
        "its cache.",
    )
    peak_gpu_mem: NonNegative | None = metric(
        MB, "Most GPU memory that PyTorch had allocated at once, the weights included."
    )
    activations_mem: NonNegative | None = metric(
        MB, "The peak less what was allocated before the run: what a batch needs."
    )
    gpu_mem_change: float | None = metric(
        MB,
        "GPU memory that PyTorch has allocated after a run less before it: the largest of the "
        "runs. It is what a run leaves behind.",
    )
    gpu_mem_device: NonNegative | None = metric(
        MB, "Memory in use on the complete device, of all processes, by NVML."
    )
    gpu_mem_other: float | None = metric(
        MB,
        "The part of `gpu_mem_device` that PyTorch's allocator does not hold: CUDA's context, "
        "libraries, other processes.",
    )
    cpu_mem_used: float | None = metric(MB, "Resident memory of the process after a run.")
    cpu_mem_peak: NonNegative | None = metric(
        MB, "Peak of the resident memory during a run; the kernel's counter is reset before."
    )

    gpu_util_pct_mean: NonNegative | None = metric(
        "%", "Share of the time in which a kernel ran, by NVML: busy, not full."
    )
    gpu_power_w_mean: NonNegative | None = metric("W", "Power of the board, by NVML.")
    energy_per_sample_j: NonNegative | None = metric(
        "J", "Energy of the board during the runs divided by their texts."
    )
    energy_source: EnergySource | None = metric(
        None, "`counter`: the device's energy counter; `integrated power`: mean power times time."
    )
    gpu_sm_clock_mhz_mean: NonNegative | None = metric("MHz", "Clock of the multiprocessors.")
    gpu_temperature_c_max: NonNegative | None = metric("degrees C", "Highest temperature.")

    tokens_per_batch_mean: NonNegative | None = metric(
        "tokens", "Tokens of a batch without padding: mean over all batches of a run."
    )
    padding_tokens_per_batch_mean: NonNegative | None = metric(
        "tokens", "Padding tokens of a batch: mean over all batches of a run."
    )
    num_truncated: Count | None = metric("rows", "Texts of a run that `max_length` truncated.")
    padding_fraction: Fraction | None = metric(
        "fraction of tokens", "Padding tokens divided by all tokens that were computed."
    )
    flops_per_sample: NonNegative | None = metric(
        "FLOP", "FLOPs of matrix products, convolutions and attention for a text, with padding."
    )
    achieved_tflops: NonNegative | None = metric(
        "TFLOP/s", "These FLOPs divided by the time of the forward passes."
    )
    mfu: NonNegative | None = metric(
        "fraction", "`achieved_tflops` divided by the measured matrix-product ceiling."
    )
    cpu_wait_fraction: Fraction | None = metric(
        "fraction of runnable time", "Share in which this process's threads waited for a CPU."
    )
    cv: NonNegative | None = metric(
        "fraction", "Standard deviation of the runs' times divided by their mean."
    )
    stable: bool | None = metric(
        None, "Whether no rule of stability is violated; `warnings` names those that are."
    )
    warnings: tuple[str, ...] = warnings()
    unavailable: Unavailable = unavailable()

    def to_dict(self) -> JsonObject:
        """JSON values by column name, in the table's order."""
        return self.model_dump(mode="json", include=set(COLUMNS))


class SweepRow(BatchSizeRow):
    """A batch size measured on one sample of texts.

    These are the columns of ``detailed_metrics.csv``, in order; that table has no ``unavailable``
    and no ``sample_size``.
    """

    sample_size: PositiveCount = required("rows", "Texts in the sample that the row is of.")


class OptimalBatchSize(Record):
    """The batch size with the highest throughput that fits into memory."""

    batch_size: PositiveCount = required("rows", "Texts in a batch.")
    throughput_samples_per_sec_mean: float = required("samples/s", "Its mean throughput.")
    latency_per_sample_ms_mean: float = required("ms", "Its mean time for a text.")
    criterion: str = text("How it was chosen.")
    tied_with: tuple[int, ...] = text(
        "Batch sizes whose throughput does not differ by more than chance."
    )


COLUMNS = tuple(name for name in BatchSizeRow.model_fields if name != "unavailable")
"""Columns of ``detailed_metrics.csv``."""
PERCENTILE_PREFIX = "latency_per_batch_ms_p"


def percentile_columns() -> dict[str, int]:
    """The columns that are percentiles of the time of a full batch, with their percent."""
    columns = {}
    for name in COLUMNS:
        percent = name.removeprefix(PERCENTILE_PREFIX)
        if percent != name and percent.isdigit():
            columns[name] = int(percent)
    return columns

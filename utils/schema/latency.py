"""The record of the latency target: the largest batch size whose time stays below it."""

from __future__ import annotations

from utils.schema.common import (
    Count,
    MeasuredRecord,
    NonNegative,
    Positive,
    PositiveCount,
    Unavailable,
    metric,
    required,
    text,
    unavailable,
)

LATENCY = "Percentile of the time of a full batch, without queueing."


class LatencyTrial(MeasuredRecord):
    """One batch size, compared with the latency target."""

    batch_size: PositiveCount = required("rows", "Texts in a batch.")
    num_latencies: Count = required("batches", "Full batches that were timed.")
    latency_ms: NonNegative | None = metric("ms", LATENCY)
    latency_ms_ci95_low: NonNegative | None = metric(
        "ms", "Lower end of its 95% interval for another process (order statistics)."
    )
    latency_ms_ci95_high: NonNegative | None = metric("ms", "Upper end of the same interval.")
    throughput_samples_per_sec_mean: NonNegative | None = metric(
        "samples/s", "Mean throughput of its runs."
    )
    throughput_samples_per_sec_ci95_low: NonNegative | None = metric(
        "samples/s", "Lower end of its 95% interval for another process."
    )
    throughput_samples_per_sec_ci95_high: NonNegative | None = metric(
        "samples/s", "Upper end of the same interval."
    )
    is_below: bool | None = metric(
        None, "Whether the percentile is below the target; null where it could not be decided."
    )
    unavailable: Unavailable = unavailable()


class LatencyTarget(MeasuredRecord):
    """The largest batch size whose percentile stays below ``profiling.latency_target_ms``."""

    target_ms: Positive = required("ms", "`profiling.latency_target_ms`.")
    percentile: PositiveCount = required("%", "`profiling.latency_target_percentile`.")
    sample_size: PositiveCount = required("rows", "Texts in the sample.")
    largest_below: LatencyTrial | None = metric(
        None, "The largest batch size that was found to be below the target."
    )
    smallest_above: LatencyTrial | None = metric(
        None, "The smallest batch size above it that was found to reach the target."
    )
    tried: tuple[LatencyTrial, ...] = text("All batch sizes that were compared, by size.")
    unavailable: Unavailable = unavailable()

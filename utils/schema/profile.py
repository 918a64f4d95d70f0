"""The records of what a trace shows of the device: kernels, memory, time by module."""

from __future__ import annotations

from typing import Literal

from utils.schema.common import (
    Count,
    MeasuredRecord,
    NonNegative,
    PositiveCount,
    Record,
    Unavailable,
    metric,
    optional,
    required,
    text,
    unavailable,
)

IdleCause = Literal["host_wait", "synchronisation", "between_steps", "other"]

AttentionKernel = Literal["flash", "memory_efficient", "cudnn", "math"]


class AttentionUse(MeasuredRecord):
    """An attention kernel that PyTorch chose for batches of one size; amounts are per batch."""

    batch_size: PositiveCount = required("rows", "Texts in a batch.")
    kernel: AttentionKernel = text(
        "`flash`, `memory_efficient` and `cudnn` store no scores; `math` computes them with matrix "
        "products and stores them."
    )
    calls: NonNegative = required("calls", "Calls of the kernel.")
    measured_ms: NonNegative | None = metric(
        "ms", "Their time on the device, scaled to the untraced forward."
    )
    attainable_ms: NonNegative | None = metric(
        "ms",
        "The same attention at the ceilings, with queries, keys, values and results moved once and "
        "no scores stored.",
    )
    stored_score_bytes: NonNegative = required(
        "bytes",
        "One copy of the scores that the math kernel stores (rows × heads × length²), which it "
        "writes and reads several times; 0 for the other kernels.",
    )
    has_grouped_heads: bool | None = optional(
        "Whether several query heads share a key-value head, where the math kernel ran."
    )
    unavailable: Unavailable = unavailable()


class KernelSummary(MeasuredRecord):
    """What the GPU did, all traced steps together.

    Tracing lengthens what the host does: idle time is an upper bound.
    """

    num_steps: Count = required("steps", "Traced steps, each one batch from texts to logits.")
    num_kernels: Count = required("kernels", "Kernels, copies and fills on the device.")
    span_ms: NonNegative = required("ms", "From the first kernel's begin to the last one's end.")
    busy_ms: NonNegative = required("ms", "The part of it in which at least one kernel ran.")
    idle_ms: NonNegative = required("ms", "The other part.")
    idle_by_cause_ms: dict[IdleCause, NonNegative] = required(
        "ms",
        "Idle time by cause. `between_steps`: a step began meanwhile. `synchronisation`: the host "
        "was inside a call that waits for the device. `host_wait`: the launch of the next kernel "
        "began after the gap did. `other`: it was launched in time, or the trace lacks its launch.",
    )
    median_gap_us: NonNegative | None = metric("us", "Median length of the gaps between kernels.")
    num_launches: Count = required("calls", "Calls of the host that launch kernels.")
    launches_per_s: NonNegative | None = metric("calls/s", "The same per second of the span.")
    launch_ms: NonNegative = required("ms", "Time of the host in calls that launch kernels.")
    kernel_ms: NonNegative = required("ms", "The kernels' own times added up.")
    by_category_ms: dict[str, NonNegative] = required("ms", "The same by kind of work.")
    unavailable: Unavailable = unavailable()


class Allocation(Record):
    """Memory that is allocated at the peak, with what asked for it."""

    operator: str = text("The operator; empty outside operators.")
    module: str = text("The module or phase; empty outside modules.")
    size_mb: float = required("MB", "Its size.")
    is_workspace: bool = text("Whether the operator gives it back before it returns.")


class PeakMemory(MeasuredRecord):
    """What is allocated when most is allocated, in the traced step with the highest peak."""

    total_mb: NonNegative = required("MB", "All parts together.")
    weights_mb: NonNegative = required("MB", "Parameters and buffers of the model.")
    activations_mb: NonNegative = required("MB", "Tensors that outlive their operator.")
    workspace_mb: NonNegative = required(
        "MB", "What operators ask for and give back before they return."
    )
    other_mb: NonNegative | None = metric(
        "MB", "Neither weights nor the step's: what CUDA's libraries keep."
    )
    largest: tuple[Allocation, ...] = text("The largest allocations, the largest first.")
    unavailable: Unavailable = unavailable()


class KindTime(Record):
    """Time of all modules of one kind."""

    kind: str = text("The kind of module.")
    self_time_ms: float = required("ms", "Their own time, without the modules that they call.")
    share_pct: float = required("%", "Its share of the forward.")


class LayerTime(Record):
    """Time of all modules of one layer."""

    layer_index: int | None = optional("Number of the layer; null for modules outside of layers.")
    self_time_ms: float = required("ms", "Their own time, without the modules that they call.")
    share_pct: float = required("%", "Its share of the forward.")

"""The report's facts about the diagnosis: what the GPU did, what the peak of memory consists of."""

from __future__ import annotations

from utils.reporting.formatting import Fact, format_durations, format_number, not_measured
from utils.reporting.results import Results
from utils.schema.diagnosis import Diagnosis
from utils.schema.profile import Allocation, AttentionUse, KernelSummary, PeakMemory

LARGEST_ALLOCATIONS = 3
"""Allocations of the peak that are named."""


def kernel_facts(diagnosis: Diagnosis) -> list[Fact]:
    """What the GPU did in the traced steps, and why it waited."""
    kernels = diagnosis.kernels
    if kernels is None:
        return [Fact("Kernels", not_measured(diagnosis.reason("kernels")))]
    return [
        Fact("Device busy", _busy_text(kernels)),
        Fact("Device idle, whole steps", _idle_text(kernels)),
        Fact("Kernels by category", format_durations(kernels.by_category_ms)),
        Fact("Launching", _launch_text(kernels)),
    ]


def attention_facts(diagnosis: Diagnosis) -> list[Fact]:
    """Which attention kernel ran at each batch size, and what it stores."""
    if diagnosis.attention is None:
        return [Fact("Attention kernel", not_measured(diagnosis.reason("attention")))]
    texts = [_attention_text(use) for use in diagnosis.attention]
    return [Fact("Attention kernel", "; ".join(texts))]


def _attention_text(use: AttentionUse) -> str:
    kernel = use.kernel.replace("_", "-")
    text = f"{kernel} at batch size {use.batch_size}"
    if use.measured_ms is not None:
        text += f", {format_number(use.measured_ms, 'ms')} per batch"
    if use.stored_score_bytes:
        megabytes = format_number(use.stored_score_bytes / 1e6, "MB")
        text += f", which stores {megabytes} of scores"
    if use.kernel == "cudnn":
        text += ", which builds a plan at the first batch of each new shape"
    return text


def _busy_text(kernels: KernelSummary) -> str:
    busy = format_number(kernels.busy_ms, "ms")
    span = format_number(kernels.span_ms, "ms")
    return f"{busy} of {span} from the first kernel to the last"


def _idle_text(kernels: KernelSummary) -> str:
    causes: dict[str, float] = {}
    for cause, milliseconds in kernels.idle_by_cause_ms.items():
        if milliseconds:
            causes[cause.replace("_", " ")] = milliseconds
    idle = format_number(kernels.idle_ms, "ms")
    gap = format_number(kernels.median_gap_us, "us")
    return f"{idle}: {format_durations(causes)}; median gap {gap}"


def _launch_text(kernels: KernelSummary) -> str:
    launches = format_number(kernels.num_launches)
    per_second = format_number(kernels.launches_per_s)
    host = format_number(kernels.launch_ms, "ms")
    device = format_number(kernels.kernel_ms, "ms")
    return (
        f"{launches} launches, {per_second} per second: "
        f"{host} of the host, where the kernels take {device}"
    )


def peak_facts(diagnosis: Diagnosis) -> list[Fact]:
    """What the peak of memory consists of."""
    peak = diagnosis.peak_memory
    if peak is None:
        return [Fact("Peak", not_measured(diagnosis.reason("peak_memory")))]
    return [Fact("Peak", _peak_text(peak))]


def _peak_text(peak: PeakMemory) -> str:
    owners = {
        "weights": peak.weights_mb,
        "activations": peak.activations_mb,
        "workspace": peak.workspace_mb,
        "libraries": peak.other_mb,
    }
    shares = []
    for name, megabytes in owners.items():
        if megabytes is not None:
            shares.append(f"{name} {format_number(megabytes, 'MB')}")
    largest = [_allocation_text(item) for item in peak.largest[:LARGEST_ALLOCATIONS]]
    total = format_number(peak.total_mb, "MB")
    return f"{total}: {', '.join(shares)}. The largest: {'; '.join(largest)}"


def _allocation_text(allocation: Allocation) -> str:
    owner = allocation.operator or "outside operators"
    if allocation.module:
        owner += f" in {allocation.module}"
    return f"{owner} {format_number(allocation.size_mb, 'MB')}"


def flame_graph_time(results: Results) -> str:
    """Whose time the flame graph shows: on CUDA the device's, unless no kernel was seen."""
    diagnosis = results.diagnosis
    on_cuda = diagnosis is not None and diagnosis.device.startswith("cuda")
    if on_cuda and results.tables.has_device_times:
        return "time on the device (CUDA)"
    return "time of the host (CPU)"

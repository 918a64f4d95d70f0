"""The record of one timed run of the batch-size sweep."""

from __future__ import annotations

from dataclasses import dataclass, field

from utils.system.gpu_readings import GpuReadings

PHASES = ("tokenize", "host_to_device", "forward", "device_to_host")


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """All texts of the sample once, at one batch size. Seconds and bytes; None if not measured.

    Args:
        seconds: from the first text to the last logits on the host, with the device synchronized
            at both ends.
        num_full_batches: batches with ``batch_size`` rows; the last batch of a run may be smaller.
        phase_seconds: one row per batch, with the phases in the order of ``PHASES``.
        launch_seconds: per batch, how long the host was in the model's call.
        device_seconds: per batch, by CUDA events on an idle stream, from the start of the model's
            call to the end of its last kernel. Gaps in which the device waits are included.
        real_tokens: tokens of the texts, without padding, over all batches.
        padding_tokens: tokens that only fill up shorter texts, over all batches. The model computes
            ``real_tokens + padding_tokens``.
        allocated_bytes: what PyTorch has allocated on the GPU after the run.
        allocated_change_bytes: that, less what was allocated before the run.
        activation_bytes: the peak less what was allocated before the run, such as the weights.
        cpu_wait_fraction: share of the time in which this process could have run but waited for a
            CPU.
    """

    num_samples: int
    seconds: float
    num_batches: int
    num_full_batches: int = 0
    phase_seconds: tuple[tuple[float, ...], ...] = ()
    launch_seconds: tuple[float, ...] = ()
    device_seconds: tuple[float, ...] = ()
    real_tokens: int | None = None
    padding_tokens: int | None = None
    allocated_bytes: int | None = None
    allocated_change_bytes: int | None = None
    reserved_bytes: int | None = None
    peak_bytes: int | None = None
    activation_bytes: int | None = None
    resident_bytes: int | None = None
    resident_peak_bytes: int | None = None
    cpu_wait_fraction: float | None = None
    gpu: GpuReadings = field(default_factory=GpuReadings)

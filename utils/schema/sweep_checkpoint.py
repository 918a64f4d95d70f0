"""The records of ``sweep.json``: what an interrupted batch-size sweep has measured so far."""

from __future__ import annotations

from typing import Literal

from utils.schema.batch_size import Status
from utils.schema.common import Record, optional, required, text

CHECKPOINT_VERSION: Literal[2] = 2
"""Raise it when a field of the checkpoint changes its name or meaning; checkpoints of another
version are not continued. A field that is added needs a default."""
PHASES = ("tokenize", "host_to_device", "forward", "device_to_host")


class GpuReadings(Record):
    """What a GPU's samples over a window of time show."""

    util_pct_mean: float | None = optional("Mean utilisation.", unit="%")
    power_w_mean: float | None = optional("Mean power.", unit="W")
    power_source: str | None = optional("How the power was read.")
    energy_j: float | None = optional("Energy of the window.", unit="J")
    energy_source: str | None = optional(
        '"counter", or "integrated power": the mean times the window\'s seconds.'
    )
    device_memory_bytes: int | None = optional(
        "The most in use on the device, by all processes.", unit="bytes"
    )
    sm_clock_mhz_mean: float | None = optional("Mean clock of the processors.", unit="MHz")
    memory_clock_mhz_mean: float | None = optional("Mean clock of the memory.", unit="MHz")
    temperature_c_max: float | None = optional("Highest temperature.", unit="C")
    throttled: tuple[str, ...] = optional(
        "Clock limits that spoil a measurement, at any sample.", default=()
    )
    power_capped: bool = optional(
        "Whether the power limit lowered the clock, at any sample.", default=False
    )
    shared: bool | None = optional("Whether another process computes on the GPU; null is unknown.")
    num_samples: int = optional("Samples in the window.", default=0)
    interval_s_actual: float | None = optional("Mean time between samples.", unit="s")
    thread_cpu_share: float | None = optional(
        "CPU time of the sampling thread divided by the window's seconds.", unit="fraction"
    )
    warnings: tuple[str, ...] = optional("What spoiled the window.", default=())
    unavailable: dict[str, str] = optional(
        "For each field without a value: why it has none.", default={}
    )


class Run(Record):
    """All texts of the sample once, at one batch size; None is not measured."""

    num_samples: int = text("Texts of the run.")
    seconds: float = required(
        "s",
        "From the first text to the last logits on the host, with the device synchronised at both "
        "ends.",
    )
    num_batches: int = text("Batches of the run.")
    num_full_batches: int = optional(
        "Batches with `batch_size` rows; the last batch of a run may be smaller.", default=0
    )
    phase_seconds: tuple[tuple[float, ...], ...] = optional(
        "One row per batch, with the phases in the order of `PHASES`.", unit="s", default=()
    )
    launch_seconds: tuple[float, ...] = optional(
        "Per batch, how long the host was in the model's call.", unit="s", default=()
    )
    device_seconds: tuple[float, ...] = optional(
        "Per batch, by CUDA events on an idle stream, from the start of the model's call to the "
        "end of its last kernel. Gaps in which the device waits are included.",
        unit="s",
        default=(),
    )
    real_tokens: int | None = optional("Tokens of the texts, without padding, over all batches.")
    padding_tokens: int | None = optional(
        "Tokens that only fill up shorter texts, over all batches. The model computes "
        "`real_tokens + padding_tokens`."
    )
    allocated_bytes: int | None = optional(
        "What PyTorch has allocated on the GPU after the run.", unit="bytes"
    )
    allocated_change_bytes: int | None = optional(
        "That, less what was allocated before the run.", unit="bytes"
    )
    reserved_bytes: int | None = optional(
        "What PyTorch holds of the GPU's memory after the run.", unit="bytes"
    )
    peak_bytes: int | None = optional("The most that was allocated at once.", unit="bytes")
    activation_bytes: int | None = optional(
        "The peak less what was allocated before the run, such as the weights.", unit="bytes"
    )
    resident_bytes: int | None = optional("Memory of the process after the run.", unit="bytes")
    resident_peak_bytes: int | None = optional(
        "The most memory of the process at once.", unit="bytes"
    )
    cpu_wait_fraction: float | None = optional(
        "Share of the time in which this process could have run but waited for a CPU.",
        unit="fraction",
    )
    gpu: GpuReadings = optional("The GPU's readings over the run.", default=GpuReadings())


class WarmUpPass(Record):
    """The last untimed pass over the sample at one batch size; only estimates of the time that a
    run takes rest on it.
    """

    seconds: float = required("s", "From the first text to the last logits on the host.")
    real_tokens: int = text("Tokens of the texts, without padding.")
    computed_tokens: int = text("Tokens with the padding of the batches.")


class TrialRecord(Record):
    """One batch size of a sweep: the runs so far, or why there are none."""

    batch_size: int = text("Texts in a batch.")
    num_samples: int = text("Texts of a run.")
    status: Status = optional("Whether it could be measured.", default="ok")
    warm_up: WarmUpPass | None = optional("The last pass of the warm-up.")
    runs: tuple[Run, ...] = optional("The runs so far, in order.", default=())
    sustained_run: Run | None = optional("Runs back to back, for the GPU's readings.")
    flops_per_sample: float | None = optional("Counted operations of a text.", unit="FLOP")
    flops_reason: str | None = optional("Why they are not known, where they are not.")
    num_truncated: int | None = optional("Texts that `max_length` truncated.")
    process_spread: float | None = optional(
        "Standard deviation over mean between processes.", unit="fraction", default=0.0
    )
    interference: tuple[str, ...] = optional("What else was at work.", default=())
    warnings: tuple[str, ...] = optional("What to know before relying on the runs.", default=())


class SampleSweepRecord(Record):
    """The sweep over one sample of the texts."""

    sample_size: int = text("Texts of the sample.")
    trials: tuple[TrialRecord, ...] = text("One for each batch size.")
    order: tuple[tuple[int, ...], ...] = optional(
        "The batch sizes of each round, in the order of measurement.", default=()
    )
    latency_trials: tuple[TrialRecord, ...] = optional(
        "Batch sizes that were compared with the latency target, with the runs that only it needs.",
        default=(),
    )


class SweepCheckpointRecord(Record):
    """The content of ``sweep.json``."""

    schema_version: Literal[2] = optional(
        "Version of this file's format. Files of version 2 may lack it.",
        default=CHECKPOINT_VERSION,
    )
    fingerprint: str = text("Identity of everything that decides what the sweep measures.")
    first_inference_ms: float | None = optional(
        "Time of the first text; null before anything was measured.", unit="ms"
    )
    idle: GpuReadings = optional("The GPU's readings at rest.", default=GpuReadings())
    samples: tuple[SampleSweepRecord, ...] = optional("One for each sample size.", default=())

"""The record of ``bottlenecks.json``: what limits each batch size, and what to try."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from utils.schema.ceilings import STEP_03, Ceilings
from utils.schema.common import (
    Fraction,
    MeasuredRecord,
    NonNegative,
    Positive,
    PositiveCount,
    Record,
    Unavailable,
    metric,
    optional,
    read_record,
    required,
    text,
    unavailable,
    warnings,
    write_record,
)
from utils.schema.diagnosis_versions import convert_diagnosis
from utils.schema.profile import AttentionUse, KernelSummary, KindTime, LayerTime, PeakMemory

DIAGNOSIS_VERSION = 3
"""Version of ``bottlenecks.json`` that is written. Files of every earlier version load."""

Verdict = Literal[
    "input-bound", "overhead-bound", "memory-bound", "compute-bound", "no-dominant-limit"
]
Confidence = Literal["high", "low"]
Prediction = Literal["estimate", "upper-bound"]
SaturationCause = Literal["padding", "input-bound", "memory-bound", "compute-bound"]


class TimedForward(Record):
    """The shape of a batch, padding included, and how long its forward took."""

    num_rows: PositiveCount = required("rows", "Texts in the batch.")
    length: PositiveCount = required("tokens", "Padded length of each text.")
    forward_ms: Positive = required("ms", "The fastest repeat.")


class EvidenceRecord(MeasuredRecord):
    """What was measured and counted at one batch size, per batch; times are untraced."""

    device: str = text("`cpu` or `cuda`.")
    batch_size: PositiveCount = required("rows", "Texts in a batch.")
    tokenize_ms: NonNegative = required("ms", "Tokenising.")
    host_to_device_ms: NonNegative = required("ms", "Copying the inputs to the device.")
    forward_ms: Positive = required("ms", "The forward pass.")
    device_to_host_ms: NonNegative = required("ms", "Copying the logits to the host.")
    matmul_limited_ms: NonNegative = required(
        "ms", "Time at the ceilings of the operators that the matrix ceiling limits."
    )
    copy_limited_ms: NonNegative = required(
        "ms", "Time at the ceilings of the operators that the copy ceiling limits."
    )
    op_calls: NonNegative = required("calls", "Operators started in one forward.")
    dispatch_us: NonNegative = required("us", "Host time to start one operator.")
    flops: NonNegative = required("FLOP", "FLOPs of the operators that have a formula.")
    bytes_moved: NonNegative = required("bytes", "Bytes that the operators read and write.")
    device_busy_ms: NonNegative | None = metric(
        "ms", "Time in which at least one kernel ran; CUDA alone."
    )
    doubling_growth: float | None = metric(
        "fraction", "How much longer a batch put twice into one takes; 1 is twice as long."
    )
    padding_fraction: Fraction | None = optional("Share of padding tokens.", unit="fraction")
    unknown_operators: tuple[str, ...] = optional(
        "Operators without a FLOP formula: their bytes count, their FLOPs do not.", default=()
    )
    timed_forwards: tuple[TimedForward, ...] = optional(
        "Each batch's forward, and those of parts of one batch.", default=()
    )
    time_spread: NonNegative = optional(
        "The middle repeat's time over the fastest's, less 1.", unit="fraction", default=0.0
    )
    ceiling_spread: NonNegative = optional(
        "The same of the ceilings.", unit="fraction", default=0.0
    )
    unavailable: Unavailable = unavailable()


class Shares(Record):
    """What each cause explains; causes overlap, so that the shares do not add up to 1."""

    input: Fraction = required("fraction", "Tokenising and copying, of the batch time.")
    compute: Fraction = required("fraction", "Time at the matrix ceiling, of the forward.")
    memory: Fraction = required("fraction", "Time at the copy ceiling, of the forward.")
    overhead: Fraction = required("fraction", "Overhead, of the forward.")


class Bottleneck(Record):
    """What limits one batch size."""

    batch_size: PositiveCount = required("rows", "Texts in a batch.")
    verdict: Verdict = text("What limits it.")
    rule: str = text("The rule that decided.")
    value: float | None = optional(
        "The value that the rule compared: a share of time, or 1 - |growth| where a doubled batch "
        "decided.",
        unit="fraction",
    )
    threshold: float | None = optional("The rule holds from here on.", unit="fraction")
    confidence: Confidence | None = optional("See `confidence_rule`.")
    sentence: str = text("The verdict with its reason.")
    doubts: tuple[str, ...] = optional(
        "What lowers the confidence beside the rule: a busy machine, or times of two steps that "
        "differ.",
        default=(),
    )


class BatchSizeDiagnosis(Bottleneck):
    """What limits one batch size, with the evidence."""

    evidence: EvidenceRecord = text("What was measured and counted.")
    shares: Shares = text("What each cause explains.")
    padding_fraction: Fraction | None = optional("Share of padding tokens.", unit="fraction")
    measured_ms: Positive = required("ms", "The complete batch, from texts to logits on the host.")
    roofline_ms: NonNegative = required("ms", "The forward at the measured ceilings.")
    overhead_ms: NonNegative | None = optional(
        "Forward time that is neither arithmetic nor copying.", unit="ms"
    )
    padding_ms: NonNegative | None = optional("Forward time spent on padding.", unit="ms")
    sweep_forward_ms: NonNegative | None = optional(
        "The forward pass in step 02's sweep: `forward_ms_mean` of this batch size.", unit="ms"
    )


class Saturation(Record):
    """From which batch size on larger ones stop helping."""

    batch_size: PositiveCount | None = optional(
        "The smallest that no larger one beats by more than 5%; null where larger batches help to "
        "the end, or no throughput is known.",
        unit="rows",
    )
    verdict_at_smallest: Verdict | None = optional("Verdict of the smallest batch size.")
    verdict_at_largest: Verdict | None = optional("Verdict of the largest batch size.")
    limited_by: SaturationCause | None = optional(
        "What limits larger batches; null where it is not known."
    )
    source: str | None = optional("Where the throughputs come from.")
    sentence: str = text("The same in words.")


class Verification(Record):
    """What trying a suggestion showed, or why that is not known."""

    setting: str | None = optional("The setting that was changed: `section.key=VALUE`.")
    predicted_speedup: float | None = optional("What was predicted.", unit="ratio")
    measured_speedup: Positive | None = optional(
        "Time before divided by time after, from texts to labels.", unit="ratio"
    )
    ci95: tuple[NonNegative, NonNegative] | None = optional(
        "95% interval of the measured speed-up.", unit="ratio"
    )
    label_agreement: Fraction | None = optional(
        "Share of the texts with the same label as before.", unit="fraction"
    )
    label_agreement_ci95: tuple[Fraction, Fraction] | None = optional(
        "95% interval of this share (Wilson).", unit="fraction"
    )
    num_label_texts: PositiveCount | None = optional(
        "Texts whose labels were compared; null in older files, which compared `num_texts`.",
        unit="rows",
    )
    prediction_error: float | None = optional(
        "Predicted over measured speed-up, less 1; null for upper bounds.", unit="fraction"
    )
    num_texts: PositiveCount | None = optional("Texts that were classified.", unit="rows")
    num_rounds: PositiveCount | None = optional("How often each side ran.", unit="rounds")
    reason: str | None = optional("Why it was not measured; null where it was.")


class Proposal(Record):
    """One cause of lost time, and what to try."""

    title: str = text("Name of the cause.")
    cause: str = text("Why time is lost.")
    saving_ms: float = required("ms", "What a batch saves without the cause.")
    prediction: Prediction | None = optional(
        "`estimate`: follows from measured times. `upper-bound`: it cannot be more.",
        default="estimate",
    )
    advice: str = text("What to try.")
    setting: str | None = optional("`section.key=VALUE` that tries it; null where none does.")
    evidence: str = text("The numbers that it follows from.")
    batch_size: PositiveCount | None = optional(
        "The batch size to use, where the suggestion is another one.", unit="rows"
    )
    caution: str | None = optional("Why the saving is rough; null where nothing says so.")


class Suggestion(Proposal):
    """A proposal with its share of the batch time, and what trying it showed."""

    saving_pct: float = required("%", "The saving as a share of the batch time.")
    predicted_speedup: float | None = optional(
        "Speed-up of the complete batch; null where nothing of it would remain.", unit="ratio"
    )
    verification: Verification | None = optional(
        "What trying it showed; null where it was not tried."
    )


class Diagnosis(MeasuredRecord):
    """What limits each batch size, and what to try. MB is 10^6 bytes."""

    schema_version: PositiveCount = text("Version of this file's format.")
    device: str = text("Device of the model.")
    dtype: str = text("Type of the weights.")
    matmul_precision: str | None = optional("`model.matmul_precision`.")
    ceilings: Ceilings = text("What the device reaches at best.")
    detail_batch_size: PositiveCount = required(
        "rows", "The batch size that profile and suggestions belong to."
    )
    tracing_overhead_ratio: Positive = required(
        "ratio", "Time of a traced step divided by that of an untraced one."
    )
    layers_by_kind: tuple[KindTime, ...] = optional("Time by kind of module.", default=())
    layers_by_index: tuple[LayerTime, ...] = optional("Time by layer.", default=())
    batch_sizes: tuple[BatchSizeDiagnosis, ...] = text("The verdict for each batch size.")
    confidence_rule: str | None = optional("When the confidence is `high`; else it is `low`.")
    saturation: Saturation | None = optional(
        "From which batch size on larger ones stop helping; null in files of version 1."
    )
    suggestions: tuple[Suggestion, ...] = text(
        "At most three, in the order in which they are worth a try: measured to be faster, known "
        "to be saved, saved at most, rough; within each the largest saving first. Savings overlap."
    )
    further_suggestions: tuple[Suggestion, ...] = optional("The others.", default=())
    tried_settings: tuple[Verification, ...] = optional(
        "What `--verify KEY=VALUE` showed of settings of the user's choice.", default=()
    )
    applied: tuple[str, ...] = optional(
        "What the settings do already, which is not suggested.", default=()
    )
    noise: str | None = optional(
        "That no batch size of the sweep is stable, and why; null where one is."
    )
    main_bottleneck: str = text("The verdict, and what to try first, in words.")
    verified_at: str | None = optional(
        "When the suggestions were tried (`--verify`); null where they were not."
    )
    attention: tuple[AttentionUse, ...] | None = metric(
        None,
        "The attention kernels of the traced batches, by batch size; null where the trace cannot "
        "tell.",
    )
    kernels: KernelSummary | None = metric(None, "What the GPU did in the traced steps.")
    peak_memory: PeakMemory | None = metric(None, "What is allocated at the peak of a batch.")
    warnings: tuple[str, ...] = warnings()
    unavailable: Unavailable = unavailable()

    @property
    def all_suggestions(self) -> tuple[Suggestion, ...]:
        """All of them, in the order in which they are worth a try."""
        return (*self.suggestions, *self.further_suggestions)


def load_diagnosis(path: Path) -> Diagnosis:
    """Read ``bottlenecks.json`` of any version.

    Raises:
        UserError: the file is missing, is not valid JSON or does not fit the record.
    """
    return read_record(path, Diagnosis, made_by=STEP_03, convert=convert_diagnosis)


def save_diagnosis(path: Path, diagnosis: Diagnosis) -> None:
    """Write ``bottlenecks.json`` atomically.

    Raises:
        ValidationError: a value is impossible.
        UserError: the file cannot be written.
    """
    assert diagnosis.schema_version == DIAGNOSIS_VERSION, diagnosis.schema_version
    write_record(path, diagnosis)

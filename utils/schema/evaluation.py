"""The record of the evaluation of the complete data set: ``full_dataset_metrics``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from utils.schema.common import (
    Count,
    Fraction,
    MeasuredRecord,
    NonNegative,
    Positive,
    PositiveCount,
    Record,
    Unavailable,
    metric,
    optional,
    required,
    text,
    unavailable,
    warnings,
)

BatchingKind = Literal["token_budget", "dataset_order"]
Percent = Annotated[float, Field(ge=0, le=100)]


class WorkerMetrics(MeasuredRecord):
    """What one of several workers did."""

    name: str = text("Node and process or GPU.")
    num_samples: PositiveCount = required("rows", "Rows that it predicted.")
    busy_s: Positive = required("s", "Time of its chunks by its own clock, without waiting.")
    throughput_samples_per_sec: Positive = required("samples/s", "Its rows divided by `busy_s`.")
    peak_gpu_mem: NonNegative | None = metric(
        "MB", "Most GPU memory that PyTorch had allocated at once, the weights included."
    )
    cpu_mem_used: NonNegative | None = metric(
        "MB", "Resident memory of its process after a chunk: the largest."
    )
    unavailable: Unavailable = unavailable()


class ClassMetrics(Record):
    """Quality for one label."""

    label_id: Count = text("Id of the label.")
    label: str = text("Name of the label.")
    precision: Fraction = required("fraction", "Share of its predictions that are right.")
    recall: Fraction = required("fraction", "Share of its rows that are predicted.")
    f1: Fraction = required("fraction", "Harmonic mean of precision and recall.")
    support: Count = required("rows", "Rows that have this label.")


class BatchingComparison(Record):
    """Grouping by length compared with file order, on the same rows in turn."""

    max_tokens_per_batch: PositiveCount = required("tokens", "Padded tokens of a grouped batch.")
    batch_size: PositiveCount = required("rows", "Rows of a batch in file order.")
    num_rows: PositiveCount = required("rows", "Rows of the comparison.")
    rounds: PositiveCount = required("rounds", "How often each variant ran.")
    speedup: Positive = required("ratio", "Time in file order divided by time grouped by length.")
    token_budget_samples_per_sec: Positive = required("samples/s", "Speed grouped by length.")
    token_budget_padding_fraction: Fraction = required("fraction", "Padding grouped by length.")
    dataset_order_samples_per_sec: Positive = required("samples/s", "Speed in file order.")
    dataset_order_padding_fraction: Fraction = required("fraction", "Padding in file order.")
    label_agreement: Fraction = required("fraction", "Share of rows with the same label.")


class CompileComparison(Record):
    """The compiled model compared with the model as it is, on the same batches in turn."""

    compile_s: NonNegative = required("s", "Time to compile; in no other metric.")
    num_rows: PositiveCount = required("rows", "Rows of the comparison.")
    rounds: PositiveCount = required("rounds", "How often each variant ran.")
    speedup: Positive = required("ratio", "Time as it is divided by time compiled.")
    compiled_samples_per_sec: Positive = required("samples/s", "Speed compiled.")
    compiled_padding_fraction: Fraction | None = optional("Padding compiled.", unit="fraction")
    plain_samples_per_sec: Positive = required("samples/s", "Speed as it is.")
    plain_padding_fraction: Fraction | None = optional("Padding as it is.", unit="fraction")
    label_agreement: Fraction = required("fraction", "Share of rows with the same label.")


class AttentionKernels(Record):
    """Kernels that PyTorch may choose from for fused attention on a CUDA device."""

    batch_size_sweep: tuple[str, ...] = text(
        "Allowed in the batch-size sweep: what PyTorch allows by itself."
    )
    evaluation: tuple[str, ...] = text(
        "Allowed in the evaluation of the complete data set: without cuDNN, which builds a plan "
        "for every new shape of a batch."
    )
    repeats_key_value_heads: bool = text(
        "Whether the evaluation repeats key-value heads that query heads share, as it does in "
        "float32: the memory-efficient kernel then runs instead of the math kernel."
    )


class EvaluationMetrics(MeasuredRecord):
    """Quality and speed on the complete data set, by the optimised evaluation."""

    num_samples: PositiveCount = required("rows", "Rows that were predicted.")
    batching: BatchingKind = text(
        "`token_budget`: rows grouped by length; `dataset_order`: batches in file order."
    )
    max_tokens_per_batch: Count | None = metric(
        "tokens", "Padded tokens that a batch may hold, where rows are grouped by length."
    )
    num_labelled: Count | None = metric("rows", "Rows with a label that the model knows.")
    num_correct: Count | None = metric("rows", "Of these, rows that were predicted right.")
    accuracy: Fraction | None = metric("fraction", "`num_correct` divided by `num_labelled`.")
    accuracy_ci95_low: Fraction | None = metric(
        "fraction", "Lower end of the 95% interval of the accuracy (Wilson)."
    )
    accuracy_ci95_high: Fraction | None = metric("fraction", "Upper end of the same interval.")
    majority_class: str | None = metric(None, "The most frequent label.")
    majority_class_accuracy: Fraction | None = metric(
        "fraction", "Accuracy of always predicting the most frequent label."
    )
    f1_macro: Fraction | None = metric(
        "fraction", "Mean of F1 over the labels that occur as truth or prediction."
    )
    f1_weighted: Fraction | None = metric(
        "fraction", "Mean of F1 over the labels, weighted by their rows."
    )
    confusion_matrix: tuple[tuple[Count, ...], ...] | None = metric(
        "rows", "Rows by true label id, then by predicted label id; up to 100 labels."
    )
    per_class: tuple[ClassMetrics, ...] | None = metric(None, "Quality for each label.")
    num_missing_labels: Count = required("rows", "Rows without a label.")
    num_unknown_labels: Count = optional(
        "Rows with a label that the model does not know.", unit="rows", default=0
    )
    num_workers: PositiveCount = optional(
        "Workers that shared the evaluation.", unit="workers", default=1
    )
    workers: tuple[WorkerMetrics, ...] = optional(
        "What each of several workers did; empty for a single process.", default=()
    )
    inference_time_s: Positive = required(
        "s",
        "Time of all chunks, each from the end of the one before it until its predictions are in "
        "host memory. With several workers: from the start of the first chunk to the end of the "
        "last.",
    )
    throughput_samples_per_sec: Positive = required("samples/s", "Rows divided by that time.")
    throughput_tokens_per_sec: NonNegative = required(
        "tokens/s", "Tokens without padding divided by that time."
    )
    latency_per_sample_ms: Positive = required("ms", "That time divided by the rows.")
    padding_fraction: Fraction | None = metric(
        "fraction of tokens", "Padding tokens divided by all tokens that were computed."
    )
    num_tokens: Count = required("tokens", "Tokens of all rows without padding.")
    num_truncated: Count | None = metric("rows", "Texts that `max_length` truncated.")
    gpu_mem_used: NonNegative | None = metric(
        "MB",
        "GPU memory that PyTorch has allocated after a chunk, the weights included: the largest "
        "of the chunks.",
    )
    peak_gpu_mem: NonNegative | None = metric(
        "MB", "Most GPU memory that PyTorch had allocated at once, the weights included."
    )
    cpu_mem_used: NonNegative | None = metric(
        "MB", "Resident memory of the process after a chunk: the largest of the chunks."
    )
    gpu_util: Percent | None = metric(
        "%", "Share of the time in which a kernel ran, by NVML: busy, not full."
    )
    resumed_rows: Count = required("rows", "Rows that an earlier run had predicted.")
    warnings: tuple[str, ...] = warnings()
    unavailable: Unavailable = unavailable()
    attention_kernels: AttentionKernels | None = optional(
        "Attention kernels that PyTorch may choose from; null where the device is no CUDA GPU."
    )
    batching_comparison: BatchingComparison | None = optional(
        "Grouping by length compared with file order; null where it was not asked for."
    )
    compile_comparison: CompileComparison | None = optional(
        "Compiled compared with not compiled; null where it was not asked for."
    )

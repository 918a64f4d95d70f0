"""The record ``full_dataset_metrics``, from the sums over all chunks."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from utils.evaluation.accumulator import EvaluationAccumulator, WorkerTotals
from utils.evaluation.chunks import BatchLimits
from utils.evaluation.classification_metrics import MAX_MATRIX_LABELS, Quality
from utils.schema.common import complete_reasons
from utils.schema.evaluation import (
    AttentionKernels,
    BatchingKind,
    EvaluationMetrics,
    WorkerMetrics,
)
from utils.schema.warning_codes import WarningCode
from utils.system.device import NOT_ON_CUDA

MB = 10**6
QUALITY_METRICS = tuple(field.name for field in fields(Quality))
"""Metrics that need labels and trained weights."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationContext:
    """What the metrics and their warnings depend on beside the chunks."""

    batching: BatchingKind
    has_random_weights: bool
    on_cuda: bool
    predictions_folder: str
    """Name of the folder that holds the chunks."""
    limits: BatchLimits
    resumed_rows: int
    """Rows whose predictions were in place before this run."""
    attention_kernels: AttentionKernels | None = None
    """What the device's attention was allowed to run; None where it is no CUDA GPU."""


def summarise_evaluation(
    sums: EvaluationAccumulator, context: EvaluationContext
) -> EvaluationMetrics:
    """The metrics of all chunks, without the comparisons that are measured after them."""
    seconds = sums.wall_s
    values: dict[str, Any] = {
        "max_tokens_per_batch": _max_tokens(context),
        **_quality(sums, context),
        "padding_fraction": 1 - sums.tokens / sums.computed_tokens,
        "num_truncated": sums.truncated,
        "gpu_mem_used": _to_mb(sums.gpu_mem_used_bytes),
        "peak_gpu_mem": _to_mb(sums.peak_gpu_mem_bytes),
        "cpu_mem_used": _to_mb(sums.cpu_mem_used_bytes),
        "gpu_util": sums.gpu_util_pct_s / sums.gpu_util_s if sums.gpu_util_s else None,
    }
    return EvaluationMetrics(
        num_samples=sums.rows,
        batching=context.batching,
        **values,
        num_missing_labels=sums.num_missing_labels,
        num_unknown_labels=sums.unknown_labels,
        num_workers=sums.num_workers,
        workers=_workers(sums.workers),
        inference_time_s=seconds,
        throughput_samples_per_sec=sums.rows / seconds,
        throughput_tokens_per_sec=sums.tokens / seconds,
        latency_per_sample_ms=1000 * seconds / sums.rows,
        num_tokens=sums.tokens,
        resumed_rows=context.resumed_rows,
        warnings=(*_memory_warnings(context), *_label_warnings(sums), *_resume_warnings(context)),
        attention_kernels=context.attention_kernels,
        unavailable=complete_reasons(EvaluationMetrics, values, _reasons(sums, context)),
    )


def _max_tokens(context: EvaluationContext) -> int | None:
    if context.batching != "token_budget":
        return None
    return context.limits.lowest


def _quality(sums: EvaluationAccumulator, context: EvaluationContext) -> dict[str, Any]:
    """Accuracy, F1 and what belongs to them; all None with random weights."""
    if context.has_random_weights:
        return dict.fromkeys(QUALITY_METRICS)
    quality = sums.classification.compute()
    return {name: getattr(quality, name) for name in QUALITY_METRICS}


def _workers(totals: dict[str, WorkerTotals]) -> tuple[WorkerMetrics, ...]:
    workers = []
    for name, total in sorted(totals.items()):
        memory = {
            "peak_gpu_mem": _to_mb(total.peak_gpu_mem_bytes),
            "cpu_mem_used": _to_mb(total.cpu_mem_used_bytes),
        }
        worker = WorkerMetrics(
            name=name,
            num_samples=total.rows,
            busy_s=total.seconds,
            throughput_samples_per_sec=total.rows / total.seconds,
            **memory,
            unavailable=complete_reasons(WorkerMetrics, memory, {"peak_gpu_mem": NOT_ON_CUDA}),
        )
        workers.append(worker)
    return tuple(workers)


def _reasons(sums: EvaluationAccumulator, context: EvaluationContext) -> dict[str, str]:
    """For each metric that may be missing: the reason that applies if it is."""
    quality = "no row has a label"
    if context.has_random_weights:
        quality = "the weights are random"
    reasons = dict.fromkeys(QUALITY_METRICS, quality)
    if not context.has_random_weights:
        reasons["confusion_matrix"] = f"there are over {MAX_MATRIX_LABELS} labels"
    reasons["max_tokens_per_batch"] = "batches are not limited by tokens"
    reasons["num_truncated"] = "an earlier version evaluated some rows and did not count them"
    reasons["gpu_mem_used"] = NOT_ON_CUDA
    reasons["peak_gpu_mem"] = NOT_ON_CUDA
    if sums.gpu_util_reason is not None:
        reasons["gpu_util"] = sums.gpu_util_reason
    return reasons


def _memory_warnings(context: EvaluationContext) -> list[str]:
    limits = context.limits
    if limits.initial == limits.lowest:
        return []
    warning = WarningCode.MEMORY.warn(
        f"memory ran out with batches of {limits.initial}; "
        f"they held at most {limits.lowest} in the end"
    )
    return [warning]


def _label_warnings(sums: EvaluationAccumulator) -> list[str]:
    warnings = []
    if sums.num_missing_labels:
        warnings.append(
            WarningCode.LABELS.warn(
                f"{sums.num_missing_labels} rows have no label: they are predicted, and left out "
                "of accuracy and F1"
            )
        )
    if sums.unknown_labels:
        warnings.append(
            WarningCode.LABELS.warn(
                f"{sums.unknown_labels} rows have a label that the model does not know: they are "
                "predicted, and left out of accuracy and F1"
            )
        )
    return warnings


def _resume_warnings(context: EvaluationContext) -> list[str]:
    if not context.resumed_rows:
        return []
    warning = WarningCode.RESUMED.warn(
        f"{context.resumed_rows} rows were predicted and timed by an earlier run; "
        f"remove the folder {context.predictions_folder}/ to measure all of them again"
    )
    return [warning]


def _to_mb(num_bytes: int | None) -> float | None:
    return None if num_bytes is None else num_bytes / MB

"""Sums over the chunks of an evaluation, and the ``full_dataset_metrics`` that they give."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from utils.evaluation.chunks import BatchLimits, ChunkStats, StoredChunk
from utils.evaluation.classification_metrics import MAX_MATRIX_LABELS, ClassificationMetrics

MB = 10**6
NO_CUDA = "gpu_mem_used and peak_gpu_mem are not measured: the model is not on a CUDA device"


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationContext:
    """What the metrics and their warnings depend on beside the chunks."""

    batching: str
    has_random_weights: bool
    on_cuda: bool
    predictions_folder: str
    """Name of the folder that holds the chunks."""
    limits: BatchLimits
    resumed_rows: int
    """Rows whose predictions were in place before this run."""


@dataclass(kw_only=True, slots=True)
class WorkerTotals:
    """What one of several workers did; ``seconds`` by its own clock, without waiting for chunks."""

    rows: int = 0
    seconds: float = 0.0
    peak_gpu_mem_bytes: int | None = None
    cpu_mem_used_bytes: int = 0

    def add(self, stats: ChunkStats) -> None:
        """Count one chunk."""
        self.rows += stats.num_rows
        self.seconds += stats.seconds
        self.cpu_mem_used_bytes = max(self.cpu_mem_used_bytes, stats.cpu_mem_used_bytes)
        self.peak_gpu_mem_bytes = _larger(self.peak_gpu_mem_bytes, stats.peak_gpu_mem_bytes)

    def to_dict(self, name: str) -> dict[str, Any]:
        """One entry of ``workers`` in ``full_dataset_metrics``."""
        return {
            "name": name,
            "num_samples": self.rows,
            "busy_s": self.seconds,
            "throughput_samples_per_sec": self.rows / self.seconds,
            "peak_gpu_mem": _to_mb(self.peak_gpu_mem_bytes),
            "cpu_mem_used": _to_mb(self.cpu_mem_used_bytes),
        }


class EvaluationAccumulator:
    """Sums over chunks; their size does not grow with the number of rows."""

    def __init__(self, label_names: tuple[str, ...]) -> None:
        self.classification = ClassificationMetrics(label_names)
        self.rows = 0
        self.tokens = 0
        self.padded_tokens = 0
        self.unknown_labels = 0
        self.truncated: int | None = 0
        # Of chunks that were made by a single process, one after another.
        self.single_process_s = 0.0
        # Sum of utilisation times the seconds that it stands for, and those seconds.
        self.gpu_util_pct_s = 0.0
        self.gpu_util_s = 0.0
        self.gpu_warnings: tuple[str, ...] = ()
        self.gpu_mem_used_bytes: int | None = None
        self.peak_gpu_mem_bytes: int | None = None
        self.cpu_mem_used_bytes: int | None = None
        self.workers: dict[str, WorkerTotals] = {}
        # Names of the workers by invocation: a resumed evaluation may have other workers.
        self.workers_by_invocation: dict[str, set[str]] = {}
        # Unix times at which the first chunk began and the last one ended, by invocation.
        self.spans_by_invocation: dict[str, tuple[float, float]] = {}

    def add(self, chunk: StoredChunk) -> None:
        """Count one chunk."""
        stats = chunk.stats
        self.classification.add(chunk.label_ids, chunk.predicted_ids)
        self.rows += stats.num_rows
        self.tokens += stats.num_tokens
        self.padded_tokens += stats.padded_tokens
        self.unknown_labels += stats.num_unknown_labels
        if self.truncated is None or stats.num_truncated is None:
            self.truncated = None
        else:
            self.truncated += stats.num_truncated
        self._add_time(stats)
        self._add_gpu_util(stats)
        self.gpu_mem_used_bytes = _larger(self.gpu_mem_used_bytes, stats.gpu_mem_used_bytes)
        self.peak_gpu_mem_bytes = _larger(self.peak_gpu_mem_bytes, stats.peak_gpu_mem_bytes)
        self.cpu_mem_used_bytes = _larger(self.cpu_mem_used_bytes, stats.cpu_mem_used_bytes)

    def _add_time(self, stats: ChunkStats) -> None:
        """Seconds of a single process add up; several workers run at once, so theirs do not."""
        invocation, worker, end_s = stats.invocation_id, stats.worker, stats.done_at_s
        if invocation is None or worker is None or end_s is None:
            self.single_process_s += stats.seconds
            return
        self.workers_by_invocation.setdefault(invocation, set()).add(worker)
        self.workers.setdefault(worker, WorkerTotals()).add(stats)
        start_s = end_s - stats.seconds
        first_s, last_s = self.spans_by_invocation.get(invocation, (start_s, end_s))
        self.spans_by_invocation[invocation] = (min(first_s, start_s), max(last_s, end_s))

    def _add_gpu_util(self, stats: ChunkStats) -> None:
        if stats.gpu_util_pct is not None:
            self.gpu_util_pct_s += stats.gpu_util_pct * stats.gpu_util_s
            self.gpu_util_s += stats.gpu_util_s
        if not self.gpu_warnings:
            self.gpu_warnings = stats.gpu_warnings

    @property
    def wall_s(self) -> float:
        """Seconds of the evaluation, all invocations together."""
        seconds = self.single_process_s
        for first_s, last_s in self.spans_by_invocation.values():
            seconds += last_s - first_s
        return seconds

    def compute(self, context: EvaluationContext) -> dict[str, Any]:
        """``full_dataset_metrics``; values not measured are None, with a reason in ``warnings``."""
        classification = self.classification.compute()
        if context.has_random_weights:
            classification = dict.fromkeys(classification)
        has_budget = context.batching == "token_budget"
        return {
            "num_samples": self.rows,
            "batching": context.batching,
            "max_tokens_per_batch": context.limits.lowest if has_budget else None,
            **classification,
            "num_missing_labels": self._num_missing_labels(),
            "num_unknown_labels": self.unknown_labels,
            **self._worker_metrics(),
            **self._speed_metrics(),
            "num_tokens": self.tokens,
            "num_truncated": self.truncated,
            "gpu_mem_used": _to_mb(self.gpu_mem_used_bytes),
            "peak_gpu_mem": _to_mb(self.peak_gpu_mem_bytes),
            "cpu_mem_used": _to_mb(self.cpu_mem_used_bytes),
            "gpu_util": self.gpu_util_pct_s / self.gpu_util_s if self.gpu_util_s else None,
            "resumed_rows": context.resumed_rows,
            "warnings": [
                *self._run_warnings(context),
                *self._label_warnings(context),
                *self._text_warnings(context),
            ],
        }

    def _num_missing_labels(self) -> int:
        return self.classification.num_unlabelled - self.unknown_labels

    def _worker_metrics(self) -> dict[str, Any]:
        teams = [len(names) for names in self.workers_by_invocation.values()]
        return {
            "num_workers": max(teams, default=1),
            "workers": [worker.to_dict(name) for name, worker in sorted(self.workers.items())],
        }

    def _speed_metrics(self) -> dict[str, float]:
        return {
            "inference_time_s": self.wall_s,
            "throughput_samples_per_sec": self.rows / self.wall_s,
            "throughput_tokens_per_sec": self.tokens / self.wall_s,
            "latency_per_sample_ms": 1000 * self.wall_s / self.rows,
            "padding_fraction": 1 - self.tokens / self.padded_tokens,
        }

    def _run_warnings(self, context: EvaluationContext) -> list[str]:
        warnings = []
        limits = context.limits
        if limits.initial != limits.lowest:
            warnings.append(
                f"memory ran out with batches of {limits.initial}; "
                f"they held at most {limits.lowest} in the end"
            )
        if not context.on_cuda:
            warnings.append(NO_CUDA)
        if not self.gpu_util_s:
            warnings.append(f"gpu_util is not measured: {'; '.join(self.gpu_warnings)}")
        return warnings

    def _label_warnings(self, context: EvaluationContext) -> list[str]:
        warnings = []
        if context.has_random_weights:
            warnings.append("accuracy and F1 are not measured: the weights are random")
        elif self.classification.num_unlabelled == self.rows:
            warnings.append("accuracy and F1 are not measured: no row has a label")
        if len(self.classification.label_names) > MAX_MATRIX_LABELS:
            warnings.append(f"confusion_matrix is left out: over {MAX_MATRIX_LABELS} labels")
        num_missing = self._num_missing_labels()
        if num_missing:
            warnings.append(
                f"{num_missing} rows have no label: predicted, left out of accuracy and F1"
            )
        if self.unknown_labels:
            warnings.append(
                f"{self.unknown_labels} rows have a label that the model does not know: "
                "predicted, left out of accuracy and F1"
            )
        return warnings

    def _text_warnings(self, context: EvaluationContext) -> list[str]:
        warnings = []
        if self.truncated is None:
            warnings.append(
                "num_truncated is not measured: "
                "this tokenizer does not report which texts it truncated"
            )
        if context.resumed_rows:
            warnings.append(
                f"{context.resumed_rows} rows were predicted and timed by an earlier run; "
                f"remove the folder {context.predictions_folder}/ to measure all of them again"
            )
        return warnings


def _larger(one: int | None, other: int | None) -> int | None:
    """The larger of two values, either of which may not be measured."""
    if one is None or other is None:
        return one if other is None else other
    return max(one, other)


def _to_mb(num_bytes: int | None) -> float | None:
    return None if num_bytes is None else num_bytes / MB

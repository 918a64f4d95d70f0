"""Sums over the chunks of an evaluation."""

from __future__ import annotations

from dataclasses import dataclass

from utils.evaluation.chunks import StoredChunk
from utils.evaluation.classification_metrics import ClassificationMetrics
from utils.schema.chunk import ChunkStats


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


class EvaluationAccumulator:
    """Sums over chunks; their size does not grow with the number of rows."""

    def __init__(self, label_names: tuple[str, ...]) -> None:
        self.classification = ClassificationMetrics(label_names)
        self.rows = 0
        self.tokens = 0
        self.computed_tokens = 0
        self.unknown_labels = 0
        self.truncated: int | None = 0
        # Of chunks that were made by a single process, one after another.
        self.single_process_s = 0.0
        # Sum of utilisation times the seconds that it stands for, and those seconds.
        self.gpu_util_pct_s = 0.0
        self.gpu_util_s = 0.0
        # Why the first chunk without utilisation has none.
        self.gpu_util_reason: str | None = None
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
        self.computed_tokens += stats.computed_tokens
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
        """Seconds of a single process add up; workers run at once, so their seconds do not."""
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
        if self.gpu_util_reason is None:
            self.gpu_util_reason = stats.gpu_util_reason

    @property
    def wall_s(self) -> float:
        """Seconds of the evaluation, all invocations together."""
        seconds = self.single_process_s
        for first_s, last_s in self.spans_by_invocation.values():
            seconds += last_s - first_s
        return seconds

    @property
    def num_missing_labels(self) -> int:
        """Rows without a label, apart from those whose label the model does not know."""
        return self.classification.num_unlabelled - self.unknown_labels

    @property
    def num_workers(self) -> int:
        """The most workers that worked at once."""
        teams = [len(names) for names in self.workers_by_invocation.values()]
        return max(teams, default=1)


def _larger(one: int | None, other: int | None) -> int | None:
    """The larger of two values, either of which may not be measured."""
    if one is None or other is None:
        return one if other is None else other
    return max(one, other)

"""What the chunks of a run add up to: the contract's ``full_dataset_metrics``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from utils.config_loader import Config
from utils.evaluation.chunks import ChunkFigures, StoredChunk
from utils.evaluation.quality import MOST_IN_MATRIX, Quality
from utils.model_utils import LoadedModel

MB = 10**6
NO_CUDA = "gpu_mem_used and peak_gpu_mem are not measured: the model is not on a CUDA device"
PEAKS = ("gpu_mem_used_bytes", "peak_gpu_mem_bytes", "cpu_mem_used_bytes")


@dataclass(kw_only=True, slots=True)
class WorkerTotals:
    """What one worker of several did; ``seconds`` by its own clock, waiting for chunks left out."""

    rows: int = 0
    seconds: float = 0.0
    peak_gpu_mem_bytes: int | None = None
    cpu_mem_used_bytes: int = 0

    def add(self, figures: ChunkFigures) -> None:
        self.rows += figures.num_rows
        self.seconds += figures.seconds
        self.cpu_mem_used_bytes = max(self.cpu_mem_used_bytes, figures.cpu_mem_used_bytes)
        if figures.peak_gpu_mem_bytes is not None:
            self.peak_gpu_mem_bytes = max(self.peak_gpu_mem_bytes or 0, figures.peak_gpu_mem_bytes)

    def to_dict(self, name: str) -> dict[str, Any]:
        peak = None if self.peak_gpu_mem_bytes is None else self.peak_gpu_mem_bytes / MB
        return {
            "name": name, "num_samples": self.rows, "busy_s": self.seconds,
            "throughput_samples_per_sec": self.rows / self.seconds, "peak_gpu_mem": peak,
            "cpu_mem_used": self.cpu_mem_used_bytes / MB,
        }


class Totals:
    """Sums over chunks; their size does not grow with the rows."""

    def __init__(self, label_names: tuple[str, ...]) -> None:
        self.quality = Quality(label_names)
        self.rows = self.tokens = self.padded = self.unknown = 0
        self.truncated: int | None = 0
        self.seconds = self.util_pct_s = self.util_s = 0.0
        self.peaks: dict[str, int | None] = dict.fromkeys(PEAKS)
        self.gpu_warnings: tuple[str, ...] = ()
        self.workers: dict[str, WorkerTotals] = {}
        self.at_once: dict[str, set[str]] = {}  # the workers' names by part: a part that goes on may have others
        self.parts: dict[str, tuple[float, float]] = {}  # Unix times of the first chunk's begin and the last one's end

    def add(self, chunk: StoredChunk) -> None:
        """Count one chunk."""
        figures = chunk.figures
        self.quality.add(chunk.label_ids, chunk.predicted_ids)
        self.rows += figures.num_rows
        self.unknown += figures.num_unknown_labels
        self.tokens += figures.num_tokens
        self.padded += figures.padded_tokens
        self._add_time(figures)
        known = self.truncated is not None and figures.num_truncated is not None
        self.truncated = self.truncated + figures.num_truncated if known else None  # type: ignore[operator]
        if figures.gpu_util_pct is not None:
            self.util_pct_s += figures.gpu_util_pct * figures.gpu_util_s
            self.util_s += figures.gpu_util_s
        self.gpu_warnings = self.gpu_warnings or figures.gpu_warnings
        for name, before in self.peaks.items():
            self.peaks[name] = max((value for value in (before, getattr(figures, name)) if value is not None), default=None)

    def _add_time(self, figures: ChunkFigures) -> None:
        """One process works on one chunk after another; several do so at once, so that their seconds do not add up."""
        if figures.worker is None or figures.part is None or figures.done_at_s is None:
            self.seconds += figures.seconds
            return
        self.at_once.setdefault(figures.part, set()).add(figures.worker)
        self.workers.setdefault(figures.worker, WorkerTotals()).add(figures)
        began, done = figures.done_at_s - figures.seconds, figures.done_at_s
        first, last = self.parts.get(figures.part, (began, done))
        self.parts[figures.part] = min(first, began), max(last, done)

    @property
    def wall_s(self) -> float:
        return self.seconds + sum(last - first for first, last in self.parts.values())

    def metrics(
        self, loaded: LoadedModel, config: Config, limits: tuple[int | None, int | None], resumed_rows: int
    ) -> dict[str, Any]:
        """The figures under the contract's names; what is not measured is None, with the reason in ``warnings``.

        ``limits`` are the batch limits that the run began and ended with.
        """
        batching, quality = config.evaluation.batching, self.quality.figures()
        used, peak, cpu = (None if value is None else value / MB for value in self.peaks.values())
        return {
            "num_samples": self.rows, "batching": batching,
            "max_tokens_per_batch": limits[1] if batching == "token_budget" else None,
            **(dict.fromkeys(quality) if loaded.info.weights == "dummy" else quality),
            "num_missing_labels": self.quality.num_missing - self.unknown, "num_unknown_labels": self.unknown,
            "num_workers": max(map(len, self.at_once.values()), default=1),
            "workers": [worker.to_dict(name) for name, worker in sorted(self.workers.items())],
            "inference_time_s": self.wall_s,
            "throughput_samples_per_sec": self.rows / self.wall_s,
            "throughput_tokens_per_sec": self.tokens / self.wall_s,
            "latency_per_sample_ms": 1000 * self.wall_s / self.rows,
            "padding_fraction": 1 - self.tokens / self.padded,
            "num_tokens": self.tokens, "num_truncated": self.truncated,
            "gpu_mem_used": used, "peak_gpu_mem": peak, "cpu_mem_used": cpu,
            "gpu_util": self.util_pct_s / self.util_s if self.util_s else None,
            "resumed_rows": resumed_rows,
            "warnings": self._warnings(loaded, config, limits, resumed_rows),
        }

    def _warnings(
        self, loaded: LoadedModel, config: Config, limits: tuple[int | None, int | None], resumed_rows: int
    ) -> list[str]:
        missing = self.quality.num_missing - self.unknown
        said = {
            f"memory ran out with batches of {limits[0]}; they held at most {limits[1]} in the end": limits[0] != limits[1],
            NO_CUDA: loaded.device.type != "cuda",
            f"gpu_util is not measured: {'; '.join(self.gpu_warnings)}": not self.util_s,
            "accuracy and F1 are not measured: the weights are random": loaded.info.weights == "dummy",
            "accuracy and F1 are not measured: no row has a label":
                loaded.info.weights != "dummy" and self.quality.num_missing == self.rows,
            f"confusion_matrix is left out: over {MOST_IN_MATRIX} labels": len(self.quality.label_names) > MOST_IN_MATRIX,
            f"{missing} rows have no label: predicted, left out of accuracy and F1": missing,
            f"{self.unknown} rows have a label that the model does not know: predicted, left out of accuracy and F1":
                self.unknown,
            "num_truncated is not measured: this tokenizer does not tell which texts it cut": self.truncated is None,
            f"{resumed_rows} rows were predicted by an earlier run and timed then; remove the folder "
            f"{config.files.predictions_dir.name}/ to measure all anew": resumed_rows,
        }
        return [text for text, holds in said.items() if holds]

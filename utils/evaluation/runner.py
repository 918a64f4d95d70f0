"""The whole data set through the model: chunk by chunk, resumable, in constant memory."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import psutil
import torch

from utils.config_loader import EMBEDDED, Config, project_path
from utils.core import console
from utils.core.artifacts import sha256_file, sha256_tree
from utils.core.errors import ConfigError
from utils.data.reader import Rows, count_rows, iter_rows, read_label_mapping
from utils.evaluation.batching import Batching
from utils.evaluation.chunks import ChunkFigures, ChunkStore, StoredChunk
from utils.evaluation.predictor import Predictor, TokenChunk, tokenize
from utils.evaluation.quality import Quality
from utils.gpu_monitor import GpuMonitor
from utils.model_utils import LoadedModel

T = TypeVar("T")

IDENTITY_VERSION = 1  # raise it when the same settings would give other bytes
MB = 10**6
NO_CUDA = "gpu_mem_used and peak_gpu_mem are not measured: the model is not on a CUDA device"


class Totals:
    """What the chunks add up to."""

    def __init__(self, label_names: tuple[str, ...]) -> None:
        self.quality = Quality(label_names)
        self.figures: list[ChunkFigures] = []
        self.files: list[Path] = []
        self.resumed_rows = 0

    def add(self, file: Path, chunk: StoredChunk, *, resumed: bool) -> None:
        self.quality.add(chunk.label_ids, chunk.predicted_ids)
        self.figures.append(chunk.figures)
        self.files.append(file)
        self.resumed_rows += chunk.figures.num_rows if resumed else 0


def check_workers(config: Config) -> None:
    """Refuse more workers than this version can use, before anything is loaded."""
    if config.evaluation.num_workers > 1:
        raise ConfigError(
            f"evaluation.num_workers cannot be {config.evaluation.num_workers}: only 1 is supported in this version.",
            where="evaluation.num_workers", fix="--set evaluation.num_workers=1",
        )


def evaluate_dataset(loaded: LoadedModel, config: Config, *, data_sha256: str | None = None) -> dict[str, Any]:
    """Predict every row, write ``results/predictions/``, return the contract's ``full_dataset_metrics``.

    Goes on at the first chunk that is missing or damaged. ``inference_time_s`` adds up the computed chunks, those of
    earlier parts of the run included; a chunk's clock runs from asking for its token ids (the next chunk is
    tokenised meanwhile) until its predictions are in host memory, and does not hold the writing of its file.

    Raises:
        ConfigError, DataError, ModelError: more workers than one; unusable data; a text too long for the memory.
    """
    check_workers(config)
    files, most, interval_ms = config.files, config.evaluation.max_samples, config.profiling.gpu_sample_interval_ms
    total = count_rows(config.data_file)
    store = ChunkStore(files.predictions_dir, files.state_dir / "evaluation", _identity(loaded, config, data_sha256))
    if changed := store.changed_settings():
        said = "The predictions in place are of other settings; they stay until this run is complete. Changed:"
        console.say("\n  ".join([said, *changed]))
    totals = Totals(read_label_mapping(config.label_mappings_file).names)
    predictor: Predictor | None = None
    marked = time.perf_counter()
    with console.progress(total=min(total, most or total), what="Evaluating", unit="row") as bar:
        for rows, work in _ahead(_work(loaded, config, store)):
            waited_s = time.perf_counter() - marked
            done = work
            if isinstance(done, TokenChunk):
                predictor = predictor or _predictor(loaded, config, store, done)
                done = _compute(predictor, rows, done, store, waited_s=waited_s, interval_ms=interval_ms)
            totals.add(store.file(rows.start, rows.start + len(rows.texts)), done, resumed=done is work)
            bar.update(len(rows.texts))
            marked = time.perf_counter()
    assert totals.figures, "the reader refuses a data set without rows"
    store.drop_all_but(totals.files)
    return _metrics(totals, loaded, config, store.resolved_limit())


def _identity(loaded: LoadedModel, config: Config, data_sha256: str | None) -> dict[str, Any]:
    """What the predictions depend on. A local model counts by its contents, a hub's by its commit."""
    name = config.model.name
    local = config.path("embedded.dir") / "model" if name == EMBEDDED else project_path(name)
    return {
        "version": IDENTITY_VERSION,
        **{f"model.{key}": value for key, value in config.to_dict()["model"].items() if key != "device"},
        "model's commit": loaded.info.revision,
        "model's files": sha256_tree(local),
        "device": torch.cuda.get_device_name(loaded.device) if loaded.device.type == "cuda" else "cpu",
        "data set": data_sha256 or sha256_file(config.data_file),
        "dataset.text_column": config.dataset.text_column,
        "profiling.max_length": config.profiling.max_length,
        "evaluation.batching": config.evaluation.batching,
        "evaluation's batch limit": _wanted_limit(config),
        "evaluation.chunk_rows": config.evaluation.chunk_rows,
    }


def _work(loaded: LoadedModel, config: Config, store: ChunkStore) -> Iterator[tuple[Rows, StoredChunk | TokenChunk]]:
    """Chunks in file order: as found on disk, else tokenised."""
    for rows in iter_rows(config.data_file, config.evaluation.chunk_rows, config.evaluation.max_samples):
        stored = store.load(rows.start, rows.start + len(rows.texts))
        yield rows, stored or tokenize(loaded.tokenizer, rows.texts, config.profiling.max_length)


def _ahead(items: Iterator[T]) -> Iterator[T]:
    """The items, each made in a background thread while the one before it is in use."""
    end = object()
    with ThreadPoolExecutor(1, thread_name_prefix="tokenise") as pool:
        coming = pool.submit(next, items, end)
        while (item := coming.result()) is not end:
            coming = pool.submit(next, items, end)
            yield item  # type: ignore[misc]  # it is not the sentinel


def _predictor(loaded: LoadedModel, config: Config, store: ChunkStore, first: TokenChunk) -> Predictor:
    """A predictor with the batch limit that was settled before, is set, or is found on this first chunk."""
    wanted, settled = _wanted_limit(config), store.resolved_limit()
    batching = Batching(kind=config.evaluation.batching, limit=settled or (1 if wanted == "auto" else wanted))
    predictor = Predictor(loaded.model, loaded.tokenizer.pad_token_id, loaded.device, batching)
    if wanted == "auto" and settled is None:
        predictor.batching = replace(batching, limit=predictor.fastest_budget(first))
    return predictor


def _wanted_limit(config: Config) -> int | Literal["auto"]:
    settings = config.evaluation
    return settings.batch_size if settings.batching == "dataset_order" else settings.max_tokens_per_batch


def _compute(
    predictor: Predictor, rows: Rows, tokens: TokenChunk, store: ChunkStore, *, waited_s: float, interval_ms: float
) -> StoredChunk:
    if cuda := predictor.device if predictor.device.type == "cuda" else None:
        torch.cuda.reset_peak_memory_stats(cuda)
    monitor = GpuMonitor(predictor.device, interval_ms / 1000)  # one a chunk: its samples are dropped with it
    monitor.start()
    started = time.perf_counter()
    predictions = predictor.predict(tokens)
    seconds = waited_s + time.perf_counter() - started
    readings = monitor.stop()
    figures = ChunkFigures(
        num_rows=len(rows.texts), num_tokens=int(tokens.num_tokens.sum()), num_truncated=tokens.num_truncated,
        padded_tokens=predictions.padded_tokens, seconds=seconds,
        gpu_mem_used_bytes=torch.cuda.memory_allocated(cuda) if cuda else None,
        peak_gpu_mem_bytes=torch.cuda.max_memory_allocated(cuda) if cuda else None,
        cpu_mem_used_bytes=psutil.Process().memory_info().rss,
        gpu_util_pct=readings.util_pct_mean, gpu_warnings=readings.warnings,
    )
    store.settle_limit(predictor.batching.limit)  # memory may have lowered it
    store.save(rows.start, rows.label_ids, predictions, tokens.num_tokens, figures)
    return StoredChunk(figures=figures, label_ids=rows.label_ids, predicted_ids=predictions.predicted_ids)


def _metrics(totals: Totals, loaded: LoadedModel, config: Config, limit: int | None) -> dict[str, Any]:
    figures, batching = totals.figures, config.evaluation.batching
    num_samples, seconds = sum(item.num_rows for item in figures), sum(item.seconds for item in figures)
    tokens, padded = sum(item.num_tokens for item in figures), sum(item.padded_tokens for item in figures)
    cut = [item.num_truncated for item in figures if item.num_truncated is not None]
    quality = totals.quality.figures()
    busy = [(item.gpu_util_pct, item.seconds) for item in figures if item.gpu_util_pct is not None]
    return {
        "num_samples": num_samples, "batching": batching,
        "max_tokens_per_batch": limit if batching == "token_budget" else None,
        **(dict.fromkeys(quality) if loaded.info.weights == "dummy" else quality),
        "num_missing_labels": totals.quality.num_missing,
        "inference_time_s": seconds,
        "throughput_samples_per_sec": num_samples / seconds, "throughput_tokens_per_sec": tokens / seconds,
        "latency_per_sample_ms": 1000 * seconds / num_samples, "padding_fraction": 1 - tokens / padded,
        "num_tokens": tokens, "num_truncated": sum(cut) if len(cut) == len(figures) else None,
        "gpu_mem_used": _largest_mb(item.gpu_mem_used_bytes for item in figures),
        "peak_gpu_mem": _largest_mb(item.peak_gpu_mem_bytes for item in figures),
        "cpu_mem_used": _largest_mb(item.cpu_mem_used_bytes for item in figures),
        "gpu_util": sum(pct * s for pct, s in busy) / sum(s for _, s in busy) if busy else None,
        "resumed_rows": totals.resumed_rows,
        "warnings": _warnings(totals, loaded, config, limit),
    }


def _largest_mb(values: Iterable[int | None]) -> float | None:
    return max((value / MB for value in values if value is not None), default=None)


def _warnings(totals: Totals, loaded: LoadedModel, config: Config, limit: int | None) -> list[str]:
    wanted, missing = _wanted_limit(config), totals.quality.num_missing
    lowered = wanted != "auto" and limit is not None and limit < wanted
    said = {
        f"memory ran out with batches of {wanted}; they held at most {limit} in the end": lowered,
        NO_CUDA: loaded.device.type != "cuda",
        f"gpu_util is not measured: {'; '.join(totals.figures[0].gpu_warnings)}":
            all(item.gpu_util_pct is None for item in totals.figures),
        "accuracy and F1 are not measured: the weights are random": loaded.info.weights == "dummy",
        f"{missing} rows have no label: predicted, left out of accuracy and F1": missing,
        "num_truncated is not measured: this tokenizer does not tell which texts it cut":
            any(item.num_truncated is None for item in totals.figures),
        f"{totals.resumed_rows} rows were predicted by an earlier run and timed then; remove the folder "
        f"{config.files.predictions_dir.name}/ to measure all anew": totals.resumed_rows,
    }
    return [text for text, holds in said.items() if holds]

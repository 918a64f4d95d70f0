"""What grouping by length saves, and what compiling saves: both variants on the same rows, in turn,
in the run itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

from utils.config_loader import Config
from utils.data.reader import sample_texts
from utils.evaluation.batching import Batching
from utils.evaluation.chunks import ChunkStore
from utils.evaluation.predictions import Predictions
from utils.evaluation.tokens import TokenChunk
from utils.evaluation.worker import ChunkWorker

COMPARISON_FILE = "comparison.json"
MIN_ROWS = 256
MAX_ROWS = 4096
MIN_ROUND_S = 3.0
ROUND_FRACTION = 0.03
"""A round may take ``MIN_ROUND_S``, or this fraction of the evaluation's own time where that is
more.
"""
ROUND_COST_FACTOR = 7
"""How much longer a round takes than the grouped variant alone, where file order is six times
slower: this chooses the size of the sample.
"""
ROUNDS = 2
WARM_UP_ROWS = 32

T = TypeVar("T")
Variant = Callable[[TokenChunk], Predictions]


def compare(
    worker: ChunkWorker, config: Config, store: ChunkStore, metrics: dict[str, Any]
) -> dict[str, Any]:
    """``batching_comparison`` and ``compile_comparison``, each None where it was not asked for.

    The rows are tokenised already; forward passes and copies are timed: the variants differ in
    nothing but the batches, or the compiling. They are measured once; a resumed run takes the
    results over.
    """
    settings = config.evaluation
    # What the comparison depends on beside what the store's predictions do.
    depends_on = {
        "compare_batching": settings.compare_batching,
        "batch_size": settings.batch_size,
        "max_tokens_per_batch": settings.max_tokens_per_batch,
        "max_samples": settings.max_samples,
    }
    saved = store.read_state(COMPARISON_FILE)
    if saved is not None and saved.get("settings") == depends_on:
        return dict(saved["comparisons"])
    comparisons: dict[str, Any] = {"batching_comparison": None, "compile_comparison": None}
    if not settings.compare_batching and not settings.compile:
        return comparisons
    size = _choose_sample_size(metrics)
    texts = sample_texts(config.data_file, size, config.profiling.seed, settings.max_samples)
    chunk = worker.tokenize(texts)
    worker.prepare(chunk)
    if settings.compare_batching:
        comparisons["batching_comparison"] = _compare_batching(worker, config, chunk)
    if settings.compile:
        comparisons["compile_comparison"] = _compare_compiling(worker, chunk)
    store.write_state(COMPARISON_FILE, {"settings": depends_on, "comparisons": comparisons})
    return comparisons


def _choose_sample_size(metrics: Mapping[str, Any]) -> int:
    """Rows that a round takes about the allowed time for, by the speed of the evaluation."""
    round_s = max(MIN_ROUND_S, ROUND_FRACTION * metrics["inference_time_s"])
    rows = round_s * metrics["throughput_samples_per_sec"] / ROUND_COST_FACTOR
    return int(min(MAX_ROWS, max(MIN_ROWS, rows), metrics["num_samples"]))


def _compare_batching(worker: ChunkWorker, config: Config, chunk: TokenChunk) -> dict[str, Any]:
    settings = config.evaluation
    if settings.batching == "token_budget":
        budget = worker.predictor.batching.limit
    elif settings.max_tokens_per_batch == "auto":
        budget = worker.plain_predictor().fastest_budget(chunk)
    else:
        budget = settings.max_tokens_per_batch
    grouped = Batching(kind="token_budget", limit=budget)
    in_order = Batching(kind="dataset_order", limit=settings.batch_size)
    variants: dict[str, Variant] = {
        grouped.kind: worker.plain_predictor(grouped).predict,
        in_order.kind: worker.plain_predictor(in_order).predict,
    }
    return {
        "max_tokens_per_batch": budget,
        "batch_size": settings.batch_size,
        **_compare_variants(variants, chunk),
    }


def _compare_compiling(worker: ChunkWorker, chunk: TokenChunk) -> dict[str, Any]:
    variants: dict[str, Variant] = {
        "compiled": worker.predictor.predict,
        "plain": worker.plain_predictor().predict,
    }
    return {"compile_s": worker.compile_s, **_compare_variants(variants, chunk)}


def time_interleaved(
    variants: Mapping[str, Callable[[], T]], rounds: int
) -> tuple[dict[str, list[float]], dict[str, T]]:
    """Seconds of each round of each variant, and its last result; every other round in the opposite
    order.
    """
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    last_results: dict[str, T] = {}
    for number in range(rounds):
        names = list(variants)
        if number % 2 == 1:
            names.reverse()
        for name in names:
            started_s = time.perf_counter()
            last_results[name] = variants[name]()
            seconds[name].append(time.perf_counter() - started_s)
    return seconds, last_results


def _compare_variants(variants: dict[str, Variant], chunk: TokenChunk) -> dict[str, Any]:
    """Speed and padding of two variants, how many times faster the first is, and the share of equal
    labels.
    """
    # What starts up with the first call belongs to no round.
    for predict in variants.values():
        predict(chunk.head(WARM_UP_ROWS))
    calls = {name: partial(predict, chunk) for name, predict in variants.items()}
    round_seconds, predictions = time_interleaved(calls, ROUNDS)
    seconds = {name: sum(values) for name, values in round_seconds.items()}
    first, second = variants
    num_rows = len(chunk.ids)
    num_tokens = int(chunk.num_tokens.sum())
    result: dict[str, Any] = {
        "num_rows": num_rows,
        "rounds": ROUNDS,
        "speedup": seconds[second] / seconds[first],
    }
    for name in variants:
        result[f"{name}_samples_per_sec"] = ROUNDS * num_rows / seconds[name]
        result[f"{name}_padding_fraction"] = 1 - num_tokens / predictions[name].padded_tokens
    agrees = predictions[first].predicted_ids == predictions[second].predicted_ids
    result["label_agreement"] = float(agrees.mean())
    return result

"""What grouping by length won, and what compiling won: both ways on the same rows, in turn, in the run they belong to."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

from utils.config_loader import Config
from utils.data.reader import sample_texts
from utils.evaluation.batching import Batching
from utils.evaluation.chunks import ChunkStore
from utils.evaluation.predictor import Predictions, TokenChunk
from utils.evaluation.worker import ChunkWorker

LEAST_ROWS, MOST_ROWS = 256, 4096
LEAST_S, SHARE_OF_RUN = 3.0, 0.03
"""Seconds that one round may take: so many, or that share of the evaluation's own time where it is more."""
SLOWER = 7
"""A round's time over that of the grouped way alone, where file order is six times slower: for choosing the sample's size."""
ROUNDS = 2
WARM_UP_ROWS = 32

T = TypeVar("T")
Way = Callable[[TokenChunk], Predictions]


def compare(worker: ChunkWorker, config: Config, store: ChunkStore, metrics: dict[str, Any]) -> dict[str, Any]:
    """``batching_comparison`` and ``compile_comparison``, each None where it was not asked for.

    Rows that are tokenised already, forward passes and copies: the ways differ in nothing but the batches, or the
    compiling. Measured once; a run that goes on takes it over.
    """
    settings = config.evaluation
    # What it depends on beside what the store's predictions do.
    asked = {name: getattr(settings, name) for name in ("compare_batching", "batch_size", "max_tokens_per_batch", "max_samples")}
    if (known := store.recall("comparison.json") or {}).get("asked") == asked:
        return dict(known["found"])
    found: dict[str, Any] = {"batching_comparison": None, "compile_comparison": None}
    if settings.compare_batching or settings.compile:
        rate = metrics["throughput_samples_per_sec"]
        wanted = max(LEAST_S, SHARE_OF_RUN * metrics["inference_time_s"]) * rate / SLOWER
        size = int(min(MOST_ROWS, max(LEAST_ROWS, wanted), metrics["num_samples"]))
        texts = sample_texts(config.data_file, size, config.profiling.seed, settings.max_samples)
        chunk = worker.tokenize(texts)
        worker.prepare(chunk)
        if settings.compare_batching:
            found["batching_comparison"] = _batching(worker, config, chunk)
        if settings.compile:
            found["compile_comparison"] = _compiling(worker, chunk)
        store.keep("comparison.json", {"asked": asked, "found": found})
    return found


def _batching(worker: ChunkWorker, config: Config, chunk: TokenChunk) -> dict[str, Any]:
    settings = config.evaluation
    if settings.batching == "token_budget":
        budget = worker.predictor.batching.limit
    else:
        wanted = settings.max_tokens_per_batch
        budget = worker.plain_predictor().fastest_budget(chunk) if wanted == "auto" else wanted
    grouped = Batching(kind="token_budget", limit=budget)
    in_order = Batching(kind="dataset_order", limit=settings.batch_size)
    ways: dict[str, Way] = {batching.kind: worker.plain_predictor(batching).predict for batching in (grouped, in_order)}
    return {"max_tokens_per_batch": budget, "batch_size": settings.batch_size, **_in_turn(ways, chunk)}


def _compiling(worker: ChunkWorker, chunk: TokenChunk) -> dict[str, Any]:
    ways: dict[str, Way] = {"compiled": worker.predictor.predict, "plain": worker.plain_predictor().predict}
    return {"compile_s": worker.compile_s, **_in_turn(ways, chunk)}


def take_turns(ways: Mapping[str, Callable[[], T]], rounds: int) -> tuple[dict[str, list[float]], dict[str, T]]:
    """Seconds of each round of each way, and its last result; every other round in the opposite order."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    last: dict[str, T] = {}
    for number in range(rounds):
        for name in list(ways)[:: 1 if number % 2 == 0 else -1]:
            started = time.perf_counter()
            last[name] = ways[name]()
            seconds[name].append(time.perf_counter() - started)
    return seconds, last


def _in_turn(ways: dict[str, Way], chunk: TokenChunk) -> dict[str, Any]:
    """Speed and padding of two ways, how many times faster the first is, and the share of rows with equal labels."""
    for run in ways.values():  # what starts up with the first call is in no round
        run(chunk.head(WARM_UP_ROWS))
    rounds, last = take_turns({name: partial(run, chunk) for name, run in ways.items()}, ROUNDS)
    seconds = {name: sum(taken) for name, taken in rounds.items()}
    first, second = ways
    tokens = int(chunk.num_tokens.sum())
    figures: dict[str, Any] = {"num_rows": len(chunk.ids), "rounds": ROUNDS, "speedup": seconds[second] / seconds[first]}
    for name in ways:
        figures[f"{name}_samples_per_sec"] = ROUNDS * len(chunk.ids) / seconds[name]
        figures[f"{name}_padding_fraction"] = 1 - tokens / last[name].padded_tokens
    figures["label_agreement"] = float((last[first].predicted_ids == last[second].predicted_ids).mean())
    return figures

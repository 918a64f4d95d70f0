"""What grouping by length saves, and what compiling saves: both variants on the same rows, in turn,
in the run itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from utils.core.files import JsonObject
from utils.data.reader import sample_texts
from utils.evaluation import budget_search
from utils.evaluation.batching import Batching
from utils.evaluation.chunks import ChunkStore
from utils.evaluation.evaluation_settings import EvaluationSettings
from utils.evaluation.predictions import Predictions
from utils.evaluation.tokens import TokenChunk
from utils.evaluation.worker import ChunkWorker
from utils.pipeline import console
from utils.schema.evaluation import BatchingComparison, CompileComparison, EvaluationMetrics
from utils.settings import EvaluationConfig
from utils.system.timing import time_interleaved

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

Variant = Callable[[TokenChunk], Predictions]


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparisons:
    """Both comparisons of an evaluation; None for one that was not asked for."""

    batching: BatchingComparison | None = None
    compiling: CompileComparison | None = None


def compare(
    worker: ChunkWorker, settings: EvaluationSettings, metrics: EvaluationMetrics
) -> Comparisons:
    """Measure the comparisons that the settings ask for.

    The rows are tokenised already; forward passes and copies are timed: the variants differ in
    nothing but the batches, or the compiling. They are measured once; a resumed run takes the
    results over.
    """
    section = settings.evaluation
    store = worker.store
    # What the comparison depends on beside what the store's predictions do.
    depends_on = {
        "compare_batching": section.compare_batching,
        "batch_size": section.batch_size,
        "max_tokens_per_batch": section.max_tokens_per_batch,
        "max_samples": section.max_samples,
    }
    saved = _load_comparisons(store, depends_on)
    if saved is not None:
        return saved
    if not section.compare_batching and not section.compile:
        return Comparisons()
    size = _choose_sample_size(metrics)
    texts = sample_texts(settings.data_file, size, settings.seed, section.max_samples)
    chunk = worker.tokenize(texts)
    worker.prepare(chunk)
    batching: BatchingComparison | None = None
    compiling: CompileComparison | None = None
    if section.compare_batching:
        batching = _compare_batching(worker, section, chunk)
    if section.compile:
        compiling = _compare_compiling(worker, chunk)
    comparisons = Comparisons(batching=batching, compiling=compiling)
    _save_comparisons(store, depends_on, comparisons)
    return comparisons


def _load_comparisons(store: ChunkStore, depends_on: JsonObject) -> Comparisons | None:
    """What an earlier run measured under the same settings; None where there is nothing."""
    saved = store.read_state(COMPARISON_FILE)
    if saved is None or saved.get("settings") != depends_on:
        return None
    batching = saved["comparisons"]["batching_comparison"]
    compiling = saved["comparisons"]["compile_comparison"]
    return Comparisons(
        batching=None if batching is None else BatchingComparison.model_validate(batching),
        compiling=None if compiling is None else CompileComparison.model_validate(compiling),
    )


def _save_comparisons(store: ChunkStore, depends_on: JsonObject, comparisons: Comparisons) -> None:
    batching = comparisons.batching
    compiling = comparisons.compiling
    content = {
        "batching_comparison": None if batching is None else batching.to_dict(),
        "compile_comparison": None if compiling is None else compiling.to_dict(),
    }
    store.write_state(COMPARISON_FILE, {"settings": depends_on, "comparisons": content})


def _choose_sample_size(metrics: EvaluationMetrics) -> int:
    """Rows that a round takes about the allowed time for, by the speed of the evaluation."""
    round_s = max(MIN_ROUND_S, ROUND_FRACTION * metrics.inference_time_s)
    rows = round_s * metrics.throughput_samples_per_sec / ROUND_COST_FACTOR
    return int(min(MAX_ROWS, max(MIN_ROWS, rows), metrics.num_samples))


def _compare_batching(
    worker: ChunkWorker, settings: EvaluationConfig, chunk: TokenChunk
) -> BatchingComparison:
    if settings.batching == "token_budget":
        budget = worker.predictor.batching.limit
    elif settings.max_tokens_per_batch == "auto":
        budget = budget_search.fastest_budget(worker.plain_predictor(), chunk)
    else:
        budget = settings.max_tokens_per_batch
    grouped = Batching(kind="token_budget", limit=budget)
    in_order = Batching(kind="dataset_order", limit=settings.batch_size)
    first, second, both = compare_variants(
        worker.plain_predictor(grouped).predict, worker.plain_predictor(in_order).predict, chunk
    )
    return BatchingComparison(
        max_tokens_per_batch=budget,
        batch_size=settings.batch_size,
        num_rows=both.num_rows,
        rounds=ROUNDS,
        speedup=both.speedup,
        token_budget_samples_per_sec=first.samples_per_sec,
        token_budget_padding_fraction=first.padding_fraction,
        dataset_order_samples_per_sec=second.samples_per_sec,
        dataset_order_padding_fraction=second.padding_fraction,
        label_agreement=both.label_agreement,
    )


def _compare_compiling(worker: ChunkWorker, chunk: TokenChunk) -> CompileComparison:
    assert worker.compile_s is not None, "the worker has compiled when it was prepared"
    first, second, both = compare_variants(
        worker.predictor.predict, worker.plain_predictor().predict, chunk
    )
    return CompileComparison(
        compile_s=worker.compile_s,
        num_rows=both.num_rows,
        rounds=ROUNDS,
        speedup=both.speedup,
        compiled_samples_per_sec=first.samples_per_sec,
        compiled_padding_fraction=first.padding_fraction,
        plain_samples_per_sec=second.samples_per_sec,
        plain_padding_fraction=second.padding_fraction,
        label_agreement=both.label_agreement,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class VariantSpeed:
    """Rows a second of one variant, and the share of padding in what it computed."""

    samples_per_sec: float
    padding_fraction: float


@dataclass(frozen=True, kw_only=True, slots=True)
class VariantDifference:
    """How many times faster the first variant is, and the share of equal labels."""

    num_rows: int
    speedup: float
    label_agreement: float


def compare_variants(
    first: Variant, second: Variant, chunk: TokenChunk
) -> tuple[VariantSpeed, VariantSpeed, VariantDifference]:
    """Speed and padding of two variants on the same rows, and their difference."""
    # What starts up with the first call belongs to no round.
    for predict in (first, second):
        predict(chunk.head(WARM_UP_ROWS))
    calls = {"first": partial(first, chunk), "second": partial(second, chunk)}
    num_rounds = ROUNDS * len(calls)
    with console.progress(total=num_rounds, what="Comparing batches", unit="round") as bar:
        seconds, predictions = time_interleaved(calls, ROUNDS, bar.update)
    agrees = predictions["first"].predicted_ids == predictions["second"].predicted_ids
    difference = VariantDifference(
        num_rows=len(chunk.ids),
        speedup=sum(seconds["second"]) / sum(seconds["first"]),
        label_agreement=float(agrees.mean()),
    )
    speeds = [_variant_speed(chunk, seconds[name], predictions[name]) for name in calls]
    return speeds[0], speeds[1], difference


def _variant_speed(
    chunk: TokenChunk, seconds: Sequence[float], predictions: Predictions
) -> VariantSpeed:
    num_tokens = int(chunk.num_tokens.sum())
    return VariantSpeed(
        samples_per_sec=len(seconds) * len(chunk.ids) / sum(seconds),
        padding_fraction=1 - num_tokens / predictions.computed_tokens,
    )

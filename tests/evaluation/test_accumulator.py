"""Chunks of one process and of several workers, added up."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from utils.evaluation.accumulator import EvaluationAccumulator
from utils.evaluation.chunks import BatchLimits, StoredChunk
from utils.evaluation.summary import EvaluationContext, summarise_evaluation
from utils.schema.chunk import ChunkStats
from utils.schema.evaluation import EvaluationMetrics
from utils.system.device import NOT_ON_CUDA


def make_chunk(
    worker: str | None = None,
    invocation_id: str | None = None,
    done_at_s: float | None = None,
    label_id: int = 0,
    **changes: Any,
) -> StoredChunk:
    values: dict[str, Any] = dict(
        num_rows=2,
        num_tokens=4,
        computed_tokens=4,
        num_truncated=0,
        num_unknown_labels=0,
        seconds=1.0,
        gpu_mem_used_bytes=None,
        peak_gpu_mem_bytes=None,
        cpu_mem_used_bytes=1,
        gpu_util_pct=None,
        gpu_util_s=0.0,
        worker=worker,
        invocation_id=invocation_id,
        done_at_s=done_at_s,
    )
    return StoredChunk(
        stats=ChunkStats(**{**values, **changes}),
        label_ids=np.full(2, label_id, dtype=np.int64),
        predicted_ids=np.zeros(2, dtype=np.int64),
    )


def compute_metrics(*chunks: StoredChunk, **changes: Any) -> EvaluationMetrics:
    accumulator = EvaluationAccumulator(("a", "b"))
    for chunk in chunks:
        accumulator.add(chunk)
    values: dict[str, Any] = dict(
        batching="token_budget",
        has_random_weights=False,
        on_cuda=True,
        predictions_folder="predictions",
        limits=BatchLimits(initial=256, lowest=256),
        resumed_rows=0,
    )
    return summarise_evaluation(accumulator, EvaluationContext(**{**values, **changes}))


@pytest.mark.parametrize(
    ("chunks", "num_workers", "num_names", "seconds"),
    [
        ([(None, None, None)] * 3, 1, 0, 3.0),
        # Resumed: the second invocation has other processes.
        (
            [("a", "1", 11.0), ("b", "1", 11.5), ("c", "2", 101.0), ("d", "2", 101.0)],
            2,
            4,
            2.5,
        ),
        (
            [
                (None, None, None),
                ("a", "1", 11.0),
                ("b", "1", 12.0),
                ("c", "1", 12.0),
                ("a", "2", 31.0),
            ],
            3,
            3,
            4.0,
        ),
    ],
)
def test_a_resumed_run_has_as_many_workers_as_worked_at_once(
    chunks: list[tuple[Any, Any, Any]], num_workers: int, num_names: int, seconds: float
) -> None:
    metrics = compute_metrics(*(make_chunk(*values) for values in chunks))
    assert (metrics.num_workers, len(metrics.workers)) == (num_workers, num_names)
    assert metrics.inference_time_s == seconds


def test_memory_is_the_largest_of_any_chunk_in_megabytes() -> None:
    metrics = compute_metrics(
        make_chunk(peak_gpu_mem_bytes=3 * 10**6, cpu_mem_used_bytes=5 * 10**6),
        make_chunk(peak_gpu_mem_bytes=2 * 10**6, cpu_mem_used_bytes=7 * 10**6),
    )
    assert (metrics.peak_gpu_mem, metrics.cpu_mem_used) == (3.0, 7.0)
    assert metrics.gpu_mem_used is None


def test_utilisation_is_weighted_by_the_seconds_that_it_stands_for() -> None:
    metrics = compute_metrics(
        make_chunk(gpu_util_pct=90.0, gpu_util_s=3.0),
        make_chunk(gpu_util_pct=None, gpu_util_s=0.0),
        make_chunk(gpu_util_pct=50.0, gpu_util_s=1.0),
    )
    assert metrics.gpu_util == 80.0
    assert metrics.reason("gpu_util") is None


def test_one_chunk_without_a_count_of_truncated_texts_makes_the_sum_unknown() -> None:
    known = make_chunk(num_truncated=2)
    assert compute_metrics(known, known).num_truncated == 4
    metrics = compute_metrics(known, make_chunk(num_truncated=None), known)
    assert metrics.num_truncated is None
    assert "earlier version" in metrics.unavailable["num_truncated"]


def test_warnings_are_those_that_apply_in_order() -> None:
    measured = make_chunk(gpu_util_pct=90.0, gpu_util_s=3.0)
    assert compute_metrics(measured).warnings == ()
    metrics = compute_metrics(
        make_chunk(gpu_util_reason="no driver", num_truncated=None),
        on_cuda=False,
        has_random_weights=True,
        limits=BatchLimits(initial=256, lowest=64),
        resumed_rows=2,
    )
    assert [text.partition(";")[0] for text in metrics.warnings] == [
        "memory: memory ran out with batches of 256",
        "resumed: 2 rows were predicted and timed by an earlier run",
    ]


def test_each_missing_metric_has_its_reason() -> None:
    metrics = compute_metrics(
        make_chunk(gpu_util_reason="no driver", num_truncated=None),
        on_cuda=False,
        has_random_weights=True,
    )
    assert metrics.reason("gpu_mem_used") == metrics.reason("peak_gpu_mem") == NOT_ON_CUDA
    assert metrics.reason("gpu_util") == "no driver"
    assert metrics.reason("accuracy") == metrics.reason("per_class") == "the weights are random"
    unlabelled = make_chunk(gpu_util_pct=90.0, gpu_util_s=3.0, label_id=-1)
    assert compute_metrics(unlabelled).reason("f1_macro") == "no row has a label"
    measured = make_chunk(
        gpu_util_pct=90.0,
        gpu_util_s=3.0,
        gpu_mem_used_bytes=1,
        peak_gpu_mem_bytes=1,
    )
    assert compute_metrics(measured).unavailable == {}

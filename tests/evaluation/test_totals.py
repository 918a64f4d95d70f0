"""How many workers there were, from what their chunks say."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from utils.config_loader import load_config
from utils.evaluation.chunks import ChunkFigures, StoredChunk
from utils.evaluation.totals import Totals


def chunk(worker: str | None, part: str | None, done_at_s: float | None) -> StoredChunk:
    figures = ChunkFigures(
        num_rows=2, num_tokens=4, padded_tokens=4, num_truncated=0, num_unknown_labels=0, seconds=1.0,
        gpu_mem_used_bytes=None, peak_gpu_mem_bytes=None, cpu_mem_used_bytes=1, gpu_util_pct=None, gpu_util_s=0.0,
        gpu_warnings=(), worker=worker, part=part, done_at_s=done_at_s,
    )
    return StoredChunk(figures=figures, label_ids=np.zeros(2, dtype=np.int64), predicted_ids=np.zeros(2, dtype=np.int64))


def metrics(*chunks: StoredChunk) -> dict[str, Any]:
    totals = Totals(("a", "b"))
    for each in chunks:
        totals.add(each)
    loaded: Any = SimpleNamespace(info=SimpleNamespace(weights="pretrained"), device=SimpleNamespace(type="cpu"))
    return totals.metrics(loaded, load_config(), (256, 256), 0)


@pytest.mark.parametrize(("chunks", "workers", "names", "seconds"), [
    ([(None, None, None)] * 3, 1, 0, 3.0),
    ([("a", "1", 11.0), ("b", "1", 11.5), ("c", "2", 101.0), ("d", "2", 101.0)], 2, 4, 2.5),  # resumed: other processes
    ([(None, None, None), ("a", "1", 11.0), ("b", "1", 12.0), ("c", "1", 12.0), ("a", "2", 31.0)], 3, 3, 4.0),
])
def test_a_resumed_run_has_as_many_workers_as_worked_at_once(
    chunks: list[tuple[Any, Any, Any]], workers: int, names: int, seconds: float
) -> None:
    found = metrics(*(chunk(*each) for each in chunks))
    assert (found["num_workers"], len(found["workers"])) == (workers, names)
    assert found["inference_time_s"] == seconds

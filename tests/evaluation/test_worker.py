"""What belongs to a chunk's seconds and to the GPU's window, and what does not."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests import support
from utils.core.errors import ModelError
from utils.data.reader import Rows
from utils.evaluation import budget_search, gpu_utilization
from utils.evaluation.chunks import ChunkStore
from utils.evaluation.evaluation_settings import EvaluationSettings
from utils.evaluation.predictor import Predictor
from utils.evaluation.worker import ChunkWorker
from utils.model_utils import load_model
from utils.schema.sweep_checkpoint import GpuReadings
from utils.system.gpu_timeline import TIMELINE_COLUMNS

PAUSE_S = 0.3
EXACT = "evaluation.max_tokens_per_batch=256"


def make_worker(folder: Path, model: Path, *more: str) -> ChunkWorker:
    config = support.small_config(folder, model, *more)
    store = ChunkStore(
        config.files.predictions_dir, config.files.state_dir / "evaluation", {"test": 1}
    )
    return ChunkWorker(load_model(config), EvaluationSettings.of(config), store)


def rows_at(start: int) -> Rows:
    return Rows(start=start, texts=list(support.TEXTS[:20]), label_ids=np.zeros(20, dtype=np.int64))


def slowly(*starts: int) -> Iterator[Rows]:
    for start in starts:
        time.sleep(PAUSE_S)
        yield rows_at(start)


def test_reading_that_holds_up_the_next_chunk_is_in_its_seconds(
    tmp_path: Path, tiny_model: Path
) -> None:
    worker = make_worker(tmp_path, tiny_model, EXACT)
    worker.choose_batch_limit(rows_at(0))
    began = time.perf_counter()
    seconds = [stats.seconds for _, stats in worker.run(slowly(0, 20, 40))]
    total_s = time.perf_counter() - began
    assert 0.8 * total_s < sum(seconds) <= total_s
    assert min(seconds) > 0.5 * PAUSE_S, "each was read, the first one too"


def test_reading_past_chunks_that_are_there_is_in_no_ones_seconds(
    tmp_path: Path, tiny_model: Path
) -> None:
    worker = make_worker(tmp_path, tiny_model, EXACT)
    worker.choose_batch_limit(rows_at(0))
    seconds = [stats.seconds for _, stats in worker.run(slowly(20, 60, 80))]
    assert max(seconds[:2]) < 0.7 * seconds[2], "the last one follows the one before it"
    assert seconds[2] > 0.5 * PAUSE_S


@pytest.mark.parametrize(("more", "batches"), [((EXACT,), 1), ((), 0)])
def test_one_batch_goes_before_the_first_chunk_unless_the_search_for_a_budget_did(
    tmp_path: Path,
    tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    more: tuple[str, ...],
    batches: int,
) -> None:
    worker, events = make_worker(tmp_path, tiny_model, *more), []
    run_first_batch, launch = Predictor.run_first_batch, Predictor.launch
    monkeypatch.setattr(budget_search, "fastest_budget", lambda *_: 256)
    monkeypatch.setattr(
        Predictor,
        "run_first_batch",
        lambda *given: events.append("first batch") or run_first_batch(*given),
    )
    monkeypatch.setattr(
        Predictor, "launch", lambda *given: events.append("launch") or launch(*given)
    )
    seen: list[int] = []
    worker.predictor.model.base_model.embed_tokens.register_forward_hook(lambda *_: seen.append(1))
    worker.prepare(worker.tokenize(support.TEXTS[:20]))
    assert len(seen) == batches
    assert [rows.start for rows, _ in worker.run(map(rows_at, (0, 20)))] == [0, 20]
    check_and_chunks = ["launch"] * 3
    assert events == ["first batch"] * batches + check_and_chunks


def test_optimised_batches_that_change_results_are_refused(
    tmp_path: Path, tiny_model: Path
) -> None:
    worker = make_worker(tmp_path, tiny_model, EXACT)

    def disturb(module: Any, inputs: Any, output: Any) -> Any:
        return output + (len(output) > 1) * torch.arange(output.shape[-1])

    worker.predictor.model.score.register_forward_hook(disturb)
    with pytest.raises(
        ModelError, match="texts get another result in the optimised evaluation than alone"
    ):
        list(worker.run(map(rows_at, (0, 20))))


class Monitor:
    """Notes when its windows begin and end; has one sample a window."""

    def __init__(self, *_: Any) -> None:
        self.events: list[str] = []
        self.rows: list[dict[str, Any]] = []

    def mark(self, **_: Any) -> None: ...

    def start(self) -> None:
        self.events.append("start")

    def stop(self) -> GpuReadings:
        self.rows.append(dict.fromkeys(TIMELINE_COLUMNS, len(self.events)))
        self.events.append("stop")
        return GpuReadings(util_pct_mean=50.0)

    def timeline(self) -> list[dict[str, Any]]:
        rows, self.rows = self.rows, []
        return rows


def test_the_gpus_window_begins_with_the_first_chunk_and_no_sample_is_lost(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_utilization, "GpuMonitor", Monitor)
    worker = make_worker(tmp_path, tiny_model)
    monitor: Any = worker._gpu._monitor
    launch = Predictor.launch

    def search(*_: Any) -> int:
        time.sleep(PAUSE_S)
        monitor.events.append("search")
        return 256

    monkeypatch.setattr(budget_search, "fastest_budget", search)
    monkeypatch.setattr(
        Predictor, "launch", lambda *given: monitor.events.append("launch") or launch(*given)
    )
    [first, second] = [stats for _, stats in worker.run(map(rows_at, (0, 20)))]
    time.sleep(PAUSE_S)
    [third] = [stats for _, stats in worker.run([rows_at(40)], expected_start=40)]
    assert first.gpu_util_s < PAUSE_S > third.gpu_util_s, (
        "neither the search nor the wait between two runs"
    )
    assert second.gpu_util_pct == 50.0
    worker.close()
    window = ["stop", "start"]
    assert monitor.events == [
        *window,
        "search",
        "launch",
        *window,
        "launch",
        *window,
        "launch",
        *window,
        *window,
        "launch",
        *window,
        "stop",
    ]
    with (tmp_path / "results" / "gpu_timeline.csv").open() as file:
        written = [int(row["run"]) for row in csv.DictReader(file)]
    assert written == [i for i, event in enumerate(monitor.events) if event == "stop"]


@pytest.mark.parametrize("content", ["{}", "[]", "damaged"])
def test_a_chunk_whose_stats_are_damaged_is_made_again(
    tmp_path: Path, tiny_model: Path, content: str
) -> None:
    worker = make_worker(tmp_path, tiny_model, EXACT)
    list(worker.run([rows_at(0)]))
    [file] = worker.store.state.glob("rows-*.json")
    assert worker.store.has(0, 20)
    file.write_text(content)
    assert not worker.store.has(0, 20)


def test_a_chunk_of_an_earlier_version_loads_with_its_stats(
    tmp_path: Path, tiny_model: Path
) -> None:
    worker = make_worker(tmp_path, tiny_model, EXACT)
    [(_, stats)] = list(worker.run([rows_at(0)]))
    [file] = worker.store.state.glob("rows-*.json")
    record = json.loads(file.read_text())
    assert record.pop("schema_version") == 1
    record["padded_tokens"] = record.pop("computed_tokens")
    record["of_another_version"] = 1
    file.write_text(json.dumps(record))
    chunk = worker.store.load(0, 20)
    assert chunk is not None
    assert chunk.stats == stats

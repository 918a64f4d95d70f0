"""The entire data set: right, resumable after being killed, never mixed with other settings."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import transformers

from tests import support
from tests.evaluation.test_predictor import SmallMemory, plain_loop
from utils.config_loader import load_config
from utils.core.errors import DataError, ModelError
from utils.core.files import PROJECT_ROOT
from utils.evaluation import predictor, runner, worker
from utils.evaluation.chunks import BatchLimits
from utils.evaluation.identity import open_store, prediction_identity
from utils.evaluation.predictions import PendingPredictions
from utils.evaluation.tokens import TokenChunk
from utils.model_utils import LoadedModel, load_model
from utils.schema.evaluation import EvaluationMetrics
from utils.system.device import NOT_ON_CUDA

Evaluate = Callable[..., EvaluationMetrics]
EXACT = "evaluation.max_tokens_per_batch=256"


@pytest.fixture(scope="module")
def loaded(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_model(support.small_config(tmp_path_factory.mktemp("config"), tiny_model))


@pytest.fixture
def evaluate(tmp_path: Path, tiny_model: Path, loaded: LoadedModel) -> Evaluate:
    """Evaluate the small data set in a folder (default: the test's own) with more settings."""

    def run(*more: str, folder: Path = tmp_path, model: LoadedModel = loaded) -> EvaluationMetrics:
        if not (folder / "data").exists():
            support.write_dataset(folder / "data")
        config = load_config(overrides=[*support.small_overrides(folder, tiny_model), *more])
        return runner.evaluate_dataset(model, config)

    return run


def chunk_bytes(folder: Path) -> dict[str, bytes]:
    return {
        file.name: file.read_bytes()
        for file in sorted((folder / "results" / "predictions").iterdir())
    }


def predictions(folder: Path) -> pd.DataFrame:
    files = sorted((folder / "results" / "predictions").glob("*.parquet"))
    return pd.concat([pd.read_parquet(file) for file in files], ignore_index=True)


def count_runs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows of every chunk that is really computed from here on."""
    seen: list[int] = []
    real = predictor.Predictor.launch

    def spy(self: predictor.Predictor, chunk: TokenChunk) -> PendingPredictions:
        seen.append(len(chunk.ids))
        return real(self, chunk)

    monkeypatch.setattr(predictor.Predictor, "launch", spy)
    return seen


@pytest.mark.parametrize("batching", ["token_budget", "dataset_order"])
def test_metrics_and_predictions_are_those_of_a_plain_loop(
    evaluate: Evaluate, loaded: LoadedModel, tmp_path: Path, batching: str
) -> None:
    metrics = evaluate(f"evaluation.batching={batching}")
    expected = plain_loop(loaded.model, loaded.tokenizer, support.TEXTS, 16).softmax(-1).max(-1)
    rows = predictions(tmp_path)
    assert rows.predicted_id.tolist() == expected.indices.tolist()
    assert rows.predicted_probability.to_numpy() == pytest.approx(expected.values.numpy(), abs=1e-5)
    assert rows.row_id.tolist() == list(range(60))
    assert metrics.accuracy == pytest.approx((rows.label_id == rows.predicted_id).mean())
    assert metrics.num_tokens == rows.num_tokens.sum()
    assert metrics.throughput_samples_per_sec == pytest.approx(60 / metrics.inference_time_s)
    assert metrics.accuracy_ci95_low < metrics.accuracy < metrics.accuracy_ci95_high
    assert metrics.gpu_util is None
    assert metrics.reason("gpu_mem_used") == NOT_ON_CUDA
    assert (metrics.max_tokens_per_batch is None) == (batching == "dataset_order")


KILLED = """
import os, signal, sys
from utils.config_loader import load_config
from utils.evaluation import chunks, runner
from utils.model_utils import load_model
saves, where = int(sys.argv[1]), sys.argv[2]
count, write = 0, getattr(chunks, where)
def dying(*args, **kwargs):
    global count
    if where == "write_json" and not args[0].name.startswith("rows-"):
        return write(*args, **kwargs)
    count += 1
    if count > saves:
        os.kill(os.getpid(), signal.SIGKILL)
    return write(*args, **kwargs)
setattr(chunks, where, dying)
config = load_config(overrides=sys.argv[3:])
runner.evaluate_dataset(load_model(config), config)
"""


@pytest.mark.parametrize(("saves", "where", "kept"), [(2, "atomic_path", 2), (1, "write_json", 1)])
def test_a_killed_run_goes_on_to_the_same_bytes(
    evaluate: Evaluate,
    tmp_path: Path,
    tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    saves: int,
    where: str,
    kept: int,
) -> None:
    """Killed before a chunk is written, and between a chunk and its stats."""
    more = ["evaluation.chunk_rows=13"]
    killed, complete = tmp_path / "killed", tmp_path / "complete"
    support.write_dataset(killed / "data")
    words = [str(saves), where, *support.small_overrides(killed, tiny_model), *more]
    done = subprocess.run(
        [sys.executable, "-c", KILLED, *words], cwd=PROJECT_ROOT, capture_output=True, text=True
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    budget = json.loads(next((killed / "results").rglob("run.json")).read_text())["limit"]
    seen = count_runs(monkeypatch)
    metrics = evaluate(*more, folder=killed)
    assert seen == [13, 13, 13, 13, 8][kept:]
    assert metrics.resumed_rows == 13 * kept
    assert metrics.max_tokens_per_batch == budget, "the budget that auto chose is saved"
    monkeypatch.setattr(predictor.Predictor, "fastest_budget", lambda *_: budget)
    expected = evaluate(*more, folder=complete)
    assert chunk_bytes(killed) == chunk_bytes(complete)
    for name in ("accuracy", "f1_macro", "num_tokens"):
        assert getattr(metrics, name) == getattr(expected, name)


def test_a_finished_run_computes_nothing_again(
    evaluate: Evaluate, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = evaluate()
    seen = count_runs(monkeypatch)
    second = evaluate()
    assert seen == []
    assert second.resumed_rows == 60
    assert second.inference_time_s == first.inference_time_s
    assert any("by an earlier run" in warning for warning in second.warnings)


def damage(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("harm", [damage, Path.unlink, lambda file: file.write_bytes(b"")])
def test_a_corrupt_chunk_is_computed_again(
    evaluate: Evaluate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: Callable[[Path], Any]
) -> None:
    evaluate(EXACT)
    before = chunk_bytes(tmp_path)
    harm(sorted((tmp_path / "results" / "predictions").iterdir())[1])
    seen = count_runs(monkeypatch)
    metrics = evaluate(EXACT)
    assert (seen, metrics.resumed_rows) == ([25], 35)
    assert chunk_bytes(tmp_path) == before


def test_chunks_of_other_settings_are_never_mixed_in(
    evaluate: Evaluate,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    evaluate()
    old = set(chunk_bytes(tmp_path))
    rubbish = tmp_path / "results" / "predictions" / f".{min(old)}.abc.tmp"
    rubbish.write_bytes(b"half")
    (tmp_path / "results" / "predictions" / "notes.txt").write_text("mine")
    seen = count_runs(monkeypatch)
    metrics = evaluate("profiling.max_length=4")
    assert seen == [25, 25, 10]
    assert "profiling.max_length: 64 -> 4" in capsys.readouterr().out
    now = set(chunk_bytes(tmp_path))
    assert not now & (old | {rubbish.name})
    assert "notes.txt" in now
    assert (len(predictions(tmp_path)), predictions(tmp_path).num_tokens.max()) == (60, 4)
    assert metrics.num_truncated > 0
    assert len(list((tmp_path / "results" / ".state" / "evaluation").iterdir())) == 1


def test_old_predictions_stay_until_the_new_run_is_complete(
    evaluate: Evaluate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate()
    old = chunk_bytes(tmp_path)

    def fail(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(predictor.Predictor, "launch", fail)
        evaluate("profiling.max_length=4")
    assert chunk_bytes(tmp_path) == old


def test_changed_data_or_model_is_other_settings(
    evaluate: Evaluate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate()
    support.write_dataset(tmp_path / "data", (*support.TEXTS, "one more"))
    seen = count_runs(monkeypatch)
    assert evaluate().num_samples == sum(seen) == 61
    assert evaluate("evaluation.max_samples=30").resumed_rows == 25, (
        "fewer rows of the same data may be reused"
    )


def test_the_tokenizer_the_adapter_and_its_base_are_settings_too(
    loaded: LoadedModel, tmp_path: Path, tiny_model: Path
) -> None:
    config = support.small_config(tmp_path, tiny_model)
    plain = prediction_identity(loaded, config, "data")
    loaded.tokenizer(["one", "two words"], padding=True, truncation=True, max_length=3)
    assert prediction_identity(loaded, config, "data") == plain, (
        "what a call leaves behind is no setting"
    )
    base = support.build_tiny_model(tmp_path / "base")
    adapted = dataclasses.replace(
        loaded, info=dataclasses.replace(loaded.info, name=str(base), adapter="mine")
    )
    before = prediction_identity(adapted, config, "data")
    assert {key for key in plain if plain[key] != before[key]} == {"adapter", "base model's files"}
    damage(base / "model.safetensors")
    after = prediction_identity(adapted, config, "data")
    assert [key for key in before if before[key] != after[key]] == ["base model's files"]
    other = support.build_tokenizer()
    other.add_tokens(["books number"])
    changed = prediction_identity(dataclasses.replace(loaded, tokenizer=other), config, "data")
    assert [key for key in plain if plain[key] != changed[key]] == ["tokenizer"]
    assert (plain["torch"], plain["transformers"]) == (torch.__version__, transformers.__version__)


def test_running_out_of_memory_is_reported_and_remembered(
    evaluate: Evaluate, loaded: LoadedModel, tmp_path: Path
) -> None:
    small = dataclasses.replace(loaded, model=SmallMemory(loaded.model, 300))
    metrics = evaluate("evaluation.max_tokens_per_batch=100000", model=small)
    assert metrics.num_samples == len(predictions(tmp_path)) == 60
    assert metrics.max_tokens_per_batch < 100000
    assert any("memory ran out with batches of 100000" in warning for warning in metrics.warnings)


def test_the_budget_that_auto_chose_is_reported_with_what_memory_left_of_it(
    evaluate: Evaluate, loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predictor.Predictor, "fastest_budget", lambda *_: 4096)
    first = evaluate(model=dataclasses.replace(loaded, model=SmallMemory(loaded.model, 300)))
    assert first.max_tokens_per_batch < 4096
    [message] = [warning for warning in first.warnings if "memory ran out" in warning]
    assert (
        message == "memory ran out with batches of 4096; they held at most "
        f"{first.max_tokens_per_batch} in the end"
    )
    again = evaluate()
    assert message in again.warnings, "the predictions are still those"
    assert not any(
        "memory ran out" in warning for warning in evaluate("profiling.max_length=32").warnings
    )


def test_a_data_set_replaced_meanwhile_is_refused_and_nothing_of_it_kept(
    evaluate: Evaluate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch = predictor.Predictor.launch
    launched: list[int] = []

    def replacing(self: predictor.Predictor, chunk: TokenChunk) -> PendingPredictions:
        launched.append(len(chunk.ids))
        if len(launched) == 2:
            support.write_dataset(tmp_path / "data", support.TEXTS[:30])
        return launch(self, chunk)

    with (
        monkeypatch.context() as patch,
        pytest.raises(DataError, match="replaced while it was evaluated"),
    ):
        patch.setattr(predictor.Predictor, "launch", replacing)
        evaluate(EXACT)
    assert [
        path.name[:17] for path in sorted((tmp_path / "results" / "predictions").iterdir())
    ] == ["rows-000000000000"]
    assert evaluate(EXACT).num_samples == 30


def test_a_data_set_replaced_since_it_was_hashed_is_refused(
    loaded: LoadedModel, tmp_path: Path, tiny_model: Path
) -> None:
    support.write_dataset(tmp_path / "data")
    config = support.small_config(tmp_path, tiny_model)
    with pytest.raises(DataError, match="replaced while it was evaluated"):
        runner.evaluate_dataset(loaded, config, data_sha256="0" * 64)
    assert not list((tmp_path / "results").rglob("*.parquet"))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_logits_that_are_no_numbers_are_refused(
    evaluate: Evaluate, loaded: LoadedModel, tmp_path: Path, value: float
) -> None:
    def overflowing(*, input_ids: torch.Tensor, attention_mask: torch.Tensor | None) -> Any:
        logits = torch.zeros(len(input_ids), 3)
        logits[input_ids[:, 0] == loaded.tokenizer("books number 3")["input_ids"][0], 1] = value
        return SimpleNamespace(logits=logits)

    with pytest.raises(ModelError, match="20 of 60 rows") as caught:
        evaluate(
            "evaluation.chunk_rows=60", EXACT, model=dataclasses.replace(loaded, model=overflowing)
        )
    assert "model.dtype=bfloat16" in str(caught.value)
    assert not list((tmp_path / "results" / "predictions").glob("*.parquet"))


def test_odd_texts_and_missing_labels(evaluate: Evaluate, tmp_path: Path) -> None:
    texts = (
        "plain",
        'quoted\n"newline"',
        "a\x00b",
        " \t ",
        "long " * 200_000,
        "<pad>",
        "é漢字🎲",
        "last",
    )
    label_ids = pd.array([0, 1, 2, 0, 1, 2, None, 0], dtype="Int64")
    frame = pd.DataFrame({"text": texts, "labels": "books", "label_id": label_ids})
    support.write_dataset(tmp_path / "data")
    frame.to_parquet(tmp_path / "data" / "val_df.parquet", index=False)
    metrics = evaluate(
        f"dataset.local_path={tmp_path / 'data' / 'val_df.parquet'}", "evaluation.chunk_rows=3"
    )
    rows = predictions(tmp_path)
    assert rows.row_id.tolist() == list(range(8))
    assert rows.label_id.isna().tolist() == [False] * 6 + [True, False]
    assert (metrics.num_missing_labels, metrics.num_labelled, metrics.num_truncated) == (
        1,
        7,
        1,
    )
    assert metrics.accuracy == np.mean(
        [rows.label_id[i] == rows.predicted_id[i] for i in range(8) if i != 6]
    )


def test_label_names_stand_beside_the_ids(evaluate: Evaluate, tmp_path: Path) -> None:
    names = ("图书", "games 🎮", "books, used")
    support.write_dataset(tmp_path / "data", labels=names)
    frame = pd.read_csv(tmp_path / "data" / "val_df.csv").astype({"label_id": "Int64"})
    frame.loc[7, "label_id"] = None
    frame.to_csv(tmp_path / "data" / "val_df.csv", index=False)
    evaluate("evaluation.chunk_rows=7")
    for file in sorted((tmp_path / "results" / "predictions").glob("*.parquet")):
        table = pq.read_table(file)
        assert pa.types.is_dictionary(table.schema.field("label").type)
        assert pa.types.is_dictionary(table.schema.field("predicted_label").type)
        for row in table.to_pylist():
            assert row["label"] == (None if row["label_id"] is None else names[row["label_id"]])
            assert row["predicted_label"] == names[row["predicted_id"]]
    assert predictions(tmp_path).label.isna().sum() == 1


def test_predictions_with_other_label_names_are_made_again(
    evaluate: Evaluate,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    evaluate()
    mapping = tmp_path / "data" / "label_mappings.json"
    mapping.write_text(mapping.read_text().replace("music", "tunes"))
    seen = count_runs(monkeypatch)
    evaluate()
    assert sum(seen) == 60
    assert "label names: " in capsys.readouterr().out
    assert set(predictions(tmp_path).label) == {"books", "games", "tunes"}


def test_dummy_weights_have_no_accuracy(tmp_path: Path, tiny_model: Path) -> None:
    config = support.small_config(tmp_path, tiny_model, "model.load_format=dummy")
    metrics = runner.evaluate_dataset(load_model(config), config)
    names = (
        "accuracy",
        "f1_macro",
        "f1_weighted",
        "accuracy_ci95_low",
        "num_correct",
        "per_class",
        "majority_class_accuracy",
    )
    assert [getattr(metrics, name) for name in names] == [None] * len(names)
    assert "random" in metrics.unavailable["accuracy"]


def test_an_error_in_the_background_comes_to_the_front() -> None:
    def items() -> Any:
        yield 1
        raise ValueError("unreadable")

    prefetched = worker.prefetch(items())
    assert next(prefetched) == 1
    with pytest.raises(ValueError, match="unreadable"):
        next(prefetched)
    assert os.getpid()  # and the thread has ended: the pool joins it


def test_a_chunk_written_while_the_next_one_runs_is_the_same(
    evaluate: Evaluate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU: one chunk in flight while the next is launched."""
    more = (EXACT, "evaluation.chunk_rows=7")
    evaluate(*more)
    real = worker.ChunkWorker.__init__

    def overlapping(self: worker.ChunkWorker, *arguments: Any) -> None:
        real(self, *arguments)
        self.max_in_flight = 1

    monkeypatch.setattr(worker.ChunkWorker, "__init__", overlapping)
    metrics = evaluate(*more, folder=tmp_path / "other")
    assert chunk_bytes(tmp_path / "other") == chunk_bytes(tmp_path)
    assert metrics.num_samples == 60
    assert 0 < metrics.inference_time_s < 60


def test_of_several_workers_limits_the_lowest_is_kept(
    loaded: LoadedModel, tmp_path: Path, tiny_model: Path
) -> None:
    store = open_store(loaded, support.small_config(tmp_path, tiny_model))
    assert store.limits() == BatchLimits()
    for limit in (512, 100, 200):
        store.save_batch_limit(limit)
    assert store.limits() == BatchLimits(initial=512, lowest=100)

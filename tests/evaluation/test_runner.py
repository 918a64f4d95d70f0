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
from typing import Any

import pytest
import torch
import transformers

from tests import support
from tests.evaluation.small_evaluation import EXACT, Evaluate, chunk_bytes, count_runs, predictions
from tests.evaluation.test_predictor import SmallMemory, plain_loop
from utils.config_loader import load_config
from utils.core.files import PROJECT_ROOT
from utils.evaluation import budget_search, predictor, worker
from utils.evaluation.chunks import BatchLimits
from utils.evaluation.evaluation_settings import EvaluationSettings
from utils.evaluation.identity import open_store, prediction_identity
from utils.model_utils import LoadedModel
from utils.pipeline.evaluation_progress import progress_lines
from utils.system.device import NOT_ON_CUDA


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
from utils.evaluation.evaluation_settings import EvaluationSettings
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
runner.evaluate_dataset(load_model(config), EvaluationSettings.of(config))
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
    monkeypatch.setattr(budget_search, "fastest_budget", lambda *_: budget)
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


def test_another_process_sees_how_many_rows_are_done(evaluate: Evaluate, tmp_path: Path) -> None:
    evaluate()
    files = load_config(overrides=[f"output.results_dir={tmp_path / 'results'}"]).files
    [line] = progress_lines(files, since_unix_s=0.0)
    assert line.startswith("     evaluation: 60 of 60 rows, ")
    assert line.endswith(" rows/s")
    evaluate()
    [line] = progress_lines(files, since_unix_s=0.0)
    assert line == "     evaluation: 60 of 60 rows, no new chunk is finished yet"


def test_predictions_of_other_settings_are_counted_before_they_are_deleted(
    evaluate: Evaluate, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate()
    assert "predictions in place" not in capsys.readouterr().out
    evaluate("profiling.max_length=32")
    assert "The 60 predictions in place are of other settings" in capsys.readouterr().out


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
    settings = EvaluationSettings.of(support.small_config(tmp_path, tiny_model))
    plain = prediction_identity(loaded, settings, "data")
    loaded.tokenizer(["one", "two words"], padding=True, truncation=True, max_length=3)
    assert prediction_identity(loaded, settings, "data") == plain, (
        "what a call leaves behind is no setting"
    )
    base = support.build_tiny_model(tmp_path / "base")
    adapted = dataclasses.replace(
        loaded, info=dataclasses.replace(loaded.info, name=str(base), adapter="mine")
    )
    before = prediction_identity(adapted, settings, "data")
    assert {key for key in plain if plain[key] != before[key]} == {"adapter", "base model's files"}
    damage(base / "model.safetensors")
    after = prediction_identity(adapted, settings, "data")
    assert [key for key in before if before[key] != after[key]] == ["base model's files"]
    other = support.build_tokenizer()
    other.add_tokens(["books number"])
    changed = prediction_identity(dataclasses.replace(loaded, tokenizer=other), settings, "data")
    assert [key for key in plain if plain[key] != changed[key]] == ["tokenizer"]
    assert (plain["torch"], plain["transformers"]) == (torch.__version__, transformers.__version__)


# The versions of the libraries are left out: they are those of the environment.
STORED_IDENTITY = {
    "version": 8,
    "model.name": "codefactory4791/intent-classification-qwen",
    "model.revision": None,
    "model.tokenizer": None,
    "model.adapter_base": None,
    "model.dtype": "float32",
    "model.load_format": "auto",
    "model.attn_implementation": "auto",
    "model.matmul_precision": "highest",
    "model.trust_remote_code": False,
    "model.seed": 0,
    "model's commit": "a commit",
    "model's files": None,
    "adapter": None,
    "base model's files": None,
    "tokenizer": "0c0fab401919d88d636c297e3338b69ea9609a2a0f3750cd355da404789bea36",
    "device": "cpu",
    "data set": "a hash",
    "label names": "024d4e07b69f",
    "dataset.text_column": "text",
    "profiling.max_length": 512,
    "evaluation.batching": "token_budget",
    "evaluation's batch limit": "auto",
    "evaluation.compile": False,
    "evaluation.chunk_rows": 8192,
}


def test_the_identity_is_the_one_that_stored_chunks_are_named_by(
    loaded: LoadedModel, tmp_path: Path
) -> None:
    """Another key or value names other files: an interrupted run would begin again."""
    file = support.write_dataset(tmp_path / "data")
    settings = EvaluationSettings.of(load_config(overrides=[f"dataset.local_path={file}"]))
    of_the_hub = dataclasses.replace(
        loaded,
        info=dataclasses.replace(loaded.info, revision="a commit", adapter=None),
        tokenizer=support.build_tokenizer(),
    )
    identity = prediction_identity(of_the_hub, settings, "a hash")
    assert (identity.pop("torch"), identity.pop("transformers")) == (
        torch.__version__,
        transformers.__version__,
    )
    assert identity == STORED_IDENTITY


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
    monkeypatch.setattr(budget_search, "fastest_budget", lambda *_: 4096)
    first = evaluate(model=dataclasses.replace(loaded, model=SmallMemory(loaded.model, 300)))
    assert first.max_tokens_per_batch < 4096
    [message] = [warning for warning in first.warnings if "memory ran out" in warning]
    assert (
        message == "memory: memory ran out with batches of 4096; they held at most "
        f"{first.max_tokens_per_batch} in the end"
    )
    again = evaluate()
    assert message in again.warnings, "the predictions are still those"
    assert not any(
        "memory ran out" in warning for warning in evaluate("profiling.max_length=32").warnings
    )


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
    store = open_store(loaded, EvaluationSettings.of(support.small_config(tmp_path, tiny_model)))
    assert store.limits() == BatchLimits()
    for limit in (512, 100, 200):
        store.save_batch_limit(limit)
    assert store.limits() == BatchLimits(initial=512, lowest=100)

"""Flags of every command line and the documented Python interface are as they were committed.

When a change is intended::

    python -m tests.golden.regenerate commands.json python_interface.json
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pydantic import ValidationError

from tests.golden import compare, observe
from tests.golden.small_run import DATASET, EXPECTED_FOLDER, MAX_LENGTH, build_golden_model
from utils.config_loader import load_config
from utils.metrics import MetricsCollector
from utils.model_utils import load_model_and_tokenizer
from utils.profiler import InferenceProfiler


@pytest.fixture(scope="module")
def model_and_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    folder: Path = build_golden_model(tmp_path_factory.mktemp("golden_model"))
    return load_model_and_tokenizer(model_name=str(folder), device="cpu", dtype="float32")


def columns_of_the_table() -> list[str]:
    columns: list[str] = observe.read_json(EXPECTED_FOLDER / "columns.json")["detailed_metrics.csv"]
    return columns


def test_command_lines_take_the_committed_flags() -> None:
    expected = observe.read_json(EXPECTED_FOLDER / "commands.json")
    lines = compare.differences_by_key(expected, observe.command_lines())
    assert not lines, compare.message("commands.json", lines)


def test_functions_take_the_committed_parameters() -> None:
    expected = observe.read_json(EXPECTED_FOLDER / "python_interface.json")
    lines = compare.differences_by_key(expected, observe.python_interface())
    assert not lines, compare.message("python_interface.json", lines)


def test_settings_are_read_by_dotted_keys() -> None:
    config = load_config("configs/demo.yaml", overrides=["profiling.batch_sizes=[1, 2]"])
    assert list(config.get("profiling.batch_sizes")) == [1, 2]
    assert config.get("profiling.no_such_setting") is None


def test_profiler_returns_one_record_a_batch_size(model_and_tokenizer: tuple[Any, Any]) -> None:
    """The keys of a record are the columns of ``detailed_metrics.csv``, in their order."""
    model, tokenizer = model_and_tokenizer
    texts = list(pd.read_csv(DATASET)["text"][:6])
    profiler = InferenceProfiler(model, tokenizer, device="cpu")
    results = profiler.profile_multiple_batch_sizes(
        texts=texts, batch_sizes=[1, 4], num_runs=2, max_length=MAX_LENGTH
    )
    rows = [record.to_dict() for record in results]
    assert [row["batch_size"] for row in rows] == [1, 4]
    assert [row["status"] for row in rows] == ["ok", "ok"]
    for row in rows:
        lines = compare.list_differences(columns_of_the_table(), list(row))
        assert not lines, compare.message("columns.json", lines)
    with pytest.raises(ValidationError, match="frozen"):
        results[0].status = "oom"


def test_collector_measures_any_block_of_work() -> None:
    collector = MetricsCollector(device="cpu")
    measurement = collector.start_measurement()
    sum(range(100_000))
    metrics = collector.end_measurement(measurement, 4, 8).to_dict()
    lines = compare.list_differences(columns_of_the_table(), list(metrics))
    assert not lines, compare.message("columns.json", lines)
    assert (metrics["batch_size"], metrics["num_samples"]) == (4, 8)
    assert metrics["latency_total_s_mean"] > 0

"""Files that are truncated, foreign, of a later version or in use: a clear message, or a note."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from tests.reporting.builders import write_results
from utils.core.errors import UserError
from utils.core.result_files import ResultFiles
from utils.reporting.commands import STEP_02, STEP_03
from utils.reporting.html_report import render_page
from utils.reporting.results import read_results
from utils.reporting.warning_causes import cause_of

FOREIGN = {
    "empty": b"",
    "a list": b"[]",
    "null": b"null",
    "no keys": b"{}",
    "other keys": b'{"schema_version": 1, "rows": [1, 2]}',
    "no text": b"\xff\xfe\x00",
}


def refuse(files: ResultFiles) -> UserError:
    with pytest.raises(UserError) as caught:
        read_results(files)
    return caught.value


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN.keys())
@pytest.mark.parametrize(
    ("name", "step"), [("baseline_metrics.json", STEP_02), ("bottlenecks.json", STEP_03)]
)
def test_a_foreign_file_is_refused_with_its_step(
    tmp_path: Path, name: str, step: str, content: bytes
) -> None:
    files = write_results(tmp_path).files
    (files.results_dir / name).write_bytes(content)
    error = refuse(files)
    assert error.what.startswith(name)
    assert step in error.fix


@pytest.mark.parametrize("name", ["baseline_metrics.json", "bottlenecks.json"])
def test_a_truncated_file_is_refused(tmp_path: Path, name: str) -> None:
    files = write_results(tmp_path).files
    file = files.results_dir / name
    file.write_bytes(file.read_bytes()[:2000])
    assert refuse(files).what.startswith(f"{name} is not valid JSON")


@pytest.mark.parametrize("content", [b"", b"a,b\n1,2\n", b"\xff\x00"])
def test_a_foreign_table_is_refused(tmp_path: Path, content: bytes) -> None:
    files = write_results(tmp_path).files
    files.layers.write_bytes(content)
    assert refuse(files).what.startswith("layers.csv cannot be read")


def change_evaluation(payload: dict[str, Any]) -> None:
    payload["full_dataset_metrics"]["accuracy"] = math.nan


def change_row(payload: dict[str, Any]) -> None:
    payload["batch_size_profiling"][1]["throughput_samples_per_sec_mean"] = math.nan


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (change_evaluation, "full_dataset_metrics.accuracy"),
        (change_row, "batch_size_profiling.1.throughput_samples_per_sec_mean"),
    ],
)
def test_a_value_that_is_no_number_is_refused(tmp_path: Path, change: Any, place: str) -> None:
    files = write_results(tmp_path).files
    payload = json.loads(files.metrics.read_text())
    change(payload)
    files.metrics.write_text(json.dumps(payload))
    assert f"at {place}: Input should be a finite number" in refuse(files).what


@pytest.mark.parametrize("name", ["baseline_metrics.json", "bottlenecks.json"])
def test_a_file_of_a_later_version_is_noted(tmp_path: Path, name: str) -> None:
    files = write_results(tmp_path).files
    file = files.results_dir / name
    file.write_text(json.dumps(json.loads(file.read_text()) | {"schema_version": 99}))
    results = read_results(files)
    note = results.notes[0]
    assert note.startswith(f"version: {name} has schema version 99, this program knows ")
    assert cause_of(note).title == "A file is of a later version of this program"
    assert "A file is of a later version" in render_page(results)

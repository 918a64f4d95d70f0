"""Results are read from folders and files of every version; everything else is refused by name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.comparison.builders import compare, metric, write_predictions, write_process
from tests.reporting.builders import Scenario
from utils.comparison.loading import load_run, load_sides
from utils.core.errors import UserError
from utils.pipeline.lock import run_lock

VERSIONS = sorted((Path(__file__).parents[1] / "schema" / "versions").glob("baseline_*.json"))


@pytest.fixture
def before(tmp_path: Path) -> Path:
    return write_process(tmp_path, "before")


@pytest.fixture
def after(tmp_path: Path) -> Path:
    return write_process(tmp_path, "after")


def refusal(baseline: list[Path], candidate: list[Path]) -> UserError:
    with pytest.raises(UserError) as caught:
        load_sides(baseline, candidate)
    return caught.value


def test_a_folder_and_its_metrics_file_are_the_same_run(before: Path) -> None:
    by_folder = load_run(before)
    by_file = load_run(before / "baseline_metrics.json")
    assert by_folder.metrics == by_file.metrics
    assert by_file.diagnosis is not None
    assert by_file.tables is not None


def test_a_copy_of_the_metrics_file_alone_has_no_files_beside_it(before: Path) -> None:
    copy = before / "week1.json"
    shutil.copy(before / "baseline_metrics.json", copy)
    run = load_run(copy)
    assert (run.diagnosis, run.tables, run.predictions) == (None, None, None)


@pytest.mark.parametrize("file", VERSIONS, ids=lambda file: file.stem)
def test_a_file_of_an_earlier_version_is_compared_with_a_new_one(file: Path, after: Path) -> None:
    comparison = compare(file, after)
    assert comparison.baseline.runs[0].schema_version < comparison.candidate.runs[0].schema_version
    assert [item.reason for item in comparison.refusals if "data" in item.reason]


@pytest.mark.parametrize("file", VERSIONS, ids=lambda file: file.stem)
def test_a_file_of_an_earlier_version_is_compared_with_its_copy(file: Path, tmp_path: Path) -> None:
    copy = tmp_path / file.name
    shutil.copy(file, copy)
    comparison = compare(file, copy)
    speed = metric(comparison, batch_size=2)
    assert (speed.verdict, speed.effect and speed.effect.ratio) == ("equivalent", 1.0)
    assert comparison.differences == ()
    assert "is on both sides, as copies" in comparison.warnings[0]


def test_results_that_do_not_exist_are_refused(before: Path, tmp_path: Path) -> None:
    error = refusal([before], [tmp_path / "none"])
    assert error.where == str(tmp_path / "none")
    assert "name a results folder" in str(error.fix)


def test_a_folder_without_metrics_says_which_step_has_not_finished(
    before: Path, tmp_path: Path
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    error = refusal([before], [empty])
    assert error.what == "The folder has no baseline_metrics.json: step 02 has not finished there."


def test_a_truncated_file_is_refused(before: Path, after: Path) -> None:
    file = after / "baseline_metrics.json"
    file.write_text(file.read_text()[:5000])
    error = refusal([before], [after])
    assert "is not valid JSON" in error.what
    assert error.where == str(file)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"", b"[" * 100_000])
def test_what_is_no_json_is_refused(before: Path, after: Path, content: bytes) -> None:
    (after / "baseline_metrics.json").write_bytes(content)
    assert "is not valid JSON" in refusal([before], [after]).what


@pytest.mark.parametrize("payload", [{"accuracy": 0.9}, {}, [1, 2], "text", None, 3])
def test_foreign_json_is_refused(before: Path, after: Path, payload: Any) -> None:
    (after / "baseline_metrics.json").write_text(json.dumps(payload))
    assert "is not a file of this project" in refusal([before], [after]).what


@pytest.mark.parametrize(
    "changes",
    [
        {"schema_version": 1, "batch_size_profiling": 5},
        {"schema_version": 1, "batch_size_profiling": ["text"]},
        {"schema_version": "three"},
        {"schema_version": True},
        {"run": None},
    ],
)
def test_a_file_with_parts_of_another_form_is_refused(
    before: Path, after: Path, changes: dict[str, Any]
) -> None:
    file = after / "baseline_metrics.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    assert "baseline_metrics.json" in refusal([before], [after]).what


def test_a_file_of_a_later_version_is_refused(before: Path, after: Path) -> None:
    file = after / "baseline_metrics.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "schema_version": 99}))
    error = refusal([before], [after])
    assert "was written by a later version of this project: schema_version 99" in error.what


def test_a_damaged_diagnosis_is_refused(before: Path, after: Path) -> None:
    (after / "bottlenecks.json").write_text('{"schema_version": 2, "batch_sizes": 7}')
    assert "bottlenecks.json is damaged" in refusal([before], [after]).what


def test_a_table_that_cannot_be_read_is_a_warning(before: Path, after: Path) -> None:
    (after / "profiler_traces" / "layers.csv").write_text("module\nhead\n")
    comparison = compare(before, after)
    assert "layers.csv" in comparison.warnings[0]
    assert comparison.diagnosis.unavailable["modules"] == "not both sides have a table of modules"


def test_a_run_that_is_still_going_is_refused(before: Path, after: Path) -> None:
    with run_lock(after / ".state" / "lock"):
        error = refusal([before], [after])
    assert "A run is still writing to this results folder: pid" in error.what
    load_sides([before], [after])


def test_a_run_is_not_its_own_replicate(before: Path, after: Path, tmp_path: Path) -> None:
    assert "a run is not its own replicate" in refusal([before, before], [after]).what
    copy = tmp_path / "copy"
    shutil.copytree(after, copy)
    assert "a run is not its own replicate" in refusal([before], [after, copy]).what


def test_the_same_results_on_both_sides_are_refused(before: Path) -> None:
    error = refusal([before], [before / "baseline_metrics.json"])
    assert error.what == "The same results are given as baseline and as candidate."


def test_a_side_without_results_is_refused(before: Path) -> None:
    assert refusal([before], []).what == "No results were given as candidate."


def test_a_folder_of_predictions_belongs_to_its_run(tmp_path: Path, before: Path) -> None:
    write_predictions(before, np.zeros(10, dtype=int), np.zeros(10, dtype=int))
    assert load_run(before).predictions == before / "predictions"
    assert load_run(write_process(tmp_path, "other", scenario=Scenario())).predictions is None

"""Results of every version that ever landed still load."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from utils.core.errors import UserError
from utils.schema.baseline import BASELINE_VERSION, load_baseline_metrics
from utils.schema.baseline_versions import reason_in_warnings

VERSIONS = sorted((Path(__file__).parent / "versions").glob("baseline_metrics_*.json"))


@pytest.mark.parametrize("file", VERSIONS, ids=lambda file: file.stem)
def test_a_file_of_an_earlier_version_loads_with_its_values(file: Path) -> None:
    stored = json.loads(file.read_text())
    metrics = load_baseline_metrics(file)
    assert metrics.schema_version == stored["schema_version"]
    assert metrics.full_dataset_metrics.accuracy == stored["full_dataset_metrics"]["accuracy"]
    for row, stored_row in zip(
        metrics.batch_size_profiling, stored["batch_size_profiling"], strict=True
    ):
        columns = row.to_dict()
        for name in stored_row.keys() & columns.keys() - {"gpu_mem_used"}:
            assert columns[name] == stored_row[name], name
    assert metrics.model_extra == {}


@pytest.mark.parametrize("file", VERSIONS, ids=lambda file: file.stem)
def test_reasons_of_earlier_versions_come_from_their_warnings(file: Path) -> None:
    metrics = load_baseline_metrics(file)
    row = metrics.batch_size_profiling[0]
    no_gpu = "the model is not on a CUDA device"
    assert row.reason("peak_gpu_mem") == row.reason("energy_per_sample_j") == no_gpu
    assert "latencies" in row.unavailable["latency_per_batch_ms_p99"]
    assert metrics.full_dataset_metrics.reason("gpu_util") == no_gpu


def test_each_version_that_was_ever_written_is_kept() -> None:
    kept = {json.loads(file.read_text())["schema_version"] for file in VERSIONS}
    assert kept == set(range(1, BASELINE_VERSION))


def newest(**changes: object) -> dict[str, object]:
    return {**json.loads(VERSIONS[-1].read_text()), **changes}


def test_memory_that_a_run_left_behind_is_not_taken_for_memory_in_use(tmp_path: Path) -> None:
    content = newest()
    content["batch_size_profiling"][0]["gpu_mem_used"] = -8.5  # type: ignore[index]
    file = tmp_path / "baseline_metrics.json"
    file.write_text(json.dumps(content))
    row = load_baseline_metrics(file).batch_size_profiling[0]
    assert (row.gpu_mem_used, row.gpu_mem_change) == (None, -8.5)


@pytest.mark.parametrize(
    ("decision", "confidence"),
    [
        ({"label_mapping_source": "sorted"}, "guessed"),
        ({"label_mapping_source": "sorted", "label_mapping_confidence": "certain"}, "certain"),
        ({"label_mapping_source": "model"}, None),
    ],
)
def test_sorted_label_names_without_a_confidence_were_a_guess(
    tmp_path: Path, decision: dict[str, str], confidence: str | None
) -> None:
    content: dict[str, Any] = newest()
    for name in ("label_mapping_source", "label_mapping_confidence", "label_mapping_note"):
        content["dataset_info"].pop(name, None)
    content["dataset_info"].update(decision)
    file = tmp_path / "baseline_metrics.json"
    file.write_text(json.dumps(content))
    assert load_baseline_metrics(file).dataset_info.label_mapping_confidence == confidence


def test_what_a_later_version_added_is_kept_and_a_missing_column_is_none(tmp_path: Path) -> None:
    content = newest(schema_version=BASELINE_VERSION + 1, added_later={"a": 1})
    row = content["batch_size_profiling"][0]  # type: ignore[index]
    row["column_of_a_later_version"] = 1.5
    del row["cv"]
    row["gpu_mem_used"] = None
    file = tmp_path / "baseline_metrics.json"
    file.write_text(json.dumps(content))
    metrics = load_baseline_metrics(file)
    assert metrics.model_extra == {"added_later": {"a": 1}}
    assert metrics.batch_size_profiling[0].model_extra == {"column_of_a_later_version": 1.5}
    assert metrics.batch_size_profiling[0].cv is None


def test_a_file_that_does_not_fit_names_the_place(tmp_path: Path) -> None:
    content = newest()
    content["full_dataset_metrics"]["accuracy"] = 1.5  # type: ignore[index]
    file = tmp_path / "baseline_metrics.json"
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"full_dataset_metrics\.accuracy"):
        load_baseline_metrics(file)
    file.write_text("[]")
    with pytest.raises(UserError, match="does not hold an object"):
        load_baseline_metrics(file)


@pytest.mark.parametrize(
    ("metric", "warnings", "reason"),
    [
        (
            "gpu_util_pct_mean",
            ["cv: high", "gpu_util: run shorter than a second"],
            "run shorter than a second",
        ),
        (
            "energy_per_sample_j",
            ["gpu_power, energy: the window is too short"],
            "the window is too short",
        ),
        ("peak_gpu_mem", ["cv: high", "GPU figures: not on CUDA"], "not on CUDA"),
        ("gpu_util", ["gpu_util is not measured: GPU figures: not on CUDA"], "not on CUDA"),
        ("mfu", ["GPU figures: not on CUDA", "gpu_util: short"], None),
    ],
)
def test_the_reason_follows_the_name_of_the_metric(
    metric: str, warnings: list[str], reason: str | None
) -> None:
    assert reason_in_warnings(metric, warnings) == reason

"""The pipelines' results as rows of the check of a GPU machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import (
    common,
)
from benchmarks.common import MISS, NOT_HERE, PASS, REPORTED
from benchmarks.gpu_parts import pipeline_results


def row_of(size: int, **changes: object) -> dict[str, object]:
    return {
        "batch_size": size,
        "status": "ok",
        "warnings": [],
        "gpu_util_pct_mean": 80.0,
        "achieved_tflops": 1.0,
        "throughput_samples_per_sec_mean": 10.0 * size,
        **changes,
    }


def test_the_pipelines_results_are_compared_with_their_bars(tmp_path: Path) -> None:
    doubtful = row_of(
        8, warnings=["phases: 5% of the time lies between them"], gpu_util_pct_mean=None
    )
    payload = {
        "batch_size_profiling": [row_of(1), doubtful],
        "full_dataset_metrics": {"accuracy": None, "throughput_samples_per_sec": 100.0},
    }
    (tmp_path / "baseline_metrics.json").write_text(json.dumps(payload))
    rows = pipeline_results.pipeline_rows(tmp_path, "float32", 0, uses_gpu=True)
    by_check = {row.check.split(": ")[1]: row for row in rows}
    assert by_check["all its steps"].status == PASS
    assert (by_check["phases add up"].status, by_check["GPU utilisation"].status) == (MISS, MISS)
    assert by_check["GPU utilisation"].measured == "null at 8"
    assert by_check["best of the sweep, at 8"].measured == 80.0
    (tmp_path / "baseline_metrics.json").unlink()
    rows = pipeline_results.pipeline_rows(tmp_path, "float32", 1, uses_gpu=True)
    assert [row.status for row in rows] == [MISS, NOT_HERE]
    rows = pipeline_results.pipeline_rows(tmp_path, "float32", None, uses_gpu=True)
    assert [row.status for row in rows] == [NOT_HERE, NOT_HERE], "it still runs"


def suggestion(
    title: str, predicted: float | None, measured: float | None, **changes: object
) -> dict[str, object]:
    reason = None if measured else "out of memory"
    return {
        "title": title,
        "setting": "a=b",
        "prediction": "estimate",
        "predicted_speedup": predicted,
        "verification": {"measured_speedup": measured, "reason": reason},
        **changes,
    }


DIAGNOSIS = {
    "batch_sizes": [{"batch_size": 1, "verdict": "overhead-bound"}],
    "detail_batch_size": 8,
    "kernels": {
        "busy_ms": 3.0,
        "span_ms": 4.0,
        "by_category_ms": {"copy": 1.0, "attention": 3.0},
        "idle_by_cause_ms": {"host_wait": 0.0},
    },
    "suggestions": [
        suggestion("near", 1.1, 1.0),
        suggestion("far", 1.2, 1.0),
        suggestion("failed", 2.0, None),
    ],
    "further_suggestions": [
        suggestion("bound", None, 3.0, prediction="upper-bound"),
        suggestion("untried", 2.0, 2.0, verification=None),
    ],
}


@pytest.fixture
def diagnosis_rows(tmp_path: Path) -> dict[str, common.Row]:
    """The rows of DIAGNOSIS by their check."""
    file = tmp_path / "bottlenecks.json"
    file.write_text(json.dumps(DIAGNOSIS))
    rows = pipeline_results.diagnosis_rows(file, "x")
    return {row.check.removeprefix("x: "): row for row in rows}


def test_predicted_speedups_are_compared_with_measured_ones(
    diagnosis_rows: dict[str, common.Row],
) -> None:
    statuses = {}
    for check, row in diagnosis_rows.items():
        if check.endswith(", a=b"):
            statuses[check.removesuffix(", a=b")] = row.status
    assert statuses == {"near": PASS, "far": MISS, "failed": MISS, "bound": REPORTED}


def test_verdicts_and_kernels_are_reported(diagnosis_rows: dict[str, common.Row]) -> None:
    place = "in the traced steps, at 8"
    assert diagnosis_rows["verdicts"].measured == "1 overhead-bound"
    assert diagnosis_rows[f"device busy {place}"].measured == 75
    assert diagnosis_rows[f"kernels by category {place}"].measured == "attention 75%, copy 25%"
    assert diagnosis_rows[f"idle by cause {place}"].measured == "host_wait 0%"


def test_a_diagnosis_that_is_missing_is_no_result(tmp_path: Path) -> None:
    rows = pipeline_results.diagnosis_rows(tmp_path / "bottlenecks.json", "x")
    assert [row.status for row in rows] == [NOT_HERE]

"""Rows from the results of all four steps: its metrics file and its diagnosis."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import common
from benchmarks.common import Row
from benchmarks.gpu_parts.rows import STILL_RUNNING

MAX_PREDICTION_ERROR = 0.15


def pipeline_rows(
    results: Path, dtype: str, code: int | None, *, uses_gpu: bool, is_diagnosed: bool = True
) -> list[Row]:
    """What the metrics file and the diagnosis of a run show.

    Args:
        results: the run's results folder.
        code: the run's exit code; None while it runs.
        uses_gpu: whether GPU utilisation must be there.
        is_diagnosed: step 03 is among its steps.
    """
    name = f"pipeline, {dtype}"
    rows = [_exit_row(name, code)]
    file = results / "baseline_metrics.json"
    if not file.exists():
        return [*rows, common.not_here(f"{name}: results", "no baseline_metrics.json; see log.txt")]
    payload = json.loads(file.read_text(encoding="utf-8"))
    sweep = payload["batch_size_profiling"]
    measured = [row for row in sweep if row["status"] == "ok"]
    rows.append(_status_row(name, sweep))
    if not measured:
        return rows
    rows.append(_phases_row(name, measured))
    rows.append(_utilization_row(name, measured, uses_gpu=uses_gpu))
    rows += _result_rows(name, measured, payload["full_dataset_metrics"])
    if is_diagnosed:
        rows += diagnosis_rows(results / "bottlenecks.json", name)
    return rows


def _exit_row(name: str, code: int | None) -> Row:
    check = f"{name}: all its steps"
    if code is None:
        return common.not_here(check, STILL_RUNNING)
    return common.checked(check, code == 0, expected="exit code 0", measured=f"exit code {code}")


def _status_row(name: str, sweep: Sequence[Mapping[str, Any]]) -> Row:
    statuses = ", ".join(f"{row['batch_size']} {row['status']}" for row in sweep)
    has_result = any(row["status"] == "ok" for row in sweep)
    return common.checked(
        f"{name}: batch sizes", has_result, expected="ok, or oom", measured=statuses
    )


def _phases_row(name: str, measured: Sequence[Mapping[str, Any]]) -> Row:
    gaps: list[str] = []
    for row in measured:
        gaps += [text for text in row["warnings"] if text.startswith("phases")]
    return common.checked(
        f"{name}: phases add up",
        not gaps,
        expected="within 3%",
        measured="; ".join(gaps) or "within 3%",
    )


def _utilization_row(name: str, measured: Sequence[Mapping[str, Any]], *, uses_gpu: bool) -> Row:
    check = f"{name}: GPU utilisation"
    if not uses_gpu:
        return common.not_here(check, "dry run on the CPU")
    missing = [str(row["batch_size"]) for row in measured if row["gpu_util_pct_mean"] is None]
    measured_at = "at every batch size"
    if missing:
        measured_at = f"null at {', '.join(missing)}"
    return common.checked(check, not missing, expected="at every batch size", measured=measured_at)


def _result_rows(
    name: str, measured: Sequence[Mapping[str, Any]], evaluation: Mapping[str, Any]
) -> list[Row]:
    best = max(measured, key=lambda row: row["throughput_samples_per_sec_mean"])
    size = best["batch_size"]
    rows = [
        common.checked(
            f"{name}: accuracy of random weights",
            evaluation["accuracy"] is None,
            expected="null",
            measured=str(evaluation["accuracy"]),
        ),
        common.reported(
            f"{name}: best of the sweep, at {size}",
            best["throughput_samples_per_sec_mean"],
            "samples/s",
        ),
        common.reported(
            f"{name}: complete data set", evaluation["throughput_samples_per_sec"], "samples/s"
        ),
    ]
    if best["achieved_tflops"] is not None:
        check = f"{name}: executed FLOPs at {size}"
        rows.append(common.reported(check, best["achieved_tflops"], "TFLOP/s"))
    return rows


def diagnosis_rows(file: Path, name: str) -> list[Row]:
    """The verdicts, the kernels' busy share, and each suggestion's speed-up."""
    if not file.exists():
        return [common.not_here(f"{name}: diagnosis", "no bottlenecks.json; see log.txt")]
    diagnosis = json.loads(file.read_text(encoding="utf-8"))
    verdicts = ", ".join(
        f"{row['batch_size']} {row['verdict']}" for row in diagnosis["batch_sizes"]
    )
    rows = [
        common.checked(
            f"{name}: verdicts", bool(verdicts), expected="one a batch size", measured=verdicts
        )
    ]
    if diagnosis["kernels"]:
        rows += _kernel_rows(diagnosis, name)
    for suggestion in (*diagnosis["suggestions"], *diagnosis["further_suggestions"]):
        if suggestion["setting"] is not None and suggestion["verification"] is not None:
            rows.append(_suggestion_row(suggestion, name))
    return rows


def _kernel_rows(diagnosis: Mapping[str, Any], name: str) -> list[Row]:
    kernels = diagnosis["kernels"]
    place = f"in the traced steps, at {diagnosis['detail_batch_size']}"
    busy_pct = 100 * kernels["busy_ms"] / kernels["span_ms"]
    by_category = _shares(kernels["by_category_ms"])
    by_cause = _shares(kernels["idle_by_cause_ms"])
    return [
        common.reported(f"{name}: device busy {place}", busy_pct, "%"),
        common.reported(f"{name}: kernels by category {place}", by_category, expected=""),
        common.reported(f"{name}: idle by cause {place}", by_cause, expected=""),
    ]


def _shares(parts_ms: Mapping[str, float]) -> str:
    """The share of each part in their sum, the largest first."""
    total_ms = sum(parts_ms.values()) or 1.0
    longest_first = sorted(parts_ms.items(), key=lambda item: -item[1])
    return ", ".join(f"{kind} {ms / total_ms:.0%}" for kind, ms in longest_first)


def _suggestion_row(suggestion: Mapping[str, Any], name: str) -> Row:
    check = f"{name}: {suggestion['title']}, {suggestion['setting']}"
    verification = suggestion["verification"]
    predicted = suggestion["predicted_speedup"]
    if verification["reason"]:
        return common.checked(check, False, expected="tried", measured=verification["reason"])
    measured = verification["measured_speedup"]
    if suggestion["prediction"] == "estimate":
        return common.within(check, measured, predicted, "times", relative=MAX_PREDICTION_ERROR)
    bound = f"predicted: at most {predicted or math.inf:.2f}"
    return common.reported(check, measured, "times", bound)

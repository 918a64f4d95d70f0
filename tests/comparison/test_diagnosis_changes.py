"""Where the time went on both sides is joined by name, the largest difference first."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.comparison.builders import Payload, compare, write_process, write_processes
from tests.reporting.builders import Scenario
from utils.schema.comparison import Comparison
from utils.schema.comparison_diagnosis import Level, TimeBreakdown

NOISE = (0.99, 1.0, 1.012)
Row = dict[str, str]


def edit_table(file: Path, change: Callable[[Row], object]) -> None:
    """Change the rows of a table of step 03."""
    with file.open(newline="") as source:
        rows = list(csv.DictReader(source))
    for row in rows:
        change(row)
    with file.open("w", newline="") as out:
        writer = csv.DictWriter(out, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def edit_diagnosis(results: Path, change: Callable[[dict[str, Any]], object]) -> None:
    file = results / "bottlenecks.json"
    payload = json.loads(file.read_text())
    change(payload)
    file.write_text(json.dumps(payload))


def breakdown(comparison: Comparison, level: Level, batch_size: int | None = None) -> TimeBreakdown:
    for item in comparison.diagnosis.breakdowns:
        if item.level == level and batch_size in (None, item.batch_size):
            return item
    raise AssertionError(f"no breakdown of {level}")


def test_a_module_that_became_slower_is_named_first(tmp_path: Path) -> None:
    def slow_down(row: Row) -> None:
        scale = 1.01
        if row["module"] == "model.layers.3.qwen2attention":
            scale = 3.0
        row["self_time_ms"] = str(scale * float(row["self_time_ms"]))

    before = write_process(tmp_path, "before")
    after = write_process(tmp_path, "after")
    edit_table(after / "profiler_traces" / "layers.csv", slow_down)
    modules = breakdown(compare(before, after), "modules")
    assert modules.changes[0].name == "model.layers.3.qwen2attention"
    assert modules.changes[0].ratio == pytest.approx(3.0)
    differences = [abs(change.difference_ms) for change in modules.changes]
    assert differences == sorted(differences, reverse=True)
    total = modules.candidate_total_ms - modules.baseline_total_ms
    assert total == pytest.approx(sum(change.difference_ms for change in modules.changes))


def test_operators_of_all_shapes_are_added_up_and_joined_by_name(tmp_path: Path) -> None:
    def rename(row: Row) -> None:
        if row["operator"] == "aten::mm":
            row["operator"] = "aten::scaled_mm"

    before = write_process(tmp_path, "before")
    after = write_process(tmp_path, "after")
    edit_table(after / "profiler_traces" / "operators.csv", rename)
    operators = breakdown(compare(before, after), "operators")
    changes = {change.name: change for change in operators.changes}
    assert changes["aten::mm"].candidate_ms is None
    assert changes["aten::mm"].ratio is None
    assert changes["aten::scaled_mm"].baseline_ms is None
    assert changes["aten::scaled_mm"].difference_ms == -changes["aten::mm"].difference_ms
    assert changes["aten::addmm"].difference_ms == 0


def test_kernels_are_divided_by_the_traced_steps(tmp_path: Path) -> None:
    def trace_more_steps(payload: dict[str, Any]) -> None:
        payload["kernels"]["num_steps"] *= 2

    scenario = Scenario(gpu=True)
    before = write_process(tmp_path, "before", scenario=scenario)
    after = write_process(tmp_path, "after", scenario=scenario)
    edit_diagnosis(after, trace_more_steps)
    [kernel] = breakdown(compare(before, after), "kernels").changes
    assert kernel.ratio == pytest.approx(0.5)


def test_phases_are_means_over_the_processes_at_the_same_batch_size(tmp_path: Path) -> None:
    before = write_process(tmp_path, "before")
    after = write_processes(tmp_path, "after", [2.0, 4.0])
    comparison = compare(before, after)
    for batch_size in (1, 64):
        phases = breakdown(comparison, "phases", batch_size)
        assert phases.changes[0].name == "forward"
        assert [change.ratio for change in phases.changes] == pytest.approx([3.0] * 4)


def test_traces_of_two_batch_sizes_are_not_compared(tmp_path: Path) -> None:
    before = write_process(tmp_path, "before")
    after = write_process(tmp_path, "after")
    edit_diagnosis(after, lambda payload: payload.update(detail_batch_size=64))
    unavailable = compare(before, after).diagnosis.unavailable
    assert unavailable["modules"] == "the traces are of batch sizes 1 and 64"


def test_without_a_diagnosis_the_phases_remain(tmp_path: Path) -> None:
    before = write_process(tmp_path, "before")
    after = write_process(tmp_path, "after", scenario=Scenario(has_diagnosis=False))
    comparison = compare(before, after)
    assert {item.level for item in comparison.diagnosis.breakdowns} == {"phases"}
    reason = "step 03 has not run for the candidate"
    assert set(comparison.diagnosis.unavailable.values()) == {reason}


def test_verdicts_before_and_after_stand_side_by_side(tmp_path: Path) -> None:
    def change_first(payload: dict[str, Any]) -> None:
        payload["batch_sizes"][0]["verdict"] = "memory-bound"

    before = write_process(tmp_path, "before")
    after = write_process(tmp_path, "after")
    edit_diagnosis(after, change_first)
    first, second, *_ = compare(before, after).diagnosis.verdicts
    assert (first.baseline, first.candidate, first.changed) == (
        "overhead-bound",
        "memory-bound",
        True,
    )
    assert not second.changed


def suggest(results: Path, **changes: Any) -> None:
    """Let the diagnosis of a run suggest bfloat16."""

    def change(payload: dict[str, Any]) -> None:
        payload["suggestions"][0] |= {"setting": "model.dtype=bfloat16", **changes}

    edit_diagnosis(results, change)


def use_bfloat16(payload: Payload) -> None:
    payload["config"]["model"]["dtype"] = "bfloat16"


@pytest.mark.parametrize(
    ("predicted", "prediction", "speedup", "outcome"),
    [
        (2.0, "estimate", 2.0, "as predicted"),
        (2.0, "estimate", 1.5, "less than predicted"),
        (2.0, "estimate", 3.0, "more than predicted"),
        (2.0, "upper-bound", 1.5, "as predicted"),
        (2.0, "upper-bound", 3.0, "more than predicted"),
        (1.01, "estimate", 1.0, "undecided"),
    ],
)
def test_a_suggestion_that_was_followed_is_compared_with_what_was_measured(
    tmp_path: Path, predicted: float, prediction: str, speedup: float, outcome: str
) -> None:
    before = write_processes(tmp_path, "before", NOISE)
    for results in before:
        suggest(results, predicted_speedup=predicted, prediction=prediction)
    slowdowns = [noise / speedup for noise in (1.0, 0.985, 1.012)]
    after = write_processes(tmp_path, "after", slowdowns, change=use_bfloat16)
    [suggestion] = compare(before, after).diagnosis.suggestions
    assert suggestion.outcome == outcome
    assert suggestion.measured_at == "batch size 1"
    assert suggestion.measured_speedup == pytest.approx(speedup, rel=0.02)
    assert suggestion.num_other_changes == 0


def test_a_suggestion_that_was_not_followed_has_no_outcome(tmp_path: Path) -> None:
    before = write_process(tmp_path, "before")
    suggest(before)
    assert compare(before, write_process(tmp_path, "after")).diagnosis.suggestions == ()

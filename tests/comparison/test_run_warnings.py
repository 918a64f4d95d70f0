"""What to know of the compared runs themselves is said beside the comparison."""

from __future__ import annotations

from pathlib import Path

from tests.comparison.builders import Payload, compare, write_process, write_processes
from tests.reporting.builders import Scenario
from utils.reporting.comparison_page import render_comparison_page
from utils.reporting.comparison_text import render_text
from utils.schema.warning_codes import code_of


def test_steady_runs_have_no_warnings(tmp_path: Path) -> None:
    before = write_process(tmp_path, "before")
    assert compare(before, write_process(tmp_path, "after")).warnings == ()


def test_batch_sizes_that_were_not_stable_are_named_once_a_side(tmp_path: Path) -> None:
    def disturb(payload: Payload) -> None:
        for row in payload["batch_size_profiling"][1:3]:
            row["stable"] = False

    before = write_processes(tmp_path, "before", [1.0, 1.01], change=disturb)
    [warning] = compare(before, write_process(tmp_path, "after")).warnings
    assert "the baseline was not stable at batch size 4, 8 in at least one process" in warning


def test_a_shared_gpu_and_resumed_rows_are_named(tmp_path: Path) -> None:
    def disturb(payload: Payload) -> None:
        payload["measurement"]["gpu_shared"] = True
        payload["full_dataset_metrics"]["resumed_rows"] = 1200

    scenario = Scenario(gpu=True)
    before = write_process(tmp_path, "before", scenario=scenario)
    after = write_process(tmp_path, "after", scenario=scenario, change=disturb)
    shared, resumed = compare(before, after).warnings
    assert shared == "shared: another process used the GPU while the candidate was measured"
    assert resumed.startswith(
        "resumed: 1,200 rows of the candidate were predicted by an interrupted"
    )


def test_the_report_shows_the_sentences_without_their_codes(tmp_path: Path) -> None:
    def disturb(payload: Payload) -> None:
        payload["measurement"]["gpu_shared"] = True

    scenario = Scenario(gpu=True)
    before = write_process(tmp_path, "before", scenario=scenario)
    after = write_process(tmp_path, "after", scenario=scenario, change=disturb)
    comparison = compare(before, after)
    assert all(code_of(warning) is not None for warning in comparison.warnings)
    for text in (render_text(comparison), render_comparison_page(comparison)):
        assert "another process used the GPU while the candidate" in text
        assert "shared: another process" not in text

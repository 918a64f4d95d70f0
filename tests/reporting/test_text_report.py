"""The text report: all sections, the values of the files, at most 80 columns."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.reporting.conftest import MakeResults
from tests.reporting.diagnosis_builders import HOSTILE
from utils.core.rounding import round_mean_std, round_value
from utils.reporting.text_layout import COPY_INDENT, PAGE
from utils.reporting.text_report import render_text_report

SECTIONS = (
    "The six answers",
    "Run and machine",
    "Full Dataset Performance",
    "Batch Size Analysis",
    "Main bottleneck",
    "Padding",
    "Memory",
    "Warnings",
    "Where the files lie",
)


def find_line(text: str, start: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(start))


def join_lines(text: str) -> str:
    return " ".join(text.split())


def test_sections_in_order(make_results: MakeResults) -> None:
    text = render_text_report(make_results())
    places = [text.index(f"\n\n{section}") for section in SECTIONS]
    assert places == sorted(places)


def test_batch_rows_equal_the_file(make_results: MakeResults) -> None:
    results = make_results(gpu=True, out_of_memory=(64,))
    text = render_text_report(results)
    sweep = results.sweep
    cells = find_line(text, "8 ").split()
    assert cells[:3] == ["8", "not", "stable"]
    mean = sweep.values("latency_per_sample_ms_mean")[8]
    std = sweep.values("latency_per_sample_ms_std")[8]
    assert " ".join(cells[3:6]) == " ± ".join(round_mean_std(mean, std))
    assert cells[6] == round_value(sweep.values("latency_per_batch_ms_median")[8]).value
    rate = round_value(
        sweep.values("throughput_samples_per_sec_mean")[8],
        sweep.values("throughput_samples_per_sec_ci95_low")[8],
        sweep.values("throughput_samples_per_sec_ci95_high")[8],
    )
    assert " ".join(cells[7:-1]) == f"{rate.value} ({rate.interval})"
    assert find_line(text, "64 ").split()[1:4] == ["out", "of", "memory"]
    assert "None" not in text
    assert "nan" not in text.lower().split()


def test_the_first_inference_stands_beside_the_steady_state(make_results: MakeResults) -> None:
    results = make_results()
    steady_ms = results.sweep.values("latency_per_batch_ms_median")[1]
    text = join_lines(render_text_report(results))
    assert f"73.2 ms, cold; {steady_ms:.1f} ms in the steady state" in text


def test_the_gpu_at_rest_is_described(make_results: MakeResults) -> None:
    text = render_text_report(make_results(gpu=True))
    assert "71.5 W; another process on it: no" in join_lines(text)


def test_two_samples_are_compared(make_results: MakeResults) -> None:
    text = render_text_report(make_results(sample_sizes=(50, 100)))
    assert "1 50 and 100 1.27 (1.19 to 1.36) yes" in join_lines(text)


def test_one_sample_is_not_compared(make_results: MakeResults) -> None:
    assert "Depends on the sample" not in render_text_report(make_results())


def test_a_row_without_values_has_its_status(make_results: MakeResults) -> None:
    text = render_text_report(make_results(gpu=True, out_of_memory=(32, 64)))
    assert re.search(r"^32 +out of memory", text, re.MULTILINE)
    assert re.search(r"^64 +not tried", text, re.MULTILINE)


def test_suggestions_have_their_saving_and_their_setting(make_results: MakeResults) -> None:
    text = join_lines(render_text_report(make_results()))
    measured = "1. Invented suggestion 1: measured 1.93 times as fast (95% interval 1.90 to 1.96)"
    changes = "this changes the optimised evaluation"
    assert f"{measured} Try: remedy 1; {changes}. --set evaluation.batching Why: " in text
    assert "of a batch, at most 1.50 times as fast" in text
    assert "Try: remedy 3; no setting does it." in text
    assert "they do not add up" in text


def test_suggestions_that_were_tried_have_the_measured_speedup(make_results: MakeResults) -> None:
    text = join_lines(render_text_report(make_results()))
    assert (
        "Invented suggestion 1 (evaluation.batching): predicted 2.00 times as fast, measured 1.93 "
        "times as fast (95% interval 1.90 to 1.96), in 7 rounds of 100 texts; 99.9% of the "
        "labels equal"
    ) in text
    assert ("Invented suggestion 2 (no setting): not tried: invented, it does not fit") in text


def test_what_was_not_measured_has_its_reason(make_results: MakeResults) -> None:
    text = render_text_report(make_results(dummy_weights=True, has_diagnosis=False))
    memory = find_line(text, "GPU memory peak:")
    accuracy = find_line(text, "Accuracy:")
    assert memory.endswith("not measured: the model is on the CPU")
    assert accuracy.endswith("not measured: the weights are random (dummy)")
    for score in ("F1 (macro):", "F1 (weighted):"):
        assert find_line(text, score).endswith("not measured: the weights are random (dummy)")
    assert "Not measured: step 03 has not run" in text


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"gpu": True},
        {"batch_sizes": (8,)},
        {"batch_sizes": (1, 2), "out_of_memory": (1, 2)},
        {"dummy_weights": True, "has_diagnosis": False},
        {"labels": (HOSTILE, "x" * 300, "two\nlines")},
        {"sample_sizes": (100, 20_000_000)},
    ],
)
def test_no_line_is_wider_than_the_page(make_results: MakeResults, fields: dict[str, Any]) -> None:
    lines = render_text_report(make_results(**fields)).splitlines()
    wide = [line for line in lines if len(line) > 80]
    # Commands and hashes are there to be copied.
    assert all(line.startswith(COPY_INDENT) for line in wide)
    assert len(wide) <= 1


def test_a_sweep_alone_says_that_the_data_set_was_not_evaluated(make_results: MakeResults) -> None:
    text = join_lines(render_text_report(make_results(has_evaluation=False)))
    reason = "evaluation.enabled is false: only the batch-size sweep was measured"
    assert f"Evaluation: not measured: {reason}" in text
    assert f"Model accuracy: not measured: {reason}" in text
    assert f"The complete data set was not evaluated: {reason}" in text
    assert "one text alone takes" in text
    assert "None" not in text


def test_commands_and_units_are_not_torn_apart() -> None:
    text = f"{'x' * 60} with --set profiling.num_measurement_runs=30 and {'y' * 73} 12.5 ms more"
    lines = PAGE.wrap(text)
    assert lines[1].startswith("--set profiling.num_measurement_runs=30 and")
    assert lines[-1] == "12.5 ms more"


def test_warnings_stand_by_cause_with_what_to_do(make_results: MakeResults) -> None:
    text = render_text_report(make_results(out_of_memory=(64,)))
    lines = text.split("\nWarnings\n")[1].split("\nWhere the files lie")[0].splitlines()
    start = lines.index("Runs of the same batch size differ widely (serious)")
    assert lines[start + 1].startswith("- batch sizes 1, 4, 8, 16, 32: the standard deviation is")
    assert any(line.startswith("  What to do: ") for line in lines[start:])
    assert start < lines.index("Out of memory (minor)")

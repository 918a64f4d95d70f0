"""Gates are read, checked on every value, and give the exit code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.comparison.builders import compare, write_predictions, write_process, write_processes
from tests.reporting.builders import Scenario
from utils.comparison.command_line import exit_code
from utils.comparison.gates import parse_gate
from utils.core.errors import UserError
from utils.reporting.comparison_quality import quality_text
from utils.schema.comparison import Gate

NOISE = (0.99, 1.0, 1.012)


@pytest.mark.parametrize(
    ("text", "metric", "limit", "unit"),
    [
        ("throughput<-5%", "throughput_samples_per_sec", -5.0, "%"),
        (" peak_gpu_mem > +10.5% ", "peak_gpu_mem", 10.5, "%"),
        ("accuracy<-0.5pp", "accuracy", -0.5, "pp"),
        ("latency_p99@8>10%", "latency_per_batch_ms_p99", 10.0, "%"),
    ],
)
def test_a_gate_is_read(text: str, metric: str, limit: float, unit: str) -> None:
    condition = parse_gate(text)
    assert (condition.metric, condition.limit, condition.unit) == (metric, limit, unit)


def test_a_gate_may_name_its_place() -> None:
    assert parse_gate("throughput@8<-5%").batch_size == 8
    assert parse_gate("throughput@evaluation<-5%").only_evaluation


@pytest.mark.parametrize(
    ("text", "message", "fix"),
    [
        ("throughput", "Cannot read the gate", "write METRIC<CHANGE"),
        ("throughput=-5%", "Cannot read the gate", "write METRIC<CHANGE"),
        ("throughput<5", "Cannot read the gate", "write METRIC<CHANGE"),
        ("throughputs<-5%", "names no metric", "did you mean throughput?"),
        ("zzz<-5%", "names no metric", "use one of"),
        ("accuracy<-5%", "is in pp, not in %", "for example"),
        ("throughput<-5pp", "is in %, not in pp", "for example"),
        ("throughput@all<-5%", "names no place", "@evaluation"),
    ],
)
def test_a_gate_that_cannot_be_read_is_refused(text: str, message: str, fix: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        parse_gate(text)
    assert fix in str(caught.value.fix)


def check(folder: Path, slowdown: float, gate: str) -> Gate:
    """The gate on three processes a side that differ by a factor and 1%."""
    before = write_processes(folder, "before", NOISE)
    after = write_processes(folder, "after", [slowdown * noise for noise in (0.995, 1.01, 1.0)])
    [result] = compare(before, after, fail_if=(gate,)).gates
    return result


@pytest.mark.parametrize(
    ("slowdown", "gate", "result"),
    [
        (1.25, "throughput<-5%", "violated"),
        (1.05, "throughput<-5%", "undecided"),
        (1.0, "throughput<-5%", "passed"),
        (0.8, "throughput<-5%", "passed"),
        (1.25, "latency>+5%", "violated"),
        (1.25, "latency>+50%", "passed"),
        (1.25, "throughput<+10%", "violated"),
        (1.25, "throughput<-100%", "passed"),
        (1.25, "throughput>-150%", "violated"),
    ],
)
def test_a_gate_is_violated_passed_or_undecided(
    tmp_path: Path, slowdown: float, gate: str, result: str
) -> None:
    checked = check(tmp_path, slowdown, gate)
    assert checked.result == result
    assert len(checked.checks) == 7


def test_a_gate_with_a_place_has_one_value(tmp_path: Path) -> None:
    [check_of_8] = check(tmp_path / "8", 1.25, "throughput@8<-5%").checks
    assert check_of_8.place == "batch size 8"
    assert check_of_8.change == pytest.approx(-20, abs=1)
    [evaluation] = check(tmp_path / "evaluation", 1.25, "throughput@evaluation<-5%").checks
    assert evaluation.place == "complete data set"


def test_one_process_a_side_leaves_small_changes_undecided(tmp_path: Path) -> None:
    before = write_process(tmp_path, "before")
    after = write_process(tmp_path, "after", slowdown=1.1)
    [gate] = compare(before, after, fail_if=("throughput<-5%",)).gates
    assert gate.result == "undecided"


def test_a_metric_that_nobody_measured_is_undecided(tmp_path: Path) -> None:
    gate = check(tmp_path, 1.0, "peak_gpu_mem>+10%")
    assert (gate.result, gate.checks[0].reason) == ("undecided", "not compared at any place")


def test_exact_memory_decides_a_gate(tmp_path: Path) -> None:
    def double(payload: dict) -> None:
        for row in payload["batch_size_profiling"]:
            row["peak_gpu_mem"] *= 2

    scenario = Scenario(gpu=True)
    before = write_processes(tmp_path, "before", NOISE, scenario=scenario)
    after = write_processes(tmp_path, "after", NOISE, scenario=scenario, change=double)
    gates = compare(before, after, fail_if=("peak_gpu_mem>+10%", "peak_gpu_mem@8>+150%")).gates
    assert [gate.result for gate in gates] == ["violated", "passed"]


def test_a_batch_size_that_no_longer_fits_passes_no_gate(tmp_path: Path) -> None:
    before = write_processes(tmp_path, "before", NOISE)
    after = write_processes(tmp_path, "after", NOISE, scenario=Scenario(out_of_memory=(64,)))
    gates = compare(before, after, fail_if=("throughput<-5%", "throughput@8<-5%")).gates
    assert [gate.result for gate in gates] == ["undecided", "passed"]


@pytest.mark.parametrize(
    ("num_wrong", "result"), [(0, "passed"), (20, "undecided"), (200, "violated")]
)
def test_a_gate_on_accuracy_takes_the_paired_interval(
    tmp_path: Path, num_wrong: int, result: str
) -> None:
    labels = np.arange(2000) % 3
    predicted = labels.copy()
    predicted[:num_wrong] = (labels[:num_wrong] + 1) % 3
    before = write_process(tmp_path, "before")
    after = write_process(tmp_path, "after")
    write_predictions(before, labels, labels)
    write_predictions(after, predicted, labels)
    [gate] = compare(before, after, fail_if=("accuracy<-1pp",)).gates
    assert gate.result == result
    assert gate.checks[0].change == pytest.approx(-100 * num_wrong / 2000)


def test_few_rows_that_differ_violate_no_gate_on_quality(tmp_path: Path) -> None:
    labels = np.arange(100) % 3
    predicted = labels.copy()
    predicted[:4] = (labels[:4] + 1) % 3
    before = write_process(tmp_path, "before")
    after = write_process(tmp_path, "after")
    write_predictions(before, labels, labels)
    write_predictions(after, predicted, labels)
    comparison = compare(before, after, fail_if=("accuracy<-0.1pp", "f1_macro<-0.1pp"))
    assert comparison.quality is not None
    assert comparison.quality.mcnemar_p == pytest.approx(0.125)
    reasons = [(gate.result, gate.checks[0].reason) for gate in comparison.gates]
    assert reasons == [
        ("undecided", "McNemar's exact test has p = 0.12"),
        ("undecided", "only 4 rows changed, too few for an interval of F1"),
    ]
    assert "no difference shown: McNemar's exact test" in quality_text(comparison)


def test_a_gate_on_accuracy_without_predictions_is_undecided(tmp_path: Path) -> None:
    gate = check(tmp_path, 1.0, "accuracy<-0.5pp")
    assert gate.result == "undecided"
    assert gate.checks[0].reason == "the baseline has no predictions beside its metrics"


@pytest.mark.parametrize(
    ("results", "inconclusive", "code"),
    [
        ((), None, 0),
        (("passed",), None, 0),
        (("passed", "undecided"), None, 4),
        (("undecided", "violated"), None, 3),
        (("undecided",), "pass", 0),
        (("undecided",), "fail", 3),
        (("violated",), "pass", 3),
    ],
)
def test_the_exit_code_follows_from_all_gates(
    results: tuple, inconclusive: str | None, code: int
) -> None:
    gates = [Gate(condition="x", result=result, checks=()) for result in results]
    assert exit_code(gates, inconclusive) == code

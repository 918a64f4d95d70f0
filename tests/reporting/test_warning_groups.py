"""Warnings are grouped by cause, the serious ones first; missing metrics have one line a reason."""

from __future__ import annotations

import pytest

from tests.reporting.conftest import MakeResults
from tests.reporting.metrics_builders import MADE_UP, NO_CUDA, OUT_OF_MEMORY, ROW_WARNING
from utils.reporting.warning_causes import CAUSES, OTHER, cause_of
from utils.reporting.warning_groups import group_warnings, missing_metrics, short_reasons
from utils.schema.warning_codes import WarningCode, sentence_of


@pytest.mark.parametrize(
    ("message", "title"),
    [
        ("spread: IQR is 30% of the median, very wide (limit 25%)", "Runs of the same batch size"),
        ("outliers: 2 of 5 runs, not removed", "Runs of the same batch size"),
        ("CPU starved: threads waited for a CPU in 80% of their time", "The machine was busy"),
        ("drift: the last third of the runs took +12%", "Times drift"),
        ("too few runs: 3, at least 5 are needed", "Too few or too short runs"),
        ("throttled: thermal", "The GPU slowed itself down"),
        ("shared: another process used this GPU", "The GPU was shared"),
        ("outputs: 3 labels of timed runs differ", "Outputs changed"),
        ("Texts get other results in a batch than alone: 3 of 5", "Outputs changed"),
        ("7 rows have no label: predicted, left out of accuracy", "Labels"),
        ("missing bottlenecks.json: step 03 has not run", "The diagnosis is missing"),
        (
            "bottlenecks.json is older than it: run step 03 again, python",
            "The diagnosis is missing",
        ),
        ("resumed: runs 1 to 3 were measured by an earlier process", "Taken over"),
        ("something that nobody expected", "Other"),
    ],
)
def test_warnings_of_earlier_versions_have_their_cause(message: str, title: str) -> None:
    assert cause_of(message).title.startswith(title)


@pytest.mark.parametrize("code", WarningCode)
def test_a_code_decides_whatever_the_sentence_says(code: WarningCode) -> None:
    cause = cause_of(code.warn("out of memory, by an earlier run"))
    assert cause.code is code
    assert sum(other.code is code for other in CAUSES) == 1


def test_every_warning_is_in_one_group(make_results: MakeResults) -> None:
    results = make_results(out_of_memory=(32, 64))
    groups = group_warnings(results)
    messages = [message for group in groups for message in group.messages]
    assert len(messages) == len(set(messages))
    assert f"batch sizes 1, 4, 8, 16: {sentence_of(ROW_WARNING)}" in messages
    assert f"batch sizes 32, 64: {sentence_of(OUT_OF_MEMORY)}" in messages
    assert f"accuracy: {MADE_UP}" in messages
    assert f"ceilings: {MADE_UP}" in messages


def test_serious_groups_come_first(make_results: MakeResults) -> None:
    groups = group_warnings(make_results(out_of_memory=(64,)))
    seriousness = [group.cause.serious for group in groups]
    assert seriousness == sorted(seriousness, reverse=True)
    assert groups[-1].cause is OTHER


def test_a_card_names_serious_causes_once() -> None:
    messages = ["spread: a", "outliers: b", "ci95: c", "CPU starved: d"]
    assert short_reasons(messages) == ["runs differ widely", "threads waited for a CPU"]


def test_missing_metrics_have_one_line_for_each_reason(make_results: MakeResults) -> None:
    missing = missing_metrics(make_results().sweep)
    reasons = [item.reason for item in missing]
    assert len(reasons) == len(set(reasons))
    no_cuda = next(item for item in missing if item.reason == NO_CUDA)
    assert "GPU util (%)" in no_cuda.names
    assert "energy (J/sample)" in no_cuda.names

"""What lowers the confidence of a verdict beside its own numbers."""

from __future__ import annotations

from typing import Any

import pytest

from tests.diagnosis.builders import make_evidence, sweep_row
from utils.diagnosis.bottleneck import classify_bottleneck
from utils.diagnosis.doubts import find_doubts, with_doubts
from utils.schema.batch_size import BatchSizeRow
from utils.schema.warning_codes import WarningCode
from utils.sweep.noise import noise_text

QUIET: dict[str, Any] = {
    "stable": True,
    "cpu_wait_fraction": 0.0,
    "forward_ms_mean": 10.0,
    "cv": 0.01,
    "flops_per_sample": None,
}


def make_row(**changes: Any) -> BatchSizeRow:
    """A quiet row of batch size 4, whose forward takes as long as that of ``make_evidence``."""
    values = {**sweep_row(4), **QUIET, **changes, "warnings": (), "unavailable": {}}
    return BatchSizeRow(**{name: values.get(name) for name in BatchSizeRow.model_fields})


def test_a_quiet_machine_leaves_no_doubt() -> None:
    assert find_doubts(make_evidence(), make_row()) == ()
    assert find_doubts(make_evidence(), None) == ()
    bottleneck = classify_bottleneck(make_evidence())
    assert with_doubts(bottleneck, ()) == bottleneck


@pytest.mark.parametrize(
    ("evidence", "row", "expected"),
    [
        ({"time_spread": 0.3}, {}, "repeat of its batches are 30% apart"),
        ({}, {"stable": False}, "its runs in the batch-size sweep are not stable"),
        ({}, {"cpu_wait_fraction": 0.5}, "threads waited for a CPU in 50% of their time"),
        (
            {},
            {"forward_ms_mean": 14.0},
            "takes 14 ms in the batch-size sweep (mean) and 10 ms in the diagnosis",
        ),
    ],
)
def test_each_doubt_lowers_the_confidence(
    evidence: dict[str, Any], row: dict[str, Any], expected: str
) -> None:
    doubts = find_doubts(make_evidence(**evidence), make_row(**row))
    assert len(doubts) == 1 and expected in doubts[0]
    bottleneck = with_doubts(classify_bottleneck(make_evidence(tokenize_ms=90.0)), doubts)
    assert (bottleneck.confidence, bottleneck.doubts) == ("low", doubts)


def test_times_within_their_spread_are_the_same_time() -> None:
    assert find_doubts(make_evidence(time_spread=0.09), make_row(forward_ms_mean=11.9)) == ()
    assert find_doubts(make_evidence(), make_row(forward_ms_mean=12.0, cv=0.25)) == ()


def test_other_batches_are_not_compared() -> None:
    other_work = make_row(forward_ms_mean=14.0, flops_per_sample=100.0)
    assert find_doubts(make_evidence(flops=1.0), other_work) == ()
    same_work = make_row(forward_ms_mean=14.0, flops_per_sample=0.25)
    assert len(find_doubts(make_evidence(flops=1.0), same_work)) == 1


def test_noise_is_named_only_where_nothing_is_stable() -> None:
    unstable = make_row(stable=False)
    assert noise_text([]) == ""
    assert noise_text([unstable, make_row()]) == ""
    assert noise_text([unstable]).startswith("The machine was too busy: at no batch size")
    short = make_row(stable=False).model_copy(
        update={"warnings": (WarningCode.FEW_RUNS.warn("there are 3 runs"),)}
    )
    assert noise_text([short]).startswith("Too few or too short runs: ")
    drifting = short.model_copy(update={"warnings": (WarningCode.DRIFT.warn("later runs"),)})
    assert noise_text([short, drifting]).startswith("The machine was too busy: ")
    waiting = make_row(stable=False, cpu_wait_fraction=0.52)
    assert "threads waited for a CPU in up to 52% of their time" in noise_text([unstable, waiting])

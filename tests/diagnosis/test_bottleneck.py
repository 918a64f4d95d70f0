"""Verdicts on numbers; on real workloads: test_known_answers.py."""

from __future__ import annotations

from typing import Any

import pytest

from tests.diagnosis.builders import make_evidence
from utils.diagnosis.bottleneck import classify_bottleneck


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "no-dominant-limit"),
        ({"tokenize_ms": 30.0}, "input-bound"),
        ({"tokenize_ms": 3.0, "host_to_device_ms": 4.0, "device_to_host_ms": 3.1}, "input-bound"),
        ({"tokenize_ms": 10.0}, "input-bound"),  # exactly half
        ({"matmul_limited_ms": 6.0, "copy_limited_ms": 0.0}, "compute-bound"),
        ({"matmul_limited_ms": 0.0, "copy_limited_ms": 6.0}, "memory-bound"),
        ({"matmul_limited_ms": 2.5, "copy_limited_ms": 4.0}, "memory-bound"),
        (
            {"matmul_limited_ms": 0.0, "copy_limited_ms": 25.0},
            "memory-bound",
        ),  # in a cache: above the ceiling
        ({"op_calls": 5000}, "overhead-bound"),
        ({"doubling_growth": 0.09}, "overhead-bound"),
        ({"doubling_growth": 0.9}, "no-dominant-limit"),
        ({"doubling_growth": -0.8}, "no-dominant-limit"),  # noise
        ({"device": "cuda", "device_busy_ms": 4.9}, "overhead-bound"),
        (
            {"device": "cuda", "device_busy_ms": 9.0, "op_calls": 9000},
            "no-dominant-limit",
        ),  # started ahead, beside the device's work
    ],
)
def test_rules(changes: dict[str, Any], expected: str) -> None:
    verdict = classify_bottleneck(make_evidence(**changes))
    assert verdict.verdict == expected
    assert verdict.sentence.startswith("Batch size 4 ")
    clause = f"({expected}): "
    if expected == "no-dominant-limit":
        clause = "has no dominant limit: "
    assert clause in verdict.sentence
    assert verdict.rule


@pytest.mark.parametrize("growth", [0.07, -0.07])
def test_the_value_of_a_doubled_batch_is_one_less_the_size_of_its_growth(growth: float) -> None:
    verdict = classify_bottleneck(make_evidence(doubling_growth=growth))
    assert "at most 10%" in verdict.rule
    assert "1 - |growth|" in verdict.rule
    assert (verdict.value, verdict.threshold) == (pytest.approx(0.93), 0.9)


def test_a_cuda_device_without_a_busy_time_gets_the_rule_of_the_time_to_start_operators() -> None:
    verdict = classify_bottleneck(make_evidence(device="cuda", op_calls=5000))
    assert verdict.verdict == "overhead-bound"
    assert verdict.rule.startswith("starting operators")


def test_no_dominant_limit_names_the_largest_part_of_a_batch() -> None:
    # 5 ms of a batch of 1 ms for the input and 10 ms for the forward.
    evidence = make_evidence(matmul_limited_ms=0.5, copy_limited_ms=5.0)
    sentence = classify_bottleneck(evidence).sentence
    assert "the largest part of a batch's time is moving bytes with 45%" in sentence


def test_time_that_nothing_explains_is_named_where_it_is_the_largest_part() -> None:
    # 0.5 ms at the ceilings and 0.1 ms to start operators leave 9.4 of 11 ms.
    evidence = make_evidence(matmul_limited_ms=0.3, copy_limited_ms=0.2)
    sentence = classify_bottleneck(evidence).sentence
    assert "is operators that are slower than this machine's best with 85%" in sentence


def test_input_that_is_the_largest_part_of_a_batch_is_named_although_its_share_is_smaller() -> None:
    # The input has 6 of 16 ms, which is 38%, arithmetic 5 of the 10 ms of the forward.
    evidence = make_evidence(tokenize_ms=6.0, matmul_limited_ms=5.0, copy_limited_ms=0.5)
    sentence = classify_bottleneck(evidence).sentence
    assert "the largest part of a batch's time is preparing the input with 38%" in sentence


@pytest.mark.parametrize("growth", [0.12, -0.12])
def test_a_fixed_time_that_is_no_limit_is_not_called_the_largest_part(growth: float) -> None:
    bottleneck = classify_bottleneck(make_evidence(doubling_growth=growth))
    assert bottleneck.verdict == "no-dominant-limit"
    expected = f"twice the work changes the 10 ms of the forward pass by {growth:+.1%}; up to 10%"
    assert expected in bottleneck.sentence


def test_padding_is_named_where_it_costs_time() -> None:
    sentence = classify_bottleneck(make_evidence(padding_fraction=0.6)).sentence
    assert "60% of its tokens are padding, which takes 59% of the forward pass" in sentence, (
        "starting operators does not shrink"
    )
    assert (
        "padding"
        not in classify_bottleneck(make_evidence(padding_fraction=0.6, op_calls=9000)).sentence
    ), "it costs nothing beside the overhead"


@pytest.mark.parametrize(
    ("changes", "confidence"),
    [
        ({"matmul_limited_ms": 8.0, "copy_limited_ms": 0.0}, "high"),
        ({"matmul_limited_ms": 8.0, "copy_limited_ms": 0.0, "time_spread": 0.5}, "low"),
        ({"matmul_limited_ms": 8.0, "copy_limited_ms": 0.0, "ceiling_spread": 0.5}, "low"),
        (
            {"matmul_limited_ms": 8.0, "copy_limited_ms": 0.0, "unknown_operators": ("my::op",)},
            "low",
        ),
        (
            {
                "matmul_limited_ms": 5.9,
                "copy_limited_ms": 0.0,
                "op_calls": 9000,
                "time_spread": 0.05,
            },
            "low",
        ),  # a rule before
        ({"tokenize_ms": 90.0, "unknown_operators": ("my::op",)}, "high"),  # whatever it computes
        ({"time_spread": 0.1}, "high"),
    ],
)
def test_confidence(changes: dict[str, Any], confidence: str) -> None:
    bottleneck = classify_bottleneck(make_evidence(**changes))
    assert bottleneck.confidence == confidence, (bottleneck.value, bottleneck.threshold)


def test_evidence_is_consistent() -> None:
    evidence = make_evidence(matmul_limited_ms=8.0, copy_limited_ms=8.0)
    assert evidence.roofline_ms == 10.0, "the roofline time is never above what was measured"
    assert max(evidence.shares.to_dict().values()) <= 1
    assert evidence.shares.memory == 0.8
    assert make_evidence(padding_fraction=0.5).padding_ms == pytest.approx(0.5 * (10 - 0.1))
    assert make_evidence(doubling_growth=0.2).overhead_ms == pytest.approx(20 - 12 - 4)

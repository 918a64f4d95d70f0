"""Verdicts on numbers; on real workloads: test_known_answers.py."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from utils.analysis.verdict import Evidence, Speed, decide, turning_point


def evidence(**changes: Any) -> Evidence:
    settings: dict[str, Any] = {
        "device": "cpu", "batch_size": 4, "tokenize_ms": 1.0, "host_to_device_ms": 0.0, "forward_ms": 10.0,
        "device_to_host_ms": 0.0, "matmul_limited_ms": 2.0, "copy_limited_ms": 2.0, "op_calls": 100, "dispatch_us": 1.0,
        "flops": 1.0, "bytes_moved": 1.0,
    }
    return Evidence(**{**settings, **changes})


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "none-near"),
        ({"tokenize_ms": 30.0}, "input-bound"),
        ({"tokenize_ms": 3.0, "host_to_device_ms": 4.0, "device_to_host_ms": 3.1}, "input-bound"),
        ({"tokenize_ms": 10.0}, "input-bound"),  # exactly half
        ({"matmul_limited_ms": 6.0, "copy_limited_ms": 0.0}, "compute-bound"),
        ({"matmul_limited_ms": 0.0, "copy_limited_ms": 6.0}, "memory-bound"),
        ({"matmul_limited_ms": 2.5, "copy_limited_ms": 4.0}, "memory-bound"),
        ({"matmul_limited_ms": 0.0, "copy_limited_ms": 25.0}, "memory-bound"),  # in a cache: above the ceiling
        ({"op_calls": 5000}, "overhead-bound"),
        ({"doubling_growth": 0.09}, "overhead-bound"),
        ({"doubling_growth": 0.9}, "none-near"),
        ({"doubling_growth": -0.8}, "none-near"),  # noise
        ({"device": "cuda", "device_busy_ms": 4.9}, "overhead-bound"),
        ({"device": "cuda", "device_busy_ms": 9.0, "op_calls": 9000}, "none-near"),  # started ahead, beside the device's work
    ],
)
def test_rules(changes: dict[str, Any], expected: str) -> None:
    verdict = decide(evidence(**changes))
    assert verdict.verdict == expected
    assert verdict.sentence.startswith(f"Batch size 4 is {'near no limit' if expected == 'none-near' else expected}: ")
    assert verdict.rule


def test_none_near_names_the_largest() -> None:
    assert "memory is largest with 30%" in decide(evidence(copy_limited_ms=3.0)).sentence


def test_padding_is_weighed() -> None:
    sentence = decide(evidence(padding_fraction=0.6)).sentence
    assert "60% of its tokens are padding, which takes 59% of the forward pass" in sentence, "starting operators does not shrink"
    assert "padding" not in decide(evidence(padding_fraction=0.6, op_calls=9000)).sentence, "it costs nothing beside the overhead"


@pytest.mark.parametrize(
    ("changes", "confidence"),
    [
        ({"matmul_limited_ms": 8.0, "copy_limited_ms": 0.0}, "high"),
        ({"matmul_limited_ms": 8.0, "copy_limited_ms": 0.0, "time_spread": 0.5}, "low"),
        ({"matmul_limited_ms": 8.0, "copy_limited_ms": 0.0, "ceiling_spread": 0.5}, "low"),
        ({"matmul_limited_ms": 8.0, "copy_limited_ms": 0.0, "unknown_operators": ("my::op",)}, "low"),
        ({"matmul_limited_ms": 5.9, "copy_limited_ms": 0.0, "op_calls": 9000, "time_spread": 0.05}, "low"),  # a rule before
        ({"tokenize_ms": 90.0, "unknown_operators": ("my::op",)}, "high"),  # whatever it computes
        ({"time_spread": 0.1}, "high"),
    ],
)
def test_confidence(changes: dict[str, Any], confidence: str) -> None:
    found = decide(evidence(**changes))
    assert found.confidence == confidence, (found.number, found.threshold)


def test_evidence_is_consistent() -> None:
    found = evidence(matmul_limited_ms=8.0, copy_limited_ms=8.0)
    assert found.floor_ms == 10.0, "the floor is never above what was measured"
    assert max(found.shares.values()) <= 1
    assert found.to_dict()["memory_share"] == 0.8
    assert evidence(padding_fraction=0.5).to_dict()["padding_ms"] == pytest.approx(0.5 * (10 - 0.1))
    assert evidence(doubling_growth=0.2).overhead_ms == pytest.approx(20 - 12 - 4)


def test_without_speeds_nothing_is_said_of_larger_batches() -> None:
    assert turning_point([], "the sweep", {})["batch_size"] is None


def turning(*rows: tuple[int, float, float], then: str = "compute-bound") -> dict[str, Any]:
    verdicts = {1: decide(evidence(op_calls=9000)), 64: replace(decide(evidence()), verdict=then)}
    return turning_point([Speed(batch_size=b, samples_per_s=s, padding_fraction=p) for b, s, p in rows], "the sweep", verdicts)


def test_where_larger_batches_stop_helping() -> None:
    found = turning((1, 10, 0.0), (8, 40, 0.0), (64, 41, 0.0))
    assert (found["batch_size"], found["from_verdict"], found["because"]) == (8, "overhead-bound", "compute-bound")
    assert found["sentence"] == "From batch size 8 on larger batches stop helping, because batch size 64 is compute-bound."
    padded = turning((1, 40, 0.0), (8, 39, 0.4), (64, 30, 0.7))
    assert (padded["batch_size"], padded["because"]) == (1, "padding"), "100 tokens a second against 40: all but padding pays"
    assert "0% to 70%" in padded["sentence"]
    assert turning((1, 40, 0.0), (8, 39, 0.1), (64, 30, 0.2))["because"] == "compute-bound", "no more tokens a second either"
    for then in ("none-near", "overhead-bound"):
        unknown = turning((1, 40, 0.0), (64, 30, 0.0), then=then)
        assert unknown["because"] is None and "no ceiling is near" in unknown["sentence"]


def test_larger_batches_may_help_to_the_end() -> None:
    for rows in (((1, 10, 0.0), (64, 20, 0.0)), ((64, 20, 0.0),)):
        found = turning(*rows)
        assert found["batch_size"] is None and found["because"] is None and "up to the largest batch size, 64" in found["sentence"]

"""Verdicts on numbers, and on real workloads whose bottleneck is known by construction."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch

from utils import costs
from utils.analysis import operators, roofline
from utils.analysis.verdict import Evidence, Group, decide, find_wins
from utils.config_loader import ModelConfig

CPU = torch.device("cpu")


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
        ({"tokenize_ms": 10.0}, "none-near"),  # exactly half
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


def test_evidence_is_consistent() -> None:
    found = evidence(matmul_limited_ms=8.0, copy_limited_ms=8.0)
    assert found.floor_ms == 10.0, "the floor is never above what was measured"
    assert max(found.shares.values()) <= 1
    assert found.to_dict()["memory_share"] == 0.8
    assert evidence(doubling_growth=0.2).overhead_ms == pytest.approx(20 - 12 - 4)


def test_wins() -> None:
    found = evidence(padding_fraction=0.5, tokenize_ms=2.5)
    groups = (Group(kind="attention", measured_ms=4.0, attainable_ms=1.0, calls=10),
              Group(kind="copy", measured_ms=1.0, attainable_ms=0.5, calls=10))
    wins = find_wins(found, groups, ModelConfig(attn_implementation="eager"), (1, 4))
    assert [win["title"] for win in wins] == ["padding", "slow operators: attention", "tokenising and copying"]
    assert [win["win_ms"] for win in wins] == pytest.approx([0.5 * (10 - 0.1), 4 - 1 - 0.01, 2.5])
    assert wins[0]["win_pct"] == pytest.approx(100 * wins[0]["win_ms"] / 12.5)
    assert [win["setting"] for win in wins] == ["evaluation.batching=token_budget", "model.attn_implementation=sdpa", None]
    assert wins[0]["try"] == "group texts of like length"


def test_wins_of_overhead_and_precision() -> None:
    found = evidence(device="cuda", device_busy_ms=3.0, tokenize_ms=0.01, batch_size=4, matmul_limited_ms=1.5)
    wins = find_wins(found, (), ModelConfig(), (1, 4), 3.0)
    assert [win["title"] for win in wins] == ["overhead", "precision"]
    assert [win["win_ms"] for win in wins] == pytest.approx([7.0, 1.5 * (1 - 1 / 3) + 1.0])
    assert [win["setting"] for win in wins] == ["profiling.batch_sizes=[1,4,8]", "model.dtype=bfloat16"]


def test_nothing_to_win() -> None:
    assert find_wins(evidence(tokenize_ms=0.0, op_calls=0), (), ModelConfig(), (1, 4)) == []


def measured(run: Callable[[], object], ceilings: roofline.Ceilings) -> Evidence:
    """Evidence of a workload that is no model."""
    counted = costs.count(run)
    limited = {"matmul": 0.0, "copy": 0.0}
    for cost in counted:
        seconds, limit = operators.attainable_s(cost, ceilings)
        limited[limit] += seconds * 1e3
    with torch.inference_mode():
        seconds = min(roofline.timed(run, CPU) for _ in range(5))
    return evidence(
        tokenize_ms=0.0, forward_ms=seconds * 1e3, matmul_limited_ms=limited["matmul"], copy_limited_ms=limited["copy"],
        op_calls=sum(cost.calls for cost in counted), dispatch_us=ceilings.dispatch_s * 1e6,
    )


def large_product() -> Callable[[], object]:
    left, right, out = (torch.ones(1024, 1024) for _ in range(3))
    return partial(torch.mm, left, right, out=out)


def element_wise_chain() -> Callable[[], object]:
    tensor = torch.ones(1 << 24)
    return lambda: [tensor.add_(1.0) for _ in range(4)]


def tiny_operators() -> Callable[[], object]:
    one = torch.ones(1)
    return lambda: [torch.add(one, one) for _ in range(3000)]


@pytest.mark.parametrize(
    ("make", "expected"),
    [(large_product, "compute-bound"), (element_wise_chain, "memory-bound"), (tiny_operators, "overhead-bound")],
)
def test_known_answers(make: Callable[[], Callable[[], object]], expected: str) -> None:
    run, verdicts = make(), []
    for _ in range(4):  # ceilings and workload are measured one after the other: another process may come between
        verdicts.append(decide(measured(run, roofline.measure(CPU, torch.float32))))
        if verdicts[-1].verdict == expected:
            return
    pytest.fail(f"expected {expected}: {[verdict.sentence for verdict in verdicts]}")

"""Workloads whose bottleneck is known by construction: the benchmark's checks on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch

from benchmarks import known_answers
from benchmarks.common import PASS
from utils.diagnosis import verify

CHECKS: dict[str, Callable[..., Any]] = {
    **{name: partial(known_answers.operator_rows, name) for name in known_answers.OPERATORS},
    "tokeniser": known_answers.tokeniser_rows,
    "padding": known_answers.padding_rows,
    "slow layer": known_answers.layer_rows,
}


@pytest.mark.parametrize("check", CHECKS)
def test_known_answers(check: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "SECONDS", 1.0)
    monkeypatch.setattr(
        known_answers, "TRIES", 8
    )  # beside other tests, on a machine that may have other work
    rows = known_answers.tried(CHECKS[check], torch.device("cpu"))
    assert [row for row in rows if row.status != PASS] == []


def test_a_try_that_misses_is_not_hidden() -> None:
    calls = []

    def check(*_: Any, right_from: int) -> Any:
        calls.append(1)
        return [known_answers.checked("x", len(calls) >= right_from)]

    [row] = known_answers.tried(partial(check, right_from=2), torch.device("cpu"))
    assert (row.status, row.note, len(calls)) == (PASS, "(try 2)", 2)
    [row] = known_answers.tried(partial(check, right_from=9), torch.device("cpu"))
    assert row.status == known_answers.MISS and len(calls) == 2 + known_answers.TRIES

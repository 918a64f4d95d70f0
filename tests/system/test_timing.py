"""Timing of callables whose calls are counted and whose time is known."""

from __future__ import annotations

import time

import pytest
import torch

from utils.system.timing import CallTimes, time_callable, time_calls, time_interleaved

CPU = torch.device("cpu")
SLEEP_S = 0.02


def test_the_statistics_of_repeats_are_named() -> None:
    times = CallTimes(seconds=(2.0, 1.0, 4.0))
    assert (times.fastest_s, times.median_s, times.spread) == (1.0, 2.0, 1.0)


def test_calls_in_a_row_are_timed_together() -> None:
    seconds = time_calls(lambda: time.sleep(SLEEP_S), CPU, calls=3)
    assert seconds >= 3 * SLEEP_S


def test_repeats_give_the_time_of_one_call_and_warm_ups_are_not_counted() -> None:
    calls = []

    def run() -> None:
        # The first call takes longer, as one that compiles or allocates.
        time.sleep(SLEEP_S if calls else 10 * SLEEP_S)
        calls.append(1)

    times = time_callable(run, CPU, repeats=2, warmups=1, calls=3)
    assert len(calls) == 1 + 2 * 3
    assert len(times.seconds) == 2
    assert SLEEP_S <= times.fastest_s < 10 * SLEEP_S


def test_variants_take_turns_and_every_other_round_is_reversed() -> None:
    order: list[str] = []

    def variant(name: str) -> str:
        order.append(name)
        return name.upper()

    variants = {"a": lambda: variant("a"), "b": lambda: variant("b")}
    seconds, results = time_interleaved(variants, rounds=3)
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert {name: len(values) for name, values in seconds.items()} == {"a": 3, "b": 3}
    assert results == {"a": "A", "b": "B"}


def test_an_error_of_the_callable_is_not_hidden() -> None:
    def fail() -> None:
        raise ValueError("planted")

    with pytest.raises(ValueError, match="planted"):
        time_callable(fail, CPU, repeats=1)

"""Sums over the profiler's events: those of PyTorch, in a time that grows with their number."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from torch.autograd import DeviceType
from torch.autograd.profiler_util import EventList, FunctionEvent

from utils.diagnosis.trace_events import collapse, operator_times, own_device_us, total_device_us

DEPTH = 40
OPERATORS_OF_A_CALL = 39


def make_event(number: int, name: str, begin_us: float, end_us: float) -> FunctionEvent:
    return FunctionEvent(
        id=number,
        name=name,
        thread=1,
        start_us=begin_us,
        end_us=end_us,
        use_device="cuda",
        input_shapes=[[2, 3], []],
        stack=[],
        device_type=DeviceType.CPU,
    )


def one_call(number: int) -> Iterator[FunctionEvent]:
    """Python functions within each other, and operators with a kernel each in the innermost."""
    begin_us = 1000.0 * number
    first_id = (DEPTH + OPERATORS_OF_A_CALL) * number
    for level in range(DEPTH):
        margin_us = float(level)
        name = f"model.py({level}): forward at 0x{number:x}"
        yield make_event(first_id + level, name, begin_us + margin_us, begin_us + 900 - margin_us)
    for index in range(OPERATORS_OF_A_CALL):
        begin_of_operator = begin_us + DEPTH + 20 * index
        event = make_event(
            first_id + DEPTH + index, "aten::mm", begin_of_operator, begin_of_operator + 10
        )
        event.append_kernel("gemm", 0, 3)
        yield event


def make_events(num_calls: int) -> EventList:
    """As of a traced run: ``num_calls`` times 79 events, 41 deep."""
    events = []
    for number in range(num_calls):
        events += list(one_call(number))
    traced = EventList(events, use_device="cuda")
    traced._build_tree()
    return traced


def test_waiting_for_another_thread_is_shown_as_its_work() -> None:
    names = (
        "ProfilerStep#1",
        "tokenize",
        "profiling.py(320): _encode_in_new_thread",
        "threading.py(295): wait",
        "<built-in method acquire of _thread.lock object>",
    )
    events = []
    for level, name in enumerate(names):
        events.append(make_event(level, name, float(level), 100.0 - level))
    traced = EventList(events, use_device="cuda")
    traced._build_tree()
    stacks = collapse(traced, on_device=False)
    assert [stack.rpartition(" ")[0].rpartition(":")[2] for stack in stacks].count(
        "__encode_in_new_thread"
    ) == 1
    assert not any("acquire" in stack or "wait" in stack for stack in stacks)
    assert sum(int(stack.rpartition(" ")[2]) for stack in stacks) == 100


def test_sums_are_those_of_pytorch() -> None:
    events = make_events(3)
    totals = total_device_us(events)
    for event in events:
        assert own_device_us(event) == event.self_device_time_total
        assert totals[id(event)] == event.device_time_total
    [row] = operator_times(events, steps=3, on_device=True).itertuples()
    [expected] = [one for one in events.key_averages(True) if one.key == "aten::mm"]
    assert (row.operator, row.input_shapes) == ("aten::mm", "2x3")
    assert row.calls == expected.count / 3
    assert row.self_device_ms == pytest.approx(expected.self_device_time_total / 3e3)
    assert row.total_device_ms == pytest.approx(expected.device_time_total / 3e3)
    assert row.self_host_ms == pytest.approx(expected.self_cpu_time_total / 3e3)


def summing_seconds(events: EventList) -> float:
    started_s = time.process_time()
    operator_times(events, steps=1, on_device=True)
    collapse(events, on_device=True)
    return time.process_time() - started_s


def test_a_long_trace_takes_a_time_that_grows_with_its_events() -> None:
    half = make_events(253)
    full = make_events(507)
    assert len(full) > 40_000
    half_s = min(summing_seconds(half) for _ in range(3))
    full_s = min(summing_seconds(full) for _ in range(3))
    assert full_s < 3 * half_s
    assert full_s < 3.0

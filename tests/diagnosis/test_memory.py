"""What is allocated at the peak and what modules add: made-up events, and real allocations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.profiler import record_function

from utils.diagnosis import memory, tracing
from utils.schema.profile import Allocation, PeakMemory

CPU = torch.device("cpu")
MB = 1_000_000


def change(
    at_us: float, address: int, bytes_: int, allocated: int, kind: int = 1
) -> dict[str, Any]:
    return {
        "ph": "i",
        "name": "[memory]",
        "ts": at_us,
        "tid": 1,
        "args": {
            "Bytes": bytes_,
            "Total Allocated": allocated,
            "Addr": address,
            "Device Type": kind,
            "Device Id": 0,
        },
    }


def span(cat: str, name: str, ts: float, dur: float) -> dict[str, Any]:
    return {"ph": "X", "cat": cat, "name": name, "ts": ts, "dur": dur, "tid": 1, "args": {}}


# On CUDA 12 MB are there before: 10 of weights, 2 of a library's. A layer's attention keeps 3 MB
# and borrows 4.
EVENTS = [
    span("user_annotation", "ProfilerStep#2", 0, 100),
    span("user_annotation", "model.layers.0", 10, 60),
    span("user_annotation", "model.layers.0.self_attn", 20, 30),
    span("cpu_op", "aten::linear", 12, 5),
    span("cpu_op", "aten::mm", 13, 3),
    span("cpu_op", "aten::attention", 25, 20),
    span("cpu_op", "aten::softmax", 27, 2),
    change(14, 1, 1 * MB, 13 * MB),
    change(26, 2, 3 * MB, 16 * MB),
    change(28, 3, 4 * MB, 20 * MB),
    change(40, 3, -4 * MB, 16 * MB),
    change(60, 1, -1 * MB, 15 * MB),
    change(61, 3, 2 * MB, 17 * MB),
    change(80, 3, -2 * MB, 15 * MB),
    change(90, 2, -3 * MB, 12 * MB),
    change(30, 9, 99 * MB, 99 * MB, kind=0),  # the host's
]


def allocation(
    operator: str, module: str, size_mb: float, *, is_workspace: bool = False
) -> Allocation:
    return Allocation(operator=operator, module=module, size_mb=size_mb, is_workspace=is_workspace)


def test_owners_worked_by_hand() -> None:
    [step] = memory.find_steps(EVENTS, on_cuda=True)
    assert (step.before, step.peak_bytes) == (12 * MB, 8 * MB)
    peak = memory.attribute_peak(step, EVENTS, 10 * MB, on_cuda=True)
    assert peak == PeakMemory(
        total_mb=20.0,
        weights_mb=10.0,
        activations_mb=4.0,
        workspace_mb=4.0,
        other_mb=2.0,
        largest=(
            allocation("aten::attention", "model.layers.0.self_attn", 4.0, is_workspace=True),
            allocation("aten::attention", "model.layers.0.self_attn", 3.0),
            allocation("aten::linear", "model.layers.0", 1.0),
        ),
    )
    assert memory.by_module(step, EVENTS).T.to_dict("list") == {
        "model.layers.0": [5, 8],
        "model.layers.0.self_attn": [3, 7],
    }
    rows = memory.timeline(step)
    assert rows["allocated_mb"].tolist() == [1, 4, 8, 4, 3, 5, 3, 0] and rows["time_ms"].tolist()[
        :2
    ] == [0, 0.012]


def test_the_step_with_the_highest_peak_is_described() -> None:
    later = [span("user_annotation", "ProfilerStep#3", 200, 100), change(250, 5, 9 * MB, 21 * MB)]
    step = memory.find_peak_step([*EVENTS, *later], on_cuda=True)
    assert step is not None and (step.span, step.peak_bytes) == ((200, 300), 9 * MB)


def test_a_trace_without_allocations_has_no_peak() -> None:
    assert memory.find_steps(EVENTS[:7], on_cuda=True) == ()
    assert memory.find_steps([], on_cuda=False) == ()
    assert memory.find_peak_step([], on_cuda=False) is None


def test_shared_weights_count_once() -> None:
    model = torch.nn.Sequential(
        torch.nn.Linear(4, 4, bias=False), torch.nn.Linear(4, 4, bias=False)
    )
    model[1].weight = model[0].weight
    assert memory.weights_bytes(model) == 4 * 4 * 4


def test_two_tensors_of_known_size(tmp_path: Path) -> None:
    def run(_: int) -> None:
        first = torch.ones(250_000)
        with record_function("second"):
            kept = torch.empty(500_000)
        del first
        torch.ones(100_000)
        del kept

    traced = tracing.trace(run, steps=2, device=CPU, trace_file=tmp_path / "trace.json")
    steps = memory.find_steps(traced.events, on_cuda=False)
    assert [step.peak_bytes for step in steps] == [3 * MB, 3 * MB] and steps[0].before == 0
    assert memory.by_module(steps[1], traced.events).loc["second"].tolist() == [2, 2]
    peak = memory.attribute_peak(steps[0], traced.events, 0, on_cuda=False)
    assert [(one.operator, one.size_mb, one.is_workspace) for one in peak.largest] == [
        ("aten::empty", 2, False),
        ("aten::ones", 1, False),
    ]
    assert peak.other_mb is None, "not seen on the CPU"

"""Traces, stacks and operators' times of small real workloads."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch
from torch.autograd import DeviceType
from torch.profiler import record_function

from tests import support
from utils import costs
from utils.analysis import operators, roofline, tracing
from utils.analysis.layers import named_in_trace

CPU = torch.device("cpu")
STEPS = 3
TIMES = ("calls", "self_device_ms", "total_device_ms", "self_host_ms", "total_host_ms", "memory_allocated_mb")


@pytest.fixture(scope="module")
def model() -> Any:
    return support.Qwen2ForSequenceClassification(support.build_model_config()).eval()


@pytest.fixture(scope="module")
def ceilings() -> roofline.Ceilings:
    return roofline.measure(CPU, torch.float32)


def forward(model: Any) -> None:
    with torch.inference_mode(), record_function("forward"):
        model(input_ids=torch.ones(2, 16, dtype=torch.long), use_cache=False)


@pytest.fixture(scope="module")
def traced(model: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[tracing.Trace, Path]:
    file = tmp_path_factory.mktemp("trace") / "trace.json"
    with named_in_trace(model):
        return tracing.trace(lambda _: forward(model), steps=STEPS, device=CPU, trace_file=file), file


def test_chrome_trace(traced: tuple[tracing.Trace, Path]) -> None:
    names = {event.get("name") for event in json.loads(traced[1].read_text())["traceEvents"]}
    assert {"forward", "model.layers.0", "model.layers.1.self_attn", "score", "aten::mm"} <= names
    assert [file.name for file in traced[1].parent.iterdir()] == ["trace.json"], "nothing is left beside it"


def test_stacks(traced: tuple[tracing.Trace, Path]) -> None:
    stacks = [line.rpartition(" ") for line in traced[0].stacks]
    assert len({stack for stack, _, _ in stacks}) == len(stacks), "each stack once"
    assert all(int(microseconds) >= 1 for _, _, microseconds in stacks)
    assert not any(" " in frame or "0x" in frame for stack, _, _ in stacks for frame in stack.split(";"))
    assert any("forward;" in stack and ";model.layers.0;" in stack and stack.endswith(";aten::mm") for stack, _, _ in stacks)


def test_stacks_clean_and_merge() -> None:
    def event(name: str, own_us: float, parent: Any = None) -> Any:
        return SimpleNamespace(name=name, self_cpu_time_total=own_us, self_device_time_total=0.0,
                               cpu_parent=parent, device_type=DeviceType.CPU)

    root = event("a.py(1): f; g", 0.0)
    events = [root, event("op at 0x7f00", 1.4, root), event("op at 0x7f01", 1.4, root), event("tiny", 0.2)]
    assert tracing.collapse(events, on_device=False) == ("a.py(1):_f_g;op 3", "tiny 1")
    assert tracing.collapse(events, on_device=True) == ()
    step = event("ProfilerStep#2", 1.0, root)
    assert tracing.collapse([*events, step, event("op", 5.0, step)], on_device=False) == ("ProfilerStep#2;op 5", "ProfilerStep#2 1")


def test_operators(traced: tuple[tracing.Trace, Path], model: Any, ceilings: roofline.Ceilings) -> None:
    counted = costs.count(lambda: forward(model))
    rows = operators.join(traced[0].operators, counted, 1, ceilings)
    assert rows["share_pct"].sum() == pytest.approx(100)
    assert rows["flops"].sum() == sum(cost.flops or 0 for cost in counted), "every cost has its row, once"
    assert rows["bytes_moved"].sum() == sum(cost.bytes_moved for cost in counted)
    [product] = rows[rows["operator"].eq("aten::mm") & rows["input_shapes"].eq("32x32, 32x64")].itertuples()
    assert (product.calls, product.flops, product.bytes_moved) == (4, 4 * 2 * 32 * 32 * 64, 4 * 4 * (32 * 32 + 2 * 32 * 64))
    assert product.total_device_ms > 0 and product.attainable_ms > 0
    assert product.achieved_gflops_per_s == pytest.approx(product.flops / product.total_device_ms / 1e6)
    assert product.arithmetic_intensity == pytest.approx(product.flops / product.bytes_moved)
    assert rows["self_host_ms"].notna().all(), "the profiler saw every operator that was counted"
    assert rows["share_pct"].is_monotonic_decreasing


def test_work_without_a_time_keeps_its_place(ceilings: roofline.Ceilings) -> None:
    cost = costs.OperatorCost(name="my::op", input_shapes=((4, 4),), calls=2, flops=None, bytes_moved=256)
    nothing = pd.DataFrame(columns=["operator", "input_shapes", *TIMES]).astype(dict.fromkeys(TIMES, float))
    [row] = operators.join(nothing, (cost,), 2, ceilings).astype(object).replace(math.nan, None).itertuples()
    assert (row.operator, row.calls, row.input_shapes, row.flops, row.bytes_moved) == ("my::op", 1, "4x4", None, 128)
    assert row.self_device_ms is None and row.share_pct is None and row.achieved_gbytes_per_s is None


def garbled(*_: Any, **__: Any) -> Any:
    raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")


def test_a_garbled_trace_is_taken_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sound, calls = torch.profiler.profile.key_averages, []

    def once(self: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        return garbled() if len(calls) == 1 else sound(self, *args, **kwargs)

    monkeypatch.setattr(torch.profiler.profile, "key_averages", once)
    trace = tracing.trace(lambda _: torch.ones(3) + 1, steps=1, device=CPU, trace_file=tmp_path / "trace.json")
    assert "traced again" in trace.warnings[0] and trace.stacks and len(calls) == 2


def test_always_garbled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.profiler.profile, "key_averages", garbled)
    with pytest.raises(RuntimeError, match="3 traces in a row"):
        tracing.trace(lambda _: torch.ones(3) + 1, steps=1, device=CPU, trace_file=tmp_path / "trace.json")
    assert not list(tmp_path.iterdir())


def test_merged_length() -> None:
    assert tracing.merged_length([(5, 6), (0, 2), (1, 3), (1, 2)]) == 4
    assert tracing.merged_length([]) == 0


def test_the_cpu_has_no_device_to_keep_busy() -> None:
    assert tracing.device_busy_ms(lambda _: None, steps=1, device=CPU) is None

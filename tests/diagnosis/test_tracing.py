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
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention
from torch.profiler import record_function

from tests import support
from utils.diagnosis import operators, roofline, trace_events, tracing
from utils.diagnosis.layers import annotate_modules
from utils.model import costs
from utils.schema.ceilings import Ceilings

CPU = torch.device("cpu")
STEPS = 3
TIMES = (
    "calls",
    "self_device_ms",
    "total_device_ms",
    "self_host_ms",
    "total_host_ms",
    "memory_allocated_mb",
)


@pytest.fixture(scope="module")
def model() -> Any:
    return support.Qwen2ForSequenceClassification(support.build_model_config()).eval()


@pytest.fixture(scope="module")
def ceilings() -> Ceilings:
    return roofline.measure_ceilings(CPU, torch.float32)


def forward(model: Any) -> None:
    with torch.inference_mode(), record_function("forward"):
        model(input_ids=torch.ones(2, 16, dtype=torch.long), use_cache=False)


@pytest.fixture(scope="module")
def traced(model: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[tracing.Trace, Path]:
    file = tmp_path_factory.mktemp("trace") / "trace.json"
    with annotate_modules(model):
        return tracing.trace(
            lambda _: forward(model), steps=STEPS, device=CPU, trace_file=file
        ), file


def test_chrome_trace(traced: tuple[tracing.Trace, Path]) -> None:
    events = json.loads(traced[1].read_text())["traceEvents"]
    names = {event.get("name") for event in events}
    assert {"forward", "model.layers.0", "model.layers.1.self_attn", "score", "aten::mm"} <= names
    timed = [event for event in events if event["ph"] == "X"]
    assert (
        all(
            {"name", "pid", "tid"} <= event.keys() and event["ts"] >= 0 <= event["dur"]
            for event in timed
        )
        and timed
    )
    assert {event["ph"] for event in events} <= set("XiMsfC"), "phases of the Trace Event Format"
    assert [file.name for file in traced[1].parent.iterdir()] == ["trace.json"], (
        "nothing is left beside it"
    )


def test_stacks(traced: tuple[tracing.Trace, Path]) -> None:
    stacks = [line.rpartition(" ") for line in traced[0].stacks]
    assert len({stack for stack, _, _ in stacks}) == len(stacks), "each stack once"
    assert all(int(microseconds) >= 1 for _, _, microseconds in stacks)
    assert not any(
        " " in frame or "0x" in frame for stack, _, _ in stacks for frame in stack.split(";")
    )
    assert any(
        "forward;" in stack and ";model.layers.0;" in stack and stack.endswith(";aten::mm")
        for stack, _, _ in stacks
    )


def test_stacks_clean_and_merge() -> None:
    def event(name: str, own_us: float, parent: Any = None) -> Any:
        return SimpleNamespace(
            name=name,
            self_cpu_time_total=own_us,
            is_async=False,
            kernels=(),
            cpu_parent=parent,
            device_type=DeviceType.CPU,
        )

    root = event("a.py(1): f; g", 0.0)
    events = [
        root,
        event("op at 0x7f00", 1.4, root),
        event("op at 0x7f01", 1.4, root),
        event("tiny", 0.2),
    ]
    assert trace_events.collapse(events, on_device=False) == ("a.py(1):_f_g;op 3", "tiny 1")
    assert trace_events.collapse(events, on_device=True) == ()
    step = event("ProfilerStep#2", 1.0, root)
    assert trace_events.collapse([*events, step, event("op", 5.0, step)], on_device=False) == (
        "ProfilerStep#2;op 5",
        "ProfilerStep#2 1",
    )


def test_named_ranges_have_no_device_time_of_their_own() -> None:
    """The device's timeline mirrors them: 90 us over kernels of 50 and 20 would count twice."""

    def event(name: str, own_us: float, parent: Any = None, *, named: bool = False) -> Any:
        return SimpleNamespace(
            name=name,
            self_cpu_time_total=own_us,
            is_async=False,
            kernels=(SimpleNamespace(duration=own_us),),
            cpu_parent=parent,
            device_type=DeviceType.CPU,
            is_user_annotation=named,
        )

    step = event("ProfilerStep#2", 95.0, named=True)
    layer = event("forward", 90.0, step, named=True)
    events = [step, layer, event("aten::mm", 50.0, layer), event("aten::add", 20.0, layer)]
    below = ("ProfilerStep#2;forward;aten::mm 50", "ProfilerStep#2;forward;aten::add 20")
    assert trace_events.collapse(events, on_device=True) == below
    assert set(trace_events.collapse(events, on_device=False)) == {
        *below,
        "ProfilerStep#2 95",
        "ProfilerStep#2;forward 90",
    }


def test_operators(traced: tuple[tracing.Trace, Path], model: Any, ceilings: Ceilings) -> None:
    counted = costs.count_op_costs(lambda: forward(model))
    rows = operators.build_operator_table(traced[0].operators, counted, 1, ceilings)
    assert rows["share_pct"].sum() == pytest.approx(100)
    assert rows["flops"].sum() == sum(cost.flops or 0 for cost in counted), (
        "every cost has its row, once"
    )
    assert rows["bytes_moved"].sum() == sum(cost.bytes_moved for cost in counted)
    [product] = rows[
        rows["operator"].eq("aten::mm") & rows["input_shapes"].eq("32x32, 32x64")
    ].itertuples()
    assert (product.calls, product.flops, product.bytes_moved) == (
        4,
        4 * 2 * 32 * 32 * 64,
        4 * 4 * (32 * 32 + 2 * 32 * 64),
    )
    assert product.total_device_ms > 0 and product.attainable_ms > 0
    assert product.achieved_gflops_per_s == pytest.approx(
        product.flops / product.total_device_ms / 1e6
    )
    assert product.ceiling_share == pytest.approx(product.attainable_ms / product.total_device_ms)
    assert product.ceiling in ("matmul", "copy")
    assert product.arithmetic_intensity == pytest.approx(product.flops / product.bytes_moved)
    assert rows["self_host_ms"].notna().all(), "the profiler saw the operators that were counted"
    assert rows["share_pct"].is_monotonic_decreasing


def test_work_stands_at_the_operator_that_the_profiler_recorded(
    tmp_path: Path, ceilings: Ceilings
) -> None:
    """Attention's math kernel adds the mask in place, except while its work is counted."""
    query, mask = torch.rand(2, 4, 16, 8), torch.zeros(16, 16)

    def attend(_: int = 0) -> None:
        with torch.inference_mode(), sdpa_kernel(SDPBackend.MATH):
            scaled_dot_product_attention(query, query, query, attn_mask=mask)

    trace = tracing.trace(attend, steps=1, device=CPU, trace_file=tmp_path / "trace.json")
    counted = costs.count_op_costs(attend)
    rows = operators.build_operator_table(trace.operators, counted, 1, ceilings)
    [addition] = rows[rows["input_shapes"].eq("2x4x16x16, 16x16")].itertuples()
    scores = 2 * 4 * 16 * 16
    assert addition.operator == "aten::add_"
    assert addition.bytes_moved == 4 * (2 * scores + 16 * 16)
    assert addition.self_host_ms > 0


def test_operators_counted_under_both_names_keep_them(ceilings: Ceilings) -> None:
    recorded = dict.fromkeys(TIMES, 1.0)
    times = pd.DataFrame([{"operator": "aten::add_", "input_shapes": "4", **recorded}])
    counted = []
    for name in ("aten::add", "aten::add_"):
        cost = costs.OperatorCost(name=name, input_shapes=((4,),), calls=1, flops=0, bytes_moved=48)
        counted.append(cost)
    rows = operators.build_operator_table(times, counted, 1, ceilings)
    assert rows["operator"].tolist() == ["aten::add_", "aten::add"]
    assert rows["self_host_ms"].sum() == 1.0, "the time is there once"


def test_work_without_a_time_keeps_its_place(ceilings: Ceilings) -> None:
    cost = costs.OperatorCost(
        name="my::op", input_shapes=((4, 4),), calls=2, flops=None, bytes_moved=256
    )
    nothing = pd.DataFrame(columns=["operator", "input_shapes", *TIMES]).astype(
        dict.fromkeys(TIMES, float)
    )
    [row] = (
        operators.build_operator_table(nothing, (cost,), 2, ceilings)
        .astype(object)
        .replace(math.nan, None)
        .itertuples()
    )
    assert (row.operator, row.calls, row.input_shapes, row.flops, row.bytes_moved) == (
        "my::op",
        1,
        "4x4",
        None,
        128,
    )
    assert (
        row.self_device_ms is None and row.share_pct is None and row.achieved_gbytes_per_s is None
    )


def garbled(*_: Any, **__: Any) -> Any:
    raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")


def test_a_garbled_trace_is_taken_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sound, calls = torch.profiler.profile.events, []

    def once(self: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        return garbled() if len(calls) == 1 else sound(self, *args, **kwargs)

    monkeypatch.setattr(torch.profiler.profile, "events", once)
    trace = tracing.trace(
        lambda _: torch.ones(3) + 1, steps=1, device=CPU, trace_file=tmp_path / "trace.json"
    )
    assert "traced again" in trace.warnings[0] and trace.stacks and len(calls) == 2


def test_always_garbled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.profiler.profile, "events", garbled)
    with pytest.raises(RuntimeError, match="3 traces in a row"):
        tracing.trace(
            lambda _: torch.ones(3) + 1, steps=1, device=CPU, trace_file=tmp_path / "trace.json"
        )
    assert not list(tmp_path.iterdir())


def test_a_trace_that_is_always_truncated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sound = torch.profiler.profile.export_chrome_trace

    def truncate(self: Any, path: str) -> None:
        sound(self, path)
        text = Path(path).read_text()
        Path(path).write_text(text[: len(text) // 2])

    monkeypatch.setattr(torch.profiler.profile, "export_chrome_trace", truncate)
    traced = tracing.trace(
        lambda _: torch.ones(3) + 1, steps=2, device=CPU, trace_file=tmp_path / "trace.json"
    )
    assert "incomplete" in traced.warnings[-1] and "traced again" in traced.warnings[0]
    assert "kernels" not in traced.warnings[-1], "they come from a trace of their own"
    assert traced.stacks and len(traced.operators), "what does not come from the file is complete"
    assert traced.events == (), "half a trace would give wrong values"
    assert json.loads((tmp_path / "trace.json").read_text())["traceEvents"], (
        "what there is can be opened"
    )


def test_a_full_disk_leaves_nothing_of_the_profiler_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def export_to_full_disk(_: Any, path: str) -> None:
        # As the profiler does: no error, an empty file, and another one beside it.
        Path(f"{path}.tmp").write_text("half a trace")

    monkeypatch.setattr(torch.profiler.profile, "export_chrome_trace", export_to_full_disk)
    tracing.trace(
        lambda _: torch.ones(3) + 1, steps=1, device=CPU, trace_file=tmp_path / "trace.json"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["trace.json"]


def test_record_kernel_events(monkeypatch: pytest.MonkeyPatch) -> None:
    events = tracing.record_kernel_events(lambda _: torch.ones(3) + 1, steps=2, device=CPU)
    names = [event.get("name", "") for event in events]
    assert (
        names.count("aten::add") == 2
        and sum(name.startswith("ProfilerStep") for name in names) == 2
    )
    assert "[memory]" not in names and not any(
        event.get("cat") == "python_function" for event in events
    )
    monkeypatch.setattr(
        torch.profiler.profile,
        "export_chrome_trace",
        lambda _, path: Path(path).write_text('{"traceEvents": [{'),
    )
    assert tracing.record_kernel_events(lambda _: None, steps=1, device=CPU) == []


@pytest.mark.parametrize(("unreadable", "survives"), [(1, True), (2, True), (3, False)])
@pytest.mark.parametrize(
    "error",
    [UnicodeDecodeError("utf-8", b"\xff", 0, 1, "planted"), json.JSONDecodeError("planted", "", 0)],
)
def test_garbled_names_are_survived_everywhere(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    unreadable: int,
    survives: bool,
    error: ValueError,
) -> None:
    """Raised as the steps end (older versions read names then) or when the trace is asked for."""
    sound, runs = tracing._profiled, []
    wants_host: list[bool] = []
    kernel = {
        "ph": "X",
        "cat": "kernel",
        "name": "gemm",
        "ts": 0.0,
        "dur": 500.0,
        "args": {"correlation": 1},
    }

    def sometimes(*args: Any, **kwargs: Any) -> Any:
        runs.append(1)
        wants_host.append(kwargs.pop("with_host"))
        profiler, seconds = sound(args[0], args[1], CPU, **kwargs)

        def export(path: str) -> None:
            if len(runs) % 4 <= unreadable:
                raise error
            type(profiler).export_chrome_trace(profiler, path)
            events = json.loads(Path(path).read_text())["traceEvents"]
            Path(path).write_text(json.dumps({"traceEvents": [*events, kernel]}))

        if len(runs) % 4 <= unreadable and len(runs) % 2:
            raise error
        monkeypatch.setattr(profiler, "export_chrome_trace", export)
        return profiler, seconds

    monkeypatch.setattr(tracing, "_profiled", sometimes)
    busy = tracing.measure_device_busy(
        lambda _: torch.ones(3) + 1, steps=1, device=torch.device("cuda")
    )
    assert busy.ms == (0.5 if survives else None)
    assert busy.reason == (None if survives else tracing.NONE_READABLE)
    assert len(runs) == min(unreadable + 1, tracing.ATTEMPTS)
    assert not any(wants_host), "recording the host's operators slows the run"
    runs.clear()
    events = tracing.record_kernel_events(lambda _: torch.ones(3) + 1, steps=1, device=CPU)
    assert any(event.get("name") == "aten::add" for event in events) == survives == bool(events)
    assert (tracing.NONE_READABLE in caplog.text) == (not survives)


def test_another_error_of_a_traced_run_is_not_hidden() -> None:
    def fail(_: int) -> object:
        raise ValueError("planted")

    with pytest.raises(ValueError, match="planted"):
        tracing.record_kernel_events(fail, steps=1, device=CPU)


def test_the_cpu_has_no_device_to_keep_busy() -> None:
    busy = tracing.measure_device_busy(lambda _: None, steps=1, device=CPU)
    assert (busy.ms, busy.reason) == (None, "no GPU was used")

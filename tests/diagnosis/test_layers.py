"""Time by module: worked out on made-up traces, and on real models with a layer made slow."""

from __future__ import annotations

import math
import time
from typing import Any

import pandas as pd
import pytest
import torch

from tests import support
from tests.diagnosis.builders import ENCODERS, launch_and_kernel, trace_event
from utils.diagnosis import tracing
from utils.diagnosis.layers import (
    ROOT,
    aggregate_by_kind,
    aggregate_by_layer,
    annotate_modules,
    find_calls,
    layer_index,
    measure_layers,
)
from utils.schema.profile import KindTime

CPU = torch.device("cpu")
TOKENS = torch.ones(2, 16, dtype=torch.long)
BUSY_S = 0.02


def busy(seconds: float) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def qwen() -> Any:
    config = support.build_model_config(num_hidden_layers=4)
    return support.Qwen2ForSequenceClassification(config).eval()


def record(model: Any, steps: int = 2) -> list[tracing.Event]:
    with torch.inference_mode(), annotate_modules(model):
        return tracing.record_kernel_events(
            lambda _: model(input_ids=TOKENS), steps=steps, device=CPU
        )


def measure(model: Any) -> dict[str, Any]:
    table = measure_layers(model, record(model), 1, 8.0, on_cuda=False).table
    rows = table.astype({"layer_index": object}).itertuples()
    return {row.module: row for row in rows}


def named(name: str, ts: float, dur: float) -> dict[str, Any]:
    return trace_event("user_annotation", name, ts, dur)


def small_model() -> torch.nn.Module:
    """Modules ``0`` and ``1``, which is called twice in the traces below."""
    return torch.nn.Sequential(torch.nn.Identity(), torch.nn.Identity())


# Two forward passes of 100 and 40 us. In the first, 60 us belong to no module but the model.
HOST_TRACE = [
    named("ProfilerStep#2", 0, 120),
    named("forward", 5, 110),
    named(ROOT, 10, 100),
    named("0", 20, 30),
    named("1", 60, 4),
    named("1", 70, 6),
    named(ROOT, 200, 40),
    named("0", 200, 10),
    named("1", 220, 20),
]


def test_own_time_is_the_length_less_the_calls_below() -> None:
    calls = find_calls(HOST_TRACE, {ROOT, "0", "1"}, on_cuda=False)
    times = [(call.module, call.forward, call.self_us, call.total_us) for call in calls]
    assert times == [
        (ROOT, 0, 60, 100),
        ("0", 0, 30, 30),
        ("1", 0, 4, 4),
        ("1", 0, 6, 6),
        (ROOT, 1, 10, 40),
        ("0", 1, 10, 10),
        ("1", 1, 20, 20),
    ], "ranges that are no modules do not count, and a range that begins with its caller is below"


def test_times_are_means_over_the_batches_scaled_to_the_untraced_forward() -> None:
    times = measure_layers(small_model(), HOST_TRACE, 2, 7.0, on_cuda=False)
    rows = times.table.set_index("module")
    assert times.traced_forward_ms == pytest.approx(0.070), "of 100 and 40 us"
    assert rows["self_time_ms"].to_dict() == pytest.approx({ROOT: 3.5, "0": 2.0, "1": 1.5})
    assert rows.loc[ROOT, "time_ms"] == pytest.approx(7.0)
    assert rows["share_pct"].to_dict() == pytest.approx({ROOT: 50, "0": 200 / 7, "1": 150 / 7})
    assert rows["calls"].to_dict() == {ROOT: 1, "0": 1, "1": 1.5}


def test_the_fastest_pass_of_a_batch_counts() -> None:
    times = measure_layers(small_model(), HOST_TRACE, 1, 4.0, on_cuda=False)
    own_ms = times.table.set_index("module")["self_time_ms"].to_dict()
    assert own_ms == pytest.approx({ROOT: 1.0, "0": 1.0, "1": 2.0}), "the second, of 40 us"


def test_on_cuda_the_kernels_that_a_module_launched_count() -> None:
    events = [
        named(ROOT, 0, 100),
        named("0", 10, 20),
        named("1", 40, 20),
        trace_event("gpu_user_annotation", "0", 1000, 500),
        *launch_and_kernel(1, 12, "gemm", 1000, 300),
        *launch_and_kernel(
            2, 24, "gemm", 1300, 100
        ),  # still in 0, though it runs after it returned
        *launch_and_kernel(3, 45, "add", 1400, 50),
        *launch_and_kernel(4, 70, "Memcpy HtoD", 1450, 50, "gpu_memcpy"),  # the model's own
        *launch_and_kernel(5, 200, "add", 1500, 900),  # after the model returned
        trace_event("kernel", "add", 2400, 70, correlation=99),  # its launch is not in the trace
    ]
    times = measure_layers(small_model(), events, 1, 0.5, on_cuda=True)
    assert times.traced_forward_ms == pytest.approx(0.5)
    rows = times.table.set_index("module")
    assert rows["self_time_ms"].to_dict() == pytest.approx({ROOT: 0.05, "0": 0.4, "1": 0.05})
    assert rows.loc[ROOT, "time_ms"] == pytest.approx(0.5)


def test_without_kernels_times_on_cuda_are_empty() -> None:
    times = measure_layers(small_model(), HOST_TRACE, 1, 4.0, on_cuda=True)
    assert times.traced_forward_ms is None
    assert times.table["module"].tolist() == [ROOT, "0", "1"]
    assert times.table[["time_ms", "self_time_ms", "share_pct"]].isna().all(axis=None)
    assert aggregate_by_kind(times.table) == aggregate_by_layer(times.table) == ()


def test_without_a_trace_the_table_has_columns_and_no_rows() -> None:
    times = measure_layers(small_model(), [], 4, 4.0, on_cuda=False)
    assert times.table.empty and times.traced_forward_ms is None
    assert list(times.table) == [
        "module",
        "kind",
        "layer_index",
        "calls",
        "time_ms",
        "self_time_ms",
        "share_pct",
    ]


def test_kinds_and_indices() -> None:
    kinds = {}
    for name, row in measure(qwen()).items():
        kinds[name] = (row.kind, None if pd.isna(row.layer_index) else row.layer_index)
    assert kinds[ROOT] == kinds["model"] == ("model", None)
    assert kinds["model.embed_tokens"] == ("embedding", None)
    assert kinds["model.layers.2"] == ("layer", 2)
    assert kinds["model.layers.2.self_attn"] == ("attention", 2)
    assert kinds["model.layers.3.self_attn.q_proj"] == ("q_proj", 3)
    assert kinds["model.layers.3.mlp"] == ("mlp", 3)
    assert kinds["model.layers.3.mlp.act_fn"] == ("SiLUActivation", 3)
    assert kinds["model.layers.0.input_layernorm"] == ("norm", 0)
    assert kinds["model.layers.0.post_attention_layernorm"] == ("norm", 0)
    assert kinds["model.rotary_emb"] == ("rotary", None)
    assert kinds["score"] == ("score", None)
    assert layer_index("score") is None


@pytest.mark.parametrize("architecture", ENCODERS)
def test_other_architectures(architecture: str) -> None:
    make, settings = ENCODERS[architecture]
    kinds = {row.kind for row in measure(make(settings).eval()).values()}
    assert {"model", "layer", "norm", "embedding", "score", "Linear"} <= kinds


def test_parts_of_a_real_model_add_up() -> None:
    rows = measure(qwen())
    assert sum(row.self_time_ms for row in rows.values()) == pytest.approx(8.0)
    assert rows[ROOT].time_ms == pytest.approx(8.0)
    assert sum(row.share_pct for row in rows.values()) == pytest.approx(100)
    assert all(row.calls == 1 and row.self_time_ms >= 0 for row in rows.values())


def test_a_slow_module_is_found_with_its_time() -> None:
    model = qwen()
    slow = model.model.layers[2].mlp.down_proj
    forward = slow.forward

    def slow_forward(*args: Any) -> Any:
        busy(BUSY_S)
        return forward(*args)

    slow.forward = slow_forward
    events = record(model)
    calls = find_calls(events, {name or ROOT for name, _ in model.named_modules()}, on_cuda=False)
    worst = max(calls, key=lambda call: call.self_us)
    assert worst.module == "model.layers.2.mlp.down_proj"
    assert BUSY_S * 1e6 * 0.999 <= worst.self_us < BUSY_S * 1e6 * 1.5
    table = measure_layers(model, events, 1, 100.0, on_cuda=False).table
    top = table.sort_values("self_time_ms").iloc[-1]
    assert (top["module"], top["kind"]) == ("model.layers.2.mlp.down_proj", "down_proj")
    assert top["layer_index"] == 2 and top["share_pct"] > 50


def test_own_times_add_up_by_kind_and_by_layer() -> None:
    table = pd.DataFrame(
        {
            "module": list("abc"),
            "kind": ["norm", "mlp", "norm"],
            "layer_index": pd.array([1, None, 0], dtype="Int64"),
            "calls": 1.0,
            "time_ms": 3.0,
            "self_time_ms": [1.0, 3.0, 4.0],
            "share_pct": [12.5, 37.5, 50.0],
        }
    )
    assert aggregate_by_kind(table) == (
        KindTime(kind="norm", self_time_ms=5.0, share_pct=62.5),
        KindTime(kind="mlp", self_time_ms=3.0, share_pct=37.5),
    )
    by_layer = [(time.layer_index, time.self_time_ms) for time in aggregate_by_layer(table)]
    assert by_layer == [(0, 4.0), (1, 1.0), (None, 3.0)]
    not_measured = table.assign(self_time_ms=[1.0, math.nan, math.nan])
    assert [time.layer_index for time in aggregate_by_layer(not_measured)] == [1]


def test_ranges_are_closed_and_hooks_removed_after_an_error() -> None:
    model = qwen()
    out_of_vocabulary = torch.full((1, 4), 10**6)
    with annotate_modules(model):
        assert model.model.layers[0]._forward_pre_hooks
        with pytest.raises(IndexError), torch.inference_mode():
            model(input_ids=out_of_vocabulary)
        events = tracing.record_kernel_events(
            lambda _: model(input_ids=TOKENS), steps=1, device=CPU
        )
    calls = find_calls(events, {name or ROOT for name, _ in model.named_modules()}, on_cuda=False)
    assert [call.caller for call in calls].count(None) == 1, "no range of the failed call is open"
    for module in model.modules():
        assert not module._forward_pre_hooks and not module._forward_hooks

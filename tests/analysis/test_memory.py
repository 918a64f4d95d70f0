"""Who holds the peak, what layers add and what fits: by hand, and on real allocations."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.profiler import record_function

from tests import support
from utils.analysis import memory, tracing

CPU = torch.device("cpu")
MB = 1_000_000


def change(at_us: float, address: int, bytes_: int, allocated: int, kind: int = 1) -> dict[str, Any]:
    return {"ph": "i", "name": "[memory]", "ts": at_us, "tid": 1,
            "args": {"Bytes": bytes_, "Total Allocated": allocated, "Addr": address, "Device Type": kind, "Device Id": 0}}


def span(cat: str, name: str, ts: float, dur: float) -> dict[str, Any]:
    return {"ph": "X", "cat": cat, "name": name, "ts": ts, "dur": dur, "tid": 1, "args": {}}


# On CUDA 12 MB are there before: 10 of weights, 2 of a library's. A layer's attention keeps 3 MB and borrows 4.
EVENTS = [
    span("user_annotation", "ProfilerStep#2", 0, 100), span("user_annotation", "model.layers.0", 10, 60),
    span("user_annotation", "model.layers.0.self_attn", 20, 30), span("cpu_op", "aten::linear", 12, 5),
    span("cpu_op", "aten::mm", 13, 3), span("cpu_op", "aten::attention", 25, 20), span("cpu_op", "aten::softmax", 27, 2),
    change(14, 1, 1 * MB, 13 * MB), change(26, 2, 3 * MB, 16 * MB), change(28, 3, 4 * MB, 20 * MB), change(40, 3, -4 * MB, 16 * MB),
    change(60, 1, -1 * MB, 15 * MB), change(61, 3, 2 * MB, 17 * MB), change(80, 3, -2 * MB, 15 * MB),
    change(90, 2, -3 * MB, 12 * MB),
    change(30, 9, 99 * MB, 99 * MB, kind=0),  # the host's
]


def test_owners_worked_by_hand() -> None:
    [step] = memory.find_steps(EVENTS, on_cuda=True)
    assert (step.before, step.peak_bytes) == (12 * MB, 8 * MB)
    assert memory.peak_owners(step, EVENTS, 10 * MB, on_cuda=True) == {
        "total_mb": 20, "weights_mb": 10, "activations_mb": 4, "workspace_mb": 4, "held_before_mb": 2,
        "largest": [
            {"operator": "aten::attention", "module": "model.layers.0.self_attn", "mb": 4, "workspace": True},
            {"operator": "aten::attention", "module": "model.layers.0.self_attn", "mb": 3, "workspace": False},
            {"operator": "aten::linear", "module": "model.layers.0", "mb": 1, "workspace": False},
        ],
    }
    assert memory.by_module(step, EVENTS) == {"model.layers.0": (5, 8), "model.layers.0.self_attn": (3, 7)}
    rows = memory.timeline(step)
    assert rows["allocated_mb"].tolist() == [1, 4, 8, 4, 3, 5, 3, 0] and rows["time_ms"].tolist()[:2] == [0, 0.012]


def test_nothing_was_allocated() -> None:
    assert memory.find_steps(EVENTS[:7], on_cuda=True) == ()
    assert memory.find_steps([], on_cuda=False) == ()
    model = torch.nn.Linear(4, 4)
    found, step = memory.analyse([], [], lambda _: 0, model, CPU, 8, [], 8)
    assert step is found["peak"] is found["model"] is found["prediction"] is None
    assert set(found["not_measured"]) == {"peak", "prediction"}


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
    assert memory.by_module(steps[1], traced.events)["second"] == (2, 2)
    owners = memory.peak_owners(steps[0], traced.events, 0, on_cuda=False)
    assert [(one["operator"], one["mb"], one["workspace"]) for one in owners["largest"]] == [
        ("aten::empty", 2, False), ("aten::ones", 1, False)]
    assert owners["held_before_mb"] is None, "not seen on the CPU"
    assert memory.forward_peak_bytes(partial(run, 0), CPU) == 3 * MB
    assert memory.forward_peak_bytes(lambda: None, CPU) == 0


def points(peak: Any) -> list[memory.Point]:
    return [(batch, length, int(peak(batch, length))) for batch in memory.BATCHES for length in (256, 512)]


def test_the_model_finds_its_coefficients() -> None:
    model = memory.fit(points(lambda batch, length: 5e6 + 4000 * batch * length + 36 * batch * length**2))
    assert model is not None and model.relative_error < 1e-5
    assert (model.constant_bytes, model.per_token_bytes, model.per_pair_bytes) == pytest.approx((5e6, 4000, 36), rel=1e-3)
    free = model.peak_bytes(100, 512) + 1
    assert (model.largest_batch(512, free), model.largest_batch(512, 0)) == (100, 0)
    noise = np.random.default_rng(0)
    rough = memory.fit(points(lambda batch, length: 4000 * batch * length * noise.uniform(0.5, 1.5)))
    assert rough is not None and rough.relative_error > memory.MOST_ERROR
    assert memory.fit(points(lambda *_: 1)[:3]) is None and memory.fit(points(lambda *_: 0)) is None


def test_the_prediction_is_held_against_the_sweep() -> None:
    model = memory.PeakModel(constant_bytes=0, per_token_bytes=1e4, per_pair_bytes=0, relative_error=0.1)
    sweep = [{"batch_size": 64, "status": "ok", "activations_mem": 62.0}, {"batch_size": 256, "status": "oom"},
             {"batch_size": 512, "status": "not_tried"}]
    found = memory.predict(model, 200, 200 * MB, sweep, 100)
    assert (found["largest_batch"], found["largest_batch_low"], found["largest_batch_high"]) == (100, 90, 111)
    assert found["sweep"] == [
        {"batch_size": 64, "status": "ok", "predicted_mb": 64, "predicted_fits": True, "measured_mb": 62.0},
        {"batch_size": 256, "status": "oom", "predicted_mb": 256, "predicted_fits": False, "measured_mb": None}]
    assert found["agrees_with_sweep"] is True
    assert memory.predict(model, 200, 300 * MB, sweep, 100)["agrees_with_sweep"] is False
    assert memory.predict(model, 200, 300 * MB, [], 100)["agrees_with_sweep"] is None


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_model_far_from_the_points_is_predicted(attention: str) -> None:
    """A batch four times the largest measured one, as real memory has it."""
    model = support.Qwen2ForSequenceClassification(support.build_model_config()).eval()
    model.set_attn_implementation(attention)

    def forward(inputs: dict[str, torch.Tensor]) -> object:
        return model(**inputs, use_cache=False).logits

    with torch.inference_mode():
        fitted = memory.fit(memory.measure_points(forward, 128, CPU))
        ids = torch.ones(32, 128, dtype=torch.long)
        mask = ids.clone()
        mask[0, -1] = 0
        peak = memory.forward_peak_bytes(lambda: forward({"input_ids": ids, "attention_mask": mask}), CPU)
    assert fitted is not None and fitted.relative_error < memory.MOST_ERROR
    assert fitted.peak_bytes(32, 128) == pytest.approx(peak, rel=0.05)
    assert memory.free_bytes(CPU) > 0


def test_a_model_that_misses_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    jumps = iter([1, 9, 2, 30, 5, 50])
    monkeypatch.setattr(memory, "forward_peak_bytes", lambda *_: next(jumps) * MB)
    found, _ = memory.analyse(EVENTS, [None], lambda _: 0, torch.nn.Linear(4, 4), CPU, 8, [], 8)
    assert found["prediction"] is None and "misses measured peaks" in found["not_measured"]["prediction"]
    assert found["peak"] is not None


def test_a_traced_batch_that_the_model_misses_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "measure_points", lambda *_: points(lambda batch, length: 1000 * batch * length))
    host = [{**event, "args": {**event["args"], "Device Type": 0}} for event in EVENTS[:-1]]
    for shape, known in (((16, 500), True), ((16, 300), False), (None, True)):  # the traced peak is 8 MB
        found, _ = memory.analyse(host, [shape], lambda _: 0, torch.nn.Linear(4, 4), CPU, 512, [], 8)
        assert (found["prediction"] is not None) == known


@pytest.mark.parametrize("error", [
    torch.OutOfMemoryError("planted"), RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling planted"),
    RuntimeError("planted: can't allocate memory: you tried to allocate 8 bytes"),
])
def test_memory_runs_out_while_measuring(error: RuntimeError) -> None:
    def forward(inputs: dict[str, torch.Tensor]) -> object:
        if inputs["input_ids"].numel() > 16:
            raise error
        return torch.ones(inputs["input_ids"].numel())

    assert memory.measure_points(forward, 8, CPU) == ((2, 4, 32), (4, 4, 64), (2, 8, 64))


def test_another_error_while_measuring_is_not_hidden() -> None:
    def forward(_: dict[str, torch.Tensor]) -> object:
        raise RuntimeError("planted: shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        memory.measure_points(forward, 8, CPU)

"""A CUDA trace of known work: kernels by category, idle time by cause, memory to the byte."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

from utils.analysis import kernels, memory, tracing

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")]
DEVICE = torch.device("cuda:0")
CYCLES = 20_000_000
STEPS, SLEEP_S, BYTES = 3, 0.005, 2**28


def test_idle_by_cause_and_memory(tmp_path: Path) -> None:
    left, small = torch.ones(4096, 4096, device=DEVICE), torch.zeros(1, device=DEVICE)
    out = torch.empty_like(left)

    def run(_: int) -> None:
        torch.cuda._sleep(CYCLES)
        torch.mm(left, left, out=out)  # launched while the device sleeps
        torch.cuda.synchronize(DEVICE)
        small.add_(1)  # could not be launched before
        time.sleep(SLEEP_S)  # the workload itself: the host is late
        torch.empty(BYTES, dtype=torch.uint8, device=DEVICE).zero_()

    traced = tracing.trace(run, steps=STEPS, device=DEVICE, trace_file=tmp_path / "trace.json")
    if tracing.NO_KERNELS in traced.warnings:
        pytest.skip("CUPTI is not permitted here")
    found = kernels.summarise(traced.events)
    assert found is not None and found["steps"] == STEPS
    assert found["busy_ms"] + found["idle_ms"] == pytest.approx(found["span_ms"])
    causes = found["idle_by_cause_ms"]
    assert sum(causes.values()) == pytest.approx(found["idle_ms"])
    assert causes["host_late"] >= STEPS * SLEEP_S * 1e3 * 0.9
    assert causes["synchronisation"] > 0 and causes["between_steps"] > 0
    assert found["by_category_ms"]["matrix product"] > 0
    rows = kernels.table(traced.events)
    assert rows.loc[rows["kernel"].str.contains("spin"), "calls"].sum() == STEPS
    assert {"category": "normalisation and element-wise"}.items() <= rows.iloc[-1].to_dict().items()

    steps = memory.find_steps(traced.events, on_cuda=True)
    assert [step.peak_bytes for step in steps] == [BYTES] * STEPS
    peak = memory.attribute_peak(steps[0], traced.events, left.nbytes, on_cuda=True)
    assert peak.held_before_mb is not None
    assert peak.held_before_mb >= left.nbytes / 1e6, "the product's target, and what cuBLAS keeps"

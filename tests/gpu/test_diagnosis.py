"""A CUDA trace of known work: kernels by category, idle time by cause, memory to the byte."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

from utils.diagnosis import kernels, layers, memory, tracing
from utils.schema.warning_codes import WarningCode

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
]
DEVICE = torch.device("cuda:0")
CYCLES = 20_000_000
STEPS, SLEEP_S, BYTES = 3, 0.005, 2**28


def test_idle_time_has_its_cause_and_memory_its_bytes(tmp_path: Path) -> None:
    left, small = torch.ones(4096, 4096, device=DEVICE), torch.zeros(1, device=DEVICE)
    out = torch.empty_like(left)

    def run(_: int) -> None:
        torch.cuda._sleep(CYCLES)
        # Launched while the device sleeps.
        torch.mm(left, left, out=out)
        torch.cuda.synchronize(DEVICE)
        # Could not be launched before.
        small.add_(1)
        # The workload itself: the host is late.
        time.sleep(SLEEP_S)
        torch.empty(BYTES, dtype=torch.uint8, device=DEVICE).zero_()

    traced = tracing.trace(run, steps=STEPS, device=DEVICE, trace_file=tmp_path / "trace.json")
    if WarningCode.TRACE.warn(tracing.NO_KERNELS) in traced.warnings:
        pytest.skip("CUPTI is not permitted here")
    summary = kernels.summarize_kernels(traced.events)
    assert summary is not None and summary.num_steps == STEPS
    assert summary.busy_ms + summary.idle_ms == pytest.approx(summary.span_ms)
    causes = summary.idle_by_cause_ms
    assert sum(causes.values()) == pytest.approx(summary.idle_ms)
    assert causes["host_wait"] >= STEPS * SLEEP_S * 1e3 * 0.9
    assert causes["synchronisation"] > 0 and causes["between_steps"] > 0
    assert summary.by_category_ms["matrix product"] > 0
    rows = kernels.build_kernel_table(traced.events)
    assert rows.loc[rows["kernel"].str.contains("spin"), "calls"].sum() == STEPS
    assert {"category": "normalisation and element-wise"}.items() <= rows.iloc[-1].to_dict().items()

    steps = memory.find_steps(traced.events, on_cuda=True)
    assert [step.peak_bytes for step in steps] == [BYTES] * STEPS
    peak = memory.attribute_peak(steps[0], traced.events, left.nbytes, on_cuda=True)
    assert peak.other_mb is not None
    assert peak.other_mb >= left.nbytes / 1e6, "the product's target, and what cuBLAS keeps"


class _SlowModule(torch.nn.Module):
    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        torch.cuda._sleep(CYCLES)
        return inputs


def test_a_module_with_a_long_kernel_has_its_time() -> None:
    """The host returns at once: only the device's time shows it."""
    model = torch.nn.Sequential(torch.nn.Linear(64, 64), _SlowModule(), torch.nn.Linear(64, 64)).to(
        DEVICE
    )
    inputs = torch.ones(4, 64, device=DEVICE)
    with torch.inference_mode(), layers.annotate_modules(model):
        events = tracing.record_kernel_events(lambda _: model(inputs), steps=2, device=DEVICE)
    times = layers.measure_layers(model, events, 1, 1.0, on_cuda=True)
    if times.traced_forward_ms is None:
        pytest.skip("CUPTI is not permitted here")
    share_pct = times.table.set_index("module")["share_pct"]
    assert share_pct["1"] > 90 and share_pct["0"] > 0

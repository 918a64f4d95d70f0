"""Measurements of known work on a CUDA device: cycles, bytes, launches, the end of the memory."""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.small_tokenizers import Words
from utils.metrics import MetricsCollector
from utils.profiler import InferenceProfiler
from utils.sweep.schedule import SweepSettings, new_state

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
]
GIB = 2**30
CYCLES = 20_000_000


class Model:
    """Sleeps ``cycles``, starts ``launches`` tiny kernels, needs ``bytes_a_row`` for each row."""

    dtype = torch.float32

    def __init__(self, cycles: int = 0, launches: int = 0, bytes_a_row: int = 0) -> None:
        self.cycles, self.launches, self.bytes_a_row = cycles, launches, bytes_a_row

    def __call__(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
        if self.cycles:
            torch.cuda._sleep(self.cycles)
        small = torch.zeros(1, device=input_ids.device)
        for _ in range(self.launches):
            small += 1
        if self.bytes_a_row:
            torch.empty(
                len(input_ids) * self.bytes_a_row, dtype=torch.uint8, device=input_ids.device
            )
        return SimpleNamespace(
            logits=torch.nn.functional.one_hot(attention_mask.sum(-1) % 3, 3).float()
        )


@pytest.fixture
def memory_cap() -> Iterator[int]:
    """The allocator may take 2 GiB and no more."""
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(2 * GIB / total, 0)
    yield 2 * GIB
    torch.cuda.set_per_process_memory_fraction(1.0, 0)
    torch.cuda.empty_cache()


def sweep(model: Model, sizes: list[int], runs: int = 5, rows: int = 16, **settings: Any) -> Any:
    profiler = InferenceProfiler(model, Words(), device="cuda:0")
    state = new_state(rows, sizes)
    sweep_settings = SweepSettings(
        num_runs=runs, max_length=64, **{"min_window_seconds": 0.0, **settings}
    )
    profiler.sweep(["a b"] * rows, state, sweep_settings, on_event=lambda line: None)
    return [trial.record() for trial in state.trials]


def seconds_by_events(work: Any) -> float:
    """The device's own time of ``work``, the median of seven."""
    times = []
    for _ in range(7):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        work()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end) / 1e3)
    return sorted(times)[3]


def test_a_kernel_of_known_cycles() -> None:
    expected_ms = 1e3 * seconds_by_events(lambda: torch.cuda._sleep(CYCLES))
    (record,) = sweep(Model(cycles=CYCLES), [16], runs=8)
    assert record.forward_device_ms_mean == pytest.approx(expected_ms, rel=0.05)
    assert record.forward_ms_mean == pytest.approx(expected_ms, rel=0.05)
    assert record.latency_per_batch_ms_median >= 0.95 * expected_ms
    assert record.forward_launch_ms_mean < 0.5 * record.forward_ms_mean, (
        "the host is back long before the device"
    )


def test_ten_thousand_launches_are_the_hosts_time() -> None:
    (record,) = sweep(Model(launches=10_000), [16], runs=3)
    assert record.forward_launch_ms_mean > 0.9 * record.forward_ms_mean


def test_phases_add_up_to_the_latency() -> None:
    (record,) = sweep(Model(cycles=CYCLES), [4])
    parts = (
        record.tokenize_ms_mean
        + record.host_to_device_ms_mean
        + record.forward_ms_mean
        + record.device_to_host_ms_mean
    )
    # Four batches a run.
    assert parts * 4 == pytest.approx(1e3 * record.latency_total_s_mean, rel=0.03)
    assert not any("phases" in text for text in record.warnings)


def test_a_gibibyte_is_a_gibibyte() -> None:
    collector = MetricsCollector("cuda:0")
    with collector.measure(1, 1) as freed:
        torch.empty(GIB, dtype=torch.uint8, device="cuda:0")
    with collector.measure(1, 1) as kept:
        block = torch.empty(GIB, dtype=torch.uint8, device="cuda:0")
    assert freed.run is not None and kept.run is not None
    assert (freed.run.activation_bytes, freed.run.allocated_bytes) == (GIB, 0)
    assert (kept.run.activation_bytes, kept.run.allocated_bytes) == (GIB, GIB)
    assert kept.record is not None and kept.record.gpu_mem_change == pytest.approx(GIB / 1e6)
    del block


def test_the_end_of_the_memory_is_a_result_and_the_memory_comes_back(memory_cap: int) -> None:
    before = torch.cuda.memory_reserved(0)
    small, large, larger = sweep(Model(bytes_a_row=GIB // 4), [4, 16, 32], rows=32, runs=3)
    assert [record.status for record in (small, large, larger)] == ["ok", "oom", "not_tried"]
    assert "Tried to allocate" in large.warnings[0]
    assert small.activations_mem >= GIB / 1e6
    assert torch.cuda.memory_reserved(0) - before <= GIB + 64 * 2**20


def test_readings_come_from_a_window_of_the_least_length() -> None:
    without = sweep(Model(cycles=CYCLES), [16])
    with_window = sweep(Model(cycles=CYCLES), [16], min_window_seconds=3.0)
    assert without[0].gpu_util_pct_mean is None
    assert "too short" in without[0].unavailable["gpu_util_pct_mean"]
    assert with_window[0].gpu_util_pct_mean > 50
    assert with_window[0].gpu_power_w_mean > 0
    assert with_window[0].energy_per_sample_j > 0
    assert with_window[0].latency_total_s_mean < 1.0, "the window's time is in no latency"


def test_the_clock_waits_for_the_device() -> None:
    collector = MetricsCollector("cuda:0")
    expected = seconds_by_events(lambda: torch.cuda._sleep(CYCLES))
    with collector.measure(1, 1) as measurement:
        torch.cuda._sleep(CYCLES)
        handed_over = time.perf_counter_ns() - measurement.started_ns
    assert measurement.run is not None
    assert handed_over / 1e9 < 0.5 * expected
    assert measurement.run.seconds == pytest.approx(expected, rel=0.05)

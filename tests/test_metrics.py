"""One measurement against known answers."""

from __future__ import annotations

import gc
import mmap
import subprocess
import sys
import time
from typing import Any

import pytest

from utils.core.errors import UserError
from utils.metrics import MetricsCollector
from utils.schema.batch_size import COLUMNS
from utils.sweep.row_reasons import CPU_WAIT_LIMIT
from utils.system import process


def busy(seconds: float) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def test_a_block_that_takes_a_known_time() -> None:
    collector = MetricsCollector(device="cpu")
    with collector.measure(batch_size=4, num_samples=8) as measurement:
        busy(0.2)
    assert measurement.record is not None
    assert measurement.record.latency_total_s_mean == pytest.approx(0.2, rel=0.05)
    assert measurement.record.latency_per_sample_ms_mean == pytest.approx(25, rel=0.05)
    assert measurement.record.throughput_samples_per_sec_mean == pytest.approx(40, rel=0.05)


def test_the_seeds_calls() -> None:
    collector = MetricsCollector(device="cpu")
    measurement = collector.start_measurement()
    metrics = collector.end_measurement(measurement, 2, 4)
    assert tuple(metrics.to_dict()) == COLUMNS
    assert metrics.latency_total_s_std is None
    assert metrics.stable is None


def test_extra_fields_are_computed_after_the_clock_has_stopped() -> None:
    def slow() -> dict[str, Any]:
        busy(0.3)
        return {"num_batches": 3, "real_tokens": 7}

    with MetricsCollector(device="cpu").measure(batch_size=1, num_samples=4) as measurement:
        measurement.extra_fields = slow
    assert measurement.run is not None
    assert (measurement.run.num_batches, measurement.run.real_tokens) == (3, 7)
    assert measurement.run.seconds < 0.15


@pytest.mark.parametrize(("batch_size", "num_samples"), [(0, 1), (1, 0), (-1, 3)])
def test_impossible_numbers_are_refused_and_collection_goes_on(
    batch_size: int, num_samples: int
) -> None:
    collector = MetricsCollector(device="cpu")
    with pytest.raises(UserError, match="must be at least 1"):
        collector.end_measurement(collector.start_measurement(), batch_size, num_samples)
    assert gc.isenabled()


def test_garbage_collection_is_off_inside_and_back_afterwards() -> None:
    collector = MetricsCollector(device="cpu")
    collector.start_measurement()  # never ended
    with pytest.raises(ZeroDivisionError), collector.measure(1, 1):
        assert not gc.isenabled()
        1 / 0  # noqa: B018
    assert gc.isenabled()


@pytest.mark.skipif(
    not process.reset_peak_memory(), reason="this kernel lets no process reset its peak"
)
def test_the_peak_is_this_blocks_and_not_an_earlier_ones() -> None:
    collector = MetricsCollector(device="cpu")
    megabytes = 200
    # Pages of its own, all touched and returned: an array could reuse what earlier tests freed.
    with (
        collector.measure(1, 1) as large,
        mmap.mmap(-1, megabytes * 10**6) as pages,
    ):
        for _ in range(megabytes):
            pages.write(bytes(10**6))
    with collector.measure(1, 1) as small:
        pass
    assert large.record is not None and small.record is not None
    assert large.record.cpu_mem_peak - large.record.cpu_mem_used >= 0.9 * megabytes
    assert large.record.cpu_mem_peak - small.record.cpu_mem_peak == pytest.approx(
        megabytes, rel=0.1
    )


@pytest.mark.skipif(
    process.cpu_times_ns() is None, reason="this kernel does not report how long threads wait"
)
def test_waiting_for_a_cpu_is_seen() -> None:
    burning = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"])
        for _ in range(2 * (process.usable_cores() or 1))
    ]
    try:
        time.sleep(0.5)  # until they run
        with MetricsCollector(device="cpu").measure(1, 1) as measurement:
            busy(1.0)
    finally:
        for other in burning:
            other.kill()
            other.wait()
    assert measurement.record is not None
    assert measurement.record.cpu_wait_fraction > CPU_WAIT_LIMIT
    assert any("cpu-wait" in text for text in measurement.record.warnings)

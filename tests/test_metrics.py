"""One measurement against known answers; the row that runs add up to."""

from __future__ import annotations

import gc
import time

import pytest

from utils.metrics import COLUMNS, UNITS, BatchSizeRecord, MetricsCollector, Run, summarise_runs


def busy(seconds: float) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def run(seconds: float, **changes: object) -> Run:
    settings: dict[str, object] = {
        "num_samples": 8, "seconds": seconds, "num_batches": 2, "batch_seconds": (seconds / 2,) * 2,
        "phase_seconds": (0.1 * seconds, 0.1 * seconds, 0.7 * seconds, 0.1 * seconds), "real_tokens": 90,
        "padded_tokens": 30, "resident_bytes": 5_000_000,
    }
    return Run(**{**settings, **changes})  # type: ignore[arg-type]


def test_a_block_that_takes_a_known_time() -> None:
    collector = MetricsCollector(device="cpu")
    with collector.measure(batch_size=4, num_samples=8) as measurement:
        busy(0.2)
    assert measurement.record is not None
    assert measurement.record.latency_total_s.mean == pytest.approx(0.2, rel=0.05)
    assert measurement.record.latency_per_sample_ms.mean == pytest.approx(25, rel=0.05)
    assert measurement.record.throughput_samples_per_sec.mean == pytest.approx(40, rel=0.05)


def test_the_seeds_calls() -> None:
    collector = MetricsCollector(device="cpu")
    measurement = collector.start_measurement()
    metrics = collector.end_measurement(measurement, 2, 4)
    assert tuple(metrics.to_dict()) == COLUMNS
    assert metrics.latency_total_s.std is None
    assert metrics.stable is None


def test_garbage_collection_is_off_inside_and_back_afterwards() -> None:
    collector = MetricsCollector(device="cpu")
    collector.start_measurement()  # never ended
    with pytest.raises(ZeroDivisionError), collector.measure(1, 1):
        assert not gc.isenabled()
        1 / 0  # noqa: B018
    assert gc.isenabled()


def test_a_row_by_hand() -> None:
    record = summarise_runs(4, [run(1.0), run(3.0)], flops_per_sample=1e12, matmul_flops_per_s=1e13)
    assert record.latency_per_sample_ms.mean == pytest.approx(250)
    assert record.latency_per_batch_ms.mean == pytest.approx(1000)
    assert record.throughput_samples_per_sec.mean == pytest.approx((8 + 8 / 3) / 2)
    assert record.throughput_tokens_per_sec.mean == pytest.approx((90 + 30) / 2)
    assert record.padding_fraction == 0.25
    assert record.forward_ms_mean == pytest.approx(700)
    assert record.cpu_mem_used == 5.0
    assert record.achieved_tflops == pytest.approx(8 / 1.4)
    assert record.mfu == pytest.approx(0.8 / 1.4)
    assert record.stable is False


def test_phases_that_do_not_add_up_are_a_warning() -> None:
    quiet = summarise_runs(4, [run(1.0)])
    assert not any("phases" in text for text in quiet.warnings)
    loud = summarise_runs(4, [run(1.0, phase_seconds=(0.1, 0.1, 0.5, 0.1))])
    assert any("phases: 20.0%" in text for text in loud.warnings)


def test_percentiles_say_how_many_they_take() -> None:
    record = summarise_runs(4, [run(1.0)])
    assert record.latency_per_batch_ms_p99 is None
    assert any("p99: 2 latencies, it takes 662" in text for text in record.warnings)


def test_every_figure_has_a_unit() -> None:
    stems = {name.removesuffix(f"_{part}") for name in COLUMNS for part in ("mean", "std", "min", "max", "median")}
    for name in COLUMNS:
        if name not in ("status", "stable", "warnings"):
            assert any(name.startswith(unit) for unit in UNITS), name
    assert set(UNITS) <= stems | set(COLUMNS)


def test_a_record_cannot_change() -> None:
    with pytest.raises(AttributeError):
        BatchSizeRecord(batch_size=1, status="ok", num_runs=1, num_samples=1).num_runs = 2  # type: ignore[misc]

"""The table row of several runs, worked by hand."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from utils.schema.batch_size import BatchSizeRow
from utils.schema.common import NO_REASON
from utils.schema.sweep_checkpoint import GpuReadings, Run
from utils.sweep.run_summary import RunContext, failed_row, summarise_runs
from utils.sweep.schedule import Trial
from utils.system.device import NOT_ON_CUDA
from utils.system.gpu_readings import no_readings


def run(seconds: float, **changes: Any) -> Run:
    """Two full batches of four rows; three quarters of the tokens are real."""
    half = seconds / 2
    settings: dict[str, Any] = {
        "num_samples": 8,
        "seconds": seconds,
        "num_batches": 2,
        "num_full_batches": 2,
        "phase_seconds": ((0.1 * half, 0.1 * half, 0.7 * half, 0.1 * half),) * 2,
        "real_tokens": 90,
        "padding_tokens": 30,
        "resident_bytes": 5_000_000,
        "resident_peak_bytes": 6_000_000,
        "cpu_wait_fraction": 0.01,
        "gpu": no_readings(NOT_ON_CUDA),
    }
    return Run(**{**settings, **changes})


def summarise(runs: list[Run], **context: Any) -> BatchSizeRow:
    """The row of runs at batch size 4."""
    return summarise_runs(4, runs, RunContext(**context))


def test_a_row_by_hand() -> None:
    record = summarise([run(1.0), run(3.0)], flops_per_sample=1e12, matmul_flops_per_s=1e13)
    assert record.latency_per_sample_ms_mean == pytest.approx(250)
    assert record.latency_per_batch_ms_mean == pytest.approx(1000)
    assert record.latency_per_batch_ms_mad == pytest.approx(500)
    assert record.throughput_samples_per_sec_mean == pytest.approx((8 + 8 / 3) / 2)
    assert record.throughput_tokens_per_sec_mean == pytest.approx((90 + 30) / 2)
    assert record.latency_per_token_ms_mean == pytest.approx((1000 / 90 + 3000 / 90) / 2)
    assert (
        record.tokens_per_batch_mean,
        record.padding_tokens_per_batch_mean,
        record.padding_fraction,
    ) == (45, 15, 0.25)
    assert record.forward_ms_mean == pytest.approx(700)
    assert (record.cpu_mem_used, record.cpu_mem_peak) == (5.0, 6.0)
    assert record.achieved_tflops == pytest.approx(4 / 0.7)
    assert record.mfu == pytest.approx(0.4 / 0.7)
    assert record.stable is False


def test_a_smaller_last_batch_is_in_no_metric_of_a_batch() -> None:
    parts = ((0.1, 0.0, 0.8, 0.1), (0.0, 0.0, 0.1, 0.0))
    record = summarise(
        [
            run(
                1.1,
                num_samples=5,
                num_full_batches=1,
                phase_seconds=parts,
                launch_seconds=(0.7, 9.0),
            )
        ]
    )
    assert record.latency_per_batch_ms_mean == pytest.approx(1000)
    assert (record.forward_ms_mean, record.forward_launch_ms_mean) == (
        pytest.approx(800),
        pytest.approx(700),
    )
    assert record.forward_device_ms_mean is None
    assert record.latency_total_s_mean == pytest.approx(1.1)
    uneven = summarise(
        [run(1.1, num_samples=5, num_full_batches=1, phase_seconds=parts)], flops_per_sample=9e11
    )
    assert uneven.achieved_tflops == pytest.approx(
        5 * 0.9 / 0.9
    )  # five rows in 0.8 s and 0.1 s of forward


def test_phases_that_do_not_add_up_are_a_warning() -> None:
    assert not any("phases" in text for text in summarise([run(1.0)]).warnings)
    loud = summarise([run(1.0, phase_seconds=((0.05, 0.05, 0.25, 0.05),) * 2)])
    assert any("phases: 20.0%" in text for text in loud.warnings)


def test_missing_percentiles_say_how_many_runs_are_needed() -> None:
    record = summarise([run(1.0)])
    assert record.latency_per_batch_ms_p99 is None
    assert record.unavailable["latency_per_batch_ms_p99"] == (
        "2 latencies, 662 are needed (profiling.num_measurement_runs=331)"
    )
    assert summarise([run(1.0)] * 32).latency_per_batch_ms_p90 == pytest.approx(500)


def test_memory_of_the_device_and_what_lies_outside_the_allocator() -> None:
    gpu = GpuReadings(device_memory_bytes=9 * 10**9)
    record = summarise(
        [
            run(
                1.0,
                reserved_bytes=7 * 10**9,
                peak_bytes=5 * 10**9,
                activation_bytes=3 * 10**9,
                gpu=gpu,
            )
        ]
    )
    assert (record.gpu_mem_device, record.gpu_mem_other) == (9000, 2000)
    assert (record.peak_gpu_mem, record.activations_mem) == (5000, 3000)
    assert summarise([run(1.0, gpu=gpu)]).gpu_mem_other is None


def test_gpu_readings_come_from_the_sustained_run_if_there_is_one() -> None:
    short = GpuReadings(unavailable={"util_pct_mean": "too short"})
    long = GpuReadings(
        util_pct_mean=91.0, power_w_mean=300.0, energy_j=1200.0, energy_source="counter"
    )
    sustained = run(4.0, num_samples=32, gpu=long)
    record = summarise([run(1.0, gpu=short), run(1.0, gpu=short)], sustained_run=sustained)
    assert (record.gpu_util_pct_mean, record.gpu_power_w_mean) == (91.0, 300.0)
    assert (record.energy_per_sample_j, record.energy_source) == (37.5, "counter")
    assert record.reason("gpu_util_pct_mean") is None
    assert record.latency_total_s_mean == 1.0
    assert summarise([run(1.0, gpu=short)]).unavailable["gpu_util_pct_mean"] == "too short"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"gpu": GpuReadings(throttled=("hardware thermal slowdown",))},
            "throttled: the GPU lowered its clock (hardware thermal slowdown",
        ),
        ({"gpu": GpuReadings(shared=True)}, "shared: another process"),
        ({"cpu_wait_fraction": 0.2}, "cpu-wait: threads waited"),
    ],
)
def test_a_row_with_interference_is_not_stable_and_says_why(
    changes: dict[str, Any], message: str
) -> None:
    assert summarise([run(1.0)] * 6).stable is True
    record = summarise([run(1.0, **changes)] * 6)
    assert record.stable is False
    assert any(message in text for text in record.warnings)


def test_no_interval_reaches_below_zero() -> None:
    record = summarise([run(seconds) for seconds in (1.0, 1.0, 3.2, 3.2, 3.2)], process_spread=0.4)
    assert (
        record.latency_per_sample_ms_median_ci95_low,
        record.throughput_samples_per_sec_ci95_low,
    ) == (0.0, 0.0)


def test_interference_with_the_sustained_run_alone_counts() -> None:
    sustained = run(
        4.0,
        reserved_bytes=2 * 10**9,
        gpu=GpuReadings(throttled=("power brake",), device_memory_bytes=5 * 10**9),
    )
    record = summarise([run(1.0)] * 6, sustained_run=sustained)
    assert (record.stable, record.gpu_mem_device, record.gpu_mem_other) == (False, 5000, 3000)


def test_intervals_allow_for_the_spread_between_processes() -> None:
    runs = [run(1 + 0.001 * (-1) ** i) for i in range(10)]
    alone, among = summarise(runs, process_spread=0.0), summarise(runs, process_spread=0.05)
    mean, half = among.throughput_samples_per_sec_mean, among.throughput_samples_per_sec_ci95_high
    own = 2.262 * 0.001054 / 10**0.5
    assert (half - mean) / mean == pytest.approx(
        (2 * (0.05**2 * 1.96**2 + own**2)) ** 0.5, rel=1e-3
    )
    assert among.latency_per_sample_ms_median_ci95_low < alone.latency_per_sample_ms_median_ci95_low
    assert (alone.throughput_samples_per_sec_ci95_high - mean) / mean == pytest.approx(
        2**0.5 * own, rel=1e-2
    )
    unknown = summarise(runs, process_spread=None)
    assert (unknown.throughput_samples_per_sec_ci95_high - mean) / mean == pytest.approx(
        own, rel=1e-2
    )
    assert any("profiling.process_spread" in text for text in unknown.warnings)
    assert not any("profiling.process_spread" in text for text in alone.warnings)


def test_autocorrelated_runs_widen_the_interval_and_say_so() -> None:
    times = [1 + 0.01 * (i // 10) for i in range(40)]
    record = summarise([run(seconds) for seconds in times], process_spread=0.0)
    shuffled = summarise([run(seconds) for seconds in times[::10] * 10], process_spread=0.0)
    assert any("interval: runs resemble" in text for text in record.warnings)
    width = record.throughput_samples_per_sec_ci95_high - record.throughput_samples_per_sec_ci95_low
    assert width > 2 * (
        shuffled.throughput_samples_per_sec_ci95_high - shuffled.throughput_samples_per_sec_ci95_low
    )


GPU = GpuReadings(
    util_pct_mean=90.0,
    power_w_mean=300.0,
    energy_j=80.0,
    energy_source="counter",
    device_memory_bytes=9 * 10**9,
    sm_clock_mhz_mean=1980.0,
    temperature_c_max=50.0,
    shared=False,
)


def test_flops_that_were_not_counted_in_time_have_their_reason() -> None:
    trial = Trial(batch_size=4, num_samples=8, runs=[run(1.0), run(1.1)], flops_reason="no time")
    record = trial.record()
    for column in ("flops_per_sample", "achieved_tflops", "mfu"):
        assert getattr(record, column) is None
        assert record.unavailable[column] == "no time"


def run_on_a_gpu(seconds: float) -> Run:
    """A run in which everything was measured."""
    return run(
        seconds,
        launch_seconds=(0.1, 0.1),
        device_seconds=(0.3, 0.3),
        allocated_bytes=3 * 10**9,
        allocated_change_bytes=10**6,
        reserved_bytes=7 * 10**9,
        peak_bytes=5 * 10**9,
        activation_bytes=2 * 10**9,
        gpu=GPU,
    )


def test_every_column_is_filled_where_everything_was_measured() -> None:
    """A column that nobody fills is missed here."""
    record = summarise(
        [run_on_a_gpu(1.0 + number / 1000) for number in range(331)],
        flops_per_sample=1e12,
        num_truncated=1,
        matmul_flops_per_s=1e13,
    )
    assert record.unavailable == {}
    assert [name for name, value in record.to_dict().items() if value is None] == []
    assert (record.gpu_mem_used, record.gpu_mem_change) == (3000, 1)


BARE_BLOCK = Run(
    num_samples=1,
    seconds=1.0,
    num_batches=1,
    resident_bytes=5_000_000,
    gpu=no_readings(NOT_ON_CUDA),
)


@pytest.mark.parametrize(
    "runs",
    [
        [run(1.0)],
        [run(1.0)] * 3,
        [BARE_BLOCK],
        [run(1.0, num_full_batches=0)],
        [run(1.0, real_tokens=0, padding_tokens=0)],
        [run_on_a_gpu(1.0)],
    ],
    ids=["one run", "three runs", "a bare block", "no full batch", "no tokens", "on a GPU"],
)
def test_each_empty_column_has_a_reason(runs: list[Run]) -> None:
    record = summarise_runs(4, runs)
    empty = [name for name, value in record.to_dict().items() if value is None]
    assert set(record.unavailable) == set(empty)
    assert NO_REASON not in record.unavailable.values()


def test_columns_of_the_allocator_say_that_there_is_no_gpu() -> None:
    assert summarise([run(1.0)]).unavailable["peak_gpu_mem"] == NOT_ON_CUDA


def test_a_failed_batch_size_gives_its_reason_for_every_metric() -> None:
    record = failed_row(4, 8, "oom", ["memory: out of memory: 1 GiB", "texts repeat"])
    empty = [name for name, value in record.to_dict().items() if value is None]
    assert set(record.unavailable) == set(empty)
    assert set(record.unavailable.values()) == {"out of memory: 1 GiB"}
    assert record.warnings == ("memory: out of memory: 1 GiB", "texts repeat")


def test_a_record_cannot_change() -> None:
    record = summarise([run(1.0)])
    with pytest.raises(ValidationError):
        record.num_runs = 2  # type: ignore[misc]

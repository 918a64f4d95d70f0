"""What samples of known values show over known windows, and the file of all of them."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from utils.schema.sweep_checkpoint import GpuReadings
from utils.system.gpu_readings import (
    AVERAGE,
    BUFFER,
    INSTANT,
    Sample,
    Window,
    summarize_window,
)
from utils.system.gpu_timeline import TIMELINE_COLUMNS, timeline_row, write_timeline

START_S = 100.0


def samples(*powers: float | None, step_s: float = 0.5, **values: Any) -> list[Sample]:
    """One each ``step_s`` from the window's start on; utilisation 50, 51, 52 …"""
    known: dict[str, Any] = {
        "memory_bytes": 10**9,
        "sm_clock_mhz": 1_980,
        "memory_clock_mhz": 2_619,
        "temperature_c": 50,
        "clock_limit_reasons": 0,
    }
    known |= values
    return [
        Sample(time_s=START_S + i * step_s, util_pct=50.0 + i, power_w=power, **known)
        for i, power in enumerate(powers)
    ]


def read(taken: list[Sample], seconds: float, **values: Any) -> GpuReadings:
    return summarize_window(
        Window(interval_s=0.5, start_s=START_S, end_s=START_S + seconds, samples=taken, **values)
    )


def test_utilisation_counts_only_where_it_looks_back_into_the_window() -> None:
    assert read(samples(*[100.0] * 5), 2.5).util_pct_mean == pytest.approx((52 + 53 + 54) / 3)
    assert read(samples(*[100.0] * 5), 2.5, idle=True).util_pct_mean == pytest.approx(52), (
        "the second before was idle too"
    )


@pytest.mark.parametrize("metric", ["util_pct_mean", "power_w_mean"])
def test_a_window_shorter_than_a_second_has_no_averages(metric: str) -> None:
    short, long = read(samples(100.0, 100.0), 0.99), read(samples(100.0, 100.0, 100.0), 1.0)
    assert (short.util_pct_mean, short.power_w_mean, short.power_source) == (None, None, None)
    reason = "the window is too short, the driver's value describes a longer time"
    assert short.unavailable[metric] == reason
    assert (long.util_pct_mean, long.power_w_mean, long.power_source) == (52.0, 100.0, AVERAGE)
    assert metric not in long.unavailable


def test_instant_power_needs_five_steps_and_looks_back_over_one() -> None:
    rising = samples(*range(0, 700, 100), step_s=0.1)
    assert read(rising, 0.49, power_source=INSTANT).power_w_mean is None
    readings = read(rising, 0.5, power_source=INSTANT)
    assert (readings.power_w_mean, readings.power_source) == (pytest.approx(300.0), INSTANT), (
        "100 to 500 W"
    )
    assert (readings.energy_j, readings.energy_source) == (pytest.approx(150.0), "integrated power")


def test_energy_is_the_counters_where_the_window_holds_enough_of_its_steps() -> None:
    power = samples(*[100.0] * 7, step_s=0.2)
    assert (
        read(power, 1.2, counter_j=123.0).energy_j,
        read(power, 1.2, counter_j=123.0).energy_source,
    ) == (123.0, "counter")
    stuck = read(power, 1.2, counter_j=0.0)
    assert (stuck.energy_j, stuck.energy_source) == (pytest.approx(120.0), "integrated power")
    short = read(power, 0.9, counter_j=90.0)
    assert (short.energy_j, short.energy_source) == (None, None)
    assert short.unavailable["energy_j"].startswith("the window is too short")


def test_power_is_a_mean_over_time_not_over_readings() -> None:
    uneven = [
        Sample(time_s=START_S + at_s, power_w=power)
        for at_s, power in ((1.0, 100), (1.1, 100), (1.2, 100), (2.0, 300))
    ]
    readings = read(uneven, 2.0)
    # 0.2 s at 100 W, then 0.8 s at a mean of 200 W. The second before the first reading is what
    # that reading describes.
    assert readings.power_w_mean == pytest.approx((0.2 * 100 + 0.8 * 200) / 1.0)
    assert readings.energy_j == pytest.approx(180.0 * 2.0)


def test_the_drivers_samples_count_if_they_are_finer() -> None:
    finer = {
        "power_w": tuple((START_S + 1.0 + i * 0.1, 200.0 + i) for i in range(11)),
        "util_pct": ((START_S + 1.5, 10.0),),
    }
    readings = read(samples(*[100.0] * 5), 2.0, buffered=finer)
    assert (readings.power_w_mean, readings.power_source) == (pytest.approx(205.0), BUFFER)
    assert readings.util_pct_mean == pytest.approx(53.0), (
        "three polled moments (52, 53, 54) against one"
    )
    outside = {"power_w": tuple((START_S + i * 0.09, 200.0) for i in range(11))}
    assert read(samples(*[100.0] * 5), 2.0, buffered=outside).power_source == AVERAGE, (
        "they look back before the window"
    )


def test_a_value_that_one_reading_in_five_lacks_is_none() -> None:
    taken = samples(100.0, None, 100.0, 100.0, 100.0)
    readings = read(taken, 2.0, errors={"power_w": "nvmlDeviceGetPowerUsage: Unknown Error"})
    assert (readings.power_w_mean, readings.energy_j) == (None, None)
    assert readings.unavailable["power_w_mean"] == "nvmlDeviceGetPowerUsage: Unknown Error"


def test_largest_memory_and_temperature_and_mean_clocks() -> None:
    first, second = samples(100.0, 100.0)
    hotter = Sample(
        time_s=START_S + 0.25,
        memory_bytes=3 * 10**9,
        sm_clock_mhz=1_000,
        memory_clock_mhz=2_619,
        temperature_c=81,
    )
    readings = read([first, hotter, second], 0.5)
    assert (readings.temperature_c_max, readings.device_memory_bytes) == (81, 3 * 10**9)
    assert (readings.sm_clock_mhz_mean, readings.memory_clock_mhz_mean) == (1_490, 2_619)
    assert (readings.num_samples, readings.interval_s_actual) == (3, 0.25)


@pytest.mark.parametrize(
    ("bits", "named"),
    [
        (0x1 | 0x2 | 0x10 | 0x100, ()),
        (0x4, ()),
        (0x8, ("hardware slowdown",)),
        (0x20 | 0x1, ("software thermal slowdown",)),
        (0x40, ("hardware thermal slowdown",)),
        (0x80 | 0x4, ("power brake",)),
    ],
)
def test_reasons_that_spoil_a_measurement(bits: int, named: tuple[str, ...]) -> None:
    taken = [
        *samples(100.0),
        Sample(time_s=START_S + 1, power_w=100.0, clock_limit_reasons=bits),
        *samples(*[100.0] * 9)[5:],
    ]
    readings = read(taken, 4.0, counter_j=1.0)
    assert readings.throttled == named, "one sample of six is enough"
    warnings = [text for text in readings.warnings if text.startswith("throttled")]
    assert warnings == (
        [f"throttled: the GPU lowered its clock ({', '.join(named)})"] if named else []
    )


@pytest.mark.parametrize(("bits", "is_capped"), [(0x1 | 0x20, False), (0x4 | 0x20, True)])
def test_a_power_cap_is_reported_apart_from_what_spoils_a_run(bits: int, is_capped: bool) -> None:
    taken = samples(*[100.0] * 9)
    taken[2] = Sample(time_s=taken[2].time_s, power_w=100.0, clock_limit_reasons=bits)
    readings = read(taken, 4.0, counter_j=1.0)
    assert readings.power_capped == is_capped
    assert any("within its power limit" in text for text in readings.warnings) == is_capped
    assert readings.throttled == ("software thermal slowdown",)


@pytest.mark.parametrize(
    ("processes", "idle", "util", "shared"),
    [
        (2, False, 99, True),
        (1, False, 99, False),
        (0, False, 99, None),
        (None, False, 99, None),
        (1, True, 6, True),
        (1, True, 5, False),
        (0, True, 6, True),
        (None, True, 0, False),
        (0, True, None, None),
        (1, True, None, False),
        (2, True, 0, True),
    ],
)
def test_shared_by_the_number_of_processes_or_by_work_that_is_not_ours(
    processes: int | None, idle: bool, util: float | None, shared: bool | None
) -> None:
    taken = [Sample(time_s=START_S + i * 0.5, util_pct=util) for i in range(4)]
    readings = read(taken, 2.0, num_processes=processes, idle=idle)
    assert readings.shared is shared
    assert any(text.startswith("shared:") for text in readings.warnings) == bool(shared)


def test_the_cost_of_the_thread_and_a_longer_interval_are_reported() -> None:
    both = [read(samples(*[1.0] * 5, step_s=step_s), 10.0, cpu_s=0.05) for step_s in (1.0, 1.1)]
    assert [readings.thread_cpu_share for readings in both] == [0.005, 0.005]
    assert [readings.interval_s_actual for readings in both] == [
        pytest.approx(1.0),
        pytest.approx(1.1),
    ]
    assert [
        any("was not read every" in text for text in readings.warnings) for readings in both
    ] == [
        False,
        True,
    ]


def test_a_window_without_a_reading_has_reasons_only() -> None:
    readings = read([], 0.01)
    assert readings.unavailable
    assert (readings.warnings, readings.num_samples) == ((), 0)
    nothing = GpuReadings(unavailable=readings.unavailable, thread_cpu_share=0.0)
    assert readings == nothing


@pytest.mark.parametrize(
    ("bits", "words"),
    [
        (0, "none"),
        (None, None),
        (0x4 | 0x20, "software power cap; software thermal slowdown"),
        (0x800, "0x800"),
    ],
)
def test_a_row_has_clock_limits_in_words(bits: int | None, words: str | None) -> None:
    row = timeline_row(Sample(time_s=START_S + 1.23456, clock_limit_reasons=bits), START_S, {})
    assert tuple(row) == TIMELINE_COLUMNS
    assert row["clock_limit_reasons"] == words
    assert (row["time_s"], row["step"], row["memory_mb"]) == (1.2346, None, None)


def test_a_run_replaces_the_file_and_appends_to_it(tmp_path: Path) -> None:
    path = tmp_path / "results" / "gpu_timeline.csv"
    rows = [
        timeline_row(sample, START_S, {"step": "sweep", "run": n})
        for n, sample in enumerate(samples(100.0, None))
    ]

    def written() -> list[dict[str, str]]:
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    write_timeline(path, rows[:1], append=True)
    write_timeline(path, rows[1:], append=True)
    assert [row["run"] for row in written()] == ["0", "1"]
    assert written()[1] == {
        "time_s": "0.5",
        "step": "sweep",
        "batch_size": "",
        "run": "1",
        "util_pct": "51.0",
        "memory_mb": "1000.0",
        "sm_clock_mhz": "1980",
        "memory_clock_mhz": "2619",
        "power_w": "",
        "temperature_c": "50",
        "clock_limit_reasons": "none",
    }
    write_timeline(path, [])
    assert written() == []
    assert path.read_text(encoding="utf-8").strip() == ",".join(TIMELINE_COLUMNS)
    assert list(path.parent.iterdir()) == [path], "no temporary file stays"

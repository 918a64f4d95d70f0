"""NVML's readings through a stand-in for the driver: device, calls, cost and failures."""

from __future__ import annotations

import sys
import threading
import time
from contextlib import nullcontext
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.system.nvml_driver import MIG_LACKS, MIG_UUID, UUID, Driver, NVMLError
from utils.schema.sweep_checkpoint import GpuReadings
from utils.system import gpu_monitor, gpu_nvml, gpu_readings
from utils.system.gpu_monitor import GpuMonitor, device_uuids
from utils.system.gpu_readings import Sample

CUDA = torch.device("cuda:0")


def wait_for_samples(monitor: GpuMonitor, number: int = 3) -> None:
    until = len(monitor._rows) + number
    while len(monitor._rows) < until:
        time.sleep(0.002)


def samples_of(monitor: GpuMonitor) -> list[Sample]:
    """All samples that the monitor has taken."""
    return [sample for sample, _ in monitor._rows]


def window(monitor: GpuMonitor, seconds: float = 0.0) -> GpuReadings:
    monitor.start()
    time.sleep(seconds)
    if monitor.reason is None:
        wait_for_samples(monitor)
    return monitor.stop()


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stand-in costs more than its short intervals allow; one test checks the real limit."""
    monkeypatch.setattr(gpu_monitor, "CPU_SHARE", 1.0)


@pytest.fixture
def short_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver's second takes 20 ms, so that a test need not wait for it."""
    monkeypatch.setattr(gpu_readings, "LOOK_BACK_S", 0.02)
    monkeypatch.setattr(
        gpu_readings, "LIMITS_S", dict.fromkeys(gpu_readings.LIMITS_S, (0.02, 0.02))
    )


def test_every_value_is_of_the_device_with_that_uuid() -> None:
    driver = Driver()
    monitor = GpuMonitor(CUDA, 0.002, nvml=driver, uuid=UUID)
    readings = window(monitor)
    assert driver.asked == [UUID]
    sample = samples_of(monitor)[0]
    assert (sample.util_pct, sample.power_w, sample.memory_bytes) == (80.0, 300.0, 10**9)
    assert (sample.sm_clock_mhz, sample.memory_clock_mhz, sample.temperature_c) == (
        1_980,
        2_619,
        50,
    )
    assert readings.device_memory_bytes == 10**9
    assert readings.num_samples == len(samples_of(monitor)) > 1
    assert readings.power_capped
    assert readings.throttled == ()
    assert readings.shared is False
    assert readings.util_pct_mean is readings.power_w_mean is readings.energy_j is None, (
        "some milliseconds describe none of them"
    )


def test_older_calls_stand_in_for_newer_ones() -> None:
    driver = Driver("nvmlDeviceGetFieldValues", "nvmlDeviceGetCurrentClocksEventReasons")
    driver._DeviceGetMemoryInfo = lambda: SimpleNamespace(used=5)  # type: ignore[method-assign]
    memory = driver.nvmlDeviceGetMemoryInfo

    def first_version_only(handle: str, *version: int) -> Any:
        if version:
            raise NVMLError("Function Not Found")
        return memory(handle)

    driver.nvmlDeviceGetMemoryInfo = first_version_only
    monitor = GpuMonitor(CUDA, 0.002, nvml=driver, uuid=UUID)
    readings = window(monitor)
    assert samples_of(monitor)[0].power_w == 290.0
    assert readings.device_memory_bytes == 5
    assert readings.throttled == ("hardware thermal slowdown",)
    assert monitor._device is not None and monitor._device.power_source == gpu_readings.AVERAGE


def test_a_field_that_the_device_refuses_is_no_power() -> None:
    driver = Driver()
    refused = SimpleNamespace(nvmlReturn=3, valueType=1, value=SimpleNamespace(uiVal=0))
    driver._DeviceGetFieldValues = lambda fields: [refused]  # type: ignore[method-assign]
    monitor = GpuMonitor(CUDA, 0.002, nvml=driver, uuid=UUID)
    window(monitor)
    assert samples_of(monitor)[0].power_w == 290.0


@pytest.mark.parametrize("value", list(gpu_nvml.CALLS))
def test_a_value_that_the_driver_lacks_is_none_and_the_others_stay(value: str) -> None:
    names = {call[0] for call in gpu_nvml.CALLS[value]}
    monitor = GpuMonitor(CUDA, 0.002, nvml=Driver(*names), uuid=UUID)
    readings = window(monitor)
    for name in gpu_nvml.SAMPLED:
        lacking = any(call[0] in names for call in gpu_nvml.CALLS[name])
        assert (getattr(samples_of(monitor)[0], name) is None) == lacking
    reasons = [text for text in readings.unavailable.values() if "Not Supported" in text]
    assert len(reasons) == {
        "energy_j": 0,
        "num_processes": 0,
        "sm_clock_mhz": 2,
        "memory_clock_mhz": 2,
    }.get(value, 1)


def test_a_function_that_an_older_pynvml_lacks_is_none_with_the_reason() -> None:
    driver = Driver()
    del Driver._DeviceGetTemperature
    try:
        readings = window(GpuMonitor(CUDA, 0.002, nvml=driver, uuid=UUID))
    finally:
        Driver._DeviceGetTemperature = lambda self, sensor: 50  # type: ignore[method-assign]
    assert readings.temperature_c_max is None
    assert readings.unavailable["temperature_c_max"].startswith("nvmlDeviceGetTemperature")


def test_a_gpu_that_is_lost_during_a_run_leaves_reasons_and_no_partial_values(
    short_limits: None,
) -> None:
    driver = Driver()
    monitor = GpuMonitor(CUDA, 0.002, nvml=driver, uuid=UUID)
    monitor.start()
    time.sleep(0.03)
    wait_for_samples(monitor)
    driver.lost = True
    wait_for_samples(monitor, 1 + len(monitor._rows) // 5)  # over the tenth that may be missing
    readings = monitor.stop()
    assert samples_of(monitor)[0].util_pct == 80.0
    assert samples_of(monitor)[-1].util_pct is None
    values = (
        readings.util_pct_mean,
        readings.power_w_mean,
        readings.energy_j,
        readings.device_memory_bytes,
        readings.sm_clock_mhz_mean,
        readings.temperature_c_max,
    )
    assert values == (None,) * 6
    reasons = list(readings.unavailable.values())
    assert sum("GPU is lost" in text for text in reasons) == len(gpu_nvml.SAMPLED)
    assert "energy_j" in readings.unavailable


def test_under_mig_the_instance_has_memory_and_no_utilisation() -> None:
    driver = Driver(*MIG_LACKS, uuids=(MIG_UUID,))
    readings = window(GpuMonitor(CUDA, 0.002, nvml=driver, uuid=MIG_UUID))
    assert readings.device_memory_bytes == 10**9
    assert readings.util_pct_mean is readings.power_w_mean is readings.energy_j is None
    assert sum("under MIG" in text for text in readings.unavailable.values()) == 2


def test_a_board_in_mig_mode_reports_nothing_of_one_instance() -> None:
    monitor = GpuMonitor(CUDA, 0.002, nvml=Driver(mig=True), uuid=UUID)
    readings = window(monitor)
    assert samples_of(monitor)[0].power_w is readings.device_memory_bytes is None
    assert readings.sm_clock_mhz_mean == 1_980, "the clock is the board's for every instance"


@pytest.mark.parametrize(
    ("visible", "device", "uuid", "names"),
    [
        (None, "cuda:0", "12-34", ["MIG-12-34", "GPU-12-34"]),
        ("1,0", "cuda:1", "GPU-12-34", ["MIG-12-34", "GPU-12-34"]),
        ("GPU-12", "cuda:0", "12-34", ["MIG-12-34", "GPU-12-34"]),
        ("MIG-56-78", "cuda", "12-34", ["MIG-56-78", "MIG-12-34", "GPU-12-34"]),
        ("MIG-GPU-12-34/1/0", "cuda:0", "12-34", ["MIG-GPU-12-34/1/0", "MIG-12-34", "GPU-12-34"]),
        ("0, MIG-56", "cuda:1", "MIG-12-34", ["MIG-56", "MIG-12-34", "GPU-12-34"]),
    ],
)
def test_names_of_a_device(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, device: str, uuid: str, names: list[str]
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid=uuid)
    )
    assert device_uuids(torch.device(device)) == names


def test_the_first_name_that_nvml_knows_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="5678")
    )
    for known in (MIG_UUID, "GPU-5678"):
        driver = Driver(uuids=(known,))
        assert GpuMonitor(CUDA, nvml=driver).reason is None
        assert set(driver.asked) == {known}


def test_without_cuda_nvml_or_the_device_there_is_a_reason_no_thread_and_no_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail("waited"))
    monkeypatch.setitem(sys.modules, "pynvml", None)
    monitors = {
        "not on a CUDA device": GpuMonitor(torch.device("cpu")),
        "does not answer (Not Found)": GpuMonitor(CUDA, nvml=Driver(), uuid="GPU-other"),
        "does not answer (Not Supported)": GpuMonitor(CUDA, nvml=Driver("nvmlInit"), uuid=UUID),
        "nvidia-ml-py is not installed": GpuMonitor(CUDA, uuid=UUID),
    }
    for words, monitor in monitors.items():
        assert monitor.reason is not None
        assert words in monitor.reason
        with monitor.sampling():
            monitor.mark(step="sweep")
            monitor.start()
            readings = monitor.stop()
            assert readings == monitor.idle()
            assert set(readings.unavailable.values()) == {monitor.reason}
            assert readings.util_pct_mean is readings.energy_j is None
            assert monitor.timeline() == []
            assert not any(thread.name == "gpu-monitor" for thread in threading.enumerate())


def test_missing_readings_are_a_warning_on_a_gpu_only() -> None:
    assert GpuMonitor(torch.device("cpu")).stop().warnings == ()
    lost = GpuMonitor(CUDA, nvml=Driver(), uuid="GPU-other")
    assert lost.stop().warnings == (f"gpu-readings: the GPU could not be read: {lost.reason}",)


def test_a_window_has_its_own_readings_and_the_thread_ends_with_it() -> None:
    monitor = GpuMonitor(CUDA, 0.002, nvml=Driver(), uuid=UUID)
    first, second = window(monitor), window(monitor)
    assert first.num_samples + second.num_samples == len(samples_of(monitor))
    assert not any(thread.name == "gpu-monitor" for thread in threading.enumerate())
    assert monitor.stop() == GpuReadings(), "no window is open"


def test_one_thread_for_many_windows_and_no_nvml_from_the_caller_inside_one() -> None:
    driver = Driver()
    monitor = GpuMonitor(CUDA, 0.002, nvml=driver, uuid=UUID)
    with monitor.sampling():
        driver.threads.clear()
        windows = [window(monitor) for _ in range(3)]
        assert sum(thread.name == "gpu-monitor" for thread in threading.enumerate()) == 1
    assert all(readings.num_samples > 1 for readings in windows)
    ours = threading.get_ident()
    by_thread = {name for name, threads in driver.threads.items() if ours not in threads}
    assert {
        "nvmlDeviceGetUtilizationRates",
        "nvmlDeviceGetClockInfo",
        "nvmlDeviceGetFieldValues",
    } <= by_thread
    assert len({thread for threads in driver.threads.values() for thread in threads - {ours}}) == 1


def test_expensive_readings_come_less_often_so_that_the_thread_stays_under_a_percent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.undo()
    driver = Driver()
    driver.cpu_s = 0.001
    monitor = GpuMonitor(CUDA, 0.002, nvml=driver, uuid=UUID)
    began_s = time.perf_counter()
    readings = window(monitor, 0.8)
    seconds = time.perf_counter() - began_s
    assert readings.thread_cpu_share is not None and readings.interval_s_actual is not None
    assert driver.cpu_s * readings.num_samples / seconds < readings.thread_cpu_share < 0.01
    assert readings.interval_s_actual > 10 * 0.002
    assert any(
        text.startswith("gpu-readings: the GPU was not read every 2 ms")
        for text in readings.warnings
    )


@pytest.mark.parametrize("stays", [True, False])
def test_a_window_too_short_for_the_cpu_limit_gets_no_reading(
    monkeypatch: pytest.MonkeyPatch, stays: bool
) -> None:
    monkeypatch.undo()
    driver = Driver()
    driver.cpu_s = 0.02
    monitor = GpuMonitor(CUDA, 0.002, nvml=driver, uuid=UUID)
    with monitor.sampling() if stays else nullcontext():
        monitor.start()
        time.sleep(0.05)  # a reading would be 40% of it
        readings = monitor.stop()
    assert readings.num_samples == 0
    assert readings.unavailable["util_pct_mean"] == "the window is too short for one reading"


def test_energy_comes_from_the_counter_in_a_window_long_enough(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gpu_readings, "COUNTER_SHORTEST_S", 0.3)
    monitor = GpuMonitor(
        CUDA, 0.01, nvml=Driver("nvmlDeviceGetFieldValues", "nvmlDeviceGetPowerUsage"), uuid=UUID
    )
    began_s = time.perf_counter()
    readings = window(monitor, 0.3)
    seconds = time.perf_counter() - began_s
    assert readings.energy_source == "counter"
    assert readings.energy_j is not None
    assert 300 * (0.3 - 0.1) <= readings.energy_j <= 300 * (seconds + 0.1), (
        "a step of 100 ms at 300 W at either end"
    )
    assert readings.power_w_mean is None


def test_the_drivers_own_samples_are_taken_if_they_show_more_distinct_moments(
    short_limits: None,
) -> None:
    readings = window(GpuMonitor(CUDA, 0.01, nvml=Driver(), uuid=UUID), 0.2)
    assert readings.util_pct_mean == pytest.approx(70.0), (
        "polled utilisation never changed: 80, one moment"
    )
    assert (readings.power_w_mean, readings.power_source) == (pytest.approx(310.0), "sample buffer")
    assert readings.energy_source == "integrated power"
    assert readings.energy_j is not None and readings.energy_j >= 310 * 0.2


@pytest.mark.parametrize(
    "driver", [Driver("nvmlDeviceGetSamples"), Driver()], ids=["no buffers", "another clock"]
)
def test_without_usable_buffers_polling_stays(short_limits: None, driver: Driver) -> None:
    driver.epoch_s = -1_000.0
    readings = window(GpuMonitor(CUDA, 0.002, nvml=driver, uuid=UUID), 0.1)
    assert (readings.util_pct_mean, readings.power_w_mean) == (80.0, 300.0)
    assert readings.power_source == "instant"


def test_buffers_are_fetched_before_they_run_over(
    short_limits: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_monitor, "BUFFER_PERIOD_S", 0.1)
    fetched: list[gpu_readings.Window] = []
    monkeypatch.setattr(gpu_readings, "summarize_window", fetched.append)
    monitor = GpuMonitor(CUDA, 0.01, nvml=Driver(), uuid=UUID)
    window(monitor, 1.0)
    times = [time_s for time_s, _ in fetched[0].buffered["power_w"]]
    assert times[0] - fetched[0].start_s < 0.3, "half a second is all that the driver keeps"
    assert min(later - earlier for earlier, later in pairwise(times)) > 0.005, "none twice"
    assert len(times) > 60


def test_two_processes_share_the_gpu_and_a_container_hides_them() -> None:
    both = window(GpuMonitor(CUDA, 0.002, nvml=Driver(num_processes=2), uuid=UUID))
    assert both.shared is True
    assert (
        "shared: NVML lists 2 compute processes on this GPU, this process is one of them"
        in both.warnings
    )
    assert window(GpuMonitor(CUDA, 0.002, nvml=Driver(num_processes=0), uuid=UUID)).shared is None


def test_a_gpu_that_is_busy_while_we_are_idle_is_shared(short_limits: None) -> None:
    driver = Driver("nvmlDeviceGetSamples", num_processes=0)
    monitor = GpuMonitor(CUDA, 0.002, nvml=driver, uuid=UUID)
    driver.util_pct = 0
    began_s = time.perf_counter()
    quiet = monitor.idle(0.1)
    assert samples_of(monitor)[0].time_s - began_s > gpu_readings.LOOK_BACK_S
    assert (quiet.util_pct_mean, quiet.power_w_mean, quiet.shared) == (0.0, 300.0, False)
    driver.util_pct = 30
    busy = monitor.idle(0.1)
    assert busy.shared is True
    assert any(text.startswith("shared: the GPU works") for text in busy.warnings)


def test_the_timeline_has_every_sample_once_with_its_labels() -> None:
    monitor = GpuMonitor(CUDA, 0.002, nvml=Driver(), uuid=UUID)
    monitor.mark(step="sweep", batch_size=8, run=3)
    first = window(monitor)
    monitor.mark(step="evaluation")
    second = window(monitor)
    rows = monitor.timeline()
    assert len(rows) == first.num_samples + second.num_samples
    assert [row["time_s"] for row in rows] == sorted(row["time_s"] for row in rows)
    assert {(row["step"], row["batch_size"], row["run"]) for row in rows} == {
        ("sweep", 8, 3),
        ("evaluation", None, None),
    }
    assert rows[0] | {"time_s": 0} == {
        "time_s": 0,
        "step": "sweep",
        "batch_size": 8,
        "run": 3,
        "util_pct": 80.0,
        "memory_mb": 1_000.0,
        "sm_clock_mhz": 1_980,
        "memory_clock_mhz": 2_619,
        "power_w": 300.0,
        "temperature_c": 50,
        "clock_limit_reasons": "software power cap",
    }
    assert monitor.timeline() == []

"""NVML's readings, through a stand-in for the driver: which device, what counts, what is refused."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from utils.gpu_monitor import GpuMonitor, Sample, interpret

UUID = "GPU-1234"


class Driver:
    """What pynvml offers, for one device."""

    NVML_CLOCK_SM, NVML_TEMPERATURE_GPU = 1, 0

    class NVMLError(Exception):
        pass

    def __init__(self, missing: tuple[str, ...] = ()) -> None:
        self.missing, self.asked, self.energy_mj = missing, [], 0.0

    def nvmlInit(self) -> None: ...  # noqa: N802

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802
        if uuid != UUID:
            raise self.NVMLError("no such device")
        self.asked.append(uuid)
        return "handle"

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("nvml"):
            raise AttributeError(name)

        def read(handle: str, *arguments: int) -> Any:
            assert handle == "handle"
            if name in self.missing:
                raise self.NVMLError("not supported")
            self.energy_mj += 5_000 if name == "nvmlDeviceGetTotalEnergyConsumption" else 0
            return {
                "nvmlDeviceGetTotalEnergyConsumption": self.energy_mj, "nvmlDeviceGetPowerUsage": 300_000,
                "nvmlDeviceGetUtilizationRates": SimpleNamespace(gpu=80), "nvmlDeviceGetClockInfo": 1_980,
                "nvmlDeviceGetMemoryInfo": SimpleNamespace(used=10**9), "nvmlDeviceGetTemperature": 50,
                "nvmlDeviceGetCurrentClocksThrottleReasons": 0x4,
            }[name]

        return read


def samples(*powers: float | None, step_s: float = 0.5, reasons: int = 0) -> tuple[Sample, ...]:
    return tuple(
        Sample(time_s=i * step_s, util_pct=50.0 + i, power_w=power, memory_bytes=1e9, sm_clock_mhz=1980.0,
               temperature_c=50.0, clock_limit_reasons=reasons)
        for i, power in enumerate(powers)
    )


def test_the_device_is_found_by_uuid() -> None:
    driver = Driver()
    monitor = GpuMonitor(torch.device("cuda:0"), 0.001, nvml=driver, uuid=UUID)
    monitor.start()
    time.sleep(0.05)
    readings = monitor.stop()
    assert driver.asked == [UUID]
    assert len(readings.samples) > 1
    assert readings.samples[0].memory_bytes == 1e9
    assert readings.util_pct_mean is None
    assert any("too short" in text for text in readings.warnings)
    assert any("software power cap" in text for text in readings.warnings)


def test_without_the_device_or_cuda_there_is_a_reason_and_no_thread() -> None:
    for monitor in (
        GpuMonitor(torch.device("cuda:0"), nvml=Driver(), uuid="GPU-other"), GpuMonitor(torch.device("cpu")),
    ):
        monitor.start()
        readings = monitor.stop()
        assert readings.samples == ()
        assert readings.power_w_mean is None
        assert readings.warnings


def test_a_figure_that_the_driver_lacks_is_none() -> None:
    driver = Driver(missing=("nvmlDeviceGetUtilizationRates", "nvmlDeviceGetTotalEnergyConsumption"))
    monitor = GpuMonitor(torch.device("cuda:0"), 0.001, nvml=driver, uuid=UUID)
    monitor.start()
    time.sleep(0.02)
    assert monitor.stop().samples[0].util_pct is None


def test_utilisation_counts_only_samples_that_look_back_into_the_window() -> None:
    readings = interpret(samples(100.0, 100.0, 100.0, 100.0, 100.0), 2.5, None)
    assert readings.util_pct_mean == pytest.approx((52 + 53 + 54) / 3)


def test_energy_by_the_counter_else_by_integrated_power() -> None:
    counted = interpret(samples(100.0, 200.0, 100.0), 1.5, 123.0)
    assert (counted.energy_j, counted.energy_source) == (123.0, "counter")
    integrated = interpret(samples(100.0, 200.0, None, 100.0), 2.0, None)
    # 0.5 s at a mean of 150 W, then 1 s at a mean of 150 W
    assert (integrated.energy_j, integrated.energy_source) == (pytest.approx(225.0), "integrated power")


def test_a_short_window_has_no_power_and_no_energy() -> None:
    readings = interpret(samples(100.0, 200.0), 0.6, 5.0)
    assert (readings.power_w_mean, readings.energy_j, readings.util_pct_mean) == (None, None, None)


def test_idle_clocks_are_no_throttling() -> None:
    assert interpret(samples(100.0, 100.0, 100.0, reasons=0x1 | 0x2), 2.0, 1.0).warnings == ()

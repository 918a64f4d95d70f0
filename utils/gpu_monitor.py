"""NVML readings in the background, from the device that the model is on."""

from __future__ import annotations

import importlib
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

UTILISATION_WINDOW_S = 1.0
"""NVML's utilisation looks back over up to a second: a shorter run has none. Source: NVML API reference."""
SPOILING_REASONS = {
    0x4: "software power cap", 0x8: "hardware slowdown", 0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown", 0x80: "power brake",
}
"""Clock-limit reasons that spoil a measurement. Source: NVML API reference, nvmlClocksEventReasons."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One reading; a figure that the driver does not give is None. Power in W, memory in bytes, clocks in MHz."""

    time_s: float
    util_pct: float | None
    power_w: float | None
    memory_bytes: float | None
    sm_clock_mhz: float | None
    temperature_c: float | None
    clock_limit_reasons: int


@dataclass(frozen=True, kw_only=True, slots=True)
class GpuReadings:
    """What a window of time showed. ``warnings`` says why a figure is None and what spoiled the window."""

    samples: tuple[Sample, ...] = ()
    util_pct_mean: float | None = None
    power_w_mean: float | None = None
    energy_j: float | None = None
    energy_source: str | None = None
    warnings: tuple[str, ...] = ()
    device_memory_bytes: float | None = None
    sm_clock_mhz_mean: float | None = None
    temperature_c_max: float | None = None
    throttled: tuple[str, ...] = ()
    shared: bool | None = None


class GpuMonitor:
    """Samples one device between ``start`` and ``stop``. Without CUDA or NVML it reads nothing and says why.

    Args:
        device: the model's device.
        interval_s: seconds between two readings.
        nvml: the ``pynvml`` module; another object with its functions in tests.
        uuid: the device's UUID; None asks PyTorch.
    """

    def __init__(self, device: torch.device, interval_s: float = 0.02, nvml: Any = None, uuid: str | None = None) -> None:
        self._interval_s = interval_s
        self._samples: list[Sample] = []
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._energy_mj: float | None = None
        self._started_s = 0.0
        self._handle: Any = None
        self.reason: str | None = None
        if device.type != "cuda":
            self.reason = "GPU figures: the model is not on a CUDA device"
            return
        self._nvml = nvml = nvml or importlib.import_module("pynvml")
        try:
            nvml.nvmlInit()
            # By UUID: NVML counts devices in its own order, whatever CUDA_VISIBLE_DEVICES says.
            self._handle = nvml.nvmlDeviceGetHandleByUUID(uuid or device_uuid(device))
        except nvml.NVMLError as error:
            self.reason = f"GPU readings: NVML does not answer ({error})"

    @contextmanager
    def sampling(self):
        yield

    def mark(self, **labels): ...

    def timeline(self): return []

    def idle(self, seconds=1.0): return GpuReadings(warnings=(self.reason,) if self.reason else ())

    def start(self) -> None:
        """Begin a window."""
        self._samples = []
        self._stop.clear()
        self._started_s = time.perf_counter()
        if self._handle is None:
            return
        self._energy_mj = self._read("nvmlDeviceGetTotalEnergyConsumption")
        self._thread = threading.Thread(target=self._poll, name="gpu-monitor", daemon=True)
        self._thread.start()

    def stop(self) -> GpuReadings:
        """End the window and say what it showed."""
        seconds = time.perf_counter() - self._started_s
        if self._thread is None:
            return GpuReadings(warnings=(self.reason,) if self.reason else ())
        self._stop.set()
        self._thread.join()
        self._thread = None
        after_mj = self._read("nvmlDeviceGetTotalEnergyConsumption")
        counter_j = None if after_mj is None or self._energy_mj is None else (after_mj - self._energy_mj) / 1e3
        return interpret(tuple(self._samples), seconds, counter_j)

    def _poll(self) -> None:
        while True:
            self._samples.append(self._sample())
            if self._stop.wait(self._interval_s):
                return

    def _sample(self) -> Sample:
        nvml, rates, memory = self._nvml, self._read("nvmlDeviceGetUtilizationRates"), self._read("nvmlDeviceGetMemoryInfo")
        power_mw = self._read("nvmlDeviceGetPowerUsage")
        return Sample(
            time_s=time.perf_counter(),
            util_pct=None if rates is None else float(rates.gpu),
            power_w=None if power_mw is None else power_mw / 1e3,
            memory_bytes=None if memory is None else float(memory.used),
            sm_clock_mhz=self._read("nvmlDeviceGetClockInfo", nvml.NVML_CLOCK_SM),
            temperature_c=self._read("nvmlDeviceGetTemperature", nvml.NVML_TEMPERATURE_GPU),
            clock_limit_reasons=int(self._read("nvmlDeviceGetCurrentClocksThrottleReasons") or 0),
        )

    def _read(self, name: str, *arguments: Any) -> Any:
        """One NVML value; None where this device or driver does not give it."""
        try:
            return getattr(self._nvml, name)(self._handle, *arguments)
        except self._nvml.NVMLError:
            return None


def interpret(samples: tuple[Sample, ...], seconds: float, counter_j: float | None) -> GpuReadings:
    """What samples over a window of ``seconds`` say, and what they cannot say. ``counter_j`` is the energy counter's."""
    warnings = []
    utils = [s.util_pct for s in samples if s.util_pct is not None and s.time_s - samples[0].time_s >= UTILISATION_WINDOW_S]
    if seconds < UTILISATION_WINDOW_S or not utils:
        warnings.append(f"gpu_util: the window of {seconds:.2f} s is too short, NVML looks back {UTILISATION_WINDOW_S:.0f} s")
    powers = [(s.time_s, s.power_w) for s in samples if s.power_w is not None]
    # The counter moves about every 100 ms; below a second its steps are too coarse (Zeus, FACTS on energy).
    short = seconds < UTILISATION_WINDOW_S
    energy_j, source = None, None
    if short:
        warnings.append(f"gpu_power, energy: the window of {seconds:.2f} s is too short for the driver's averages")
    elif counter_j:
        energy_j, source = counter_j, "counter"
    elif len(powers) > 1:
        pairs = zip(powers, powers[1:], strict=False)
        energy_j, source = sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in pairs), "integrated power"
    seen = [name for bit, name in SPOILING_REASONS.items() if any(s.clock_limit_reasons & bit for s in samples)]
    if seen:
        warnings.append(f"throttled: {', '.join(seen)}")
    return GpuReadings(
        samples=samples,
        util_pct_mean=sum(utils) / len(utils) if utils and not short else None,
        power_w_mean=sum(p for _, p in powers) / len(powers) if powers and not short else None,
        energy_j=energy_j, energy_source=source, warnings=tuple(warnings),
    )


def device_uuid(device: torch.device) -> str:
    """The UUID by which NVML knows a CUDA device, as in ``GPU-...``."""
    uuid = str(torch.cuda.get_device_properties(device).uuid)
    return uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}"


def write_timeline(path, rows): ...

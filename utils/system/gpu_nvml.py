"""One device through NVML: which function gives which value, and what it returns."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from utils.system import gpu_readings
from utils.system.gpu_readings import Points, Sample

BUFFER_AGE_S = 5.0
"""A buffer whose newest sample is further than this from the system's time has another clock."""
BUFFERS = {"util_pct": (1, 1.0), "power_w": (0, 1e3)}
"""NVML's kind of sample (NVML_GPU_UTILIZATION_SAMPLES; NVML_TOTAL_POWER_SAMPLES, in mW), and units
of NVML per unit of the field."""
VALUES = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")
"""Members of the union nvmlValue_t, by nvmlValueType_t."""
POWER_INSTANT = ("nvmlDeviceGetFieldValues", [186])
"""The field NVML_FI_DEV_POWER_INSTANT."""
CALLS: dict[str, tuple[tuple[Any, ...], ...]] = {
    "util_pct": (("nvmlDeviceGetUtilizationRates",),),
    "power_w": (POWER_INSTANT, ("nvmlDeviceGetPowerUsage",)),
    # The second version leaves out what the firmware reserves for itself, as nvidia-smi does.
    "memory_bytes": (("nvmlDeviceGetMemoryInfo", 0x2000028), ("nvmlDeviceGetMemoryInfo",)),
    "sm_clock_mhz": (("nvmlDeviceGetClockInfo", 1),),
    "memory_clock_mhz": (("nvmlDeviceGetClockInfo", 2),),
    "temperature_c": (("nvmlDeviceGetTemperature", 0),),
    "clock_limit_reasons": (
        ("nvmlDeviceGetCurrentClocksEventReasons",),
        ("nvmlDeviceGetCurrentClocksThrottleReasons",),
    ),
    "energy_j": (("nvmlDeviceGetTotalEnergyConsumption",),),
    # The function without a version in its name hides what went wrong.
    "num_processes": (("nvmlDeviceGetComputeRunningProcesses_v3",),),
}
"""Functions and arguments of each value, the better first; numbers as in nvml.h."""
NOT_SAMPLED = ("energy_j", "num_processes")
SAMPLED = tuple(name for name in CALLS if name not in NOT_SAMPLED)
MISSING_UNDER_MIG = ("util_pct", "power_w", "energy_j")


def _power_w(reading: Any) -> float | None:
    """Watts from milliwatts, plain or as a field.

    None for 0 W, because a GPU that is on uses some.
    """
    milliwatts = reading
    if not isinstance(reading, int):
        field = reading[0]
        if field.nvmlReturn:
            return None
        milliwatts = getattr(field.value, VALUES[field.valueType])
    if not milliwatts:
        return None
    return float(milliwatts / 1e3)


def _num_processes(processes: Any) -> int:
    return len({process.pid for process in processes})


CONVERTERS: dict[str, Callable[[Any], float | None]] = {
    "util_pct": lambda rates: float(rates.gpu),
    "power_w": _power_w,
    "memory_bytes": lambda memory: int(memory.used),
    "energy_j": lambda millijoules: millijoules / 1e3,
    "num_processes": _num_processes,
}
"""From what NVML returns to the value; other values stay as they are."""


class NvmlDevice:
    """One device through NVML: each value, or None with the reason in ``errors``.

    Args:
        nvml: the module ``pynvml``.
        uuids: names of the device; the first that NVML knows is taken.

    Raises:
        NVMLError: NVML knows none of ``uuids``.
    """

    def __init__(self, nvml: Any, uuids: Sequence[str]) -> None:
        self.errors: dict[str, str] = {}
        self._nvml = nvml
        nvml.nvmlInit()
        uuid = self._known_uuid(uuids)
        self._handle = nvml.nvmlDeviceGetHandleByUUID(uuid)
        self._calls = self._choose_calls(self._missing_values(uuid))
        self.power_source = gpu_readings.AVERAGE
        if self._calls.get("power_w") == POWER_INSTANT:
            self.power_source = gpu_readings.INSTANT

    def _known_uuid(self, uuids: Sequence[str]) -> str:
        for uuid in uuids[:-1]:
            if self._call("uuid", "nvmlDeviceGetHandleByUUID", uuid):
                return uuid
        return uuids[-1]

    def _missing_values(self, uuid: str) -> tuple[str, ...]:
        """What NVML does not report under MIG."""
        if uuid.startswith("MIG-"):
            return MISSING_UNDER_MIG
        mode = self._call("mig", "nvmlDeviceGetMigMode", self._handle)
        if mode and mode[0]:
            # The handle of a board reports the memory of all its instances together.
            return (*MISSING_UNDER_MIG, "memory_bytes")
        return ()

    def _choose_calls(self, missing: Sequence[str]) -> dict[str, tuple[Any, ...]]:
        """For each value the first call that works, otherwise the last."""
        chosen = {}
        for name, calls in CALLS.items():
            if name in missing:
                self.errors[name] = (
                    "NVML does not report it for one instance (not supported under MIG)"
                )
                continue
            chosen[name] = calls[-1]
            for call in calls:
                if self._read_nvml(name, call) is not None:
                    chosen[name] = call
                    break
        return chosen

    def read(self, name: str) -> float | None:
        """One value, in the unit of its name."""
        if name not in self._calls:
            return None
        value: float | None = self._read_nvml(name, self._calls[name])
        return value

    def sample(self) -> Sample:
        """One reading of every value that is sampled."""
        time_s = time.perf_counter()
        values: dict[str, Any] = {name: self.read(name) for name in SAMPLED}
        return Sample(time_s=time_s, **values)

    def buffered(self, name: str, after_s: float, system_s: float) -> Points:
        """The driver's own samples later than ``after_s``.

        NVML calls their stamps "CPU timestamp in microseconds" and names no clock. They count only
        if it is the system's.

        Args:
            after_s: on ``time.perf_counter``, as the times returned.
            system_s: how far the system's time is ahead of ``time.perf_counter``.
        """
        if name not in self._calls:
            return ()
        kind, scale = BUFFERS[name]
        after_us = int((after_s + system_s) * 1e6)
        result = self._call("buffers", "nvmlDeviceGetSamples", self._handle, kind, after_us)
        if not result:
            return ()
        value_type, samples = result
        member = VALUES[value_type]
        points = []
        for sample in samples:
            time_s = sample.timeStamp / 1e6 - system_s
            points.append((time_s, getattr(sample.sampleValue, member) / scale))
        points.sort()
        if not points or abs(points[-1][0] - time.perf_counter()) >= BUFFER_AGE_S:
            return ()
        return tuple(point for point in points if point[0] > after_s)

    def _read_nvml(self, name: str, call: tuple[Any, ...]) -> Any:
        function, *arguments = call
        result = self._call(name, function, self._handle, *arguments)
        if result is None or name not in CONVERTERS:
            return result
        return CONVERTERS[name](result)

    def _call(self, name: str, function: str, *arguments: Any) -> Any:
        try:
            return getattr(self._nvml, function)(*arguments)
        except (self._nvml.NVMLError, AttributeError) as error:
            # An older driver, an older nvidia-ml-py, or a GPU that is lost.
            self.errors[name] = f"{function}: {error}"
            return None

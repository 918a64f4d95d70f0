"""A stand-in for NVML (the module ``pynvml``), and the ways in which a real one fails."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from tests.simulated_cuda.machine import Machine

POWER_MW = 300_000
DRIVER_VERSION = "580.65.06"
UNSIGNED_INT = 1
"""The nvmlValueType_t of a sample's value."""


class NVMLError(Exception):
    """What pynvml raises where the driver reports an error."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DriverFaults:
    """How the driver fails.

    Args:
        failing_after: calls that succeed before the GPU is lost; None loses none.
        mig: the GPU is divided into instances.
        hides_processes: a container that does not see other processes, nor its own.
        clock_limit_reasons: bits of ``nvmlClocksEventReasons``.
    """

    failing_after: int | None = None
    mig: bool = False
    hides_processes: bool = False
    clock_limit_reasons: int = 0


class SimulatedNvml:
    """The functions of pynvml that the program calls, for the devices of a machine.

    Devices are numbered the other way round than CUDA numbers them, as NVML's order may be.
    """

    NVMLError = NVMLError
    NVML_CLOCK_SM = 1

    def __init__(self, machine: Machine, faults: DriverFaults) -> None:
        self.calls = 0
        self._machine = machine
        self._faults = faults
        self._start_s = time.time()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """A function of NVML.

        Raises:
            AttributeError: the program calls one that the stand-in does not have.
        """
        if not name.startswith("nvml"):
            raise AttributeError(name)
        function: Callable[..., Any] = getattr(type(self), f"_{name.removeprefix('nvml')}")

        def call(*arguments: Any) -> Any:
            self.calls += 1
            limit = self._faults.failing_after
            if limit is not None and self.calls > limit:
                raise NVMLError("GPU is lost")
            return function(self, *arguments)

        return call

    def _unless_mig(self) -> None:
        if self._faults.mig:
            raise NVMLError("Not Supported")

    # The names below are NVML's.

    def _Init(self) -> None: ...  # noqa: N802

    def _Shutdown(self) -> None: ...  # noqa: N802

    def _SystemGetDriverVersion(self) -> str:  # noqa: N802
        return DRIVER_VERSION

    def _DeviceGetCount(self) -> int:  # noqa: N802
        return len(self._machine.gpus)

    def _DeviceGetHandleByIndex(self, index: int) -> Any:  # noqa: N802
        return self._machine.gpus[len(self._machine.gpus) - 1 - index]

    def _DeviceGetHandleByUUID(self, uuid: str) -> Any:  # noqa: N802
        prefix = "MIG-" if self._faults.mig else "GPU-"
        for gpu in self._machine.gpus:
            if uuid == f"{prefix}{gpu.uuid}":
                return gpu
        raise NVMLError("Not Found")

    def _DeviceGetMigMode(self, gpu: Any) -> list[int]:  # noqa: N802
        return [int(self._faults.mig), int(self._faults.mig)]

    def _DeviceGetUtilizationRates(self, gpu: Any) -> SimpleNamespace:  # noqa: N802
        self._unless_mig()
        return SimpleNamespace(gpu=87, memory=40)

    def _DeviceGetMemoryInfo(self, gpu: Any, version: int = 1) -> SimpleNamespace:  # noqa: N802
        used_bytes = gpu.allocated_bytes + (500 << 20)
        return SimpleNamespace(
            total=gpu.total_bytes, used=used_bytes, free=gpu.total_bytes - used_bytes
        )

    def _DeviceGetFieldValues(self, gpu: Any, fields: list[int]) -> list[Any]:  # noqa: N802
        self._unless_mig()
        value = SimpleNamespace(uiVal=POWER_MW)
        return [SimpleNamespace(nvmlReturn=0, valueType=UNSIGNED_INT, value=value) for _ in fields]

    def _DeviceGetPowerUsage(self, gpu: Any) -> int:  # noqa: N802
        self._unless_mig()
        return POWER_MW

    def _DeviceGetTotalEnergyConsumption(self, gpu: Any) -> int:  # noqa: N802
        self._unless_mig()
        return int((time.time() - self._start_s) * POWER_MW)

    def _DeviceGetTemperature(self, gpu: Any, sensor: int) -> int:  # noqa: N802
        return 55

    def _DeviceGetClockInfo(self, gpu: Any, clock: int) -> int:  # noqa: N802
        return 1980

    def _DeviceGetCurrentClocksEventReasons(self, gpu: Any) -> int:  # noqa: N802
        return self._faults.clock_limit_reasons

    def _DeviceGetComputeRunningProcesses_v3(self, gpu: Any) -> list[Any]:  # noqa: N802
        if self._faults.hides_processes:
            return []
        return [SimpleNamespace(pid=1)]

    # Without a version in its name it is the latest one.
    _DeviceGetComputeRunningProcesses = _DeviceGetComputeRunningProcesses_v3

    def _DeviceGetSamples(  # noqa: N802
        self, gpu: Any, kind: int, since_us: int
    ) -> tuple[int, list[Any]]:
        self._unless_mig()
        value = 90 if kind == 1 else POWER_MW
        now_us = int(time.time() * 1e6)
        samples = []
        for time_us in range(max(since_us + 1, now_us - 1_000_000), now_us, 100_000):
            samples.append(
                SimpleNamespace(timeStamp=time_us, sampleValue=SimpleNamespace(uiVal=value))
            )
        return UNSIGNED_INT, samples

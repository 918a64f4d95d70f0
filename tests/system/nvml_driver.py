"""A stand-in for the driver: what pynvml offers for one device."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

UUID, MIG_UUID = "GPU-1234", "MIG-5678"
MIG_LACKS = (
    "nvmlDeviceGetUtilizationRates",
    "nvmlDeviceGetFieldValues",
    "nvmlDeviceGetPowerUsage",
    "nvmlDeviceGetSamples",
    "nvmlDeviceGetTotalEnergyConsumption",
)


class NVMLError(Exception):
    """A driver's answer that is none."""


class Driver:
    """What pynvml offers for one device: 300 W, 80% busy.

    The energy counter moves in steps of 100 ms.
    """

    NVMLError = NVMLError

    def __init__(
        self,
        *missing: str,
        uuids: tuple[str, ...] = (UUID,),
        num_processes: int = 1,
        mig: bool = False,
    ) -> None:
        self.missing, self.uuids, self.num_processes, self.mig = (
            set(missing),
            uuids,
            num_processes,
            mig,
        )
        self.asked: list[str] = []
        self.threads: dict[str, set[int]] = {}
        self.epoch_s = 0.0  # what the buffers' clock is off by
        self.util_pct, self.cpu_s, self.lost = 80, 0.0, False

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """Any function of NVML.

        What an older driver lacks is there and raises; what an older pynvml lacks is not there.
        """
        if not name.startswith("nvml"):
            raise AttributeError(name)
        value = getattr(self, f"_{name.removeprefix('nvml')}")

        def function(*arguments: Any) -> Any:
            self.threads.setdefault(name, set()).add(threading.get_ident())
            if self.lost or name in self.missing:
                raise NVMLError("GPU is lost" if self.lost else "Not Supported")
            if not name.endswith(("Init", "ByUUID")):
                assert arguments[0] == self.asked[-1], "another device's handle"
            return value(*arguments[1:] if not name.endswith("ByUUID") else arguments)

        return function

    def _Init(self) -> None: ...  # noqa: N802

    def _DeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802
        if uuid not in self.uuids:
            raise NVMLError("Not Found")
        self.asked.append(uuid)
        return uuid

    def _DeviceGetMigMode(self) -> list[int]:  # noqa: N802
        return [int(self.mig), int(self.mig)]

    def _DeviceGetUtilizationRates(self) -> SimpleNamespace:  # noqa: N802
        until_s = time.thread_time() + self.cpu_s
        while time.thread_time() < until_s:
            pass
        return SimpleNamespace(gpu=self.util_pct)

    def _DeviceGetFieldValues(self, fields: list[int]) -> list[SimpleNamespace]:  # noqa: N802
        assert fields == [186]
        return [SimpleNamespace(nvmlReturn=0, valueType=1, value=SimpleNamespace(uiVal=300_000))]

    def _DeviceGetPowerUsage(self) -> int:  # noqa: N802
        return 290_000

    def _DeviceGetMemoryInfo(self, version: int | None = None) -> SimpleNamespace:  # noqa: N802
        return SimpleNamespace(used=10**9 if version else 15 * 10**8)

    def _DeviceGetClockInfo(self, clock: int) -> int:  # noqa: N802
        return {1: 1_980, 2: 2_619}[clock]

    def _DeviceGetTemperature(self, sensor: int) -> int:  # noqa: N802
        return {0: 50}[sensor]

    def _DeviceGetCurrentClocksEventReasons(self) -> int:  # noqa: N802
        return 0x4

    def _DeviceGetCurrentClocksThrottleReasons(self) -> int:  # noqa: N802
        return 0x40

    def _DeviceGetTotalEnergyConsumption(self) -> int:  # noqa: N802
        return int(time.perf_counter() / 0.1) * 30_000

    def _DeviceGetComputeRunningProcesses_v3(self) -> list[SimpleNamespace]:  # noqa: N802
        return [SimpleNamespace(pid=pid) for pid in range(self.num_processes)]

    def _DeviceGetSamples(self, kind: int, since_us: int) -> tuple[int, list[SimpleNamespace]]:  # noqa: N802
        """One each 10 ms, of the last half second, by the system's clock; milliwatts or percent."""
        now_us = int((time.time() + self.epoch_s) * 100) * 10_000
        stamps = [now_us - 10_000 * n for n in range(50) if now_us - 10_000 * n > since_us]
        if not stamps:
            raise NVMLError("Not Found")
        return 1, [
            SimpleNamespace(
                timeStamp=t, sampleValue=SimpleNamespace(uiVal={0: 310_000, 1: 70}[kind])
            )
            for t in stamps
        ]

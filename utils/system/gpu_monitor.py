"""NVML readings in the background, from the device that the model is on."""

from __future__ import annotations

import importlib
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from utils.schema.sweep_checkpoint import GpuReadings
from utils.schema.warning_codes import WarningCode
from utils.system import gpu_readings
from utils.system.device import NOT_ON_CUDA, synchronize
from utils.system.gpu_nvml import BUFFERS, NvmlDevice
from utils.system.gpu_readings import Sample, Window
from utils.system.gpu_timeline import timeline_row

CPU_SHARE = 0.008
"""Of one core for the sampling thread: 1%, less room for a sample that costs more than earlier
ones."""
BUFFER_PERIOD_S = 1.0
"""Between fetching the driver's buffers: `nvidia-smi -q` shows 119 power samples over 2.4 s."""


class GpuMonitor:
    """Samples one device between ``start`` and ``stop``.

    Without CUDA or NVML it reads nothing and gives the reason. While a window is open only a thread
    of its own calls NVML; ``start`` and ``stop``, which do so too, belong outside the timed block.
    The thread stays under 1% of one core by its own CPU clock: expensive readings come less often.

    Args:
        nvml: the module ``pynvml``, or a stand-in for tests.
        uuid: of the device; None asks PyTorch.
    """

    def __init__(
        self,
        device: torch.device,
        interval_s: float = 0.02,
        nvml: Any = None,
        uuid: str | None = None,
    ) -> None:
        self._torch_device = device
        self._interval_s = interval_s
        self._epoch_offset_s = time.perf_counter() - time.time()
        self._rows: list[tuple[Sample, dict[str, Any]]] = []
        self._labels: dict[str, Any] = {}
        self._lock = threading.Lock()
        self._stop_event = threading.Event()
        self._keep_thread = False
        self._thread: threading.Thread | None = None
        self._window: Window | None = None
        self._due_s = 0.0
        self._fetched_s = 0.0
        # CPU time of the thread so far, and of one sample.
        self._thread_cpu_s = 0.0
        self._sample_cpu_s = 0.0
        self._device, self.reason = _connect(device, nvml, uuid)
        if self._device is not None:
            before_s = time.thread_time()
            self._device.sample()
            self._sample_cpu_s = time.thread_time() - before_s

    def start(self) -> None:
        """Begin a window."""
        device = self._device
        if device is None:
            return
        window = Window(
            interval_s=self._interval_s,
            system_s=time.time() - time.perf_counter(),
            power_source=device.power_source,
            buffered=dict.fromkeys(BUFFERS, ()),
            num_processes=device.read("num_processes"),
            counter_j=device.read("energy_j"),
        )
        with self._lock:
            self._window = window
            window.start_s = time.perf_counter()
            self._fetched_s = window.start_s
            earliest_s = window.start_s + self._sample_cpu_s / CPU_SHARE
            self._due_s = max(self._due_s, earliest_s)
        self._start_thread()

    def stop(self, *, idle: bool = False) -> GpuReadings:
        """End the window; ``idle``: this process gave the device nothing to do."""
        end_s = time.perf_counter()
        window = self._window
        device = self._device
        if device is None:
            return self._no_readings()
        if window is None:
            return GpuReadings()
        counter_j = device.read("energy_j")
        if not self._keep_thread:
            self._join_thread()
        with self._lock:
            self._fetch_buffers(device, window)
            self._window = None
        window.end_s = end_s
        window.idle = idle
        window.errors = dict(device.errors)
        if counter_j is None or window.counter_j is None:
            window.counter_j = None
        else:
            window.counter_j = counter_j - window.counter_j
        window.num_processes = max(window.num_processes or 0, device.read("num_processes") or 0)
        window.samples = [sample for sample in window.samples if sample.time_s <= end_s]
        return gpu_readings.summarize_window(window)

    def _no_readings(self) -> GpuReadings:
        assert self.reason is not None
        readings = gpu_readings.no_readings(self.reason)
        if self._torch_device.type != "cuda":
            return readings
        # On the CPU nobody expects them.
        warning = WarningCode.GPU_READINGS.warn(f"the GPU could not be read: {self.reason}")
        return GpuReadings(warnings=(warning,), unavailable=readings.unavailable)

    def idle(self, seconds: float = 2.0) -> GpuReadings:
        """A window in which this process gives the device nothing to do.

        Two seconds hold twenty steps of power and energy.
        """
        if self._device is not None:
            if torch.cuda.is_initialized():
                synchronize(self._torch_device)
            # Readings look back so far.
            time.sleep(gpu_readings.LOOK_BACK_S)
            self.start()
            time.sleep(seconds)
        return self.stop(idle=True)

    @contextmanager
    def sampling(self) -> Iterator[GpuMonitor]:
        """Keep the thread on across windows; between them it samples for the timeline alone."""
        self._keep_thread = True
        self._start_thread()
        try:
            yield self
        finally:
            self._keep_thread = False
            self._join_thread()

    def mark(
        self, *, step: str | None = None, batch_size: int | None = None, run: int | None = None
    ) -> None:
        """Label the samples that follow."""
        self._labels = {"step": step, "batch_size": batch_size, "run": run}

    def timeline(self) -> list[dict[str, Any]]:
        """Every sample since the last call.

        ``time_s`` is Unix time, so that several monitors may share a file.
        """
        with self._lock:
            rows = self._rows
            self._rows = []
        offset_s = self._epoch_offset_s
        return [timeline_row(sample, offset_s, labels) for sample, labels in rows]

    def _start_thread(self) -> None:
        if self._thread is not None or self._device is None:
            return
        self._thread_cpu_s = 0.0
        self._thread = threading.Thread(
            target=self._poll, args=(self._device,), name="gpu-monitor", daemon=True
        )
        self._thread.start()

    def _join_thread(self) -> None:
        if self._thread is not None:
            self._stop_event.set()
            self._thread.join()
            self._thread = None
            self._stop_event.clear()

    def _poll(self, device: NvmlDevice) -> None:
        """The thread: wait until a sample is due, take it, until the stop event is set."""
        while not self._stop_event.wait(max(0.0, self._due_s - time.perf_counter())):
            with self._lock:
                # A new window may have postponed the sample.
                if self._due_s <= time.perf_counter():
                    self._take_sample(device)
        self._charge_cpu_time()

    def _take_sample(self, device: NvmlDevice) -> None:
        """Take one sample and decide when the next one is due; with the lock held."""
        sample = device.sample()
        self._rows.append((sample, self._labels))
        window = self._window
        if window is not None:
            window.samples.append(sample)
            if sample.time_s - self._fetched_s > BUFFER_PERIOD_S:
                self._fetch_buffers(device, window)
        # The cost of the most expensive sample, forgotten slowly.
        self._sample_cpu_s = max(self._charge_cpu_time(), 0.9 * self._sample_cpu_s)
        # At least a millisecond without the lock, for those who wait for it.
        pause_s = max(1e-3, self._sample_cpu_s / CPU_SHARE)
        self._due_s = max(sample.time_s + self._interval_s, time.perf_counter() + pause_s)

    def _charge_cpu_time(self) -> float:
        """CPU seconds of this thread since the last call, added to the open window."""
        before_s = self._thread_cpu_s
        self._thread_cpu_s = time.thread_time()
        spent_s = self._thread_cpu_s - before_s
        if self._window is not None:
            self._window.cpu_s += spent_s
        return spent_s

    def _fetch_buffers(self, device: NvmlDevice, window: Window) -> None:
        for name, points in window.buffered.items():
            after_s = points[-1][0] if points else window.start_s
            window.buffered[name] = points + device.buffered(name, after_s, window.system_s)
        self._fetched_s = time.perf_counter()


def _connect(
    device: torch.device, nvml: Any, uuid: str | None
) -> tuple[NvmlDevice | None, str | None]:
    """The device, or why there are no readings."""
    if device.type != "cuda":
        return None, NOT_ON_CUDA
    try:
        nvml = nvml or importlib.import_module("pynvml")
        uuids = [uuid] if uuid else device_uuids(device)
        return NvmlDevice(nvml, uuids), None
    except ImportError as error:
        return None, f"nvidia-ml-py is not installed ({error})"
    except nvml.NVMLError as error:
        return None, f"NVML does not answer ({error})"


def device_uuids(device: torch.device) -> list[str]:
    """The names by which NVML may know a CUDA device, the narrowest first.

    Under MIG PyTorch may give the UUID of the board or of the instance, so the one that
    CUDA_VISIBLE_DEVICES names comes first.
    """
    uuids = []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    index = device.index or 0
    if index < len(visible) and visible[index].strip().startswith("MIG-"):
        uuids.append(visible[index].strip())
    uuid = str(torch.cuda.get_device_properties(device).uuid)
    uuid = uuid.removeprefix("GPU-").removeprefix("MIG-")
    return [*uuids, f"MIG-{uuid}", f"GPU-{uuid}"]

"""NVML readings in the background, from the device that the model is on."""

from __future__ import annotations

import importlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from utils import gpu_timeline
from utils.gpu_timeline import GpuReadings, Points, Sample, Window

CPU_SHARE = 0.008  # of one core for the sampling thread: 1%, less room for a sample that is dearer than those before it
BUFFER_PERIOD_S = 1.0  # between fetching the driver's buffers: `nvidia-smi -q` shows 119 power samples over 2.4 s
BUFFER_AGE_S = 5.0  # a buffer whose newest sample is further than this from the system's time keeps another clock
BUFFERS = {"util_pct": (1, 1.0), "power_w": (0, 1e3)}  # NVML_GPU_UTILIZATION_SAMPLES; NVML_TOTAL_POWER_SAMPLES, mW
VALUES = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")  # of the union nvmlValue_t, by nvmlValueType_t
POWER_INSTANT = ("nvmlDeviceGetFieldValues", [186])  # NVML_FI_DEV_POWER_INSTANT
CALLS: dict[str, tuple[tuple[Any, ...], ...]] = {  # by figure, the better first; numbers as in nvml.h
    "util_pct": (("nvmlDeviceGetUtilizationRates",),),
    "power_w": (POWER_INSTANT, ("nvmlDeviceGetPowerUsage",)),
    # The second version leaves out what the firmware keeps for itself, as nvidia-smi does.
    "memory_bytes": (("nvmlDeviceGetMemoryInfo", 0x2000028), ("nvmlDeviceGetMemoryInfo",)),
    "sm_clock_mhz": (("nvmlDeviceGetClockInfo", 1),),
    "memory_clock_mhz": (("nvmlDeviceGetClockInfo", 2),),
    "temperature_c": (("nvmlDeviceGetTemperature", 0),),
    "clock_limit_reasons": (("nvmlDeviceGetCurrentClocksEventReasons",), ("nvmlDeviceGetCurrentClocksThrottleReasons",)),
    "energy_j": (("nvmlDeviceGetTotalEnergyConsumption",),),
    "num_processes": (("nvmlDeviceGetComputeRunningProcesses_v3",),),  # without its version it hides what went wrong
}
SAMPLED = tuple(CALLS)[:-2]


def _power_w(answer: Any) -> float | None:
    """From milliwatts, plain or as a field; None for 0 W: a GPU that is on takes some."""
    if not isinstance(answer, int):
        answer = None if answer[0].nvmlReturn else getattr(answer[0].value, VALUES[answer[0].valueType])
    return answer / 1e3 if answer else None


UNPACK: dict[str, Callable[[Any], float | None]] = {
    "util_pct": lambda rates: float(rates.gpu), "power_w": _power_w, "memory_bytes": lambda memory: int(memory.used),
    "energy_j": lambda counter_mj: counter_mj / 1e3, "num_processes": lambda listed: len({each.pid for each in listed}),
}


class NvmlDevice:
    """One device through NVML: each value, or None with the reason in ``errors``; NVMLError where it knows none of ``uuids``."""

    def __init__(self, nvml: Any, uuids: Sequence[str]) -> None:
        self._nvml, self.errors, self._calls = nvml, dict[str, str](), dict[str, tuple[Any, ...]]()
        nvml.nvmlInit()
        uuid = next((uuid for uuid in uuids[:-1] if self._call("uuid", "nvmlDeviceGetHandleByUUID", uuid)), uuids[-1])
        self._handle = nvml.nvmlDeviceGetHandleByUUID(uuid)
        instance = uuid.startswith("MIG-")
        mig = instance or (self._call("mig", "nvmlDeviceGetMigMode", self._handle) or [0])[0]
        # A board's handle tells of all its instances together.
        absent = {"util_pct", "power_w", "energy_j", *([] if instance else ["memory_bytes"])} if mig else set()
        for figure, calls in CALLS.items():
            if figure in absent:
                self.errors[figure] = "NVML does not tell it for one instance (not supported under MIG)"
            else:  # the first call that is answered, else the last
                self._calls[figure] = next((call for call in calls if self._ask(figure, call) is not None), calls[-1])
        self.power_source = gpu_timeline.INSTANT if self._calls.get("power_w") == POWER_INSTANT else gpu_timeline.AVERAGE

    def read(self, figure: str) -> float | None:
        """One figure, in the unit that its name has."""
        return self._ask(figure, self._calls[figure]) if figure in self._calls else None

    def sample(self) -> Sample:
        """One reading of everything that is sampled."""
        return Sample(time_s=time.perf_counter(), **{figure: self.read(figure) for figure in SAMPLED})  # type: ignore[arg-type]

    def buffered(self, figure: str, after_s: float, system_s: float) -> Points:
        """The driver's own samples later than ``after_s`` on ``time.perf_counter``, which the system's is ``system_s`` ahead of.
        NVML calls their stamps "CPU timestamp in microseconds" and names no clock; they count where it is the system's."""
        kind, unit = BUFFERS[figure]
        asked = ("nvmlDeviceGetSamples", self._handle, kind, int((after_s + system_s) * 1e6))
        value_type, own = (self._call("buffers", *asked) if figure in self._calls else None) or (0, [])
        points = sorted((s.timeStamp / 1e6 - system_s, getattr(s.sampleValue, VALUES[value_type]) / unit) for s in own)
        recent = points and abs(points[-1][0] - time.perf_counter()) < BUFFER_AGE_S
        return tuple(point for point in points if point[0] > after_s) if recent else ()

    def _ask(self, figure: str, call: tuple[Any, ...]) -> Any:
        answer = self._call(figure, call[0], self._handle, *call[1:])
        return answer if answer is None else UNPACK.get(figure, lambda value: value)(answer)

    def _call(self, figure: str, function: str, *arguments: Any) -> Any:
        try:
            return getattr(self._nvml, function)(*arguments)
        except (self._nvml.NVMLError, AttributeError) as error:  # an older driver, an older nvidia-ml-py, a GPU that is lost
            self.errors[figure] = f"{function}: {error}"
            return None


class GpuMonitor:
    """Samples one device between ``start`` and ``stop``. Without CUDA or NVML it reads nothing and says why.

    While a window is open only a thread of its own calls NVML; ``start`` and ``stop``, which do so too, belong outside
    the timed block. The thread keeps itself under 1% of one core by its own CPU clock: dear readings come less often.
    ``nvml`` is the module ``pynvml``, in tests a stand-in; a ``uuid`` of None asks PyTorch.
    """

    def __init__(self, device: torch.device, interval_s: float = 0.02, nvml: Any = None, uuid: str | None = None) -> None:
        self._torch_device, self._interval_s, self._made_s = device, interval_s, time.perf_counter() - time.time()
        self._rows: list[tuple[Sample, dict[str, Any]]] = []
        self._labels: dict[str, Any] = {}
        self._lock, self._halt, self._stays = threading.Lock(), threading.Event(), False
        self._thread: threading.Thread | None = None
        self._window: Window | None = None
        self._due_s = self._fetched_s = self._cpu_s = self._cost_s = 0.0  # cpu: the thread's so far; cost: of one sample
        self._device, self.reason = _connect(device, nvml, uuid)
        if self._device is not None:
            before_s = time.thread_time()
            self._device.sample()
            self._cost_s = time.thread_time() - before_s

    def start(self) -> None:
        """Begin a window."""
        if (device := self._device) is None:
            return
        window = Window(
            interval_s=self._interval_s, system_s=time.time() - time.perf_counter(), power_source=device.power_source,
            buffered=dict.fromkeys(BUFFERS, ()), num_processes=device.read("num_processes"), counter_j=device.read("energy_j"),
        )
        with self._lock:
            self._window, window.start_s = window, time.perf_counter()
            self._fetched_s = window.start_s
            self._due_s = max(self._due_s, window.start_s + self._cost_s / CPU_SHARE)
        self._launch()

    def stop(self, *, idle: bool = False) -> GpuReadings:
        """End the window and say what it showed; ``idle``: this process gave the device nothing to do."""
        end_s, window, device = time.perf_counter(), self._window, self._device
        if device is None or window is None:
            return GpuReadings(warnings=(self.reason,) if self.reason else ())
        energy_j = device.read("energy_j")
        if not self._stays:
            self._join()
        with self._lock:
            self._fetch(device, window)
            self._window = None
        window.end_s, window.idle, window.errors = end_s, idle, dict(device.errors)
        window.counter_j = None if energy_j is None or window.counter_j is None else energy_j - window.counter_j
        window.num_processes = max(window.num_processes or 0, device.read("num_processes") or 0)
        window.samples = [sample for sample in window.samples if sample.time_s <= end_s]
        return gpu_timeline.interpret(window)

    def idle(self, seconds: float = 2.0) -> GpuReadings:
        """A window in which this process gives the device nothing to do; two seconds hold twenty steps of power and energy."""
        if self._device is not None:
            if torch.cuda.is_initialized():
                torch.cuda.synchronize(self._torch_device)
            time.sleep(gpu_timeline.LOOK_BACK_S)  # readings look back so far
            self.start()
            time.sleep(seconds)
        return self.stop(idle=True)

    @contextmanager
    def sampling(self) -> Iterator[GpuMonitor]:
        """The thread stays on across windows; between them it samples for the timeline alone."""
        self._stays = True
        self._launch()
        try:
            yield self
        finally:
            self._stays = False
            self._join()

    def mark(self, *, step: str | None = None, batch_size: int | None = None, run: int | None = None) -> None:
        """Label the samples that follow."""
        self._labels = {"step": step, "batch_size": batch_size, "run": run}

    def timeline(self) -> list[dict[str, Any]]:
        """Every sample since the last call; ``time_s`` is Unix time, so that several monitors may share a file."""
        with self._lock:
            rows, self._rows = self._rows, []
        return [gpu_timeline.timeline_row(sample, self._made_s, labels) for sample, labels in rows]

    def _launch(self) -> None:
        if self._thread is None and self._device is not None:
            self._cpu_s = 0.0
            self._thread = threading.Thread(target=self._poll, args=(self._device,), name="gpu-monitor", daemon=True)
            self._thread.start()

    def _join(self) -> None:
        if self._thread is not None:
            self._halt.set()
            self._thread.join()
            self._thread = None
            self._halt.clear()

    def _poll(self, device: NvmlDevice) -> None:
        while not self._halt.wait(max(0.0, self._due_s - time.perf_counter())):
            with self._lock:
                if self._due_s > time.perf_counter():
                    continue  # a new window has put it off
                sample = device.sample()
                self._rows.append((sample, self._labels))
                if self._window is not None:
                    self._window.samples.append(sample)
                    if sample.time_s - self._fetched_s > BUFFER_PERIOD_S:
                        self._fetch(device, self._window)
                self._cost_s = max(self._spend(), 0.9 * self._cost_s)  # what the dearest cost, forgotten slowly
                # The lock is left alone for a millisecond at least, for those who wait for it.
                self._due_s = max(sample.time_s + self._interval_s, time.perf_counter() + max(1e-3, self._cost_s / CPU_SHARE))
        self._spend()

    def _spend(self) -> float:
        """CPU seconds of this thread since the last call, put down to the open window."""
        before_s, self._cpu_s = self._cpu_s, time.thread_time()
        if self._window is not None:
            self._window.cpu_s += self._cpu_s - before_s
        return self._cpu_s - before_s

    def _fetch(self, device: NvmlDevice, window: Window) -> None:
        for name, points in window.buffered.items():
            after_s = points[-1][0] if points else window.start_s
            window.buffered[name] = points + device.buffered(name, after_s, window.system_s)
        self._fetched_s = time.perf_counter()


def _connect(device: torch.device, nvml: Any, uuid: str | None) -> tuple[NvmlDevice | None, str | None]:
    """The device, or why there are no readings."""
    if device.type != "cuda":
        return None, "GPU figures: the model is not on a CUDA device"
    try:
        nvml = nvml or importlib.import_module("pynvml")
        return NvmlDevice(nvml, [uuid] if uuid else device_uuids(device)), None
    except ImportError as error:
        return None, f"GPU figures: nvidia-ml-py is not installed ({error})"
    except nvml.NVMLError as error:
        return None, f"GPU figures: NVML does not answer ({error})"


def device_uuids(device: torch.device) -> list[str]:
    """The names by which NVML may know a CUDA device, the narrowest first.

    Under MIG PyTorch may give the board's UUID or the instance's: what CUDA_VISIBLE_DEVICES names comes first.
    """
    uuid = str(torch.cuda.get_device_properties(device).uuid).removeprefix("GPU-").removeprefix("MIG-")
    named = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[device.index or 0 :][:1]
    return [*(name.strip() for name in named if name.strip().startswith("MIG-")), f"MIG-{uuid}", f"GPU-{uuid}"]

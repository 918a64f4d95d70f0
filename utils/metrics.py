"""One measurement: clock, memory, energy and utilisation around a block of work."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import psutil
import torch

from utils.core import process
from utils.core.device import resolve_device
from utils.core.errors import UserError
from utils.core.hints import python_arguments
from utils.gpu_monitor import GpuMonitor, GpuReadings
from utils.records import BatchSizeRecord, Run, summarise_runs


@dataclass(kw_only=True, slots=True)
class Measurement:
    """A measurement under way; ``run`` and ``record`` are there once it has ended."""

    started_ns: int = 0
    allocated_before: int = 0
    cpu_before: tuple[int, int] | None = None
    peak_was_reset: bool = False
    details: Callable[[], dict[str, Any]] = dict
    """The fields of ``Run`` that only the block knows (batches, phases, tokens): it sets this, the stopped clock calls it."""
    run: Run | None = None
    record: BatchSizeRecord | None = None


class MetricsCollector:
    """Measures any block of inference on one device (``cuda``, ``cuda:N`` or ``cpu``), and reads NVML beside it."""

    @python_arguments()
    def __init__(self, device: str | torch.device = "cuda", gpu_sample_interval_ms: float = 20.0) -> None:
        self.device = resolve_device(device)
        self._cuda = self.device.type == "cuda"
        self.monitor = GpuMonitor(self.device, gpu_sample_interval_ms / 1e3)
        self._process = psutil.Process()
        self._collecting = gc.isenabled()  # what to go back to, also after a measurement that was never ended

    def start_measurement(self) -> Measurement:
        """Start the clock, last of all: what prepares the measurement is not in it."""
        gc.collect()
        measurement = Measurement(peak_was_reset=process.reset_peak_memory())
        gc.disable()
        self.synchronize()
        if self._cuda:
            torch.cuda.reset_peak_memory_stats(self.device)
            measurement.allocated_before = torch.cuda.memory_allocated(self.device)
        self.monitor.start()
        measurement.cpu_before = process.cpu_times_ns()
        measurement.started_ns = time.perf_counter_ns()
        return measurement

    def end_measurement(self, measurement: Measurement, batch_size: int, num_samples: int) -> BatchSizeRecord:
        """Stop the clock, once the device has finished, and read the rest. UserError: a size or number below 1."""
        self.synchronize()
        seconds = (time.perf_counter_ns() - measurement.started_ns) / 1e9
        waiting = process.waiting_share(measurement.cpu_before, process.cpu_times_ns())
        gpu = self._stop()
        if batch_size < 1 or num_samples < 1:
            what = f"A measurement of {num_samples} samples in batches of {batch_size} cannot be."
            raise UserError(what, where="end_measurement", fix="both at least 1")
        known: dict[str, Any] = {"num_batches": -(-num_samples // batch_size)}
        if self._cuda:
            peak, before = torch.cuda.max_memory_allocated(self.device), measurement.allocated_before
            known |= {"allocated_bytes": torch.cuda.memory_allocated(self.device) - before, "peak_bytes": peak,
                      "activation_bytes": peak - before, "reserved_bytes": torch.cuda.memory_reserved(self.device)}
        measurement.run = Run(
            num_samples=num_samples, seconds=seconds, cpu_wait_fraction=waiting, gpu=replace(gpu, samples=()),  # in the timeline
            resident_bytes=self._process.memory_info().rss,
            resident_peak_bytes=process.peak_memory_bytes() if measurement.peak_was_reset else None,
            **{**known, **measurement.details()},
        )
        measurement.record = summarise_runs(batch_size, (measurement.run,))
        return measurement.record

    @contextmanager
    def measure(self, batch_size: int, num_samples: int) -> Iterator[Measurement]:
        """Measure the block; its result is in ``run`` and ``record`` afterwards."""
        measurement = self.start_measurement()
        try:
            yield measurement
        except BaseException:
            self._stop()
            raise
        self.end_measurement(measurement, batch_size, num_samples)

    def synchronize(self) -> None:
        """Wait until the device has done all that it was given."""
        if self._cuda:
            torch.cuda.synchronize(self.device)

    def _stop(self) -> GpuReadings:
        if self._collecting:
            gc.enable()
        return self.monitor.stop()

"""One measurement: clock, memory, energy and utilization around a block of work."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psutil
import torch

from utils.core.errors import UserError
from utils.pipeline.hints import python_arguments
from utils.schema.batch_size import BatchSizeRow
from utils.schema.sweep_checkpoint import GpuReadings, Run
from utils.sweep.run_summary import summarise_runs
from utils.system import process
from utils.system.device import resolve_device, synchronize
from utils.system.gpu_monitor import GpuMonitor


@dataclass(kw_only=True, slots=True)
class Measurement:
    """A measurement in progress; ``run`` and ``record`` are set once it has ended."""

    started_ns: int = 0
    allocated_before_bytes: int = 0
    requested_before_bytes: int = 0
    cpu_times_before: tuple[int, int] | None = None
    peak_was_reset: bool = False
    extra_fields: Callable[[], dict[str, Any]] = dict
    """Gives the fields of ``Run`` that only the measured block knows: batches, phases, tokens. The
    block sets it; it is called after the clock has stopped."""
    run: Run | None = None
    record: BatchSizeRow | None = None


class MetricsCollector:
    """Measures any block of inference on one device, and reads NVML beside it.

    Args:
        device: ``cuda``, ``cuda:N`` or ``cpu``.
    """

    @python_arguments()
    def __init__(
        self, device: str | torch.device = "cuda", gpu_sample_interval_ms: float = 20.0
    ) -> None:
        self.device = resolve_device(device)
        self._on_cuda = self.device.type == "cuda"
        self.monitor = GpuMonitor(self.device, gpu_sample_interval_ms / 1e3)
        self._process = psutil.Process()
        # Restored after each measurement, also after one that was never ended.
        self._gc_was_enabled = gc.isenabled()

    def start_measurement(self) -> Measurement:
        """Start the clock, last of all: what prepares the measurement is not timed."""
        gc.collect()
        measurement = Measurement(peak_was_reset=process.reset_peak_memory())
        gc.disable()
        self.synchronize()
        if self._on_cuda:
            torch.cuda.reset_peak_memory_stats(self.device)
            measurement.allocated_before_bytes = torch.cuda.memory_allocated(self.device)
            measurement.requested_before_bytes = self._requested_bytes("current")
        self.monitor.start()
        measurement.cpu_times_before = process.cpu_times_ns()
        measurement.started_ns = time.perf_counter_ns()
        return measurement

    def end_measurement(
        self, measurement: Measurement, batch_size: int, num_samples: int
    ) -> BatchSizeRow:
        """Stop the clock once the device has finished, then read the rest.

        Raises:
            UserError: ``batch_size`` or ``num_samples`` is below 1.
        """
        self.synchronize()
        seconds = (time.perf_counter_ns() - measurement.started_ns) / 1e9
        cpu_times = process.cpu_times_ns()
        gpu = self._stop()
        if batch_size < 1 or num_samples < 1:
            raise UserError(
                "batch_size and num_samples must be at least 1, "
                f"not {batch_size} and {num_samples}.",
                where="end_measurement",
                fix="give the batch size and the number of samples of the measured block",
            )
        values: dict[str, Any] = {
            "num_samples": num_samples,
            "seconds": seconds,
            "num_batches": -(-num_samples // batch_size),
            "cpu_wait_fraction": process.cpu_wait_fraction(measurement.cpu_times_before, cpu_times),
            "gpu": gpu,
        }
        values |= self._memory_fields(measurement)
        values |= measurement.extra_fields()
        run = Run(**values)
        measurement.run = run
        measurement.record = summarise_runs(batch_size, (run,))
        return measurement.record

    def _memory_fields(self, measurement: Measurement) -> dict[str, int]:
        """The fields of ``Run`` for memory, as far as they can be measured here."""
        fields = {"resident_bytes": self._process.memory_info().rss}
        if measurement.peak_was_reset:
            resident_peak_bytes = process.peak_memory_bytes()
            if resident_peak_bytes is not None:
                fields["resident_peak_bytes"] = resident_peak_bytes
        if not self._on_cuda:
            return fields
        before_bytes = measurement.allocated_before_bytes
        allocated_bytes = torch.cuda.memory_allocated(self.device)
        fields["allocated_bytes"] = allocated_bytes
        fields["allocated_change_bytes"] = allocated_bytes - before_bytes
        fields["peak_bytes"] = torch.cuda.max_memory_allocated(self.device)
        fields["activation_bytes"] = self._activation_bytes(measurement)
        fields["reserved_bytes"] = torch.cuda.memory_reserved(self.device)
        return fields

    def _requested_bytes(self, moment: str) -> int:
        """What tensors asked for, ``current`` or ``peak``; 0 where the allocator does not count it.

        The allocator rounds each request up to its blocks, some of which are 1 MB larger.
        """
        return int(torch.cuda.memory_stats(self.device).get(f"requested_bytes.all.{moment}", 0))

    def _activation_bytes(self, measurement: Measurement) -> int:
        """The peak beyond what was there before."""
        requested_peak_bytes = self._requested_bytes("peak")
        if requested_peak_bytes:
            return requested_peak_bytes - measurement.requested_before_bytes
        peak_bytes = torch.cuda.max_memory_allocated(self.device)
        return peak_bytes - measurement.allocated_before_bytes

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
        """Wait until the device has finished all its work."""
        synchronize(self.device)

    def _stop(self) -> GpuReadings:
        if self._gc_was_enabled:
            gc.enable()
        return self.monitor.stop()

"""GPU utilisation of the chunks of an evaluation, window by window, and the timeline of all
samples.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import torch

from utils.schema.sweep_checkpoint import GpuReadings
from utils.system.gpu_monitor import GpuMonitor
from utils.system.gpu_readings import LOOK_BACK_S
from utils.system.gpu_timeline import write_timeline

MIN_WINDOW_S = 2 * LOOK_BACK_S
"""A window must be longer than NVML's utilisation looks back, twice to be safe; it may span several
chunks.
"""
TOO_SHORT = "the run was too short, NVML looks back a second"


@dataclass(frozen=True, kw_only=True, slots=True)
class Utilization:
    """Utilisation in percent, or why there is none, and the seconds that it stands for."""

    util_pct: float | None
    seconds: float
    reason: str | None = None


class UtilizationRecorder:
    """Watches the device of the model; a window is always open until ``close``.

    Args:
        timeline_file: the samples of all windows are appended to it; None writes none.
    """

    def __init__(self, device: torch.device, interval_s: float, timeline_file: Path | None) -> None:
        self._on_cuda = device.type == "cuda"
        self._timeline_file = timeline_file
        self._monitor = GpuMonitor(device, interval_s)
        self._monitor.mark(step="evaluation")
        self._window_start_s = 0.0
        self.start_window()

    def start_window(self) -> GpuReadings:
        """End the open window, save its samples and begin another. Returns the readings of the one
        that ended.
        """
        readings = self._monitor.stop()
        self._window_start_s = time.perf_counter()
        self._save_samples()
        self._monitor.start()
        return readings

    def read(self) -> Utilization:
        """The utilisation since the window began, which then ends; none while it is too short."""
        seconds = time.perf_counter() - self._window_start_s
        if self._on_cuda and seconds < MIN_WINDOW_S:
            return Utilization(util_pct=None, seconds=0.0, reason=TOO_SHORT)
        readings = self.start_window()
        return Utilization(
            util_pct=readings.util_pct_mean,
            seconds=seconds,
            reason=readings.unavailable.get("util_pct_mean"),
        )

    def close(self) -> None:
        """Stop watching, and save the samples since the window began."""
        self._monitor.stop()
        self._save_samples()

    def _save_samples(self) -> None:
        samples = self._monitor.timeline()
        if samples and self._timeline_file is not None:
            write_timeline(self._timeline_file, samples, append=True)

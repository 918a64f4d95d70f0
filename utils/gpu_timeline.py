"""What a GPU's samples over a stretch of time say, and the file that holds every one of them."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

from utils.core.artifacts import atomic_path, write_error

LOOK_BACK_S = 1.0  # of utilisation (1/6 to 1 s) and averaged power. NVML API reference: nvmlUtilization_t, nvmlDeviceGetPowerUsage
INSTANT, AVERAGE, BUFFER = "instant", "average over 1 s", "sample buffer"
LIMITS_S = {  # of each way to read: how far back a reading looks; the shortest window that has enough of them
    INSTANT: (0.1, 0.5),  # a step each 100 ms, from a sensor that saw 25 of them (A100, H100: arXiv 2312.02741); five steps
    **dict.fromkeys((AVERAGE, BUFFER), (LOOK_BACK_S, LOOK_BACK_S)),  # a buffer's is not documented: taken for the longest
}
COUNTER_SHORTEST_S = 1.0  # the energy counter steps each 100 ms (Zeus): off by up to a tenth at one second
ANSWERED_SHARE = 0.9  # of the readings; with fewer, the mean would be that of another stretch of time
IDLE_UTIL_PCT = 5.0  # more, while we give the device nothing to do, is another process and no display
CLOCK_LIMITS = {  # NVML API reference: nvmlClocksEventReasons
    0x1: "idle", 0x2: "application clocks", 0x4: "software power cap", 0x8: "hardware slowdown", 0x10: "sync boost",
    0x20: "software thermal slowdown", 0x40: "hardware thermal slowdown", 0x80: "power brake", 0x100: "display clocks",
}
SPOILING = 0x4 | 0x8 | 0x20 | 0x40 | 0x80
TIMELINE_COLUMNS = ("time_s", "step", "batch_size", "run", "util_pct", "memory_mb", "sm_clock_mhz", "memory_clock_mhz",
                    "power_w", "temperature_c", "clock_limit_reasons")
NAMES = {  # in the reason for a figure's absence; others as they are
    "util_pct": "gpu_util", "power_w": "gpu_power", "memory_bytes": "gpu_mem_device, gpu_mem_other",
    "sm_clock_mhz": "gpu_sm_clock", "temperature_c": "gpu_temperature",
}
Points = tuple[tuple[float, float], ...]  # time.perf_counter in seconds, value


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One reading; what the driver does not give is None. ``time_s`` is ``time.perf_counter`` just before."""

    time_s: float
    util_pct: float | None = None
    power_w: float | None = None
    memory_bytes: float | None = None
    sm_clock_mhz: float | None = None
    memory_clock_mhz: float | None = None
    temperature_c: float | None = None
    clock_limit_reasons: int | None = None


@dataclass(kw_only=True, slots=True)
class Window:
    """What is gathered between ``start`` and ``stop``."""

    interval_s: float  # as asked for
    start_s: float = 0.0
    end_s: float = 0.0
    system_s: float = 0.0  # what the system's time is ahead of time.perf_counter
    cpu_s: float = 0.0  # of the sampling thread
    samples: list[Sample] = field(default_factory=list)
    buffered: dict[str, Points] = field(default_factory=dict)  # the driver's own samples, by the sample's field
    power_source: str = AVERAGE  # of the samples
    counter_j: float | None = None  # by how much the energy counter moved
    num_processes: float | None = None  # that compute on the device; 0 where a container hides them
    idle: bool = False  # we gave the device nothing to do, in the second before neither
    errors: Mapping[str, str] = field(default_factory=dict)  # why a figure was not read, by the sample's field


@dataclass(frozen=True, kw_only=True, slots=True)
class GpuReadings:
    """What a window showed. ``warnings`` says why a figure is None and what spoiled the window."""

    samples: tuple[Sample, ...] = ()
    util_pct_mean: float | None = None
    power_w_mean: float | None = None
    power_source: str | None = None  # INSTANT, AVERAGE or BUFFER
    energy_j: float | None = None
    energy_source: str | None = None  # "counter", or "integrated power": the mean times the window's seconds
    device_memory_bytes: int | None = None  # the most in use on the device, by whomever
    sm_clock_mhz_mean: float | None = None
    memory_clock_mhz_mean: float | None = None
    temperature_c_max: float | None = None
    throttled: tuple[str, ...] = ()  # clock-limit reasons that spoil a measurement, at any sample
    shared: bool | None = None  # another process computes on the GPU; None is not known
    num_samples: int = 0
    interval_s_actual: float | None = None
    thread_cpu_share: float | None = None  # CPU time of the sampling thread over the window's seconds
    warnings: tuple[str, ...] = ()


def interpret(window: Window) -> GpuReadings:
    """What the window showed, and what it cannot show."""
    said: list[str] = []
    seconds, times = window.end_s - window.start_s, [sample.time_s for sample in window.samples]
    polled = {item.name: _answered(window, item.name, said) for item in fields(Sample)[1:]}
    util, _ = _describing(window, "util_pct", polled["util_pct"], AVERAGE, said)
    power, power_source = _describing(window, "power_w", polled["power_w"], window.power_source, said)
    util_mean, power_mean, energy_j, energy_source = _mean(util), _mean(power), None, None
    if window.counter_j and seconds >= COUNTER_SHORTEST_S:  # one that stands still is no counter
        energy_j, energy_source = window.counter_j, "counter"
    elif power_mean is not None and len(power) > 1:
        energy_j, energy_source = power_mean * seconds, "integrated power"
    else:
        said.append("energy: the window is too short for the counter or there is none, and no power to integrate")
    seen = [int(value) & SPOILING for _, value in polled["clock_limit_reasons"]]
    if throttled := tuple(name for bit, name in CLOCK_LIMITS.items() if any(limits & bit for limits in seen)):
        said.append(f"throttled: {', '.join(throttled)}")
    interval_s = (times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else None
    if interval_s is not None and interval_s > 2 * window.interval_s:
        said.append(f"GPU sampling: not every {1e3 * window.interval_s:g} ms as asked for, to stay under 1% of a core")
    return GpuReadings(
        samples=tuple(window.samples), util_pct_mean=util_mean, power_w_mean=power_mean, power_source=power_source,
        energy_j=energy_j, energy_source=energy_source, throttled=throttled, shared=_shared(window, util_mean, said),
        device_memory_bytes=int(max((v for _, v in polled["memory_bytes"]), default=0)) or None,
        sm_clock_mhz_mean=_mean(polled["sm_clock_mhz"]), memory_clock_mhz_mean=_mean(polled["memory_clock_mhz"]),
        temperature_c_max=max((v for _, v in polled["temperature_c"]), default=None), num_samples=len(times),
        interval_s_actual=interval_s, thread_cpu_share=window.cpu_s / seconds, warnings=tuple(said),
    )


def _answered(window: Window, name: str, said: list[str]) -> Points:
    """Times and values of one figure; none, with the reason, where the driver left out too many."""
    points = tuple((s.time_s, float(value)) for s in window.samples if (value := getattr(s, name)) is not None)
    if points and len(points) >= ANSWERED_SHARE * len(window.samples):
        return points
    why = window.errors.get(name, "not answered") if window.samples else "the window is too short for one reading"
    said.append(f"{NAMES.get(name, name)}: {why}")
    return ()


def _describing(window: Window, name: str, polled: Points, source: str, said: list[str]) -> tuple[Points, str | None]:
    """The readings that describe the window alone: polled, or the driver's own where those tell more moments apart."""

    def kept(points: Points, look_back_s: float, shortest_s: float) -> Points:
        first_s = window.start_s if window.idle else window.start_s + look_back_s
        enough = window.end_s - window.start_s >= shortest_s
        return tuple(point for point in points if enough and first_s <= point[0] <= window.end_s)

    if not polled:
        return (), None
    ours, drivers = kept(polled, *LIMITS_S[source]), kept(window.buffered.get(name, ()), *LIMITS_S[BUFFER])
    if not ours and not drivers:
        said.append(f"{NAMES.get(name, name)}: the window is too short, the driver's figure describes a longer time")
        return (), None
    distinct = sum(a[1] != b[1] for a, b in pairwise(ours)) + 1
    return (drivers, BUFFER) if len(drivers) > distinct or not ours else (ours, source)


def _mean(points: Points) -> float | None:
    """Over time (trapezoids): readings are not evenly apart."""
    if not points or points[-1][0] == points[0][0]:
        return points[0][1] if points else None
    area = sum((t1 - t0) * (v0 + v1) / 2 for (t0, v0), (t1, v1) in pairwise(points))
    return area / (points[-1][0] - points[0][0])


def _shared(window: Window, util_pct: float | None, said: list[str]) -> bool | None:
    """By the number of processes, ours among them: in a container NVML's process ids match none that we know."""
    if (window.num_processes or 0) > 1:
        said.append(f"shared: NVML lists {window.num_processes:g} compute processes on this GPU, ours is one")
        return True
    if not window.idle or util_pct is None:
        return False if window.num_processes else None
    if busy := util_pct > IDLE_UTIL_PCT:
        said.append("shared: the GPU works while this process gives it nothing to do")
    return busy


def timeline_row(sample: Sample, since_s: float, labels: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the timeline, as read: utilisation and averaged power describe up to a second before ``time_s``."""
    limits, memory = sample.clock_limit_reasons, sample.memory_bytes
    named = "; ".join(CLOCK_LIMITS.get(1 << n, hex(1 << n)) for n in range(64) if (limits or 0) >> n & 1)
    return {name: getattr(sample, name, labels.get(name)) for name in TIMELINE_COLUMNS} | {
        "time_s": round(sample.time_s - since_s, 4), "memory_mb": None if memory is None else memory / 1e6,
        "clock_limit_reasons": None if limits is None else named or "none",
    }


def write_timeline(path: Path, rows: Iterable[Mapping[str, Any]], *, append: bool = False) -> None:
    """Write CSV: a run's first rows whole or not at all, later ones with ``append`` at the end. UserError: it cannot be."""
    append = append and path.exists()
    try:
        with nullcontext(path) if append else atomic_path(path) as target, target.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, TIMELINE_COLUMNS)
            if not append:
                writer.writeheader()
            writer.writerows(rows)
    except OSError as error:
        raise write_error(path, error) from error

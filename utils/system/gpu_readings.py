"""What a GPU's samples over a window show.

A *window* is a stretch of time that is measured: a run, or the GPU at rest. A reading *looks back*
where the driver's value is an average over the time before it, up to one second. Only readings that
look back into the window alone describe it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import pairwise

from utils.schema.sweep_checkpoint import GpuReadings
from utils.schema.warning_codes import WarningCode

LOOK_BACK_S = 1.0
"""How far utilization (1/6 to 1 s) and averaged power look back. Source: NVML API reference,
nvmlUtilization_t and nvmlDeviceGetPowerUsage."""
INSTANT = "instant"
AVERAGE = "average over 1 s"
BUFFER = "sample buffer"
LIMITS_S = {
    # A step every 100 ms, from a sensor that saw 25 of them (A100, H100: arXiv 2312.02741); five
    # steps.
    INSTANT: (0.1, 0.5),
    AVERAGE: (LOOK_BACK_S, LOOK_BACK_S),
    # Not documented, so the longest is assumed.
    BUFFER: (LOOK_BACK_S, LOOK_BACK_S),
}
"""For each way to read: how far back a reading looks, and the shortest window that has enough."""
COUNTER_SHORTEST_S = 1.0
"""The energy counter moves every 100 ms (Zeus), so it is off by up to a tenth at one second."""
DRIVER_PERIOD_S = 0.1
"""The driver renews power and utilization so often at most (Zeus; NVML API reference), so that
readings closer together than this miss nothing."""
MIN_VALID_FRACTION = 0.9
"""Of the readings; with fewer, the mean would be that of another stretch of time."""
IDLE_UTIL_PCT = 5.0
"""Higher utilization while this process is idle is another process, and not a display."""
CLOCK_LIMITS = {
    0x1: "idle",
    0x2: "application clocks",
    0x4: "software power cap",
    0x8: "hardware slowdown",
    0x10: "sync boost",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "power brake",
    0x100: "display clocks",
}
"""Source: NVML API reference, nvmlClocksEventReasons."""
POWER_CAP = 0x4
"""The normal state of a large GPU in large matrix products: reported, but no fault of the run."""
THROTTLE_MASK = 0x8 | 0x20 | 0x40 | 0x80
"""The clock limits that spoil a measurement."""
READING_FIELDS = {
    "util_pct": "util_pct_mean",
    "power_w": "power_w_mean",
    "memory_bytes": "device_memory_bytes",
    "sm_clock_mhz": "sm_clock_mhz_mean",
    "memory_clock_mhz": "memory_clock_mhz_mean",
    "temperature_c": "temperature_c_max",
    "clock_limit_reasons": "throttled",
}
"""For each field of ``Sample``: the field of ``GpuReadings`` that it becomes."""
Points = tuple[tuple[float, float], ...]
"""Pairs of ``time.perf_counter`` in seconds and value."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One reading; None for what the driver does not report.

    Args:
        time_s: ``time.perf_counter`` just before the reading.
    """

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
    """What is gathered between ``start`` and ``stop``.

    Args:
        interval_s: the requested time between samples.
        system_s: how far the system's time is ahead of ``time.perf_counter``.
        cpu_s: CPU time of the sampling thread.
        buffered: the driver's own samples, by field of ``Sample``.
        power_source: how the samples' power was read.
        counter_j: by how much the energy counter moved.
        num_processes: processes that compute on the device; 0 in a container that hides them.
        idle: this process gave the device nothing to do, in the second before the window neither.
        errors: why a value was not read, by field of ``Sample``.
    """

    interval_s: float
    start_s: float = 0.0
    end_s: float = 0.0
    system_s: float = 0.0
    cpu_s: float = 0.0
    samples: list[Sample] = field(default_factory=list)
    buffered: dict[str, Points] = field(default_factory=dict)
    power_source: str = AVERAGE
    counter_j: float | None = None
    num_processes: float | None = None
    idle: bool = False
    errors: Mapping[str, str] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        return self.end_s - self.start_s


def no_readings(reason: str) -> GpuReadings:
    """Readings without a single value, for the same reason."""
    names = (*READING_FIELDS.values(), "energy_j", "shared")
    return GpuReadings(unavailable=dict.fromkeys(names, reason))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Series:
    """Readings of one metric; none with the reason why."""

    points: Points = ()
    source: str | None = None
    reason: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Energy:
    joules: float | None = None
    source: str | None = None
    reason: str | None = None


def summarize_window(window: Window) -> GpuReadings:
    """What the window showed, with the reason for what it cannot show."""
    polled: dict[str, _Series] = {}
    for item in fields(Sample):
        if item.name != "time_s":
            polled[item.name] = _valid_points(window, item.name)
    util = _points_inside_window(window, "util_pct", polled["util_pct"], AVERAGE)
    power = _points_inside_window(window, "power_w", polled["power_w"], window.power_source)
    util_pct_mean = _mean_over_time(util.points)
    power_w_mean = _mean_over_time(power.points)
    energy = _energy(window, power)
    clock_limits = _seen_clock_limits(polled["clock_limit_reasons"].points)
    interval_s = _actual_interval_s(window)
    shared = _is_shared(window, util_pct_mean)
    return GpuReadings(
        util_pct_mean=util_pct_mean,
        power_w_mean=power_w_mean,
        power_source=power.source,
        energy_j=energy.joules,
        energy_source=energy.source,
        device_memory_bytes=_largest_bytes(polled["memory_bytes"].points),
        sm_clock_mhz_mean=_mean_over_time(polled["sm_clock_mhz"].points),
        memory_clock_mhz_mean=_mean_over_time(polled["memory_clock_mhz"].points),
        temperature_c_max=_largest(polled["temperature_c"].points),
        throttled=_limit_names(clock_limits & THROTTLE_MASK),
        power_capped=bool(clock_limits & POWER_CAP),
        shared=shared,
        num_samples=len(window.samples),
        interval_s_actual=interval_s,
        thread_cpu_share=window.cpu_s / window.seconds,
        warnings=_warnings(window, clock_limits, interval_s, shared=shared),
        unavailable=_reasons({**polled, "util_pct": util, "power_w": power}, energy, shared),
    )


def _warnings(
    window: Window, clock_limits: int, interval_s: float | None, *, shared: bool | None
) -> tuple[str, ...]:
    """What to know about the readings of the window."""
    warnings = []
    throttled = _limit_names(clock_limits & THROTTLE_MASK)
    if throttled:
        warnings.append(throttling_warning(throttled))
    if clock_limits & POWER_CAP:
        warnings.append(
            WarningCode.GPU_READINGS.warn(
                "the GPU lowered its clock to stay within its power limit, as large GPUs do under "
                "load"
            )
        )
    if interval_s is not None and interval_s > max(2 * window.interval_s, DRIVER_PERIOD_S):
        warnings.append(
            WarningCode.GPU_READINGS.warn(
                f"the GPU was not read every {1e3 * window.interval_s:g} ms as requested, to stay "
                "below 1% of a core"
            )
        )
    if shared:
        warnings.append(_sharing_warning(window))
    return tuple(warnings)


def throttling_warning(causes: Sequence[str]) -> str:
    """That the GPU lowered its clock, with NVML's names of the causes."""
    return WarningCode.THROTTLED.warn(f"the GPU lowered its clock ({', '.join(causes)})")


def _reasons(series: Mapping[str, _Series], energy: _Energy, shared: bool | None) -> dict[str, str]:
    """Why readings are missing, by field of ``GpuReadings``."""
    reasons = {}
    for name, one in series.items():
        if one.reason is not None:
            reasons[READING_FIELDS[name]] = one.reason
    if energy.reason is not None:
        reasons["energy_j"] = energy.reason
    if shared is None:
        reasons["shared"] = "NVML lists no processes"
    return reasons


def _valid_points(window: Window, name: str) -> _Series:
    """The samples' values of one field; none if the driver left out too many."""
    points = []
    for sample in window.samples:
        value = getattr(sample, name)
        if value is not None:
            points.append((sample.time_s, float(value)))
    if points and len(points) >= MIN_VALID_FRACTION * len(window.samples):
        return _Series(points=tuple(points))
    reason = "the window is too short for one reading"
    if window.samples:
        reason = window.errors.get(name, "not reported")
    return _Series(reason=reason)


def _points_inside_window(window: Window, name: str, polled: _Series, source: str) -> _Series:
    """The readings that describe the window alone.

    The driver's own samples replace the polled ones if they show more distinct moments.
    """
    if not polled.points:
        return polled
    own_samples = _within_limits(window, polled.points, source)
    driver_samples = _within_limits(window, window.buffered.get(name, ()), BUFFER)
    if not own_samples and not driver_samples:
        return _Series(reason="the window is too short, the driver's value describes a longer time")
    if not own_samples or len(driver_samples) > _num_distinct(own_samples):
        return _Series(points=driver_samples, source=BUFFER)
    return _Series(points=own_samples, source=source)


def _within_limits(window: Window, points: Points, source: str) -> Points:
    """The points that look back into the window alone; none if the window is too short."""
    look_back_s, shortest_s = LIMITS_S[source]
    if window.seconds < shortest_s:
        return ()
    first_s = window.start_s
    if not window.idle:
        first_s += look_back_s
    return tuple(point for point in points if first_s <= point[0] <= window.end_s)


def _num_distinct(points: Points) -> int:
    """How often the value changes, plus one: repeated readings of one value show one moment."""
    changes = sum(before[1] != after[1] for before, after in pairwise(points))
    return changes + 1


def _energy(window: Window, power: _Series) -> _Energy:
    # A counter that does not move is none.
    if window.counter_j and window.seconds >= COUNTER_SHORTEST_S:
        return _Energy(joules=window.counter_j, source="counter")
    power_w_mean = _mean_over_time(power.points)
    if power_w_mean is not None and len(power.points) > 1:
        return _Energy(joules=power_w_mean * window.seconds, source="integrated power")
    return _Energy(
        reason=(
            "the window is too short for the counter or there is none, and no power to integrate"
        )
    )


def _seen_clock_limits(points: Points) -> int:
    """The bits of every sample together."""
    seen = 0
    for _, limits in points:
        seen |= int(limits)
    return seen


def _limit_names(bits: int) -> tuple[str, ...]:
    return tuple(name for bit, name in CLOCK_LIMITS.items() if bits & bit)


def _actual_interval_s(window: Window) -> float | None:
    count = len(window.samples)
    if count < 2:
        return None
    return (window.samples[-1].time_s - window.samples[0].time_s) / (count - 1)


def _mean_over_time(points: Points) -> float | None:
    """Trapezoidal mean, because readings are not evenly spaced."""
    if not points:
        return None
    span_s = points[-1][0] - points[0][0]
    if not span_s:
        return points[0][1]
    area = 0.0
    for (time_s, value), (next_s, next_value) in pairwise(points):
        area += (next_s - time_s) * (value + next_value) / 2
    return area / span_s


def _largest(points: Points) -> float | None:
    return max((value for _, value in points), default=None)


def _largest_bytes(points: Points) -> int | None:
    largest = _largest(points)
    if not largest:
        return None
    return int(largest)


def _is_shared(window: Window, util_pct: float | None) -> bool | None:
    """Whether another process uses the GPU, by their number, or by work that is not this process's.

    By the number, because NVML's process ids in a container match none that we know.
    """
    if (window.num_processes or 0) > 1:
        return True
    if window.idle and util_pct is not None:
        return util_pct > IDLE_UTIL_PCT
    if window.num_processes:
        return False
    return None


def _sharing_warning(window: Window) -> str:
    if (window.num_processes or 0) > 1:
        return WarningCode.SHARED.warn(
            f"NVML lists {window.num_processes:g} compute processes on this GPU, "
            "this process is one of them"
        )
    return WarningCode.SHARED.warn("the GPU works while this process gives it nothing to do")

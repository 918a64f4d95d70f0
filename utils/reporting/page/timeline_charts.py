"""Pictures over time: the readings of the GPU, and the memory of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

from matplotlib.figure import Figure

from utils.reporting.commands import STEP_03_MISSING
from utils.reporting.formatting import format_number, not_measured
from utils.reporting.page import captions
from utils.reporting.page.blocks import Chart, draw_chart
from utils.reporting.page.colours import MEASURED, MEMORY, SOFT
from utils.reporting.page.inline_svg import Tips, new_figure
from utils.reporting.results import Results
from utils.schema.trace_tables import GpuReading, MemoryPoint

MAX_POINTS = 600
"""Points of a curve; more would be drawn over each other."""
NO_GPU = "the model ran on the CPU"
NO_READINGS = "gpu_timeline.csv has no readings"


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """A column of the timeline with its name and unit."""

    column: str
    title: str
    unit: str


READINGS = (
    Reading(column="util_pct", title="GPU utilisation over time", unit="%"),
    Reading(column="power_w", title="GPU power over time", unit="W"),
    Reading(column="sm_clock_mhz", title="GPU clock over time", unit="MHz"),
    Reading(column="temperature_c", title="GPU temperature over time", unit="°C"),
)


def timeline_charts(results: Results) -> tuple[Chart, ...]:
    """The GPU over the whole run, then the memory of one batch."""
    readings = results.tables.gpu_readings
    charts = []
    drawn = [reading for reading in READINGS if _points(readings, reading.column)]
    if not drawn:
        reason = NO_READINGS if results.on_gpu else NO_GPU
        charts.append(Chart(title="GPU over time", missing=not_measured(reason)))
    for reading in drawn:
        draw = partial(_draw_reading, readings, reading)
        name = f"gpu-{reading.column}"
        charts.append(draw_chart(name, reading.title, captions.GPU_READINGS, draw))
    charts.append(_memory_chart(results))
    return tuple(charts)


def _points(readings: Sequence[GpuReading], column: str) -> list[tuple[float, float]]:
    """Seconds since the first reading of any column, with the value of this one."""
    points = []
    for row in readings:
        value: float | None = getattr(row, column)
        if value is not None:
            points.append((row.time_s - readings[0].time_s, value))
    return points


def time_mean(points: Sequence[tuple[float, float]]) -> float:
    """The mean over time of a curve through these points, which need not be equally far apart.

    Args:
        points: seconds with values, at least one, in the order of time.
    """
    area = 0.0
    for (begin_s, first), (end_s, second) in pairwise(points):
        area += (end_s - begin_s) * (first + second) / 2
    duration_s = points[-1][0] - points[0][0]
    if duration_s <= 0:
        return sum(value for _, value in points) / len(points)
    return area / duration_s


def _thinned(points: Sequence[tuple[float, float]]) -> Sequence[tuple[float, float]]:
    step = -(-len(points) // MAX_POINTS)
    return points[::step]


def _draw_reading(readings: Sequence[GpuReading], reading: Reading, tips: Tips) -> Figure:
    figure = new_figure(6.2, 2.6)
    axes = figure.subplots()
    points = _points(readings, reading.column)
    shown = _thinned(points)
    axes.plot([time for time, _ in shown], [value for _, value in shown], color=MEASURED, lw=1.3)
    highest = max(value for _, value in points)
    mean = time_mean(points)
    line = axes.axhline(mean, color=SOFT, linestyle="--")
    tips.add(line, f"mean over time {format_number(mean, reading.unit)}")
    axes.set_ylim(0, highest * 1.1 or 1.0)
    axes.set(xlabel="time since the first reading (s)", ylabel=reading.unit)
    return figure


def _memory_chart(results: Results) -> Chart:
    title = "Memory over one batch"
    points = results.tables.memory
    if not points:
        reason = STEP_03_MISSING
        if results.diagnosis is not None:
            reason = results.diagnosis.reason("peak_memory") or "memory.csv is missing"
        return Chart(title=title, missing=not_measured(reason))
    draw = partial(_draw_memory, points)
    return draw_chart("memory-time", title, captions.MEMORY_OF_BATCH, draw)


def _draw_memory(points: Sequence[MemoryPoint], tips: Tips) -> Figure:
    figure = new_figure(6.2, 2.6)
    axes = figure.subplots()
    shown = _highest_of_each_part(points)
    times_ms = [point.time_ms for point in shown]
    allocated_mb = [point.allocated_mb for point in shown]
    axes.step(times_ms, allocated_mb, where="post", color=MEMORY, linewidth=1.1)
    axes.fill_between(times_ms, allocated_mb, step="post", alpha=0.25, color=MEMORY)
    peak = max(points, key=lambda point: point.allocated_mb)
    mark = axes.plot(peak.time_ms, peak.allocated_mb, "o", color=MEMORY)[0]
    label = f"peak {format_number(peak.allocated_mb, 'MB')}"
    tips.add(mark, label)
    axes.annotate(
        label, (peak.time_ms, peak.allocated_mb), xytext=(6, 4), textcoords="offset points"
    )
    axes.set(xlabel="time (ms, traced)", ylabel="MB", ylim=(0, 1.2 * peak.allocated_mb or 1.0))
    return figure


def _highest_of_each_part(points: Sequence[MemoryPoint]) -> list[MemoryPoint]:
    """At most ``MAX_POINTS`` points; of neighbours the highest, so that no peak is lost."""
    step = -(-len(points) // MAX_POINTS)
    shown = []
    for start in range(0, len(points), step):
        part = points[start : start + step]
        shown.append(max(part, key=lambda point: point.allocated_mb))
    return shown

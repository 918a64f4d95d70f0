"""The pictures of step 03's tables: time by module, time by operator, memory over a batch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from utils.reporting.diagnosis_tables import MAX_ROWS, own_time_column
from utils.reporting.formatting import format_number
from utils.reporting.plot_style import BLUE, RED
from utils.schema.trace_tables import LayerRow, MemoryPoint, OperatorRow

MAX_LABEL_LENGTH = 42
MAX_LARGE_TICKS = 16
"""More layers than this get smaller tick labels."""


def draw_layer_times(layers: Sequence[LayerRow]) -> Figure:
    """``layers_time.png``: the modules' own time by kind, and by layer of the model."""
    figure = Figure(figsize=(13, 5.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw_bars(
        left,
        _sum_by((row.kind, row.self_time_ms) for row in layers),
        title="Own time by kind of module",
        axis_label="time without children (ms per forward)",
    )
    by_layer: dict[int, float] = defaultdict(float)
    for row in layers:
        # Modules outside the layers have no index.
        if row.layer_index is not None:
            by_layer[int(row.layer_index)] += row.self_time_ms
    indices = sorted(by_layer)
    heights = [by_layer[index] for index in indices]
    right.bar([str(index) for index in indices], heights, color=BLUE, width=0.72)
    right.set_title("Own time by layer of the model")
    right.set(xlabel="layer", ylabel="time of the layer's modules (ms per forward)")
    right.tick_params(axis="x", labelsize=7.5 if len(indices) > MAX_LARGE_TICKS else 10)
    return figure


def draw_operator_times(operators: Sequence[OperatorRow]) -> Figure:
    """``operators_time.png``: the operators' own time, and what the ceilings would allow."""
    figure = Figure(figsize=(10, 5.6), layout="constrained")
    axes = figure.subplots()
    column = own_time_column(operators)
    own_time = attrgetter(column)
    place = "device" if column == "self_device_ms" else "host"
    shown = _draw_bars(
        axes,
        _sum_by((row.operator, own_time(row)) for row in operators),
        title="Operators with the most time of their own",
        axis_label=f"{place} time (ms per batch, traced)",
    )
    _mark_attainable(axes, shown, operators)
    return figure


def _mark_attainable(axes: Axes, shown: Sequence[str], operators: Sequence[OperatorRow]) -> None:
    """A mark on each bar where its operator would be at the machine's ceilings."""
    attainable_ms = _sum_by((row.operator, row.attainable_ms) for row in operators)
    positions = []
    times = []
    for position, name in enumerate(shown):
        if name in attainable_ms:
            positions.append(position)
            times.append(attainable_ms[name])
    if not times:
        return
    axes.plot(
        times,
        positions,
        "|",
        color=RED,
        markersize=13,
        markeredgewidth=2.5,
        label="at the ceilings",
    )
    axes.legend(loc="lower right")


def draw_memory(points: Sequence[MemoryPoint]) -> Figure:
    """``memory_time.png``: what is allocated while one traced batch runs."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    axes = figure.subplots()
    times_ms = [point.time_ms for point in points]
    allocated_mb = [point.allocated_mb for point in points]
    axes.step(times_ms, allocated_mb, where="post", marker="", linewidth=1.1)
    axes.fill_between(times_ms, allocated_mb, step="post", alpha=0.2, color=BLUE)
    peak = max(points, key=lambda point: point.allocated_mb)
    axes.annotate(
        f"peak {format_number(peak.allocated_mb, 'MB')}",
        (peak.time_ms, peak.allocated_mb),
        xytext=(6, 4),
        textcoords="offset points",
        color=RED,
        fontsize=9,
    )
    axes.set(
        xlabel="time (ms, traced)",
        ylabel="allocated beyond the weights (MB)",
        ylim=(0, 1.15 * peak.allocated_mb or 1),
    )
    axes.set_title("Memory over one batch")
    return figure


def _sum_by(items: Iterable[tuple[str, float | None]]) -> dict[str, float]:
    """The sum of the values of each name; a name without any value is left out."""
    sums: dict[str, float] = defaultdict(float)
    for name, value in items:
        if value is not None:
            sums[name] += value
    return dict(sums)


def _draw_bars(
    axes: Axes, values: Mapping[str, float], *, title: str, axis_label: str
) -> list[str]:
    """Horizontal bars, the longest on top, each with its value and its share of all values.

    Returns:
        The names of the bars that are shown, from the top.
    """
    total = sum(values.values())
    names = sorted(values, key=lambda name: (-values[name], name))[:MAX_ROWS]
    positions = range(len(names))
    bars = axes.barh(positions, [values[name] for name in names], color=BLUE, height=0.72)
    axes.set_yticks(positions, [_shorten_middle(name) for name in names])
    axes.invert_yaxis()
    labels = []
    for name in names:
        share = values[name] / (total or 1)
        labels.append(f"{format_number(values[name])} ({share:.0%})")
    axes.bar_label(bars, labels, padding=4, fontsize=8.5)
    axes.set_title(title)
    axes.set_xlabel(axis_label)
    axes.margins(x=0.18)
    axes.grid(False, axis="y")
    return names


def _shorten_middle(name: str) -> str:
    if len(name) <= MAX_LABEL_LENGTH:
        return name
    return f"{name[:20]}…{name[-20:]}"

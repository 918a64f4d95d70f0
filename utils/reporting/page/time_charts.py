"""Pictures of where the time goes: phases of a batch, modules, layers and operators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from operator import attrgetter

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from utils.reporting.commands import STEP_03_MISSING
from utils.reporting.diagnosis_tables import own_time_column
from utils.reporting.formatting import format_number, not_measured
from utils.reporting.page import captions
from utils.reporting.page.blocks import Chart, draw_chart
from utils.reporting.page.colours import INPUT, MEASURED, PAPER, SOFT
from utils.reporting.page.inline_svg import Tips, new_figure
from utils.reporting.page.visible import picture_label
from utils.reporting.phases_plot import PHASES
from utils.reporting.results import Results
from utils.reporting.sweeps import Sweep
from utils.schema.trace_tables import OperatorRow

MAX_BARS = 12
LIGHT = 0.45
"""Opacity of what is above the ceilings, or of an operator whose ceiling is not known."""
PHASE_LOOKS = {
    "tokenize_ms_mean": (INPUT, 1.0),
    "host_to_device_ms_mean": (INPUT, 0.55),
    "forward_ms_mean": (MEASURED, 1.0),
    "device_to_host_ms_mean": (INPUT, 0.3),
}
"""Colour and opacity: all that is not the forward is input and output."""


def phases_chart(results: Results) -> Chart:
    """A bar of 100% for each batch size of the sweep."""
    title = "Phases of a batch"
    sweep = results.sweep
    if not any(sweep.has(metric) for metric in PHASES):
        return Chart(title=title, missing=not_measured(sweep.reason("forward_ms_mean")))
    return draw_chart("phases", title, captions.PHASES, partial(_draw_phases, sweep))


def _draw_phases(sweep: Sweep, tips: Tips) -> Figure:
    columns = {metric: sweep.values(metric) for metric in PHASES}
    sizes = [size for size in sweep.batch_sizes if size in columns["forward_ms_mean"]]
    figure = new_figure(6.2, 1.5 + 0.36 * len(sizes))
    axes = figure.subplots()
    for position, size in enumerate(sizes):
        total_ms = sum(values.get(size, 0.0) for values in columns.values())
        left_pct = 0.0
        for metric, name in PHASES.items():
            time_ms = columns[metric].get(size, 0.0)
            share_pct = 100 * time_ms / (total_ms or 1.0)
            colour, opacity = PHASE_LOOKS[metric]
            bars = axes.barh(
                position,
                share_pct,
                left=left_pct,
                height=0.7,
                color=colour,
                alpha=opacity,
                edgecolor=PAPER,
                label=name if position == 0 else None,
            )
            text = f"batch size {size}, {name}: {format_number(time_ms, 'ms')}, {share_pct:.0f}%"
            tips.add(bars.patches[0], text)
            left_pct += share_pct
    axes.set_yticks(range(len(sizes)), [str(size) for size in sizes])
    axes.invert_yaxis()
    axes.grid(False, axis="y")
    axes.set(ylabel="batch size", xlabel="share of the time (%)", xlim=(0, 100))
    figure.legend(loc="outside upper left", ncols=4, columnspacing=1.0, handlelength=1.0)
    return figure


def module_charts(results: Results) -> tuple[Chart, ...]:
    """Own time by kind of module, and by layer of the model."""
    kind_title = "Time by kind of module"
    layer_title = "Time by layer of the model"
    layers = results.tables.layers
    if not layers:
        reason = not_measured(_why_no_modules(results))
        return (Chart(title=kind_title, missing=reason), Chart(title=layer_title, missing=reason))
    by_kind: dict[str, float] = {}
    by_layer: dict[int, float] = {}
    for row in layers:
        by_kind[row.kind] = by_kind.get(row.kind, 0.0) + row.self_time_ms
        if row.layer_index is not None:
            index = int(row.layer_index)
            by_layer[index] = by_layer.get(index, 0.0) + row.self_time_ms
    draw_kinds = partial(_draw_bars, by_kind)
    charts = [draw_chart("kinds", kind_title, captions.MODULES, draw_kinds)]
    if by_layer:
        draw_layers = partial(_draw_layers, by_layer)
        charts.append(draw_chart("layers", layer_title, captions.MODULES, draw_layers))
    return tuple(charts)


def _why_no_modules(results: Results) -> str:
    if results.diagnosis is None:
        return STEP_03_MISSING
    return results.diagnosis.reason("layers_by_kind") or "step 03 has timed no modules"


def operator_chart(results: Results) -> Chart:
    """The operators with the most time of their own, with their time at the ceilings."""
    title = "Time by operator"
    operators = results.tables.operators
    if not operators:
        return Chart(title=title, missing=not_measured(STEP_03_MISSING))
    draw = partial(_draw_operators, operators)
    return draw_chart("operators", title, captions.OPERATORS, draw)


def _draw_operators(operators: Sequence[OperatorRow], tips: Tips) -> Figure:
    own_time = attrgetter(own_time_column(operators))
    times: dict[str, float] = {}
    attainable: dict[str, float] = {}
    for row in operators:
        times[row.operator] = times.get(row.operator, 0.0) + (own_time(row) or 0.0)
        if row.attainable_ms is not None:
            attainable[row.operator] = attainable.get(row.operator, 0.0) + row.attainable_ms
    return _draw_bars(times, tips, attainable)


def _largest_first(times_ms: Mapping[str, float]) -> list[str]:
    return sorted(times_ms, key=lambda name: (-times_ms[name], name))[:MAX_BARS]


def _draw_bars(
    times_ms: Mapping[str, float], tips: Tips, attainable_ms: Mapping[str, float] | None = None
) -> Figure:
    """Horizontal bars, the longest on top, each with its share of all times.

    Args:
        attainable_ms: the part of a bar that is dark; None where all bars are dark as a whole.
    """
    names = _largest_first(times_ms)
    figure = new_figure(6.2, 1.0 + 0.31 * len(names))
    axes = figure.subplots()
    total_ms = sum(times_ms.values()) or 1.0
    for position, name in enumerate(names):
        time_ms = times_ms[name]
        share = time_ms / total_ms
        text = f"{name}: {format_number(time_ms, 'ms')}, {share:.1%}"
        dark_ms = (attainable_ms or {}).get(name)
        if dark_ms is not None:
            text += f"; at the ceilings {format_number(dark_ms, 'ms')}"
            dark = axes.barh(position, min(dark_ms, time_ms), color=MEASURED, height=0.7, zorder=3)
            tips.add(dark.patches[0], text)
        opacity = 1.0 if attainable_ms is None else LIGHT
        bars = axes.barh(position, time_ms, color=MEASURED, height=0.7, alpha=opacity)
        tips.add(bars.patches[0], text)
        axes.bar_label(bars, [f"{share:.0%}"], padding=4, color=SOFT)
    axes.set_yticks(range(len(names)), [picture_label(name) for name in names])
    axes.invert_yaxis()
    axes.grid(False, axis="y")
    axes.margins(x=0.12)
    axes.set_xlabel("own time (ms)")
    return figure


def _draw_layers(times_ms: Mapping[int, float], tips: Tips) -> Figure:
    figure = new_figure(6.2, 3.2)
    axes: Axes = figure.subplots()
    for index in sorted(times_ms):
        bars = axes.bar(index, times_ms[index], color=MEASURED, width=0.75)
        tips.add(bars.patches[0], f"layer {index}: {format_number(times_ms[index], 'ms')}")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(False, axis="x")
    axes.set(xlabel="layer", ylabel="own time (ms)")
    return figure

"""The roofline: every operator against what the machine reaches at best."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from utils.reporting.commands import STEP_03_MISSING
from utils.reporting.diagnosis_tables import own_time_column
from utils.reporting.formatting import format_number, not_measured
from utils.reporting.page import captions
from utils.reporting.page.blocks import Chart, draw_chart
from utils.reporting.page.colours import COMPUTE, MEMORY, SOFT
from utils.reporting.page.inline_svg import Tips, new_figure, plain_log_ticks
from utils.reporting.page.visible import picture_label
from utils.reporting.results import Results
from utils.schema.ceilings import Ceilings
from utils.schema.trace_tables import OperatorRow

TITLE = "Roofline"
COPY_TITLE = "Operators without arithmetic"
MAX_OPERATORS = 250
"""Operators with the most time that are drawn; the others take next to none."""
LARGEST_POINT = 26.0
SMALLEST_POINT = 4.0
DECADES_SHOWN = 5
"""Operators that are slower than the ceiling by more orders of magnitude are left out."""


def roofline_charts(results: Results) -> tuple[Chart, ...]:
    """The operators with arithmetic, and those without."""
    diagnosis = results.diagnosis
    if diagnosis is None:
        return (Chart(title=TITLE, missing=not_measured(STEP_03_MISSING)),)
    operators = _largest(results.tables.operators)
    with_flops = [row for row in operators if row.achieved_gflops_per_s]
    copying = [row for row in operators if _only_copies(row)]
    charts = [
        Chart(title=TITLE, missing=not_measured("no operator with a formula for FLOPs was timed"))
    ]
    if with_flops:
        draw = partial(_draw_roofline, with_flops, diagnosis.ceilings)
        charts = [draw_chart("roofline", TITLE, captions.ROOFLINE, draw)]
    if copying:
        draw = partial(_draw_copies, copying, diagnosis.ceilings)
        charts.append(draw_chart("copies", COPY_TITLE, captions.COPIES, draw))
    return tuple(charts)


def _largest(operators: Sequence[OperatorRow]) -> list[OperatorRow]:
    timed = [row for row in operators if _time_ms(row, operators)]
    longest_first = sorted(timed, key=lambda row: -_time_ms(row, operators))
    return longest_first[:MAX_OPERATORS]


def _time_ms(row: OperatorRow, operators: Sequence[OperatorRow]) -> float:
    value: float | None = getattr(row, own_time_column(operators))
    return value or 0.0


def _only_copies(row: OperatorRow) -> bool:
    return not row.achieved_gflops_per_s and bool(row.achieved_gbytes_per_s)


def _draw_roofline(rows: Sequence[OperatorRow], ceilings: Ceilings, tips: Tips) -> Figure:
    figure = new_figure(6.2, 4.2)
    axes = figure.subplots()
    axes.set(xscale="log", yscale="log")
    peak = ceilings.matmul_flops_per_s / 1e9
    bandwidth = ceilings.copy_bytes_per_s / 1e9
    for row in rows:
        intensity = row.arithmetic_intensity
        achieved = row.achieved_gflops_per_s
        if not intensity or not achieved:
            continue
        colour = MEMORY if intensity < peak / bandwidth else COMPUTE
        ceiling = min(peak, intensity * bandwidth)
        result = f"{achieved / ceiling:.0%} of the ceiling"
        _draw_operator(axes, (intensity, achieved), row, colour, result, tips)
    _draw_ceilings(axes, peak, bandwidth)
    axes.set(xlabel="FLOP per byte moved", ylabel="GFLOP/s")
    plain_log_ticks(axes.xaxis)
    plain_log_ticks(axes.yaxis)
    return figure


def _draw_ceilings(axes: Axes, peak: float, bandwidth: float) -> None:
    """The slope of the memory and the flat line of arithmetic, named.

    Args:
        peak: the fastest matrix product in GFLOP/s.
        bandwidth: the fastest copy in GB/s.
    """
    bend = peak / bandwidth
    left, right = axes.get_xlim()
    left = min(left, bend / 4)
    right = max(right, bend * 4)
    axes.plot([left, bend, right], [left * bandwidth, peak, peak], color=SOFT)
    axes.set_xlim(left, right)
    axes.set_ylim(max(axes.get_ylim()[0], peak / 10**DECADES_SHOWN), peak * 3)
    axes.annotate(
        f"{format_number(peak)} GFLOP/s",
        (right, peak),
        xytext=(-4, 5),
        textcoords="offset points",
        ha="right",
        color=SOFT,
    )
    # Below the middle of the slope, where the line does not cross it.
    middle = math.sqrt(left * bend)
    axes.annotate(
        f"{format_number(bandwidth)} GB/s",
        (middle, middle * bandwidth),
        xytext=(8, -4),
        textcoords="offset points",
        va="top",
        color=SOFT,
    )


def _draw_operator(
    axes: Axes,
    place: tuple[float, float],
    row: OperatorRow,
    colour: str,
    result: str,
    tips: Tips,
) -> None:
    share = (row.share_pct or 0.0) / 100
    size = SMALLEST_POINT + LARGEST_POINT * math.sqrt(min(1.0, share))
    point = axes.plot(*place, "o", color=colour, markersize=size, alpha=0.6)[0]
    time_ms = row.self_device_ms if row.self_device_ms else row.self_host_ms
    tips.add(
        point,
        f"{picture_label(row.operator, 60)} {picture_label(row.input_shapes, 80)}: {result}, "
        f"{format_number(time_ms, 'ms')} a batch ({share:.1%})",
    )


def _draw_copies(rows: Sequence[OperatorRow], ceilings: Ceilings, tips: Tips) -> Figure:
    figure = new_figure(6.2, 4.2)
    axes = figure.subplots()
    axes.set(xscale="log", yscale="log")
    bandwidth = ceilings.copy_bytes_per_s / 1e9
    for row in rows:
        time_ms = row.self_device_ms or row.self_host_ms
        rate = row.achieved_gbytes_per_s
        if not time_ms or not rate:
            continue
        result = f"{format_number(rate)} GB/s"
        _draw_operator(axes, (time_ms, rate), row, MEMORY, result, tips)
    axes.axhline(bandwidth, color=SOFT, linestyle="--")
    axes.annotate(
        f"{format_number(bandwidth)} GB/s",
        (0.01, bandwidth),
        xycoords=axes.get_yaxis_transform(),
        xytext=(2, 5),
        textcoords="offset points",
        color=SOFT,
    )
    axes.set(xlabel="own time of a batch (ms)", ylabel="GB/s moved")
    axes.set_ylim(bottom=max(axes.get_ylim()[0], bandwidth / 10**DECADES_SHOWN))
    plain_log_ticks(axes.xaxis)
    plain_log_ticks(axes.yaxis)
    return figure

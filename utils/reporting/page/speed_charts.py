"""Pictures of the batch-size sweep: throughput against latency, and each metric by batch size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from utils.reporting.formatting import format_interval, format_number, not_measured
from utils.reporting.page import captions
from utils.reporting.page.batch_axis import (
    Curve,
    draw_bars_of_spread,
    draw_batch_axis,
    draw_points,
    labelled_sizes,
)
from utils.reporting.page.blocks import Chart, draw_chart
from utils.reporting.page.colours import MEASURED, PADDING, PAPER, SOFT
from utils.reporting.page.inline_svg import Tips, new_figure, plain_log_ticks
from utils.reporting.results import Results
from utils.reporting.sweeps import NO_BATCH_SIZE_FINISHED, Sweep
from utils.schema.batch_size import SweepRow

LATENCY = "latency_per_batch_ms_median"
THROUGHPUT = "throughput_samples_per_sec_mean"
LOW = "throughput_samples_per_sec_ci95_low"
HIGH = "throughput_samples_per_sec_ci95_high"


@dataclass(frozen=True, kw_only=True, slots=True)
class Panel:
    """A picture of one metric by batch size.

    Args:
        name: the beginning of the ids in its SVG.
        interval: the columns with the ends of its interval.
        always: whether a missing metric has a picture with the reason.
    """

    name: str
    title: str
    curve: Curve
    caption: str
    interval: tuple[str, str] | None = None
    always: bool = False


PANELS = (
    Panel(
        name="throughput",
        title="Throughput",
        curve=Curve(metric=THROUGHPUT, unit="texts/s"),
        interval=(LOW, HIGH),
        caption=captions.THROUGHPUT,
        always=True,
    ),
    Panel(
        name="text-time",
        title="Time per text",
        curve=Curve(metric="latency_per_sample_ms_median", unit="ms"),
        interval=(
            "latency_per_sample_ms_median_ci95_low",
            "latency_per_sample_ms_median_ci95_high",
        ),
        caption=captions.TEXT_TIME,
        always=True,
    ),
    Panel(
        name="padding",
        title="Padding",
        curve=Curve(metric="padding_fraction", unit="% of tokens", factor=100.0, colour=PADDING),
        caption=captions.PADDING,
        always=True,
    ),
    Panel(
        name="gpu-memory",
        title="Peak of the GPU memory",
        curve=Curve(metric="peak_gpu_mem", unit="MB"),
        caption=captions.GPU_MEMORY,
        always=True,
    ),
    Panel(
        name="cpu-memory",
        title="Memory of the process",
        curve=Curve(metric="cpu_mem_used", unit="MB"),
        caption=captions.PROCESS_MEMORY,
    ),
    Panel(
        name="gpu-use",
        title="GPU utilisation",
        curve=Curve(metric="gpu_util_pct_mean", unit="% of the time"),
        caption=captions.GPU_USE,
        always=True,
    ),
    Panel(
        name="energy",
        title="Energy",
        curve=Curve(metric="energy_per_sample_j", unit="J per text"),
        caption=captions.ENERGY,
    ),
    Panel(
        name="flops",
        title="Arithmetic rate",
        curve=Curve(metric="achieved_tflops", unit="TFLOP/s"),
        caption=captions.ARITHMETIC_RATE,
    ),
)


def tradeoff_chart(results: Results) -> Chart:
    """Throughput against the time of a batch."""
    title = "Throughput against latency"
    if not results.sweep.has(LATENCY):
        reason = results.sweep.reason(LATENCY) or NO_BATCH_SIZE_FINISHED
        return Chart(title=title, missing=not_measured(reason), wide=True)
    draw = partial(_draw_tradeoff, results)
    return draw_chart("tradeoff", title, captions.TRADEOFF, draw, wide=True)


def _draw_tradeoff(results: Results, tips: Tips) -> Figure:
    figure = new_figure(6.4, 3.7)
    axes = figure.subplots()
    latencies = results.sweep.values(LATENCY)
    throughputs = results.sweep.values(THROUGHPUT)
    places = {size: (latencies[size], throughputs[size]) for size in latencies}
    axes.plot(*zip(*places.values(), strict=True), color=MEASURED)
    for row in results.sweep.measured_rows:
        if row.batch_size in places:
            _draw_tradeoff_point(axes, row, places[row.batch_size], tips)
    for size in labelled_sizes(list(places)):
        axes.annotate(str(size), places[size], xytext=(8, -13), textcoords="offset points")
    axes.set_xscale("log")
    axes.margins(x=0.09, y=0.14)
    axes.set_ylim(bottom=0)
    plain_log_ticks(axes.xaxis)
    axes.set_xlabel("median time of a batch (ms, logarithmic)")
    axes.set_ylabel("throughput (texts/s)")
    _mark_knee(axes, results, places)
    _mark_target(axes, results)
    return figure


def _draw_tradeoff_point(axes: Axes, row: SweepRow, place: tuple[float, float], tips: Tips) -> None:
    latency_ms, throughput = place
    low = row.throughput_samples_per_sec_ci95_low
    high = row.throughput_samples_per_sec_ci95_high
    if low is not None and high is not None:
        axes.plot([latency_ms] * 2, [max(low, 0.0), high], color=MEASURED, alpha=0.45, lw=4)
    point = axes.plot(
        [latency_ms],
        [throughput],
        "o",
        color=MEASURED,
        markerfacecolor=PAPER if row.stable is False else MEASURED,
        markeredgewidth=1.8,
    )[0]
    tips.add(
        point,
        f"batch size {row.batch_size}: {format_number(throughput, 'texts/s')} "
        f"(95% interval {format_interval(low, high)}), {format_number(latency_ms, 'ms')} a batch",
    )


def _mark_knee(axes: Axes, results: Results, places: Mapping[int, tuple[float, float]]) -> None:
    """A ring at the batch size from which on larger ones bring little."""
    diagnosis = results.diagnosis
    if diagnosis is None or diagnosis.saturation is None:
        return
    place = places.get(diagnosis.saturation.batch_size or 0)
    if place is None:
        return
    axes.plot(*place, "o", color=SOFT, markersize=17, markerfacecolor="none", mew=1.6)
    # The upper left corner is free: smaller batches are faster to finish, and have less throughput.
    axes.annotate(
        "larger batches stop helping",
        place,
        xytext=(0.02, 0.97),
        textcoords="axes fraction",
        va="top",
        color=SOFT,
        arrowprops={"arrowstyle": "-", "color": SOFT, "shrinkB": 9, "alpha": 0.6},
    )


def latency_target_ms(results: Results) -> float | None:
    """``profiling.latency_target_ms``; None where it is not set or the file is older."""
    target = results.metrics.config.get("profiling", {}).get("latency_target_ms")
    return None if target is None else float(target)


def _mark_target(axes: Axes, results: Results) -> None:
    target_ms = latency_target_ms(results)
    if target_ms is None:
        return
    axes.axvline(target_ms, color=SOFT, linestyle="--")
    axes.annotate(
        f"target {format_number(target_ms, 'ms')}",
        (target_ms, 0.02),
        xycoords=axes.get_xaxis_transform(),
        xytext=(5, 2),
        textcoords="offset points",
        color=SOFT,
    )


def panel_charts(results: Results) -> tuple[Chart, ...]:
    """One picture for each metric; those that every GPU has say why they are missing."""
    charts = []
    for panel in PANELS:
        chart = _panel_chart(results, panel)
        if chart is not None:
            charts.append(chart)
    return tuple(charts)


def _panel_chart(results: Results, panel: Panel) -> Chart | None:
    sweep = results.sweep
    if sweep.has(panel.curve.metric):
        draw = partial(_draw_panel, sweep, panel)
        return draw_chart(panel.name, panel.title, panel.caption, draw)
    if not panel.always:
        return None
    return Chart(title=panel.title, missing=not_measured(sweep.reason(panel.curve.metric)))


def _draw_panel(sweep: Sweep, panel: Panel, tips: Tips) -> Figure:
    figure = new_figure(5.2, 3.1)
    axes = figure.subplots()
    if panel.interval is not None:
        draw_bars_of_spread(axes, sweep, *panel.interval, panel.curve.colour)
    draw_points(axes, sweep, panel.curve, tips)
    draw_batch_axis(axes, sweep, tips)
    # From zero, so that heights can be compared.
    axes.set_ylim(0, max(axes.get_ylim()[1], 1e-9) * 1.05)
    axes.set_ylabel(panel.curve.unit)
    return figure

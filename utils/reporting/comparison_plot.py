"""``batch_size_comparison.png``: six panels over the batch size."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import LogLocator, NullLocator

from utils.reporting.formatting import format_number
from utils.reporting.phases_plot import draw_phase_bars
from utils.reporting.plot_style import GREY, RED, show_missing_reason
from utils.reporting.results import Results
from utils.reporting.run_facts import model_title
from utils.reporting.sweeps import Sweep
from utils.reporting.tables import STATUSES
from utils.schema.batch_size import percentile_columns

MAX_NAME_LENGTH = 60
MAX_UPRIGHT_TICKS = 8
"""More batch sizes than this get slanted tick labels."""
THROUGHPUT = "throughput_samples_per_sec"


@dataclass(frozen=True, kw_only=True, slots=True)
class RightAxis:
    """A second metric of a panel, dashed, with an axis of its own on the right.

    Args:
        factor: from the metric's unit to that of ``axis_label``.
    """

    metric: str
    label: str
    axis_label: str
    factor: float = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Panel:
    """One small picture over the batch size.

    Args:
        curves: the label of each metric.
        std_metric: the standard deviation of the only curve, drawn as error bars.
        interval_metrics: the ends of an interval of the only curve, drawn as error bars.
    """

    title: str
    axis_label: str
    curves: Mapping[str, str]
    std_metric: str | None = None
    interval_metrics: tuple[str, str] | None = None
    right_axis: RightAxis | None = None
    scale: Literal["from zero", "log", "percent"] = "from zero"


LATENCY = Panel(
    title="Latency per sample",
    axis_label="mean ± standard deviation (ms)",
    curves={"latency_per_sample_ms_mean": "mean"},
    std_metric="latency_per_sample_ms_std",
)
PERCENTILES = Panel(
    title="Latency per batch",
    axis_label="percentiles over batches (ms, log)",
    curves={
        "latency_per_batch_ms_median": "p50",
        **{column: f"p{percent}" for column, percent in percentile_columns().items()},
    },
    scale="log",
)
SAMPLES_PER_SECOND = Panel(
    title="Throughput",
    axis_label="mean with 95% interval (samples/s)",
    curves={f"{THROUGHPUT}_mean": "mean"},
    interval_metrics=(f"{THROUGHPUT}_ci95_low", f"{THROUGHPUT}_ci95_high"),
)
CPU_MEMORY = Panel(
    title="Resident memory of the process",
    axis_label="memory (MB)",
    curves={"cpu_mem_used": "resident"},
)
GPU_MEMORY = Panel(
    title="GPU memory",
    axis_label="memory (MB)",
    curves={
        "gpu_mem_change": "change by a run",
        "peak_gpu_mem": "peak allocated",
        "gpu_mem_reserved": "reserved",
    },
)
GPU_USE = Panel(
    title="GPU utilisation and power",
    axis_label="time with a kernel (%)",
    curves={"gpu_util_pct_mean": "utilisation"},
    right_axis=RightAxis(metric="gpu_power_w_mean", label="power", axis_label="power (W)"),
    scale="percent",
)
PADDING = RightAxis(
    metric="padding_fraction", label="padding", axis_label="padding (% of tokens)", factor=100.0
)
FLOPS = Panel(
    title="Efficiency",
    axis_label="achieved (TFLOP/s)",
    curves={"achieved_tflops": "achieved TFLOP/s"},
    right_axis=PADDING,
)
TOKENS = Panel(
    title="Efficiency",
    axis_label="achieved (tokens/s)",
    curves={"throughput_tokens_per_sec_mean": "achieved tokens/s"},
    right_axis=PADDING,
)


def draw_comparison(results: Results) -> Figure:
    """Six panels over the batch sizes of the largest sample."""
    figure = Figure(figsize=(15, 8.6), layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12))
    figure.suptitle(_title(results), x=0.01, ha="left")
    sweep = results.sweep
    (latency, percentiles, throughput), (memory, utilisation, efficiency) = figure.subplots(2, 3)
    _draw_panel(latency, sweep, LATENCY)
    _draw_panel(percentiles, sweep, PERCENTILES)
    _draw_panel(throughput, sweep, SAMPLES_PER_SECOND)
    if results.on_gpu:
        _draw_panel(memory, sweep, GPU_MEMORY)
        _draw_panel(utilisation, sweep, GPU_USE)
    else:
        _draw_panel(memory, sweep, CPU_MEMORY)
        _draw_phases_panel(utilisation, sweep)
    _draw_panel(efficiency, sweep, FLOPS if sweep.has("achieved_tflops") else TOKENS)
    return figure


def _title(results: Results) -> str:
    model = results.metrics.model_info
    name = model_title(model, MAX_NAME_LENGTH)
    conditions = (
        f"on {model.device}, {model.dtype}: batch sizes over {results.sweep.sample_size:,} texts"
    )
    # A model with its adapter leaves no room beside it.
    separator = "\n" if model.adapter else " "
    return f"{name}{separator}{conditions}"


def _draw_phases_panel(axes: Axes, sweep: Sweep) -> None:
    phase_ms = draw_phase_bars(axes, sweep, "Phases of a batch")
    if not phase_ms.empty:
        axes.legend(loc="upper center", ncols=2)
        # Room for the legend above the bars of 100%.
        axes.set_ylim(0, 128)


def _draw_panel(axes: Axes, sweep: Sweep, panel: Panel) -> None:
    axes.set_title(panel.title)
    metrics = list(panel.curves)
    if panel.right_axis is not None:
        metrics.append(panel.right_axis.metric)
    if not any(sweep.has(metric) for metric in metrics):
        show_missing_reason(axes, sweep, metrics[0])
        return
    axes.set_ylabel(panel.axis_label)
    _draw_batch_size_axis(axes, sweep)
    _mark_unmeasured_batch_sizes(axes, sweep)
    for metric, label in panel.curves.items():
        values = sweep.values(metric)
        if values:
            axes.errorbar(
                list(values),
                list(values.values()),
                yerr=_error_bars(sweep, values, panel),
                ecolor=GREY,
                capsize=4,
                label=label,
            )
    _set_y_scale(axes, panel.scale)
    if panel.right_axis is not None:
        _draw_right_axis(axes, sweep, panel.right_axis)
    elif len(panel.curves) > 1:
        axes.legend(
            loc="upper left", ncols=4, columnspacing=0.8, handlelength=1.2, handletextpad=0.4
        )
    else:
        _write_values(axes, sweep.values(metrics[0]))


def _write_values(axes: Axes, values: Mapping[int, float]) -> None:
    for batch_size, value in values.items():
        axes.annotate(
            format_number(value),
            (batch_size, value),
            xytext=(0, 8),
            textcoords="offset points",
            ha="center",
            fontsize=8.5,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.6},
        )


def _draw_batch_size_axis(axes: Axes, sweep: Sweep) -> None:
    """The batch sizes as ticks of a logarithmic axis."""
    sizes = sweep.batch_sizes
    rotation = 45 if len(sizes) > MAX_UPRIGHT_TICKS else 0
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [str(size) for size in sizes], rotation=rotation)
    axes.set_xticks([], minor=True)
    axes.set_xlim(min(sizes) / 1.4, max(sizes) * 1.4)
    axes.set_xlabel("batch size (texts)")


def _mark_unmeasured_batch_sizes(axes: Axes, sweep: Sweep) -> None:
    """A band at every batch size that was not measured, with the reason."""
    for row in sweep.rows:
        if row.status == "ok":
            continue
        batch_size = row.batch_size
        axes.axvspan(batch_size / 1.18, batch_size * 1.18, color="#f3e3da", zorder=0)
        axes.text(
            batch_size,
            0.5,
            STATUSES[row.status],
            rotation=90,
            color=RED,
            fontsize=8.5,
            ha="center",
            va="center",
            transform=axes.get_xaxis_transform(),
        )


def _error_bars(sweep: Sweep, values: Mapping[int, float], panel: Panel) -> Any:
    """Lengths below and above each value; NaN where a single run has no spread."""
    if panel.std_metric is not None:
        std = sweep.values(panel.std_metric)
        return [std.get(size, math.nan) for size in values]
    if panel.interval_metrics is None:
        return None
    lengths = []
    for metric in panel.interval_metrics:
        ends = sweep.values(metric)
        lengths.append([abs(ends.get(size, math.nan) - value) for size, value in values.items()])
    return lengths


def _set_y_scale(axes: Axes, scale: str) -> None:
    if scale == "log":
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:,g}")
        axes.yaxis.set_minor_locator(NullLocator())
    elif scale == "percent":
        axes.set(ylim=(0, 118), yticks=range(0, 101, 20))
    else:
        # Zero at the bottom, so that heights can be compared; room for a legend at the top.
        highest = max(axes.get_ylim()[1], 1e-9)
        axes.set_ylim(min(0.0, axes.dataLim.y0), highest * 1.2)


def _draw_right_axis(axes: Axes, sweep: Sweep, right_axis: RightAxis) -> None:
    """A dashed curve with its axis on the right, and one legend for both axes."""
    handles, labels = axes.get_legend_handles_labels()
    values = sweep.values(right_axis.metric)
    if values:
        scaled = [value * right_axis.factor for value in values.values()]
        right = axes.twinx()
        right.grid(False)
        right.spines["right"].set_visible(True)
        handles += right.plot(list(values), scaled, marker="s", linestyle="--", color=GREY)
        labels.append(right_axis.label)
        right.set(ylabel=right_axis.axis_label, ylim=(0, max(*scaled, 1e-9) * 1.3))
    axes.legend(handles, labels, loc="upper left", ncols=2)

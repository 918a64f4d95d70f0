"""The pictures: Results in, matplotlib figures out."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")  # before anything draws: there may be no display

import pandas as pd  # noqa: E402
import seaborn as sns  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from matplotlib.layout_engine import ConstrainedLayoutEngine  # noqa: E402
from matplotlib.ticker import LogLocator, NullLocator  # noqa: E402

from utils.core.artifacts import atomic_path  # noqa: E402
from utils.reporting.figures import number, percent, unmeasured  # noqa: E402
from utils.reporting.results import Results, Row, Sweep  # noqa: E402
from utils.reporting.tables import PHASES, TOP, time_column  # noqa: E402

DPI = 150
# Okabe and Ito's palette ("Color Universal Design", 2008): told apart with any kind of colour vision.
BLUE, ORANGE, GREEN, RED, PURPLE, SKY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9"
GREY = "#767676"
STYLE: Any = {
    "font.family": "DejaVu Sans", "font.size": 10, "axes.titlesize": 11, "axes.titleweight": "bold", "axes.titlelocation": "left",
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": "#e4e4e4", "axes.axisbelow": True,
    "axes.edgecolor": "#888888", "legend.frameon": False, "legend.fontsize": 8.5, "lines.linewidth": 1.8, "lines.markersize": 5,
    "figure.titlesize": 14, "figure.titleweight": "bold", "text.parse_math": False, "svg.fonttype": "none",
}
PERCENTILES = {
    "latency_per_batch_ms_p99": ("p99", RED), "latency_per_batch_ms_p95": ("p95", ORANGE),
    "latency_per_batch_ms_p90": ("p90", GREEN), "latency_per_batch_ms_median": ("p50", BLUE),
}
GPU_MEMORY = {
    "gpu_mem_reserved": ("reserved", SKY), "peak_gpu_mem": ("peak allocated", RED), "gpu_mem_used": ("change by a run", BLUE),
}
# Column, what it is called, and 1 where more is better, -1 where less is.
HEATMAP = (
    ("latency_per_sample_ms_mean", "latency (ms/sample)", -1), ("latency_per_batch_ms_median", "latency p50 (ms/batch)", -1),
    ("latency_per_batch_ms_p99", "latency p99 (ms/batch)", -1), ("throughput_samples_per_sec_mean", "throughput (samples/s)", 1),
    ("throughput_tokens_per_sec_mean", "throughput (tokens/s)", 1), ("achieved_tflops", "achieved (TFLOP/s)", 1),
    ("padding_fraction", "padding (%)", -1), ("peak_gpu_mem", "GPU memory peak (MB)", -1), ("cpu_mem_used", "CPU memory (MB)", -1),
    ("gpu_util_pct_mean", "GPU utilisation (%)", 1), ("energy_per_sample_j", "energy (J/sample)", -1), ("cv", "spread (CV)", -1),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """A picture that was written."""

    path: Path
    title: str
    text: str
    """What it shows, for a reader who cannot see it too."""


def write_plots(results: Results) -> tuple[Picture, ...]:
    """Draw every picture that there are figures for, into the plots folder."""
    files = results.files
    wanted: list[tuple[Callable[[Any], Figure], Any, Path, str, str]] = [
        (comparison, results, files.comparison_plot, "Batch sizes compared", "Six panels over the batch size: latency per "
         "sample and per batch, throughput, memory, utilisation or phases, efficiency."),
        (heatmap, results, files.heatmap_plot, "Metrics by batch size", "A grid with the measured values; darker is better."),
        (phases, results, files.plots_dir / "phases.png", "Where the time of a batch goes", "Stacked bars by batch size."),
        (layers, results.layers, files.plots_dir / "layers_time.png", "Time in the model's modules", "Bars by kind and layer."),
        (operators, results.operators, files.plots_dir / "operators_time.png", "Time by operator", "Bars, the longest on top."),
    ]
    there = [item for item in wanted if item[1] is not None and not getattr(item[1], "empty", False)]
    for draw, source, path, *_ in there:
        with mpl.rc_context(STYLE):
            save(draw(source), path)
    return tuple(Picture(path=path, title=title, text=text) for _, _, path, title, text in there)


def save(figure: Figure, path: Path) -> None:
    """Write a PNG atomically."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=DPI, facecolor="white")


def comparison(results: Results) -> Figure:
    """The six panels of ``batch_size_comparison.png``, for the largest sample."""
    figure = Figure(figsize=(15, 8.6), layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12))
    sweep, model = results.sweep, results.metrics["model_info"]
    name = model["name"] if len(model["name"]) <= 60 else f"…{model['name'][-59:]}"
    title = f"{name} on {model['device']}, {model['dtype']}: batch sizes over {sweep.sample_size:,} texts"
    figure.suptitle(title, x=0.01, ha="left")
    panels = figure.subplots(2, 3).flat
    usage = _gpu_panel if results.on_gpu else _phases_panel
    for axes, draw in zip(panels, (_sample_latency, _batch_latency, _throughput, _memory, usage, _efficiency), strict=True):
        draw(axes, sweep)
    return figure


def _batch_axis(axes: Axes, sweep: Sweep) -> None:
    """Batch sizes as ticks of a log2 axis; a band where memory ran out."""
    sizes = [row["batch_size"] for row in sweep.rows]
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [str(size) for size in sizes], rotation=45 if len(sizes) > 8 else 0)
    axes.set_xticks([], minor=True)
    axes.set_xlim(min(sizes) / 1.4, max(sizes) * 1.4)
    axes.set_xlabel("batch size (texts)")
    for row in sweep.rows:
        if row["status"] == "oom":
            axes.axvspan(row["batch_size"] / 1.18, row["batch_size"] * 1.18, color="#f3e3da", zorder=0)
            axes.text(row["batch_size"], 0.5, "out of memory", rotation=90, color=RED, fontsize=8.5, ha="center", va="center",
                      transform=axes.get_xaxis_transform())


def _points(sweep: Sweep, name: str) -> tuple[list[int], list[float]]:
    rows = sweep.having(name)
    return [row["batch_size"] for row in rows], [float(row[name]) for row in rows]


def _panel(axes: Axes, sweep: Sweep, title: str, unit: str, names: Sequence[str]) -> bool:
    """Title and axes; a word on why instead, where no row has any of the figures. Returns whether there is something to draw."""
    axes.set_title(title)
    if any(sweep.having(name) for name in names):
        axes.set_ylabel(unit)
        _batch_axis(axes, sweep)
        return True
    why = unmeasured(names[0], sweep.warnings, None if sweep.measured else "no batch size fitted into memory")
    axes.text(0.5, 0.5, textwrap.fill(why, 38), ha="center", va="center", color=GREY, transform=axes.transAxes)
    axes.set(xticks=[], yticks=[])
    return False


def _curve(axes: Axes, sweep: Sweep, name: str, label: str, color: str, marker: str = "o") -> None:
    sizes, values = _points(sweep, name)
    if sizes:
        axes.plot(sizes, values, marker=marker, color=color, label=label)


def _from_zero(axes: Axes, headroom: float = 1.12) -> None:
    """Zero at the bottom, so that heights can be compared; room for a legend at the top."""
    axes.set_ylim(min(0.0, *axes.dataLim.intervaly), max(axes.get_ylim()[1], 1e-9) * headroom)


def _sample_latency(axes: Axes, sweep: Sweep) -> None:
    if _panel(axes, sweep, "Latency per sample", "mean ± standard deviation (ms)", ["latency_per_sample_ms_mean"]):
        sizes, values = _points(sweep, "latency_per_sample_ms_mean")
        errors = [row["latency_per_sample_ms_std"] or 0.0 for row in sweep.having("latency_per_sample_ms_mean")]
        axes.errorbar(sizes, values, yerr=errors, marker="o", color=BLUE, ecolor=GREY, capsize=4)
        _label_points(axes, sizes, values)
        _from_zero(axes)


def _label_points(axes: Axes, sizes: Sequence[int], values: Sequence[float]) -> None:
    for size, value in zip(sizes, values, strict=True):
        axes.annotate(number(value), (size, value), xytext=(0, 8), textcoords="offset points", ha="center", fontsize=8.5,
                      bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.6})


def _batch_latency(axes: Axes, sweep: Sweep) -> None:
    if _panel(axes, sweep, "Latency per batch", "percentiles over batches (ms, log)", list(PERCENTILES)):
        for (name, (label, color)), marker in zip(PERCENTILES.items(), "v^so", strict=True):
            _curve(axes, sweep, name, label, color, marker)
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:,g}")
        axes.yaxis.set_minor_locator(NullLocator())
        axes.legend(loc="upper left")


def _throughput(axes: Axes, sweep: Sweep) -> None:
    name = "throughput_samples_per_sec"
    if _panel(axes, sweep, "Throughput", "mean with 95% interval (samples/s)", [f"{name}_mean"]):
        sizes, values = _points(sweep, f"{name}_mean")
        rows = sweep.having(f"{name}_ci95_low", f"{name}_ci95_high")
        low, high = ([row[f"{name}_ci95_{end}"] for row in rows] for end in ("low", "high"))
        axes.fill_between([row["batch_size"] for row in rows], low, high, color=GREEN, alpha=0.25, linewidth=0)
        axes.plot(sizes, values, marker="o", color=GREEN)
        _label_points(axes, sizes, values)
        _from_zero(axes)


def _memory(axes: Axes, sweep: Sweep) -> None:
    on_gpu = bool(sweep.having("peak_gpu_mem"))
    curves = GPU_MEMORY if on_gpu else {"cpu_mem_used": ("resident", BLUE)}
    if _panel(axes, sweep, "GPU memory" if on_gpu else "Resident memory of the process", "memory (MB)", list(curves)):
        for name, (label, color) in curves.items():
            _curve(axes, sweep, name, label, color)
        _from_zero(axes, 1.25 if on_gpu else 1.12)
        if on_gpu:
            axes.legend(loc="upper left", ncols=3, columnspacing=0.8, handlelength=1.2, handletextpad=0.4)


def _gpu_panel(axes: Axes, sweep: Sweep) -> None:
    if _panel(axes, sweep, "GPU utilisation and power", "time with a kernel (%)", ["gpu_util_pct_mean", "gpu_power_w_mean"]):
        _curve(axes, sweep, "gpu_util_pct_mean", "utilisation", BLUE)
        axes.set_ylim(0, 118)
        axes.set_yticks(range(0, 101, 20))
        _second_axis(axes, sweep, "gpu_power_w_mean", "power", "power (W)", ORANGE)


def _second_axis(axes: Axes, sweep: Sweep, name: str, label: str, unit: str, color: str, scale: float = 1.0) -> None:
    """A second figure in its own unit on the right, dashed; and one legend for both."""
    sizes, values = _points(sweep, name)
    handles, labels = axes.get_legend_handles_labels()
    if sizes:
        right = axes.twinx()
        right.grid(False)
        right.spines["right"].set_visible(True)
        right.plot(sizes, [value * scale for value in values], marker="s", linestyle="--", color=color, label=label)
        right.set_ylabel(unit)
        right.set_ylim(0, max(max(values) * scale, 1e-9) * 1.3)
        handles += right.get_legend_handles_labels()[0]
        labels += [label]
    axes.legend(handles, labels, loc="upper left", ncols=2)


def _phases_panel(axes: Axes, sweep: Sweep) -> None:
    axes.set_title("Phases of a batch")
    if _stacked_phases(axes, sweep):
        axes.legend(loc="upper center", ncols=2)
        axes.set_ylim(0, 128)


def _stacked_phases(axes: Axes, sweep: Sweep, *, values: bool = False) -> bool:
    """Bars of 100%, one a batch size, from bottom to top in the order of the work. False where no phase was measured."""
    rows = [row for row in sweep.measured if any(row[name] for name in PHASES)]
    if not rows:
        return _panel(axes, Sweep(sample_size=1, rows=sweep.rows), axes.get_title(loc="left"), "", ["forward_ms_mean"])
    bottom = [0.0] * len(rows)
    for (name, label), color in zip(PHASES.items(), (ORANGE, SKY, BLUE, PURPLE), strict=True):
        shares = [100 * (row[name] or 0.0) / math.fsum(row[key] or 0.0 for key in PHASES) for row in rows]
        bars = axes.bar(range(len(rows)), shares, bottom=bottom, color=color, label=label, width=0.72, edgecolor="white")
        if values:
            shown = [number(row[name], "ms") if share >= 6 else "" for row, share in zip(rows, shares, strict=True)]
            axes.bar_label(bars, shown, label_type="center", fontsize=8, color="white" if color == BLUE else "#222222")
        bottom = [low + share for low, share in zip(bottom, shares, strict=True)]
    axes.set_xticks(range(len(rows)), [str(row["batch_size"]) for row in rows])
    axes.set(xlabel="batch size (texts)", ylabel="share of the time (%)", yticks=range(0, 101, 20))
    axes.grid(False, axis="x")
    return True


def _efficiency(axes: Axes, sweep: Sweep) -> None:
    flops = sweep.having("achieved_tflops")
    name, unit = ("achieved_tflops", "TFLOP/s") if flops else ("throughput_tokens_per_sec_mean", "tokens/s")
    if _panel(axes, sweep, "Efficiency", f"achieved ({unit})", [name]):
        _curve(axes, sweep, name, f"achieved {unit}", PURPLE)
        _from_zero(axes, 1.25)
        _second_axis(axes, sweep, "padding_fraction", "padding", "padding (% of tokens)", GREY, 100)


def heatmap(results: Results) -> Figure:
    """Metrics by batch size, each row scaled for itself from its worst to its best value."""
    sweep = results.sweep
    listed = [item for item in HEATMAP if sweep.having(item[0])]
    sizes = [row["batch_size"] for row in sweep.rows]
    figure = Figure(figsize=(max(7.5, 3.8 + 1.25 * len(sizes)), 1.9 + 0.5 * max(len(listed), 2)), layout="constrained")
    axes = figure.subplots()
    figure.suptitle("Metrics by batch size", x=0.01, ha="left")
    if not listed:
        _panel(axes, sweep, "", "", ["latency_per_sample_ms_mean"])
        return figure
    labels = [label for _, label, _ in listed]
    shades = pd.DataFrame([_shades(sweep, name, sign) for name, _, sign in listed], index=labels, columns=sizes)
    texts = [[_cell_text(row, name) for row in sweep.rows] for name, *_ in listed]
    sns.heatmap(shades, ax=axes, annot=pd.DataFrame(texts), fmt="", cmap="Blues", vmin=-0.15, vmax=1.15, cbar=False, linewidths=1.5,
                mask=shades.isna(), annot_kws={"fontsize": 9.5})
    for y, x in zip(*shades.isna().to_numpy().nonzero(), strict=True):  # seaborn leaves masked cells empty
        axes.text(x + 0.5, y + 0.5, texts[y][x], ha="center", va="center", color=GREY, fontsize=8.5)
    axes.set_title("darker is better, within each row; a row of one shade does not vary", fontsize=9, fontweight="normal")
    axes.set_xlabel("batch size (texts)")
    axes.set_facecolor("#f2f2f2")
    axes.tick_params(length=0)
    axes.tick_params(axis="y", rotation=0)
    axes.grid(False)
    return figure


def _shades(sweep: Sweep, name: str, sign: int) -> list[float]:
    """0 (worst) to 1 (best) a batch size; NaN where not measured; one middle shade where nothing varies."""
    known = [sign * value for value in _points(sweep, name)[1]]
    low, span = min(known), max(known) - min(known)
    return [
        math.nan if row["status"] != "ok" or row[name] is None else (sign * row[name] - low) / span if span else 0.35
        for row in sweep.rows
    ]


def _cell_text(row: Row, name: str) -> str:
    if row["status"] != "ok":
        return "out of\nmemory"
    if row[name] is None:
        return "not\nmeasured"
    return percent(row[name]) if name == "padding_fraction" else number(float(row[name]))


def phases(results: Results) -> Figure:
    """``phases.png``: the share of each phase by batch size, with milliseconds."""
    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.subplots()
    axes.set_title("Where the time of a batch goes")
    if _stacked_phases(axes, results.sweep, values=True):
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), reverse=True)
        axes.set_ylim(0, 100)
    return figure


def layers(frame: pd.DataFrame) -> Figure:
    """``layers_time.png``: modules' own time by kind, and by layer of the model."""
    figure = Figure(figsize=(13, 5.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    by_kind = frame.groupby("kind")["self_time_ms"].sum().nlargest(TOP)
    _bars(left, by_kind, frame["self_time_ms"].sum(), "Own time by kind of module", "time without children (ms per forward)")
    by_layer = frame.groupby("layer_index")["self_time_ms"].sum()  # modules outside the layers have no index
    right.bar([f"{index:.0f}" for index in by_layer.index], by_layer.to_numpy(), color=BLUE, width=0.72)
    right.set_title("Own time by layer of the model")
    right.set(xlabel="layer", ylabel="time of the layer's modules (ms per forward)")
    right.tick_params(axis="x", labelsize=7.5 if len(by_layer) > 16 else 10)
    return figure


def operators(frame: pd.DataFrame) -> Figure:
    """``operators_time.png``: the operators' own time, and what the machine's ceilings would allow."""
    column = time_column(frame)
    figure = Figure(figsize=(10, 5.6), layout="constrained")
    axes = figure.subplots()
    sums = frame.groupby("operator")[[column, "attainable_ms"]].sum(min_count=1).nlargest(TOP, column)
    unit = f"{column.split('_')[1]} time (ms per batch, traced)"
    _bars(axes, sums[column], frame[column].sum(), "Operators with the most time of their own", unit)
    floor = sums["attainable_ms"].reset_index(drop=True).dropna()
    if not floor.empty:
        axes.plot(floor.to_numpy(), floor.index, "|", color=RED, markersize=13, markeredgewidth=2.5, label="at the ceilings")
        axes.legend(loc="lower right")
    return figure


def _bars(axes: Axes, values: Any, total: float, title: str, unit: str) -> None:
    """Horizontal bars, the longest on top, each with its value and its share of ``total`` (of all, not of those shown)."""
    bars = axes.barh(range(len(values)), values.to_numpy(), color=BLUE, height=0.72)
    axes.set_yticks(range(len(values)), [name if len(name) <= 42 else f"{name[:20]}…{name[-20:]}" for name in values.index])
    axes.invert_yaxis()
    axes.bar_label(bars, [f"{number(float(value))} ({value / (total or 1):.0%})" for value in values], padding=4, fontsize=8.5)
    axes.set_title(title)
    axes.set_xlabel(unit)
    axes.margins(x=0.18)
    axes.grid(False, axis="y")

"""The pictures: Results in, matplotlib figures out."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import matplotlib as mpl
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.rcsetup import cycler
from matplotlib.ticker import LogLocator, NullLocator

from utils.core.files import atomic_path
from utils.reporting.facts import model_title
from utils.reporting.formatting import number, percent, unmeasured
from utils.reporting.results import Results, Row, Sweep
from utils.reporting.tables import PHASES, STATUSES, TOP, time_column

DPI = 150
# Okabe and Ito's palette ("Color Universal Design", 2008): told apart with any kind of colour vision.
BLUE, ORANGE, GREEN, RED, PURPLE, SKY = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#D55E00",
    "#CC79A7",
    "#56B4E9",
)
GREY = "#767676"
STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "axes.axisbelow": True,
    "axes.edgecolor": "#888888",
    "axes.prop_cycle": cycler(color=(BLUE, ORANGE, GREEN, RED), marker=("o", "s", "^", "v")),
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
    "figure.titlesize": 14,
    "figure.titleweight": "bold",
    "text.parse_math": False,
    "svg.fonttype": "none",
}
# Column, what it is called, and 1 where more is better, -1 where less is.
HEATMAP = (
    ("latency_per_sample_ms_mean", "latency (ms/sample)", -1),
    ("latency_per_batch_ms_median", "latency p50 (ms/batch)", -1),
    ("latency_per_batch_ms_p99", "latency p99 (ms/batch)", -1),
    ("throughput_samples_per_sec_mean", "throughput (samples/s)", 1),
    ("throughput_tokens_per_sec_mean", "throughput (tokens/s)", 1),
    ("achieved_tflops", "achieved (TFLOP/s)", 1),
    ("padding_fraction", "padding (%)", -1),
    ("peak_gpu_mem", "GPU memory peak (MB)", -1),
    ("cpu_mem_used", "CPU memory (MB)", -1),
    ("gpu_util_pct_mean", "GPU utilisation (%)", 1),
    ("energy_per_sample_j", "energy (J/sample)", -1),
    ("cv", "spread (CV)", -1),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """A picture that was written; ``text`` says what it shows, for a reader who cannot see it too."""

    path: Path
    title: str
    text: str


class Panel(NamedTuple):
    """One small picture over the batch size.

    ``curves``: what each column is called; ``spread``: the column of the standard deviation, or those of an interval's ends;
    ``right``: column, name, unit and factor of a second figure with an axis of its own, dashed.
    """

    title: str
    unit: str
    curves: Mapping[str, str]
    spread: tuple[str, ...] = ()
    right: tuple[str, str, str, float] | None = None
    scale: Literal["from zero", "log", "percent"] = "from zero"


SPEED = "throughput_samples_per_sec"
PADDING = ("padding_fraction", "padding", "padding (% of tokens)", 100.0)
LATENCY = Panel(
    "Latency per sample",
    "mean ± standard deviation (ms)",
    {"latency_per_sample_ms_mean": "mean"},
    ("latency_per_sample_ms_std",),
)
PERCENTILES = Panel(
    "Latency per batch",
    "percentiles over batches (ms, log)",
    scale="log",
    curves={
        "latency_per_batch_ms_median": "p50",
        **{f"latency_per_batch_ms_p{q}": f"p{q}" for q in (90, 95, 99)},
    },
)
THROUGHPUT = Panel(
    "Throughput",
    "mean with 95% interval (samples/s)",
    {f"{SPEED}_mean": "mean"},
    (f"{SPEED}_ci95_low", f"{SPEED}_ci95_high"),
)
CPU_MEMORY = Panel("Resident memory of the process", "memory (MB)", {"cpu_mem_used": "resident"})
GPU_MEMORY = Panel(
    "GPU memory",
    "memory (MB)",
    {
        "gpu_mem_used": "change by a run",
        "peak_gpu_mem": "peak allocated",
        "gpu_mem_reserved": "reserved",
    },
)
GPU_USE = Panel(
    "GPU utilisation and power",
    "time with a kernel (%)",
    {"gpu_util_pct_mean": "utilisation"},
    scale="percent",
    right=("gpu_power_w_mean", "power", "power (W)", 1.0),
)
FLOPS = Panel(
    "Efficiency", "achieved (TFLOP/s)", {"achieved_tflops": "achieved TFLOP/s"}, right=PADDING
)
TOKENS = Panel(
    "Efficiency",
    "achieved (tokens/s)",
    {"throughput_tokens_per_sec_mean": "achieved tokens/s"},
    right=PADDING,
)


def write_plots(results: Results) -> tuple[Picture, ...]:
    """Draw every picture that there are figures for, into the plots folder."""
    files, drawn = results.files, []
    wanted: list[tuple[Callable[[Any], Figure], Any, Path, str, str]] = [
        (
            comparison,
            results,
            files.comparison_plot,
            "Batch sizes compared",
            "Six panels over the batch size: latency per "
            "sample and per batch, throughput, memory, utilisation or phases, efficiency.",
        ),
        (
            heatmap,
            results,
            files.heatmap_plot,
            "Metrics by batch size",
            "A grid with the measured values; darker is better.",
        ),
        (
            phases,
            results,
            files.plots_dir / "phases.png",
            "Where the time of a batch goes",
            "Stacked bars by batch size.",
        ),
        (
            layers,
            results.layers,
            files.plots_dir / "layers_time.png",
            "Time in the model's modules",
            "Bars by kind and layer.",
        ),
        (
            operators,
            results.operators,
            files.plots_dir / "operators_time.png",
            "Time by operator",
            "Bars, the longest on top.",
        ),
        (
            memory,
            results.memory,
            files.plots_dir / "memory_time.png",
            "Memory over one batch",
            "Allocated, by time.",
        ),
    ]
    for draw, source, path, title, text in wanted:
        if source is not None and not getattr(source, "empty", False):
            with mpl.rc_context(STYLE), atomic_path(path) as temporary:
                draw(source).savefig(temporary, format="png", dpi=DPI, facecolor="white")
            drawn.append(Picture(path=path, title=title, text=text))
    return tuple(drawn)


def comparison(results: Results) -> Figure:
    """The six panels of ``batch_size_comparison.png``, for the largest sample."""
    figure = Figure(figsize=(15, 8.6), layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12))
    sweep, model = results.sweep, results.metrics["model_info"]
    how = f"on {model['device']}, {model['dtype']}: batch sizes over {sweep.sample_size:,} texts"
    # A model and its adapter do not fit beside the rest.
    title = f"{model_title(model, 60)}{chr(10) if model.get('adapter') else ' '}{how}"
    figure.suptitle(title, x=0.01, ha="left")
    middle = (GPU_MEMORY, GPU_USE) if results.on_gpu else (CPU_MEMORY, None)
    panels = (
        LATENCY,
        PERCENTILES,
        THROUGHPUT,
        *middle,
        FLOPS if sweep.having("achieved_tflops") else TOKENS,
    )
    for axes, panel in zip(figure.subplots(2, 3).flat, panels, strict=True):
        if panel is not None:
            _draw(axes, sweep, panel)
        elif len(_stacked_phases(axes, sweep, "Phases of a batch")):
            axes.legend(loc="upper center", ncols=2)
            axes.set_ylim(0, 128)
    return figure


def _draw(axes: Axes, sweep: Sweep, panel: Panel) -> None:
    if not _entitle(axes, sweep, panel.title, (*panel.curves, *(panel.right or ())[:1])):
        return
    axes.set_ylabel(panel.unit)
    _batch_axis(axes, sweep)
    for name, label in panel.curves.items():
        if len(values := sweep.column(name)):
            axes.errorbar(
                values.index,
                values,
                yerr=_error_bars(sweep, values, panel.spread),
                ecolor=GREY,
                capsize=4,
                label=label,
            )
    _limit(axes, panel.scale)
    if panel.right:
        _second_axis(axes, sweep, *panel.right)
    elif len(panel.curves) > 1:
        axes.legend(
            loc="upper left", ncols=4, columnspacing=0.8, handlelength=1.2, handletextpad=0.4
        )
    else:
        for size, value in values.items():
            axes.annotate(
                number(value),
                (size, value),
                xytext=(0, 8),
                textcoords="offset points",
                ha="center",
                fontsize=8.5,
                bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.6},
            )


def _entitle(axes: Axes, sweep: Sweep, title: str, names: Iterable[str]) -> bool:
    """The title; and a word on why, where no row has any of the figures. Returns whether there is something to draw."""
    axes.set_title(title)
    if any(sweep.having(name) for name in names):
        return True
    why = unmeasured(
        next(iter(names)),
        sweep.warnings,
        None if sweep.measured else "no batch size fitted into memory",
    )
    axes.text(
        0.5,
        0.5,
        textwrap.fill(why, 38),
        ha="center",
        va="center",
        color=GREY,
        transform=axes.transAxes,
    )
    axes.set(xticks=[], yticks=[])
    return False


def _batch_axis(axes: Axes, sweep: Sweep) -> None:
    """Batch sizes as ticks of a log2 axis; a band where memory ran out."""
    sizes = [row["batch_size"] for row in sweep.rows]
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [str(size) for size in sizes], rotation=45 if len(sizes) > 8 else 0)
    axes.set_xticks([], minor=True)
    axes.set_xlim(min(sizes) / 1.4, max(sizes) * 1.4)
    axes.set_xlabel("batch size (texts)")
    for row in sweep.rows:
        if row["status"] != "ok":
            axes.axvspan(
                row["batch_size"] / 1.18, row["batch_size"] * 1.18, color="#f3e3da", zorder=0
            )
            axes.text(
                row["batch_size"],
                0.5,
                STATUSES[row["status"]],
                rotation=90,
                color=RED,
                fontsize=8.5,
                ha="center",
                va="center",
                transform=axes.get_xaxis_transform(),
            )


def _error_bars(sweep: Sweep, values: pd.Series[float], spread: tuple[str, ...]) -> Any:
    """Lengths of the bars below and above each value, none where a single run has no spread."""
    ends = [sweep.column(name).reindex(values.index) for name in spread]
    return (
        [(values - ends[0]).abs(), (ends[1] - values).abs()]
        if len(ends) == 2
        else ends[0]
        if ends
        else None
    )


def _limit(axes: Axes, scale: str) -> None:
    if scale == "log":
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:,g}")
        axes.yaxis.set_minor_locator(NullLocator())
    elif scale == "percent":
        axes.set(ylim=(0, 118), yticks=range(0, 101, 20))
    else:  # zero at the bottom, so that heights can be compared; room for a legend at the top
        axes.set_ylim(min(0.0, axes.dataLim.y0), max(axes.get_ylim()[1], 1e-9) * 1.2)


def _second_axis(axes: Axes, sweep: Sweep, name: str, label: str, unit: str, scale: float) -> None:
    """A second figure in its own unit on the right, dashed; and one legend for both."""
    values = sweep.column(name) * scale
    handles, labels = axes.get_legend_handles_labels()
    if len(values):
        right = axes.twinx()
        right.grid(False)
        right.spines["right"].set_visible(True)
        handles += right.plot(values.index, values, marker="s", linestyle="--", color=GREY)
        labels += [label]
        right.set(ylabel=unit, ylim=(0, max(values.max(), 1e-9) * 1.3))
    axes.legend(handles, labels, loc="upper left", ncols=2)


def _stacked_phases(axes: Axes, sweep: Sweep, title: str) -> pd.DataFrame:
    """Bars of 100%, one a batch size, from bottom to top in the order of the work.

    Returns:
        The milliseconds behind the bars; empty where no phase was measured.
    """
    spent = pd.DataFrame({label: sweep.column(name) for name, label in PHASES.items()}).fillna(0.0)
    if not _entitle(axes, sweep, title, ("forward_ms_mean", *PHASES)):
        return spent
    shares = spent.mul(100 / spent.sum(axis=1), axis=0)
    shares.plot.bar(
        stacked=True,
        ax=axes,
        rot=0,
        width=0.72,
        edgecolor="white",
        color=[ORANGE, SKY, BLUE, PURPLE],
    )
    axes.set(xlabel="batch size (texts)", ylabel="share of the time (%)", yticks=range(0, 101, 20))
    axes.grid(False, axis="x")
    return spent


def heatmap(results: Results) -> Figure:
    """Metrics by batch size, each row scaled for itself from its worst to its best value."""
    sweep = results.sweep
    listed = [item for item in HEATMAP if sweep.having(item[0])]
    figure = Figure(
        figsize=(max(7.5, 3.8 + 1.25 * len(sweep.rows)), 1.9 + 0.5 * max(len(listed), 2)),
        layout="constrained",
    )
    axes = figure.subplots()
    figure.suptitle("Metrics by batch size", x=0.01, ha="left")
    if not listed:
        _entitle(axes, sweep, "", ["latency_per_sample_ms_mean"])
        return figure
    shades = pd.DataFrame(
        [_shades(sweep, name, sign) for name, _, sign in listed],
        index=[label for _, label, _ in listed],
    )
    texts = [[_cell_text(row, name) for row in sweep.rows] for name, *_ in listed]
    sns.heatmap(
        shades,
        ax=axes,
        annot=pd.DataFrame(texts),
        fmt="",
        cmap="Blues",
        vmin=-0.15,
        vmax=1.15,
        cbar=False,
        linewidths=1.5,
        mask=shades.isna(),
        annot_kws={"fontsize": 9.5},
    )
    for y, x in zip(
        *shades.isna().to_numpy().nonzero(), strict=True
    ):  # seaborn leaves masked cells empty
        axes.text(x + 0.5, y + 0.5, texts[y][x], ha="center", va="center", color=GREY, fontsize=8.5)
    axes.set_title(
        "darker is better, within each row; a row of one shade does not vary",
        fontsize=9,
        fontweight="normal",
    )
    axes.set(xlabel="batch size (texts)", facecolor="#f2f2f2")
    axes.tick_params(length=0)
    axes.tick_params(axis="y", rotation=0)
    axes.grid(False)
    return figure


def _shades(sweep: Sweep, name: str, sign: int) -> pd.Series[float]:
    """0 (worst) to 1 (best) by batch size; NaN where not measured; one middle shade where nothing varies."""
    values = sign * sweep.column(name)
    span = values.max() - values.min()
    shades = (values - values.min()) / span if span else values * 0 + 0.35
    return shades.reindex([row["batch_size"] for row in sweep.rows])


def _cell_text(row: Row, name: str) -> str:
    if row["status"] != "ok":
        return "\n".join(STATUSES[row["status"]].rsplit(" ", 1))
    if row[name] is None:
        return "not\nmeasured"
    return percent(row[name]) if name == "padding_fraction" else number(float(row[name]))


def phases(results: Results) -> Figure:
    """``phases.png``: the share of each phase by batch size, with milliseconds."""
    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.subplots()
    spent = _stacked_phases(axes, results.sweep, "Where the time of a batch goes")
    if len(spent):
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), reverse=True)
        axes.set_ylim(0, 100)
    for bars, (phase, milliseconds) in zip(
        axes.containers, spent.items(), strict=False
    ):  # no bars where nothing was measured
        assert isinstance(bars, BarContainer)
        shown = [
            number(ms, "ms") if bar.get_height() >= 6 else ""
            for bar, ms in zip(bars, milliseconds, strict=True)
        ]
        axes.bar_label(
            bars,
            shown,
            label_type="center",
            fontsize=8,
            color="white" if phase == "forward" else "#222222",
        )
    return figure


def layers(frame: pd.DataFrame) -> Figure:
    """``layers_time.png``: modules' own time by kind, and by layer of the model."""
    figure = Figure(figsize=(13, 5.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    by_kind = frame.groupby("kind")["self_time_ms"].sum().nlargest(TOP)
    _bars(
        left,
        by_kind,
        frame["self_time_ms"].sum(),
        "Own time by kind of module",
        "time without children (ms per forward)",
    )
    by_layer = frame.groupby("layer_index")[
        "self_time_ms"
    ].sum()  # modules outside the layers have no index
    right.bar(
        [f"{index:.0f}" for index in by_layer.index], by_layer.to_numpy(), color=BLUE, width=0.72
    )
    right.set_title("Own time by layer of the model")
    right.set(xlabel="layer", ylabel="time of the layer's modules (ms per forward)")
    right.tick_params(axis="x", labelsize=7.5 if len(by_layer) > 16 else 10)
    return figure


def operators(frame: pd.DataFrame) -> Figure:
    """``operators_time.png``: the operators' own time, and what the machine's ceilings would allow."""
    column = time_column(frame)
    figure = Figure(figsize=(10, 5.6), layout="constrained")
    axes = figure.subplots()
    sums = (
        frame.groupby("operator")[[column, "attainable_ms"]].sum(min_count=1).nlargest(TOP, column)
    )
    unit = f"{column.split('_')[1]} time (ms per batch, traced)"
    _bars(
        axes, sums[column], frame[column].sum(), "Operators with the most time of their own", unit
    )
    floor = sums["attainable_ms"].reset_index(drop=True).dropna()
    if not floor.empty:
        axes.plot(
            floor.to_numpy(),
            floor.index,
            "|",
            color=RED,
            markersize=13,
            markeredgewidth=2.5,
            label="at the ceilings",
        )
        axes.legend(loc="lower right")
    return figure


def memory(frame: pd.DataFrame) -> Figure:
    """``memory_time.png``: what is allocated while one traced batch runs."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    axes = figure.subplots()
    axes.step(frame["time_ms"], frame["allocated_mb"], where="post", marker="", linewidth=1.1)
    axes.fill_between(frame["time_ms"], frame["allocated_mb"], step="post", alpha=0.2, color=BLUE)
    at, peak = max(
        zip(frame["time_ms"], frame["allocated_mb"], strict=True), key=lambda point: point[1]
    )
    axes.annotate(
        f"peak {number(peak, 'MB')}",
        (at, peak),
        xytext=(6, 4),
        textcoords="offset points",
        color=RED,
        fontsize=9,
    )
    axes.set(
        xlabel="time (ms, traced)",
        ylabel="allocated beyond the weights (MB)",
        ylim=(0, 1.15 * peak or 1),
    )
    axes.set_title("Memory over one batch")
    return figure


def _bars(axes: Axes, values: Any, total: float, title: str, unit: str) -> None:
    """Horizontal bars, the longest on top, each with its value and its share of ``total`` (of all, not of those shown)."""
    bars = axes.barh(range(len(values)), values.to_numpy(), color=BLUE, height=0.72)
    axes.set_yticks(
        range(len(values)),
        [name if len(name) <= 42 else f"{name[:20]}…{name[-20:]}" for name in values.index],
    )
    axes.invert_yaxis()
    axes.bar_label(
        bars,
        [f"{number(float(value))} ({value / (total or 1):.0%})" for value in values],
        padding=4,
        fontsize=8.5,
    )
    axes.set_title(title)
    axes.set_xlabel(unit)
    axes.margins(x=0.18)
    axes.grid(False, axis="y")

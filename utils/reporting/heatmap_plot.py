"""``metrics_heatmap.png``: the measured values, with the better ones darker."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from utils.reporting.formatting import format_number, format_percent
from utils.reporting.plot_style import GREY, show_missing_reason
from utils.reporting.results import Results
from utils.reporting.sweeps import Sweep, value_of
from utils.reporting.tables import STATUSES
from utils.schema.batch_size import SweepRow


class HeatmapRow(NamedTuple):
    """A metric, its label, and whether a higher value is better."""

    metric: str
    label: str
    higher_is_better: bool


HEATMAP_ROWS = (
    HeatmapRow("latency_per_sample_ms_mean", "latency (ms/sample)", False),
    HeatmapRow("latency_per_batch_ms_median", "latency p50 (ms/batch)", False),
    HeatmapRow("latency_per_batch_ms_p99", "latency p99 (ms/batch)", False),
    HeatmapRow("throughput_samples_per_sec_mean", "throughput (samples/s)", True),
    HeatmapRow("throughput_tokens_per_sec_mean", "throughput (tokens/s)", True),
    HeatmapRow("achieved_tflops", "achieved (TFLOP/s)", True),
    HeatmapRow("padding_fraction", "padding (%)", False),
    HeatmapRow("peak_gpu_mem", "GPU memory peak (MB)", False),
    HeatmapRow("cpu_mem_used", "CPU memory (MB)", False),
    HeatmapRow("gpu_util_pct_mean", "GPU utilisation (%)", True),
    HeatmapRow("energy_per_sample_j", "energy (J/sample)", False),
    HeatmapRow("cv", "spread (CV)", False),
)
SHADE_WITHOUT_SPREAD = 0.35
"""The shade of a row whose values are all the same."""


def draw_heatmap(results: Results) -> Figure:
    """Metrics by batch size, each row scaled for itself from its worst to its best value."""
    sweep = results.sweep
    shown = [row for row in HEATMAP_ROWS if sweep.has(row.metric)]
    width = max(7.5, 3.8 + 1.25 * len(sweep.rows))
    height = 1.9 + 0.5 * max(len(shown), 2)
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.suptitle("Metrics by batch size", x=0.01, ha="left")
    axes = figure.subplots()
    if not shown:
        show_missing_reason(axes, sweep, "latency_per_sample_ms_mean")
        return figure
    shades = np.array([shades_of_row(sweep, row) for row in shown])
    texts = [[_cell_text(row, item.metric) for row in sweep.rows] for item in shown]
    sns.heatmap(
        shades,
        ax=axes,
        annot=texts,
        fmt="",
        cmap="Blues",
        vmin=-0.15,
        vmax=1.15,
        cbar=False,
        linewidths=1.5,
        mask=np.isnan(shades),
        annot_kws={"fontsize": 9.5},
        xticklabels=[str(size) for size in sweep.batch_sizes],
        yticklabels=[row.label for row in shown],
    )
    _write_unmeasured_cells(axes, shades, texts)
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


def shades_of_row(sweep: Sweep, row: HeatmapRow) -> list[float]:
    """A shade for each batch size, from 0 (worst) to 1 (best); NaN where not measured."""
    values = sweep.values(row.metric)
    lowest = min(values.values())
    highest = max(values.values())
    shades = []
    for batch_size in sweep.batch_sizes:
        if batch_size not in values:
            shades.append(math.nan)
        elif lowest == highest:
            shades.append(SHADE_WITHOUT_SPREAD)
        else:
            position = (values[batch_size] - lowest) / (highest - lowest)
            shades.append(position if row.higher_is_better else 1.0 - position)
    return shades


def _cell_text(row: SweepRow, metric: str) -> str:
    if row.status != "ok":
        # The last word stands on a line of its own, because the cell is narrow.
        return "\n".join(STATUSES[row.status].rsplit(" ", 1))
    value = value_of(row, metric)
    if value is None:
        return "not\nmeasured"
    if metric == "padding_fraction":
        return format_percent(value)
    return format_number(value)


def _write_unmeasured_cells(axes: Axes, shades: np.ndarray, texts: list[list[str]]) -> None:
    """Write into the cells without a shade, which seaborn leaves empty."""
    for y, x in np.argwhere(np.isnan(shades)):
        axes.text(
            x + 0.5,
            y + 0.5,
            texts[y][x],
            ha="center",
            va="center",
            color=GREY,
            fontsize=8.5,
        )

"""``phases.png``: where the time of a batch goes, by batch size."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.container import BarContainer
from matplotlib.figure import Figure

from utils.reporting.formatting import format_number
from utils.reporting.plot_style import (
    BLUE,
    ORANGE,
    PURPLE,
    SKY,
    show_missing_reason,
)
from utils.reporting.results import Results
from utils.reporting.sweeps import Sweep

PHASES = {
    "tokenize_ms_mean": "tokenise",
    "host_to_device_ms_mean": "host to device",
    "forward_ms_mean": "forward",
    "device_to_host_ms_mean": "device to host",
}
"""The phases in the order of the work."""
PHASE_COLOURS = [ORANGE, SKY, BLUE, PURPLE]
MIN_LABELLED_PCT = 6
"""A smaller share of a bar has no room for its milliseconds."""


def draw_phases(results: Results) -> Figure:
    """The share of each phase by batch size, with its milliseconds."""
    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.subplots()
    phase_ms = draw_phase_bars(axes, results.sweep, "Where the time of a batch goes")
    if phase_ms.empty:
        return figure
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), reverse=True)
    axes.set_ylim(0, 100)
    for bars, phase in zip(axes.containers, phase_ms, strict=True):
        assert isinstance(bars, BarContainer)
        _label_bars(axes, bars, phase_ms[phase], "white" if phase == "forward" else "#222222")
    return figure


def draw_phase_bars(axes: Axes, sweep: Sweep, title: str) -> pd.DataFrame:
    """One bar of 100% a batch size, from bottom to top in the order of the work.

    Returns:
        The milliseconds of each phase (columns) at each batch size (index); empty where no phase
        was measured.
    """
    axes.set_title(title)
    if not any(sweep.has(metric) for metric in PHASES):
        show_missing_reason(axes, sweep, "forward_ms_mean")
        return pd.DataFrame()
    columns = {label: pd.Series(sweep.values(metric)) for metric, label in PHASES.items()}
    phase_ms = pd.DataFrame(columns).fillna(0.0)
    shares_pct = phase_ms.mul(100 / phase_ms.sum(axis=1), axis=0)
    shares_pct.plot.bar(
        stacked=True, ax=axes, rot=0, width=0.72, edgecolor="white", color=PHASE_COLOURS
    )
    axes.set(xlabel="batch size (texts)", ylabel="share of the time (%)", yticks=range(0, 101, 20))
    axes.grid(False, axis="x")
    return phase_ms


def _label_bars(
    axes: Axes, bars: BarContainer, milliseconds: pd.Series[float], colour: str
) -> None:
    labels = []
    for bar, duration in zip(bars, milliseconds, strict=True):
        is_labelled = bar.get_height() >= MIN_LABELLED_PCT
        labels.append(format_number(duration, "ms") if is_labelled else "")
    axes.bar_label(bars, labels, label_type="center", fontsize=8, color=colour)

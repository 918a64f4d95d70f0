"""How the pictures look: colours, fonts, and the text in place of values that are missing."""

from __future__ import annotations

import textwrap
from typing import Any

from matplotlib.axes import Axes
from matplotlib.rcsetup import cycler

from utils.reporting.formatting import not_measured
from utils.reporting.sweeps import Sweep

DOTS_PER_INCH = 150
# The palette of Okabe and Ito ("Color Universal Design", 2008), which people with any kind of
# colour vision can distinguish.
BLUE = "#0072B2"
ORANGE = "#E69F00"
GREEN = "#009E73"
RED = "#D55E00"
PURPLE = "#CC79A7"
SKY = "#56B4E9"
GREY = "#767676"
CURVES = cycler(
    color=(BLUE, ORANGE, GREEN, RED, PURPLE, SKY), marker=("o", "s", "^", "v", "D", "P")
)
"""The look of each curve of a panel. A panel has no more curves than this, or two look alike."""
STYLE: dict[Any, Any] = {
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
    "axes.prop_cycle": CURVES,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
    "figure.titlesize": 14,
    "figure.titleweight": "bold",
    "text.parse_math": False,
    "svg.fonttype": "none",
}
"""Settings of matplotlib's ``rc_context``."""


def show_missing_reason(axes: Axes, sweep: Sweep, metric: str) -> None:
    """Write into empty axes why no batch size has a value of ``metric``."""
    axes.text(
        0.5,
        0.5,
        textwrap.fill(not_measured(sweep.reason(metric)), 38),
        ha="center",
        va="center",
        color=GREY,
        transform=axes.transAxes,
    )
    axes.set(xticks=[], yticks=[])

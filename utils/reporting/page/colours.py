"""The colours of the page's pictures: one meaning each, with a value for light and for dark.

Matplotlib draws with the light values. ``inline_svg`` replaces each by the variable of the page's
style sheet, so that a picture follows the reader's choice of light or dark and prints on paper.
"""

from __future__ import annotations

from typing import Any

INK = "#1c2430"
"""Text and axes."""
SOFT = "#5b6675"
"""What explains, and a reference to compare with: ceilings, targets, limits."""
LINE = "#d9dfe7"
"""Grid lines."""
PAPER = "#fdfdfe"
"""The page itself, for the gaps between neighbours."""
# The first five are of the palette of Okabe and Ito ("Color Universal Design", 2008), the other
# two of Paul Tol's muted scheme: people with any kind of colour vision can distinguish them.
COMPUTE = "#0072b2"
MEMORY = "#009e73"
OVERHEAD = "#d55e00"
INPUT = "#e69f00"
PADDING = "#cc79a7"
MEASURED = "#332288"
"""A measured value that is none of the causes above."""
WRONG = "#882255"
"""A wrong prediction, and a measurement that failed."""

VARIABLES = {
    INK: "--ink",
    SOFT: "--soft",
    LINE: "--line",
    PAPER: "--paper",
    COMPUTE: "--compute",
    MEMORY: "--memory",
    OVERHEAD: "--overhead",
    INPUT: "--input",
    PADDING: "--padding",
    MEASURED: "--measured",
    WRONG: "--wrong",
}
"""The variable of ``report.css`` that stands for each colour."""

STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 11,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.labelsize": 11,
    "axes.edgecolor": SOFT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 10.5,
    "ytick.labelsize": 10.5,
    "legend.frameon": False,
    "legend.fontsize": 10.5,
    "lines.linewidth": 1.8,
    "lines.markersize": 7,
    "text.parse_math": False,
    "svg.fonttype": "none",
}
"""Settings of matplotlib's ``rc_context``; the sizes suit a picture of 6 inches on a phone."""

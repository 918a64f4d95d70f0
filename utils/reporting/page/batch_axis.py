"""The axis of batch sizes, and what every picture over it shares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes

from utils.reporting.formatting import format_number
from utils.reporting.page.colours import MEASURED, PAPER, WRONG
from utils.reporting.page.inline_svg import Tips
from utils.reporting.sweeps import Sweep
from utils.reporting.tables import STATUSES

MAX_LABELS = 9
"""More labels than this would print over each other."""
MARGIN = 1.35


def labelled_sizes(sizes: Sequence[int]) -> list[int]:
    """The batch sizes that have room for a label on a logarithmic axis, with the largest one."""
    nearest = (max(sizes) / min(sizes)) ** (1 / MAX_LABELS)
    shown: list[int] = []
    for size in sorted(sizes, reverse=True):
        if not shown or shown[0] / size >= nearest:
            shown.insert(0, size)
    return shown


def draw_batch_axis(axes: Axes, sweep: Sweep, tips: Tips) -> None:
    """A logarithmic axis with the batch sizes as ticks, and a mark at those not measured."""
    sizes = sweep.batch_sizes
    axes.set_xscale("log", base=2)
    axes.set_xlim(min(sizes) / MARGIN, max(sizes) * MARGIN)
    shown = labelled_sizes(sizes)
    axes.set_xticks(shown, [str(size) for size in shown])
    axes.set_xticks([], minor=True)
    axes.set_xlabel("batch size (texts)")
    for row in sweep.rows:
        if row.status != "ok":
            mark = axes.plot(
                [row.batch_size],
                [0.04],
                "x",
                color=WRONG,
                markersize=10,
                markeredgewidth=2.4,
                transform=axes.get_xaxis_transform(),
                clip_on=False,
            )[0]
            tips.add(mark, f"batch size {row.batch_size}: {STATUSES[row.status]}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """A metric by batch size.

    Args:
        unit: what the axis shows.
        factor: from the column's unit to ``unit``.
    """

    metric: str
    unit: str
    factor: float = 1.0
    colour: str = MEASURED


def draw_points(axes: Axes, sweep: Sweep, curve: Curve, tips: Tips) -> None:
    """A line with a point for each batch size; a hollow point is not stable."""
    values = sweep.values(curve.metric)
    shown = {size: curve.factor * value for size, value in values.items()}
    axes.plot(list(shown), list(shown.values()), color=curve.colour)
    for row in sweep.measured_rows:
        if row.batch_size not in shown:
            continue
        is_unstable = row.stable is False
        point = axes.plot(
            [row.batch_size],
            [shown[row.batch_size]],
            "o",
            color=curve.colour,
            markerfacecolor=PAPER if is_unstable else curve.colour,
            markeredgewidth=1.8,
        )[0]
        text = f"batch size {row.batch_size}: {format_number(shown[row.batch_size], curve.unit)}"
        tips.add(point, f"{text} (not stable)" if is_unstable else text)


def draw_bars_of_spread(
    axes: Axes, sweep: Sweep, low_metric: str, high_metric: str, colour: str = MEASURED
) -> None:
    """A vertical line from the lower to the upper end of each batch size's interval."""
    lows = sweep.values(low_metric)
    highs = sweep.values(high_metric)
    for size in lows:
        if size in highs:
            axes.plot([size, size], [lows[size], highs[size]], color=colour, alpha=0.45, lw=4)

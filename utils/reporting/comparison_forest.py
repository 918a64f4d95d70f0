"""The picture of a comparison: the ratio of each place with its interval, on one axis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from utils.reporting.comparison_tables import format_ratio, format_ratio_interval, place_name
from utils.schema.comparison import Comparison, MetricComparison

WIDTH = 640
LEFT = 110
"""Where the axis begins: the names of the places stand before it."""
RIGHT = 530
"""Where the axis ends: the verdicts stand behind it."""
ROW_HEIGHT = 26
TICK_RATIOS = (0.1, 0.2, 0.5, 0.8, 0.9, 0.95, 1.0, 1.05, 1.1, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0)
MIN_TICK_DISTANCE = 40
"""Between two labels of the axis, so that they do not touch."""
SMALLEST_REACH = math.log(1.1)
"""The axis reaches at least from 1/1.1 to 1.1."""
LARGEST_REACH = math.log(20.0)
"""Beyond it an interval is cut off; the table has its ends."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tick:
    """A labelled place on the axis."""

    x: float
    label: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Band:
    """The margin within which sides are equivalent."""

    x: float
    width: float


@dataclass(frozen=True, kw_only=True, slots=True)
class ForestRow:
    """One ratio; ``low_x`` and ``high_x`` are None where it has no interval."""

    name: str
    verdict: str
    description: str
    y: float
    x: float
    low_x: float | None
    high_x: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class ForestPlot:
    """Coordinates of the picture in its own units, left to right and top to bottom."""

    title: str
    height: int
    axis_y: int
    band: Band
    rows: tuple[ForestRow, ...]
    ticks: tuple[Tick, ...]
    one_x: float
    width: int = WIDTH
    left: int = LEFT
    right: int = RIGHT
    text_x: int = RIGHT + 12


@dataclass(frozen=True, kw_only=True, slots=True)
class Axis:
    """A logarithmic axis from ``exp(-reach)`` to ``exp(reach)``."""

    reach: float

    def x(self, ratio: float) -> float:
        """The place of a ratio; one beyond the axis is at its end."""
        share = (math.log(ratio) + self.reach) / (2 * self.reach)
        return round(LEFT + min(1.0, max(0.0, share)) * (RIGHT - LEFT), 1)


def forest_plot(comparison: Comparison, name: str) -> ForestPlot | None:
    """The ratios of one metric; None where none has a verdict."""
    items = []
    for item in comparison.metrics:
        has_ratio = item.effect is not None and item.effect.ratio is not None
        if item.metric == name and item.verdict is not None and has_ratio:
            items.append(item)
    if not items:
        return None
    axis = Axis(reach=_reach(items))
    axis_y = ROW_HEIGHT * len(items) + 6
    low_x = axis.x(1 / (1 + comparison.margin))
    return ForestPlot(
        title=(
            f"Ratio of the {items[0].label}, candidate / baseline, with its 95% interval; "
            f"the band is the margin of {100 * comparison.margin:.3g}%"
        ),
        height=axis_y + 28,
        axis_y=axis_y,
        band=Band(x=low_x, width=round(axis.x(1 + comparison.margin) - low_x, 1)),
        rows=tuple(_row(item, index, axis) for index, item in enumerate(items)),
        ticks=_ticks(axis),
        one_x=axis.x(1.0),
    )


def _reach(items: Sequence[MetricComparison]) -> float:
    """How far from 1 the ratios and their intervals lie, as a logarithm, and a little more."""
    reach = SMALLEST_REACH
    for item in items:
        assert item.effect is not None and item.effect.ratio is not None
        for ratio in (item.effect.ratio, *(item.effect.ci95 or ())):
            reach = max(reach, 1.1 * abs(math.log(ratio)))
    return min(reach, LARGEST_REACH)


def _row(item: MetricComparison, index: int, axis: Axis) -> ForestRow:
    assert item.effect is not None and item.effect.ratio is not None
    interval = item.effect.ci95
    name = place_name(item)
    return ForestRow(
        name=name,
        verdict=str(item.verdict),
        description=(
            f"{name}: {format_ratio(item.effect.ratio, interval)} "
            f"({format_ratio_interval(interval)}), {item.verdict}"
        ),
        y=ROW_HEIGHT * (index + 0.5) + 3,
        x=axis.x(item.effect.ratio),
        low_x=None if interval is None else axis.x(interval[0]),
        high_x=None if interval is None else axis.x(interval[1]),
    )


def _ticks(axis: Axis) -> tuple[Tick, ...]:
    """1 first, then the other ratios as far as their labels do not touch."""
    ticks: list[Tick] = []
    for ratio in sorted(TICK_RATIOS, key=lambda value: value != 1.0):
        is_on_axis = abs(math.log(ratio)) <= axis.reach
        x = axis.x(ratio)
        distance = min((abs(x - tick.x) for tick in ticks), default=math.inf)
        if is_on_axis and distance >= MIN_TICK_DISTANCE:
            ticks.append(Tick(x=x, label=f"{ratio:g}"))
    return tuple(ticks)

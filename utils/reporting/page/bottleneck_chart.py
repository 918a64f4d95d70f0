"""The picture of the bottleneck: what the time of a batch is spent on, by batch size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from matplotlib.figure import Figure

from utils.reporting.commands import STEP_03_MISSING
from utils.reporting.formatting import format_number, not_measured
from utils.reporting.page import captions
from utils.reporting.page.blocks import Chart, draw_chart
from utils.reporting.page.colours import (
    COMPUTE,
    INPUT,
    MEMORY,
    OVERHEAD,
    PADDING,
    PAPER,
    SOFT,
)
from utils.reporting.page.inline_svg import Tips, new_figure
from utils.reporting.results import Results
from utils.schema.diagnosis import BatchSizeDiagnosis

TITLE = "What the time of a batch is spent on"


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """A part of the time of a batch."""

    name: str
    colour: str
    time_ms: float


def time_parts(item: BatchSizeDiagnosis) -> list[Part]:
    """The time of a batch in parts that add up to it.

    The shares of the diagnosis overlap: where compute, memory and overhead together are longer
    than the forward, each is shortened by the same factor.
    """
    evidence = item.evidence
    input_ms = evidence.tokenize_ms + evidence.host_to_device_ms + evidence.device_to_host_ms
    overhead_ms = item.overhead_ms
    if overhead_ms is None:
        overhead_ms = item.shares.overhead * evidence.forward_ms
    explained_ms = evidence.matmul_limited_ms + evidence.copy_limited_ms + overhead_ms
    factor = min(1.0, evidence.forward_ms / explained_ms) if explained_ms else 1.0
    rest_ms = max(0.0, evidence.forward_ms - explained_ms)
    padding = evidence.padding_fraction
    if padding is None:
        padding = item.padding_fraction or 0.0
    text = 1.0 - padding
    working_ms = factor * (evidence.matmul_limited_ms + evidence.copy_limited_ms) + rest_ms
    return [
        Part(name="input", colour=INPUT, time_ms=input_ms),
        Part(name="overhead", colour=OVERHEAD, time_ms=factor * overhead_ms),
        Part(name="compute", colour=COMPUTE, time_ms=text * factor * evidence.matmul_limited_ms),
        Part(name="memory", colour=MEMORY, time_ms=text * factor * evidence.copy_limited_ms),
        Part(name="slower than the ceilings", colour=SOFT, time_ms=text * rest_ms),
        Part(name="padding", colour=PADDING, time_ms=padding * working_ms),
    ]


def bottleneck_chart(results: Results) -> Chart:
    """A stacked bar for each batch size of the diagnosis."""
    diagnosis = results.diagnosis
    if diagnosis is None:
        return Chart(title=TITLE, missing=not_measured(STEP_03_MISSING), wide=True)
    if not diagnosis.batch_sizes:
        return Chart(title=TITLE, missing=not_measured("no batch size was diagnosed"), wide=True)
    draw = partial(_draw, diagnosis.batch_sizes)
    return draw_chart("bottleneck", TITLE, captions.BOTTLENECK, draw, wide=True)


def _draw(items: Sequence[BatchSizeDiagnosis], tips: Tips) -> Figure:
    """Horizontal bars of 100%: their labels stay readable on a narrow screen."""
    height = 1.5 + 0.42 * len(items)
    figure = new_figure(6.4, height)
    axes = figure.subplots()
    for position, item in enumerate(items):
        parts = time_parts(item)
        total_ms = sum(part.time_ms for part in parts)
        left_pct = 0.0
        for part in parts:
            share_pct = 100 * part.time_ms / total_ms
            bars = axes.barh(
                position,
                share_pct,
                left=left_pct,
                height=0.7,
                color=part.colour,
                edgecolor=PAPER,
                label=part.name if position == 0 else None,
            )
            tips.add(
                bars.patches[0],
                f"batch size {item.batch_size}, {part.name}: {share_pct:.0f}%, "
                f"{format_number(part.time_ms, 'ms')} of {format_number(total_ms, 'ms')}",
            )
            left_pct += share_pct
    axes.set_yticks(range(len(items)), [str(item.batch_size) for item in items])
    axes.invert_yaxis()
    axes.grid(False, axis="y")
    axes.set(ylabel="batch size", xlabel="share of the time (%)", xlim=(0, 100))
    figure.legend(loc="outside upper left", ncols=3, columnspacing=1.2, handlelength=1.2)
    return figure

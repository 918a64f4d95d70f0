"""Writes every picture of the report that there are values for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from utils.core.files import atomic_path
from utils.pipeline import console
from utils.reporting.comparison_plot import draw_comparison
from utils.reporting.heatmap_plot import draw_heatmap
from utils.reporting.phases_plot import draw_phases
from utils.reporting.plot_style import DOTS_PER_INCH, STYLE
from utils.reporting.results import Results
from utils.reporting.trace_plots import draw_layer_times, draw_memory, draw_operator_times


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """A picture of the report.

    Args:
        description: what it shows, also for a reader who cannot see it.
    """

    path: Path
    title: str
    description: str


def write_pictures(results: Results) -> tuple[Picture, ...]:
    """Draw every picture that there are values for, into the plots folder."""
    written = []
    pictures = list(_pictures(results))
    for picture, draw in console.progress(pictures, what="Drawing", unit="picture"):
        with mpl.rc_context(STYLE), atomic_path(picture.path) as temporary:
            draw().savefig(temporary, format="png", dpi=DOTS_PER_INCH, facecolor="white")
        written.append(picture)
    return tuple(written)


def _pictures(results: Results) -> Iterator[tuple[Picture, Callable[[], Figure]]]:
    """Each picture with the function that draws it."""
    files = results.files
    yield (
        Picture(
            path=files.comparison_plot,
            title="Batch sizes compared",
            description=(
                "Six panels over the batch size: latency per sample and per batch, throughput, "
                "memory, utilisation or phases, efficiency."
            ),
        ),
        partial(draw_comparison, results),
    )
    yield (
        Picture(
            path=files.heatmap_plot,
            title="Metrics by batch size",
            description="A grid with the measured values; darker is better.",
        ),
        partial(draw_heatmap, results),
    )
    yield (
        Picture(
            path=files.plots_dir / "phases.png",
            title="Where the time of a batch goes",
            description="Stacked bars by batch size.",
        ),
        partial(draw_phases, results),
    )
    yield from _trace_pictures(results)


def _trace_pictures(results: Results) -> Iterator[tuple[Picture, Callable[[], Figure]]]:
    folder = results.files.plots_dir
    tables = results.tables
    if tables.layers:
        yield (
            Picture(
                path=folder / "layers_time.png",
                title="Time in the model's modules",
                description="Bars by kind and layer.",
            ),
            partial(draw_layer_times, tables.layers),
        )
    if tables.operators:
        yield (
            Picture(
                path=folder / "operators_time.png",
                title="Time by operator",
                description="Bars, the longest on top.",
            ),
            partial(draw_operator_times, tables.operators),
        )
    if tables.memory:
        yield (
            Picture(
                path=folder / "memory_time.png",
                title="Memory over one batch",
                description="Allocated, by time.",
            ),
            partial(draw_memory, tables.memory),
        )

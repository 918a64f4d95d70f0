"""The pictures: their values are those of the files, and every unusual sweep can be drawn."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest
from matplotlib.figure import Figure

from tests.reporting.conftest import MakeResults
from tests.reporting.diagnosis_builders import write_operators
from utils.reporting import comparison_plot
from utils.reporting.comparison_plot import PERCENTILES, Panel, draw_comparison
from utils.reporting.diagnosis_tables import MAX_ROWS
from utils.reporting.formatting import format_number
from utils.reporting.heatmap_plot import HeatmapRow, draw_heatmap, shades_of_row
from utils.reporting.pictures import write_pictures
from utils.reporting.plot_style import CURVES, STYLE
from utils.reporting.results import read_results
from utils.reporting.trace_plots import draw_memory, draw_operator_times

PANELS = [
    "Latency per sample",
    "Latency per batch",
    "Throughput",
    "GPU memory",
    "GPU utilisation and power",
    "Efficiency",
]
SWEEP_PICTURES = {"batch_size_comparison.png", "metrics_heatmap.png", "phases.png"}
TRACE_PICTURES = {"layers_time.png", "operators_time.png", "memory_time.png"}


@pytest.fixture(autouse=True)
def report_style() -> Iterator[None]:
    with mpl.rc_context(STYLE):
        yield


def read_texts(figure: Figure) -> list[str]:
    """The texts inside the axes."""
    texts = []
    for axes in figure.axes:
        texts += [text.get_text() for text in axes.texts]
    return texts


def read_png_size(path: Path) -> tuple[int, int]:
    head = path.read_bytes()[:24]
    assert head.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", head[16:24])
    return width, height


def test_no_two_curves_of_a_panel_look_alike() -> None:
    panels = [value for value in vars(comparison_plot).values() if isinstance(value, Panel)]
    assert PERCENTILES in panels
    assert max(len(panel.curves) for panel in panels) <= len(CURVES)
    for name in ("color", "marker"):
        assert len(set(CURVES.by_key()[name])) == len(CURVES)


def test_six_panels_with_units_and_batch_sizes_as_ticks(make_results: MakeResults) -> None:
    figure = draw_comparison(make_results(gpu=True))
    panels = [axes for axes in figure.axes if axes.get_title(loc="left")]
    assert [axes.get_title(loc="left") for axes in panels] == PANELS
    for axes in panels:
        ticks = [label.get_text() for label in axes.get_xticklabels()]
        assert ticks == ["1", "4", "8", "16", "32", "64"]
        assert "(" in axes.get_ylabel()
        assert "(" in axes.get_xlabel()


def test_the_curve_has_the_values_of_the_file(make_results: MakeResults) -> None:
    results = make_results(gpu=True, out_of_memory=(64,))
    curve = draw_comparison(results).axes[2].lines[0]
    throughput = results.sweep.values("throughput_samples_per_sec_mean")
    assert list(curve.get_xdata()) == [1, 4, 8, 16, 32]
    assert list(curve.get_ydata()) == list(throughput.values())


def test_a_batch_size_that_ran_out_of_memory_is_marked(make_results: MakeResults) -> None:
    figure = draw_comparison(make_results(gpu=True, out_of_memory=(64,)))
    assert read_texts(figure).count("out of memory") == len(PANELS)


def test_an_empty_panel_has_the_reason(make_results: MakeResults) -> None:
    figure = draw_comparison(make_results(batch_sizes=(1, 2), out_of_memory=(1, 2)))
    texts = read_texts(figure)
    assert sum("not measured" in text for text in texts) == len(PANELS)


def test_the_heatmap_has_the_values_of_the_file(make_results: MakeResults) -> None:
    results = make_results(gpu=True, out_of_memory=(64,))
    texts = read_texts(draw_heatmap(results))
    for metric in ("latency_per_sample_ms_mean", "energy_per_sample_j"):
        for value in results.sweep.values(metric).values():
            assert format_number(value) in texts
    assert "out of\nmemory" in texts


@pytest.mark.parametrize(
    ("metric", "higher_is_better", "shades"),
    [
        ("latency_per_sample_ms_mean", False, [0.0, 1.0]),
        ("throughput_samples_per_sec_mean", True, [0.0, 1.0]),
        ("cv", False, [0.35, 0.35]),
    ],
)
def test_better_values_are_darker(
    make_results: MakeResults, metric: str, higher_is_better: bool, shades: list[float]
) -> None:
    sweep = make_results(batch_sizes=(1, 64)).sweep
    row = HeatmapRow(metric, metric, higher_is_better)
    assert shades_of_row(sweep, row) == shades


def test_shares_are_of_all_operators_not_of_those_shown(make_results: MakeResults) -> None:
    results = make_results()
    write_operators(results.files.operators, [f"aten::op{i}" for i in range(40)])
    operators = read_results(results.files).tables.operators
    total_ms = sum(90 / (i + 1) for i in range(40))
    texts = read_texts(draw_operator_times(operators))
    assert f"90 ({90 / total_ms:.0%})" in texts
    assert sum("%" in text for text in texts) == MAX_ROWS


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"gpu": True, "out_of_memory": (64,)}, SWEEP_PICTURES | TRACE_PICTURES),
        (
            {"batch_sizes": (8,), "has_diagnosis": False, "dummy_weights": True},
            SWEEP_PICTURES,
        ),
        ({"batch_sizes": (1, 2), "out_of_memory": (1, 2)}, SWEEP_PICTURES | TRACE_PICTURES),
    ],
)
def test_every_sweep_can_be_drawn(
    make_results: MakeResults, fields: dict[str, Any], expected: set[str]
) -> None:
    results = make_results(**fields)
    pictures = write_pictures(results)
    assert {picture.path.name for picture in pictures} == expected
    assert {path.name for path in results.files.plots_dir.iterdir()} == expected
    for picture in pictures:
        assert min(read_png_size(picture.path)) > 300


def test_memory_over_time_has_the_values_of_the_file(make_results: MakeResults) -> None:
    figure = draw_memory(make_results().tables.memory)
    assert list(figure.axes[0].lines[0].get_ydata()) == [10.5, 301.5, 0]
    assert read_texts(figure) == ["peak 302 MB"]

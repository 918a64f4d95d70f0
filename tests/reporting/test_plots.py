"""The pictures: the figures on the axes are the files', and every odd sweep can be drawn."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from tests.reporting import fixtures
from tests.reporting.conftest import Make
from utils.reporting import plots
from utils.reporting.results import read_results

PANELS = [
    "Latency per sample",
    "Latency per batch",
    "Throughput",
    "GPU memory",
    "GPU utilisation and power",
    "Efficiency",
]


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def png_size(path: Path) -> tuple[int, int]:
    head = path.read_bytes()[:24]
    assert head.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", head[16:24])
    return width, height


def test_six_panels_with_units_and_batch_sizes_as_ticks(make: Make) -> None:
    with plots.mpl.rc_context(plots.STYLE):
        figure = plots.comparison(make(gpu=True))
    axes = [axes for axes in figure.axes if axes.get_title(loc="left")]
    assert [item.get_title(loc="left") for item in axes] == PANELS
    for item in axes:
        assert [label.get_text() for label in item.get_xticklabels()] == [
            "1",
            "4",
            "8",
            "16",
            "32",
            "64",
        ]
        assert "(" in item.get_ylabel() and "(" in item.get_xlabel()


def test_the_curve_is_the_file_and_oom_is_marked(make: Make) -> None:
    results = make(gpu=True, oom=(64,))
    with plots.mpl.rc_context(plots.STYLE):
        figure = plots.comparison(results)
    throughput = figure.axes[2]
    assert list(throughput.lines[0].get_ydata()) == [
        row["throughput_samples_per_sec_mean"] for row in results.sweep.measured
    ]
    assert list(throughput.lines[0].get_xdata()) == [1, 4, 8, 16, 32]
    assert texts(figure).count("out of memory") == 6


def test_a_missing_figure_says_why(make: Make) -> None:
    with plots.mpl.rc_context(plots.STYLE):
        figure = plots.comparison(make(sizes=(1, 2), oom=(1, 2)))
    assert sum("not measured" in text for text in texts(figure)) == 6


def test_heatmap_holds_the_true_values(make: Make) -> None:
    results = make(gpu=True, oom=(64,))
    shown = texts(plots.heatmap(results))
    for row in results.sweep.measured:
        assert plots.number(row["latency_per_sample_ms_mean"]) in shown
        assert plots.number(row["energy_per_sample_j"]) in shown
    assert "out of\nmemory" in shown


def test_shares_are_of_all_operators_not_of_those_shown(make: Make) -> None:
    results = make()
    fixtures.write_operators(results.files.operators, tuple(f"aten::op{i}" for i in range(40)))
    frame = read_results(results.files).operators
    assert frame is not None
    shown = texts(plots.operators(frame))
    assert f"90 ({90 / frame['self_host_ms'].sum():.0%})" in shown
    assert sum("%" in text for text in shown) == plots.TOP


def test_better_is_darker(make: Make) -> None:
    sweep = make(sizes=(1, 64)).sweep
    assert list(plots._shades(sweep, "latency_per_sample_ms_mean", -1)) == [0.0, 1.0]
    assert list(plots._shades(sweep, "throughput_samples_per_sec_mean", 1)) == [0.0, 1.0]
    assert len(set(plots._shades(sweep, "cv", -1))) == 1


@pytest.mark.parametrize(
    "peculiar",
    [
        {"gpu": True, "oom": (64,)},
        {"sizes": (8,), "step_03": False, "dummy": True},
        {"sizes": (1, 2), "oom": (1, 2)},
    ],
)
def test_every_sweep_can_be_drawn(make: Make, peculiar: dict[str, object]) -> None:
    results = make(**peculiar)
    pictures = plots.write_plots(results)
    names = {picture.path.name for picture in pictures}
    expected = {"batch_size_comparison.png", "metrics_heatmap.png", "phases.png"}
    assert names == (
        expected
        if results.layers is None
        else expected | {"layers_time.png", "operators_time.png", "memory_time.png"}
    )
    assert all(min(png_size(picture.path)) > 300 for picture in pictures)
    assert {path.name for path in results.files.plots_dir.iterdir()} == names


def test_memory_over_time(make: Make) -> None:
    frame = make().memory
    assert frame is not None
    figure = plots.memory(frame)
    assert figure.axes[0].lines[0].get_ydata().tolist() == [10.5, 301.5, 0] and texts(figure) == [
        "peak 301.5 MB"
    ]

"""Pictures of the evaluation: token lengths, calibration, confusion of labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from utils.reporting.formatting import not_measured
from utils.reporting.page import captions
from utils.reporting.page.blocks import Chart, draw_chart
from utils.reporting.page.colours import LINE, MEASURED, SOFT, WRONG
from utils.reporting.page.inline_svg import Tips, new_figure
from utils.reporting.page.prediction_stats import (
    CalibrationBin,
    Lengths,
    PredictionStats,
)
from utils.reporting.page.visible import picture_label
from utils.reporting.results import Results

FAINTEST = 0.05
"""Opacity of a single confusion among many rows."""
MAX_LABELS = 25
"""Labels in the picture of confusions; more have no room for their names."""


def label_name(results: Results, label_id: int) -> str:
    """The name of a label; its number where the data set does not name it."""
    names = results.metrics.dataset_info.label_names
    if 0 <= label_id < len(names):
        return names[label_id]
    return f"label {label_id}"


def lengths_chart(results: Results, stats: PredictionStats) -> Chart:
    """How many tokens the texts have, with the cut at ``max_length``."""
    title = "Tokens of the texts"
    if stats.lengths is None:
        return Chart(title=title, missing=not_measured(stats.reason))
    max_length = results.metrics.config["profiling"].get("max_length")
    num_truncated = None
    if results.evaluation is not None:
        num_truncated = results.evaluation.num_truncated
    caption = captions.token_lengths(max_length, num_truncated)
    draw = partial(_draw_lengths, stats.lengths, max_length)
    return draw_chart("lengths", title, caption, draw)


def _draw_lengths(lengths: Lengths, max_length: int | None, tips: Tips) -> Figure:
    figure = new_figure(6.2, 3.2)
    axes = figure.subplots()
    for item in lengths.bins:
        width = item.stop - item.start
        bars = axes.bar(item.start, item.num_rows, width=0.92 * width, align="edge", color=MEASURED)
        name = f"{item.start} to {item.stop - 1} tokens" if width > 1 else f"{item.start} tokens"
        tips.add(bars.patches[0], f"{name}: {item.num_rows:,} texts")
    for percent, tokens in lengths.percentiles.items():
        line = axes.axvline(tokens, color=SOFT, linestyle=":", lw=1.2)
        tips.add(line, f"{percent}% of the texts have at most {tokens} tokens")
    if max_length is not None and max_length <= 1.5 * lengths.longest:
        axes.axvline(max_length, color=WRONG, linestyle="--")
        axes.annotate(
            f"max_length {max_length}",
            (max_length, 0.94),
            xycoords=axes.get_xaxis_transform(),
            xytext=(-5, 0),
            textcoords="offset points",
            ha="right",
            color=WRONG,
        )
    axes.grid(False, axis="x")
    axes.set(xlabel="tokens", ylabel="texts")
    return figure


def calibration_chart(stats: PredictionStats) -> Chart:
    """Whether predictions with a probability of 80% are right in 80%."""
    title = "Calibration"
    if not stats.calibration:
        return Chart(title=title, missing=not_measured(stats.label_reason))
    caption = captions.calibration(stats.calibration_error)
    draw = partial(_draw_calibration, stats.calibration)
    return draw_chart("calibration", title, caption, draw)


def _draw_calibration(bins: Sequence[CalibrationBin], tips: Tips) -> Figure:
    figure = new_figure(6.2, 3.6)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=SOFT, linestyle="--")
    places = [item.mean_probability for item in bins]
    axes.plot(places, [item.accuracy for item in bins], color=MEASURED)
    largest = max(item.num_rows for item in bins)
    for item in bins:
        size = 5 + 13 * (item.num_rows / largest) ** 0.5
        point = axes.plot(
            item.mean_probability, item.accuracy, "o", color=MEASURED, markersize=size, alpha=0.75
        )[0]
        tips.add(
            point,
            f"probability {item.start:.0%} to {item.stop:.0%}: {item.accuracy:.1%} right, "
            f"{item.mean_probability:.1%} promised, {item.num_rows:,} rows",
        )
    axes.xaxis.set_major_formatter("{x:.0%}")
    axes.yaxis.set_major_formatter("{x:.0%}")
    axes.set(xlim=(0, 1.02), ylim=(0, 1.04), xlabel="predicted probability", ylabel="right")
    return figure


def confusion_chart(results: Results, stats: PredictionStats) -> Chart:
    """True labels by row, predicted ones by column: only what occurs is drawn."""
    title = "Confusion of labels"
    matrix = None
    if results.evaluation is not None:
        matrix = results.evaluation.confusion_matrix
    cells = _stats_cells(stats) if matrix is None else _matrix_cells(matrix)
    if not cells:
        return Chart(title=title, missing=not_measured(stats.label_reason))
    label_ids = _most_confused(cells)
    num_labels = len({label_id for pair in cells for label_id in pair})
    caption = captions.confusion(len(label_ids), num_labels)
    names = {label_id: label_name(results, label_id) for label_id in label_ids}
    return draw_chart("confusion", title, caption, partial(_draw_confusion, cells, names))


def _matrix_cells(matrix: Sequence[Sequence[int]]) -> dict[tuple[int, int], int]:
    cells = {}
    for label_id, row in enumerate(matrix):
        for predicted_id, count in enumerate(row):
            if count:
                cells[label_id, predicted_id] = count
    return cells


def _stats_cells(stats: PredictionStats) -> dict[tuple[int, int], int]:
    """From the predictions, where there are too many labels for a matrix in the file."""
    cells = {}
    for item in (*stats.confusions, *stats.correct):
        cells[item.label_id, item.predicted_id] = item.num_rows
    return cells


def _most_confused(cells: Mapping[tuple[int, int], int]) -> list[int]:
    """The labels that take part in the most mistakes, by number."""
    mistakes: dict[int, int] = {}
    for (label_id, predicted_id), count in cells.items():
        wrong = count if label_id != predicted_id else 0
        for item in (label_id, predicted_id):
            mistakes[item] = mistakes.get(item, 0) + wrong
    worst_first = sorted(mistakes, key=lambda item: (-mistakes[item], item))
    return sorted(worst_first[:MAX_LABELS])


def _draw_confusion(
    cells: Mapping[tuple[int, int], int], names: Mapping[int, str], tips: Tips
) -> Figure:
    side = 2.4 + 0.24 * len(names)
    figure = new_figure(max(5.2, side + 0.6), max(3.2, side))
    axes = figure.subplots()
    positions = {label_id: position for position, label_id in enumerate(names)}
    totals: dict[int, int] = {}
    for (label_id, _), count in cells.items():
        totals[label_id] = totals.get(label_id, 0) + count
    for (label_id, predicted_id), count in cells.items():
        if label_id not in positions or predicted_id not in positions:
            continue
        share = count / totals[label_id]
        cell = Rectangle(
            (positions[predicted_id] - 0.47, positions[label_id] - 0.47),
            0.94,
            0.94,
            color=MEASURED if label_id == predicted_id else WRONG,
            alpha=FAINTEST + (1 - FAINTEST) * share,
            linewidth=0,
        )
        axes.add_patch(cell)
        tips.add(
            cell,
            f"{picture_label(names[label_id], 60)} predicted as "
            f"{picture_label(names[predicted_id], 60)}: {count:,} rows, {share:.1%}",
        )
    labels = [picture_label(name) for name in names.values()]
    axes.set_xticks(range(len(names)), labels, rotation=90)
    axes.set_yticks(range(len(names)), labels)
    axes.set(xlim=(-0.6, len(names) - 0.4), ylim=(len(names) - 0.4, -0.6))
    axes.set(xlabel="predicted", ylabel="true")
    axes.grid(color=LINE, linewidth=0.5)
    return figure

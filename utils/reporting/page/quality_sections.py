"""The sections about the data: lengths of the texts, and quality of the predictions."""

from __future__ import annotations

from collections.abc import Iterator

from utils.reporting.formatting import format_percent, not_measured
from utils.reporting.page.blocks import Block, Facts, Grid, Section, Text, charts_block
from utils.reporting.page.prediction_stats import PredictionStats
from utils.reporting.page.quality_charts import (
    calibration_chart,
    confusion_chart,
    label_name,
    lengths_chart,
)
from utils.reporting.page.visible import LONGEST_EXCERPT, make_visible
from utils.reporting.report_facts import full_dataset_facts, memory_facts
from utils.reporting.results import Results
from utils.reporting.tables import Table, per_class_table

MAX_CONFUSIONS = 15


def length_section(results: Results, stats: PredictionStats) -> Section:
    """How long the texts are."""
    return Section(
        id="lengths",
        title="Length of the texts",
        link="Lengths",
        blocks=(charts_block((lengths_chart(results, stats),)),),
        measured=("The tokens of every text of the data set, from the evaluation.",),
    )


def quality_section(results: Results, stats: PredictionStats) -> Section:
    """How good the predictions are."""
    return Section(
        id="quality",
        title="Quality on the complete data set",
        link="Quality",
        blocks=tuple(_quality_blocks(results, stats)),
        measured=(
            "Every text of the data set is predicted once by the optimised evaluation. The "
            "interval of the accuracy is Wilson's: how much it would vary with other texts of the "
            "same kind. Calibration, mistakes and confusions come from the stored predictions.",
        ),
    )


def _quality_blocks(results: Results, stats: PredictionStats) -> Iterator[Block]:
    yield Facts(caption="Quality and speed on every row", facts=tuple(full_dataset_facts(results)))
    yield charts_block((confusion_chart(results, stats), calibration_chart(stats)))
    per_class = None
    if results.evaluation is not None:
        per_class = results.evaluation.per_class
    if per_class:
        yield Grid(table=per_class_table(per_class), folded=len(per_class) > 30)
    if stats.confusions:
        yield Grid(table=_confusion_table(results, stats))
    if stats.mistakes:
        yield Grid(table=_mistake_table(results, stats))
    elif stats.label_reason is not None:
        yield Text(text=f"Mistakes: {not_measured(stats.label_reason)}.")
    yield Facts(
        caption="Memory and utilisation on the whole data set", facts=tuple(memory_facts(results))
    )


def _confusion_table(results: Results, stats: PredictionStats) -> Table:
    rows = []
    for item in stats.confusions[:MAX_CONFUSIONS]:
        rows.append(
            (
                label_name(results, item.label_id),
                label_name(results, item.predicted_id),
                f"{item.num_rows:,}",
            )
        )
    return Table(
        caption="The most frequent confusions",
        header=("True label", "Predicted", "Rows"),
        rows=tuple(rows),
        num_text_columns=2,
    )


def _mistake_table(results: Results, stats: PredictionStats) -> Table:
    rows = []
    for item in stats.mistakes:
        text = "–"
        if item.text is not None:
            text = make_visible(" ".join(item.text.split()), LONGEST_EXCERPT)
        rows.append(
            (
                str(item.row_id),
                label_name(results, item.label_id),
                label_name(results, item.predicted_id),
                text,
                format_percent(item.probability),
            )
        )
    note = (
        "Texts are shortened; the row counts from 0 in the data set's file. These are texts of "
        "your data set: think of that before you send this page on."
    )
    if stats.text_reason is not None:
        note = f"The texts are not shown: {stats.text_reason}."
    return Table(
        caption="The most confident mistakes",
        header=("Row", "True label", "Predicted", "Text", "Probability"),
        rows=tuple(rows),
        num_text_columns=4,
        note=note,
    )

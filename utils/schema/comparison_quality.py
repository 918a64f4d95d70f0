"""The record of how the predictions of two sides differ, row by row."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from utils.schema.common import (
    Count,
    Fraction,
    MeasuredRecord,
    PositiveCount,
    Record,
    Unavailable,
    metric,
    optional,
    required,
    text,
    unavailable,
    warnings,
)

Change = Annotated[float, Field(ge=-1, le=1)]
ChangeInterval = tuple[Change, Change]


class ClassChange(Record):
    """How the predictions of one label changed."""

    label_id: Count = text("Id of the label.")
    label: str = text("Name of the label.")
    support: Count = required("rows", "Rows that have this label.")
    num_correct_baseline: Count = required("rows", "Of these, predicted right by the baseline.")
    num_correct_candidate: Count = required("rows", "Of these, predicted right by the candidate.")
    f1_baseline: Fraction = required("fraction", "F1 of the baseline.")
    f1_candidate: Fraction = required("fraction", "F1 of the candidate.")


class ChangedRow(Record):
    """A row whose predicted label changed."""

    row_id: Count = text("Position of the row in the data set.")
    label_id: Count | None = optional("Id of its label; null where it has none.")
    predicted_id_baseline: Count = text("Label that the baseline predicts.")
    predicted_id_candidate: Count = text("Label that the candidate predicts.")
    probability_baseline: Fraction = required(
        "fraction", "Probability that the baseline gives to its label."
    )
    probability_candidate: Fraction = required(
        "fraction", "Probability that the candidate gives to its label."
    )
    text: str | None = optional("The text; only on request.")


class QualityComparison(MeasuredRecord):
    """Two sets of predictions of the same rows; a change is the candidate less the baseline."""

    num_rows: PositiveCount = required("rows", "Rows that both sides predicted.")
    num_labelled: Count = required("rows", "Of these, rows that have a label.")
    num_changed: Count = required("rows", "Rows whose predicted label changed.")
    label_agreement: Fraction = required(
        "fraction", "Share of all rows for which both sides predict the same label."
    )
    num_only_baseline_correct: Count = required(
        "rows", "Rows that the baseline predicts right and the candidate does not."
    )
    num_only_candidate_correct: Count = required(
        "rows", "Rows that the candidate predicts right and the baseline does not."
    )
    mcnemar_p: Fraction | None = metric(
        "fraction",
        "p value of McNemar's exact test: how likely a split of the rows that only one side "
        "predicts right is at least this uneven if both sides are equally good.",
    )
    accuracy_baseline: Fraction | None = metric("fraction", "Accuracy of the baseline.")
    accuracy_candidate: Fraction | None = metric("fraction", "Accuracy of the candidate.")
    accuracy_change: Change | None = metric("fraction", "Change of the accuracy.")
    accuracy_change_ci95: ChangeInterval | None = metric(
        "fraction", "95% interval of the change of the accuracy: Tango's score interval."
    )
    f1_macro_baseline: Fraction | None = metric("fraction", "Macro F1 of the baseline.")
    f1_macro_candidate: Fraction | None = metric("fraction", "Macro F1 of the candidate.")
    f1_macro_change: Change | None = metric("fraction", "Change of macro F1.")
    f1_macro_change_ci95: ChangeInterval | None = metric(
        "fraction", "95% interval of the change of macro F1: paired bootstrap over the rows."
    )
    f1_weighted_baseline: Fraction | None = metric("fraction", "Weighted F1 of the baseline.")
    f1_weighted_candidate: Fraction | None = metric("fraction", "Weighted F1 of the candidate.")
    f1_weighted_change: Change | None = metric("fraction", "Change of weighted F1.")
    f1_weighted_change_ci95: ChangeInterval | None = metric(
        "fraction", "95% interval of the change of weighted F1: paired bootstrap over the rows."
    )
    num_resamples: Count = text("Resamples of the bootstrap.")
    classes_gained: tuple[ClassChange, ...] = optional(
        "Labels with the largest gain of rows that are predicted right.", default=()
    )
    classes_lost: tuple[ClassChange, ...] = optional(
        "Labels with the largest loss of rows that are predicted right.", default=()
    )
    changed_rows: tuple[ChangedRow, ...] = optional(
        "Rows whose label changed and of which both sides are most confident: the smaller of both "
        "probabilities decides.",
        default=(),
    )
    warnings: tuple[str, ...] = warnings()
    unavailable: Unavailable = unavailable()

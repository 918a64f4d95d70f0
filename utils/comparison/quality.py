"""Compares the quality of two sides from their stored predictions, row by row."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from utils.comparison.paired_accuracy import accuracy_change_interval, mcnemar_p_value
from utils.comparison.paired_f1 import F1Scores, PairedCells, f1_change_intervals
from utils.comparison.predictions import (
    NO_LABEL,
    Ids,
    PairedPredictions,
    pair_predictions,
    read_predictions,
)
from utils.core.errors import UserError
from utils.core.files import JsonObject
from utils.schema.common import complete_reasons
from utils.schema.comparison_quality import ChangedRow, ClassChange, QualityComparison
from utils.schema.warning_codes import WarningCode

NUM_CLASSES_SHOWN = 5
NUM_ROWS_SHOWN = 20
NO_LABELS = "no row has a label on both sides"

Correct = NDArray[np.bool_]
ReadTexts = Callable[[Sequence[int]], Mapping[int, str]]
"""Gives the texts of rows by their ids."""


def compare_quality(
    baseline: Path,
    candidate: Path,
    label_names: Sequence[str],
    *,
    read_texts: ReadTexts | None = None,
    seed: int = 0,
) -> QualityComparison:
    """Compare two folders of predictions of the same rows.

    Args:
        baseline: folder of the baseline's predictions in Parquet.
        candidate: folder of the candidate's.
        label_names: by label id; both sides have the same, which the caller checks.
        read_texts: reads the texts of the rows that are shown; None leaves them out.
        seed: of the bootstrap.

    Returns:
        The comparison. Without labels its metrics of quality are None, with the reason; the
        predictions are compared with each other all the same.

    Raises:
        UserError: predictions are missing, damaged, of other rows, or of other labels.
    """
    pairs = pair_predictions(
        read_predictions(baseline),
        read_predictions(candidate),
        where=f"{baseline} and {candidate}",
    )
    _check_ids(pairs, len(label_names), where=f"{baseline} and {candidate}")
    num_rows = len(pairs.row_ids)
    num_changed = int(np.count_nonzero(pairs.baseline_ids != pairs.candidate_ids))
    values = {
        "num_rows": num_rows,
        "num_changed": num_changed,
        "label_agreement": 1 - num_changed / num_rows,
        "changed_rows": _changed_rows(pairs, read_texts),
        "warnings": _warnings(pairs),
        **_quality(pairs, label_names, seed),
    }
    reasons = dict.fromkeys(QualityComparison.model_fields, NO_LABELS)
    values["unavailable"] = complete_reasons(QualityComparison, values, reasons)
    return QualityComparison.model_validate(values)


def _check_ids(pairs: PairedPredictions, num_labels: int, *, where: str) -> None:
    """Raise if an id has no name: the names then are those of another model."""
    largest = max(
        int(ids.max()) for ids in (pairs.label_ids, pairs.baseline_ids, pairs.candidate_ids)
    )
    if largest < num_labels:
        return
    raise UserError(
        f"The predictions have label id {largest}, but there are {num_labels} label names.",
        where=where,
        fix="compare results of models with the same labels",
    )


def _warnings(pairs: PairedPredictions) -> tuple[str, ...]:
    if not pairs.num_labelled_on_one_side:
        return ()
    warning = WarningCode.LABELS.warn(
        f"{pairs.num_labelled_on_one_side:,} rows have a label on one side alone; they do not "
        "count for accuracy and F1"
    )
    return (warning,)


def _quality(pairs: PairedPredictions, label_names: Sequence[str], seed: int) -> JsonObject:
    """What needs labels: accuracy, F1 and the classes, by the names of the record."""
    is_labelled = pairs.label_ids != NO_LABEL
    label_ids = pairs.label_ids[is_labelled]
    if not label_ids.size:
        return {
            "num_labelled": 0,
            "num_only_baseline_correct": 0,
            "num_only_candidate_correct": 0,
            "num_resamples": 0,
        }
    baseline_ids = pairs.baseline_ids[is_labelled]
    candidate_ids = pairs.candidate_ids[is_labelled]
    cells = PairedCells(label_ids, baseline_ids, candidate_ids, len(label_names))
    scores = cells.observed_scores()
    intervals = f1_change_intervals(cells, seed=seed)
    classes = _class_changes(label_ids, (baseline_ids, candidate_ids), scores, label_names)
    return {
        **_accuracy(baseline_ids == label_ids, candidate_ids == label_ids),
        **_change("f1_macro", scores.macro[:, 0].tolist(), intervals.macro),
        **_change("f1_weighted", scores.weighted[:, 0].tolist(), intervals.weighted),
        "num_resamples": intervals.num_resamples,
        "classes_gained": _most_changed(classes, sign=1),
        "classes_lost": _most_changed(classes, sign=-1),
    }


def _accuracy(baseline_is_correct: Correct, candidate_is_correct: Correct) -> JsonObject:
    """Accuracy of both sides and what follows from the rows that only one predicts right."""
    num_labelled = len(baseline_is_correct)
    num_baseline = int(np.count_nonzero(baseline_is_correct))
    num_candidate = int(np.count_nonzero(candidate_is_correct))
    num_both = int(np.count_nonzero(baseline_is_correct & candidate_is_correct))
    only_baseline = num_baseline - num_both
    only_candidate = num_candidate - num_both
    interval = accuracy_change_interval(only_baseline, only_candidate, num_labelled)
    sides = [num_baseline / num_labelled, num_candidate / num_labelled]
    return {
        **_change("accuracy", sides, interval),
        # From the counts, so that no difference is exactly 0.
        "accuracy_change": (only_candidate - only_baseline) / num_labelled,
        "num_labelled": num_labelled,
        "num_only_baseline_correct": only_baseline,
        "num_only_candidate_correct": only_candidate,
        "mcnemar_p": mcnemar_p_value(only_baseline, only_candidate),
    }


def _change(name: str, sides: Sequence[float], interval: tuple[float, float]) -> JsonObject:
    baseline, candidate = sides
    return {
        f"{name}_baseline": baseline,
        f"{name}_candidate": candidate,
        f"{name}_change": candidate - baseline,
        f"{name}_change_ci95": interval,
    }


def _class_changes(
    label_ids: Ids, sides: tuple[Ids, Ids], scores: F1Scores, label_names: Sequence[str]
) -> list[ClassChange]:
    """Every label in the order of the ids."""
    num_labels = len(label_names)
    support = np.bincount(label_ids, minlength=num_labels).tolist()
    correct = []
    for predicted_ids in sides:
        is_correct = predicted_ids == label_ids
        correct.append(np.bincount(label_ids[is_correct], minlength=num_labels).tolist())
    classes = []
    for label_id, label in enumerate(label_names):
        classes.append(
            ClassChange(
                label_id=label_id,
                label=label,
                support=support[label_id],
                num_correct_baseline=correct[0][label_id],
                num_correct_candidate=correct[1][label_id],
                f1_baseline=float(scores.per_class[0, label_id, 0]),
                f1_candidate=float(scores.per_class[1, label_id, 0]),
            )
        )
    return classes


def _most_changed(classes: Sequence[ClassChange], *, sign: int) -> tuple[ClassChange, ...]:
    """The labels with the largest gain (sign 1) or loss (sign -1) of right rows, largest first."""

    def gain(one: ClassChange) -> int:
        return sign * (one.num_correct_candidate - one.num_correct_baseline)

    changed = [one for one in classes if gain(one) > 0]
    changed.sort(key=lambda one: (-gain(one), one.label_id))
    return tuple(changed[:NUM_CLASSES_SHOWN])


def _changed_rows(pairs: PairedPredictions, read_texts: ReadTexts | None) -> tuple[ChangedRow, ...]:
    """The changed rows of which both sides are most confident."""
    positions = np.flatnonzero(pairs.baseline_ids != pairs.candidate_ids)
    confidence = np.minimum(pairs.baseline_probabilities, pairs.candidate_probabilities)
    # Stable, so that of equally confident rows the first is shown.
    order = np.argsort(-confidence[positions], kind="stable")
    shown = positions[order][:NUM_ROWS_SHOWN].tolist()
    row_ids = pairs.row_ids[shown].tolist()
    texts: Mapping[int, str] = {}
    if read_texts is not None and row_ids:
        texts = read_texts(row_ids)
    return tuple(_changed_row(pairs, position, texts) for position in shown)


def _changed_row(pairs: PairedPredictions, position: int, texts: Mapping[int, str]) -> ChangedRow:
    row_id = int(pairs.row_ids[position])
    label_id = int(pairs.label_ids[position])
    return ChangedRow(
        row_id=row_id,
        label_id=None if label_id == NO_LABEL else label_id,
        predicted_id_baseline=int(pairs.baseline_ids[position]),
        predicted_id_candidate=int(pairs.candidate_ids[position]),
        probability_baseline=float(pairs.baseline_probabilities[position]),
        probability_candidate=float(pairs.candidate_probabilities[position]),
        text=texts.get(row_id),
    )

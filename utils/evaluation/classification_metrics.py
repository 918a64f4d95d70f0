"""Accuracy, precision, recall and F1 of any number of rows, computed from a confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from utils.core.errors import DataError
from utils.schema.evaluation import ClassMetrics

MAX_MATRIX_LABELS = 100
"""Number of labels up to which the confusion matrix is written: a page has no room for a larger
one.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Quality:
    """Metrics of the rows with a label, under the names of ``EvaluationMetrics``.

    None where no row has a label; ``confusion_matrix`` also with more than ``MAX_MATRIX_LABELS``
    labels.
    """

    num_labelled: int
    num_correct: int
    accuracy: float | None
    accuracy_ci95_low: float | None
    accuracy_ci95_high: float | None
    majority_class: str | None
    majority_class_accuracy: float | None
    f1_macro: float | None
    f1_weighted: float | None
    confusion_matrix: tuple[tuple[int, ...], ...] | None
    per_class: tuple[ClassMetrics, ...]


class ClassificationMetrics:
    """A confusion matrix that rows are counted into, chunk by chunk, and the metrics that follow
    from it.

    Its size depends on the number of labels alone, not on the number of rows.
    """

    def __init__(self, label_names: Sequence[str]) -> None:
        self.label_names = tuple(label_names)
        num_labels = len(self.label_names)
        # Number of rows by (true label id, predicted label id).
        self.confusion = np.zeros((num_labels, num_labels), dtype=np.int64)
        self.num_unlabelled = 0

    def add(self, label_ids: NDArray[np.int64], predicted_ids: NDArray[np.int64]) -> None:
        """Count rows; those with label id -1 have no label and count as unlabelled.

        Raises:
            DataError: a label id that the mapping does not know.
        """
        num_labels = len(self.label_names)
        is_labelled = label_ids >= 0
        self.num_unlabelled += int(np.count_nonzero(~is_labelled))
        true_ids = label_ids[is_labelled]
        if true_ids.size and int(true_ids.max()) >= num_labels:
            raise DataError(
                f"The data set has label id {int(true_ids.max())}; "
                f"the mapping ends at {num_labels - 1}.",
                fix="make both again: python scripts/01_download_data.py",
            )
        cells = true_ids * num_labels + predicted_ids[is_labelled]
        counts = np.bincount(cells, minlength=num_labels * num_labels)
        self.confusion += counts.reshape(num_labels, num_labels)

    def compute(self) -> Quality:
        """The metrics of all rows so far.

        Macro F1 averages over the labels that occur as truth or prediction, and a ratio whose
        denominator is 0 is 0. ``majority_class`` is the most frequent label, of several the one
        with the lowest id; always predicting it reaches ``majority_class_accuracy``.
        """
        num_labelled = int(self.confusion.sum())
        num_correct = int(np.trace(self.confusion))
        low, high = wilson_interval(num_correct, num_labelled)
        most_frequent = self._most_frequent_label()
        return Quality(
            num_labelled=num_labelled,
            num_correct=num_correct,
            accuracy=_share(num_correct, num_labelled),
            accuracy_ci95_low=low,
            accuracy_ci95_high=high,
            majority_class=None if most_frequent is None else self.label_names[most_frequent],
            majority_class_accuracy=_share(self._support(most_frequent), num_labelled),
            f1_macro=self._f1("macro"),
            f1_weighted=self._f1("weighted"),
            confusion_matrix=self._confusion_matrix(),
            per_class=tuple(self._per_class()),
        )

    def _confusion_matrix(self) -> tuple[tuple[int, ...], ...] | None:
        if len(self.label_names) > MAX_MATRIX_LABELS:
            return None
        return tuple(tuple(row) for row in self.confusion.tolist())

    def _most_frequent_label(self) -> int | None:
        support = self.confusion.sum(axis=1)
        if not support.any():
            return None
        return int(support.argmax())

    def _support(self, label_id: int | None) -> int:
        if label_id is None:
            return 0
        return int(self.confusion[label_id].sum())

    def _f1(self, average: str) -> float | None:
        if not self.confusion.any():
            return None
        _, _, f1, _ = self._scores(average=average)
        return float(f1)

    def _scores(self, **options: Any) -> Any:
        """scikit-learn's precision, recall, F1 and support; ``options`` choose the labels."""
        # Here, because the import takes about a second, and a sweep or a diagnosis alone does
        # without.
        from sklearn.metrics import precision_recall_fscore_support

        true_ids, predicted_ids, counts = self._cells()
        return precision_recall_fscore_support(
            true_ids, predicted_ids, sample_weight=counts, zero_division=0, **options
        )

    def _per_class(self) -> list[ClassMetrics]:
        """Precision, recall, F1 and number of rows (``support``) of every label."""
        num_labels = len(self.label_names)
        precision = recall = f1 = np.zeros(num_labels)
        if self.confusion.any():
            precision, recall, f1, _ = self._scores(labels=range(num_labels))
        classes = []
        for label_id, name in enumerate(self.label_names):
            one = ClassMetrics(
                label_id=label_id,
                label=name,
                precision=float(precision[label_id]),
                recall=float(recall[label_id]),
                f1=float(f1[label_id]),
                support=self._support(label_id),
            )
            classes.append(one)
        return classes

    def _cells(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """The cells that are not empty: true label id, predicted label id, number of rows.

        For scikit-learn each is one sample, with its number of rows as weight.
        """
        true_ids, predicted_ids = np.nonzero(self.confusion)
        return true_ids, predicted_ids, self.confusion[true_ids, predicted_ids]


def _share(count: int, total: int) -> float | None:
    if not total:
        return None
    return count / total


def wilson_interval(successes: int, total: int) -> tuple[float | None, float | None]:
    """95% interval of a proportion; None where nothing was counted.

    Source: Wilson, "Probable inference, the law of succession, and statistical inference", 1927.
    """
    if not total:
        return None, None
    interval = stats.binomtest(successes, total).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)

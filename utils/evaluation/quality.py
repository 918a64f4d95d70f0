"""Quality figures, accumulated chunk by chunk and equal to scikit-learn's on the whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from utils.core.errors import DataError

MOST_IN_MATRIX = 100
"""Labels up to which the confusion matrix is written: a page holds no more."""


class Quality:
    """A confusion matrix that chunks are counted into; its size depends on the number of labels alone."""

    def __init__(self, label_names: Sequence[str]) -> None:
        self.label_names = tuple(label_names)
        self.confusion = np.zeros((len(label_names), len(label_names)), dtype=np.int64)  # by (true, predicted)
        self.num_missing = 0

    def add(self, label_ids: NDArray[np.int64], predicted_ids: NDArray[np.int64]) -> None:
        """Count rows; those with label id -1 have no label and count as missing.

        Raises:
            DataError: a label id that the mapping does not know.
        """
        size = len(self.label_names)
        known = label_ids >= 0
        self.num_missing += int(np.count_nonzero(~known))
        true, predicted = label_ids[known], predicted_ids[known]
        if true.size and int(true.max()) >= size:
            raise DataError(
                f"The data set has label id {int(true.max())}; the mapping ends at {size - 1}.",
                fix="make both again: python scripts/01_download_data.py",
            )
        self.confusion += np.bincount(true * size + predicted, minlength=size * size).reshape(size, size)

    def figures(self) -> dict[str, Any]:
        """Accuracy with its 95% interval, F1, figures by class, rows by (true, predicted); None without labelled rows.

        As scikit-learn does: macro F1 averages over the labels that occur as truth or prediction,
        and a quotient with nothing below the line is 0. ``majority_class`` is the most frequent label, of several the
        one with the lowest id; always answering it reaches ``majority_class_accuracy``.
        """
        support, said = self.confusion.sum(axis=1), self.confusion.sum(axis=0)
        hits = np.diagonal(self.confusion)
        total, correct = int(support.sum()), int(hits.sum())
        f1 = _ratio(2 * hits, support + said)
        low, high = wilson_interval(correct, total)
        most_frequent = int(support.argmax()) if total else 0
        columns = zip(self.label_names, _ratio(hits, said), _ratio(hits, support), f1, support, strict=True)
        return {
            "num_labelled": total, "num_correct": correct,
            "accuracy": correct / total if total else None,
            "accuracy_ci95_low": low, "accuracy_ci95_high": high,
            "majority_class": self.label_names[most_frequent] if total else None,
            "majority_class_accuracy": int(support[most_frequent]) / total if total else None,
            "f1_macro": float(f1[support + said > 0].mean()) if total else None,
            "f1_weighted": float((f1 * support).sum() / total) if total else None,
            "confusion_matrix": self.confusion.tolist() if len(self.label_names) <= MOST_IN_MATRIX else None,
            "per_class": [
                dict(label_id=i, label=name, precision=float(p), recall=float(r), f1=float(f), support=int(n))
                for i, (name, p, r, f, n) in enumerate(columns)
            ],
        }


def wilson_interval(successes: int, total: int) -> tuple[float | None, float | None]:
    """95% interval of a proportion; None for nothing counted.

    Source: Wilson, "Probable inference, the law of succession, and statistical inference", 1927.
    """
    if not total:
        return None, None
    interval = stats.binomtest(successes, total).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def _ratio(above: NDArray[Any], below: NDArray[Any]) -> NDArray[np.float64]:
    out = np.zeros(above.shape, dtype=np.float64)
    np.divide(above, below, out=out, where=below > 0)
    return out

"""Metrics from the confusion matrix against scikit-learn on the raw labels, and against values
worked by hand.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.dummy import DummyClassifier
from sklearn.metrics import accuracy_score, confusion_matrix, precision_recall_fscore_support

from utils.core.errors import DataError
from utils.evaluation.classification_metrics import ClassificationMetrics, wilson_interval

NAMES = tuple("abcdef")
PAIRS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=80).map(
    np.array
)


@given(pairs=PAIRS, split_at=st.integers(0, 80))
def test_chunks_together_give_scikit_learns_metrics_of_all_rows(
    pairs: np.ndarray, split_at: int
) -> None:
    true, predicted = pairs[:, 0], pairs[:, 1]
    accumulated = ClassificationMetrics(NAMES)
    accumulated.add(true[:split_at], predicted[:split_at])
    accumulated.add(true[split_at:], predicted[split_at:])
    metrics = accumulated.compute()
    assert metrics.accuracy == pytest.approx(accuracy_score(true, predicted))
    for average in ("macro", "weighted"):
        expected = precision_recall_fscore_support(
            true, predicted, average=average, zero_division=0
        )
        assert getattr(metrics, f"f1_{average}") == pytest.approx(expected[2], rel=1e-12)
    assert (
        np.array(metrics.confusion_matrix).tolist()
        == confusion_matrix(true, predicted, labels=range(6)).tolist()
    )
    columns = precision_recall_fscore_support(true, predicted, labels=range(6), zero_division=0)
    for name, column in zip(("precision", "recall", "f1", "support"), columns, strict=True):
        assert [getattr(row, name) for row in metrics.per_class] == pytest.approx(
            list(column), rel=1e-12
        )


def test_a_million_rows_of_many_labels_give_scikit_learns_metrics() -> None:
    random = np.random.default_rng(0)
    true = random.integers(0, 150, 10**6)
    predicted = np.where(random.random(10**6) < 0.8, true, random.integers(0, 150, 10**6))
    accumulated = ClassificationMetrics([f"label {number}" for number in range(151)])
    accumulated.add(true, predicted)
    metrics = accumulated.compute()
    for average in ("macro", "weighted"):
        expected = precision_recall_fscore_support(
            true, predicted, average=average, zero_division=0
        )
        assert getattr(metrics, f"f1_{average}") == pytest.approx(expected[2], rel=1e-12)
    unused = metrics.per_class[150]
    assert (unused.precision, unused.recall, unused.f1) == (0.0, 0.0, 0.0)
    assert metrics.confusion_matrix is None


def test_precision_recall_and_f1_by_hand() -> None:
    """Label a: 2 of 3 predictions right, 2 of 4 rows found; c occurs nowhere."""
    accumulated = ClassificationMetrics(("a", "b", "c"))
    accumulated.add(np.array([0, 0, 0, 0, 1]), np.array([0, 0, 1, 1, 0]))
    metrics = accumulated.compute()
    first, second, third = metrics.per_class
    assert (first.precision, first.recall, first.f1) == pytest.approx((2 / 3, 1 / 2, 4 / 7))
    assert (second.precision, second.recall, second.f1) == (0.0, 0.0, 0.0)
    assert (third.precision, third.support) == (0.0, 0)
    assert metrics.f1_macro == pytest.approx((4 / 7 + 0) / 2), "c is left out of the mean"
    assert metrics.f1_weighted == pytest.approx(4 / 7 * 4 / 5)


@given(pairs=PAIRS)
def test_the_majority_class_is_what_scikit_learn_would_always_predict(pairs: np.ndarray) -> None:
    true, predicted = pairs[:, 0], pairs[:, 1]
    accumulated = ClassificationMetrics(NAMES)
    accumulated.add(true, predicted)
    metrics = accumulated.compute()
    no_features = np.zeros((len(true), 1))
    judge = DummyClassifier(strategy="most_frequent").fit(no_features, true)
    assert metrics.majority_class == NAMES[judge.predict(no_features)[0]]
    assert metrics.majority_class_accuracy == pytest.approx(judge.score(no_features, true))


def test_rows_without_a_label_are_counted_and_left_out() -> None:
    accumulated = ClassificationMetrics(("a", "b"))
    accumulated.add(np.array([0, -1, 1]), np.array([0, 1, 0]))
    metrics = accumulated.compute()
    assert accumulated.num_unlabelled == 1
    assert (metrics.num_labelled, metrics.accuracy) == (2, 0.5)


def test_without_labelled_rows_metrics_are_none() -> None:
    accumulated = ClassificationMetrics(("a", "b"))
    accumulated.add(np.array([-1]), np.array([1]))
    metrics = accumulated.compute()
    names = ("accuracy", "accuracy_ci95_low", "f1_macro", "f1_weighted")
    assert [getattr(metrics, name) for name in names] == [None] * 4
    assert (metrics.majority_class, metrics.majority_class_accuracy) == (None, None)
    assert [row.support for row in metrics.per_class] == [0, 0]


def test_an_unknown_label_id_is_refused() -> None:
    with pytest.raises(DataError, match="label id 7; the mapping ends at 1"):
        ClassificationMetrics(("a", "b")).add(np.array([7]), np.array([0]))


def test_wilson_interval_by_hand() -> None:
    """81 of 263: 0.2553 to 0.3662 (Newcombe, Statistics in Medicine 17, 1998, table I)."""
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson_interval(0, 20)[0] == 0.0
    assert wilson_interval(20, 20)[1] == 1.0

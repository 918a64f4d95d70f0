"""Quality figures against scikit-learn and against values worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.dummy import DummyClassifier
from sklearn.metrics import accuracy_score, confusion_matrix, precision_recall_fscore_support

from utils.core.errors import DataError
from utils.evaluation.quality import Quality, wilson_interval

NAMES = tuple("abcdef")
PAIRS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=80).map(np.array)


@given(pairs=PAIRS, cut=st.integers(0, 80))
def test_it_equals_scikit_learn_on_the_whole(pairs: np.ndarray, cut: int) -> None:
    true, predicted = pairs[:, 0], pairs[:, 1]
    quality = Quality(NAMES)
    quality.add(true[:cut], predicted[:cut])
    quality.add(true[cut:], predicted[cut:])
    figures = quality.figures()
    assert figures["accuracy"] == pytest.approx(accuracy_score(true, predicted))
    for average in ("macro", "weighted"):
        expected = precision_recall_fscore_support(true, predicted, average=average, zero_division=0)[2]
        assert figures[f"f1_{average}"] == pytest.approx(expected)
    assert figures["confusion_matrix"] == confusion_matrix(true, predicted, labels=range(6)).tolist()
    columns = precision_recall_fscore_support(true, predicted, labels=range(6), zero_division=0)
    for name, column in zip(("precision", "recall", "f1", "support"), columns, strict=True):
        assert [row[name] for row in figures["per_class"]] == pytest.approx(list(column))


@given(pairs=PAIRS)
def test_the_majority_class_is_what_scikit_learn_would_always_answer(pairs: np.ndarray) -> None:
    true, predicted = pairs[:, 0], pairs[:, 1]
    quality = Quality(NAMES)
    quality.add(true, predicted)
    figures = quality.figures()
    no_features = np.zeros((len(true), 1))
    judge = DummyClassifier(strategy="most_frequent").fit(no_features, true)
    assert figures["majority_class"] == NAMES[judge.predict(no_features)[0]]
    assert figures["majority_class_accuracy"] == pytest.approx(judge.score(no_features, true))


def test_rows_without_a_label_are_counted_and_left_out() -> None:
    quality = Quality(("a", "b"))
    quality.add(np.array([0, -1, 1]), np.array([0, 1, 0]))
    assert (quality.num_missing, quality.figures()["num_labelled"], quality.figures()["accuracy"]) == (1, 2, 0.5)


def test_no_labelled_row_means_no_figure() -> None:
    quality = Quality(("a", "b"))
    quality.add(np.array([-1]), np.array([1]))
    figures = quality.figures()
    assert [figures[name] for name in ("accuracy", "accuracy_ci95_low", "f1_macro", "f1_weighted")] == [None] * 4
    assert (figures["majority_class"], figures["majority_class_accuracy"]) == (None, None)


def test_an_unknown_label_id_is_refused() -> None:
    with pytest.raises(DataError, match="label id 7; the mapping ends at 1"):
        Quality(("a", "b")).add(np.array([7]), np.array([0]))


def test_wilson_interval_by_hand() -> None:
    """81 of 263: 0.2553 to 0.3662 (Newcombe, Statistics in Medicine 17, 1998, table I)."""
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson_interval(0, 20)[0] == 0.0
    assert wilson_interval(20, 20)[1] == 1.0

"""Which differences between batches and single texts count, and that overflows are refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from utils.core.errors import ModelError
from utils.evaluation.predictions import Predictions
from utils.evaluation.result_checks import check_finite, differs_from_single_texts

# Probabilities 0.731 and 0.269, 0.5 and 0.5, 0.269 and 0.731.
LOGITS = torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]])
SIGMOID_OF_2 = 0.8808


def make_predictions(predicted_ids: list[int], probabilities: list[float]) -> Predictions:
    return Predictions(
        predicted_ids=np.array(predicted_ids),
        probabilities=np.array(probabilities, dtype=np.float32),
        computed_tokens=1,
    )


def compare(
    predictions: Predictions, logits: torch.Tensor = LOGITS, multi_label: bool = False
) -> list[bool]:
    differs = differs_from_single_texts(
        predictions, logits, dtype="float32", multi_label=multi_label
    )
    return differs.tolist()


def test_equal_results_and_ties_do_not_differ() -> None:
    assert compare(make_predictions([0, 0, 1], [0.7311, 0.5, 0.7311])) == [False] * 3
    assert compare(make_predictions([0, 1, 1], [0.7311, 0.5, 0.7311])) == [False] * 3


def test_another_probability_of_the_same_label_differs() -> None:
    assert compare(make_predictions([0, 0, 1], [0.75, 0.5, 0.7311])) == [True, False, False]


def test_another_label_differs_even_with_the_probability_that_it_has_alone() -> None:
    assert compare(make_predictions([0, 0, 0], [0.7311, 0.5, 0.2689])) == [False, False, True]


def test_a_multi_label_model_is_compared_by_its_sigmoids() -> None:
    """Both labels have a sigmoid of 0.8808 and a softmax of 0.5."""
    logits = torch.tensor([[2.0, 2.0]])
    sigmoid = make_predictions([0], [SIGMOID_OF_2])
    softmax = make_predictions([0], [0.5])
    assert compare(sigmoid, logits, multi_label=True) == [False]
    assert compare(softmax, logits, multi_label=True) == [True]
    assert compare(sigmoid, logits) == [True]
    assert compare(softmax, logits) == [False]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_rows_whose_logits_overflowed_are_counted_in_the_message(value: float) -> None:
    check_finite(make_predictions([0, 0], [0.5, 0.5]), 0)
    with pytest.raises(ModelError, match="NaN or infinite for 1 of 2 rows") as caught:
        check_finite(make_predictions([0, 0], [0.5, value]), 8192)
    assert "rows from 8192 on" in str(caught.value)

"""Logits of two runs over the same texts: rounding is allowed, other differences are described."""

from __future__ import annotations

import pytest
import torch

from utils.model.checks import LOGIT_TOLERANCE
from utils.sweep.run_outputs import count_label_changes, describe_mismatch, logit_tolerance

CPU = torch.device("cpu")
LOGITS = torch.tensor([[1.0, 0.0], [0.0, 4.0]])


def test_differences_within_the_tolerance_are_no_mismatch() -> None:
    assert describe_mismatch(LOGITS + 0.01, LOGITS, tolerance=0.02) is None


def test_a_mismatch_has_the_largest_difference_and_the_number_of_changed_labels() -> None:
    changed = torch.tensor([[1.0, 1.5], [0.0, 4.0]])
    expected = "logits differ by up to 1.5 (limit 0.02), 1 of 2 labels differ"
    assert describe_mismatch(changed, LOGITS, tolerance=0.02) == expected
    assert count_label_changes(changed, LOGITS) == 1


@pytest.mark.parametrize(
    ("dtype", "precision"), [(torch.float32, "float32"), (torch.bfloat16, "bfloat16")]
)
def test_the_tolerance_grows_with_the_logits(dtype: torch.dtype, precision: str) -> None:
    assert logit_tolerance(LOGITS, dtype, CPU) == pytest.approx(4 * LOGIT_TOLERANCE[precision])
    assert logit_tolerance(LOGITS / 100, dtype, CPU) == pytest.approx(LOGIT_TOLERANCE[precision])

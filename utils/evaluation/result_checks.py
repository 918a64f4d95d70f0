"""Whether the results of batches can be trusted: finite, and equal to those of single texts."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from utils.core.errors import ModelError
from utils.evaluation.predictions import Predictions
from utils.model.checks import allowed_difference

MIN_TOLERANCE = 1e-4
"""Difference of a probability that is always allowed, because kernels sum in another order."""


def differs_from_single_texts(
    predictions: Predictions, logits: torch.Tensor, *, dtype: str, multi_label: bool
) -> NDArray[np.bool_]:
    """Whether each text's prediction differs by more than rounding from what the text gets alone.

    Args:
        predictions: of the texts in batches.
        logits: of each text alone, of shape ``[texts, labels]``. Where one is NaN nothing can be
            compared.
    """
    probabilities = logits.sigmoid() if multi_label else logits.softmax(dim=-1)
    predicted_ids = torch.from_numpy(predictions.predicted_ids)[:, None]
    alone = probabilities.gather(1, predicted_ids)[:, 0].numpy()
    if not np.isfinite(alone).all():
        return np.zeros(len(alone), dtype=np.bool_)
    tolerance = allowed_difference(logits, dtype) + MIN_TOLERANCE
    has_other_probability = np.abs(alone - predictions.probabilities) > tolerance
    has_other_label = probabilities.amax(dim=1).numpy() - alone > tolerance
    differs: NDArray[np.bool_] = has_other_probability | has_other_label
    return differs


def check_finite(predictions: Predictions, first_row: int) -> None:
    """Check that the model's logits are numbers: where they overflowed, the largest of them means
    nothing.

    Raises:
        ModelError: they are NaN or infinite.
    """
    num_invalid = int((~np.isfinite(predictions.probabilities)).sum())
    if num_invalid:
        num_rows = len(predictions.probabilities)
        raise ModelError(
            f"The model's logits are NaN or infinite for {num_invalid} of {num_rows} rows.",
            where=f"rows from {first_row} on",
            fix="--set model.dtype=bfloat16 or --set model.dtype=float32, whose range is wider",
        )

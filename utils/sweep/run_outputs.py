"""Comparing the logits of two runs over the same texts."""

from __future__ import annotations

import torch

from utils.model.checks import LOGIT_TOLERANCE, product_precision


def logit_tolerance(logits: torch.Tensor, dtype: torch.dtype, device: torch.device) -> float:
    """Largest difference by rounding of logits of this size, of a model of ``dtype`` there."""
    precision = product_precision(str(dtype).removeprefix("torch."), device)
    relative = LOGIT_TOLERANCE.get(precision, LOGIT_TOLERANCE["float32"])
    return relative * max(1.0, float(logits.abs().max()))


def describe_mismatch(logits: torch.Tensor, expected: torch.Tensor, tolerance: float) -> str | None:
    """How logits differ from the expected ones; None if they agree within the tolerance."""
    largest = float((logits - expected).abs().max())
    if largest <= tolerance:
        return None
    changed = count_label_changes(logits, expected)
    return (
        f"logits differ by up to {largest:.2g} (limit {tolerance:.2g}), "
        f"{changed} of {len(logits)} labels differ"
    )


def count_label_changes(logits: torch.Tensor, expected: torch.Tensor) -> int:
    """How many rows of ``[samples, labels]`` have another largest logit."""
    return int((logits.argmax(-1) != expected.argmax(-1)).sum())

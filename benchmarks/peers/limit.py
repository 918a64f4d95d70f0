"""The FLOPs that the real tokens need: what the machine's limit is computed from."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from utils.evaluation.masking import is_causal


def real_flops(model: Any, lengths: np.ndarray[Any, Any], *, full_square: bool = False) -> float:
    """FLOPs of the matrix products that texts of these lengths need, without any padding.

    Args:
        lengths: tokens of each text, of shape ``[texts]``.
        full_square: of a causal model's attention, count the half above the diagonal too, as
            torch's FLOP counter does and as masked or eager attention computes it.
    """
    settings = model.config.get_text_config()
    head_size = getattr(settings, "head_dim", None)
    if not head_size:
        head_size = settings.hidden_size // settings.num_attention_heads
    pairs = lengths**2
    if is_causal(model) and not full_square:
        pairs = lengths * (lengths + 1) / 2
    # Two products a pair of tokens: its score, and its weighted value.
    flops_a_pair = 4 * settings.num_attention_heads * head_size * settings.num_hidden_layers
    linear = 2 * linear_products(model) * lengths.sum()
    return float(linear + flops_a_pair * pairs.sum())


def linear_products(module: torch.nn.Module) -> int:
    """Multiplications that one token costs in the linear layers."""
    products = 0
    for layer in module.modules():
        if isinstance(layer, torch.nn.Linear):
            products += layer.in_features * layer.out_features
    return products

"""How many tokens a model can take in one text, and in one batch without changing other texts."""

from __future__ import annotations

from typing import Any

from utils.core.errors import ModelError
from utils.model.adapter import num_virtual_tokens

POSITION_SETTINGS = ("max_position_embeddings", "max_seq_len")
"""How configurations call the number of positions; MPT has the second."""
ROPE_OF_VARIABLE_LENGTH = {"longrope", "dynamic"}
"""Kinds of rotary embeddings that change once an input passes a length."""


def max_positions(model: Any) -> int | None:
    """How many tokens of a text the model has positions for; None if unknown or without a limit."""
    config = getattr(model, "config", None)
    if config is None:
        return None
    limits = []
    # DeBERTa without this input has relative positions alone.
    is_limited = getattr(config, "position_biased_input", True) is not False
    for name in POSITION_SETTINGS:
        configured = getattr(config.get_text_config(), name, None)
        # XLNet has -1, because its positions are relative.
        if is_limited and isinstance(configured, int) and configured >= 1:
            limits.append(configured)
    limits += _usable_embedding_rows(model)
    if not limits:
        return None
    return min(limits) - num_virtual_tokens(model)


def _usable_embedding_rows(model: Any) -> list[int]:
    """Usable rows of each position embedding that begins to count at the padding token's id.

    RoBERTa and similar models do, so that they never use the first rows.
    """
    if not hasattr(model, "named_modules"):
        return []
    usable = []
    for name, module in model.named_modules():
        padding_id = getattr(module, "padding_idx", None)
        weight = getattr(module, "weight", None)
        if name.endswith("position_embeddings") and padding_id is not None and weight is not None:
            usable.append(int(weight.shape[0]) - int(padding_id) - 1)
    return usable


def max_batched_length(model: Any) -> int | None:
    """The length in tokens up to which no text changes how others in its batch are computed.

    None stands for any length. BigBird switches itself to full attention at the first short input,
    and for good. Rotary embeddings of the kinds ``longrope`` and ``dynamic`` change for all texts
    of a batch once its longest text passes a length.
    """
    config = getattr(model, "config", None)
    if config is None:
        return None
    config = config.get_text_config()
    if getattr(config, "attention_type", None) == "block_sparse":
        return int((5 + 2 * config.num_random_blocks) * config.block_size)
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    kinds = {rope.get("rope_type")}
    # A model may have parameters for each kind of its layers.
    for nested in rope.values():
        if isinstance(nested, dict):
            kinds.add(nested.get("rope_type"))
    if not kinds & ROPE_OF_VARIABLE_LENGTH:
        return None
    limit = (
        rope.get("original_max_position_embeddings")
        or getattr(config, "original_max_position_embeddings", None)
        or config.max_position_embeddings
    )
    return int(limit)


def check_max_length(max_length: int, model: Any) -> None:
    """Refuse a length that the model has no positions for, or at which texts change each other.

    Args:
        max_length: tokens at which texts are truncated.

    Raises:
        ModelError: the length is too large, or below 1.
    """
    limit = max_positions(model)
    if max_length < 1 or (limit is not None and max_length > limit):
        raise ModelError(
            f"profiling.max_length is {max_length}, but the model has "
            f"{limit or 'at least 1'} positions.",
            where="profiling.max_length",
            fix=f"--set profiling.max_length={limit or 512}",
        )
    batched = max_batched_length(model)
    if batched is not None and max_length > batched:
        raise ModelError(
            f"profiling.max_length is {max_length}, but above {batched} tokens this model computes "
            "a text in another way, and then for the other texts of the batch as well: results "
            "would depend on the batch.",
            where="profiling.max_length",
            fix=f"--set profiling.max_length={batched}",
        )

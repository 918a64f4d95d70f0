"""How many texts are longer than ``max_length`` tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def count_truncated(tokenizer: Any, texts: Sequence[str], encoded: Any, max_length: int) -> int:
    """How many of the texts the tokenizer truncated.

    ``Encoding.overflowing`` answers this only where it is not empty: tokenizers 0.23.1 and 0.23.2
    leave it empty wherever no special token is added, as for Qwen2, and tokenizers that are written
    in Python have no encodings. A text that fills ``max_length`` without overflow is therefore
    tokenized once more, with room for one token more.

    Args:
        texts: as the tokenizer got them.
        encoded: what it returned for them, truncated at ``max_length`` and not padded.
    """
    encodings = getattr(encoded, "encodings", None)
    num_truncated = 0
    undecided: list[str] = []
    for row, ids in enumerate(encoded["input_ids"]):
        if len(ids) < max_length:
            continue
        if encodings and encodings[row].overflowing:
            num_truncated += 1
        else:
            undecided.append(texts[row])
    if not undecided:
        return num_truncated
    longer = tokenizer(
        undecided,
        truncation=True,
        max_length=max_length + 1,
        padding=False,
        return_attention_mask=False,
    )
    return num_truncated + sum(len(ids) > max_length for ids in longer["input_ids"])

"""Whether a batch gives each text what the text gets alone; transformers alone, one text at a time, is the judge."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from utils.core.errors import ModelError
from utils.data.reader import encodable
from utils.model.adapter import num_virtual_tokens
from utils.model.encoding import InputFormat, accepted_inputs, encode_batch, select_inputs

LOGIT_TOLERANCE = {"float32": 1e-3, "float16": 2e-2, "bfloat16": 1e-1}
"""How far two logits may lie apart, relative to the largest: rounding of 10, 10 and 7 bits of mantissa (float32
may run in TF32), grown over the layers. Padding and batching change the order of sums, nothing else."""
NOISE_FLOOR = {"float32": 1e-5, "float16": 4e-3, "bfloat16": 3e-2}
"""The same for a model whose logits hardly differ between texts, relative to the logits themselves: some roundings."""
SENTENCES = (
    "wireless headphones",
    "a book about the history of bread",
    "where is the parcel that I ordered last week, it was to be here on Monday",
    "return",
    "red running shoes for children, size 32, that are light, washable and good on wet ground " * 2,
)
PROBE_LENGTHS = (1, 3, 9, 40)
"""Tokens of the texts that are made of the tokenizer's own vocabulary: whatever its language, some texts hold words."""
MAX_PROBE_TOKENS = 96
MAX_CHECKED_TEXTS = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Agreement:
    """Two ways to classify the same texts, compared.

    Args:
        difference: the largest difference of a logit.
        allowed: the largest that rounding explains.
        num_label_changes: texts whose label differs although their two best logits lie further apart than rounding.
    """

    difference: float
    allowed: float
    num_label_changes: int

    @property
    def holds(self) -> bool:
        # Written so that NaN does not hold.
        return self.difference <= self.allowed and self.num_label_changes == 0

    def __str__(self) -> str:
        return f"logits differ by {self.difference:.3g}, and rounding explains {self.allowed:.3g}"


def compare_logits(reference: torch.Tensor, other: torch.Tensor, dtype: str) -> Agreement:
    """Compare logits of the same texts, each of shape ``[texts, labels]``.

    What rounding explains is measured against how much the logits differ between texts: a model whose logits are all
    small must agree as well as any other.
    """
    spread = float((reference.amax(0) - reference.amin(0)).max())
    largest = float(reference.abs().max())
    allowed = LOGIT_TOLERANCE[dtype] * spread + NOISE_FLOOR[dtype] * largest
    difference = float((reference - other).abs().max())
    best_two = reference.topk(min(2, reference.shape[1])).values
    is_clear = best_two[:, 0] - best_two[:, -1] > 2 * allowed
    changed = is_clear & (reference.argmax(1) != other.argmax(1))
    return Agreement(difference=difference, allowed=allowed, num_label_changes=int(changed.sum()))


def probe_texts(tokenizer: Any, max_tokens: int) -> tuple[str, ...]:
    """Texts of very different lengths: English sentences, and words of the tokenizer's own vocabulary."""
    chosen = random.Random(0)
    special = set(tokenizer.all_special_ids)
    candidates = [number for number in tokenizer.get_vocab().values() if number not in special]
    texts = list(SENTENCES)
    if candidates:
        for length in PROBE_LENGTHS:
            ids = chosen.choices(sorted(candidates), k=min(length, max_tokens))
            texts.append(tokenizer.decode(ids))
    return tuple(encodable(text) for text in texts if text.strip())


@torch.inference_mode()
def classify_alone(
    model: Any, tokenizer: Any, texts: Sequence[str], max_length: int, device: torch.device
) -> torch.Tensor:
    """Logits of each text by itself, with everything that the tokenizer returns; float32 on the CPU, ``[texts, labels]``."""
    taken = accepted_inputs(model)
    rows = []
    for text in texts:
        encoded = tokenizer(text, truncation=True, max_length=max_length, return_tensors="pt")
        inputs = {name: tensor.to(device) for name, tensor in encoded.items() if name in taken}
        rows.append(model(**inputs).logits.float().cpu())
    return torch.cat(rows)


@torch.inference_mode()
def classify_batch(
    model: Any, tokenizer: Any, inputs: InputFormat, texts: Sequence[str], max_length: int
) -> torch.Tensor:
    """Logits of the texts as one batch, as the batch-size sweep makes it; float32 on the CPU, ``[texts, labels]``."""
    encoded = encode_batch(tokenizer, texts, max_length)
    device = next(model.parameters()).device
    logits: torch.Tensor = model(**select_inputs(encoded, inputs.names, device)).logits
    return logits.float().cpu()


def choose_texts(texts: Sequence[str], count: int = MAX_CHECKED_TEXTS) -> list[str]:
    """The shortest, the longest and some between them: padding and truncation show most there."""
    by_length = sorted(dict.fromkeys(text for text in texts if text.strip()), key=len)
    if len(by_length) <= count:
        return by_length
    step = (len(by_length) - 1) / (count - 1)
    return [by_length[round(number * step)] for number in range(count)]


def max_positions(model: Any) -> int | None:
    """How many tokens of a text the model has positions for; None where it says nothing or has no limit."""
    config = getattr(model, "config", None)
    if config is None:
        return None
    limit = getattr(config.get_text_config(), "max_position_embeddings", None)
    if not isinstance(limit, int) or limit < 1:  # XLNet says -1: its positions are relative
        limit = None
    if (
        getattr(config, "position_biased_input", True) is False
    ):  # DeBERTa with relative positions alone
        limit = None
    for name, module in getattr(model, "named_modules", lambda: ())():
        offset = getattr(module, "padding_idx", None)
        weight = getattr(module, "weight", None)
        # RoBERTa and its kin count positions from the padding token's id on, so that the first ones are never used.
        if name.endswith("position_embeddings") and offset is not None and weight is not None:
            usable = int(weight.shape[0]) - int(offset) - 1
            limit = usable if limit is None else min(limit, usable)
    if limit is not None:
        limit -= num_virtual_tokens(model)
    return limit


def max_batched_length(model: Any) -> int | None:
    """Up to how many tokens the other texts of a batch do not change how a text is computed; None for any number.

    BigBird switches itself to full attention at the first short input, and for good. Rotary embeddings of the kinds
    ``longrope`` and ``dynamic`` change for a whole batch once its longest text passes a length.
    """
    config = getattr(model, "config", None)
    if config is None:
        return None
    config = config.get_text_config()
    if getattr(config, "attention_type", None) == "block_sparse":
        return int((5 + 2 * config.num_random_blocks) * config.block_size)
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    kinds = {rope.get("rope_type")}
    for nested in rope.values():  # by kind of layer
        if isinstance(nested, dict):
            kinds.add(nested.get("rope_type"))
    if not kinds & {"longrope", "dynamic"}:
        return None
    original = rope.get("original_max_position_embeddings") or getattr(
        config, "original_max_position_embeddings", None
    )
    limit = original or config.max_position_embeddings
    return int(limit)


def check_max_length(max_length: int, model: Any) -> None:
    """Refuse texts that the model has no positions for, or that change others of their batch (ModelError)."""
    limit = max_positions(model)
    if max_length < 1 or (limit is not None and max_length > limit):
        message = f"profiling.max_length is {max_length}, but the model has {limit or 'at least 1'} positions."
        raise ModelError(
            message, where="profiling.max_length", fix=f"--set profiling.max_length={limit or 512}"
        )
    batched = max_batched_length(model)
    if batched is not None and max_length > batched:
        message = (
            f"profiling.max_length is {max_length}, but above {batched} tokens this model computes a text in another way, "
            "and then for the other texts of the batch as well: results would depend on the batch."
        )
        raise ModelError(
            message, where="profiling.max_length", fix=f"--set profiling.max_length={batched}"
        )

"""Compares the results of a batch with those of each text alone.

transformers with one text at a time is the reference."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from utils.data.cells import replace_surrogates
from utils.model.encoding import InputFormat, accepted_inputs, compute_logits, encode_batch
from utils.system.device import has_ampere_precisions

LOGIT_TOLERANCE = {"float32": 1e-3, "float16": 2e-2, "bfloat16": 1e-1}
"""How far two logits may differ, relative to their spread.

This is the rounding of 23, 10 and 7 bits of mantissa, grown over the layers. Padding and batching
change the order of sums, nothing else. Products in TF32 have the 10 bits of float16, see
``product_precision``.
"""
NOISE_FLOOR = {"float32": 1e-5, "float16": 4e-3, "bfloat16": 3e-2}
"""The same relative to the largest logit, for models whose logits hardly differ between texts."""
SENTENCES = (
    "wireless headphones",
    "a book about the history of bread",
    "where is the parcel that I ordered last week, it was to be here on Monday",
    "return",
    "red running shoes for children, size 32, that are light, washable and good on wet ground " * 2,
)
PROBE_LENGTHS = (1, 3, 9, 40)
"""Tokens of the texts that are made of the tokenizer's vocabulary, whatever its language."""
MAX_PROBE_TOKENS = 96
PROBE_WIDTH = 256
"""Rows and columns of the matrices that show the precision of products; those of tiny matrices
may be computed in another way."""
MAX_CHECKED_TEXTS = 8


def product_precision(dtype: str, device: torch.device) -> str:
    """The precision whose tolerance holds: that in which float32 products really run.

    It is float16's where they run in TF32, and bfloat16's where they run in bfloat16, which
    ``medium`` allows on CPUs alone.

    Args:
        dtype: of the weights, such as ``float32``.
        device: of the model.
    """
    if dtype != "float32" or torch.get_float32_matmul_precision() == "highest":
        return dtype
    if device.type == "cpu":
        return _cpu_product_precision()
    if not has_ampere_precisions(device):
        return dtype
    return "float16"


def _cpu_product_precision() -> str:
    """How many bits of mantissa the CPU's float32 products keep, by products of known numbers.

    Which CPUs reduce them is decided in oneDNN: those with AMX do, and others with bfloat16
    instructions need not.
    """
    ones = torch.ones(PROBE_WIDTH, PROBE_WIDTH, dtype=torch.float32)
    for precision, bits in (("float32", 12), ("float16", 9)):
        number = 1 + 2.0**-bits
        product = (number * ones) @ ones
        error = (product / PROBE_WIDTH - number).abs().max()
        if error < 2.0 ** -(bits + 1):
            return precision
    return "bfloat16"


@dataclass(frozen=True, kw_only=True, slots=True)
class Agreement:
    """Two ways to classify the same texts, compared.

    Args:
        difference: the largest difference of a logit.
        allowed: the largest that rounding explains.
        num_label_changes: texts whose label differs although their two largest logits differ by
            more than rounding.
    """

    difference: float
    allowed: float
    num_label_changes: int

    @property
    def holds(self) -> bool:
        # With NaN the comparison is False.
        return self.difference <= self.allowed and self.num_label_changes == 0

    def __str__(self) -> str:
        return f"logits differ by {self.difference:.3g}, and rounding explains {self.allowed:.3g}"


def allowed_difference(logits: torch.Tensor, dtype: str) -> float:
    """By how much rounding alone may change logits of shape ``[texts, labels]``.

    It is relative to how much the logits differ between texts: a model whose logits are all small
    must agree as well as any other.

    Args:
        dtype: what ``product_precision`` returns.
    """
    spread = float((logits.amax(0) - logits.amin(0)).max())
    largest = float(logits.abs().max())
    return LOGIT_TOLERANCE[dtype] * spread + NOISE_FLOOR[dtype] * largest


def compare_logits(reference: torch.Tensor, other: torch.Tensor, dtype: str) -> Agreement:
    """Compare logits of the same texts, each of shape ``[texts, labels]``.

    ``reference`` decides what difference is allowed.

    Args:
        dtype: what ``product_precision`` returns.
    """
    allowed = allowed_difference(reference, dtype)
    difference = float((reference - other).abs().max())
    best_two = reference.topk(min(2, reference.shape[1])).values
    is_clear = best_two[:, 0] - best_two[:, -1] > 2 * allowed
    changed = is_clear & (reference.argmax(1) != other.argmax(1))
    return Agreement(difference=difference, allowed=allowed, num_label_changes=int(changed.sum()))


def probe_texts(tokenizer: Any, max_tokens: int) -> tuple[str, ...]:
    """Texts of very different lengths: English sentences, and words of the vocabulary."""
    chosen = random.Random(0)
    special = set(tokenizer.all_special_ids)
    candidates = [number for number in tokenizer.get_vocab().values() if number not in special]
    texts = list(SENTENCES)
    if candidates:
        for length in PROBE_LENGTHS:
            ids = chosen.choices(sorted(candidates), k=min(length, max_tokens))
            texts.append(tokenizer.decode(ids))
    return tuple(replace_surrogates(text) for text in texts if text.strip())


@torch.inference_mode()
def classify_alone(
    model: Any, tokenizer: Any, texts: Sequence[str], max_length: int, device: torch.device
) -> torch.Tensor:
    """Logits of each text by itself, with everything that the tokenizer returns.

    Returns:
        float32 on the CPU, of shape ``[texts, labels]``.
    """
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
    """Logits of the texts as one batch, as the batch-size sweep makes it.

    Returns:
        float32 on the CPU, of shape ``[texts, labels]``.
    """
    encoded = encode_batch(tokenizer, texts, max_length)
    device = next(model.parameters()).device
    return compute_logits(model, encoded, inputs.names, device)


def choose_texts(texts: Sequence[str], count: int = MAX_CHECKED_TEXTS) -> list[str]:
    """The shortest, the longest and some between them, where padding and truncation matter most."""
    present = [text for text in texts if text.strip()]
    by_length = sorted(dict.fromkeys(present), key=len)
    if len(by_length) <= count:
        return by_length
    step = (len(by_length) - 1) / (count - 1)
    return [by_length[round(number * step)] for number in range(count)]

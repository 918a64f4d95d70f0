"""Chooses how batches are padded, so that padding changes no text's result.

A causal classifier of transformers reads its result at the last token that is not ``pad_token_id``.
So batches are padded with exactly that token; where the model has none, with a token that no text
can contain. Which side is padded, and whether padding is allowed at all, is decided by comparing
batches with each text alone.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any, Literal

import torch

from utils.core.errors import ModelError, reason_of
from utils.model.adapter import base_of
from utils.model.checks import (
    MAX_PROBE_TOKENS,
    Agreement,
    classify_alone,
    classify_batch,
    compare_logits,
    probe_texts,
    product_precision,
)
from utils.model.encoding import InputFormat, input_format, vocab_size_of
from utils.model.lengths import max_batched_length, max_positions
from utils.system.device import is_out_of_memory

PAD_TOKEN = "<|padding of this run|>"
"""Added to the tokenizer where the model has no padding token. No text contains it."""
SIDES: tuple[Literal["right", "left"], ...] = ("right", "left")
"""Right first, because causal models then need no mask, and faster attention kernels apply."""
MIN_USABLE_SHARE = 0.5
"""The share of the probe texts that transformers must be able to classify alone."""
FORWARD_ERRORS = (
    RuntimeError,
    ValueError,
    TypeError,
    IndexError,
    KeyError,
    AttributeError,
    AssertionError,
)
"""What models of all kinds raise on inputs that they cannot take."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reference:
    """Some texts with the logits that transformers gives each of them alone.

    Args:
        max_length: tokens at which the texts are truncated.
        logits: float32 of shape ``[texts, labels]``.
        dtype: the precision of the matrix products, see ``product_precision``.
    """

    texts: list[str]
    max_length: int
    logits: torch.Tensor
    dtype: str


@dataclass(frozen=True, kw_only=True, slots=True)
class PaddingChoice:
    """The format that was chosen, and how well batches agree with each text alone."""

    inputs: InputFormat
    agreement: Agreement


def configure_padding(model: Any, tokenizer: Any, dtype: str, place: object) -> PaddingChoice:
    """Prepare model and tokenizer for batches; both are changed in place.

    Args:
        model: on its device, in evaluation mode, as transformers loaded it.
        dtype: ``float32``, ``float16`` or ``bfloat16``.
        place: where the model comes from, for messages.

    Raises:
        ModelError: transformers cannot classify a text with it, or texts of one length get other
            results in a batch.
    """
    reference = _make_reference(model, tokenizer, dtype, place)
    _choose_pad_token(model, tokenizer)
    if getattr(model.config, "use_cache", False):
        model.config.use_cache = False
    for side in SIDES:
        tokenizer.padding_side = side
        inputs = input_format(model, tokenizer)
        agreement = _agreement(model, tokenizer, inputs, reference)
        if agreement is not None and agreement.holds:
            return PaddingChoice(inputs=inputs, agreement=agreement)
    return _without_padding(model, tokenizer, reference, place)


def _probe_length(model: Any) -> int:
    limits = (MAX_PROBE_TOKENS, max_positions(model), max_batched_length(model))
    return min(limit for limit in limits if limit is not None)


def _texts_within_embedding(tokenizer: Any, model: Any, max_length: int) -> list[str]:
    """Probe texts whose tokens the model has embeddings for."""
    vocab_size = vocab_size_of(model)
    texts = probe_texts(tokenizer, max_length)
    usable = []
    for text in texts:
        ids = tokenizer(text, truncation=True, max_length=max_length)["input_ids"]
        if ids and (vocab_size is None or max(ids) < vocab_size):
            usable.append(text)
    return usable


def _make_reference(model: Any, tokenizer: Any, dtype: str, place: object) -> Reference:
    """Classify probe texts one by one.

    Raises:
        ModelError: most of them cannot be classified, or their logits are unusable.
    """
    max_length = _probe_length(model)
    texts = _texts_within_embedding(tokenizer, model, max_length)
    if not texts:
        raise ModelError(
            "The tokenizer makes no token that the model knows of any text.",
            where=place,
            fix="name the model's own tokenizer with --set model.tokenizer=NAME",
        )
    usable, logits = _classify_usable(model, tokenizer, texts, max_length, place)
    _check_logits(logits, dtype, place)
    return Reference(
        texts=usable,
        max_length=max_length,
        logits=logits,
        dtype=product_precision(dtype, next(model.parameters()).device),
    )


def _classify_usable(
    model: Any, tokenizer: Any, texts: list[str], max_length: int, place: object
) -> tuple[list[str], torch.Tensor]:
    """The texts that the model can classify alone, and their logits."""
    device = next(model.parameters()).device
    usable: list[str] = []
    rows: list[torch.Tensor] = []
    failure: BaseException | None = None
    for text in texts:
        try:
            rows.append(classify_alone(model, tokenizer, [text], max_length, device))
        except FORWARD_ERRORS as error:
            if is_out_of_memory(error):
                raise
            failure = error
        else:
            usable.append(text)
    # Some models cannot take a text of a single token (CANINE), so a single failure is accepted.
    if failure is not None and len(usable) < MIN_USABLE_SHARE * len(texts):
        if isinstance(failure, AttributeError) and "no attribute 'logits'" in str(failure):
            raise _without_logits(failure, place) from failure
        raise ModelError(
            f"The model cannot classify a text: {type(failure).__name__}: {reason_of(failure)}",
            where=place,
            fix="name a model whose inputs are texts alone, with the tokenizer that it was trained "
            "with",
        ) from failure
    return usable, torch.cat(rows)


def _without_logits(failure: AttributeError, place: object) -> ModelError:
    """The error for custom code that returns something else than transformers' classifiers."""
    return ModelError(
        f"The model's code returns no logits by name: {failure}.",
        where=place,
        fix="let its forward return transformers.modeling_outputs.SequenceClassifierOutput("
        "logits=logits)",
    )


def _check_logits(logits: torch.Tensor, dtype: str, place: object) -> None:
    """Refuse logits that are not ``[texts, labels]`` or not finite (ModelError)."""
    if logits.dim() != 2:
        raise ModelError(
            f"The model's logits have the shape {list(logits.shape)}, not [texts, labels].",
            where=place,
            fix="name a model fine-tuned for sequence classification",
        )
    if not bool(logits.isfinite().all()):
        raise ModelError(
            f"The model's logits are NaN or infinite in {dtype}: its weights are damaged, or their "
            "values exceed its range.",
            where=place,
            fix="--set model.dtype=float32; where that does not help, download the weights again",
        )


def _choose_pad_token(model: Any, tokenizer: Any) -> None:
    """Make the tokenizer pad with the token that the model does not read its result at."""
    vocab_size = vocab_size_of(model)
    configs = _configs(model)
    of_model = getattr(configs[-1], "pad_token_id", None)
    if of_model is None:
        of_model = getattr(configs[0], "pad_token_id", None)
    if of_model is not None and _is_usable(tokenizer, of_model, vocab_size):
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(of_model)
        return
    of_tokenizer = tokenizer.pad_token_id
    has_usable_token = of_tokenizer is not None and (
        vocab_size is None or of_tokenizer < vocab_size
    )
    if has_usable_token and not _reads_at_padding_token(model):
        return
    tokenizer.add_special_tokens({"pad_token": PAD_TOKEN})
    for config in configs:
        config.pad_token_id = tokenizer.pad_token_id
    if vocab_size is not None and tokenizer.pad_token_id >= vocab_size:
        _accept_padding_beyond_embedding(model, vocab_size)


def _configs(model: Any) -> list[Any]:
    """The configurations that may have the padding token's id.

    They are the model's own and, in Gemma 3 and others, that of its text part.
    """
    text_config = model.config.get_text_config()
    if text_config is model.config:
        return [model.config]
    return [model.config, text_config]


def _is_usable(tokenizer: Any, token_id: int, vocab_size: int | None) -> bool:
    if token_id < 0 or (vocab_size is not None and token_id >= vocab_size):
        return False
    return token_id in tokenizer.get_vocab().values()


def _reads_at_padding_token(model: Any) -> bool:
    """Whether the classifier looks for the padding token's id to find where its result is.

    The others recognise padding by the mask alone, so that any padding token will do.
    """
    try:
        source = inspect.getsource(inspect.unwrap(type(base_of(model)).forward))
    except (OSError, TypeError):
        # For code without a file, the safe assumption.
        return True
    return "pad_token_id" in source


def _accept_padding_beyond_embedding(model: Any, vocab_size: int) -> None:
    """Let the embedding take the padding token's id, which is one beyond its last row.

    The row that it reads instead changes nothing, because no token attends to padding. A token of
    the vocabulary would not do, because a text may end in it, and the model would then read its
    result one token earlier.
    """

    def clamp(module: Any, arguments: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (arguments[0].clamp(max=vocab_size - 1), *arguments[1:])

    model.get_input_embeddings().register_forward_pre_hook(clamp)


def _agreement(
    model: Any, tokenizer: Any, inputs: InputFormat, reference: Reference
) -> Agreement | None:
    """How well one padded batch agrees with each text alone; None if the model cannot take it."""
    try:
        together = classify_batch(model, tokenizer, inputs, reference.texts, reference.max_length)
    except FORWARD_ERRORS as error:
        if is_out_of_memory(error):
            raise
        return None
    return compare_logits(reference.logits, together, reference.dtype)


def _without_padding(
    model: Any, tokenizer: Any, reference: Reference, place: object
) -> PaddingChoice:
    """Batches of texts of one length, for a model whose results padding changes."""
    tokenizer.padding_side = "right"
    inputs = input_format(model, tokenizer, allows_padding=False)
    rows = []
    for text in reference.texts:
        pair = classify_batch(model, tokenizer, inputs, [text, text], reference.max_length)
        rows.append(pair[:1])
    agreement = compare_logits(reference.logits, torch.cat(rows), reference.dtype)
    if agreement.holds:
        return PaddingChoice(inputs=inputs, agreement=agreement)
    raise ModelError(
        f"A text gets another result in a batch than alone: {agreement}.",
        where=place,
        fix="name another model: this one's batches cannot be compared with its results for single "
        "texts",
    )

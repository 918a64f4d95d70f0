"""Checks of a loaded model on texts, before anything is measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from utils.core.errors import ModelError
from utils.data.cells import replace_surrogates
from utils.model.checks import (
    Agreement,
    choose_texts,
    classify_alone,
    classify_batch,
    compare_logits,
    product_precision,
)
from utils.model.encoding import count_end_tokens
from utils.model.load import LoadedModel
from utils.model.load_errors import full_reason
from utils.model.padding import FORWARD_ERRORS
from utils.model.stored_tokenizer import warn_about_other_tokens
from utils.model.tokenizer import check_texts
from utils.schema.warning_codes import WarningCode

CHECKED_TEXTS = 8


def classify(loaded: LoadedModel, texts: list[str], max_length: int) -> torch.Tensor:
    """Logits of the texts as one batch, float32 on the CPU, of shape ``[texts, labels]``."""
    return classify_batch(loaded.model, loaded.tokenizer, loaded.inputs, texts, max_length)


def check_batch_sizes(loaded: LoadedModel, batch_sizes: Sequence[int]) -> None:
    """Refuse batches of several texts for a model whose results padding changes.

    Raises:
        ModelError: the sizes contain one above 1, and the model's batches may have no padding.
    """
    if loaded.inputs.allows_padding or loaded.info.weights == "dummy" or max(batch_sizes) <= 1:
        return
    raise ModelError(
        "Padding changes this model's results: a text gets another result in a batch with longer "
        "texts than alone.",
        where=loaded.info.adapter or loaded.info.name,
        fix="measure single texts with --set profiling.batch_sizes=[1]; the evaluation then makes "
        "batches of equal lengths",
    )


def check_batching(
    loaded: LoadedModel, texts: Sequence[str], max_length: int
) -> tuple[list[str], float]:
    """Classify the texts one by one and as a batch, and compare.

    Returns:
        The labels, and the largest difference of a logit.

    Raises:
        ModelError: logits differ by more than the rounding of the precision, or a label differs
            that is clear.
    """
    alone = classify_alone(loaded.model, loaded.tokenizer, texts, max_length, loaded.device)
    agreement = _compare_with_batch(loaded, texts, max_length, alone)
    if not agreement.holds:
        raise ModelError(
            f"Texts get other results in a batch than alone: {agreement}.",
            where=loaded.info.name,
            fix="name another model, or measure single texts with --set profiling.batch_sizes=[1]",
        )
    names = loaded.model.config.id2label
    labels = [names[int(number)] for number in alone.argmax(1)]
    return labels, agreement.difference


def _compare_with_batch(
    loaded: LoadedModel, texts: Sequence[str], max_length: int, alone: torch.Tensor
) -> Agreement:
    if loaded.inputs.allows_padding:
        together = classify(loaded, list(texts), max_length)
    else:
        # Without padding a batch has texts of one length: each text twice.
        rows = [classify(loaded, [text, text], max_length)[:1] for text in texts]
        together = torch.cat(rows)
    precision = product_precision(loaded.info.dtype, loaded.device)
    return compare_logits(alone, together, precision)


def check_on_texts(loaded: LoadedModel, texts: Sequence[str], max_length: int) -> tuple[str, ...]:
    """Check model and tokenizer on the data set's own texts.

    Args:
        texts: a sample of the data set.
        max_length: tokens at which texts are truncated.

    Returns:
        Warnings.

    Raises:
        ModelError: the tokenizer does not suit the texts, or texts get other results in a batch
            than alone.
    """
    if loaded.info.weights == "dummy":
        return ()
    warnings = (
        *check_texts(loaded.tokenizer, texts, loaded.inputs.vocab_size, loaded.info.name),
        *_warn_about_stored_tokenizer(loaded, texts),
        *_warn_about_other_limit(loaded.tokenizer, texts, max_length),
    )
    chosen = choose_texts(texts_of_one_end_token(loaded, texts, max_length), CHECKED_TEXTS)
    if not chosen:
        return warnings
    try:
        check_batching(loaded, chosen, max_length)
    except FORWARD_ERRORS as error:
        raise ModelError(
            f"The model cannot classify the data set's texts: {full_reason(error)}",
            where=loaded.info.name,
            fix="lower profiling.max_length, or name a model whose inputs are texts alone",
        ) from error
    return warnings


def _warn_about_stored_tokenizer(loaded: LoadedModel, texts: Sequence[str]) -> tuple[str, ...]:
    if loaded.tokenizer_file is None:
        return ()
    return warn_about_other_tokens(loaded.tokenizer, loaded.tokenizer_file, texts)


def _warn_about_other_limit(
    tokenizer: Any, texts: Sequence[str], max_length: int
) -> tuple[str, ...]:
    """A warning where the tokenizer by itself truncates the texts at fewer tokens.

    Its ``model_max_length`` is the length that the model was trained with, and the one that the
    pipeline of transformers truncates at.
    """
    own_limit = getattr(tokenizer, "model_max_length", None)
    if own_limit is None or own_limit >= max_length:
        return ()
    encoded = tokenizer(
        [replace_surrogates(text) for text in texts], truncation=True, max_length=max_length
    )
    num_longer = sum(len(ids) > own_limit for ids in encoded["input_ids"])
    if not num_longer:
        return ()
    warning = WarningCode.TEXTS.warn(
        f"{num_longer} of {len(texts)} texts are longer than the {own_limit} tokens of the "
        f"tokenizer's model_max_length, and profiling.max_length is {max_length}: transformers' "
        f"pipeline truncates them. To do the same: --set profiling.max_length={own_limit}"
    )
    return (warning,)


def texts_of_one_end_token(loaded: LoadedModel, texts: Sequence[str], max_length: int) -> list[str]:
    """The texts that can be in one batch.

    T5, BART and similar models read the result at the end token, and refuse a batch whose texts
    have different numbers of it. A text that itself contains the end token is classified in a
    batch of its kind by the evaluation, and left out of the sweep.
    """
    end_token_id = loaded.inputs.end_token_id
    if end_token_id is None:
        return list(texts)
    counts = count_end_tokens(loaded.tokenizer, texts, max_length, end_token_id)
    usual = max(set(counts), key=counts.count, default=0)
    return [text for text, count in zip(texts, counts, strict=True) if count == usual]

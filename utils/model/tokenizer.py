"""Loads the tokenizer that belongs to a model, and refuses one that cannot belong to it.

transformers 5 builds an empty tokenizer of the model's class where the tokenizer's files are
missing. Every text then becomes nothing or unknown tokens, accuracy is chance, and nothing fails.
So every step loads its tokenizer here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import AutoTokenizer

from utils.core.errors import ModelError
from utils.data.cells import replace_surrogates
from utils.data.validation import count_tokens
from utils.model.load_errors import translate_load_errors
from utils.model.location import ModelLocation
from utils.model.resolution import OTHER_TOKENIZER
from utils.schema.warning_codes import WarningCode
from utils.settings import ModelConfig

MIN_VOCABULARY_SHARE = 0.5
"""A tokenizer that knows less than this share of the embedding's rows is another model's, or empty.

Embeddings are padded by some hundred rows at most, and an empty tokenizer knows a few special
tokens.
"""
MAX_LOST_SHARE = 0.5
"""Share of texts that may become nothing but special and unknown tokens.

Single ones occur; more than half means a wrong tokenizer.
"""
WARN_UNKNOWN_SHARE = 0.2


def load_tokenizer(
    settings: ModelConfig, location: ModelLocation, vocab_size: int | None = None
) -> Any:
    """Load the tokenizer of a location.

    Args:
        location: what ``ModelResolver.resolve_tokenizer`` has found.
        vocab_size: rows of the model's embedding, to compare the tokenizer with; None skips that
            check.

    Raises:
        ModelError: the files cannot be read, or the vocabulary is far smaller than the model's.
    """
    with translate_load_errors("tokenizer", location):
        tokenizer = AutoTokenizer.from_pretrained(
            location.name,
            **location.hub_arguments,
            trust_remote_code=settings.trust_remote_code,
        )
    if vocab_size is not None and settings.load_format != "dummy":
        check_vocabulary(tokenizer, vocab_size, location)
    return tokenizer


def check_vocabulary(tokenizer: Any, vocab_size: int, where: object) -> None:
    """Refuse a tokenizer that knows far fewer tokens than the model has embeddings for.

    Raises:
        ModelError: it does.
    """
    num_tokens = len(tokenizer)
    if num_tokens >= MIN_VOCABULARY_SHARE * vocab_size:
        return
    raise ModelError(
        f"The tokenizer knows {num_tokens:,} tokens, the model {vocab_size:,}: it is empty, "
        "incomplete or another model's.",
        where=where,
        fix=OTHER_TOKENIZER,
    )


def check_texts(
    tokenizer: Any, texts: Sequence[str], vocab_size: int | None, where: object
) -> tuple[str, ...]:
    """Check that the tokenizer suits the data set's texts and the model's embedding.

    Args:
        texts: some texts of the data set.
        vocab_size: rows of the model's embedding; None where the model has none.

    Returns:
        Warnings.

    Raises:
        ModelError: most texts become nothing but special and unknown tokens, or a token has no
            embedding.
    """
    present = [replace_surrogates(text) for text in texts if text.strip()]
    counts = count_tokens(tokenizer, present)
    if counts.num_lost_texts > MAX_LOST_SHARE * len(present):
        raise ModelError(
            f"{counts.num_lost_texts} of {len(present)} texts become nothing but special and "
            "unknown tokens: the tokenizer does not know the data set's language, or is not the "
            "model's.",
            where=where,
            fix=OTHER_TOKENIZER,
        )
    if vocab_size is not None:
        check_token_ids(tokenizer, present, vocab_size, where)
    if counts.num_unknown <= WARN_UNKNOWN_SHARE * counts.num_ordinary:
        return ()
    share = counts.num_unknown / counts.num_ordinary
    warning = WarningCode.TEXTS.warn(
        f"{share:.0%} of the tokens of {len(present)} texts are unknown to the tokenizer: "
        "the model sees little of the texts"
    )
    return (warning,)


def check_token_ids(tokenizer: Any, texts: Sequence[str], vocab_size: int, where: object) -> None:
    """Refuse texts with a token that the model has no embedding for.

    A token that was added to the tokenizer, but not to the model, is harmless as long as no text
    contains it.

    Raises:
        ModelError: a text contains such a token.
    """
    for text in texts:
        ids = tokenizer(replace_surrogates(text), verbose=False)["input_ids"]
        highest = max(ids, default=0)
        if highest >= vocab_size:
            raise missing_embedding(tokenizer, highest, vocab_size, where)


def missing_embedding(tokenizer: Any, token_id: int, vocab_size: int, where: object) -> ModelError:
    """The error for a text whose token the model does not know."""
    token = tokenizer.convert_ids_to_tokens(token_id)
    return ModelError(
        f"A text has the token {token!r} with id {token_id:,}, but the model has "
        f"{vocab_size:,} embeddings.",
        where=where,
        fix=f"{OTHER_TOKENIZER}; or remove that token from the texts",
    )

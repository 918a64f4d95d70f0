"""Loads the tokenizer that belongs to a model, and refuses one that cannot belong to it.

transformers 5 builds an empty tokenizer of the model's class where the tokenizer's files are missing. Every text then
becomes nothing or unknown tokens, accuracy is chance, and nothing fails. So every step loads its tokenizer here.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from utils.config_loader import Config
from utils.core.errors import ModelError
from utils.data.reader import encodable
from utils.data.validation import count_tokens
from utils.model.load_errors import translate_load_errors
from utils.model.location import (
    TOKENIZER_FILES,
    VOCABULARY_FILES,
    ModelLocation,
    ModelSource,
    embedded_folder,
    resolve_name,
)

MIN_VOCABULARY_SHARE = 0.5
"""A tokenizer that knows less than this share of the embedding's rows is another model's, or empty: embeddings are padded
by some hundred rows at most, and an empty tokenizer knows a handful of special tokens."""
MAX_LOST_SHARE = 0.5
"""Texts that become nothing but special and unknown tokens: single ones occur, more than half means a wrong tokenizer."""
WARN_UNKNOWN_SHARE = 0.2
OTHER_TOKENIZER = (
    "name the model's own tokenizer with --set model.tokenizer=NAME, a hub id or a local folder"
)


def load_tokenizer(config: Config, source: ModelSource, vocab_size: int | None = None) -> Any:
    """The configured tokenizer, the adapter's, the model's, or for a bare architecture the embedded one.

    Args:
        vocab_size: rows of the model's embedding, to compare the tokenizer with; None skips that check.

    Raises:
        ModelError: there are no tokenizer files, they cannot be read, or the vocabulary is far smaller than the model's.
    """
    place = _tokenizer_location(config, source)
    with translate_load_errors("tokenizer", place):
        tokenizer = AutoTokenizer.from_pretrained(
            **place.arguments, trust_remote_code=config.model.trust_remote_code
        )
    if vocab_size is not None and config.model.load_format != "dummy":
        check_vocabulary(tokenizer, vocab_size, place)
    return tokenizer


def _tokenizer_location(config: Config, source: ModelSource) -> ModelLocation:
    if config.model.tokenizer:
        place = resolve_name(config, config.model.tokenizer, None, "tokenizer")
        _check_files(place)
        return place
    if source.adapter is not None:
        files = tuple(path.name for path in source.adapter.iterdir())
        adapter = ModelLocation(name=str(source.adapter), files=files)
        # A lone tokenizer_config.json would become an empty tokenizer, the base model's is complete.
        if "tokenizer_config.json" in files and adapter.has_any(*VOCABULARY_FILES):
            return adapter
    is_architecture_file = Path(source.base.name).is_file()
    has_files = source.base.has_any(*TOKENIZER_FILES)
    if is_architecture_file or (not has_files and config.model.load_format == "dummy"):
        return ModelLocation(name=str(embedded_folder(config)))
    _check_files(source.base)
    return source.base


def _check_files(place: ModelLocation) -> None:
    if not place.has_any(*TOKENIZER_FILES):
        message = "The model has no tokenizer files, so its texts cannot be turned into its tokens."
        raise ModelError(
            message, where=place, fix=f"add its tokenizer.json there, or {OTHER_TOKENIZER}"
        )


def check_vocabulary(tokenizer: Any, vocab_size: int, place: object) -> None:
    """Refuse a tokenizer that knows far fewer tokens than the model has embeddings for (ModelError)."""
    known = len(tokenizer)
    if known < MIN_VOCABULARY_SHARE * vocab_size:
        message = f"The tokenizer knows {known:,} tokens, the model {vocab_size:,}: it is empty, incomplete or another model's."
        raise ModelError(message, where=place, fix=OTHER_TOKENIZER)


def check_texts(
    tokenizer: Any, texts: Sequence[str], vocab_size: int | None, place: object
) -> tuple[str, ...]:
    """Check that the tokenizer suits the data set's texts and the model's embedding.

    Args:
        texts: some texts of the data set.
        vocab_size: rows of the model's embedding; None where the model has none.

    Returns:
        Warnings.

    Raises:
        ModelError: most texts become nothing but special and unknown tokens, or a token has no embedding.
    """
    present = [encodable(text) for text in texts if text.strip()]
    counts = count_tokens(tokenizer, present)
    if counts.num_lost_texts > MAX_LOST_SHARE * len(present):
        message = (
            f"{counts.num_lost_texts} of {len(present)} texts become nothing but special and unknown tokens: the tokenizer "
            "does not know the data set's language, or is not the model's."
        )
        raise ModelError(message, where=place, fix=OTHER_TOKENIZER)
    if vocab_size is not None:
        check_token_ids(tokenizer, present, vocab_size, place)
    if counts.num_unknown > WARN_UNKNOWN_SHARE * counts.num_ordinary:
        share = counts.num_unknown / counts.num_ordinary
        return (
            f"{share:.0%} of the tokens of {len(present)} texts are unknown to the tokenizer: "
            "the model sees little of the texts",
        )
    return ()


def check_token_ids(tokenizer: Any, texts: Sequence[str], vocab_size: int, place: object) -> None:
    """Refuse texts with a token that the model has no embedding for (ModelError).

    A token that was added to the tokenizer, but not to the model, is harmless as long as no text holds it.
    """
    for text in texts:
        ids = tokenizer(encodable(text), verbose=False)["input_ids"]
        highest = max(ids, default=0)
        if highest >= vocab_size:
            raise missing_embedding(tokenizer, highest, vocab_size, place)


def missing_embedding(tokenizer: Any, token_id: int, vocab_size: int, place: object) -> ModelError:
    """The error for a text whose token the model does not know."""
    token = tokenizer.convert_ids_to_tokens(token_id)
    message = f"A text holds the token {token!r} with id {token_id:,}, but the model has {vocab_size:,} embeddings."
    return ModelError(
        message, where=place, fix=f"{OTHER_TOKENIZER}; or remove that token from the texts"
    )

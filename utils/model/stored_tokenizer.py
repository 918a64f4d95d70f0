"""Compares the tokenizer that transformers makes with the ``tokenizer.json`` that is stored.

Some versions of transformers 5 build the tokenizer of the model's class and take the vocabulary
alone from the file. Where the file splits texts in another way than that class, the model gets
other tokens than it was trained with, and nothing fails.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import transformers
from tokenizers import Tokenizer
from transformers.utils import cached_file

from utils.data.cells import replace_surrogates
from utils.model.location import ModelLocation
from utils.schema.warning_codes import WarningCode

FILE_NAME = "tokenizer.json"
MAX_TEXTS = 256
"""Texts that are compared."""


def find_stored_tokenizer(location: ModelLocation) -> Path | None:
    """The ``tokenizer.json`` of a folder or of a repository of the hub; None where it has none.

    Args:
        location: where the tokenizer was loaded from, so that the file is here already.
    """
    if not location.has_any(FILE_NAME):
        return None
    file = cached_file(location.name, FILE_NAME, **location.hub_arguments)
    return Path(file) if file else None


def warn_about_other_tokens(tokenizer: Any, file: Path, texts: Sequence[str]) -> tuple[str, ...]:
    """A warning where texts become other tokens than ``tokenizer.json`` gives.

    Special tokens that are added to a text are left out: ``tokenizer_config.json`` may change them.

    Args:
        tokenizer: as transformers has made it.
        file: the ``tokenizer.json`` that is stored with it.
        texts: a sample of the data set.
    """
    if not tokenizer.is_fast:
        return ()
    compared = [replace_surrogates(text) for text in texts[:MAX_TEXTS]]
    stored = Tokenizer.from_file(str(file))
    stored.no_truncation()
    stored.no_padding()
    used_ids = tokenizer(compared, add_special_tokens=False)["input_ids"]
    encodings = stored.encode_batch(compared, add_special_tokens=False)
    num_other = 0
    for ids, encoding in zip(used_ids, encodings, strict=True):
        num_other += ids != encoding.ids
    if not num_other:
        return ()
    warning = WarningCode.TOKENIZER.warn(
        f"{num_other} of {len(compared)} texts become other tokens than the model's {FILE_NAME} "
        f"gives: transformers {transformers.__version__} replaces a part of it by that of the "
        f"model's kind ({type(tokenizer).__name__}). If the model was trained with the file as it "
        f"is, its own accuracy is not what is measured. To use the file: copy {FILE_NAME} and "
        "tokenizer_config.json into a folder of their own, write there "
        '"tokenizer_class": "PreTrainedTokenizerFast", and --set model.tokenizer=FOLDER'
    )
    return (warning,)

"""Turns what libraries raise while they load a model into one message with a fix."""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError

from utils.core.errors import ModelError, UserError, reason_of
from utils.hub.errors import hub_errors, translate_hub_error
from utils.system.device import is_out_of_memory

if TYPE_CHECKING:
    from utils.model.location import ModelLocation

MAX_REASON_LENGTH = 600
DAMAGED = re.compile(
    "deserializ|header too|incomplete|PytorchStreamReader|unexpected end|EOFError|No such file|"
    "no file named|not a valid JSON|JSONDecodeError",
    re.IGNORECASE,
)
"""Words of the libraries for a file that is truncated or missing."""
LOAD_ERRORS = (
    OSError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    RuntimeError,
    ImportError,
    EOFError,
    AssertionError,
    SafetensorError,
    StrictDataclassError,
    pickle.UnpicklingError,
)
"""What a damaged or unusual checkpoint makes the libraries raise.

A bug of this project in the same block would look alike, so only calls of the libraries stand
inside ``translate_load_errors``.
"""
SENTENCEPIECE_FILES = ("*.model", "*.spm", "spiece*", "sentencepiece*")


@contextmanager
def translate_load_errors(what: str, place: ModelLocation) -> Iterator[None]:
    """Raise a ModelError for everything that goes wrong while ``what`` is loaded from ``place``.

    Args:
        what: ``model``, ``tokenizer`` or ``adapter``, as the message calls it.
        place: where it is loaded from.

    Raises:
        ModelError: the libraries cannot read it, a package is missing, or the memory ran out.
        UserError: an error of the hub.
    """
    with hub_errors(what, place.name, ModelError):
        try:
            yield
        except UserError:
            raise
        except LOAD_ERRORS as error:
            is_local = Path(place.name).exists()
            if not is_local and translate_hub_error(error, what, place.name) is not None:
                raise
            raise _to_model_error(error, what, place) from error


def out_of_memory_error(message: str, place: ModelLocation) -> ModelError:
    """The error for a model that the device has too little memory for."""
    fix = "--set model.dtype=bfloat16, take another device, or end what else uses the GPU"
    return ModelError(message, where=place, fix=fix)


def _to_model_error(error: BaseException, what: str, place: ModelLocation) -> ModelError:
    if is_out_of_memory(error):
        return out_of_memory_error(f"The {what} does not fit into the device's memory.", place)
    reason = full_reason(error)
    if "weights_only" in reason:
        message = (
            "pytorch_model.bin contains more than tensors. It is not loaded, because reading it "
            "could run code."
        )
        fix = "convert it to safetensors on a machine where you trust it, or name another model"
        return ModelError(message, where=place, fix=fix)
    if what == "tokenizer" and _lacks_sentencepiece(reason) and place.has_any(*SENTENCEPIECE_FILES):
        message = (
            "The tokenizer is a SentencePiece file, and a package that reads it is not installed."
        )
        return ModelError(message, where=place, fix="pip install sentencepiece protobuf")
    return ModelError(
        f"The {what} cannot be loaded: {reason}", where=place, fix=_suggest_fix(reason)
    )


def _lacks_sentencepiece(reason: str) -> bool:
    """Whether a package is missing; transformers names tiktoken where sentencepiece would help."""
    return re.search(r"sentencepiece|protobuf|tiktoken", reason.lower()) is not None


def full_reason(error: BaseException) -> str:
    """The complete message on one line, with the error's class where the message needs it."""
    text = reason_of(error, MAX_REASON_LENGTH)
    if isinstance(error, LookupError | AttributeError | TypeError | AssertionError):
        return f"{type(error).__name__}: {text}"
    return text


def _suggest_fix(reason: str) -> str:
    if "trust_remote_code" in reason:
        return (
            "read the code in the repository; if you trust it, --set model.trust_remote_code=true"
        )
    missing = re.search(r"pip install (?:-\S+ )*([A-Za-z0-9_.\[\]-]+)", reason)
    if missing:
        return f"pip install {missing[1]}"
    if DAMAGED.search(reason):
        return "the file is damaged or incomplete: download or copy it again"
    return "it needs a config.json, weights and tokenizer files that this transformers can read"

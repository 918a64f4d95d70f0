"""How texts become the inputs of a model: which inputs it takes, and how a batch is padded."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from utils.data.cells import replace_surrogates
from utils.model.adapter import base_of

ALWAYS_TAKEN = ("input_ids", "attention_mask")

Encoded = dict[str, torch.Tensor]


@dataclass(frozen=True, kw_only=True, slots=True)
class InputFormat:
    """How batches are made, so that each text gets the result that it gets alone.

    Args:
        names: the inputs that the tokenizer returns and the model takes.
        pad_values: what shorter texts are padded with, by input.
        padding_side: where they are padded.
        allows_padding: False for a model whose results padding changes; each of its batches has
            texts of one length.
        end_token_id: of a model that reads its result at the end token, and so needs the same
            number of them in each text of a batch; None for others.
        vocab_size: rows of the embedding; None where there is none.
    """

    names: tuple[str, ...]
    pad_values: Mapping[str, int]
    padding_side: Literal["left", "right"] = "right"
    allows_padding: bool = True
    end_token_id: int | None = None
    vocab_size: int | None = None

    @property
    def pad_token_id(self) -> int:
        return self.pad_values["input_ids"]

    @property
    def takes_mask(self) -> bool:
        return "attention_mask" in self.names

    @property
    def other_names(self) -> tuple[str, ...]:
        """The inputs beside ids and mask."""
        return tuple(name for name in self.names if name not in ALWAYS_TAKEN)


def input_format(model: Any, tokenizer: Any, *, allows_padding: bool = True) -> InputFormat:
    """Read the format off a model and a tokenizer that ``configure_padding`` has prepared."""
    taken = accepted_inputs(model)
    others = [name for name in _other_inputs(tokenizer) if name in taken]
    pad_values = {"input_ids": tokenizer.pad_token_id, "attention_mask": 0}
    for name in others:
        pad_values[name] = 0
    if "token_type_ids" in others:
        # Padding is masked, so that any type will do that the model knows.
        pad_values["token_type_ids"] = int(getattr(tokenizer, "pad_token_type_id", 0))
    usual = [name for name in ALWAYS_TAKEN if name in taken]
    return InputFormat(
        names=(*usual, *others),
        pad_values=pad_values,
        padding_side=getattr(tokenizer, "padding_side", "right"),
        allows_padding=allows_padding,
        end_token_id=_end_token_id(model),
        vocab_size=vocab_size_of(model),
    )


def _other_inputs(tokenizer: Any) -> tuple[str, ...]:
    """What the tokenizer returns beside ids and mask with one value a token.

    These are token types; in RoCBert shapes and sounds, too.
    """
    # Absent in a stand-in of transformers' tokenizers.
    if not hasattr(tokenizer, "model_input_names"):
        return ()
    encoded = tokenizer(["a"])
    length = len(encoded["input_ids"][0])
    names = []
    for name, rows in encoded.items():
        if name not in ALWAYS_TAKEN and isinstance(rows[0], list) and len(rows[0]) == length:
            names.append(name)
    return tuple(names)


def accepted_inputs(model: Any) -> frozenset[str]:
    """Names of the arguments that the model's call takes.

    Of a model that takes any keyword, those that it names count, and ids and mask in any case.
    """
    call: Any = base_of(model)
    if isinstance(call, torch.nn.Module):
        call = call.forward
    parameters = inspect.signature(call).parameters
    names = set(parameters)
    kinds = {parameter.kind for parameter in parameters.values()}
    if inspect.Parameter.VAR_KEYWORD in kinds and "input_ids" not in names:
        names.update(ALWAYS_TAKEN)
    return frozenset(names)


def vocab_size_of(model: Any) -> int | None:
    """Rows of the model's input embedding; None without one, as in models of characters."""
    try:
        weight = model.get_input_embeddings().weight
    except (AttributeError, NotImplementedError):
        return None
    if weight.dim() != 2:
        return None
    return int(weight.shape[0])


def _end_token_id(model: Any) -> int | None:
    """The end token of an encoder-decoder classifier, which pools the decoder's state there.

    T5, BART and similar models do.
    """
    config = getattr(model, "config", None)
    if config is None or not getattr(config, "is_encoder_decoder", False):
        return None
    end = getattr(config, "eos_token_id", None)
    if isinstance(end, list):
        return end[0]
    return end


def encode_batch(tokenizer: Any, texts: Sequence[str], max_length: int) -> Encoded:
    """The texts as one batch, on the CPU, padded to its longest text.

    Returns:
        All that the tokenizer returns, and always a mask; each int64 of shape ``[rows, tokens]``.

    No model runs on no token at all: where every text is empty, each gets one token of padding.
    """
    encoded = tokenizer(
        list(texts),
        padding=True,
        truncation=True,
        max_length=max_length,
        return_attention_mask=True,
        return_tensors="pt",
    )
    if encoded["input_ids"].shape[1] == 0:
        shape = (len(texts), 1)
        ids = torch.full(shape, tokenizer.pad_token_id)
        return {"input_ids": ids, "attention_mask": torch.zeros(shape, dtype=torch.long)}
    shape = encoded["input_ids"].shape
    return {name: tensor.long() for name, tensor in encoded.items() if tensor.shape == shape}


def select_inputs(encoded: Encoded, names: Sequence[str], device: torch.device) -> Encoded:
    """Of a batch what the model takes, on its device."""
    return {name: encoded[name].to(device) for name in names if name in encoded}


def compute_logits(
    model: Any, encoded: Encoded, names: Sequence[str], device: torch.device
) -> torch.Tensor:
    """Run one encoded batch.

    Returns:
        float32 on the CPU, of shape ``[texts, labels]``.
    """
    logits: torch.Tensor = model(**select_inputs(encoded, names, device)).logits
    return logits.float().cpu()


def count_end_tokens(
    tokenizer: Any, texts: Sequence[str], max_length: int, end_token_id: int
) -> list[int]:
    """How many end tokens each text has once it is tokenized.

    It is more than one where the text itself contains the end token.
    """
    clean = [replace_surrogates(text) for text in texts]
    encoded = tokenizer(clean, truncation=True, max_length=max_length)
    return [list(ids).count(end_token_id) for ids in encoded["input_ids"]]

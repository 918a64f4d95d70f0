"""Which models need an attention mask for padding, and how a model learns that there is none."""

from __future__ import annotations

from typing import Any

import torch

from utils.evaluation.batching import FULL, MIN_FILL
from utils.model.adapter import num_virtual_tokens
from utils.model.encoding import InputFormat


def can_leave_out_mask(model: Any, inputs: InputFormat) -> bool:
    """Whether padding changes nothing without a mask: a causal model's tokens do not see padding on
    their right.

    Prompt-learning adapters put tokens of their own in front, which needs the mask.
    """
    if not inputs.takes_mask or inputs.padding_side != "right":
        return False
    return num_virtual_tokens(model) == 0 and is_causal(model)


def choose_min_fill(model: Any, inputs: InputFormat, device: torch.device) -> float:
    """Share of a token budget from which a batch ends where the length of the texts changes.

    A batch that ends there needs no mask; a causal model never does. On a GPU the host launches as
    many kernels for a small batch as for a full one, so that a causal model's batches are full.
    """
    if device.type == "cuda" and can_leave_out_mask(model, inputs):
        return FULL
    return MIN_FILL


def is_causal(model: Any) -> bool:
    """Whether no token of the model sees one on its right, by its attention modules and its config.

    A decoder that its config makes bidirectional keeps modules that declare themselves causal.
    """
    list_modules: Any = getattr(model, "modules", list)
    declared = [module.is_causal for module in list_modules() if hasattr(module, "is_causal")]
    if not declared or not all(declared):
        return False
    settings = model.config.get_text_config()
    if getattr(settings, "use_bidirectional_attention", False):
        return False
    return getattr(settings, "is_causal", True) is not False


@torch.inference_mode()
def no_mask_argument(model: Any, device: torch.device) -> dict[str, None] | None:
    """The value of ``attention_mask`` for a causal model without a mask.

    Two values mean that there is no mask:

    - ``model(input_ids, attention_mask=None)`` works for every model, and is slower;
    - ``model(input_ids, attention_mask={"full_attention": None})`` says for each kind of layer that
      it has no mask. Only some decoders accept it.

    Returns:
        The dictionary where the model accepts it, otherwise None.

    Given None, transformers checks whether several texts are packed into one row: a wait for the
    device at every batch, and under ``torch.compile`` a mask after all. Decoders with several kinds
    of layer take a mask for each kind, which may be None. This is used only for kernels that are
    causal without a mask, and only where a test run gives the same logits both ways.
    """
    settings = model.config.get_text_config()
    is_causal_kernel = settings._attn_implementation in ("sdpa", "flash_attention_2")
    layer_types = set(getattr(settings, "layer_types", None) or ())
    if not is_causal_kernel or layer_types != {"full_attention"}:
        return None
    input_ids = torch.arange(1, 9, device=device)[None]  # (1 row, 8 tokens)
    argument: dict[str, None] = {"full_attention": None}
    try:
        without = model(input_ids=input_ids, attention_mask=None).logits
        with_argument = model(input_ids=input_ids, attention_mask=argument).logits
    except Exception:  # noqa: BLE001 - a model that takes no such argument raises whatever it likes
        return None
    return argument if torch.equal(without, with_argument) else None

"""Which fused attention kernels the evaluation lets PyTorch choose from on a CUDA device.

The batch-size sweep measures the model as a user's own loop runs it and never enters
:func:`evaluation_attention`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from utils.schema.evaluation import AttentionKernels

BACKENDS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "memory_efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "math": SDPBackend.MATH,
}


def attention_kernels(model: Any) -> AttentionKernels:
    """What the record of the evaluation says about its attention on CUDA.

    Call it outside :func:`evaluation_attention`: it reads what the process allows.
    """
    stock = _kernels_of_process()
    return AttentionKernels(
        batch_size_sweep=tuple(stock),
        evaluation=tuple(_without_cudnn(stock)),
        repeats_key_value_heads=repeats_heads(model),
    )


def repeats_heads(model: Any) -> bool:
    """Whether grouped key-value heads are repeated: in float32 only, see :func:`_ungrouped`."""
    return getattr(model, "dtype", None) == torch.float32


@contextmanager
def evaluation_attention(model: Any, device: torch.device) -> Iterator[None]:
    """On a CUDA device: no cuDNN attention, and float32 attention without grouped heads.

    cuDNN builds a plan for every new number of rows and tokens, which takes 25 to 400 ms. Batches
    that are grouped by length have hundreds of such shapes, so the plans would cost more than the
    kernels save. PyTorch's switches belong to the process; they are as before after the block. On
    other devices nothing changes.
    """
    if device.type != "cuda":
        yield
        return
    allowed = _without_cudnn(_kernels_of_process())
    with sdpa_kernel([BACKENDS[name] for name in allowed]):
        if not repeats_heads(model):
            yield
            return
        with _repeated_heads():
            yield


def _kernels_of_process() -> list[str]:
    """The kernels that PyTorch may choose from now, by their names in the record."""
    is_enabled = {
        "flash": torch.backends.cuda.flash_sdp_enabled(),
        "memory_efficient": torch.backends.cuda.mem_efficient_sdp_enabled(),
        "cudnn": torch.backends.cuda.cudnn_sdp_enabled(),
        "math": torch.backends.cuda.math_sdp_enabled(),
    }
    return [name for name in BACKENDS if is_enabled[name]]


def _without_cudnn(kernels: list[str]) -> list[str]:
    """The kernels but cuDNN's; all of them where no other is allowed."""
    others = [name for name in kernels if name != "cudnn"]
    return others or kernels


@contextmanager
def _repeated_heads() -> Iterator[None]:
    """While the block runs, PyTorch's attention repeats grouped heads; see :func:`_ungrouped`.

    The function of PyTorch is wrapped rather than the one of transformers: models with attention
    of their own call it too, and transformers, which looks at the name of the configured
    attention when it builds masks, sees no other name.
    """
    functional: Any = torch.nn.functional
    stock = functional.scaled_dot_product_attention
    functional.scaled_dot_product_attention = _ungrouped(stock)
    try:
        yield
    finally:
        functional.scaled_dot_product_attention = stock


def _ungrouped(attention: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """The same attention with key and value heads repeated instead of grouped, in float32.

    Flash and cuDNN have no float32, and the memory-efficient kernel of PyTorch up to 2.13 takes no
    grouped heads. Grouped heads in float32 therefore run the math kernel, which stores scores of
    rows x heads x length x length. The repeated heads are the same numbers, and small beside that.
    """

    def attend(
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        *arguments: Any,
        enable_gqa: bool = False,
        **options: Any,
    ) -> torch.Tensor:
        if not enable_gqa or query.dtype != torch.float32:
            return attention(query, key, value, *arguments, enable_gqa=enable_gqa, **options)
        # (rows, heads, tokens, width); the number of heads is a Python integer: no wait.
        num_heads = query.shape[-3]
        key = key.repeat_interleave(num_heads // key.shape[-3], dim=-3)
        value = value.repeat_interleave(num_heads // value.shape[-3], dim=-3)
        return attention(query, key, value, *arguments, **options)

    return attend

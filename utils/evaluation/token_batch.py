"""Rows of a chunk as one padded batch on the device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from utils.evaluation.batching import Indices
from utils.evaluation.tokens import TokenArray, TokenChunk
from utils.model.encoding import InputFormat


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenBatch:
    """A batch on the device, each tensor int64 of shape ``[rows, tokens]``.

    ``mask`` is None where it would change nothing.
    """

    ids: torch.Tensor
    mask: torch.Tensor | None
    others: Mapping[str, torch.Tensor]


def make_batch(
    chunk: TokenChunk,
    rows: Indices,
    inputs: InputFormat,
    device: torch.device,
    *,
    with_mask: bool,
) -> TokenBatch:
    """The rows as one batch, padded to the longest on the side that the model takes.

    There should be no mask where it would change nothing, so that faster attention kernels apply:
    for rows of one length, and for a causal model, whose tokens see no padding on their right.
    Where such a model reads its result, the last token that is not the padding token, depends on a
    row's own tokens, never on how far it is padded, so a padding token within a text is harmless
    too.
    """
    is_real = _real_positions(chunk.lengths[rows], inputs.padding_side)
    others = {}
    for name, values in chunk.others.items():
        padded = _pad(values, rows, is_real, inputs.pad_values[name])
        others[name] = _to_device(padded, device)
    ids = _pad(chunk.ids, rows, is_real, inputs.pad_values["input_ids"])
    mask = None
    if with_mask:
        mask = _to_device(is_real.astype(np.int64), device)
    return TokenBatch(ids=_to_device(ids, device), mask=mask, others=others)


def _real_positions(lengths: Indices, padding_side: str) -> NDArray[np.bool_]:
    """Which positions of a batch, ``[rows, tokens]``, hold a token of the text."""
    columns = np.arange(int(lengths.max()))
    is_real: NDArray[np.bool_]
    if padding_side == "right":
        is_real = columns < lengths[:, None]
    else:
        is_real = columns >= (columns.size - lengths)[:, None]
    return is_real


def _pad(
    values: Sequence[TokenArray], rows: Indices, is_real: NDArray[np.bool_], pad_value: int
) -> TokenArray:
    batch = np.full(is_real.shape, pad_value, dtype=np.int64)
    batch[is_real] = np.concatenate([values[row] for row in rows])
    return batch


def _to_device(values: TokenArray, device: torch.device) -> torch.Tensor:
    tensor = torch.from_numpy(values)
    if device.type != "cuda":
        return tensor
    return tensor.pin_memory().to(device, non_blocking=True)

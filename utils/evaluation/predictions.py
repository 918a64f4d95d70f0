"""Results of batches: on the device, on their way to the host, and as predictions in file order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from utils.evaluation.batching import Indices, computed_tokens


@dataclass(frozen=True, kw_only=True, slots=True)
class Predictions:
    """For each row its most probable label and that label's probability, NaN where a logit is not
    finite.

    The probability is a softmax over the labels, or for a multi-label model the label's own
    sigmoid.
    """

    predicted_ids: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    computed_tokens: int


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchOutput:
    """Label ids and probabilities of a batch, each of shape ``[rows]``, on the device."""

    label_ids: torch.Tensor
    probabilities: torch.Tensor


class PendingPredictions:
    """A chunk whose batches are launched: on a GPU they may still run, and their results be on the
    way here.

    Args:
        lengths: tokens of each row of the chunk.
        batches: the rows of each batch, as positions into the chunk; every row stands in exactly
            one.
        output: the results of all batches, in their order.
    """

    def __init__(self, lengths: Indices, batches: list[Indices], output: BatchOutput) -> None:
        self._lengths = lengths
        self._batches = batches
        self._label_ids = _copy_to_host(output.label_ids)
        self._probabilities = _copy_to_host(output.probabilities)
        self._copied: torch.cuda.Event | None = None
        if output.label_ids.is_cuda:
            # Waiting for it otherwise keeps a core busy that the tokenizer needs.
            self._copied = torch.cuda.Event(blocking=True)
            self._copied.record(torch.cuda.current_stream(output.label_ids.device))

    def result(self) -> Predictions:
        """The predictions in the chunk's order; waits for this chunk, not for what was launched
        after it.
        """
        if self._copied is not None:
            self._copied.synchronize()
        rows = np.concatenate(self._batches)
        assert len(rows) == len(self._lengths), "every row was predicted once"
        predicted_ids = np.empty(len(rows), dtype=np.int64)
        probabilities = np.empty(len(rows), dtype=np.float32)
        predicted_ids[rows] = self._label_ids.numpy()
        probabilities[rows] = self._probabilities.numpy()
        return Predictions(
            predicted_ids=predicted_ids,
            probabilities=probabilities,
            computed_tokens=sum(computed_tokens(self._lengths[batch]) for batch in self._batches),
        )


def _copy_to_host(tensor: torch.Tensor) -> torch.Tensor:
    """A copy in pinned memory that the device fills when it gets there; on the CPU the tensor
    itself.
    """
    if not tensor.is_cuda:
        return tensor
    pinned = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return pinned.copy_(tensor, non_blocking=True)

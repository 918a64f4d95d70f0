"""Batches of texts and the model that classifies them, from texts to logits on the host."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch

from utils.model.encoding import encode_batch
from utils.model_utils import LoadedModel

MAX_BATCHES = 8
"""Batches of one size that are timed and counted; more add little but time."""

Span = Callable[[str], AbstractContextManager[Any]]
Inputs = dict[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Workload:
    """Batches of texts and the model that classifies them."""

    loaded: LoadedModel
    batches: tuple[list[str], ...]
    max_length: int

    def run(
        self, index: int, span: Span, encode: Callable[[int], Inputs] | None = None
    ) -> torch.Tensor:
        """One batch from texts to logits on the host, each phase in a ``span``.

        Args:
            encode: other than :meth:`encode`.

        Returns:
            float32, rows x labels.
        """
        with span("tokenize"):
            encoded = (encode or self.encode)(index)
        with span("host_to_device"):
            inputs = self.to_device(encoded)
        with span("forward"):
            logits = self.forward(inputs)
        with span("device_to_host"):
            return logits.float().cpu()

    def encode(self, index: int) -> Inputs:
        """A batch's token ids and mask on the host, each rows x length; they come in turn."""
        texts = self.batches[index % len(self.batches)]
        return encode_batch(self.loaded.tokenizer, texts, self.max_length)

    def inputs(self, index: int) -> Inputs:
        """A batch on the device, with its mask also where the model takes none."""
        return self.to_device(self.encode(index))

    def forward(self, inputs: Inputs) -> torch.Tensor:
        """Logits of a batch on the device, rows x labels."""
        taken = {name: inputs[name] for name in self.loaded.inputs.names if name in inputs}
        logits: torch.Tensor = self.loaded.model(**taken).logits
        return logits

    def to_device(self, encoded: Inputs) -> Inputs:
        return {name: tensor.to(self.loaded.device) for name, tensor in encoded.items()}


def make_batches(texts: Sequence[str], size: int) -> tuple[list[str], ...]:
    """Full batches in order, at most eight; one smaller batch where there are too few texts."""
    batches = split_into_batches(texts, size)
    full = [batch for batch in batches if len(batch) == size]
    return tuple(full[:MAX_BATCHES]) or batches[:1]


def split_into_batches(texts: Sequence[str], size: int) -> tuple[list[str], ...]:
    """Batches of ``size`` texts in order; the last one has the texts that remain."""
    batches = []
    for start in range(0, len(texts), size):
        batches.append(list(texts[start : start + size]))
    return tuple(batches)

"""FLOPs of a pass over the sample: counted once for each shape of a batch, within a stated time."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch

from utils.model.costs import count_op_costs
from utils.model.encoding import encode_batch, select_inputs

COUNTING_S = 20.0
"""After so many seconds at one batch size no more shapes are counted: a counted forward starts
every operator from Python, which takes a fast GPU many times as long as the forward itself."""
MIN_LENGTHS = 5
"""So many lengths of batches that differ in nothing else are counted whatever the time: the three
coefficients of ``_fit`` follow from three of them, and the others check these."""
ENOUGH_LENGTHS = 9
"""Once so many lengths, spread evenly, lie exactly on a curve, the others are computed from it. On
an H100, counting a forward of 24 layers takes some 0.2 s, and a sample has a hundred lengths."""
MAX_FIT_ERROR = 1e-6
"""Largest relative error of the fit at a counted length. FLOPs are whole numbers, so that a model
whose FLOPs have the assumed form is fitted exactly, but for rounding."""


class BatchKind(NamedTuple):
    """What decides the FLOPs of a batch beside its length.

    Causal attention without a mask, which needs a batch without padding, computes half.
    """

    num_rows: int
    has_padding: bool


Batches = Mapping[BatchKind, Mapping[int, list[str]]]
"""The texts of a batch of each kind and length."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FlopsPerSample:
    """Executed FLOPs per sample, padding included.

    Args:
        value: None where no operator has a formula, or ``reason`` says why it is not known.
    """

    value: float | None = None
    reason: str | None = None


class FlopCounter:
    """Counts the FLOPs of every operator that has a formula, in batches of a sample.

    Args:
        model: in eval mode, on ``device``.
        tokenizer: pads to the longest text of a batch.
        input_names: inputs that the model takes.
        device: of the model.
        clock: seconds.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        input_names: tuple[str, ...],
        device: torch.device,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._input_names = input_names
        self._device = device
        self._clock = clock
        self._counted: dict[BatchKind, dict[int, int]] = defaultdict(dict)

    def per_sample(self, texts: list[str], size: int, max_length: int) -> FlopsPerSample:
        """FLOPs per text in batches of ``size``, from all of its batches or not at all.

        Shapes that there is no time for are computed from the counted ones where these lie exactly
        on a curve, see :func:`_fit`.
        """
        num_batches: Counter[tuple[BatchKind, int]] = Counter()
        batches: dict[BatchKind, dict[int, list[str]]] = defaultdict(dict)
        for start in range(0, len(texts), size):
            batch_texts = texts[start : start + size]
            encoded = encode_batch(self._tokenizer, batch_texts, max_length)
            num_rows, length = encoded["input_ids"].shape
            has_padding = not bool(encoded["attention_mask"].all())
            kind = BatchKind(num_rows=num_rows, has_padding=has_padding)
            num_batches[kind, length] += 1
            batches[kind].setdefault(length, batch_texts)
        self._count(batches, max_length)
        total = 0.0
        for (kind, length), number in num_batches.items():
            flops = self._flops(kind, length)
            if flops is None:
                return FlopsPerSample(reason=self._why_missing(batches))
            total += number * flops
        if total == 0:
            return FlopsPerSample()
        return FlopsPerSample(value=total / len(texts))

    def _count(self, batches: Batches, max_length: int) -> None:
        """Count the shapes that were not counted before, until the time is over."""
        started = self._clock()
        for kind, texts_by_length in batches.items():
            counted = self._counted[kind]
            for length in _spread_evenly(texts_by_length):
                is_late = self._clock() - started > COUNTING_S
                if length in counted or (is_late and len(counted) >= MIN_LENGTHS):
                    continue
                if len(counted) >= ENOUGH_LENGTHS and _fit(counted, length) is not None:
                    continue
                self._count_batch(kind, length, texts_by_length[length], max_length)

    def _count_batch(self, kind: BatchKind, length: int, texts: list[str], max_length: int) -> None:
        encoded = encode_batch(self._tokenizer, texts, max_length)
        inputs = select_inputs(encoded, self._input_names, self._device)
        costs = count_op_costs(partial(self._model, **inputs))
        self._counted[kind][length] = sum(cost.flops for cost in costs if cost.flops)

    def _flops(self, kind: BatchKind, length: int) -> float | None:
        """Of one batch; None where it was not counted and cannot be computed."""
        counted = self._counted[kind]
        if length in counted:
            return counted[length]
        return _fit(counted, length)

    def _why_missing(self, batches: Batches) -> str:
        num_shapes = 0
        num_counted = 0
        for kind, texts_by_length in batches.items():
            num_shapes += len(texts_by_length)
            num_counted += len(texts_by_length.keys() & self._counted[kind].keys())
        return (
            f"{num_counted} of {num_shapes} shapes of batches were counted within"
            f" {COUNTING_S:.0f} s, and the others do not follow from these"
        )


def _spread_evenly(lengths: Iterable[int]) -> list[int]:
    """The shortest and the longest length, the middle one, then the middles between these, ….

    The first few then show whether the FLOPs of all of them lie on one curve.
    """
    ordered = sorted(lengths)
    last = len(ordered) - 1
    places = [0, last]
    parts = 2
    while parts < 2 * len(ordered):
        places += [last * part // parts for part in range(1, parts)]
        parts *= 2
    return [ordered[place] for place in dict.fromkeys([*places, *range(len(ordered))])]


def _fit(counted: Mapping[int, int], length: int) -> float | None:
    """FLOPs at ``length`` from those at other lengths of the same kind of batch.

    Linear layers take FLOPs in proportion to the length, attention to its square, and some layers
    take the same for any length: three coefficients.

    Returns:
        None where too few lengths were counted, ``length`` is not among them, or the counted FLOPs
        have another form, as those of attention within windows.
    """
    if len(counted) < MIN_LENGTHS or not min(counted) < length < max(counted):
        return None
    lengths = np.array(list(counted), dtype=float)
    flops = np.array(list(counted.values()), dtype=float)
    if not flops.any():
        return 0.0
    columns = np.column_stack((np.ones_like(lengths), lengths, lengths**2))
    coefficients = np.linalg.lstsq(columns, flops, rcond=None)[0]
    errors = np.abs(columns @ coefficients - flops)
    if (errors > MAX_FIT_ERROR * flops).any():
        return None
    return float(np.array([1.0, length, length**2]) @ coefficients)
